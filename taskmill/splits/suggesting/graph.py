"""The leak graph: which tasks of a catalogue share a data set, text or near-duplicate examples, all against all.

Reads curate's `tasks` and `examples`, and overlap's `near_duplicates` where it is there; writes nothing. Sides and splits
play no part: the graph says what a task would leak into which other, whatever the plan makes of the two.

An example of one task is *touched* by another task when it shares a gram (n words inside one text) with one of that
task's examples. An example whose texts all have fewer than n words is compared whole: all examples with its words hold
its "whole" like a gram. A gram in more groups than `overlap.frequent_groups` is frequent; a whole never is.

Equal grams are equal hashes of 96 bits (`graph_text`). Evidence on which something is dropped comes from the stage
overlap, which confirms every gram on its words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.recipe import Overlap
from taskmill.splits.suggesting.graph_text import COLUMNS as COLUMNS
from taskmill.splits.suggesting.graph_text import (
    I64,
    ODD,
    Bools,
    CatalogueText,
    distinct,
    equal_examples,
    frequent_grams,
    read_text,
    run_starts,
    shared_grams,
    shared_wholes,
    with_outputs,
)
from taskmill.text import ranges

TASK_COLUMNS = ("task", "dataset", "output_fields")
EXPANDED_AT_ONCE = 1 << 24
"""Rows that one step of counting expands to; bounds the working memory."""


@dataclass(frozen=True)
class LeakGraph:
    """What each pair of tasks shares: one row per unordered pair that shares anything, sorted; arrays of one length p."""

    tasks: Sequence[str]
    """Sorted; a task's number is its place here."""
    num_examples: I64
    """int64[num_tasks]"""
    first: I64
    second: I64
    """int64[p]: numbers of the two tasks, first < second."""
    same_dataset: Bools
    touched: I64
    """int64[p, 2]: examples of the first task touched by the second, and the other way round."""
    touched_rare: I64
    """The same without frequent grams."""
    touched_same_output: I64
    """Touched examples whose output equals that of an example with which they share a gram."""
    num_near_duplicates: I64
    """int64[p]: examples that pair off one to one within clusters of near-duplicates of both tasks."""

    @property
    def num_pairs(self) -> int:
        """All unordered pairs of tasks, those that share nothing included."""
        return len(self.tasks) * (len(self.tasks) - 1) // 2


def leak_graph(
    tasks: pa.Table,
    batches: Iterable[pa.RecordBatch],
    settings: Overlap,
    near_duplicates: pa.Table | None = None,
    hash_bits: int = 64,
) -> LeakGraph:
    """Compare every task of a catalogue with every other.

    Args:
        tasks: with TASK_COLUMNS, in any order.
        batches: a pass over the examples, with COLUMNS, in any order.
        settings: the recipe's section.
        near_duplicates: `overlaps/near_duplicates`; examples of equal normalised words are near-duplicates without it.
        hash_bits: fewer force collisions of the first hash, in tests.

    Raises:
        UsageError: the normalisation's tokenizer cannot be had.
    """
    tasks = tasks.sort_by("task")
    text, size = read_text(tasks, batches, settings, hash_bits), tasks.num_rows
    gram, example = shared_grams(text)
    rare = ~frequent_grams(text, gram, example, settings.frequent_groups)
    whole, whole_example = shared_wholes(text)
    rare = np.append(rare, np.ones(int(whole.max(initial=-1)) + 1, bool))
    gram = np.append(gram, whole + int(gram.max(initial=-1)) + 1)
    example = np.append(example, whole_example)
    few = rare[gram]
    counted = [
        _count_touched(gram, example, text.task, size),
        _count_touched(gram[few], example[few], text.task, size),
        _count_touched(*with_outputs(text, gram, example), text.task, size),
        _count_near_duplicates(text, size, near_duplicates),
        _same_dataset(tasks["dataset"].to_pylist()),
    ]
    num_examples = np.bincount(text.task, minlength=size).astype(np.int64)
    return _graph(tasks["task"].to_pylist(), num_examples, counted)


def pairs_sharing(graph: LeakGraph, share: float) -> int:
    """Return how many ordered pairs of tasks share text in more than `share` of the touched task's examples."""
    sizes = np.column_stack([graph.num_examples[graph.first], graph.num_examples[graph.second]])
    return int(np.count_nonzero(graph.touched > share * sizes))


# ------------------------------------------------------------------------------------------- counting


