"""The contenders of `overlap.py`: each finds the train documents that share a 13-gram with the evaluation side.

A contender takes the Parquet files of a corpus and a number of threads, and returns a function that is timed: imports,
compiled kernels, reading, and lists of Python strings are made ready before, where the contender's users have them
ready too. That function returns the numbers of the documents found, ascending, and further figures by name.

Reading is timed only for those that stream (`ours_stream`, `read_and_touch`) and in `whole_run`.
"""

from __future__ import annotations

import contextlib
import io
import os
import string
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from corpus import Corpus, sides, stream

I64 = npt.NDArray[np.int64]
Answer = tuple[I64, dict[str, float]]
Timed = Callable[[], Answer]
N = 13

# ---------------------------------------------------------------------------------------------- ours


def ours(text: Corpus, threads: int, normalisation: str = "words-1") -> Timed:
    """Our index and its pass over the train side, a row group at a time."""
    from taskmill import compiling, grams, normalisers

    normaliser = normalisers.named(normalisation)
    if os.environ.get("TASKMILL_NO_NUMBA") != "1":
        compiling.load_kernels()
    train, evaluation = sides(text)

    def run() -> Answer:
        started = time.perf_counter()
        index = grams.GramIndex(evaluation, N, normaliser, threads)
        built = time.perf_counter() - started
        return np.unique(index.find(train, threads).text), {"index_seconds": built}

    return run


def ours_lm_eval(text: Corpus, threads: int) -> Timed:
    """Ours with the words of lm-evaluation-harness."""
    return ours(text, threads, "lm-eval")


