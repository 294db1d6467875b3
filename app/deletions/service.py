"""The rules of deletion requests: what is accepted, withdrawal, another try."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from app.core.pointers import pointers_to
from app.datasets.errors import DatasetNotFound
from app.datasets.tables import LEAST_TRAINING_PAIRS
from app.deletions import intake, methods, queries, remainder
from app.deletions.completion import OPEN, complete, settle_request
from app.deletions.errors import (
    METHOD_GONE,
    DatasetNotReady,
    MethodGone,
    NothingToRetry,
    NotLearned,
    RequestEnded,
    RequestNotFound,
    RequestOpen,
    UnknownTargets,
)
from app.deletions.queries import Resolved
from app.deletions.schemas import NewRequest, RequestJobView, RequestView, links_of
from app.deletions.tables import DeletionRequest, RequestJob
from app.jobs.queue import Queue
from app.jobs.service import enqueue_unlearning, request_cancel
from app.jobs.tables import Job
from app.ledger import log
from app.ledger.records import RequestSaltDeleted, RequestWithdrawn
from app.ledger.tree_head import Signer
from app.registry.errors import VersionRetired

_MANY_TARGETS = 10_000
"""More are looked up before the dataset is held: nobody is to wait for a request that is refused."""


@dataclass(frozen=True)
class Services:
    """What a request needs beside the database: the queue, and who signs certificates."""

    queue: Queue
    signer: Signer


def submit(session: Session, services: Services, token_id: str, new: NewRequest) -> RequestView:
    """Accept a deletion request: request, pairs, jobs and ledger leaf in the caller's transaction.

    Raises:
        DatasetNotFound: there is no such dataset.
        DatasetNotReady: it has no manifest yet.
        VersionRetired, UnknownTargets, NotLearned, MethodRefused, NothingLeft: nothing was recorded.
    """
    methods.check(new.method, new.params, new.scope, new.objective)
    begun = intake.draft(token_id, new)
    found = _resolve(session, new)
    _check_targets(new, found)
    lines = [line for line in found.lines if line.open]
    trainings = [line for line in found.trainings if line.open]
    most_named = found.named_total + len(found.pair_ids)
    if (lines or trainings) and found.train_total - most_named < LEAST_TRAINING_PAIRS:
        remainder.check(session, new, found, [*lines, *trainings])
    for line in [*lines, *trainings]:
        methods.check_family(new.method, line.family, line.task, new.update)
    if (lines or trainings) and not found.validation_total:
        methods.check_unwatched(new.method, new.objective)
    view = intake.record(session, services.queue, begun, found, lines, trainings)
    return view if view.jobs else _complete_at_once(session, services.signer, view, found)


def _resolve(session: Session, new: NewRequest) -> Resolved:
    targets, meeting = new.targets.distinct(), methods.meeting(new.scope)
    if sum(map(len, targets.values())) > _MANY_TARGETS:
        unknown = queries.unknown_targets(session, new.dataset_id, targets)
        if unknown:
            raise UnknownTargets(new.dataset_id, unknown)
    # From here to the commit no training starts or ends, no upload becomes ready, no version is
    # retired and no other request is accepted: each of them is found now or will find this one.
    shared = intake.shared_spec(new)
    found = queries.resolve(session, new.dataset_id, targets, new.versions, meeting, shared)
    if found.status is None:
        raise DatasetNotFound(new.dataset_id)
    if found.status != "ready":
        raise DatasetNotReady(
            f"Dataset {new.dataset_id} has no pairs yet: put its manifest first"
            f" (PUT /v1/datasets/{new.dataset_id}/pairs)."
        )
    return found


def _check_targets(new: NewRequest, found: Resolved) -> None:
    _check_in_use(new, found)
    if found.unknown:
        raise UnknownTargets(new.dataset_id, found.unknown)
    known = {version for line in found.lines for version in line.versions}
    strange = sorted(set(new.versions or ()) - known)
    if strange:
        raise NotLearned(
            f"{len(strange)} of the listed versions did not learn from dataset {new.dataset_id} or are not"
            f" ready: {', '.join(strange[:20])}. Leave `versions` out to reach every version that did.",
            pointers=pointers_to(
                new.versions or [], strange[:20], "#/versions", "did not learn from the dataset"
            ),
        )


def _check_in_use(new: NewRequest, found: Resolved) -> None:
    if found.retired:
        raise VersionRetired(
            f"{len(found.retired)} of the listed versions are retired, so nothing is unlearned on them:"
            f" {', '.join(found.retired[:20])}. Leave them out.",
            pointers=pointers_to(new.versions or [], found.retired[:20], "#/versions", "retired"),
        )


def _complete_at_once(
    session: Session, signer: Signer, view: RequestView, found: Resolved
) -> RequestView:
    """Complete a request that has nothing to wait for: never trained on, or forgotten before."""
    request = session.get_one(DeletionRequest, view.request_id)
    if found.train_count and found.lines:
        meeting = methods.meeting(request.scope)
        met_by = queries.covering_request(session, request.dataset_id, found, meeting)
        request.met_by_request_id = met_by
    complete(session, signer, request)
    return view_of(request, [])


def view_of(request: DeletionRequest, jobs: Sequence[RequestJobView]) -> RequestView:
    """Return what a caller sees of a request."""
    names = set(RequestView.model_fields) - {"jobs", "links"}
    fields = {name: getattr(request, name) for name in names}
    return RequestView(**fields, jobs=list(jobs), links=links_of(request.request_id))


def jobs_of(session: Session, request_ids: Sequence[str]) -> dict[str, list[RequestJobView]]:
    """Return request -> the jobs that work or worked for it, oldest first."""
    query = (
        select(RequestJob.request_id, RequestJob.relation, Job)
        .join(Job, Job.job_id == RequestJob.job_id)
        .where(RequestJob.request_id.in_(request_ids), RequestJob.relation != "excluded")
        .order_by(Job.job_id)
    )
    found: dict[str, list[RequestJobView]] = {request_id: [] for request_id in request_ids}
    for request_id, relation, job in session.execute(query):
        view = RequestJobView(
            job_id=job.job_id,
            status=job.status,
            relation=relation,
            lineage_id=job.lineage_id,
            input_version_id=job.input_version_id,
            output_version_id=job.output_version_id,
        )
        found[request_id].append(view)
    return found


def read(session: Session, request_id: str) -> RequestView:
    """Return a request with its jobs.

    Raises:
        RequestNotFound: no request has this id.
    """
    request = _get(session, request_id)
    return view_of(request, jobs_of(session, [request_id])[request_id])


def _get(session: Session, request_id: str, *, lock: bool = False) -> DeletionRequest:
    query = select(DeletionRequest).where(DeletionRequest.request_id == request_id)
    if lock:
        query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    request = session.scalar(query)
    if request is None:
        raise RequestNotFound(
            f"No deletion request has the id {request_id!r}; GET /v1/deletion-requests lists all of them."
        )
    return request


def withdraw(session: Session, services: Services, token_id: str, request_id: str) -> None:
    """Withdraw a request: it leaves its waiting jobs, and jobs that nobody else needs are cancelled.

    A running job that others need goes on, and the pairs are forgotten with it.

    Raises:
        RequestNotFound: no request has this id.
        RequestEnded: it is completed, denied or withdrawn already.
    """
    _get(session, request_id)
    jobs = _lock_jobs(session, request_id)
    request = _get(session, request_id, lock=True)
    if request.status not in (*OPEN, "on_hold"):
        raise RequestEnded(
            f"Request {request_id} is {request.status}; it cannot be withdrawn any more."
        )
    request.status = "cancelled"
    request.status_reason = "withdrawn by the caller"
    request.completed_time = None
    session.flush()
    for job in jobs:
        _leave(session, services.signer, request_id, job)
    log.append(session, RequestWithdrawn(request_id=request_id, token_id=token_id))


def delete_salt(session: Session, token_id: str, request_id: str) -> None:
    """Delete the salt of an ended request, for good; a second time changes nothing.

    Leaves and certificate keep their commitment, and nobody who has them can test any more whether
    a pair is meant. The service still knows the request's pairs, which no later job may retain.

    Raises:
        RequestNotFound: no request has this id.
        RequestOpen: it has not ended, and its certificate will need the salt.
    """
    request = _get(session, request_id, lock=True)
    if request.status in (*OPEN, "on_hold"):
        raise RequestOpen(
            f"Request {request_id} is {request.status}; its certificate will need the salt. Wait until it"
            " is completed, or withdraw it, then try again."
        )
    if request.salt is None:
        return
    request.salt = None
    log.append(session, RequestSaltDeleted(request_id=request_id, token_id=token_id))


def _lock_jobs(session: Session, request_id: str) -> Sequence[Job]:
    """Lock the open unlearning jobs of a request; jobs come before requests wherever both are locked."""
    query = (
        select(Job)
        .join(RequestJob, RequestJob.job_id == Job.job_id)
        .where(
            RequestJob.request_id == request_id,
            RequestJob.relation == "forget",
            Job.finished_time.is_(None),
        )
        .order_by(Job.job_id)
        .with_for_update(of=Job, key_share=True)
    )
    return session.scalars(query).all()


def _leave(session: Session, signer: Signer, request_id: str, job: Job) -> None:
    others = (
        select(func.count())
        .select_from(RequestJob)
        .join(DeletionRequest, DeletionRequest.request_id == RequestJob.request_id)
    )
    needed = session.scalar(
        others.where(
            RequestJob.job_id == job.job_id, DeletionRequest.status.in_((*OPEN, "on_hold"))
        )
    )
    if not needed:
        request_cancel(session, signer, job, "its last deletion request was withdrawn")
    elif job.status == "queued":
        session.execute(
            delete(RequestJob).where(
                RequestJob.request_id == request_id, RequestJob.job_id == job.job_id
            )
        )
        _lower_references(session, job)


def _lower_references(session: Session, job: Job) -> None:
    """Have a waiting job make no more reference models than those who are left ask for."""
    asked = session.scalars(
        select(DeletionRequest.reference_models)
        .join(RequestJob, RequestJob.request_id == DeletionRequest.request_id)
        .where(RequestJob.job_id == job.job_id, DeletionRequest.status.in_((*OPEN, "on_hold")))
    )
    spec = intake.job_spec(job.spec, asked)
    if spec["reference_models"] < job.spec.get("reference_models", 0):
        job.spec = spec
        session.flush()


_UNMET = text(
    """
    SELECT DISTINCT ON (job.lineage_id) job.lineage_id, job.model_id, family, task
    FROM deletion_request_jobs AS link JOIN jobs AS job USING (job_id) JOIN models USING (model_id)
    WHERE link.request_id = :request_id AND link.relation IN ('forget', 'awaits')
      AND EXISTS (SELECT 1 FROM versions
                  WHERE versions.lineage_id = job.lineage_id AND versions.status = 'ready')
      AND NOT EXISTS (
        SELECT 1 FROM deletion_request_jobs AS again JOIN jobs AS other USING (job_id)
        WHERE again.request_id = link.request_id AND again.relation = 'forget'
          AND other.lineage_id = job.lineage_id
          AND (other.status = 'succeeded' OR other.finished_time IS NULL))
    ORDER BY job.lineage_id
    """
)


def retry(session: Session, services: Services, request_id: str) -> RequestView:
    """Give a request that needs attention new jobs for the lineages whose jobs failed.

    Raises:
        RequestNotFound: no request has this id.
        NothingToRetry: it does not need attention.
        MethodGone: the service does not have its method any more, or not for one of the models.
    """
    # So that no version is retired meanwhile.
    queries.hold_dataset(session, _get(session, request_id).dataset_id)
    request = _get(session, request_id, lock=True)
    if request.status != "needs_attention":
        raise NothingToRetry(
            f"Request {request_id} is {request.status}; only one that needs attention can be tried again."
        )
    unmet = session.execute(_UNMET, {"request_id": request_id}).all()
    for line in unmet:
        reason = methods.refusal(request.method, line.family, line.task, request.update)
        if reason is not None:
            raise MethodGone(f"Request {request_id} cannot be tried again: {reason}. {METHOD_GONE}")
        job = enqueue_unlearning(
            session,
            services.queue,
            model_id=line.model_id,
            dataset_id=request.dataset_id,
            lineage_id=line.lineage_id,
            spec=intake.job_spec(intake.shared_spec(request), [request.reference_models]),
        )
        session.add(RequestJob(request_id=request_id, job_id=job.job_id, relation="forget"))
    request.status = "pending"
    request.status_reason = None
    session.flush()
    if not unmet:  # what was in its way is gone
        settle_request(session, services.signer, request)
    return read(session, request_id)