def _count_touched(gram: I64, example: I64, task: I64, num_tasks: int) -> tuple[I64, I64]:
    """Return (touched task * num_tasks + touching task, number of examples touched), sorted.

    Args:
        gram: of each row, ascending.
        example: of each row.

    Grams with the same tasks are one class, so an example that shares a hundred windows with the same tasks is one row.
    """
    pairs = distinct(gram * num_tasks + task[example])
    begins = np.flatnonzero(run_starts(pairs // num_tasks))
    of_gram = (pairs // num_tasks)[begins]
    kind, bounds, members = _classes(np.append(begins, len(pairs)), pairs % num_tasks)
    size = max(1, len(bounds))
    rows = distinct(example * size + kind[np.searchsorted(of_gram, gram)])
    example, kind = rows // size, rows % size
    width = np.diff(bounds)[kind]
    found = [np.empty((2, 0), np.int64)]
    for part in _steps(example, width):
        touching = members[ranges(bounds[kind[part]], width[part])]
        both = distinct(np.repeat(example[part], width[part]) * num_tasks + touching)
        keys = task[both // num_tasks] * num_tasks + both % num_tasks
        found.append(np.stack(np.unique_counts(keys)))
    keys, counts = np.concatenate(found, axis=1)
    return _summed(keys, counts, keys // num_tasks != keys % num_tasks)


def _steps(example: I64, width: I64) -> Iterator[slice]:
    """Yield slices of rows that expand to about EXPANDED_AT_ONCE, all rows of an example in one slice."""
    ends, low = np.cumsum(width), 0
    while low < len(example):
        high = int(np.searchsorted(ends, ends[low] - width[low] + EXPANDED_AT_ONCE, side="right"))
        last = example[max(low, high - 1)]
        high = int(np.searchsorted(example, last, side="right"))
        yield slice(low, high)
        low = high


def _summed(keys: I64, counts: I64, where: Bools) -> tuple[I64, I64]:
    """Return the distinct keys, ascending, of some rows, and the sum of the counts of each."""
    found, place = np.unique(keys[where], return_inverse=True)
    return found, np.bincount(place, weights=counts[where], minlength=len(found)).astype(np.int64)


def _classes(bounds: I64, members: I64) -> tuple[I64, I64, I64]:
    """Put equal sets into classes: returns (class of each set, bounds and members of the classes).

    Set i is members[bounds[i]:bounds[i + 1]], ascending. Sets are compared by a hash and then member by member; a set
    that only hashes like another is a class of its own.
    """
    if len(bounds) < 2:
        return np.empty(0, np.int64), bounds, members
    sizes = np.diff(bounds)
    weights = (np.arange(members.max() + 1, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    weights = (weights ^ (weights >> np.uint64(31))) * ODD
    sums = np.add.reduceat((weights ^ (weights >> np.uint64(33)))[members], bounds[:-1])
    first, place = np.unique(sums, return_index=True, return_inverse=True)[1:]
    model = first[place]
    same = sizes == sizes[model]
    compared = np.flatnonzero(same)
    equal = (
        members[ranges(bounds[compared], sizes[compared])]
        == members[ranges(bounds[model[compared]], sizes[compared])]
    )
    starts = np.append(0, np.cumsum(sizes[compared]))[:-1]
    same[compared] = np.logical_and.reduceat(equal, starts) if len(compared) else True
    model = np.where(same, model, np.arange(len(sizes)))
    kept, kind = np.unique(model, return_inverse=True)
    return kind, np.append(0, np.cumsum(sizes[kept])), members[ranges(bounds[kept], sizes[kept])]


def _count_near_duplicates(text: CatalogueText, num_tasks: int, table: pa.Table | None) -> tuple[I64, I64]:
    """Return (task * num_tasks + other task, near-duplicates that pair off), the lower task first."""
    example, number = equal_examples(text)
    cluster = np.arange(len(text.task))
    cluster[example] = example[np.flatnonzero(run_starts(number))][number]
    if table is not None and table.num_rows:
        ends = [pc.index_in(table[name], value_set=text.ids).to_numpy() for name in ("example", "survivor")]
        cluster = _merged(cluster, np.stack(ends, axis=1).astype(np.int64))
    cells, counts = np.unique(cluster * num_tasks + text.task, return_counts=True)
    begins = np.flatnonzero(run_starts(cells // num_tasks))
    sizes: dict[int, int] = {}
    for low, high in zip(begins.tolist(), [*begins[1:].tolist(), len(cells)]):
        members = list(zip((cells[low:high] % num_tasks).tolist(), counts[low:high].tolist()))
        for i, (task, num) in enumerate(members):
            for other, other_num in members[i + 1 :]:
                key = task * num_tasks + other
                sizes[key] = sizes.get(key, 0) + min(num, other_num)
    keys = sorted(sizes)
    return np.array(keys, np.int64), np.array([sizes[key] for key in keys], np.int64)


def _merged(cluster: I64, edges: I64) -> I64:
    """Return the clusters with those joined that an edge (two examples) connects."""
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        while parent.setdefault(number, number) != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for a, b in cluster[edges].tolist():
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    known = np.array(sorted(parent), np.int64)
    roots = np.array([root(number) for number in known.tolist()], np.int64)
    place = np.minimum(np.searchsorted(known, cluster), max(0, len(known) - 1))
    return np.where(known[place] == cluster, roots[place], cluster)


def _same_dataset(datasets: Sequence[str]) -> tuple[I64, I64]:
    """Return (task * num_tasks + other task, 1) of tasks made from one data set, the lower task first."""
    tasks: dict[str, list[int]] = {}
    for number, dataset in enumerate(datasets):
        if dataset:
            tasks.setdefault(dataset, []).append(number)
    keys = [
        a * len(datasets) + b for same in tasks.values() for i, a in enumerate(same) for b in same[i + 1 :]
    ]
    return np.array(sorted(keys), np.int64), np.ones(len(keys), np.int64)


def _graph(names: Sequence[str], num_examples: I64, counted: Sequence[tuple[I64, I64]]) -> LeakGraph:
    size = max(1, len(names))
    keys = np.concatenate([keys for keys, _ in counted])
    pairs = np.unique(np.minimum(keys // size, keys % size) * size + np.maximum(keys // size, keys % size))
    first, second = pairs // size, pairs % size
    forwards, backwards = first * size + second, second * size + first
    touched, rare, same_output = (
        np.column_stack([_looked_up(keys, numbers, wanted) for wanted in (forwards, backwards)])
        for keys, numbers in counted[:3]
    )
    near, same = (_looked_up(keys, numbers, forwards) for keys, numbers in counted[3:])
    return LeakGraph(names, num_examples, first, second, same > 0, touched, rare, same_output, near)


def _looked_up(keys: I64, numbers: I64, wanted: I64) -> I64:
    """Return the number of each wanted key, 0 where it is not among the (ascending) keys."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, numbers[place], 0)
