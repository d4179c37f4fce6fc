"""The prompts that are asked: found in the prompts table task by task, cut into chunks, read again where they are needed.

A chunk is what a worker answers at a time: consecutive prompts of one task. Its bounds depend on the prompts alone. No
more than a few tasks' prompts are held at a time. Reads `prompts/`; writes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill import seeding
from taskmill.artifact import Inputs
from taskmill.errors import DataError
from taskmill.evaluation.asking import fitting
from taskmill.evaluation.asking.rules import Rule
from taskmill.evaluation.metrics import registry
from taskmill.recipe_evaluate import Evaluate
from taskmill.records import LEVELS, SCHEMAS
from taskmill.storage import ROW_GROUP, RowsDigest, iter_batches, read_rows

COLUMNS = (
    "prompt",
    "example",
    "task",
    "level",
    "template",
    "text",
    "ends",
    "kinds",
    "trained",
    "joint",
    "format",
    "options",
    "references",
)
"""What is read of the prompts table."""
_ASKED = ("prompt", "text", "ends", "kinds", "trained", "joint", "format", "options")
"""What an answer depends on."""
_DIGESTED = pa.schema(
    [
        *(SCHEMAS["prompts/prompts"].field(name) for name in _ASKED),
        pa.field("ranked", pa.bool_(), nullable=False),
    ]
)
_CHUNK_PROMPTS = 256
_CHUNK_BYTES = 1 << 20

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where the prompts of a task are."""

    task: str
    path: Path
    rows: tuple[int, ...]
    """Numbers of rows in the file, ascending."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive prompts of a task, asked together."""

    place: Place
    digest: str
    """Over what the answers depend on, and over which prompts are ranked."""
    num_bytes: int
    """Of their texts."""
    num_ranked: int

    @property
    def num_prompts(self) -> int:
        """Prompts of the chunk."""
        return len(self.place.rows)


@dataclass(frozen=True)
class Survey:
    """What is to be asked of a task."""

    place: Place
    chunks: tuple[Chunk, ...]
    metrics: frozenset[str]
    """Of its prompts."""


def find_places(inputs: Inputs, evaluate: Evaluate, seed: int) -> Iterator[Place]:
    """Yield where the asked prompts of each task are, in the order of the prompts table.

    With `evaluate.max_examples` those of the examples with the smallest hashes; every variant of each.
    """
    names = ["example", "task", "split", "level"]
    for path in inputs.files("render", "prompts"):
        found: dict[str, list[tuple[int, str]]] = {}
        first = 0
        for batch in iter_batches(path, names):
            wanted = pc.and_(
                pc.equal(batch.column("split"), evaluate.split),
                pc.is_in(batch.column("level"), pa.array(LEVELS)),
            )
            numbers = pc.indices_nonzero(pc.fill_null(wanted, False))
            tasks, examples = (batch.column(name).take(numbers).to_pylist() for name in ("task", "example"))
            for number, task, example in zip(numbers.to_pylist(), tasks, examples):
                found.setdefault(task, []).append((first + number, example))
            first += batch.num_rows
        for task, pairs in found.items():
            yield Place(task, path, _limited(pairs, evaluate.max_examples, seed))


def _limited(pairs: Sequence[tuple[int, str]], most: int | None, seed: int) -> tuple[int, ...]:
    examples = sorted({example for _, example in pairs})
    if most is not None and len(examples) > most:
        kept = {examples[i] for i in seeding.smallest(most, seed, "evaluate.examples", examples)}
        pairs = [(row, example) for row, example in pairs if example in kept]
    return tuple(row for row, _ in pairs)


def read_prompts(place: Place) -> list[Row]:
    """Read prompts with COLUMNS.

    Raises:
        DamagedError: see storage.read_rows.
    """
    rows: list[Row] = _table(place).to_pylist()
    return rows


