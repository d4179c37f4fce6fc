"""Batches: examples of consecutive tasks, whose words are hashed together and then looked at task by task.

Reads merged tasks; returns rows of tasks/examples, the size of each task's groups, and a sketch of its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from taskmill import text
from taskmill.curation.groups import I64, U64, Holders, Shared, equal_edges, group_ids, shared
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
    columns: dict[str, list[Any]] = {field.name: [] for field in EXAMPLES}
    groups = [np.empty(0, np.uint64)]
    sketches, first, first_leaf, first_text = [], 0, 0, 0
    for task in tasks:
        last, last_leaf = first + len(task.keys), first_leaf + len(task.texts.leaves)
        texts = words.texts[first_leaf:last_leaf]
        last_text = int(texts.max(initial=first_text - 1)) + 1
        group, smallest = _look(task, words, slice(first, last), texts, slice(first_text, last_text))
        _, sizes = np.unique(group, return_counts=True)
        task.row.update(num_groups=len(sizes), largest_group=int(sizes.max(initial=0)))
        sketches.append(
            {"task": task.row["task"], "dataset": task.row["dataset"], "hashes": smallest.tolist()}
        )
        groups.append(group)
        for name, column in task.columns.items():
            columns[name] += column
        columns["task"] += [task.row["task"]] * (last - first)
        first, first_leaf, first_text = last, last_leaf, last_text
    values: dict[str, Any] = {**columns, "group": np.concatenate(groups), "normalised": words.normalised}
    table = pa.table({f.name: pa.array(values[f.name], f.type) for f in EXAMPLES}, schema=EXAMPLES)
    return Finished(table, sketches)


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


def _look(task: MergedTask, words: _Words, mine: slice, texts: I64, numbers: slice) -> tuple[U64, U64]:
    """Return the groups of a task's examples, and its sketch.

    Args:
        task: with rows `mine` of the batch's examples and texts `numbers`.
        words: of the batch.
        texts: number of each text of the examples, end to end.
    """
    num = len(task.keys)
    owners = np.repeat(np.arange(num), words.counts[mine])
    holders = Holders.of(texts - numbers.start, owners, numbers.stop - numbers.start, num)
    starts = words.gram_starts[numbers.start : numbers.stop + 1]
    by_gram = _shared_by_text(words.grams[starts[0] : starts[-1]], np.diff(starts), holders, num)
    first, last = np.searchsorted(words.whole_texts, (numbers.start, numbers.stop))
    whole_texts = words.whole_texts[first:last] - numbers.start
    by_whole = shared(words.wholes[first:last], whole_texts, holders, num, SKETCH_SIZE)
    with_input = np.flatnonzero(words.has_input[mine])
    inputs = words.inputs[mine][with_input]
    edges = [equal_edges(words.normalised[mine], text.short_key([]))]
    if len(set(inputs.tolist())) < len(inputs):
        edges.append(shared(inputs, np.arange(len(inputs)), Holders.one_each(with_input), num).edges)
    if None in task.keys:
        edges.append(by_gram.edges)
    group = group_ids(task.row["task"], task.columns["example"], task.keys, edges)
    return group, merge_smallest(by_gram.smallest, by_whole.smallest)


def _shared_by_text(grams: U64, sizes: I64, holders: Holders, num_examples: int) -> Shared:
    return shared(grams, np.repeat(np.arange(len(sizes)), sizes), holders, num_examples, SKETCH_SIZE)
