import subprocess
import sys

import pytest

import engine


def fresh(code: str) -> str:
    """Run code in a new interpreter and return what it printed."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_specification_is_there_without_torch() -> None:
    code = "import sys, engine; engine.RunSpec; print('torch' in sys.modules)"
    assert fresh(code) == "False"


def test_everything_that_is_promised_is_there() -> None:
    for name in engine.__all__:
        assert callable(getattr(engine, name))


def test_run_can_be_called_whatever_was_imported_before() -> None:
    code = "import engine.run\nfrom engine import run\nprint(callable(run), run is engine.run)"
    assert fresh(code) == "True True"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'engine' has no attribute 'nothing'"):
        getattr(engine, "nothing")  # noqa: B009 - mypy knows that it is not there
