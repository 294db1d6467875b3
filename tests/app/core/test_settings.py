"""What the environment may say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from app import launch
from app.core.settings import Settings, read_settings
from app.core.settings_errors import MissingSettingError, SettingsError
from app.core.settings_words import unknown, variable
from tests.terminal import ROOT, environment


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_a_device_that_torch_knows_is_taken(device: str) -> None:
    assert Settings(device=device).device == device


@pytest.mark.parametrize("device", ["", "gpu", "GPU", "mps", "cuda:", "cuda:x", "cuda:-1", "cpu\n"])
def test_another_device_is_refused_before_any_job_fails_of_it(device: str) -> None:
    with pytest.raises(ValidationError, match="device"):
        Settings(device=device)


def test_state_is_saved_at_every_step_where_no_time_is_to_pass() -> None:
    assert Settings(save_seconds=0).save_seconds == 0
    with pytest.raises(ValidationError, match="save_seconds"):
        Settings(save_seconds=-1)


@pytest.mark.parametrize(
    ("name", "value", "expected", "got"),
    [
        ("PORT", "abc", "a whole number of at least 0 and below 65536", "'abc'"),
        ("PORT", "70000", "a whole number of at least 0 and below 65536", "'70000'"),
        ("PORT", "", "a whole number of at least 0 and below 65536", "nothing"),
        ("LEASE_SECONDS", "-1", "a number above 0", "'-1'"),
        ("HEARTBEAT_SECONDS", "31", "at most 10, a third of LETHE_LEASE_SECONDS", "'31'"),
        ("SAVE_SECONDS", "inf", "a number of at least 0", "'inf'"),
        ("RETRY_SECONDS", "7200", "a number of at least 0 and of at most 3600", "'7200'"),
        ("LOG_FORMAT", "xml", "one of json, human", "'xml'"),
        ("DEVICE", "gpu", "one of auto, cpu, cuda, or cuda:N with the number of a GPU", "'gpu'"),
        ("LEDGER_ORIGIN", "my log", r"text of the form [^\s+]+", "'my log'"),
        ("DATA_ROOTS", "/data", 'a JSON list of folders such as ["/data"]', "'/data'"),
        ("DATA_ROOTS", "[1]", 'a JSON list of folders such as ["/data"]', "'[1]'"),
        ("WORK_DIR", "", "the path of a file or folder, or no such variable", "nothing"),
        ("STORAGE_URL", "", "a URL such as file:///srv/lethe or s3://BUCKET/PREFIX", "nothing"),
    ],
)
def test_a_wrong_variable_is_named_with_what_was_expected_and_what_came(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str, got: str
) -> None:
    monkeypatch.setenv(f"LETHE_{name}", value)
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert str(refused.value) == f"LETHE_{name}: expected {expected}; got {got}."


def test_every_wrong_variable_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_PORT", "x")
    monkeypatch.setenv("LETHE_DATA_ROOTS", "/data")
    monkeypatch.setenv("LETHE_THREADS", "0")
    with pytest.raises(SettingsError) as refused:
        read_settings()
    named = [line.partition(":")[0] for line in str(refused.value).splitlines()]
    assert named == ["LETHE_DATA_ROOTS", "LETHE_PORT", "LETHE_THREADS"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "hunter2"),
        ("DATABASE_URL", "mysql://u:hunter2@h/d"),
        ("DATABASE_URL", "postgresql://u:hunter2@h:port/d"),
        ("DATABASE_URL", "postgresql://u:pass@hunter2@h/d"),  # libpq would name a host "hunter2@h"
        ("DATABASE_URL", "postgresql://u:hun/ter2@h/d"),
        ("REDIS_URL", "http://:hunter2@h"),
        ("REDIS_URL", "redis://:hunter2@h:99999/0"),
        ("STORAGE_URL", "s4://u:hunter2@h/d"),
    ],
)
def test_a_malformed_url_is_refused_and_its_password_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"LETHE_{name}", value)
    with pytest.raises(SettingsError, match=f"LETHE_{name}: expected a URL") as refused:
        read_settings()
    assert "ter2" not in str(refused.value)
    assert "not shown" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "postgresql://u:p%40w@h:5432/d?sslmode=require"),
        ("database_url", "postgresql+psycopg://u@h/d"),
        ("database_url", "postgresql://postgres@/lethe?host=/srv/lethe/socket"),
        ("redis_url", "rediss://:p@h:6379/0"),
        ("redis_url", "unix:///run/redis.sock?db=1"),
    ],
)
def test_the_urls_that_servers_have_are_taken(name: str, value: str) -> None:
    assert getattr(read_settings(**{name: value}), name).get_secret_value() == value


def test_a_protocol_without_its_package_is_refused_at_once() -> None:
    assert read_settings(storage_url="memory://lethe").storage == "memory://lethe"
    with pytest.raises(SettingsError, match=r"LETHE_STORAGE_URL: .*Protocol not known: s4"):
        read_settings(storage_url="s4://bucket")


def test_relative_places_begin_where_the_process_was_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read_settings(data_roots=["photos"], storage_url="kept", pretrained_root="models")
    assert settings.data_roots == [str(tmp_path / "photos")]
    assert settings.pretrained == tmp_path / "models"
    assert read_settings(data_dir="here").pretrained == tmp_path / "here" / "pretrained"
    assert settings.storage == (tmp_path / "kept").as_uri()


def test_a_process_without_servers_of_its_own_needs_both_urls() -> None:
    urls = {"database_url": "postgresql://u@h/d", "redis_url": "redis://h"}
    assert read_settings(**urls).server_urls() == tuple(urls.values())
    for name, url in urls.items():
        with pytest.raises(MissingSettingError, match="Set LETHE_DATABASE_URL and LETHE_REDIS_URL"):
            read_settings(**{name: url}).server_urls()


def test_two_heartbeats_may_fail_before_a_lease_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().heartbeat_seconds == 1.0
    assert read_settings(lease_seconds=1.5).heartbeat_seconds == 0.5  # unless it is said
    assert read_settings(lease_seconds=1.5, heartbeat_seconds=0.5).heartbeat_seconds == 0.5
    monkeypatch.setenv("LETHE_LEASE_SECONDS", "1.5")
    monkeypatch.setenv("LETHE_HEARTBEAT_SECONDS", "0.51")
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert str(refused.value) == (
        "LETHE_HEARTBEAT_SECONDS: expected at most 0.5, a third of LETHE_LEASE_SECONDS; got '0.51'."
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("LETHE_DATABSE_URL", "Did you mean LETHE_DATABASE_URL?"),
        ("LETHE_DATABASE", "Did you mean LETHE_DATABASE_URL?"),
        ("lethe_redisurl", "Did you mean LETHE_REDIS_URL?"),
        ("LETHE_SIGNING_KEY", "Did you mean LETHE_SIGNING_KEY_FILE?"),
        ("LETHE_COLOUR", "docs/settings.md lists them."),
    ],
)
def test_a_variable_that_is_no_setting_is_named_with_the_closest_one(name: str, hint: str) -> None:
    said = unknown({name: "x"}, Settings.model_fields)
    assert said == {name: f"{name} is no setting of Lethe and has no effect. {hint}"}


def test_no_variable_of_ours_is_warned_of() -> None:
    sources = [*ROOT.glob("docker*/*"), *ROOT.glob("docker-compose.yml")]
    for folder in ("app", "engine", "migrations", "worker"):
        sources += ROOT.glob(f"{folder}/**/*.py")
    text = "\n".join(path.read_text() for path in sources)
    named = set(re.findall(r"LETHE_[A-Z_]*[A-Z]\b", text)) | set(
        map(variable, Settings.model_fields)
    )
    assert "LETHE_DATASETS" in named
    others = ["LETHE_TEST_DATA", "LETHE_TEST_DATABASE_URL", "lethe_port", "PATH"]
    assert not unknown([*named, *others], Settings.model_fields)


def test_a_process_warns_once_and_its_children_not_again(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from app.core.settings import read_settings; read_settings(), read_settings()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=environment(LETHE_PROT="8000"),
    )
    (line,) = done.stderr.splitlines()
    assert line == "LETHE_PROT is no setting of Lethe and has no effect. Did you mean LETHE_PORT?"
    monkeypatch.setenv("LETHE_PROT", "8000")
    monkeypatch.setenv("LETHE_TEST_DATA", "/data")
    handed_on = launch.environment(Settings())
    assert "LETHE_PROT" not in handed_on
    assert handed_on["LETHE_TEST_DATA"] == "/data"
