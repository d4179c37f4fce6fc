"""Packing: several documents of the mixture in one sequence, filled almost whole (no torch).

`pack` decides which documents share a sequence. Without a budget it packs consecutive windows of the mixture's order;
an update then takes so many packs (`steps.py`). With a budget, the most tokens of an update, it decides for each update
which documents it holds and deals them out over packs that are even, as many for every rank.

    packs = pack(tokens.lengths[tokens.order], capacity=2048, window=1024, seed=7)
    packs.of(0)          # places of the mixture's order that share the first sequence

Best-fit decreasing: Johnson, "Near-optimal bin packing algorithms", 1973. Even packs, longest document first: Graham,
"Bounds on multiprocessing timing anomalies", 1969. A token budget over ranks: Wang et al., "OpenChat", 2023, whose
training code packs by first-fit decreasing.
The compiled packer needs numba; without it, or with TASKMILL_NO_NUMBA=1, Python gives the same packs.
"""

from __future__ import annotations

import functools
import heapq
import os
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import DataError, UsageError
from taskmill.seeding import derive, permute

I64 = NDArray[np.int64]
Assign = Callable[[I64, int], I64]
Strategy = Literal["best_fit", "none"]

_COMPILE_FROM = 3_000_000
"""Documents; below this, Python is done before numba is loaded and, the first time, has compiled: 0.4 us each here, 1.0 s."""
_RANKS = (
    1 << 62
)  # values of a random rank: far more than packs, so a pack's rank does not depend on their number
_ATTENTION_LENGTH = 49_152
"""Tokens of a document at which attention is as much work as all else: 12 times a width of 4,096."""


@dataclass(frozen=True)
class Packs:
    """Which documents stand in which pack, in training order."""

    documents: I64
    """int64[n']: places of the mixture's order, pack after pack; inside a pack ascending."""
    offsets: I64
    """int64[m + 1]: pack p holds documents[offsets[p]:offsets[p + 1]]."""
    lengths: I64 | None = None
    """int64[n']: tokens of each of `documents`."""
    updates: I64 | None = None
    """int64[s + 1], with a token budget: update s takes packs updates[s] to updates[s + 1] - 1."""

    @property
    def num_packs(self) -> int:
        """The number of packs."""
        return len(self.offsets) - 1

    @property
    def num_tokens(self) -> I64:
        """Tokens of each pack: int64[m]; ones where the documents' lengths are not known."""
        return np.ones(self.num_packs, np.int64) if self.lengths is None else self._sums(self.lengths)

    @property
    def work(self) -> I64:
        """The work of a training step on each pack, relative to others: int64[m]; see `document_work`."""
        if self.lengths is None:
            return np.ones(self.num_packs, np.int64)
        return self._sums(document_work(self.lengths))

    def _sums(self, values: I64) -> I64:
        upto = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        sums: I64 = upto[self.offsets[1:]] - upto[self.offsets[:-1]]
        return sums

    def of(self, number: int) -> I64:
        """Return the places of one pack: int64[k]."""
        return self.documents[self.offsets[number] : self.offsets[number + 1]]


def document_work(lengths: I64) -> I64:
    """Return the work of documents: a part that grows with the tokens, one with their square (attention)."""
    return lengths * _ATTENTION_LENGTH + lengths * lengths


def pack(
    lengths: I64,
    capacity: int,
    window: int,
    seed: int,
    strategy: Strategy = "best_fit",
    budget: int | None = None,
    ranks: int = 1,
) -> Packs:
    """Pack documents by best-fit decreasing inside consecutive windows of the mixture order, or each by itself.

    Packs of an earlier window come before those of a later one, so that the mixture's order holds to within a
    window; inside a window their order is shuffled by the seed. The documents of a window's emptiest pack are packed
    with the next window instead, none of them twice. A document of length 0 takes part in no pack.

    With a budget an update takes the longest run of the order that has no more tokens and fits into as few packs as
    that many tokens need; which documents these are does not depend on `ranks`. Window and seed are not used then.

    Args:
        lengths: int64[n], tokens of the document at each place of the mixture's order.
        capacity: most tokens of a pack.
        window: documents that are packed together.
        seed: of the order of packs.
        strategy: best_fit, or none: each document is a pack.
        budget: most tokens of an update over all ranks.
        ranks: devices over which an update is spread evenly.

    Raises:
        DataError: a document longer than `capacity` or than `budget`, or a negative length; the message names it.
        UsageError: capacity, window, budget or ranks is below 1.
    """
    lengths = np.ascontiguousarray(lengths, dtype=np.int64)
    _check(lengths, capacity, window, budget, ranks)
    present = np.flatnonzero(lengths)
    length_D = lengths[present]
    if budget is not None:
        return _in_updates(present, length_D, capacity, strategy, budget, ranks)
    window_D = present // window
    if strategy == "none":
        pack_D, window_P = np.arange(len(present), dtype=np.int64), window_D
    else:
        pack_D, window_P = _in_windows(length_D, window_D, capacity)
    pack_D = _shuffle_windows(window_P, seed)[pack_D]
    return _packs(present, length_D, pack_D, len(window_P))


