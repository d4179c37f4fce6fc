"""The compiled kernels that find: cut and hash words, look windows up, rewrite characters beyond ASCII.

They are compiled first, and used as soon as they are there, while the rest of `kernels.py` is compiled. A kernel holds no
interpreter lock and works on arrays of its caller's; text t of a run is the UTF-8 bytes `raw[offsets[t]:offsets[t + 1]]`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import uint64 as u64

from taskmill.jit import INT, MASK, ONE, R8, R32, R64, RI32, RI64, W8, W64, WI64, compiled, inner
from taskmill.marks import ALONE, BASE, BOUND, INSIDE, JOINS
from taskmill.text import GRAM_BASE, I32, I64, MIX, U8, U64, WORD_BASE
from taskmill.utf8 import HEADER

U32 = npt.NDArray[np.uint32]

SEGMENT = 2048  # bytes cut at once; their powers stay in the first-level cache
SPACE = 32
TOO_SMALL, UNKNOWN, HARD = -1, -2, -3  # what `rewrite` returns where it could not end

_BASE, _GRAM = np.uint64(WORD_BASE), np.uint64(GRAM_BASE)
_M1, _M2 = np.uint64(MIX[0]), np.uint64(MIX[1])
_SEGMENT = np.uint64(SEGMENT)


def _powers(base: int, first: int) -> U64:
    """Return first * base**k modulo 2**64 for k = 0 .. SEGMENT."""
    values = np.full(SEGMENT + 1, base, np.uint64)
    values[0] = first
    return np.multiply.accumulate(values)


_INVERSE = pow(WORD_BASE, -1, 1 << 64)
INVERSES = _powers(_INVERSE, 1)  # base**-k
POWERS = _powers(WORD_BASE, _INVERSE)  # base**(k - 1)


@inner
def mixed(value: Any) -> Any:
    value = (value ^ (value >> u64(33))) * _M1
    value = (value ^ (value >> u64(33))) * _M2
    return value ^ (value >> u64(33))


@inner
def most_words(offsets: Any) -> Any:
    """Return what the words of any one text need, and room for two more."""
    longest = 0
    for text in range(len(offsets) - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    return longest // 2 + 3


@inner
def cut(
    raw: Any, begin: Any, end: Any, fold: Any, inverses: Any, powers: Any, ends: Any, sums: Any, hashes: Any
) -> Any:
    """Write where each word of a text ends, and its hash; return the number of words.

    No branch depends on a byte: every byte writes the end of a word, and one that separates moves on. A word's
    polynomial is the difference of two sums of byte[k] * base**-k.
    """
    before, num, carry = u64(0), u64(0), u64(0)
    while True:
        stop, first, total = min(end, begin + _SEGMENT), num, u64(0)
        for k in range(stop - begin):
            byte = u64(fold[raw[begin + k]])
            inside = u64(byte != u64(0))
            ends[num] = begin + k
            total += byte * inverses[k]
            sums[num] = total
            num += before & (inside ^ ONE)
            before = inside
        if stop == end and before != u64(0):
            ends[num] = stop
            sums[num] = total
            num += ONE
        last = u64(0)
        for k in range(first, num):
            hashes[k] = mixed((sums[k] - last) * powers[ends[k] - begin])
            last = sums[k]
        if num > first:
            if carry != u64(0):
                hashes[first] = mixed((sums[first] + carry) * powers[ends[first] - begin])
            carry = u64(0)
        if stop == end:
            return num
        carry = (total - last + carry) * powers[stop - begin] * _BASE if before != u64(0) else u64(0)
        begin = stop


@inner
def _matches(raw: Any, at: Any, end: Any, fold: Any, joined: Any, begin: Any, stop: Any) -> Any:
    """Return where in the text the words joined[begin:stop] end if they stand at raw[at:], else -1."""
    for k in range(begin, stop):
        wanted = joined[k]
        if wanted == SPACE:
            if fold[raw[at]] != 0:
                return -1
            while at < end and fold[raw[at]] == 0:
                at += 1
        else:
            if fold[raw[at]] != wanted:
                return -1
            at += 1
        if at == end:
            return at if k + 1 == stop else -1
    return at if fold[raw[at]] == 0 else -1


@compiled(
    *(R8, RI64, R8, R64, R64, INT, MASK, R64, MASK),
    *(WI64, WI64, WI64, WI64, W64),
)
def scan(
    raw: U8,
    offsets: I64,
    fold: U8,
    inverses: U64,
    powers: U64,
    n: int,
    mask: np.uint64,
    blocks: U64,
    block_shift: np.uint64,
    num_words: I64,
    text: I64,
    position: I64,
    start: I64,
    value: U64,
) -> int:
    """Write text, word, byte and hash of every window that passes the filter; return their number.

    `num_words[t]` gets the words of text t. The byte is that after the word before, or the first of the text.
    """
    size = most_words(offsets)
    ends, sums, hashes = np.empty(size, np.uint64), np.empty(size, np.uint64), np.empty(size, np.uint64)
    passed, grams = np.empty(size, np.uint64), np.empty(size, np.uint64)
    top, width, num = ONE, u64(n), u64(0)
    for _ in range(n):
        top *= _GRAM
    for t in range(len(offsets) - 1):
        begin = u64(offsets[t])
        found = cut(raw, begin, u64(offsets[t + 1]), fold, inverses, powers, ends, sums, hashes)
        num_words[t] = found
        if found < width:
            continue
        gram, num_passed, last = u64(0), u64(0), found - width + ONE
        for k in range(width):
            gram = gram * _GRAM + hashes[k]
        hashes[found] = 0
        for k in range(last):
            grams[k] = gram
            gram = gram * _GRAM + (hashes[k + width] - hashes[k] * top)
        for k in range(last):
            grams[k] = mixed(grams[k]) & mask
        for k in range(last):
            block = blocks[grams[k] >> block_shift]
            passed[num_passed] = k
            num_passed += (block >> (grams[k] & u64(63))) & (block >> ((grams[k] >> u64(6)) & u64(63))) & ONE
        for k in range(num_passed):
            place = passed[k]
            text[num], position[num], value[num] = t, place, grams[place]
            start[num] = ends[place - ONE] if place else begin
            num += ONE
    return int(num)


@compiled(
    *(R8, RI64, R8, INT, R32, MASK, R64, RI64, RI32, R8),
    *(WI64, WI64, WI64, R64, WI64),
)
def confirm(
    raw: U8,
    offsets: I64,
    fold: U8,
    num: int,
    directory: U32,
    bucket_shift: np.uint64,
    gram_hash: U64,
    window_begin: I64,
    window_size: I32,
    joined: U8,
    text: I64,
    position: I64,
    start: I64,
    value: U64,
    gram: I64,
) -> int:
    """Keep, of the `num` windows that `scan` wrote, those with the words of a gram, and write its number."""
    left = u64(0)
    for k in range(u64(num)):
        bucket = value[k] >> bucket_shift
        number, stop = u64(directory[bucket]), u64(directory[bucket + ONE])
        while number < stop and gram_hash[number] < value[k]:
            number += ONE
        text[left], position[left], start[left], gram[left] = text[k], position[k], start[k], number
        left += u64(number < stop and gram_hash[number] == value[k])
    kept, known, after, at, done = (
        0,
        -2,
        -1,
        -1,
        -1,
    )  # the last one kept, the window after its own, where they end
    for k in range(left):
        end, number = offsets[text[k] + 1], gram[k]
        wanted = gram_hash[number]
        while number < len(gram_hash) and gram_hash[number] == wanted:
            first, stop_byte = window_begin[number], window_begin[number] + window_size[number]
            if kept and text[kept - 1] == text[k] and position[k] == known + 1 and first == after:
                finish = _matches(raw, at, end, fold, joined, done, stop_byte) if at < end else -1
            else:
                begin = start[k]
                while fold[raw[begin]] == 0:
                    begin += 1
                finish = _matches(raw, begin, end, fold, joined, first, stop_byte)
            if finish >= 0:
                known, at, done, after = position[k], finish, stop_byte, first
                while joined[after] != SPACE:
                    after += 1
                after += 1
                text[kept], position[kept], gram[kept] = text[k], position[k], number
                kept += 1
                break
            number += 1
    return int(kept)


@inner
def _is_beyond(raw: Any, begin: Any, end: Any) -> Any:
    """Say whether a byte of raw[begin:end] is beyond ASCII."""
    seen = np.uint8(0)
    for k in range(begin, end):
        seen |= raw[k]
    return seen > 127


@inner
def _decoded(raw: Any, at: Any, length: Any) -> Any:
    """Return the code of the character of `length` bytes, two to four, at `at`."""
    code = u64(raw[at]) & (u64(0xFF) >> (length + ONE))
    for k in range(ONE, length):
        code = (code << u64(6)) | (u64(raw[at + k]) & u64(63))
    return min(code, u64(0x10FFFF))


@inner
def _joined(pool: Any, entry: Any, flags: Any, last: Any, out: Any, place: Any) -> Any:
    """Write the marks with which a character begins to out[place:]; return where they end, or HARD.

    They join the word before, ahead of the space that ends one of an unspaced script. HARD where one may compose with
    what stands before, or come before a mark there.
    """
    first, size, start = pool[entry + 3], u64(pool[entry + 1]), u64(entry + HEADER)
    if (pool[entry + 2] & JOINS and flags & BASE) or (first != 0 and first < last):
        return HARD
    if size == 0 or flags & (INSIDE | ALONE) == 0:
        return np.int64(place)
    ends = u64(flags & ALONE != 0)
    place -= ends
    for k in range(size):
        out[place + k] = pool[start + k]
    out[place + size] = SPACE
    return np.int64(place + size + ends)


@inner
def _rewrite_text(
    raw: Any,
    at: Any,
    end: Any,
    plain: Any,
    ascii_map: Any,
    ascii_flags: Any,
    table: Any,
    pool: Any,
    out: Any,
    place: Any,
    unknown: Any,
) -> Any:
    """Rewrite raw[at:end] to out[place:]; return where it ends, TOO_SMALL or HARD."""
    room = u64(len(out))
    flags, last = np.uint8(0), np.uint8(0)  # of what was written last
    while at < end:
        if place + (end - at) + u64(256) >= room:  # a character becomes 255 bytes at most
            return TOO_SMALL
        begin = at
        while at < end and raw[at] < 128:
            byte = raw[at] if plain else ascii_map[raw[at]]
            out[place] = byte
            place += u64(byte != 0) | u64(plain)
            at += ONE
        if at == end:
            break
        if at > begin:
            flags, last = ascii_flags[raw[at - ONE]], np.uint8(0)
        length = u64(2) if raw[at] < 0xE0 else (u64(3) if raw[at] < 0xF0 else u64(4))
        if at + length > end:
            return HARD
        code = _decoded(raw, at, length)
        entry = table[code]
        at += length
        if entry < 0:
            return HARD
        if entry == 0:
            if unknown[0] + 1 < len(unknown):
                unknown[0] += 1
                unknown[unknown[0]] = code
            continue
        size, start, now = u64(pool[entry]), u64(entry + HEADER), pool[entry + 2]
        if now & BOUND:
            done = _joined(pool, entry, flags, last, out, place)
            if done < 0:
                return HARD
            place = u64(done)
            num_marks = u64(pool[entry + 1])
            size -= num_marks
            start += num_marks
            if size == 0:  # nothing but marks
                now = (flags & np.uint8(3)) | ((flags if pool[entry + 3] else now) & np.uint8(BASE))
                flags, last = now, pool[entry + 4]
        for k in range(size):
            out[place + k] = pool[start + k]
        place += size
        if size:
            flags, last = now, pool[entry + 4]
    return np.int64(place)


@compiled(R8, RI64, INT, R8, R8, RI32, R8, W8, WI64, W8, WI64)
def rewrite(
    raw: U8,
    offsets: I64,
    plain: int,
    ascii_map: U8,
    ascii_flags: U8,
    table: I32,
    pool: U8,
    out: U8,
    out_offsets: I64,
    hard: U8,
    unknown: I64,
) -> int:
    """Put for every character what it becomes; return the bytes written to `out`.

    A byte of ASCII becomes `ascii_map[byte]`, 0 for nothing; where `plain`, it stays as it is. A character beyond has an entry
    in `table`, and from there on in `pool`: how many bytes it becomes; how many of them are marks, which come first and join
    the word before or vanish; flags, and the first and last combining class (`marks.py`); the bytes. A negative entry makes
    the text `hard` and empty in `out`, as do marks that may compose or change places. Those of entry 0 go to `unknown[1:]`,
    as far as it reaches, their number to `unknown[0]`, and UNKNOWN is returned; TOO_SMALL where `out` is.
    """
    place, unknown[0], out_offsets[0] = u64(0), 0, 0
    for text in range(len(offsets) - 1):
        at, end = u64(offsets[text]), u64(offsets[text + 1])
        if place + (end - at) >= u64(len(out)):
            return TOO_SMALL
        hard[text] = 0
        if plain and not _is_beyond(raw, at, end):
            for k in range(end - at):
                out[place + k] = raw[at + k]
            place += end - at
        else:
            done = _rewrite_text(
                raw, at, end, plain, ascii_map, ascii_flags, table, pool, out, place, unknown
            )
            if done == TOO_SMALL:
                return TOO_SMALL
            hard[text] = done == HARD
            place = u64(done) if done >= 0 else place
        out_offsets[text + 1] = place
    return UNKNOWN if unknown[0] else int(place)
