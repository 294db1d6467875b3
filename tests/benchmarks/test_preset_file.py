"""Data sets of one's own in a TOML file: read, refused with the place, and run like any other."""

import json
from pathlib import Path

import pytest

from benchmarks import runs
from benchmarks.figures import BenchmarkError
from benchmarks.paper import presets
from benchmarks.paper.__main__ import main
from benchmarks.paper.plan import Options
from benchmarks.paper.preset_file import read_presets, with_models
from benchmarks.runs import digest, placeless
from engine import DataSpec, RunSpec
from engine.families import families
from tests.benchmarks.tiny_bench import TINY

PUBLISHED = Path(presets.__file__).with_name("published.toml")
MINE = """
[mine]
title = "Mine"
task = "retrieval"
path = "digits"
"""
SETTINGS = "[mine.settings.albef]\n"


def _read(text: str, folder: Path) -> dict[str, presets.Preset]:
    file = folder / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return read_presets([file], presets.PRESETS)


def test_the_papers_own_data_sets_fit_the_engine() -> None:
    found = read_presets([PUBLISHED], presets.PRESETS)
    assert {name: preset.task for name, preset in found.items()} == {
        "flickr30k": "retrieval",
        "snli_ve": "visual_entailment",
        "nlvr2": "nlvr",
    }
    assert all(list(preset.settings) == ["albef", "blip"] for preset in found.values())


