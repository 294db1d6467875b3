"""The thread of a worker that looks after jobs nobody works on, every few seconds."""

import threading

import structlog
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy.exc import SQLAlchemyError

from worker import publishing
from worker.context import Context

_LONGEST_PAUSE_SECONDS = 5.0
_SWEEP_EVERY = 60

log = structlog.get_logger(__name__)


class Ticker:
    """Reaps expired leases, announces queued jobs and sweeps the work folder until it is stopped."""

    def __init__(self, context: Context) -> None:
        settings = context.settings
        self._context = context
        self._pause = min(
            _LONGEST_PAUSE_SECONDS, settings.lease_seconds / 3, settings.redispatch_seconds / 2
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the round that is going on."""
        self._stop.set()
        self._thread.join(_LONGEST_PAUSE_SECONDS)

    def _run(self) -> None:
        rounds = 0
        # A process that is told to end takes no job: it announces none either.
        while not self._context.stopping.is_set():
            self._tick(sweep=rounds % _SWEEP_EVERY == 0)
            rounds += 1
            if self._stop.wait(self._pause):
                return

    def _tick(self, *, sweep: bool) -> None:
        try:
            self._context.reaper.tick()
            if sweep:
                publishing.sweep(self._context)
        except (SQLAlchemyError, BrokerError, OSError) as error:
            log.warning("tick_failed", error=type(error).__name__)
        except Exception:  # one round may fail, but never the rounds to come
            log.exception("tick_failed")
