"""The prompts that a run reaches, batch by batch: what the mixture draws, and the validation prompts (no torch).

Reads the files of the prompts table in order; holds one batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from taskmill.records import LEVELS
from taskmill.storage import iter_batches
from taskmill.training.encoding.rows import COLUMNS, I64, Rows

NAMES = ("task", "example", "template", "format")
"""Columns that say which prompt a row is."""
TRAIN = 255
"""Level of a row that is drawn for training."""
_BYTES = 8 << 20
"""Most UTF-8 of texts in a batch of more than one row."""


@dataclass(frozen=True)
class Reached:
    """Some rows of the prompts table that the run reaches, in order."""

    rows: Rows
    number_R: I64
    """Their numbers over all files."""
    level_R: NDArray[np.uint8]
    """Code of a validation prompt's level (its place in `records.LEVELS`), else `TRAIN`."""
    loss_weight_R: NDArray[np.float32]
    table: pa.RecordBatch
    """The same rows of the table: `rows.COLUMNS`, `NAMES` and others."""

    def names(self, row: int) -> dict[str, Any]:
        """Return which prompt a row is."""
        return {name: self.table.column(name)[row].as_py() for name in NAMES}


def reached(files: Sequence[Path], wanted: I64, validation: bool = True) -> Iterator[Reached]:
    """Yield the wanted rows, ascending numbers over all files, and where asked for the validation prompts with a level.

    Raises:
        DamagedError: a file cannot be read, or segments do not cover their text.
    """
    first = 0
    for path in files:
        for batch in iter_batches(path, [*COLUMNS, "loss_weight", "split", "level", *NAMES]):
            level_R = np.full(batch.num_rows, TRAIN, dtype=np.uint8)
            part = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, first + batch.num_rows)]
            is_reached = np.zeros(batch.num_rows, dtype=np.bool_)
            is_reached[part - first] = True
            if validation:
                codes = pc.fill_null(pc.index_in(batch.column("level"), pa.array(LEVELS)), TRAIN)
                is_validation = pc.equal(batch.column("split"), "validation").to_numpy(zero_copy_only=False)
                level_R[is_validation] = codes.to_numpy()[is_validation]
                is_reached |= level_R != TRAIN
            yield from _cut(batch, np.flatnonzero(is_reached), level_R, first)
            first += batch.num_rows


def _cut(batch: pa.RecordBatch, places: I64, level_R: NDArray[np.uint8], first: int) -> Iterator[Reached]:
    """Yield rows of a batch in batches of limited text."""
    sizes = pc.binary_length(batch.column("text")).to_numpy()[places]
    for group in np.split(places, np.flatnonzero(np.diff(np.cumsum(sizes, dtype=np.int64) // _BYTES)) + 1):
        if len(group):
            taken = batch.take(pa.array(group))
            yield Reached(
                Rows.of_batch(taken),
                group + first,
                level_R[group],
                taken.column("loss_weight").to_numpy(),
                taken,
            )
