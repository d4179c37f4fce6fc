"""The index of n-grams in numpy: what the compiled kernels do where they are missing or not yet worth loading.

Reads prepared runs of texts, returns arrays. `Collected` and `Grams` are what either way hands on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from taskmill.text import cut, gram_hashes, hash_cut, indptr_of, ranges
from taskmill.utf8 import Run

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_Piece: TypeAlias = tuple[I64, I64, U64, I64, I64]
Each: TypeAlias = Callable[[Callable[[int], _Piece], Iterable[int]], Iterable[_Piece]]
_FEW = 64  # pairs not worth numpy's overhead
_PIECE_BITS = 2  # the range of hashes is grouped in so many pieces, a power of two
_HITS = 1 << 16  # windows compared at once
PADDING = 8  # bytes after the joined words, so that eight can be read anywhere


@dataclass(slots=True)
class Collected:
    """The windows of some texts, in text order, and their words."""

    grams: U64
    """uint64[num_windows]: hash of each."""
    num_words: I64
    """int64[num_texts]"""
    joined: U8
    """All words, a space after each."""
    begins: I64
    """int64[num_words + 1]: where in `joined` each word begins."""

    @classmethod
    def of(cls, parts: list[Collected]) -> Collected:
        """Join the parts in order, and pad `joined`."""
        bases = indptr_of(np.array([part.begins[-1] for part in parts], np.int64))
        return cls(
            np.concatenate([np.empty(0, np.uint64), *(part.grams for part in parts)]),
            np.concatenate([np.empty(0, np.int64), *(part.num_words for part in parts)]),
            np.concatenate([*(part.joined for part in parts), np.zeros(PADDING, np.uint8)]),
            np.concatenate([*(part.begins[:-1] + base for part, base in zip(parts, bases)), bases[-1:]]),
        )


@dataclass(slots=True)
class Grams:
    """Distinct grams by hash, then first occurrence, and their places by text, then position."""

    hashes: U64
    """uint64[g]"""
    indptr: I64
    """int64[g + 1]: gram i is at the places indptr[i] .. indptr[i + 1] - 1."""
    window_begin: I64
    """int64[g]: where in the joined words it stands."""
    window_size: I32
    """int32[g]: its bytes."""
    text: I64
    """int64[p]"""
    position: I64
    """int64[p]"""

    blocks: U64
    """A filter that passes the hashes and few others: two bits of the word of 64 that the high bits choose."""
    directory: U32
    """Where the hashes of each value of the high bits begin, and the last end."""

    @classmethod
    def empty(cls, num: int, text: I64, position: I64) -> Grams:
        """Return room for `num` grams."""
        blocks = np.zeros(1 << max(4, (num >> 3).bit_length()), np.uint64)
        directory = np.zeros((1 << max(4, num.bit_length())) + 1, np.uint32)
        hashes, sizes = np.empty(num, np.uint64), np.empty(num, np.int32)
        indptr, begins = np.empty(num + 1, np.int64), np.empty(num, np.int64)
        return cls(hashes, indptr, begins, sizes, text, position, blocks, directory)


class Index(Protocol):
    """What `find` reads of an index."""

    n: int
    gram_hash: U64
    window_begin: I64
    window_size: I32
    joined: U8
    blocks: U64


def collect(run: Run, fold: U8, n: int) -> Collected:
    """Hash all windows of n words of a prepared run."""
    folded, begins, ends = cut(run, fold)
    num_words = np.diff(np.searchsorted(begins, run.offsets - run.offsets[0]))
    grams, _ = gram_hashes(hash_cut(folded, begins, ends), indptr_of(num_words), n)
    return Collected(grams, num_words, *_join(folded, begins, ends))


def _join(folded: U8, begins: I64, ends: I64) -> tuple[U8, I64]:
    """Return words, a space after each, and where each begins, and the last ends."""
    places = indptr_of(ends - begins + 1)
    joined = np.full(places[-1], ord(" "), np.uint8)
    letters = np.ones(len(joined), bool)
    letters[places[1:] - 1] = False
    joined[letters] = folded[ranges(begins, ends - begins)]
    return joined, places


def group(collected: Collected, n: int, each: Each = map) -> Grams:
    """Group the windows by their words; `each` may do the pieces of the range of hashes side by side."""
    counts = np.maximum(collected.num_words - (n - 1), 0)
    text = np.repeat(np.arange(len(counts)), counts)
    position = ranges(np.zeros(len(counts), np.int64), counts)
    words = indptr_of(collected.num_words)[text] + position
    pieces = collected.grams >> np.uint64(64 - _PIECE_BITS)

    def piece(number: int) -> _Piece:
        rows = np.flatnonzero(pieces == np.uint64(number))
        begins = collected.begins[words[rows]]
        sizes = collected.begins[words[rows] + n] - 1 - begins
        order, heads = _grouped(collected.grams[rows], collected.joined, begins, sizes)
        firsts = order[heads]
        return rows[order], heads, collected.grams[rows[firsts]], begins[firsts], sizes[firsts]

    orders, heads, hashes, begins, sizes = zip(*each(piece, range(1 << _PIECE_BITS)))
    order = np.concatenate(orders)
    before = indptr_of(np.array(list(map(len, orders)), np.int64))
    rows = np.concatenate([part + base for part, base in zip(heads, before)])
    grams = Grams.empty(len(rows), text[order], position[order])
    grams.hashes, grams.indptr = np.concatenate(hashes), np.append(rows, len(order)).astype(np.int64)
    grams.window_begin, grams.window_size = np.concatenate(begins), np.concatenate(sizes).astype(np.int32)
    _enter(grams)
    return grams


def _grouped(grams: U64, joined: U8, begins: I64, sizes: I64) -> tuple[I64, I64]:
    """Return some windows in the order of their grams, and where in it each gram begins."""
    order = _sorted(grams)
    hashes = grams[order]
    first = np.ones(len(order), bool)
    first[1:] = hashes[1:] != hashes[:-1]
    number = np.cumsum(first) - 1
    others = np.flatnonzero(~first)
    one, other = order[others], order[np.flatnonzero(first)[number[others]]]
    same = same_bytes(joined, begins[one], sizes[one], joined, begins[other], sizes[other])
    if not same.all():
        variant = _variants(joined, begins[order], sizes[order], number, np.unique(number[others[~same]]))
        again = np.lexsort((variant, number))
        order, number, variant = order[again], number[again], variant[again]
        first[1:] = (number[1:] != number[:-1]) | (variant[1:] != variant[:-1])
    return order, np.flatnonzero(first)


def _sorted(values: U64) -> I64:
    """Return the stable order of the values: numpy's quicker sort, and then the equal ones in order."""
    order = np.argsort(values)
    ordered = values[order]
    keys = np.zeros(len(order), np.uint64)
    np.cumsum(ordered[1:] != ordered[:-1], out=keys[1:])
    keys <<= np.uint64(32)
    keys |= order.view(np.uint64)
    keys.sort()
    keys &= np.uint64((1 << 32) - 1)
    return keys.view(np.int64)


