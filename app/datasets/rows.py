"""One row of a pair manifest: what a caller may send, and what else a dataset demands of it."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# Ids are keys of B-tree indexes, whose entries have a limit in bytes.
_MOST_ITEM_BYTES = 1024
# No control characters and no line ends of Unicode, which would break lines of logs and terminals.
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$"
_MEMBER = "::"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Identifier = Annotated[str, Field(min_length=1, max_length=255, pattern=_PRINTABLE)]
Item = Annotated[str, Field(min_length=1, max_length=_MOST_ITEM_BYTES, pattern=_PRINTABLE)]
Items = Annotated[list[Item], BeforeValidator(_as_list), Field(min_length=1, max_length=2)]


class Row(BaseModel):
    """One row of a manifest, as a caller may send it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: Identifier
    image: Items | None = None
    graph: Item | None = None
    item_id: Items | None = None
    text: Annotated[str, Field(min_length=1, max_length=20_000)]
    text_id: Identifier | None = None
    label: Annotated[int, Field(ge=0, lt=1_000_000)] | None = None
    split: Literal["train", "val", "test"]


@dataclass(frozen=True)
class Rules:
    """What a dataset demands of its rows."""

    modality: str
    classes: int | None


def item_ids(row: Row) -> list[str]:
    """Return the ids of the row's images or graph: as given, or else their references."""
    return row.item_id or row.image or [row.graph or ""]


def objection(row: Row, rules: Rules) -> str | None:
    """Return why the row does not fit the dataset, or None."""
    items = row.image if rules.modality == "image" else row.graph and [row.graph]
    if items is None or (row.image is not None and row.graph is not None):
        return f"expected '{rules.modality}' and not its counterpart in an {rules.modality} dataset"
    if rules.modality == "graph" and not all(items[0].rpartition(_MEMBER)):
        return "graph: expected 'folder/file.npz::<key of the subgraph>'"
    odd = _reference_objection([_paths(item, rules.modality) for item in items])
    if odd is not None:
        return f"{rules.modality}: {odd}"
    if row.item_id is not None and len(row.item_id) != len(items):
        return f"item_id: {len(items)} expected, as many as items; {len(row.item_id)} came"
    if any(not item.isascii() and len(item.encode()) > _MOST_ITEM_BYTES for item in item_ids(row)):
        return f"item_id: at most {_MOST_ITEM_BYTES} bytes in UTF-8 expected"
    return _label_objection(row.label, rules.classes)


def _reference_objection(references: list[list[str]]) -> str | None:
    if any(_leaves_root(path) for paths in references for path in paths):
        return (
            "the reference must be a relative path without '..' or backslashes, of printable "
            "characters"
        )
    if any(_spelt_oddly(file) for file, *_ in references):
        return (
            "the path must be in its shortest form, without '//', './' or a slash at its end, so "
            "that one item has one reference"
        )
    return None


def _label_objection(label: int | None, classes: int | None) -> str | None:
    if classes is None:
        return None
    if label is None:
        return f"label: expected one of 0..{classes - 1}; none came"
    return None if label < classes else f"label: expected one of 0..{classes - 1}; got {label}"


def _paths(reference: str, modality: str) -> list[str]:
    """Return the paths in a reference: of a file, and of a member where that is an archive."""
    if modality == "graph":
        reference = reference.rpartition(_MEMBER)[0]
    archive, _, member = reference.partition(_MEMBER)
    return [archive, member] if member else [reference]


def _leaves_root(path: str) -> bool:
    """Tell whether a path leads out of the root or is none, so that no run would read it."""
    plain = path.isascii() and path[:1] not in {"", "/", "."}
    if plain and "\\" not in path and ":" not in path and ".." not in path:
        return False
    parts = PurePosixPath(path).parts
    odd = not parts or "\\" in path or not path.isprintable()
    return odd or parts[0] == "/" or ".." in parts or parts[0][1:2] == ":"


def _spelt_oddly(path: str) -> bool:
    """Tell whether a path has a shorter spelling: the same item would pass for another one."""
    if "//" not in path and "/." not in path and path[:1] != "." and path[-1:] != "/":
        return False
    return str(PurePosixPath(path)) != path
