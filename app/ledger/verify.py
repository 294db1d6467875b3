"""Check a certificate offline: no service, no network, only the certificate and a public key.

`verify_certificate` trusts nothing that it reads; each check builds on those before it, and the
first that fails ends the verification. `app.ledger.explain` puts the outcome into words.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, VerificationError

from app.ledger.explain import GUARANTEES, Check, VerificationReport, format_report
from app.ledger.merkle import ProofError, leaf_hash, verify_consistency, verify_inclusion
from app.ledger.tree_head import NoteError, TreeHead, decode_base64, dsse_key, verify_note

__all__ = [
    "CertificateError",
    "VerificationReport",
    "format_report",
    "load_bundle",
    "read_head",
    "verify_certificate",
    "verify_files",
]

MEDIA_TYPE = "application/vnd.lethe.certificate.v1+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://lethe.dev/predicates/deletion/v1"

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


@dataclass
class _Case:
    """What is checked, and what the checks so far have established."""

    bundle: Any
    public_key_pem: str
    older_note: str | None
    payload: bytes = b""
    statement: dict[str, Any] = field(default_factory=dict)
    head: TreeHead | None = None
    leaf: bytes = b""

    @property
    def evidence(self) -> dict[str, Any]:
        evidence: dict[str, Any] = self.bundle["ledger"]
        return evidence

    @property
    def signed_head(self) -> TreeHead:
        if self.head is None:
            raise CertificateError("The tree head was not checked.")
        return self.head


def verify_certificate(
    bundle: Any, public_key_pem: str, older_head: str | None = None
) -> VerificationReport:
    """Check a certificate against the log's public key.

    Args:
        bundle: the parsed JSON of the certificate (`load_bundle`).
        public_key_pem: the log's Ed25519 public key, PEM.
        older_head: a tree head (signed note) kept from before, if there is one.

    Returns:
        The report; it never raises on account of what ``bundle`` holds.
    """
    case = _Case(copy.deepcopy(bundle), public_key_pem, older_head)
    checks: list[Check] = []
    for name, step in _STEPS:
        if checks and checks[-1].status != "passed":
            checks.append(Check(name, "not checked", "An earlier check failed."))
            continue
        try:
            checks.append(Check(name, "passed", step(case)))
        except (CertificateError, NoteError, ProofError) as error:
            checks.append(Check(name, "failed", str(error)))
    ok = all(check.status == "passed" for check in checks)
    checks = [_without_older_head(check, older_head) for check in checks]
    return VerificationReport(ok, tuple(checks), case.statement if ok else None)


def _without_older_head(check: Check, older_head: str | None) -> Check:
    if check.name == _OLDER and older_head is None:
        return Check(check.name, "not checked", "No older tree head was given (--head).")
    return check


def verify_files(
    certificate: Path, public_key: Path, older_head: Path | None = None
) -> VerificationReport:
    """Check the certificate in a file; see `verify_certificate`.

    Args:
        certificate: JSON file as the service gave it.
        public_key: PEM file of the log's public key.
        older_head: a tree head; see `read_head`.

    Raises:
        CertificateError: a file cannot be read, or is not what it should be.
    """
    older = None if older_head is None else read_head(older_head)
    return verify_certificate(load_bundle(_read(certificate)), _read(public_key), older)


def load_bundle(text: str) -> Any:
    """Parse a certificate's JSON, refusing members that are given twice.

    Raises:
        CertificateError: it is no JSON, or ambiguous.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"The certificate is no JSON that can be read: {error}.") from error


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise CertificateError("A member of a JSON object is given twice.")
    return members


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CertificateError(f"{path} cannot be read: {error}.") from error


def read_head(path: Path) -> str:
    """Return the signed note in a file: a note, or the JSON of ``/v1/ledger/head``.

    Raises:
        CertificateError: the file cannot be read, or is not what it should be.
    """
    text = _read(path)
    if not text.lstrip().startswith("{"):
        return text
    note = load_bundle(text).get("note")
    if not isinstance(note, str):
        raise CertificateError("The older tree head is JSON without the member 'note'.")
    return note


def _members(value: Any, what: str, required: set[str], optional: frozenset[str]) -> None:
    if not isinstance(value, dict) or not required <= value.keys() <= required | optional:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise CertificateError(f"{what} has the members {sorted(required)}; found: {found}.")


def _typed(value: Any, expected: Mapping[str, type], what: str) -> None:
    for name, kind in expected.items():
        found = value.get(name) if isinstance(value, dict) else None
        if not isinstance(found, kind) or isinstance(found, bool):
            raise CertificateError(f"{what} has no member {name!r} of the right type.")


def _check_form(case: _Case) -> str:
    bundle = case.bundle
    _members(bundle, "A certificate", {"mediaType", "dsseEnvelope", "ledger"}, frozenset())
    if bundle["mediaType"] != MEDIA_TYPE:
        raise CertificateError(
            f"The media type is {bundle['mediaType']!r}; {MEDIA_TYPE!r} was expected."
        )
    _members(
        bundle["dsseEnvelope"],
        "The envelope",
        {"payload", "payloadType", "signatures"},
        frozenset(),
    )
    _members(
        bundle["ledger"],
        "The evidence from the log",
        {"leaf", "leafIndex", "inclusionProof", "treeHead"},
        frozenset({"consistencyProof"}),
    )
    _typed(bundle["ledger"], _EVIDENCE, "The evidence from the log")
    if "consistencyProof" in bundle["ledger"]:
        shown = bundle["ledger"]["consistencyProof"]
        _members(shown, "The consistency proof", {"first", "hashes"}, frozenset())
        _typed(shown, {"first": int, "hashes": list}, "The consistency proof")
    return "It has every part of a certificate of deletion, and no other."


