"""The contenders of `near_duplicates.py`: each signs documents with 128 MinHash values of 13-word shingles and looks for pairs.

A contender takes the documents as an Arrow array, the bands and rows, and a number of threads, and returns a function that is
timed: imports, compiled kernels, permutations, the choice of bands and datasketch's Python strings are made ready before.
That function returns the number of documents found to have an earlier near-duplicate, or None where nothing is looked up.

Shingles of datasketch are words of the lower-case text without ASCII punctuation, cut at white space, joined by spaces: less
work than our words. Rensa is fed with our shingles; daft hashes the text as it is, cut at spaces. A document of fewer than
13 words is one shingle, but for daft, which gives it no shingle.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

Timed = Callable[[], int | None]
N, NUM_PERM, SEED, THRESHOLD = 13, 128, 1, 0.8


def ours(texts: pa.Array, bands: int, rows: int, threads: int) -> Timed:
    """Cut, sign, bucket, confirm every pair on the shingles, join into clusters."""
    from taskmill import compiling
    from taskmill.minhash import Banding
    from taskmill.normalisers import WORDS
    from taskmill.splits.sharing.near_duplicates import Method, collect, find_clusters

    compiling.load_kernels()
    method = Method(N, WORDS, NUM_PERM, SEED, Banding(THRESHOLD, bands, rows))

    def run(some: pa.Array = texts) -> int:
        sketches = collect([(some, np.arange(len(some) + 1))], method, threads)
        clusters = find_clusters(sketches, np.arange(len(some)), method.banding)
        return int(np.count_nonzero(clusters != np.arange(len(some))))

    run(pa.array(["a b", "a b", "हिन्दी"]))
    return run


def joined_shingles(text: str) -> list[bytes]:
    """Return the shingles of a document as datasketch takes them."""
    words = text.lower().translate(_PUNCTUATION).split()
    return [" ".join(words[i : i + N]).encode() for i in range(max(1, len(words) - N + 1))]


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def datasketch_batch(texts: pa.Array, bands: int, rows: int, threads: int) -> Timed:
    """`update_batch` of a new MinHash a document, sha1; query, then insert."""
    from datasketch import MinHash, MinHashLSH

    strings = texts.to_pylist()

    def run() -> int:
        lsh, found = MinHashLSH(num_perm=NUM_PERM, params=(bands, rows)), 0
        for i, text in enumerate(strings):
            sketch = MinHash(num_perm=NUM_PERM, seed=SEED)
            sketch.update_batch(joined_shingles(text))
            found += bool(lsh.query(sketch))
            lsh.insert(i, sketch)
        return found

    return run


def datasketch_best(texts: pa.Array, bands: int, rows: int, threads: int) -> Timed:
    """`update_batch` with xxh32 and shared permutations; query, then insert without a check for the key."""
    import xxhash
    from datasketch import MinHash, MinHashLSH

    strings = texts.to_pylist()
    permutations = MinHash(num_perm=NUM_PERM, seed=SEED).permutations
    options = {"hashfunc": xxhash.xxh32_intdigest, "permutations": permutations, "scheme": "affine32"}

    def run() -> int:
        lsh, found = MinHashLSH(num_perm=NUM_PERM, params=(bands, rows)), 0
        for i, text in enumerate(strings):
            sketch: Any = MinHash(num_perm=NUM_PERM, seed=SEED, **options)
            sketch.update_batch(joined_shingles(text))
            found += bool(lsh.query(sketch))
            lsh.insert(i, sketch, check_duplication=False)
        return found

    return run


def rensa_flat(texts: pa.Array, bands: int, rows: int, threads: int) -> Timed:
    """Our shingles on one thread; rensa's matrix of signatures and its matrix LSH, as parallel as it is built to be."""
    from rensa import RMinHash, RMinHashLSH

    from taskmill import compiling, minhash
    from taskmill.normalisers import WORDS
    from taskmill.splits.sharing.near_duplicates import as_run

    def shingles(some: pa.Array) -> tuple[Any, Any]:
        return minhash.shingles(*minhash.words_of(as_run(some), WORDS), np.arange(len(some) + 1), N)

    compiling.load_kernels()
    shingles(pa.array(["a b", "हिन्दी"]))

    def run() -> int:
        sets, indptr = shingles(texts)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(sets, indptr.view(np.uint64), NUM_PERM, SEED)
        lsh = RMinHashLSH(threshold=THRESHOLD, num_perm=NUM_PERM, num_bands=RENSA_BANDS)
        return int(np.count_nonzero(lsh.query_duplicate_flags_matrix_one_shot(matrix)))

    return run


RENSA_BANDS = 16  # of 8 rows, as ours


def daft(texts: pa.Array, bands: int, rows: int, threads: int) -> Timed:
    """Signatures only, by xxhash; the text is not normalised."""
    import daft as package
    from daft.functions import minhash

    frame = package.from_arrow(pa.table([texts], ["text"])).collect()
    column = minhash(
        package.col("text"), num_hashes=NUM_PERM, ngram_size=N, seed=SEED, hash_function="xxhash"
    )

    def run() -> None:
        frame.select(column).collect()

    package.from_arrow(pa.table({"text": ["a b"]})).select(column).collect()
    return run


CONTENDERS: dict[str, Callable[[pa.Array, int, int, int], Timed]] = {
    "ours": ours,
    "datasketch_batch": datasketch_batch,
    "datasketch_best": datasketch_best,
    "rensa_flat": rensa_flat,
    "daft": daft,
}
NEEDS = {"datasketch_best": "xxhash", "rensa_flat": "rensa", "daft": "daft"}
SLOW = ("datasketch_batch", "datasketch_best")  # measured on every so many-th document
