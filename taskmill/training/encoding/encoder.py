"""Prompts to token ids: each distinct word of a tokenizer once (no torch).

Tokenisation is joint: the text between two control segments is encoded as a whole, and a token belongs to the segment
in which it starts. Where a prompt's format says so it is segment by segment: each is encoded on its own, but for
instructions, demonstrations and inputs side by side, the pieces of one text. Text is never parsed for special tokens;
only control segments become them.

Every text is cut wherever `boundaries` proves that the parts give the ids of the whole, which leaves words with the
white space before them. Equal parts are found by one pass of Arrow's hash table over the bytes, so what prompts share
(definitions, demonstrations, system texts, words) is encoded once, and the ids are put together by flat indexing.
Offsets of tokens are asked for only in parts that hold the end of a segment. Suffixes: P parts, T tokens.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.training.encoding.boundaries import Boundaries
from taskmill.training.encoding.rows import BOOL, I32, I64, Encoded, Prompt, Rows
from taskmill.training.encoding.tokenizer import TextTokenizer

_KEPT_WORDS = 1_000_000
"""Words whose ids are kept from batch to batch."""


@dataclass(frozen=True)
class Encodings:
    """The tokens of some rows."""

    ids_T: I32
    trained_T: BOOL
    segment_T: I32
    """The segment in which a token starts, counted within its row."""
    offsets_R: I64
    """int64[R + 1]: row r is tokens offsets_R[r] .. offsets_R[r + 1] - 1."""

    def row(self, number: int) -> Encoded:
        """Return one row."""
        part = slice(int(self.offsets_R[number]), int(self.offsets_R[number + 1]))
        return Encoded(self.ids_T[part], self.trained_T[part], self.segment_T[part])


def encode(tokenizer: TextTokenizer, prompts: Sequence[Prompt]) -> list[Encoded]:
    """Encode prompts: jointly between control segments, or segment by segment, as each prompt says.

    Raises:
        UsageError: a control segment that the tokenizer has no token for.
    """
    found = Encoder(tokenizer).encode(Rows.of_prompts(prompts))
    return [found.row(number) for number in range(len(prompts))]


class Encoder:
    """Encodes batch after batch with one tokenizer; threads may share it."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        """Start without any word."""
        self._tokenizer, self._lock = tokenizer, threading.Lock()
        self._words: Any = pa.array([], pa.large_string())
        self._table = _Table.of([])

    def encode(self, rows: Rows) -> Encodings:
        """Encode rows; the result depends on the rows and the tokenizer alone.

        Raises:
            UsageError: a control segment that the tokenizer has no token for.
        """
        parts = cut(rows, self._tokenizer.boundaries)
        if self._tokenizer.swallows:
            parts = _swallowed(rows, parts, self._tokenizer)
        words, word_P = _distinct(rows, parts)
        is_plain = ~parts.control_P & (parts.start_P + parts.skip_P < parts.end_P)
        is_plain[parts.mixed] = False
        is_used = np.zeros(len(words), dtype=np.bool_)
        is_used[word_P[is_plain]] = True
        plain = self._known(words.filter(pa.array(is_used)))
        mixed, begins, mixed_entries = self._mixed(words, word_P, parts)
        symbols, control_entries = self._symbols(rows, parts)
        entry_P = np.full(len(parts.start_P), len(plain.lengths) + len(mixed.lengths))  # the empty one
        entry_P[is_plain] = (np.cumsum(is_used) - 1)[word_P[is_plain]]
        entry_P[parts.mixed] = len(plain.lengths) + mixed_entries
        entry_P[parts.control_P] = len(plain.lengths) + len(mixed.lengths) + control_entries
        table = plain + mixed + symbols
        length_P = table.lengths[entry_P]
        segment_T = np.repeat(parts.segment_P, length_P)
        if len(parts.mixed):
            first = (np.cumsum(length_P) - length_P)[parts.mixed]
            places = ranges(first, length_P[parts.mixed])
            begin = begins[ranges(mixed.starts[mixed_entries], mixed.lengths[mixed_entries])]
            segment_T[places] = _segments(rows, parts, begin, length_P[parts.mixed])
        offsets_R = _offsets(rows, parts.segment_P, length_P)
        first_T = np.repeat(rows.first_R[:-1], np.diff(offsets_R))
        ids_T = table.ids[ranges(table.starts[entry_P], length_P)]
        return Encodings(ids_T, rows.trained_S[segment_T], (segment_T - first_T).astype(np.int32), offsets_R)

    def _known(self, words: pa.Array) -> _Table:
        """Return the ids of words, of which those never met are encoded now."""
        with self._lock:
            found = pc.index_in(words, value_set=self._words)
            new = words.filter(found.is_null())
            fast = self._tokenizer.backend.encode_batch_fast
            fresh = _Table.of([e.ids for e in fast(new.to_pylist(), add_special_tokens=False)])
            numbers = pc.fill_null(found, -1).to_numpy().astype(np.int64)
            numbers[numbers < 0] = len(self._words) + np.arange(len(new))
            table = self._table + fresh
            if len(self._words) + len(new) <= _KEPT_WORDS:
                self._words, self._table = pa.concat_arrays([self._words, new]), table
            else:
                self._words, self._table = new, fresh
        return table.take(numbers)

    def _mixed(self, words: pa.Array, word_P: I64, parts: Parts) -> tuple[_Table, I64, I64]:
        """Encode the parts in which segments end.

        Returns:
            the table of distinct ones, the byte of its part at which each of its tokens begins, and the number in the
            table of each mixed part.
        """
        skip = parts.skip_P[parts.mixed]
        keys, numbers = np.unique(word_P[parts.mixed] * 2 + skip, return_inverse=True)
        texts = words.take(pa.array(keys // 2)).to_pylist()
        # Behind another character, so that a space that a part is encoded without has its token and its offset.
        lead = "a"
        whole = [f"{lead} {text}" if dropped else text for text, dropped in zip(texts, keys % 2)]
        backend = self._tokenizer.backend
        size = len(backend.encode(lead, add_special_tokens=False).ids)
        ids: list[Any] = []
        begins: list[I64] = [np.empty(0, np.int64)]
        for text, dropped, encoding in zip(
            whole, keys % 2, backend.encode_batch(whole, add_special_tokens=False)
        ):
            at = np.array([begin for begin, _ in encoding.offsets], dtype=np.int64)
            ids.append(encoding.ids[size * dropped :])
            begins.append(_byte_places(text)[at[size * dropped :]] - dropped)
        return _Table.of(ids), np.concatenate(begins), numbers.reshape(-1)

    def _symbols(self, rows: Rows, parts: Parts) -> tuple[_Table, I64]:
        """Return a table of an empty entry and the special tokens, and the entry of each control part."""
        texts = rows.texts_S.filter(pa.array(rows.control_S)).dictionary_encode()
        found = [self._tokenizer.symbol(text) for text in texts.dictionary.to_pylist()]
        entry_S = np.zeros(len(rows.ends_S), dtype=np.int64)
        entry_S[rows.control_S] = texts.indices.to_numpy() + 1
        segment = parts.segment_P[parts.control_P]
        begins = parts.start_P[parts.control_P] == rows.starts_S[segment]
        return _Table.of([[], *([] if i is None else [i] for i in found)]), entry_S[segment] * begins


# ----------------------------------------------------------------------------------------------- parts


@dataclass(frozen=True)
class Parts:
    """What is encoded on its own, in order."""

    start_P: I64
    end_P: I64
    skip_P: I64
    """Bytes at its beginning that are left out, 0 or 1: see `Boundaries.drops_space`."""
    segment_P: I64
    """The segment in which it starts, over all rows."""
    control_P: BOOL
    """Whether it belongs to a control segment; only its first part stands for it."""
    mixed: I64
    """Numbers of the parts inside of which a segment ends."""


def cut(rows: Rows, boundaries: Boundaries | None) -> Parts:
    """Cut rows at the borders of what is encoded as a whole, and wherever it is safe."""
    border_B = np.zeros(len(rows.data_B) + 1, dtype=np.bool_)
    border_B[rows.starts_S[rows.border_S]] = True
    border_B[[0, -1]] = True
    cut_B, drops = border_B, boundaries is not None and boundaries.drops_space
    if boundaries is not None:
        safe = boundaries.find(rows.data_B)
        cut_B = border_B.copy()
        cut_B[safe[~border_B[safe + 1]] if drops else safe] = True
    cuts = np.flatnonzero(cut_B)
    start_P, end_P = cuts[:-1], cuts[1:]
    skip_P = (~border_B[start_P] & drops).astype(np.int64)
    filled = np.flatnonzero(rows.ends_S > rows.starts_S)
    first = np.searchsorted(start_P, rows.starts_S[filled])
    inside = np.append(start_P, -1)[first] != rows.starts_S[filled]
    segment_P = np.repeat(filled, np.diff(first, append=len(start_P)))
    mixed = np.unique(first[inside] - 1)
    return Parts(start_P, end_P, skip_P, segment_P, rows.control_S[segment_P], mixed)


def _swallowed(rows: Rows, parts: Parts, tokenizer: TextTokenizer) -> Parts:
    """Return the parts without the white space that special tokens beside them take with them, in joint prompts."""
    start_P, end_P = parts.start_P.copy(), parts.end_P.copy()
    row_P = rows.row_S[parts.segment_P]
    for number in np.flatnonzero(parts.control_P & rows.joint_R[row_P]).tolist():
        segment = parts.segment_P[number]
        text = rows.text(rows.starts_S[segment], rows.ends_S[segment])
        symbol = tokenizer.symbol(text)
        left, right = (False, False) if symbol is None else tokenizer.swallows.get(symbol, (False, False))
        before, after = number - 1, number + 1
        if left and before >= 0 and row_P[before] == row_P[number] and not parts.control_P[before]:
            kept = rows.text(start_P[before], end_P[before]).rstrip()
            end_P[before] = start_P[before] + len(kept.encode())
        if right and after < len(row_P) and row_P[after] == row_P[number] and not parts.control_P[after]:
            kept = rows.text(start_P[after], end_P[after]).lstrip()
            start_P[after] = end_P[after] - len(kept.encode())
    end_P = np.maximum(end_P, start_P)
    filled = end_P > start_P
    mixed = parts.mixed[filled[parts.mixed]]
    return Parts(start_P, end_P, parts.skip_P, parts.segment_P, parts.control_P, mixed)


def _distinct(rows: Rows, parts: Parts) -> tuple[pa.Array, I64]:
    """Return the distinct texts of the parts, and the number of each part's."""
    begin_P, size = parts.start_P + parts.skip_P, len(parts.start_P)
    gaps = bool(np.any(begin_P[1:] != parts.end_P[:-1])) if size else False
    if gaps:  # every second text is what lies between two parts
        offsets = np.stack([begin_P, np.maximum(parts.end_P, begin_P)], axis=1).reshape(-1)
    else:
        offsets = np.append(begin_P, parts.end_P[-1:])
    offsets = np.ascontiguousarray(offsets, dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(rows.data_B)]
    texts = pa.Array.from_buffers(pa.large_string(), max(len(offsets) - 1, 0), buffers)
    if gaps:
        texts = texts.take(pa.array(np.arange(0, len(offsets) - 1, 2)))
    encoded = texts.dictionary_encode()
    return encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)


