"""Models: packed logits equal separate ones, folders open again, wrong settings are explained."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from token_arrays import TINY, VOCAB, documents, tiny_model

from taskmill import storage
from taskmill.errors import DamagedError, DataError, StorageError, UsageError
from taskmill.recipe import Architecture, Lora, Train
from taskmill.training.attention import isolation_check, packed_logits
from taskmill.training.batches import collate
from taskmill.training.model import add_lora, initial_model, load_model, located
from taskmill.training.packing import Packs
from taskmill.training.saving import save_model

CASES = [(a, m) for a in ("sdpa", "eager") for m in ("full", "lora")]


def largest_difference(model: Any, attention: str) -> float:
    """Packed logits against those of each document alone, over the tokens that carry loss."""
    arrays = documents([11, 17, 6, 23], trained_from=0)
    packs = Packs(np.array([0, 1, 2, 3]), np.array([0, 3, 4]))
    with torch.no_grad():
        got_NV, targets_N, _ = packed_logits(model, collate(arrays, packs, 0, 2, 0), attention)
        alone = []
        for start, end in zip(arrays.offsets[:-1], arrays.offsets[1:]):
            ids_T = torch.from_numpy(arrays.ids[start:end].astype(np.int64))
            alone.append(model(input_ids=ids_T[None], use_cache=False).logits[0, :-1])
            position = sum(len(a) for a in alone)
            assert torch.equal(targets_N[position - len(alone[-1]) : position], ids_T[1:])
    return float((got_NV - torch.cat(alone)).abs().max())


@pytest.mark.parametrize(("attention", "method"), CASES)
def test_packed_logits_equal_separate_ones(attention: str, method: str) -> None:
    model = tiny_model(attention, method).eval()
    assert largest_difference(model, attention) <= 1e-5
    assert isolation_check(model, attention, VOCAB) <= 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("attention", "method"), CASES)
def test_documents_are_isolated_on_a_gpu(attention: str, method: str) -> None:
    assert isolation_check(tiny_model(attention, method).cuda(), attention, VOCAB) <= 1e-4


SHAPE = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = [
    transformers.OPTConfig(**SHAPE, ffn_dim=64, word_embed_proj_dim=32),
    transformers.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2),
    transformers.Qwen2Config(**SHAPE, num_key_value_heads=1, intermediate_size=64),
    transformers.CohereConfig(**SHAPE, intermediate_size=64),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: str(c.model_type))
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_other_architectures_are_isolated_too(config: Any, attention: str) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    assert largest_difference(model, attention) <= 1e-5


def test_training_is_refused_where_documents_see_each_other() -> None:
    # `eager` adds a boolean mask as 0 and 1: the documents are not isolated, and nothing else says so.
    model = tiny_model("eager")
    with pytest.raises(UsageError, match=r"'sdpa'.*sees across.*train\.attention=eager"):
        isolation_check(model, "sdpa", VOCAB)
    assert model.training == tiny_model().training


def test_an_unknown_attention_is_refused() -> None:
    with pytest.raises(UsageError, match="'flash'"):
        isolation_check(tiny_model(), "flash", VOCAB)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (tiny_model(seed=s).state_dict() for s in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def named(folder: str, **settings: Any) -> Any:
    train = Train(model=folder, **settings)
    return initial_model(train, VOCAB, 64, pad_id=0, bos_id=1, eos_id=2, seed=0)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_saved_folder_opens_again(tmp_path: Path, method: str) -> None:
    model = tiny_model(method=method).eval()
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    save_model(model, tokenizer, tmp_path / "final")
    save_model(model, tokenizer, tmp_path / "final")
    base = tiny_model() if method == "lora" else None
    loaded = load_model(tmp_path / "final", base)
    ids = torch.arange(20)[None] % VOCAB
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, loaded(input_ids=ids).logits)
    assert (tmp_path / "final" / "tokenizer.json").read_text() == "{}"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["final", "tokenizer"]
    assert not list(tmp_path.rglob("*.bin"))
    text = (tmp_path / "final" / ("config.json" if method == "full" else "adapter_config.json")).read_text()
    assert str(tmp_path) not in text


def test_shared_weights_are_saved_once_and_tied_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[1]).eval()
    save_model(model, None, tmp_path / "final")
    loaded = load_model(tmp_path / "final")
    ids = torch.arange(9)[None]
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, loaded(input_ids=ids).logits, atol=1e-6)
    assert loaded.lm_head.weight.data_ptr() == loaded.transformer.wte.weight.data_ptr()


def test_a_named_model_is_loaded_in_fp32_with_the_recipes_dropout(tmp_path: Path) -> None:
    save_model(tiny_model().bfloat16(), None, tmp_path / "base")
    train = located(Train(model="base", dropout=0.25, attention="eager"), lambda name: tmp_path / name)
    model = initial_model(train, VOCAB, 64, pad_id=0, bos_id=1, eos_id=2, seed=0)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.attention_dropout == 0.25
    assert model.config._attn_implementation == "eager"
    assert located(Train(model="org/name"), lambda name: tmp_path / name).model == "org/name"


def test_embeddings_grow_with_the_tokenizer_and_equally_each_time(tmp_path: Path) -> None:
    save_model(tiny_model(), None, tmp_path / "base")
    train = Train(model=str(tmp_path / "base"))
    one, two = (initial_model(train, VOCAB + 5, 64, pad_id=0, bos_id=1, eos_id=2, seed=0) for _ in range(2))
    assert one.get_input_embeddings().num_embeddings == VOCAB + 5
    assert torch.equal(one.lm_head.weight, two.lm_head.weight)


def test_a_missing_model_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"train\.model.*no-such-folder.*config\.json.*hf download"):
        named(str(tmp_path / "no-such-folder"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"train\.model"):
        named(str(tmp_path / "empty"))


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    save_model(tiny_model(), None, tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "base" / "pytorch_model.bin")
    with pytest.raises(DataError, match="safetensors"):
        named(str(tmp_path / "base"))


def test_a_context_that_is_too_short_is_explained(tmp_path: Path) -> None:
    save_model(tiny_model(), None, tmp_path / "base")
    train = Train(model=str(tmp_path / "base"))
    with pytest.raises(DataError, match=r"context of 64 .*tokenize\.max_length=64"):
        initial_model(train, VOCAB, 65, pad_id=0, bos_id=1, eos_id=2, seed=0)


def test_an_architecture_that_does_not_fit_is_explained() -> None:
    train = Train(architecture=Architecture(hidden_size=30, num_heads=4))
    with pytest.raises(UsageError, match=r"hidden_size is 30.*\(8\)"):
        initial_model(train, VOCAB, 64, pad_id=0, bos_id=1, eos_id=2, seed=0)


def test_lora_targets_that_no_layer_has_are_explained() -> None:
    with pytest.raises(UsageError, match=r"query_key_value.*down_proj.*q_proj"):
        add_lora(tiny_model(), Lora(targets=("query_key_value",)), 0)


def test_lora_trains_the_adapters_only(caplog: pytest.LogCaptureFixture) -> None:
    model = add_lora(tiny_model(), Lora(rank=4), 0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    # per layer: q_proj and v_proj, each 4 x 32 down and 32 x 4 up
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == TINY.num_layers * 2 * 2 * 4 * 32


def test_a_damaged_folder_is_explained(tmp_path: Path) -> None:
    save_model(tiny_model(), None, tmp_path / "final")
    (tmp_path / "final" / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(DamagedError, match="final"):
        load_model(tmp_path / "final")
    save_model(tiny_model(method="lora"), None, tmp_path / "adapter")
    with pytest.raises(UsageError, match="needs the model"):
        load_model(tmp_path / "adapter")


def test_a_full_disk_leaves_the_earlier_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tiny_model(seed=1), None, tmp_path / "final")
    before = (tmp_path / "final" / "model.safetensors").read_bytes()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "_write", full)
    with pytest.raises(StorageError, match="No space left"):
        save_model(tiny_model(seed=2), None, tmp_path / "final")
    assert (tmp_path / "final" / "model.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["final"]


def test_config_names_the_class_that_reads_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "taskmill")
    save_model(tiny_model(), None, tmp_path / "final")
    config = json.loads((tmp_path / "final" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["vocab_size"] == VOCAB
