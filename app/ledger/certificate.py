"""Certificates of deletion: an in-toto Statement in a DSSE envelope, with evidence from the log."""

import base64
import hashlib
from typing import Any, Literal

import rfc8785
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_serializer
from securesystemslib.dsse import Envelope
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.ledger import log, tables
from app.ledger.errors import NoSuchLeaf
from app.ledger.form import MEDIA_TYPE, PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE
from app.ledger.records import Count, Digest, RequestCompleted, ResourceId, Word, utc_text
from app.ledger.tree_head import Signer

KEY_METRICS = ("d_test", "d_f", "mi_ratio", "unseen_auc")
"""Names of the metrics that a certificate repeats; the audit has all of them."""
ATTACK_METRICS = ("ulira_auc", "ulira_tpr_at_1pct_fpr", "ulira_tpr_at_0.1pct_fpr")
"""Those of the attack by reference models, which a certificate repeats where some were asked for.
They are measured on this job's pairs, and on retained ones."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeyMetric(_Frozen):
    """One measured quantity of the audit; ``value`` is None where ``unavailable`` says why."""

    name: str
    moment: Literal["before", "after"]
    subset: str
    value: float | None
    interval: tuple[float, float] | None = Field(default=None, description="95% interval")
    n: int = Field(ge=0, description="pairs that were measured")
    direction: str = "none"
    unit: str = ""
    unavailable: str | None = None


class ForgottenIn(_Frozen):
    """How many of the request's training pairs a version forgot, or was trained without."""

    version_id: ResourceId
    pair_count: Count


class CertifiedVersion(_Frozen):
    """A version that has forgotten the pairs, and the version that it was made from.

    ``made_for_request`` is false where it had forgotten them before the request's turn came.
    ``reference_models`` is 0 where none were asked for, or none could be made. ``forgotten_in``
    divides the request's training pairs among this version and those before it.
    """

    version_id: ResourceId
    input_version_id: ResourceId
    checkpoint_sha256: Digest
    weights_sha256: Digest
    method: Word | None = None
    made_for_request: bool = True
    reference_models: Count = Field(default=0, description="made for the attack on each pair")
    forgotten_in: list[ForgottenIn] = []
    metrics: list[KeyMetric]


class CertificateData(_Frozen):
    """What a certificate states; ``guarantee`` is ``not_needed`` where no version had to change.

    ``retired_versions`` are out of use and were left as they are: the newest one of each lineage.
    """

    request_id: ResourceId
    dataset_id: ResourceId
    received_time: AwareDatetime
    completed_time: AwareDatetime
    deadline: AwareDatetime
    scope: Word
    objective: Word
    method: Word
    update: Word
    reference_models: Count = Field(default=0, description="asked for by the request")
    guarantee: Literal["exact", "approximate", "not_needed"]
    limitations: list[str]
    pair_count: Count
    already_forgotten_count: Count = 0
    not_trained_count: Count = 0
    pairs_commitment: Digest
    versions: list[CertifiedVersion]
    retired_versions: list[ResourceId] = []
    earlier_requests: list[ResourceId] = []

    @field_serializer("received_time", "completed_time", "deadline")
    def _times(self, moment: Any) -> str:
        return utc_text(moment)


def key_metrics(
    metrics: list[dict[str, Any]],
    request_id: str,
    *,
    made_for_request: bool = True,
    attacked: bool = False,
) -> list[KeyMetric]:
    """Choose from an audit's metrics those that the certificate of ``request_id`` repeats.

    Kept are `KEY_METRICS` on the test split, on this job's pairs, on all that the version has ever
    forgotten, and on the request's own; not those of other requests. Of a version that was not
    made for the request the job's pairs are others, unless they are all that it has forgotten.
    `ATTACK_METRICS` come with them, on retained pairs too, where the job was to make reference models.

    Args:
        metrics: of the audit.
        request_id: the request.
        made_for_request: whether the version was made for it.
        attacked: whether the job was to make reference models.
    """
    subsets = {"test", "forget", "forgotten", f"request:{request_id}"}
    if not made_for_request and any(m["subset"] == "forgotten" for m in metrics):
        subsets.discard("forget")
    wanted = {(name, subset) for name in KEY_METRICS for subset in subsets}
    if attacked:
        groups = subsets & {"forget"} | {"retained"}
        wanted |= {(name, subset) for name in ATTACK_METRICS for subset in groups}
    chosen = [m for m in metrics if (m["name"], m["subset"]) in wanted]
    known = set(KeyMetric.model_fields)
    return [KeyMetric(**{key: m[key] for key in known & m.keys()}) for m in chosen]


