"""Named base models: their configuration, and their weights loaded straight in the type and place that they are used in.

A checkpoint is read tensor by tensor, so memory holds the model once, in its final type, and one tensor of the file:
a 30B checkpoint in bf16 takes 120 GB as fp32, 60 GB as bf16 and 17 GB as NF4. No code of a repository is run.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taskmill.errors import MissingPackageError, did_you_mean
from taskmill.recipe import Train
from taskmill.training.models.base_files import CONFIG, ModelError, check_base, problem, read_config
from taskmill.training.models.dropout import set_dropout

try:
    import safetensors
    import torch
    import transformers
except ImportError as error:
    raise MissingPackageError(str(error.name or "torch"), "train", "training a model") from error

log = logging.getLogger("taskmill")

LOAD_ERRORS = (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError)


def base_place(train: Train) -> Path:
    """Return the folder, or the file config.json, of a named base model; from the Hub it is fetched.

    Raises:
        ModelError: see base_files.check_base and hub_base.fetch.
    """
    place = Path(str(train.model))
    if not place.exists():
        from taskmill.training.models.hub_base import fetch

        place = fetch(train)
    check_base(place, train)
    return place


def load_config(place: Path, train: Train) -> Any:
    """Return the configuration in a base's folder, with the recipe's dropout.

    Raises:
        ModelError: transformers has no causal language model for it, or it needs code of its own.
    """
    raw = read_config(place if place.is_file() else place / CONFIG, train)
    _check_kind(raw, train)
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(
                place, trust_remote_code=False, local_files_only=True
            )
    except LOAD_ERRORS as error:
        raise problem(f"cannot read this configuration: {first_line(error)}", train) from error
    config._attn_implementation = None  # some files ask for a package; ours is the recipe's
    if not set_dropout(config, train.dropout) and train.dropout:
        log.warning("train: %s has no dropout setting; train.dropout has no effect", config.model_type)
    return config


def random_model(config: Any, train: Train, dtype: Any) -> Any:
    """Return a model of a configuration with random weights, from torch's generator.

    Raises:
        ModelError: the configuration does not fit together.
    """
    try:
        with quiet():
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            return cast_weights(model, dtype)
    except LOAD_ERRORS as error:
        raise problem(f"no model can be made of this configuration: {first_line(error)}", train) from error


def cast_weights(model: Any, dtype: Any) -> Any:
    """Return a model with its weights in a type, changed in place; buffers get the type that they have in such a model.

    Frequencies of positions mostly stay in fp32: rounded to 16 bits they would move far tokens to other places.
    """
    buffers = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    types = dict.fromkeys(buffers, dtype)
    if buffers and dtype != torch.float32:
        with torch.device("meta"), quiet():
            twin = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(model.config), dtype=dtype)
        types |= {name: buffer.dtype for name, buffer in twin.named_buffers()}
    for name, buffer in buffers.items():
        buffer.data = buffer.data.to(types[name])
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return model


def pretrained_model(place: Path, config: Any, train: Train, dtype: Any, device: Any) -> Any:
    """Return the model in a folder with its weights in `dtype`, on `device`.

    Raises:
        ModelError: the weights cannot be read, or are not those of the whole model.
        MissingPackageError: bitsandbytes is absent and `train.quantization` is 4bit.
    """
    extra = {"quantization_config": _four_bits(train)} if train.quantization == "4bit" else {}
    if extra or torch.device(device).type == "cuda":
        extra["device_map"] = {"": device}
    try:
        with quiet():
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                place,
                config=config,
                dtype=torch.float32 if train.quantization == "4bit" else dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # told by `_check_complete`
                output_loading_info=True,
                **extra,
            )
    except LOAD_ERRORS as error:
        raise problem(f"cannot load this model: {first_line(error)}", train) from error
    _check_complete(report, model, train)
    if train.quantization == "4bit":
        _plain_layout(model)
    return model


def _check_complete(report: Any, model: Any, train: Train) -> None:
    told = report if isinstance(report, dict) else vars(report)
    different = sorted(map(str, told["mismatched_keys"]))
    if different:
        raise problem(
            f"its weights have other shapes than config.json says, {len(different)} of them, as {different[0]}",
            train,
        )
    missing = sorted(map(str, told["missing_keys"]))
    if missing:
        raise problem(
            f"its files lack {len(missing)} weights of {type(model).__name__}, as {missing[0]}, which would begin at random",
            train,
            hint="A model without its output layer is no causal language model; `train.weights: random` begins at random",
        )


def _check_kind(raw: dict[str, Any], train: Train) -> None:
    """Check that transformers itself has a causal language model of this kind, and that the weights are plain ones."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING_NAMES:
        if raw.get("auto_map"):
            raise problem(
                f"this model (model_type {kind!r}) brings its own Python code, which is never run here",
                train,
                expected="an architecture that transformers has itself",
                hint="Convert it, or take a model whose code is part of transformers",
            )
        near = did_you_mean(str(kind), CONFIG_MAPPING_NAMES) if kind else ""
        version = transformers.__version__
        raise problem(
            f"transformers {version} knows no model_type {kind!r}{near}",
            train,
            hint="A newer version may know it",
        )
    known = CAUSAL.get(kind)
    classes = {name for value in CAUSAL.values() for name in ([value] if isinstance(value, str) else value)}
    written = [name for name in raw.get("architectures") or () if isinstance(name, str)]
    if known is None or (written and not set(written) & classes) or raw.get("is_encoder_decoder"):
        what = ", ".join(written) or kind
        raise problem(
            f"{what} is no causal language model", train, expected="one that AutoModelForCausalLM loads"
        )
    if raw.get("quantization_config") and train.weights == "pretrained":
        method = raw["quantization_config"].get("quant_method", "unknown")
        raise problem(
            f"its weights are quantised ({method})",
            train,
            expected="plain weights",
            hint="`train.quantization: 4bit` with method lora quantises them as they load",
        )


def _four_bits(train: Train) -> Any:
    """Return how the frozen weights are quantised: NF4 with quantised constants (Dettmers et al. 2023)."""
    try:
        with quiet():
            import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("bitsandbytes", "quantize", "train.quantization: 4bit") from error
    compute = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(train.precision, torch.float32)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _plain_layout(model: Any) -> None:
    """Keep 4-bit weights as they are stored, on CPUs too: another layout computes in bf16 and cannot be merged."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def dequantized(model: Any) -> Any:
    """Return a 4-bit model with plain fp32 weights of the same values; changed in place."""
    with quiet():
        return model.dequantize().float()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back progress bars, and what the libraries tell each other about names that will change."""
    bars, noisy = transformers.utils.logging, logging.getLogger("bitsandbytes")
    shown, level, verbosity = bars.is_progress_bar_enabled(), noisy.level, bars.get_verbosity()
    bars.disable_progress_bar()
    bars.set_verbosity_error()
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "fan_in_fan_out is set")  # peft, of GPT-2's transposed layers
            yield
    finally:
        noisy.setLevel(level)
        bars.set_verbosity(verbosity)
        if shown:
            bars.enable_progress_bar()


__all__ = [
    "LOAD_ERRORS",
    "ModelError",
    "base_place",
    "dequantized",
    "first_line",
    "load_config",
    "pretrained_model",
    "quiet",
    "random_model",
]
