"""What a caller sees of versions."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.registry.deleted import StillKnown, still_known
from app.registry.schemas import VersionOut, files_url, version_url
from app.registry.tables import Version

_FIELDS = set(VersionOut.model_fields) - {"contains_deleted", "next_step", "files_url"}


def version_out(session: Session, version: Version) -> VersionOut:
    """Return a version with what it still knows of what was deleted."""
    return versions_out(session, [version])[0]


def versions_out(session: Session, versions: Sequence[Version]) -> list[VersionOut]:
    """Return versions with what they still know of what was deleted, which is counted at once."""
    session.flush()
    known = still_known(session, versions)
    return [_view(version, known[version.version_id]) for version in versions]


def _view(version: Version, known: StillKnown) -> VersionOut:
    return VersionOut(
        **{name: getattr(version, name) for name in _FIELDS},
        contains_deleted=known.pair_count,
        next_step=_next_step(version, known),
        files_url=files_url(version),
    )


def _next_step(version: Version, known: StillKnown) -> str | None:
    if known.pair_count == 0 or version.status == "retired":
        return None
    count = f"{known.pair_count} training pair{'s' if known.pair_count != 1 else ''}"
    return f"This version has not forgotten {count} that deletion requests name. {_what(version, known)}"


def _what(version: Version, known: StillKnown) -> str:
    if version.status == "ready" and known.newest != version.version_id:
        return (
            f"Use version {known.newest}, the newest of its lineage, and retire this one (POST"
            f" {version_url(version)}/retire)."
        )
    if known.job_id is not None:
        return f"Wait for job {known.job_id} (GET /v1/jobs/{known.job_id}): it unlearns on its lineage."
    finalized = "" if version.status == "ready" else "once its upload is finalized, "
    return (
        f"To have it forget them, {finalized}file a deletion request with their ids, which the callers"
        " that named them have (POST /v1/deletion-requests with dataset_id"
        f" {version.dataset_id!r} and versions [{version.version_id!r}]); GET"
        f" /v1/deletion-requests?dataset_id={version.dataset_id} lists the earlier requests, with"
        " reasons and times, and no ids."
    )
