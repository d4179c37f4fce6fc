"""The shared-gram relations: which train and evaluation examples hold which common n-grams.

Reads examples in batches; keeps the evaluation side in memory and streams the train side past it. A gram is a window
of n words inside one text of an example (a field, a reference, an option), confirmed on the words. An example whose
texts all have fewer than n words has no gram and is compared whole: equal wholes share one "whole", which the
relations carry like a gram. Both sides meet in a gram, so a frequent gram costs its places on each side, never their product.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from taskmill.grams import GramIndex, Places, Texts
from taskmill.normalisers import WORDS, Normaliser
from taskmill.splits.sharing.examples import EMPTY, I64, U8, U64, Bools, Examples, concat, joined
from taskmill.splits.sharing.sides import INPUT, OUTPUT
from taskmill.text import ranges

# --------------------------------------------------------------------------------- the evaluation side


@dataclass(frozen=True)
class Probe:
    """What finds the evaluation side's grams and wholes in other examples."""

    index: GramIndex
    wholes: dict[bytes, int]
    """Number of each whole, by its digest."""
    sizes: frozenset[int]
    """How many words the wholes have."""


class EvaluationSide:
    """The evaluation examples in memory: their texts, the index of their grams, the wholes of the short ones."""

    def __init__(
        self, parts: Sequence[Examples], n: int, normaliser: Normaliser = WORDS, threads: int = 1
    ) -> None:
        """Join the parts and index them for grams of `n` words."""
        self.examples, self.normaliser = joined(parts), normaliser
        self.index = GramIndex(self.examples.texts, n, normaliser, threads)
        self.owner: I64 = self.examples.owners()
        """The example (its place) of each text."""
        self.words_before, totals = _word_counts(self.examples, self.index.num_words)
        long = np.append(0, np.cumsum(self.index.num_words >= n))
        short = long[self.examples.first[1:]] == long[self.examples.first[:-1]]
        rows = np.flatnonzero(short & (totals > 0))
        keys = whole_keys(self.examples, rows.tolist(), normaliser)
        wholes = dict[bytes, int]()
        numbers = np.array([wholes.setdefault(key, len(wholes)) for key in keys], np.int64)
        order = np.argsort(numbers, kind="stable")
        self.whole_example: I64 = rows[order]
        self.whole_indptr: I64 = np.searchsorted(numbers[order], np.arange(len(wholes) + 1)).astype(np.int64)
        """Whole w is that of the examples whole_example[whole_indptr[w]:whole_indptr[w + 1]]."""
        self.whole_hash: U64 = np.frombuffer(b"".join(key[:8] for key in wholes), "<u8").astype(np.uint64)
        self.probe = Probe(self.index, wholes, frozenset(totals[rows].tolist()))

    def windows(self, keys: I64) -> list[str]:
        """Return the words behind each key, joined by spaces: those of a gram, or of a whole."""
        distinct, places = np.unique(keys, return_inverse=True)
        wholes = [self._whole(-key - 1) for key in distinct[distinct < 0].tolist()]
        found = [*wholes, *self.index.windows(distinct[distinct >= 0])]
        return [found[place] for place in places.tolist()]

    def _whole(self, number: int) -> str:
        i = self.whole_example[self.whole_indptr[number]]
        texts = self.examples.texts[self.examples.first[i] : self.examples.first[i + 1]]
        return " ".join(word for text in texts for word in self.normaliser.words(text))


def _word_counts(examples: Examples, num_words: I64) -> tuple[I64, I64]:
    """Return the words of its example before each text, and the words of each example."""
    before = np.append(0, np.cumsum(num_words))
    starts = before[examples.first]
    return before[:-1] - np.repeat(starts[:-1], np.diff(examples.first)), np.diff(starts)


def whole_keys(examples: Examples, rows: Sequence[int], normaliser: Normaliser) -> list[bytes]:
    """Return a 16-byte digest of all words of some examples: their `normalised` where these are the words that curate cuts."""
    if normaliser.name == WORDS.name:
        return [examples.normalised[i] for i in rows]
    keys = []
    for i in rows:
        texts = examples.texts[examples.first[i] : examples.first[i + 1]]
        line = " ".join(word for text in texts for word in normaliser.words(text))
        person = normaliser.name.encode()
        keys.append(
            blake2b(line.encode("utf-8", "surrogatepass"), digest_size=len(EMPTY), person=person).digest()
        )
    return keys


