"""`lethe demo`: as a whole on few pairs, interrupted in the middle, and the parts that judge."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from app.core.settings_errors import SettingsError
from app.demo.artefacts import checkpoint_sha256
from app.demo.client import DemoError
from app.demo.data import DemoData, choose, prepare
from app.demo.places import logs_kept, private_settings, results, writable
from app.demo.recipes import RECIPES, recipe_for
from app.demo.verdict import Figures, failures, metric
from tests.terminal import ROOT, Terminal, environment

STOP_SECONDS = 30  # on a machine with much else to do
KEYS = [
    "dataset",
    "family",
    "task",
    "method",
    "forget_pairs",
    "d_test_before",
    "d_test_after",
    "d_f_before",
    "d_f_after",
    "mi_ratio",
    "unseen_auc_after",
    "job_seconds",
    "checkpoint_sha256",
    "checkpoint_verified",
    "certificate_verified",
    "ledger_size",
]
GOOD = Figures(
    dataset="digits",
    family="albef",
    task="retrieval",
    method="multidelete",
    forget_pairs=100,
    d_test_before=75.0,
    d_test_after=74.0,
    d_f_before=50.0,
    d_f_after=20.0,
    mi_ratio=1.1,
    unseen_auc_after=0.5,
    job_seconds=20.0,
    checkpoint_sha256="ab" * 32,
    checkpoint_verified=True,
    certificate_verified=True,
    ledger_size=10,
)


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that is too small to learn much from, and quick."""
    folder = tmp_path_factory.mktemp("data") / "few"
    command = [sys.executable, "-m", "engine.data.digits", str(folder), "--pairs", "250"]
    subprocess.run(command, check=True, env=environment(), cwd="/")
    return folder


def _demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "app.cli", "demo", *arguments]


def test_the_demo_goes_from_data_to_a_certificate_that_verifies(
    few_digits: Path, tmp_path: Path
) -> None:
    out, figures_file = tmp_path / "out", tmp_path / "figures.json"
    done = subprocess.run(
        _demo("--data", str(few_digits), "--out", str(out), "--json", str(figures_file)),
        check=False,
        capture_output=True,
        text=True,
        env=environment(TMPDIR=str(tmp_path)),
        cwd=tmp_path,
    )
    assert figures_file.exists(), done.stdout + done.stderr
    found = json.loads(figures_file.read_text())
    assert list(found) == KEYS
    assert found["checkpoint_verified"] is True
    assert found["certificate_verified"] is True
    assert found["forget_pairs"] == 10
    assert (done.returncode == 0) == (not failures(Figures(**found)))
    assert not list(tmp_path.glob("lethe-demo-*"))

    sums = (out / "checkpoint" / "SHA256SUMS").read_bytes()
    assert hashlib.sha256(sums).hexdigest() == found["checkpoint_sha256"]
    assert "<html" in (out / "report.html").read_text()
    again = re.search(r"Verify again\s+lethe (verify .+)", done.stdout)
    assert again is not None
    assert _verify(again.group(1).split()) == 0
    certificate = out / "certificate.json"
    bundle = json.loads(certificate.read_text())
    bundle["ledger"]["leafIndex"] += 1
    certificate.write_text(json.dumps(bundle))
    assert _verify(again.group(1).split()) == 1


def _verify(arguments: list[str]) -> int:
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, check=False, env=environment(), cwd="/").returncode


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demo_leaves_no_process_behind(
    few_digits: Path, tmp_path: Path, how: signal.Signals
) -> None:
    arguments = ["demo", "--data", str(few_digits), "--out", str(tmp_path / "out")]
    env = environment(TMPDIR=str(tmp_path))
    terminal = Terminal(*arguments, cwd=tmp_path, env=env)
    try:
        terminal.expect("Training the original")
        _wait_for_trainer(terminal)
        family = terminal.family()
        began = time.monotonic()
        if how == signal.SIGINT:
            terminal.press_ctrl_c()
        else:
            terminal.process.send_signal(how)
        status = terminal.wait()
        assert not psutil.wait_procs(family, timeout=60)[1]
    finally:
        terminal.close()
    if how == signal.SIGKILL:
        return
    assert status == 128 + how
    assert time.monotonic() - began < STOP_SECONDS
    assert not list(tmp_path.iterdir())
    assert "Traceback" not in terminal.screen


