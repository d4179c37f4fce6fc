"""Prompts as flat arrays: the bytes of their texts one after another, and where their segments end (no torch).

Suffixes of arrays: B bytes, S segments, R rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from taskmill.errors import DamagedError
from taskmill.records import SEGMENT_KINDS

CONTROL = SEGMENT_KINDS.index("control")
PIECES = frozenset(SEGMENT_KINDS.index(kind) for kind in ("instruction", "demonstration", "input"))
"""Segments that make one text with their neighbours of these kinds."""
COLUMNS = ("text", "ends", "kinds", "trained", "joint")
"""Columns of the prompts table that are encoded."""

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
BOOL = NDArray[np.bool_]


@dataclass(frozen=True)
class Prompt:
    """A prompt's text and segments, as in a row of the prompts table."""

    text: str
    ends: Sequence[int]
    """Where each segment ends, in UTF-8 bytes."""
    kinds: Sequence[int]
    """Codes of records.SEGMENT_KINDS."""
    trained: Sequence[bool]
    joint: bool = True
    """Whether the text between control segments is encoded as a whole, or segment by segment."""


@dataclass(frozen=True)
class Encoded:
    """The tokens of a prompt."""

    ids: I32
    """int32[n]."""
    trained: BOOL
    """bool[n]: whether the token carries loss."""
    segment: I32
    """int32[n]: the segment in which the token starts."""


@dataclass(frozen=True)
class Rows:
    """Some prompts."""

    data_B: NDArray[np.uint8]
    """UTF-8 of all texts, one after another."""
    first_R: I64
    """int64[R + 1]: segments of row r are first_R[r] .. first_R[r + 1] - 1."""
    ends_S: I64
    """int64[S]: where each segment ends in `data_B`; it begins where the one before ends."""
    kinds_S: NDArray[np.int8]
    trained_S: BOOL
    joint_R: BOOL

    @classmethod
    def of_batch(cls, batch: pa.RecordBatch) -> Rows:
        """Take rows of the prompts table with `COLUMNS`.

        Raises:
            DamagedError: segments do not cover their text.
        """
        texts = batch.column("text")
        offsets = np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1, 4 * texts.offset)
        data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
        lists = {name: batch.column(name) for name in ("ends", "kinds", "trained")}
        first = lists["ends"].offsets.to_numpy().astype(np.int64)
        flat = {name: column.flatten().to_numpy(zero_copy_only=False) for name, column in lists.items()}
        starts_R = offsets.astype(np.int64) - offsets[0]
        return cls(
            data,
            first - first[0],
            flat["ends"].astype(np.int64) + np.repeat(starts_R[:-1], np.diff(first)),
            flat["kinds"],
            flat["trained"],
            batch.column("joint").to_numpy(zero_copy_only=False),
        )._checked(starts_R)

    @classmethod
    def of_prompts(cls, prompts: Sequence[Prompt]) -> Rows:
        """Take prompts one by one.

        Raises:
            DamagedError: segments do not cover their text.
        """
        raw = [prompt.text.encode() for prompt in prompts]
        starts_R = np.cumsum([0, *map(len, raw)], dtype=np.int64)
        counts = [len(prompt.ends) for prompt in prompts]
        ends = np.array([end for prompt in prompts for end in prompt.ends], dtype=np.int64)
        return cls(
            np.frombuffer(b"".join(raw), np.uint8),
            np.cumsum([0, *counts], dtype=np.int64),
            ends + np.repeat(starts_R[:-1], counts),
            np.array([kind for prompt in prompts for kind in prompt.kinds], dtype=np.int8),
            np.array([flag for prompt in prompts for flag in prompt.trained], dtype=np.bool_),
            np.array([prompt.joint for prompt in prompts], dtype=np.bool_),
        )._checked(starts_R)

    def _checked(self, starts_R: I64) -> Rows:
        filled = np.flatnonzero(np.diff(self.first_R))
        last = self.ends_S[self.first_R[1:][filled] - 1]
        if np.any(np.diff(self.ends_S, prepend=0) < 0) or np.any(last != starts_R[1:][filled]):
            raise DamagedError(
                "the segments of a prompt do not end where its text does; render again with --force"
            )
        return self

    @property
    def num_rows(self) -> int:
        """How many prompts there are."""
        return len(self.joint_R)

    @cached_property
    def starts_S(self) -> I64:
        """Where each segment begins in `data_B`."""
        starts: I64 = np.concatenate([[0], self.ends_S[:-1]]).astype(np.int64)[: len(self.ends_S)]
        return starts

    @cached_property
    def row_S(self) -> I64:
        """The row of each segment."""
        return np.repeat(np.arange(self.num_rows, dtype=np.int64), np.diff(self.first_R))

    @cached_property
    def control_S(self) -> BOOL:
        """Whether a segment becomes a special token."""
        return np.asarray(self.kinds_S == CONTROL)

    @cached_property
    def border_S(self) -> BOOL:
        """Whether what is encoded as a whole ends before a segment."""
        piece: BOOL = np.isin(self.kinds_S, list(PIECES))
        glued: BOOL = self.joint_R[self.row_S] | (piece & np.roll(piece, 1))
        border: BOOL = np.asarray(self.control_S | np.roll(self.control_S, 1) | ~glued)
        border[self.first_R[:-1][np.diff(self.first_R) > 0]] = True
        return border

    def text(self, start: int, stop: int) -> str:
        """Return the text between two places of `data_B`."""
        return bytes(self.data_B[start:stop]).decode()

    @cached_property
    def texts_S(self) -> pa.Array:
        """The text of each segment."""
        offsets = np.concatenate([[0], self.ends_S]).astype(np.int64)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(self.data_B)]
        return pa.Array.from_buffers(pa.large_string(), len(self.ends_S), buffers)

    def controls(self) -> set[str]:
        """Return the texts of control segments."""
        return set(self.texts_S.filter(pa.array(self.control_S)).unique().to_pylist())

    def whole_texts(self) -> Iterator[str]:
        """Yield the texts that are encoded as a whole, what a tokenizer is trained on."""
        start = stop = 0
        for begin, end, border, control in zip(
            self.starts_S.tolist(), self.ends_S.tolist(), self.border_S.tolist(), self.control_S.tolist()
        ):
            if border and start < stop:
                yield self.text(start, stop)
            if border:
                start = begin
            stop = end
            if control:
                start = stop
        if start < stop:
            yield self.text(start, stop)

    def prompt(self, row: int) -> Prompt:
        """Return one row."""
        part = slice(int(self.first_R[row]), int(self.first_R[row + 1]))
        start = int(self.starts_S[part.start]) if part.start < part.stop else 0
        ends = self.ends_S[part]
        text = self.text(start, int(ends[-1])) if len(ends) else ""
        return Prompt(
            text,
            (ends - start).tolist(),
            self.kinds_S[part].tolist(),
            self.trained_S[part].tolist(),
            bool(self.joint_R[row]),
        )
