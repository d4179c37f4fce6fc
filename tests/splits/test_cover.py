"""Vertex covers are minimal: compared with every cover of small graphs."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.splits.suggesting.cover import minimum_cover

NODES = st.sampled_from("abcdef")


@settings(max_examples=300)
@given(
    st.lists(st.tuples(NODES, NODES), max_size=14),
    st.lists(st.integers(0, 7), min_size=6, max_size=6),
    st.lists(st.integers(0, 7), min_size=6, max_size=6),
)
def test_cover_is_minimal_and_takes_all_left_nodes_it_can(edges, left_weights, right_weights) -> None:
    left, right = dict(zip("abcdef", left_weights)), dict(zip("abcdef", right_weights))
    taken_left, taken_right = minimum_cover(edges, left, right)
    assert all(a in taken_left or b in taken_right for a, b in edges)
    weight = sum(left[a] for a in taken_left) + sum(right[b] for b in taken_right)
    lefts = sorted({a for a, _ in edges})
    covers = []
    for num in range(len(lefts) + 1):
        for chosen in combinations(lefts, num):
            needed = {b for a, b in edges if a not in chosen}
            covers.append((sum(left[a] for a in chosen) + sum(right[b] for b in needed), set(chosen)))
    assert weight == min((weight for weight, _ in covers), default=0)
    most = set().union(*(chosen for total, chosen in covers if total == weight))
    assert {a for a in taken_left if left[a]} == {a for a in most if left[a]}
    assert minimum_cover(list(reversed(edges)), left, right) == (taken_left, taken_right)


def test_equal_weights_fall_on_the_left() -> None:
    assert minimum_cover([("t", "e")], {"t": 5}, {"e": 5}) == (["t"], [])
    assert minimum_cover([], {}, {}) == ([], [])


def test_a_node_may_be_on_both_sides() -> None:
    assert minimum_cover([("t", "t")], {"t": 2}, {"t": 1}) == ([], ["t"])
