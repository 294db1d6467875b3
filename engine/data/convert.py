"""Turn a data set of a known format into a general manifest: ``python -m engine.data.convert``."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from engine.data import digits, karpathy, pgr
from engine.data.formats import Format, Row, detect_format, formats
from engine.data.rows import parse_row, write_rows
from engine.errors import EngineError
from engine.spec import Frozen, Modality

BUILT_IN = (digits, karpathy, pgr)
"""Imported so that their formats are registered."""


class ConvertReport(Frozen):
    """What a conversion found.

    Attributes:
        format: name of the format.
        modality: ``image`` or ``graph``.
        task: the task that the data are for, or None when no task here takes labelled images.
        root: what the manifest's references are relative to.
        pairs: number of pairs; ``splits`` counts them by split.
        classes: number of classes, or None without labels.
    """

    format: str
    modality: Modality
    task: str | None
    root: Path
    pairs: int
    splits: dict[str, int]
    classes: int | None


class _Tally:
    """Checks each row as it passes and counts."""

    def __init__(self) -> None:
        self.splits = {"train": 0, "val": 0, "test": 0}
        self.modality: Modality = "image"
        self.classes: int | None = None

    def watch(self, rows: Iterator[Row], source: str) -> Iterator[Row]:
        for number, row in enumerate(rows, start=1):
            checked = parse_row(row, file=source, line=number)
            self.modality = checked.modality
            self.splits[checked.split] += 1
            if checked.label is not None:
                self.classes = max(self.classes or 0, checked.label + 1)
            yield row


def convert(path: Path, out_manifest: Path, format_name: str | None = None) -> ConvertReport:
    """Write the general manifest of the data set at ``path`` as JSON lines.

    The manifest appears only when all of it was written.

    Args:
        path: folder or file in a known format.
        out_manifest: where the manifest goes.
        format_name: name of the format; None detects it.

    Raises:
        DataError: the format is not known or the data are broken.
    """
    form = formats.get(format_name) if format_name else detect_format(path)
    tally = _Tally()
    partial = out_manifest.with_name(out_manifest.name + ".partial")
    try:
        pairs = write_rows(tally.watch(form.rows(path), path.name), partial)
        partial.replace(out_manifest)
    finally:
        partial.unlink(missing_ok=True)
    return _report(form, path, tally, pairs)


def _report(form: Format, path: Path, tally: _Tally, pairs: int) -> ConvertReport:
    return ConvertReport(
        format=form.name,
        modality=tally.modality,
        task=_task(tally.modality, tally.classes),
        root=form.root(path),
        pairs=pairs,
        splits=tally.splits,
        classes=tally.classes,
    )


def _task(modality: Modality, classes: int | None) -> str | None:
    if modality == "graph":
        return "graph_text" if classes else None
    return None if classes else "retrieval"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; prints the report as JSON and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m engine.data.convert", description=__doc__)
    parser.add_argument("path", type=Path, help="folder or file of the data set")
    parser.add_argument("out", type=Path, help="manifest to write (JSON lines)")
    parser.add_argument("--format", help="name of the format; detected when left out")
    given = parser.parse_args(arguments)
    try:
        report = convert(given.path, given.out, given.format)
    except EngineError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return 1
    sys.stdout.write(report.model_dump_json(indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
