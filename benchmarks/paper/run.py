"""Run what the plan needs, each run in a folder of its own; what is done is never done again.

``OUT/runs/<run id>`` holds ``spec.json``, ``provenance.json``, the engine's ``result.json``, and,
as long as another run starts from it, ``checkpoint``. A run that cannot be done says so in
``problem.json``. The saved state of a run that was cut short lies beside them.
"""

import fcntl
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

from pydantic import ValidationError

from benchmarks.figures import BenchmarkError, commit, machine
from benchmarks.options import make_folder
from benchmarks.paper.display import Display
from benchmarks.paper.plan import PRETRAINED, Job
from benchmarks.runs import CHECKPOINT, RESULT, STATE, RunFailed, execute
from engine import Progress, RunResult, RunSpec

Json = dict[str, Any]
Status = Literal["done", "not applicable", "diverged", "failed", "missing"]
RUNS, DATA, CACHE, LOCK = "runs", "data", "cache", "lock"
PROVENANCE, PROBLEM = "provenance.json", "problem.json"
LASTING: dict[str, Status] = {"not_applicable": "not applicable", "non_finite_loss": "diverged"}
"""Errors that the same run would end with again, by the engine's code."""
_LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended; ``result`` is there when it is done, else ``reason``."""

    status: Status
    reason: str | None = None
    result: RunResult | None = None
    provenance: dict[str, Any] | None = None


class Bench:
    """Runs jobs, and finds what earlier calls did.

    Args:
        out: folder of the benchmark.
        jobs: each after those that it needs.
        workers: how many runs at a time.
        lock: descriptor of the folder's lock, see `locked`.
        known: runs of earlier benchmarks by id, as ``results.json`` has them.
    """

    def __init__(
        self,
        out: Path,
        jobs: Sequence[Job],
        workers: int = 1,
        lock: int | None = None,
        known: Mapping[str, Json] | None = None,
    ) -> None:
        self.out = out.absolute()
        self.jobs = jobs
        self.workers = workers
        self._lock = lock
        self.needed = {needed.run_id for job in jobs for needed in job.needs}
        self.outcomes = self._done(known or {})
        self._stopping = threading.Event()
        self._processes: set[subprocess.Popen[str]] = set()

    def outcome(self, job: Job) -> Outcome:
        """Return how a run ended, or that it is missing."""
        return self.outcomes.get(job.run_id, Outcome("missing", "it was not run"))

    def run(self, display: Display) -> None:
        """Run what is not done; on Ctrl-C, or an error of ours, end what is at work."""
        waiting = [job for job in self.jobs if job.run_id not in self.outcomes]
        with display, ThreadPoolExecutor(self.workers) as pool:
            try:
                self._loop(pool, waiting, display)
            except BaseException:
                self._stop()
                raise
        for job in self.jobs:
            self._prune(job)

    def _loop(self, pool: ThreadPoolExecutor, waiting: list[Job], display: Display) -> None:
        working: dict[Future[Outcome], Job] = {}
        while waiting or working:
            for job in [job for job in waiting if self._settled(job)]:
                if len(working) >= self.workers:
                    break
                waiting.remove(job)
                display.started(job)
                working[pool.submit(self._do, job, display)] = job
            # A wait without end would keep Ctrl-C waiting, too.
            for future in wait(working, timeout=0.5, return_when=FIRST_COMPLETED).done:
                job, outcome = working.pop(future), future.result()
                self.outcomes[job.run_id] = outcome
                display.ended(job, _words(outcome))

    def _settled(self, job: Job) -> bool:
        return all(needed.run_id in self.outcomes for needed in job.needs)

    def _stop(self) -> None:
        self._stopping.set()
        for process in list(self._processes):
            process.terminate()

    def _do(self, job: Job, display: Display) -> Outcome:
        broken = [job for job in job.needs if self.outcome(job).status != "done"]
        if broken:
            first = broken[0]
            reason = self.outcome(first).reason
            return Outcome("missing", f"it starts from run {first.run_id}, which failed: {reason}")
        folder = self.folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULT).unlink(missing_ok=True)  # its checkpoint is needed, and gone
        _write(folder / PROVENANCE, _provenance())
        try:
            self._execute(job, folder, lambda event: display.progress(job, event))
        except RunFailed as error:
            if error.code in LASTING:
                _write(folder / PROBLEM, {"code": error.code, "message": str(error)})
                shutil.rmtree(folder / STATE, ignore_errors=True)
            return self._found(job) or Outcome("failed", f"{error.code}: {error}")
        self._prune(job)
        return self._found(job) or Outcome("failed", f"it left no result in {folder}")

    def _execute(self, job: Job, folder: Path, on_progress: Callable[[Progress], None]) -> None:
        started: list[subprocess.Popen[str]] = []

        def on_start(process: subprocess.Popen[str]) -> None:
            started.append(process)
            self._processes.add(process)
            if self._stopping.is_set():
                process.terminate()

        try:
            execute(
                self._placed(job),
                folder,
                on_progress=on_progress,
                on_start=on_start,
                cache=self.out / CACHE,
                lock=self._lock,
            )
        finally:
            self._processes.difference_update(started)

    def _placed(self, job: Job) -> RunSpec:
        """Return the run's specification with places on this disk."""
        update: dict[str, Any] = {}
        if job.parent is not None:
            update["checkpoint"] = self.folder(job.parent) / CHECKPOINT
        if job.start is not None:
            place = str(self.folder(job.start) / CHECKPOINT)
            update["config"] = {**job.spec.config, PRETRAINED: place}
        return job.spec.model_copy(update=update)

    def folder(self, job: Job) -> Path:
        """Return the folder of a run."""
        return self.out / RUNS / job.run_id

    def _done(self, known: Mapping[str, Json]) -> dict[str, Outcome]:
        """Return how runs ended that need not be done: those here, and those that are known.

        Where a run is still to be done, those that it starts from must have left their checkpoints.
        """
        found: dict[str, Outcome] = {}
        lacking: set[str] = set()
        for job in reversed(self.jobs):  # each before those that it needs
            outcome = self._found(job) or _known(known.get(job.run_id))
            if outcome is not None and job.run_id not in lacking:
                found[job.run_id] = outcome
            else:
                needs = [needed for needed in job.needs if not self._has_checkpoint(needed)]
                lacking |= {needed.run_id for needed in needs}
        return found

    def _has_checkpoint(self, job: Job) -> bool:
        return (self.folder(job) / CHECKPOINT).is_dir()

    def _found(self, job: Job) -> Outcome | None:
        folder = self.folder(job)
        provenance = _read(folder / PROVENANCE)
        problem = _read(folder / PROBLEM)
        if problem is not None:
            return Outcome(LASTING[problem["code"]], problem["message"], provenance=provenance)
        result = _read(folder / RESULT)
        if result is None:
            return None
        return Outcome("done", None, RunResult.model_validate(result), provenance)

    def _prune(self, job: Job) -> None:
        """Remove the checkpoint of a run that no other run starts from: there are hundreds."""
        if job.run_id not in self.needed and (self.folder(job) / RESULT).exists():
            shutil.rmtree(self.folder(job) / CHECKPOINT, ignore_errors=True)


