"""The loss and its gradient equal their formulas, however an update is packed and cut into forward passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from token_arrays import VOCAB, documents, tiny_model

from taskmill.training.packing.batches import Batch, collate
from taskmill.training.packing.packs import Packs
from taskmill.training.updating import objective
from taskmill.training.updating.attention import install
from taskmill.training.updating.objective import label_loss, packed_loss, step_weight

WEIGHTS = [1.0, 0.1, 1.0, 0.5, 2.0]
ARRAYS = documents([11, 4, 17, 6, 9], weights=WEIGHTS)
PACKED = Packs(np.arange(5), np.array([0, 2, 4, 5]))
WHOLE = [[0, 1, 2]]
CUTS = ([[0], [1], [2]], [[0, 1], [2]], WHOLE)


def batches(numbers: list[list[int]] = WHOLE, arrays: Any = ARRAYS) -> list[Batch]:
    """Forward passes of these packs."""
    return [collate(arrays, PACKED, np.array(some), 0) for some in numbers]


def packed(model: Any, attention: str, passes: list[Batch]) -> tuple[float, Any]:
    """Loss and gradient of an update."""
    model.zero_grad()
    weight, total = step_weight(passes), 0.0
    for batch in passes:
        loss = packed_loss(model, batch, attention) / weight
        loss.backward()
        total += float(loss.detach())
    return total, gradient(model)


def gradient(model: Any) -> Any:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def alone(model: Any, arrays: Any = ARRAYS) -> tuple[float, Any]:
    """Loss and gradient of each document in a pass of its own, from the model's whole logits, by torch alone."""
    model.zero_grad()
    terms, weight = [], 0.0
    for i in range(5):
        ids = torch.from_numpy(arrays.ids[arrays.offsets[i] : arrays.offsets[i + 1]].astype(np.int64))
        ids = ids.to(next(model.parameters()).device)
        logits = model(input_ids=ids[None], use_cache=False).logits[0].float()
        losses = torch.nn.functional.cross_entropy(
            logits[1:-1], ids[2:], reduction="none"
        )  # trained from 2 on
        terms.append(float(arrays.loss_weight[i]) * losses.sum())
        weight += float(arrays.loss_weight[i]) * len(losses)
    loss = torch.stack(terms).sum() / weight
    loss.backward()
    return float(loss.detach()), gradient(model)


def same(got: tuple[float, Any], expected: tuple[float, Any], tolerance: float = 1e-5) -> None:
    assert got[0] == pytest.approx(expected[0], rel=1e-6)
    assert float((got[1] - expected[1]).abs().max()) <= tolerance * max(1.0, float(expected[1].abs().max()))


def test_label_loss_equals_hand_computed_values() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    first = math.log(math.e + math.e**2 + 1) - 2.0
    expected = 1.0 * first + 0.1 * math.log(3)
    got = label_loss(logits, torch.tensor([1, 0]), torch.tensor([1.0, 0.1]))
    assert float(got) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("attention", ["documents", "sdpa", "eager"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_gradients_equal_those_of_documents_alone(
    attention: str, method: str, checkpointing: bool
) -> None:
    model = tiny_model("eager", method)
    expected = alone(model)
    install(model, attention)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if method == "lora":
            model.enable_input_require_grads()
        model.train()
    for numbers in CUTS if not checkpointing else CUTS[:1]:
        same(packed(model, attention, batches(numbers)), expected)


SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama-tied": lambda: transformers.LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "qwen2": lambda: transformers.Qwen2Config(**SHAPE),
    "qwen3": lambda: transformers.Qwen3Config(**SHAPE, head_dim=8),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**SIZES, intermediate_size=64),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2
    ),
    "mistral-window": lambda: transformers.MistralConfig(**SHAPE, sliding_window=6),
    "gemma2-window": lambda: transformers.Gemma2Config(
        **SHAPE,
        head_dim=8,
        sliding_window=6,
        query_pre_attn_scalar=8,
        attn_logit_softcapping=0.5,
        final_logit_softcapping=0.3,
    ),
    "cohere-scale": lambda: transformers.CohereConfig(
        **SHAPE, logit_scale=0.3, bos_token_id=1, eos_token_id=2
    ),
    "granite-scale": lambda: transformers.GraniteConfig(**SHAPE, logits_scaling=3.0),
    "phi-bias": lambda: transformers.PhiConfig(**SIZES, intermediate_size=64),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_other_models_have_the_gradients_of_documents_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = CONFIGS[name]()
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():  # large enough for caps to bend, and biases that are not 0
            parameter.add_(torch.randn_like(parameter) * 0.2)
    expected = alone(model)
    monkeypatch.setitem(objective.CHUNK_LOGITS, "cpu", 7 * VOCAB)
    for attention in ("documents", "auto"):
        used = install(model, attention)
        assert used == "documents"
        same(packed(model, used, batches(CUTS[1])), expected)
    assert not objective._OWN_LOGITS[model]


