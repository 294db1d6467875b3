"""`lethe bench`: from a clone wherever it is called, and refused with a sentence elsewhere."""

import shutil
import subprocess
import sys
from pathlib import Path

import app.cli


def _lethe(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd)


def test_a_benchmark_reads_its_own_options(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()  # another project's folder of that name
    (tmp_path / "benchmarks" / "__init__.py").write_text("raise SystemExit(7)")
    done = _lethe("bench", "paper", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "usage: lethe bench paper" in done.stdout
    assert "--resume" in done.stdout


def test_without_a_clone_a_sentence_says_where_the_benchmarks_are(tmp_path: Path) -> None:
    package = tmp_path / "app"
    package.mkdir()
    shutil.copy(app.cli.__file__, package / "cli.py")
    (package / "__init__.py").touch()
    done = _lethe("bench", "step", cwd=tmp_path)
    assert done.returncode == 2
    assert "clone Lethe's repository" in done.stderr
