"""The loss by level against each document's own, for any cutting into passes and processes; training is left alone."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from token_arrays import TINY, Arrays, documents, tiny_model, write_tokens

from taskmill.recipe import Train
from taskmill.records import LEVELS
from taskmill.training.monitoring import validation
from taskmill.training.monitoring.validation import validation_losses
from taskmill.training.updating.distributed import World

TRAIN = Train(architecture=TINY, attention="sdpa")
LENGTHS = [5, 9, 30, 4, 12, 7, 3, 22, 17, 1, 2, 8]
CODES = [0, 2, 0, 2, 2, 0, 2, 0, 2, 2, 0, 2]
WEIGHTS = [1.0, 0.1, 0.5, 1.0, 1.0, 0.1, 0.1, 1.0, 0.5, 1.0, 1.0, 0.0]


def write(folder: Path, arrays: Arrays, codes: list[int], max_length: int = 32) -> Path:
    inputs = write_tokens(folder / "tokens", documents([5, 6]), max_length, (arrays, codes))
    return inputs.directory("tokenize")


def one_by_one(model: Any, arrays: Arrays, codes: list[int]) -> dict[str, float]:
    """Run every document by itself and add up in fp64."""
    sums = np.zeros((3, 2))
    model.eval()
    for number, code in enumerate(codes):
        part = slice(*arrays.offsets[number : number + 2].tolist())
        ids = torch.from_numpy(arrays.ids[part].astype(np.int64))
        with torch.no_grad():
            scores = model(input_ids=ids[None], use_cache=False).logits[0].double().log_softmax(-1)
        for place in np.flatnonzero(arrays.trained[part][1:]):
            weight = float(arrays.loss_weight[number])
            sums[code] += weight * -float(scores[place, ids[place + 1]]), weight
    return {level: a / w for level, (a, w) in zip(LEVELS, sums) if w}


@pytest.fixture
def arrays() -> Arrays:
    return documents(LENGTHS, WEIGHTS)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_it_is_the_weighted_mean_over_trained_tokens(tmp_path: Path, arrays: Arrays, attention: str) -> None:
    model = tiny_model(attention)
    found = validation_losses(model, write(tmp_path, arrays, CODES), TRAIN, attention, World())
    assert list(found) == ["held_out", "supervised"]
    assert found == pytest.approx(one_by_one(model, arrays, CODES), rel=1e-5)


def test_no_validation_prompts_are_no_levels(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path / "tokens", documents([5, 6])).directory("tokenize")
    assert validation_losses(tiny_model(), folder, TRAIN, "sdpa", World()) == {}
    nothing = documents([2, 1], trained_from=5)
    assert (
        validation_losses(tiny_model(), write(tmp_path / "2", nothing, [0, 1]), TRAIN, "sdpa", World()) == {}
    )


def test_micro_batches_make_no_difference(tmp_path: Path, arrays: Arrays) -> None:
    folder, model = write(tmp_path, arrays, CODES), tiny_model()
    found = [
        validation_losses(model, folder, dataclasses.replace(TRAIN, micro_batch_size=n), "sdpa", World())
        for n in (1, 4)
    ]
    assert found[0] == found[1]


def test_passes_of_one_pack_agree(tmp_path: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, model = write(tmp_path, arrays, CODES), tiny_model()
    whole = validation_losses(model, folder, TRAIN, "sdpa", World())
    monkeypatch.setattr(validation, "PASS_TOKENS", 1)
    assert validation_losses(model, folder, TRAIN, "sdpa", World()) == pytest.approx(whole, rel=1e-6)


class Together:
    """The sums of several processes, played by threads."""

    def __init__(self, size: int) -> None:
        self.barrier, self.values = threading.Barrier(size), [[0.0]] * size

    def sums(self, rank: int, values: list[float]) -> list[float]:
        self.values[rank] = values
        self.barrier.wait(60)
        return [sum(column) for column in zip(*self.values)]


@pytest.mark.parametrize("size", [2, 5])
def test_processes_share_the_work_and_agree(
    tmp_path: Path, arrays: Arrays, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "PASS_TOKENS", 1)
    folder, together = write(tmp_path, arrays, CODES), Together(size)
    expected = validation_losses(tiny_model(), folder, TRAIN, "sdpa", World())
    found: dict[int, dict[str, float]] = {}
    passes, models = [0] * size, [tiny_model() for _ in range(size)]

    def work(rank: int) -> None:
        @dataclasses.dataclass(frozen=True)
        class Part(World):
            def sums(self, values: list[float]) -> list[float]:
                return together.sums(rank, values)

        model = models[rank]
        model.register_forward_pre_hook(lambda *_: passes.__setitem__(rank, passes[rank] + 1))
        found[rank] = validation_losses(model, folder, TRAIN, "sdpa", Part(rank, size))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[rank] == found[0] for rank in range(size))
    assert found[0] == pytest.approx(expected, rel=1e-12)
    assert len(set(passes)) == 1


def steps_of_training(folder: Path, validate: bool) -> list[Any]:
    """Some updates with dropout, drawn from torch's generator."""
    torch.manual_seed(3)
    model = tiny_model("sdpa", "lora")
    dropout = torch.nn.Dropout(0.2)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for step in range(3):
        ids = (torch.arange(20)[None] * (step + 3)) % 40
        logits = dropout(model(input_ids=ids, use_cache=False).logits)
        torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).backward()
        if validate:
            assert validation_losses(model, folder, TRAIN, "sdpa", World())
            assert model.training
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach() for p in model.parameters()]


def test_training_is_the_same_bit_for_bit(tmp_path: Path, arrays: Arrays) -> None:
    folder = write(tmp_path, arrays, CODES)
    with_it, without = (steps_of_training(folder, validate) for validate in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(with_it, without, strict=True))


def test_the_mode_comes_back_after_a_failure(tmp_path: Path, arrays: Arrays) -> None:
    folder, model = write(tmp_path, arrays, CODES), tiny_model()
    model.train()
    with pytest.raises(Exception, match="nothing"):
        validation_losses(model, folder, TRAIN, "nothing", World())
    assert model.training


def test_bf16_is_near_fp32(tmp_path: Path, arrays: Arrays) -> None:
    folder, model = write(tmp_path, arrays, CODES), tiny_model()
    full = validation_losses(model, folder, TRAIN, "sdpa", World())
    half = validation_losses(model.bfloat16(), folder, TRAIN, "sdpa", World())
    assert half == pytest.approx(full, rel=0.01)
    assert half != full


def test_the_objective_is_the_training_s(tmp_path: Path, arrays: Arrays) -> None:
    folder, model = write(tmp_path, arrays, CODES), tiny_model()
    whole = dataclasses.replace(arrays, trained=np.ones_like(arrays.trained))
    found = validation_losses(model, folder, dataclasses.replace(TRAIN, loss="sequence"), "sdpa", World())
    assert found == pytest.approx(one_by_one(model, whole, CODES), rel=1e-5)
    by_message = dataclasses.replace(TRAIN, loss_normalisation="message")
    found = validation_losses(model, folder, by_message, "sdpa", World())
    counts = [max(1, n - 2) for n in LENGTHS]
    shared = dataclasses.replace(arrays, loss_weight=np.array(WEIGHTS) / counts)
    assert found == pytest.approx(one_by_one(model, shared, CODES), rel=1e-5)
