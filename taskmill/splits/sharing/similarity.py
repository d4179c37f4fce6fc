"""Sets of 64-bit values compared: which keys repeat, which sets are similar enough to belong together, how alike two are.

Works on arrays, reads and writes nothing. Sets lie end to end: set i is `sets[indptr[i]:indptr[i + 1]]`, without repetitions.
The Jaccard similarity of two sets is the size of their intersection over that of their union; containment is the former
over the size of the smaller set. Without numba, numpy and Python give the same answers.
"""

from __future__ import annotations

import functools
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from taskmill.minhash import kernels
from taskmill.text import ranges

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


def repeated(keys: U64, ties: U64 | None = None) -> tuple[I64, I64]:
    """Return the places of keys that occur more than once, equal ones together.

    Args:
        keys: uint64[num].
        ties: uint64[num], where a key has two halves.

    Returns:
        int64[num_places], and `bounds` int64[num_groups + 1]: group g is places[bounds[g]:bounds[g + 1]], ascending.
    """
    compiled = kernels()
    if compiled is not None:
        num_bits = max(10, (8 * len(keys)).bit_length())
        seen, out = np.zeros(1 << (num_bits - 2), np.uint8), np.empty((2, len(keys) + 1), np.int64)
        num_groups = compiled.repeat(keys, keys if ties is None else ties, seen, 64 - num_bits, *out)
        found = out[1, : num_groups + 1].copy()
        return out[0, : found[-1]].copy(), found
    places = np.arange(len(keys))
    columns = (places, keys[places]) if ties is None else (places, ties[places], keys[places])
    places = places[np.lexsort(columns)]
    same = keys[places[1:]] == keys[places[:-1]]
    if ties is not None:
        same &= ties[places[1:]] == ties[places[:-1]]
    like_next, like_last = np.append(same, False)[: len(places)], np.append(False, same)[: len(places)]
    starts = np.flatnonzero(like_next & ~like_last)
    kept = np.flatnonzero(like_next | like_last)
    return places[kept], np.append(np.searchsorted(kept, starts), len(kept)).astype(np.int64)


def buckets(keys: U64, sets: I64) -> tuple[I64, I64, I64]:
    """Return which of some sets share a key of some band.

    Args:
        keys: uint64[bands, num].
        sets: int64[num_chosen]: those that are looked at, ascending.

    Returns:
        int64[num_sets], those that do, ascending; `members` int64[num_places], their places among these, and `bounds`
        int64[num_buckets + 1]: bucket b holds members[bounds[b]:bounds[b + 1]].
    """
    members, ends, taken, num_places = list[I64](), [np.zeros(1, np.int64)], np.zeros(len(sets), bool), 0
    for band in keys:
        places, bounds = repeated(band[sets])
        members.append(places)
        ends.append(bounds[1:] + num_places)
        num_places += len(places)
        taken[places] = True
    rank = np.cumsum(taken) - 1
    return sets[taken], rank[np.concatenate(members)], np.concatenate(ends)


def join_similar(members: I64, bounds: I64, sets: U64, indptr: I64, threshold: float) -> I64:
    """Unite the sets that are confirmed to be similar, among those that share a bucket.

    Two sets of a bucket that are linked already are not compared: the clusters stay the same.

    Args:
        members: int64[num_places]: the sets in all buckets.
        bounds: int64[num_buckets + 1]: bucket b holds members[bounds[b]:bounds[b + 1]].
        sets, indptr: the sets.
        threshold: least Jaccard similarity.

    Returns:
        int64[num_sets]: a forest; a root is its own parent.
    """
    compiled, parent = kernels(), np.arange(len(indptr) - 1)
    if compiled is not None:
        compiled.join(members, bounds, sets, indptr, threshold, parent)
        return parent
    values = functools.lru_cache(maxsize=1 << 14)(
        lambda i: frozenset(sets[indptr[i] : indptr[i + 1]].tolist())
    )

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for low, high in pairwise(bounds.tolist()):
        for a, b in combinations(members[low:high].tolist(), 2):
            one, other = root(a), root(b)
            if one != other and jaccard(values(a), values(b)) >= threshold:
                parent[max(one, other)] = min(one, other)
    return parent


def gather(values: U64, starts: I64, counts: I64, out: U64) -> None:
    """Write values[starts[i]:starts[i] + counts[i]] for each i, end to end, to `out`, which has room for just these."""
    compiled = kernels()
    if compiled is None:
        out[:] = values[ranges(starts, counts)]
    else:
        compiled.gather(values, starts, counts, out)


def jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    """Return the Jaccard similarity of two sets that are not both empty."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def common_sizes(sets: U64, indptr: I64, left: I64, right: I64) -> I64:
    """Return how many values the sets left[p] and right[p] share, for each pair p: int64[num_pairs]."""
    compiled = kernels()
    out = np.empty(len(left), np.int64)
    if compiled is not None:
        compiled.common(sets, indptr, left, right, out)
        return out
    for pair, (i, j) in enumerate(zip(left.tolist(), right.tolist())):
        one, other = sets[indptr[i] : indptr[i + 1]], sets[indptr[j] : indptr[j + 1]]
        out[pair] = len(np.intersect1d(one, other, assume_unique=True))
    return out
