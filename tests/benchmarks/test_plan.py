"""Which runs there are, which cells have none, and what a run is found by."""

import importlib
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

import engine
from benchmarks.figures import BenchmarkError
from benchmarks.paper.data import Amount, BenchData
from benchmarks.paper.grid import name_of
from benchmarks.paper.plan import (
    AT_ONCE,
    FINAL,
    TARGETS,
    Cell,
    Options,
    jobs,
    make_plan,
)
from benchmarks.paper.presets import PRESETS
from benchmarks.paper.variants import ABLATIONS, CALIBRATED, MAPPINGS, variants
from benchmarks.runs import _without_words, digest, relevant_sources
from engine.families import families
from engine.methods import methods, multidelete_defaults
from engine.metrics import metrics
from engine.tasks import tasks
from tests.benchmarks.tiny_bench import TINY

ALL_PARTS = ("main", "ablation", "mappings", "sizes", "tradeoff", "sequence")


def _plan(prepared: dict[str, BenchData], **changes: object) -> list[Cell]:
    given = {"presets": ["digits"], "amounts": [Amount.parse("15")], "parts": ["main"], **changes}
    return make_plan(Options(known=TINY, **given), prepared)  # type: ignore[arg-type]


def test_every_registered_method_has_a_row_with_each_update_in_the_papers_order() -> None:
    rows = [variant.row for variant in variants()]
    assert len(rows) == 2 * len(list(methods)) + 1
    assert rows[:2] == ["retrain", "retrain-F"]
    assert rows[-3:] == ["multidelete", "multidelete-F", f"multidelete{CALIBRATED}"]
    assert {row for row in rows[:-1] if not row.endswith("-F")} == set(methods)


def test_an_unknown_method_is_refused_with_those_that_exist() -> None:
    with pytest.raises(BenchmarkError, match=r"forgetful: unknown; .*multidelete-F"):
        variants(["forgetful"])


def test_an_unknown_method_is_refused_before_any_data_are_prepared() -> None:
    with pytest.raises(BenchmarkError, match=r"forgetful: unknown; .*multidelete-F"):
        Options(known=TINY, presets=["digits"], amounts=[], rows=["forgetful"])


def test_a_family_is_run_where_it_is_set_and_the_first_one_without_any() -> None:
    presets = ["emoji_retrieval", "pgr"]
    asked = Options(PRESETS, presets, amounts=[], families=["blip", "gcn_bert"])
    assert [asked.chosen(name) for name in presets] == [["blip"], ["gcn_bert"]]
    free = Options(PRESETS, presets, amounts=[])
    assert [free.chosen(name) for name in presets] == [["albef"], ["gcn_bert"]]


@pytest.mark.parametrize("families", [["wat"], ["clip"], ["albef", "gcn_bert", "wat"]])
def test_a_family_that_no_chosen_data_set_has_is_refused_with_those_that_they_have(
    families: list[str],
) -> None:
    known = r"emoji_entailment has albef, blip; pgr has gcn_bert"
    with pytest.raises(BenchmarkError, match=rf"{families[-1]}, for which .*: {known}"):
        Options(PRESETS, ["emoji_entailment", "pgr"], amounts=[], families=families)


def test_a_data_set_that_has_none_of_the_families_is_named_with_those_that_it_has() -> None:
    known = r"emoji_retrieval has albef, blip, clip; pgr has gcn_bert"
    with pytest.raises(BenchmarkError, match=rf"none that pgr has settings for: {known}"):
        Options(PRESETS, ["emoji_retrieval", "pgr"], amounts=[], families=["blip"])


def test_a_cell_is_not_applicable_exactly_where_the_engine_refuses(
    prepared: dict[str, BenchData],
) -> None:
    for cell in _plan(prepared):
        method = methods.get(cell.row.removesuffix("-F").removesuffix(CALIBRATED))
        update = "fusion" if cell.row.endswith("-F") else "all"
        assert cell.reason == method.refusal("albef", "retrieval", update)
        assert (cell.job is None) == (cell.reason is not None)
    refused = {cell.row for cell in _plan(prepared) if cell.reason}
    assert "retrain-F" in refused
    assert "multidelete-F" not in refused


