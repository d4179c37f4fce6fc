"""Which models are asked, what identifies each, how large it is, and how it is loaded.

`final` is the trained model, `initial` the one that training began with, `step-NNNNNN` a checkpoint that training kept (but
for one that is the final model itself), `endpoint` a server. Reads the manifest of train and its folders of weights; writes
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskmill.artifact import Inputs, Manifest
from taskmill.errors import LimitError
from taskmill.plain import to_json
from taskmill.records import ENDPOINT, FINAL, INITIAL
from taskmill.settings import Settings
from taskmill.storage import digest
from taskmill.training.encoding.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from taskmill.evaluation.answering.scorer import Scorer

_CHECKPOINT = re.compile(r"(step-\d+)/")
_RESUMING = ("optimizer.safetensors", "state.json")
"""Files of a checkpoint that are no part of the model."""
_BEGINS = (
    "model",
    "revision",
    "weights",
    "architecture",
    "method",
    "quantization",
    "precision",
)
"""Settings of train that the model before training depends on."""


@dataclass(frozen=True)
class Model:
    """A model to be asked."""

    name: str
    identity: str
    """Digest (hex) of what its answers depend on."""
    folder: Path | None = None
    """Where its weights, or those of its adapter, are; None for the one that training began with, and for a server."""
    num_bytes: int = 0
    """Of its files of weights."""


def models(settings: Settings, inputs: Inputs) -> tuple[Model, ...]:
    """Return the models that are asked, sorted by name."""
    endpoint = settings.evaluate.endpoint
    if endpoint is not None:
        server = {"url": endpoint.url, "model": endpoint.model, "api": endpoint.api}
        return (Model(ENDPOINT, digest(server)),)
    trained = inputs.manifest("train")
    saved = [_saved(trained, name, settings) for name in _folders(trained, settings.evaluate.checkpoints)]
    found = [model for model in saved if model.name == FINAL or model.identity != saved[0].identity]
    if settings.evaluate.baseline:
        begins = {name: to_json(getattr(settings.train, name)) for name in _BEGINS}
        identity = digest([begins, settings.seed, trained.body["external"], _how(settings)])
        found.append(Model(INITIAL, identity, None, max(model.num_bytes for model in found)))
    return tuple(sorted(found, key=lambda model: model.name))


def files(trained: Manifest, with_checkpoints: bool) -> Iterator[str]:
    """Yield the files of train that the models asked are made of, relative to its folder."""
    folders = set(_folders(trained, with_checkpoints))
    for entry in trained.files:
        folder, _, name = entry.path.partition("/")
        if folder in folders and name not in _RESUMING:
            yield entry.path


def _folders(trained: Manifest, with_checkpoints: bool) -> list[str]:
    steps = {match[1] for entry in trained.files if (match := _CHECKPOINT.match(entry.path))}
    return [FINAL, *sorted(steps if with_checkpoints else ())]


def _saved(trained: Manifest, name: str, settings: Settings) -> Model:
    own = [
        entry
        for entry in trained.files
        if entry.path.startswith(f"{name}/") and entry.path.rpartition("/")[2] not in _RESUMING
    ]
    identity = [[entry.path.rpartition("/")[2], entry.rows] for entry in own]
    if settings.train.method == "lora":  # the weights of its base are not among them
        begins = {key: to_json(getattr(settings.train, key)) for key in _BEGINS}
        identity.append([digest([begins, settings.seed]), digest(trained.body["external"])])
    size = sum(entry.bytes for entry in own if entry.path.endswith(".safetensors"))
    return Model(name, digest([identity, _how(settings)]), trained.directory / name, size)


def _how(settings: Settings) -> str:
    """Return how models compute, as far as it can show in their answers."""
    precision = settings.evaluate.precision
    return _attention(settings) + ("" if precision == "fp32" else f" {precision}")


def _attention(settings: Settings) -> str:
    return "eager" if settings.train.attention == "eager" else "sdpa"


def open_model(
    model: Model, settings: Settings, tokenizer: TextTokenizer, info: dict[str, Any], number: int = 0
) -> Scorer:
    """Load a model in `evaluate.precision` and make it ready; a base in 4 bits stays so.

    Args:
        model: none that answers from a server.
        settings: with the sections train and evaluate.
        tokenizer: of the run.
        info: tokens.json.
        number: of the GPU, where there are several.

    Raises:
        DamagedError: the model cannot be read.
        LimitError: it does not fit the memory of the GPU.
        MissingPackageError: torch, transformers or peft is absent.
        UsageError: cuda is asked for and absent.
    """
    import torch

    from taskmill.evaluation.answering.ranking import open_scorer
    from taskmill.evaluation.answering.scorer import widen_head
    from taskmill.training.models.model import pick_device

    device = pick_device(settings.train.device)
    if device.type == "cuda":
        device = numbered(device, number)
    try:
        loaded = _load(model, settings, tokenizer, info, device)
        widen_head(loaded)
        return open_scorer(loaded, tokenizer.pad_id, tokenizer.eos_id, settings.evaluate.batch_size)
    except torch.cuda.OutOfMemoryError as error:
        precision = settings.evaluate.precision
        less = "evaluate.precision=bf16 takes half of it" if precision == "fp32" else "take a larger GPU"
        raise LimitError(
            f"the model {model.name!r} does not fit the memory of {device} in {precision}; {less}"
        ) from error


def _load(
    model: Model, settings: Settings, tokenizer: TextTokenizer, info: dict[str, Any], device: Any
) -> Any:
    """Return a model on a device, in `evaluate.precision`."""
    from taskmill.training.models.model import initial_model, load_model, located, new_ids

    precision = settings.evaluate.precision
    base: Any = None
    if model.folder is None or settings.train.method == "lora":
        base = initial_model(
            located(settings.train, settings.path),
            tokenizer.vocab_size,
            info["max_length"],
            pad_id=tokenizer.pad_id,
            bos_id=tokenizer.bos_id,
            eos_id=tokenizer.eos_id,
            seed=settings.seed,
            new_ids=new_ids(info),
            device=device,
            precision=precision,
        )
    if model.folder is None:
        return base.eval()
    return load_model(model.folder, base, device, _attention(settings), precision)


def numbered(device: Any, number: int) -> Any:
    """Return one of the GPUs, and make it the one that this process works on."""
    import torch

    torch.cuda.set_device(number % torch.cuda.device_count())
    return torch.device(device.type, torch.cuda.current_device())
