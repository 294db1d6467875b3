"""The plain loop and the engine have the same loss; the clock runs around the engine's own loop."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from benchmarks.figures import BenchmarkError
from benchmarks.step import memory, scaling
from benchmarks.step.__main__ import _given, main
from benchmarks.step.measure import Seconds, Timings, compare, operations, race, ratios
from benchmarks.step.plain import weights_of
from benchmarks.step.world import SETTINGS, SIZES, Size, config_for, make_dataset, make_world
from engine.catalogue import catalogue
from engine.families import families
from engine.methods.multidelete import MultiDelete
from engine.methods.multidelete_defaults import RANKING
from engine.methods.multidelete_params import MultiDeleteParams
from engine.spec import Update

SMALL = Size(batch=4, steps=2, pixels=32, words=6)
COMBINATIONS = [(entry["family"], entry["task"]) for entry in catalogue()["combinations"]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_family_is_compared() -> None:
    assert {family for family, _ in COMBINATIONS} >= {"albef", "gcn_bert"}


@pytest.mark.parametrize("update", ["all", "fusion"])
@pytest.mark.parametrize(("family", "task"), COMBINATIONS)
def test_the_engine_has_the_plain_loops_loss(family: str, task: str, update: Update) -> None:
    params = {"alpha": 2.0, "beta": 3.0, "gamma": 0.5, "mismatched": 0.7, "draws": 3}
    terms = compare(make_world(family, task, SMALL, params, update=update, earlier=3))
    assert terms.plain.keys() == terms.engine.keys()
    assert len(terms.plain) == (3 if update == "all" else 2)
    assert all(value > 1e-4 for value in terms.plain.values()), "a term that is 0 proves nothing"
    assert terms.difference < 1e-5


@pytest.mark.parametrize("settings", list(SETTINGS))
def test_the_losses_agree_with_the_papers_settings_and_with_the_defaults(settings: str) -> None:
    assert compare(make_world("albef", "retrieval", SMALL, SETTINGS[settings])).difference < 1e-5


def test_a_loss_that_is_another_one_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = MultiDelete.loss
    world = make_world("albef", "retrieval", SMALL, SETTINGS["paper"])

    def wrong(self: MultiDelete, batch: Any) -> dict[str, torch.Tensor]:
        return {name: 1.001 * term for name, term in right(self, batch).items()}

    monkeypatch.setattr(MultiDelete, "loss", wrong)
    assert compare(world).difference > 1e-4


def test_both_loops_take_the_same_steps_and_each_is_timed() -> None:
    timings = race(make_world("albef", "retrieval", SMALL, SETTINGS["paper"]), epochs=2)
    assert [len(epoch) for epoch in timings.plain] == [2, 2, 2]
    assert [len(epoch) for epoch in timings.engine] == [2, 2, 2]
    assert timings.pairs == 8
    assert min(timings.steps("plain") + timings.steps("engine")) > 0


def test_ratios_leave_the_first_epoch_out() -> None:
    first, slow, fast = Seconds(9.0, 9.0), Seconds(2.0, 3.0), Seconds(1.0, 1.0)
    cuts = [fast, Seconds(0.5, 0.5)]
    timings = Timings([[first] * 2, [slow, slow]], [[fast] * 2, [fast, Seconds(2.0, 1.5)]], cuts, 4)
    assert ratios(timings, epochs=False) == [2.0, 1.0]
    assert ratios(timings, epochs=True) == [pytest.approx(4 / 3.5)]  # with the cut into batches
    assert ratios(timings, epochs=False, kind="cpu") == [3.0, 2.0]
    assert timings.epochs("plain", start=0) == [18.0, 4.0]


def test_twice_the_batch_takes_twice_the_operations() -> None:
    def count(batch: int) -> float:
        size = Size(batch=batch, steps=1, pixels=32, words=6)
        return operations(make_world("albef", "retrieval", size, SETTINGS["paper"]))

    one, two = count(4), count(8)
    assert one > 1e6
    assert 1.6 < two / one < 2.4  # texts are padded to the longest one of the batch


@pytest.mark.parametrize("update", ["all", "fusion"])
@pytest.mark.parametrize(("family", "task"), [("albef", "retrieval"), ("blip", "retrieval")])
def test_the_loss_in_bf16_is_near_the_one_in_single_precision(
    family: str, task: str, update: Update
) -> None:
    world = make_world(family, task, SMALL, SETTINGS["paper"], update=update)
    assert 0 < compare(world, precision="bf16").difference < 1e-2


def test_the_published_sizes_are_those_of_albef_and_blip() -> None:
    with pytest.raises(BenchmarkError, match="gcn_bert"):
        make_world("gcn_bert", "graph_text", SIZES["base"], {})


def test_blip_base_has_the_published_sizes() -> None:
    size = SIZES["blip-base-384"]
    assert size.family == "blip"
    kind = families.get("blip")
    config = config_for("blip", "retrieval", size)
    found = config.model_dump(include={"image_size", "patch_size", "vision_layers", "vision_size"})
    assert found == {
        "image_size": 384,
        "patch_size": 16,
        "vision_layers": 12,
        "vision_size": 768,
    }
    assert config.model_dump(include={"text_layers", "text_size", "projection_size"}) == {
        "text_layers": 12,
        "text_size": 768,
        "projection_size": 256,
    }
    with torch.device("meta"):
        dataset = make_dataset(kind, "retrieval", Size(batch=2, steps=1, pixels=8, words=4))
        model = kind.build(config, dataset, 0)
    count = {part: sum(w.numel() for _, w in named) for part, named in model.parts().items()}
    assert 85e6 < count["item"] < 88e6  # ViT-B/16
    assert 84e6 < count["text"] < 87e6  # BERT-base without most of its vocabulary
    assert 27e6 < count["fusion"] < 30e6  # twelve cross-attentions


def test_the_family_is_the_presets_unless_another_is_asked_for() -> None:
    assert _given(["--preset", "blip-base-384"]).family == "blip"
    assert _given(["--preset", "blip-base-384", "--family", "albef"]).family == "albef"
    assert _given([]).family == "albef"


def test_a_job_is_its_first_epoch_and_the_median_of_the_later_ones() -> None:
    def epoch(seconds: float) -> list[Seconds]:
        return [Seconds(seconds, 0.0)]

    plain = [epoch(9.0), epoch(4.0), epoch(5.0), epoch(6.0)]
    engine = [epoch(7.0), epoch(1.0), epoch(1.5), epoch(9.0)]
    timings = Timings(plain, engine, [Seconds(0.5, 0.0)] * 4, 4)
    assert timings.job("plain", 12) == 9.0 + 11 * 5.0
    assert timings.job("engine", 12) == 7.5 + 11 * 2.0  # with the cuts into batches


def test_what_both_loops_do_before_their_first_epoch_is_timed() -> None:
    timings = race(make_world("albef", "retrieval", SMALL, SETTINGS["paper"]), epochs=1)
    assert set(timings.before) == {"plain", "engine"}
    assert min(seconds.wall for seconds in timings.before.values()) > 0


def test_opening_images_is_no_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world("albef", "retrieval", SMALL, SETTINGS["paper"])

    def opened(self: object, reference: str) -> None:
        pytest.fail(f"image {reference} is opened")

    monkeypatch.setattr("benchmarks.step.world.Noise.load", opened)
    race(world, epochs=1)


def test_the_command_prints_every_figure_and_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    options = ["--settings", "paper", "--batch", "4", "--steps", "1", "--rounds", "1"]
    options += ["--device", "cpu", "--task", "retrieval", "--no-memory"]
    assert main([*options, "--json", str(out)]) == 0
    written = json.loads(out.read_text())
    names = {figure["name"] for figure in written["figures"]}
    made = [
        make_world("albef", "retrieval", SMALL, SETTINGS["paper"], update=update)
        for update in get_args(Update)
    ]
    every, fusion = (weights_of(world.run).epochs for world in made)
    assert names >= {
        "paper: loss in fp32",
        "paper, -F: plain beside engine, epoch",
        f"paper: plain beside engine, a job of {every} epochs",
        "paper: the same with what comes before the first epoch",
        f"paper, -F: plain beside engine, a job of {fusion} epochs",
        "paper, -F: the same with what comes before the first epoch",
    }
    assert (written["device"], written["threads"]) == ("cpu", 1)
    assert len(written["commit"].rstrip("+")) == 40
    printed = capsys.readouterr().out
    assert f"commit: {written['commit']}" in printed
    assert "device: cpu" in printed


@pytest.mark.parametrize("option", ["--rounds", "--steps", "--batch", "--threads"])
@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_a_count_that_is_none_is_refused_with_2(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([option, value])
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{option}: a whole number above 0 was expected, and {value!r} came" in last


@pytest.mark.parametrize("device", ["wat", "cuda", "cuda:x", "meta"])
def test_a_device_that_is_not_here_is_refused_before_measuring(
    device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--device", device]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.endswith(f"--device {device} came; give one of auto, cpu")


@pytest.mark.parametrize("place", ["missing/figures.json", "."])
def test_figures_that_could_not_be_written_are_refused_before_measuring(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--device", "cpu", "--json", str(tmp_path / place)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "--json needs a file that can be written" in sentence
    assert not list(tmp_path.iterdir())


def test_a_family_that_can_do_no_such_task_is_refused_with_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--device", "cpu", "--family", "gcn_bert", "--task", "retrieval"]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()  # nothing is measured before
    assert sentence.startswith("lethe bench step: retrieval needs image data")


def test_published_sizes_that_are_not_known_are_refused_before_measuring(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--device", "cpu", "--family", "gcn_bert", "--preset", "base"]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("lethe bench step: the published sizes are those of albef and blip")


def test_what_ended_the_measuring_of_memory_is_told_once() -> None:
    options = ["--device", "cpu", "--family", "gcn_bert", "--task", "retrieval"]
    with pytest.raises(BenchmarkError, match=r"^the memory of the plain loop: retrieval needs"):
        memory.measured_in_own_process(options, "plain")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--no-memory"], "--no-memory"),
        (["--preset", "tiny", "--batch", "2"], "--preset, --batch"),  # also where it is the default
        (
            [
                *("--family", "albef", "--task", "retrieval", "--settings", "paper"),
                *("--update", "all", "--steps", "2", "--peak", "9"),
            ],
            "--family, --task, --settings, --update, --steps, --peak",
        ),
    ],
)
def test_options_that_change_nothing_of_whole_jobs_are_refused(
    options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--scaling", "--device", "cpu", *options]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert f"--scaling times whole jobs, of which {named} would change nothing" in sentence


def test_the_rounds_and_threads_of_whole_jobs_are_those_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(scaling, "measure", lambda _, *options: asked.append(options) or [])
    assert main(["--scaling", "--device", "cpu", "--rounds", "2", "--threads", "3"]) == 0
    assert asked == [(scaling.Jobs(rounds=2), 3, "cpu")]


def test_the_memory_of_each_loop_is_a_figure_beside_their_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = {"plain": 30e6, "engine": 20e6, "engine-bf16": 15e6}
    monkeypatch.setattr("benchmarks.step.__main__.has_bf16", lambda _: True)
    monkeypatch.setattr(memory, "measured_in_own_process", lambda _, side: peaks[side])
    out = tmp_path / "figures.json"
    options = ["--device", "cpu", "--settings", "paper", "--update", "all", "--task", "retrieval"]
    sizes = ["--batch", "4", "--steps", "1", "--rounds", "1"]
    assert main([*options, *sizes, "--json", str(out)]) == 0
    figures = {one["name"]: one for one in json.loads(out.read_text())["figures"]}
    assert figures["paper: memory, plain beside engine"]["value"] == 1.5
    names = {"plain": 30, "engine": 20, "engine in bf16": 15}
    found = {name: figures[f"paper: {name}, peak memory"] for name in names}
    assert {name: one["value"] for name, one in found.items()} == names
    assert {one["unit"] for one in found.values()} == {"MB"}


def test_scaling_grows_one_thing_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = []

    def execute(spec: Any, folder: Path) -> None:
        specs.append((spec, folder))

    monkeypatch.setattr(scaling, "execute", execute)
    bench = scaling._Scaling(tmp_path, scaling.Jobs(small=20, deleted=3, rounds=1), 1, "cpu")
    bench.round(0)
    assert capsys.readouterr().err.splitlines() == [
        "training the original",
        "round 1 of 1: small",
        "round 1 of 1: large",
        "round 1 of 1: small short",
        "round 1 of 1: large short",
        "round 1 of 1: deleted short",
    ]
    counts = [_counts(spec.data.manifest) for spec, _ in specs[1:]]
    assert [found["train"] for found in counts] == [20, 200, 20, 200, 200]
    assert all(one["test"] == other["test"] for one, other in pairwise(counts))
    assert [len(spec.forget["request"]) for spec, _ in specs[1:]] == [3, 3, 3, 3, 15]
    # With |D| the jobs of any user grow; with |D_f| those that no least number of steps evens out.
    short = {"least_steps": 0}
    assert [spec.params for spec, _ in specs[1:]] == [{}, {}, short, short, short]


def test_scaling_has_by_default_data_that_can_be_made_and_pools_that_hardly_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, batch = scaling.Jobs(), MultiDeleteParams().batch_size
    assert jobs.deleted % batch == 0
    monkeypatch.setattr(scaling, "execute", lambda *_: None)
    bench = scaling._Scaling(tmp_path, jobs, 1, "cpu")
    sizes = [_counts(bench._manifest(n).manifest)["train"] for n in (jobs.small, 10 * jobs.small)]
    assert sizes == [jobs.small, 10 * jobs.small]
    taken = RANKING.epochs * RANKING.retain_ratio * jobs.deleted
    kept = [min(pairs - jobs.deleted, taken) for pairs in sizes]
    assert kept[1] < 1.1 * kept[0]


def _counts(manifest: Path) -> dict[str, int]:
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    return {split: sum(row["split"] == split for row in rows) for split in ("train", "val", "test")}