def ours_stream(text: Corpus, threads: int) -> Timed:
    """Ours from Parquet: each thread reads a row group of the train side and scans it."""
    from taskmill import compiling, grams, normalisers

    compiling.load_kernels()

    def run() -> Answer:
        started = time.perf_counter()
        index = grams.GramIndex(pa.chunked_array(stream(text.evaluation)), N, normalisers.WORDS, threads)
        built = time.perf_counter() - started

        def scan(first: int) -> list[tuple[I64, int]]:
            return [(np.unique(index.find(p).text), len(p)) for p in stream(text.train, first, threads)]

        with ThreadPoolExecutor(threads) as pool:
            scanned = list(pool.map(scan, range(threads)))
        numbers = range(sum(map(len, scanned)))
        ordered = [scanned[i % threads][i // threads] for i in numbers]
        return numbered([f for f, _ in ordered], [n for _, n in ordered]), {"index_seconds": built}

    return run


def numbered(found: list[I64], sizes: list[int]) -> I64:
    """Return the distinct numbers of documents, from those within each batch."""
    starts = np.cumsum([0, *sizes])
    return np.concatenate([np.unique(part) + start for part, start in zip(found, starts)]).astype(np.int64)


# --------------------------------------------------------------------------- lm-evaluation-harness


def harness() -> Any:
    """Return the harness's janitor module, without what its import prints."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from lm_eval.decontamination import janitor
    return janitor


def lm_eval_python(text: Corpus, threads: int) -> Timed:
    """The pieces of the harness's lookup: joined n-grams of normalised text in a set; a document ends at its first hit."""
    module = harness()
    train, evaluation = strings(text)

    def run() -> Answer:
        janitor = module.Janitor(N)
        seen = set[str]()
        for value in evaluation:
            seen.update(module.word_ngrams(janitor.normalize_string(value), N))
        hits = (
            not seen.isdisjoint(module.word_ngrams(janitor.normalize_string(value), N)) for value in train
        )
        return positions(hits), {}

    return run


def lm_eval_clean(text: Corpus, threads: int) -> Timed:
    """The harness's own cleaning path: `register_contaminant_python`, then `clean_python`, which cuts what it finds."""
    module = harness()
    train, evaluation = strings(text)

    def run() -> Answer:
        janitor = module.Janitor(N, window_to_remove=0, too_dirty_cutoff=1, minimum_slice_length=-1)
        for value in evaluation:
            janitor.register_contaminant_python(value)
        return positions(janitor.clean_python(value) != [value] for value in train), {}

    return run


def lm_eval_cpp(text: Corpus, threads: int) -> Timed:
    """The harness's C++ n-grams and a Python set; it has no lookup in C++, and `clean_cpp` cuts without one."""
    sys.path.insert(0, os.environ["JANITOR_UTIL"])
    import janitor_util

    train, evaluation = strings(text)

    def run() -> Answer:
        errors = 0

        def grams(value: str) -> list[str]:
            nonlocal errors
            try:
                return janitor_util.clean_ngram(value, string.punctuation, N)
            except UnicodeDecodeError:
                errors += 1
                return []

        seen = set[str]()
        for value in evaluation:
            seen.update(grams(value))
        hits = positions(not seen.isdisjoint(grams(value)) for value in train)
        return hits, {"documents_that_raise": errors}

    return run


def strings(text: Corpus) -> tuple[list[str], list[str]]:
    """Return both sides as Python strings."""
    train, evaluation = sides(text)
    return train.to_pylist(), evaluation.to_pylist()


def positions(hits: Iterable[bool]) -> I64:
    """Return where `hits` is true."""
    return np.flatnonzero(np.fromiter(hits, bool))


# ---------------------------------------------------------------------------------------- the oracle


def oracle(text: Corpus, threads: int, normalisation: str = "words-1") -> Timed:
    """Sets of joined words, no hashes: what is right by definition."""
    from taskmill.normalisers import named

    cut = named(normalisation).words
    train, evaluation = strings(text)

    def grams(value: str) -> set[str]:
        found = cut(value)
        return {" ".join(found[i : i + N]) for i in range(len(found) - N + 1)}

    def run() -> Answer:
        seen = set[str]().union(*map(grams, evaluation))
        return positions(not seen.isdisjoint(grams(value)) for value in train), {}

    return run


def oracle_lm_eval(text: Corpus, threads: int) -> Timed:
    """The same with the words of lm-evaluation-harness."""
    return oracle(text, threads, "lm-eval")


# -------------------------------------------------------------------------------------------- Polars


def polars(text: Corpus, threads: int) -> Timed:
    """The fastest expressions we found: words by `extract_all`, hashes, windows from halves, semi-join on their hashes."""
    import polars as pl

    def factor(power: int) -> Any:
        return pl.lit(pow(0xD1342543DE82EF95, power, 1 << 64), dtype=pl.UInt64)

    def joined(left: str, right: str, length: int, by: int) -> Any:
        return pl.col(left) * factor(by) + pl.col(right).shift(-length)

    def grams(texts: Any) -> Any:
        hashes = polars_words(texts).with_columns(w2=joined("w1", "w1", 1, 1))
        for left, right, length, by, name in (
            ("w2", "w1", 2, 1, "w3"),
            ("w3", "w3", 3, 3, "w6"),
            ("w6", "w6", 6, 6, "w12"),
            ("w12", "w1", 12, 1, "gram"),
        ):
            hashes = hashes.with_columns(joined(left, right, length, by).alias(name))
        inside = pl.col("text").shift(1 - N) == pl.col("text")
        return hashes.filter(inside).select("text", "gram").collect()

    return polars_join(text, grams)


def polars_shifts(text: Corpus, threads: int) -> Timed:
    """The plain expressions: the same words and hashes, 13 shifted columns hashed as a struct, semi-join."""
    import polars as pl

    def grams(texts: Any) -> Any:
        shifts = [pl.col("w1").shift(-i).alias(f"w1_{i}") for i in range(N)]
        gram = pl.struct(*shifts).hash().alias("gram")
        inside = (pl.col("text").shift(1 - N) == pl.col("text")).alias("inside")
        return polars_words(texts).select("text", gram, inside).filter("inside").drop("inside").collect()

    return polars_join(text, grams)


def polars_words(texts: Any) -> Any:
    """Return a lazy frame with one row a word: the number of its text, and its hash `w1`.

    Words are runs of letters and digits of any script in lower case: no NFKC, no full case folding, no marks, no cut
    between letters of scripts written without spaces.
    """
    import polars as pl

    word = pl.col("value").str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+").alias("w1")
    rows = pl.DataFrame({"value": texts}).with_row_index("text").lazy().select("text", word)
    return rows.explode("w1").with_columns(pl.col("w1").hash())


def polars_join(text: Corpus, grams: Callable[[Any], Any]) -> Timed:
    """Return the join of the train side's grams with the evaluation side's."""
    import polars as pl

    train, evaluation = (pl.from_arrow(side) for side in sides(text))

    def run() -> Answer:
        wanted = grams(evaluation).select("gram").unique()
        found = grams(train).join(wanted, on="gram", how="semi")["text"].unique()
        return np.sort(found.to_numpy()).astype(np.int64), {}

    return run


# -------------------------------------------------------------------------------------------- floors


def tokenise(text: Corpus, threads: int) -> Timed:
    """A floor: say of each byte whether it is of a word, by comparisons, and count the words; no hash, no lookup, one thread."""
    import numba

    @numba.njit(nogil=True)
    def count(buffer: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32]) -> int:
        words = 0
        for text in range(len(offsets) - 1):
            inside = False
            for i in range(offsets[text], offsets[text + 1]):
                byte = buffer[i]
                if (97 <= byte <= 122) or (65 <= byte <= 90) or (48 <= byte <= 57) or byte > 127:
                    if not inside:
                        words += 1
                    inside = True
                else:
                    inside = False
        return words

    return counted(text, count)


def tokenise_table(text: Corpus, threads: int) -> Timed:
    """The same by a table and without a branch on a byte, the fastest that we know."""
    import numba

    classes = np.array([byte > 127 or chr(byte).isalnum() for byte in range(256)], np.uint8)

    @numba.njit(nogil=True)
    def count(buffer: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32]) -> int:
        words = 0
        for text in range(len(offsets) - 1):
            before = 0
            for i in range(offsets[text], offsets[text + 1]):
                inside = classes[buffer[i]]
                words += inside & (1 - before)
                before = inside
        return words

    return counted(text, count)


