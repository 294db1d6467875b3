"""How the demo shows what goes on: numbered steps with their time, and bars for jobs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from app.demo.client import Json

Watch = Callable[[Json], None]


class Steps:
    """Prints each step with the time that it took.

    Args:
        console: where to.
        total: how many steps there will be.
    """

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self._total = total
        self._number = 0
        self._start = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, and say how long it took once it is done."""
        self._number += 1
        self.console.print(f"[bold]{self._number}/{self._total}[/bold] {title}")
        start = time.monotonic()
        yield
        self.console.print(f"    [dim]{time.monotonic() - start:.1f} s[/dim]")

    @contextmanager
    def job(self, title: str) -> Iterator[Watch]:
        """Show a bar for a job; gives the function that takes the job as it goes."""
        columns = (
            TextColumn("    {task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[losses]}[/dim]"),
        )
        with Progress(*columns, console=self.console) as progress:
            bar = progress.add_task(title, total=None, losses="")

            def watch(job: Json) -> None:
                ended = job["status"] == "succeeded"
                state = job["progress"] or {}
                total = state.get("total") or None
                progress.update(
                    bar,
                    description=f"{title}: {state.get('phase') or job['status']}",
                    total=total,
                    completed=total if ended else state.get("step", 0),
                    losses=_losses(state.get("losses") or {}),
                )

            yield watch

    def total_time(self) -> str:
        """Return how long it took so far, in words."""
        return f"{time.monotonic() - self._start:.0f} s"


def _losses(losses: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
