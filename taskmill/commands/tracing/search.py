"""Where texts stand in the prompts or the examples of a run, for the command `trace`: one pass over the run's texts.

Reads batches of prompts/prompts or tasks/examples, returns arrays. The texts that are looked for are held, the run streams
past them. A text of at least n words is found by its windows of n words; windows that follow one another on both sides are one
span. A shorter text is found where a whole segment of a prompt, or a whole text of an example, has its words and no others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.grams import GramIndex, Places
from taskmill.leaves import leaves_by_side
from taskmill.normalisers import Normaliser
from taskmill.records import SEGMENT_KINDS
from taskmill.splits.auditing.segments import SYMBOLS, num_words, plain_prompts, window_masks
from taskmill.splits.sharing.sides import parse_fields
from taskmill.text import indptr_of, ranges
from taskmill.training.encoding.rows import Rows

I64 = npt.NDArray[np.int64]
I16 = npt.NDArray[np.int16]
Bools = npt.NDArray[np.bool_]

PROMPT_COLUMNS = (
    *("prompt", "example", "task", "split", "template", "demonstrations"),
    *("text", "ends", "kinds", "trained", "joint"),
)
"""Columns of prompts/prompts that a search reads."""
EXAMPLE_COLUMNS = ("example", "task", "fields", "references", "options")
"""Columns of tasks/examples that a search reads."""
LOSS_KINDS = ("output", "assistant", "document", "demonstration", "input")
"""Kinds of segments that can carry loss; any other that does counts as the last."""
_FIRST_LOSS = len(SEGMENT_KINDS) + 1
LOSS = sum(1 << (_FIRST_LOSS + place) for place in range(len(LOSS_KINDS)))
"""Bits of a mask that say that a span lies in text that carries loss."""
_CONTROL = SEGMENT_KINDS.index("control")
_MOST_PLACES = 8  # of a window in one text that are looked for, should it repeat itself
_ROWS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Spans:
    """Stretches of words that the texts share with rows of a table, one row each."""

    text: I64
    """Number of the text that was looked for."""
    row: I64
    """Row of the table, over its files."""
    start: I64
    """Word of the text at which it begins."""
    size: I64
    """Words."""
    position: I64
    """Word of the row's text at which it begins; -1 where that is a text of several, or a part of one."""
    mask: I16
    """Where in the row it lies: bits of SEGMENT_KINDS, and of LOSS where that carries loss."""

    def take(self, chosen: npt.NDArray[Any]) -> Spans:
        """Return some of them."""
        return Spans(*(getattr(self, name)[chosen] for name in _COLUMNS))

    @classmethod
    def joined(cls, parts: Sequence[Spans]) -> Spans:
        """Return those of all parts."""
        none = np.empty(0, np.int64)
        parts = [cls(none, none, none, none, none, none.astype(np.int16)), *parts]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS))


_COLUMNS = ("text", "row", "start", "size", "position", "mask")


@dataclass(frozen=True)
class Short:
    """Texts of one length below n."""

    index: GramIndex
    texts: I64
    """The number of each text of the index."""


