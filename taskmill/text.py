"""Normalise text to words, and hash words and word n-grams.

Reads strings, returns arrays. `words.py` says how words are cut, `grams.py` finds the n-grams that two sides share.

    >>> words("It's 3.5 km to Straße 7, 東京")
    ['it', 's', '3', '5', 'km', 'to', 'strasse', '7', '東', '京']
    >>> hashes, offsets = word_hashes(["the cat sat", "The cat."])
    >>> (hashes[:2] == hashes[3:]).tolist(), offsets.tolist()
    ([True, True], [0, 3, 5])

The compiled kernels need numba; without it, or with TASKMILL_NO_NUMBA=1, numpy gives the same numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from hashlib import blake2b
from itertools import pairwise
from types import ModuleType

import numpy as np
import numpy.typing as npt

from taskmill.compiling import kernels_for
from taskmill.leaves import text_leaves as text_leaves
from taskmill.normalisers import WORDS, Normaliser
from taskmill.utf8 import Run, prepared, runs
from taskmill.words import NORMALISATION as NORMALISATION
from taskmill.words import normalise as normalise
from taskmill.words import words as words

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

N = 13  # words a gram, as in OPT-IML's leakage check
CHUNK_BYTES = 4 << 20  # bytes hashed at once; bounds the working memory

WORD_BASE = 0x9E3779B97F4A7C15  # odd: polynomial base over the bytes of a word, modulo 2**64
GRAM_BASE = 0xD1342543DE82EF95  # odd: polynomial base over the words of a gram
MIX = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)  # multipliers of MurmurHash3's 64-bit finaliser
_BLOCK_BYTES = 1 << 17  # bytes of words whose powers fit the processor's cache


def window(text: str, position: int, n: int = N) -> str:
    """Return the `n` normalised words from word `position` on, joined by one space.

    Raises ValueError where the text has no such window.
    """
    found = words(text)
    if n < 1 or not 0 <= position <= len(found) - n:
        raise ValueError(f"no window of {n} words at word {position} of a text of {len(found)} words")
    return " ".join(found[position : position + n])


def short_key(texts: Iterable[str]) -> bytes:
    """Return a 16-byte digest of the normalised words of an example's parts, in the order given.

    Where a part ends does not count. Examples without any word share one key: tell them apart beforehand.
    """
    line = " ".join(word for text in texts for word in words(text))
    return blake2b(line.encode(), digest_size=16, person=NORMALISATION.encode()).digest()


def whole_keys(hashes: U64, bounds: I64) -> list[bytes]:
    """Return a 16-byte digest of the words of each example, in order, from what `word_hashes` returns.

    Args:
        hashes: uint64[num_words].
        bounds: int64[num_examples + 1]; the words of example i are `hashes[bounds[i]:bounds[i + 1]]`.

    Where a part ends does not count. An example without any word has the key `short_key([])`.
    """
    data = memoryview(hashes.astype("<u8", copy=False).tobytes())
    ends = (bounds * 8).tolist()
    person = NORMALISATION.encode()
    return [blake2b(data[start:end], digest_size=16, person=person).digest() for start, end in pairwise(ends)]


def span_hashes(hashes: U64, starts: I64, ends: I64) -> U64:
    """Hash the words of each span, sensitive to their order: uint64[num_spans]; span s is words starts[s] .. ends[s] - 1."""
    counts = ends - starts
    bounds = indptr_of(counts)
    end_to_end = np.array_equal(starts, bounds[:-1])
    words = hashes[: bounds[-1]] if end_to_end else hashes[ranges(starts, counts)]
    values = np.arange(len(words), dtype=np.uint64)
    values -= np.repeat(bounds[:-1].view(np.uint64), counts)
    values *= np.uint64(GRAM_BASE)
    values += words
    sums = np.zeros(len(words) + 1, np.uint64)
    np.cumsum(_mix(values), out=sums[1:])
    return _mix(sums[bounds[1:]] - sums[bounds[:-1]] + counts.view(np.uint64))


def word_hashes(texts: Iterable[str], normaliser: Normaliser = WORDS) -> tuple[U64, I64]:
    """Hash every word of every text; a hash is a function of the word's UTF-8 bytes only.

    Returns `hashes` uint64[num_words], in text order, and `offsets` int64[num_texts + 1]: the hashes of
    `words(text)` for text t are `hashes[offsets[t]:offsets[t + 1]]`.
    """
    parts, counts = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    fold = np.frombuffer(normaliser.fold, np.uint8)
    for run in runs(texts, CHUNK_BYTES):
        kernels = kernels_for(len(run.raw))
        ready = prepared(run, normaliser, kernels)
        hashes, num_words = hash_words(ready, fold) if kernels is None else _compiled(ready, fold, kernels)
        parts.append(hashes)
        counts.append(num_words)
    return np.concatenate(parts), indptr_of(np.concatenate(counts))


def _compiled(run: Run, fold: U8, kernels: ModuleType) -> tuple[U64, I64]:
    num_texts = len(run.offsets) - 1
    hashes = np.empty((int(run.offsets[-1] - run.offsets[0]) + num_texts) // 2, np.uint64)
    num_words, none = np.empty(num_texts, np.int64), np.empty(1, np.int64)
    powers = kernels.INVERSES, kernels.POWERS
    num = kernels.collect(
        run.raw, run.offsets, fold, *powers, 0, hashes, num_words, none.view(np.uint8), none
    )
    return hashes[:num].copy(), num_words


def _mix(values: U64) -> U64:
    """Mix each value in place, so that every bit in reaches every bit out, and return the array."""
    shift = np.uint64(33)
    for factor in MIX:
        values ^= values >> shift
        values *= np.uint64(factor)
    values ^= values >> shift
    return values


@functools.lru_cache(maxsize=2)
def _powers(base: int, num: int) -> U64:
    """Return base**0 .. base**(num - 1) modulo 2**64."""
    powers = np.full(num, base, np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def hash_words(run: Run, fold: U8) -> tuple[U64, I64]:
    """Hash the words of a prepared run in numpy: uint64[num_words], and the words of each text, int64[num_texts]."""
    folded, begins, ends = cut(run, fold)
    return hash_cut(folded, begins, ends), np.diff(np.searchsorted(begins, run.offsets - run.offsets[0]))


def hash_cut(folded: U8, begins: I64, ends: I64) -> U64:
    """Return the hashes of the words that `cut` returns, from prefix sums of byte[i] * base**-i over blocks of words."""
    hashes = np.empty(len(begins), np.uint64)
    first = 0
    while first < len(begins):
        low = int(begins[first])
        last = max(first + 1, int(np.searchsorted(ends, low + _BLOCK_BYTES, side="right")))
        size = int(ends[last - 1]) - low
        num = max(size, _BLOCK_BYTES)
        sums = np.zeros(size + 1, np.uint64)
        inverse = _powers(pow(WORD_BASE, -1, 1 << 64), num)[:size]
        np.cumsum(folded[low : low + size] * inverse, out=sums[1:])
        begin, end = begins[first:last] - low, ends[first:last] - low
        hashes[first:last] = (sums[end] - sums[begin]) * _powers(WORD_BASE, num)[end - 1]
        first = last
    return _mix(hashes)


def cut(run: Run, fold: U8) -> tuple[U8, I64, I64]:
    """Return the folded bytes of a prepared run, and in them where each word begins and ends."""
    starts = run.offsets - run.offsets[0]
    raw = run.raw[run.offsets[0] : run.offsets[-1]]
    folded = np.frombuffer(raw.tobytes().translate(fold.tobytes()), np.uint8)
    inside = folded != 0
    outside = ~inside
    edge = np.zeros(len(folded) + 1, bool)
    edge[starts] = True
    edge[0] = edge[-1] = True
    before, after = edge[:-1].copy(), edge[1:]
    before[1:] |= outside[:-1]
    after[:-1] |= outside[1:]
    before &= inside
    after &= inside
    return folded, np.flatnonzero(before), np.flatnonzero(after) + 1


def indptr_of(counts: I64) -> I64:
    """Return where each of some counted things begins, and the last ends: int64[len(counts) + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def ranges(starts: I64, counts: I64) -> I64:
    """Return start, start + 1, .. for `count` numbers, for each (start, count) in turn."""
    ends = indptr_of(counts)
    return np.arange(ends[-1], dtype=np.int64) + np.repeat(starts - ends[:-1], counts)


def gram_hashes(hashes: U64, offsets: I64, n: int = N, hash_bits: int = 64) -> tuple[U64, I64]:
    """Hash every window of `n` words inside one text, in text order, sensitive to the order of words.

    Returns `grams` uint64[num_grams] and `gram_offsets` int64[num_texts + 1]: words i .. i + n - 1 of text t are
    `grams[gram_offsets[t] + i]`; a text of fewer than n words has none. `hash_bits` keeps only the low bits, to
    force collisions in tests. Raises ValueError unless n >= 1 and 1 <= hash_bits <= 64.
    """
    if n < 1 or not 1 <= hash_bits <= 64:
        raise ValueError(f"n: {n}, hash_bits: {hash_bits}; expected n of at least 1 and hash_bits of 1 to 64")
    values = _windows(hashes, n)
    counts = np.maximum(np.diff(offsets) - (n - 1), 0)
    grams = _mix(values[ranges(offsets[:-1], counts)])
    return grams & np.uint64((1 << hash_bits) - 1), indptr_of(counts)


def _windows(hashes: U64, n: int) -> U64:
    """Return the polynomial of every `n` consecutive hashes, the first with the highest power; from halves and singles."""
    num = max(len(hashes) - n + 1, 0)
    values, size = hashes, 1
    for digit in bin(n)[3:]:
        factor = pow(GRAM_BASE, size, 1 << 64)
        values = values[: max(len(values) - size, 0)] * np.uint64(factor) + values[size:]
        size *= 2
        if digit == "1":
            values = values[: max(len(values) - 1, 0)] * np.uint64(GRAM_BASE)
            values += hashes[size : size + len(values)]
            size += 1
    return values[:num]