def test_a_file_says_what_the_presets_here_say(tmp_path: Path) -> None:
    text = MINE + SETTINGS + 'config = { image_size = [72, 72] }\nstart = "emoji_retrieval"\n'
    setting = presets.Setting(config={"image_size": [72, 72]}, start="emoji_retrieval")
    expected = presets.Preset("Mine", "retrieval", "digits", {"albef": setting})
    assert _read(text, tmp_path) == {"mine": expected}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[mine", "is none: Expected"),
        ("mine = 3", "mine: Input should be a dictionary or an instance of Preset"),
        (MINE, "mine.settings: Field required"),
        (MINE + "[mine.settings]", "mine.settings: Dictionary should have at least 1 item"),
        (
            MINE + "colour = 'red'\n" + SETTINGS,
            "known are title, task, path, settings, whole_items",
        ),
        (MINE.replace("[mine]", "[pgr]") + "[pgr.settings.albef]", "another data set called pgr"),
        ("[a]\n" * 2, "is none: Cannot declare ('a',) twice"),
        ("a = " + "[" * 3000, "is none: "),
        (
            MINE.replace("retrieval", "telepathy") + SETTINGS,
            "mine.task: telepathy is unknown; known",
        ),
        (MINE + "[mine.settings.wat]", "mine.settings.wat: the family is unknown; known are albef"),
        (
            MINE + "[mine.settings.gcn_bert]",
            "retrieval needs image data, and gcn_bert reads graphs",
        ),
        (MINE + SETTINGS + "config = { hidden = 3 }", "albef.config: hidden: Extra inputs"),
        (MINE + SETTINGS + "config = { hidden = 3 }", "; known are image_size, patch_size, "),
        (MINE + SETTINGS + "config = { pretrained = '' }", "name of a pretrained model is empty"),
        (MINE + SETTINGS + "training = { epochs = 0 }", "albef.training: epochs: Input should be"),
        (MINE + SETTINGS + "params.wat = {}", "params.wat: the method is unknown; known are "),
        (MINE + SETTINGS + "params.multidelete = { alpha = 'x' }", "params.multidelete: alpha: "),
        (MINE + SETTINGS + "start = 'mine'", "what is started from must not start from another"),
        (MINE + SETTINGS + "start = 'pgr'", "start: pgr is no data set with settings for albef"),
        (
            MINE + SETTINGS + "start = 'emoji_pairs'",
            "starts from emoji_retrieval, and what is started from",
        ),
        (
            MINE + SETTINGS + "start = 'emoji_retrieval'\nconfig = { pretrained_text = 'bert' }",
            "it names both start and config.pretrained_text; leave one out",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(
    text: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(BenchmarkError) as caught:
        _read(text, tmp_path)
    assert reason in str(caught.value)
    assert str(tmp_path / "mine.toml") in str(caught.value)


@pytest.mark.parametrize("name", ["a/b", "../../a", "..", " ", "retrieval", "-a", "x" * 65])
def test_a_name_that_cannot_be_a_folder_or_an_option_is_refused(name: str, tmp_path: Path) -> None:
    text = MINE.replace("[mine]", f"[{json.dumps(name)}]")
    with pytest.raises(BenchmarkError, match="the name of a data set has at most 64 letters"):
        _read(f"{text}[{json.dumps(name)}.settings.albef]", tmp_path)


@pytest.mark.parametrize("title", ["", "A | B", "A\nB", "x" * 201, "PGR"])
def test_a_title_that_would_break_a_table_or_is_anothers_is_refused(
    title: str, tmp_path: Path
) -> None:
    with pytest.raises(BenchmarkError, match=r"mine\.title: "):
        _read(MINE.replace('"Mine"', json.dumps(title)) + SETTINGS, tmp_path)


@pytest.mark.parametrize("path", ["", "/etc", "../digits", "a/../../b", "a\0b", "x" * 201])
def test_a_path_that_is_not_below_the_data_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"mine\.path: "):
        _read(MINE.replace('"digits"', json.dumps(path)) + SETTINGS, tmp_path)


def test_files_are_read_before_any_of_them_is_checked(tmp_path: Path) -> None:
    first, second = tmp_path / "1.toml", tmp_path / "2.toml"
    base = MINE.replace("mine", "base").replace("Mine", "Base")
    first.write_text(MINE + SETTINGS + "start = 'base'", encoding="utf-8")
    second.write_text(base + "[base.settings.albef]", encoding="utf-8-sig")  # with a mark
    assert list(read_presets([first, second], {})) == ["mine", "base"]
    with pytest.raises(BenchmarkError, match=r"2\.toml: there is another data set called base"):
        read_presets([second, second], {})


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "not UTF-8"])
def test_a_file_that_is_none_is_one_sentence_and_nothing_is_written(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "mine.toml", tmp_path / "out"
    if content is not None:
        file.write_bytes(content)
    assert main(["--presets", str(file), "--out", str(out), "--device", "cpu"], known=TINY) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert f"a TOML file of data sets was expected, and {file} is none: " in sentence
    assert not out.exists()


def test_a_pretrained_model_may_lie_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    text = MINE + SETTINGS + "config = { pretrained = 'weights' }"
    config = _read(text, tmp_path)["mine"].settings["albef"].config
    assert config == {"pretrained": str(tmp_path / "weights")}
    elsewhere = MINE + SETTINGS + "config = { pretrained = 'of/a-hub' }"
    assert _read(elsewhere, tmp_path)["mine"].settings["albef"].config["pretrained"] == "of/a-hub"


def _model(folder: Path, content: bytes = b"") -> Path:
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(content)
    return folder


def _options(config: presets.Values) -> Options:
    settings = {"albef": presets.Setting(config), "blip": presets.Setting({"pretrained": "gone"})}
    return Options({"mine": presets.Preset("Mine", "retrieval", "digits", settings)}, ["mine"], [])


def test_the_models_of_the_families_that_are_run_become_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _model(tmp_path / "mine")
    found = with_models(_options({"pretrained_text": "minilm", "pretrained_vision": "mine"}))
    assert found.known["mine"].settings["albef"].config == {
        "pretrained_text": "minilm",
        "pretrained_vision": str(tmp_path / "mine"),
    }
    assert found.known["mine"].settings["blip"].config == {"pretrained": "gone"}


def test_a_model_that_is_not_there_is_refused_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    place = r"mine\.settings\.albef\.config\.pretrained: "
    with pytest.raises(BenchmarkError, match=place + "a folder with config.json and safetensors"):
        with_models(_options({"pretrained": "empty"}))
    with pytest.raises(BenchmarkError, match=place + "the pretrained model 'typo' is no folder"):
        with_models(_options({"pretrained": "typo"}))


def test_a_run_is_found_by_what_a_pretrained_model_is_and_not_by_where_it_lies(
    tmp_path: Path,
) -> None:
    def found(name: str, content: bytes) -> str:
        folder = _model(tmp_path / name, content)
        data = DataSpec(manifest=tmp_path / "m.jsonl", root=tmp_path)
        config = {"pretrained": str(folder)}
        spec = RunSpec(action="train", data=data, family="albef", task="retrieval", config=config)
        assert str(tmp_path) not in json.dumps(placeless(spec).config)
        return digest(spec, "data")

    assert found("here", b"one") == found("there", b"one") != found("others", b"two")


def test_minilm_is_what_its_package_has_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataSpec(manifest=tmp_path / "m.jsonl", root=tmp_path)
    config = {"pretrained": "minilm"}
    spec = RunSpec(action="train", data=data, family="gcn_bert", task="graph_text", config=config)
    found = set()
    for content in (b"one", b"two"):
        folder = _model(tmp_path / content.decode(), content)
        monkeypatch.setattr(runs, "resolve", {"minilm": folder}.__getitem__)
        runs._start_digest.cache_clear()
        found.add(digest(spec, "data"))
    runs._start_digest.cache_clear()
    assert len(found) == 2


def test_a_data_set_of_ones_own_is_a_column_of_the_tables(
    data_sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra `bench`")
    config = families.get("albef").tiny().model_dump(mode="json", exclude_none=True)
    values = "".join(f"{name} = {json.dumps(value)}\n" for name, value in config.items())
    file, out = tmp_path / "mine.toml", tmp_path / "out"
    titled = MINE.replace("Mine", "For $_$")  # no formula
    file.write_text(
        f"{titled}[mine.settings.albef.training]\nepochs = 1\nbatch_size = 16\n"
        f"[mine.settings.albef.config]\n{values}",
        encoding="utf-8",
    )
    call = ["--presets", str(file), "--data", str(data_sets), "--out", str(out), "--tasks", "mine"]
    call += ["--methods", "dtd", "--parts", "main", "--seeds", "1", "--forget", "10"]
    call += ["--first-seed", "7", "--set", "dtd.steps=3"]
    assert main([*call, "--device", "cpu"], known=TINY) == 0, capsys.readouterr().err
    tables = (out / "tables.md").read_text(encoding="utf-8")
    assert "## For $_$, 10 deleted" in tables
    assert "DtD (10 deleted, seed 7): no mi_ratio: needs at least 20 validation pairs" in tables
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert [run["status"] for run in content["runs"].values()] == ["done", "done"]
    assert content["options"]["first_seed"] == 7
    assert content["options"]["settings"] == {"dtd": {"steps": 3}}
    made = [run["spec"] for run in content["runs"].values()]
    assert [(spec["seed"], spec["params"]) for spec in made] == [(7, {}), (7, {"steps": 3})]


def test_the_example_of_the_page_fits_the_engine(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    text = page.partition("```toml\n[photos]")[2].partition("```")[0]
    found = _read(f"[photos]{text}", tmp_path)["photos"]
    assert (found.whole_items, list(found.settings)) == (True, ["albef", "blip"])
