import pytest

from engine.data.pairs import Pair, PairDataset
from engine.division import divide, without_deleted
from engine.errors import InvalidSpec
from engine.spec import DataSpec, RunSpec, Split

SPLITS: tuple[Split, ...] = ("train", "train", "train", "train", "train", "val", "test", "test")


class NoItems:
    def load(self, reference: str) -> object:
        raise KeyError(reference)


@pytest.fixture
def dataset() -> PairDataset:
    pairs = [
        Pair(f"p{row}", (f"{row}.png",), (f"i{row}",), f"text {row}", f"t{row}", None, split)
        for row, split in enumerate(SPLITS)
    ]
    return PairDataset("small", "image", pairs, NoItems())


def spec(**changes: object) -> RunSpec:
    given = {"action": "unlearn", "family": "albef", "task": "retrieval", **changes}
    data = DataSpec(manifest="manifest.jsonl", root=".")
    return RunSpec.model_validate({"data": data, **given})


def test_pairs_are_divided_by_row(dataset: PairDataset) -> None:
    found = divide(dataset, spec(forget={"a": ["p3"], "b": ["p1"]}, forgotten={"z": ["p0"]}))
    assert found.forget.tolist() == [1, 3]
    assert found.forgotten.tolist() == [0]
    assert found.retain.tolist() == [2, 4]
    assert found.validation.tolist() == [5]
    assert found.test.tolist() == [6, 7]
    assert found.deleted.tolist() == [1, 3, 0]


def test_ids_named_twice_count_once(dataset: PairDataset) -> None:
    found = divide(dataset, spec(forget={"a": ["p1", "p1"], "b": ["p1", "p2"]}))
    assert found.forget.tolist() == [1, 2]
    assert found.requests["b"].tolist() == [1, 2]


def test_what_an_ancestor_forgot_is_not_forgotten_again(dataset: PairDataset) -> None:
    found = divide(dataset, spec(forget={"a": ["p1", "p2"]}, forgotten={"z": ["p1"]}))
    assert found.forget.tolist() == [2]
    assert found.forgotten.tolist() == [1]
    assert found.requests["a"].tolist() == [1, 2]


def test_each_earlier_pair_belongs_to_the_request_that_named_it_first(dataset: PairDataset) -> None:
    before = {"y": ["p3"], "z": ["p0", "p3", "p2"]}
    found = divide(dataset, spec(forgotten=before, action="evaluate"))
    assert found.forgotten.tolist() == [0, 2, 3]
    assert found.forgotten_by.tolist() == [1, 1, 0]
    assert divide(dataset, spec(forget={"a": ["p1"]})).forgotten_by.tolist() == []


def test_subsets_are_measured_as_their_names_say(dataset: PairDataset) -> None:
    one = divide(dataset, spec(forget={"a": ["p1"]}))
    assert {name: rows.tolist() for name, rows in one.subsets().items()} == {"forget": [1]}
    more = divide(dataset, spec(forget={"a": ["p1"], "b": ["p2"]}, forgotten={"z": ["p0"]}))
    assert {name: rows.tolist() for name, rows in more.subsets().items()} == {
        "forget": [1, 2],
        "forgotten": [1, 2, 0],
        "request:a": [1],
        "request:b": [2],
    }


def test_unknown_ids_are_counted_and_the_first_twenty_named(dataset: PairDataset) -> None:
    unknown = [f"x{number:02}" for number in range(25)]
    with pytest.raises(InvalidSpec, match=r"25 pair ids are not in data set small.*x19 and 5 more"):
        divide(dataset, spec(forget={"a": ["p1", *unknown]}))


def test_only_training_pairs_can_be_forgotten(dataset: PairDataset) -> None:
    with pytest.raises(InvalidSpec, match=r"1 pair ids are validation or test pairs.*: p6"):
        divide(dataset, spec(forget={"a": ["p1", "p6"]}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "no pair is named"),
        ({"forget": {"a": []}}, "all of the named pairs were forgotten before"),
        ({"forget": {"a": ["p1"]}, "forgotten": {"z": ["p1"]}}, "were forgotten before"),
        ({"forget": {"a": [f"p{n}" for n in range(5)]}}, "at least 2 training pairs must remain"),
        ({"forget": {"a": ["p0", "p1"]}, "forgotten": {"z": ["p2", "p3"]}}, "and 1 would"),
        ({"action": "train", "forget": {"a": ["p1"]}}, "a training forgets nothing"),
    ],
)
def test_a_contradiction_is_refused(
    dataset: PairDataset, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidSpec, match=message):
        divide(dataset, spec(**changes))


def test_a_fresh_model_is_made_without_deleted_pairs(dataset: PairDataset) -> None:
    division = divide(dataset, spec(forget={"a": ["p1"]}, forgotten={"z": ["p0"]}))
    kept = without_deleted(dataset, division)
    assert [pair.id for pair in kept.pairs] == ["p2", "p3", "p4", "p5", "p6", "p7"]
