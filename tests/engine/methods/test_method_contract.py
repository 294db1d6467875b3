"""What holds for every registered method, with every family and task that it can be used for."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.errors import Cancelled, InvalidSpec
from engine.families import PairModel, families
from engine.inputs import Inputs
from engine.methods import MethodParams, methods
from engine.monitor import Monitor
from engine.spec import Update
from engine.tasks import tasks
from engine.unlearning import Unlearning

Unlearn = Callable[..., Unlearning]
SHORT: dict[str, dict[str, object]] = {
    "multidelete": {"epochs": 2, "least_steps": 2},
    "finetune": {"epochs": 2},
    "retrain": {},
    "neggrad": {"epochs": 2, "least_steps": 0, "learning_rate": 1e-3},
    "ul": {"epochs": 2, "least_steps": 0, "learning_rate": 1e-3},
    # The contraction is 1/2, so that twelve steps leave little noise.
    "dtd": {"steps": 12, "weight_decay": 1.0, "batch_size": 12},
    "lcodec": {"passes": 8, "candidates": 8, "selected": 2, "fisher_pairs": 16},
    "erm_ktp": {"masked_every": 2},
}
COMBINATIONS = [
    (family, task)
    for task in tasks
    for family in families
    if tasks.get(task).refusal(families.get(family)) is None
]
CASES = [
    (name, family, task, update)
    for name in methods
    for family, task in COMBINATIONS
    for update in ("all", "fusion")
    if methods.get(name).refusal(family, task, update) is None
]
USUAL = [
    case for case in CASES if case[1:3] in {("albef", "retrieval"), ("gcn_bert", "graph_text")}
]


class Stop:
    """Cancels after so many steps."""

    def __init__(self, after: float) -> None:
        self.left = after
        self.asked = 0

    def check(self) -> None:
        self.asked += 1
        self.left -= 1
        if self.left < 0:
            raise Cancelled("stopped by the test")


def weights(model: PairModel) -> dict[str, bytes]:
    state = model.state_dict()
    return {name: tensor.detach().numpy().tobytes() for name, tensor in state.items()}


def start(
    unlearn: Unlearn, name: str, family: str, task: str | None, update: Update = "all"
) -> Unlearning:
    """A short run on a model as it was built: what is tested here needs no training."""
    run = unlearn(family, name, task=task, update=update, trained=False, **SHORT.get(name, {}))
    if run.recipe is not None:
        run.recipe = run.recipe.model_copy(update={"epochs": 2})
    return run


def watch(run: Unlearning, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Collect the pairs that the task's loss sees."""
    seen: set[int] = set()
    original = run.task.loss

    def watching(model: PairModel, inputs: Inputs, rows: Tensor) -> dict[str, Tensor]:
        seen.update(rows.tolist())
        return original(model, inputs, rows)

    monkeypatch.setattr(run.task, "loss", watching)
    return seen


@pytest.mark.parametrize(("name", "family", "task", "update"), CASES)
def test_a_method_makes_a_new_model_and_leaves_alone_what_it_must(
    unlearn: Unlearn,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    family: str,
    task: str,
    update: Update,
) -> None:
    run = start(unlearn, name, family, task, update)
    before, seen = weights(run.teacher), watch(run, monkeypatch)
    made = methods.get(name).run(run)
    assert weights(run.teacher) == before
    assert weights(made) != before
    assert list(made.state_dict()) == list(run.teacher.state_dict())
    assert all(torch.isfinite(tensor).all() for tensor in made.parameters())
    assert not made.training
    # One of another distribution may need no training.
    assert run.reports or name not in SHORT
    assert all(report.steps > 0 for report in run.reports)
    assert not run.inputs._frozen
    assert not seen & set(run.forgotten.tolist())
    if update == "fusion":
        for part in ("item", "text"):
            pairs = zip(run.teacher.parts()[part], made.parts()[part], strict=True)
            assert all(torch.equal(old, new) for (_, old), (_, new) in pairs)


