"""MinHash signatures of sets of shingles, equal to datasketch's, and the banding that finds similar ones.

Reads word hashes (`text.word_hashes`), returns arrays. A shingle of an example is the 64-bit hash of a window of n words
inside one of its texts (`text.gram_hashes`); an example whose texts are all shorter than n words has one shingle, the
hash of all its words (`text.span_hashes`), and one without any word has none.

A signature is that of datasketch's `MinHash(num_perm, seed, hashfunc=to_uint32)`, default scheme `affine32`, fed with
these shingles: the low 32 bits of each go through MurmurHash3's finaliser to h, and entry p is the least of
a[p] * h + b[p] modulo 2**32 (Broder 1997; the permutations a, b are drawn by datasketch).

    >>> from taskmill.text import word_hashes
    >>> sets, indptr = shingles(*word_hashes(["a b c d", "a b c", "b a"]), np.array([0, 1, 3]), n=3)
    >>> indptr.tolist()
    [0, 2, 3]
    >>> to_minhash(signatures(sets, indptr)[1], seed=1).jaccard(to_minhash(signatures(sets, indptr)[0], seed=1)) > 0.3
    True

The compiled kernels (`minhash_kernels.py`) need numba; without it, on little text, or with TASKMILL_NO_NUMBA=1, numpy
gives the same numbers.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from taskmill import text
from taskmill.compiling import kernels_for
from taskmill.errors import UsageError
from taskmill.normalisers import Normaliser
from taskmill.utf8 import Run, prepared

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

MIX_32 = (0x85EBCA6B, 0xC2B2AE35)  # multipliers of MurmurHash3's 32-bit finaliser
WEIGHTS = (
    0.05,
    0.95,
)  # of false positives, which the comparison of the sets takes out, and of misses, which stay
_BLOCK = 1 << 15  # shingles that numpy permutes at once


# ------------------------------------------------------------------------------------------ shingles


def shingles(words: U64, offsets: I64, first: I64, n: int = text.N) -> tuple[U64, I64]:
    """Return the distinct shingles of each example, in the order in which they first occur.

    Args:
        words: uint64[num_words] of all texts, end to end (`text.word_hashes`).
        offsets: int64[num_texts + 1]: text t has the words offsets[t] .. offsets[t + 1] - 1.
        first: int64[num_examples + 1]: example i has the texts first[i] .. first[i + 1] - 1.
        n: words a shingle.

    Returns:
        uint64[num_shingles], and `indptr` int64[num_examples + 1]: example i has those from indptr[i] to indptr[i + 1] - 1.

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"n: {n}; expected at least 1")
    compiled = kernels()
    if compiled is None:
        return _shingles_by_numpy(words, offsets, first, n)
    out, indptr = np.empty(len(words), np.uint64), np.zeros(len(first), np.int64)
    num = compiled.shingle(words, offsets, first, n, out, indptr)
    return out[:num].copy(), indptr


def _shingles_by_numpy(words: U64, offsets: I64, first: I64, n: int) -> tuple[U64, I64]:
    grams, gram_offsets = text.gram_hashes(words, offsets, n)
    counts = np.diff(gram_offsets[first])
    whole = np.flatnonzero((counts == 0) & (np.diff(offsets[first]) > 0))
    spans = offsets[first[:-1]][whole], offsets[first[1:]][whole]
    values = np.concatenate([grams, text.span_hashes(words, *spans)])
    owner = np.concatenate([np.repeat(np.arange(len(counts)), counts), whole])
    kept = np.ones(len(values), bool)
    kept[_repetitions(values, owner)] = False
    values, owner = values[kept], owner[kept]
    return values[np.argsort(owner, kind="stable")], text.indptr_of(np.bincount(owner, minlength=len(counts)))


def _repetitions(values: U64, owner: I64) -> I64:
    """Return the places of values that the same owner has before."""
    keys = values + owner.astype(np.uint64) * np.uint64(text.GRAM_BASE)  # equal for more than what is wanted
    order = np.argsort(keys)
    same = keys[order[1:]] == keys[order[:-1]]
    few = np.sort(order[np.append(same, False) | np.append(False, same)] if len(order) else order)
    few = few[np.lexsort((values[few], owner[few]))]  # stable
    again = (values[few[1:]] == values[few[:-1]]) & (owner[few[1:]] == owner[few[:-1]])
    repetitions: I64 = few[1:][again]
    return repetitions


# ---------------------------------------------------------------------------------------- signatures


def to_uint32(shingle: int) -> int:
    """Return the low 32 bits of a shingle: the `hashfunc` with which datasketch makes the same signatures."""
    return int(shingle) & 0xFFFFFFFF


