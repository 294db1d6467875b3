from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.spec import RunSpec


def spec(**changes: object) -> RunSpec:
    data = {"manifest": Path("manifest.jsonl"), "root": Path()}
    given = {"action": "train", "data": data, "family": "albef", "task": "retrieval"}
    return RunSpec.model_validate({**given, **changes})


def test_a_seed_is_read_as_it_was_written() -> None:
    assert spec(seed=7).seed == 7
    assert RunSpec.model_validate_json(spec(seed=7).model_dump_json()).seed == 7


@pytest.mark.parametrize("seed", [True, "7", 7.0, -1, 2**31])
def test_what_is_no_whole_number_in_range_is_no_seed(seed: object) -> None:
    with pytest.raises(ValidationError, match="seed"):
        spec(seed=seed)


@pytest.mark.parametrize("threads", [0, 10**9])
def test_no_machine_has_so_many_threads(threads: int) -> None:
    with pytest.raises(ValidationError, match="threads"):
        spec(threads=threads)
