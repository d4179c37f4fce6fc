"""One update: fp32 weights behind working copies, clipping, decay, fp16's scale, and what is done when numbers go wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from token_arrays import documents, tiny_model

from taskmill.errors import TaskmillError
from taskmill.recipe import Train
from taskmill.training.packing.batches import collate
from taskmill.training.packing.packs import pack
from taskmill.training.updating import update
from taskmill.training.updating.update import Updater

TRAIN = Train(learning_rate=1e-2, attention="sdpa", max_gradient_norm=0.0)
ARRAYS = documents([11, 4, 17, 6, 9, 13], [1, 1, 0.1, 1, 2, 1])
PACKS = pack(ARRAYS.lengths, 30, 6, 0)
BATCH = collate(ARRAYS, PACKS, range(PACKS.num_packs), 0)


def updater_of(method: str = "full", device: Any = "cpu", **change: Any) -> Updater:
    train = dataclasses.replace(TRAIN, method=method, **change)
    return Updater(tiny_model(method=method).train(), train, device=device)


def learns(updater: Updater) -> list[float]:
    """Losses of eight updates on one batch."""
    updater._scale = min(updater._scale, 2.0**8)  # so low that nothing overflows
    return [updater.update([BATCH], BATCH.weight, 3e-3).loss for _ in range(8)]


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_learn_as_fp32_does(precision: str, method: str) -> None:
    low, high = updater_of(method, precision=precision), updater_of(method)
    assert learns(low) == pytest.approx(learns(high), abs=0.04)
    assert {w.dtype for w in low.weights.values()} == {torch.float32}
    assert {p.dtype for p in low.model.parameters()} == {update.WORKING_TYPES[precision]}
    assert {v.dtype for v in low.moments().values()} == {torch.float32}
    named = dict(low.model.named_parameters())
    for name, weight in low.weights.items():
        assert torch.equal(named[name], weight.to(named[name].dtype))
    with low.whole():
        assert all(torch.equal(named[name], weight) for name, weight in low.weights.items())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_gradients_of_forward_passes_add_up_in_fp32(precision: str) -> None:
    one, many = updater_of(precision=precision), updater_of(precision=precision)
    passes = [collate(ARRAYS, PACKS, [number], 0) for number in range(PACKS.num_packs)]
    empty = collate(ARRAYS, PACKS, [], 0)
    done = [one.update([BATCH], BATCH.weight, 1e-2), many.update([*passes, empty], BATCH.weight, 1e-2)]
    assert len(passes) > 1 and done[0].loss == pytest.approx(done[1].loss, rel=1e-3)
    assert done[0].gradient_norm == pytest.approx(
        done[1].gradient_norm, rel=1e-5 if precision == "fp32" else 2e-2
    )


def test_activations_computed_again_give_the_same_losses() -> None:
    for method in ("full", "lora"):
        assert learns(updater_of(method, activation_checkpointing=True)) == pytest.approx(
            learns(updater_of(method))
        )


def test_matrices_decay_and_norms_do_not() -> None:
    updater = updater_of(weight_decay=0.5)
    before = {name: weight.detach().clone() for name, weight in updater.weights.items()}
    for weight in updater.weights.values():
        weight.grad = torch.zeros_like(weight)
    for group in updater.optimizer.param_groups:
        group["lr"] = 0.1
        assert (group["eps"], group["betas"], group["fused"]) == (TRAIN.epsilon, TRAIN.betas, True)
    updater.optimizer.step()
    for name, weight in updater.weights.items():
        factor = 0.95 if weight.dim() > 1 else 1.0
        assert torch.allclose(weight, factor * before[name]), name


def test_gradients_are_clipped_to_a_norm_and_told_before_it() -> None:
    free, held = updater_of(), updater_of(max_gradient_norm=1e-3)
    done = [u.update([BATCH], BATCH.weight, 0.0) for u in (free, held)]
    assert done[0] == done[1] and done[0].gradient_norm > 0.1
    moments = held.moments()
    squares = sum(float((v / 0.1).square().sum()) for k, v in moments.items() if k.startswith("exp_avg/"))
    assert squares**0.5 == pytest.approx(1e-3, rel=1e-3)


def test_an_overflow_of_fp16_leaves_the_weights_and_halves_the_scale() -> None:
    updater = updater_of(precision="fp16")
    updater._scale = 2.0**40
    before = {name: weight.detach().clone() for name, weight in updater.weights.items()}
    done = updater.update([BATCH], BATCH.weight, 1e-2)
    assert done.skipped and done.loss > 0
    assert all(torch.equal(weight, before[name]) for name, weight in updater.weights.items())
    assert updater.scaling() == {"scale": 2.0**39, "updates": 0}
    updater._scale = 2.0**10
    assert not updater.update([BATCH], BATCH.weight, 1e-2).skipped
    assert updater.scaling() == {"scale": 2.0**10, "updates": 1}
    updater._updates_at_scale = update.GROWTH_UPDATES - 1
    updater.update([BATCH], BATCH.weight, 1e-2)
    assert updater.scaling() == {"scale": 2.0**11, "updates": 0}


def test_gradients_that_overflow_at_any_scale_stop_the_training() -> None:
    updater = updater_of(precision="fp16")
    updater._scale = update.LEAST_SCALE
    updater._rescale(True)
    with pytest.raises(TaskmillError, match=r"train\.precision=bf16"):
        updater._rescale(False)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_loss_that_is_no_number_stops_before_the_weights_change(precision: str) -> None:
    updater = updater_of(precision=precision)
    with torch.no_grad():
        updater.model.get_output_embeddings().weight[3, 0] = float("nan")
    name = "model.layers.0.mlp.up_proj.weight"
    before = updater.weights[name].detach().clone()
    with pytest.raises(TaskmillError, match="the loss is nan"):
        updater.update([BATCH], BATCH.weight, 1e-2)
    assert torch.equal(updater.weights[name], before)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_gpu_learns_as_a_cpu_does(method: str, precision: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    there = updater_of(method, "cuda", precision=precision)
    assert learns(there) == pytest.approx(learns(updater_of(method)), abs=0.04)
    assert {w.device.type for w in there.weights.values()} == {"cuda"}
