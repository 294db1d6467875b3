"""Check a certificate offline: no service, no network, only the certificate and a public key.

`verify_certificate` trusts nothing that it reads; each check builds on those before it, and the
first that fails ends the verification. `app.ledger.explain` puts the outcome into words.
"""

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, VerificationError

from app.ledger.explain import Check, Outcome, VerificationReport, format_report
from app.ledger.files import read_bundle, read_head, read_public_key
from app.ledger.form import CertificateError, require_bundle, statement_of
from app.ledger.merkle import ProofError, leaf_hash, verify_consistency, verify_inclusion
from app.ledger.tree_head import (
    NoteError,
    TreeHead,
    decode_base64,
    dsse_key,
    key_id_of,
    load_public_key,
    verify_note,
)

__all__ = [
    "CertificateError",
    "VerificationReport",
    "format_report",
    "verify_certificate",
    "verify_files",
]


class _Unsettled(Exception):
    """The certificate's own file cannot answer what was asked; the sentence says what can."""


@dataclass
class _Case:
    """What is checked, and what the checks so far have established."""

    bundle: Any
    public_key_pem: str
    kept_note: str | None
    head: TreeHead | None = None
    payload: bytes = b""
    statement: dict[str, Any] = field(default_factory=dict)
    leaf: bytes = b""

    @property
    def evidence(self) -> dict[str, Any]:
        evidence: dict[str, Any] = self.bundle["ledger"]
        return evidence

    @property
    def request_id(self) -> str:
        return str(self.statement["predicate"]["request_id"])

    @property
    def signed_head(self) -> TreeHead:
        if self.head is None:
            raise CertificateError("The tree head was not checked.")
        return self.head


def verify_certificate(
    bundle: Any, public_key_pem: str, kept_head: str | None = None
) -> VerificationReport:
    """Check a certificate against the log's public key.

    Args:
        bundle: the parsed JSON of the certificate (`app.ledger.files.read_bundle`).
        public_key_pem: the log's Ed25519 public key, PEM.
        kept_head: a tree head (signed note) kept from before, if there is one.

    Returns:
        The report; it never raises on account of what ``bundle`` holds.
    """
    case = _Case(copy.deepcopy(bundle), public_key_pem, kept_head)
    checks = [_run(name, step, case) for name, step in _STEPS[:1]]
    for name, step in _STEPS[1:]:
        if checks[-1].status == "passed":
            checks.append(_run(name, step, case))
        else:
            checks.append(Check(name, "not checked", "An earlier check failed."))
    outcome: Outcome = _OUTCOMES.get(checks[-1].status, "refused")
    if kept_head is None:
        checks[-1] = Check(
            _KEPT, "not checked", "No tree head kept from before was given (--head)."
        )
    statement = None if outcome == "refused" else case.statement
    return VerificationReport(outcome, tuple(checks), statement)


def _run(name: str, step: Callable[[_Case], str], case: _Case) -> Check:
    try:
        return Check(name, "passed", step(case))
    except _Unsettled as unsettled:
        return Check(name, "unsettled", str(unsettled))
    except (CertificateError, NoteError, ProofError) as error:
        return Check(name, "failed", str(error))


def verify_files(
    certificate: Path, public_key: Path, kept_head: Path | None = None
) -> VerificationReport:
    """Check the certificate in a file; see `verify_certificate`.

    Args:
        certificate: JSON file as the service gave it.
        public_key: PEM file of the log's public key.
        kept_head: a tree head; see `app.ledger.files.read_head`.

    Raises:
        CertificateError: a file cannot be read, or is not what it should be.
    """
    kept = None if kept_head is None else read_head(kept_head)
    return verify_certificate(read_bundle(certificate), read_public_key(public_key), kept)


def _check_form(case: _Case) -> str:
    require_bundle(case.bundle)
    return "It has every part of a certificate of deletion, and no other."


