"""Encoded prompts fitted to the context, and written as documents one after another (no torch).

Writes `ids.bin` (u16 under 65,536 ids, else u32), `trained.bin` (u8), `offsets.bin` (i64[n + 1]), `rows.bin` (i64[n],
prompt row of each document), `loss_weight.bin` (f32[n]) and `whole.bin` (u8[n], 0 where it was cut) of a folder, batch
by batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from taskmill.artifact import ShardWriter
from taskmill.recipe import Tokenize
from taskmill.storage import AtomicFile
from taskmill.training.encoding.encoder import Encodings, ranges
from taskmill.training.encoding.fitting import TK_INSTRUCT, FitCounts, fit, tk_instruct_examples
from taskmill.training.encoding.reading import Reached
from taskmill.training.encoding.rows import BOOL, I32, I64, Encoded


@dataclass(frozen=True)
class Documents:
    """Documents of some rows, in row order."""

    ids_T: I32
    trained_T: BOOL
    length_D: I64
    row_D: I64
    """Place of the document's row among the rows."""
    whole_D: BOOL
    """Whether it is its prompt with nothing cut."""


@dataclass
class Fitted:
    """Rows fitted to the context: whole ones as they are, the others as pieces, which may be none."""

    encodings: Encodings
    pieces: dict[int, list[Encoded]]
    """The pieces of each row that is not whole."""

    def documents(self, rows: I64) -> Documents:
        """Return the documents of some rows, ascending."""
        offsets, lengths = self.encodings.offsets_R, np.diff(self.encodings.offsets_R)
        found: list[tuple[Any, Any, Any, Any]] = []
        is_cut = np.isin(rows, np.fromiter(self.pieces, np.int64, len(self.pieces)))
        for group in np.split(rows, np.flatnonzero(is_cut[1:] | is_cut[:-1]) + 1):
            if not len(group):
                continue
            pieces = self.pieces.get(int(group[0]))
            if pieces is None:
                places = ranges(offsets[group], lengths[group])
                found.append(
                    (self.encodings.ids_T[places], self.encodings.trained_T[places], lengths[group], group)
                )
            for piece in pieces or ():
                found.append((piece.ids, piece.trained, [len(piece.ids)], group))
        none = [(np.empty(0, np.int32), np.empty(0, np.bool_), np.empty(0, np.int64), np.empty(0, np.int64))]
        ids, trained, length, row = (np.concatenate(arrays) for arrays in zip(*(none + found)))
        return Documents(ids, trained, length, row, ~np.isin(row, rows[is_cut]))


def fit_rows(
    reached: Reached, encodings: Encodings, tokenize: Tokenize, counts_of: Sequence[FitCounts]
) -> Fitted:
    """Fit rows to the context.

    Args:
        reached: the rows.
        encodings: their tokens.
        tokenize: the recipe's section.
        counts_of: for each row where what is cut is counted.
    """
    offsets = encodings.offsets_R
    before = np.concatenate([[0], np.cumsum(encodings.trained_T)])
    num_targets = before[offsets[1:]] - before[np.minimum(offsets[:-1] + 1, offsets[1:])]
    is_whole = (num_targets > 0) & (np.diff(offsets) <= tokenize.max_length)
    pieces: dict[int, list[Encoded]] = {}
    for row in np.flatnonzero(~is_whole).tolist():
        part = slice(int(reached.rows.first_R[row]), int(reached.rows.first_R[row + 1]))
        examples = None
        if reached.table.column("format")[row].as_py() == TK_INSTRUCT:
            examples = tk_instruct_examples(reached.rows.prompt(row))
        pieces[row] = fit(
            encodings.row(row),
            reached.rows.kinds_S[part].tolist(),
            tokenize.max_length,
            counts_of[row],
            examples,
            tokenize.conversations == "split",
        )
    return Fitted(encodings, pieces)


@dataclass
class DocumentWriter:
    """Writes documents to a folder of a shard; use as `with`. A folder without any is not made."""

    shard: ShardWriter
    folder: str
    """Empty, or with a slash at its end."""
    dtype: str
    num_tokens: int = 0
    num_trained: int = 0
    """Targets: tokens that carry loss and are not the first of their document."""
    _lengths: list[I64] = field(default_factory=list)
    _rows: list[I64] = field(default_factory=list)
    _weights: list[NDArray[np.float32]] = field(default_factory=list)
    _whole: list[BOOL] = field(default_factory=list)
    _files: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _ids: AtomicFile | None = None
    _trained: AtomicFile | None = None

    def __enter__(self) -> Self:
        return self

    def add(self, documents: Documents, row_D: I64, weight_D: NDArray[np.float32]) -> I64:
        """Write documents; returns how many targets each has.

        Args:
            documents: what to write.
            row_D: the prompt row of each.
            weight_D: the loss weight of each.
        """
        if not len(row_D):
            return np.empty(0, np.int64)
        if self._ids is None or self._trained is None:
            path = self.shard.directory / self.folder
            self._ids = self._files.enter_context(AtomicFile(path / "ids.bin"))
            self._trained = self._files.enter_context(AtomicFile(path / "trained.bin"))
        self._ids.write(documents.ids_T.astype(self.dtype).tobytes())
        self._trained.write(documents.trained_T.astype(np.uint8).tobytes())
        is_target = documents.trained_T.copy()
        ends = np.cumsum(documents.length_D)
        is_target[ends - documents.length_D] = False
        targets_D = np.add.reduceat(is_target.astype(np.int64), ends - documents.length_D)
        self.num_tokens += len(documents.ids_T)
        self.num_trained += int(targets_D.sum())
        self._lengths.append(documents.length_D)
        self._rows.append(row_D)
        self._weights.append(weight_D)
        self._whole.append(documents.whole_D)
        return targets_D

    @property
    def num_documents(self) -> int:
        """Documents written so far."""
        return sum(map(len, self._lengths))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)
        if kind is not None or not self._lengths:
            return
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))])
        for name, array in (
            ("offsets", offsets.astype("<i8")),
            ("rows", np.concatenate(self._rows).astype("<i8")),
            ("loss_weight", np.concatenate(self._weights).astype("<f4")),
            ("whole", np.concatenate(self._whole).astype(np.uint8)),
        ):
            self.shard.write_bytes(f"{self.folder}{name}.bin", array.tobytes())
        for name in ("ids", "trained"):
            self.shard.add_file(f"{self.folder}{name}.bin")
