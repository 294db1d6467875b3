"""What each of several processes does in the tests of `engine.processes`: `together.py FOLDER`.

FOLDER/specs.json has the runs by name. Each process writes what came of them to FOLDER/told-N.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine import RunSpec, load_dataset, run
from engine.errors import Cancelled, EngineError
from engine.families import families
from engine.inputs import Inputs
from engine.processes import average_gradients, joined, number
from engine.shares import _share, dividing, fused
from engine.tasks import tasks

PAIRS = 7
"""Pairs of a batch, which no two processes can halve."""
CHECKS = 9
"""Checks after which the last process asks to stop: it is then in its second epoch of training."""


def gradients(spec: RunSpec) -> dict[str, Tensor]:
    """Return the gradient of the task's loss on one batch by parameter, and the loss itself."""
    torch.set_num_threads(1)
    dataset = load_dataset(spec.data)
    kind = families.get(spec.family)
    model = kind.build(kind.tiny(), dataset, seed=3)
    model.set_trainable("all")
    inputs = Inputs(model, dataset)
    torch.manual_seed(5)
    with dividing(model):
        terms = tasks.get(spec.task)().loss(model, inputs, torch.arange(PAIRS))
        torch.stack(list(terms.values())).sum().backward()
    average_gradients(list(model.parameters()))
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**found, **{f"loss {name}": term.detach() for name, term in terms.items()}}


class Stopping:
    """A control of which the last process asks to stop."""

    def __init__(self) -> None:
        self.checks = 0

    def check(self) -> None:
        self.checks += 1
        if number() == 1 and self.checks == CHECKS:
            raise Cancelled("this process was asked")


def dropped(spec: RunSpec) -> dict[str, Any]:
    """Return what dropout leaves of one pair that stands in every row, and what is drawn next."""
    dataset = load_dataset(spec.data)
    kind = families.get(spec.family)
    config = kind.tiny().model_copy(update={"dropout": 0.5})
    model = kind.build(config, dataset, seed=3).eval()
    same = torch.zeros(PAIRS, dtype=torch.int64)
    item, text = Inputs(model, dataset).encode(model, same)
    model.train()
    torch.manual_seed(5)
    with dividing(model), torch.no_grad():
        passes = [fused(model, item, text).readout[:, 0].tolist() for _ in range(2)]
    return {"passes": passes, "next": float(torch.rand(()))}


def undivided() -> bool:
    """Return whether batch normalisation keeps passes whole, and other models are divided."""
    with dividing(nn.Linear(1, 1)):
        divided = _share(PAIRS) is not None
    with dividing(nn.Sequential(nn.BatchNorm1d(1))):
        return divided and _share(PAIRS) is None


def _attempt(spec: RunSpec, out: Path, **options: Any) -> str:
    try:
        run(spec, out, **options)
    except EngineError as error:
        return f"{error.code}: {error}"
    return "done"


def _fail_on_the_last() -> None:
    if number() == 1:
        raise OSError("a disk that only this process has")


def main(folder: Path) -> None:
    given = json.loads((folder / "specs.json").read_text(encoding="utf-8"))
    specs = {name: RunSpec.model_validate(spec) for name, spec in given.items()}
    told: dict[str, Any] = {}
    file = folder / f"told-{number()}.json"
    try:
        with joined("cpu"):
            file = folder / f"told-{number()}.json"
            found = {spec.family: gradients(spec) for spec in specs.values()}
            torch.save(found, folder / f"gradients-{number()}.pt")
            told["dropped"] = dropped(next(iter(specs.values())))
            told["undivided"] = undivided()
            for name, spec in specs.items():
                # A folder for each process, so that it shows which of them write.
                told[name] = _attempt(spec, folder / f"{name}-{number()}")
            first = next(iter(specs.values()))
            saved = {"state": folder / "state", "save_every": 0.0}
            told["stopped"] = _attempt(first, folder / "stopped", control=Stopping(), **saved)
            told["resumed"] = _attempt(first, folder / f"resumed-{number()}", **saved)
            _fail_on_the_last()
            told["left alone"] = _attempt(first, folder / "lost")
    except EngineError as error:
        told["end"] = error.code
    except OSError:
        told["end"] = "failed"
    file.write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
