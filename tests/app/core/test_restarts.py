"""Processes that end are started again; those that end at once, after longer and longer pauses."""

import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from app.core import restarts
from app.core.server_process import ServerProcess


class Short(ServerProcess):
    """Sleeps for as long as a file says, writing down each start; answers while ``answers`` exists."""

    name = "short"
    label = "short one"
    url = ""

    def _prepare(self) -> Sequence[str]:
        with (self.data_dir / "starts").open("a") as starts:
            starts.write(f"{time.monotonic()}\n")
        seconds = (self.data_dir / "seconds").read_text()
        return [sys.executable, "-c", f"import time; time.sleep({seconds})"]

    def _answers(self) -> bool:
        return (self.data_dir / "answers").exists()

    @property
    def starts(self) -> list[float]:
        return [float(line) for line in (self.data_dir / "starts").read_text().split()]


class Enough(Exception):
    pass


def watch(process: Short, starts: int) -> list[str]:
    """Keep the process running until it was started that often; return what was told."""
    told: list[str] = []

    def tell(sentence: str) -> None:
        told.append(sentence)
        if len(process.starts) >= starts:
            raise Enough

    with pytest.raises(Enough):
        restarts.keep_running([process], tell)
    process.stop()
    return told


@pytest.mark.parametrize("answers", [True, False])
def test_what_keeps_ending_is_tried_after_longer_and_longer_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr(restarts, "LOOK_SECONDS", 0.02)
    (tmp_path / "seconds").write_text("0")
    (tmp_path / "starts").touch()
    if answers:
        (tmp_path / "answers").touch()
    process = Short(tmp_path)
    told = watch(process, starts=3)
    pauses = [after - before for before, after in pairwise(process.starts)]
    assert pauses[0] >= 1
    assert pauses[1] >= 2
    assert told[0] == "The short one ended unexpectedly; it is started again."
    assert any("ended while it started" in sentence for sentence in told) or answers
