"""Offline verification: what was changed is found, and the report says so in words."""

import base64
import copy
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope

from app.core.db import Database
from app.ledger import certificate, log
from app.ledger.certificate import CertificateData
from app.ledger.form import PAYLOAD_TYPE, CertificateError, parsed
from app.ledger.records import RequestCompleted, RequestWithdrawn
from app.ledger.tree_head import Signer, dsse_key, load_public_key, signed_by
from app.ledger.verify import (
    VerificationReport,
    format_report,
    verify_certificate,
    verify_files,
)


@dataclass(frozen=True)
class Issued:
    """A certificate with evidence since an older head, and what it takes to check it."""

    bundle: dict[str, Any]
    key: str
    older: str
    newer: str


@pytest.fixture(scope="module")
def issued(servers: Any, signer: Signer, certificate_data: CertificateData) -> Iterator[Issued]:
    """Issue a certificate into a log of 11 leaves, at index 6, with a head kept at size 5."""
    with servers.fresh_database(servers.template) as url:
        database = Database(url)
        try:
            yield _issue(database, signer, certificate_data)
        finally:
            database.dispose()


def _issue(database: Database, signer: Signer, data: CertificateData) -> Issued:
    with database.transaction() as session:
        older = _grow(session, signer, 5)
        _grow(session, signer, 1)
        bundle = certificate.issue(session, signer, data)
        _grow(session, signer, 4)
        bundle = certificate.refreshed(session, signer, bundle, 5)
        newer = _grow(session, signer, 1)
    return Issued(bundle, signer.public_key_pem, older, newer)


def _grow(session: Any, signer: Signer, leaves: int) -> str:
    for number in range(leaves):
        log.append(session, RequestWithdrawn(request_id=f"req_w{number}"))
    return log.head(session, signer).note


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the path to every value inside of a JSON value."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def tampered(data: st.DataObject, bundle: dict[str, Any]) -> dict[str, Any]:
    """Change one value of the bundle, anywhere."""
    bundle = copy.deepcopy(bundle)
    *path, key = data.draw(st.sampled_from(list(places(bundle))))
    parent: Any = bundle
    for step in path:
        parent = parent[step]
    way = data.draw(st.sampled_from(["alter", "drop", "replace", "add"]))
    if way == "drop":
        del parent[key]
    elif way == "add" and isinstance(parent, dict):
        parent["added"] = parent[key]
    elif way == "add":
        parent.insert(key, parent[key])
    elif way == "replace":
        others = st.sampled_from([None, True, -1, 0, 1.5, "", "x", [], {}, ["x"]])
        parent[key] = data.draw(others.filter(lambda other: other != parent[key]))
    else:
        parent[key] = altered(data, parent[key])
    return bundle


def altered(data: st.DataObject, value: Any) -> Any:
    if value in ("", None):
        return "x"
    if isinstance(value, str):
        place = data.draw(st.integers(0, len(value) - 1))
        other = data.draw(st.characters(codec="utf-8").filter(lambda one: one != value[place]))
        return value[:place] + other + value[place + 1 :]
    if isinstance(value, int | float):
        return value + data.draw(st.integers(-9, 9).filter(bool))
    if isinstance(value, list):
        return value[::-1] if value != value[::-1] else [*value, "x"]
    return {**value, "added": 1}


def test_a_certificate_verifies_with_and_without_an_older_head(issued: Issued) -> None:
    for older in (None, issued.older):
        report = verify_certificate(issued.bundle, issued.key, older)
        assert report.ok, report.failure


@given(data=st.data())
def test_tampering_with_any_part_of_a_certificate_is_found(
    issued: Issued, data: st.DataObject
) -> None:
    bundle = tampered(data, issued.bundle)
    report = verify_certificate(bundle, issued.key, issued.older)
    assert not report.ok
    if report.outcome == "unsettled":  # only the proof that the kept head needs is another one
        assert without_proof(bundle) == without_proof(issued.bundle)
        assert "?since=5" in (report.failure or "")
        return
    assert report.statement is None
    assert format_report(report).startswith("NOT VERIFIED")


def without_proof(bundle: dict[str, Any]) -> dict[str, Any]:
    """Return the certificate without what connects it to an older log."""
    evidence = bundle.get("ledger")
    if not isinstance(evidence, dict):
        return bundle
    kept = {name: value for name, value in evidence.items() if name != "consistencyProof"}
    return {**bundle, "ledger": kept}


@given(data=st.data())
def test_tampering_with_a_certificate_is_found_without_an_older_head_too(
    issued: Issued, data: st.DataObject
) -> None:
    plain = without_proof(issued.bundle)
    assert verify_certificate(plain, issued.key).ok
    assert not verify_certificate(tampered(data, plain), issued.key).ok


