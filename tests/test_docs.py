"""What the pages and the Makefile say must be so."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from app.cli import app
from app.core.settings import Settings
from app.core.settings_page import settings_page

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# Variables of the tests and of the compose file, which are no settings.
OTHERS = {"LETHE_TEST_DATA", "LETHE_TEST_DATABASE_URL", "LETHE_TEST_REDIS_URL", "LETHE_DATASETS"}


def _text() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def test_the_page_of_settings_is_what_the_code_says() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "run `make docs`"


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_is_described(name: str) -> None:
    assert Settings.model_fields[name].description
    assert f"`LETHE_{name.upper()}`" in settings_page()


def test_pages_name_no_setting_that_does_not_exist() -> None:
    known = {f"LETHE_{name.upper()}" for name in Settings.model_fields} | OTHERS
    assert set(re.findall(r"\bLETHE_[A-Z_]+[A-Z]\b", _text())) <= known


def test_pages_name_no_make_target_that_does_not_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", _text()))
    assert named <= targets


def test_pages_name_no_command_that_does_not_exist() -> None:
    commands = set(getattr(get_command(app), "commands", {}))
    assert commands
    assert set(re.findall(r"`lethe ([a-z]+)", _text())) <= commands


def test_every_command_of_the_engine_is_named_on_a_page() -> None:
    scripts = [
        path.relative_to(ROOT).with_suffix("")
        for path in ROOT.glob("engine/**/*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    ]
    pages = "\n".join(page.read_text() for page in PAGES if page.name != "CHANGELOG.md")
    commands = {".".join(script.parts).removesuffix(".__main__") for script in scripts}
    assert {"engine", "engine.families.albef_convert"} <= commands
    assert {name for name in commands if f"python -m {name} " not in pages} == set()


def test_the_index_of_the_paper_names_what_is_there() -> None:
    page = (ROOT / "docs" / "paper_index.md").read_text(encoding="utf-8")
    tests = {path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/*.py")}
    for place in re.findall(r"`((?:engine|benchmarks|tests)/[\w/]+(?:\.py)?/?)", page):
        assert (ROOT / place).exists(), place
    for name in re.findall(r"`(test_\w+\.py)`", page):
        assert name in tests, name
    for name in re.findall(r"`(test_\w+)`", page):
        assert any(f"def {name}(" in text for text in tests.values()), name
    for made in ("Table 2", "Table 3", "Table 4", "Table 5", "Fig. 2", "deletion volumes"):
        assert re.search(rf"^\| {made}.*`benchmarks/paper/", page, re.MULTILINE), made


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)} links to {link}"


def test_every_row_of_a_table_of_results_is_in_a_file_that_the_benchmark_wrote() -> None:
    written = {
        line
        for tables in ROOT.glob("benchmarks/results/*/tables.md")
        for line in tables.read_text(encoding="utf-8").splitlines()
    }
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    rows = {line for line in page.splitlines() if line.startswith("|")}
    assert len(rows) > 10
    assert rows - written == set()
