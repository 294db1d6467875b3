import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

import engine
from app.audit.readings import METRICS
from engine.catalogue import catalogue, render
from engine.data.formats import formats
from engine.families import AlbefConfig, families
from engine.methods import methods
from engine.spec import Metric
from engine.tasks import GraphText, tasks

COMMITTED = Path(engine.__file__).parents[1] / "app" / "registry" / "catalogue.json"


@pytest.fixture(scope="module")
def content() -> dict:
    return catalogue()


def test_the_file_that_the_service_serves_is_current() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == render(), (
        "run: python -m engine.catalogue > app/registry/catalogue.json"
    )


def test_the_command_prints_the_catalogue_as_json(content: dict) -> None:
    command = [sys.executable, "-m", "engine.catalogue"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == content


def test_every_registered_component_is_in_the_catalogue(content: dict) -> None:
    assert list(content["families"]) == list(families)
    assert list(content["tasks"]) == list(tasks)
    assert list(content["methods"]) == list(methods)
    assert list(content["formats"]) == list(formats)
    assert {"albef", "gcn_bert"} <= set(content["families"])
    assert {"retrieval", "graph_text"} <= set(content["tasks"])
    assert {"multidelete", "retrain", "finetune"} <= set(content["methods"])


def test_every_component_has_a_summary(content: dict) -> None:
    for kind in ("families", "tasks", "methods", "metrics", "formats"):
        for name, entry in content[kind].items():
            assert len(entry["summary"]) > 15, name


def test_every_schema_is_valid_and_refuses_unknown_parameters(content: dict) -> None:
    schemas = [
        *(entry["config_schema"] for entry in content["families"].values()),
        *(entry["recipe_schema"] for entry in content["tasks"].values()),
        *(entry["params_schema"] for entry in content["methods"].values()),
    ]
    for schema in schemas:
        jsonschema.Draft202012Validator.check_schema(schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"no such parameter": 1}, schema)


def _numbers(schema: object, place: str) -> Iterator[tuple[str, dict]]:
    if isinstance(schema, list):
        for number, part in enumerate(schema):
            yield from _numbers(part, f"{place}/{number}")
    elif isinstance(schema, dict):
        if schema.get("type") in ("integer", "number") and not {"enum", "const"} & set(schema):
            yield place, schema
        for name, part in schema.items():
            yield from _numbers(part, f"{place}/{name}")


def test_every_number_that_can_be_asked_for_has_a_lower_and_an_upper_bound(content: dict) -> None:
    kinds = (
        ("families", "config_schema"),
        ("tasks", "recipe_schema"),
        ("methods", "params_schema"),
    )
    for kind, schema in kinds:
        for name, entry in content[kind].items():
            found = dict(_numbers(entry[schema], name))
            assert found or kind == "methods", name
            for place, field in found.items():
                assert {"minimum", "exclusiveMinimum"} & set(field), place
                assert {"maximum", "exclusiveMaximum"} & set(field), place


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 10**21),
        ("learning_rate", 1e308),
        ("batch_size", 10**13),
        ("patience", -5),
        ("weight_decay", 2),
    ],
)
def test_no_task_accepts_a_training_without_end_or_measure(
    content: dict, field: str, value: float
) -> None:
    for name, entry in content["tasks"].items():
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({field: value}, entry["recipe_schema"])
        with pytest.raises(ValidationError):
            tasks.get(name).recipe.model_validate({field: value})


@pytest.mark.parametrize("change", [{"image_mean": [0, 0, 1e308]}, {"image_std": [1, 1, 1e-300]}])
def test_colours_are_shares_of_the_brightest(change: dict) -> None:
    with pytest.raises(ValidationError):
        AlbefConfig.model_validate(change)


def test_the_tiny_configuration_of_a_family_fits_its_schema(content: dict) -> None:
    for entry in content["families"].values():
        jsonschema.validate(entry["tiny_config"], entry["config_schema"])


def test_what_tasks_need_of_the_data_and_what_the_data_decide_is_told(content: dict) -> None:
    needs = ("items_per_pair", "least_items", "labelled", "classes")
    told = {name: [entry[need] for need in needs] for name, entry in content["tasks"].items()}
    assert told == {
        "graph_text": [1, 1, True, []],
        "nlvr": [2, 1, True, ["false", "true"]],
        "retrieval": [1, 2, False, []],
        "visual_entailment": [1, 1, True, ["contradiction", "neutral", "entailment"]],
    }
    decided = {name: entry["set_by_data"] for name, entry in content["families"].items()}
    both = {"classes": "classes", "images": "items_per_pair"}
    assert decided == {"albef": both, "blip": both, "clip": {}, "gcn_bert": {"classes": "classes"}}
    for name, entry in content["families"].items():
        assert set(decided[name]) <= set(entry["config_schema"]["properties"])


