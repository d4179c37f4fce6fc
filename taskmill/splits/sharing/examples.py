"""The examples of a run as arrays, and their texts, read batch by batch.

Reads tasks/examples and the assignment; writes nothing. An example is called by its number, its place in the assignment.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.errors import DamagedError
from taskmill.leaves import sides_reader
from taskmill.splits.sharing.sides import INPUT, OUTPUT, outputs, parse_fields
from taskmill.text import short_key

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

COLUMNS = ("example", "task", "fields", "references", "options", "content", "normalised")
EMPTY = short_key([])
"""The `normalised` of examples without any word, which are equal to nothing."""
TRAIN_TEXT, EVALUATION_TEXT = 1, 2


@dataclass(frozen=True)
class Catalogue:
    """All examples of a run as arrays; an example's number is its place in the assignment, sorted by (task, id)."""

    tasks: Sequence[str]
    """Sorted; a task's number is its place here."""
    output_fields: Sequence[Sequence[str]]
    first: I64
    """int64[num_tasks + 1]: task t has the examples first[t] .. first[t + 1] - 1."""
    ids: pa.Array
    group: U64
    side: U8
    """uint8[num_examples]: TRAIN_TEXT, EVALUATION_TEXT, or 0 for neither."""

    @property
    def num_eval(self) -> I64:
        """Evaluation examples per task: int64[num_tasks]."""
        sums: I64 = np.append(0, np.cumsum(self.side == EVALUATION_TEXT))
        return sums[self.first[1:]] - sums[self.first[:-1]]

    def task_of(self, examples: I64) -> I64:
        """Return the task number of each example number."""
        numbers: I64 = np.searchsorted(self.first, examples, side="right") - 1
        return numbers


def text_sides(splits: npt.ArrayLike, roles: npt.ArrayLike) -> U8:
    """Return the side of each example from its split and the role of its task: uint8[n].

    Train text: `train` rows, and demonstrations wherever their task trains. Evaluation text: `test` rows, and the
    validation rows of tasks that are evaluated.
    """
    split, role = np.asarray(splits, dtype="U16"), np.asarray(roles, dtype="U16")
    trains, evaluated = np.isin(role, ("train", "both")), np.isin(role, ("eval", "both"))
    train = (split == "train") | ((split == "demonstration") & trains)
    evaluation = (split == "test") | ((split == "validation") & evaluated)
    return np.where(train, TRAIN_TEXT, np.where(evaluation, EVALUATION_TEXT, 0)).astype(np.uint8)


@dataclass
class Examples:
    """Some examples, in order of their numbers where they are those of one task or were `joined`."""

    number: I64
    texts: list[str]
    """The texts of all examples end to end: the input's, then the output's, of each."""
    first: I64
    """int64[n + 1]: example i has the texts first[i] .. first[i + 1] - 1."""
    first_output: I64
    """int64[n]: the first text of its output."""
    references: list[list[str]]
    content: U8
    """uint8[n, 32]"""
    normalised: list[bytes]

    def output_keys(self, i: int) -> set[int]:
        """Return the keys by which the output of example i is compared."""
        return outputs(self.references[i], "\n".join(self.texts[self.first_output[i] : self.first[i + 1]]))

    def owners(self) -> I64:
        """Return the example (its place here) of every text: int64[num_texts]."""
        return np.repeat(np.arange(len(self.number)), np.diff(self.first))

    def side(self, texts: I64, owner: I64) -> U8:
        """Return INPUT or OUTPUT for each text, whose example is beside it."""
        return np.where(texts >= self.first_output[owner], OUTPUT, INPUT).astype(np.uint8)

    def take(self, places: Sequence[int]) -> Examples:
        """Return the examples at some places, in that order."""
        rows = np.asarray(places, np.int64)
        sizes, outputs_at = np.diff(self.first)[rows], (self.first_output - self.first[:-1])[rows]
        first, bounds = np.append(0, np.cumsum(sizes)), self.first.tolist()
        return Examples(
            self.number[rows],
            [t for i in places for t in self.texts[bounds[i] : bounds[i + 1]]],
            first,
            first[:-1] + outputs_at,
            [self.references[i] for i in places],
            self.content[rows],
            [self.normalised[i] for i in places],
        )


# ------------------------------------------------------------------------------------------- reading


