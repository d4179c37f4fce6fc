"""Checkpoints are whole or absent, and refuse to serve another training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from token_arrays import documents, tiny_model

from taskmill import storage
from taskmill.errors import DamagedError, StorageError
from taskmill.recipe import Train
from taskmill.training.models.saving import restore_weights
from taskmill.training.packing.batches import collate
from taskmill.training.packing.packs import pack
from taskmill.training.updating import checkpoint
from taskmill.training.updating.update import Updater

TRAIN = Train(learning_rate=1e-2, attention="sdpa")
ARRAYS = documents([11, 4, 17, 6, 9])
BATCH = collate(ARRAYS, pack(ARRAYS.offsets[1:] - ARRAYS.offsets[:-1], 30, 5, 0), range(2), 0)


class Killed(BaseException):
    """Stands for a kill at a system call: nothing after it runs but what Python cannot avoid."""


def updater_of(method: str = "full", precision: str = "fp32") -> Updater:
    train = dataclasses.replace(TRAIN, method=method, precision=precision)  # type: ignore[arg-type]
    return Updater(tiny_model(method=method), train)


def updated(updater: Updater, steps: int) -> Updater:
    for _ in range(steps):
        updater.update([BATCH], BATCH.weight, 1e-2)
    return updater


def save(folder: Path, step: int, updater: Updater, fingerprint: str = "f") -> None:
    with updater.whole():
        checkpoint.save_checkpoint(
            folder,
            step,
            updater.model,
            updater.moments(),
            scaling=updater.scaling(),
            metrics_bytes=step,
            fingerprint=fingerprint,
            tokenizer_folder=None,
        )


def metrics(folder: Path) -> Path:
    path = folder / "metrics.jsonl"
    path.write_bytes(b"x" * 100)
    return path


def same_weights(one: Updater, two: Updater) -> bool:
    pairs = zip(one.weights.values(), two.weights.values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("method", "precision"), [("full", "fp32"), ("lora", "fp32"), ("full", "bf16"), ("lora", "fp16")]
)
def test_training_goes_on_bit_for_bit(tmp_path: Path, method: str, precision: str) -> None:
    one = updated(updater_of(method, precision), 3)
    save(tmp_path, 3, one)
    updated(one, 2)

    model = tiny_model(method=method, seed=3)
    found = checkpoint.newest_checkpoint(tmp_path, "f", metrics(tmp_path))
    assert found is not None and (found.step, found.metrics_bytes) == (3, 3)
    restore_weights(model, found.folder)
    again = Updater(model, one.train)
    again.restore(checkpoint.read_moments(found), found.scaling)
    assert not same_weights(again, one)
    assert same_weights(updated(again, 2), one)
    assert again.scaling() == one.scaling()


def test_moments_of_an_unknown_weight_are_refused(tmp_path: Path) -> None:
    updater = updater_of()
    with pytest.raises(DamagedError, match=r"unknown parameter 'nothing'"):
        updater.restore({"exp_avg/nothing": torch.zeros(2)}, {})


def test_nothing_is_pickled(tmp_path: Path) -> None:
    save(tmp_path, 3, updated(updater_of(), 1))
    names = sorted(p.name for p in (tmp_path / "step-000003").iterdir())
    assert names == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]


def test_a_checkpoint_of_other_settings_is_not_served(tmp_path: Path) -> None:
    save(tmp_path, 3, updater_of(), fingerprint="other")
    assert checkpoint.newest_checkpoint(tmp_path, "f", metrics(tmp_path)) is None


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    updater = updated(updater_of(), 1)
    save(tmp_path, 3, updater)
    save(tmp_path, 6, updater)
    damage(tmp_path / "step-000006" / name)
    found = checkpoint.newest_checkpoint(tmp_path, "f", metrics(tmp_path))
    assert found is not None and found.step == 3
    assert list(checkpoint.folders(tmp_path)) == [3]


def test_a_damaged_state_or_lost_metrics_are_passed_over(tmp_path: Path) -> None:
    updater = updated(updater_of(), 1)
    for step in (3, 6, 200):
        save(tmp_path, step, updater)
    (tmp_path / "step-000006" / "state.json").write_text("[]")
    found = checkpoint.newest_checkpoint(tmp_path, "f", metrics(tmp_path))
    assert found is not None and found.step == 3


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save(tmp_path, 3, updated(updater_of(), 1))
    found = checkpoint.newest_checkpoint(tmp_path, "f", metrics(tmp_path))
    assert found is not None
    model = tiny_model()
    model.resize_token_embeddings(50)
    with pytest.raises(DamagedError, match="does not fit"):
        restore_weights(model, found.folder)


def test_prune_keeps_the_last_regular_ones_and_the_newest(tmp_path: Path) -> None:
    for step in (10, 20, 27, 30):
        (tmp_path / f"step-{step:06d}").mkdir()
    checkpoint.prune(tmp_path, every=10, keep=2, newest=30)
    assert sorted(checkpoint.folders(tmp_path)) == [20, 30]
    (tmp_path / "step-000034").mkdir()
    checkpoint.prune(tmp_path, every=10, keep=2, newest=34)
    assert sorted(checkpoint.folders(tmp_path)) == [20, 30, 34]
    checkpoint.prune(tmp_path, every=10, keep=2)
    assert sorted(checkpoint.folders(tmp_path)) == [20, 30]
    checkpoint.prune(tmp_path, every=10, keep=0)
    assert not checkpoint.folders(tmp_path)


def test_a_kill_at_any_write_fsync_or_rename_leaves_the_earlier_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updater = updated(updater_of(), 1)
    save(tmp_path, 3, updater)
    path, real = metrics(tmp_path), (storage._write, storage._fsync, storage._rename)
    calls = 0
    for fatal in range(1000):
        calls = 0

        def fails(function: Callable[..., Any], fatal: int = fatal) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > fatal:
                    raise Killed
                return function(*arguments)

            return call

        for name, function in zip(("_write", "_fsync", "_rename"), real):
            monkeypatch.setattr(storage, name, fails(function))
        try:
            save(tmp_path, 6, updater)
            break
        except Killed:
            found = checkpoint.newest_checkpoint(tmp_path, "f", path)
            assert found is not None and found.step in (3, 6)
    assert 20 < fatal < 999
    found = checkpoint.newest_checkpoint(tmp_path, "f", path)
    assert found is not None and found.step == 6


def test_a_failing_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    updater = updated(updater_of(), 1)

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(storage, "_rename", broken)
    with pytest.raises(StorageError, match="Input/output error"):
        save(tmp_path, 3, updater)
    assert not list(tmp_path.iterdir())
