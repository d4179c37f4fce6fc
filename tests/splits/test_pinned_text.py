"""Survivors and copies where a benchmark grows, against plain loops over drawn clusters of old and added examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.records import SCHEMAS, SPLITS
from taskmill.splits.deciding.membership import Members, NearDuplicates, drop_near_duplicates
from taskmill.splits.deciding.pinned import yield_to_pinned
from taskmill.splits.sharing.examples import EVALUATION_TEXT, TRAIN_TEXT, Catalogue
from taskmill.splits.sharing.pinned import PinnedText

EVAL, TRAIN, NEITHER = EVALUATION_TEXT, TRAIN_TEXT, 0
TASKS = ["a/one", "b/one", "b/two", "c/one"]
OLD = {"a/one", "b/two"}
SIZE = 4
"""Examples of each task."""
NUM = SIZE * len(TASKS)
IS_OLD = np.repeat([task in OLD for task in TASKS], SIZE)
Row = dict[str, Any]


def clusters_of(labels: list[int]) -> np.ndarray:
    """The lowest place of each one's label."""
    return np.array([labels.index(label) for label in labels], np.int64)


SIDES = st.lists(st.sampled_from([EVAL, TRAIN, TRAIN, NEITHER]), min_size=NUM, max_size=NUM)
LABELS = st.lists(st.integers(0, 6), min_size=NUM, max_size=NUM)
GONE = st.lists(st.booleans(), min_size=NUM, max_size=NUM)


@settings(max_examples=300)
@given(SIDES, GONE, LABELS, st.permutations(range(NUM)))
def test_survivors_are_those_of_a_plain_search(sides, gone, labels, order):
    side = np.array(sides, np.uint8)
    standing = np.where(gone, NEITHER, side).astype(np.uint8)
    first = np.arange(len(TASKS) + 1) * SIZE
    ids = pa.array([f"{TASKS[i // SIZE]}#{i}" for i in range(NUM)])
    catalogue = Catalogue(TASKS, [[]] * 4, first, ids, np.zeros(NUM, np.uint64), side)
    pinned = PinnedText(frozenset(OLD), standing=standing[IS_OLD])
    numbers, cluster = np.array(order, np.int64), clusters_of(labels)
    place, survivor = pinned.losers(catalogue, numbers, cluster)
    found = dict(zip(numbers[place].tolist(), numbers[survivor].tolist()))
    assert len(found) == len(place)
    now = np.where(IS_OLD, standing, side)
    expected = {}
    for label in set(cluster.tolist()):
        members = sorted(numbers[cluster == label].tolist())
        expected |= plain_losers(members, now.tolist())
    assert found == expected


def plain_losers(members: list[int], now: list[int]) -> dict[int, int]:
    """Added example -> its survivor, in one cluster."""
    tests = {n for n in members if now[n] == EVAL}
    if len(members) < 2 or (tests == set(members) and len({n // SIZE for n in members}) == 1):
        return {}
    kinds = [(True, EVAL), (True, TRAIN), (False, EVAL), (False, TRAIN)]
    ranked = [n for old, side in kinds for n in members if IS_OLD[n] == old and now[n] == side]
    best = (ranked or members)[0]
    trained = [n for n in members if IS_OLD[n] and now[n] == TRAIN]
    return {n: trained[0] if trained and n in tests else best for n in members if not IS_OLD[n] and n != best}


def test_rows_that_join_a_cluster_have_its_number():
    def row(example: str, survivor: str, cluster: int) -> Row:
        tasks = {"task": example[:5], "survivor_task": survivor[:5]}
        figures = {"relation": "train", "cluster": cluster, "jaccard": 1.0, "containment": 1.0}
        return {"example": example, "survivor": survivor, **tasks, **figures}

    schema = SCHEMAS["overlaps/near_duplicates"]
    own = pa.Table.from_pylist([row("a/one#2", "a/one#1", 7)], schema=schema)
    new = [row("c/one#5", "a/one#2", 9), row("c/one#4", "a/one#3", 8)]
    added = pa.Table.from_pylist(new, schema=schema)
    made = PinnedText(near_duplicates=own).with_rows(added)
    assert made.schema == schema
    assert made.to_pylist() == [row("a/one#2", "a/one#1", 7), row("c/one#5", "a/one#2", 7), new[1]]
    assert PinnedText().with_rows(added).num_rows == 2
    assert PinnedText(near_duplicates=own).with_rows(schema.empty_table()).equals(own)


PLACES = st.lists(st.sampled_from(["train", "test", "excluded"]), min_size=NUM, max_size=NUM)
ROWS = st.lists(st.tuples(st.integers(0, NUM - 1), st.integers(0, NUM - 1)), max_size=12)


@settings(max_examples=300)
@given(
    PLACES,
    ROWS,
    st.lists(st.integers(0, 5), min_size=NUM, max_size=NUM),
    st.sampled_from(["keep", "drop_across", "drop"]),
)
def test_what_is_added_gives_way(splits, rows, contents, mode):
    members = Members(
        pa.array([str(i) for i in range(NUM)]),
        np.repeat(np.arange(len(TASKS)), SIZE),
        TASKS,
        ["both"] * len(TASKS),
        np.array([SPLITS.index(split) for split in splits], np.uint8),
        np.full(NUM, None, dtype=object),
        np.full(NUM, None, dtype=object),
        np.repeat(np.array(contents, np.uint8)[:, None], 32, axis=1),
        IS_OLD.copy(),
    )
    named = {example: survivor for example, survivor in rows if example != survivor}
    pairs = [(e, s) for e, s in named.items() if s not in named]
    near = NearDuplicates(*(np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1)))
    before = members.split.copy()
    yield_to_pinned(members, near, mode)
    drop_near_duplicates(members, near, mode)
    assert (members.split[IS_OLD] == before[IS_OLD]).all()
    side, old = members.side, IS_OLD
    trained = {contents[i] for i in range(NUM) if old[i] and side[i] == TRAIN}
    assert not [i for i in range(NUM) if not old[i] and side[i] == EVAL and contents[i] in trained]
    for survivor in {s for _, s in pairs}:
        cluster = [survivor, *(e for e, s in pairs if s == survivor)]
        tests = [i for i in cluster if side[i] == EVAL]
        kept = [i for i in cluster if old[i] and side[i] == TRAIN]
        added = [i for i in cluster if not old[i] and side[i] == TRAIN]
        if mode != "keep":
            assert not tests or not added
            assert not kept or not [i for i in tests if not old[i]]
        if mode == "drop":
            assert len(added) <= (0 if kept else 1)
    out = [i for i in range(NUM) if members.split[i] != before[i]]
    assert {members.reason[i] for i in out} <= {"duplicate", "near_duplicate"}
