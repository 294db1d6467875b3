"""The manifest that `lethe convert` writes replaces nothing else, and is whole or not there."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.data import __main__ as command
from engine.data.__main__ import main
from engine.data.convert import convert
from engine.data.digits import write_digits
from engine.errors import DataError

ROW = {"id": "a", "image": "a.png", "text": "one", "split": "train"}
LINE = json.dumps(ROW) + "\n"
KARPATHY = json.dumps(
    {
        "images": [
            {
                "imgid": 1,
                "filename": "a.png",
                "split": "train",
                "sentences": [{"raw": "one", "sentid": 1}],
            }
        ]
    }
)
SLOW = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, if it runs the tests, has it ignored
from engine.data.__main__ import main
from engine.data.formats import Format, SourceRow, formats

class Slow(Format):
    name = "slow"
    def detect(self, path):
        return True
    def rows(self, path):
        for number in range(20_000):
            row = {"id": str(number), "image": "a.png", "text": "one", "split": "train"}
            yield SourceRow("slow", number, row)
        print("ready", flush=True)
        time.sleep(60)

formats.register("slow")(Slow())
sys.exit(main([sys.argv[1], sys.argv[2], "--format", "slow"]))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a manifest of one pair."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "manifest.jsonl").write_text(LINE)
    (folder / "a.png").write_bytes(b"a")
    return folder


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder with captions of one image."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "dataset.json").write_text(KARPATHY)
    (folder / "a.png").write_bytes(b"a")
    return folder


def content_of(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, by its path."""
    return {
        place.relative_to(folder).as_posix(): place.read_bytes() if place.is_file() else None
        for place in folder.rglob("*")
    }


def refused(folder: Path, *arguments: object, reason: str) -> None:
    """Expect one sentence and that nothing below the folder is another than before."""
    before = content_of(folder)
    with pytest.raises(DataError) as caught:
        convert(*arguments)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert content_of(folder) == before


