"""Causal language models: the one a training begins with, and those that it leaves behind, loaded for use.

Without `train.model` a small Llama is made on the spot; else the named base gives its weights, or its shape only. Types:

- method full: fp32 weights; lower precision is a matter of the forward pass;
- method lora: frozen weights in `train.precision`, adapters in fp32; with `quantization: 4bit` the frozen linear layers
  are NF4 and everything else is fp32.

Models come with the attention that transformers chooses; `attention.install` switches it.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from taskmill.errors import DamagedError, MissingPackageError, UsageError
from taskmill.recipe import Train
from taskmill.seeding import derive
from taskmill.training.models.adapters import add_lora, grow, show_sizes
from taskmill.training.models.base_files import (
    ADAPTER_CONFIG,
    ModelError,
    is_hub_id,
    located,
    portable_name,
    problem,
)
from taskmill.training.models.dropout import dropout_deviations
from taskmill.training.models.pretrained import (
    LOAD_ERRORS,
    base_place,
    cast_weights,
    dequantized,
    first_line,
    load_config,
    pretrained_model,
    quiet,
    random_model,
)

try:
    import torch
    import transformers
except ImportError as error:
    raise MissingPackageError(str(error.name or "torch"), "train", "training a model") from error

log = logging.getLogger("taskmill")

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

__all__ = [
    "ModelError",
    "add_lora",
    "base_model",
    "count_parameters",
    "dequantized",
    "dropout_deviations",
    "in_precision",
    "initial_model",
    "load_model",
    "located",
    "merged_model",
    "new_ids",
    "pick_device",
    "training_model",
]


def pick_device(wanted: str) -> Any:
    """Return the torch device that `train.device` names; `auto` takes a GPU when there is one.

    Raises:
        UsageError: cuda is asked for and absent.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("train.device is 'cuda' and torch sees no GPU; --set train.device=cpu does without")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def new_ids(info: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ids that tokenize added to the tokenizer, from tokens.json."""
    return tuple(sorted(info.get("added_tokens", {}).values()))


def initial_model(
    train: Train,
    vocab_size: int,
    max_length: int,
    *,
    pad_id: int,
    bos_id: int | None,
    eos_id: int,
    seed: int,
    new_ids: Collection[int] = (),
    device: Any = "cpu",
    precision: str = "fp32",
) -> Any:
    """Return the model that training begins with, in fp32, bf16 or fp16, or with 4-bit linear layers, which stay as they are.

    In fp32 its weights have the values that training sees: those that method lora keeps in a lower precision are rounded
    to it.
    Without `train.model` a small Llama of `train.architecture`, whose weights depend on the seed alone; else the
    named model (see `located` for folders), with embeddings added where the tokenizer has more ids than it.

    Raises:
        ModelError: the named model cannot be loaded, or its context is shorter than `max_length`.
        UsageError: the architecture does not fit together.
        MissingPackageError: bitsandbytes is absent and wanted.
    """
    base = _Ids(vocab_size, max_length, pad_id, bos_id, eos_id, tuple(new_ids))
    model = _begin(train, base, seed, device, precision).model
    return model if train.quantization == "4bit" else in_precision(model, precision).to(device)


def training_model(
    train: Train, info: Mapping[str, Any], seed: int, name: str | None, device: Any = "cpu"
) -> Any:
    """Return the model that is trained, full or with adapters, on `device`.

    Args:
        train: with `model` located, see `located`.
        info: tokens.json.
        seed: of random weights and of the adapters.
        name: what an adapter calls its base: `train.model` as the recipe has it.
        device: a torch device or its name; `meta` gives shapes without numbers.

    Raises:
        see initial_model and adapters.add_lora.
    """
    special = {key: info[key] for key in ("pad_id", "bos_id", "eos_id")}
    ids = _Ids(info["vocab_size"], info["max_length"], **special, new_ids=new_ids(info))
    begun = _begin(train, ids, seed, device)
    model = begun.model
    if train.method == "lora":
        base = portable_name(name)
        model = add_lora(model, train.lora, seed, base, revision=begun.commit, new_ids=begun.new_ids)
        if train.activation_checkpointing:
            model.enable_input_require_grads()
    for line in dropout_deviations(model, train.dropout):
        log.warning("train: %s", line)
    unknown = set(begun.new_ids) - set(ids.new_ids)
    if unknown and train.model is not None and train.weights == "pretrained":
        log.warning(
            "train: the model's vocabulary lacks %d of the tokenizer's own ids, which begin as the mean of the others; "
            "is tokenize.tokenizer this model's?",
            len(unknown),
        )
    every, trained = _parameters(model)
    log.info("train: %s, %d parameters, %d of them trained", type(begun.model).__name__, every, trained)
    return model if train.quantization == "4bit" or torch.device(device).type == "meta" else model.to(device)


def count_parameters(train: Train, vocab_size: int | None = None, max_length: int = 2048) -> tuple[int, int]:
    """Return (all, trained) parameters of the model that `train` makes, built on the meta device: shapes, no numbers.

    Args:
        train: `model` may be a folder, a Hub id or a file config.json; only its configuration is read.
        vocab_size: ids of the tokenizer; by default the configuration's, or 4,096 for `train.architecture`.
        max_length: tokens of context, for `train.architecture`.

    Raises:
        see training_model.
    """
    size = vocab_size or (4096 if train.model is None else 0)
    info = {"vocab_size": size, "max_length": max_length, "pad_id": 0, "bos_id": 1, "eos_id": 2}
    shape = dataclasses.replace(train, weights="random", quantization="none")
    return _parameters(training_model(shape, info, 0, None, device="meta"))


def _parameters(model: Any) -> tuple[int, int]:
    """Return (all, trained) parameters; of those in 4 bits, which lie two in a byte, the numbers that they stand for."""
    every = [
        (math.prod(getattr(getattr(p, "quant_state", p), "shape", p.shape)), p) for p in model.parameters()
    ]
    return sum(number for number, _ in every), sum(number for number, p in every if p.requires_grad)


# ------------------------------------------------------------------------------------ initial weights


@dataclasses.dataclass(frozen=True)
class _Ids:
    """What a model must know of the tokens."""

    vocab_size: int
    max_length: int
    pad_id: int
    bos_id: int | None
    eos_id: int
    new_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Begun:
    """A model before training."""

    model: Any
    new_ids: list[int]
    """Tokens whose rows the base does not know."""
    commit: str | None
    """Of a base from the Hub."""


def _frozen_dtype(train: Train) -> Any:
    """Return the type of weights that are not trained; fp32 for those that are."""
    if train.method == "full" or train.quantization == "4bit":
        return torch.float32
    return _TYPES[train.precision]


def _begin(train: Train, ids: _Ids, seed: int, device: Any, precision: str = "fp32") -> _Begun:
    """Return the model before training, in the types that training holds; what it holds in fp32 in `precision`."""
    meta = torch.device(device).type == "meta"
    held = _frozen_dtype(train)
    held = _TYPES[precision] if held == torch.float32 else held
    with torch.random.fork_rng(devices=[]), torch.device("meta" if meta else "cpu"):
        torch.manual_seed(derive(seed, "train.initial"))
        if train.model is None:
            model = _small_llama(train, ids, held)
            return _Begun(model, grow(model, ids.vocab_size, ids.new_ids), None)
        place = base_place(dataclasses.replace(train, weights="random") if meta else train)
        config = load_config(place, train)
        _check_context(config, ids.max_length, train)
        if train.weights == "random" or meta:
            _name_specials(config, ids)
            model = random_model(config, train, held)
        else:
            model = pretrained_model(place, config, train, held, device)
        before = model.get_input_embeddings().num_embeddings
        fresh = grow(model, ids.vocab_size, ids.new_ids)
    if ids.vocab_size > before:
        log.info("train: embeddings grew from %d to %d ids", before, ids.vocab_size)
    if fresh:
        log.info("train: %d new tokens begin as the mean of the old ones", len(fresh))
    from_hub = is_hub_id(train.model) and not Path(train.model).exists()
    return _Begun(model, fresh, place.name if from_hub else None)


def _name_specials(config: Any, ids: _Ids) -> None:
    """Give a configuration for random weights the tokenizer's special ids; the row of a padding id is never trained."""
    text = config.get_text_config()
    pad_id = ids.pad_id if ids.pad_id != ids.eos_id else None
    for key, number in (("pad_token_id", pad_id), ("bos_token_id", ids.bos_id), ("eos_token_id", ids.eos_id)):
        setattr(text, key, number if number is not None and number < text.vocab_size else None)


def _small_llama(train: Train, ids: _Ids, dtype: Any) -> Any:
    shape = train.architecture
    if shape.hidden_size % (2 * shape.num_heads):
        raise UsageError(
            f"train.architecture.hidden_size is {shape.hidden_size}; expected a multiple of twice "
            f"num_heads ({2 * shape.num_heads}), since rotary positions turn pairs of numbers"
        )
    config = transformers.LlamaConfig(
        vocab_size=ids.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.feedforward_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        max_position_embeddings=ids.max_length,
        attention_dropout=train.dropout,
        pad_token_id=ids.pad_id if ids.pad_id != ids.eos_id else None,  # whose row is never trained
        bos_token_id=ids.bos_id,
        eos_token_id=ids.eos_id,
        tie_word_embeddings=False,
    )
    return random_model(config, train, dtype)


def _check_context(config: Any, max_length: int, train: Train) -> None:
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if isinstance(context, int) and 0 < context < max_length:
        raise problem(
            f"the model's context of {context} tokens is shorter than the documents",
            train,
            expected=f"at least {max_length} tokens",
            hint=f"Try --set tokenize.max_length={context}",
        )


# ------------------------------------------------------------------------------------- finished models


def load_model(
    folder: Path, base: Any = None, device: Any = "cpu", attention: str = "sdpa", precision: str = "fp32"
) -> Any:
    """Load a saved model for evaluation.

    Args:
        folder: what `save_model` wrote.
        base: for an adapter, the model it was trained on (`initial_model` with the same arguments).
        device: where to put it, a torch device or its name.
        attention: implementation, for a full model; an adapter takes its base's.
        precision: fp32, bf16 or fp16, for a full model; an adapter takes its base's.

    Raises:
        DamagedError: the folder cannot be read.
        UsageError: an adapter without a base.
    """
    try:
        if (folder / ADAPTER_CONFIG).is_file():
            if base is None:
                raise UsageError(f"{folder} holds an adapter; it needs the model that it was trained on")
            with quiet():
                from peft import PeftModel

                model = PeftModel.from_pretrained(base, folder)
            show_sizes(model)
        else:
            with quiet():
                model = transformers.AutoModelForCausalLM.from_pretrained(
                    folder,
                    attn_implementation=None
                    if attention == "sdpa"
                    else attention,  # which not every model has
                    dtype=_TYPES[precision],
                    use_safetensors=True,
                    trust_remote_code=False,
                    local_files_only=True,
                )
    except LOAD_ERRORS as error:
        raise DamagedError(f"{folder} cannot be loaded as a model: {first_line(error)}") from error
    return model.to(device).eval()


def merged_model(train: Train, info: Mapping[str, Any], seed: int, folder: Path) -> Any:
    """Return the base with the adapter in `folder` added to its weights, in fp32; a base in 4 bits by its values.

    Args:
        train: as for training, with `model` located.
        info: tokens.json.
        seed: of the run.
        folder: what `save_model` wrote of an adapter.

    Raises:
        see initial_model and load_model.
    """
    base = base_model(train, info, seed)
    with quiet():
        return load_model(folder, base).merge_and_unload()


def in_precision(model: Any, precision: str) -> Any:
    """Return a model with its weights in fp32, bf16 or fp16; changed in place."""
    return cast_weights(model, _TYPES[precision])


def base_model(train: Train, info: Mapping[str, Any], seed: int) -> Any:
    """Return the model under a run's adapter as plain weights in fp32, new tokens included; see merged_model.

    Raises:
        see initial_model.
    """
    ids = {key: info[key] for key in ("pad_id", "bos_id", "eos_id")}
    base = initial_model(
        train, info["vocab_size"], info["max_length"], **ids, seed=seed, new_ids=new_ids(info)
    )
    return dequantized(base) if train.quantization == "4bit" else base
