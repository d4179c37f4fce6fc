"""Batches: packs laid out as arrays in which every token knows its document, its place and the weight of its target (no torch).

Shape suffixes: B packs, T tokens of a pack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import DataError
from taskmill.training.packing import Packs

I64 = NDArray[np.int64]
F32 = NDArray[np.float32]


class TokenArrays(Protocol):
    """What packing needs of the token arrays of a run."""

    @property
    def ids(self) -> NDArray[Any]:
        """Token ids, document after document: [N]."""

    @property
    def trained(self) -> NDArray[np.uint8]:
        """1 where a token carries loss: [N]."""

    @property
    def offsets(self) -> I64:
        """Document i is ids[offsets[i]:offsets[i + 1]]: [n + 1]."""

    @property
    def loss_weight(self) -> F32:
        """Weight of each document's tokens in the loss: [n]."""


@dataclass(frozen=True)
class Batch:
    """Packs laid out as arrays; padding at the end of a pack is a document of its own, without weight."""

    ids_BT: I64
    positions_BT: I64
    """Position of a token inside its document, from 0."""
    documents_BT: I64
    """Number of a token's document inside its pack, from 0."""
    targets_BT: I64
    """The id that follows; 0 where weights_BT is 0."""
    weights_BT: F32
    """Weight of predicting the target; 0 where none carries loss, and for the last token of each document."""
    num_tokens: int
    """Tokens without padding."""

    @property
    def num_targets(self) -> int:
        """Tokens that carry loss."""
        return int(np.count_nonzero(self.weights_BT))

    @property
    def weight(self) -> float:
        """The sum of the targets' weights."""
        return float(self.weights_BT.sum(dtype=np.float64))


def target_weights(tokens: TokenArrays) -> F32:
    """Return the summed weight of each document's targets: float32[n]; 0 says that it teaches nothing.

    The first token of a document is never a target: nothing stands before it.

    Raises:
        DataError: a loss weight that is negative or not finite.
    """
    weight = np.asarray(tokens.loss_weight, dtype=np.float32)
    wrong = np.flatnonzero(~np.isfinite(weight) | (weight < 0))
    if wrong.size:
        number = int(wrong[0])
        raise DataError(
            "a loss weight cannot be used",
            file="loss_weight.bin",
            record=number,
            field="loss_weight",
            value=float(weight[number]),
            expected="a finite number of at least 0",
        )
    offsets = np.asarray(tokens.offsets, dtype=np.int64)
    upto = np.concatenate([[0], np.cumsum(tokens.trained, dtype=np.int64)])
    first = np.minimum(offsets[:-1] + 1, offsets[1:])
    weights: F32 = ((upto[offsets[1:]] - upto[first]) * weight).astype(np.float32)
    return weights


def collate(tokens: TokenArrays, packs: Packs, first: int, last: int, pad_id: int) -> Batch:
    """Lay out packs first to last - 1, cut to the longest of them."""
    rows = [packs.of(number) for number in range(first, last)]
    starts, ends = tokens.offsets[:-1], tokens.offsets[1:]
    width = max(int((ends[row] - starts[row]).sum()) for row in rows)
    shape = (len(rows), width)
    ids, targets = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    positions, documents = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    weights, num_tokens = np.zeros(shape, np.float32), 0
    for b, row in enumerate(rows):
        at = 0
        for number, document in enumerate(row.tolist()):
            here = slice(int(starts[document]), int(ends[document]))
            end = at + here.stop - here.start
            ids[b, at:end] = tokens.ids[here]
            positions[b, at:end] = np.arange(end - at)
            documents[b, at:end] = number
            carries = tokens.trained[here][1:].astype(bool) & bool(tokens.loss_weight[document] > 0)
            targets[b, at : end - 1] = np.where(carries, ids[b, at + 1 : end], 0)
            weights[b, at : end - 1] = carries * np.float32(tokens.loss_weight[document])
            at = end
        positions[b, at:] = np.arange(width - at)
        documents[b, at:] = len(row)
        num_tokens += at
    return Batch(ids, positions, documents, targets, weights, num_tokens)
