"""Steps: which packs make which update, forward pass and rank (no torch).

    steps = make_steps(packs, train, world_size=2)
    for numbers in steps.micro_batches(step=0, rank=1):
        batch = collate(tokens, packs, numbers, pad_id, objective)

Without `train.batch_tokens` update s takes packs s * batch_size to (s + 1) * batch_size - 1, and the last what is left;
with it the updates are those that `pack` made for the budget. Either way an update holds the same documents for any
number of ranks, and all is a pure function of packs, step and rank.

Within an update the packs with most work come first, so that those of one forward pass are about equally long; of each
pass every rank takes an equal number, dealt there and back, so that no rank always gets the longer ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import UsageError
from taskmill.recipe import Train
from taskmill.training.packing.packs import Packs

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Steps:
    """The packs of every update, and how ranks share them."""

    order: I64
    """int64[m]: pack numbers, update after update; those with most work first."""
    offsets: I64
    """int64[s + 1]: update s takes order[offsets[s]:offsets[s + 1]]."""
    world_size: int
    micro_batch_size: int
    """Most packs of a rank's forward pass."""

    @property
    def num_steps(self) -> int:
        """Updates that the packs fill."""
        return len(self.offsets) - 1

    def packs(self, step: int) -> I64:
        """Return the packs of an update over all ranks, those with most work first: int64[k]."""
        return self.order[self.offsets[step] : self.offsets[step + 1]]

    def micro_batches(self, step: int, rank: int) -> list[I64]:
        """Return the packs of each forward pass of a rank; a rank with none for the last pass gets an empty array."""
        here, ranks = self.packs(step), self.world_size
        together = ranks * self.micro_batch_size
        place = np.arange(len(here)) % together
        dealt, back = place % ranks, (place // ranks) % 2 == 1
        mine = np.where(back, ranks - 1 - dealt, dealt) == rank
        cuts = range(0, len(here), together)
        return [here[first : first + together][mine[first : first + together]] for first in cuts]


def make_steps(packs: Packs, train: Train, world_size: int = 1) -> Steps:
    """Share packs out over updates, forward passes and ranks; `train.num_steps` plays no part.

    Raises:
        UsageError: `train.batch_tokens` is given and the packs were made without a budget, or the other way round.
    """
    if (train.batch_tokens is None) != (packs.updates is None):
        raise UsageError(
            f"train.batch_tokens is {train.batch_tokens}, and the packs were made "
            f"{'without' if packs.updates is None else 'with'} a budget; expected pack(..., budget=train.batch_tokens)"
        )
    offsets = packs.updates
    if offsets is None:
        num_steps = -(-packs.num_packs // train.batch_size)
        offsets = np.minimum(np.arange(num_steps + 1, dtype=np.int64) * train.batch_size, packs.num_packs)
    step_P = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((np.arange(packs.num_packs), -packs.work, step_P)).astype(np.int64)
    return Steps(order, offsets, world_size, train.micro_batch_size)