def _enter(grams: Grams) -> None:
    """Enter the grams into their filter and directory."""
    places = grams.hashes >> shift_of(grams.blocks)
    starts = np.flatnonzero(np.concatenate([[True], places[1:] != places[:-1]])[: len(places)])
    if len(starts):
        grams.blocks[places[starts]] = np.bitwise_or.reduceat(_bits(grams.hashes), starts)
    buckets = (grams.hashes >> shift_of(grams.directory)).view(np.int64)
    grams.directory[1:] = np.cumsum(np.bincount(buckets, minlength=len(grams.directory) - 1))


def _variants(joined: U8, begins: I64, sizes: I64, number: I64, collided: I64) -> I64:
    """Tell windows of equal hash apart by their words: int64[p], 0 for the first words of a hash, 1 for the next."""
    variant = np.zeros(len(number), np.int64)
    for low, high in zip(
        np.searchsorted(number, collided).tolist(), np.searchsorted(number, collided, side="right").tolist()
    ):
        known = dict[bytes, int]()
        for row in range(low, high):
            window = joined[begins[row] : begins[row] + sizes[row]].tobytes()
            variant[row] = known.setdefault(window, len(known))
    return variant


def same_bytes(one: U8, begins: I64, sizes: I64, other: U8, other_begins: I64, other_sizes: I64) -> Bools:
    """Say of each pair of pieces of two padded buffers whether they are equal; eight bytes at a time."""
    same: Bools = sizes == other_sizes
    rows = np.flatnonzero(same)
    eights, other_eights = _eights(one), _eights(other)
    done = 0
    while len(rows) > _FEW:
        left = np.clip(sizes[rows] - done, 0, 8).astype(np.uint64)
        differ = eights[begins[rows] + done] ^ other_eights[other_begins[rows] + done]
        differ <<= np.uint64(64) - np.uint64(8) * left
        same[rows[differ != 0]] = False
        done += 8
        rows = rows[(differ == 0) & (sizes[rows] > done)]
    for row in rows.tolist():
        a, b, size = int(begins[row]) + done, int(other_begins[row]) + done, int(sizes[row]) - done
        same[row] = one[a : a + size].tobytes() == other[b : b + size].tobytes()
    return same


