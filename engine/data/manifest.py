"""Load a data set from its general manifest."""

from engine.data.files import DataFiles
from engine.data.items import GraphStore, ImageStore
from engine.data.pairs import ItemStore, Pair, PairDataset
from engine.data.rows import ManifestRow, read_rows
from engine.errors import DataError
from engine.spec import DataSpec, Modality


def load_dataset(spec: DataSpec) -> PairDataset:
    """Read every pair of ``spec.manifest`` and open the store of the items below ``spec.root``.

    Items themselves are opened later, when they are used.

    Raises:
        DataError: the manifest or the root cannot be read; a row is broken; an id occurs twice;
            images and graphs, or pairs with and without a label, are mixed; one text id stands
            for two texts, or one reference for two item ids. Names the file and the line.
    """
    checks = _Checks(spec.manifest.name)
    pairs = [checks.accept(line, row) for line, row in read_rows(spec.manifest)]
    if checks.modality is None:
        raise DataError("the manifest has no rows; at least one is needed", file=spec.manifest.name)
    files = DataFiles(spec.root)
    items: ItemStore = ImageStore(files) if checks.modality == "image" else GraphStore(files)
    labels = [pair.label for pair in pairs if pair.label is not None]
    return PairDataset(
        name=spec.manifest.stem,
        modality=checks.modality,
        pairs=pairs,
        items=items,
        classes=max(labels) + 1 if labels else None,
    )


class _Checks:
    """The rules that hold between the rows of one manifest."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.modality: Modality | None = None
        self.labelled = False
        self.lines: dict[str, int] = {}
        self.texts: dict[str, str] = {}
        self.item_ids: dict[str, str] = {}

    def accept(self, line: int, row: ManifestRow) -> Pair:
        pair = row.pair()
        if self.modality is None:
            self.modality, self.labelled = row.modality, pair.label is not None
        reason = self._conflict(line, pair, row.modality)
        if reason:
            raise DataError(reason, file=self.file, line=line)
        return pair

    def _conflict(self, line: int, pair: Pair, modality: Modality) -> str | None:
        if modality != self.modality:
            return f"a data set holds images or graphs, not both; it began with {self.modality}s"
        if (pair.label is not None) != self.labelled:
            return "either every pair has a label or none; the first row and this one differ"
        first = self.lines.setdefault(pair.id, line)
        if first != line:
            return f"the id {pair.id!r} was used on line {first}; ids must be unique"
        if self.texts.setdefault(pair.text_id, pair.text) != pair.text:
            return f"the text id {pair.text_id!r} stood for another text before"
        for reference, item_id in zip(pair.items, pair.item_ids, strict=True):
            if self.item_ids.setdefault(reference, item_id) != item_id:
                return f"{reference!r} had another item id before; one item has one id"
        return None
