"""The data directory: whose it is, what is refused, and in which words."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.data_dir import (
    DataDirError,
    is_served,
    require_lethe,
    require_places,
    require_roots,
    served_alone,
)
from app.core.settings import Settings
from app.core.settings_errors import SettingsError
from tests.terminal import environment

HOLDER = """
import sys, time
from pathlib import Path
from app.core.data_dir import served_alone
with served_alone(Path(sys.argv[1])) as tell:
    tell("http://127.0.0.1:8000")
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a process that serves the folder ``lethe``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lethe")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "held\n"
        yield process
    process.kill()
    process.wait()


def test_a_second_service_is_told_who_serves_the_folder_and_what_to_do(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert is_served(tmp_path / "lethe")
    with pytest.raises(DataDirError) as refused, served_alone(tmp_path / "lethe"):
        pass
    said = str(refused.value)
    assert f"by process {holder.pid} at http://127.0.0.1:8000" in said
    assert f"kill {holder.pid}" in said
    assert "--data-dir" in said
    assert "\n" not in said


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_folder_is_free_once_the_one_who_served_it_has_ended(
    holder: subprocess.Popen[str], tmp_path: Path, how: signal.Signals
) -> None:
    holder.send_signal(how)
    holder.wait(30)
    assert not is_served(tmp_path / "lethe")
    with served_alone(tmp_path / "lethe"):
        assert is_served(tmp_path / "lethe")
    assert not is_served(tmp_path / "lethe")


def test_looking_whether_a_folder_is_served_makes_nothing_and_keeps_nobody_away(
    tmp_path: Path,
) -> None:
    assert not is_served(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with served_alone(tmp_path / "lethe"):
        pass
    held = os.open(tmp_path / "lethe" / "service.lock", os.O_RDWR)  # as one who looks, for long
    os.close(held)
    with served_alone(tmp_path / "lethe") as tell:
        tell("http://127.0.0.1:1")
    kept = json.loads((tmp_path / "lethe" / "service.lock").read_text())
    assert kept == {"pid": os.getpid(), "url": "http://127.0.0.1:1"}


def test_only_a_folder_with_a_database_is_a_lethe(tmp_path: Path) -> None:
    with pytest.raises(DataDirError, match=r"No Lethe .* `lethe serve --data-dir"):
        require_lethe(tmp_path)
    (tmp_path / "postgres").mkdir()
    with pytest.raises(DataDirError, match="No Lethe"):
        require_lethe(tmp_path)  # the first start was cut short
    (tmp_path / "postgres" / "PG_VERSION").write_text("18\n")
    require_lethe(tmp_path)


def test_a_folder_whose_database_lies_elsewhere_is_a_lethe(tmp_path: Path) -> None:
    (tmp_path / "postgres.location").write_text("/var/lib/lethe/data-1\n")
    require_lethe(tmp_path)


@pytest.mark.parametrize("name", ["work_dir", "cache_dir", "storage_url", "signing_key_file"])
def test_a_place_that_cannot_be_written_is_named_by_its_setting(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "below"
    value: object = below.as_uri() if name == "storage_url" else below
    settings = Settings(data_dir=tmp_path / "lethe").model_copy(update={name: value})
    with pytest.raises(SettingsError, match=f"LETHE_{name.upper()}: .*cannot be used") as refused:
        require_places(settings, trainers=True)
    assert "\n" not in str(refused.value)


def test_an_api_makes_no_folder_of_trainers_and_keeps_its_key_to_itself(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "lethe")
    require_places(settings, trainers=False)
    assert {path.name for path in (tmp_path / "lethe").iterdir()} == {"keys", "storage"}
    assert (tmp_path / "lethe" / "keys").stat().st_mode & 0o777 == 0o700


def test_a_storage_that_is_no_local_folder_is_not_looked_for_on_disk(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "lethe", storage_url="memory://lethe")
    require_places(settings, trainers=False)
    assert not (tmp_path / "lethe" / "storage").exists()


def test_a_root_of_pretrained_models_that_is_set_has_to_be_a_folder(tmp_path: Path) -> None:
    require_roots(Settings(data_dir=tmp_path))  # the one in the data directory may be missing
    require_roots(Settings(pretrained_root=tmp_path))
    with pytest.raises(SettingsError, match=r"LETHE_PRETRAINED_ROOT is .*none, which is no folder"):
        require_roots(Settings(pretrained_root=tmp_path / "none"))


def test_each_data_root_has_to_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    require_roots(Settings(data_roots=[str(tmp_path)]))
    for name, word in (("file", "is no folder"), ("none", "is not there")):
        wrong = [str(tmp_path), str(tmp_path / name)]
        with pytest.raises(SettingsError, match=rf"{name} {word}.*--data-root"):
            require_roots(Settings(data_roots=wrong))
