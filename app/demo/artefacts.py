"""What the caller takes home: checkpoint, report and certificate, each checked as it comes."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.demo.client import Caller, DemoError, Json
from app.demo.processes import run_python
from app.ledger.verify import verify_files

_SUMS = "SHA256SUMS"
# Run in a process of its own: this one stays without torch.
_LOAD = """
import json, sys
from pathlib import Path
from engine.checkpoints import load_checkpoint
loaded = load_checkpoint(Path(sys.argv[1]))
parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
print(json.dumps({"family": loaded.card["family"], "parameters": parameters}))
"""


@dataclass(frozen=True)
class Checkpoint:
    """A downloaded checkpoint.

    Attributes:
        folder: where it lies.
        sha256: digest of the list of its files' digests, computed from the bytes that came.
        verified: whether every file and the whole have the digests that the service states.
        family: architecture that it was loaded as.
        parameters: number of weights.
    """

    folder: Path
    sha256: str
    verified: bool
    family: str
    parameters: int


def fetch_checkpoint(caller: Caller, version: Json, folder: Path) -> Checkpoint:
    """Download every file of a version, check the digests and load the checkpoint.

    Raises:
        DemoError: it cannot be loaded.
    """
    listed = caller.get(f"/models/{version['model_id']}/versions/{version['version_id']}/files")
    if folder.exists():
        shutil.rmtree(folder)
    found = {}
    for file in listed["files"]:
        path = f"{version['files_url'].removeprefix('/v1')}/{file['path']}"
        found[file["path"]] = _fetch(caller, path, _inside(folder, file["path"]))
    stated = {file["path"]: file["sha256"] for file in listed["files"]}
    whole = checkpoint_sha256(found)
    loaded = _load(folder)
    return Checkpoint(
        folder,
        whole,
        found == stated and whole == version["checkpoint_sha256"],
        loaded["family"],
        loaded["parameters"],
    )


def checkpoint_sha256(files: Mapping[str, str]) -> str:
    """Return the digest over the sorted lines ``<sha256>  <path>`` of all files but SHA256SUMS."""
    lines = [f"{sha256}  {path}\n" for path, sha256 in sorted(files.items()) if path != _SUMS]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _inside(folder: Path, path: str) -> Path:
    target = (folder / path).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise DemoError(f"The service names a file outside the checkpoint: {path}")
    return target


def _fetch(caller: Caller, path: str, target: Path) -> str:
    """Write the file at ``path`` to ``target`` and return the SHA-256 of what came."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with caller.download(path) as pieces, target.open("wb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _load(folder: Path) -> Json:
    done = run_python(["-c", _LOAD, str(folder)])
    if done.returncode:
        raise DemoError(f"The checkpoint cannot be loaded: {done.stderr.strip()[-1500:]}")
    loaded: Json = json.loads(done.stdout.splitlines()[-1])
    return loaded


def fetch_report(caller: Caller, request_id: str, target: Path) -> Json:
    """Write the report page to ``target`` and return the report as data."""
    path = f"/audit/requests/{request_id}/report"
    target.write_text(caller.text(path, format="html"), encoding="utf-8")
    return caller.get(path, format="json")


@dataclass(frozen=True)
class Certificate:
    """A downloaded certificate, how its offline verification ended, and the log's size now."""

    file: Path
    key: Path
    older_head: Path
    verified: bool
    reason: str | None
    ledger_size: int


def keep_evidence(caller: Caller, folder: Path) -> tuple[Path, Path, int]:
    """Keep the log's public key and its head as they are now: what verification will hold it to.

    Returns:
        The file of the key, the file of the head, and the head's size.
    """
    key, head = folder / "ledger-key.pem", folder / "tree-head-before.txt"
    key.write_text(caller.text("/ledger/public-key"), encoding="utf-8")
    now = caller.get("/ledger/head")
    head.write_text(now["note"], encoding="utf-8")
    return key, head, int(now["size"])


def fetch_certificate(
    caller: Caller, request_id: str, folder: Path, evidence: tuple[Path, Path, int]
) -> Certificate:
    """Download the certificate and verify it offline, against the key and head kept from before."""
    key, older_head, size = evidence
    file = folder / "certificate.json"
    path = f"/audit/requests/{request_id}/certificate"
    file.write_text(caller.text(path, since=size), encoding="utf-8")
    report = verify_files(file, key, older_head)
    ledger_size = int(caller.get("/ledger/head")["size"])
    return Certificate(file, key, older_head, report.ok, report.failure, ledger_size)