def _packs(place_D: I64, length_D: I64, pack_D: I64, num_packs: int, updates: I64 | None = None) -> Packs:
    by_pack = np.lexsort((place_D, pack_D))
    counts = np.bincount(pack_D, minlength=num_packs)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Packs(place_D[by_pack], offsets, length_D[by_pack], updates)


def _check(lengths: I64, capacity: int, window: int, budget: int | None, ranks: int) -> None:
    for name, value in (
        ("max_length", capacity),
        ("train.packing_window", window),
        ("train.batch_tokens", budget),
        ("the number of ranks", ranks),
    ):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}; expected at least 1")
    most = capacity if budget is None else min(capacity, budget)
    wrong = np.flatnonzero((lengths < 0) | (lengths > most))
    if wrong.size:
        number = int(wrong[0])
        whose = "the context of the model" if most == capacity else "train.batch_tokens of an update"
        hint = "lower tokenize.max_length or choose a model with more context"
        raise DataError(
            "a document does not fit in a pack",
            record=number,
            field="length",
            value=int(lengths[number]),
            expected=f"0 to {most} tokens, {whose}",
            hint=f"{wrong.size} documents are so; "
            + (hint if most == capacity else "raise train.batch_tokens to tokenize.max_length or more"),
        )


def _in_windows(length_D: I64, window_D: I64, capacity: int) -> tuple[I64, I64]:
    """Pack each window; the documents of its emptiest pack move on to the next, none of them twice.

    Returns:
        the pack of each document, int64[n], and the window of each pack, int64[m], ascending.
    """
    assign = _assign(len(length_D))
    pack_D, window_P = np.empty(len(length_D), dtype=np.int64), [np.zeros(0, dtype=np.int64)]
    starts = np.flatnonzero(np.diff(window_D, prepend=-1)).tolist()
    num_packs, moved = 0, np.zeros(0, dtype=np.int64)
    for start, end in zip(starts, [*starts[1:], len(length_D)]):
        here = np.concatenate([moved, np.arange(start, end)])
        fitted = _best_fit(length_D[here], capacity, assign)
        load_P = np.bincount(fitted, weights=length_D[here])
        least, moved = int(np.argmin(load_P)), here[:0]
        movable = here[fitted == least]
        if end < len(length_D) and load_P[least] < capacity and len(load_P) > 1 and movable[0] >= start:
            moved = movable
            here, fitted = here[fitted != least], fitted[fitted != least]
            fitted -= fitted > least
        pack_D[here] = num_packs + fitted
        num_here = len(load_P) - (len(moved) > 0)
        window_P.append(np.full(num_here, window_D[start]))
        num_packs += num_here
    return pack_D, np.concatenate(window_P)


def _best_fit(length_D: I64, capacity: int, assign: Assign) -> I64:
    """Return the pack of each document, in whichever order they come: int64[n]."""
    order = np.argsort(-length_D, kind="stable")
    pack_D = np.empty(len(length_D), dtype=np.int64)
    pack_D[order] = assign(length_D[order], capacity)
    return pack_D


def _shuffle_windows(window_P: I64, seed: int) -> I64:
    """Return each pack's place: int64[m]; packs move inside their window only."""
    rank_P = permute(derive(seed, "packing"), np.arange(len(window_P), dtype=np.int64), _RANKS)
    place_P = np.empty(len(window_P), dtype=np.int64)
    place_P[np.lexsort((rank_P, window_P))] = np.arange(len(window_P))
    return place_P


# ------------------------------------------------------------------------------------ a token budget


