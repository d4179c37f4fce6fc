"""Each implementation keeps documents apart, `auto` takes one that does, and what does not is refused."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from token_arrays import VOCAB, documents, tiny_model

from taskmill.errors import UsageError
from taskmill.training.packing.batches import collate
from taskmill.training.packing.packs import Packs
from taskmill.training.updating import kernels
from taskmill.training.updating.attention import install, isolation_check, lay_out, packed_logits
from taskmill.training.updating.kernels import REGISTERED, Documents

SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2}


def made(config: Any) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def lengths_like_real_ones(number: int, longest: int) -> list[int]:
    """Lengths between 1 and `longest`, most of them short."""
    return [1 + (i * i * 7 + i) % (longest if i % 5 == 0 else longest // 5) for i in range(number)]


@pytest.mark.parametrize("heads", [4, 2, 1], ids=lambda n: f"{n}-key-heads")
@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("cap", [None, 0.5])
@pytest.mark.parametrize("name", ["documents", "flex"])
def test_kernels_equal_attention_written_out(
    name: str, heads: int, window: int | None, cap: float | None
) -> None:
    torch.manual_seed(0)
    lengths = lengths_like_real_ones(9, 30)
    total = sum(lengths)
    query, key, value = (torch.randn(1, n, total, 8) for n in (4, heads, heads))
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    compute = kernels._documents if name == "documents" else kernels._flex
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # flex says that it is slow without a compiler
        got = compute(query, key, value, Documents(tuple(lengths), offsets), 0.0, 0.4, window, cap)
    number_T = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    apart = torch.arange(total)[:, None] - torch.arange(total)
    allowed = (number_T[:, None] == number_T) & (apart >= 0) & (apart < (window or total))
    scores = query @ key.repeat_interleave(4 // heads, 1).transpose(2, 3) * 0.4
    scores = cap * torch.tanh(scores / cap) if cap else scores
    shares = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    assert float((got - shares @ value.repeat_interleave(4 // heads, 1)).abs().max()) <= 2e-6


def test_dropout_drops_that_share_of_the_attention() -> None:
    torch.manual_seed(0)
    query, value = torch.zeros(1, 400, 10, 8), torch.ones(1, 400, 10, 8)
    for cap in (None, 1.0):
        pack = Documents((4, 6), torch.tensor([0, 4, 10]))
        out = kernels._documents(query, query, value, pack, 0.25, 1.0, None, cap)
        assert float(out.mean()) == pytest.approx(1.0, abs=0.05)  # what is kept is scaled up
        assert float((out[0, :, 4, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.07)  # a first token


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("attention", ["documents", "sdpa", "eager"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_documents_are_isolated(attention: str, method: str, precision: str) -> None:
    model = tiny_model(attention, method)
    assert isolation_check(model, attention, VOCAB, precision) <= 1e-5
    assert model.training == tiny_model().training


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("attention", ["auto", "documents", "flash", "flex", "sdpa", "eager"])
def test_documents_are_isolated_on_a_gpu(attention: str, precision: str) -> None:
    if attention == "flash" and not (kernels.has_flash() and precision == "bf16"):
        pytest.skip("flash needs its package and half precision")
    model = tiny_model("eager").cuda()
    isolation_check(model, install(model, attention, precision), VOCAB, precision)


def test_weights_in_16_bits_are_checked_as_they_are() -> None:
    model = tiny_model("documents").bfloat16()
    assert isolation_check(model, "documents", VOCAB) == 0.0
    install(model, "eager")
    with pytest.raises(UsageError, match="sees across"):  # eager reads a boolean mask as numbers
        isolation_check(model, "sdpa", VOCAB)


WINDOWS = {
    "mistral": lambda: transformers.MistralConfig(**SHAPE, sliding_window=6),
    "qwen2": lambda: transformers.Qwen2Config(
        **SHAPE, use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **SHAPE, head_dim=8, sliding_window=6, query_pre_attn_scalar=8
    ),
}


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("attention", ["documents", "sdpa", "eager"])
def test_layers_keep_their_window(name: str, attention: str) -> None:
    model = made(WINDOWS[name]())
    install(model, attention)
    assert isolation_check(model, attention, VOCAB) <= 1e-5
    arrays = documents([11, 17, 6, 23], trained_from=0)
    with torch.no_grad():
        batch = collate(arrays, Packs(np.arange(4), np.array([0, 3, 4])), np.array([0, 1]), 0)
        got_NV, _, _ = packed_logits(model, batch, attention)
        install(model, "eager")
        ids = [arrays.ids[a:b].astype(np.int64) for a, b in zip(arrays.offsets[:-1], arrays.offsets[1:])]
        alone = [model(input_ids=torch.from_numpy(i)[None], use_cache=False).logits[0, :-1] for i in ids]
    assert float((got_NV - torch.cat(alone)).abs().max()) <= 1e-5


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (transformers.LlamaConfig(**SHAPE), "documents"),
        (transformers.OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=32), "documents"),
        (
            transformers.GPTJConfig(vocab_size=VOCAB, n_embd=32, n_layer=1, n_head=2, rotary_dim=8, **TOKENS),
            "eager",
        ),
        (
            transformers.Llama4TextConfig(
                **SHAPE, head_dim=8, attention_chunk_size=6, num_local_experts=2, intermediate_size_mlp=64
            ),
            "sdpa",  # its chunks of 6 tokens are in its masks alone
        ),
    ],
    ids=["llama", "opt", "gptj", "llama4"],
)
def test_auto_takes_the_fastest_that_keeps_documents_apart(
    config: Any, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = made(config)
    with caplog.at_level(logging.INFO, logger="taskmill"):
        assert install(model, "auto") == expected
    assert ("attention documents is passed over" in caplog.text) == (expected != "documents")
    assert isolation_check(model, expected, VOCAB) <= 1e-5


def test_a_model_that_no_attention_keeps_apart_is_refused() -> None:
    model = made(transformers.BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=1, n_head=2))
    with pytest.raises(UsageError, match=r"(?s)BloomForCausalLM keeps.*documents:.*sdpa:.*eager:"):
        install(model, "auto")
    with pytest.raises(UsageError, match=r"BloomForCausalLM does not take train\.attention=documents"):
        install(model, "documents")


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="'auto', 'documents', 'flash'"):
        install(tiny_model(), "fast")
    with pytest.raises(UsageError, match="no gradient on a CPU"):
        install(tiny_model(), "flex")
    if not kernels.has_flash():
        with pytest.raises(UsageError, match="flash-attn is not installed"):
            install(tiny_model(), "flash")


def test_inputs_that_the_model_reads_otherwise_are_found_out() -> None:
    model = tiny_model("eager")
    with pytest.raises(UsageError, match=r"'documents'.*sees across.*train\.attention=sdpa"):
        isolation_check(model, "documents", VOCAB)  # the model has `eager`, which takes no documents


def test_padding_is_not_computed() -> None:
    arrays = documents([11, 4, 17])
    batch = collate(arrays, Packs(np.arange(3), np.array([0, 1, 3])), np.array([0, 1]), 0)
    inputs = lay_out(tiny_model("documents"), batch, "documents")
    assert batch.ids_BT.shape == (2, 21) and inputs.arguments["input_ids"].shape == (1, 32)
    assert inputs.arguments["documents"].lengths == (11, 4, 17)
    assert inputs.arguments["documents"].offsets.tolist() == [0, 11, 15, 32]
    ids = inputs.arguments["input_ids"][0]
    assert torch.equal(ids[inputs.chosen_N + 1], inputs.targets_N)


def test_the_name_of_an_implementation_is_in_no_saved_configuration(tmp_path: Path) -> None:
    model = tiny_model("documents")
    model.config.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert json.loads(text)["vocab_size"] == VOCAB
    assert not any(name in text for name in REGISTERED.values())


def test_a_call_without_packs_is_plain_attention() -> None:
    model, ids = tiny_model("documents").eval(), torch.arange(40).reshape(2, 20) % VOCAB
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    with torch.no_grad():
        got = model(input_ids=ids, attention_mask=mask).logits
        install(model, "eager")
        expected = model(input_ids=ids, attention_mask=mask).logits
    assert float((got - expected)[mask.bool()].abs().max()) <= 1e-5
