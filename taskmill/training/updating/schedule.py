"""How many updates a training has, when it measures, and the learning rate of each update (no torch)."""

from __future__ import annotations

import logging
import math
from fractions import Fraction

from taskmill.recipe import Train

log = logging.getLogger("taskmill")

FLOOR = 0.1
"""Share of the full rate at which `cosine` ends (Wang et al., "OpenChat", 2023, section 4)."""


def limit_steps(train: Train, available: int) -> int:
    """Return the number of updates: as many as wanted, at most the `available` ones that the packs fill."""
    wanted = available if train.num_steps is None else train.num_steps
    if wanted > available:
        log.warning(
            "train: train.num_steps is %d and the mixture fills %d updates; stopping there. More mix.num_prompts fills more",
            wanted,
            available,
        )
    steps = min(wanted, available)
    if warmup_updates(train, steps) >= steps:
        log.warning(
            "train: warm-up of %d updates does not end within %d", warmup_updates(train, steps), steps
        )
    return steps


def warmup_updates(train: Train, num_steps: int) -> int:
    """Return the updates of linear warm-up: `warmup_share` of all, rounded up, where it is given, else `warmup_steps`.

    The share is taken as the decimal number that the recipe writes: 7 % of 100 updates are 7.
    """
    if train.warmup_share is None:
        return train.warmup_steps
    return math.ceil(Fraction(repr(train.warmup_share)) * num_steps)


def learning_rate(train: Train, step: int, num_steps: int) -> float:
    """Return the learning rate of an update, counted from 0.

    Rises linearly over the warm-up, whose last update has the full rate; then `linear` falls to 0 at `num_steps`
    (OPT-IML, section 3), `cosine` to 10 % of the full rate there (OpenChat), `constant` stays.
    """
    warmup = warmup_updates(train, num_steps)
    if step < warmup:
        return train.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    if train.schedule == "linear":
        return train.learning_rate * (1.0 - progress)
    if train.schedule == "cosine":
        return train.learning_rate * (FLOOR + (1.0 - FLOOR) * 0.5 * (1.0 + math.cos(math.pi * progress)))
    return train.learning_rate


def validates_after(train: Train, step: int, num_steps: int) -> bool:
    """Return whether the loss on validation prompts is measured after `step` updates: every so many, and after the last."""
    return step == num_steps or (train.validation_steps is not None and step % train.validation_steps == 0)
