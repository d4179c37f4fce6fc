"""The index of the evaluation side's n-grams, and the one pass that finds them in other texts.

Reads texts (Arrow string arrays, or any sequence of strings), returns arrays. A gram is a window of n words inside one
text. Texts are normalised and cut by a `Normaliser`; every hit is confirmed on the words, so a hash collision is never
a hit. Memory is that of the indexed side; the other side streams past.

    >>> index = GramIndex(["the cat sat on the mat", "a dog"], n=3)
    >>> places = index.find(["A cat sat on a mat."])
    >>> index.windows(places.gram), places.position.tolist()
    (['cat sat on'], [1])

A text's bytes are read once: folded, cut, hashed, the hash of each window looked up in a filter that stays in the cache,
and what passes it in the table. `kernels.py` does that in machine code, `windows.py` in numpy.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from taskmill import windows as _numpy
from taskmill.compiling import find_kernels, kernels_for
from taskmill.normalisers import WORDS, Normaliser
from taskmill.text import indptr_of
from taskmill.utf8 import Run, prepared, runs
from taskmill.windows import PADDING, Collected, Grams, shift_of

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Texts: TypeAlias = Sequence[str] | Any
"""Strings, or Arrow's: an array or a chunked array."""
Room: TypeAlias = tuple[U64, I64, I64, I64, I64]
"""What a thread finds in a run: hash, text, position, byte and gram."""
A = TypeVar("A")
B = TypeVar("B")
N = 13
RUN_BYTES = 1 << 20  # bytes of text that one call of a kernel reads
_READ_PER_INDEXED = 3  # bytes that will be read at least, per byte of an index: what decides when to compile
_PIECES = 16  # of the range of hashes, that threads enter into the filter and the directory; these have as many places or more
_ARRAYS = (
    *("num_words", "gram_hash", "indptr", "text", "position"),
    *("window_begin", "window_size", "joined", "blocks", "directory"),
)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a batch of texts holds grams of an index: one row per place, by text, then position."""

    text: I64
    """int64[m]: number of the text in the batch."""
    position: I64
    """int64[m]: word of the text at which the window begins."""
    gram: I64
    """int64[m]: number of the gram in the index."""
    num_words: I64
    """int64[num_texts]: words of every text of the batch."""


class GramIndex:
    """The distinct grams of some texts, and where each stands.

    A gram is a distinct sequence of words; grams are numbered by hash, those of equal hash by first occurrence.
    """

    n: int
    num_texts: int
    num_words: I64
    """int64[num_texts]"""
    gram_hash: U64
    """uint64[g], ascending: `text.gram_hashes` of the words."""
    indptr: I64
    """int64[g + 1]: gram i stands at the places indptr[i] .. indptr[i + 1] - 1 of `text` and `position`."""
    text: I64
    """int64[p]: ascending within a gram."""
    position: I64
    """int64[p]: word of the text; ascending within a text of a gram."""

    def __init__(
        self,
        texts: Texts,
        n: int = N,
        normaliser: Normaliser = WORDS,
        threads: int = 1,
        *,
        hash_bits: int = 64,
    ) -> None:
        """Index `texts`; `threads` never changes a result. `hash_bits` keeps the low bits only, to force collisions in tests.

        Raises:
            ValueError: n is below 1, hash_bits is not 1 to 64, or a text is null.
        """
        if n < 1 or not 1 <= hash_bits <= 64:
            raise ValueError(
                f"n: {n}, hash_bits: {hash_bits}; expected n of at least 1 and hash_bits of 1 to 64"
            )
        self.n, self.normaliser = n, normaliser
        self._mask = np.uint64((1 << hash_bits) - 1)
        self._fold: U8 = np.frombuffer(normaliser.fold, np.uint8)
        kernels_for(_READ_PER_INDEXED * _expected(texts))
        collected = list(_ordered(self._collect, _runs(texts), threads))
        self.num_words = np.concatenate([np.empty(0, np.int64), *(run.num_words for run in collected)])
        self.num_texts = len(self.num_words)
        self.joined, grams = self._group(collected, threads)
        self.gram_hash, self.indptr, self.text, self.position = (
            grams.hashes,
            grams.indptr,
            grams.text,
            grams.position,
        )
        self.window_begin, self.window_size = grams.window_begin, grams.window_size
        self.blocks, self.directory = grams.blocks, grams.directory

    def find(self, texts: Texts, threads: int = 1) -> Places:
        """Return every place at which one of `texts` has a window with the words of an indexed gram.

        Raises:
            ValueError: a text is null.
        """
        kernels_for(_expected(texts))
        find = partial(self._find, deque[Room]())
        return _end_to_end(list(_ordered(find, _runs(texts), threads)))

    def find_batches(self, batches: Iterable[Texts], threads: int = 1) -> Iterator[Places]:
        """Yield `find` of each batch, in order, while `batches` is read on in this thread.

        At most `threads` + 1 batches are held at once, so text streams past in bounded memory.
        """
        return _ordered(self.find, batches, threads)

    def windows(self, grams: I64) -> list[str]:
        """Return the words of each gram, joined by one space."""
        begins, sizes = self.window_begin[grams], self.window_size[grams]
        return [
            self.joined[begin : begin + size].tobytes().decode("utf-8", "surrogatepass")
            for begin, size in zip(begins.tolist(), sizes.tolist())
        ]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(getattr(self, name).nbytes for name in _ARRAYS)

    def save(self, folder: Path) -> None:
        """Write the index to an empty folder, for other processes to map.

        Raises:
            OSError: the disk refuses.
        """
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        settings = {"n": self.n, "mask": int(self._mask), "normaliser": self.normaliser.name}
        (folder / "index.json").write_text(json.dumps(settings) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, normaliser: Normaliser = WORDS) -> GramIndex:
        """Map an index that `save` wrote; processes that map it share its memory.

        Raises:
            OSError: the folder holds no index.
            ValueError: the index is of another normaliser.
        """
        settings = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if settings["normaliser"] != normaliser.name:
            raise ValueError(
                f"{folder}: an index of {settings['normaliser']} words; expected {normaliser.name}"
            )
        index = cls.__new__(cls)
        index.n, index.normaliser, index._mask = settings["n"], normaliser, np.uint64(settings["mask"])
        index._fold = np.frombuffer(normaliser.fold, np.uint8)
        for name in _ARRAYS:
            path = folder / f"{name}.npy"
            setattr(index, name, np.asarray(np.load(path, mmap_mode="r")))
        index.num_texts = len(index.num_words)
        return index

    def _collect(self, run: Run) -> Collected:
        kernels = kernels_for(0)
        ready = prepared(run, self.normaliser, kernels)
        if kernels is None:
            found = _numpy.collect(ready, self._fold, self.n)
        else:
            found = _collect(ready, self._fold, self.n, kernels)
        found.grams &= self._mask
        return found

    def _group(self, collected: list[Collected], threads: int) -> tuple[U8, Grams]:
        kernels = kernels_for(0)
        if kernels is None:
            whole = Collected.of(collected)
            return whole.joined, _numpy.group(whole, self.n, partial(_ordered, threads=threads))
        return _group(collected, self.n, threads, kernels)

    def _find(self, room: deque[Room], run: Run) -> Places:
        kernels = find_kernels()
        ready = prepared(run, self.normaliser, kernels)
        if kernels is None:
            return Places(*_numpy.find(ready, self._fold, self, self._mask))
        num_texts = len(run.offsets) - 1
        arrays = _room(room, (_size(ready) + num_texts) // 2)
        value, text, position, start, gram = arrays
        num_words = np.empty(num_texts, np.int64)
        source = ready.raw, ready.offsets, self._fold
        num = kernels.scan(
            *(*source, kernels.INVERSES, kernels.POWERS, self.n, self._mask),
            *(self.blocks, shift_of(self.blocks), num_words, text, position, start, value),
        )
        num = kernels.confirm(
            *(*source, num, self.directory, shift_of(self.directory)),
            *(self.gram_hash, self.window_begin, self.window_size, self.joined),
            *(text, position, start, value, gram),
        )
        found = Places(text[:num].copy(), position[:num].copy(), gram[:num].copy(), num_words)
        room.append(arrays)
        return found


def _room(room: deque[Room], size: int) -> Room:
    """Take arrays of at least `size` that no thread uses: new memory costs more than a pass over it."""
    with contextlib.suppress(IndexError):
        arrays = room.pop()
        if len(arrays[0]) >= size:
            return arrays
    text, position, start, gram = (np.empty(size, np.int64) for _ in range(4))
    return np.empty(size, np.uint64), text, position, start, gram


def _size(run: Run) -> int:
    return int(run.offsets[-1] - run.offsets[0])


def _collect(run: Run, fold: U8, n: int, kernels: ModuleType) -> Collected:
    num_texts = len(run.offsets) - 1
    size = _size(run) + num_texts
    values, num_words = np.empty(size // 2 + 1, np.uint64), np.empty(num_texts, np.int64)
    joined, begins = np.empty(size + 1, np.uint8), np.empty(size // 2 + 2, np.int64)
    powers = kernels.INVERSES, kernels.POWERS
    num = kernels.collect(run.raw, run.offsets, fold, *powers, n, values, num_words, joined, begins)
    begins = begins[: int(num_words.sum()) + 1]
    return Collected(values[:num], num_words, joined[: begins[-1]], begins)


def _group(runs: list[Collected], n: int, threads: int, kernels: ModuleType) -> tuple[U8, Grams]:
    """Join the words of the runs, and group their windows by parts of the range of hashes, each small enough for the cache."""
    num = sum(len(run.grams) for run in runs)
    bits = max(0, min(10, (num >> 15).bit_length()))
    texts = indptr_of(np.array([len(run.num_words) for run in runs], np.int64)).tolist()
    bases = indptr_of(np.array([run.begins[-1] for run in runs], np.int64)).tolist()
    joined = np.empty(bases[-1] + PADDING, np.uint8)
    joined[bases[-1] :] = 0
    counts = [np.zeros(1 << bits, np.int64), *_ordered(partial(_parts, bits), runs, threads)]
    before = np.cumsum(counts, axis=0)  # windows of each part in the runs before
    starts = indptr_of(before[-1])
    windows = np.empty(num, np.uint64), np.empty(num, np.int64), *(np.empty(num, np.int32) for _ in range(3))

    def partition(number: int) -> int:
        run, places = runs[number], before[number] + starts[:-1]
        joined[bases[number] : bases[number + 1]] = run.joined
        bases_of = texts[number], bases[number]
        source = run.grams, run.num_words, run.begins, n, bits, *bases_of, places
        return int(kernels.partition(*source, *windows))

    deque(_ordered(partition, range(len(runs)), threads), 0)
    out = Grams.empty(num, np.empty(num, np.int64), np.empty(num, np.int64))
    arrays = out.hashes, out.indptr[1:], out.window_begin, out.window_size, out.text, out.position

    def group(part: int) -> int:
        low, high = int(starts[part]), int(starts[part + 1])
        return int(kernels.group(*windows, joined, bits, low, high, *arrays))

    return joined, _settled(out, starts, list(_ordered(group, range(1 << bits), threads)), threads, kernels)


def _parts(bits: int, run: Collected) -> I64:
    """Return how many windows of a run are in each part of the range of hashes: int64[2**bits]."""
    if not bits:
        return np.array([len(run.grams)])
    return np.bincount((run.grams >> np.uint64(64 - bits)).view(np.int64), minlength=1 << bits)


def _settled(out: Grams, starts: I64, counts: list[int], threads: int, kernels: ModuleType) -> Grams:
    """Put the grams that stand at the start of each part end to end, and fill their filter and directory."""
    firsts = indptr_of(np.array(counts, np.int64))
    done = Grams.empty(int(firsts[-1]), out.text, out.position)
    done.indptr[0], done.directory[-1] = 0, firsts[-1]
    pieces = min(len(counts), _PIECES)  # no two share a word of the filter or a bucket of the directory
    parts, buckets = len(counts) // pieces, (len(done.directory) - 1) // pieces

    def settle(piece: int) -> int:
        low, high = piece * parts, piece * parts + parts
        return int(
            kernels.settle(
                *(starts[low:high], np.diff(firsts[low : high + 1]), int(firsts[low]), piece * buckets),
                *(out.hashes, out.indptr[1:], out.window_begin, out.window_size),
                *(done.hashes, done.indptr[1:], done.window_begin, done.window_size),
                *(done.blocks, shift_of(done.blocks)),
                *(done.directory[: (piece + 1) * buckets], shift_of(done.directory)),
            )
        )

    deque(_ordered(settle, range(pieces), threads), 0)
    return done


def _ordered(function: Callable[[A], B], items: Iterable[A], threads: int) -> Iterator[B]:
    """Yield the function's value of each item, in order; at most `threads` + 1 items are under way at once."""
    if threads <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque[Future[B]]()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _expected(texts: Texts) -> int:
    """Return about how many bytes of text these are."""
    return int(texts.nbytes) if isinstance(texts, pa.Array | pa.ChunkedArray) else sum(map(len, texts))


