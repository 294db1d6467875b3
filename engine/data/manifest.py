"""Load a data set from its general manifest."""

from engine.data.checks import PairChecks
from engine.data.files import DataFiles
from engine.data.items import GraphStore, ImageStore
from engine.data.pairs import ItemStore, PairDataset
from engine.data.rows import read_rows
from engine.errors import DataError
from engine.spec import DataSpec


def load_dataset(spec: DataSpec) -> PairDataset:
    """Read every pair of ``spec.manifest`` and open the store of the items below ``spec.root``.

    Items themselves are opened later, when they are used.

    Raises:
        DataError: the manifest or the root cannot be read; a row is broken; an id occurs twice;
            images and graphs, pairs with one and with two images, or pairs with and without a
            label, are mixed; one text id stands for two texts, or one reference for two item ids.
            Names the file and the line.
    """
    checks, file = PairChecks(), spec.manifest.name
    pairs = [checks.accept(row, file=file, line=line) for line, row in read_rows(spec.manifest)]
    if checks.modality is None:
        raise DataError("the manifest has no rows; at least one is needed", file=file)
    files = DataFiles(spec.root)
    items: ItemStore = ImageStore(files) if checks.modality == "image" else GraphStore(files)
    return PairDataset(
        name=spec.manifest.stem,
        modality=checks.modality,
        pairs=pairs,
        items=items,
        classes=checks.classes,
    )