@functools.lru_cache(maxsize=4)
def permutations(num_perm: int, seed: int) -> tuple[U32, U32]:
    """Return datasketch's multipliers and addends of the scheme affine32: two uint32[num_perm]."""
    from datasketch import MinHash

    a, b = MinHash(num_perm=num_perm, seed=seed).permutations
    return np.ascontiguousarray(a), np.ascontiguousarray(b)


def signatures(shingles: U64, indptr: I64, num_perm: int = 128, seed: int = 1, threads: int = 1) -> U32:
    """Return the MinHash signature of each set: uint32[num_sets, num_perm]; 2**32 - 1 throughout for an empty set.

    Args:
        shingles: uint64[num_shingles] of all sets, end to end; repetitions do not count.
        indptr: int64[num_sets + 1]: set i has the shingles indptr[i] .. indptr[i + 1] - 1.
        num_perm: length of a signature.
        seed: of the permutations, as datasketch counts it.
        threads: cores to use once the kernels are loaded; never changes a result.
    """
    a, b = permutations(num_perm, seed)
    out = np.full((len(indptr) - 1, num_perm), 0xFFFFFFFF, np.uint32)
    compiled = kernels()
    if compiled is None:
        _sign_by_numpy(shingles, indptr, a, b, out)
        return out
    cuts = np.searchsorted(indptr[:-1], np.linspace(0, indptr[-1], threads + 1)[1:-1]).tolist()
    parts = [(indptr[low : high + 1], out[low:high]) for low, high in pairwise([0, *cuts, len(out)])]
    if len(parts) < 2:
        compiled.sign(shingles, indptr, a, b, out)
        return out
    with ThreadPoolExecutor(len(parts)) as pool:
        for done in [pool.submit(compiled.sign, shingles, part, a, b, rows) for part, rows in parts]:
            done.result()
    return out