def _runs(texts: Texts) -> Iterator[Run]:
    """Yield the texts in runs of about RUN_BYTES, without a copy where they are Arrow's strings."""
    if isinstance(texts, pa.ChunkedArray):
        for chunk in texts.chunks:
            yield from _arrow_runs(chunk)
    elif isinstance(texts, pa.Array):
        yield from _arrow_runs(texts)
    else:
        yield from runs(texts, RUN_BYTES)


def _arrow_runs(texts: pa.Array) -> Iterator[Run]:
    if texts.null_count:
        raise ValueError(f"{texts.null_count} of {len(texts)} texts are null; expected strings")
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        texts = texts.cast(pa.large_string())
    if not len(texts):
        return
    _, places, data = texts.buffers()
    width = np.int32 if pa.types.is_string(texts.type) else np.int64
    offsets = np.frombuffer(places, width)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    raw = np.frombuffer(data if data is not None else b"", np.uint8)
    first = 0
    while first < len(texts):
        last = int(np.searchsorted(offsets, offsets[first] + RUN_BYTES))
        last = min(max(last, first + 1), len(texts))
        yield Run(raw, offsets[first : last + 1])
        first = last


def _end_to_end(parts: list[Places]) -> Places:
    """Return the places of runs of texts as those of one batch."""
    sizes = indptr_of(np.array([len(part.num_words) for part in parts], np.int64)).tolist()
    none = np.empty(0, np.int64)
    return Places(
        np.concatenate([none, *(part.text + before for part, before in zip(parts, sizes))]),
        np.concatenate([none, *(part.position for part in parts)]),
        np.concatenate([none, *(part.gram for part in parts)]),
        np.concatenate([none, *(part.num_words for part in parts)]),
    )
