"""How many updates a training has, and the learning rate of each (no torch)."""

from __future__ import annotations

import logging
import math

from taskmill.recipe import Train

log = logging.getLogger("taskmill")


def count_steps(train: Train, num_packs: int) -> int:
    """Return the number of updates: as many as wanted, at most as many as the packs fill; the last may be smaller."""
    available = math.ceil(num_packs / train.batch_size)
    wanted = available if train.num_steps is None else train.num_steps
    if wanted > available:
        log.warning(
            "train: train.num_steps is %d and the mixture fills %d updates; stopping there. More mix.num_prompts fills more",
            wanted,
            available,
        )
    steps = min(wanted, available)
    if train.warmup_steps >= steps:
        log.warning("train: warm-up of %d updates does not end within %d", train.warmup_steps, steps)
    return steps


def learning_rate(train: Train, step: int, num_steps: int) -> float:
    """Return the learning rate of an update, counted from 0.

    Rises linearly over `warmup_steps` updates, whose last has the full rate; then `linear` falls to 0 at `num_steps`
    (OPT-IML, section 3), `cosine` to 10 % of the full rate there, `constant` stays.
    """
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    progress = (step - train.warmup_steps) / max(1, num_steps - train.warmup_steps)
    if train.schedule == "linear":
        return train.learning_rate * (1.0 - progress)
    if train.schedule == "cosine":
        return train.learning_rate * (0.55 + 0.45 * math.cos(math.pi * progress))
    return train.learning_rate
