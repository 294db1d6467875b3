"""What the start and the end of a job mean to the deletion requests of its dataset."""

import json
from collections import defaultdict

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.deletions import intake, methods
from app.deletions.errors import METHOD_GONE
from app.deletions.tables import DeletionRequest, RequestJob
from app.jobs.queue import Queue
from app.jobs.service import enqueue_unlearning
from app.jobs.tables import Job
from app.registry.tables import Model, Version

_LEAVE_OUT = text(
    """
    INSERT INTO deletion_request_jobs (request_id, job_id, relation)
    SELECT request_id, :job_id, 'excluded' FROM deletion_requests
    WHERE dataset_id = :dataset_id AND status NOT IN ('cancelled', 'denied')
    ON CONFLICT (request_id, job_id) DO UPDATE SET relation = 'excluded'
    """
)
_BEGIN = text(
    """
    UPDATE deletion_requests SET status = 'in_progress' WHERE request_id IN (
        SELECT request_id FROM deletion_requests JOIN deletion_request_jobs USING (request_id)
        WHERE job_id = :job_id AND relation = 'forget' AND status = 'pending'
        ORDER BY request_id FOR NO KEY UPDATE OF deletion_requests)
    """
)
_LEARNED = text(
    """
    SELECT request_id FROM deletion_requests AS request
    WHERE dataset_id = :dataset_id AND status NOT IN ('cancelled', 'denied') AND versions IS NULL
      AND NOT EXISTS (SELECT 1 FROM deletion_request_jobs AS link
                      WHERE link.request_id = request.request_id AND link.job_id = :job_id
                        AND link.relation = 'excluded')
      AND EXISTS (SELECT 1 FROM deletion_request_pairs AS named
                  JOIN pairs ON pairs.dataset_id = named.dataset_id AND pairs.pair_id = named.pair_id
                  WHERE named.request_id = request.request_id AND pairs.split = 'train')
    ORDER BY request_id
    """
)
_FORGET_LINKS = text(
    """
    DELETE FROM deletion_request_jobs AS link USING deletion_requests AS request
    WHERE request.request_id = link.request_id AND link.job_id = :job_id AND link.relation = 'forget'
      AND request.status IN ('cancelled', 'denied') AND NOT link.request_id = ANY(:covered)
    """
)


def begin(session: Session, job: Job) -> None:
    """Note that a job has been claimed.

    A training leaves out the pairs of every request so far; the caller holds the dataset. That is
    nothing that a request waits for: only the start of a job of its own puts one in progress.
    """
    values = {"job_id": job.job_id, "dataset_id": job.dataset_id}
    if job.kind == "train":
        session.execute(_LEAVE_OUT, values)
    session.execute(_BEGIN, values)


def covered(session: Session, job: Job, request_ids: list[str]) -> None:
    """Keep to the truth which requests a finished job met: not those withdrawn before it began."""
    session.execute(_FORGET_LINKS, {"job_id": job.job_id, "covered": request_ids})


def after_training(session: Session, queue: Queue, job: Job, version: Version) -> None:
    """Have a new version unlearn the pairs of requests that came while it was being trained.

    Requests that ask for the same method share a job. The caller holds the dataset.
    """
    values = {"job_id": job.job_id, "dataset_id": job.dataset_id}
    request_ids = list(session.execute(_LEARNED, values).scalars())
    groups: dict[str, list[DeletionRequest]] = defaultdict(list)
    for request_id in request_ids:
        request = session.get_one(DeletionRequest, request_id)
        groups[json.dumps(intake.shared_spec(request), sort_keys=True)].append(request)
    for shared, requests in groups.items():
        spec = intake.job_spec(json.loads(shared), [one.reference_models for one in requests])
        _unlearn(session, queue, version, spec, requests)


def _unlearn(
    session: Session,
    queue: Queue,
    version: Version,
    spec: dict[str, object],
    requests: list[DeletionRequest],
) -> None:
    model = session.get_one(Model, version.model_id)
    reason = methods.refusal(str(spec["method"]), model.family, model.task, str(spec["update"]))
    if reason is not None:
        for request in requests:
            request.status = "needs_attention"
            request.status_reason = (
                f"Version {version.version_id} has learned the pairs, and cannot unlearn them as asked:"
                f" {reason}. {METHOD_GONE}"
            )
        return
    job = enqueue_unlearning(
        session,
        queue,
        model_id=version.model_id,
        dataset_id=requests[0].dataset_id,
        lineage_id=version.lineage_id,
        spec=spec,
    )
    links = [
        RequestJob(request_id=r.request_id, job_id=job.job_id, relation="forget") for r in requests
    ]
    session.add_all(links)
    session.flush()