def _in_updates(
    place_D: I64, length_D: I64, capacity: int, strategy: Strategy, budget: int, ranks: int
) -> Packs:
    """Cut the order into updates of at most `budget` tokens, and each update into packs."""
    assign = _assign(len(length_D))
    pack_D = np.empty(len(length_D), dtype=np.int64)
    updates = [0]
    for first, last, fitted in _runs(length_D, capacity, strategy, budget, assign):
        here = length_D[first:last]
        if strategy == "best_fit":
            num_packs = ranks * -(-(int(fitted.max()) + 1) // ranks)
            fitted = _even(here, capacity, num_packs, fitted)
            fitted = np.unique(fitted, return_inverse=True)[1]  # fewer documents than packs leave some empty
        pack_D[first:last] = updates[-1] + fitted
        updates.append(updates[-1] + int(fitted.max()) + 1)
    return _packs(place_D, length_D, pack_D, updates[-1], np.array(updates, dtype=np.int64))


def _runs(
    length_D: I64, capacity: int, strategy: Strategy, budget: int, assign: Assign
) -> Iterator[tuple[int, int, I64]]:
    """Yield (first, last, pack of each document) of each update: documents first to last - 1."""
    upto = np.concatenate([[0], np.cumsum(length_D)])
    most = -(-budget // capacity)
    first = 0
    while first < len(length_D):
        last = int(np.searchsorted(upto, upto[first] + budget, side="right")) - 1
        fitted = np.arange(last - first, dtype=np.int64)
        while strategy == "best_fit":
            here = length_D[first:last]
            fitted = _best_fit(here, capacity, assign)
            load = np.sort(np.bincount(fitted, weights=here))
            too_many = load[: max(0, len(load) - most)]
            if not len(too_many):
                break
            fits = int(np.searchsorted(upto, upto[last] - int(too_many.sum()), side="right")) - 1
            last = max(first + 1, min(last - 1, fits))
        yield first, last, fitted
        first = last


def _even(length_D: I64, capacity: int, num_packs: int, otherwise: I64) -> I64:
    """Give each document, longest first, to the pack with the least work; `otherwise` where one would not fit so."""
    heap = [(0, number) for number in range(num_packs)]
    room = [capacity] * num_packs
    packs = np.empty(len(length_D), dtype=np.int64)
    order = np.argsort(-length_D, kind="stable")
    work = document_work(length_D[order]).tolist()
    for place, length, cost in zip(order.tolist(), length_D[order].tolist(), work):
        done, chosen = heap[0]
        if room[chosen] < length:
            return otherwise
        room[chosen] -= length
        heapq.heapreplace(heap, (done + cost, chosen))
        packs[place] = chosen
    return packs


# -------------------------------------------------------------------------------- best-fit decreasing


def _assign(num_documents: int) -> Assign:
    """Return the packer: Python for few documents, compiled for many where numba is installed."""
    if os.environ.get("TASKMILL_NO_NUMBA") == "1" or num_documents < _COMPILE_FROM:
        return assign_python
    return load_compiled() or assign_python


def assign_python(length_D: I64, capacity: int) -> I64:
    """Give each document, longest first, to the fullest pack that has room.

    Of packs that are equally full the one touched last is taken.

    Args:
        length_D: int64[n], descending.
        capacity: tokens of a pack.

    Returns:
        the pack of each document, numbered in the order of opening: int64[n].
    """
    packs, num_packs = [], 0
    open_packs: dict[int, list[int]] = {}  # room left -> packs, the one touched last at the end
    rooms: list[int] = []  # the keys of open_packs, ascending
    for length in length_D.tolist():
        at = bisect_left(rooms, length)
        if at == len(rooms):
            chosen, room, num_packs = num_packs, capacity, num_packs + 1
        else:
            room = rooms[at]
            chosen = open_packs[room].pop()
            if not open_packs[room]:
                del open_packs[room], rooms[at]
        left = room - length
        if left:
            if left not in open_packs:
                open_packs[left] = []
                insort(rooms, left)
            open_packs[left].append(chosen)
        packs.append(chosen)
    return np.array(packs, dtype=np.int64)


@functools.cache
def load_compiled() -> Assign | None:
    """Compile the packer; None where numba is missing."""
    try:
        import numba
    except ImportError:
        return None
    signature = "int64[::1](int64[::1], int64)"
    try:
        compiled = numba.njit(signature, cache=True, nogil=True)(_assign_bits)
    except (OSError, RuntimeError):  # no folder for the cache
        compiled = numba.njit(signature, nogil=True)(_assign_bits)
    result: Assign = compiled
    return result


def _assign_bits(length_D: I64, capacity: int) -> I64:
    """Do what `assign_python` does, with a stack of packs per room and a bit per room that has one."""
    packs = np.empty(len(length_D), np.int64)
    below = np.full(len(length_D), -1, np.int64)  # the pack under it on its stack
    top = np.full(capacity + 1, -1, np.int64)
    bits = np.zeros(capacity // 32 + 1, np.int64)
    num_packs = 0
    for i in range(len(length_D)):
        length = length_D[i]
        word, room = length >> 5, length
        rest = bits[word] >> (length & 31)
        if rest == 0:
            word += 1
            while word < len(bits) and bits[word] == 0:
                word += 1
            room = word << 5
            rest = bits[word] if word < len(bits) else 0
        if rest == 0:
            chosen, room = num_packs, capacity
            num_packs += 1
        else:
            while rest & 1 == 0:
                rest >>= 1
                room += 1
            chosen = top[room]
            top[room] = below[chosen]
            if top[room] == -1:
                bits[room >> 5] &= ~(1 << (room & 31))
        left = room - length
        if left:
            below[chosen] = top[left]
            top[left] = chosen
            bits[left >> 5] |= 1 << (left & 31)
        packs[i] = chosen
    return packs
