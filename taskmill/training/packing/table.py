"""Packs as an Arrow table, for trainers that take packed sequences as rows (no torch).

    table = pack_table(tokens, pack(tokens.lengths[tokens.order], 2048, 1024, seed=7))
    datasets.Dataset(table)      # rows of TRL's SFTTrainer, which then packs nothing itself

The labels are those that Hugging Face models shift by one themselves: the token's own id where it is a target, else -100.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from taskmill.training.packing.batches import LABEL_LOSS, Objective, TokenArrays, are_targets, token_weights
from taskmill.training.packing.packs import Packs

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

IGNORED = -100
"""The label of a token that carries no loss, as in torch's cross-entropy."""
_CHUNK = 1 << 20  # tokens that are laid out at a time: their flags stay in the processor's cache


def pack_table(
    tokens: TokenArrays,
    packs: Packs,
    objective: Objective = LABEL_LOSS,
    first: int = 0,
    last: int | None = None,
) -> pa.Table:
    """Return packs first to last - 1 (by default all) as rows of a table.

    Columns: `input_ids` and `labels`, list<int32>, the documents of a pack one after another without padding;
    `seq_lengths`, list<int32>, the tokens of each, from which positions and attention follow; and, only where targets do
    not all weigh the same, `weights`, list<float32>, the weight of each token as a target.
    """
    last = packs.num_packs if last is None else last
    offsets = packs.offsets[first : last + 1]
    documents_D = np.asarray(tokens.order)[packs.documents[offsets[0] : offsets[-1]]]
    weight_D = np.asarray(tokens.loss_weight)[documents_D]
    weighted = objective.normalisation == "message" or len(np.unique(weight_D)) > 1
    lengths_D = np.asarray(tokens.offsets)[documents_D + 1] - np.asarray(tokens.offsets)[documents_D]
    upto = np.concatenate([[0], np.cumsum(lengths_D)])
    ids, labels = np.empty(upto[-1], np.int32), np.empty(upto[-1], np.int32)
    weights = np.empty(upto[-1] if weighted else 0, np.float32)
    for left, right in _chunks(upto):
        here, length_D = slice(int(upto[left]), int(upto[right])), lengths_D[left:right]
        trained_N = _gather(tokens, documents_D[left:right], ids[here])
        targets_N = are_targets(trained_N, length_D, objective)
        # Without a branch: the id where the token is a target, IGNORED where it is none.
        np.subtract(ids[here], IGNORED, out=labels[here])
        labels[here] *= targets_N
        labels[here] += IGNORED
        if weighted:
            weights[here] = token_weights(targets_N, weight_D[left:right], length_D, objective)
    rows, documents = upto[offsets - offsets[0]], offsets - offsets[0]
    columns = {"input_ids": _lists(rows, ids), "labels": _lists(rows, labels)}
    columns["seq_lengths"] = _lists(documents, lengths_D.astype(np.int32))
    if weighted:
        columns["weights"] = _lists(rows, weights)
    return pa.table(columns)


def _chunks(upto: I64) -> list[tuple[int, int]]:
    """Cut documents into runs of about _CHUNK tokens: (first, one past the last) of each."""
    marks = np.searchsorted(upto, np.arange(0, int(upto[-1]), _CHUNK))
    cuts = np.unique(np.append(marks, len(upto) - 1)).tolist()
    return list(pairwise(cuts))


def _gather(tokens: TokenArrays, documents_D: I64, ids: I32) -> NDArray[np.uint8]:
    """Write the ids of documents, one after another, and return which tokens are trained: uint8[N]."""
    all_ids, all_trained, offsets = map(np.asarray, (tokens.ids, tokens.trained, tokens.offsets))
    spans = list(zip(offsets[documents_D].tolist(), offsets[documents_D + 1].tolist()))
    np.concatenate([all_ids[a:b] for a, b in spans], out=ids, casting="same_kind")
    trained_N: NDArray[np.uint8] = np.concatenate([all_trained[a:b] for a, b in spans])
    return trained_N


def _lists(offsets: I64, values: NDArray[np.generic]) -> pa.Array:
    """Return a column of lists; offsets are of 64 bits where those of 32 are too short."""
    if offsets[-1] < 2**31:
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