# ----------------------------------------------------------------------------------------- relations


@dataclass(frozen=True)
class Occurrences:
    """Which examples of one side hold which shared grams: one row per distinct (example, gram)."""

    example: I64
    """Number in the catalogue."""
    gram: I64
    position: I64
    """Word at which the gram first occurs, counted over all texts of the example; 0 for wholes."""
    side: U8
    """Bits of the sides on which it occurs; 0 throughout on the train side."""

    def sorted(self, *columns: str) -> Occurrences:
        """Return the rows sorted by columns, the first one most significant."""
        order = np.lexsort([getattr(self, name) for name in reversed(columns)])
        return self.take(order)

    def take(self, rows: I64 | Bools | slice) -> Occurrences:
        """Return some rows."""
        return Occurrences(self.example[rows], self.gram[rows], self.position[rows], self.side[rows])


@dataclass(frozen=True)
class Facts:
    """What the pair figures need of the examples with a shared gram, sorted by number."""

    number: I64
    content: U8
    indptr: I64
    """int64[n + 1]: the output keys of row i are keys[indptr[i]:indptr[i + 1]]."""
    keys: I64
    """What `Examples.output_keys` returns; in `Shared` numbers from 0, the same for both sides."""

    @classmethod
    def of(cls, examples: Examples, rows: I64) -> Facts:
        """Return the facts of some examples; `rows` ascend."""
        keys = [sorted(examples.output_keys(i)) for i in rows.tolist()]
        indptr = np.append(0, np.cumsum([len(part) for part in keys], dtype=np.int64)).astype(np.int64)
        flat = np.array([key for part in keys for key in part], np.int64)
        return cls(examples.number[rows], examples.content[rows], indptr, flat)

    @classmethod
    def joined(cls, parts: Sequence[Facts]) -> Facts:
        """Return the facts of all parts; no example is in two."""
        number = concat([part.number for part in parts])
        content = np.concatenate([np.empty((0, 32), np.uint8), *(part.content for part in parts)])
        counts = concat([np.diff(part.indptr) for part in parts])
        keys, order = concat([part.keys for part in parts]), np.argsort(number)
        starts = (np.cumsum(counts) - counts)[order]
        indptr = np.append(0, np.cumsum(counts[order])).astype(np.int64)
        return cls(number[order], content[order], indptr, keys[ranges(starts, counts[order])])

    def rows(self, examples: I64) -> I64:
        """Return the row of each example number."""
        return np.searchsorted(self.number, examples)


@dataclass(frozen=True)
class Shared:
    """The two relations and the grams in which they meet."""

    train: Occurrences
    """Sorted by example, then gram."""
    evaluation: Occurrences
    """Sorted by gram, then example."""
    train_facts: Facts
    eval_facts: Facts
    num_output_keys: int
    """The output keys of both are below."""
    gram_hash: U64
    """uint64[g]; of a whole, the first 8 bytes of its digest."""
    gram_key: I64
    """int64[g] ascending: the gram's number in the index, or -1 - w for whole w: what `EvaluationSide.windows` takes."""

    @property
    def is_whole(self) -> Bools:
        """Which grams are wholes of short examples."""
        return self.gram_key < 0


@dataclass(frozen=True)
class Found:
    """What some train examples hold of the evaluation side: one row per distinct (example, key)."""

    example: I64
    key: I64
    """As `Shared.gram_key` has it."""
    position: I64
    facts: Facts


def scan(
    probe: Probe, batches: Iterable[Examples], threads: int = 1, train: Bools | None = None
) -> Iterator[tuple[Examples, Found]]:
    """Find the evaluation side's grams and wholes in examples; yields each batch with what its train examples hold.

    Args:
        probe: of the evaluation side.
        batches: read on in this thread while others search those read before.
        threads: never changes a result.
        train: bool[num_examples], by number: the examples that count; all by default.
    """
    pending = deque[Examples]()

    def texts() -> Iterator[Texts]:
        for examples in batches:
            pending.append(examples)
            yield examples.texts

    for places in probe.index.find_batches(texts(), threads):
        examples = pending.popleft()
        counts = np.ones(len(examples.number), bool) if train is None else train[examples.number]
        yield examples, _found(probe, examples, places, counts)


