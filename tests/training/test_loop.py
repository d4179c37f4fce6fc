"""The train stage: it learns, can be killed at any moment, and gives the same weights again."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from safetensors.torch import load_file
from token_arrays import TINY, VOCAB, pattern_documents, settings_for, stage, write_tokens

from taskmill import storage
from taskmill.artifact import Inputs, read_manifest
from taskmill.errors import StaleError, StorageError, TaskmillError, UsageError
from taskmill.recipe import Lora, Train
from taskmill.runs import verify_stage
from taskmill.training import loop
from taskmill.training.loop import build
from taskmill.training.models.model import load_model, training_model
from taskmill.training.models.saving import save_model
from taskmill.training.monitoring.metrics import read_metrics, validations
from taskmill.training.tokens import Tokens
from taskmill.training.updating import update
from taskmill.training.updating.update import Update, Updater

QUICK = Train(
    architecture=TINY,
    learning_rate=1e-2,
    warmup_steps=4,
    batch_size=4,
    micro_batch_size=2,
    checkpoint_steps=10,
    packing_window=100,
    dropout=0.1,
)
NUM_STEPS = 25
KILLED = dataclasses.replace(QUICK, checkpoint_steps=5, lora=Lora(rank=4, dropout=0.2))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return write_tokens(tmp_path_factory.mktemp("run") / "tokens", pattern_documents(505))


def train_in(run: Path, inputs: Inputs, train: Train) -> Path:
    """Run the stage and return its folder."""
    settings = settings_for(run, train)
    return build(settings, inputs, stage(run, inputs, settings)).directory


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, inputs: Inputs) -> Path:
    """An uninterrupted training."""
    return train_in(tmp_path_factory.mktemp("finished"), inputs, QUICK)


def root(folder: Path) -> str:
    return str(json.loads((folder / "manifest.json").read_text())["root"])


def test_loss_falls_and_the_model_is_served(finished: Path, inputs: Inputs) -> None:
    lines = read_metrics(finished / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, NUM_STEPS + 1))
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert set(lines[0]) == {"step", "loss", "learning_rate", "gradient_norm", "num_tokens", "num_trained"}
    assert not verify_stage(finished)
    manifest = read_manifest(finished)
    assert manifest is not None
    counts = manifest.counts
    assert counts["num_steps"] == NUM_STEPS and counts["num_documents"] == 505
    tokens = Tokens.open(inputs.directory("tokenize"))
    assert sum(line["num_tokens"] for line in lines) == counts["num_tokens"] == len(tokens.ids)
    assert sum(line["num_trained"] for line in lines) == tokens.info["num_trained"]
    assert sorted(p.name for p in finished.iterdir() if p.is_dir()) == [
        "final",
        "shards",
        "step-000010",
        "step-000020",
    ]
    assert load_model(finished / "final").config.vocab_size == VOCAB


def test_place_and_speed_are_recorded(finished: Path) -> None:
    manifest = read_manifest(finished)
    assert manifest is not None
    recorded = manifest.body["recorded"]["train"]
    assert recorded["device"] == "cpu" and recorded["num_processes"] == 1 and recorded["num_threads"] == 1
    assert recorded["attention"] in ("documents", "sdpa") and recorded["tokens_per_second"] > 0
    assert recorded["deviations"] == [
        "train.dropout 0.1: LlamaForCausalLM has none on its residual connections",
        "train.dropout 0.1: LlamaForCausalLM has none on its embeddings",
    ]


def test_losses_of_validation_stand_where_they_were_measured(tmp_path: Path) -> None:
    inputs = write_tokens(
        tmp_path / "tokens", pattern_documents(200), validation=(pattern_documents(12), [0, 2] * 6)
    )
    train = dataclasses.replace(QUICK, validation_steps=4, checkpoint_steps=4)
    whole = train_in(tmp_path / "whole", inputs, train)
    lines = read_metrics(whole / "metrics.jsonl")
    found = validations(lines)
    last = lines[-1]["step"]
    assert [step for step, _ in found] == [4, 8, last] and last not in (4, 8)
    assert all(set(losses) == {"held_out", "supervised"} for _, losses in found)
    assert found[-1][1]["supervised"] < found[0][1]["supervised"]
    settings = settings_for(tmp_path / "cut", train)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "_rename", lambda s, t: _kill_at("step-000008", s, t))
        with pytest.raises(Killed):
            build(settings, inputs, stage(tmp_path / "cut", inputs, settings))
    again = train_in(tmp_path / "cut", inputs, train)
    assert (again / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_updates_that_fp16_leaves_out_are_counted_and_the_scale_is_resumed(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "FIRST_SCALE", 2.0**24)
    train = dataclasses.replace(QUICK, precision="fp16", num_steps=14, checkpoint_steps=3)
    whole = train_in(tmp_path / "whole", inputs, train)
    skipped = [
        line["step"] for line in read_metrics(whole / "metrics.jsonl") if line["gradient_norm"] is None
    ]
    manifest = read_manifest(whole)
    assert manifest is not None and manifest.counts["num_skipped_updates"] == len(skipped)
    assert 4 in skipped and len(skipped) < 14
    settings = settings_for(tmp_path / "cut", train)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_rename", lambda s, t: _kill_at("step-000006", s, t))
        with pytest.raises(Killed):
            build(settings, inputs, stage(tmp_path / "cut", inputs, settings))
    assert root(train_in(tmp_path / "cut", inputs, train)) == root(whole)


def test_trackers_lie_beside_the_stage_and_change_nothing(
    finished: Path, inputs: Inputs, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, QUICK)
    settings.track = ("tensorboard",)
    folder = build(settings, inputs, stage(tmp_path, inputs, settings)).directory
    assert root(folder) == root(finished)
    assert list((tmp_path / "tracking/tensorboard").rglob("events.*"))


def test_equal_trainings_have_equal_roots(finished: Path, inputs: Inputs, tmp_path: Path) -> None:
    assert root(train_in(tmp_path, inputs, QUICK)) == root(finished)


def test_micro_batches_do_not_change_the_result(finished: Path, inputs: Inputs, tmp_path: Path) -> None:
    train = dataclasses.replace(QUICK, dropout=0.0, num_steps=8)
    one = train_in(tmp_path / "one", inputs, dataclasses.replace(train, micro_batch_size=1))
    four = train_in(tmp_path / "four", inputs, dataclasses.replace(train, micro_batch_size=4))
    losses = [[line["loss"] for line in read_metrics(f / "metrics.jsonl")] for f in (one, four)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# ------------------------------------------------------------------------------------ interruptions

CHILD = """
import dataclasses, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from token_arrays import *
from test_loop import KILLED
from taskmill.training.updating.update import Updater

