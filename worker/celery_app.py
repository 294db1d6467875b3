"""The Celery worker: ``celery -A worker.celery_app worker --pool threads --concurrency 1``.

One process with one job at a time: a killed worker leaves no pool child behind. Nothing here
imports the engine; jobs run in trainer processes.
"""

from typing import Any

import structlog
from celery import Celery, signals

from app.core import logs
from app.core.settings import Settings, get_settings
from app.core.settings_errors import ended_in_words
from app.jobs.queue import TASK, celery_settings
from app.start import require_service
from worker.context import Context
from worker.pipeline import run_job
from worker.ticker import Ticker

log = structlog.get_logger(__name__)


class Worker:
    """This process's context and ticker, from its start until it ends."""

    def __init__(self) -> None:
        self._context: Context | None = None
        self._ticker: Ticker | None = None

    @property
    def context(self) -> Context:
        """The context.

        Raises:
            RuntimeError: this process is no worker.
        """
        if self._context is None:
            raise RuntimeError("Jobs are run by a worker: start one with `lethe worker`.")
        return self._context

    def open(self, settings: Settings) -> None:
        """Open the log and connect to what the settings name; see `Context.from_settings`."""
        self._context = Context.from_settings(settings)

    def begin(self) -> None:
        """Start to look after jobs that nobody works on."""
        self._ticker = Ticker(self.context)
        self._ticker.start()
        log.info("worker_ready", worker=self.context.name)

    def stop(self) -> None:
        """Put the running job back and take no other."""
        if self._context is not None:
            self._context.stopping.set()

    def end(self) -> None:
        """Stop the ticker and close connections."""
        if self._ticker is not None:
            self._ticker.stop()
        if self._context is not None:
            self._context.close()


worker = Worker()
celery_app = Celery("lethe")
app = celery_app  # the name that `celery -A worker.celery_app` looks for


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
def _configure(**_: Any) -> None:
    # Celery logs what a signal's receiver raises and goes on, without the broker; not a SystemExit.
    try:
        with ended_in_words():
            settings = get_settings()
            require_service(settings, trainers=True)
            worker.open(settings)
    except Exception as error:
        log.exception("start_failed")
        raise SystemExit(1) from error
    redis_url = settings.server_urls()[1]
    celery_app.conf.update(
        **celery_settings(redis_url),
        # The job row decides what happens to a job; the message may come again without harm.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _logging(**_: Any) -> None:
    settings = get_settings()
    logs.configure(settings.log_format, settings.log_level)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _ready(**_: Any) -> None:
    worker.begin()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _shutting_down(**_: Any) -> None:
    worker.stop()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _shutdown(**_: Any) -> None:
    worker.end()


@celery_app.task(name=TASK)  # type: ignore[untyped-decorator]
def run(job_id: str) -> None:
    """Work on a job, if it is there to be claimed."""
    run_job(worker.context, job_id)