def test_logits_that_only_the_model_knows_are_left_to_it(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(transformers.LlamaForCausalLM):
        """Adds a slope to its logits that no configuration tells."""

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            found = super().forward(*args, **kwargs)
            found.logits = found.logits * torch.linspace(1, 3, VOCAB)
            return found

    torch.manual_seed(0)
    model = Odd(transformers.LlamaConfig(**SHAPE)).eval()
    expected = alone(model)
    attention = install(model, "documents")
    with caplog.at_level("INFO", logger="taskmill"):
        same(packed(model, attention, batches(CUTS[0])), expected)
    assert caplog.text.count("does more to its logits") == 1


def test_an_adapter_on_the_output_layer_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    import peft

    config = peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    torch.manual_seed(0)
    model = peft.get_peft_model(tiny_model("eager"), config).eval()
    expected = alone(model)
    attention = install(model, "documents")
    monkeypatch.setitem(objective.CHUNK_LOGITS, "cpu", 7 * VOCAB)
    same(packed(model, attention, batches(CUTS[1])), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("attention", ["documents", "flash", "flex", "sdpa", "eager"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_packed_gradients_on_a_gpu(attention: str, method: str) -> None:
    pytest.importorskip("flash_attn") if attention == "flash" else None
    model = tiny_model("eager", method).cuda()
    dtype = torch.bfloat16 if attention in ("documents", "flash") else torch.float32
    expected = alone(model)
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        install(model, attention, "bf16" if dtype == torch.bfloat16 else "fp32")
        loss, found = packed(model, attention, batches(CUTS[1]))
    scale = float(expected[1].abs().max())
    assert loss == pytest.approx(expected[0], rel=1e-2 if dtype == torch.bfloat16 else 1e-5)
    assert float((found - expected[1]).abs().max()) <= (0.05 if dtype == torch.bfloat16 else 1e-4) * scale


# --------------------------------------------------------------------------------------- C-RLFT's weights


def formula(model: Any, arrays: Any, weights: NDArray[Any]) -> float:
    """Sum of weight * -log p over sum of weights, in fp64, from each document's whole logits."""
    double, total, weight = model.double(), 0.0, 0.0
    for i in range(5):
        ids = arrays.ids[arrays.offsets[i] : arrays.offsets[i + 1]].astype(np.int64)
        with torch.no_grad():
            logits = double(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0].numpy()
        for t in range(2, len(ids)):
            log_p = logits[t - 1, ids[t]] - math.log(np.exp(logits[t - 1]).sum())
            total, weight = total - weights[i] * log_p, weight + weights[i]
    model.float()
    return float(total / weight)


@pytest.mark.parametrize("numbers", CUTS, ids=len)
def test_conditioned_weights_equal_the_formula_for_any_cut(numbers: list[list[int]]) -> None:
    weights = np.array([1.0, 0.1, 1.0, 0.1, 1.0])
    arrays = documents([11, 4, 17, 6, 9], weights=list(weights))
    model = tiny_model("documents").eval()
    loss, _ = packed(model, "documents", batches(numbers, arrays))
    assert loss == pytest.approx(formula(tiny_model("eager").eval(), arrays, weights), rel=1e-6)


def test_weights_of_one_are_label_loss() -> None:
    arrays = documents([11, 4, 17, 6, 9], weights=[1.0] * 5)
    same(
        packed(tiny_model("documents"), "documents", batches(CUTS[1], arrays)),
        alone(tiny_model("eager"), arrays),
    )
    expected = formula(tiny_model("eager").eval(), arrays, np.ones(5))
    assert packed(tiny_model("documents"), "documents", batches(WHOLE, arrays))[0] == pytest.approx(
        expected, abs=1e-6
    )


# ------------------------------------------------------------------------------------ chunks, empty batches


@pytest.mark.parametrize("method", ["full", "lora"])
def test_chunks_change_neither_loss_nor_gradient(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("documents", method)
    whole = packed(model, "documents", batches())
    for most in (VOCAB, 5 * VOCAB):
        monkeypatch.setitem(objective.CHUNK_LOGITS, "cpu", most)
        same(packed(model, "documents", batches()), whole, 1e-6)
    with torch.no_grad():
        loss = packed_loss(model, batches()[0], "documents")
    assert float(loss) / step_weight(batches()) == pytest.approx(whole[0], rel=1e-6)


def test_logits_are_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    shapes = objective._cross_entropy_

    def watched(logits_nV: Any, *rest: Any) -> Any:
        seen.append(logits_nV.numel())
        return shapes(logits_nV, *rest)

    monkeypatch.setattr(objective, "_cross_entropy_", watched)
    monkeypatch.setitem(objective.CHUNK_LOGITS, "cpu", 8 * VOCAB)
    packed(tiny_model("documents"), "documents", batches())
    assert (
        len(seen) == 5 and sum(seen) == 37 * VOCAB and max(seen) <= 8 * VOCAB
    )  # 37 = 47 tokens - 2 of each of 5


@pytest.mark.parametrize("attention", ["documents", "sdpa"])
def test_a_batch_without_targets_gives_zero_and_a_gradient_of_zeros(attention: str) -> None:
    model = tiny_model(attention)
    batch = collate(ARRAYS, PACKED, np.zeros(0, np.int64), 0)
    loss = packed_loss(model, batch, attention)
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_bf16_gradients_are_those_of_fp32_rounded() -> None:
    model = tiny_model("documents")
    expected = packed(model, "documents", batches())
    with torch.autocast("cpu", torch.bfloat16):
        loss, found = packed(model, "documents", batches())
    copies = tiny_model("documents").bfloat16()
    low, rounded = packed(copies, "documents", batches())
    for value, grads in ((loss, found), (low, rounded)):
        assert value == pytest.approx(expected[0], rel=1e-2)
        assert float((grads - expected[1]).norm() / expected[1].norm()) <= 0.02
