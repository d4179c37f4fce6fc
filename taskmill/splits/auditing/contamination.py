"""Contamination of plain records: which evaluation records share a gram with train records, without tasks or a recipe.

Reads texts of records, returns figures; files are the caller's matter. The evaluation side is held in memory, each distinct
text once; train records stream past. A gram is a window of n words inside one text. A record whose texts all have fewer than n
words is short and compared whole: its words, in the order of its texts, with those of short train records.

A gram is frequent when it stands in more than `frequent` records, train and evaluation records counted together: what so many
share is a phrase rather than a copy. Figures are given with and without frequent grams.

    >>> check = Contamination(Records.of([["the cat sat on the mat"], ["a dog"]]), n=3)
    >>> check.add(Records.of([["The cat sat on a chair"], ["no"], ["A dog!"]]))
    >>> result = check.result()
    >>> result.evaluation.record.tolist(), result.touched.tolist(), result.equal.tolist()
    ([0], [0], [2])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from taskmill.grams import GramIndex, N
from taskmill.normalisers import WORDS, Normaliser
from taskmill.text import ranges, whole_keys, word_hashes

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
FREQUENT = 50
"""Records that a gram may stand in before it is frequent; the same number that a recipe's overlap.frequent_groups has."""


@dataclass(frozen=True)
class Records:
    """Records of one side, in order."""

    texts: list[str]
    """The texts of all records end to end."""
    first: I64
    """int64[num_records + 1]: record i has the texts first[i] .. first[i + 1] - 1."""

    @classmethod
    def of(cls, records: Iterable[Sequence[str]]) -> Records:
        """Join the texts of records."""
        texts, ends = list[str](), [0]
        for own in records:
            texts += own
            ends.append(len(texts))
        return cls(texts, np.array(ends, np.int64))

    def __len__(self) -> int:
        return len(self.first) - 1


@dataclass(frozen=True)
class EvaluationHits:
    """The evaluation records that share a gram with a train record, by number."""

    record: I64
    num_grams: I64
    """Distinct shared grams of each."""
    is_frequent: Bools
    """Whether all of these are frequent."""
    gram: I64
    """The rarest of them (of equals the first in the text): the evidence."""
    train_record: I64
    """The first train record that has the gram of evidence."""


@dataclass(frozen=True)
class Result:
    """What the two sides share; records of either side are numbered in the order in which they came."""

    evaluation: EvaluationHits
    short: I64
    """Evaluation records of fewer than n words in each text, but with some word."""
    short_equal: I64
    """Those of them that are equal to a train record as a whole."""
    short_train: I64
    """The first train record that equals each of these."""
    touched: I64
    """Train records that share a gram with an evaluation record."""
    touched_rare: I64
    """Those that share one that is not frequent."""
    equal: I64
    """Short train records that equal a short evaluation record as a whole."""
    num_train: int


@dataclass
class _Streamed:
    """What the train records left behind so far, as lists of arrays."""

    touched: list[I64] = field(default_factory=list)
    record: list[I64] = field(default_factory=list)
    gram: list[I32] = field(default_factory=list)
    """(record, gram) of the grams that are not frequent yet: at most `frequent` rows a gram, and a batch."""
    equal: list[int] = field(default_factory=list)


