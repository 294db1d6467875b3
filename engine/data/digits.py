"""Image-text pairs made of scikit-learn's bundled scans of handwritten digits.

Several scans stand side by side in one image and the caption says them in order, for example
"three eight one seven". The scans are real; the arrangement and the captions are made by rule. The
scans are divided between train, val and test first, so that no scan occurs in two splits, and no
caption occurs twice, so that each caption has one right image in any gallery.

``python -m engine.data.digits OUT`` writes ``images.zip``, ``manifest.jsonl`` and ``digits.json``.
The same arguments give the same bytes.
"""

import argparse
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.data.files import SEPARATOR
from engine.data.formats import Format, Row, SourceRow, formats
from engine.data.rows import read_rows, write_rows
from engine.errors import DataError, EngineError
from engine.spec import Split

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LENGTH = 4
TILE = 16
SHARES: dict[Split, float] = {"train": 0.8, "val": 0.08, "test": 0.12}
DEFAULT_PAIRS = 2500
MIN_PAIRS = 25
MAX_PAIRS = 10**LENGTH
CARD, IMAGES, MANIFEST = "digits.json", "images.zip", "manifest.jsonl"

Scans = dict[Split, list[NDArray[np.int64]]]


class DigitsFormat(Format):
    """A folder that `write_digits` made."""

    name = "digits"

    def detect(self, path: Path) -> bool:
        """See `Format.detect`."""
        return all((path / name).is_file() for name in (CARD, IMAGES, MANIFEST))

    def rows(self, path: Path) -> Iterator[SourceRow]:
        """See `Format.rows`."""
        for line, row in read_rows(path / MANIFEST):
            yield SourceRow(MANIFEST, line, row.model_dump(exclude_none=True))


formats.register(DigitsFormat.name)(DigitsFormat())


def write_digits(out: Path, *, pairs: int = DEFAULT_PAIRS, seed: int = 0) -> None:
    """Write the data set into the folder ``out``.

    Args:
        out: folder, made when missing.
        pairs: number of pairs over all splits.
        seed: of the division of scans, the captions and the choice of scans.

    Raises:
        DataError: ``pairs`` or ``seed`` is out of bounds, or the folder cannot be written.
    """
    if not MIN_PAIRS <= pairs <= MAX_PAIRS:
        raise DataError(
            f"between {MIN_PAIRS} and {MAX_PAIRS} pairs can be made; {pairs} were asked"
        )
    if seed < 0:
        raise DataError(f"a seed from 0 on was expected, and {seed} came")
    random = np.random.default_rng(seed)
    images, targets = _load_scans()
    scans = _divide(targets, random)
    captions = random.permutation(MAX_PAIRS)[:pairs]
    rows = []
    card = {
        "length": LENGTH,
        "pairs": pairs,
        "seed": seed,
        "source": "sklearn.datasets.load_digits",
    }
    with _written(out):
        with ZipFile(out / IMAGES, "w", ZIP_STORED) as archive:
            for number, (code, split) in enumerate(zip(captions, _splits(pairs), strict=True)):
                digits = [int(digit) for digit in f"{code:0{LENGTH}d}"]
                chosen = [int(random.choice(scans[split][digit])) for digit in digits]
                name = f"{split}/{number:05d}.png"
                archive.writestr(ZipInfo(name), _png(images[chosen]))
                rows.append(_row(number, digits, split, name))
        write_rows(rows, out / MANIFEST)
        (out / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _written(out: Path) -> Iterator[None]:
    """Make the folder; raise `DataError` where the system refuses it, or what the block writes."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = (
            f"the data set cannot be written there: {error.strerror or error}; name another folder"
        )
        raise DataError(reason, file=str(out)) from error


def _load_scans() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the scans ``(1797, 8, 8)`` with values 0 to 16, and their digits ``(1797,)``."""
    # Half a second, which readers of the format do not need.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target


def _divide(targets: NDArray[np.int64], random: np.random.Generator) -> Scans:
    """Give each scan to one split, in equal shares of each digit."""
    scans: Scans = {"train": [], "val": [], "test": []}
    for digit in range(10):
        order = random.permutation(np.flatnonzero(targets == digit))
        train, val = round(0.7 * len(order)), round(0.8 * len(order))
        scans["train"].append(order[:train])
        scans["val"].append(order[train:val])
        scans["test"].append(order[val:])
    return scans


def _splits(pairs: int) -> list[Split]:
    val, test = round(SHARES["val"] * pairs), round(SHARES["test"] * pairs)
    counts: list[tuple[Split, int]] = [("train", pairs - val - test), ("val", val), ("test", test)]
    return [split for split, count in counts for _ in range(count)]


def _png(scans: NDArray[np.float64]) -> bytes:
    """Return scans ``(k, 8, 8)`` side by side, dark on white, as a PNG ``TILE`` pixels high."""
    strip = np.concatenate(list(scans), axis=1)
    grey = np.rint(255 - strip * (255 / 16)).astype(np.uint8)
    image = Image.fromarray(grey).resize((TILE * len(scans), TILE), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _row(number: int, digits: list[int], split: Split, name: str) -> Row:
    return {
        "id": f"digits-{number:05d}",
        "image": IMAGES + SEPARATOR + name,
        "item_id": name.partition("/")[2].removesuffix(".png"),
        "text": " ".join(WORDS[digit] for digit in digits),
        "text_id": "".join(str(digit) for digit in digits),
        "split": split,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m engine.data.digits", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--pairs", type=int, default=DEFAULT_PAIRS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        write_digits(given.out, pairs=given.pairs, seed=given.seed)
    except EngineError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
