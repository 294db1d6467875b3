"""Which pairs a run forgets, keeps and measures, by row; checked before any work."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.data.pairs import PairDataset
from engine.errors import InvalidSpec
from engine.spec import RunSpec

NAMED = 20
"""Most ids that an error names."""


@dataclass(frozen=True)
class Division:
    """The pairs of a data set in one run, as rows.

    Attributes:
        forget: D_f, to forget now ``(F,)``; empty when a run only trains or measures.
        forgotten: forgotten by ancestors ``(G,)``.
        forgotten_by: the number of the request that named each of these first ``(G,)``.
        retain: D_r, all other training pairs ``(R,)``.
        validation: the validation split.
        test: the test split.
        requests: the rows that each request of this run names.
    """

    forget: Tensor
    forgotten: Tensor
    forgotten_by: Tensor
    retain: Tensor
    validation: Tensor
    test: Tensor
    requests: dict[str, Tensor]

    @property
    def deleted(self) -> Tensor:
        """Everything that the model and its ancestors forgot, ``(F + G,)``."""
        return torch.cat([self.forget, self.forgotten])

    def subsets(self) -> dict[str, Tensor]:
        """Return the deleted subsets that are measured, by the name that their metrics carry."""
        chosen = {}
        if len(self.forget):
            chosen["forget"] = self.forget
        if len(self.forgotten):
            chosen["forgotten"] = self.deleted
        # One request may name pairs that ancestors forgot, too.
        if len(self.requests) > 1 or any(len(r) > len(self.forget) for r in self.requests.values()):
            chosen |= {f"request:{name}": rows for name, rows in self.requests.items()}
        return chosen


def divide(dataset: PairDataset, spec: RunSpec) -> Division:
    """Divide the pairs of a data set as a run specification asks.

    Ids that are named twice count once; ids that ancestors forgot before stay in ``forgotten``.

    Raises:
        InvalidSpec: ids are unknown or are no training pairs; nothing is left to forget, or too
            little to retain.
    """
    index = {pair.id: row for row, pair in enumerate(dataset.pairs)}
    train = {row for row, pair in enumerate(dataset.pairs) if pair.split == "train"}
    before = _rows(spec.forgotten.values(), index, train, dataset)
    named = {name: _rows([ids], index, train, dataset) for name, ids in spec.forget.items()}
    now = set().union(*named.values()) - before
    _check(spec, named=bool(spec.forget), now=now, kept=len(train) - len(now | before))
    return Division(
        forget=_tensor(now),
        forgotten=_tensor(before),
        forgotten_by=_numbers(spec, index, before),
        retain=_tensor(train - now - before),
        validation=_tensor(r for r, p in enumerate(dataset.pairs) if p.split == "val"),
        test=_tensor(r for r, p in enumerate(dataset.pairs) if p.split == "test"),
        requests={name: _tensor(rows) for name, rows in named.items()},
    )


def without_deleted(dataset: PairDataset, division: Division) -> PairDataset:
    """Return the data set as if the deleted pairs had never been in it."""
    gone = set(division.deleted.tolist())
    return replace(dataset, pairs=[p for row, p in enumerate(dataset.pairs) if row not in gone])


def _numbers(spec: RunSpec, index: Mapping[str, int], before: set[int]) -> Tensor:
    first: dict[int, int] = {}
    for number, ids in enumerate(spec.forgotten.values()):
        for name in ids:
            first.setdefault(index[name], number)
    return torch.tensor([first[row] for row in sorted(before)], dtype=torch.int64)


def _rows(
    groups: Iterable[Sequence[str]], index: Mapping[str, int], train: set[int], dataset: PairDataset
) -> set[int]:
    ids = dict.fromkeys(name for group in groups for name in group)
    unknown = [name for name in ids if name not in index]
    if unknown:
        raise InvalidSpec(_named(unknown, f"not in data set {dataset.name}; check the ids"))
    rows = {index[name]: name for name in ids}
    outside = [name for row, name in rows.items() if row not in train]
    if outside:
        raise InvalidSpec(
            _named(outside, "validation or test pairs; only training pairs can be forgotten")
        )
    return set(rows)


def _named(ids: list[str], what: str) -> str:
    shown = ", ".join(ids[:NAMED])
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"{len(ids)} pair ids are {what}: {shown}{more}"


def _check(spec: RunSpec, *, named: bool, now: set[int], kept: int) -> None:
    if spec.action == "train" and named:
        raise InvalidSpec("a training forgets nothing; name pairs to leave out under `forgotten`")
    if spec.action == "unlearn" and not now:
        already = "all of the named pairs were forgotten before" if named else "no pair is named"
        raise InvalidSpec(f"there is nothing to forget: {already}; name pairs under `forget`")
    if kept < 2:
        raise InvalidSpec(
            f"at least 2 training pairs must remain, and {kept} would; retire its versions instead"
        )


def _tensor(rows: Iterable[int]) -> Tensor:
    return torch.tensor(sorted(rows), dtype=torch.int64)
