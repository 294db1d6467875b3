"""The way from a committed job row to a worker: a Celery message that carries the job's id and nothing else.

The row is the truth. A message may be lost, late or repeated: the worker's outbox announces rows
that nobody claimed again, and a claim is a compare-and-set, so that a second message does nothing.
"""

import queue
import threading
from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

TASK = "lethe.run_job"
NAME = "lethe.jobs"
_BACKLOG = 10_000
_STOP = ""

log = structlog.get_logger(__name__)


def broker_url(redis_url: str) -> str:
    """Return a Redis URL in the form that Celery reads; it spells Unix sockets ``redis+socket://``."""
    return redis_url.replace("unix://", "redis+socket://", 1)


def celery_settings(redis_url: str) -> dict[str, Any]:
    """Return the Celery settings that sender and worker share."""
    return {
        "broker_url": broker_url(redis_url),
        "task_default_queue": NAME,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "broker_connection_retry_on_startup": True,
        # Silence on a dead connection is noticed, and a sender does not wait minutes for a broker
        # that is gone.
        "broker_transport_options": {"socket_timeout": 10, "socket_connect_timeout": 5},
    }


class Queue:
    """Sends job ids to the workers from a thread of its own, so that no request waits for the broker.

    Args:
        redis_url: ``redis://...``, ``rediss://...`` or ``unix://...``.
    """

    def __init__(self, redis_url: str) -> None:
        self._celery = Celery("lethe", set_as_current=False)
        self._celery.conf.update(celery_settings(redis_url))
        self._waiting: queue.Queue[str] = queue.Queue(_BACKLOG)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def dispatch(self, job_id: str) -> None:
        """Announce a job; returns at once and never fails, since what is lost here is announced again."""
        self._ensure_thread()
        try:
            self._waiting.put_nowait(job_id)
        except queue.Full:
            log.warning("dispatch_deferred", job_id=job_id, reason="backlog is full")

    def close(self, timeout: float = 5.0) -> None:
        """Send what waits, as far as the broker takes it within ``timeout`` seconds, and stop."""
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(_STOP)
            thread.join(timeout)
        self._celery.close()

    def _ensure_thread(self) -> None:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._send_all, name="dispatch", daemon=True)
                self._thread.start()

    def _send_all(self) -> None:
        while (job_id := self._waiting.get()) != _STOP:
            try:
                self._celery.send_task(TASK, args=[job_id], retry=False)
            except OperationalError as error:
                log.warning("dispatch_deferred", job_id=job_id, reason=str(error))
