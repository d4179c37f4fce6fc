"""Sketches: estimates against plain sets, misprints of names, and which pairs are reported."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill import text
from taskmill.curation.sketches import SKETCH_SIZE, compare, merge_smallest, suspected_aliases

U64 = np.typing.NDArray[np.uint64]


def hashes(first: int, last: int, salt: str = "") -> U64:
    """Return the hashes of the words `first` .. `last - 1`, ascending."""
    found, _ = text.word_hashes([f"{salt}{i}" for i in range(first, last)])
    return np.sort(found)


def sketch(first: int, last: int) -> U64:
    return hashes(first, last)[:SKETCH_SIZE]


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 300)), st.sets(st.integers(0, 300)))
def test_small_sets_are_compared_exactly(left: set[int], right: set[int]) -> None:
    arrays = [np.array(sorted(side), np.uint64) for side in (left, right)]
    assert compare(*arrays) == (len(left & right), min(len(left), len(right)))


@pytest.mark.parametrize(
    ("num_small", "num_large", "num_both"),
    [(5000, 5000, 2500), (2000, 20_000, 1600), (2000, 20_000, 200), (700, 700, 0), (400, 6000, 400)],
)
def test_the_estimate_is_near_the_containment(num_small: int, num_large: int, num_both: int) -> None:
    small, large = sketch(0, num_small), sketch(num_small - num_both, num_small - num_both + num_large)
    num_shared, num_compared = compare(small, large)
    assert num_compared > 20
    error = 3 * (0.25 / num_compared) ** 0.5
    assert num_shared / num_compared == pytest.approx(num_both / num_small, abs=error)


def test_merging_two_sketches_gives_that_of_both() -> None:
    left, right = hashes(0, 900), hashes(900, 2500)
    assert merge_smallest(left[:SKETCH_SIZE], right[:SKETCH_SIZE]).tolist() == sketch(0, 2500).tolist()


def pairs(**tasks: tuple[str, U64]) -> list[tuple[str, str, float]]:
    names = sorted(tasks)
    rows = suspected_aliases(names, [tasks[n][0] for n in names], [tasks[n][1] for n in names])
    return [(row["task_a"], row["task_b"], row["containment"]) for row in rows]


def test_tasks_of_different_data_sets_that_hold_half_of_each_other_are_reported() -> None:
    found = pairs(
        a=("one", sketch(0, 300)),
        b=("two", sketch(100, 1000)),
        c=("two", sketch(0, 300)),
        d=("three", sketch(200, 500)),
        e=("four", sketch(5000, 5300)),
    )
    assert found == [
        ("a", "b", pytest.approx(2 / 3, abs=0.1)),
        ("a", "c", 1.0),
        ("b", "d", pytest.approx(1, abs=0.01)),
    ]


def test_too_few_hashes_are_no_evidence() -> None:
    assert pairs(a=("one", sketch(0, 7)), b=("two", sketch(0, 7))) == []
    assert len(pairs(a=("one", sketch(0, 8)), b=("two", sketch(0, 8)))) == 1


@pytest.mark.parametrize(
    ("left", "right", "reported"),
    [
        ("adverserial_qa", "adversarial_qa", True),
        ("commonsense_qa", "commonsenseqa", True),
        ("wikiquestions", "wikiquestion", True),
        ("civil_comments", "civil_coments", True),
        ("snli_data", "mnli_dataset", False),
        ("mnli", "qnli", False),
        ("wmt14_translate", "wmt16_translate", False),
        ("opus_books", "opus_books_2", False),
        ("adversarial_qa", "adversarial_qa", False),
        ("adversarial_nli", "adversarial_qa", False),
    ],
)
def test_names_a_misprint_apart_are_reported_once_whatever_the_text(
    left: str, right: str, reported: bool
) -> None:
    none = np.empty(0, np.uint64)
    found = pairs(a=(left, none), b=(right, none), c=(left, none))
    assert found == ([("a", "b", 0.0)] if reported else [])


def test_many_tasks_of_one_data_set_make_no_pairs() -> None:
    same = {f"t{i:03d}": ("one", sketch(0, 400)) for i in range(200)}
    assert pairs(**same) == []
    assert len(pairs(**same, u=("two", sketch(0, 400)))) == 200
