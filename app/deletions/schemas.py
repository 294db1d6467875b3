"""Bodies of the deletion-request endpoints."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from app.core.json_bodies import Body

# No manifest could ever name anything with control characters.
_NO_CONTROLS = r"^[^\x00-\x1f\x7f]+$"
PairId = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_NO_CONTROLS)]
ItemId = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=_NO_CONTROLS)]
# Of which each pair is in half: the least that has a spread, and a bound on what a caller can cost.
LEAST_REFERENCES, MOST_REFERENCES = 4, 64


def _none_or_enough(count: int) -> int:
    if 0 < count < LEAST_REFERENCES:
        raise ValueError(f"0, or {LEAST_REFERENCES} to {MOST_REFERENCES}, is expected")
    return count


ReferenceModels = Annotated[
    int,
    Field(
        ge=0,
        le=MOST_REFERENCES,
        json_schema_extra={"not": {"enum": list(range(1, LEAST_REFERENCES))}},
    ),
    AfterValidator(_none_or_enough),
]
Status = Literal[
    "pending", "in_progress", "needs_attention", "on_hold", "completed", "denied", "cancelled"
]
_EXAMPLE: dict[str, Any] = {
    "dataset_id": "ds_01k0c8m5e2x7v9t3r6w4y1z8q5",
    "targets": {"pair_ids": ["1017-2"], "item_ids": ["1000092795.jpg"]},
    "method": "multidelete",
    "reason": "consent withdrawn",
}


class Targets(Body):
    """What must be forgotten: pairs named one by one, by image or graph, or by text; united."""

    pair_ids: list[PairId] = Field(default=[], description="Ids of pairs.", max_length=5_000_000)
    item_ids: list[ItemId] = Field(
        default=[], description="Every pair of these images or graphs.", max_length=5_000_000
    )
    text_ids: list[PairId] = Field(
        default=[], description="Every pair of these texts.", max_length=5_000_000
    )

    @model_validator(mode="after")
    def _something(self) -> "Targets":
        if not (self.pair_ids or self.item_ids or self.text_ids):
            raise ValueError("name at least one pair, item or text")
        return self

    def distinct(self) -> dict[str, list[str]]:
        """Return kind -> ids, each once, without empty kinds."""
        kinds = {"pair_ids": self.pair_ids, "item_ids": self.item_ids, "text_ids": self.text_ids}
        return {kind: list(dict.fromkeys(ids)) for kind, ids in kinds.items() if ids}


class AuditOptions(Body, frozen=True):  # so that the default need not be copied
    """What is measured beyond what every audit measures."""

    reference_models: ReferenceModels = Field(
        default=0,
        description="Models that are trained, and made to forget as the audited version was, for an"
        f" attack on each pair (U-LiRA): 0, or {LEAST_REFERENCES} to {MOST_REFERENCES}. Each costs a"
        " training and an unlearning. Requests that share a job get the largest number that one of"
        " them asks for; where nothing has to be unlearned none are made.",
    )


class NewRequest(Body):
    """A deletion request: what must be forgotten, on which versions, how."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    dataset_id: str = Field(max_length=40)
    targets: Targets
    versions: list[Annotated[str, StringConstraints(max_length=40)]] | None = Field(
        default=None,
        description="Versions whose lineages must forget; omitted: every one in use that learned"
        " from the dataset. Retired versions are never reached.",
        min_length=1,
        max_length=1000,
    )
    method: str = Field(default="multidelete", max_length=40, description="See GET /v1/catalogue.")
    update: Literal["all", "fusion"] = Field(
        default="all", description="Which weights may change: all, or the fusion module alone."
    )
    params: dict[str, Any] = Field(default={}, description="Parameters of the method.")
    objective: Literal["decouple", "calibrated"] = Field(
        default="decouple",
        description="Where deleted pairs are to end: `decouple`: they look unrelated;"
        " `calibrated`: they look like pairs that the model never saw.",
    )
    scope: Literal["association", "unimodal", "full"] = Field(
        default="association",
        description="What must go: the tie between item and text, or also what was learned from each.",
    )
    audit: AuditOptions = Field(default=AuditOptions(), description="Further measurements.")
    reason: str | None = Field(default=None, max_length=2000, description="Kept out of the ledger.")


class RequestJobView(BaseModel):
    """A job that works for a request."""

    job_id: str
    status: str
    relation: Literal["forget", "awaits"] = Field(
        description="`awaits`: a training that was running; its version will be given a job of its own."
    )
    lineage_id: str
    input_version_id: str | None = None
    output_version_id: str | None = None


class Links(BaseModel):
    """Where the outcome of a request is."""

    audit: str
    report: str
    certificate: str


class RequestView(BaseModel):
    """A deletion request."""

    model_config = ConfigDict(from_attributes=True)

    request_id: str
    dataset_id: str
    status: Status
    status_reason: str | None = None
    submitted_time: datetime
    deadline: datetime = Field(description="One calendar month after submission.")
    completed_time: datetime | None = None
    pair_count: int = Field(description="Distinct pairs that the targets name.")
    already_forgotten_count: int = Field(
        description="Of these, training pairs that on every version lineage that the request reaches"
        " were forgotten, or asked to be forgotten by an earlier request that was neither withdrawn"
        " nor denied. Counted when the request is accepted; requests are accepted one after the"
        " other, and the count does not change later. 0 where the request reaches no version in use:"
        " nothing is counted then."
    )
    not_trained_count: int = Field(
        description="Of these, in no training split: nothing to unlearn."
    )
    met_by_request_id: str | None = None
    versions: list[str] | None = None
    method: str
    update: str
    params: dict[str, Any]
    objective: str
    scope: str
    audit: AuditOptions
    reason: str | None = None
    jobs: list[RequestJobView] = []
    links: Links


def links_of(request_id: str) -> Links:
    """Return the places of a request's audit, report and certificate."""
    base = f"/v1/audit/requests/{request_id}"
    return Links(audit=base, report=f"{base}/report", certificate=f"{base}/certificate")
