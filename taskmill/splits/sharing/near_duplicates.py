"""Near-duplicate examples: those whose sets of shingles have at least the Jaccard similarity of the recipe.

Reads examples in batches, returns the table overlaps/near_duplicates. MinHash signatures (`minhash.py`) propose pairs, which
the sets themselves confirm; confirmed pairs and copies chain into clusters. Copies are examples of equal sets, and those of
equal normalised words however these are cut into texts; they are collapsed before any comparison and have similarity 1.
Examples without any word match nothing.

One example of a cluster survives: evaluation text first, then train text, then the rest (demonstrations of evaluation tasks,
unused validation rows), in each the lowest (task, id). The table holds the others, with their own similarity to the survivor,
which is below the threshold where they are linked through third ones. A cluster inside the evaluation text of one task is
left out: it leaks nothing, and removing from a test set is not ours to do.

Memory: 8 bytes a shingle, in a scratch file beyond SPILL_BYTES, and 8 bytes a band and example. Signatures are not kept.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from taskmill.errors import StorageError
from taskmill.minhash import Banding, Sketches, banding, permutations, sketch, words_of
from taskmill.normalisers import Normaliser, named
from taskmill.recipe import Overlap
from taskmill.records import SCHEMAS
from taskmill.splits.sharing.examples import EMPTY, EVALUATION_TEXT, TRAIN_TEXT, Catalogue, Examples
from taskmill.splits.sharing.similarity import buckets, common_sizes, gather, join_similar, repeated
from taskmill.text import indptr_of
from taskmill.utf8 import Run, runs

log = logging.getLogger("taskmill")

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Texts: TypeAlias = Sequence[str] | pa.Array

CHUNK_BYTES = 4 << 20  # of text that one thread turns into sketches at a time
SPILL_BYTES = 1 << 30  # of shingles in memory; more go to a scratch file


@dataclass(frozen=True)
class Method:
    """How examples become sketches."""

    n: int
    normaliser: Normaliser
    num_perm: int
    seed: int
    banding: Banding

    @classmethod
    def of(cls, settings: Overlap) -> Method:
        """Return the method of a recipe.

        Raises:
            UsageError: see `minhash.banding`, `normalisers.named`.
        """
        near = settings.near_duplicates
        normaliser = named(settings.normalisation, settings.tokenizer, settings.revision)
        return cls(settings.n, normaliser, near.num_perm, near.seed, banding(near.threshold, near.num_perm))


Losers: TypeAlias = Callable[[Catalogue, I64, I64], tuple[I64, I64]]
"""Who does not survive: see `find_losers`."""


def find_near_duplicates(
    catalogue: Catalogue,
    batches: Iterable[Examples],
    taking_part: Bools,
    settings: Overlap,
    workers: int = 1,
    losers: Losers | None = None,
) -> pa.Table:
    """Return the table overlaps/near_duplicates by the method of a recipe; see `compare`.

    Raises:
        UsageError: no banding fits the threshold and the length of signatures, or there is no such tokenizer.
        StorageError: the scratch file cannot be written.
    """
    method = Method.of(settings)
    _log_banding(method)
    return compare(catalogue, batches, taking_part, method, workers, losers)


def compare(
    catalogue: Catalogue,
    batches: Iterable[Examples],
    taking_part: Bools,
    method: Method,
    workers: int = 1,
    losers: Losers | None = None,
) -> pa.Table:
    """Return the table overlaps/near_duplicates: every example that does not survive its cluster.

    Args:
        catalogue: the numbering of examples and their sides.
        batches: the examples of all sides, each once, in any order.
        taking_part: bool[num_examples]; the others are left out.
        method: how similarity is found.
        workers: threads; never changes the result.
        losers: who does not survive; by default `find_losers`.

    Raises:
        StorageError: the scratch file cannot be written.
    """
    number, normalised = list[I64](), list[bytes]()

    def pieces() -> Iterator[tuple[Texts, I64]]:
        for batch in batches:
            rows = np.flatnonzero(taking_part[batch.number])
            part = batch if len(rows) == len(batch.number) else batch.take(rows.tolist())
            number.append(part.number)
            normalised.extend(part.normalised)
            yield part.texts, part.first

    sketches = collect(pieces(), method, workers)
    numbers, copies = np.concatenate([np.empty(0, np.int64), *number]), _copies(normalised)
    clusters = find_clusters(sketches, copies, method.banding)
    place, survivor = (losers or find_losers)(catalogue, numbers, clusters)
    return _table(catalogue, sketches, numbers, copies, place, survivor)


def _log_banding(method: Method) -> None:
    best = method.banding
    log.info(
        "overlap: near-duplicates from Jaccard similarity %g: %d bands of %d rows of %d permutations; "
        "a pair at the threshold is missed with probability %.3f, one at %.2f with %.3f; false positive area %.4f",
        best.threshold,
        best.bands,
        best.rows,
        method.num_perm,
        best.false_negative,
        (1 + best.threshold) / 2,
        1 - best.probability((1 + best.threshold) / 2),
        best.false_positive,
    )


# ----------------------------------------------------------------------------------------- sketching


@dataclass(frozen=True)
class Collected:
    """The sketches of all examples."""

    parts: Sequence[U64]
    """Shingles, end to end within each part, of consecutive examples."""
    starts: I64
    """int64[num_parts + 1]: part p has the examples starts[p] .. starts[p + 1] - 1."""
    sizes: I64
    """int64[num]: shingles of each example."""
    digest: U64
    """uint64[num]: see `Sketches`."""
    keys: U64
    """uint64[bands, num]: see `Sketches`."""

    def sets(self, rows: I64) -> tuple[U64, I64]:
        """Return the shingles of some examples, in ascending order of these, and where each one's begin and the last end."""
        indptr = indptr_of(self.sizes[rows])
        taken = np.empty(indptr[-1], np.uint64)
        edges = np.searchsorted(rows, self.starts)
        for part, start, stop, low, high in zip(self.parts, self.starts, self.starts[1:], edges, edges[1:]):
            if high > low:
                places = indptr_of(self.sizes[start:stop])[rows[low:high] - start]
                gather(part, places, self.sizes[rows[low:high]], taken[indptr[low] : indptr[high]])
        return taken, indptr