def _table(place: Place) -> pa.Table:
    status = place.path.stat() if place.path.is_file() else None
    state = (status.st_ino, status.st_mtime_ns, status.st_size) if status else (0, 0, 0)
    blocks: dict[int, list[int]] = {}
    for row in place.rows:
        blocks.setdefault(row // ROW_GROUP, []).append(row % ROW_GROUP)
    parts = [_block(place.path, state, number).take(rows) for number, rows in blocks.items()]
    return pa.concat_tables(parts).combine_chunks()


@functools.lru_cache(maxsize=2)
def _block(path: Path, state: tuple[int, ...], number: int) -> pa.Table:
    """Read many rows at once, for the tasks that are asked next; `state` tells files of one name apart."""
    rows = range(number * ROW_GROUP, (number + 1) * ROW_GROUP)
    return read_rows(path, rows).select(list(COLUMNS)).combine_chunks()


def survey(place: Place, rule: Rule) -> Survey:
    """Read a task's prompts and return what is to be asked.

    Raises:
        DamagedError: see storage.read_rows.
        DataError: a prompt without an answer.
    """
    table = _table(place)
    metrics, ranked = set(), []
    for number, row in enumerate(table.select(["options", "references"]).to_pylist()):
        if not row["references"]:
            row = table.slice(number, 1).to_pylist()[0]
        metrics.add(metric_of(rule, row))
        ranked.append(is_ranked(rule, row))
    sizes = pc.binary_length(table.column("text")).to_pylist()
    chunks = []
    for start, stop in _bounds(sizes):
        rows = RowsDigest(_DIGESTED)
        part = table.slice(start, stop - start).select(list(_ASKED))
        part = part.append_column("ranked", pa.array(ranked[start:stop])).combine_chunks()
        for batch in part.cast(_DIGESTED).to_batches():
            rows.update(batch)
        chunks.append(
            Chunk(
                Place(place.task, place.path, place.rows[start:stop]),
                rows.hexdigest(),
                sum(sizes[start:stop]),
                sum(ranked[start:stop]),
            )
        )
    return Survey(place, tuple(chunks), frozenset(metrics))


def _bounds(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of each chunk of prompts whose texts have these sizes, in bytes."""
    start = held = 0
    for place, size in enumerate(sizes):
        if place > start and (place - start >= _CHUNK_PROMPTS or held + size > _CHUNK_BYTES):
            yield start, place
            start, held = place, 0
        held += size
    if len(sizes) > start:
        yield start, len(sizes)


def question_of(row: Row, shots: int) -> fitting.Question:
    """Return a prompt split at its answer, with its first `shots` demonstrations.

    Raises:
        DataError: no segment is an answer.
    """
    columns = ("text", "ends", "kinds", "trained", "joint", "format")
    try:
        question = fitting.split_prompt(*(row[column] for column in columns))
    except DataError as error:
        raise error.with_hint(f"It is a prompt of the example {row.get('example')!r}") from error
    return fitting.keep_shots(question, shots)


def references_of(row: Row) -> list[str]:
    """Return a prompt's references: its own, else its answer as rendered."""
    return row["references"] or [question_of(row, 0).answer.strip()]


def correct_option(row: Row) -> int | None:
    """Return the index of the option that is a prompt's answer, or None."""
    return registry.answer_index(row["options"], references_of(row)) if row["options"] else None


def is_ranked(rule: Rule, row: Row) -> bool:
    """Return whether a prompt's options are ranked, rather than an answer generated."""
    return rule.ranks and correct_option(row) is not None


def metric_of(rule: Rule, row: Row) -> str:
    """Return the metric of a prompt.

    An entry's metric counts for every prompt of its tasks; else accuracy where the answer is among the options, and the
    task's own where it is not. Accuracy of what is no choice is exact match.
    """
    if rule.is_own_metric and rule.metric != "accuracy":
        return rule.metric
    return registry.metric_of(rule.metric, row["options"], references_of(row))
