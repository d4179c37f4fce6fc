"""FLOPs against sums by hand and against torch's own counter; rates; the meter."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from token_arrays import TINY, VOCAB, tiny_model

from taskmill.recipe import Lora, Train
from taskmill.training.models.adapters import add_lora
from taskmill.training.models.model import initial_model
from taskmill.training.monitoring.throughput import (
    Meter,
    attended_pairs,
    document_lengths,
    matmul_rate,
    model_flops,
    model_shape,
)
from taskmill.training.packing.batches import Batch
from taskmill.training.updating.attention import install


def batch_of(*rows: list[int], targets: int = 2, width: int = 16) -> Batch:
    """Packs of documents of these lengths; the last `targets` tokens but one of each carry loss, the rest is padding."""
    shape = (len(rows), width)
    arrays = {name: np.zeros(shape, np.int64) for name in ("ids", "positions", "documents", "targets")}
    weights = np.zeros(shape, np.float32)
    for b, lengths in enumerate(rows):
        at = 0
        for number, length in enumerate(lengths):
            arrays["positions"][b, at : at + length] = np.arange(length)
            arrays["documents"][b, at : at + length] = number
            weights[b, at + length - 1 - targets : at + length - 1] = 1.0
            at += length
        arrays["positions"][b, at:] = np.arange(width - at)
        arrays["documents"][b, at:] = len(lengths)
    fields = {f"{name}_BT": array for name, array in arrays.items()}
    return make_batch(fields, weights, sum(map(sum, rows)))


def make_batch(fields: dict[str, Any], weights: Any, num_tokens: int) -> Batch:
    return Batch(**fields, weights_BT=weights, num_tokens=num_tokens)


def test_lengths_of_documents_leave_padding_out() -> None:
    assert document_lengths(batch_of([5, 4, 7], [6])).tolist() == [5, 4, 7, 6]
    assert document_lengths(batch_of([16], [8, 8])).tolist() == [16, 8, 8]


def test_a_small_llama_by_hand() -> None:
    # 2 layers of width 32, feed-forward 64, 2 heads of 16: matrices of 4 * 32 * 32 and 3 * 32 * 64 parameters a layer
    parameters = 2 * (4 * 32 * 32 + 3 * 32 * 64)
    batch = batch_of([5, 4, 7], [6], targets=3)
    weights = 6 * parameters * (5 + 4 + 7 + 6)
    attention = 12 * 2 * 32 * (25 + 16 + 49 + 36) / 2
    logits = 6 * 32 * VOCAB * (4 * 3)
    assert model_flops(tiny_model(), batch) == weights + attention + logits
    one = batch_of([16], targets=1)
    two = batch_of([8, 8], targets=1)
    assert model_flops(tiny_model(), one) - model_flops(tiny_model(), two) == pytest.approx(
        12 * 2 * 32 * (256 - 128) / 2 - 6 * 32 * VOCAB
    )


def test_frozen_weights_have_no_gradient_of_their_own() -> None:
    frozen, adapters = 2 * (4 * 32 * 32 + 3 * 32 * 64), 2 * 2 * (4 * 32 + 32 * 4)
    shape = model_shape(tiny_model(method="lora"))
    assert shape.weight_flops == 4 * frozen + 6 * adapters
    assert shape.logit_flops == 4 * 32 * VOCAB
    assert shape.attention_widths == ((32, None), (32, None))


@pytest.mark.parametrize(
    ("name", "changes", "layer"),
    [
        # grouped queries: keys and values of one head for four; tied output layer
        ("Llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}, 2 * 32 * 32 + 2 * 32 * 8 + 3 * 32 * 48),
        # heads wider than hidden / heads
        ("Qwen3", {"head_dim": 16, "num_key_value_heads": 2}, 2 * 32 * 64 + 2 * 32 * 32 + 3 * 32 * 48),
        # two of eight experts, and the router
        ("Mixtral", {"num_local_experts": 8, "num_experts_per_tok": 2}, 2 * 32 * 32 + 2 * 32 * 16 + 2 * 3 * 32 * 48 + 8 * 32),
    ],
)  # fmt: skip
def test_other_architectures_by_hand(name: str, changes: dict[str, Any], layer: int) -> None:
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    config = getattr(transformers, f"{name}Config")(**(sizes | changes))
    model = transformers.AutoModelForCausalLM.from_config(config)
    shape = model_shape(model)
    assert shape.weight_flops == 6 * 3 * layer
    assert shape.logit_flops == 6 * 32 * VOCAB
    assert shape.attention_widths == ((4 * changes.get("head_dim", 8), None),) * 3


def test_learned_positions_are_embeddings() -> None:
    config = transformers.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    shape = model_shape(transformers.GPT2LMHeadModel(config))
    assert shape.weight_flops == 6 * 2 * 12 * 32 * 32
    assert shape.attention_widths == ((32, None), (32, None))


def test_a_window_bounds_what_a_token_attends_to() -> None:
    lengths = np.array([4.0, 10.0])
    assert attended_pairs(lengths) == 8 + 50
    assert attended_pairs(lengths, 4) == 8 + (4 * 4 / 2 + 6 * 4)
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 5}
    config = transformers.Gemma3TextConfig(**sizes, layer_types=["sliding_attention", "full_attention"])
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert model_shape(model).attention_widths == ((32, 5), (32, None))


def test_torch_counts_the_same_products() -> None:
    """Torch's counter sees whole rows of attention, and matrices only: one document, no causal half."""
    from torch.utils.flop_counter import FlopCounterMode

    model, length = tiny_model("eager"), 12
    ids = torch.arange(length)[None] % VOCAB
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids=ids, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).backward()
    shape = model_shape(model)
    full = sum(12 * width * length**2 for width, _ in shape.attention_widths)
    expected = shape.weight_flops * length + full + shape.logit_flops * length
    # rotary angles are a product too, of one column; the first layer's input needs no gradient of its own
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)
    packed = batch_of([length], targets=length - 1, width=length)
    assert model_flops(model, packed) == pytest.approx(expected - full / 2 - shape.logit_flops)


