"""The compiled kernels that group windows of words: which are the same, and where each stands.

They work on the arrays of `windows.Collected` and `windows.Grams`, a part of the range of hashes at a time, so that a
part fits the processor's cache and threads share nothing. Imported by `kernels.py` only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import uint64 as u64

from taskmill.jit import INT, MASK, ONE, R8, R64, RI32, RI64, W32, W64, WI32, WI64, compiled, inner
from taskmill.text import I32, I64, U8, U64

U32 = npt.NDArray[np.uint32]


@compiled(
    *(R64, RI64, RI64, INT, INT, INT, INT, WI64),
    *(W64, WI64, WI32, WI32, WI32),
)
def partition(
    grams: U64,
    num_words: I64,
    begins: I64,
    n: int,
    bits: int,
    first_text: int,
    first_byte: int,
    places: I64,
    hashes: U64,
    window_begin: I64,
    window_size: I32,
    texts: I32,
    positions: I32,
) -> int:
    """Order the windows of a run by the highest `bits` of their hash, else as they come; return their number.

    `places[part]` is where the run's first window of each part goes, and moves on. The run's texts are numbered from
    `first_text` on, and its words stand from `first_byte` on.
    """
    shift = u64(64 - bits)
    num, word, width = u64(0), u64(0), u64(n)
    for text in range(len(num_words)):
        for position in range(num_words[text] - n + 1):
            gram, first = grams[num], word + u64(position)
            part = gram >> shift if bits else u64(0)
            place = u64(places[part])
            places[part] += 1
            hashes[place], window_begin[place] = gram, first_byte + begins[first]
            window_size[place] = begins[first + width] - 1 - begins[first]
            texts[place], positions[place] = first_text + text, position
            num += ONE
        word += u64(num_words[text])
    return int(num)


@inner
def _same(joined: Any, one: Any, other: Any, size: Any) -> Any:
    """Say whether `size` bytes from two places on are equal."""
    k = u64(0)
    while k < u64(size) and joined[u64(one) + k] == joined[u64(other) + k]:
        k += ONE
    return k == u64(size)


@inner
def _by_bucket(grams: Any, bits: Any, level: Any, hashes: Any, items: Any) -> Any:
    """Order the grams of a part by the `level` bits below the highest `bits`; return where each bucket begins."""
    starts = np.zeros((1 << level) + 1, np.int64)
    high, shift = u64(bits), u64(64 - level)
    for k in range(len(grams)):
        starts[((grams[k] << high) >> shift) + ONE] += 1
    for k in range(1 << level):
        starts[k + 1] += starts[k]
    cursor = starts.copy()
    for k in range(len(grams)):
        bucket = (grams[k] << high) >> shift
        hashes[cursor[bucket]], items[cursor[bucket]] = grams[k], k
        cursor[bucket] += 1
    return starts


@compiled(
    *(R64, RI64, RI32, RI32, RI32, R8, INT, INT, INT),
    *(W64, WI64, WI64, WI32, WI64, WI64),
)
def group(
    hashes: U64,
    begins: I64,
    sizes: I32,
    texts: I32,
    positions: I32,
    joined: U8,
    bits: int,
    low: int,
    high: int,
    out: U64,
    ends: I64,
    window_begin: I64,
    window_size: I32,
    text: I64,
    position: I64,
) -> int:
    """Group the windows low .. high - 1, one part of `partition`, by hash and words; return the number of distinct grams.

    Gram i of the part goes to low + i: its hash to `out`, the end of its places to `ends`, where its words stand in `joined`
    to `window_begin` and `window_size`; the places go to `text` and `position`, from low on, by gram.
    """
    size, level = high - low, 1
    while (2 << level) < size and level + bits < 60:
        level += 1
    grams, items = np.empty(size, np.uint64), np.empty(size, np.int32)
    starts = _by_bucket(hashes[low:high], bits, level, grams, items)
    num, place = u64(low), u64(low)
    for bucket in range(u64(1) << u64(level)):
        start, stop = u64(starts[bucket]), u64(starts[bucket + ONE])
        left = stop - start
        while left > u64(0):  # the least hash that is left, and all with its words
            while items[start] < 0:
                start += ONE
            first = start
            for k in range(start, stop):
                if grams[k] < grams[first] and items[k] >= 0:
                    first = k
            item = u64(low + items[first])
            begin, length = begins[item], sizes[item]
            out[num], window_begin[num], window_size[num] = grams[first], begin, length
            for k in range(first, stop):
                if grams[k] != grams[first] or items[k] < 0:
                    continue
                other = u64(low + items[k])
                if k == first or (sizes[other] == length and _same(joined, begin, begins[other], length)):
                    text[place], position[place] = texts[other], positions[other]
                    place += ONE
                    left -= ONE
                    items[k] = -1
            ends[num] = place
            num += ONE
    return int(num - u64(low))


@compiled(
    *(RI64, RI64, INT, INT, R64, RI64, RI64, RI32),
    *(W64, WI64, WI64, WI32, W64, MASK, W32, MASK),
)
def settle(
    starts: I64,
    counts: I64,
    num: int,
    bucket: int,
    hashes: U64,
    ends: I64,
    begins: I64,
    sizes: I32,
    out: U64,
    ends_out: I64,
    window_begin: I64,
    window_size: I32,
    blocks: U64,
    block_shift: np.uint64,
    directory: U32,
    bucket_shift: np.uint64,
) -> int:
    """Put the grams of some parts end to end from gram `num` on, and enter them into the filter and the directory.

    `directory` ends with the last bucket of these parts, which begin with `bucket`. Returns the number of the next gram.
    """
    at, place = u64(num), u64(bucket)
    for part in range(len(counts)):
        for k in range(u64(starts[part]), u64(starts[part] + counts[part])):
            value = hashes[k]
            out[at], ends_out[at], window_begin[at], window_size[at] = value, ends[k], begins[k], sizes[k]
            blocks[value >> block_shift] |= (ONE << (value & u64(63))) | (
                ONE << ((value >> u64(6)) & u64(63))
            )
            while place <= value >> bucket_shift:
                directory[place] = at
                place += ONE
            at += ONE
    while place < u64(len(directory)):
        directory[place] = at
        place += ONE
    return int(at)
