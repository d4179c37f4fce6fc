"""Prompts in the order of the mixture: each distinct one is read once, in row order, and copied to its positions.

Reads prompts and mixture; what is read lies in an unnamed file meanwhile, so memory holds some 50 bytes a position.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from taskmill.commands.finished import FinishedRun, Row
from taskmill.errors import StaleError, StorageError
from taskmill.runs import check_inputs
from taskmill.storage import iter_batches, read_json
from taskmill.training.mixing.draws import Mixture

_BATCH = 2_000
_CHUNK = 10_000

I64 = NDArray[np.int64]


def open_mixture(found: FinishedRun) -> tuple[Mixture, int]:
    """Return a run's mixture and how many positions of it the run reaches.

    Raises:
        UsageError: the stages render and mix are not finished.
        StaleError: the mixture was made of other prompts.
        DamagedError: mixture.json does not hold the bytes that were written.
    """
    found.require("render")
    found.require("mix")
    read = {item["table"]: item["rows"] for item in found.manifests["mix"].body["inputs"]}
    if read.get("prompts") != found.manifests["render"].rows("prompts"):
        raise StaleError(
            f"the mixture of {found.run} was made of other prompts: run `{found.command('mix')}` first"
        )
    check_inputs(found.inputs, [("mix", "mixture.json")])
    directory = found.inputs.directory("mix")
    return Mixture.open(directory), read_json(directory / "mixture.json")["num_prompts"]


def read_prompts(
    files: Sequence[Path],
    columns: Sequence[str],
    splits: tuple[str, ...] | None = None,
    wanted: I64 | None = None,
) -> Iterator[tuple[Row, int]]:
    """Yield (row, its number) of the prompts of some splits, or of wanted numbers, ascending."""
    first = 0
    for path in files:
        for batch in iter_batches(path, columns, _BATCH):
            if wanted is not None:
                low, high = np.searchsorted(wanted, [first, first + batch.num_rows]).tolist()
                places = wanted[low:high] - first
            else:
                fits = pc.is_in(batch.column("split"), value_set=pa.array(splits))
                places = np.flatnonzero(fits.to_numpy(zero_copy_only=False))
            if len(places):
                rows = batch.take(pa.array(places)).to_pylist()
                yield from zip(rows, (places + first).tolist(), strict=True)
            first += batch.num_rows


class Spool:
    """Items of bytes in an unnamed file, written one after another and read in any order; for `with`.

    Raises:
        StorageError: the disk is full, read-only or failing.
    """

    def __init__(self, num: int, folder: Path | None = None) -> None:
        """Prepare for `num` items; by default the file lies in the system's folder for temporary ones."""
        self._folder, self._num = folder, 0
        self._offsets = np.zeros(num + 1, dtype=np.int64)
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        except OSError as error:
            raise self._failed(error) from error

    def append(self, item: bytes) -> None:
        """Add the next item."""
        try:
            self._file.write(item)
        except OSError as error:
            raise self._failed(error) from error
        self._num += 1
        self._offsets[self._num] = self._offsets[self._num - 1] + len(item)

    def read(self, place: int) -> bytes:
        """Return an item; reads come behind all writes."""
        start, stop = self._offsets[place : place + 2].tolist()
        try:
            self._file.seek(start)
            return self._file.read(stop - start)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StorageError:
        where = self._folder or tempfile.gettempdir()
        return StorageError(f"cannot write below {where}: {error.strerror or error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()  # writes what is still buffered
        except OSError as failure:
            if kind is None:
                raise self._failed(failure) from failure


def prompts_in_order(
    found: FinishedRun, row_P: I64, columns: Sequence[str], folder: Path | None = None
) -> Iterator[Row]:
    """Yield the prompt of each position with some columns, bytes as hex.

    Args:
        found: the run.
        row_P: prompt row of each position: int64[positions].
        columns: of the prompts table.
        folder: where the unnamed file lies.

    Raises:
        StorageError: the disk is full.
        DamagedError: a file of prompts is.
    """
    wanted, place_P = np.unique(row_P, return_inverse=True)
    with Spool(len(wanted), folder) as spool:
        for row, _ in read_prompts(found.inputs.files("render", "prompts"), columns, wanted=wanted):
            spool.append(json.dumps(_plain(row), ensure_ascii=False, separators=(",", ":")).encode())
        for place in integers(place_P):
            yield json.loads(spool.read(place))


def integers(array: I64) -> Iterator[int]:
    """Yield the items of an array, without a list of all of them."""
    for first in range(0, len(array), _CHUNK):
        yield from array[first : first + _CHUNK].tolist()


def _plain(row: Row) -> dict[str, Any]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in row.items()}