_EVIDENCE: dict[str, type] = {
    "leaf": str,
    "leafIndex": int,
    "inclusionProof": list,
    "treeHead": str,
}


def _check_signature(case: _Case) -> str:
    envelope = case.bundle["dsseEnvelope"]
    _typed(envelope, {"payload": str, "payloadType": str, "signatures": list}, "The envelope")
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise CertificateError(f"The signed content is no in-toto statement ({PAYLOAD_TYPE}).")
    if len(envelope["signatures"]) != 1:
        raise CertificateError("The envelope must bear exactly one signature.")
    signature = envelope["signatures"][0]
    _members(signature, "The signature", {"keyid", "sig"}, frozenset())
    _typed(signature, {"keyid": str, "sig": str}, "The signature")
    decode_base64(signature["sig"], "The signature")
    case.payload = decode_base64(envelope["payload"], "The payload")
    key = dsse_key(case.public_key_pem)
    try:
        Envelope.from_dict(copy.deepcopy(envelope)).verify([key], 1)
    except (VerificationError, FormatError, ValueError) as error:
        raise CertificateError(
            "The signature is not by this key, or the statement was changed after it was signed."
        ) from error
    return f"The statement is signed by the key {key.keyid[:16]} and unchanged since."


def _check_statement(case: _Case) -> str:
    try:
        statement = json.loads(case.payload, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"The statement is no JSON: {error}.") from error
    _members(statement, "The statement", set(_STATEMENT), frozenset())
    if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise CertificateError("The statement is no statement of deletion.")
    _check_predicate(statement["predicate"])
    if statement["subject"] != _subjects(statement["predicate"]):
        raise CertificateError("The subjects are not the checkpoints that the statement names.")
    case.statement = statement
    return "It is a statement of deletion, and its subjects are the checkpoints that it names."


_STATEMENT = ("_type", "subject", "predicateType", "predicate")


def _check_predicate(predicate: Any) -> None:
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


def _check_head(case: _Case) -> str:
    case.head = verify_note(case.evidence["treeHead"], case.public_key_pem)
    return (
        f"The tree head of log {case.head.origin}, {case.head.size} leaves, is signed by the key."
    )


def _check_leaf(case: _Case) -> str:
    case.leaf = case.evidence["leaf"].encode(errors="surrogatepass")
    try:
        leaf = json.loads(case.leaf)
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"The leaf is no JSON: {error}.") from error
    if not isinstance(leaf, dict) or leaf.get("kind") != "request_completed":
        raise CertificateError("The leaf does not record the completion of a request.")
    if leaf.get("request_id") != case.statement["predicate"]["request_id"]:
        raise CertificateError("The leaf is about another request than the certificate.")
    if leaf.get("statement_sha256") != hashlib.sha256(case.payload).hexdigest():
        raise CertificateError("The leaf records another statement than the certificate's.")
    return "The leaf records the completion of this request, with the digest of this statement."


def _check_inclusion(case: _Case) -> str:
    head, leaf_index = case.signed_head, case.evidence["leafIndex"]
    proof = _hashes(case.evidence["inclusionProof"])
    verify_inclusion(leaf_index, head.size, leaf_hash(case.leaf), proof, head.root)
    return f"The leaf is in the log, at index {leaf_index} of {head.size}."


def _hashes(texts: Any) -> list[bytes]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise CertificateError("A proof is a list of hashes in base64.")
    return [decode_base64(text, "A hash of a proof") for text in texts]


def _check_older_head(case: _Case) -> str:
    if case.older_note is None:
        return ""
    head = case.signed_head
    older = verify_note(case.older_note, case.public_key_pem, head.origin)
    if older.size > head.size:
        raise CertificateError(
            f"The given tree head ({older.size} leaves) is newer than the certificate's"
            f" ({head.size}). Fetch the certificate again with ?since={older.size}."
        )
    proof = _consistency_proof(case, older)
    verify_consistency(older.size, head.size, older.root, head.root, proof)
    return (
        f"The log of {head.size} leaves only adds to the one of {older.size} leaves that you kept:"
        " nothing in it was changed or removed."
    )


def _consistency_proof(case: _Case, older: TreeHead) -> list[bytes]:
    shown = case.evidence.get("consistencyProof")
    if shown is None and older.size in (0, case.signed_head.size):
        return []
    if shown is None or shown["first"] != older.size:
        raise CertificateError(
            f"The certificate has no proof from size {older.size}. Fetch it again with"
            f" ?since={older.size}."
        )
    return _hashes(shown["hashes"])


_OLDER = "Older tree head"
_STEPS: tuple[tuple[str, Callable[[_Case], str]], ...] = (
    ("Form", _check_form),
    ("Signature", _check_signature),
    ("Statement", _check_statement),
    ("Tree head", _check_head),
    ("Leaf", _check_leaf),
    ("Inclusion", _check_inclusion),
    (_OLDER, _check_older_head),
)
