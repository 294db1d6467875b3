"""What options of several benchmarks must be, checked before anything is measured or written."""

import argparse
import os
from pathlib import Path

from benchmarks.figures import BenchmarkError


def positive(text: str) -> int:
    """Read a whole number above 0; raises what argparse makes a sentence of."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number above 0 was expected, and {text!r} came")
    return number


def counted(text: str) -> int:
    """Read a whole number from 0 on; raises what argparse makes a sentence of."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"a whole number from 0 on was expected, and {text!r} came"
        )
    return int(text)


def usable_device(asked: str) -> str:
    """Return the device that is asked for; ``auto`` is a GPU where there is one.

    Raises:
        BenchmarkError: torch cannot use such a device here.
    """
    from engine.environment import devices, is_usable

    if asked == "auto":
        return "cuda" if is_usable("cuda") else "cpu"
    if not is_usable(asked):
        there = ", ".join(["auto", *devices()])
        raise BenchmarkError(
            f"a device that torch can use here was expected, and --device {asked} came; give one of {there}"
        )
    return asked


def require_writable(file: Path) -> None:
    """Refuse a file that figures could not be written to in the end.

    Raises:
        BenchmarkError: it cannot be written.
    """
    try:
        is_new = not (file.exists() or file.is_symlink())
        file.open("a", encoding="utf-8").close()
        if is_new:
            file.unlink()
    except OSError as error:
        raise BenchmarkError(
            f"--json needs a file that can be written, and {file} cannot: {error.strerror}; "
            "name one in a folder that exists"
        ) from error


def make_folder(folder: Path) -> None:
    """Make the folder that ``--out`` names where it is missing.

    Raises:
        BenchmarkError: it cannot be made, or nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(folder, os.W_OK | os.X_OK) else "it cannot be written"
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
    if reason is not None:
        raise BenchmarkError(
            f"--out needs a folder, and {folder} cannot be one: {reason}; name another"
        )