class Contamination:
    """The evaluation side, and what train records share with it so far."""

    def __init__(
        self,
        evaluation: Records,
        n: int = N,
        normaliser: Normaliser = WORDS,
        frequent: int = FREQUENT,
        threads: int = 1,
    ) -> None:
        """Index the evaluation records; `threads` never changes a result.

        Raises:
            ValueError: n is below 1.
        """
        self.n, self.normaliser, self.frequent, self.threads = n, normaliser, frequent, threads
        self.num_evaluation = len(evaluation)
        numbers = dict[str, int]()
        text = np.array([numbers.setdefault(t, len(numbers)) for t in evaluation.texts], np.int64)
        owner = np.repeat(np.arange(len(evaluation)), np.diff(evaluation.first))
        order = np.argsort(text, kind="stable")
        self._owner = owner[order]
        self._text_first = np.searchsorted(text[order], np.arange(len(numbers) + 1)).astype(np.int64)
        self.index = GramIndex(list(numbers), n, normaliser, threads)
        self._num_words = self.index.num_words[text]
        self._wholes, self._short = self._short_records(evaluation)
        self._sizes = {size for size, _ in self._wholes}
        num_grams = len(self.index.gram_hash)
        self._counts = np.zeros(num_grams, np.int64)
        self._first_train = np.full(num_grams, -1, np.int64)
        self._found = _Streamed()
        self._whole_train = dict[tuple[int, bytes], int]()
        self.num_train = 0

    def _short_records(self, evaluation: Records) -> tuple[dict[tuple[int, bytes], list[int]], I64]:
        """Return the short records by the digest of their words, and all of their numbers."""
        rows, _ = _short(self._num_words, evaluation.first, self.n)
        wholes: dict[tuple[int, bytes], list[int]] = {}
        for row, key in zip(rows.tolist(), _whole_keys(evaluation, rows, self.normaliser)):
            wholes.setdefault(key, []).append(row)
        return wholes, rows

    def add(self, train: Records) -> None:
        """Look up the next train records."""
        places = self.index.find(train.texts, self.threads)
        if len(places.gram):
            record = np.searchsorted(train.first, places.text, side="right") - 1
            rows = np.unique(record * len(self._counts) + places.gram)
            record, gram = rows // len(self._counts) + self.num_train, rows % len(self._counts)
            self._count(record, gram)
        if self._wholes:
            self._compare_whole(train, places.num_words)
        self.num_train += len(train)

    def _count(self, record: I64, gram: I64) -> None:
        """Count distinct (record, gram) rows, sorted by record."""
        held, first, counts = np.unique(gram, return_index=True, return_counts=True)
        new = self._first_train[held] < 0
        self._first_train[held[new]] = record[first[new]]
        self._counts[held] += counts
        self._found.touched.append(np.unique(record))
        kept = self._counts[gram] <= self.frequent
        self._found.record.append(record[kept])
        self._found.gram.append(gram[kept].astype(np.int32))

    def _compare_whole(self, train: Records, num_words: I64) -> None:
        rows, sizes = _short(num_words, train.first, self.n)
        rows = rows[np.isin(sizes, list(self._sizes))]
        for row, key in zip(rows.tolist(), _whole_keys(train, rows, self.normaliser)):
            if key in self._wholes:
                self._found.equal.append(self.num_train + row)
                self._whole_train.setdefault(key, self.num_train + row)

    def result(self) -> Result:
        """Return what the sides share."""
        gram, record = self._hit_rows()
        num_records = self._counts.copy()
        np.add.at(num_records, gram, 1)
        is_frequent = num_records > self.frequent
        rows = _joined(self._found.record)[~is_frequent[_joined(self._found.gram)]]
        equal = [(own, train) for key, train in self._whole_train.items() for own in self._wholes[key]]
        pairs = np.array(sorted(equal), np.int64).reshape(-1, 2)
        return Result(
            self._hits(gram, record, num_records, is_frequent),
            self._short,
            pairs[:, 0],
            pairs[:, 1],
            _joined(self._found.touched),
            np.unique(rows),
            np.array(self._found.equal, np.int64),
            self.num_train,
        )

    def _hit_rows(self) -> tuple[I64, I64]:
        """Return the distinct (gram, evaluation record) of all shared grams."""
        grams = np.flatnonzero(self._counts)
        starts, counts = self.index.indptr[grams], np.diff(self.index.indptr)[grams]
        text = self.index.text[ranges(starts, counts)]
        gram = np.repeat(grams, counts)
        owners = self._text_first[text + 1] - self._text_first[text]
        record = self._owner[ranges(self._text_first[text], owners)]
        size = max(1, self.num_evaluation)
        rows = np.unique(np.repeat(gram, owners) * size + record)
        return rows // size, rows % size

    def _hits(self, gram: I64, record: I64, num_records: I64, is_frequent: Bools) -> EvaluationHits:
        position = self.index.position[self.index.indptr[gram]]
        order = np.lexsort((gram, position, num_records[gram], record))
        gram, record = gram[order], record[order]
        hit, first, counts = np.unique(record, return_index=True, return_counts=True)
        evidence = gram[first]
        return EvaluationHits(hit, counts, is_frequent[evidence], evidence, self._first_train[evidence])


def _joined(parts: Sequence[I64] | Sequence[I32]) -> I64:
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)


def _short(num_words: I64, first: I64, n: int) -> tuple[I64, I64]:
    """Return the short records that hold a word, and how many words each has."""
    words = np.append(0, np.cumsum(num_words))
    long = np.append(0, np.cumsum(num_words >= n))
    size = words[first[1:]] - words[first[:-1]]
    rows = np.flatnonzero((size > 0) & (long[first[1:]] == long[first[:-1]]))
    return rows, size[rows]


def _whole_keys(records: Records, rows: I64, normaliser: Normaliser) -> list[tuple[int, bytes]]:
    """Return (number of words, digest of the words) of some records."""
    counts = records.first[rows + 1] - records.first[rows]
    texts = [records.texts[place] for place in ranges(records.first[rows], counts).tolist()]
    hashes, offsets = word_hashes(texts, normaliser)
    bounds = offsets[np.append(0, np.cumsum(counts))]
    return list(zip(np.diff(bounds).tolist(), whole_keys(hashes, bounds)))
