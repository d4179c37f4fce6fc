"""Packing: several documents of the mixture in one sequence, filled almost whole (no torch).

`pack` decides which documents share a sequence; `collate` lays the chosen packs out as arrays in which every token
knows its document, its position inside it and the weight of the target that follows it.

    packs = pack(tokens.lengths, capacity=2048, window=1024, seed=7)
    batch = collate(tokens, packs, first=0, last=4, pad_id=0)

Shape suffixes: B packs, T tokens of a pack.
Best-fit decreasing: Johnson, "Near-optimal bin packing algorithms", 1973.
The compiled packer needs numba; without it, or with TASKMILL_NO_NUMBA=1, Python gives the same packs.
"""

from __future__ import annotations

import functools
import os
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import DataError, UsageError
from taskmill.seeding import derive, permute

I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
Assign = Callable[[I64, I64, int], I64]
_COMPILE_FROM = 1_000_000  # documents; below this, Python is done before numba is loaded


@dataclass(frozen=True)
class Packs:
    """Which documents stand in which pack, in training order."""

    documents: I64
    """int64[n']: document numbers, pack after pack; inside a pack in mixture order."""
    offsets: I64
    """int64[m + 1]: pack p holds documents[offsets[p]:offsets[p + 1]]."""

    @property
    def num_packs(self) -> int:
        """The number of packs."""
        return len(self.offsets) - 1

    def of(self, number: int) -> I64:
        """Return the documents of one pack: int64[k]."""
        return self.documents[self.offsets[number] : self.offsets[number + 1]]


def pack(lengths: I64, capacity: int, window: int, seed: int) -> Packs:
    """Pack documents by best-fit decreasing inside consecutive windows of the mixture order.

    Packs of an earlier window come before those of a later one, so that the mixture's order holds to within a
    window; inside a window their order is shuffled by the seed. A document of length 0 takes part in no pack.

    Args:
        lengths: int64[n], tokens per document.
        capacity: most tokens of a pack.
        window: documents that are packed together.
        seed: of the order of packs.

    Raises:
        DataError: a document longer than `capacity`, or a negative length; the message names it.
        UsageError: capacity or window is below 1.
    """
    lengths = np.ascontiguousarray(lengths, dtype=np.int64)
    _check(lengths, capacity, window)
    present = np.flatnonzero(lengths)
    order = present[np.lexsort((present, -lengths[present], present // window))]
    pack_D = _assign(len(order))(lengths[order], order // window, capacity)
    num_packs = int(pack_D.max()) + 1 if len(order) else 0
    place_P = _shuffle_windows(pack_D, order // window, num_packs, seed)
    place_D = place_P[pack_D]
    by_pack = np.lexsort((order, place_D))
    counts = np.bincount(place_D, minlength=num_packs)
    return Packs(order[by_pack], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _check(lengths: I64, capacity: int, window: int) -> None:
    for name, value in (("max_length", capacity), ("train.packing_window", window)):
        if value < 1:
            raise UsageError(f"{name} is {value}; expected at least 1")
    wrong = np.flatnonzero((lengths < 0) | (lengths > capacity))
    if wrong.size:
        number = int(wrong[0])
        raise DataError(
            "a document does not fit in a pack",
            record=number,
            field="length",
            value=int(lengths[number]),
            expected=f"0 to {capacity} tokens, the context of the model",
            hint=f"{wrong.size} documents are so; lower tokenize.max_length or choose a model with more context",
        )


def _shuffle_windows(pack_D: I64, window_D: I64, num_packs: int, seed: int) -> I64:
    """Return each pack's place: int64[m]; packs move inside their window only."""
    window_P = np.zeros(num_packs, dtype=np.int64)
    window_P[pack_D] = window_D
    starts = np.flatnonzero(np.diff(window_P, prepend=-1))
    place_P = np.empty(num_packs, dtype=np.int64)
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), num_packs]):
        key = derive(seed, "packing", int(window_P[start]))
        place_P[start:end] = start + permute(key, np.arange(end - start, dtype=np.int64), end - start)
    return place_P


# -------------------------------------------------------------------------------- best-fit decreasing


def _assign(num_documents: int) -> Assign:
    """Return the packer: Python for few documents, compiled for many where numba is installed."""
    if os.environ.get("TASKMILL_NO_NUMBA") == "1" or num_documents < _COMPILE_FROM:
        return assign_python
    return load_compiled() or assign_python


def assign_python(length_D: I64, window_D: I64, capacity: int) -> I64:
    """Give each document, longest first within its window, to the fullest pack of the window that has room.

    Of packs that are equally full the one touched last is taken.

    Args:
        length_D: int64[n], descending within a window.
        window_D: int64[n], ascending.
        capacity: tokens of a pack.

    Returns:
        the pack of each document, numbered in the order of opening: int64[n].
    """
    packs, num_packs, window = [], 0, -1
    open_packs: dict[int, list[int]] = {}  # room left -> packs, the one touched last at the end
    rooms: list[int] = []  # the keys of open_packs, ascending
    for length, now in zip(length_D.tolist(), window_D.tolist()):
        if now != window:
            open_packs, rooms, window = {}, [], now
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
    signature = "int64[::1](int64[::1], int64[::1], int64)"
    try:
        compiled = numba.njit(signature, cache=True, nogil=True)(_assign_bits)
    except (OSError, RuntimeError):  # no folder for the cache
        compiled = numba.njit(signature, nogil=True)(_assign_bits)
    result: Assign = compiled
    return result


def _assign_bits(length_D: I64, window_D: I64, capacity: int) -> I64:
    """Do what `assign_python` does, with a stack of packs per room and a bit per room that has one."""
    packs = np.empty(len(length_D), np.int64)
    below = np.full(len(length_D), -1, np.int64)  # the pack under it on its stack
    top = np.full(capacity + 1, -1, np.int64)
    bits = np.zeros(capacity // 32 + 1, np.int64)
    num_packs, window = 0, -1
    for i in range(len(length_D)):
        if window_D[i] != window:
            top[:] = -1
            bits[:] = 0
            window = window_D[i]
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
