"""The compiled kernels of near-duplicates: shingle and sign texts, find keys that repeat, compare and unite sets.

Importing this module imports numba and compiles, or loads what an earlier run compiled; `minhash.kernels` says when. A
kernel holds no interpreter lock and works on arrays of its caller's. Sets lie end to end: set i is
`sets[indptr[i]:indptr[i + 1]]`. A set is looked up in a hash table `slots` of a power of two of places, in which a place is
taken where `marks` has the present mark.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba import uint32 as u32
from numba import uint64 as u64
from numba.core import cgutils
from numba.extending import intrinsic

from taskmill.jit import INT, ONE, R32, R64, RI64, W8, W64, WI64, compiled, inner
from taskmill.minhash import I64, MIX_32, U32, U64
from taskmill.text import GRAM_BASE, MIX, U8, WORD_BASE

_BASE, _M1, _M2 = np.uint64(GRAM_BASE), np.uint64(MIX[0]), np.uint64(MIX[1])
_SPREAD = np.uint64(WORD_BASE)
LANES = 64  # permutations of which the least values stay in registers
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
def _sparse_room(sizes: Any) -> Any:
    """Return the room of a table that stays seven eighths empty, so that few values meet another in their place."""
    return _room(4 * sizes)


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
    mask = u64(_sparse_room(last - first) - 1)
    power = ONE
    for _ in range(n):
        power *= _BASE
    for t in range(low, high):
        start, end = offsets[t], offsets[t + 1]
        if end - start < n:
            continue
        value = u64(0)
        for i in range(start, start + n):
            value = value * _BASE + words[i]
        for i in range(start, end - n + 1):
            shingle = _mixed(value)
            value = value * _BASE + (words[min(i + n, end - 1)] - words[i] * power)
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


def _on_lanes(context: Any, least: Any, a: Any, b: Any, begin: Any, mixed: Any, num: Any) -> Any:
    """Lower least[begin:begin + LANES] by the first `num` of `mixed`: one vector, kept in registers, of any machine's width.

    Left to itself, the compiler takes vectors of half the width that processors with AVX-512 have.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, none = ir.VectorType(ir.IntType(32), LANES), ir.Constant(ir.IntType(32), 0)

        def place_of(number: int, index: Any) -> Any:
            data = target.make_array(signature.args[number])(target, builder, arguments[number]).data
            return builder.gep(data, [index])

        places = [builder.bitcast(place_of(k, arguments[3]), vector.as_pointer()) for k in range(3)]
        lowest, factor, addend = [builder.load(place, align=4) for place in places]
        kept = cgutils.alloca_once_value(builder, lowest)
        with cgutils.for_range(builder, arguments[5]) as loop:
            one = builder.load(place_of(4, loop.index))
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), one, none)
            every = ir.Constant(vector, [0] * LANES)
            same = builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), every)
            value, before = builder.add(builder.mul(same, factor), addend), builder.load(kept)
            lower = builder.icmp_unsigned("<", value, before)
            builder.store(builder.select(lower, value, before), kept)
        builder.store(builder.load(kept), places[0], align=4)
        return target.get_dummy_value()

    return types.void(least, a, b, begin, mixed, num), generate


_lower_lanes: Any = intrinsic(_on_lanes)


@inner
def _lower(least: Any, shingles: Any, a: Any, b: Any, mixed: Any) -> Any:
    """Lower each entry of a signature to the least permuted value of the shingles; `mixed` has room for as many."""
    num = len(shingles)
    for i in range(num):
        value = u32(shingles[i])
        value = u32(u32(value ^ (value >> u32(16))) * _N1)
        value = u32(u32(value ^ (value >> u32(13))) * _N2)
        mixed[i] = u32(value ^ (value >> u32(16)))
    whole = len(a) // LANES * LANES
    for p in range(0, whole, LANES):
        _lower_lanes(least, a, b, p, mixed, num)
    if whole < len(a):
        for i in range(num):
            value = mixed[i]
            for p in range(whole, len(a)):
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
    room = _sparse_room(_largest(offsets, first))
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
        _lower(out[row], shingles[indptr[row] : indptr[row + 1]], a, b, mixed)
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
    room = _sparse_room(most)
    slots, marks = np.empty(room, np.uint64), np.zeros(room, np.int64)
    least, mixed = np.empty(len(a), np.uint32), np.empty(most, np.uint32)
    num = 0
    for example in range(len(first) - 1):
        begin = num
        low, high = first[example], first[example + 1]
        num = _add_set(words, offsets, low, high, n, out, num, slots, marks, example + 1)
        indptr[example + 1] = num
        least[:] = u32(0xFFFFFFFF)
        _lower(least, out[begin:num], a, b, mixed)
        _write_keys(least, bands, rows, keys[:, example])
        total = u64(0)
        for i in range(begin, num):
            total += out[i]
        digest[example] = total
    return num


# ------------------------------------------------------------------------------------------- compare


@inner
def _perhaps_repeated(keys: Any, seen: Any, shift: Any, out: Any) -> Any:
    """Write the places of all keys that occur twice, and of a few others; return their number.

    `seen` has two bits for each hash of a key: met once, met again; `shift` leaves of a hash what it has room for.
    """
    for i in range(len(keys)):
        place = (keys[i] * _SPREAD) >> u64(shift)
        byte, bit = seen[place >> u64(2)], u64(2) * (place & u64(3))
        met = (u64(byte) >> bit) & ONE
        seen[place >> u64(2)] = byte | np.uint8((ONE | (met << ONE)) << bit)
    num = u64(0)
    for i in range(len(keys)):
        place = (keys[i] * _SPREAD) >> u64(shift)
        out[num] = i
        num += (u64(seen[place >> u64(2)]) >> (u64(2) * (place & u64(3)) + ONE)) & ONE
    return np.int64(num)


@compiled(R64, R64, W8, INT, WI64, WI64)
def repeat(keys: U64, ties: U64, seen: U8, shift: int, places: I64, bounds: I64) -> int:
    """Write the places of pairs (keys[i], ties[i]) that occur twice, equal ones together; return the number of groups.

    `seen` and `shift`: see `_perhaps_repeated`; `places` and `bounds` have room for one more than all keys.
    """
    found = np.empty(len(places), np.int64)
    num = _perhaps_repeated(keys, seen, shift, found)
    room = u64(_room(num))
    slots, first = np.zeros(room, np.int64), np.empty(num, np.int64)
    sizes, group = np.zeros(num, np.int64), np.empty(num, np.int64)
    num_groups = 0
    for k in range(num):
        i = found[k]
        slot = ((keys[i] * _SPREAD) >> u64(32)) & (room - ONE)
        while slots[slot] > 0:
            other = first[slots[slot] - 1]
            if keys[other] == keys[i] and ties[other] == ties[i]:
                break
            slot = (slot + ONE) & (room - ONE)
        if slots[slot] == 0:
            first[num_groups] = i
            num_groups += 1
            slots[slot] = num_groups
        group[k] = slots[slot] - 1
        sizes[group[k]] += 1
    kept, end = 0, 0
    for number in range(num_groups):
        first[number] = end if sizes[number] > 1 else -1  # from here on, where the group's next place goes
        if sizes[number] > 1:
            bounds[kept] = end
            kept, end = kept + 1, end + sizes[number]
    bounds[kept] = end
    for k in range(num):
        place = first[group[k]]
        if place >= 0:
            places[place] = found[k]
            first[group[k]] = place + 1
    return kept


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