real, number, done = Updater.update, int(sys.argv[4]), 0
def stops(*arguments):
    global done
    done += 1
    if done == int(sys.argv[5]):
        os.kill(os.getpid(), number)
    return real(*arguments)
Updater.update = stops
run = Path(sys.argv[3])
settings = settings_for(run, dataclasses.replace(KILLED, method=sys.argv[6]))
inputs = Inputs({"tokenize": Path(sys.argv[2])})
loop.build(settings, inputs, stage(run, inputs, settings))
"""


def run_child(run: Path, inputs: Inputs, number: signal.Signals, at: int, method: str) -> int:
    """Train in another process that gets a signal at the start of an update, counted in that process."""
    arguments = [Path(__file__).parent, inputs.directory("tokenize"), run, int(number), at, method]
    command = [sys.executable, "-c", CHILD, *map(str, arguments)]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL, timeout=100).returncode


@pytest.fixture(scope="module")
def two_passes(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Tokens of a mixture that draws every document twice, each pass in an order of its own."""
    arrays = pattern_documents(245)
    second = (np.arange(245) * 101 + 7) % 245
    arrays.order = np.concatenate([np.arange(245), second])
    arrays.positions = np.arange(490)
    return write_tokens(tmp_path_factory.mktemp("passes") / "tokens", arrays)