def test_a_task_that_the_engine_lacks_has_no_run_and_says_so(
    prepared: dict[str, BenchData],
) -> None:
    cells = _plan(prepared, presets=["unknown"], parts=ALL_PARTS)
    assert {cell.reason for cell in cells} == {"the engine has no task telepathy"}
    assert not jobs(cells)


def test_each_seed_has_an_original_of_its_own_that_all_its_methods_start_from(
    prepared: dict[str, BenchData],
) -> None:
    cells = _plan(prepared, seeds=2, rows=["multidelete", "multidelete-F"])
    parents = {cell.seed: set() for cell in cells}
    for cell in cells:
        assert cell.job is not None
        assert cell.job.parent is not None
        parents[cell.seed].add(cell.job.parent.run_id)
        assert cell.job.spec.seed == cell.job.parent.spec.seed == cell.seed
    assert [len(found) for found in parents.values()] == [1, 1]
    assert parents[0] != parents[1]
    assert len(jobs(cells)) == 2 + 4


def test_a_run_comes_after_those_that_it_needs(prepared: dict[str, BenchData]) -> None:
    found = jobs(_plan(prepared, presets=["started"], rows=["multidelete"], parts=ALL_PARTS))
    seen: set[str] = set()
    for job in found:
        assert all(needed.run_id in seen for needed in job.needs)
        assert job.run_id not in seen
        seen.add(job.run_id)


def test_a_training_starts_from_the_model_of_another_data_set(
    prepared: dict[str, BenchData],
) -> None:
    first, second, *_ = jobs(_plan(prepared, presets=["started"], rows=["multidelete"]))
    assert first.spec.data == prepared["digits"].spec
    assert second.start == first
    assert second.spec.config == {"pretrained": first.run_id}


def test_every_method_forgets_the_same_pairs_of_a_seed(prepared: dict[str, BenchData]) -> None:
    cells = _plan(prepared, rows=["retrain", "multidelete"])
    forgotten = [cell.job.spec.forget["request"] for cell in cells if cell.job]
    assert forgotten[0] == forgotten[1]
    assert len(forgotten[0]) == 15


def test_ablations_set_one_weight_to_zero_and_share_the_full_models_run(
    prepared: dict[str, BenchData],
) -> None:
    cells = _plan(prepared, rows=["multidelete"], parts=["main", "ablation"])
    params = {cell.row: cell.job.spec.params for cell in cells if cell.job}
    base = params["multidelete"]
    assert params["- MD"] == {**base, "alpha": 0.0}
    assert params["- MKR"] == {**base, "beta": 0.0}
    assert params["- UKR"] == {**base, "gamma": 0.0}
    assert params["anchored"] == {**base, "unrelated": "anchored"}
    # What a ranking has not got cannot be left out of it.
    left = [row for row in ABLATIONS if "- balance" not in row]
    assert [cell.row for cell in cells if cell.part == "ablation"] == left
    assert len(jobs(cells)) == 1 + len(left)  # the full model is the main part's


def test_mappings_change_one_choice_and_share_the_runs_of_the_methods_themselves(
    prepared: dict[str, BenchData],
) -> None:
    cells = _plan(prepared, parts=["mappings"], seeds=5)
    assert {cell.seed for cell in cells} == {0, 1, 2}
    found = {cell.row: cell for cell in cells if cell.seed == 0}
    readout = "multidelete, readout concatenated"
    narrower = [f"multidelete-F, without {part}" for part in ("projections", "cross-attention")]
    assert list(found) == [*(variant.row for variant in MAPPINGS), readout, *narrower]
    assert found[narrower[0]].job.spec.update == "fusion"
    assert found["lcodec, no noise"].job.spec.params["noise"] == 0.0
    assert found["ul-F"].job.spec.update == "fusion"
    own = {cell.row: cell.job for cell in _plan(prepared) if cell.job}
    for name in ("lcodec", "ul", "ul-F", "multidelete", "multidelete-F"):
        assert found[name].job == own[name]
    assert name_of(readout) == "MultiDelete, readout concatenated"
    assert name_of("lcodec, no noise") == "L-codec, no noise"
    assert name_of("multidelete-F, readout alone") == "MultiDelete-F, readout alone"


