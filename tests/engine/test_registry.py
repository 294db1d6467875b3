import sys
from pathlib import Path

import pytest

from engine.errors import InvalidSpec
from engine.registry import Registry


class Thing:
    """What the registry of these tests holds."""


def install(site: Path, content: str, *entries: str, name: str = "a-plug-in") -> None:
    """Write a distribution with one module, as pip leaves it behind."""
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text(content)
    facts = site / f"{module}-2.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    lines = [f"{entry} = {module}:{entry}" for entry in entries]
    (facts / "entry_points.txt").write_text("\n".join(["[lethe.things]", *lines]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of Python; what is imported from it is forgotten again."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("a_plug_in", "another"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


@pytest.fixture
def things() -> Registry[object]:
    made: Registry[object] = Registry("things", of=Thing)
    made.register("own")(Thing())
    return made


def test_a_component_of_another_distribution_is_found_by_name(site: Path) -> None:
    install(site, "class Other(list): ...\nother = Other()\n", "other")
    things: Registry[object] = Registry("things", of=list)
    assert list(things) == ["other"]
    assert "other" in things
    assert type(things.get("other")).__name__ == "Other"


def test_a_subclass_is_as_good_as_an_instance(site: Path) -> None:
    install(site, "class Other(list): ...\n", "Other")
    things: Registry[object] = Registry("things", of=list)
    assert things.get("Other") is not None


def test_a_component_may_register_itself_when_it_is_loaded(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    things: Registry[object] = Registry("things")
    monkeypatch.setattr("engine.registry.things", things, raising=False)
    code = "from engine.registry import things\n@things.register('other')\ndef other(): ...\n"
    install(site, code, "other")
    assert list(things) == ["other"]


BROKEN = {
    "missing import": ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such"),
    "error on import": ("1 / 0\n", "ZeroDivisionError"),
    "no such name": ("", "has no attribute 'other'"),
    "another kind": ("other = 3\n", "a Thing is expected, and it is a int"),
}


@pytest.mark.parametrize("kind", list(BROKEN))
def test_a_broken_distribution_is_named_every_time(
    kind: str, site: Path, things: Registry[object]
) -> None:
    content, reason = BROKEN[kind]
    install(site, content, "other")
    for ask in (lambda: things.get("other"), lambda: list(things), lambda: "other" in things):
        with pytest.raises(InvalidSpec, match="'other' of the distribution a-plug-in 2") as caught:
            ask()
        assert reason in str(caught.value)


def test_what_the_engine_has_is_found_beside_a_broken_distribution(
    site: Path, things: Registry[object]
) -> None:
    install(site, "import no_such_library\n", "other")
    assert isinstance(things.get("own"), Thing)
    assert "own" in things


def test_a_name_that_is_taken_is_refused(site: Path, things: Registry[object]) -> None:
    install(site, "own = 3\n", "own")
    with pytest.raises(InvalidSpec, match=r"a-plug-in 2\.0.*another component has this name"):
        list(things)


def test_two_distributions_cannot_have_one_name(site: Path) -> None:
    install(site, "other = 3\n", "other")
    install(site, "other = 4\n", "other", name="another")
    with pytest.raises(InvalidSpec, match="another component has this name"):
        list(Registry("things"))


def test_an_unknown_name_is_told_with_the_known_ones(site: Path, things: Registry[object]) -> None:
    install(site, "class Other: ...\n", name="another")
    with pytest.raises(InvalidSpec, match="'nothing' is unknown; known are own"):
        things.get("nothing")


def test_a_name_is_registered_once(things: Registry[object]) -> None:
    with pytest.raises(InvalidSpec, match="registered twice"):
        things.register("own")(Thing())
