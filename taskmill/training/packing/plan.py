"""The plan of a training: everything that is known of it before it starts (no torch).

Reads the token arrays. Which packs make which update, in which forward pass and on which process, with which weights, is a pure
function of the tokens, the recipe, the seed, the step, the process and the number of processes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import DamagedError, TaskmillError
from taskmill.recipe import Train
from taskmill.training.packing.batches import Batch, Objective, collate, target_weights
from taskmill.training.packing.packs import Packs, pack
from taskmill.training.packing.steps import Steps, make_steps
from taskmill.training.tokens import Tokens
from taskmill.training.updating.schedule import limit_steps

log = logging.getLogger("taskmill")


@dataclass(frozen=True)
class Plan:
    """Everything about a training that is known before it starts."""

    tokens: Tokens
    packs: Packs
    steps: Steps
    objective: Objective
    num_steps: int
    pack_weights: NDArray[np.float64]
    """Summed weight of the targets of each pack: float64[m]."""
    num_without_target: int
    """Places whose document is left out since no token of it is a target."""

    def batches(self, step: int, rank: int) -> list[Batch]:
        """Return the forward passes of a process in an update, counted from 0; as many on each, some perhaps empty."""
        pad_id = int(self.tokens.info["pad_id"] or 0)
        return [
            collate(self.tokens, self.packs, numbers, pad_id, self.objective)
            for numbers in self.steps.micro_batches(step, rank)
        ]

    def weight(self, step: int) -> float:
        """Return the summed weight of all targets of an update, over all processes."""
        return float(self.pack_weights[self.steps.packs(step)].sum())

    def counts(self) -> dict[str, int]:
        """Return what the whole training goes through."""
        num_packs = int(self.steps.offsets[self.num_steps])
        documents = self.tokens.order[self.packs.documents[: self.packs.offsets[num_packs]]]
        return {
            "num_steps": self.num_steps,
            "num_packs": num_packs,
            "num_documents": len(documents),
            "num_documents_without_target": self.num_without_target,
            "num_tokens": int(self.tokens.lengths[documents].sum()),
        }


def make_plan(train: Train, tokens: Tokens, seed: int, world_size: int = 1) -> Plan:
    """Pack the documents and count the updates.

    Raises:
        DataError: a document is longer than `max_length`, or a loss weight cannot be used.
        DamagedError: a token id that the tokenizer does not have.
        TaskmillError: no document has a target.
    """
    info, objective = tokens.info, Objective(train.loss, train.loss_normalisation)
    if len(tokens.ids) and int(np.max(tokens.ids)) >= info["vocab_size"]:
        raise DamagedError(f"ids.bin holds an id above the tokenizer's {info['vocab_size']} ids")
    lengths = tokens.lengths[tokens.order]
    weights = target_weights(tokens, objective)[tokens.order].astype(np.float64)
    packs = pack(
        np.where(weights > 0, lengths, 0),
        info["max_length"],
        train.packing_window,
        seed,
        train.packing,
        train.batch_tokens,
        world_size,
    )
    if not packs.num_packs:
        raise TaskmillError(
            "no document of the mixture has a token to learn; look at `taskmill inspect RUN tokenize`"
        )
    fill = lengths[packs.documents].sum() / (packs.num_packs * info["max_length"])
    log.info(
        "train: %d documents in %d packs, %.2f %% full", len(packs.documents), packs.num_packs, 100 * fill
    )
    steps = make_steps(packs, train, world_size)
    pack_weights = np.add.reduceat(weights[packs.documents], packs.offsets[:-1])
    without = int(((lengths > 0) & (weights == 0)).sum())
    return Plan(tokens, packs, steps, objective, limit_steps(train, steps.num_steps), pack_weights, without)
