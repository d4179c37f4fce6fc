"""What only a GPU can show, with the tests marked `gpu` elsewhere: `pytest -m gpu` runs them all; without one they skip."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from token_arrays import (
    TINY,
    VOCAB,
    documents,
    pattern_documents,
    settings_for,
    stage,
    tiny_model,
    write_tokens,
)

from taskmill.errors import UsageError
from taskmill.recipe import Train
from taskmill.training import loop
from taskmill.training.models import model
from taskmill.training.monitoring.metrics import read_metrics, updates
from taskmill.training.packing.batches import collate
from taskmill.training.packing.packs import pack
from taskmill.training.updating import attention, kernels
from taskmill.training.updating.update import Updater

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
ARRAYS = documents([11, 4, 17, 6, 9, 13], [1, 1, 0.1, 1, 2, 1])
PACKS = pack(ARRAYS.lengths, 30, 6, 0)
BATCH = collate(ARRAYS, PACKS, range(PACKS.num_packs), 0)


def losses(name: str, device: str, **change: Any) -> list[float]:
    """Losses of eight updates on one batch."""
    made = tiny_model("eager", change.get("method", "full")).to(device).train()
    try:
        attention.install(made, name, change.get("precision", "fp32"))
    except UsageError as error:
        pytest.skip(str(error))
    train = dataclasses.replace(Train(attention=name, max_gradient_norm=0.0), **change)
    updater = Updater(made, train, device=torch.device(device))
    return [updater.update([BATCH], BATCH.weight, 3e-3).loss for _ in range(8)]


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("again", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("name", ["documents", "flash", "flex", "sdpa", "eager"])
def test_every_attention_trains_working_copies(name: str, again: bool, method: str) -> None:
    if name == "flash" and not kernels.has_flash():
        pytest.skip("flash-attn is not installed")
    found = losses(name, "cuda", precision="bf16", method=method, activation_checkpointing=again)
    assert found == pytest.approx(losses("sdpa", "cpu", method=method), abs=0.04)


@pytest.mark.skipif(kernels._varlen() is None, reason="torch.nn.attention.varlen came with torch 2.10")
@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("width", [16, 64, 128, 256])
def test_torchs_kernel_and_its_gradient_equal_one_document_by_one(
    width: int, window: int | None, heads: int
) -> None:
    torch.manual_seed(0)
    lengths = (11, 4, 170, 1, 63)
    starts = torch.tensor([0, 11, 15, 185, 186, 249], dtype=torch.int32, device="cuda")
    laid = [torch.randn(1, 249, n, width, device="cuda").bfloat16() for n in (4, heads, heads)]
    results = []
    for compute in (kernels._documents, kernels._one_by_one):
        given = [t.clone().requires_grad_() for t in laid]
        given_HTD = [t.transpose(1, 2) for t in given]
        assert compute is kernels._one_by_one or kernels._fits_varlen(given_HTD[0], given_HTD[2])
        out = compute(*given_HTD, kernels.Documents(lengths, starts), 0.0, 0.2, window, None)
        out.float().square().sum().backward()
        results.append([out, *(t.grad for t in given)])
    for ours, expected in zip(*results):
        assert float((ours - expected).float().norm() / expected.float().norm()) <= 0.02


@pytest.mark.parametrize("window", [None, 40])
def test_flex_and_its_gradient_equal_one_document_by_one_for_packs_of_any_length(window: int | None) -> None:
    torch.manual_seed(0)
    for number in range(1, 12):
        lengths = [1 + (7 * i + 31 * number) % 190 for i in range(number)]
        ends = torch.tensor([0, *lengths], device="cuda").cumsum(0).to(torch.int32)
        results = []
        laid = torch.randn(1, 2, sum(lengths), 16, device="cuda")
        for compute in (kernels._flex, kernels._one_by_one):
            given = laid.clone().requires_grad_()
            out = compute(
                given, given, given, kernels.Documents(tuple(lengths), ends), 0.0, 0.2, window, None
            )
            out.square().sum().backward()
            results.append((out, given.grad))
        for ours, expected in zip(*results):
            assert float((ours - expected).norm() / expected.norm()) <= 1e-2


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_base_is_loaded_where_and_as_it_is_used(method: str, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    train = Train(model=str(tmp_path), method=method, precision="bf16")
    info = {"vocab_size": VOCAB, "max_length": 64, "pad_id": 0, "bos_id": 1, "eos_id": 2}
    made = model.training_model(train, info, 0, None, device=torch.device("cuda"))
    assert {p.device.type for p in made.parameters()} == {"cuda"}
    assert {b.device.type for b in made.buffers()} == {"cuda"}
    frozen = {p.dtype for p in made.parameters() if not p.requires_grad}
    assert frozen == ({torch.bfloat16} if method == "lora" else set())
    assert {p.dtype for p in made.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_stage_trains_goes_on_and_tells_its_speed(method: str, precision: str, tmp_path: Path) -> None:
    inputs = write_tokens(tmp_path / "tokens", pattern_documents(60))
    train = Train(
        method=method,
        precision=precision,
        architecture=TINY,
        num_steps=6,
        warmup_steps=1,
        batch_size=2,
        micro_batch_size=2,
        checkpoint_steps=3,
        device="cuda",
    )
    settings, whole, cut = settings_for(tmp_path, train), tmp_path / "whole", tmp_path / "cut"
    told = loop.build(settings, inputs, stage(whole, inputs, settings)).body["recorded"]["train"]
    assert told["device"].startswith("cuda") and told["peak_device_bytes"] > 0 and told["mfu"] > 0
    out = stage(cut, inputs, settings)
    shutil.copytree(whole / "model/step-000003", cut / "model/step-000003")
    shutil.copy(whole / "model" / loop.METRICS, cut / "model")
    again = loop.build(settings, inputs, out)
    assert again.body["recorded"]["train"]["first_step"] == 3
    found = [
        [line["loss"] for line in updates(read_metrics(run / "model" / loop.METRICS))] for run in (whole, cut)
    ]
    assert len(found[0]) == 6 and found[1] == pytest.approx(found[0], rel=2e-2)