def collect(batches: Iterable[tuple[Texts, I64]], method: Method, threads: int = 1) -> Collected:
    """Sketch the examples of all batches; threads work on some while the next are read.

    Args:
        batches: texts end to end, and `first` int64[n + 1]: example i has the texts first[i] .. first[i + 1] - 1.
        method: how.
        threads: never changes the result.

    Raises:
        StorageError: the scratch file cannot be written.
    """
    permutations(method.num_perm, method.seed)  # before threads ask for them at once
    sizes, digests = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    keys = [np.empty((method.banding.bands, 0), np.uint64)]
    with closing(_Store()) as store:
        for part in _ahead(_chunks(batches), method, threads):
            store.append(part.shingles)
            sizes.append(np.diff(part.indptr))
            digests.append(part.digest)
            keys.append(part.keys)
        parts = store.parts()
    starts = indptr_of(np.array([len(part) for part in sizes[1:]], np.int64))
    return Collected(
        parts, starts, np.concatenate(sizes), np.concatenate(digests), np.concatenate(keys, axis=1)
    )


def _chunks(batches: Iterable[tuple[Texts, I64]]) -> Iterator[tuple[Run, I64]]:
    """Cut batches between examples into parts of about CHUNK_BYTES."""
    for texts, first in batches:
        run = as_run(texts)
        ends = run.offsets[first]
        low = 0
        while low < len(first) - 1:
            high = int(np.searchsorted(ends, ends[low] + CHUNK_BYTES))
            high = min(len(first) - 1, max(low + 1, high))
            offsets = run.offsets[first[low] : first[high] + 1]
            yield Run(run.raw, offsets), first[low : high + 1] - first[low]
            low = high