@given(data=st.data())
def test_no_value_of_the_statement_can_be_changed(issued: Issued, data: st.DataObject) -> None:
    bundle = copy.deepcopy(issued.bundle)
    envelope = bundle["dsseEnvelope"]
    statement = tampered(data, json.loads(base64.b64decode(envelope["payload"])))
    payload = json.dumps(statement, separators=(",", ":"), sort_keys=True).encode()
    envelope["payload"] = base64.b64encode(payload).decode()
    report = verify_certificate(bundle, issued.key)
    assert report.failure is not None
    assert "changed after it was signed" in report.failure


@given(junk=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_junk_is_refused_without_an_exception(issued: Issued, junk: Any) -> None:
    assert not verify_certificate(junk, issued.key).ok
    for part in ("dsseEnvelope", "ledger"):
        assert not verify_certificate({**issued.bundle, part: junk}, issued.key).ok


def resigned(issued: Issued, signer: Signer, change: dict[str, Any]) -> dict[str, Any]:
    """Return the certificate with a changed statement that the log's own key signed."""
    statement = json.loads(base64.b64decode(issued.bundle["dsseEnvelope"]["payload"]))
    statement["predicate"].update(change)
    envelope = Envelope(json.dumps(statement).encode(), PAYLOAD_TYPE, {})
    envelope.sign(signer.dsse_signer())
    return {**issued.bundle, "dsseEnvelope": envelope.to_dict()}


def test_even_the_key_holder_cannot_restate_what_the_log_recorded(
    issued: Issued, signer: Signer
) -> None:
    report = verify_certificate(resigned(issued, signer, {"pair_count": 161}), issued.key)
    assert report.failure == "The leaf records another statement than the certificate's."


def test_a_certificate_cannot_borrow_the_leaf_of_another_request(
    issued: Issued, signer: Signer
) -> None:
    report = verify_certificate(resigned(issued, signer, {"request_id": "req_9"}), issued.key)
    assert report.failure == "The leaf is about another request than the certificate."


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"guarantee": "perfect"}, "guarantee 'perfect' is unknown"),
        ({"pair_count": "160"}, "no member 'pair_count'"),
        ({"versions": [{"version_id": "ver_2"}]}, "no member 'input_version_id'"),
        ({"versions": []}, "subjects are not the checkpoints"),
    ],
)
def test_a_signed_statement_that_does_not_hold_together_is_refused(
    issued: Issued, signer: Signer, change: dict[str, Any], found: str
) -> None:
    failure = verify_certificate(resigned(issued, signer, change), issued.key).failure
    assert failure is not None
    assert found in failure


def test_a_log_that_was_rewritten_is_found_by_an_older_head(
    issued: Issued, signer: Signer, certificate_data: CertificateData, database: Database
) -> None:
    with database.transaction() as session:
        for number in range(5):
            log.append(session, RequestWithdrawn(request_id=f"req_forged{number}"))
        forged = certificate.issue(session, signer, certificate_data)
        forged = certificate.refreshed(session, signer, forged, 5)
    assert verify_certificate(forged, issued.key).ok
    report = verify_certificate(forged, issued.key, issued.older)
    assert report.failure is not None
    assert "is no continuation of the log of 5 leaves" in report.failure


def test_a_leaf_that_is_not_in_the_log_is_found(
    issued: Issued, signer: Signer, certificate_data: CertificateData
) -> None:
    payload = certificate.statement(certificate_data.model_copy(update={"request_id": "req_7"}))
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(signer.dsse_signer())
    leaf = RequestCompleted(
        request_id="req_7", statement_sha256=hashlib.sha256(payload).hexdigest()
    )
    evidence = {**issued.bundle["ledger"], "leaf": leaf.body().decode()}
    bundle = {**issued.bundle, "dsseEnvelope": envelope.to_dict(), "ledger": evidence}
    report = verify_certificate(bundle, issued.key)
    assert report.failure == "The inclusion proof does not lead to the root of the tree head."


def test_another_key_is_refused_and_nothing_of_the_certificate_repeated(issued: Issued) -> None:
    other = Signer(Ed25519PrivateKey.generate(), "lethe.test/log").public_key_pem
    report = verify_certificate(issued.bundle, other)
    assert report.failure is not None
    assert "no signature by this key" in report.failure
    assert "req_1" not in format_report(report)


@pytest.mark.parametrize("key", ["", "no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n"])
def test_a_file_that_is_no_key_is_named_as_the_fault(issued: Issued, key: str) -> None:
    failure = verify_certificate(issued.bundle, key).failure
    assert failure is not None
    assert "public key is not a PEM file" in failure


CERTIFICATE = "GET /v1/audit/requests/req_1/certificate"


