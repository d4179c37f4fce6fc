"""All rows that a run reaches, encoded in threads, fitted and written in row order (no torch).

Reads the prompts table; writes the arrays of documents, `validation/` and `dropped.parquet`. Memory holds a few batches
and a few numbers for each row. The same bytes on any number of cores.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill.artifact import ShardWriter
from taskmill.recipe import Tokenize
from taskmill.records import SCHEMAS
from taskmill.storage import TableWriter
from taskmill.training.encoding.documents import DocumentWriter, Fitted, fit_rows
from taskmill.training.encoding.encoder import Encoder, Encodings
from taskmill.training.encoding.fitting import FitCounts
from taskmill.training.encoding.reading import TRAIN, Reached, reached
from taskmill.training.encoding.reuse import Sibling
from taskmill.training.encoding.rows import I64
from taskmill.training.encoding.tokenizer import TextTokenizer

_MOST_THREADS = 4
"""Batches that are encoded at a time; a few hundred megabytes each."""


def ids_dtype(tokenizer: TextTokenizer) -> str:
    """Return the type of ids on disk."""
    return "<u2" if tokenizer.vocab_size < 65_536 else "<u4"


@dataclass
class Written:
    """What was written: of each row that the mixture reaches, batch by batch, and in all."""

    num_pieces: list[I64] = field(default_factory=list)
    num_tokens: list[I64] = field(default_factory=list)
    num_targets: list[I64] = field(default_factory=list)
    num_documents: int = 0
    counts: FitCounts = field(default_factory=FitCounts)
    validation: dict[str, Any] = field(default_factory=dict)

    def of_rows(self, name: str) -> I64:
        """Return a figure of each row: int64[number of rows]."""
        found: I64 = np.concatenate([np.empty(0, np.int64), *getattr(self, name)])
        return found


def write_documents(
    shard: ShardWriter,
    tokenize: Tokenize,
    tokenizer: TextTokenizer,
    files: Sequence[Path],
    wanted: I64,
    sibling: Sibling | None = None,
) -> Written:
    """Encode, fit and write the rows that the mixture reaches and the validation prompts; `sibling` changes no byte.

    Raises:
        UsageError: a control segment that the tokenizer has no token for.
        DamagedError: a row of the prompts table cannot be read.
    """
    written, validation, levels = Written(), FitCounts(), list[NDArray[np.uint8]]()
    dtype = ids_dtype(tokenizer)
    with (
        DocumentWriter(shard, "", dtype) as train,
        DocumentWriter(shard, "validation/", dtype) as held,
        shard.table("dropped.parquet", SCHEMAS["tokens/dropped"]) as dropped,
    ):
        for part, encodings in encoded(tokenizer, reached(files, wanted), sibling):
            counts = [written.counts if level == TRAIN else validation for level in part.level_R]
            fitted = fit_rows(part, encodings, tokenize, counts)
            _tell_dropped(part, fitted, dropped, shard)
            for name, figures in zip(
                ("num_pieces", "num_tokens", "num_targets"), _add(train, part, fitted, part.level_R == TRAIN)
            ):
                getattr(written, name).append(figures)
            pieces = _add(held, part, fitted, part.level_R != TRAIN)[0]
            levels.append(np.repeat(part.level_R[part.level_R != TRAIN], pieces))
    if held.num_documents:
        shard.write_bytes("validation/levels.bin", np.concatenate(levels).tobytes())
    written.num_documents = train.num_documents
    sizes = {
        "num_documents": held.num_documents,
        "num_tokens": held.num_tokens,
        "num_trained": held.num_trained,
    }
    written.validation = {**sizes, **vars(validation)}
    return written


def encoded(
    tokenizer: TextTokenizer, parts: Iterator[Reached], sibling: Sibling | None = None
) -> Iterator[tuple[Reached, Encodings]]:
    """Encode batches in threads, a few at a time, and yield them in order; what `sibling` holds is copied."""
    encoder, num_threads = Encoder(tokenizer), min(os.cpu_count() or 1, _MOST_THREADS)
    waiting: deque[tuple[Reached, Future[Encodings]]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        for part in parts:
            if sibling is None:
                waiting.append((part, pool.submit(encoder.encode, part.rows)))
            else:
                waiting.append((part, pool.submit(sibling.encode, encoder, part)))
            if len(waiting) > num_threads:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _add(
    writer: DocumentWriter, part: Reached, fitted: Fitted, chosen: NDArray[np.bool_]
) -> tuple[I64, I64, I64]:
    """Write the documents of chosen rows; returns how many documents, tokens and targets each of these rows has."""
    rows = np.flatnonzero(chosen)
    documents = fitted.documents(rows)
    row_D = documents.row_D
    targets_D = writer.add(documents, part.number_R[row_D], part.loss_weight_R[row_D])
    pieces, tokens, targets = (
        np.bincount(row_D, weights=figures, minlength=len(chosen))[rows].astype(np.int64)
        for figures in (None, documents.length_D, targets_D)
    )
    return pieces, tokens, targets


def _tell_dropped(part: Reached, fitted: Fitted, table: TableWriter, shard: ShardWriter) -> None:
    """Write which rows have no token that carries loss."""
    for row in sorted(row for row, pieces in fitted.pieces.items() if not pieces):
        is_train = part.level_R[row] == TRAIN
        detail = "no token carries loss; " + (
            "its positions stay empty" if is_train else "it is not measured"
        )
        names = {"stage": "tokenize", **part.names(row), "reason": "no_trained_token", "detail": detail}
        table.append({name: names.get(name) for name in SCHEMAS["tokens/dropped"].names})
        shard.drop("no_trained_token")
