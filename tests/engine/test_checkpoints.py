import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import engine
from engine.checkpoints import (
    SUMS,
    CheckpointDigest,
    load_checkpoint,
    save_checkpoint,
    verify_checkpoint,
)
from engine.data.pairs import PairDataset
from engine.errors import CheckpointError, StorageFull
from engine.families import AlbefConfig, PairModel, families
from engine.inputs import Inputs

Build = Callable[..., PairModel]
CARD = {"task": "retrieval", "training": {"epochs": 3}}


@pytest.fixture
def model(tiny: Build) -> PairModel:
    return tiny("albef")


@pytest.fixture
def saved(model: PairModel, tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    save_checkpoint(model, folder, CARD)
    return folder


def resign(folder: Path) -> None:
    """Write SHA256SUMS anew, as somebody who forges a checkpoint would."""
    files = sorted(p.name for p in folder.iterdir() if p.name != SUMS)
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in files]
    (folder / SUMS).write_text("".join(lines))


@pytest.mark.parametrize("family", list(families))
def test_a_checkpoint_gives_back_model_and_card(
    family: str, tiny: Build, data_for: Callable[[str], PairDataset], tmp_path: Path
) -> None:
    model = tiny(family)
    digest = save_checkpoint(model, tmp_path / "c", CARD)
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded.digest == digest
    assert loaded.card["family"] == family
    assert loaded.card["training"] == {"epochs": 3}
    assert not loaded.model.training
    rows = torch.arange(4)
    data = data_for(family)
    first, second = Inputs(model, data), Inputs(loaded.model, data)
    before = model.fuse(*first.encode(model, rows)).logits
    assert torch.equal(before, loaded.model.fuse(*second.encode(loaded.model, rows)).logits)


def test_the_digests_are_those_that_sha256sum_prints(saved: Path) -> None:
    digest = verify_checkpoint(saved)
    text = (saved / SUMS).read_text()
    assert digest.checkpoint_sha256 == hashlib.sha256(text.encode()).hexdigest()
    weights = (saved / "model.safetensors").read_bytes()
    assert digest.weights_sha256 == hashlib.sha256(weights).hexdigest()
    for line in text.splitlines():
        sha256, path = line.split("  ")
        assert hashlib.sha256((saved / path).read_bytes()).hexdigest() == sha256
    assert text.splitlines() == sorted(text.splitlines(), key=lambda line: line.split("  ")[1])


def test_the_same_weights_and_card_give_the_same_bytes(tiny: Build, tmp_path: Path) -> None:
    made: list[CheckpointDigest] = [
        save_checkpoint(tiny("albef"), tmp_path / name, CARD) for name in ("first", "second")
    ]
    assert made[0] == made[1]


def test_one_other_weight_gives_another_address(model: PairModel, tmp_path: Path) -> None:
    first = save_checkpoint(model, tmp_path / "first", CARD)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    second = save_checkpoint(model, tmp_path / "second", CARD)
    assert first.weights_sha256 != second.weights_sha256
    assert first.checkpoint_sha256 != second.checkpoint_sha256


def test_nothing_else_is_left_beside_a_checkpoint(saved: Path) -> None:
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_checkpoint_is_never_written_over(model: PairModel, saved: Path) -> None:
    before = verify_checkpoint(saved)
    with pytest.raises(CheckpointError, match="never changed"):
        save_checkpoint(model, saved, {"task": "another"})
    assert verify_checkpoint(saved) == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "lethe.json", "README.md"])
def test_one_changed_bit_in_any_file_is_found(saved: Path, name: str) -> None:
    content = bytearray((saved / name).read_bytes())
    content[-3] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(saved)


def test_a_file_that_is_missing_or_not_listed_is_named(saved: Path) -> None:
    (saved / "extra.py").write_text("print('hello')")
    with pytest.raises(CheckpointError, match=r"extra\.py"):
        load_checkpoint(saved)
    (saved / "extra.py").unlink()
    (saved / "README.md").unlink()
    with pytest.raises(CheckpointError, match=r"README\.md"):
        load_checkpoint(saved)


def test_a_link_is_refused_even_to_the_right_bytes(saved: Path) -> None:
    outside = saved.parent / "weights"
    (saved / "model.safetensors").rename(outside)
    (saved / "model.safetensors").symlink_to(outside)
    with pytest.raises(CheckpointError, match="link"):
        load_checkpoint(saved)


@pytest.mark.parametrize("path", ["../other/model.safetensors", "/etc/passwd"])
def test_paths_that_leave_the_folder_are_refused(saved: Path, path: str) -> None:
    text = (saved / SUMS).read_text()
    (saved / SUMS).write_text(f"{'0' * 64}  {path}\n{text}")
    with pytest.raises(CheckpointError, match="line 1"):
        load_checkpoint(saved)