@pytest.mark.parametrize(("name", "family", "task", "update"), USUAL)
def test_a_method_gives_the_same_model_each_time(
    unlearn: Unlearn, name: str, family: str, task: str, update: Update
) -> None:
    first = methods.get(name).run(start(unlearn, name, family, task, update))
    torch.manual_seed(99)
    second = methods.get(name).run(start(unlearn, name, family, task, update))
    assert weights(first) == weights(second)


@pytest.mark.parametrize("name", list(methods))
def test_a_cancelled_run_goes_on_to_the_same_model(
    unlearn: Unlearn, tmp_path: Path, name: str
) -> None:
    family = (
        "gcn_bert"
        if methods.get(name).refusal("gcn_bert", "graph_text", "all") is None
        else "albef"
    )
    run, control = start(unlearn, name, family, None), Stop(float("inf"))
    run.monitor = Monitor(control=control)
    whole = methods.get(name).run(run)
    assert control.asked
    interrupted = start(unlearn, name, family, None)
    interrupted.monitor = Monitor(state=tmp_path, save_every=0, control=Stop(control.asked - 2))
    with pytest.raises(Cancelled):
        methods.get(name).run(interrupted)
    again = start(unlearn, name, family, None)
    again.monitor = Monitor(state=tmp_path, save_every=0)
    assert weights(methods.get(name).run(again)) == weights(whole)


@pytest.mark.parametrize("name", list(methods))
def test_a_run_stops_at_once_when_it_is_cancelled(unlearn: Unlearn, name: str) -> None:
    family = (
        "gcn_bert"
        if methods.get(name).refusal("gcn_bert", "graph_text", "all") is None
        else "albef"
    )
    run = start(unlearn, name, family, None)
    run.monitor = Monitor(control=Stop(0))
    with pytest.raises(Cancelled):
        methods.get(name).run(run)


@pytest.mark.parametrize("name", list(methods))
def test_a_method_says_what_it_is_for_and_what_it_cannot(name: str) -> None:
    method = methods.get(name)
    assert method.name == name
    assert method.summary.endswith(".")
    assert method.scopes
    assert method.limitations
    assert all(sentence.endswith(".") for sentence in method.limitations)


@pytest.mark.parametrize("name", list(methods))
def test_parameters_have_defaults_and_descriptions_or_bounds(name: str) -> None:
    schema = methods.get(name).params.model_json_schema()
    methods.get(name).params()
    for field in schema["properties"].values():
        words = ("minimum", "exclusiveMinimum", "enum", "boolean")
        assert any(f"'{word}'" in str(field) for word in words)
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("name", list(methods))
def test_parameters_of_another_method_are_refused(unlearn: Unlearn, name: str) -> None:
    class Other(MethodParams):
        """Parameters of no method."""

    run = unlearn("gcn_bert", name, trained=False)
    run.params = Other()
    with pytest.raises(InvalidSpec, match="Other came"):
        methods.get(name).run(run)


def applies(name: str, row: str) -> dict[Update, bool]:
    """Whether a method can be used, for a column of the paper's Table 2."""
    family, task = {"image": ("albef", "retrieval"), "graph": ("gcn_bert", "graph_text")}[row]
    updates: tuple[Update, ...] = ("all", "fusion")
    return {update: methods.get(name).refusal(family, task, update) is None for update in updates}


@pytest.mark.parametrize(
    ("name", "image", "graph"),
    [
        # Table 2: figures of the method and of its -F, on image-text tasks and on PGR.
        ("retrain", (True, False), (True, False)),
        ("finetune", (True, True), (True, True)),
        ("neggrad", (True, True), (True, True)),
        ("dtd", (True, True), (True, True)),
        ("lcodec", (True, True), (True, True)),
        ("erm_ktp", (True, False), (False, False)),
        ("ul", (True, True), (True, True)),
        ("multidelete", (True, True), (True, True)),
    ],
)
def test_what_is_refused_is_what_the_paper_has_no_figure_for(
    name: str, image: tuple[bool, bool], graph: tuple[bool, bool]
) -> None:
    assert applies(name, "image") == dict(zip(("all", "fusion"), image, strict=True))
    assert applies(name, "graph") == dict(zip(("all", "fusion"), graph, strict=True))
