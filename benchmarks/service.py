"""The service as `lethe serve` runs it, but without a worker: what is queued stays queued."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
from pydantic import SecretStr
from safetensors.numpy import save

from app.auth.service import create_token
from app.core import migrations
from app.core.db import Database
from app.core.embedded import embedded_servers, free_port
from app.core.settings import Settings
from app.launch import ApiProcess
from benchmarks.figures import BenchmarkError

Json = dict[str, Any]
JSON_LINES = "application/x-ndjson"
PARQUET = "application/vnd.apache.parquet"


class BenchApi(ApiProcess):
    """The API's process, with the bare endpoint beside the service (`benchmarks.bare`)."""

    def _prepare(self) -> Sequence[str]:
        return [sys.executable, "-m", "benchmarks.bare"]


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        api: the process of its API.
        token: a token with every scope.
        root: a folder that datasets may lie in.
        http: a client with this token, for preparations.
    """

    api: ApiProcess
    token: str
    root: Path
    http: httpx.Client

    def post(self, path: str, body: Json) -> Json:
        """Post ``body`` to ``path`` and return the answer."""
        return checked(self.http.post(f"/v1{path}", json=body))

    def new_dataset(self, name: str) -> str:
        """Register an image dataset without pairs and return its id."""
        body = {"name": name, "modality": "image", "root": str(self.root)}
        return str(self.post("/datasets", body)["dataset_id"])

    def put_manifest(self, dataset_id: str, manifest: Path, media_type: str = JSON_LINES) -> Json:
        """Stream a manifest from its file and return the dataset."""
        with manifest.open("rb") as content:
            answer = self.http.put(
                f"/v1/datasets/{dataset_id}/pairs",
                content=content,
                headers={"Content-Type": media_type},
            )
        return checked(answer)

    def upload_version(self, dataset_id: str, name: str) -> str:
        """Upload a tiny checkpoint that learned from the dataset; return the version's id."""
        model = self.post("/models", {"name": name, "family": "albef", "task": "retrieval"})
        body = {"source": "upload", "dataset_id": dataset_id, "evaluate": False}
        version = self.post(f"/models/{model['model_id']}/versions", body)
        for path, content in _checkpoint().items():
            checked(self.http.put(f"{version['files_url']}/{path}", content=content))
        place = version["files_url"].removesuffix("/files").removeprefix("/v1")
        return str(self.post(f"{place}/finalize", {})["version_id"])


def _checkpoint() -> dict[str, bytes]:
    """Return the files of a checkpoint that the service accepts; no worker will ever load it."""
    return {
        "model.safetensors": save({"weight": np.zeros((2, 2), dtype=np.float32)}),
        "config.json": b"{}",
        "lethe.json": json.dumps({"family": "albef", "task": "retrieval"}).encode(),
        "README.md": b"# A checkpoint for measuring the service\n",
    }


def checked(answer: httpx.Response) -> Json:
    """Return the answer's JSON object.

    Raises:
        BenchmarkError: the service refused; the sentence quotes what it said.
    """
    if answer.is_error:
        request = answer.request
        raise BenchmarkError(
            f"{request.method} {request.url.path} was answered {answer.status_code}: "
            f"{answer.text[:500]}"
        )
    body: Json = answer.json()
    return body


@contextmanager
def running_service(work: Path, api_kind: type[ApiProcess] = ApiProcess) -> Iterator[Service]:
    """Run private PostgreSQL and Redis and the API while the block runs; nothing outlives it.

    Servers and settings are those of `lethe serve`: every commit waits for the disk.

    Args:
        work: folder in which the service's data lie for as long.
        api_kind: the API's process.
    """
    with TemporaryDirectory(dir=work, prefix="service-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # for root, the private PostgreSQL runs as another account
        root = folder / "data"
        root.mkdir()
        with embedded_servers(folder, temporary=True) as servers:
            migrations.upgrade(servers.database_url)
            settings = _settings(folder, root, servers.database_url, servers.redis_url)
            token = _token(servers.database_url)
            headers = {"Authorization": f"Bearer {token}"}
            with (
                api_kind(settings, show_log=False) as api,
                httpx.Client(base_url=api.url, headers=headers, timeout=600) as http,
            ):
                yield Service(api, token, root, http)


def _settings(folder: Path, root: Path, database_url: str, redis_url: str) -> Settings:
    """Return default settings, whatever the environment says, on these servers and folders."""
    defaults = {
        name: field.get_default(call_default_factory=True, validated_data={})
        for name, field in Settings.model_fields.items()
    }
    return Settings.model_construct(
        **defaults
        | {
            "data_dir": folder,
            "database_url": SecretStr(database_url),
            "redis_url": SecretStr(redis_url),
            "data_roots": [str(root)],
            "port": free_port(),
        }
    )


def _token(database_url: str) -> str:
    database = Database(database_url, pool_size=1)
    try:
        with database.transaction() as session:
            return create_token(session, "benchmarks", ["admin"])[1]
    finally:
        database.dispose()
