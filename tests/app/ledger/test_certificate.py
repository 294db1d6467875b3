"""Issuing certificates in a real log."""

import base64
import hashlib
import json

import pytest

from app.core.db import Database
from app.ledger import certificate, log
from app.ledger.certificate import CertificateData
from app.ledger.errors import NoSuchLeaf, NoSuchSize
from app.ledger.records import RequestWithdrawn
from app.ledger.tree_head import Signer
from app.ledger.verify import verify_certificate


def statement_in(bundle: dict[str, object]) -> dict[str, object]:
    envelope = bundle["dsseEnvelope"]
    assert isinstance(envelope, dict)
    statement: dict[str, object] = json.loads(base64.b64decode(envelope["payload"]))
    return statement


def test_an_issued_certificate_verifies_and_survives_the_database(
    database: Database, signer: Signer, certificate_data: CertificateData
) -> None:
    with database.transaction() as session:
        log.append(session, RequestWithdrawn(request_id="req_0"))
        bundle = certificate.issue(session, signer, certificate_data)
    again = json.loads(json.dumps(bundle, sort_keys=True))
    report = verify_certificate(again, signer.public_key_pem)
    assert report.ok, report.failure
    assert again["ledger"]["leafIndex"] == 1


def test_the_statement_names_the_checkpoints_as_its_subjects(
    database: Database, signer: Signer, certificate_data: CertificateData
) -> None:
    with database.transaction() as session:
        statement = statement_in(certificate.issue(session, signer, certificate_data))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": "version/ver_2", "digest": {"sha256": "ab" * 32}}]


def test_without_a_version_the_subject_is_the_commitment_to_the_pairs(
    database: Database, signer: Signer, certificate_data: CertificateData
) -> None:
    changes = {"versions": [], "guarantee": "not_needed", "limitations": []}
    data = certificate_data.model_copy(update=changes)
    with database.transaction() as session:
        bundle = certificate.issue(session, signer, data)
    assert statement_in(bundle)["subject"] == [
        {"name": "pairs-of/req_1", "digest": {"sha256": "ef" * 32}}
    ]
    report = verify_certificate(bundle, signer.public_key_pem)
    assert report.ok, report.failure


def test_the_leaf_holds_the_digest_of_the_statement_and_no_more_of_it(
    database: Database, signer: Signer, certificate_data: CertificateData
) -> None:
    with database.transaction() as session:
        bundle = certificate.issue(session, signer, certificate_data)
        leaf = json.loads(log.entries(session, 0, 1)[0].body)
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    assert leaf.pop("recorded_time")
    assert leaf == {
        "format": 1,
        "kind": "request_completed",
        "request_id": "req_1",
        "statement_sha256": hashlib.sha256(payload).hexdigest(),
        "version_ids": ["ver_2"],
        "met_by_request_id": None,
    }


def test_a_certificate_whose_transaction_rolls_back_was_never_recorded(
    database: Database, signer: Signer, certificate_data: CertificateData
) -> None:
    class GivenUpError(Exception):
        pass

    def give_up() -> None:
        with database.transaction() as session:
            certificate.issue(session, signer, certificate_data)
            raise GivenUpError

    with pytest.raises(GivenUpError):
        give_up()
    with database.transaction() as session:
        assert log.size(session) == 0
        assert log.head(session, signer).size == 0


@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("after", range(5))
def test_refreshed_evidence_proves_that_the_log_only_grew(
    database: Database,
    signer: Signer,
    certificate_data: CertificateData,
    before: int,
    after: int,
) -> None:
    with database.transaction() as session:
        for number in range(before):
            log.append(session, RequestWithdrawn(request_id=f"req_{number}"))
        older = log.head(session, signer)
    with database.transaction() as session:
        bundle = certificate.issue(session, signer, certificate_data)
    with database.transaction() as session:
        for number in range(after):
            log.append(session, RequestWithdrawn(request_id=f"req_{number}"))
    with database.transaction() as session:
        fresh = certificate.refreshed(session, signer, bundle, older.size)
    assert fresh["dsseEnvelope"] == bundle["dsseEnvelope"]
    report = verify_certificate(fresh, signer.public_key_pem, older.note)
    assert report.ok, report.failure
    assert report.checks[-1].status == "passed"
    assert f"of {before + 1 + after}" in report.checks[-1].sentence


