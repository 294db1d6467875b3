"""The compliance report of a request: what was asked, what was done, how sure that is."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from sqlalchemy.orm import Session

from app.audit import queries
from app.audit.findings import Concern, findings, score_spreads
from app.audit.schemas import (
    JobFact,
    LeafReport,
    LedgerReport,
    MetricOut,
    ReportOut,
    RequestFacts,
    VersionReport,
)
from app.audit.service import find_request, forgotten_in
from app.audit.summary import forgotten_sentence, summary
from app.datasets.tables import Dataset
from app.deletions import outcome
from app.deletions.origins import Origin, origins
from app.deletions.outcome import Standing
from app.deletions.tables import DeletionRequest
from app.ledger import log, tables
from app.ledger.certificate import reference_models_of
from app.ledger.explain import AIMS, GUARANTEES, LIMITS
from app.ledger.tree_head import Signer

LEAVES = {
    "dataset_registered": "The dataset's manifest was registered.",
    "request_received": "The request was accepted.",
    "request_withdrawn": "The request was withdrawn.",
    "request_salt_deleted": "The salt was deleted: nobody can recompute the commitment.",
    "job_started": "A worker began a job.",
    "version_registered": "A version entered the registry.",
    "version_produced": "A new version that forgot the pairs was made.",
    "version_retired": "The version was taken out of use for good.",
    "audit_recorded": "The version was measured.",
    "request_completed": "The request was completed and its certificate issued.",
}
"""Kinds of leaves that a report lists, and what each says."""


def report_of(session: Session, signer: Signer, request_id: str) -> ReportOut:
    """Return the report of a request as things stand.

    Raises:
        RequestUnknown: there is none with this id.
    """
    request = find_request(session, request_id)
    holds = queries.certified(session, request)
    standing = outcome.shown(session, holds)
    jobs = queries.jobs_of(session, holds.request_id)
    stated = outcome.stated(holds)
    guarantee = stated.get("guarantee", "none_yet")
    gone = origins(session, request, standing)
    theirs = gone if holds is request else origins(session, holds, standing)
    versions = [
        _version(one, request, holds, gone[one.version.version_id], theirs[one.version.version_id])
        for one in standing
    ]
    retired = outcome.retired(session, request, standing)
    subjects = {request_id, holds.request_id, request.dataset_id}
    subjects |= {job.job_id for job in jobs} | {version.version_id for version in versions}
    subjects |= set(retired)
    return ReportOut(
        title=f"Report on deletion request {request_id}",
        created_time=datetime.now(UTC),
        request=_facts(session, request),
        summary=summary(request, session.get_one(Dataset, request.dataset_id), versions, retired),
        jobs=[JobFact(job_id=job.job_id, kind=job.kind, status=job.status) for job in jobs],
        versions=versions,
        never_learned=queries.never_learned(session, request_id),
        retired_versions=retired,
        guarantee=guarantee,
        guarantee_sentence=_guarantee_sentence(guarantee),
        limitations=stated.get("limitations", []),
        ledger=_ledger(session, signer, sorted(subjects)),
        certificate_available=request.status == "completed" and holds.certificate is not None,
        does_not_prove=list(LIMITS),
    )


def _guarantee_sentence(guarantee: str) -> str:
    sentence = GUARANTEES.get(guarantee, "none yet: the request is not completed")
    return f"{sentence[0].upper()}{sentence[1:]}."


def _facts(session: Session, request: DeletionRequest) -> RequestFacts:
    dataset = session.get_one(Dataset, request.dataset_id)
    same = {
        name: getattr(request, name) for name in RequestFacts.model_fields if name != "dataset_name"
    }
    return RequestFacts(**same, dataset_name=dataset.name)


def _concern(
    one: Standing, request: DeletionRequest, holds: DeletionRequest, gone: Sequence[Origin]
) -> Concern:
    here = sum(part.pair_count for part in gone if part.version_id == one.version.version_id)
    return Concern(
        request_id=holds.request_id,
        made_for=holds.request_id in one.made_for,
        here=here,
        before=sum(part.pair_count for part in gone) - here,
        whose="this request" if holds is request else f"request {holds.request_id}",
    )


def _version(
    one: Standing,
    request: DeletionRequest,
    holds: DeletionRequest,
    gone: Sequence[Origin],
    theirs: Sequence[Origin],
) -> VersionReport:
    audit = one.audit
    metrics = (
        [] if audit is None else [MetricOut.model_validate(metric) for metric in audit.metrics]
    )
    concern = _concern(one, request, holds, theirs)
    aim = None if concern.made_for or audit is None else audit.objective
    return VersionReport(
        version_id=one.version.version_id,
        input_version_id=one.version.parent_id,
        model_name=one.model.name,
        family=one.model.family,
        task=one.model.task,
        number=one.version.number,
        status=one.version.status,
        job_id=one.version.job_id,
        method=one.method_or(holds.method),
        made_for_request=request.request_id in one.made_for,
        other_requests=len(one.made_for - {request.request_id}),
        forgotten_in=forgotten_in(gone),
        forgotten_sentence=forgotten_sentence(one.version.version_id, gone),
        reference_models=0 if audit is None else reference_models_of(audit.metrics),
        checkpoint_sha256=one.version.checkpoint_sha256,
        weights_sha256=one.version.weights_sha256,
        findings=findings(metrics, concern, aim or holds.objective),
        score_spreads=score_spreads(metrics, concern),
        seconds=None if audit is None else audit.cost.get("seconds"),
        environment={} if audit is None else audit.environment,
    )


def _ledger(session: Session, signer: Signer, subjects: Sequence[str]) -> LedgerReport:
    head = log.head(session, signer)
    leaves = log.leaves_about(session, subjects, list(LEAVES))
    return LedgerReport(
        origin=head.origin,
        size=head.size,
        note=head.note,
        leaves=[_leaf(leaf) for leaf in leaves],
    )


def _leaf(leaf: tables.Leaf) -> LeafReport:
    return LeafReport(
        leaf_index=leaf.leaf_index,
        kind=leaf.kind,
        subject=leaf.subject,
        meaning=LEAVES[leaf.kind],
        recorded_time=leaf.created_time,
    )


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


@lru_cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("app.audit"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["utc"] = _utc
    environment.filters["aim"] = lambda name: AIMS.get(name, name)
    return environment


def as_html(report: ReportOut) -> str:
    """Return the report as one HTML page that needs no other file and no script."""
    return _templates().get_template("report.html").render(report=report)
