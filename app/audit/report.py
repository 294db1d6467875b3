"""The compliance report of a request: what was asked, what was done, how sure that is."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from sqlalchemy.orm import Session

from app.audit import queries
from app.audit.findings import findings, score_spreads, verdict
from app.audit.schemas import (
    JobFact,
    LeafReport,
    LedgerReport,
    MetricOut,
    ReportOut,
    RequestFacts,
    VersionReport,
)
from app.audit.service import find_request
from app.datasets.tables import Dataset
from app.deletions import outcome
from app.deletions.outcome import Standing
from app.deletions.tables import DeletionRequest
from app.ledger import log, tables
from app.ledger.certificate import reference_models_of
from app.ledger.explain import GUARANTEES, LIMITS
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
    versions = [_version(one, request, holds) for one in standing]
    retired = outcome.retired(session, request, standing)
    subjects = {request_id, holds.request_id, request.dataset_id}
    subjects |= {job.job_id for job in jobs} | {version.version_id for version in versions}
    subjects |= set(retired)
    return ReportOut(
        title=f"Report on deletion request {request_id}",
        created_time=datetime.now(UTC),
        request=_facts(session, request),
        summary=_summary(request, versions, retired),
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


def _summary(
    request: DeletionRequest, versions: Sequence[VersionReport], retired: Sequence[str]
) -> list[str]:
    return [
        _asked(request),
        *_counted(request),
        *_attack(request, versions),
        _outcome(request, versions),
        *(_verdict(version) for version in versions),
        *_left(retired),
        _on_time(request),
    ]


def _asked(request: DeletionRequest) -> str:
    what = {
        "association": "that the model forgets that image (or graph) and text of each pair belong"
        " together. What it knows of an image or a text on its own is kept",
        "unimodal": "that the model also forgets each image (or graph) and each text on its own",
        "full": "that the model becomes as if it had never seen the pairs",
    }
    return f"Asked was to delete {_pairs(request.pair_count)}. Scope: {what[request.scope]}."


def _counted(request: DeletionRequest) -> list[str]:
    found = []
    if request.already_forgotten_count:
        found.append(
            "Forgotten before, or asked for by an earlier request, when this one was accepted:"
            f" {_pairs(request.already_forgotten_count)}."
        )
    if request.not_trained_count:
        found.append(f"Never trained on (validation or test): {_pairs(request.not_trained_count)}.")
    return found


def _attack(request: DeletionRequest, versions: Sequence[VersionReport]) -> list[str]:
    """Say what was asked for and made of reference models; by a reader's words for them."""
    asked = request.reference_models
    made = sorted({version.reference_models for version in versions})
    if not asked and not any(made):
        return []
    said = [f"Asked for besides was an attack on each pair by {asked} comparison models."]
    if not asked:
        said = ["Another request asked for an attack on each pair by comparison models."]
    if made and request.status == "completed":
        numbers = " or ".join(str(number or "none") for number in made)
        said.append(f"For each version {numbers} were made.")
    elif request.status == "completed":
        said.append("As nothing had to be unlearned, none were made.")
    return [" ".join(said)]


def _left(retired: Sequence[str]) -> list[str]:
    if not retired:
        return []
    return [f"Retired, so out of use and left as they are: {', '.join(retired)}."]


def _outcome(request: DeletionRequest, versions: Sequence[VersionReport]) -> str:
    if request.status != "completed":
        reason = f" {request.status_reason}" if request.status_reason else ""
        return f"The request is {request.status.replace('_', ' ')}.{reason}"
    if request.met_by_request_id:
        return (
            "Every pair had been forgotten before, so nothing had to be done again: the certificate"
            f" of request {request.met_by_request_id} holds."
        )
    if not versions:
        return "No registered version in use had learned from the pairs, so none had to be changed."
    new = [version for version in versions if version.made_for_request]
    there = [version for version in versions if not version.made_for_request]
    return " ".join(filter(None, (_made(new), _already_there(there))))


def _made(versions: Sequence[VersionReport]) -> str:
    if not versions:
        return ""
    new = "A new version was" if len(versions) == 1 else f"{len(versions)} new versions were"
    said = f"{new} made with method {_methods(versions)}{_measured(versions)}, and recorded."
    if others := max(version.other_requests for version in versions):
        more = "another request" if others == 1 else f"{others} other requests"
        said += f" What was made forgot the pairs of {more} in the same step."
    return said


def _already_there(versions: Sequence[VersionReport]) -> str:
    if not versions:
        return ""
    stand = "1 version" if len(versions) == 1 else f"{len(versions)} versions"
    return (
        "Jobs of other requests had forgotten every pair already, so nothing was left to forget:"
        f" {stand} made with method {_methods(versions)}{_measured(versions)} before."
    )


def _verdict(version: VersionReport) -> str:
    return f"{version.model_name}, version {version.number}. {verdict(version.findings)}"


def _methods(versions: Sequence[VersionReport]) -> str:
    return ", ".join(dict.fromkeys(version.method for version in versions))


def _measured(versions: Sequence[VersionReport]) -> str:
    return ", measured" if all(version.findings for version in versions) else ""


def _on_time(request: DeletionRequest) -> str:
    due = f"{request.deadline.astimezone(UTC):%d %B %Y, %H:%M} UTC"
    done = request.completed_time
    if done is None:
        return f"It is due by {due}."
    said = "in time" if done <= request.deadline else "too late"
    return f"It was completed {said}: on {done.astimezone(UTC):%d %B %Y, %H:%M} UTC, due by {due}."


def _pairs(count: int) -> str:
    return f"{count:,} pair" if count == 1 else f"{count:,} pairs"


def _version(one: Standing, request: DeletionRequest, holds: DeletionRequest) -> VersionReport:
    audit = one.audit
    metrics = (
        [] if audit is None else [MetricOut.model_validate(metric) for metric in audit.metrics]
    )
    made_for = holds.request_id in one.made_for
    aim = None if made_for or audit is None else audit.objective
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
        reference_models=0 if audit is None else reference_models_of(audit.metrics),
        checkpoint_sha256=one.version.checkpoint_sha256,
        weights_sha256=one.version.weights_sha256,
        findings=findings(metrics, holds.request_id, aim or holds.objective, made_for=made_for),
        score_spreads=score_spreads(metrics, holds.request_id, made_for=made_for),
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
    return environment


def as_html(report: ReportOut) -> str:
    """Return the report as one HTML page that needs no other file and no script."""
    return _templates().get_template("report.html").render(report=report)
