"""The loss on validation prompts, by level, while a model is trained.

Reads `validation/` of the token arrays. Each level is packed by itself, as in training; how many packs a forward pass takes
depends on nothing but the context, so the result is the same for any `micro_batch_size`. Processes share the passes, each does
equally many, since all of them together gather the layers of a model that is spread over devices. Weights, gradients
and generators are left as they are.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import MissingPackageError
from taskmill.recipe import Train
from taskmill.records import LEVELS
from taskmill.training.packing.batches import Batch, Objective, collate, target_weights
from taskmill.training.packing.packs import pack
from taskmill.training.tokens import Tokens, open_validation
from taskmill.training.updating.distributed import World
from taskmill.training.updating.objective import packed_loss

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "training a model") from error

PASS_TOKENS = 8192
"""Tokens of a forward pass, of at least one pack."""


def validation_losses(
    model: Any,
    tokens_dir: Path,
    train: Train,
    implementation: str,
    world: World,
    compute: Callable[[Batch], Any] | None = None,
) -> dict[str, float]:
    """Return the weighted mean of -log p over targets, in nats, of each level that has validation prompts.

    Targets and their weights are those of the training's objective.

    Args:
        model: as it is trained; back in its mode afterwards.
        tokens_dir: of the finished tokenize stage.
        train: its objective.
        implementation: of attention, as `attention.install` returned it.
        world: the processes that share the work; all call this, and each gets the same result.
        compute: the summed loss of a batch, where a wrapper of the model has to see the call; by default `packed_loss`.

    Raises:
        DamagedError: the token arrays cannot be read.
    """
    found = open_validation(tokens_dir)
    if found is None:
        return {}
    tokens, levels = found
    objective = Objective(train.loss, train.loss_normalisation)
    compute = compute or functools.partial(packed_loss, model, implementation=implementation)
    sums: list[float] = []
    with _measuring(model):
        for number in range(len(LEVELS)):
            sums += _level_sums(compute, _passes(tokens, levels == number, objective), world)
    totals = world.sums(sums)
    return {
        level: totals[2 * number] / totals[2 * number + 1]
        for number, level in enumerate(LEVELS)
        if totals[2 * number + 1] > 0
    }


def _level_sums(
    compute: Callable[[Batch], Any], passes: list[Callable[[], Batch]], world: World
) -> list[float]:
    """Return this process's part of [sum of weight * -log p, sum of weights]; without a pass left it does an empty one."""
    loss, weight = 0.0, 0.0
    for first in range(0, len(passes), world.size):
        mine = first + world.rank
        batch = passes[mine if mine < len(passes) else first]()
        value = float(compute(batch))
        if mine < len(passes):
            loss, weight = loss + value, weight + batch.weight
    return [loss, weight]


def _passes(tokens: Tokens, chosen: NDArray[np.bool_], objective: Objective) -> list[Callable[[], Batch]]:
    """Return what lays out each forward pass over the chosen documents."""
    capacity, pad_id = int(tokens.info["max_length"]), int(tokens.info["pad_id"] or 0)
    lengths = np.where(chosen & (target_weights(tokens, objective) > 0), tokens.lengths, 0)
    if not lengths.any():
        return []
    packs = pack(lengths, capacity, len(lengths), 0)
    size = max(1, PASS_TOKENS // capacity)
    return [
        functools.partial(
            collate, tokens, packs, np.arange(first, min(first + size, packs.num_packs)), pad_id, objective
        )
        for first in range(0, packs.num_packs, size)
    ]


@contextlib.contextmanager
def _measuring(model: Any) -> Iterator[None]:
    """Switch dropout and gradients off for a while, and keep torch's generators as they are."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            yield
    finally:
        model.train(training)