def numbered(catalogue: Catalogue, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[I64, pa.RecordBatch]]:
    """Yield (number of each row, batch).

    Raises:
        DamagedError: a row is not where the assignment has it.
    """
    seen = np.zeros(len(catalogue.tasks), np.int64)
    names = pa.array(catalogue.tasks, pa.string())
    for batch in batches:
        tasks = pc.index_in(batch.column("task"), value_set=names).to_numpy(zero_copy_only=False)
        numbers = np.empty(batch.num_rows, np.int64)
        for task in np.unique(tasks).astype(np.int64):
            rows = np.flatnonzero(tasks == task)
            numbers[rows] = catalogue.first[task] + seen[task] + np.arange(len(rows))
            seen[task] += len(rows)
        if not catalogue.ids.take(pa.array(numbers)).equals(batch.column("example")):
            raise DamagedError(
                "tasks/examples is not sorted by (task, example) as its manifest says; "
                "run `taskmill curate RECIPE --force`"
            )
        yield numbers, batch


def decode(catalogue: Catalogue, numbers: I64, batch: pa.RecordBatch, wanted: Bools) -> Examples:
    """Read the examples of a batch that are wanted.

    Args:
        catalogue: for the output fields of each task.
        numbers: int64[num_rows]: of the rows of the batch.
        batch: with the columns fields, references, options, content and normalised.
        wanted: bool[num_rows].
    """
    part = batch if wanted.all() else batch.filter(pa.array(wanted))
    number = numbers[wanted]
    with _no_collection():
        references = _lists(part.column("references"))
        texts, first, first_output = _texts(catalogue, number, part, references)
    bounds = np.array(first, np.int64), np.array(first_output, np.int64)
    content = _digests(part.column("content"))
    return Examples(number, texts, *bounds, references, content, part.column("normalised").to_pylist())


def _texts(
    catalogue: Catalogue, number: I64, part: pa.RecordBatch, references: list[list[str]]
) -> tuple[list[str], list[int], list[int]]:
    """Return the texts of examples, and where each example and its output begins; see `Examples`."""
    texts, first, first_output = list[str](), [0], list[int]()
    readers = dict[int, Callable[[Any], tuple[list[str], list[str]]]]()
    for task, fields, answers, options in zip(
        catalogue.task_of(number).tolist(),
        parse_fields(part.column("fields")),
        references,
        _lists(part.column("options")),
    ):
        if task not in readers:
            readers[task] = sides_reader(catalogue.output_fields[task])
        inputs, annotated = readers[task](fields)
        texts += inputs
        texts += options
        first_output.append(len(texts))
        texts += answers
        texts += annotated
        first.append(len(texts))
    return texts, first, first_output


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hold the garbage collector back: it would look again and again at lists that are all still needed."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _digests(column: pa.FixedSizeBinaryArray) -> U8:
    """Return a column of digests as uint8[num_rows, size]."""
    size, buffer = column.type.byte_width, column.buffers()[1]
    data = np.frombuffer(buffer, np.uint8) if buffer else np.empty(0, np.uint8)
    return data[column.offset * size : (column.offset + len(column)) * size].reshape(-1, size)


def _lists(column: pa.ListArray) -> list[list[str]]:
    """Return the lists of a column, in less time than `to_pylist`; a null is an empty list."""
    values = column.flatten().to_pylist()
    ends = np.cumsum(pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)).tolist()
    return [values[low:high] for low, high in zip([0, *ends], ends)]


def read_examples(
    catalogue: Catalogue, batches: Iterable[pa.RecordBatch], wanted: Bools
) -> Iterator[Examples]:
    """Yield the wanted examples (bool[num_examples], by number), batch by batch.

    Raises:
        DamagedError: see `numbered`.
    """
    for numbers, batch in numbered(catalogue, batches):
        rows = wanted[numbers]
        if rows.any():
            yield decode(catalogue, numbers, batch, rows)


def read_side(catalogue: Catalogue, batches: Iterable[pa.RecordBatch], side: int) -> Iterator[Examples]:
    """Yield the examples of one side, batch by batch.

    Raises:
        DamagedError: see `numbered`.
    """
    return read_examples(catalogue, batches, catalogue.side == side)


def joined(parts: Sequence[Examples]) -> Examples:
    """Return the examples of all parts, sorted by number."""
    shifts = np.append(0, np.cumsum([len(p.texts) for p in parts], dtype=np.int64)).astype(np.int64)
    whole = Examples(
        concat([p.number for p in parts]),
        [t for p in parts for t in p.texts],
        np.append(concat([p.first[:-1] + shift for p, shift in zip(parts, shifts)]), shifts[-1]),
        concat([p.first_output + shift for p, shift in zip(parts, shifts)]),
        [r for p in parts for r in p.references],
        np.concatenate([np.empty((0, 32), np.uint8), *(p.content for p in parts)]),
        [k for p in parts for k in p.normalised],
    )
    order = np.argsort(whole.number, kind="stable")
    return whole if (np.diff(order) > 0).all() else whole.take(order.tolist())


def concat(parts: Sequence[Any]) -> I64:
    """Return arrays end to end as int64; of none, an empty one."""
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64, copy=False)