def test_evidence_since_a_size_that_never_was_is_refused(
    database: Database, signer: Signer, certificate_data: CertificateData
) -> None:
    with database.transaction() as session:
        bundle = certificate.issue(session, signer, certificate_data)
        with pytest.raises(NoSuchSize, match="from 0 to 1; 2 came"):
            certificate.refreshed(session, signer, bundle, 2)
        with pytest.raises(NoSuchLeaf, match="no leaf 7"):
            certificate.evidence(session, signer, 7)


def test_a_request_that_an_earlier_one_met_is_recorded_with_its_statement(
    database: Database, signer: Signer, certificate_data: CertificateData
) -> None:
    with database.transaction() as session:
        bundle = certificate.issue(session, signer, certificate_data)
        index = certificate.refer(session, "req_2", "req_1", bundle)
        first, second = (json.loads(leaf.body) for leaf in log.entries(session, 0, 2))
    assert index == 1
    assert (second["request_id"], second["met_by_request_id"]) == ("req_2", "req_1")
    assert second["statement_sha256"] == first["statement_sha256"]


def _metric(name: str, subset: str) -> dict[str, object]:
    return {
        "name": name,
        "moment": "after",
        "subset": subset,
        "value": 1.0,
        "interval": [0.5, 1.5],
        "n": 3,
        "direction": "lower",
        "unit": "points",
        "unavailable": None,
        "details": {"per_label": {}},
    }


def test_key_metrics_leave_out_other_requests_and_details() -> None:
    chosen = certificate.key_metrics(
        [
            _metric("d_test", "test"),
            _metric("f1", "test"),
            _metric("d_f", "request:req_1"),
            _metric("d_f", "request:req_2"),
            _metric("unseen_auc", "forgotten"),
        ],
        "req_1",
    )
    found = [(one.name, one.subset) for one in chosen]
    assert found == [("d_test", "test"), ("d_f", "request:req_1"), ("unseen_auc", "forgotten")]
    assert "details" not in chosen[0].model_dump()


def test_key_metrics_of_a_version_made_for_others_are_those_that_cover_the_pairs() -> None:
    first = [_metric("d_test", "test"), _metric("d_f", "forget")]
    later = [*first, _metric("d_f", "forgotten")]
    found = [
        [one.subset for one in certificate.key_metrics(metrics, "req_1", made_for_request=False)]
        for metrics in (first, later)
    ]
    assert found == [["test", "forget"], ["test", "forgotten"]]


def test_the_attack_by_reference_models_is_repeated_where_some_were_asked_for() -> None:
    metrics = [
        _metric("d_f", "request:req_1"),
        _metric("d_f", "retained"),
        _metric("ulira_auc", "forget"),
        _metric("ulira_tpr_at_1pct_fpr", "retained"),
    ]
    without = certificate.key_metrics(metrics, "req_1")
    attacked = certificate.key_metrics(metrics, "req_1", attacked=True)
    assert [one.name for one in without] == ["d_f"]
    assert [(one.name, one.subset) for one in attacked[1:]] == [
        ("ulira_auc", "forget"),
        ("ulira_tpr_at_1pct_fpr", "retained"),
    ]


def test_made_reference_models_are_counted_by_what_the_attack_says() -> None:
    made = {**_metric("ulira_auc", "forget"), "details": {"reference_models": 16}}
    assert certificate.reference_models_of([_metric("d_f", "forget"), made]) == 16
    assert certificate.reference_models_of([_metric("ulira_auc", "forget")]) == 0
