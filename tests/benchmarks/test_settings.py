"""`--set`: parameters of methods from the command line."""

from benchmarks.paper.settings import read_settings


def test_values_are_numbers_truths_and_words_and_the_last_of_a_name_counts() -> None:
    given = ["alpha=6", "balanced=false", "unrelated=anchored", "alpha = 7.5"]
    found = read_settings([*(f"multidelete.{text}" for text in given), "dtd.steps=5"])
    own = {"alpha": 7.5, "balanced": False, "unrelated": "anchored"}
    assert found == {"multidelete": own, "dtd": {"steps": 5}}


def test_nothing_is_set_where_nothing_is_given() -> None:
    assert read_settings([]) == {}