def test_an_older_head_without_its_proof_leaves_the_certificate_itself_verified(
    issued: Issued,
) -> None:
    report = verify_certificate(without_proof(issued.bundle), issued.key, issued.older)
    assert (report.outcome, report.ok) == ("unsettled", False)
    assert "It has no proof that its log (11 leaves) continues" in (report.failure or "")
    assert f"{CERTIFICATE}?since=5" in (report.failure or "")


def test_a_head_newer_than_the_certificate_leaves_the_certificate_itself_verified(
    issued: Issued,
) -> None:
    report = verify_certificate(issued.bundle, issued.key, issued.newer)
    assert (report.outcome, report.ok) == ("unsettled", False)
    assert [check.status for check in report.checks] == ["passed"] * 6 + ["unsettled"]
    text = " ".join(format_report(report).split())
    assert text.startswith("PARTLY VERIFIED: the certificate itself is signed by this key")
    assert "[??] Kept tree head: The certificate itself verifies." in text
    assert "(12 leaves) is newer than the certificate's (11)" in text
    assert f"{CERTIFICATE}?since=12" in text
    assert "Request req_1 on dataset ds_1" in text
    assert "do not rely" not in text


def test_the_certificate_that_a_newer_head_asks_for_verifies_with_it(
    signer: Signer, certificate_data: CertificateData, database: Database
) -> None:
    with database.transaction() as session:
        bundle = certificate.issue(session, signer, certificate_data)
        newer = _grow(session, signer, 3)
        assert verify_certificate(bundle, signer.public_key_pem, newer).outcome == "unsettled"
        fetched = certificate.refreshed(session, signer, bundle, 4)
    report = verify_certificate(fetched, signer.public_key_pem, newer)
    assert report.ok, report.failure


def test_a_newer_head_helps_no_forged_certificate_and_a_forged_head_no_genuine_one(
    issued: Issued, signer: Signer
) -> None:
    forged = resigned(issued, signer, {"pair_count": 161})
    report = verify_certificate(forged, issued.key, issued.newer)
    assert report.outcome == "refused"
    assert format_report(report).startswith("NOT VERIFIED: do not rely")
    stranger = Signer(Ed25519PrivateKey.generate(), signer.origin).sign(12, bytes(32)).note
    report = verify_certificate(issued.bundle, issued.key, stranger)
    assert report.outcome == "refused"
    assert report.statement is None


def test_head_certificate_and_verification_name_the_key_by_one_id(
    issued: Issued, signer: Signer
) -> None:
    assert signed_by(issued.bundle["ledger"]["treeHead"]) == (signer.origin, [signer.key_id])
    assert issued.bundle["dsseEnvelope"]["signatures"][0]["keyid"] == signer.key_id
    said = {check.name: check.sentence for check in verify(issued).checks}
    assert f"11 leaves, is signed by the key {signer.key_id}." in said["Tree head"]
    assert f"is signed by the key {signer.key_id} and unchanged" in said["Signature"]


def verify(issued: Issued, **signature: str) -> VerificationReport:
    """Verify the certificate with a signature that has other members."""
    bundle = copy.deepcopy(issued.bundle)
    bundle["dsseEnvelope"]["signatures"][0].update(signature)
    return verify_certificate(bundle, issued.key)


def test_a_certificate_that_names_the_key_as_early_versions_did_verifies(issued: Issued) -> None:
    early = dsse_key(load_public_key(issued.key)).keyid
    assert len(early) == 64
    report = verify(issued, keyid=early)
    assert report.ok, report.failure


def test_a_signature_that_names_another_key_is_refused_with_both_names(
    issued: Issued, signer: Signer
) -> None:
    failure = verify(issued, keyid="c74f20a3").failure
    assert failure == (
        f"The signature is not by this key ({signer.key_id}), but by one named 'c74f20a3'."
    )


def test_the_report_says_what_was_checked_stated_and_cannot_be_proved(issued: Issued) -> None:
    text = format_report(verify_certificate(issued.bundle, issued.key, issued.older))
    flat = " ".join(text.split())
    assert text.startswith("VERIFIED")
    assert "[ok] Inclusion: The leaf is in the log, at index 6 of 11." in flat
    assert "only adds to the one of 5 leaves that you kept" in flat
    assert "Request req_1 on dataset ds_1 was received at 2026-03-01T09:30:00.000000Z" in flat
    assert "Guarantee: approximate" in flat
    assert (
        "after, on the pairs of this job: 11.25 points (95% interval 8.5 to 14.75), n = 160" in flat
    )
    assert "not available, because too few" in flat
    assert "What a signature cannot prove" in flat
    assert "That the service measured honestly." in flat
    assert max(len(line) for line in text.splitlines()) <= 90