def test_a_mapping_is_left_out_where_it_is_the_default_or_its_method_is_not_asked_for(
    prepared: dict[str, BenchData], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {cell.row for cell in _plan(prepared, parts=["mappings"], rows=["ul"])}
    assert rows == {"ul", "ul-F"}
    setting = TINY["digits"].settings["albef"]
    alone = {"multidelete": {"similarity": 0.0, "kept_similarity": 0.0}}
    changed = replace(TINY["digits"], settings={"albef": replace(setting, params=alone)})
    monkeypatch.setitem(TINY, "digits", changed)
    rows = {cell.row for cell in _plan(prepared, parts=["mappings"])}
    assert "multidelete" in rows
    assert "multidelete, readout alone" not in rows


def test_another_readout_is_tried_on_an_original_of_the_same_recipe(
    prepared: dict[str, BenchData],
) -> None:
    cells = {c.row: c for c in _plan(prepared, parts=["mappings"], rows=["multidelete"])}
    own, other = cells["multidelete"], cells["multidelete, readout concatenated"]
    assert own.job is not None
    assert other.job is not None
    assert other.family == own.family == "albef"
    assert (other.job.spec.family, other.job.parent.spec.family) == ("albef_concat",) * 2
    for mine, theirs in ((own.job, other.job), (own.job.parent, other.job.parent)):
        assert mine.run_id != theirs.run_id
        assert theirs.spec == mine.spec.model_copy(update={"family": "albef_concat"})
    names = {f.name for f in relevant_sources("train", "albef_concat", "retrieval", None)}
    assert {"albef.py", "alternatives.py"} <= names
    assert "gcn_bert.py" not in names
    assert "alternatives.py" not in {
        file.name for file in relevant_sources("train", "albef", "retrieval", None)
    }


def test_the_other_aim_has_a_row_of_its_own(prepared: dict[str, BenchData]) -> None:
    (cell,) = _plan(prepared, rows=["multidelete-calibrated"])
    assert cell.job is not None
    assert (cell.job.spec.method, cell.job.spec.objective) == ("multidelete", "calibrated")
    assert name_of(cell.row) == "MultiDelete, calibrated"


def test_seeds_count_from_the_first_that_is_asked_for(prepared: dict[str, BenchData]) -> None:
    for part, taken in (("main", {100, 101, 102, 103}), ("ablation", {100, 101, 102})):
        cells = _plan(prepared, rows=["multidelete"], parts=[part], seeds=4, first_seed=100)
        assert {cell.seed for cell in cells} == taken
        assert {cell.job.spec.seed for cell in cells if cell.job} == taken


def test_a_setting_takes_the_place_of_a_default_but_not_of_what_a_row_changes(
    prepared: dict[str, BenchData],
) -> None:
    given = {"multidelete": {"alpha": 7.0, "beta": 3.0}}
    cells = _plan(
        prepared, rows=["multidelete", "neggrad"], parts=["main", "ablation"], settings=given
    )
    params = {(cell.part, cell.row): cell.job.spec.params for cell in cells if cell.job}
    own = TINY["digits"].settings["albef"].params["multidelete"]
    assert params["main", "multidelete"] == {**own, **given["multidelete"]}
    assert params["ablation", "- MD"] == {**own, "alpha": 0.0, "beta": 3.0}
    assert "alpha" not in params["main", "neggrad"]
    without = _plan(
        prepared, rows=["multidelete"], parts=["ablation"], settings={"multidelete": {"beta": 0.0}}
    )
    assert {cell.row for cell in cells} - {cell.row for cell in without} >= {"- MKR"}
    plain = _plan(prepared, rows=["multidelete"])
    assert {cell.job.run_id for cell in plain if cell.job}.isdisjoint(
        cell.job.run_id for cell in cells if cell.job
    )


def test_ablations_take_three_seeds_at_most(prepared: dict[str, BenchData]) -> None:
    cells = _plan(prepared, rows=["multidelete"], parts=["ablation"], seeds=5)
    assert {cell.seed for cell in cells} == {0, 1, 2}


def test_time_is_measured_at_five_sizes_each_of_which_holds_the_one_before(
    prepared: dict[str, BenchData],
) -> None:
    cells = _plan(prepared, rows=["multidelete", "retrain"], parts=["sizes"])
    found = [cell.job.spec.forget["request"] for cell in cells if cell.row == "retrain"]
    assert [len(ids) for ids in found] == [3, 6, 9, 12, 15]
    assert all(more[: len(less)] == less for less, more in pairwise(found))
    several = _plan(prepared, rows=["multidelete"], parts=["sizes"], seeds=5)
    assert Counter(cell.amount for cell in several) == dict.fromkeys(("3", "6", "9", "12", "15"), 3)


def test_sizes_go_up_to_the_last_amount_and_so_does_the_sequence(
    prepared: dict[str, BenchData],
) -> None:
    amounts = [Amount.parse("10"), Amount.parse("30")]
    parts = ["sizes", "tradeoff", "sequence"]
    cells = _plan(prepared, rows=["multidelete"], parts=parts, amounts=amounts)
    found = {part: [c for c in cells if c.part == part] for part in parts}
    assert [cell.amount for cell in found["sizes"]] == ["6", "12", "18", "24", "30"]
    assert {cell.amount for cell in found["tradeoff"]} == {"10"}
    assert {cell.amount for cell in found["sequence"]} == {"30"}
    asked = next(cell.job for cell in found["sequence"] if cell.row == AT_ONCE).spec.forget
    assert sum(map(len, asked.values())) == 30


def test_the_trade_off_takes_three_seeds_at_most(prepared: dict[str, BenchData]) -> None:
    for seeds, taken in ((2, {0, 1}), (5, {0, 1, 2})):
        cells = _plan(prepared, rows=["multidelete"], parts=["tradeoff"], seeds=seeds)
        by_row = {row: {c.seed for c in cells if c.row == row} for row in {c.row for c in cells}}
        assert len(by_row) == len(TARGETS) + 1
        assert all(found == taken for found in by_row.values())
    (calibrated,) = (c.job for c in cells if (c.row, c.seed) == ("calibrated", 2))
    (same,) = _plan(prepared, rows=["multidelete-calibrated"], seeds=3)[2:]
    assert calibrated == same.job


def test_ten_requests_are_a_chain_in_which_earlier_ones_are_never_retained(
    prepared: dict[str, BenchData],
) -> None:
    planned = _plan(prepared, rows=["multidelete"], parts=["sequence"], seeds=5)
    assert {cell.seed for cell in planned} == {0, 1, 2}
    cells = {c.row: c.job for c in planned if c.seed == 1}
    assert {job.spec.seed for job in cells.values()} == {1}
    steps = [job for row, job in cells.items() if row.startswith("request")]
    assert len(steps) == 10
    before: dict[str, list[str]] = {}
    for earlier, job in zip([None, *steps], steps, strict=False):
        assert job.spec.forgotten == before
        assert earlier is None or job.parent == earlier
        before |= job.spec.forget
    assert cells[AT_ONCE].spec.forget == cells[FINAL].spec.forget == before
    assert cells[AT_ONCE].parent == steps[0].parent
    assert cells[FINAL].parent == steps[-1]
    assert cells[FINAL].spec.action == "evaluate"


def test_a_run_is_found_by_its_spec_data_and_start_and_not_by_places(
    prepared: dict[str, BenchData],
) -> None:
    spec = jobs(_plan(prepared, rows=["multidelete"]))[-1].spec
    elsewhere = spec.model_copy(
        update={"data": spec.data.model_copy(update={"root": Path("/x")}), "checkpoint": Path("/y")}
    )
    assert digest(elsewhere, "data", "parent") == digest(spec, "data", "parent")
    other_seed = spec.model_copy(update={"seed": 1})
    changed = [
        digest(other_seed, "data", "parent"),
        digest(spec, "other data", "parent"),
        digest(spec, "data", "other"),
    ]
    assert digest(spec, "data", "parent") not in changed


def test_a_new_method_does_not_train_the_originals_again() -> None:
    root = Path(engine.__file__).parent
    train = relevant_sources("train", "albef", "retrieval", None)
    assert root / "families" / "albef.py" in train
    assert root / "training.py" in train
    assert not [file for file in train if file.parent.name in ("methods", "metrics")]
    other = {"albef": families, "retrieval": tasks}
    for name, registry in other.items():
        assert [n for n in registry if n != name], "there must be a sibling to leave out"
    assert root / "families" / "gcn_bert.py" not in train
    assert root / "tasks" / "graph_text.py" not in train


def test_an_unlearning_depends_on_its_own_method_and_on_every_metric() -> None:
    root = Path(engine.__file__).parent
    found = relevant_sources("unlearn", "albef", "retrieval", "multidelete")
    assert root / "methods" / "multidelete.py" in found
    assert root / "methods" / "losses.py" in found
    assert root / "methods" / "base.py" in found
    assert not [file for file in found if file.name in ("finetune.py", "ascent.py", "lcodec.py")]
    assert root / "metrics" / "unseen.py" in found


def test_metrics_and_tasks_from_elsewhere_count_with_what_they_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_tools.py").write_text("FACTOR = 1.0\n")
    (tmp_path / "own_metric.py").write_text("import own_tools\nclass Gap: ...\n")
    (tmp_path / "own_task.py").write_text("from own_tools import FACTOR\nclass Matching: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    metric, task = importlib.import_module("own_metric"), importlib.import_module("own_task")
    monkeypatch.setitem(metrics._components, "gap", metric.Gap())
    monkeypatch.setitem(tasks._components, "matching", task.Matching)
    mine = {"unlearn": {"own_metric", "own_task", "own_tools"}, "train": {"own_task", "own_tools"}}
    for action, expected in mine.items():
        found = relevant_sources(action, "albef", "matching", None)
        assert {file.stem for file in found if file.parent == tmp_path} == expected
    others = relevant_sources("train", "albef", "retrieval", None)
    assert not [file for file in others if file.parent == tmp_path]


def test_a_method_may_be_anything_that_can_be_called(monkeypatch: pytest.MonkeyPatch) -> None:
    class Called:
        def __call__(self, run: object) -> None: ...

    def function(run: object, rate: float = 1.0) -> None: ...

    for own in (function, partial(function, rate=2.0), Called()):
        monkeypatch.setitem(methods._components, "own", SimpleNamespace(run=own))
        assert Path(__file__) in relevant_sources("unlearn", "albef", "retrieval", "own")


def test_a_run_depends_on_the_defaults_of_its_own_kind_and_not_on_those_of_others(
    prepared: dict[str, BenchData], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = jobs(_plan(prepared, rows=["multidelete"]))[-1].spec
    found = relevant_sources("unlearn", "albef", "retrieval", "multidelete")
    assert "multidelete_params.py" in {file.name for file in found}
    assert "multidelete_defaults.py" not in {file.name for file in found}
    before = digest(spec, "data", "parent")
    for kind, depends in (("GRAPHS", False), ("RANKING_BY_FUSION", False), ("RANKING", True)):
        with monkeypatch.context() as patch:
            changed = replace(getattr(multidelete_defaults, kind), alpha=99.0)
            patch.setattr(multidelete_defaults, kind, changed)
            assert (digest(spec, "data", "parent") != before) is depends, kind


def test_comments_and_docstrings_change_no_run(tmp_path: Path) -> None:
    texts = {
        "plain": "RATE = 1\ndef f(x):\n    return x\n",
        "told": '"""Of it."""\nRATE = 1  # why\n"""The rate."""\ndef f(x):\n    """Do."""\n    return x\n',
        "other": "RATE = 2\ndef f(x):\n    return x\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    plain, told, other = (_without_words(tmp_path / name) for name in texts)
    assert plain == told
    assert plain != other


def test_a_change_of_one_method_leaves_the_runs_of_others() -> None:
    root = Path(engine.__file__).parent
    found = relevant_sources("unlearn", "albef", "retrieval", "neggrad")
    assert {file.name for file in found if file.parent == root / "methods"} == {
        *("neggrad.py", "ascent.py", "selection.py", "base.py")
    }
