"""What audits and reports look like as JSON."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.registry.schemas import CONTAINS_DELETED


class MetricOut(BaseModel):
    """One measured quantity. ``value`` is null exactly where ``unavailable`` gives the reason."""

    name: str = Field(examples=["d_f"])
    moment: Literal["before", "after"]
    subset: str = Field(
        description="test, val, retained (a sample), forget (the job's pairs), forgotten (all so far) or"
        " request:<id>.",
        examples=["request:req_01k9"],
    )
    value: float | None = Field(examples=[12.4])
    interval: tuple[float, float] | None = Field(default=None, description="95% interval.")
    n: int = Field(description="Pairs that were measured.", examples=[160])
    direction: str = Field(examples=["lower"])
    unit: str = ""
    unavailable: str | None = None
    details: dict[str, Any] = {}


class AuditOut(BaseModel):
    """What one job measured on one version."""

    audit_id: str
    version_id: str
    job_id: str
    objective: str | None
    metrics: list[MetricOut]
    cost: dict[str, Any]
    environment: dict[str, Any]
    created_time: datetime


class VersionAuditOut(BaseModel):
    """Every audit of a version, oldest first."""

    version_id: str
    model_id: str
    number: int
    checkpoint_sha256: str | None
    weights_sha256: str | None
    contains_deleted: int = Field(description=CONTAINS_DELETED)
    audits: list[AuditOut]


_MADE = "False where the version had forgotten the pairs before the request's turn came."


class ForgottenIn(BaseModel):
    """How many of the request's training pairs were gone from a lineage with one of its versions.

    Figures on just these are in the audit of that version; the audit of the last one has those on
    all that were ever forgotten.
    """

    version_id: str
    number: int
    pair_count: int
    learned: bool = Field(description="False where the version was trained without them.")


_WHERE = (
    "Where the request's training pairs were forgotten on the way to this version, oldest first."
)


class StandingOut(BaseModel):
    """A version that has forgotten the request's pairs, and the audit by the job that made it."""

    version_id: str
    input_version_id: str | None
    model_id: str
    number: int
    status: str = Field(examples=["ready", "retired"])
    job_id: str | None = Field(description="The job that made it.")
    made_for_request: bool = Field(description=_MADE)
    checkpoint_sha256: str | None
    weights_sha256: str | None
    forgotten_in: list[ForgottenIn] = Field(description=_WHERE)
    audit: AuditOut | None


class RequestAuditOut(BaseModel):
    """The measurements on every version that stands for a request, as its certificate states them."""

    request_id: str
    dataset_id: str
    status: str
    met_by_request_id: str | None
    versions: list[StandingOut]


class Measured(BaseModel):
    """A value with its margin of error."""

    value: float | None
    interval: tuple[float, float] | None
    n: int
    unavailable: str | None
    text: str = Field(examples=["12.4 (9.8 to 15.1)"])


class LabelFinding(BaseModel):
    """A quantity before and after on the pairs of one label."""

    label: str = Field(examples=["1"])
    before: Measured | None
    after: Measured | None


class Finding(BaseModel):
    """One quantity before and after, what it means, and how this outcome reads."""

    name: str
    title: str
    subset: str
    pairs: str = Field(description="In words, the pairs that were measured.")
    before: Measured | None
    after: Measured | None
    meaning: str
    reading: str
    per_label: list[LabelFinding] = Field(
        default=[], description="The same for each label, where pairs have several."
    )


class ScoreSpread(BaseModel):
    """How the scores of pairs are spread over equal bins: the counts of three groups of pairs."""

    moment: Literal["before", "after"]
    low: float = Field(description="Lower edge of the first bin.", examples=[0.0])
    high: float = Field(description="Upper edge of the last bin.", examples=[1.0])
    deleted: list[int]
    retained: list[int]
    unseen: list[int]
    reading: str = Field(
        examples=["Half of the pairs score above about: deleted 0.08, kept 0.97, never seen 0.60."]
    )


class VersionReport(BaseModel):
    """A version that has forgotten the request's pairs."""

    version_id: str
    input_version_id: str | None
    model_name: str
    family: str
    task: str
    number: int
    status: str
    job_id: str | None
    method: str = Field(description="The method that made it.")
    made_for_request: bool = Field(description=_MADE)
    other_requests: int = Field(description="Further requests whose pairs it was made to forget.")
    forgotten_in: list[ForgottenIn] = Field(description=_WHERE)
    forgotten_sentence: str = Field(
        description="The same in words; empty where it was all in this version.",
        examples=["Of its 4 training pairs 3 were forgotten in version 2 and 1 in version 3."],
    )
    reference_models: int = Field(
        description="Made for an attack on each pair; 0 where none were, or none could be."
    )
    checkpoint_sha256: str | None
    weights_sha256: str | None
    findings: list[Finding]
    score_spreads: list[ScoreSpread] = Field(description="Of the request's pairs.")
    seconds: float | None
    environment: dict[str, Any]


class LeafReport(BaseModel):
    """A leaf of the log that concerns the request."""

    leaf_index: int
    kind: str
    subject: str
    meaning: str
    recorded_time: datetime


class LedgerReport(BaseModel):
    """The log's evidence: its signed head now, and the leaves that concern the request."""

    origin: str
    size: int
    note: str
    leaves: list[LeafReport]


class RequestFacts(BaseModel):
    """What was asked, and when it was met."""

    request_id: str
    status: str
    status_reason: str | None
    dataset_id: str
    dataset_name: str
    submitted_time: datetime
    deadline: datetime
    completed_time: datetime | None
    pair_count: int
    already_forgotten_count: int = Field(
        description="Counted when the request was accepted; 0 where it reached no version in use."
    )
    not_trained_count: int
    met_by_request_id: str | None
    method: str
    update: str
    params: dict[str, Any] = Field(description="Of the method, as asked for; others by default.")
    scope: str
    objective: str
    reference_models: int = Field(description="Asked for, for an attack on each pair.")


class JobFact(BaseModel):
    """A job of the request and how it stands."""

    job_id: str
    kind: str
    status: str


class ReportOut(BaseModel):
    """The compliance report of a deletion request: figures, and what they mean in plain words."""

    title: str
    created_time: datetime
    request: RequestFacts
    summary: list[str]
    jobs: list[JobFact]
    versions: list[VersionReport]
    never_learned: list[str] = Field(description="Versions trained without the pairs.")
    retired_versions: list[str] = Field(
        description="Retired, so out of use and left as they are: the newest of each lineage that"
        " learned at least one of the pairs."
    )
    guarantee: Literal["exact", "approximate", "not_needed", "none_yet"]
    guarantee_sentence: str
    limitations: list[str]
    ledger: LedgerReport
    certificate_available: bool
    does_not_prove: list[str]
