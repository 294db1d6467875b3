"""`--set` and `--first-seed`: settings are tried on other originals than tables report."""

import pytest

from benchmarks.figures import BenchmarkError
from benchmarks.paper.__main__ import _options, _parser
from benchmarks.paper.settings import read_settings
from tests.benchmarks.tiny_bench import TINY


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("alpha=6", 6.0),
        ("alpha = .5", 0.5),
        ("alpha=6.", 6.0),
        ("alpha=null", None),
        ("balanced=false", False),
        ("balanced=False", False),
        ("epochs=3", 3),
        ("unrelated=anchored", "anchored"),
    ],
)
def test_a_value_is_what_the_engine_makes_of_it(text: str, value: object) -> None:
    (found,) = read_settings([f"multidelete.{text}"])["multidelete"].values()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("value", ["6 # six", "6\nbeta = 7", "[6]", "[" * 5000, "nan", "true"])
def test_a_value_that_is_no_number_is_refused_where_one_is_expected(value: str) -> None:
    with pytest.raises(BenchmarkError, match="--set multidelete: alpha: "):
        read_settings([f"multidelete.alpha={value}"])


def test_the_last_of_a_name_counts_and_methods_have_their_own() -> None:
    given = ["multidelete.alpha=6", "dtd.steps=5", "multidelete.alpha=7"]
    assert read_settings(given) == {"multidelete": {"alpha": 7.0}, "dtd": {"steps": 5}}
    assert read_settings([]) == {}


def test_both_options_reach_the_plan() -> None:
    call = ["--out", "out", "--device", "cpu", "--methods", "dtd", "--seeds", "2"]
    call += ["--first-seed", "7", "--set", "dtd.steps=3"]
    options = _options(_parser(TINY).parse_args(call), TINY)
    assert list(options.seed_range()) == [7, 8]
    assert options.settings == {"dtd": {"steps": 3}}
