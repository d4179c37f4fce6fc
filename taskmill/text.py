"""Normalise text to words, hash words and word n-grams, and find the n-grams that two sides share.

Reads strings, returns arrays. The index of the evaluation side sees hashes only, so one kernel serves every kind
of text; each hash hit is confirmed on the words, so a collision is never evidence.

    >>> words("It's 3.5 km to Straße 7, 東京")
    ['it', 's', '3', '5', 'km', 'to', 'strasse', '7', '東', '京']
    >>> eval_texts = ["the cat sat on the mat"]
    >>> index = GramIndex(*gram_hashes(*word_hashes(eval_texts), 3))
    >>> find_shared(index, eval_texts, ["A cat sat on a mat."], 3).gram_text
    ['cat sat on']

`words.py` says how words are cut. The compiled kernel needs numba; without it, or with TASKMILL_NO_NUMBA=1, numpy gives
the same numbers.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise, repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from taskmill.leaves import text_leaves as text_leaves
from taskmill.words import NORMALISATION as NORMALISATION
from taskmill.words import cut_beyond_ascii
from taskmill.words import normalise as normalise
from taskmill.words import words as words

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]
Kernel = Callable[[U8, I64], tuple[U64, I64]]

N = 13  # words a gram, as in OPT-IML's leakage check
CHUNK_BYTES = 8 << 20  # bytes hashed at once; bounds the working memory
COMPILE_AFTER_BYTES = 80 << 20  # on this much text numba saves the 0.4 s that it takes to load

_WORD_BASE = 0x9E3779B97F4A7C15  # odd: polynomial base over the bytes of a word, modulo 2**64
_GRAM_BASE = 0xD1342543DE82EF95  # odd: polynomial base over the words of a gram
_MIX = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)  # multipliers of MurmurHash3's 64-bit finaliser
_BLOCK_BYTES = 1 << 17  # bytes of words whose powers fit the processor's cache
_FOLD: U8 = np.arange(256, dtype=np.uint8)  # byte -> folded byte, 0 for a separator
_FOLD[[byte for byte in range(128) if not chr(byte).isalnum()]] = 0
_FOLD[ord("A") : ord("Z") + 1] += 32
_bytes_seen = np.zeros(1, np.int64)  # hashed by this process so far


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
    bounds = _indptr(counts)
    end_to_end = np.array_equal(starts, bounds[:-1])
    words = hashes[: bounds[-1]] if end_to_end else hashes[ranges(starts, counts)]
    values = np.arange(len(words), dtype=np.uint64)
    values -= np.repeat(bounds[:-1].view(np.uint64), counts)
    values *= np.uint64(_GRAM_BASE)
    values += words
    sums = np.zeros(len(words) + 1, np.uint64)
    np.cumsum(_mix(values), out=sums[1:])
    return _mix(sums[bounds[1:]] - sums[bounds[:-1]] + counts.view(np.uint64))


def word_hashes(texts: Iterable[str]) -> tuple[U64, I64]:
    """Hash every word of every text; a hash is a function of the word's UTF-8 bytes only.

    Returns `hashes` uint64[num_words], in text order, and `offsets` int64[num_texts + 1]: the hashes of
    `words(text)` for text t are `hashes[offsets[t]:offsets[t + 1]]`.
    """
    hashes = [np.empty(0, np.uint64)]
    offsets = [np.zeros(1, np.int64)]
    for buffer, starts in _buffers(texts):
        chunk_hashes, chunk_offsets = _kernel(len(buffer))(buffer, starts)
        hashes.append(chunk_hashes)
        offsets.append(chunk_offsets[1:] + offsets[-1][-1])
    return np.concatenate(hashes), np.concatenate(offsets)


def _buffers(texts: Iterable[str]) -> Iterator[tuple[U8, I64]]:
    """Yield (buffer, starts) of runs of about CHUNK_BYTES of texts; text t is buffer[starts[t]:starts[t + 1]].

    ASCII goes in as it is, for the kernel to fold and cut; of other texts, all bytes of multi-byte characters are word
    bytes. A space ends every text.
    """
    pieces, sizes, size = list[str](), list[int](), 0
    for text in texts:
        if text.isascii():
            pieces.append(text)
            sizes.append(len(text) + 1)
        else:
            pieces.append(cut_beyond_ascii(text))
            sizes.append(len(pieces[-1].encode()) + 1)
        size += sizes[-1]
        if size >= CHUNK_BYTES:
            yield _buffer(pieces, sizes)
            pieces, sizes, size = list[str](), list[int](), 0
    if pieces:
        yield _buffer(pieces, sizes)


def _buffer(pieces: list[str], sizes: list[int]) -> tuple[U8, I64]:
    buffer = np.frombuffer(bytearray((" ".join(pieces) + " ").encode()), np.uint8)
    return buffer, _indptr(np.array(sizes, np.int64))


def _kernel(num_bytes: int) -> Kernel:
    """Return the kernel for the next `num_bytes`: numpy until enough text was seen to pay for loading numba."""
    _bytes_seen[0] += num_bytes
    worthwhile = _bytes_seen[0] >= COMPILE_AFTER_BYTES or load_compiled.cache_info().currsize
    if os.environ.get("TASKMILL_NO_NUMBA") == "1" or not worthwhile:
        return _hash_words
    return load_compiled() or _hash_words


@functools.cache
def load_compiled() -> Kernel | None:
    """Load the compiled kernel, so that every later `word_hashes` uses it; None where numba is missing.

    Its machine code is cached on disk where numba finds a folder to write to, else compiled afresh.
    """
    try:
        import numba
    except ImportError:
        return None
    signature = "int64(uint8[::1], int64[::1], uint8[::1], uint64[::1], int64[::1])"
    try:
        scan = numba.njit(signature, cache=True, nogil=True)(_scan)
    except (OSError, RuntimeError):  # no folder for the cache: numba says so at once or when it saves
        scan = numba.njit(signature, nogil=True)(_scan)

    def hash_words(buffer: U8, starts: I64) -> tuple[U64, I64]:
        hashes = np.empty(len(buffer) // 2 + 1, np.uint64)  # a word and its separator take two bytes or more
        offsets = np.zeros(len(starts), np.int64)
        num_words = scan(buffer, starts, _FOLD, hashes, offsets)
        return hashes[:num_words].copy(), offsets

    return hash_words


def _scan(buffer: U8, starts: I64, fold: U8, hashes: U64, offsets: I64) -> int:
    """Write each word's hash, and the number of words up to each text's end; return the number of words."""
    base, mix_1, mix_2 = np.uint64(_WORD_BASE), np.uint64(_MIX[0]), np.uint64(_MIX[1])
    shift = np.uint64(33)
    value = np.uint64(0)
    num_words, inside = 0, False
    for text in range(len(starts) - 1):
        for i in range(starts[text], starts[text + 1]):
            byte = fold[buffer[i]]
            if byte != 0:
                value = value * base + np.uint64(byte)
                inside = True
            elif inside:
                value = (value ^ (value >> shift)) * mix_1
                value = (value ^ (value >> shift)) * mix_2
                hashes[num_words] = value ^ (value >> shift)
                num_words += 1
                value = np.uint64(0)
                inside = False
        offsets[text + 1] = num_words
    return num_words


def _mix(values: U64) -> U64:
    """Mix each value in place, so that every bit in reaches every bit out, and return the array."""
    shift = np.uint64(33)
    for factor in _MIX:
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


def _hash_words(buffer: U8, starts: I64) -> tuple[U64, I64]:
    """Do in numpy what `_scan` does, from prefix sums of byte[i] * base**-i over blocks of words."""
    folded = np.frombuffer(buffer.tobytes().translate(_FOLD.tobytes()), np.uint8)
    inside = np.concatenate([np.zeros(1, bool), folded != 0])
    edges = np.flatnonzero(inside[1:] != inside[:-1])  # in pairs, as every text ends in a space
    begins, ends = edges[::2], edges[1::2]
    hashes = np.empty(len(begins), np.uint64)
    first = 0
    while first < len(begins):
        low = int(begins[first])
        last = max(first + 1, int(np.searchsorted(ends, low + _BLOCK_BYTES, side="right")))
        size = int(ends[last - 1]) - low
        num = max(size, _BLOCK_BYTES)
        sums = np.zeros(size + 1, np.uint64)
        inverse = _powers(pow(_WORD_BASE, -1, 1 << 64), num)[:size]
        np.cumsum(folded[low : low + size] * inverse, out=sums[1:])
        begin, end = begins[first:last] - low, ends[first:last] - low
        hashes[first:last] = (sums[end] - sums[begin]) * _powers(_WORD_BASE, num)[end - 1]
        first = last
    return _mix(hashes), np.searchsorted(begins, starts).astype(np.int64)


def _indptr(counts: I64) -> I64:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def ranges(starts: I64, counts: I64) -> I64:
    """Return start, start + 1, .. for `count` numbers, for each (start, count) in turn."""
    ends = _indptr(counts)
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
    return grams & np.uint64((1 << hash_bits) - 1), _indptr(counts)


def _windows(hashes: U64, n: int) -> U64:
    """Return the polynomial of every `n` consecutive hashes, the first with the highest power; from halves and singles."""
    num = max(len(hashes) - n + 1, 0)
    values, size = hashes, 1
    for digit in bin(n)[3:]:
        factor = pow(_GRAM_BASE, size, 1 << 64)
        values = values[: max(len(values) - size, 0)] * np.uint64(factor) + values[size:]
        size *= 2
        if digit == "1":
            values = values[: max(len(values) - 1, 0)] * np.uint64(_GRAM_BASE)
            values += hashes[size : size + len(values)]
            size += 1
    return values[:num]


class GramIndex:
    """The distinct gram hashes of the evaluation side, and where each occurs.

    `grams` uint64[u], sorted. Gram s has the postings `indptr[s]` .. `indptr[s + 1] - 1` (`indptr` int64[u + 1]):
    `text` int64[p] and `position` int64[p] (in words), ascending. `find_shared` keeps the evaluation words that it
    has read in the index; pickling leaves them out.
    """

    def __init__(self, grams: U64, offsets: I64) -> None:
        """Build from what `gram_hashes` returns for the evaluation texts."""
        order = np.argsort(grams, kind="stable")
        self.grams, firsts = np.unique(grams[order], return_index=True)
        self.indptr: I64 = np.append(firsts, len(grams)).astype(np.int64)
        self.text: I64 = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[order]
        self.position: I64 = order - offsets[self.text]
        self.num_texts = len(offsets) - 1
        self.windows: _EvalWindows | None = None
        num_bits = max(10, (16 * len(self.grams)).bit_length())  # so that at most 1 bit of 16 is set
        self._shift = np.uint64(64 - num_bits)
        self._bitmap: U8 = np.zeros(1 << (num_bits - 3), np.uint8)
        np.bitwise_or.at(self._bitmap, *self._bits(self.grams))

    def _bits(self, grams: U64) -> tuple[I64, U8]:
        """Return the byte of the bitmap, and the bit in it, that each gram sets."""
        places = grams >> self._shift
        bits = np.left_shift(np.uint8(1), (places & np.uint64(7)).astype(np.uint8))
        return (places >> np.uint64(3)).view(np.int64), bits

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, without the evaluation words read so far."""
        return sum(a.nbytes for a in (self.grams, self.indptr, self.text, self.position, self._bitmap))

    def lookup(self, grams: U64) -> I64:
        """Return for each gram its place in `self.grams`, or -1: int64[len(grams)]."""
        slots = np.full(len(grams), -1, np.int64)
        for low in range(0, len(grams) if len(self.grams) else 0, 1 << 16):
            part = grams[low : low + (1 << 16)]
            places, bits = self._bits(part)
            maybe = np.flatnonzero(self._bitmap[places] & bits)
            found = np.minimum(np.searchsorted(self.grams, part[maybe]), len(self.grams) - 1)
            slots[low + maybe] = np.where(self.grams[found] == part[maybe], found, -1)
        return slots

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "windows": None}