class Wanted:
    """The texts that are looked for, indexed."""

    def __init__(self, texts: Sequence[str], n: int, normaliser: Normaliser) -> None:
        """Index them; `num_words` tells which are short and which hold no word.

        Raises:
            ValueError: n is below 1.
        """
        self.n, self.normaliser = n, normaliser
        self.index = GramIndex(texts, n, normaliser)
        self.num_words = self.index.num_words
        self.shorts = list[Short]()
        for size in np.unique(self.num_words[(self.num_words < n) & (self.num_words > 0)]).tolist():
            numbers = np.flatnonzero(self.num_words == size)
            self.shorts.append(
                Short(GramIndex([texts[i] for i in numbers.tolist()], size, normaliser), numbers)
            )
        self.has_long = len(self.index.gram_hash) > 0
        kept = _rank_in_text(self.index) < _MOST_PLACES
        self._text, self._start = self.index.text[kept], self.index.position[kept]
        self._bounds = indptr_of(self.num_words)
        self._gram = np.full(self._bounds[-1], -1, np.int64)
        of_posting = np.repeat(np.arange(len(self.index.gram_hash)), np.diff(self.index.indptr))
        self._gram[self._bounds[self.index.text] + self.index.position] = of_posting
        before = indptr_of(kept.astype(np.int64))[self.index.indptr]
        self._first, self._counts = before[:-1], np.diff(before)

    def spans(self, places: Places) -> tuple[I64, I64, I64, I64, I64]:
        """Return (text, row, start, position, size) of the spans that windows make: int64[s] each.

        Args:
            places: the windows, their texts being rows.
        """
        parts = [
            self._spans(places.text[a:b], places.position[a:b], places.gram[a:b])
            for a, b in _cuts(places.text, self._counts[places.gram])
        ]
        none = np.empty((5, 0), np.int64)
        columns = np.concatenate([none, *parts], axis=1)
        return columns[0], columns[1], columns[2], columns[3], columns[4]

    def _spans(self, row: I64, position: I64, gram: I64) -> I64:
        counts = self._counts[gram]
        posting = ranges(self._first[gram], counts)
        row, position = np.repeat(row, counts), np.repeat(position, counts)
        text, start = self._text[posting], self._start[posting]
        order = np.lexsort((position, position - start, text, row))
        row, position, text, start = row[order], position[order], text[order], start[order]
        follows = np.zeros(len(row), bool)
        follows[1:] = (np.diff(row) == 0) & (np.diff(text) == 0)
        follows[1:] &= (np.diff(position) == 1) & (np.diff(start) == 1)
        first = np.flatnonzero(~follows)
        size = np.diff(np.append(first, len(row))) + self.n - 1
        return np.stack([text[first], row[first], start[first], position[first], size])

    def covered(self, spans: Spans, number: int) -> Bools:
        """Return which words of a text lie in one of its spans: bool[num_words]; windows that repeat count everywhere."""
        size = int(self.num_words[number])
        if size < self.n:
            return np.full(size, len(spans.text) > 0)
        grams = self._gram[self._bounds[number] : self._bounds[number + 1] - self.n + 1]
        long = spans.size >= self.n  # what was left of a longer one may be shorter
        hit = _inside(spans.start[long], spans.size[long] - self.n + 1, len(grams))
        places = np.flatnonzero(np.isin(grams, grams[hit]))
        words = _inside(places, np.full(len(places), self.n), size)
        return words | _inside(spans.start[~long], spans.size[~long], size)


def _inside(starts: I64, counts: I64, size: int) -> Bools:
    """Return which of `size` places lie in a stretch: bool[size]."""
    edges = np.zeros(size + 1, np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + counts, -1)
    inside: Bools = np.cumsum(edges)[:-1] > 0
    return inside


def _rank_in_text(index: GramIndex) -> I64:
    """Return which place of its window in its text each posting is, from 0."""
    number = np.arange(len(index.text))
    gram = np.repeat(np.arange(len(index.gram_hash)), np.diff(index.indptr))
    first = (np.diff(gram, prepend=-1) != 0) | (np.diff(index.text, prepend=-1) != 0)
    rank: I64 = number - np.maximum.accumulate(np.where(first, number, 0))
    return rank


def _cuts(row: I64, counts: I64) -> list[tuple[int, int]]:
    """Cut windows between rows, so that the places of each part are not too many."""
    upto = indptr_of(counts)
    if upto[-1] <= _ROWS_AT_ONCE:
        return [(0, len(row))] if len(row) else []
    begins = np.append(np.flatnonzero(np.diff(row, prepend=-1)), len(row))
    wanted = np.searchsorted(upto[begins], np.arange(0, int(upto[-1]) + _ROWS_AT_ONCE, _ROWS_AT_ONCE))
    cuts = np.unique(begins[np.minimum(wanted, len(begins) - 1)]).tolist()
    return list(pairwise(cuts))


