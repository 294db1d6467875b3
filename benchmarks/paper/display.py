"""How the benchmark shows what goes on: one bar for all runs, and one for each that is at work."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from benchmarks.paper.plan import Job
from engine import Progress

_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("[dim]{task.fields[losses]}[/dim]"),
)


class Display:
    """Progress of a set of runs on a terminal; elsewhere one line for each run that ended.

    Args:
        console: where to.
        total: how many runs there are.
        done: how many of them an earlier call finished.
    """

    def __init__(self, console: Console, total: int, done: int) -> None:
        self._console = console
        self._bars = Bars(*_COLUMNS, console=console, disable=not console.is_terminal)
        self._all = self._bars.add_task("all runs", total=total, completed=done, losses="")
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def started(self, job: Job) -> None:
        """Show a bar for a run that begins."""
        self._tasks[job.run_id] = self._bars.add_task(title(job), total=None, losses="")

    def progress(self, job: Job, event: Progress) -> None:
        """Move the bar of a run."""
        losses = "  ".join(f"{name} {value:.4g}" for name, value in event.losses.items())
        self._bars.update(
            self._tasks[job.run_id],
            description=f"{title(job)}: {event.phase}",
            total=event.total,
            completed=event.step,
            losses=losses,
        )

    def ended(self, job: Job, how: str) -> None:
        """Take the run's bar away and say how it ended."""
        self._bars.remove_task(self._tasks.pop(job.run_id))
        self._bars.advance(self._all)
        self._console.print(f"{title(job)}: {how}", highlight=False, markup=False)


def title(job: Job) -> str:
    """Say in a few words what a run does."""
    spec = job.spec
    what = spec.action if spec.method is None else spec.method
    what += "-F" if spec.update == "fusion" else ""
    given = ", ".join(f"{name} {value}" for name, value in spec.params.items())
    pairs = len({name for ids in spec.forget.values() for name in ids})
    asked = f" of {pairs} pairs" if pairs else ""
    return f"{job.preset} {spec.family} seed {spec.seed}: {what}{asked}{given and f' ({given})'}"
