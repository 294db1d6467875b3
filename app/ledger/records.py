"""What a leaf can say: one typed record a kind of event.

Records hold identifiers of resources, digests, counts and times. They have no field for free text,
and pairs appear only through `pairs_commitment`, so no leaf holds personal data. The bytes of a
leaf are the record's canonical JSON (RFC 8785).
"""

import hashlib
import hmac
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

import rfc8785
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_serializer,
)

FORMAT = 1

ResourceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,40}$")]
Count = Annotated[int, Field(ge=0, lt=2**53)]


def utc_text(moment: datetime) -> str:
    """Return ``moment`` in RFC 3339, in UTC, to the microsecond."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _now() -> datetime:
    return datetime.now(UTC)


class Record(BaseModel):
    """Base of every record: immutable, and refuses a field that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]
    # Name of the field whose value the leaf is found by.
    subject_field: ClassVar[str]

    recorded_time: AwareDatetime = Field(default_factory=_now)

    @property
    def subject(self) -> str:
        """Identifier of the resource that the record is about."""
        value: str = getattr(self, self.subject_field)
        return value

    @field_serializer("recorded_time", "deadline", check_fields=False)
    def _times(self, moment: datetime) -> str:
        return utc_text(moment)

    def body(self) -> bytes:
        """Return the leaf's bytes: canonical JSON (RFC 8785)."""
        fields: dict[str, Any] = self.model_dump(mode="json")
        return rfc8785.dumps({"format": FORMAT, "kind": self.kind, **fields})


class DatasetRegistered(Record):
    """A dataset's manifest was put; from now on it never changes."""

    kind = "dataset_registered"
    subject_field = "dataset_id"

    dataset_id: ResourceId
    modality: Word
    manifest_sha256: Digest
    pair_count: Count
    split_counts: dict[Word, Count]
    token_id: ResourceId | None = None


class VersionRegistered(Record):
    """A version entered the registry, by training or by upload."""

    kind = "version_registered"
    subject_field = "version_id"

    version_id: ResourceId
    model_id: ResourceId
    number: Count
    lineage_id: ResourceId
    dataset_id: ResourceId | None
    source: Literal["training", "upload"]
    checkpoint_sha256: Digest
    weights_sha256: Digest | None
    contains_deleted: Count = 0
    job_id: ResourceId | None = None
    token_id: ResourceId | None = None


class VersionRetired(Record):
    """A version was taken out of use for good: it is not given out, and no later request reaches it."""

    kind = "version_retired"
    subject_field = "version_id"

    version_id: ResourceId
    model_id: ResourceId
    lineage_id: ResourceId
    token_id: ResourceId | None = None


class RequestReceived(Record):
    """A deletion request was accepted."""

    kind = "request_received"
    subject_field = "request_id"

    request_id: ResourceId
    dataset_id: ResourceId
    pair_count: Count
    already_forgotten_count: Count = 0
    not_trained_count: Count = 0
    pairs_commitment: Digest
    scope: Word
    objective: Word
    method: Word
    update: Word
    reference_models: Count = 0
    deadline: AwareDatetime
    job_ids: list[ResourceId] = []
    token_id: ResourceId | None = None


class RequestWithdrawn(Record):
    """A deletion request was withdrawn before it was completed."""

    kind = "request_withdrawn"
    subject_field = "request_id"

    request_id: ResourceId
    token_id: ResourceId | None = None


class RequestSaltDeleted(Record):
    """The salt of an ended request was deleted: its commitment can be recomputed by nobody."""

    kind = "request_salt_deleted"
    subject_field = "request_id"

    request_id: ResourceId
    token_id: ResourceId | None = None


class JobStarted(Record):
    """A worker claimed a job."""

    kind = "job_started"
    subject_field = "job_id"

    job_id: ResourceId
    job_kind: Literal["train", "unlearn", "evaluate"]
    model_id: ResourceId
    dataset_id: ResourceId
    lineage_id: ResourceId
    input_version_id: ResourceId | None = None
    attempt: Annotated[int, Field(ge=1, lt=2**31)]
    request_ids: list[ResourceId] = []


class VersionProduced(Record):
    """Unlearning gave a new version."""

    kind = "version_produced"
    subject_field = "version_id"

    version_id: ResourceId
    job_id: ResourceId
    model_id: ResourceId
    number: Count
    lineage_id: ResourceId
    parent_id: ResourceId
    dataset_id: ResourceId
    checkpoint_sha256: Digest
    weights_sha256: Digest
    request_ids: list[ResourceId]


class AuditRecorded(Record):
    """A version was measured; ``metrics_sha256`` is `digest_of` the stored metrics."""

    kind = "audit_recorded"
    subject_field = "version_id"

    audit_id: ResourceId
    version_id: ResourceId
    job_id: ResourceId
    metric_count: Count
    metrics_sha256: Digest


class RequestCompleted(Record):
    """A request was met; ``statement_sha256`` is the digest of its certificate's payload."""

    kind = "request_completed"
    subject_field = "request_id"

    request_id: ResourceId
    statement_sha256: Digest
    version_ids: list[ResourceId] = []
    met_by_request_id: ResourceId | None = None


class CheckpointDownloaded(Record):
    """A caller fetched the weights of a version."""

    kind = "checkpoint_downloaded"
    subject_field = "version_id"

    version_id: ResourceId
    checkpoint_sha256: Digest
    token_id: ResourceId | None = None


def digest_of(value: Any) -> str:
    """Return the SHA-256 (hex) of ``value``'s canonical JSON (RFC 8785)."""
    return hashlib.sha256(rfc8785.dumps(value)).hexdigest()


def pairs_commitment(salt: bytes, pair_ids: Iterable[str]) -> str:
    """Commit to a set of pairs without naming one.

    SHA-256 over the sorted HMAC-SHA256(salt, pair id). Whoever has salt and ids can recompute it;
    once the salt is deleted nobody can link the commitment to a pair.

    Args:
        salt: the request's own 32 random bytes.
        pair_ids: the pairs, in any order, each once.

    Raises:
        ValueError: the salt is not 32 bytes long.
    """
    if len(salt) != 32:
        raise ValueError(f"A request's salt has 32 bytes; this one has {len(salt)}.")
    digests = sorted(hmac.digest(salt, pair_id.encode(), "sha256") for pair_id in pair_ids)
    return hashlib.sha256(b"".join(digests)).hexdigest()
