"""Bodies of the job endpoints."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal[
    "queued",
    "preparing",
    "running",
    "auditing",
    "succeeded",
    "failed",
    "cancelling",
    "cancelled",
]


class AttemptView(BaseModel):
    """One claim of a job by a worker."""

    model_config = ConfigDict(from_attributes=True)

    number: int = Field(description="Grows with each claim; an attempt that was put back counts.")
    worker: str
    started_time: datetime
    ended_time: datetime | None = None
    outcome: str | None = None
    reason: str | None = None


class ProgressView(BaseModel):
    """Where a running job stands; empty before it runs."""

    phase: str | None = None
    step: int | None = None
    total: int | None = None
    losses: dict[str, float] = {}
    message: str = ""


class ErrorView(BaseModel):
    """Why a job did not succeed."""

    code: str
    message: str


class JobView(BaseModel):
    """A job."""

    model_config = ConfigDict(protected_namespaces=())

    job_id: str
    kind: Literal["train", "unlearn", "evaluate"]
    status: Status
    model_id: str
    dataset_id: str
    lineage_id: str
    input_version_id: str | None = None
    output_version_id: str | None = None
    spec: dict[str, Any]
    attempts: list[AttemptView]
    max_attempts: int
    progress: ProgressView
    result: dict[str, Any] | None = None
    error: ErrorView | None = None
    retry_time: datetime | None = Field(
        default=None,
        description="When the next attempt may begin, of a queued job whose last one broke off.",
    )
    created_time: datetime
    started_time: datetime | None = None
    finished_time: datetime | None = None


class EventView(BaseModel):
    """One point of a job's history; give the last ``event_id`` as ``after`` to get what is new."""

    model_config = ConfigDict(from_attributes=True)

    event_id: int
    kind: str
    data: dict[str, Any]
    created_time: datetime


class EventsView(BaseModel):
    """Part of a job's history, oldest first."""

    items: list[EventView]
    last_event_id: int = Field(description="Give it as `after` to get what came since.")