def test_each_combination_of_family_task_and_update_is_answered_once(content: dict) -> None:
    expected = {
        (family, task, update)
        for family in content["families"]
        for task in content["tasks"]
        for update in ("all", "fusion")
    }
    for entry in content["methods"].values():
        answers = [(row["family"], row["task"], row["update"]) for row in entry["applies"]]
        assert Counter(answers) == Counter(expected)


def test_a_family_without_similarity_or_of_another_modality_has_a_reason(content: dict) -> None:
    combinations = {(row["family"], row["task"]) for row in content["combinations"]}
    assert {("albef", "retrieval"), ("gcn_bert", "graph_text")} <= combinations
    assert ("gcn_bert", "retrieval") not in combinations
    for entry in content["methods"].values():
        for row in entry["applies"]:
            if (row["family"], row["task"]) not in combinations:
                assert row["reason"]


def test_retraining_refuses_to_update_the_fusion_module_alone(content: dict) -> None:
    rows = content["methods"]["retrain"]["applies"]
    reasons = {(row["family"], row["task"], row["update"]): row["reason"] for row in rows}
    assert reasons["albef", "retrieval", "all"] is None
    assert reasons["albef", "retrieval", "fusion"]


def test_multidelete_applies_to_every_combination(content: dict) -> None:
    combinations = {(row["family"], row["task"]) for row in content["combinations"]}
    for row in content["methods"]["multidelete"]["applies"]:
        if (row["family"], row["task"]) in combinations:
            assert row["reason"] is None


RECALLS = [f"{direction}_r{depth}" for direction in ("ir", "tr") for depth in (1, 5, 10)]
CLASSIFIED = ["graph_text", "nlvr", "visual_entailment"]


def test_every_metric_is_named_with_its_direction(content: dict) -> None:
    directions = {name: entry["direction"] for name, entry in content["metrics"].items()}
    assert directions == {
        "d_f": "lower",
        "d_test": "higher",
        "f1": "higher",
        "forget_accuracy": "none",
        "method_seconds": "lower",
        "mi_attack_auc": "near_half",
        "mi_ratio": "higher",
        "mi_tpr_at_1pct_fpr": "lower",
        "peak_memory_bytes": "lower",
        "probe_item": "higher",
        "probe_text": "higher",
        "samples_seen": "lower",
        "trained_parameters": "lower",
        "ulira_auc": "near_half",
        "ulira_tpr_at_0.1pct_fpr": "lower",
        "ulira_tpr_at_1pct_fpr": "lower",
        "unseen_auc": "near_half",
        "utility_excess": "lower",
        **dict.fromkeys(RECALLS, "higher"),
    }
    assert list(directions) == sorted(directions)


def test_utility_is_told_by_task_and_cost_by_unit(content: dict) -> None:
    metrics = content["metrics"]
    of = {name: one["tasks"] for name, one in metrics.items() if one["kind"] == "utility"}
    assert of == {
        "d_test": sorted([*CLASSIFIED, "retrieval"]),
        "f1": CLASSIFIED,
        **{name: ["retrieval"] for name in RECALLS},
        "utility_excess": sorted([*CLASSIFIED, "retrieval"]),
    }
    assert {metrics[name]["unit"] for name in of} == {"points"}
    assert {name: one["unit"] for name, one in metrics.items() if one["kind"] == "cost"} == {
        "method_seconds": "s",
        "peak_memory_bytes": "bytes",
        "samples_seen": "pairs",
        "trained_parameters": "parameters",
    }


def test_every_metric_that_reports_explain_is_in_the_catalogue(content: dict) -> None:
    assert set(METRICS) <= set(content["metrics"])


def test_the_utility_of_a_task_elsewhere_is_described_by_that_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Naming(GraphText):
        """Names what a graph shows."""

        def utility(self, *given: object) -> list[Metric]:
            accuracy, _ = super().utility(*given)
            return [accuracy.model_copy(update={"name": "named"})]

    monkeypatch.setitem(tasks._components, "naming", Naming)
    entry = catalogue()["metrics"]["named"]
    assert entry["tasks"] == ["naming"]
    assert entry["summary"].endswith("Names what a graph shows.")
