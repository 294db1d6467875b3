"""A signer and certificates for the tests of the log."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import settings

from app.ledger.certificate import CertificateData, CertifiedVersion, KeyMetric
from app.ledger.tree_head import Signer

# Other processes on the machine must not turn a slow example into a failure.
settings.register_profile("ledger", deadline=None)
settings.load_profile("ledger")

ORIGIN = "lethe.test/log"
RECEIVED = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


@pytest.fixture(scope="session")
def signer() -> Signer:
    """Give a signer with a fixed key."""
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))), ORIGIN)


@pytest.fixture(scope="session")
def certificate_data() -> CertificateData:
    """Give what a certificate about one version states."""
    return certificate_for("req_1")


def certificate_for(request_id: str, **changes: Any) -> CertificateData:
    """Return what a certificate of ``request_id`` states."""
    metric = {"name": "d_f", "subset": "forget", "n": 160, "direction": "lower", "unit": "points"}
    before = KeyMetric(**metric, moment="before", value=50.3, interval=(46.1, 54.4))
    after = KeyMetric(**metric, moment="after", value=11.25, interval=(8.5, 14.75))
    missing = KeyMetric(
        name="mi_ratio", moment="after", subset="forget", value=None, n=160, unavailable="too few"
    )
    version = CertifiedVersion(
        version_id="ver_2",
        input_version_id="ver_1",
        checkpoint_sha256="ab" * 32,
        weights_sha256="cd" * 32,
        metrics=[before, after, missing],
    )
    data = CertificateData(
        request_id=request_id,
        dataset_id="ds_1",
        received_time=RECEIVED,
        completed_time=RECEIVED + timedelta(hours=2),
        deadline=RECEIVED + timedelta(days=31),
        scope="association",
        objective="decouple",
        method="multidelete",
        update="all",
        guarantee="approximate",
        limitations=["What the model knows of an image or a text on its own is kept."],
        pair_count=160,
        pairs_commitment="ef" * 32,
        versions=[version],
    )
    return data.model_copy(update=changes)
