"""The page about components of one's own holds: its example is built, installed and run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import engine
from engine.data.digits import write_digits
from engine.families import families
from engine.registry import Registry
from engine.run import run
from engine.spec import RunSpec

ROOT = Path(engine.__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FORGET = ["digits-00000", "digits-00001"]


def files_of_the_page() -> dict[str, str]:
    """Every file that the page shows: its name in backticks, a colon, and a block of code."""
    return dict(re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the distribution of the page."""
    source = tmp_path_factory.mktemp("source") / "lethe-fade"
    source.mkdir()
    for name, content in files_of_the_page().items():
        (source / name).write_text(content, encoding="utf-8")
    target = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "-q", *options, "--target", target, source]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return target


def python(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python where that folder is on the path."""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run on a few digits that trains the tiny ALBEF for one epoch."""
    root = tmp_path_factory.mktemp("digits") / "digits"
    write_digits(root, pairs=40, seed=1)
    sizes = {
        "image_size": [16, 32],
        "patch_size": [8, 8],
        "hidden_size": 16,
        "heads": 2,
        "vision_layers": 1,
        "text_layers": 2,
        "feed_forward": 2,
        "projection_size": 8,
        "vocabulary": 260,
        "max_text_tokens": 24,
    }
    return {
        "action": "train",
        "data": {"manifest": str(root / "manifest.jsonl"), "root": str(root)},
        "family": "albef",
        "task": "retrieval",
        "config": sizes,
        "training": {"epochs": 1, "batch_size": 8},
    }


def unlearned(
    site: Path, spec: dict[str, Any], folder: Path, **asked: object
) -> subprocess.CompletedProcess[str]:
    """Train an original, and unlearn from it in a process that finds the distributions of ``site``."""
    run(RunSpec.model_validate(spec), folder / "original")
    checkpoint = str(folder / "original" / "checkpoint")
    more = {"action": "unlearn", "checkpoint": checkpoint, "forget": {"request": FORGET}, **asked}
    (folder / "asked.json").write_text(json.dumps({**spec, **more}))
    return python(site, "-m", "engine", folder / "asked.json", folder / "out")


def test_the_example_unlearns_and_measures_in_a_process_of_its_own(
    installed: Path, spec: dict[str, Any], tmp_path: Path
) -> None:
    done = unlearned(installed, spec, tmp_path, method="fade", params={"share": 0.5})
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    gaps = [metric for metric in result["metrics"] if metric["name"] == "score_gap"]
    assert {(gap["moment"], gap["subset"]) for gap in gaps} >= {
        ("before", "forget"),
        ("after", "forget"),
    }
    assert all(gap["n"] == len(FORGET) for gap in gaps)
    assert len({gap["value"] for gap in gaps}) > 1
    card = json.loads((tmp_path / "out" / "checkpoint" / "lethe.json").read_text())
    assert card["unlearning"][-1]["method"] == "fade"
    assert card["unlearning"][-1]["params"] == {"share": 0.5}


def test_the_example_is_held_to_the_rules_of_all_others(installed: Path) -> None:
    suites = ["families/test_family_contract.py", "methods/test_method_contract.py"]
    paths = [f"tests/engine/{suite}" for suite in suites]
    options = ["-q", "-p", "no:cacheprovider", "-k", "fade or grey_clip"]
    done = python(installed, "-m", "pytest", *options, *paths)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(done.stdout.rpartition(" passed")[0].split()[-1]) > 40


def test_the_example_stands_in_the_catalogue(installed: Path) -> None:
    printed = python(installed, "-m", "engine.catalogue")
    assert printed.returncode == 0, printed.stderr
    found = json.loads(printed.stdout)
    assert found["methods"]["fade"]["params_schema"]["properties"]["share"]["maximum"] == 1
    assert found["metrics"]["score_gap"]["summary"].startswith("How far retained pairs score")
    assert found["families"]["grey_clip"]["summary"] == "CLIP that sees no colours."


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images in the format of the page."""
    folder = tmp_path_factory.mktemp("photos")
    lines = []
    for number in range(16):
        name = f"{number:02}.png"
        Image.new("RGB", (16, 16), (16 * number, 0, 255)).save(folder / name)
        split = "train" if number < 8 else "val" if number < 12 else "test"
        lines.append(f"{split}\t{name}\tthe photograph {number}")
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def converted(installed: Path, photos: Path) -> Path:
    """The manifest that the command makes of them."""
    done = python(installed, "-m", "app.cli", "convert", photos, photos / "manifest.jsonl")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["format"], report["task"], report["pairs"]) == ("captions", "retrieval", 16)
    assert report["splits"] == {"train": 8, "val": 4, "test": 4}
    return photos / "manifest.jsonl"


def test_the_format_of_the_example_is_found_and_converted(converted: Path) -> None:
    rows = [json.loads(line) for line in converted.read_text(encoding="utf-8").splitlines()]
    expected = {"image": "08.png", "text": "the photograph 8", "split": "val"}
    assert rows[8].items() >= expected.items()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"train\t00.png", "expected split, image and text with tabs between; 2 parts came"),
        (b"train\t99.png\ta dog", "99.png: no such file below the data set's root"),
    ],
)
def test_a_bad_line_in_the_format_of_the_example_is_named(
    installed: Path, tmp_path: Path, line: bytes, reason: str
) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "00.png")
    (tmp_path / "captions.tsv").write_bytes(b"train\t00.png\ta cat\n" + line + b"\n")
    done = python(installed, "-m", "app.cli", "convert", tmp_path, tmp_path / "out.jsonl")
    expected = f"data_error: captions.tsv, line 2: {reason}\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_captions_that_are_no_utf_8_are_told_in_one_sentence(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "captions.tsv").write_bytes(b"\xff\n")
    done = python(installed, "-m", "app.cli", "convert", tmp_path, tmp_path / "out.jsonl")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    expected = f"data_error: {tmp_path}: the format captions fails (UnicodeDecodeError: "
    assert done.stderr.startswith(expected)


def test_the_family_of_the_example_is_trained_and_loaded(
    installed: Path, converted: Path, tmp_path: Path
) -> None:
    data = {"manifest": str(converted), "root": str(converted.parent)}
    common = {"data": data, "family": "grey_clip", "task": "retrieval"}
    training = {"epochs": 1, "batch_size": 4}
    config = families.get("clip").tiny().model_dump(mode="json")
    asked = {**common, "action": "train", "config": config, "training": training}
    (tmp_path / "grey.json").write_text(json.dumps(asked))
    done = python(installed, "-m", "engine", tmp_path / "grey.json", tmp_path / "grey")
    assert done.returncode == 0, done.stdout + done.stderr
    again = {**common, "action": "evaluate", "checkpoint": str(tmp_path / "grey" / "checkpoint")}
    (tmp_path / "again.json").write_text(json.dumps(again))
    done = python(installed, "-m", "engine", tmp_path / "again.json", tmp_path / "again")
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads((tmp_path / n / "result.json").read_text()) for n in ("grey", "again")]
    before, after = (
        [m["value"] for m in result["metrics"] if (m["name"], m["subset"]) == ("d_test", "test")]
        for result in results
    )
    assert before == after
    assert before[0] is not None


def test_a_broken_distribution_ends_a_run_with_its_name(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    site = tmp_path / "site"
    facts = site / "broken_method-1.2.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-method\nVersion: 1.2\n")
    (facts / "entry_points.txt").write_text("[lethe.methods]\nodd = broken_method:odd\n")
    (site / "broken_method.py").write_text("import no_such_library\n")
    asked = {**spec, "action": "unlearn", "method": "odd", "forget": {"request": FORGET}}
    (tmp_path / "odd.json").write_text(json.dumps(asked))
    done = python(site, "-m", "engine", tmp_path / "odd.json", tmp_path / "out")
    assert done.returncode == 1
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert error["code"] == "invalid_spec"
    assert "'odd' of the distribution broken-method 1.2" in error["message"]
    assert "no_such_library" in error["message"]


def test_what_an_extension_prints_stands_in_the_way_of_nothing(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    site = tmp_path / "site"
    facts = site / "chatty-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: chatty\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[lethe.methods]\nchatty = chatty:method\n")
    (site / "chatty.py").write_text(
        "import os\nfrom engine.methods import methods\n"
        "print('from Python')\nos.write(1, b'from a library in C\\n')\n"
        "method = methods.get('finetune')\n"
    )
    done = unlearned(site, spec, tmp_path, method="chatty", params={"epochs": 1})
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert "result" in told[-1]
    assert "from Python" in done.stderr
    assert "from a library in C" in done.stderr


def test_the_metric_has_ten_lines() -> None:
    code = files_of_the_page()["score_gap.py"].strip().splitlines()
    assert len(code) == 10


def test_the_page_names_the_groups_that_are_read() -> None:
    groups = set(re.findall(r"^\| `lethe\.(\w+)`", PAGE, re.MULTILINE))
    import engine.data.formats
    import engine.families
    import engine.methods
    import engine.metrics
    import engine.tasks

    places = (engine.data.formats, engine.families, engine.methods, engine.metrics, engine.tasks)
    read = {
        value.kind
        for place in places
        for value in vars(place).values()
        if isinstance(value, Registry)
    }
    assert groups == read
