"""What the environment may say."""

import pytest
from pydantic import ValidationError

from app.core.settings import Settings


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_a_device_that_torch_knows_is_taken(device: str) -> None:
    assert Settings(device=device).device == device


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:x", "cpu\n"])
def test_another_device_is_refused_before_any_job_fails_of_it(device: str) -> None:
    with pytest.raises(ValidationError, match="device"):
        Settings(device=device)


def test_state_is_saved_at_every_step_where_no_time_is_to_pass() -> None:
    assert Settings(save_seconds=0).save_seconds == 0
    with pytest.raises(ValidationError, match="save_seconds"):
        Settings(save_seconds=-1)
