"""Checkpoints: folders `step-000500/` from which a killed training goes on as if nothing had happened.

    model.safetensors (or adapter_model.safetensors), config and tokenizer files: opens as a model; trained weights in fp32
    optimizer.safetensors      `<moment>/<parameter>`
    state.json                 step, scale of the loss, place in metrics.jsonl, identity of the stage, digests of the files above

Nothing else is needed: batches, learning rate and the seeds of torch's generators are pure functions of the recipe's seed, the
step and the process. Tensors are whole, so a training goes on with any number of processes. A folder is written under a
temporary name and renamed when whole. No pickle.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskmill import storage
from taskmill.errors import DamagedError
from taskmill.training.models.saving import read_tensors, whole_folder, write_model, write_tensors

log = logging.getLogger("taskmill")

_NAME = re.compile(r"step-(\d{6,})")
_STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Where a saved training stands."""

    folder: Path
    step: int
    """Updates done."""
    metrics_bytes: int
    """Length of metrics.jsonl after them."""
    scaling: dict[str, float]
    """Of the loss, with fp16."""


def save_checkpoint(
    directory: Path,
    step: int,
    model: Any,
    moments: Mapping[str, Any],
    *,
    scaling: Mapping[str, float],
    metrics_bytes: int,
    fingerprint: str,
    tokenizer_folder: Path | None,
) -> Checkpoint:
    """Write `directory/step-NNNNNN/` durably.

    Args:
        directory: of the stage.
        step: updates done.
        model: full or with adapters, its weights whole and in fp32 (`Updater.whole`).
        moments: the optimizer's state (`Updater.moments`).
        scaling: of the loss (`Updater.scaling`).
        metrics_bytes: length of metrics.jsonl, which must be durable already.
        fingerprint: of the stage; only the same stage goes on from here.
        tokenizer_folder: whose files are copied beside the weights.

    Raises:
        StorageError: the disk is full, read-only or failing; earlier checkpoints are intact.
    """
    folder = directory / f"step-{step:06d}"
    with whole_folder(folder) as temporary:
        write_model(model, tokenizer_folder, temporary)
        write_tensors(temporary / OPTIMIZER, moments)
        files = {p.name: storage.file_digest(p) for p in sorted(temporary.iterdir())}
        state = {"step": step, "metrics_bytes": metrics_bytes, "fingerprint": fingerprint, "files": files}
        storage.write_json(temporary / _STATE, {**state, "scaling": dict(scaling)})
    return Checkpoint(folder, step, metrics_bytes, dict(scaling))


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
            return Checkpoint(folder, step, state["metrics_bytes"], dict(state["scaling"]))
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


def read_moments(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the optimizer's state.

    Raises:
        DamagedError: it cannot be read.
    """
    return read_tensors(checkpoint.folder / OPTIMIZER)


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
