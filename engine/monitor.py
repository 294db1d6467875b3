"""What the caller of a run sees and decides: progress, cancellation, a place for saved state."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from engine.spec import Progress

PROGRESS_SECONDS = 1.0
"""Least time between two progress events of one phase, so that reporting costs nothing."""


class Control(Protocol):
    """Lets the caller stop a run."""

    def check(self) -> None:
        """Return while the run may go on; raises `Cancelled` when it must stop."""


@dataclass
class Monitor:
    """How a run talks to its caller.

    Attributes:
        on_progress: receives progress events, at most about one a second within a phase.
        control: asked at every step whether to go on.
        state: folder for saved training state, or None to save none.
        fingerprint: names the run; state that another run left in the folder is not used.
        save_every: least seconds between two saves.
    """

    on_progress: Callable[[Progress], None] | None = None
    control: Control | None = None
    state: Path | None = None
    fingerprint: str = ""
    save_every: float = 30.0
    _last: float = field(default=float("-inf"), repr=False)

    def check(self) -> None:
        """Raise `Cancelled` when the caller wants the run to stop."""
        if self.control is not None:
            self.control.check()

    def due(self) -> bool:
        """Return whether it is time for the next progress event of a phase."""
        return self.on_progress is not None and time.monotonic() - self._last >= PROGRESS_SECONDS

    def report(
        self,
        phase: str,
        step: int,
        total: int,
        losses: Mapping[str, float] | None = None,
        message: str = "",
    ) -> None:
        """Send one progress event now."""
        self._last = time.monotonic()
        if self.on_progress is not None:
            self.on_progress(
                Progress(
                    phase=phase, step=step, total=total, losses=dict(losses or {}), message=message
                )
            )
