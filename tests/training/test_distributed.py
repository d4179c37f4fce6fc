"""Several processes train as one does; when one fails, all end, and one of them says why."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from running import ROOT
from safetensors.torch import load_file
from small import RECIPE, make_small
from token_arrays import tiny_model

from taskmill import cli
from taskmill.artifact import read_manifest
from taskmill.errors import UsageError
from taskmill.training.monitoring.metrics import read_metrics, updates
from taskmill.training.updating import distributed, sharding
from taskmill.training.updating.distributed import PeerError, World
from taskmill.training.updating.update import Updater

PAGE = (ROOT / "docs/devices.md").read_text(encoding="utf-8")
LAUNCHERS = {"torchrun": "torch.distributed.run", "accelerate": "accelerate.commands.accelerate_cli"}
TRAIN = """
train:
  architecture: {num_layers: 2, hidden_size: 32, num_heads: 2, feedforward_size: 64}
  lora: {rank: 4, dropout: 0.0}
  learning_rate: 0.01
  num_steps: 12
  warmup_steps: 2
  batch_size: 3
  micro_batch_size: 1
  checkpoint_steps: 4
  device: cpu
"""
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recipe.yaml` and, by the page's own command, its run `runs/small`, finished up to tokenize."""
    folder = tmp_path_factory.mktemp("devices")
    make_small(folder)
    text = RECIPE.replace("num_prompts: 60", "num_prompts: 200")
    (folder / "recipe.yaml").write_text(re.sub(r"\ntrain:\n(  .*\n)*", TRAIN, text))
    command = re.search(r"<!-- run -->\n```console\ntaskmill (.*)\n", PAGE)
    assert command is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_here(*command[1].split(), "--quiet", "--workers", "1") == 0
    return folder