def test_torch_counts_the_same_products_of_frozen_weights() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    train = Train(architecture=dataclasses.replace(TINY, num_layers=8))
    model = initial_model(train, VOCAB, 64, pad_id=0, bos_id=1, eos_id=2, seed=3)
    install(model, "eager")
    model, length = add_lora(model, Lora(rank=4, dropout=0.0), 3), 16
    ids = torch.arange(length)[None] % VOCAB
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    shape = model_shape(model)
    full = sum(12 * width * length**2 for width, _ in shape.attention_widths)
    expected = shape.weight_flops * length + full + shape.logit_flops * length
    assert 0.95 * expected < counter.get_total_flops() <= expected * 1.001


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_rate_of_a_device_is_measured_within_bounds(precision: str) -> None:
    import time

    before = torch.get_rng_state()
    started = time.monotonic()
    rate = matmul_rate("cpu", precision)
    assert time.monotonic() - started < 8
    assert 1e8 < rate < 1e14
    assert torch.equal(torch.get_rng_state(), before)


def test_the_meter_adds_up() -> None:
    model, batch = tiny_model(), batch_of([5, 4], [6])
    flops = model_flops(model, batch)
    meter = Meter(model, rate=1e6, window=2)
    assert meter.total().tokens_per_second == 0
    for seconds in (4.0, 1.0, 1.0):
        meter.add([batch, batch], seconds)
    assert meter.recent().tokens_per_second == 30
    assert meter.total().tokens_per_second == 15
    assert meter.recent().mfu == pytest.approx(2 * flops / 1e6)
    assert meter.total().mfu == pytest.approx(flops / 1e6)
    assert Meter(model, None).recent().mfu is None
    meter.add([], 1.0, num_tokens=100)  # a process without a pack of its own
    assert meter.recent().tokens_per_second == (30 + 100) / 2


@pytest.mark.gpu
def test_the_rate_of_a_gpu_is_plausible() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    assert matmul_rate("cuda", "bf16") > 1e13
