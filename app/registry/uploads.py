"""Uploading a version: files one by one under their own digests, then all as a checkpoint."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core.bodies import SpooledBody
from app.core.db import after_commit
from app.core.storage import Storage
from app.deletions.queries import hold_dataset
from app.ledger.records import VersionRegistered
from app.registry import checkpoints, queries
from app.registry.deleted import count_still_known
from app.registry.errors import CheckpointInvalid, VersionFixed
from app.registry.service import checkpoint_key
from app.registry.tables import Version, VersionFile


def put_file(
    session: Session, storage: Storage, version: Version, path: str, body: SpooledBody
) -> VersionFile:
    """Keep one file of a version that is being uploaded, in place of an earlier one of its name.

    Raises:
        VersionFixed: the version is ready.
        FileRefused: its name is not allowed, or its content is not what the name says.
        StorageFull: no room; nothing of it is kept.
    """
    checkpoints.check_name(path)
    _hold(session, version, shared=True)
    checkpoints.check_content(path, body.path, body.size)
    # The digest in the key keeps two uploads of one name, at the same time, apart.
    location = f"{_uploads(version)}/{body.sha256}/{path}"
    storage.put_file(body.path, location, move=True)
    return _note(session, version, path, body.sha256, body.size, location)


def finalize(session: Session, storage: Storage, version: Version, expected: str | None) -> bool:
    """Make an uploaded version ready: check it as a whole and move it to its address.

    Returns whether this call made it ready; one that was before stays as it is, so that a repeated
    call does no harm. The caller appends `registered` to the ledger.

    Raises:
        CheckpointInvalid: files are missing, or a digest is not the expected one.
        StorageFull: no room; the version still waits for its files.
    """
    _lock(session, version)
    if version.status != "uploading":
        _check_same(version, expected)
        return False
    files = list(queries.files_of(session, version.version_id))
    digests = {file.path: file.sha256 for file in files}
    address = checkpoints.check_whole(digests, expected)
    _check_card(session, storage, version, files)
    if checkpoints.SUMS not in digests:
        files.append(_make_sums(session, storage, version, digests))
    _settle(storage, files, address)
    _make_ready(session, version, address, digests[checkpoints.WEIGHTS])
    prefix = _uploads(version)
    after_commit(session, lambda: storage.delete(prefix))
    return True


def _check_card(
    session: Session, storage: Storage, version: Version, files: list[VersionFile]
) -> None:
    """Raise `CheckpointInvalid` when the checkpoint says that it is of another kind of model."""
    place = next(file.location for file in files if file.path == checkpoints.CARD)
    with storage.open(place) as file:
        card = json.load(file)
    model = queries.get_model(session, version.model_id)
    found = card.get("family"), card.get("task", model.task)
    if found != (model.family, model.task):
        raise CheckpointInvalid(
            f"{checkpoints.CARD} says family {found[0]!r} and task {found[1]!r}; the model "
            f"{model.model_id} is {model.family!r} for {model.task!r}. Put the checkpoint of such "
            "a model, or upload this one as a version of a model of its own kind."
        )


def registered(session: Session, version: Version, token_id: str) -> VersionRegistered:
    """Return the ledger's record of an uploaded version that became ready."""
    return VersionRegistered(
        version_id=version.version_id,
        model_id=version.model_id,
        number=version.number,
        lineage_id=version.lineage_id,
        dataset_id=version.dataset_id,
        source="upload",
        checkpoint_sha256=version.checkpoint_sha256 or "",
        weights_sha256=version.weights_sha256,
        contains_deleted=count_still_known(session, version),
        token_id=token_id,
    )


def _settle(storage: Storage, files: list[VersionFile], address: str) -> None:
    for file in files:
        key = checkpoint_key(address, file.path)
        # What is there is the same: another version may have these very weights.
        if not storage.exists(key):
            storage.copy(file.location, key)
        file.location = key


def _make_ready(session: Session, version: Version, address: str, weights_sha256: str) -> None:
    version.status = "ready"
    version.checkpoint_sha256 = address
    version.weights_sha256 = weights_sha256
    version.ready_time = session.scalar(select(func.now()))
    if version.dataset_id is not None:
        # Deletion requests look for ready versions: one that comes now must see this version, or
        # be seen when it is registered.
        hold_dataset(session, version.dataset_id)
    session.flush()


def _make_sums(
    session: Session, storage: Storage, version: Version, digests: dict[str, str]
) -> VersionFile:
    text = checkpoints.sums(digests)
    sha256 = checkpoints.checkpoint_sha256(digests)
    location = f"{_uploads(version)}/{sha256}/{checkpoints.SUMS}"
    with TemporaryDirectory() as folder:
        file = Path(folder) / checkpoints.SUMS
        file.write_text(text)
        storage.put_file(file, location)
    return _note(session, version, checkpoints.SUMS, sha256, len(text.encode()), location)


def _note(
    session: Session, version: Version, path: str, sha256: str, size: int, location: str
) -> VersionFile:
    values = {"sha256": sha256, "size": size, "location": location}
    statement = insert(VersionFile).values(version_id=version.version_id, path=path, **values)
    session.execute(
        statement.on_conflict_do_update(index_elements=["version_id", "path"], set_=values)
    )
    session.expire_all()
    return queries.get_file(session, version.version_id, path)


def _hold(session: Session, version: Version, *, shared: bool) -> None:
    """Keep the version's row from changing until this transaction ends."""
    statement = select(Version).where(Version.version_id == version.version_id)
    statement = statement.with_for_update(read=shared, key_share=not shared)
    session.scalar(statement.execution_options(populate_existing=True))
    if shared and version.status != "uploading":
        raise VersionFixed(
            f"Version {version.version_id} is {version.status}: its files never change. Register a "
            "new version for other files."
        )


def _lock(session: Session, version: Version) -> None:
    _hold(session, version, shared=False)
    if version.source != "upload":
        raise VersionFixed(f"Version {version.version_id} was made by a job, not uploaded.")


def _check_same(version: Version, expected: str | None) -> None:
    if expected not in (None, version.checkpoint_sha256):
        raise VersionFixed(
            f"Version {version.version_id} is {version.status} with checkpoint_sha256 "
            f"{version.checkpoint_sha256}; it cannot become {expected}."
        )


def _uploads(version: Version) -> str:
    return f"uploads/{version.version_id}"
