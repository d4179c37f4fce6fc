"""Batches: packs as arrays, and the weight that each objective gives each token, against values worked out by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_arrays import Arrays, documents

from taskmill.errors import DataError
from taskmill.training.packing.batches import Objective, collate, prefetch, target_weights
from taskmill.training.packing.packs import Packs, pack

OBJECTIVES = [Objective(a, b) for a in ("targets", "sequence") for b in ("token", "message")]  # type: ignore[arg-type]


def flagged(rows: list[str], weights: list[float]) -> Arrays:
    """Documents written as flags: x is a trained token, any other character none."""
    arrays = documents([len(row) for row in rows], weights)
    arrays.trained = np.array([c == "x" for c in "".join(rows)], dtype=np.uint8)
    return arrays


def weights_of(arrays: Arrays, objective: Objective) -> list[list[float]]:
    """The weights of each document, alone in a batch."""
    packs = pack(np.diff(arrays.offsets), 64, 1000, 0, "none")
    order = np.argsort(packs.documents)
    rows = [collate(arrays, packs, [number], 0, objective).weights_BT[0].tolist() for number in order]
    return [[round(weight, 6) for weight in row] for row in rows]


# A two-turn chat of an expert (1.0) and one of another (0.1), as in C-RLFT: user and role prefix '.', answer and end 'x'.
CHAT = flagged(["..xxx..x", "...xx"], [1.0, 0.1])


def test_label_loss_weighs_every_trained_token_with_its_document() -> None:
    expected = [[0, 1, 1, 1, 0, 0, 1, 0], [0, 0, 0.1, 0.1, 0]]
    assert weights_of(CHAT, Objective()) == expected
    assert target_weights(CHAT).tolist() == pytest.approx([4.0, 0.2])


def test_message_normalisation_divides_by_the_tokens_of_the_message() -> None:
    third = round(1 / 3, 6)
    expected = [[0, third, third, third, 0, 0, 1, 0], [0, 0, 0.05, 0.05, 0]]
    assert weights_of(CHAT, Objective(normalisation="message")) == expected
    assert target_weights(CHAT, Objective(normalisation="message")).tolist() == pytest.approx([2.0, 0.1])


def test_whole_sequence_weighs_every_token_but_the_first() -> None:
    expected = [[1, 1, 1, 1, 1, 1, 1, 0], [0.1, 0.1, 0.1, 0.1, 0]]
    assert weights_of(CHAT, Objective("sequence")) == expected
    assert target_weights(CHAT, Objective("sequence")).tolist() == pytest.approx([7.0, 0.4])
    assert target_weights(CHAT, Objective("sequence", "message")).tolist() == pytest.approx([1.0, 0.1])


def test_a_trained_first_token_is_no_target_and_no_part_of_its_message() -> None:
    arrays = flagged(["xxx.x", "x", "x.x", ""], [1.0, 1.0, 1.0, 1.0])
    assert target_weights(arrays).tolist() == [3.0, 0.0, 1.0, 0.0]
    assert target_weights(arrays, Objective(normalisation="message")).tolist() == [2.0, 0.0, 1.0, 0.0]
    assert weights_of(arrays, Objective(normalisation="message"))[0] == [0.5, 0.5, 0, 1, 0]


def test_runs_of_neighbouring_documents_do_not_join() -> None:
    arrays = flagged([".xx", "xxx", ".xx"], [1.0, 1.0, 1.0])
    packs = Packs(np.arange(3), np.array([0, 3]))
    batch = collate(arrays, packs, [0], 0, Objective(normalisation="message"))
    assert batch.weights_BT[0].tolist() == [0.5, 0.5, 0, 0.5, 0.5, 0, 0.5, 0.5, 0]
    assert (batch.weight, batch.num_targets) == (3.0, 6)


def test_suffix_loss_and_chat_turns_are_what_the_flags_say() -> None:
    """MetaICL's suffix loss trains from the first demonstration's answer on; a chat trains each assistant turn."""
    arrays = flagged([".....xxxxxx", "..xx..xx"], [1.0, 1.0])
    assert [sum(row) for row in weights_of(arrays, Objective())] == [6, 4]


def test_weights_of_one_are_label_loss() -> None:
    arrays = documents([9, 4, 12], [1.0, 1.0, 1.0])
    packs = Packs(np.arange(3), np.array([0, 2, 3]))
    plain = collate(arrays, packs, [0, 1], 0).weights_BT
    assert set(np.unique(plain).tolist()) == {0.0, 1.0} and plain.sum() == 7 + 2 + 10


def test_collate_shifts_targets_inside_each_document() -> None:
    arrays = documents([4, 0, 3, 2], weights=[1.0, 1.0, 0.5, 1.0], trained_from=0)
    packs = Packs(np.array([0, 2, 3]), np.array([0, 2, 3]))
    batch = collate(arrays, packs, range(2), pad_id=9)
    ids = arrays.ids.tolist()
    assert batch.ids_BT.tolist() == [ids[:7], [*ids[7:], 9, 9, 9, 9, 9]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 3, 0, 1, 2], [0, 1, 0, 1, 2, 3, 4]]
    assert batch.documents_BT.tolist() == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1]]
    assert batch.weights_BT.tolist() == [[1, 1, 1, 0, 0.5, 0.5, 0], [1, 0, 0, 0, 0, 0, 0]]
    assert batch.targets_BT.tolist() == [[*ids[1:4], 0, *ids[5:7], 0], [ids[8], 0, 0, 0, 0, 0, 0]]
    assert (batch.num_tokens, batch.num_targets, batch.weight) == (9, 6, 5.0)


def test_packs_hold_places_of_the_order() -> None:
    arrays = documents([3, 2, 4], order=[2, 0, 0, 1])
    packs = Packs(np.array([0, 1, 2, 3]), np.array([0, 1, 4]))
    ids = arrays.ids.tolist()
    batch = collate(arrays, packs, [1, 0], 0)
    assert batch.ids_BT.tolist() == [[*ids[:3], *ids[:3], *ids[3:5]], [*ids[5:], 0, 0, 0, 0]]
    assert batch.num_tokens == 12


def test_a_rank_without_packs_gets_one_token_of_padding() -> None:
    batch = collate(documents([3]), Packs(np.array([0]), np.array([0, 1])), [], pad_id=5)
    assert batch.ids_BT.tolist() == [[5]] and batch.positions_BT.tolist() == [[0]]
    assert (batch.num_tokens, batch.num_targets, batch.weight) == (0, 0, 0.0)


DOCUMENTS = st.lists(
    st.tuples(st.text("x.", max_size=12), st.sampled_from([0.0, 0.1, 1.0, 2.5])), min_size=1, max_size=25
)


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS, st.sampled_from(OBJECTIVES), st.data())
def test_batches_equal_a_plain_loop(
    made: list[tuple[str, float]], objective: Objective, data: st.DataObject
) -> None:
    arrays = flagged([row for row, _ in made], [weight for _, weight in made])
    arrays.order = np.array(data.draw(st.lists(st.integers(0, len(made) - 1), max_size=30)), dtype=np.int64)
    lengths = np.diff(arrays.offsets)
    packs = pack(lengths[arrays.order], 16, 7, 0)
    batch = collate(arrays, packs, np.arange(packs.num_packs), 9, objective)
    total = 0.0
    for row in range(packs.num_packs):
        column = 0
        for number, place in enumerate(packs.of(row)):
            document = int(arrays.order[place])
            ids, weights = by_hand(arrays, document, objective)
            here = slice(column, column + len(ids))
            assert batch.ids_BT[row, here].tolist() == ids
            assert batch.positions_BT[row, here].tolist() == list(range(len(ids)))
            assert set(batch.documents_BT[row, here]) == {number}
            assert batch.weights_BT[row, here].tolist() == pytest.approx([*weights[1:], 0.0], rel=1e-6)
            wanted = [id_ if weight else 0 for id_, weight in zip(ids[1:], weights[1:])]
            assert batch.targets_BT[row, here].tolist() == [*wanted, 0]
            total += sum(weights)
            column += len(ids)
        assert set(batch.ids_BT[row, column:]) <= {9} and not batch.weights_BT[row, column:].any()
        assert batch.positions_BT[row, column:].tolist() == list(range(batch.ids_BT.shape[1] - column))
        assert set(batch.documents_BT[row, column:]) <= {len(packs.of(row))}
    assert batch.num_tokens == lengths[arrays.order].sum()
    assert batch.weight == pytest.approx(total, rel=1e-6)
    sums = [sum(by_hand(arrays, document, objective)[1]) for document in range(len(made))]
    assert target_weights(arrays, objective).tolist() == pytest.approx(sums, rel=1e-6)


def by_hand(arrays: Arrays, document: int, objective: Objective) -> tuple[list[int], list[float]]:
    """The ids of a document, and the weight of each as a target."""
    begin, end = arrays.offsets[document : document + 2].tolist()
    flags = [bool(t) or objective.loss == "sequence" for t in arrays.trained[begin:end].tolist()]
    flags[:1] = [False] * len(flags[:1])
    weights = []
    for place, flag in enumerate(flags):
        size, left, right = 1, place - 1, place + 1
        while objective.normalisation == "message" and flag and flags[left]:
            size, left = size + 1, left - 1
        while objective.normalisation == "message" and flag and right < len(flags) and flags[right]:
            size, right = size + 1, right + 1
        weights.append(float(arrays.loss_weight[document]) * float(Fraction(flag, size)))
    return arrays.ids[begin:end].tolist(), weights


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_loss_weight_that_cannot_be_used_is_named(weight: float) -> None:
    with pytest.raises(DataError, match=r"record 1.*loss_weight"):
        target_weights(documents([2, 2], [1.0, weight]))


# ------------------------------------------------------------------------------------------ prefetch


def test_prefetch_keeps_the_order_and_runs_ahead_by_its_depth_only() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(8):
            made.append(number)
            yield number

    ahead = prefetch(items(), depth=3)
    assert next(ahead) == 0
    until(lambda: len(made) == 4)
    time.sleep(0.02)
    assert made == [0, 1, 2, 3]  # the one that is in use and three more
    assert list(ahead) == list(range(1, 8))


def test_prefetch_raises_where_the_item_would_have_been() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise DataError("a batch cannot be made")

    ahead = prefetch(items())
    assert next(ahead) == 1
    with pytest.raises(DataError, match="cannot be made"):
        next(ahead)


def test_a_prefetch_that_is_left_early_leaves_no_thread() -> None:
    ahead = prefetch(iter(range(100)), depth=2)
    assert next(ahead) == 0
    ahead.close()
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("prefetch")])
    assert list(prefetch([])) == []


def until(happened: Any) -> None:
    """Wait until something has happened; ten seconds at most."""
    end = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.001)