@contextmanager
def locked(out: Path) -> Iterator[TextIO]:
    """Hold the folder while the block runs; the runs hold it too, as long as they live.

    Raises:
        BenchmarkError: another process works in it, or it cannot be made.
    """
    make_folder(out)
    with (out / LOCK).open("w") as lock:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _try(lock):
            if time.monotonic() > deadline:
                raise BenchmarkError(f"another benchmark works in {out}; wait for its end")
            time.sleep(0.1)
        yield lock


def _try(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _known(run: Json | None) -> Outcome | None:
    """Return how a run of an earlier benchmark ended, from what `results.collect` wrote of it."""
    if run is None or run["status"] not in ("done", *LASTING.values()):
        return None
    outcome = Outcome(run["status"], run["reason"], provenance=run["provenance"])
    if run["status"] != "done":
        return outcome
    fields = ("metrics", "cost", "environment")
    places = dict.fromkeys(("checkpoint", "checkpoint_sha256", "weights_sha256"))
    try:
        result = RunResult.model_validate({**places, **{name: run[name] for name in fields}})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BenchmarkError(
            f"a run of a results.json that --reuse names cannot be taken: {place}: {first['msg']}; "
            "leave that file out"
        ) from error
    return replace(outcome, result=result)


def _words(outcome: Outcome) -> str:
    if outcome.result is None:
        return f"{outcome.status}: {outcome.reason}"
    return f"{outcome.result.cost.seconds:.0f} s"


def _provenance() -> dict[str, Any]:
    return {"started": datetime.now(UTC).isoformat(), "commit": commit(), "machine": machine()}


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write a small file whole or not at all."""
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
