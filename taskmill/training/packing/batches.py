"""Batches: packs laid out as arrays in which every token knows its document, its place and the weight of its target (no torch).

    objective = Objective(train.loss, train.loss_normalisation)
    batch = collate(tokens, packs, numbers, pad_id, objective)

The weight of a target is w, the loss weight of its document, where the objective gives it loss, and 0 elsewhere. The
loss of an update is the sum of weight * cross-entropy over the sum of weights (Wang et al., "OpenChat", 2023, section 3:
C-RLFT, w = 1.0 for expert and 0.1 for other answers). Normalised by message, the weight is w / k in a message of k
targets, so that a long answer counts as much as a short one.

Shape suffixes: B packs, T tokens of a pack; D documents of a batch, N tokens of all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taskmill.errors import DataError
from taskmill.training.packing.packs import Packs

I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
T = TypeVar("T")


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
    def order(self) -> I64:
        """The document at each place of the mixture's order: [m]."""

    @property
    def loss_weight(self) -> F32:
        """Weight of each document's tokens in the loss: [n]."""


@dataclass(frozen=True)
class Objective:
    """Which tokens are targets, and how their weights are normalised."""

    loss: Literal["targets", "sequence"] = "targets"
    """The tokens marked as trained (label loss, chat turns, suffix loss), or all; never the first of a document."""
    normalisation: Literal["token", "message"] = "token"
    """Every target has its document's weight, or every run of targets (a message and its end mark) shares it."""


LABEL_LOSS = Objective()
"""Every trained token with its document's weight."""


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


# ------------------------------------------------------------------------------------------- weights


def target_weights(tokens: TokenArrays, objective: Objective = LABEL_LOSS) -> F32:
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
    lengths = np.diff(offsets)
    number_D = np.maximum(lengths - 1, 0)
    if objective.loss == "targets":
        here = np.flatnonzero(lengths)
        counted_N = np.asarray(tokens.trained) != 0
        counted_N[offsets[here]] = False
        if objective.normalisation == "message":
            counted_N[1:] &= ~counted_N[:-1]  # where runs begin
        number_D[here] = np.add.reduceat(counted_N, offsets[here], dtype=np.int64) if len(here) else 0
    elif objective.normalisation == "message":
        number_D = np.minimum(number_D, 1)
    weights: F32 = (number_D * weight).astype(np.float32)
    return weights


def are_targets(trained_N: NDArray[Any], length_D: I64, objective: Objective) -> NDArray[np.bool_]:
    """Return which tokens are targets: bool[N], for documents that follow one another."""
    targets_N: NDArray[np.bool_] = np.asarray(trained_N) != 0
    if objective.loss == "sequence":
        targets_N = np.ones(len(trained_N), dtype=np.bool_)
    first_D = np.cumsum(length_D) - length_D
    targets_N[first_D[length_D > 0]] = False
    return targets_N


def token_weights(targets_N: NDArray[np.bool_], weight_D: F32, length_D: I64, objective: Objective) -> F32:
    """Return the weight of each token as a target: float32[N], for documents that follow one another."""
    weights_N: F32 = np.repeat(np.asarray(weight_D, dtype=np.float32), length_D)
    weights_N *= targets_N
    if objective.normalisation == "message":
        begins_N = targets_N.copy()
        begins_N[1:] &= ~targets_N[:-1]
        run_M = np.cumsum(begins_N)[targets_N] - 1
        weights_N[targets_N] /= np.bincount(run_M)[run_M]
    return weights_N


# ------------------------------------------------------------------------------------------- batches


def collate(
    tokens: TokenArrays,
    packs: Packs,
    numbers: ArrayLike,
    pad_id: int,
    objective: Objective = LABEL_LOSS,
) -> Batch:
    """Lay out the packs of these numbers as rows, cut to the longest of them.

    Without numbers the batch is one token of padding, so that a forward pass over it is possible.
    """
    pack_B = np.asarray(numbers, dtype=np.int64)
    if not len(pack_B):
        none = np.zeros((1, 1), dtype=np.int64)
        return Batch(none + pad_id, none, none, none, none.astype(np.float32), 0)
    count_B = packs.offsets[pack_B + 1] - packs.offsets[pack_B]
    documents_D = np.asarray(tokens.order[packs.documents[_ranges(packs.offsets[pack_B], count_B)]])
    start_D = np.asarray(tokens.offsets[documents_D])
    length_D = np.asarray(tokens.offsets[documents_D + 1]) - start_D
    source_N = _ranges(start_D, length_D)
    row_D = np.repeat(np.arange(len(pack_B)), count_B)
    tokens_B = np.bincount(row_D, weights=length_D, minlength=len(pack_B)).astype(np.int64)
    width = int(tokens_B.max())
    place_N = _ranges(np.arange(len(pack_B)) * width, tokens_B)
    targets_N = are_targets(np.asarray(tokens.trained)[source_N], length_D, objective)
    weights_N = token_weights(targets_N, tokens.loss_weight[documents_D], length_D, objective)
    ids_N = np.asarray(tokens.ids)[source_N].astype(np.int64)

    padding_B1 = np.arange(width)[None] - tokens_B[:, None]  # negative inside the pack
    ids_BT = np.full((len(pack_B), width), pad_id, dtype=np.int64)
    positions_BT = np.maximum(padding_B1, 0)
    documents_BT = np.repeat(count_B[:, None], width, axis=1)
    targets_BT, weights_BT = np.zeros_like(ids_BT), np.zeros(ids_BT.shape, dtype=np.float32)
    ids_BT.ravel()[place_N] = ids_N
    positions_BT.ravel()[place_N] = _ranges(np.zeros_like(length_D), length_D)
    documents_BT.ravel()[place_N] = np.repeat(_ranges(np.zeros_like(count_B), count_B), length_D)
    weights_BT.ravel()[place_N[:-1]] = weights_N[1:]
    targets_BT.ravel()[place_N[:-1]] = np.where(weights_N[1:] > 0, ids_N[1:], 0)
    return Batch(ids_BT, positions_BT, documents_BT, targets_BT, weights_BT, len(source_N))


def _ranges(starts: I64, lengths: I64) -> I64:
    """Return start, start + 1, ... for each length, one after another: int64[sum of lengths]."""
    before = np.cumsum(lengths) - lengths
    ranges: I64 = np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()), dtype=np.int64)
    return ranges


def prefetch(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield the items in their order, made by a thread that is up to `depth` of them ahead.

    What making an item raises is raised where the item would have been. The thread ends with the iterator.
    """
    iterator, end = iter(items), object()
    maker = ThreadPoolExecutor(1, "prefetch")
    try:
        ahead = deque(maker.submit(next, iterator, end) for _ in range(depth))
        while (item := ahead.popleft().result()) is not end:
            ahead.append(maker.submit(next, iterator, end))
            yield cast(T, item)
    finally:
        maker.shutdown(cancel_futures=True)