# ------------------------------------------------------------------------------------------- prompts


def search_prompts(
    wanted: Wanted, batches: Iterable[pa.RecordBatch], threads: int
) -> Iterator[tuple[pa.RecordBatch, int, Spans]]:
    """Yield (batch, its first row, spans in it) of the prompts table.

    Args:
        wanted: what is looked for.
        batches: with PROMPT_COLUMNS, in row order.
        threads: cores to use; never changes a result.
    """
    first = 0
    for batch, places in _looked_up(wanted, batches, _prompt_texts, threads):
        parts = [_in_segments(short, batch, threads) for short in wanted.shorts]
        if places is not None and len(places.text):
            parts.append(_in_prompts(wanted, batch, np.unique(places.text)))
        spans = Spans.joined(parts)
        spans.row[:] += first
        yield batch, first, spans
        first += batch.num_rows


def _looked_up(
    wanted: Wanted,
    batches: Iterable[pa.RecordBatch],
    texts_of: Callable[[pa.RecordBatch], Any],
    threads: int,
) -> Iterator[tuple[pa.RecordBatch, Places | None]]:
    """Yield each batch with the windows in its texts, None where no text has a window; batches are read ahead."""
    if not wanted.has_long:
        yield from ((batch, None) for batch in batches)
        return
    read = deque[pa.RecordBatch]()

    def texts() -> Iterator[Any]:
        for batch in batches:
            read.append(batch)
            yield texts_of(batch)

    for places in wanted.index.find_batches(texts(), threads):
        yield read.popleft(), places


def _prompt_texts(batch: pa.RecordBatch) -> Any:
    """Return the texts of prompts without symbols; what a user wrote like a symbol goes too, and is looked at again."""
    texts = batch.column("text")
    for symbol in SYMBOLS:
        texts = pc.replace_substring(texts, symbol, "")
    return texts


def _in_prompts(wanted: Wanted, batch: pa.RecordBatch, rows: I64) -> Spans:
    """Return the spans in some prompts of a batch, with the segments that they lie in."""
    hit = _with_loss(batch.take(pa.array(rows)))
    plain = plain_prompts(hit)
    places = wanted.index.find(plain.texts)
    text, row, start, position, size = wanted.spans(places)
    masks = window_masks(plain, places.num_words, wanted.n, wanted.normaliser)
    counts = size - wanted.n + 1
    windows = masks[ranges(indptr_of(places.num_words)[row] + position, counts)]
    mask = np.bitwise_or.reduceat(windows, indptr_of(counts)[:-1]) if len(row) else np.empty(0, np.int16)
    return Spans(text, rows[row], start, size, position, mask)


def masks_of(batch: pa.RecordBatch, n: int, normaliser: Normaliser) -> list[I16]:
    """Return where the window that begins at each word of each prompt lies, as the masks of spans."""
    plain = plain_prompts(_with_loss(batch))
    counts = num_words(plain.texts, normaliser)
    masks = window_masks(plain, counts, n, normaliser)
    return np.split(masks, np.cumsum(counts)[:-1])


