"""Checkpoints: folders `step-000500/` from which a killed training goes on as if nothing had happened.

    model.safetensors (or adapter_model.safetensors), config and tokenizer files: opens as a model
    optimizer.safetensors      `<moment>/<parameter>`
    random.safetensors         states of torch's generators, uint8
    state.json                 step, place in metrics.jsonl, identity of the stage, digests of the files above

A folder is written under a temporary name and renamed when whole. No pickle.
"""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskmill import storage
from taskmill.errors import DamagedError, MissingPackageError
from taskmill.training.saving import read_tensors, restore_weights, whole_folder, write_model, write_tensors

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "training a model") from error

log = logging.getLogger("taskmill")

_NAME = re.compile(r"step-(\d{6,})")
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """Where a saved training stands."""

    folder: Path
    step: int
    """Updates done."""
    metrics_bytes: int
    """Length of metrics.jsonl after them."""


def save_checkpoint(
    directory: Path,
    step: int,
    model: Any,
    optimizer: Any,
    *,
    metrics_bytes: int,
    fingerprint: str,
    tokenizer_folder: Path | None,
) -> Checkpoint:
    """Write `directory/step-NNNNNN/` durably.

    Args:
        directory: of the stage.
        step: updates done.
        model: full or with adapters.
        optimizer: of the model's trainable parameters.
        metrics_bytes: length of metrics.jsonl, which must be durable already.
        fingerprint: of the stage; only the same stage goes on from here.
        tokenizer_folder: whose files are copied beside the weights.

    Raises:
        StorageError: the disk is full, read-only or failing; earlier checkpoints are intact.
    """
    folder = directory / f"step-{step:06d}"
    with whole_folder(folder) as temporary:
        write_model(model, tokenizer_folder, temporary)
        write_tensors(temporary / "optimizer.safetensors", _moments(model, optimizer))
        write_tensors(temporary / "random.safetensors", _random_states())
        files = {p.name: storage.file_digest(p) for p in sorted(temporary.iterdir())}
        state = {"step": step, "metrics_bytes": metrics_bytes, "fingerprint": fingerprint, "files": files}
        storage.write_json(temporary / _STATE, state)
    return Checkpoint(folder, step, metrics_bytes)


def newest_checkpoint(directory: Path, fingerprint: str, metrics: Path) -> Checkpoint | None:
    """Return the newest intact checkpoint of this stage, or None.

    Newer ones are removed, with a line in the log: a file of theirs is missing or changed, they belong to other
    settings, or `metrics` does not reach as far as they do.
    """
    size = metrics.stat().st_size if metrics.is_file() else 0
    for step, folder in sorted(folders(directory).items(), reverse=True):
        try:
            state = storage.read_json(folder / _STATE)
            wrong = _problem(folder, state, fingerprint, size)
        except (DamagedError, KeyError, TypeError, AttributeError) as error:
            wrong = f"is damaged ({error})"
        if wrong is None:
            return Checkpoint(folder, step, state["metrics_bytes"])
        log.warning("train: %s %s; removed", folder.name, wrong)
        shutil.rmtree(folder)
    return None


def _problem(folder: Path, state: dict[str, Any], fingerprint: str, metrics_size: int) -> str | None:
    if state["fingerprint"] != fingerprint:
        return "belongs to other settings or inputs"
    for name, digest in state["files"].items():
        if not (folder / name).is_file() or storage.file_digest(folder / name) != digest:
            return f"is damaged ({name})"
    return "is ahead of metrics.jsonl" if state["metrics_bytes"] > metrics_size else None


def restore(checkpoint: Checkpoint, model: Any, optimizer: Any) -> None:
    """Put weights, moments and generators back to where they were.

    Raises:
        DamagedError: the files do not fit the model.
    """
    restore_weights(model, checkpoint.folder)
    _restore_moments(model, optimizer, read_tensors(checkpoint.folder / "optimizer.safetensors"))
    random = read_tensors(checkpoint.folder / "random.safetensors")
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and torch.cuda.is_available():
        torch.cuda.set_rng_state(random["cuda"])


def prune(directory: Path, every: int, keep: int, newest: int | None = None) -> None:
    """Remove checkpoints but the last `keep` at multiples of `every`, and `newest` when it is given."""
    steps = sorted(folders(directory))
    regular = [step for step in steps if step % every == 0]
    stay = {*regular[max(0, len(regular) - keep) :], newest}
    for step in steps:
        if step not in stay:
            shutil.rmtree(directory / f"step-{step:06d}")


def folders(directory: Path) -> dict[int, Path]:
    """Return the checkpoint folders by step."""
    found = {p: _NAME.fullmatch(p.name) for p in directory.iterdir() if p.is_dir()}
    return {int(match[1]): path for path, match in found.items() if match}


def _moments(model: Any, optimizer: Any) -> dict[str, Any]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{moment}/{names[id(parameter)]}": value
        for parameter, state in optimizer.state.items()
        for moment, value in state.items()
    }


def _restore_moments(model: Any, optimizer: Any, moments: dict[str, Any]) -> None:
    parameters = dict(model.named_parameters())
    for key, value in moments.items():
        moment, name = key.split("/", 1)
        if name not in parameters:
            raise DamagedError(f"optimizer.safetensors has the unknown parameter {name!r}")
        parameter = parameters[name]
        place = "cpu" if moment == "step" and not optimizer.defaults.get("fused") else parameter.device
        optimizer.state[parameter][moment] = value.to(place)


def _random_states() -> dict[str, Any]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states