def as_run(texts: Texts) -> Run:
    """Return texts end to end, without a copy where they are Arrow's strings."""
    if not isinstance(texts, pa.Array):
        return next(runs(texts, sys.maxsize), Run(np.empty(0, np.uint8), np.zeros(1, np.int64)))
    _, places, data = texts.cast(pa.large_string()).buffers()
    offsets = np.frombuffer(places, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return Run(np.frombuffer(data or b"", np.uint8), offsets)


def _ahead(chunks: Iterable[tuple[Run, I64]], method: Method, threads: int) -> Iterator[Sketches]:
    """Sketch chunks in order, at most one more than `threads` of them at a time."""
    if threads < 2:
        for run, first in chunks:
            yield _sketch(run, first, method)
        return
    with ThreadPoolExecutor(threads) as pool:
        pending = deque[Future[Sketches]]()
        for run, first in chunks:
            pending.append(pool.submit(_sketch, run, first, method))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _sketch(run: Run, first: I64, method: Method) -> Sketches:
    words, offsets = words_of(run, method.normaliser)
    return sketch(words, offsets, first, method.n, method.banding, method.num_perm, method.seed)


class _Store:
    """Arrays in memory, and in an unnamed scratch file once they are large together."""

    def __init__(self) -> None:
        self._parts = list[U64]()
        self._ends = [0]
        self._file: IO[bytes] | None = None

    def append(self, part: U64) -> None:
        """Add an array."""
        self._parts.append(part)
        self._ends.append(self._ends[-1] + len(part))
        if self._ends[-1] * 8 > SPILL_BYTES:
            self._spill()

    def _spill(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="taskmill-")  # noqa: SIM115 - lives as long as this object
            for part in self._parts:
                self._file.write(part.data)
        except OSError as error:
            raise StorageError(
                f"cannot write the scratch file of near-duplicates in {tempfile.gettempdir()} "
                f"({self._ends[-1] >> 17} MB so far): {error}; set TMPDIR to a folder with more room"
            ) from error
        self._parts.clear()

    def parts(self) -> list[U64]:
        """Return the arrays."""
        if self._file is None or not self._ends[-1]:
            return self._parts
        self._file.flush()
        whole = np.asarray(np.memmap(self._file, np.uint64, "r"))
        return [whole[low:high] for low, high in pairwise(self._ends)]

    def close(self) -> None:
        """Let go of the scratch file; the arrays keep what they map."""
        if self._file is not None:
            self._file.close()


# ------------------------------------------------------------------------------------------ clusters


def find_clusters(sketches: Collected, copies: I64, best: Banding) -> I64:
    """Return the cluster of each example, called by the first of its members: int64[num].

    Args:
        sketches: of the examples.
        copies: int64[num]: for each example one that is its copy whatever its shingles, or itself.
        best: with the threshold from which two examples belong together.
    """
    filled = np.flatnonzero(sketches.sizes)
    rows, originals = _groups(filled, sketches.digest, sketches.sizes.astype(np.uint64))
    nodes = np.setdiff1d(filled, rows[rows != originals], assume_unique=True)  # one of each set
    nodes, members, bounds = buckets(sketches.keys, nodes)
    links = join_similar(members, bounds, *sketches.sets(nodes), best.threshold)
    left, right = (filled, rows, nodes), (copies[filled], originals, nodes[links])
    return _united(len(copies), np.concatenate(left), np.concatenate(right))


def _united(num: int, left: I64, right: I64) -> I64:
    """Return the lowest node of each node's component in the graph with the edges left[i] - right[i]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(left), bool), (left, right)), (num, num))
    labels = connected_components(graph, directed=False)[1]
    lowest: I64 = np.unique(labels, return_index=True)[1][labels].astype(np.int64)
    return lowest


def _copies(normalised: Sequence[bytes]) -> I64:
    """Return for each example the first of equal normalised words; itself where it has none."""
    copies = np.arange(len(normalised))
    keys = np.frombuffer(b"".join(normalised), "<u8").reshape(-1, 2).astype(np.uint64)
    filled = np.flatnonzero((keys != np.frombuffer(EMPTY, "<u8")).any(axis=1))
    rows, starts = _groups(filled, keys[:, 0], keys[:, 1])
    copies[rows] = starts
    return copies


def _groups(filled: I64, keys: U64, ties: U64) -> tuple[I64, I64]:
    """Return the examples of equal keys among `filled`, and the first of each one's group."""
    places, bounds = repeated(keys[filled], ties[filled])
    rows = filled[places]
    return rows, np.repeat(rows[bounds[:-1]], np.diff(bounds))


# --------------------------------------------------------------------------------------------- table


def _table(
    catalogue: Catalogue, sketches: Collected, numbers: I64, copies: I64, place: I64, survivor: I64
) -> pa.Table:
    """Return the rows of those that do not survive; `numbers` in the catalogue, the others as of `find_losers`."""
    across = (catalogue.side[numbers[[place, survivor]]] == EVALUATION_TEXT).any(axis=0)
    jaccard, containment = _similarity(sketches, copies, place, survivor)
    names = pa.array(catalogue.tasks, pa.string())
    columns = {
        "example": catalogue.ids.take(pa.array(numbers[place])),
        "task": names.take(pa.array(catalogue.task_of(numbers[place]))),
        "survivor": catalogue.ids.take(pa.array(numbers[survivor])),
        "survivor_task": names.take(pa.array(catalogue.task_of(numbers[survivor]))),
        "relation": np.where(across, "across", "train").tolist(),
        "cluster": sketches.digest[survivor],
        "jaccard": jaccard,
        "containment": containment,
    }
    table = pa.Table.from_pydict(columns, schema=SCHEMAS["overlaps/near_duplicates"])
    log.info(
        "overlap: %d near-duplicates of %d survivors, %d of them across the sides",
        len(place),
        len(np.unique(survivor)),
        int(np.count_nonzero(across)),
    )
    return table.sort_by([("survivor", "ascending"), ("example", "ascending")])


def find_losers(catalogue: Catalogue, numbers: I64, clusters: I64) -> tuple[I64, I64]:
    """Return the place of each example that does not survive, and that of its survivor.

    Args:
        catalogue: the sides of examples.
        numbers: int64[num]: the example at each place, by number in the catalogue.
        clusters: int64[num]: see `find_clusters`.
    """
    rows = np.flatnonzero((np.bincount(clusters, minlength=len(clusters)) > 1)[clusters])
    side = catalogue.side[numbers[rows]]
    rank = np.select([side == EVALUATION_TEXT, side == TRAIN_TEXT], [0, 1], 2)
    order = np.lexsort((numbers[rows], rank, clusters[rows]))
    rows, rank = rows[order], rank[order]
    cluster, task = clusters[rows], catalogue.task_of(numbers[rows])
    starts = np.flatnonzero(np.append(True, cluster[1:] != cluster[:-1])[: len(rows)])
    sizes = np.diff(np.append(starts, len(rows)))
    leaks = (rank > 0) | (task != np.repeat(task[starts], sizes))
    told = np.repeat(np.logical_or.reduceat(leaks, starts) if len(starts) else np.empty(0, bool), sizes)
    told[starts] = False
    return rows[told], np.repeat(rows[starts], sizes)[told]


def _similarity(
    sketches: Collected, copies: I64, place: I64, survivor: I64
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return Jaccard similarity and containment of each example and its survivor."""
    mine, theirs = sketches.sizes[place], sketches.sizes[survivor]
    rows = np.union1d(place, survivor)
    common = common_sizes(*sketches.sets(rows), np.searchsorted(rows, survivor), np.searchsorted(rows, place))
    copied = copies[place] == copies[survivor]
    jaccard = np.where(copied, 1.0, common / (mine + theirs - common))
    return jaccard, np.where(copied, 1.0, common / np.minimum(mine, theirs))