def _sign_by_numpy(shingles: U64, indptr: I64, a: U32, b: U32, out: U32) -> None:
    """Lower each row of `out` to the least permuted value of its shingles, some rows at a time."""
    values = (shingles & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    values ^= values >> np.uint32(16)
    values *= np.uint32(MIX_32[0])
    values ^= values >> np.uint32(13)
    values *= np.uint32(MIX_32[1])
    values ^= values >> np.uint32(16)
    filled = np.flatnonzero(np.diff(indptr))
    ends = indptr[filled + 1]
    low = 0
    while low < len(filled):
        start = int(indptr[filled[low]])
        high = max(low + 1, int(np.searchsorted(ends, start + _BLOCK, side="right")))
        block, rows, starts = (
            values[start : ends[high - 1]],
            filled[low:high],
            indptr[filled[low:high]] - start,
        )
        for p in range(len(a)):
            out[rows, p] = np.minimum.reduceat(block * a[p] + b[p], starts)
        low = high


# ------------------------------------------------------------------------------------------- banding


@dataclass(frozen=True)
class Banding:
    """How signatures are cut into bands; two examples are compared when all rows of some band agree.

    Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, section 3.4.
    """

    threshold: float
    bands: int
    rows: int

    def probability(self, similarity: float) -> float:
        """Return the probability that two examples of that Jaccard similarity are compared."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)

    @property
    def false_negative(self) -> float:
        """The probability that two examples just at the threshold are not compared."""
        return 1 - self.probability(self.threshold)

    @property
    def false_positive(self) -> float:
        """The probability that two examples are compared, integrated over the similarities below the threshold."""
        nodes, weights = np.polynomial.legendre.leggauss(self.bands * self.rows // 2 + 1)  # exact
        points = (nodes + 1) / 2 * self.threshold
        values = 1 - (1 - points**self.rows) ** self.bands
        return float(weights @ values * self.threshold / 2)


@functools.lru_cache(maxsize=8)
def banding(threshold: float, num_perm: int) -> Banding:
    """Return datasketch's best bands and rows: those of the least weighted sum of its two error areas.

    A pair that the bands miss is lost, one that they find for nothing costs a comparison: see `WEIGHTS`.

    Raises:
        UsageError: datasketch has none for these numbers.
    """
    from datasketch import MinHashLSH

    try:
        best = MinHashLSH(threshold=threshold, num_perm=num_perm, weights=WEIGHTS)
    except ValueError as error:
        raise UsageError(
            f"no banding of {num_perm} permutations for the threshold {threshold}: {error}; "
            "expected a threshold above 0 and below 1 and at least 2 permutations, such as 0.8 and 128"
        ) from error
    return Banding(threshold, best.b, best.r)


def band_keys(signatures: U32, bands: int, rows: int) -> U64:
    """Return a 64-bit hash of each band of each signature: uint64[num_sets, bands]; equal rows of a band hash alike.

    The number of the band is hashed too, so that keys of different bands differ.
    """
    out = np.empty((len(signatures), bands), np.uint64)
    compiled = kernels()
    if compiled is not None:
        compiled.band(signatures, bands, rows, out)
        return out
    out[:] = np.arange(1, bands + 1, dtype=np.uint64)
    parts = signatures[:, : bands * rows].reshape(-1, bands, rows)
    for row in range(rows):
        out ^= parts[:, :, row]
        out *= np.uint64(text.MIX[0])
        out ^= out >> np.uint64(32)
    return out


# ------------------------------------------------------------------------------------------ sketches


@dataclass(frozen=True)
class Sketches:
    """What comparing needs of some examples, one row each; signatures are not kept."""

    shingles: U64
    """Distinct within an example, end to end."""
    indptr: I64
    """int64[num + 1]: example i has the shingles indptr[i] .. indptr[i + 1] - 1."""
    digest: U64
    """uint64[num]: the sum of the shingles modulo 2**64; equal for equal sets."""
    keys: U64
    """uint64[bands, num]: `band_keys`, a band's together."""


def sketch(
    words: U64, offsets: I64, first: I64, n: int, best: Banding, num_perm: int = 128, seed: int = 1
) -> Sketches:
    """Sketch examples; arguments as of `shingles`, `banding` and `signatures`."""
    compiled = kernels()
    if compiled is None:
        sets, indptr = shingles(words, offsets, first, n)
        signed = signatures(sets, indptr, num_perm, seed)
        sums, filled = np.zeros(len(signed), np.uint64), np.flatnonzero(np.diff(indptr))
        sums[filled] = np.add.reduceat(sets, indptr[filled]) if len(filled) else 0
        return Sketches(sets, indptr, sums, np.ascontiguousarray(band_keys(signed, best.bands, best.rows).T))
    num, shape = len(first) - 1, (n, *permutations(num_perm, seed), best.bands, best.rows)
    out, indptr = np.empty(offsets[-1], np.uint64), np.zeros(num + 1, np.int64)
    digest, keys = np.empty(num, np.uint64), np.empty((best.bands, num), np.uint64)
    num_shingles = compiled.sketch(words, offsets, first, *shape, out, indptr, digest, keys)
    return Sketches(out[:num_shingles], indptr, digest, keys)


def words_of(run: Run, normaliser: Normaliser) -> tuple[U64, I64]:
    """Return what `text.word_hashes` does for the texts of a run, without a copy; the hashes may go on behind the last."""
    num_bytes = int(run.offsets[-1] - run.offsets[0])
    compiled, fold = kernels_for(num_bytes), np.frombuffer(normaliser.fold, np.uint8)
    ready = prepared(run, normaliser, compiled)
    if compiled is None:
        hashes, counts = text.hash_words(ready, fold)
        return hashes, text.indptr_of(counts)
    num_texts, none = len(ready.offsets) - 1, np.empty(1, np.int64)
    counts = np.empty(num_texts, np.int64)
    hashes = np.empty((int(ready.offsets[-1] - ready.offsets[0]) + num_texts) // 2 + 1, np.uint64)
    source = ready.raw, ready.offsets, fold, compiled.INVERSES, compiled.POWERS
    compiled.collect(*source, 0, hashes, counts, none.view(np.uint8), none)
    return hashes, text.indptr_of(counts)


# ---------------------------------------------------------------------------------- datasketch's form


def to_minhash(signature: U32, seed: int = 1) -> MinHash:
    """Return a signature as datasketch's object, which can be updated, merged, compared and stored.

    Its `update` takes shingles: `hashfunc` is `to_uint32`.
    """
    from datasketch import MinHash

    return MinHash(
        seed=seed,
        hashfunc=to_uint32,
        hashvalues=signature,
        permutations=permutations(len(signature), seed),
        scheme="affine32",
    )


def fill_lsh(lsh: MinHashLSH, names: Iterable[str], signatures: U32, seed: int = 1) -> None:
    """Insert each signature under its name into datasketch's index, through its buffer for Redis and Cassandra."""
    with lsh.insertion_session() as session:
        for name, signature in zip(names, signatures):
            session.insert(name, to_minhash(signature, seed))


# ----------------------------------------------------------------------------------------- compiling


def kernels() -> ModuleType | None:
    """Return `minhash_kernels` where the kernels that cut words are loaded (see `compiling.py`), else None."""
    return None if kernels_for(0) is None else importlib.import_module("taskmill.minhash_kernels")