def reference_models_of(metrics: list[dict[str, Any]]) -> int:
    """Return how many reference models were made for an audit, by what the attack says itself."""
    made = (m.get("details", {}).get("reference_models", 0) for m in metrics)
    return max(made, default=0)


def statement(data: CertificateData) -> bytes:
    """Return the canonical JSON of the in-toto Statement v1; its subjects are the checkpoints.

    Where no version had to change, the subject is the commitment to the pairs.
    """
    subjects = [_subject(f"version/{v.version_id}", v.checkpoint_sha256) for v in data.versions]
    commitment = _subject(f"pairs-of/{data.request_id}", data.pairs_commitment)
    return rfc8785.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": subjects or [commitment],
            "predicateType": PREDICATE_TYPE,
            "predicate": data.model_dump(mode="json"),
        }
    )


def _subject(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}


def issue(session: Session, signer: Signer, data: CertificateData) -> dict[str, Any]:
    """Sign the certificate, record its digest in the log, and return both as one bundle.

    Takes the log's lock until the transaction ends: call it last. Nothing holds unless the
    transaction commits, so hand the bundle out only after that.
    """
    payload = statement(data)
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(signer.dsse_signer())
    record = RequestCompleted(
        request_id=data.request_id,
        statement_sha256=hashlib.sha256(payload).hexdigest(),
        version_ids=[version.version_id for version in data.versions],
    )
    leaf_index = log.append(session, record)
    return {
        "mediaType": MEDIA_TYPE,
        "dsseEnvelope": envelope.to_dict(),
        "ledger": evidence(session, signer, leaf_index),
    }


def refer(
    session: Session, request_id: str, earlier_request_id: str, bundle: dict[str, Any]
) -> int:
    """Record that an earlier request, whose certificate is ``bundle``, meets this one too.

    Takes the log's lock until the transaction ends: call it last. Returns the leaf's index.
    """
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    record = RequestCompleted(
        request_id=request_id,
        statement_sha256=hashlib.sha256(payload).hexdigest(),
        met_by_request_id=earlier_request_id,
    )
    return log.append(session, record)


def evidence(
    session: Session, signer: Signer, leaf_index: int, since: int | None = None
) -> dict[str, Any]:
    """Return what shows that a leaf is in the log as it is now.

    Args:
        session: the transaction.
        signer: signs the current tree head if nobody has.
        leaf_index: the leaf.
        since: size of an older tree head; adds the proof that the log only grew since then.

    Raises:
        NoSuchLeaf: the log has no such leaf.
        NoSuchSize: the log has never had ``since`` leaves.
    """
    body = session.scalar(select(tables.Leaf.body).where(tables.Leaf.leaf_index == leaf_index))
    if body is None:
        raise NoSuchLeaf(f"The log has no leaf {leaf_index}.")
    head = log.head(session, signer)
    shown: dict[str, Any] = {
        "leaf": body.decode(),
        "leafIndex": leaf_index,
        "inclusionProof": encoded(log.inclusion(session, leaf_index, head.size)),
        "treeHead": head.note,
    }
    if since is not None:
        hashes = encoded(log.consistency(session, since, head.size))
        shown["consistencyProof"] = {"first": since, "hashes": hashes}
    return shown


def refreshed(
    session: Session, signer: Signer, bundle: dict[str, Any], since: int
) -> dict[str, Any]:
    """Return ``bundle`` with evidence from the log as it is now, and consistency from ``since``."""
    leaf_index: int = bundle["ledger"]["leafIndex"]
    return {**bundle, "ledger": evidence(session, signer, leaf_index, since)}


def encoded(hashes: list[bytes]) -> list[str]:
    """Return the hashes of a proof in base64."""
    return [base64.b64encode(one).decode() for one in hashes]
