"""Adapters: what is trained, rows of new tokens, 4-bit bases; folders that plain peft and transformers open."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from token_arrays import TINY, VOCAB, documents, tiny_model

from taskmill.errors import MissingPackageError, UsageError
from taskmill.recipe import Lora, Train
from taskmill.recipe_values import find_problems
from taskmill.training.models import pretrained
from taskmill.training.models.adapters import add_lora, grow
from taskmill.training.models.model import dequantized, initial_model, load_model, new_ids, training_model
from taskmill.training.models.saving import restore_weights, save_model
from taskmill.training.packing.batches import collate
from taskmill.training.packing.packs import Packs
from taskmill.training.updating.attention import install
from taskmill.training.updating.update import Updater

OLD = VOCAB - 8
ADDED = {"<a>": VOCAB - 2, "<b>": OLD - 1}
"""A token beyond the rows of the base, and one in a row that it had and no token used."""
INFO = {"vocab_size": VOCAB, "max_length": 64, "pad_id": 0, "bos_id": 1, "eos_id": 2, "added_tokens": ADDED}
FRESH = [OLD - 1, *range(OLD, VOCAB)]
IDS = torch.arange(VOCAB)[None]
LORA = Lora(rank=4, dropout=0.0, targets=("q_proj", "v_proj"))


def save_base(folder: Path, tied: bool = False, hidden_size: int = 32) -> Path:
    """Save a base with rows for OLD ids."""
    shape = {
        "hidden_size": hidden_size,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = transformers.LlamaConfig(
        vocab_size=OLD, max_position_embeddings=64, tie_word_embeddings=tied, **shape
    )
    torch.manual_seed(0)
    save_model(transformers.AutoModelForCausalLM.from_config(config), None, folder)
    return folder


def train_some(model: Any, train: Train, folder: Path) -> Any:
    """Do three updates and save; returns the model in evaluation mode."""
    train = dataclasses.replace(train, attention=install(model, "auto", train.precision))
    updater = Updater(model, train)
    arrays = documents([11, 17, 6, 23])
    arrays.ids[[3, 13]] = sorted(ADDED.values())
    batch = collate(arrays, Packs(np.array([0, 1, 2, 3]), np.array([0, 3, 4])), [0, 1], 0)
    model.train()
    for _ in range(3):
        updater.update([batch], batch.weight, 0.02)
    with updater.whole():
        save_model(model, None, folder)
    return model.eval()


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits.float()


def base_of(train: Train) -> Any:
    ids = {key: INFO[key] for key in ("pad_id", "bos_id", "eos_id")}
    return initial_model(train, VOCAB, 64, **ids, seed=5, new_ids=new_ids(INFO))


def test_lora_trains_the_adapters_only() -> None:
    model = add_lora(tiny_model(), Lora(rank=4), 0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    # per layer: q_proj and v_proj, each 4 x 32 down and 32 x 4 up
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == TINY.num_layers * 2 * 2 * 4 * 32


def test_lora_targets_that_no_layer_has_are_explained() -> None:
    with pytest.raises(UsageError, match=r"query_key_value.*down_proj.*q_proj"):
        add_lora(tiny_model(), Lora(targets=("query_key_value",)), 0)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_new_rows_are_trained_saved_and_merged(tmp_path: Path, tied: bool) -> None:
    train = Train(model=str(save_base(tmp_path / "base", tied)), method="lora", lora=LORA)
    before = base_of(train)
    model = train_some(training_model(train, INFO, 5, "base"), train, tmp_path / "adapter")
    ours = load_model(tmp_path / "adapter", base_of(train))
    assert torch.equal(logits(model), logits(ours))

    from peft import PeftModel

    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    plain.resize_token_embeddings(VOCAB, mean_resizing=False)
    with pretrained.quiet():
        plain = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    assert torch.equal(logits(plain), logits(ours))

    expected, merged = logits(ours), ours.merge_and_unload()
    assert torch.allclose(logits(merged), expected, atol=1e-6)
    for now, then in (
        (merged.get_input_embeddings(), before.get_input_embeddings()),
        (merged.get_output_embeddings(), before.get_output_embeddings()),
    ):
        moved = (now.weight != then.weight).any(dim=1)
        assert not moved[: FRESH[0]].any() and moved[list(ADDED.values())].all()
    save_model(merged, None, tmp_path / "merged")
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert torch.allclose(logits(opened), expected, atol=1e-6)


def test_a_checkpoint_of_new_rows_goes_back_into_the_model(tmp_path: Path) -> None:
    train = Train(model=str(save_base(tmp_path / "base")), method="lora", lora=LORA)
    trained = train_some(training_model(train, INFO, 5, "base"), train, tmp_path / "adapter")
    again = training_model(train, INFO, 6, "base").eval()
    assert not torch.equal(logits(again), logits(trained))
    restore_weights(again, tmp_path / "adapter")
    assert torch.equal(logits(again), logits(trained))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_new_rows_begin_as_the_mean_of_the_old(tmp_path: Path, method: str) -> None:
    train = Train(model=str(save_base(tmp_path / "base")), method=method, lora=LORA)
    old = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = training_model(train, INFO, 5, "base")
    for now, then in (
        (model.get_input_embeddings(), old.get_input_embeddings()),
        (model.get_output_embeddings(), old.get_output_embeddings()),
    ):
        assert now.weight.shape[0] == VOCAB
        assert torch.equal(now.weight[: FRESH[0]], then.weight[: FRESH[0]])
        mean = then.weight[: FRESH[0]].mean(dim=0).expand(len(FRESH), -1)
        assert torch.allclose(now.weight[FRESH], mean, atol=1e-6)
    assert method == "full" or {n.split(".")[-3] for n, p in model.named_parameters() if p.requires_grad} == {
        "lora_A", "lora_B", "token_adapter"
    }  # fmt: skip


def test_a_model_with_more_rows_than_ids_keeps_them() -> None:
    model = tiny_model()
    weight = model.get_input_embeddings().weight.detach().clone()
    assert grow(model, VOCAB - 5, []) == [] and grow(model, VOCAB - 5, [VOCAB - 6]) == [VOCAB - 6]
    changed = (model.get_input_embeddings().weight != weight).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [VOCAB - 6]


def test_an_output_layer_with_biases_is_refused_for_new_tokens() -> None:
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "rotary_dim": 8}
    model = transformers.AutoModelForCausalLM.from_config(transformers.GPTJConfig(vocab_size=VOCAB, **shape))
    with pytest.raises(UsageError, match=r"output layer of GPTJ.*biases.*method=full.*add_tokens=false"):
        add_lora(model, LORA, 0, new_ids=[3])


def test_the_base_is_named_as_other_machines_know_it(tmp_path: Path) -> None:
    for name, expected in (
        ("org/base", "org/base"),
        ("../base", "../base"),
        (str(tmp_path / "base"), "base"),
    ):
        model = add_lora(tiny_model(), LORA, 0, name, revision="abc")
        save_model(model, None, tmp_path / "adapter")
        config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["revision"]) == (expected, "abc")


# ------------------------------------------------------------------------------------------ 4-bit bases


@pytest.fixture
def four_bits(tmp_path: Path) -> Train:
    """Settings with a base in 4 bits."""
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'taskmill[quantize]'")
    base = save_base(tmp_path / "base", hidden_size=64)
    return Train(model=str(base), method="lora", lora=LORA, quantization="4bit")


def test_a_base_in_4_bits_is_trained_loaded_again_and_merged(tmp_path: Path, four_bits: Train) -> None:
    model = training_model(four_bits, INFO, 5, "base")
    linear = model.get_base_model().model.layers[0].mlp.up_proj.weight
    assert linear.dtype == torch.uint8 and linear.numel() == 64 * 64 // 2
    assert model.get_base_model().model.norm.weight.dtype == torch.float32
    before = logits(model)
    model = train_some(model, four_bits, tmp_path / "adapter")
    assert (logits(model) - before).abs().max() > 0.01
    ours = load_model(tmp_path / "adapter", base_of(four_bits))
    assert torch.equal(logits(model), logits(ours))
    merged = load_model(tmp_path / "adapter", dequantized(base_of(four_bits))).merge_and_unload()
    assert torch.allclose(logits(merged), logits(ours), atol=1e-5)


def test_bf16_in_4_bits_stays_near(tmp_path: Path, four_bits: Train) -> None:
    train = dataclasses.replace(four_bits, precision="bf16")
    model = train_some(training_model(train, INFO, 5, "base"), train, tmp_path / "adapter")
    assert torch.allclose(logits(model), logits(load_model(tmp_path / "adapter", base_of(train))), atol=0.02)


def test_without_bitsandbytes_the_extra_is_named(four_bits: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingPackageError, match=r"train\.quantization: 4bit.*taskmill\[quantize\]"):
        training_model(four_bits, INFO, 5, "base")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"method": "full", "model": "base"}, r"given with train\.method = 'full'; expected lora"),
        ({"method": "lora", "model": "base", "weights": "random"}, r"train\.weights = 'random'; expected pretrained"),
        ({"method": "lora"}, r"given without train\.model"),
    ],
    ids=["full", "random", "unnamed"],
)  # fmt: skip
def test_4_bits_without_frozen_weights_of_a_base_are_refused(train: dict[str, str], message: str) -> None:
    found = dict(find_problems({"train": {"quantization": "4bit", **train}}))
    assert re.search(message, found["train", "quantization"])


def test_4_bits_of_a_base_are_accepted() -> None:
    train = {"quantization": "4bit", "method": "lora", "model": "base"}
    assert not [where for where, _ in find_problems({"train": train}) if where[0] == "train"]