@pytest.fixture
def folder(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `tokens`, which is the present directory."""
    shutil.copytree(tokens, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_here(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    return int(stopped.value.code or 0)


def page_command(launcher: str) -> list[str]:
    """The page's command of a launcher."""
    found = re.search(rf"<!-- launch: {launcher} -->\n```console\n{launcher} (.*)\n", PAGE)
    assert found is not None
    return [sys.executable, "-m", LAUNCHERS[launcher], *found[1].split()]


def by_hand(rank: int, port: int, *arguments: str) -> subprocess.Popen[str]:
    """Start one of two processes as a launcher does, without one that watches over them."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return subprocess.Popen(
        [sys.executable, "-m", "taskmill", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, **place, **meeting},
    )


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def check_same(one: Path, two: Path) -> None:
    """Check that two trainings have the same losses to 1e-5, and about the same weights."""
    lines = [updates(read_metrics(run / "model/metrics.jsonl")) for run in (one, two)]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]] == list(range(1, 13))
    for mine, theirs in zip(*lines):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert mine["num_tokens"] == theirs["num_tokens"] and mine["num_trained"] == theirs["num_trained"]
    (name,) = [p.name for p in (one / "model/final").glob("*model.safetensors")]
    weights = [load_file(run / "model/final" / name) for run in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    for key, tensor in weights[0].items():
        assert (tensor - weights[1][key]).abs().max() < 1e-5


def recorded(run: Path) -> dict[str, Any]:
    manifest = read_manifest(run / "model")
    assert manifest is not None
    found: dict[str, Any] = manifest.body["recorded"]["train"]
    return found


def stops_at(step: int, number: int) -> Callable[..., Any]:
    """An `Updater.update` that sends this process a signal at its n-th call."""
    real, calls = Updater.update, []

    def update(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), number)
        return real(*arguments)

    return update


def test_two_processes_go_on_from_a_checkpoint_of_one_with_shards(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_here("train", "recipe.yaml", "--run", "runs/small", "--quiet") == 0
    run = Path("runs/small")
    shutil.copytree(run, "whole")
    shutil.rmtree(run / "model")
    with monkeypatch.context() as patch:
        patch.setattr(Updater, "update", stops_at(3, signal.SIGTERM))
        assert run_here("train", str(run), "--quiet") == 143
    assert (run / "model/step-000003").is_dir()
    done = subprocess.run(
        page_command("torchrun"), env=ENVIRONMENT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("train     built") == 1 == done.stderr.count("going on after update 3")
    assert (recorded(run)["num_processes"], recorded(run)["first_step"]) == (2, 3)
    check_same(run, Path("whole"))


def test_a_rank_is_killed_and_one_process_goes_on_with_adapters(folder: Path) -> None:
    run, lora = Path("runs/small"), ("--set", "train.method=lora")
    assert run_here("train", str(run), *lora, "--quiet") == 0
    shutil.copytree(run, "whole")
    shutil.rmtree(run / "model")
    port = free_port()
    ranks = [by_hand(rank, port, "train", str(run), *lora) for rank in (0, 1)]
    try:
        while not (run / "model/step-000004").is_dir() and ranks[0].poll() is None:
            time.sleep(0.002)
        ranks[1].send_signal(signal.SIGKILL)
        out, err = ranks[0].communicate(timeout=60)
    finally:
        for process in ranks:
            process.kill()
            process.communicate()
    assert ranks[0].returncode == 1 and not (run / "model/manifest.json").exists(), err
    assert out == "" and "Traceback" not in err
    assert err.splitlines()[-1] == f"taskmill: {PeerError()}"
    assert run_here("train", str(run), *lora, "--quiet") == 0
    assert recorded(run)["num_processes"] == 1 and recorded(run)["first_step"] >= 4
    check_same(run, Path("whole"))


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed")
def test_wrong_usage_is_told_once(folder: Path) -> None:
    command = [*page_command("accelerate"), "--set", "train.attention=flash"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0 and done.stdout == ""
    assert re.findall("taskmill: .*", done.stderr)[0].startswith("taskmill: train.attention is 'flash' and")
    assert done.stderr.count("taskmill: ") == 1 and done.stderr.count("(exitcode: 2)") == 1
    assert not (Path("runs/small") / "model/manifest.json").exists()


@pytest.mark.gpu
def test_gpus_train_as_one_does(folder: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there are no two GPUs")
    recipe = Path("recipe.yaml")
    recipe.write_text(recipe.read_text().replace("device: cpu", "device: cuda"))
    assert run_here("train", "recipe.yaml", "--run", "runs/small", "--quiet") == 0
    run = Path("runs/small")
    shutil.copytree(run, "whole")
    shutil.rmtree(run / "model")
    done = subprocess.run(
        page_command("torchrun"), env=ENVIRONMENT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    check_same(run, Path("whole"))


# ------------------------------------------------------------------------------------------ one process


def test_a_launch_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    read = distributed.world.__wrapped__
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert read() == World(0, 1, 0)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert read() == World(0, 1, 0)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert read() == World(3, 4, 1) and not read().is_main
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(UsageError, match="RANK is 4 and WORLD_SIZE 4"):
        read()
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(UsageError, match="first, 4, 1; expected whole numbers"):
        read()


def test_rank_0_speaks_for_commands_that_are_no_stages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    distributed.world.cache_clear()
    for rank, told in (
        ("0", 1),
        ("1", 0),
        ("first", 1),
        ("7", 1),
    ):  # where nobody is rank 0, everybody speaks
        monkeypatch.setenv("RANK", rank)
        distributed.world.cache_clear()
        assert run_here("train", "--nonsense") == 2
        assert capsys.readouterr().err.count("No such option") == told


def test_alone_everything_is_as_it_was() -> None:
    alone = World()
    assert alone.sums([1.5, 2.0]) == [1.5, 2.0]
    assert alone.from_main({"step": 3}) == {"step": 3}
    alone.check_equal({"packs": 3})
    with pytest.raises(KeyError, match="own"), alone.together():
        raise KeyError("own")
    with pytest.raises(RuntimeError, match="Connection"), alone.connected():
        raise RuntimeError("Connection closed by peer")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_transformer_blocks_are_found(method: str) -> None:
    found = sharding.blocks(tiny_model(method=method))
    assert [type(block).__name__ for block in found] == ["LlamaDecoderLayer"] * 2


def test_a_lost_connection_is_told_as_such() -> None:
    with pytest.raises(PeerError), World(0, 2).connected():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shape"), World(0, 2).connected():
        raise RuntimeError("a wrong shape")
