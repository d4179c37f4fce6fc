"""Causal language models: the one a training begins with, LoRA, and folders that transformers and peft open.

A folder holds `config.json` and `model.safetensors`, or `adapter_config.json` and `adapter_model.safetensors`, beside
the tokenizer's files. Only safetensors are read and written. A folder appears whole under its name or not at all.
Weights are kept in fp32; lower precision is a matter of the forward pass.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taskmill.errors import DamagedError, DataError, MissingPackageError, UsageError
from taskmill.recipe import Lora, Train
from taskmill.seeding import derive
from taskmill.training.saving import ADAPTER_CONFIG

try:
    import safetensors
    import safetensors.torch
    import torch
    import transformers
except ImportError as error:
    raise MissingPackageError(str(error.name or "torch"), "train", "training a model") from error

log = logging.getLogger("taskmill")

DROPOUT_KEYS = (
    "attention_dropout",
    "attn_pdrop",
    "dropout",
    "embd_pdrop",
    "hidden_dropout",
    "hidden_dropout_prob",
    "resid_pdrop",
)
"""Where the configurations of transformers keep dropout; `train.dropout` sets those that a model has."""
_LOAD_ERRORS = (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError)


# ------------------------------------------------------------------------------------ initial model


class ModelError(DataError):
    """A base model that the recipe names and that cannot be used: a wrong recipe, hence exit code 2."""

    exit_code = 2


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


def located(train: Train, path: Callable[[str], Path]) -> Train:
    """Return the section with `model` made an absolute folder where the recipe's path is one."""
    if train.model is None or not (folder := path(train.model)).is_dir():
        return train
    return dataclasses.replace(train, model=str(folder))


def initial_model(
    train: Train,
    vocab_size: int,
    max_length: int,
    *,
    pad_id: int,
    bos_id: int | None,
    eos_id: int,
    seed: int,
) -> Any:
    """Return the model that training begins with, in fp32 on the CPU.

    Without `train.model` a small Llama of `train.architecture`, whose weights depend on the seed alone; else the
    named model (see `located` for folders), with embeddings added where the tokenizer has more ids than it.

    Raises:
        ModelError: the named model cannot be loaded, or its context is shorter than `max_length`.
        UsageError: the architecture does not fit together.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "train.initial"))
        if train.model is None:
            return _small_llama(train, vocab_size, max_length, pad_id, bos_id, eos_id)
        model = _named_model(train)
        _check_context(model, max_length, train.model)
        if vocab_size > model.get_input_embeddings().num_embeddings:
            before = model.get_input_embeddings().num_embeddings
            model.resize_token_embeddings(vocab_size)
            log.info("train: embeddings grew from %d to %d ids", before, vocab_size)
    return model


def training_model(train: Train, info: Mapping[str, Any], seed: int, name: str | None) -> Any:
    """Return the model that is trained, full or with adapters: `info` is tokens.json; `name` see `add_lora`.

    Raises:
        see initial_model and add_lora.
    """
    ids = {key: info[key] for key in ("pad_id", "bos_id", "eos_id")}
    model = initial_model(train, info["vocab_size"], info["max_length"], **ids, seed=seed)
    adapted = add_lora(model, train.lora, seed, name) if train.method == "lora" else model
    every = sum(p.numel() for p in adapted.parameters())
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    log.info("train: %s, %d parameters, %d of them trained", type(model).__name__, every, trained)
    return adapted


def _small_llama(
    train: Train, vocab_size: int, max_length: int, pad_id: int, bos_id: int | None, eos_id: int
) -> Any:
    shape = train.architecture
    if shape.hidden_size % (2 * shape.num_heads):
        raise UsageError(
            f"train.architecture.hidden_size is {shape.hidden_size}; expected a multiple of twice "
            f"num_heads ({2 * shape.num_heads}), since rotary positions turn pairs of numbers"
        )
    config = transformers.LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.feedforward_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        max_position_embeddings=max_length,
        attention_dropout=train.dropout,
        pad_token_id=pad_id,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        tie_word_embeddings=False,
    )
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").float()


def _named_model(train: Train) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(train.model, revision=train.revision)
        settable = [key for key in DROPOUT_KEYS if hasattr(config, key)]
        for key in settable:
            setattr(config, key, train.dropout)
        with _quiet():
            model = transformers.AutoModelForCausalLM.from_pretrained(
                train.model,
                revision=train.revision,
                config=config,
                attn_implementation="sdpa",
                use_safetensors=True,
            )
    except _LOAD_ERRORS as error:
        raise ModelError(
            f"cannot load this model: {str(error).strip().splitlines()[0]}",
            field="train.model",
            value=train.model,
            expected="a folder with config.json and safetensors weights, relative to the recipe, or a Hub id",
            hint="`hf download MODEL --local-dir FOLDER` fetches one; leave train.model out for a small new model",
        ) from error
    if train.dropout and not settable:
        log.warning("train: %s has no dropout setting; train.dropout has no effect", type(model).__name__)
    return model.float()


def _check_context(model: Any, max_length: int, name: str) -> None:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(context, int) and context < max_length:
        raise ModelError(
            f"the model's context of {context} tokens is shorter than the documents",
            field="train.model",
            value=name,
            expected=f"at least {max_length} tokens",
            hint=f"Try --set tokenize.max_length={context}",
        )


def add_lora(model: Any, lora: Lora, seed: int, name: str | None = None) -> Any:
    """Return the model with its weights frozen and low-rank adapters added through peft.

    Args:
        model: changed in place.
        lora: rank, alpha, dropout and the layers.
        seed: of the adapters' first weights.
        name: what adapter_config.json calls the base model.

    Raises:
        UsageError: no layer is called as `lora.targets` says.
        MissingPackageError: peft is absent.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingPackageError("peft", "train", "train.method: lora") from error
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "train.lora"))
        try:
            with _quiet():
                adapted = peft.get_peft_model(model, config)
        except ValueError as error:
            layers = {
                n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)
            }
            raise UsageError(
                f"train.lora.targets {list(lora.targets)} fit no layer of {type(model).__name__}; "
                f"expected some of {', '.join(sorted(layers))}"
            ) from error
    adapted.peft_config["default"].base_model_name_or_path = name
    return adapted


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back progress bars, and what peft and transformers tell each other about names that will change."""
    bars = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if shown:
            bars.enable_progress_bar()


def load_model(folder: Path, base: Any = None, device: Any = "cpu", attention: str = "sdpa") -> Any:
    """Load a saved model for evaluation.

    Args:
        folder: what `save_model` wrote.
        base: for an adapter, the model it was trained on (`initial_model` with the same arguments).
        device: where to put it, a torch device or its name.
        attention: implementation, for a full model; an adapter takes its base's.

    Raises:
        DamagedError: the folder cannot be read.
        UsageError: an adapter without a base.
    """
    try:
        if (folder / ADAPTER_CONFIG).is_file():
            if base is None:
                raise UsageError(f"{folder} holds an adapter; it needs the model that it was trained on")
            from peft import PeftModel

            with _quiet():
                model = PeftModel.from_pretrained(base, folder)
        else:
            with _quiet():
                model = transformers.AutoModelForCausalLM.from_pretrained(
                    folder, attn_implementation=attention, use_safetensors=True, local_files_only=True
                ).float()
    except _LOAD_ERRORS as error:
        first = str(error).strip().splitlines()[0]
        raise DamagedError(f"{folder} cannot be loaded as a model: {first}") from error
    return model.to(device).eval()
