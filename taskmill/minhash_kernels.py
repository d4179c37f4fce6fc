"""The compiled kernels of near-duplicates: shingle and sign texts, find keys that repeat, compare and unite sets.

Importing this module imports numba and compiles, or loads what an earlier run compiled; `minhash.kernels` says when. A
kernel holds no interpreter lock and works on arrays of its caller's. Sets lie end to end: set i is
`sets[indptr[i]:indptr[i + 1]]`. A set is looked up in a hash table `slots` of a power of two of places, in which a place is
taken where `marks` has the present mark.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba import uint32 as u32
from numba import uint64 as u64

from taskmill.jit import INT, ONE, R32, R64, RI64, W64, WI64, compiled, inner
from taskmill.minhash import I64, MIX_32, U32, U64
from taskmill.text import GRAM_BASE, MIX, U8, WORD_BASE

_BASE, _M1, _M2 = np.uint64(GRAM_BASE), np.uint64(MIX[0]), np.uint64(MIX[1])
_SPREAD = np.uint64(WORD_BASE)
_N1, _N2 = np.uint32(MIX_32[0]), np.uint32(MIX_32[1])


def _table(kind: Any, written: bool = True) -> Any:
    return types.Array(kind, 2, "C", readonly=not written)


# ------------------------------------------------------------------------------------ shingle and sign


@inner
def _mixed(value: Any) -> Any:
    value = (value ^ (value >> u64(33))) * _M1
    value = (value ^ (value >> u64(33))) * _M2
    return value ^ (value >> u64(33))


@inner
def _room(sizes: Any) -> Any:
    """Return the least power of two that is twice as large as the largest size, so that a table of it stays half empty."""
    room = 8
    while room < 2 * sizes:
        room *= 2
    return room


@inner
def _whole(words: Any, low: Any, high: Any) -> Any:
    """Return the hash of all words of an example, as `text.span_hashes` has it."""
    value, step = u64(0), u64(0)
    for i in range(low, high):
        value += _mixed(step + words[i])
        step += _BASE
    return _mixed(value + u64(high - low))


@inner
def _add_set(
    words: Any,
    offsets: Any,
    low: Any,
    high: Any,
    n: Any,
    out: Any,
    num: Any,
    slots: Any,
    marks: Any,
    mark: Any,
) -> Any:
    """Write the distinct shingles of the example with the texts low .. high - 1; return the number of all so far."""
    begin, first, last = num, offsets[low], offsets[high]
    mask = u64(_room(last - first) - 1)
    power = ONE
    for _ in range(n - 1):
        power *= _BASE
    for t in range(low, high):
        start, end = offsets[t], offsets[t + 1]
        if end - start < n:
            continue
        value = u64(0)
        for i in range(start, start + n - 1):
            value = value * _BASE + words[i]
        for i in range(start, end - n + 1):
            value = value * _BASE + words[i + n - 1]
            shingle = _mixed(value)
            value -= words[i] * power
            place = shingle & mask
            while marks[place] == mark and slots[place] != shingle:
                place = (place + ONE) & mask
            if marks[place] != mark:
                marks[place], slots[place] = mark, shingle
                out[num] = shingle
                num += 1
    if num == begin and last > first:
        out[num] = _whole(words, first, last)
        num += 1
    return num


@inner
def _lower(least: Any, shingles: Any, low: Any, high: Any, a: Any, b: Any, mixed: Any) -> Any:
    """Lower each entry of a signature to the least permuted value of the shingles low .. high - 1, four at a time.

    `mixed` has room for as many.
    """
    for i in range(high - low):
        value = u32(shingles[low + i])
        value = u32(u32(value ^ (value >> u32(16))) * _N1)
        value = u32(u32(value ^ (value >> u32(13))) * _N2)
        mixed[i] = u32(value ^ (value >> u32(16)))
    fours = (high - low) // 4 * 4
    for i in range(0, fours, 4):
        one, two, three, four = mixed[i], mixed[i + 1], mixed[i + 2], mixed[i + 3]
        for p in range(len(a)):
            first = min(u32(a[p] * one + b[p]), u32(a[p] * two + b[p]))
            second = min(u32(a[p] * three + b[p]), u32(a[p] * four + b[p]))
            least[p] = min(least[p], min(first, second))
    for i in range(fours, high - low):
        value = mixed[i]
        for p in range(len(a)):
            least[p] = min(least[p], u32(a[p] * value + b[p]))


@inner
def _write_keys(least: Any, bands: Any, rows: Any, keys: Any) -> Any:
    for band in range(bands):
        key = u64(band + 1)
        for row in range(rows):
            key = (key ^ u64(least[band * rows + row])) * _M1
            key ^= key >> u64(32)
        keys[band] = key


@inner
def _largest(offsets: Any, first: Any) -> Any:
    """Return the most words that an example has."""
    most = 0
    for example in range(len(first) - 1):
        most = max(most, offsets[first[example + 1]] - offsets[first[example]])
    return most


@compiled(R64, RI64, RI64, INT, W64, WI64)
def shingle(words: U64, offsets: I64, first: I64, n: int, out: U64, indptr: I64) -> int:
    """Write the distinct shingles of each example, and where they end; return their number."""
    room = _room(_largest(offsets, first))
    slots, marks = np.empty(room, np.uint64), np.zeros(room, np.int64)
    num = 0
    for example in range(len(first) - 1):
        low, high = first[example], first[example + 1]
        num = _add_set(words, offsets, low, high, n, out, num, slots, marks, example + 1)
        indptr[example + 1] = num
    return num


@compiled(R64, RI64, R32, R32, _table(types.uint32))
def sign(shingles: U64, indptr: I64, a: U32, b: U32, out: U32) -> int:
    """Lower each row of `out` to the signature of its set."""
    most = 0
    for row in range(len(indptr) - 1):
        most = max(most, indptr[row + 1] - indptr[row])
    mixed = np.empty(most, np.uint32)
    for row in range(len(indptr) - 1):
        _lower(out[row], shingles, indptr[row], indptr[row + 1], a, b, mixed)
    return 0


@compiled(_table(types.uint32, False), INT, INT, _table(types.uint64))
def band(signatures: U32, bands: int, rows: int, keys: U64) -> int:
    """Write the keys of the bands of each signature."""
    for i in range(len(signatures)):
        _write_keys(signatures[i], bands, rows, keys[i])
    return 0


@compiled(
    *(R64, RI64, RI64, INT, R32, R32, INT, INT),
    *(W64, WI64, W64, _table(types.uint64)),
)
def sketch(
    words: U64,
    offsets: I64,
    first: I64,
    n: int,
    a: U32,
    b: U32,
    bands: int,
    rows: int,
    out: U64,
    indptr: I64,
    digest: U64,
    keys: U64,
) -> int:
    """Do `shingle`, `sign` and `band` for each example, and write the sum of its shingles; return the number of all."""
    most = _largest(offsets, first)
    slots, marks = np.empty(_room(most), np.uint64), np.zeros(_room(most), np.int64)
    least, mixed = np.empty(len(a), np.uint32), np.empty(most, np.uint32)
    num = 0
    for example in range(len(first) - 1):
        begin = num
        low, high = first[example], first[example + 1]
        num = _add_set(words, offsets, low, high, n, out, num, slots, marks, example + 1)
        indptr[example + 1] = num
        least[:] = u32(0xFFFFFFFF)
        _lower(least, out, begin, num, a, b, mixed)
        _write_keys(least, bands, rows, keys[example])
        total = u64(0)
        for i in range(begin, num):
            total += out[i]
        digest[example] = total
    return num


# ------------------------------------------------------------------------------------------- compare


@compiled(R64, _table(types.uint8), INT, WI64)
def repeat(keys: U64, seen: U8, shift: int, out: I64) -> int:
    """Write the places of all keys that occur twice, and of a few others; return their number.

    seen[0] has a bit for each key met once, seen[1] for each met again; `shift` leaves as many bits as they have.
    """
    for i in range(len(keys)):
        bit = (keys[i] * _SPREAD) >> u64(shift)
        mask = np.uint8(1) << np.uint8(bit & u64(7))
        if seen[0, bit >> u64(3)] & mask:
            seen[1, bit >> u64(3)] |= mask
        seen[0, bit >> u64(3)] |= mask
    num = 0
    for i in range(len(keys)):
        bit = (keys[i] * _SPREAD) >> u64(shift)
        if seen[1, bit >> u64(3)] & (np.uint8(1) << np.uint8(bit & u64(7))):
            out[num] = i
            num += 1
    return num


@inner
def _note(sets: Any, indptr: Any, i: Any, slots: Any, marks: Any, mark: Any) -> Any:
    """Put set i in the table."""
    mask = u64(len(slots) - 1)
    for k in range(indptr[i], indptr[i + 1]):
        place = sets[k] & mask
        while marks[place] == mark:
            place = (place + ONE) & mask
        marks[place], slots[place] = mark, sets[k]


@inner
def _count(sets: Any, indptr: Any, i: Any, slots: Any, marks: Any, mark: Any) -> Any:
    """Return how many values of set i are in the table."""
    mask = u64(len(slots) - 1)
    num = 0
    for k in range(indptr[i], indptr[i + 1]):
        place = sets[k] & mask
        while marks[place] == mark and slots[place] != sets[k]:
            place = (place + ONE) & mask
        num += marks[place] == mark
    return num


@compiled(R64, RI64, RI64, W64)
def gather(values: U64, starts: I64, counts: I64, out: U64) -> int:
    """Copy values[starts[i]:starts[i] + counts[i]] for each i, end to end."""
    num = 0
    for i in range(len(starts)):
        start = starts[i]
        for k in range(counts[i]):
            out[num + k] = values[start + k]
        num += counts[i]
    return num


@inner
def _largest_set(indptr: Any, chosen: Any) -> Any:
    most = 0
    for k in range(len(chosen)):
        most = max(most, indptr[chosen[k] + 1] - indptr[chosen[k]])
    return most


@compiled(R64, RI64, RI64, RI64, WI64)
def common(sets: U64, indptr: I64, left: I64, right: I64, out: I64) -> int:
    """Write how many values the sets left[p] and right[p] share, for each pair p."""
    room = _room(_largest_set(indptr, left))
    slots, marks = np.empty(room, np.uint64), np.zeros(room, np.int64)
    mark = 0
    for pair in range(len(left)):
        if pair == 0 or left[pair] != left[pair - 1]:
            mark += 1
            _note(sets, indptr, left[pair], slots, marks, mark)
        out[pair] = _count(sets, indptr, right[pair], slots, marks, mark)
    return 0


@inner
def _root(parent: Any, i: Any) -> Any:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@inner
def _find_similar(
    members: Any, other: Any, following: Any, size: Any, sets: Any, indptr: Any, threshold: Any, table: Any
) -> Any:
    """Return the first place of a list whose set is as similar to the noted one, of that size, as the threshold; else -1."""
    slots, marks, mark = table
    while other >= 0:
        i = members[other]
        theirs = indptr[i + 1] - indptr[i]
        if min(size, theirs) >= threshold * max(size, theirs):
            num = _count(sets, indptr, i, slots, marks, mark)
            if num / (size + theirs - num) >= threshold:
                return other
        other = following[other]
    return -1


@compiled(RI64, RI64, R64, RI64, types.float64, WI64)
def join(members: I64, bounds: I64, sets: U64, indptr: I64, threshold: float, parent: I64) -> int:
    """Unite in the forest `parent` the similar sets of each bucket members[bounds[b]:bounds[b + 1]].

    Within a bucket, linked places form lists: a new place is compared with those of each list until one is similar, and
    two lists that it links become one. heads and tails are the lists' ends, following[place] is the next place or -1.
    """
    room = _room(_largest_set(indptr, members))
    slots, marks, mark = np.empty(room, np.uint64), np.zeros(room, np.int64), 0
    heads, tails = np.empty(len(members), np.int64), np.empty(len(members), np.int64)
    following = np.empty(len(members), np.int64)
    for bucket in range(len(bounds) - 1):
        num_lists = 0
        for place in range(bounds[bucket], bounds[bucket + 1]):
            new, own, number, noted = members[place], -1, 0, False
            size = indptr[new + 1] - indptr[new]
            while number < num_lists:
                a, b = _root(parent, new), _root(parent, members[heads[number]])
                if a != b:
                    if not noted:
                        noted, mark = True, mark + 1
                        _note(sets, indptr, new, slots, marks, mark)
                    table = (slots, marks, mark)
                    if (
                        _find_similar(members, heads[number], following, size, sets, indptr, threshold, table)
                        < 0
                    ):
                        number += 1
                        continue
                    parent[max(a, b)] = min(a, b)
                if own < 0:
                    own, number = number, number + 1
                else:
                    num_lists -= 1
                    following[tails[own]], tails[own] = heads[number], tails[number]
                    heads[number], tails[number] = heads[num_lists], tails[num_lists]
            if own < 0:
                own, num_lists = num_lists, num_lists + 1
                heads[own], tails[own], following[place] = place, place, -1
            else:
                following[place], heads[own] = heads[own], place
    return 0