@pytest.mark.parametrize(("method", "kills"), [("full", (7, 19)), ("lora", (19,))])
def test_killed_in_either_pass_and_run_again_gives_the_same_bytes(
    method: Literal["full", "lora"], kills: tuple[int, ...], two_passes: Inputs, tmp_path: Path
) -> None:
    train = dataclasses.replace(KILLED, method=method)
    whole, model, done = train_in(tmp_path / "whole", two_passes, train), tmp_path / "cut/model", 0
    for at in kills:  # updates 1 to 13 are of the first pass
        assert run_child(tmp_path / "cut", two_passes, signal.SIGKILL, at - done, method) == -signal.SIGKILL
        done = at // 5 * 5 if at % 5 else at - 5
        assert not (model / "manifest.json").exists() and (model / f"step-{done:06d}").is_dir()
        assert len(read_metrics(model / "metrics.jsonl")) == at - 1
    train_in(tmp_path / "cut", two_passes, train)
    assert (model / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert root(model) == root(whole)


def test_stopped_at_any_update_and_run_again(finished: Path, inputs: Inputs, tmp_path: Path) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    settings, real, step = settings_for(tmp_path, QUICK), Updater.update, 0
    for at, number in (
        (1, signal.SIGINT),
        (10, signal.SIGINT),
        (13, signal.SIGTERM),
        (NUM_STEPS, signal.SIGTERM),
    ):
        with pytest.MonkeyPatch.context() as patch:

            def stops(self: Updater, *arguments: Any, at: int = at, number: int = number) -> Update:
                nonlocal step
                step += 1
                if step == at:
                    os.kill(os.getpid(), number)
                return real(self, *arguments)

            patch.setattr(Updater, "update", stops)
            with pytest.raises((KeyboardInterrupt, SystemExit)) as stopped:
                build(settings, inputs, stage(tmp_path, inputs, settings))
        wanted = KeyboardInterrupt if number == signal.SIGINT else SystemExit
        assert stopped.type is wanted
        assert number == signal.SIGINT or stopped.value.code == 143
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
        assert (tmp_path / "model" / f"step-{at:06d}").is_dir()
    train_in(tmp_path, inputs, QUICK)
    assert root(tmp_path / "model") == root(finished)
    assert not (tmp_path / "model" / "step-000013").exists()


class Killed(BaseException):
    """Stands for a kill at a system call."""


def test_a_kill_at_any_rename_goes_on_to_the_same_bytes(
    finished: Path, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fifth rename of the stage in turn stops it; each attempt goes on from what the one before left."""
    real, settings, attempts = storage._rename, settings_for(tmp_path, QUICK), 0
    for fatal in range(2, 100, 5):
        calls = 0

        def fails(source: Path, target: Path, fatal: int = fatal) -> None:
            nonlocal calls
            calls += 1
            if calls == fatal:
                raise Killed
            real(source, target)

        monkeypatch.setattr(storage, "_rename", fails)
        try:
            build(settings, inputs, stage(tmp_path, inputs, settings))
            break
        except Killed:
            attempts += 1
    assert attempts >= 3
    assert root(tmp_path / "model") == root(finished)


def test_lora_is_resumed_and_saved_as_an_adapter(inputs: Inputs, tmp_path: Path) -> None:
    train = dataclasses.replace(
        QUICK, method="lora", lora=Lora(rank=4, dropout=0.2), num_steps=12, checkpoint_steps=5
    )
    whole = train_in(tmp_path / "whole", inputs, train)
    settings = settings_for(tmp_path / "cut", train)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "_rename", lambda s, t: _kill_at("step-000010", s, t))
        with pytest.raises(Killed):
            build(settings, inputs, stage(tmp_path / "cut", inputs, settings))
    assert (tmp_path / "cut" / "model" / "step-000005").is_dir()
    again = train_in(tmp_path / "cut", inputs, train)
    assert root(again) == root(whole)
    info = Tokens.open(inputs.directory("tokenize")).info
    base = training_model(dataclasses.replace(train, method="full"), info, 5, None)
    loaded = load_model(whole / "final", base)
    saved = load_file(whole / "final" / "adapter_model.safetensors")
    name = next(n for n in saved if "lora_B" in n)
    parts = name.rsplit(".", 1)
    assert np.array_equal(
        loaded.get_parameter(f"{parts[0]}.default.{parts[1]}").detach().numpy(), saved[name].numpy()
    )
    assert float(saved[name].abs().max()) > 0


def _kill_at(name: str, source: Path, target: Path) -> None:
    if target.name == name:
        raise Killed
    os.replace(source, target)


def test_a_full_disk_is_one_clear_error_and_training_goes_on_later(
    finished: Path, inputs: Inputs, tmp_path: Path
) -> None:
    settings, real, written = settings_for(tmp_path, QUICK), storage._write, 0

    def full(handle: int, data: bytes) -> int:
        nonlocal written
        written += len(data)
        if written > 700_000:
            raise OSError(28, "No space left on device")
        return real(handle, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "_write", full)
        with pytest.raises(StorageError, match="No space left"):
            build(settings, inputs, stage(tmp_path, inputs, settings))
    assert root(train_in(tmp_path, inputs, QUICK)) == root(finished)


def test_a_checkpoint_of_other_settings_is_not_used(inputs: Inputs, tmp_path: Path) -> None:
    other = dataclasses.replace(QUICK, learning_rate=1e-3, num_steps=12)
    settings = settings_for(tmp_path, other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "_rename", lambda s, t: _kill_at("final", s, t))
        with pytest.raises(Killed):
            build(settings, inputs, stage(tmp_path, inputs, settings))
    assert (tmp_path / "model" / "step-000010").is_dir()
    train = dataclasses.replace(QUICK, num_steps=12)
    assert root(train_in(tmp_path, inputs, train)) == root(train_in(tmp_path / "fresh", inputs, train))


def test_a_finished_stage_with_other_settings_is_refused(finished: Path, inputs: Inputs) -> None:
    settings = settings_for(finished.parent, dataclasses.replace(QUICK, num_steps=3))
    with pytest.raises(StaleError, match=r"train\.num_steps: null -> 3"):
        stage(finished.parent, inputs, settings)


# -------------------------------------------------------------------------------------- wrong input


def test_a_loss_that_is_not_finite_stops_the_training(inputs: Inputs, tmp_path: Path) -> None:
    train = dataclasses.replace(QUICK, learning_rate=1e30, warmup_steps=0, max_gradient_norm=0.0)
    with pytest.raises(TaskmillError, match=r"update \d+: the loss is .*learning_rate"):
        train_in(tmp_path, inputs, train)


def test_a_gpu_that_is_absent_is_said(inputs: Inputs, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match=r"train\.device=cpu"):
        train_in(tmp_path, inputs, dataclasses.replace(QUICK, device="cuda"))


def test_a_base_model_belongs_to_the_identity(tmp_path: Path, inputs: Inputs) -> None:
    info = Tokens.open(inputs.directory("tokenize")).info
    settings = settings_for(tmp_path, dataclasses.replace(QUICK, model="base"))
    save_model(training_model(QUICK, info, 1, None), None, tmp_path / "base")
    one = loop.external(settings, inputs)
    assert set(one["model"]) == {"config.json", "generation_config.json", "model.safetensors"}
    save_model(training_model(QUICK, info, 2, None), None, tmp_path / "base")
    assert loop.external(settings, inputs) != one
    hub = settings_for(tmp_path, Train(model="org/name", revision="v1"))
    assert loop.external(hub, inputs) == {"model": {"id": "org/name", "revision": "v1"}}
    assert loop.external(settings_for(tmp_path, QUICK), inputs) == {}


def test_a_named_base_is_trained_in_bf16(
    tmp_path: Path, inputs: Inputs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "taskmill")
    info = Tokens.open(inputs.directory("tokenize")).info
    save_model(training_model(QUICK, info, 1, None), None, tmp_path / "base")
    train = dataclasses.replace(QUICK, model="base", precision="bf16", attention="eager", num_steps=10)
    folder = train_in(tmp_path, inputs, train)
    lines = read_metrics(folder / "metrics.jsonl")
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert str(tmp_path) not in (folder / "final" / "config.json").read_text()
    assert "documents in a pack are isolated (eager" in caplog.text


# ------------------------------------------------------------------------------------------- imports

BLOCKED = """
import sys
for name in ("pydantic", "polars", "datasets", "datasketch", "orjson", "rouge_score"):
    sys.modules[name] = None
"""


def test_training_runs_with_only_the_packages_of_a_gpu_image(inputs: Inputs, tmp_path: Path) -> None:
    code = BLOCKED + CHILD
    arguments = [Path(__file__).parent, inputs.directory("tokenize"), tmp_path, 0, 0, "full"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=False, timeout=100)
    assert done.returncode == 0
    assert (tmp_path / "model" / "manifest.json").is_file()


def test_the_stage_is_imported_without_torch_and_says_when_it_is_missing(
    inputs: Inputs, tmp_path: Path
) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from taskmill.errors import MissingPackageError\n"
        "from taskmill.training import loop\n"
        "try:\n    from taskmill.training.updating import update\n"
        "except MissingPackageError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert "pip install 'taskmill[train]'" in done.stdout
