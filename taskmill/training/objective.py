"""The loss: cross-entropy on trained tokens, weighted per document, normalised over the whole update.

    loss = sum over all packs of the update of w * CE  /  sum over all packs of the update of w

Both sums run over the global step, so the result does not depend on how the update is cut into forward passes
(the C-RLFT normalisation of Wang et al., "OpenChat", 2023; with all weights 1 it is the plain mean over targets).
OPT-IML (section 3) trains on target tokens only: what is trained, and with which weight, the token arrays say.

Shape suffixes: N tokens with a target, V ids of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from taskmill.errors import MissingPackageError
from taskmill.training.batches import Batch

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "training a model") from error

CHUNK_LOGITS = 1 << 26
"""Logits that are widened to fp32 at a time."""


def step_weight(batches: Iterable[Batch]) -> float:
    """Return the sum of target weights over all forward passes of an update."""
    return sum(batch.weight for batch in batches)


def label_loss(logits_NV: Any, targets_N: Any, weights_N: Any) -> Any:
    """Return the weighted sum of cross-entropies, a scalar in fp32; divide it by the update's `step_weight`.

    Args:
        logits_NV: one row per target, any floating type.
        targets_N: int64, the ids to predict.
        weights_N: float32.
    """
    rows = max(1, CHUNK_LOGITS // max(1, logits_NV.shape[-1]))
    total = logits_NV.new_zeros((), dtype=torch.float32)
    for start in range(0, len(targets_N), rows):
        part = slice(start, start + rows)
        losses = torch.nn.functional.cross_entropy(logits_NV[part].float(), targets_N[part], reduction="none")
        total = total + (losses * weights_N[part]).sum()
    return total