def _slow_child(demo: psutil.Process, module: str) -> psutil.Process:
    """Wait until the demo runs a module, and hold that process, as if it had much to do."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for child in demo.children():
            if module in _command(child):
                child.suspend()
                return child
        time.sleep(0.01)
    raise AssertionError(f"the demo did not run {module}")


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a child of its parent's death"
)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_demo_leaves_no_conversion_of_its_data_behind(
    few_digits: Path, tmp_path: Path, how: signal.Signals
) -> None:
    env = environment(TMPDIR=str(tmp_path))
    # In no terminal, whose end would end the conversion too.
    demo = subprocess.Popen(
        _demo("--data", str(few_digits)), env=env, cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    converting = _slow_child(psutil.Process(demo.pid), "engine.data")
    try:
        demo.send_signal(how)
        demo.wait(30)
        assert not psutil.wait_procs([converting], timeout=10)[1]
    finally:
        with suppress(psutil.NoSuchProcess):
            converting.kill()


def test_the_trainer_of_the_demo_has_the_cores_unless_the_setting_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads(*, parallel: bool = True) -> int:
        return private_settings(tmp_path, tmp_path, parallel=parallel).threads

    monkeypatch.delenv("LETHE_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert threads() == 3
    assert threads(parallel=False) == 1
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert threads() == 16
    monkeypatch.setenv("LETHE_THREADS", "2")
    assert (threads(), threads(parallel=False)) == (2, 2)


def test_the_digits_whose_steps_are_too_small_to_share_stay_on_one_core() -> None:
    assert [name for name, recipe in RECIPES.items() if not recipe.parallel] == ["digits"]


def test_the_demo_uses_none_of_the_servers_and_folders_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETHE_DATABASE_URL", "postgresql://u@elsewhere/d")
    monkeypatch.setenv("LETHE_STORAGE_URL", "file:///elsewhere")
    monkeypatch.setenv("LETHE_CACHE_DIR", "/elsewhere")
    settings = private_settings(tmp_path / "service", tmp_path, parallel=False)
    assert settings.database_url is None
    assert "elsewhere" not in str(settings)


@pytest.mark.parametrize("option", ["--out", "--json"])
def test_a_place_that_cannot_be_written_ends_the_demo_before_it_begins(
    tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        _demo(option, str(tmp_path / "file" / "below" / "x")),
        check=False,
        capture_output=True,
        text=True,
        env=environment(TMPDIR=str(tmp_path)),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert f"{option} cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def _broken_off(place: Callable[[], AbstractContextManager[Path]]) -> None:
    with pytest.raises(KeyboardInterrupt), place() as out:
        (out / "checkpoint").mkdir(exist_ok=True)
        (out / "checkpoint" / "SHA256SUMS").write_text("new")
        (out / "ledger-key.pem").write_text("new")
        raise KeyboardInterrupt


def test_a_demo_that_is_broken_off_takes_away_what_it_put_into_a_new_folder(
    tmp_path: Path,
) -> None:
    _broken_off(lambda: results(tmp_path / "new" / "out"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty").mkdir()
    _broken_off(lambda: results(tmp_path / "empty"))
    assert [one.name for one in tmp_path.iterdir()] == ["empty"]
    assert not list((tmp_path / "empty").iterdir())


def test_a_demo_that_is_broken_off_takes_nothing_away_that_was_there_before(
    tmp_path: Path,
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    _broken_off(lambda: results(tmp_path))
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    _broken_off(lambda: results(tmp_path / "below"))
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    assert not (tmp_path / "below").exists()


def test_a_method_that_cannot_be_used_is_refused_before_anything_is_trained(
    few_digits: Path, tmp_path: Path
) -> None:
    command = _demo("--data", str(few_digits), "--out", str(tmp_path / "out"), "--method", "nope")
    done = subprocess.run(
        command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert "--method cannot be used: nope is no method of this service; known are " in said
    assert "Starting the service" not in said
    assert "logged" not in said
    assert not list(tmp_path.iterdir())


def test_what_the_service_logged_is_kept_where_the_demo_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work" / "service").mkdir(parents=True)
    (tmp_path / "work" / "service" / "api.log").write_text("a line")
    with (
        pytest.raises(DemoError),
        logs_kept(tmp_path / "work", tmp_path / "out", Console(width=999)),
    ):
        raise DemoError
    assert (tmp_path / "out" / "logs" / "api.log").read_text() == "a line"
    assert f"is in {tmp_path / 'out' / 'logs'}." in capsys.readouterr().out


def test_a_folder_of_logs_outlives_the_demo_that_failed_in_it(tmp_path: Path) -> None:
    with pytest.raises(DemoError), writable("--out", tmp_path / "lethe-demo") as out:
        (out / "logs").mkdir()
        raise DemoError
    assert (tmp_path / "lethe-demo" / "logs").is_dir()


def test_a_checkpoint_replaces_only_one_of_an_earlier_demo(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(SettingsError, match="checkpoint is there already"), results(tmp_path):
        pass
    assert (tmp_path / "checkpoint").is_dir()
    (tmp_path / "checkpoint" / "SHA256SUMS").touch()
    with results(tmp_path) as out:
        assert out == tmp_path


def _wait_for_trainer(terminal: Terminal) -> None:
    """Wait until a trainer has begun: it loads its libraries then, and prepares its data."""
    end = time.monotonic() + 120
    while not any("worker.trainer" in _command(process) for process in terminal.family()):
        assert terminal.process.poll() is None, terminal.screen
        assert time.monotonic() < end, terminal.screen
        time.sleep(0.05)


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):  # it ended meanwhile
        return process.cmdline()
    return []


def test_data_of_no_known_format_is_refused_with_the_formats(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DemoError, match="karpathy"):
        prepare(tmp_path, tmp_path, 0)


def _labelled(folder: Path, label: int, images: int) -> Path:
    """A manifest whose pairs have ``images`` images, the first pair with the highest label."""
    rows = [
        {
            "id": f"p{row}",
            "image": [f"{row}-{image}.png" for image in range(images)],
            "text": "t",
            "label": label if row == 0 else 0,
            "split": "train",
        }
        for row in range(20)
    ]
    manifest = folder / "labelled.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


@pytest.mark.parametrize(("label", "images", "task"), [(2, 1, "visual_entailment"), (1, 2, "nlvr")])
def test_labelled_images_get_the_task_of_their_labels_and_single_pairs_are_forgotten(
    tmp_path: Path, label: int, images: int, task: str
) -> None:
    data = prepare(_labelled(tmp_path, label, images), tmp_path, 0)
    assert (data.name, data.recipe.task) == ("labelled", task)
    assert list(choose(data, 0.1, seed=0).targets) == ["pair_ids"]


def test_labelled_images_that_no_model_fits_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(
        DemoError, match=r"1 image\(s\) a pair and 2 classes\. Expected images with"
    ):
        prepare(_labelled(tmp_path, 1, 1), tmp_path, 0)


def _data(folder: Path, modality: str, rows: list[dict[str, object]]) -> DemoData:
    manifest = folder / "pairs.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = {"train": sum(row["split"] == "train" for row in rows)}
    return DemoData("d", modality, folder, manifest, None, splits, RECIPES["retrieval"])


def test_whole_images_are_forgotten_where_an_image_has_several_texts(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": f"{image}-{text}", "image": f"{image}.png", "text": "t", "split": "train"}
        for image in range(40)
        for text in range(5)
    ]
    rows += [{"id": "v", "image": "v.png", "text": "t", "split": "val"}]
    chosen = choose(_data(tmp_path, "image", rows), 0.05, seed=1)
    assert list(chosen.targets) == ["item_ids"]
    assert len(chosen.targets["item_ids"]) == 2
    assert chosen.pairs == 10
    assert "v.png" not in chosen.targets["item_ids"]


@pytest.mark.parametrize("modality", ["image", "graph"])
def test_single_pairs_are_forgotten_otherwise(tmp_path: Path, modality: str) -> None:
    rows: list[dict[str, object]] = [
        {"id": f"p{n}", modality: f"{n}", "text": "t", "split": "test" if n < 50 else "train"}
        for n in range(150)
    ]
    data = _data(tmp_path, modality, rows)
    chosen = choose(data, 0.05, seed=1)
    assert len(set(chosen.targets["pair_ids"])) == chosen.pairs == 5
    assert all(int(pair[1:]) >= 50 for pair in chosen.targets["pair_ids"])
    assert choose(data, 0.05, seed=1) == chosen
    assert choose(data, 0.05, seed=2) != chosen


def test_each_kind_of_data_has_a_recipe_that_the_catalogue_knows() -> None:
    path = ROOT / "app" / "registry" / "catalogue.json"
    catalogue = json.loads(path.read_text())
    known = {(one["family"], one["task"]) for one in catalogue["combinations"]}
    for recipe in RECIPES.values():
        assert (recipe.family, recipe.task) in known
        allowed = catalogue["families"][recipe.family]["config_schema"]["properties"]
        assert set(recipe.config) <= set(allowed)
    assert recipe_for("digits", "retrieval") is RECIPES["digits"]
    assert recipe_for("karpathy", "retrieval") is RECIPES["retrieval"]
    assert recipe_for("snli_ve", "visual_entailment").task == "visual_entailment"


def test_the_digest_of_a_checkpoint_leaves_its_own_list_out() -> None:
    files = {"b": "22", "a": "11", "SHA256SUMS": "33"}
    assert checkpoint_sha256(files) == hashlib.sha256(b"11  a\n22  b\n").hexdigest()


def test_a_metric_is_found_by_name_and_moment_on_the_main_pairs() -> None:
    metrics = [
        {"name": "d_f", "moment": "after", "subset": "forgotten", "value": 1.0},
        {"name": "d_f", "moment": "before", "subset": "forget", "value": 2.0},
        {"name": "d_f", "moment": "after", "subset": "forget", "value": 3.0},
    ]
    assert metric(metrics, "d_f", "after") == 3.0
    assert metric(metrics, "d_test", "after") is None


def test_nothing_is_reported_when_all_held() -> None:
    assert failures(GOOD) == []


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (replace(GOOD, checkpoint_verified=False), "digests"),
        (replace(GOOD, certificate_verified=False), "certificate"),
        (replace(GOOD, d_test_after=72.9), "fell by 2.1 points"),
        (replace(GOOD, d_test_after=None), "not measured"),
        (replace(GOOD, d_f_after=30.1), "still look related"),
        (replace(GOOD, d_f_before=61.0), "did not look like kept ones"),
        (replace(GOOD, d_f_after=None), "not measured"),
    ],
)
def test_each_claim_that_does_not_hold_is_named(figures: Figures, words: str) -> None:
    found = failures(figures)
    assert len(found) == 1
    assert words in found[0]


def test_retraining_is_not_judged_by_how_unrelated_pairs_look() -> None:
    assert failures(replace(GOOD, method="retrain", d_f_after=45.0)) == []
