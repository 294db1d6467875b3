"""What a run does (`RunSpec`) and what it gives back (`RunResult`).

Both are plain data with a JSON form, so that the same run can be started from Python, from a file
or by a worker in another process, and be repeated to the bit.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Update = Literal["all", "fusion"]
Aim = Literal["decouple", "calibrated"]
"""Where deleted pairs should end: unrelated (the paper's aim), or where pairs never seen are."""
Keep = Literal["best", "last"]
"""The epoch whose weights a training ends with: the one of the best validation, or the last."""
Precision = Literal["auto", "fp32", "bf16"]
"""Of the steps of a training: bf16 autocast, or none; auto is bf16 on GPUs that have it, else fp32."""
Modality = Literal["image", "graph"]
Split = Literal["train", "val", "test"]
LEAST_REFERENCES = 4
"""Reference models of which each pair is in two and not in two: the least that has a variance."""


class Frozen(BaseModel):
    """Immutable plain data that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSpec(Frozen):
    """A data set: its pair manifest, and the folder or archive that its references are relative to."""

    manifest: Path
    root: Path


class RunSpec(Frozen):
    """One run of the engine.

    ``train`` makes an original from ``family`` and ``config``; ``unlearn`` makes a version that has
    forgotten from ``checkpoint`` with ``method``; ``evaluate`` measures ``checkpoint`` as it is.
    ``forget`` and ``forgotten`` map a deletion request's id to its pair ids: what this run has to
    forget, and what ancestors of the checkpoint forgot before (never retained, always measured).
    """

    action: Literal["train", "unlearn", "evaluate"]
    data: DataSpec
    family: str
    task: str
    config: dict[str, Any] = Field(default_factory=dict, description="family configuration")
    training: dict[str, Any] = Field(
        default_factory=dict, description="training recipe of the task"
    )
    checkpoint: Path | None = None
    pretrained_root: Path | None = Field(
        default=None,
        description="folder whose folders a configuration may name as pretrained; None: any path or "
        "hub name",
    )
    method: str | None = None
    params: dict[str, Any] = Field(default_factory=dict, description="parameters of the method")
    update: Update = "all"
    objective: Aim = "decouple"
    forget: dict[str, list[str]] = Field(default_factory=dict)
    forgotten: dict[str, list[str]] = Field(default_factory=dict)
    reference_models: int = Field(
        default=0,
        ge=0,
        le=256,
        description="models trained for the attack on each pair: none, or at least 4",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, strict=True)
    threads: int = Field(default=1, ge=1, le=1024)
    device: str = "cpu"
    precision: Precision = "auto"

    @model_validator(mode="after")
    def _references_fit(self) -> Self:
        count = self.reference_models
        if 0 < count < LEAST_REFERENCES:
            raise ValueError(f"reference_models is {count}; give 0 or at least {LEAST_REFERENCES}")
        if count and self.action != "unlearn":
            raise ValueError(
                f"reference_models attack an unlearning, and the action is {self.action}"
            )
        return self


Direction = Literal["higher", "lower", "near_half", "none"]


class Metric(Frozen):
    """One measured quantity on one version.

    ``value`` is None exactly when ``unavailable`` gives the reason; nothing is ever filled in.
    ``subset`` says which pairs: ``test``, ``val``, ``retained`` (a sample), ``forget`` (this run's),
    ``forgotten`` (all that the version and its ancestors forgot), ``request:<id>``.
    """

    name: str
    moment: Literal["before", "after"]
    subset: str
    value: float | None
    interval: tuple[float, float] | None = Field(default=None, description="95% interval")
    n: int = Field(ge=0, description="pairs that were measured")
    direction: Direction
    unit: str = ""
    unavailable: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)


class Cost(Frozen):
    """What a run took: seconds of wall time, bytes, counts.

    A run that was interrupted counts what the saved part of its training took as well.
    """

    seconds: float
    method_seconds: float
    peak_memory_bytes: int
    trained_parameters: int
    samples_seen: int
    steps: int


class RunResult(Frozen):
    """What a run gave: the checkpoint's place and digests, every metric, the cost, where it ran."""

    checkpoint: Path | None
    checkpoint_sha256: str | None
    weights_sha256: str | None
    metrics: list[Metric]
    cost: Cost
    environment: dict[str, str]


class Progress(Frozen):
    """One progress event: ``step`` of ``total`` in ``phase``, with the losses of that step."""

    phase: str
    step: int
    total: int
    losses: dict[str, float] = Field(default_factory=dict)
    message: str = ""