def _with_loss(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return prompts whose kinds tell too which segments carry loss."""
    kinds = batch.column("kinds")
    codes = _loss_codes(
        kinds.flatten().to_numpy(zero_copy_only=False),
        batch.column("trained").flatten().to_numpy(zero_copy_only=False),
    )
    offsets = kinds.offsets.to_numpy() - kinds.offsets[0].as_py()
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(codes, pa.int8()))
    return pa.RecordBatch.from_arrays(
        [batch.column("text"), batch.column("ends"), lists], names=["text", "ends", "kinds"]
    )


def _loss_codes(kinds: npt.NDArray[Any], trained: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
    """Return the number of the bit of each segment's kind, another where it carries loss."""
    table = np.full(len(SEGMENT_KINDS), _FIRST_LOSS + len(LOSS_KINDS) - 1, np.int8)
    for place, kind in enumerate(LOSS_KINDS):
        table[SEGMENT_KINDS.index(kind)] = _FIRST_LOSS + place
    table[_CONTROL] = _CONTROL
    codes: npt.NDArray[np.int8] = np.where(trained, table[kinds], kinds).astype(np.int8)
    return codes


def _in_segments(short: Short, batch: pa.RecordBatch, threads: int) -> Spans:
    """Return the segments of a batch of prompts that have the words of a short text and no others."""
    rows = Rows.of_batch(batch.select(["text", "ends", "kinds", "trained", "joint"]))
    places = short.index.find(rows.texts_S, threads)
    whole = (places.num_words[places.text] == short.index.n) & (rows.kinds_S[places.text] != _CONTROL)
    segment = places.text[whole]
    codes = _loss_codes(rows.kinds_S[segment], rows.trained_S[segment])
    return _whole_spans(
        short, places.gram[whole], rows.row_S[segment], np.left_shift(1, codes.astype(np.int16))
    )


def _whole_spans(short: Short, gram: I64, row: I64, mask: I16) -> Spans:
    """Return a span for each text of a gram, which is the whole of it."""
    starts, counts = short.index.indptr[:-1][gram], np.diff(short.index.indptr)[gram]
    text = short.texts[short.index.text[ranges(starts, counts)]]
    key = np.stack([text, np.repeat(row, counts)])
    pairs, place = np.unique(key, axis=1, return_inverse=True)
    joined = np.zeros(pairs.shape[1], np.int16)
    np.bitwise_or.at(joined, place.ravel(), np.repeat(mask, counts).astype(np.int16))
    none = np.zeros(len(joined), np.int64)
    return Spans(pairs[0], pairs[1], none, none + short.index.n, none - 1, joined)


# ------------------------------------------------------------------------------------------ examples


def search_examples(
    wanted: Wanted, batches: Iterable[pa.RecordBatch], outputs: dict[str, Sequence[str]], threads: int
) -> Iterator[tuple[pa.RecordBatch, int, Spans]]:
    """Yield (batch, its first row, spans in it) of the examples table: fields, options and references, each by itself.

    Args:
        wanted: what is looked for.
        batches: with EXAMPLE_COLUMNS, in row order.
        outputs: the output fields of each task.
        threads: cores to use; never changes a result.
    """
    first = 0
    for batch in batches:
        texts, owner, is_output = _example_texts(batch, outputs)
        bits = np.where(is_output, 1 << SEGMENT_KINDS.index("output"), 1 << SEGMENT_KINDS.index("input"))
        parts = list[Spans]()
        for short in wanted.shorts:
            places = short.index.find(texts, threads)
            whole = places.num_words[places.text] == short.index.n
            text = places.text[whole]
            parts.append(_whole_spans(short, places.gram[whole], owner[text], bits[text].astype(np.int16)))
        if wanted.has_long:
            found, row, start, _, size = wanted.spans(wanted.index.find(texts, threads))
            parts.append(Spans(found, owner[row], start, size, start * 0 - 1, bits[row].astype(np.int16)))
        spans = Spans.joined(parts)
        spans.row[:] += first
        yield batch, first, spans
        first += batch.num_rows


def _example_texts(batch: pa.RecordBatch, outputs: dict[str, Sequence[str]]) -> tuple[list[str], I64, Bools]:
    """Return the texts of examples, the row that each belongs to, and whether it is of the output."""
    texts, counts, flags = list[str](), list[int](), list[bool]()
    names = ("task", "references", "options")
    columns = (batch.column(name).to_pylist() for name in names)
    for fields, task, references, options in zip(parse_fields(batch.column("fields")), *columns):
        inputs, answers = leaves_by_side(fields, outputs.get(task, ()))
        inputs, answers = [*inputs, *(options or ())], [*references, *answers]
        texts += inputs
        texts += answers
        flags += [False] * len(inputs) + [True] * len(answers)
        counts.append(len(inputs) + len(answers))
    owner = np.repeat(np.arange(batch.num_rows), np.array(counts, np.int64))
    return texts, owner, np.array(flags, np.bool_)