def test_without_an_older_head_the_report_says_that_it_was_not_checked(issued: Issued) -> None:
    report = verify_certificate(issued.bundle, issued.key)
    assert report.ok
    assert report.checks[-1].status == "not checked"
    assert "No tree head kept from before was given (--head)." in format_report(report)


def test_files_are_read_as_the_service_gave_them(issued: Issued, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("certificate.json", "key.pem", "head.txt", "head.json")]
    texts = [
        json.dumps(issued.bundle),
        issued.key,
        issued.older,
        json.dumps({"size": 5, "note": issued.older}),
    ]
    for path, content in zip(paths, texts, strict=True):
        path.write_text(content, encoding="utf-8")
    assert verify_files(paths[0], paths[1]).ok
    assert verify_files(paths[0], paths[1], paths[2]).ok
    assert verify_files(paths[0], paths[1], paths[3]).ok


def test_files_that_cannot_be_read_are_named(issued: Issued, tmp_path: Path) -> None:
    broken, key = tmp_path / "broken.json", tmp_path / "key.pem"
    key.write_text(issued.key)
    with pytest.raises(CertificateError, match=r"broken\.json cannot be read"):
        verify_files(broken, key)
    broken.write_text("{")
    with pytest.raises(CertificateError, match="no JSON"):
        verify_files(broken, key)
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(CertificateError, match="cannot be read"):
        verify_files(broken, key)


PROBLEM = {
    "type": "https://lethe.dev/problems/no-certificate",
    "title": "There is no certificate",
    "status": 409,
    "detail": "Request req_1 is in_progress; \x1b[2Ja certificate is issued when it is completed.",
}


@pytest.mark.parametrize(
    ("at_fault", "what"),
    [("certificate.json", "certificate"), ("key.pem", "public key"), ("head.json", "tree head")],
)
def test_an_error_answer_that_was_kept_as_a_file_is_said_to_be_one(
    issued: Issued, tmp_path: Path, at_fault: str, what: str
) -> None:
    texts = {
        "certificate.json": json.dumps(issued.bundle),
        "key.pem": issued.key,
        "head.json": issued.older,
        at_fault: json.dumps(PROBLEM),
    }
    paths = [tmp_path / name for name in texts]
    for path in paths:
        path.write_text(texts[path.name], encoding="utf-8")
    with pytest.raises(CertificateError) as refused:
        verify_files(*paths)
    assert str(refused.value) == (
        f"{tmp_path / at_fault} is no {what} but an error answer of the service, 409 (There is no "
        "certificate): Request req_1 is in_progress; \ufffd[2Ja certificate is issued when it is "
        f"completed. Fetch the {what} again; with `curl --fail` an error is not kept as the file."
    )


def test_json_that_is_neither_a_tree_head_nor_an_error_is_named(
    issued: Issued, tmp_path: Path
) -> None:
    for name, text in {"key.pem": issued.key, "c.json": json.dumps(issued.bundle)}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(CertificateError, match=r"c\.json is no tree head: .* without .* 'note'"):
        verify_files(tmp_path / "c.json", tmp_path / "key.pem", tmp_path / "c.json")


@pytest.mark.parametrize("text", ["garbage", "", "lethe.test/log\n3\nAA==\n\n"])
def test_a_text_that_is_no_tree_head_is_named(issued: Issued, tmp_path: Path, text: str) -> None:
    texts = {"c.json": json.dumps(issued.bundle), "key.pem": issued.key, "head.txt": text}
    for name, content in texts.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(CertificateError, match=r"head\.txt is no tree head\. "):
        verify_files(tmp_path / "c.json", tmp_path / "key.pem", tmp_path / "head.txt")


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"b": {"a": 1, "a": 1}}', "[" * 100_000])
def test_json_that_readers_could_take_differently_is_refused(text: str) -> None:
    with pytest.raises(CertificateError):
        parsed(text, "The certificate")


def test_verification_needs_neither_the_service_nor_the_network() -> None:
    """The modules of the service, of the database and of HTTP are blocked, and it still imports."""
    code = """
import socket, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("app.core", "sqlalchemy", "fastapi", "httpx", "pydantic", "requests")):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
def refuse(*args, **kwargs):
    raise OSError("no network here")
socket.socket.connect = refuse
import app.ledger.verify
loaded = {name for name in sys.modules if name.split(".")[0] == "app"}
print(*sorted(loaded))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {
        "app",
        "app.ledger",
        "app.ledger.explain",
        "app.ledger.files",
        "app.ledger.form",
        "app.ledger.key_file",
        "app.ledger.merkle",
        "app.ledger.tree_head",
        "app.ledger.verify",
    }