def test_a_folder_without_digests_is_no_checkpoint(saved: Path) -> None:
    (saved / SUMS).unlink()
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "no_such_family"}, "known are albef, blip, clip, gcn_bert"),
        ({"family": "gcn_bert"}, "not a configuration of this family"),
        ({"config": {}}, "not the one in"),
        ({"config": {"no_such_size": 1}}, r"lethe\.json is not a configuration"),
        ({"config": None}, r"lethe\.json is not a configuration"),
        ({"family": ["albef"]}, "names the family"),
    ],
)
def test_a_forged_card_is_refused(saved: Path, change: dict[str, Any], message: str) -> None:
    card = json.loads((saved / "lethe.json").read_text())
    (saved / "lethe.json").write_text(json.dumps({**card, **change}))
    resign(saved)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)


def test_a_checkpoint_from_before_a_field_was_added_is_read_with_its_default(saved: Path) -> None:
    for name in ("config.json", "lethe.json"):
        content = json.loads((saved / name).read_text())
        del content.get("config", content)["vision_norm_eps"]
        (saved / name).write_text(json.dumps(content))
    resign(saved)
    assert load_checkpoint(saved).model.config == load_config(saved)


def load_config(folder: Path) -> AlbefConfig:
    return AlbefConfig.model_validate_json((folder / "config.json").read_bytes())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_read(saved: Path, value: float) -> None:
    weights = load_file(saved / "model.safetensors")
    weights["head.weight"][0, 0] = value
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    resign(saved)
    with pytest.raises(CheckpointError, match=r"the tensor head\.weight has NaN or infinity"):
        load_checkpoint(saved)


@pytest.mark.parametrize("family", list(families))
def test_weights_that_are_not_finite_are_not_written(
    tiny: Build, tmp_path: Path, family: str
) -> None:
    model = tiny(family)
    weight = next(model.parameters())
    with torch.no_grad():
        weight.view(-1)[0] = float("nan")
    with pytest.raises(CheckpointError, match="has NaN or infinity"):
        save_checkpoint(model, tmp_path / "new", CARD)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_a_pickle_are_refused_without_being_run(
    saved: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "was-run"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    torch.save(Attack(), saved / "model.safetensors")
    resign(saved)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_checkpoint(saved)
    assert not marker.exists()


def test_a_full_disk_is_told_apart_and_leaves_nothing(
    model: PairModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(directory: Path) -> None:
        (directory / "half.bin").write_bytes(b"0" * 100)
        Path("/dev/full").write_bytes(b"0" * 100_000)

    monkeypatch.setattr(model, "save", save)
    with pytest.raises(StorageFull, match="free space"):
        save_checkpoint(model, tmp_path / "c", CARD)
    assert list(tmp_path.iterdir()) == []


ON_A_SMALL_DISK = """
import sys
from pathlib import Path
from engine.checkpoints import save_checkpoint
from engine.errors import StorageFull
from engine.families import Albef
from engine.tokenizers import train_tokenizer

disk = Path(sys.argv[1])
model = Albef(Albef.tiny(), train_tokenizer(["one two"], 300))
try:
    save_checkpoint(model, disk / "c", {})
except StorageFull as error:
    print("full", [path.name for path in disk.iterdir()], error)
"""


def test_weights_that_do_not_fit_on_a_real_disk_leave_nothing(tmp_path: Path) -> None:
    # A file system of 100 KiB in a mount namespace of its own; it is gone with the process.
    inside = 'mount -t tmpfs -o size=100k none "$1" && shift && exec "$@"'
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c", inside, "sh"]
    command = [sys.executable, "-c", ON_A_SMALL_DISK, str(tmp_path)]
    probe = subprocess.run([*namespace, str(tmp_path), "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"no file system can be mounted here: {probe.stderr.decode()}")
    root = Path(engine.__file__).parents[1]
    done = subprocess.run(
        [*namespace, str(tmp_path), *command], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.startswith("full [] "), done.stdout + done.stderr


def test_whoever_may_read_the_card_may_read_the_weights(saved: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in saved.iterdir()}
    assert set(modes.values()) == {modes["lethe.json"]}


def test_a_disk_that_fills_at_the_last_sync_is_told_apart(
    model: PairModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageFull):
        save_checkpoint(model, tmp_path / "c", CARD)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_save_leaves_nothing(
    model: PairModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(directory: Path) -> None:
        (directory / "half.bin").write_bytes(b"0")
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(model, tmp_path / "c", CARD)
    assert list(tmp_path.iterdir()) == []


def test_neither_time_nor_place_stands_in_a_checkpoint(saved: Path) -> None:
    for name in ("lethe.json", "README.md", "config.json", "tokenizer_config.json"):
        text = (saved / name).read_text()
        assert str(saved.parent) not in text
        assert os.uname().nodename not in text
