"""The train rows of a run: where the prompts of each task and condition stand. Reads prompts, writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from taskmill.errors import TaskmillError
from taskmill.storage import iter_batches

I64 = NDArray[np.int64]


@dataclass
class TrainRows:
    """Train rows of one (task, condition): consecutive, by ascending hash of the prompt."""

    task: str
    condition: str | None
    first_row: int
    """Row number over all prompts files in name order."""
    num: int = 0
    num_bytes: int = 0
    """Of rendered text, in UTF-8."""


def train_rows(files: Sequence[Path]) -> list[TrainRows]:
    """Find the train rows of every (task, condition) in the prompts files, by task and condition.

    Raises:
        TaskmillError: they are not consecutive (the prompts were not written by render).
    """
    found: dict[tuple[str, str | None], TrainRows] = {}
    first = 0
    for path in files:
        for batch in iter_batches(path, ["task", "split", "condition", "ends"]):
            for start, stop in _stretches(batch):
                key = (batch["task"][start].as_py(), batch["condition"][start].as_py())
                rows = found.setdefault(key, TrainRows(*key, first_row=first + start))
                if rows.first_row + rows.num != first + start:
                    raise TaskmillError(
                        f"{path}: train prompts of {key[0]} are not consecutive; render again with --force"
                    )
                rows.num += stop - start
                rows.num_bytes += int(_text_sizes(batch["ends"].slice(start, stop - start)).sum())
            first += batch.num_rows
    return [found[key] for key in sorted(found, key=lambda k: (k[0], k[1] or ""))]


def _stretches(batch: pa.RecordBatch) -> list[tuple[int, int]]:
    """Return (start, stop) of consecutive train rows of one task and condition."""
    train = pc.equal(batch["split"], "train").to_numpy(zero_copy_only=False)
    code = np.where(train, 1 + _codes(batch["task"]) * (batch.num_rows + 2) + _codes(batch["condition"]), 0)
    starts = np.flatnonzero(np.diff(code, prepend=-1))
    stops = np.append(starts[1:], len(code))
    return [(int(a), int(b)) for a, b in zip(starts, stops) if code[a]]


def _codes(column: pa.Array) -> I64:
    """Return a number from 0 on for each distinct value, null too: int64[n]."""
    codes = pc.fill_null(column.dictionary_encode().indices, -1).to_numpy(zero_copy_only=False)
    numbers: I64 = codes.astype(np.int64) + 1
    return numbers


def _text_sizes(ends: pa.ListArray) -> I64:
    """Return the bytes of each text, where its last segment ends: int64[n]."""
    values = ends.values.to_numpy(zero_copy_only=False)
    offsets = ends.offsets.to_numpy(zero_copy_only=False)
    sizes = np.zeros(len(ends), dtype=np.int64)
    filled = offsets[1:] > offsets[:-1]
    sizes[filled] = values[offsets[1:][filled] - 1]
    return sizes
