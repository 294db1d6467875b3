"""Turn a data set of a known format into a general manifest: ``lethe convert``.

The report that is printed has what ``POST /v1/datasets`` asks for: modality, root and classes.
"""

import argparse
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from engine.data import (
    digits,
    emoji_entailment,
    emoji_pairs,
    karpathy,
    nlvr2,
    pgr,
    snli_ve,
    webdataset,
)
from engine.data.checks import PairChecks
from engine.data.formats import (
    Format,
    ImageFormat,
    ManifestFormat,
    Row,
    SourceRow,
    detect_format,
    formats,
)
from engine.data.image_index import ImageIndex
from engine.data.labels import ENTAILMENT, TRUTH
from engine.data.lines import parse
from engine.data.rows import ManifestRow, write_rows
from engine.errors import DataError, EngineError
from engine.spec import Frozen, Modality, Split

BUILT_IN = (digits, emoji_entailment, emoji_pairs, karpathy, nlvr2, pgr, snli_ve, webdataset)
"""Imported so that their formats are registered."""


class ConvertReport(Frozen):
    """What a conversion found.

    Attributes:
        format: name of the format.
        modality: ``image`` or ``graph``.
        task: the task that the data are for, or None when no task here takes such pairs.
        root: what the manifest's references are relative to, as an absolute path.
        pairs: number of pairs; ``splits`` counts them by split.
        items_per_pair: number of images or graphs of each pair.
        classes: number of classes, or None without labels.
    """

    format: str
    modality: Modality
    task: str | None
    root: Path
    pairs: int
    splits: dict[Split, int]
    items_per_pair: int
    classes: int | None


def convert(
    path: Path, out_manifest: Path, format_name: str | None = None, images: Path | None = None
) -> ConvertReport:
    """Write the general manifest of the data set at ``path`` as JSON lines.

    The manifest appears only when all of it was written.

    Args:
        path: folder or file in a known format.
        out_manifest: where the manifest goes.
        format_name: name of the format; None detects it.
        images: folder or archive of the images, which then is the root; None: below the data set.

    Raises:
        DataError: the format is not known, an image is missing or the data are broken; the message
            names file, line and reason.
    """
    form = formats.get(format_name) if format_name else detect_format(path)
    checks = PairChecks()
    partial = out_manifest.with_name(out_manifest.name + ".partial")
    try:
        pairs = write_rows(_checked(_rows(form, path, images), checks), partial)
        if checks.modality is None:
            raise DataError("the data set has no pairs; at least one is needed", file=str(path))
        partial.replace(out_manifest)
    finally:
        partial.unlink(missing_ok=True)
    return ConvertReport(
        format=form.name,
        modality=checks.modality,
        task=_task(checks.modality, checks.items_per_pair, checks.classes),
        root=(images or form.root(path)).absolute(),
        pairs=pairs,
        splits=checks.splits,
        items_per_pair=checks.items_per_pair,
        classes=checks.classes,
    )


def _rows(form: Format, path: Path, images: Path | None) -> Iterator[SourceRow]:
    if images is None:
        return form.rows(path)
    if not isinstance(form, ImageFormat):
        reason = f"the format {form.name} says where its items lie; leave out the folder of images"
        raise DataError(reason, file=str(path))
    if not images.exists():
        raise DataError("no such folder or archive of images", file=str(images))
    return form.rows_with(path, ImageIndex(images))


def _checked(rows: Iterator[SourceRow], checks: PairChecks) -> Iterator[Row]:
    for file, line, row in rows:
        checks.accept(parse(ManifestRow, row, file=file, line=line), file=file, line=line)
        yield row


def _task(modality: Modality, items_per_pair: int, classes: int | None) -> str | None:
    if modality == "graph":
        return "graph_text" if classes else None
    kinds = {
        (1, None): "retrieval",
        (1, len(ENTAILMENT)): "visual_entailment",
        (2, len(TRUTH)): "nlvr",
    }
    return kinds.get((items_per_pair, classes))


def summary_of(form: Format) -> str:
    """Return one line about a format: of the module that describes its layout."""
    described = form if isinstance(form, ManifestFormat) else sys.modules[type(form).__module__]
    return (inspect.getdoc(described) or "").partition("\n")[0].replace("``", "")


def _known() -> str:
    try:
        lines = [f"  {name}: {summary_of(formats.get(name))}" for name in formats]
    except EngineError as error:  # a broken format of another distribution
        return str(error)
    return "\n".join(["formats:", *lines])


def main(arguments: list[str] | None = None) -> int:
    """Run the command; prints the report as JSON and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="lethe convert",
        description=__doc__,
        epilog=_known(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, help="folder or file of the data set")
    parser.add_argument("out", type=Path, help="manifest to write (JSON lines)")
    parser.add_argument("--format", help="name of the format; detected when left out")
    parser.add_argument(
        "--images", type=Path, help="folder or archive of the images, if not below the data set"
    )
    given = parser.parse_args(arguments)
    try:
        report = convert(given.path, given.out, given.format, given.images)
    except EngineError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return 1
    sys.stdout.write(report.model_dump_json(indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