def counted(text: Corpus, count: Callable[..., int]) -> Timed:
    """Return the count of the words of both sides, compiled."""
    arrays = [arrays_of(chunk) for side in sides(text) for chunk in side.chunks]
    count(*arrays[0])
    return lambda: (np.empty(0, np.int64), {"words": sum(count(*pair) for pair in arrays)})


def arrays_of(texts: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Return the bytes and offsets of an Arrow string array, without a copy."""
    _, offsets, data = texts.buffers()
    places = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data or b"", np.uint8), places


def read_and_touch(text: Corpus, threads: int) -> Timed:
    """A floor: read the texts from Parquet, and add up every byte."""

    def scan(first: int) -> int:
        total = 0
        for path in (text.train, text.evaluation):
            for part in stream(path, first, threads):
                data = arrays_of(part)[0]
                total += int(data[: len(data) // 8 * 8].view(np.uint64).sum())
        return total

    def run() -> Answer:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(scan, range(threads)))
        return np.empty(0, np.int64), {}

    return run


# ----------------------------------------------------------------------- one process, start to end


def whole_run(name: str, text: Corpus, threads: int) -> Answer:
    """Do what a command does that is run once: read, index, find, with whatever must be loaded and compiled.

    Unlike `ours`, this leaves it to the package whether the compiled kernel or numpy does the work.
    """
    if name != "ours":
        return CONTENDERS[name](text, threads)()
    from taskmill import grams

    train, evaluation = sides(text)
    index = grams.GramIndex(evaluation, N, threads=threads)
    return np.unique(index.find(train, threads).text), {}


CONTENDERS: dict[str, Callable[..., Timed]] = {
    contender.__name__: contender
    for contender in (
        ours,
        ours_lm_eval,
        ours_stream,
        lm_eval_python,
        lm_eval_clean,
        lm_eval_cpp,
        oracle,
        oracle_lm_eval,
        polars,
        polars_shifts,
        tokenise,
        tokenise_table,
        read_and_touch,
    )
}
TWICE = ("ours", "ours_numpy", "ours_lm_eval", "tokenise", "tokenise_table", "read_and_touch")
"""Timed again in the same process."""
NEEDS = {  # modules without which a contender is skipped
    "lm_eval_python": "lm_eval",
    "lm_eval_clean": "lm_eval",
    "lm_eval_cpp": "pybind11",
    "polars": "polars",
    "polars_shifts": "polars",
    "tokenise": "numba",
    "tokenise_table": "numba",
}


def installed(name: str) -> bool:
    """Say whether what a contender needs is installed."""
    from importlib.util import find_spec

    return name not in NEEDS or find_spec(NEEDS[name]) is not None
