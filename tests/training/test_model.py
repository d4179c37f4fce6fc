"""Models: weights from a seed, a shape or a checkpoint; dropout; folders open again; wrong settings are explained."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from token_arrays import TINY, VOCAB, tiny_model

from taskmill import storage
from taskmill.errors import DamagedError, DataError, StorageError, UsageError
from taskmill.recipe import Architecture, Lora, Train
from taskmill.training.models.adapters import add_lora
from taskmill.training.models.dropout import PLACES, dropout_deviations, set_dropout
from taskmill.training.models.model import count_parameters, initial_model, load_model, training_model
from taskmill.training.models.saving import save_model

INFO = {"vocab_size": VOCAB, "max_length": 64, "pad_id": 0, "bos_id": 1, "eos_id": 2}

SHAPE = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
OPT = transformers.OPTConfig(**SHAPE, ffn_dim=64, word_embed_proj_dim=32)
GPT2 = transformers.GPT2Config(
    vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2
)
NEOX = transformers.GPTNeoXConfig(**SHAPE, intermediate_size=64)
LLAMA = transformers.LlamaConfig(**SHAPE, intermediate_size=64, max_position_embeddings=64)


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
    model = transformers.AutoModelForCausalLM.from_config(GPT2).eval()
    save_model(model, None, tmp_path / "final")
    loaded = load_model(tmp_path / "final")
    ids = torch.arange(9)[None]
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, loaded(input_ids=ids).logits, atol=1e-6)
    assert loaded.lm_head.weight.data_ptr() == loaded.transformer.wte.weight.data_ptr()


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [({}, torch.float32), ({"precision": "bf16"}, torch.float32), ({"method": "lora"}, torch.float32),
     ({"method": "lora", "precision": "bf16"}, torch.bfloat16), ({"method": "lora", "precision": "fp16"}, torch.float16)],
    ids=lambda value: str(value).translate(str.maketrans("", "", "{}' ")),
)  # fmt: skip
def test_a_checkpoint_is_held_in_the_type_that_training_needs(
    tmp_path: Path, settings: dict[str, Any], dtype: Any
) -> None:
    save_model(tiny_model().bfloat16(), None, tmp_path / "base")
    train = Train(model=str(tmp_path / "base"), dropout=0.25, attention="eager", **settings)
    model = training_model(train, INFO, 0, "base")
    frozen = {p.dtype for n, p in model.named_parameters() if "lora_" not in n}
    assert frozen == {dtype} and model.config.attention_dropout == 0.25
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert model.config._attn_implementation == "sdpa"  # `attention.install` switches it
    again = named(str(tmp_path / "base"), **settings)
    assert {p.dtype for p in again.parameters()} == {torch.float32}


def test_weights_that_lora_rounds_are_the_same_in_evaluation(tmp_path: Path) -> None:
    save_model(tiny_model(), None, tmp_path / "base")
    train = Train(model=str(tmp_path / "base"), method="lora", precision="bf16")
    trained = training_model(train, INFO, 0, "base").get_output_embeddings().weight
    again = named(str(tmp_path / "base"), method="lora", precision="bf16").get_output_embeddings().weight
    assert again.dtype == torch.float32 and torch.equal(trained.float(), again)


def test_weights_are_made_from_a_configuration_and_the_seed(tmp_path: Path) -> None:
    GPT2.save_pretrained(tmp_path / "shape")
    train = Train(model=str(tmp_path / "shape"), weights="random", dropout=0.5)
    one, same, other = (training_model(train, INFO, seed, None).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["transformer.wte.weight"], other["transformer.wte.weight"])


def test_no_token_but_padding_is_left_untrained(tmp_path: Path) -> None:
    """OPT's embeddings leave the row of its padding id out of training: it must be the tokenizer's."""
    OPT.save_pretrained(tmp_path / "shape")
    assert OPT.pad_token_id == 1
    for pad_id, expected in ((0, 0), (2, None)):
        train = Train(model=str(tmp_path / "shape"), weights="random")
        model = training_model(train, {**INFO, "pad_id": pad_id}, 0, None)
        assert model.get_input_embeddings().padding_idx == expected
        assert (model.config.bos_token_id, model.config.eos_token_id) == (1, 2)


def test_parameters_are_counted_without_weights(tmp_path: Path) -> None:
    """Vicuna-13B: 40 layers of width 5120; LoRA of rank 8 on q and v, 2 x 40 x 2 x 5120 x 8 = 6.55 M."""
    shape = {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    }
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 32000, **shape}))
    train = Train(model=str(tmp_path / "config.json"), method="lora", precision="bf16", quantization="4bit")
    assert count_parameters(train) == (13_015_864_320 + 6_553_600, 6_553_600)
    more = count_parameters(train, vocab_size=32_001)
    # a new token: a row in the embeddings and one in the output layer, each with the copy that is trained
    assert more == (13_022_417_920 + 4 * 5120, 6_553_600 + 2 * 5120)
    assert count_parameters(Train(architecture=TINY), VOCAB)[0] == sum(
        p.numel() for p in tiny_model().parameters()
    )


DROPOUT = [
    (LLAMA, {"attention_dropout"}, {"residual connections", "embeddings"}),
    (OPT, {"attention_dropout", "dropout"}, {"embeddings"}),
    (GPT2, {"attn_pdrop", "resid_pdrop", "embd_pdrop"}, set()),
    (NEOX, {"attention_dropout", "hidden_dropout"}, set()),
]


@pytest.mark.parametrize(("config", "keys", "lacking"), DROPOUT, ids=[c.model_type for c, _, _ in DROPOUT])
def test_dropout_is_set_wherever_a_model_has_it_and_missed_where_not(
    tmp_path: Path, config: Any, keys: set[str], lacking: set[str]
) -> None:
    config.save_pretrained(tmp_path / "shape")
    train = Train(model=str(tmp_path / "shape"), weights="random", dropout=0.125)
    model = training_model(train, INFO, 0, None)
    assert {key: getattr(model.config, key) for key in keys} == dict.fromkeys(keys, 0.125)
    expected = [
        f"train.dropout 0.125: {type(model).__name__} has none on its {p}" for p in PLACES if p in lacking
    ]
    assert dropout_deviations(model, 0.125) == expected
    assert (
        dropout_deviations(add_lora(model, Lora(targets=(LINEAR[config.model_type],)), 0), 0.125) == expected
    )
    assert dropout_deviations(model, 0.0) == []


LINEAR = {"llama": "q_proj", "opt": "q_proj", "gpt2": "c_attn", "gpt_neox": "query_key_value"}


@pytest.mark.parametrize(("config", "keys", "lacking"), DROPOUT, ids=[c.model_type for c, _, _ in DROPOUT])
def test_the_table_of_places_is_what_the_models_do(config: Any, keys: set[str], lacking: set[str]) -> None:
    """With dropout 1 on the embeddings nothing of them is left: the first layer sees zeros."""
    copy = type(config).from_dict(config.to_dict())
    set_dropout(copy, 0.999)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(copy, attn_implementation="eager").train()
    seen: list[Any] = []
    first = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))[0]
    first.register_forward_pre_hook(
        lambda _, given, named: seen.append((*given, *named.values())[0]), with_kwargs=True
    )
    model(input_ids=torch.arange(40)[None], use_cache=False)
    share_of_zeros = float((seen[0] == 0).float().mean())
    assert (share_of_zeros > 0.9) == ("embeddings" not in lacking)


def test_a_context_that_is_too_short_is_explained(tmp_path: Path) -> None:
    save_model(tiny_model(), None, tmp_path / "base")
    train = Train(model=str(tmp_path / "base"))
    with pytest.raises(DataError, match=r"context of 64 .*tokenize\.max_length=64"):
        initial_model(train, VOCAB, 65, pad_id=0, bos_id=1, eos_id=2, seed=0)


def test_an_architecture_that_does_not_fit_is_explained() -> None:
    train = Train(architecture=Architecture(hidden_size=30, num_heads=4))
    with pytest.raises(UsageError, match=r"hidden_size is 30.*\(8\)"):
        initial_model(train, VOCAB, 64, pad_id=0, bos_id=1, eos_id=2, seed=0)


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


def test_training_never_writes_into_the_base(tmp_path: Path) -> None:
    """Weights that are used in the type of the file may be mapped from it."""
    save_model(tiny_model(), None, tmp_path / "base")
    before = (tmp_path / "base" / "model.safetensors").read_bytes()
    model = training_model(Train(model=str(tmp_path / "base")), INFO, 0, None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert (tmp_path / "base" / "model.safetensors").read_bytes() == before
