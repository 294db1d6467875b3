"""What a benchmark makes of the lines and the last words of a run's process."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.runs import _failure, _follow

PROGRESS = '{"progress": {"phase": "load", "step": 1, "total": 2}}'


def _process(code: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_what_is_no_line_of_the_engine_is_passed_over() -> None:
    seen: list[object] = []
    code = f"print('hello'); print('7'); print('{PROGRESS}'); print('{{\"result\": {{}}}}'); print('bye')"
    assert _follow(_process(code), seen.append) == {"result": {}}
    assert len(seen) == 1


def test_a_run_that_has_told_its_result_is_left_to_end_by_itself() -> None:
    code = """
import os, sys, threading, time
def die():
    sys.stdin.read()
    os._exit(9)
threading.Thread(target=die, daemon=True).start()
print('{"result": {}}', flush=True)
os.close(1)
time.sleep(0.5)
os._exit(0)
"""
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert _follow(process, None) == {"result": {}}
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("written", "said"),
    [(b"caf\xe9 is closed\n", "is closed"), (b"", "the process was killed")],
)
def test_the_last_words_of_a_run_may_be_in_any_encoding(
    written: bytes, said: str, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(written)
    failed = _failure({}, log)
    assert said in str(failed)
    assert failed.code == "crashed"