def _found(probe: Probe, examples: Examples, places: Places, counts: Bools) -> Found:
    before, totals = _word_counts(examples, places.num_words)
    owner = examples.owners()[places.text]
    kept = np.flatnonzero(counts[owner])
    owner, gram = owner[kept], places.gram[kept]
    width = max(1, len(probe.index.gram_hash))
    first = np.unique(owner * width + gram, return_index=True)[1]
    owner, gram, place = owner[first], gram[first], kept[first]
    if probe.index.normaliser.name != WORDS.name:  # their digests are to be computed
        counts = counts & np.isin(totals, list(probe.sizes))
    rows = np.flatnonzero(counts).tolist()
    keys = whole_keys(examples, rows, probe.index.normaliser)
    equal = [(i, probe.wholes[key]) for i, key in zip(rows, keys) if key in probe.wholes]
    whole_rows, wholes = (np.array([pair[side] for pair in equal], np.int64) for side in (0, 1))
    hit = np.concatenate([owner, whole_rows])
    position = places.position[place] + before[places.text[place]]
    return Found(
        examples.number[hit],
        np.concatenate([gram, -1 - wholes]),
        np.concatenate([position, np.zeros(len(equal), np.int64)]),
        Facts.of(examples, np.unique(hit)),
    )


def relate(evaluation: EvaluationSide, parts: Iterable[Found]) -> Shared:
    """Return the relations from what was found in each part of the train side."""
    found = list(parts)
    keys, gram = np.unique(concat([part.key for part in found]), return_inverse=True)
    train = Occurrences(
        concat([part.example for part in found]),
        gram.astype(np.int64),
        concat([part.position for part in found]),
        np.zeros(len(gram), np.uint8),
    )
    places, hashes = _evaluation_occurrences(evaluation, keys)
    hit = np.searchsorted(evaluation.examples.number, np.unique(places.example))
    train_facts, eval_facts = Facts.joined([p.facts for p in found]), Facts.of(evaluation.examples, hit)
    outputs, numbers = np.unique(np.append(train_facts.keys, eval_facts.keys), return_inverse=True)
    return Shared(
        train.sorted("example", "gram"),
        places,
        replace(train_facts, keys=numbers[: len(train_facts.keys)]),
        replace(eval_facts, keys=numbers[len(train_facts.keys) :]),
        len(outputs),
        hashes,
        keys,
    )


def _evaluation_occurrences(evaluation: EvaluationSide, keys: I64) -> tuple[Occurrences, U64]:
    """Return the evaluation side's rows, sorted by gram and example, and the hash of each gram."""
    num_wholes, index = int(np.searchsorted(keys, 0)), evaluation.index
    wholes, grams = -1 - keys[:num_wholes], keys[num_wholes:]
    counts = evaluation.whole_indptr[wholes + 1] - evaluation.whole_indptr[wholes]
    whole_owner = evaluation.whole_example[ranges(evaluation.whole_indptr[wholes], counts)]
    whole = np.repeat(np.arange(num_wholes), counts)
    counts = index.indptr[grams + 1] - index.indptr[grams]
    place = ranges(index.indptr[grams], counts)
    gram = np.repeat(np.arange(num_wholes, len(keys)), counts)
    text = index.text[place]
    owner, side = evaluation.owner[text], evaluation.examples.side(text, evaluation.owner[text])
    starts = np.flatnonzero((np.diff(gram, prepend=-1) != 0) | (np.diff(owner, prepend=-1) != 0))
    position = index.position[place[starts]] + evaluation.words_before[text[starts]]
    places = Occurrences(
        evaluation.examples.number[np.concatenate([whole_owner, owner[starts]])],
        np.concatenate([whole, gram[starts]]),
        np.concatenate([np.zeros(len(whole), np.int64), position]),
        np.concatenate(
            [
                np.full(len(whole), INPUT | OUTPUT, np.uint8),
                np.bitwise_or.reduceat(side, starts) if len(starts) else side,
            ]
        ),
    )
    return places, np.concatenate([evaluation.whole_hash[wholes], index.gram_hash[grams]])
