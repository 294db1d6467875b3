"""Every setting, read from ``LETHE_*`` environment variables; documented in docs/settings.md."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of API, worker and command line. No secret has a default."""

    model_config = SettingsConfigDict(env_prefix="LETHE_", extra="ignore")

    data_dir: Path = Field(
        default=Path("lethe-data"),
        description="Folder of the embedded servers, storage, keys and work.",
    )
    database_url: SecretStr | None = Field(
        default=None, description="PostgreSQL URL; without it a private server is started."
    )
    redis_url: SecretStr | None = Field(
        default=None, description="Redis URL; without it a private server is started."
    )
    storage_url: str | None = Field(
        default=None,
        description="fsspec URL of checkpoints and manifests; default: data_dir/storage.",
    )
    work_dir: Path | None = Field(
        default=None,
        description="Folder of running jobs; shared between worker hosts if attempts are to resume "
        "across them.",
    )
    cache_dir: Path | None = Field(
        default=None,
        description="Folder of what trainers may keep between runs: vectors of graph nodes, never anything of a "
        "pair; default: data_dir/cache.",
    )
    data_roots: list[str] = Field(
        default=[], description="JSON list of folders below which a dataset's root may lie."
    )
    signing_key_file: Path | None = Field(
        default=None,
        description="Ed25519 private key (PEM); default: data_dir/keys/ledger.pem, made once.",
    )
    ledger_origin: str = Field(
        default="lethe.local/log", description="Name of the log in tree heads."
    )
    host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    port: int = Field(default=8321, ge=0, lt=65536, description="Port of the API.")
    log_format: Literal["json", "human"] = Field(default="human", description="Form of log lines.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity that is logged."
    )
    max_body_bytes: int = Field(
        default=64 * 2**20,
        description="Largest JSON body of a deletion request, in bytes; others may have 1 MiB.",
        ge=1024,
    )
    max_manifest_bytes: int = Field(
        default=16 * 2**30, description="Largest pair manifest, in bytes.", ge=1024
    )
    max_file_bytes: int = Field(
        default=64 * 2**30, description="Largest uploaded checkpoint file, in bytes.", ge=1024
    )
    lease_seconds: float = Field(
        default=30.0,
        gt=0,
        description="A job whose worker is silent for so long is given to another.",
    )
    heartbeat_seconds: float = Field(
        default=1.0, gt=0, description="How often a worker renews its lease and writes progress."
    )
    redispatch_seconds: float = Field(
        default=30.0,
        gt=0,
        description="A queued job that nobody claimed is announced again after so long.",
    )
    max_attempts: int = Field(default=3, ge=1, description="Attempts of a job before it fails.")
    save_seconds: float = Field(
        default=30.0,
        ge=0,
        description="Least time between two saves of a training's state; another attempt goes on from the last one.",
    )
    threads: int = Field(default=1, ge=1, description="Threads of a trainer.")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$",
        description="Device of a trainer: auto, cpu, cuda, cuda:0 ...",
    )

    @property
    def storage(self) -> str:
        """URL of the storage, for fsspec."""
        return self.storage_url or (self.data_dir.absolute() / "storage").as_uri()

    @property
    def work(self) -> Path:
        """Folder of running jobs."""
        return self.work_dir or self.data_dir.absolute() / "work"

    @property
    def cache(self) -> Path:
        """Folder of what trainers may keep between runs."""
        return self.cache_dir or self.data_dir.absolute() / "cache"

    @property
    def signing_key(self) -> Path:
        """Path of the log's private key."""
        return self.signing_key_file or self.data_dir.absolute() / "keys" / "ledger.pem"


@lru_cache
def get_settings() -> Settings:
    """Return the settings of this process."""
    return Settings()
