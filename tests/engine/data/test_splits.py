import pytest

from engine.data.splits import split_in, split_of
from engine.errors import DataError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("snli_ve_train.jsonl", "train"),
        ("snli_ve_dev.jsonl", "val"),
        ("test1.json", "test"),
        ("shards/VAL-000003.tar", "val"),
        ("train/000000.tar", "train"),
    ],
)
def test_the_name_of_a_file_says_its_split(name: str, split: str) -> None:
    assert split_in(name) == split


@pytest.mark.parametrize("name", ["snli_ve.jsonl", "train_test.jsonl", "trainer.jsonl"])
def test_a_name_without_one_split_is_an_error(name: str) -> None:
    with pytest.raises(DataError, match="must say which split it is"):
        split_in(name)


def test_a_split_that_nobody_knows_is_an_error_that_names_the_line() -> None:
    assert split_of("restval", file="x") == "train"
    with pytest.raises(DataError, match=r"x\.jsonl, line 2: the split is 'fold1'; known are train"):
        split_of("fold1", file="x.jsonl", line=2)
