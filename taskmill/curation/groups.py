"""Groups: which examples of a task must stay on one side of a split.

Upstream's passage, table or conversation where the reader knows it, else the connected component of shared
13-grams inside the task; and, whatever their length, examples of equal words or of an equal input. Reads hashes of the
words of the examples of any number of tasks, returns one uint64 per example.

    >>> grams, owner = np.array([7, 8, 8, 9], np.uint64), np.array([0, 0, 1, 2])
    >>> joined = shared(grams, owner, Holders.one_each(np.arange(3)), np.array([0, 3]))
    >>> group = group_ids(["t"], [["t#a", "t#b", "t#c"]], [[None] * 3], [joined.edges])
    >>> bool(group[0] == group[1]), bool(group[0] == group[2])
    (True, False)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill import boilerplate
from taskmill.seeding import ranks

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
Edges = tuple[I64, I64]
"""int64[num_edges] twice: the numbers of the examples at both ends."""

_HASHES_AT_ONCE = 1 << 23  # bounds what one sort holds


@dataclass(frozen=True)
class Holders:
    """Which examples hold each text: text t stands in examples[starts[t]:starts[t + 1]], ascending, one or more."""

    starts: I64
    examples: I64

    @classmethod
    def of(cls, texts: I64, examples: I64, num_texts: int, num_examples: int) -> Holders:
        """Take pairs (text, example) in any order, repeated or not."""
        pairs = _distinct(np.sort(texts * num_examples + examples))
        text, example = np.divmod(pairs, max(num_examples, 1))
        counts = np.bincount(text, minlength=num_texts)
        return cls(np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]), example)

    @classmethod
    def one_each(cls, examples: I64) -> Holders:
        """Return those of texts that stand in one example each."""
        return cls(np.arange(len(examples) + 1), examples)


@dataclass(frozen=True)
class Shared:
    """What examples of a task have in common, of each task."""

    edges: Edges
    """Enough to connect all examples of a task that share a hash which is no boilerplate."""
    smallest: list[U64]
    """Of each task the smallest distinct hashes that are no boilerplate, ascending."""


def shared(
    hashes: U64,
    owner: NDArray[Any],
    holders: Holders,
    bounds: I64,
    keep: int = 0,
    limits: NDArray[np.float64] | None = None,
) -> Shared:
    """Find the examples of a task that share a hash which is no boilerplate.

    Args:
        hashes: uint64[num], of grams, inputs or whatever examples may share.
        owner: integer[num], the text that each hash stands in, ascending; texts ascend by task.
        holders: the examples that hold each text, all of one task.
        bounds: int64[num_tasks + 1]; task t has the examples bounds[t] .. bounds[t + 1] - 1.
        keep: how many of a task's smallest hashes to return.
        limits: see `boilerplate.limits`; by default those of tasks that are not rendered.
    """
    if limits is None:
        limits = boilerplate.limits(np.diff(bounds), np.zeros(len(bounds) - 1, np.int64))
    num_parts = np.uint64(len(hashes) // _HASHES_AT_ONCE + 1)
    parts = []
    for part in range(int(num_parts)):
        mine = hashes % num_parts == part if num_parts > 1 else slice(None)
        parts.append(_shared(hashes[mine], owner[mine], holders, bounds, keep, limits))
    if len(parts) == 1:
        return parts[0]
    return Shared(
        join_edges([part.edges for part in parts]),
        [np.sort(np.concatenate(mine))[:keep] for mine in zip(*(part.smallest for part in parts))],
    )


def _shared(
    hashes: U64, owner: NDArray[Any], holders: Holders, bounds: I64, keep: int, limits: NDArray[np.float64]
) -> Shared:
    """Do what `shared` does, at once."""
    num_tasks, num_texts = len(bounds) - 1, len(holders.starts) - 1
    if not len(hashes):
        return Shared(_no_edges(), [hashes] * num_tasks)
    task_of = np.repeat(np.arange(num_tasks), np.diff(bounds))[holders.examples[holders.starts[:-1]]]
    ends = np.searchsorted(owner, np.searchsorted(task_of, np.arange(num_tasks + 1)))  # of each task's hashes
    order = _order_by_task(hashes, ends)
    hashes, owner = hashes[order], owner[order]
    again = np.concatenate([[False], hashes[1:] == hashes[:-1], [False]])
    again[ends] = False  # what tasks share joins nothing
    new = ~again[:-1]
    inside = again[1:] | again[:-1]  # stands in a text here and there, or twice in one
    run = np.cumsum(new) - 1  # number of the distinct hash
    pairs = _distinct(np.sort(run[inside] * num_texts + owner[inside]))
    run_of, text = np.divmod(pairs, num_texts)
    common = np.zeros(int(run[-1]) + 1, bool)
    if np.isfinite(limits).any():
        most = limits[task_of]  # per text
        over = np.diff(holders.starts) > most
        if over.any():
            common[run[~inside & over[owner]]] = True
        common[_over(run_of, text, holders, most)] = True
    lives = np.zeros(num_texts, bool)
    lives[owner[~common[run]]] = True
    joins = np.flatnonzero((run_of[1:] == run_of[:-1]) & ~common[run_of[1:]]) + 1
    first = holders.examples[holders.starts[text]]
    across = first[joins - 1], first[joins]
    smallest = _smallest(hashes, new & ~common[run], ends, keep) if keep else [hashes[:0]] * num_tasks
    return Shared(join_edges([across, _within(holders, lives)]), smallest)


def _order_by_task(hashes: U64, ends: I64) -> I64:
    """Return the order that sorts the hashes of each task, ends[t] .. ends[t + 1] - 1."""
    order = np.empty(len(hashes), np.int64)
    for first, last in pairwise(ends.tolist()):
        if first < last:
            np.add(np.argsort(hashes[first:last]), first, out=order[first:last])
    return order


def _smallest(hashes: U64, kept: NDArray[np.bool_], ends: I64, keep: int) -> list[U64]:
    """Return of each task the first `keep` of its hashes that are `kept`."""
    places = np.flatnonzero(kept)
    bounds = np.searchsorted(places, ends).tolist()
    return [hashes[places[first : min(last, first + keep)]] for first, last in pairwise(bounds)]


def _over(run: I64, text: I64, holders: Holders, most: NDArray[np.float64]) -> I64:
    """Return the hashes, by number, that stand in more than `most` examples, from pairs (hash, text) by hash.

    Args:
        most: per text, that of its task.
    """
    if not len(run):
        return run
    starts = np.flatnonzero(np.concatenate([[True], run[1:] != run[:-1]]))
    sizes = np.diff(starts, append=len(run))
    counts = np.diff(holders.starts)[text]
    most = most[text[starts]]  # per hash
    over = np.add.reduceat(counts, starts) > most  # an example may hold two of the texts
    if not over.any():
        return run[:0]
    likely = np.repeat(over, sizes)
    run, text, counts = run[likely], text[likely], counts[likely]
    ends = np.cumsum(counts)
    places = np.arange(counts.sum()) + np.repeat(holders.starts[text] - (ends - counts), counts)
    num_examples = int(holders.examples.max()) + 1
    pairs = _distinct(np.sort(np.repeat(run, counts) * num_examples + holders.examples[places]))
    found, sizes = np.unique(pairs // num_examples, return_counts=True)
    return found[sizes > most[over]]


def _within(holders: Holders, lives: NDArray[np.bool_]) -> Edges:
    """Return edges along the holders of each text that says more than boilerplate."""
    lives = lives & (np.diff(holders.starts) > 1)
    first = np.repeat(lives, np.diff(holders.starts))
    first[holders.starts[1:] - 1] = False  # the last holder has none to its right
    left = np.flatnonzero(first)
    return holders.examples[left], holders.examples[left + 1]


def _distinct(ascending: I64) -> I64:
    return (
        ascending[np.concatenate([[True], ascending[1:] != ascending[:-1]])] if len(ascending) else ascending
    )


def join_edges(parts: Sequence[Edges]) -> Edges:
    """Return the edges of all parts."""
    left, right = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    return left, right


def _no_edges() -> Edges:
    return np.empty(0, np.int64), np.empty(0, np.int64)


def equal_edges(values: Sequence[Sequence[object]], nothing: object, sizes: Sequence[int]) -> Edges:
    """Return edges from the first example of a task with a value to each further one; `nothing` joins none.

    Args:
        values: of each task's examples, or none.
        nothing: the value that says nothing.
        sizes: how many examples each task has.
    """
    lefts, rights, offset = list[int](), list[int](), 0
    for mine, size in zip(values, sizes):
        if len(set(mine)) < len(mine):
            first: dict[object, int] = {}
            for i, value in enumerate(mine, offset):
                if value != nothing and (left := first.setdefault(value, i)) != i:
                    lefts.append(left)
                    rights.append(i)
        offset += size
    return np.array(lefts, np.int64), np.array(rights, np.int64)


def group_ids(
    tasks: Sequence[str],
    examples: Sequence[Sequence[str]],
    keys: Sequence[Sequence[str | None]],
    edges: Sequence[Edges],
) -> U64:
    """Return the group of each example of tasks, task after task: uint64[num_examples].

    Examples of a task with the same upstream key belong together, and so do those that an edge joins. A group's number
    comes from the task and its smallest key, else its smallest example id, so that it stays when other groups come and
    go.

    Args:
        tasks: ids.
        examples: ids of each task's, ascending.
        keys: upstream's group keys, of each task.
        edges: what else joins examples of a task, numbered through all tasks.
    """
    known = [mine if any(key is not None for key in mine) else () for mine in keys]
    left, right = join_edges([*edges, equal_edges(known, None, list(map(len, examples)))])
    label = components(sum(map(len, examples)), left, right)
    roots = np.flatnonzero(label == np.arange(len(label)))  # a component is labelled by its smallest node
    bounds = np.concatenate([[0], np.cumsum(list(map(len, examples)), dtype=np.int64)])
    ends = np.searchsorted(roots, bounds).tolist()
    names = list[str]()
    for number, (task, first) in enumerate(zip(tasks, bounds.tolist())):
        mine = roots[ends[number] : ends[number + 1]] - first
        by_key = _keys(known[number], label[first : first + len(known[number])] - first)
        ids, prefix = examples[number], f"{task}\x1f"
        if by_key:
            names += [prefix + by_key.get(root, ids[root]) for root in mine.tolist()]
        elif len(mine) == len(ids):
            names += [prefix + i for i in ids]
        else:
            names += [prefix + ids[root] for root in mine.tolist()]
    return ranks(0, "group", names)[np.searchsorted(roots, label)]


def components(num: int, left: I64, right: I64) -> I64:
    """Return the smallest node of each node's connected component: int64[num].

    Args:
        num: nodes are 0 .. num - 1.
        left, right: int64[num_edges], the ends of the edges.
    """
    parent = np.arange(num, dtype=np.int64)
    while True:
        a, b = parent[left], parent[right]
        apart = a != b
        if not apart.any():
            return parent
        left, right, a, b = left[apart], right[apart], a[apart], b[apart]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(grand := parent[parent], parent):
            parent = grand


def _keys(keys: Sequence[str | None], label: I64) -> dict[int, str]:
    """Return the smallest key of each component that has one, by its smallest node."""
    names: dict[int, str] = {}
    for root, key in zip(label.tolist(), keys):
        if key is not None:
            name = f"key\x1f{key}"
            names[root] = min(names.get(root, name), name)
    return names