def _segments(rows: Rows, parts: Parts, begin_T: I64, lengths: I64) -> I64:
    """Return the segment of each token of the mixed parts: that in which it begins."""
    place = np.repeat(parts.start_P[parts.mixed], lengths) + begin_T
    last = np.searchsorted(rows.ends_S, parts.end_P[parts.mixed] - 1, side="right")
    return np.minimum(np.searchsorted(rows.ends_S, place, side="right"), np.repeat(last, lengths))


def _offsets(rows: Rows, segment_P: I64, length_P: I64) -> I64:
    tokens_S = np.bincount(segment_P, weights=length_P, minlength=len(rows.ends_S)).astype(np.int64)
    offsets: I64 = np.concatenate([[0], np.cumsum(tokens_S)])[rows.first_R]
    return offsets


def _byte_places(text: str) -> I64:
    """Return the byte at which each character begins, and the end."""
    data = np.frombuffer(text.encode(), np.uint8)
    return np.append(np.flatnonzero((data & 0xC0) != 0x80), len(data))


# ----------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class _Table:
    """Lists of ids, one after another."""

    ids: I32
    lengths: I64

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> _Table:
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        ids = np.fromiter(itertools.chain.from_iterable(lists), np.int32, int(lengths.sum()))
        return cls(ids, lengths)

    @property
    def starts(self) -> I64:
        starts: I64 = np.cumsum(self.lengths) - self.lengths
        return starts

    def take(self, numbers: I64) -> _Table:
        lengths = self.lengths[numbers]
        return _Table(self.ids[ranges(self.starts[numbers], lengths)], lengths)

    def __add__(self, other: _Table) -> _Table:
        lengths = np.concatenate([self.lengths, other.lengths])
        return _Table(np.concatenate([self.ids, other.ids]), lengths)


def ranges(starts: I64, lengths: I64) -> I64:
    """Return starts[0], starts[0] + 1, ... lengths[0] numbers, then those from starts[1], and so on."""
    ends = np.cumsum(lengths)
    ranges: I64 = np.repeat(starts - (ends - lengths), lengths)
    ranges += np.arange(len(ranges))
    return ranges
