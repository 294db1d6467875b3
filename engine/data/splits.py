"""What published data sets call their splits."""

import re

from engine.errors import DataError
from engine.spec import Split

SPLITS: dict[str, Split] = {
    "train": "train",
    # The rest of COCO's validation images, trained on as well since Karpathy's split.
    "restval": "train",
    "dev": "val",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    # NLVR2's public test split; the labels of test2 were never published.
    "test1": "test",
}


def split_of(word: str, *, file: str, line: int | None = None) -> Split:
    """Return the split of that name; raises `DataError` when it is none."""
    if word not in SPLITS:
        known = ", ".join(SPLITS)
        raise DataError(f"the split is {word!r}; known are {known}", file=file, line=line)
    return SPLITS[word]


def split_in(name: str) -> Split:
    """Return the split that the name of a file says, such as ``snli_ve_dev.jsonl``.

    Raises:
        DataError: the name says no split, or two.
    """
    words = re.split(r"[^a-z0-9]+", name.lower())
    found = {SPLITS[word] for word in words if word in SPLITS}
    if len(found) != 1:
        reason = f"the name of the file must say which split it is, one of {', '.join(SPLITS)}"
        raise DataError(reason, file=name)
    return found.pop()
