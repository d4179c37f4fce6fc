"""Sketches: the same data set under two names is recognised by its text.

A task's sketch is the 512 smallest hashes of its 13-grams and of its texts of 5 to 12 words, boilerplate left out
(bottom-k sketch: Broder, "On the resemblance and containment of documents", 1997). Below the smaller of two sketches'
largest hashes both tasks are known in full, so the share of one task's hashes there that the other has too estimates
how much of it the other contains. Reads sketches, returns rows of tasks/suspected_aliases; nothing is merged by it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

SKETCH_SIZE = 512
WHOLE_WORDS = 5  # texts of fewer words say too little of where they come from
SUSPECT_ABOVE = 0.5  # containment of the smaller task in the larger
LEAST_COMPARED = 8  # hashes; an estimate from fewer is no evidence
_NAME_LENGTH = 8  # letters of a name from which on one changed letter is a misprint
SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("hashes", pa.list_(pa.uint64()), nullable=False),
    ]
)
"""A shard's piece: one sketch per task, hashes ascending."""


def merge_smallest(left: U64, right: U64) -> U64:
    """Return the sketch of two disjoint sets of hashes from the sketches of each."""
    return np.sort(np.concatenate([left, right]))[:SKETCH_SIZE]


def compare(left: U64, right: U64) -> tuple[int, int]:
    """Return (num_shared, num_compared) of two sketches: hashes of the smaller task below the common threshold."""
    ends = [sketch[-1] for sketch in (left, right) if len(sketch) >= SKETCH_SIZE]
    if ends:
        left, right = left[left <= min(ends)], right[right <= min(ends)]
    num_shared = len(np.intersect1d(left, right, assume_unique=True))
    return num_shared, min(len(left), len(right))


def suspected_aliases(
    tasks: Sequence[str], datasets: Sequence[str], sketches: Sequence[U64]
) -> list[dict[str, Any]]:
    """Return the pairs of tasks of different data sets whose text, or whose data set's name, is nearly the same.

    Args:
        tasks: ids, ascending.
        datasets: canonical names of their data sets.
        sketches: of each task.
    """
    rows = []
    for a, b in sorted(_sharing(datasets, sketches) | _misprints(datasets)):
        num_shared, num_compared = compare(sketches[a], sketches[b])
        containment = num_shared / num_compared if num_compared else 0.0
        enough = num_compared >= LEAST_COMPARED and containment > SUSPECT_ABOVE
        if enough or _is_misprint(datasets[a], datasets[b]):
            rows.append(
                {
                    "task_a": tasks[a],
                    "task_b": tasks[b],
                    "dataset_a": datasets[a],
                    "dataset_b": datasets[b],
                    "containment": containment,
                    "num_shared": num_shared,
                    "num_compared": num_compared,
                }
            )
    return rows


def _sharing(datasets: Sequence[str], sketches: Sequence[U64]) -> set[tuple[int, int]]:
    """Return the pairs of tasks of different data sets that share a hash."""
    owner = np.repeat(np.arange(len(sketches)), [len(sketch) for sketch in sketches])
    hashes = np.concatenate([np.empty(0, np.uint64), *sketches])
    order = np.lexsort((owner, hashes))
    hashes, owner = hashes[order], owner[order]
    if not len(hashes):
        return set()
    again = np.concatenate([hashes[1:] == hashes[:-1], [False]])
    mine = again | np.concatenate([[False], again[:-1]])  # hashes of one task only join nothing
    edges = np.flatnonzero(np.diff(hashes[mine])) + 1
    owner = owner[mine]
    pairs: set[tuple[int, int]] = set()
    seen: set[bytes] = set()
    for run in np.split(owner, edges):
        if len(run) > 1 and run.tobytes() not in seen:
            seen.add(run.tobytes())
            members = run.tolist()
            pairs |= {
                (a, b) for i, a in enumerate(members) for b in members[i + 1 :] if datasets[a] != datasets[b]
            }
    return pairs


def _misprints(datasets: Sequence[str]) -> set[tuple[int, int]]:
    """Return one pair of tasks for each two data sets whose names are a misprint apart."""
    first: dict[str, int] = {}
    for number, dataset in enumerate(datasets):
        first.setdefault(dataset, number)
    by_rest: defaultdict[str, list[str]] = defaultdict(list)
    for name in first:
        if len(name) >= _NAME_LENGTH:
            for rest in {name, *(name[:i] + name[i + 1 :] for i in range(len(name)))}:
                by_rest[rest].append(name)
    found = set()
    for names in by_rest.values():
        for i, name in enumerate(names):
            for other in names[i + 1 :]:
                if _is_misprint(name, other):
                    found.add((min(first[name], first[other]), max(first[name], first[other])))
    return found


def _is_misprint(name: str, other: str) -> bool:
    """Say whether two names are one inserted, left out or changed letter apart; digits tell versions apart."""
    short, long = sorted((name, other), key=len)
    if name == other or len(short) < _NAME_LENGTH or len(long) - len(short) > 1:
        return False
    if re.findall(r"\d", name) != re.findall(r"\d", other):
        return False
    start = next((i for i, (a, b) in enumerate(zip(short, long)) if a != b), len(short))
    return short[start:] == long[start + 1 :] or short[start + 1 :] == long[start + 1 :]
