"""Leaves: canonical, typed, and without personal data."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.ledger import records
from app.ledger.records import Record, pairs_commitment

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DIGEST = "0a" * 32

EXAMPLES: list[Record] = [
    records.DatasetRegistered(
        recorded_time=NOW,
        dataset_id="ds_1",
        modality="image",
        manifest_sha256=DIGEST,
        pair_count=3,
        split_counts={"train": 2, "test": 1},
        token_id="tok_1",
    ),
    records.VersionRegistered(
        recorded_time=NOW,
        version_id="ver_1",
        model_id="mod_1",
        number=1,
        lineage_id="ver_1",
        dataset_id=None,
        source="upload",
        checkpoint_sha256=DIGEST,
        weights_sha256=None,
    ),
    records.VersionRetired(
        recorded_time=NOW,
        version_id="ver_1",
        model_id="mod_1",
        lineage_id="ver_1",
        token_id="tok_1",
    ),
    records.RequestReceived(
        recorded_time=NOW,
        request_id="req_1",
        dataset_id="ds_1",
        pair_count=2,
        pairs_commitment=DIGEST,
        scope="association",
        objective="decouple",
        method="multidelete",
        update="all",
        deadline=NOW + timedelta(days=31),
    ),
    records.RequestWithdrawn(recorded_time=NOW, request_id="req_1"),
    records.RequestSaltDeleted(recorded_time=NOW, request_id="req_1", token_id="tok_1"),
    records.JobStarted(
        recorded_time=NOW,
        job_id="job_1",
        job_kind="unlearn",
        model_id="mod_1",
        dataset_id="ds_1",
        lineage_id="ver_1",
        attempt=1,
    ),
    records.VersionProduced(
        recorded_time=NOW,
        version_id="ver_2",
        job_id="job_1",
        model_id="mod_1",
        number=2,
        lineage_id="ver_1",
        parent_id="ver_1",
        dataset_id="ds_1",
        checkpoint_sha256=DIGEST,
        weights_sha256=DIGEST,
        request_ids=["req_1"],
    ),
    records.AuditRecorded(
        recorded_time=NOW,
        audit_id="aud_1",
        version_id="ver_2",
        job_id="job_1",
        metric_count=12,
        metrics_sha256=DIGEST,
    ),
    records.RequestCompleted(recorded_time=NOW, request_id="req_1", statement_sha256=DIGEST),
    records.CheckpointDownloaded(
        recorded_time=NOW, version_id="ver_2", checkpoint_sha256=DIGEST, token_id="tok_1"
    ),
]


def kinds() -> set[str]:
    return {one.kind for one in Record.__subclasses__()}


def test_every_kind_of_record_is_covered_by_an_example() -> None:
    assert {one.kind for one in EXAMPLES} == kinds()
    assert len(kinds()) == len(EXAMPLES)


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda one: one.kind)
def test_a_leaf_is_canonical_json_that_says_what_it_is(record: Record) -> None:
    body = record.body()
    fields = json.loads(body)
    assert rfc8785.dumps(fields) == body
    assert fields["kind"] == record.kind
    assert fields["format"] == records.FORMAT
    assert fields[record.subject_field] == record.subject
    assert fields["recorded_time"] == "2026-03-01T12:00:00.000000Z"


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda one: one.kind)
def test_no_text_field_of_a_record_takes_free_text(record: Record) -> None:
    fields = record.model_dump()
    texts = [name for name, value in fields.items() if isinstance(value, str)]
    assert record.subject_field in texts
    for name in texts:
        for personal in ("Ada Lovelace", "ada@example.org", "cats/ada.png", "x" * 65):
            with pytest.raises(ValidationError):
                type(record)(**{**fields, name: personal})


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda one: one.kind)
def test_a_record_refuses_a_field_that_it_does_not_know(record: Record) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(record)(**{**record.model_dump(), "reason": "divorce"})


def test_times_are_written_in_utc() -> None:
    local = datetime(2026, 3, 1, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    record = records.RequestWithdrawn(request_id="req_1", recorded_time=local)
    assert json.loads(record.body())["recorded_time"] == "2026-03-01T12:00:00.000000Z"


def test_a_commitment_is_the_digest_of_the_sorted_hmacs() -> None:
    salt = bytes(32)
    one, two = (hmac.new(salt, name, "sha256").digest() for name in (b"p1", b"p2"))
    expected = hashlib.sha256(min(one, two) + max(one, two)).hexdigest()
    assert pairs_commitment(salt, ["p1", "p2"]) == expected


@given(
    pairs=st.lists(st.text(max_size=20), unique=True, max_size=8),
    salt=st.binary(min_size=32, max_size=32),
)
def test_a_commitment_depends_on_salt_and_pairs_but_not_on_their_order(
    pairs: list[str], salt: bytes
) -> None:
    made = pairs_commitment(salt, pairs)
    assert made == pairs_commitment(salt, reversed(pairs))
    assert made != pairs_commitment(salt, [*pairs, "another pair, longer than the others"])
    if pairs:
        other = bytes([salt[0] ^ 1]) + salt[1:]
        assert made != pairs_commitment(other, pairs)


def test_a_commitment_needs_a_salt_of_32_bytes() -> None:
    with pytest.raises(ValueError, match="has 32 bytes; this one has 0"):
        pairs_commitment(b"", ["p1"])
