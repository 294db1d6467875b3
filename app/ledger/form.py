"""The form of a certificate: which members it has, and that its statement holds together.

Signatures and proofs are the matter of `app.ledger.verify`. Nothing here needs the service.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.ledger.explain import GUARANTEES

MEDIA_TYPE = "application/vnd.lethe.certificate.v1+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://lethe.dev/predicates/deletion/v1"

_EVIDENCE: dict[str, type] = {
    "leaf": str,
    "leafIndex": int,
    "inclusionProof": list,
    "treeHead": str,
}
_STATEMENT = ("_type", "subject", "predicateType", "predicate")
_PREDICATE: dict[str, type] = {
    "request_id": str,
    "dataset_id": str,
    "received_time": str,
    "completed_time": str,
    "deadline": str,
    "scope": str,
    "objective": str,
    "method": str,
    "update": str,
    "guarantee": str,
    "limitations": list,
    "pair_count": int,
    "already_forgotten_count": int,
    "not_trained_count": int,
    "pairs_commitment": str,
    "versions": list,
    "earlier_requests": list,
}
_VERSION: dict[str, type] = {
    "version_id": str,
    "input_version_id": str,
    "checkpoint_sha256": str,
    "weights_sha256": str,
    "metrics": list,
}
_METRIC = ("name", "moment", "subset", "value", "interval", "n", "unit", "unavailable")


class CertificateError(ValueError):
    """The certificate is malformed or does not hold together; the sentence says where."""


def parsed(text: str | bytes, what: str) -> Any:
    """Parse JSON, refusing members that are given twice.

    Raises:
        CertificateError: it is no JSON, or ambiguous; ``what`` names it in the sentence.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except CertificateError:
        raise
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"{what} is no JSON that can be read: {error}.") from error


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise CertificateError("A member of a JSON object is given twice.")
    return members


def require_bundle(bundle: Any) -> None:
    """Refuse what has not every part of a certificate, or has another one.

    Raises:
        CertificateError: so it is.
    """
    _members(bundle, "A certificate", {"mediaType", "dsseEnvelope", "ledger"})
    if bundle["mediaType"] != MEDIA_TYPE:
        raise CertificateError(
            f"The media type is {bundle['mediaType']!r}; {MEDIA_TYPE!r} was expected."
        )
    _require_envelope(bundle["dsseEnvelope"])
    evidence, proof = bundle["ledger"], frozenset({"consistencyProof"})
    _members(evidence, "The evidence from the log", set(_EVIDENCE), proof)
    _typed(evidence, _EVIDENCE, "The evidence from the log")
    if "consistencyProof" in evidence:
        shown = evidence["consistencyProof"]
        _members(shown, "The consistency proof", {"first", "hashes"})
        _typed(shown, {"first": int, "hashes": list}, "The consistency proof")


def _require_envelope(envelope: Any) -> None:
    _members(envelope, "The envelope", {"payload", "payloadType", "signatures"})
    _typed(envelope, {"payload": str, "payloadType": str, "signatures": list}, "The envelope")
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise CertificateError(f"The signed content is no in-toto statement ({PAYLOAD_TYPE}).")
    if len(envelope["signatures"]) != 1:
        raise CertificateError("The envelope must bear exactly one signature.")
    signature = envelope["signatures"][0]
    _members(signature, "The signature", {"keyid", "sig"})
    _typed(signature, {"keyid": str, "sig": str}, "The signature")


def statement_of(payload: bytes) -> dict[str, Any]:
    """Return the statement that was signed as ``payload``.

    Raises:
        CertificateError: it is no statement of deletion, or does not hold together.
    """
    statement = parsed(payload, "The statement")
    _members(statement, "The statement", set(_STATEMENT))
    if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise CertificateError("The statement is no statement of deletion.")
    _require_predicate(statement["predicate"])
    if statement["subject"] != _subjects(statement["predicate"]):
        raise CertificateError("The subjects are not the checkpoints that the statement names.")
    found: dict[str, Any] = statement
    return found


def _require_predicate(predicate: Any) -> None:
    _typed(predicate, _PREDICATE, "The statement")
    if predicate["guarantee"] not in GUARANTEES:
        raise CertificateError(f"The guarantee {predicate['guarantee']!r} is unknown.")
    for version in predicate["versions"]:
        _typed(version, _VERSION, "A version in the statement")
        for metric in version["metrics"]:
            if not isinstance(metric, dict) or not metric.keys() >= set(_METRIC):
                raise CertificateError(f"A metric has the members {list(_METRIC)}.")


def _subjects(predicate: Mapping[str, Any]) -> list[dict[str, Any]]:
    named = [(f"version/{v['version_id']}", v["checkpoint_sha256"]) for v in predicate["versions"]]
    pairs = (f"pairs-of/{predicate['request_id']}", predicate["pairs_commitment"])
    return [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in named or [pairs]]


def _members(
    value: Any, what: str, required: set[str], optional: frozenset[str] = frozenset()
) -> None:
    if not isinstance(value, dict) or not required <= value.keys() <= required | optional:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise CertificateError(f"{what} has the members {sorted(required)}; found: {found}.")


def _typed(value: Any, expected: Mapping[str, type], what: str) -> None:
    for name, kind in expected.items():
        found = value.get(name) if isinstance(value, dict) else None
        if not isinstance(found, kind) or isinstance(found, bool):
            raise CertificateError(f"{what} has no member {name!r} of the right type.")
