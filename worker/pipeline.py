"""One job from claim to record; the only place that decides what an interruption means for it."""

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.core.errors import Problem
from app.core.logs import job_context
from app.core.storage import room
from app.jobs import endings
from app.jobs import lease as leases
from app.jobs.errors import CancelRequested, LeaseLost
from app.jobs.lease import Lease
from app.jobs.start import start
from app.jobs.tables import Job
from app.ledger.tree_head import Signer
from worker import publishing, recording
from worker.context import Context
from worker.heartbeat import Heartbeat
from worker.preparation import Assignment, Places, prepare, read_assignment
from worker.publishing import CheckpointDamaged
from worker.supervision import TrainerCrashed, TrainerRefused, run_trainer

Ending = Callable[[Session, Signer, Job], None]

log = structlog.get_logger(__name__)


class Stopping(Exception):
    """This worker was told to end."""


class NothingChanged(Exception):
    """The method left every weight as it was: a certificate of that would state what is not so."""

    code = "nothing_changed"

    def __init__(self) -> None:
        super().__init__(
            "The method left every weight as it was, so nothing was forgotten, and no version was made. "
            "With the objective calibrated that happens where the deleted pairs score like validation "
            "pairs already, as a few pairs may by chance. File a request with the objective decouple, "
            "with another method, or with other params, and withdraw this one."
        )


def run_job(context: Context, job_id: str) -> None:
    """Claim a job and bring it to its end; returns at once where there is nothing to claim."""
    if context.stopping.is_set():
        return
    settings = context.settings
    with job_context(job_id):
        lease = context.persist(
            lambda session: start(
                session,
                context.signer,
                job_id,
                context.name,
                seconds=settings.lease_seconds,
                max_attempts=settings.max_attempts,
            )
        )
        if lease is None:
            return
        log.info("job_claimed", token=lease.token)
        _work(context, lease)
    if not context.stopping.is_set():  # what we announced now, we might be sent ourselves
        context.reaper.announce()


def _work(context: Context, lease: Lease) -> None:
    """Run a claimed job; whatever happens, the row says it afterwards or the reaper will."""
    with Heartbeat(context.database, lease, context.settings.heartbeat_seconds) as heartbeat:
        try:
            with room():
                _attempt(context, lease, heartbeat)
        except LeaseLost:
            log.warning("lease_lost", token=lease.token)
        except CancelRequested:
            _end(context, lease, partial(endings.cancel, reason="cancelled by request"))
        except Stopping:
            _end(context, lease, _put_back)
        except (TrainerRefused, CheckpointDamaged, NothingChanged) as error:
            _end(context, lease, partial(endings.fail, code=error.code, message=str(error)))
        except Problem as error:  # a person has to do what its sentence says
            code = error.slug.replace("-", "_")
            _end(context, lease, partial(endings.fail, code=code, message=error.detail))
        except TrainerCrashed as error:
            _end(context, lease, _broken_off(context, "crashed", str(error)))
        except Exception as error:  # whatever broke, another attempt may get through
            log.exception("attempt_failed")
            reason = f"{type(error).__name__}: {error}"
            _end(context, lease, _broken_off(context, "error", reason))
    _tidy(context, lease)


def _put_back(session: Session, _: Signer, job: Job) -> None:
    if job.cancel_requested:
        raise CancelRequested
    endings.put_back(session, job, "its worker was told to end")


def _broken_off(context: Context, outcome: str, reason: str) -> Ending:
    pause = context.settings.retry_seconds
    return partial(endings.give_back, outcome=outcome, reason=reason, retry_seconds=pause)


def _end(context: Context, lease: Lease, ending: Ending) -> None:
    """Write how the attempt ended, unless the job is not ours any more."""

    def write(session: Session) -> None:
        ending(session, context.signer, leases.hold(session, lease, even_if_cancelled=True))

    try:
        context.persist(write)
    except LeaseLost:
        log.warning("lease_lost", token=lease.token)
    except CancelRequested:
        _end(context, lease, partial(endings.cancel, reason="cancelled by request"))
    except SQLAlchemyError as error:
        log.warning("ending_left_to_the_reaper", error=type(error).__name__)


def _tidy(context: Context, lease: Lease) -> None:
    """Remove what the attempt left on disk; what cannot be removed now, the sweep removes later."""
    shutil.rmtree(
        context.settings.work / lease.job_id / f"attempt-{lease.token}", ignore_errors=True
    )
    try:
        publishing.sweep(context)
    except (SQLAlchemyError, OSError) as error:
        log.warning("sweep_deferred", error=type(error).__name__)


def _attempt(context: Context, lease: Lease, heartbeat: Heartbeat) -> None:
    def check() -> None:
        heartbeat.check()
        if context.stopping.is_set():
            raise Stopping

    assignment = context.persist(lambda session: read_assignment(session, lease))
    if assignment.nothing_to_do:
        recording.record_nothing_to_do(context, lease)
        return
    places = prepare(context, lease, assignment)
    context.persist(lambda session: leases.move(session, lease, "running"))
    result = run_trainer(
        places.workdir,
        places.state,
        threads=context.settings.threads,
        cache=context.settings.cache,
        save_every=context.settings.save_seconds,
        report=heartbeat.report,
        check=check,
    )
    context.persist(lambda session: leases.move(session, lease, "auditing"))
    _publish(context, lease, assignment, places, result)
    log.info("job_recorded")


def _publish(
    context: Context, lease: Lease, assignment: Assignment, places: Places, result: dict[str, Any]
) -> None:
    if assignment.kind == "evaluate":
        recording.record(context, lease, assignment, result, None)
        return
    expected = result["checkpoint_sha256"]
    with publishing.published(context, lease.job_id, places.checkpoint, expected) as checkpoint:
        unlearned = assignment.kind == "unlearn"
        if unlearned and checkpoint.weights_sha256 == assignment.input_weights_sha256:
            raise NothingChanged
        recording.record(context, lease, assignment, result, checkpoint)
