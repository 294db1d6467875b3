"""Turn a data set of a known format into a general manifest; the command is `engine.data.__main__`."""

import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

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
from engine.data.files import SEPARATOR, DataFiles
from engine.data.formats import (
    Format,
    ImageFormat,
    ManifestFormat,
    Row,
    SourceRow,
    check_there,
    detect_name,
    explained,
    formats,
    keys_in,
)
from engine.data.image_index import ImageIndex
from engine.data.items import GraphStore
from engine.data.labels import ENTAILMENT, TRUTH
from engine.data.lines import parse
from engine.data.rows import ManifestRow, write_rows
from engine.errors import DataError
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

    The manifest appears only when all of it was written; what lay there before is replaced then.

    Args:
        path: folder or file in a known format.
        out_manifest: where the manifest goes: a new file, or one that is a manifest.
        format_name: name of the format; None detects it.
        images: folder or archive of the images, which then is the root; None: below the data set.

    Raises:
        DataError: the format is not known, an image or a graph is missing, a link leads out of the
            root, the data are broken, or the manifest cannot be written there; the message names
            file, line and reason.
    """
    check_there(path)
    if images is not None:
        check_there(images, "folder or archive of images")
    _check_place(out_manifest, path, images)
    name, checks = format_name or detect_name(path), PairChecks()
    form = formats.get(name)
    with explained(name, file=str(path)):
        root = (images or form.root(path)).absolute()
    found = _with_links_named(_explained_rows(name, path, images), root)
    rows = _checked(_without_own(found, path, out_manifest), checks, _References(root, form))
    with _in_place_of(out_manifest) as whole:
        pairs = write_rows(rows, whole)
        if checks.modality is None:
            raise DataError("the data set has no pairs; at least one is needed", file=str(path))
    return ConvertReport(
        format=name,
        modality=checks.modality,
        task=_task(checks.modality, checks.items_per_pair, checks.classes),
        root=root,
        pairs=pairs,
        splits=checks.splits,
        items_per_pair=checks.items_per_pair,
        classes=checks.classes,
    )


_BY_IMAGES = "copy or move the images below it, or give the folder that holds them by --images"


class _References:
    """What the rows of a data set refer to: each file of it is looked at once, each graph is opened.

    A training would refuse the same; whoever converts a data set can still put it right.

    Args:
        root: folder or archive that references are relative to; those to members of an archive are
            what the format found in it.
        form: the format. A manifest may lie apart from its root, so that it may name what is not
            there.
    """

    def __init__(self, root: Path, form: Format) -> None:
        self._apart = isinstance(form, ManifestFormat)
        self._to_do = (
            _BY_IMAGES if isinstance(form, ImageFormat) else "copy or move the files below it"
        )
        self._files = DataFiles(root) if root.is_dir() else None
        self._graphs = GraphStore(self._files) if self._files else None
        self._there: dict[str, bool] = {}

    def check(self, row: ManifestRow, *, file: str, line: int | None) -> None:
        """Raise `DataError` unless a training will open what the row refers to."""
        if self._files is None or self._graphs is None:
            return
        for reference in row.references:
            try:
                there = self._is_there(self._files, reference)
                if there and row.modality == "graph":
                    self._graphs.load(reference)
            except DataError as error:
                reason = self._leaving(self._files.root, error.file) or str(error)
                raise DataError(reason, file=file, line=line) from error
            except Exception as error:  # a name of 300 characters, links in a circle, odd arrays
                reason = f"{reference} cannot be opened ({type(error).__name__}: {error})"
                raise DataError(reason, file=file, line=line) from error

    def _is_there(self, files: DataFiles, reference: str) -> bool:
        name = reference.partition(SEPARATOR)[0]
        if name not in self._there:
            self._there[name] = not self._apart or os.path.lexists(files.root / name)
            if self._there[name]:
                files.path(name, reference)
        return self._there[name]

    def _leaving(self, root: Path, reference: str) -> str | None:
        """Return what to do where a link, and not the name itself, leads out of the root."""
        place = Path(os.path.normpath(root / reference.partition(SEPARATOR)[0]))
        target = place
        with suppress(OSError, RuntimeError, ValueError):  # then it leads nowhere
            target = place.resolve()
        if not place.is_relative_to(root) or target.is_relative_to(root):
            return None
        return (
            f"{reference} leads by a link to {target}; links out of the root {root} are not "
            f"followed: {self._to_do}"
        )


def _check_place(out: Path, path: Path, images: Path | None) -> None:
    """Raise `DataError` where no manifest can be written, or where one would destroy another file."""
    try:
        reason = next((reason for bad, reason in _faults(out, path, images) if bad), None)
    except OSError as error:
        reason = f"no manifest can be written there: {error.strerror}"
    if reason:
        raise DataError(reason, file=str(out))


def _faults(out: Path, path: Path, images: Path | None) -> Iterator[tuple[bool, str]]:
    """Yield what can be wrong with a place, each with whether it is; the first one counts."""
    yield not out.name, "expected the name of the manifest, such as pairs.jsonl; none came"
    written = "the manifest is written as JSON lines, not as Parquet; give it a name in .jsonl"
    yield out.suffix.lower() == ".parquet", written
    yield out.is_symlink(), "it is a link, through which nothing is written; name the file itself"
    yield out.is_dir(), "it is a folder; give the name of a file in it, such as pairs.jsonl"
    there = out.exists()
    yield there and not out.is_file(), "it is a device, pipe or socket; give the name of a file"
    yield not out.parent.is_dir(), f"there is no folder {out.parent}; make it first"
    closed = not os.access(out.parent, os.W_OK | os.X_OK)
    yield closed, f"the folder {out.parent} may not be written to; choose another one"
    for source in filter(None, (path, images)):
        yield there and _same(out, source), f"it is {source}, which is read; {_OTHER_NAME}"
    # Whatever else a user has there was not made by this command.
    other = there and out.stat().st_size > 0 and not _is_manifest(out)
    yield other, f"a file that is no manifest lies there already; remove it, or {_OTHER_NAME}"


_OTHER_NAME = "give the manifest another name"


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError, ValueError):
        return one.samefile(other)
    return False


def _is_manifest(file: Path) -> bool:
    keys = keys_in(file)
    return keys >= {"id", "text", "split"} and not keys.isdisjoint({"image", "graph"})


def _explained_rows(name: str, path: Path, images: Path | None) -> Iterator[SourceRow]:
    """Yield the rows of a format; whatever it raises becomes an error that names it and the place."""
    file, line, end = str(path), None, SourceRow("", None, {})
    with explained(name, file=file):
        rows = iter(_rows(formats.get(name), path, images))
    while True:
        with explained(name, file=file, line=line):
            found = next(rows, end)
            if found is end:
                return
            file, line, row = found
            file, copied = str(file), dict(row)
        yield SourceRow(file, line, copied)


def _rows(form: Format, path: Path, images: Path | None) -> Iterator[SourceRow]:
    if images is None:
        return form.rows(path)
    if not isinstance(form, ImageFormat):
        reason = f"the format {form.name} says where its items lie; leave out the folder of images"
        raise DataError(reason, file=str(path))
    return form.rows_with(path, ImageIndex(images))


def _with_links_named(rows: Iterator[SourceRow], root: Path) -> Iterator[SourceRow]:
    """Yield the rows; an error about a missing image names a folder that was not searched."""
    try:
        yield from rows
    except DataError as error:
        link = _linked_folder(root) if " is missing: " in error.reason else None
        if link is None:
            raise
        not_searched = (
            f"links to folders are not followed, and below the root {link} is one: {_BY_IMAGES}"
        )
        reason = f"{error.reason}; {not_searched}"
        raise DataError(reason, file=error.file, line=error.line) from error


def _linked_folder(root: Path) -> str | None:
    for folder, folders, _ in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (link := Path(folder, name)).is_symlink():
                return link.relative_to(root).as_posix()
    return None


def _without_own(rows: Iterator[SourceRow], path: Path, out: Path) -> Iterator[SourceRow]:
    """Yield the rows unless one of them comes from the file that would be replaced."""
    folder = path if path.is_dir() else path.parent
    seen: set[str] = set()
    for row in rows:
        if row.file not in seen and _same(out, folder / row.file):
            raise DataError(f"the data set is read from it; {_OTHER_NAME}", file=str(out))
        seen.add(row.file)
        yield row


def _checked(
    rows: Iterator[SourceRow], checks: PairChecks, references: _References
) -> Iterator[Row]:
    for file, line, row in rows:
        checked = parse(ManifestRow, row, file=file, line=line)
        checks.accept(checked, file=file, line=line)
        references.check(checked, file=file, line=line)
        yield row


@contextmanager
def _in_place_of(out: Path) -> Iterator[Path]:
    """Give the place of a file that becomes ``out`` if all goes well; nothing is left otherwise."""
    try:
        # Its name is hidden, so that no search for images enters it.
        with TemporaryDirectory(prefix=".lethe-convert-", dir=out.parent) as folder:
            whole = Path(folder, "manifest.jsonl")
            yield whole
            whole.replace(out)
    except OSError as error:
        reason = f"the manifest cannot be written: {error.strerror or error}"
        raise DataError(reason, file=str(out)) from error


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