def run(*arguments: object, setting: str = 'exec "$@"') -> subprocess.CompletedProcess[str]:
    """Run the command where a shell has set something before."""
    called = ["sh", "-c", setting, "sh", sys.executable, "-m", "engine.data"]
    return subprocess.run(
        [*called, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_source_file_is_not_written_over(source: Path) -> None:
    manifest = source / "manifest.jsonl"
    refused(source, manifest, manifest, reason="which is read; give the manifest another name")
    refused(source, manifest, source / "." / ".." / "set" / manifest.name, reason="which is read")


def test_a_file_that_the_source_is_a_link_to_is_not_written_over(
    source: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(source / "manifest.jsonl")
    refused(tmp_path, link, source / "manifest.jsonl", reason="which is read")


def test_the_manifest_of_a_source_folder_is_not_written_over(source: Path) -> None:
    reason = "the data set is read from it; give the manifest another name"
    refused(source, source, source / "manifest.jsonl", reason=reason)
    refused(source, source, source / "manifest.jsonl", "manifest", reason=reason)


@pytest.mark.parametrize("name", ["manifest.jsonl", "digits.json", "images.zip"])
def test_no_file_of_the_digits_is_written_over(tmp_path: Path, name: str) -> None:
    write_digits(tmp_path / "digits", pairs=25)
    refused(tmp_path, tmp_path / "digits", tmp_path / "digits" / name, reason="another name")


@pytest.mark.parametrize("name", ["dataset.json", "a.png"])
def test_neither_captions_nor_images_are_written_over(published: Path, name: str) -> None:
    refused(published, published, published / name, reason="a file that is no manifest lies there")


def test_the_archive_of_images_is_not_written_over(published: Path, tmp_path: Path) -> None:
    images = shutil.make_archive(str(tmp_path / "images"), "zip", published, "a.png")
    arguments = (published, Path(images), None, Path(images))
    refused(tmp_path, *arguments, reason=f"it is {images}, which is read")


def test_a_link_is_not_written_through(source: Path, tmp_path: Path) -> None:
    (tmp_path / "target.jsonl").write_text(LINE)
    (tmp_path / "out.jsonl").symlink_to("target.jsonl")
    refused(tmp_path, source, tmp_path / "out.jsonl", reason="it is a link")
    (tmp_path / "dangling.jsonl").symlink_to("none.jsonl")
    refused(tmp_path, source, tmp_path / "dangling.jsonl", reason="it is a link")


def test_neither_a_folder_nor_a_pipe_nor_a_socket_is_replaced(source: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    refused(source, source, tmp_path / "folder", reason="it is a folder; give the name of a file")
    os.mkfifo(tmp_path / "fifo")
    refused(source, source, tmp_path / "fifo", reason="it is a device, pipe or socket")
    assert (tmp_path / "fifo").is_fifo()
    with socket.socket(socket.AF_UNIX) as place:
        place.bind(str(tmp_path / "socket"))
        refused(source, source, tmp_path / "socket", reason="it is a device, pipe or socket")
    assert (tmp_path / "socket").is_socket()


def test_a_manifest_that_lies_there_is_replaced(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(LINE * 2)
    assert convert(published, out).pairs == 1
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["1-1"]


def test_an_empty_file_is_replaced_and_has_the_permissions_of_a_new_one(
    published: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.jsonl").touch(0o600)
    (tmp_path / "new").touch()
    convert(published, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_a_manifest_that_lies_there_stays_when_the_data_are_broken(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.jsonl").write_text(LINE)
    (source / "manifest.jsonl").write_text(LINE + "{}\n")
    refused(tmp_path, source, tmp_path / "out.jsonl", reason="manifest.jsonl, line 2")


def test_a_file_named_partial_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.partial").write_text("of the user")
    convert(source, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl.partial").read_text() == "of the user"


@pytest.mark.parametrize("name", ["out.parquet", "OUT.PARQUET"])
def test_a_name_of_parquet_is_refused(source: Path, tmp_path: Path, name: str) -> None:
    reason = "the manifest is written as JSON lines, not as Parquet; give it a name in .jsonl"
    refused(tmp_path, source, tmp_path / name, reason=reason)


def test_a_manifest_in_parquet_is_still_read(source: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({key: [value] for key, value in ROW.items()}), source / "b.parquet")
    assert convert(source / "b.parquet", tmp_path / "out.jsonl").pairs == 1


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("none/out.jsonl", "there is no folder"),
        ("set/a.png/out.jsonl", "there is no folder"),
        ("x" * 300, "no manifest can be written there: File name too long"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_the_data_are_read(
    source: Path, tmp_path: Path, out: str, reason: str
) -> None:
    (source / "manifest.jsonl").write_text("broken\n")
    refused(tmp_path, source, tmp_path / out, reason=reason)


def test_a_folder_that_may_not_be_written_to_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root, as whom tests may run, may write everywhere.
    allowed = os.access
    monkeypatch.setattr(
        command.os, "access", lambda place, mode: not mode & os.W_OK and allowed(place, mode)
    )
    refused(tmp_path, source, tmp_path / "out.jsonl", reason="may not be written to")


def test_an_empty_name_is_refused_in_one_sentence(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(source), ""]) == 1
    expected = "data_error: .: expected the name of the manifest, such as pairs.jsonl; none came\n"
    assert capsys.readouterr().err == expected


def test_a_disk_that_takes_no_more_is_told_in_one_sentence(tmp_path: Path) -> None:
    write_digits(tmp_path / "digits", pairs=100)
    out = tmp_path / "out.jsonl"
    done = run(tmp_path / "digits", out, setting='ulimit -f 4; exec "$@"')
    expected = f"data_error: {out}: the manifest cannot be written: File too large\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)
    assert [place.name for place in tmp_path.iterdir()] == ["digits"]


def test_a_closed_output_is_told_in_one_sentence(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = run(source, out, setting='exec "$@" >&-')
    reason = "its report cannot be printed: standard output is closed"
    assert (done.returncode, done.stderr) == (1, f"{out} is written, but {reason}\n")
    assert out.read_text() == LINE


@pytest.mark.parametrize("command", [["engine.data"], ["app.cli", "convert"]])
def test_the_help_names_both_commands(command: list[str]) -> None:
    called = [sys.executable, "-m", *command, "--help"]
    said = subprocess.run(called, capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.startswith("usage: lethe convert [-h]")
    assert "``python -m engine.data``" in said


def test_an_output_that_nobody_reads_is_told_in_one_sentence(source: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    called = [sys.executable, "-m", "engine.data", source, tmp_path / "out.jsonl"]
    done = subprocess.run(
        called, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr.endswith("its report cannot be printed: [Errno 32] Broken pipe\n")
    assert done.stderr.count("\n") == 1


def test_no_output_at_all_is_no_traceback(source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out.jsonl", setting='exec "$@" >&- 2>&-').returncode == 1
    assert (tmp_path / "out.jsonl").read_text() == LINE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_and_leaves_no_part_of_a_manifest(
    source: Path, tmp_path: Path, number: signal.Signals
) -> None:
    called = [sys.executable, "-c", SLOW, str(source), str(tmp_path / "out.jsonl")]
    with subprocess.Popen(
        called, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(list(tmp_path.iterdir())) == 2  # the source, and what is written
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (128 + number, "")
    assert list(tmp_path.iterdir()) == [source]


def test_a_signal_that_is_ignored_stays_so_and_handlers_are_given_back(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    handlers = [signal.getsignal(number) for number in command.ENDING]
    try:
        with command._ended_in_order():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is command._end
        assert main([str(source), str(tmp_path / "out.jsonl")]) == 0
        assert [signal.getsignal(number) for number in command.ENDING] == handlers
    finally:
        signal.signal(signal.SIGHUP, before)
