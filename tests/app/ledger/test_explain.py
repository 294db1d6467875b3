"""What a verified statement says in words."""

from typing import Any

from app.ledger.certificate import CertificateData
from app.ledger.explain import describe


def _said(data: CertificateData) -> str:
    return " ".join(describe({"predicate": data.model_dump(mode="json")}))


def test_a_version_that_was_there_already_and_what_made_it_are_named(
    certificate_data: CertificateData,
) -> None:
    [version] = certificate_data.versions
    there = version.model_copy(update={"made_for_request": False, "method": "finetune"})
    said = _said(certificate_data.model_copy(update={"versions": [there]}))
    assert "It had forgotten the pairs already, by method finetune." in said
    assert "forgotten the pairs already" not in _said(certificate_data)


def test_retired_versions_are_said_to_be_left_as_they_are(
    certificate_data: CertificateData,
) -> None:
    said = _said(certificate_data.model_copy(update={"retired_versions": ["ver_7"]}))
    assert "Retired, so out of use and left as they are: ver_7." in said


def test_a_certificate_from_before_versions_could_be_retired_is_described_too(
    certificate_data: CertificateData,
) -> None:
    older: dict[str, Any] = certificate_data.model_dump(mode="json", exclude={"retired_versions"})
    for version in older["versions"]:
        del version["method"], version["made_for_request"]
    assert "Retired" not in " ".join(describe({"predicate": older}))


def test_reference_models_that_were_asked_for_and_made_are_said(
    certificate_data: CertificateData,
) -> None:
    [version] = certificate_data.versions
    made = version.model_copy(update={"reference_models": 16})
    data = certificate_data.model_copy(update={"versions": [made], "reference_models": 8})
    said = _said(data)
    assert "Asked for besides: an attack on each pair by 8 reference models." in said
    assert "Each pair was attacked by 16 reference models." in said
    assert "reference model" not in _said(certificate_data)
