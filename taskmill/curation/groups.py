"""Groups: which examples of a task must stay on one side of a split.

Upstream's passage, table or conversation where the reader knows it, else the connected component of shared
13-grams inside the task; and, whatever their length, examples of equal words or of an equal input. Reads hashes of the
words of examples, returns one uint64 per example.

    >>> grams, owner = np.array([7, 8, 8, 9], np.uint64), np.array([0, 0, 1, 2])
    >>> joined = shared(grams, owner, Holders.one_each(np.arange(3)), 3)
    >>> group = group_ids("t", ["t#a", "t#b", "t#c"], [None] * 3, [joined.edges])
    >>> bool(group[0] == group[1]), bool(group[0] == group[2])
    (True, False)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill.seeding import ranks

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
Edges = tuple[I64, I64]
"""int64[num_edges] twice: the numbers of the examples at both ends."""

BOILERPLATE_SHARE = 0.5  # of a task's examples; what stands in more of them joins nothing
BOILERPLATE_EXAMPLES = 20  # a task with fewer examples has no boilerplate
_HASHES_AT_ONCE = 1 << 23  # bounds what one sort holds


@dataclass(frozen=True)
class Holders:
    """Which examples hold each text of a task: text t stands in examples[starts[t]:starts[t + 1]], ascending."""

    starts: I64
    examples: I64

    @classmethod
    def of(cls, texts: I64, examples: I64, num_texts: int, num_examples: int) -> Holders:
        """Take pairs (text, example) in any order, repeated or not."""
        pairs = _distinct(np.sort(texts * num_examples + examples))
        counts = np.bincount(pairs // max(num_examples, 1), minlength=num_texts)
        return cls(np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]), pairs % max(num_examples, 1))

    @classmethod
    def one_each(cls, examples: I64) -> Holders:
        """Return those of texts that stand in one example each."""
        return cls(np.arange(len(examples) + 1), examples)


@dataclass(frozen=True)
class Shared:
    """What examples of one task have in common."""

    edges: Edges
    """Enough to connect all examples that share a hash which is no boilerplate."""
    smallest: U64
    """The smallest distinct hashes that are no boilerplate, ascending."""


def shared(hashes: U64, owner: NDArray[Any], holders: Holders, num_examples: int, keep: int = 0) -> Shared:
    """Find the examples of a task that share a hash; one in over half of 20 or more examples is boilerplate.

    Args:
        hashes: uint64[num], of grams, inputs or whatever examples may share.
        owner: integer[num], the text that each hash stands in.
        holders: the examples that hold each text.
        num_examples: of the task.
        keep: how many of the smallest hashes to return.
    """
    num_parts = np.uint64(len(hashes) // _HASHES_AT_ONCE + 1)
    parts = []
    for part in range(int(num_parts)):
        mine = hashes % num_parts == part if num_parts > 1 else slice(None)
        parts.append(_shared(hashes[mine], owner[mine], holders, num_examples, keep))
    if len(parts) == 1:
        return parts[0]
    return Shared(
        join_edges([part.edges for part in parts]),
        np.sort(np.concatenate([part.smallest for part in parts]))[:keep],
    )


def _shared(hashes: U64, owner: NDArray[Any], holders: Holders, num_examples: int, keep: int) -> Shared:
    """Do what `shared` does, at once."""
    if not len(hashes):
        return Shared(_no_edges(), hashes)
    order = np.argsort(hashes)
    hashes, owner = hashes[order], owner[order]
    again = hashes[1:] == hashes[:-1]
    run = np.concatenate([np.zeros(1, np.int64), np.cumsum(~again)])  # number of the distinct hash
    distinct = hashes[np.concatenate([[True], ~again])]
    inside = np.concatenate([again, [False]])  # stands in a text here and there, or twice in one
    inside[1:] |= again
    num_texts = len(holders.starts) - 1
    pairs = _distinct(np.sort(run[inside] * num_texts + owner[inside]))
    run_of, text = pairs // num_texts, pairs % num_texts
    common = np.zeros(len(distinct), bool)
    if num_examples >= BOILERPLATE_EXAMPLES:
        most = num_examples * BOILERPLATE_SHARE
        alone = ~inside
        common[run[alone]] = np.diff(holders.starts)[owner[alone]] > most
        common[_over(run_of, text, holders, num_examples, most)] = True
    lives = np.zeros(num_texts, bool)
    lives[owner[~common[run]]] = True
    joins = np.flatnonzero((run_of[1:] == run_of[:-1]) & ~common[run_of[1:]]) + 1
    first = holders.examples[holders.starts[text]]
    across = first[joins - 1], first[joins]
    return Shared(join_edges([across, _within(holders, lives)]), distinct[~common][:keep])


def _over(run: I64, text: I64, holders: Holders, num_examples: int, most: float) -> I64:
    """Return the hashes, by number, that stand in more than `most` examples, from pairs (hash, text) by hash."""
    if not len(run):
        return run
    starts = np.flatnonzero(np.concatenate([[True], run[1:] != run[:-1]]))
    sizes = np.diff(starts, append=len(run))
    counts = np.diff(holders.starts)[text]
    over = np.add.reduceat(counts, starts) > most  # an example may hold two of the texts
    if not over.any():
        return run[:0]
    likely = np.repeat(over, sizes)
    run, text, counts = run[likely], text[likely], counts[likely]
    ends = np.cumsum(counts)
    places = np.arange(counts.sum()) + np.repeat(holders.starts[text] - (ends - counts), counts)
    pairs = _distinct(np.sort(np.repeat(run, counts) * num_examples + holders.examples[places]))
    found, sizes = np.unique(pairs // num_examples, return_counts=True)
    return found[sizes > most]


def _within(holders: Holders, lives: NDArray[np.bool_]) -> Edges:
    """Return edges along the holders of each text that says more than boilerplate."""
    text = np.repeat(np.arange(len(lives)), np.diff(holders.starts))
    right = np.flatnonzero((text[1:] == text[:-1]) & lives[text[1:]]) + 1
    return holders.examples[right - 1], holders.examples[right]


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


def equal_edges(values: Sequence[object], nothing: object) -> Edges:
    """Return edges from the first example with a value to each further one; `nothing` joins none."""
    if len(set(values)) == len(values):
        return _no_edges()
    first: dict[object, int] = {}
    pairs = [(first.setdefault(v, i), i) for i, v in enumerate(values) if v != nothing]
    left, right = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return left, right


def group_ids(task: str, examples: Sequence[str], keys: Sequence[str | None], edges: Sequence[Edges]) -> U64:
    """Return the group of each example: uint64[num_examples].

    Examples with the same upstream key belong together, and so do those that an edge joins. A group's number comes from
    the task and its smallest key, else its smallest example id, so that it stays when other groups come and go.

    Args:
        task: id of the task.
        examples: ids, ascending.
        keys: upstream's group keys.
        edges: what else joins examples.
    """
    known = any(key is not None for key in keys)
    sides = [*edges, equal_edges(keys, None)] if known else edges
    left, right = join_edges(sides)
    label = components(len(examples), left, right)
    return _numbers(task, examples, keys if known else (), label)


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


def _numbers(task: str, examples: Sequence[str], keys: Sequence[str | None], label: I64) -> U64:
    """Name each component after its smallest key, else its smallest example."""
    names: dict[int, str] = {}
    for root, key in zip(label.tolist(), keys):
        if key is not None:
            name = f"key\x1f{key}"
            names[root] = min(names.get(root, name), name)
    roots = np.flatnonzero(label == np.arange(len(label)))  # a component is labelled by its smallest node
    prefix = f"{task}\x1f"
    if names:
        named = [prefix + names.get(root, examples[root]) for root in roots.tolist()]
    else:
        named = [prefix + examples[root] for root in roots.tolist()]
    return ranks(0, "group", named)[np.searchsorted(roots, label)]