@dataclass(frozen=True, slots=True)
class SharedGrams:
    """Which places of a batch of train texts, and of the evaluation texts, carry the same words.

    The two sides meet in a gram number, so a frequent gram costs its places on each side, never their product.
    Grams (g) are distinct word sequences, by hash, then first evaluation place; numbers hold for one batch.
    Train places (m) and the evaluation places of a gram (e) ascend by text, then position in words.
    """

    gram_text: list[str]  # [g] words joined by one space
    gram_hash: U64  # uint64[g]; grams of equal hash and other words are two
    train_text: I64  # int64[m] number in the batch
    train_position: I64  # int64[m]
    gram_id: I64  # int64[m] the gram at each train place; every gram is at one at least
    eval_indptr: I64  # int64[g + 1] gram i has evaluation places eval_indptr[i] .. eval_indptr[i + 1] - 1
    eval_text: I64  # int64[e] number in the index
    eval_position: I64  # int64[e]


def find_shared(
    index: GramIndex, eval_texts: Sequence[str], train_texts: Sequence[str], n: int = N, hash_bits: int = 64
) -> SharedGrams:
    """Find every window of `n` words that a batch of train texts shares with the evaluation texts.

    `index` is that of `eval_texts` for the same `n` and `hash_bits`. Evaluation texts are read when first hit and
    kept in it, so pass the same `eval_texts` object with every batch. Raises ValueError where the index is of
    another number of texts.
    """
    if len(eval_texts) != index.num_texts:
        raise ValueError(f"eval_texts: {len(eval_texts)} texts; expected the {index.num_texts} of the index")
    grams, offsets = gram_hashes(*word_hashes(train_texts), n, hash_bits)
    slots = index.lookup(grams)
    hits = np.flatnonzero(slots >= 0)
    slots = slots[hits]
    train_text = np.searchsorted(offsets, hits, side="right") - 1
    train_position = hits - offsets[train_text]
    if index.windows is None or index.windows.texts is not eval_texts or index.windows.n != n:
        index.windows = _EvalWindows(index, eval_texts, n)
    windows = index.windows
    windows.resolve(np.unique(slots))
    variants = windows.match(slots, *windows.number(train_texts, train_text, train_position))
    kept = variants >= 0
    width = int(variants.max(initial=0)) + 1
    keys, gram_id = np.unique(slots[kept] * width + variants[kept], return_inverse=True)
    postings, counts = windows.postings(keys // width, keys % width)
    return SharedGrams(
        gram_text=windows.window_texts(postings[_indptr(counts)[:-1]]),
        gram_hash=index.grams[keys // width],
        train_text=train_text[kept],
        train_position=train_position[kept],
        gram_id=gram_id.astype(np.int64),
        eval_indptr=_indptr(counts),
        eval_text=index.text[postings],
        eval_position=index.position[postings],
    )


class _EvalWindows:
    """The words behind the grams of an index, read when a gram is first hit.

    A slot is a place in `index.grams`. Its windows nearly always hold the same words: its only variant, 0. Where
    hashes collide, `split` holds the postings of each variant of the slot, in order of first occurrence.
    """

    def __init__(self, index: GramIndex, texts: Sequence[str], n: int) -> None:
        self.index, self.texts, self.n = index, texts, n
        self.vocabulary: dict[str, int] = {}
        self.split: dict[int, list[I64]] = {}
        self.resolved = np.zeros(len(index.grams), bool)
        self.starts: I64 = np.full(len(texts), -1, np.int64)  # where a text begins in `words`, -1: unread
        self.words: I32 = np.empty(1024, np.int32)  # word numbers of the texts read, with room to grow
        self.num_words = 0

    def resolve(self, slots: I64) -> None:
        """Read the windows of distinct `slots`; tell apart those that share a hash but not their words."""
        slots = slots[~self.resolved[slots]]
        firsts = self.index.indptr[slots]
        counts = self.index.indptr[slots + 1] - firsts
        postings = ranges(firsts, counts)
        hit_texts = np.unique(self.index.text[postings])
        for text in hit_texts[self.starts[hit_texts] < 0].tolist():
            self._read(text)
        same = self._same(self.words, self._begin(postings), np.repeat(firsts, counts))
        for slot in np.unique(np.repeat(slots, counts)[~same]).tolist():
            variants: dict[bytes, list[int]] = {}
            for posting in range(self.index.indptr[slot], self.index.indptr[slot + 1]):
                begin = self._begin(np.int64(posting))
                variants.setdefault(self.words[begin : begin + self.n].tobytes(), []).append(posting)
            self.split[slot] = [np.array(variant, np.int64) for variant in variants.values()]
        self.resolved[slots] = True

    def _read(self, text: int) -> None:
        found = words(self.texts[text])
        end = self.num_words + len(found)
        if end > len(self.words):
            self.words = np.resize(self.words, max(end, 2 * len(self.words)))
        numbers = (self.vocabulary.setdefault(word, len(self.vocabulary)) for word in found)
        self.words[self.num_words : end] = np.fromiter(numbers, np.int32, len(found))
        self.starts[text] = self.num_words
        self.num_words = end

    def _begin(self, postings: Any) -> Any:
        """Return where in `words` the windows of postings begin; one or an array."""
        return self.starts[self.index.text[postings]] + self.index.position[postings]

    def _same(self, other: I32, begins: I64, postings: I64) -> npt.NDArray[np.bool_]:
        """Say of each window of `other` whether it holds the words of the posting beside it."""
        own = self._begin(postings)
        same = np.ones(len(begins), bool)
        for place in range(self.n):
            same &= other[begins + place] == self.words[own + place]
        return same

    def number(self, texts: Sequence[str], text: I64, position: I64) -> tuple[I32, I64]:
        """Return the word numbers of the texts with a hit, end to end, and where each hit begins in them.

        A word that no evaluation text read so far holds is -1, which equals none of theirs.
        """
        hit_texts, places = np.unique(text, return_inverse=True)
        parts = [np.empty(0, np.int32)]
        for hit_text in hit_texts.tolist():
            found = words(texts[hit_text])
            parts.append(np.fromiter(map(self.vocabulary.get, found, repeat(-1)), np.int32, len(found)))
        starts = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return np.concatenate(parts), starts[places] + position

    def match(self, slots: I64, train_words: I32, begins: I64) -> I64:
        """Return for each train window the variant of its slot with the same words, -1 for a mere collision."""
        variants = np.where(self._same(train_words, begins, self.index.indptr[slots]), 0, -1)
        for slot in np.unique(slots[variants < 0]).tolist():
            for number, postings in enumerate(self.split.get(slot, [])):
                rows = np.flatnonzero((slots == slot) & (variants < 0))
                same = self._same(train_words, begins[rows], np.repeat(postings[:1], len(rows)))
                variants[rows[same]] = number
        return variants

    def postings(self, slots: I64, variants: I64) -> tuple[I64, I64]:
        """Return the postings of each (slot, variant), end to end, and how many each has."""
        indptr = self.index.indptr
        if self.split.keys().isdisjoint(slots.tolist()):
            counts = indptr[slots + 1] - indptr[slots]
            return ranges(indptr[slots], counts), counts
        parts = [
            self.split[slot][variant] if slot in self.split else np.arange(*indptr[slot : slot + 2])
            for slot, variant in zip(slots.tolist(), variants.tolist(), strict=True)
        ]
        return np.concatenate(parts), np.array([len(part) for part in parts], np.int64)

    def window_texts(self, postings: I64) -> list[str]:
        """Return the words of each posting's window, joined by one space."""
        names = list(self.vocabulary)
        rows = self.words[self._begin(postings)[:, None] + np.arange(self.n)]
        return [" ".join([names[number] for number in row]) for row in rows.tolist()]
