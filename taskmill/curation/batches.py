"""Batches: examples of consecutive tasks, whose words are hashed together and then looked at task by task.

Reads merged tasks; returns rows of tasks/examples, the size of each task's groups, and a sketch of its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from taskmill import boilerplate, text
from taskmill.curation.groups import (
    I64,
    U64,
    Holders,
    equal_edges,
    group_ids,
    shared,
)
from taskmill.curation.merging import MergedTask
from taskmill.curation.sketches import SKETCH_SIZE, WHOLE_WORDS, merge_smallest
from taskmill.records import SCHEMAS

EXAMPLES = SCHEMAS["tasks/examples"]


@dataclass(frozen=True)
class Finished:
    """The rows of a batch."""

    examples: pa.Table
    sketches: list[dict[str, Any]]
    """One per task: see `sketches.SCHEMA`."""


@dataclass(frozen=True)
class _Words:
    """The hashed words of a batch: of each example, and of each text that a task has, however many examples hold it."""

    normalised: list[bytes]
    inputs: U64
    """Hash of the texts of the input, by their words, per example."""
    has_input: np.ndarray[Any, np.dtype[np.bool_]]
    """Whether a field of the input has a word, per example."""
    texts: I64
    """Number of each example's texts, end to end: int64[num_leaves]."""
    counts: I64
    """How many texts each example has."""
    grams: U64
    gram_starts: I64
    """The grams of text t are grams[gram_starts[t]:gram_starts[t + 1]]."""
    wholes: U64
    whole_texts: I64
    """The texts that are hashed whole, ascending."""


def finish_tasks(tasks: Sequence[MergedTask]) -> Finished:
    """Give the examples of tasks their groups and keys; adds `num_groups` and `largest_group` to each task's row.

    Both count every example that is kept, demonstrations among them.
    """
    words = _hash(tasks)
    group, sketches = _look(tasks, words)
    columns: dict[str, list[Any]] = {field.name: [] for field in EXAMPLES}
    first = 0
    for task in tasks:
        last = first + len(task.keys)
        _, sizes = np.unique(group[first:last], return_counts=True)
        task.row.update(num_groups=len(sizes), largest_group=int(sizes.max(initial=0)))
        for name, column in task.columns.items():
            columns[name] += column
        columns["task"] += [task.row["task"]] * (last - first)
        first = last
    values: dict[str, Any] = {**columns, "group": group, "normalised": words.normalised}
    table = pa.table({f.name: pa.array(values[f.name], f.type) for f in EXAMPLES}, schema=EXAMPLES)
    rows = [
        {"task": task.row["task"], "dataset": task.row["dataset"], "hashes": hashes.tolist()}
        for task, hashes in zip(tasks, sketches)
    ]
    return Finished(table, rows)


def _hash(tasks: Sequence[MergedTask]) -> _Words:
    """Hash the words of every text of a batch; a text that examples of a task share is hashed once."""
    texts, distinct = list[int](), list[str]()
    for task in tasks:
        first, numbers = len(distinct), dict[str, int]()
        texts += [numbers.setdefault(leaf, first + len(numbers)) for leaf in task.texts.leaves]
        distinct += numbers
    hashes, offsets = text.word_hashes(distinct)
    sizes = np.diff(offsets)
    number = np.array(texts, np.int64)
    num_inputs, num_options, num_outputs = (
        np.array([n for task in tasks for n in getattr(task.texts, name)], np.int64)
        for name in ("num_inputs", "num_options", "num_outputs")
    )
    counts = num_inputs + num_options + num_outputs
    leaves = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[number])])
    all_words = hashes[text.ranges(offsets[number], sizes[number])]  # of every example, end to end
    whole = text.span_hashes(hashes, offsets[:-1], offsets[1:])
    grams, gram_starts = text.gram_hashes(hashes, offsets)
    short = np.flatnonzero((sizes >= WHOLE_WORDS) & (sizes < text.N))
    return _Words(
        normalised=text.whole_keys(all_words, ends[leaves]),
        inputs=text.span_hashes(whole[number], leaves[:-1], leaves[:-1] + num_inputs + num_options),
        has_input=ends[leaves[:-1] + num_inputs] > ends[leaves[:-1]],
        texts=number,
        counts=counts,
        grams=grams,
        gram_starts=gram_starts,
        wholes=whole[short],
        whole_texts=short,
    )


def _look(tasks: Sequence[MergedTask], words: _Words) -> tuple[U64, list[U64]]:
    """Return the groups of all examples of a batch, task after task, and the sketch of each task."""
    sizes = [len(task.keys) for task in tasks]
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
    num, num_texts = int(bounds[-1]), len(words.gram_starts) - 1
    holders = Holders.of(words.texts, np.repeat(np.arange(num), words.counts), num_texts, num)
    owner = np.repeat(np.arange(num_texts), np.diff(words.gram_starts))
    rendered = np.array([task.row["num_rendered_templates"] for task in tasks], np.int64)
    limits = boilerplate.limits(np.diff(bounds), rendered)
    by_gram = shared(words.grams, owner, holders, bounds, SKETCH_SIZE, limits)
    by_whole = shared(words.wholes, words.whole_texts, holders, bounds, SKETCH_SIZE, limits)
    with_input = np.flatnonzero(words.has_input)
    inputs, alone = words.inputs[with_input], Holders.one_each(with_input)
    by_input = shared(inputs, np.arange(len(inputs)), alone, bounds, limits=limits)
    left, right = by_gram.edges
    unkeyed = np.array([None in task.keys for task in tasks], bool)  # in other tasks upstream's keys decide
    counts = np.repeat(unkeyed, np.diff(bounds))[left]
    ends = bounds.tolist()
    normalised = [words.normalised[first:last] for first, last in pairwise(ends)]
    edges = [
        equal_edges(normalised, text.short_key([]), sizes),
        by_input.edges,
        (left[counts], right[counts]),
    ]
    group = group_ids(
        [task.row["task"] for task in tasks],
        [task.columns["example"] for task in tasks],
        [task.keys for task in tasks],
        edges,
    )
    return group, list(map(merge_smallest, by_gram.smallest, by_whole.smallest))
