"""The classes of published data sets, in the order of their numbers."""

from engine.errors import DataError

ENTAILMENT = ("contradiction", "neutral", "entailment")
"""Visual entailment, as the heads of published checkpoints number it (ALBEF)."""
TRUTH = ("false", "true")
"""NLVR: whether the statement holds."""


def label_of(word: str, classes: tuple[str, ...], *, file: str, line: int | None) -> int:
    """Return the number of the class ``word``; raises `DataError` when it is none of them."""
    if word not in classes:
        known = ", ".join(repr(name) for name in classes)
        raise DataError(f"the label is {word!r}; known are {known}", file=file, line=line)
    return classes.index(word)
