"""Every setting, read from ``LETHE_*`` environment variables; documented in docs/settings.md."""

import json
import math
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.core.settings_errors import MissingSettingError
from app.core.settings_words import explained, unknown

# Of a lease, so that two heartbeats in a row may fail before the job is another worker's.
_OF_A_LEASE = 1 / 3


def _not_empty(value: Any) -> Any:
    if value == "":
        raise ValueError("the path of a file or folder, or no such variable")
    return value


def _list_of_folders(value: Any) -> Any:
    """Read a JSON list of paths; relative ones begin where this process was started."""
    try:
        given = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        given = None
    if not isinstance(given, list) or not all(isinstance(one, str) and one for one in given):
        raise ValueError('a JSON list of folders such as ["/data"]')
    return [str(Path(one).absolute()) for one in given]


def _check_server(url: SecretStr, schemes: tuple[str, ...], example: str) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        # Reading the port checks it. A second @ is one of a password, to be written as %40, and one
        # behind the host follows a slash of a password, to be written as %2F.
        behind = f"{parts.path}{parts.query}{parts.fragment}"
        usable = parts.scheme in schemes and parts.port != 0 and parts.netloc.count("@") < 2
        usable = usable and (parts.scheme == "unix" or "@" not in behind)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"a URL such as {example}")
    return url


def _postgresql(url: SecretStr) -> SecretStr:
    example = "postgresql://USER:PASSWORD@HOST:5432/NAME"
    return _check_server(url, ("postgresql", "postgresql+psycopg"), example)


def _redis(url: SecretStr) -> SecretStr:
    return _check_server(url, ("redis", "rediss", "unix"), "redis://:PASSWORD@HOST:6379/0")


def _storage(url: str) -> str:
    """Check that the protocol of a storage is known; a plain path becomes a URL."""
    if not url:
        raise ValueError("a URL such as file:///srv/lethe or s3://BUCKET/PREFIX")
    if "://" not in url:
        return Path(url).absolute().as_uri()
    import fsspec  # here, since it is slow to load

    try:
        fsspec.get_filesystem_class(url.partition("://")[0].rpartition("::")[2])
    except (ValueError, ImportError) as error:
        raise ValueError(f"a URL whose protocol can be used here ({error})") from error
    return url


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
        raise ValueError("one of auto, cpu, cuda, or cuda:N with the number of a GPU")
    return value


def _usual_heartbeat(given: dict[str, Any]) -> float:
    """Return what is often enough for the lease, where nothing is said about it."""
    return min(1.0, float(given.get("lease_seconds", 30.0)) * _OF_A_LEASE)


PathSetting = Annotated[Path, BeforeValidator(_not_empty)]
Folders = Annotated[list[str], NoDecode, BeforeValidator(_list_of_folders)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_postgresql)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis)]
StorageUrl = Annotated[str, AfterValidator(_storage)]
Seconds = Annotated[float, Field(allow_inf_nan=False)]