def _check_head(case: _Case) -> str:
    case.head = verify_note(case.evidence["treeHead"], case.public_key_pem)
    return (
        f"The tree head of log {case.head.origin}, {case.head.size} leaves, is signed by the key"
        f" {_key_id(case)}."
    )


def _key_id(case: _Case) -> str:
    return key_id_of(case.signed_head.origin, load_public_key(case.public_key_pem))


def _check_signature(case: _Case) -> str:
    envelope = case.bundle["dsseEnvelope"]
    signature = envelope["signatures"][0]
    decode_base64(signature["sig"], "The signature")
    case.payload = decode_base64(envelope["payload"], "The payload")
    public_key, key_id = load_public_key(case.public_key_pem), _key_id(case)
    keys = {key.keyid: key for key in (dsse_key(public_key, key_id), dsse_key(public_key))}
    key = keys.get(signature["keyid"])
    if key is None:
        raise CertificateError(
            f"The signature is not by this key ({key_id}), but by one named {signature['keyid']!r}."
        )
    try:
        Envelope.from_dict(copy.deepcopy(envelope)).verify([key], 1)
    except (VerificationError, FormatError, ValueError) as error:
        raise CertificateError(
            "The signature is not by this key, or the statement was changed after it was signed."
        ) from error
    return f"The statement is signed by the key {key_id} and unchanged since."


def _check_statement(case: _Case) -> str:
    case.statement = statement_of(case.payload)
    return "It is a statement of deletion, and its subjects are the checkpoints that it names."


def _check_leaf(case: _Case) -> str:
    case.leaf = case.evidence["leaf"].encode(errors="surrogatepass")
    try:
        leaf = json.loads(case.leaf)
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"The leaf is no JSON: {error}.") from error
    if not isinstance(leaf, dict) or leaf.get("kind") != "request_completed":
        raise CertificateError("The leaf does not record the completion of a request.")
    if leaf.get("request_id") != case.request_id:
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


def _check_kept_head(case: _Case) -> str:
    if case.kept_note is None:
        return ""
    head = case.signed_head
    kept = verify_note(case.kept_note, case.public_key_pem, head.origin)
    if kept.size > head.size:
        raise _Unsettled(
            f"The certificate itself verifies. The given tree head ({kept.size} leaves) is newer than"
            f" the certificate's ({head.size}), so this file alone cannot show that the one log"
            f" continues the other. {_fetch(case, kept)}"
        )
    proof = _consistency_proof(case, kept)
    verify_consistency(kept.size, head.size, kept.root, head.root, proof)
    return (
        f"The log of {head.size} leaves only adds to the one of {kept.size} leaves that you kept:"
        " nothing in it was changed or removed."
    )


def _consistency_proof(case: _Case, kept: TreeHead) -> list[bytes]:
    shown = case.evidence.get("consistencyProof")
    if shown is not None and shown["first"] == kept.size:
        return _hashes(shown["hashes"])
    if kept.size in (0, case.signed_head.size):
        return []
    raise _Unsettled(
        f"The certificate itself verifies. It has no proof that its log ({case.signed_head.size}"
        f" leaves) continues the one of the given tree head ({kept.size}). {_fetch(case, kept)}"
    )


def _fetch(case: _Case, kept: TreeHead) -> str:
    path = f"/v1/audit/requests/{case.request_id}/certificate?since={kept.size}"
    return f"Fetch the certificate with that proof, GET {path}, and verify it with the same head."


_KEPT = "Kept tree head"
_OUTCOMES: dict[str, Outcome] = {"passed": "verified", "unsettled": "unsettled"}
_STEPS: tuple[tuple[str, Callable[[_Case], str]], ...] = (
    ("Form", _check_form),
    ("Tree head", _check_head),
    ("Signature", _check_signature),
    ("Statement", _check_statement),
    ("Leaf", _check_leaf),
    ("Inclusion", _check_inclusion),
    (_KEPT, _check_kept_head),
)