def _eights(padded: U8) -> U64:
    """Return the eight bytes from every byte on, as little-endian numbers."""
    return np.ndarray((max(len(padded) - PADDING + 1, 0),), np.dtype("<u8"), padded.data, 0, (1,))


def _bits(hashes: U64) -> U64:
    one, low, six = np.uint64(1), np.uint64(63), np.uint64(6)
    return (one << (hashes & low)) | (one << ((hashes >> six) & low))


def shift_of(places: U64 | U32) -> np.uint64:
    """Return how far a hash is to be shifted to become a place in the filter or the directory."""
    return np.uint64(65 - len(places).bit_length())


def find(run: Run, fold: U8, index: Index, mask: np.uint64) -> tuple[I64, I64, I64, I64]:
    """Return text, position and gram of every place of an indexed gram in a prepared run, and the words of each text."""
    folded, begins, ends = cut(run, fold)
    num_words = np.diff(np.searchsorted(begins, run.offsets - run.offsets[0]))
    words = indptr_of(num_words)
    grams, offsets = gram_hashes(hash_cut(folded, begins, ends), words, index.n)
    grams &= mask
    bits = _bits(grams)
    rows = np.flatnonzero((index.blocks[grams >> shift_of(index.blocks)] & bits) == bits)
    low = np.searchsorted(index.gram_hash, grams[rows])
    known = low < len(index.gram_hash)
    known[known] = index.gram_hash[low[known]] == grams[rows[known]]
    rows, low = rows[known], low[known]
    counts = np.searchsorted(index.gram_hash, grams[rows], side="right") - low
    rows, gram = np.repeat(rows, counts), ranges(low, counts)
    text = np.searchsorted(offsets, rows, side="right") - 1
    position = rows - offsets[text]
    first = words[text] + position
    kept = np.empty(len(rows), bool)
    for hit in range(0, len(rows), _HITS):
        part = slice(hit, hit + _HITS)
        of_hits = ranges(first[part], np.full(len(first[part]), index.n))
        joined, places = _join(folded, begins[of_hits], ends[of_hits])
        begin = places[:: index.n]
        padded = np.concatenate([joined, np.zeros(PADDING, np.uint8)])
        own_begin, own_size = index.window_begin[gram[part]], index.window_size[gram[part]].astype(np.int64)
        kept[part] = same_bytes(padded, begin[:-1], np.diff(begin) - 1, index.joined, own_begin, own_size)
    return text[kept], position[kept], gram[kept], num_words
