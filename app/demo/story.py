"""The demo from start to end: the service in a folder of its own, and a caller over HTTP."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console

from app.core.embedded import EmbeddedServerError
from app.core.settings import read_settings
from app.core.settings_errors import SettingsError
from app.deletions.methods import refusal
from app.demo import artefacts, data, verdict
from app.demo.client import Caller, DemoError, Json
from app.demo.data import DemoData, Forgotten
from app.demo.places import logs_kept, private_settings, results, workspace, writable
from app.demo.progress import Steps
from app.launch import RunningService, running_service

_STEPS = 8
_INTERRUPTED = 130
_OUT = Path("lethe-demo")


@dataclass(frozen=True)
class DemoOptions:
    """What the command line says.

    Attributes:
        data: dataset folder; None makes the digits.
        out: folder for what is downloaded; None: one named after the data set.
        method: unlearning method.
        share: of the training pairs that is to be forgotten.
        seed: of data, training and choice.
    """

    data: Path | None
    out: Path | None
    method: str
    share: float
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Everything that the last lines need."""

    figures: verdict.Figures
    forgotten: Forgotten
    kept: int
    report: Json
    checkpoint: artefacts.Checkpoint
    certificate: artefacts.Certificate
    report_file: Path


def run_demo(options: DemoOptions, json_file: Path | None) -> int:
    """Run the demo, print what happens and how it ended; return the exit status.

    Raises:
        SettingsError: a setting cannot be used, or what the options name cannot be written.
    """
    read_settings()  # now, not in some minutes
    console = Console()
    steps = Steps(console, _STEPS)
    try:
        with (
            _places(options, json_file),
            workspace() as folder,
            logs_kept(folder, options.out or _OUT, console),
        ):
            outcome = _tell(options, folder, steps)
    except (DemoError, EmbeddedServerError) as error:
        console.print(f"\n[bold red]The demo failed.[/bold red] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("\nInterrupted; everything is stopped.")
        return _INTERRUPTED
    if json_file is not None:
        json_file.write_text(json.dumps(outcome.figures.as_json(), indent=2) + "\n")
    return _conclude(console, steps, outcome)


@contextmanager
def _places(options: DemoOptions, json_file: Path | None) -> Iterator[None]:
    """Look now whether everything can be written at the end."""
    with ExitStack() as stack:
        stack.enter_context(writable("--out", options.out or _OUT))
        if json_file is not None:
            if json_file.is_dir():
                raise SettingsError(
                    f"--json cannot be written: {json_file} is a folder. Name a file."
                )
            stack.enter_context(writable("--json", json_file.parent))
        yield


def _tell(options: DemoOptions, workspace: Path, steps: Steps) -> Outcome:
    what = "Reading the data set" if options.data else "Making pairs of handwritten digits"
    with steps.step(what):
        found = data.prepare(options.data, workspace, options.seed)
        forgotten = data.choose(found, options.share, options.seed)
        refused = refusal(options.method, found.recipe.family, found.recipe.task, "all")
    if refused is not None:  # now, not when the original has been trained
        raise DemoError(f"--method cannot be used: {refused}.")
    with (
        results(options.out or _OUT / found.name) as out,
        _service(workspace, found, steps) as service,
        Caller(*_access(service)) as caller,
    ):
        return _Story(options, found, forgotten, caller, steps, out).run()


@contextmanager
def _service(workspace: Path, found: DemoData, steps: Steps) -> Iterator[RunningService]:
    parallel = found.recipe.parallel
    settings = private_settings(workspace / "service", found.root, parallel=parallel)
    with ExitStack() as stack:
        with steps.step("Starting the service: private PostgreSQL and Redis, API, one worker"):
            service = stack.enter_context(running_service(settings, temporary=True))
        yield service


def _access(service: RunningService) -> tuple[str, str]:
    return service.url, service.token or ""


class _Story:
    """The calls of an outside caller, one step after the other."""

    def __init__(
        self,
        options: DemoOptions,
        found: DemoData,
        forgotten: Forgotten,
        caller: Caller,
        steps: Steps,
        out: Path,
    ) -> None:
        self.options = options
        self.data = found
        self.forgotten = forgotten
        self.caller = caller
        self.steps = steps
        self.out = out

    def run(self) -> Outcome:
        """Go from the empty service to a verified certificate."""
        dataset_id = self._register()
        self._train(dataset_id)
        evidence = artefacts.keep_evidence(self.caller, self.out)
        request_id, seconds = self._forget(dataset_id)
        produced = self._audit(request_id)
        checkpoint = self._download(produced)
        with self.steps.step("Fetching report and certificate, verifying the certificate offline"):
            report_file = self.out / "report.html"
            report = artefacts.fetch_report(self.caller, request_id, report_file)
            certificate = artefacts.fetch_certificate(self.caller, request_id, self.out, evidence)
        figures = self._figures(produced, checkpoint, certificate, seconds)
        kept = self.data.splits["train"] - self.forgotten.pairs
        return Outcome(figures, self.forgotten, kept, report, checkpoint, certificate, report_file)

    def _register(self) -> str:
        counts = ", ".join(f"{count:,} {split}" for split, count in self.data.splits.items())
        with self.steps.step(f"Registering the data set {self.data.name} ({counts} pairs)"):
            body = {
                "name": self.data.name,
                "modality": self.data.modality,
                "root": str(self.data.root),
                "classes": self.data.classes,
            }
            dataset_id: str = self.caller.post("/datasets", body)["dataset_id"]
            self.caller.put_manifest(f"/datasets/{dataset_id}/pairs", self.data.manifest)
        return dataset_id

    def _train(self, dataset_id: str) -> None:
        recipe = self.data.recipe
        with self.steps.step(f"Training the original: {recipe.family} for {recipe.task}"):
            body = {"name": self.data.name, "family": recipe.family, "task": recipe.task}
            model_id = self.caller.post("/models", body)["model_id"]
            version = {
                "source": "training",
                "dataset_id": dataset_id,
                "config": dict(recipe.config),
                "training": dict(recipe.training),
                "seed": self.options.seed,
            }
            job = self.caller.post(f"/models/{model_id}/versions", version)
            with self.steps.job("training") as watch:
                self.caller.follow_job(job["job_id"], watch)

    def _forget(self, dataset_id: str) -> tuple[str, float]:
        """Post the deletion request and follow its job; return the request's id and the seconds."""
        title = f"Asking to forget {self.forgotten.words}, with {self.options.method}"
        with self.steps.step(title):
            body = {
                "dataset_id": dataset_id,
                "targets": dict(self.forgotten.targets),
                "method": self.options.method,
                "reason": "demonstration",
            }
            request = self.caller.post("/deletion-requests", body)
            jobs = [job["job_id"] for job in request["jobs"]]
            with self.steps.job("unlearning") as watch:
                ended = [self.caller.follow_job(job_id, watch) for job_id in jobs]
            settled = self.caller.settled_request(request["request_id"])
        if not ended:
            raise DemoError(f"The request {settled['request_id']} was given no job.")
        return settled["request_id"], sum(_seconds(job) for job in ended)

    def _audit(self, request_id: str) -> Json:
        with self.steps.step("Fetching the audit"):
            versions = self.caller.get(f"/audit/requests/{request_id}")["versions"]
        if len(versions) != 1 or versions[0]["audit"] is None:
            raise DemoError(f"Expected one audited version for {request_id}, got {versions}.")
        produced: Json = versions[0]
        return produced

    def _download(self, produced: Json) -> artefacts.Checkpoint:
        with self.steps.step("Downloading the new checkpoint, checking its SHA-256, loading it"):
            place = f"/models/{produced['model_id']}/versions/{produced['version_id']}"
            version = self.caller.get(place)
            return artefacts.fetch_checkpoint(self.caller, version, self.out / "checkpoint")

    def _figures(
        self,
        produced: Json,
        checkpoint: artefacts.Checkpoint,
        certificate: artefacts.Certificate,
        seconds: float,
    ) -> verdict.Figures:
        measured = produced["audit"]["metrics"]
        return verdict.Figures(
            dataset=self.data.name,
            family=checkpoint.family,
            task=self.data.recipe.task,
            method=self.options.method,
            forget_pairs=self.forgotten.pairs,
            d_test_before=verdict.metric(measured, "d_test", "before"),
            d_test_after=verdict.metric(measured, "d_test", "after"),
            d_f_before=verdict.metric(measured, "d_f", "before"),
            d_f_after=verdict.metric(measured, "d_f", "after"),
            mi_ratio=verdict.metric(measured, "mi_ratio", "after"),
            unseen_auc_after=verdict.metric(measured, "unseen_auc", "after"),
            job_seconds=round(seconds, 2),
            checkpoint_sha256=checkpoint.sha256,
            checkpoint_verified=checkpoint.verified,
            certificate_verified=certificate.verified,
            ledger_size=certificate.ledger_size,
        )


def _seconds(job: Json) -> float:
    """Return how long a job took, from its first start to its end."""
    start, end = (datetime.fromisoformat(job[f"{name}_time"]) for name in ("started", "finished"))
    return (end - start).total_seconds()


def _conclude(console: Console, steps: Steps, outcome: Outcome) -> int:
    """Print what was forgotten and kept, the figures and the places; return the exit status."""
    console.print()
    checkpoint, certificate = outcome.checkpoint, outcome.certificate
    words = {
        "Forgotten": outcome.forgotten.words,
        "Kept": f"{outcome.kept:,} training pairs",
        "Model": f"{checkpoint.family}, {checkpoint.parameters:,} weights",
        "Checkpoint": _held(checkpoint.verified, "every file has the SHA-256 that is stated"),
        "Certificate": _held(certificate.verified, "verified offline, the log only grew"),
        "Log": f"{certificate.ledger_size} leaves",
        "Time": f"{outcome.figures.job_seconds:.0f} s of unlearning, {steps.total_time()} in all",
    }
    console.print(verdict.facts_table(words), highlight=False)
    console.print()
    console.print(verdict.findings_table(outcome.report["versions"][0]["findings"]))
    console.print()
    where = verdict.places(
        checkpoint.folder,
        outcome.report_file,
        certificate.file,
        certificate.key,
        certificate.older_head,
    )
    for name, place in where.items():  # never wrapped, so that they can be copied
        console.print(f"  [bold]{name:<12}[/bold]  {place}", highlight=False, soft_wrap=True)
    failed = verdict.failures(outcome.figures)
    for sentence in failed:
        console.print(f"[bold red]Did not hold:[/bold red] {sentence}", highlight=False)
    if not failed:
        console.print("\n[bold green]Everything held.[/bold green]")
    return 1 if failed else 0


def _held(verified: bool, words: str) -> str:
    return words if verified else "[red]NOT verified[/red]"