class Settings(BaseSettings):
    """Settings of API, worker and command line. No secret has a default."""

    model_config = SettingsConfigDict(env_prefix="LETHE_", extra="ignore")

    data_dir: PathSetting = Field(
        default=Path("lethe-data"),
        description="Folder of the embedded servers, storage, keys and work.",
    )
    database_url: DatabaseUrl | None = Field(
        default=None, description="PostgreSQL URL; without it a private server is started."
    )
    redis_url: RedisUrl | None = Field(
        default=None, description="Redis URL; without it a private server is started."
    )
    storage_url: StorageUrl | None = Field(
        default=None,
        description="fsspec URL of checkpoints and manifests; default: data_dir/storage.",
    )
    work_dir: PathSetting | None = Field(
        default=None,
        description="Folder of running jobs; shared between worker hosts if attempts are to resume "
        "across them.",
    )
    cache_dir: PathSetting | None = Field(
        default=None,
        description="Folder of what trainers may keep between runs: vectors of graph nodes, never anything of a "
        "pair; default: data_dir/cache.",
    )
    data_roots: Folders = Field(
        default=[], description="JSON list of folders below which a dataset's root may lie."
    )
    pretrained_root: PathSetting | None = Field(
        default=None,
        description="Folder of pretrained models: a training may name a folder in it, in the layout of "
        "transformers with safetensors weights; default: data_dir/pretrained.",
    )
    signing_key_file: PathSetting | None = Field(
        default=None,
        description="Ed25519 private key (PEM) of the log; made where the log is empty and no file is there; "
        "default: data_dir/keys/ledger.pem.",
    )
    ledger_origin: str = Field(
        default="lethe.local/log",
        pattern=r"^[^\s+]+$",
        description="Name of the log in tree heads; neither spaces nor '+'.",
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
    lease_seconds: Seconds = Field(
        default=30.0,
        gt=0,
        description="A job whose worker is silent for so long is given to another.",
    )
    heartbeat_seconds: Seconds = Field(
        default_factory=_usual_heartbeat,
        gt=0,
        description="How often a worker renews its lease and writes progress; at most a third of "
        "the lease.",
    )
    redispatch_seconds: Seconds = Field(
        default=30.0,
        gt=0,
        description="A queued job that nobody claimed is announced again after so long.",
    )
    max_attempts: int = Field(default=3, ge=1, description="Attempts of a job before it fails.")
    retry_seconds: Seconds = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="Pause before a job whose attempt broke off is tried again; it doubles with each further "
        "attempt, up to an hour.",
    )
    save_seconds: Seconds = Field(
        default=30.0,
        ge=0,
        description="Least time between two saves of a training's state; another attempt goes on from the last one.",
    )
    threads: int = Field(default=1, ge=1, description="Threads of a trainer.")
    device: Annotated[str, AfterValidator(_device)] = Field(
        default="auto",
        description="Device of a trainer: auto, cpu, cuda, cuda:0 ...; a worker does not start "
        "without the GPU that is named.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="Of a training's steps: bf16, which needs a device that has it and is not exact, or fp32; "
        "auto is bf16 on GPUs that have it. What is measured is in fp32.",
    )

    @field_validator("heartbeat_seconds")
    @classmethod
    def _several_in_a_lease(cls, value: float, info: ValidationInfo) -> float:
        most = info.data.get("lease_seconds", math.inf) * _OF_A_LEASE
        if value > most:
            raise ValueError(f"at most {most:g}, a third of LETHE_LEASE_SECONDS")
        return value

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
    def pretrained(self) -> Path:
        """Folder of pretrained models."""
        return (self.pretrained_root or self.data_dir / "pretrained").absolute()

    @property
    def signing_key(self) -> Path:
        """Path of the log's private key."""
        return self.signing_key_file or self.data_dir.absolute() / "keys" / "ledger.pem"

    def server_urls(self) -> tuple[str, str]:
        """Return the URLs of database and broker, for a process that starts no servers of its own.

        Raises:
            MissingSettingError: one of them is not set.
        """
        if self.database_url is None or self.redis_url is None:
            raise MissingSettingError(
                "Set LETHE_DATABASE_URL and LETHE_REDIS_URL, or run `lethe serve`, which starts "
                "private servers when they are not set."
            )
        return self.database_url.get_secret_value(), self.redis_url.get_secret_value()


def read_settings(**given: Any) -> Settings:
    """Return the settings of the environment, with those that are given instead.

    The first call of a process says on standard error which variables are none.

    Raises:
        SettingsError: one of them cannot be used.
    """
    _warn_once()
    try:
        return Settings(**given)
    except ValidationError as error:
        raise explained(error, Settings.model_fields) from None


def unknown_variables() -> dict[str, str]:
    """Return the variables ``LETHE_*`` of the environment that nothing reads, each with a sentence."""
    return unknown(os.environ, Settings.model_fields)


@cache
def _warn_once() -> None:
    for sentence in unknown_variables().values():
        sys.stderr.write(f"{sentence}\n")


@cache
def get_settings() -> Settings:
    """Return the settings of this process; raises `SettingsError` where one cannot be used."""
    return read_settings()
