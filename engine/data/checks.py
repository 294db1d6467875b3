"""The rules that hold between the rows of one data set."""

from engine.data.pairs import Pair
from engine.data.rows import ManifestRow
from engine.errors import DataError
from engine.spec import Modality, Split


class PairChecks:
    """Takes the rows of a data set one after the other and refuses one that contradicts another.

    Attributes:
        modality: of the first row; None before it.
        items_per_pair: of the first row; 0 before it.
        classes: highest label and one; None without labels.
        splits: number of pairs of each split.
    """

    def __init__(self) -> None:
        self.modality: Modality | None = None
        self.items_per_pair = 0
        self.classes: int | None = None
        self.splits: dict[Split, int] = {"train": 0, "val": 0, "test": 0}
        self._labelled = False
        self._places: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._item_ids: dict[str, str] = {}

    def accept(self, row: ManifestRow, *, file: str, line: int | None) -> Pair:
        """Return the row's pair; raises `DataError` that names ``file``, ``line`` and reason."""
        pair = row.pair(line)
        if self.modality is None:
            self.modality, self.items_per_pair = row.modality, len(pair.items)
            self._labelled = pair.label is not None
        place = file if line is None else f"{file}, line {line}"
        reason = self._other_kind(pair, row.modality) or self._other_meaning(pair, place)
        if reason:
            raise DataError(reason, file=file, line=line)
        self.splits[pair.split] += 1
        if pair.label is not None:
            self.classes = max(self.classes or 0, pair.label + 1)
        return pair

    def _other_kind(self, pair: Pair, modality: Modality) -> str | None:
        if modality != self.modality:
            return f"a data set holds images or graphs, not both; it began with {self.modality}s"
        if len(pair.items) != self.items_per_pair:
            return (
                f"every pair has as many images as the first one, which has {self.items_per_pair}; "
                f"this one has {len(pair.items)}"
            )
        if (pair.label is not None) != self._labelled:
            return "either every pair has a label or none; the first row and this one differ"
        return None

    def _other_meaning(self, pair: Pair, place: str) -> str | None:
        if pair.id in self._places:
            return f"the id {pair.id!r} was used in {self._places[pair.id]}; ids must be unique"
        self._places[pair.id] = place
        if self._texts.setdefault(pair.text_id, pair.text) != pair.text:
            return f"the text id {pair.text_id!r} stood for another text before"
        for reference, item_id in zip(pair.items, pair.item_ids, strict=True):
            if self._item_ids.setdefault(reference, item_id) != item_id:
                return f"{reference!r} had another item id before; one item has one id"
        return None
