"""Packing: nothing lost, nothing over capacity, equal packs compiled or not."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.errors import DataError, UsageError
from taskmill.seeding import derive
from taskmill.training.packing import packs as packing
from taskmill.training.packing.packs import Packs, assign_python, load_compiled, pack

LENGTHS = st.lists(st.integers(0, 40), max_size=120)


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(40, 130), st.integers(1, 50), st.integers(0, 3))
def test_every_document_once_and_nothing_over_capacity(
    lengths: list[int], capacity: int, window: int, seed: int
) -> None:
    length_D = np.array(lengths, dtype=np.int64)
    packs = pack(length_D, capacity, window, seed)
    assert sorted(packs.documents.tolist()) == np.flatnonzero(length_D).tolist()
    for number in range(packs.num_packs):
        row = packs.of(number)
        assert 0 < length_D[row].sum() <= capacity
        assert (np.diff(row) > 0).all()
    _, window_D = np.unique(np.flatnonzero(length_D) // window, return_inverse=True)
    window_at = dict(zip(np.flatnonzero(length_D).tolist(), window_D.tolist()))
    latest = 0
    for number in range(packs.num_packs):
        windows = [window_at[place] for place in packs.of(number).tolist()]
        latest = max([latest, *windows])
        assert min(windows) >= latest - 1  # its own window's, or moved on from the one before
    again = pack(length_D, capacity, window, seed)
    assert np.array_equal(again.documents, packs.documents) and np.array_equal(again.offsets, packs.offsets)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 70), max_size=150), st.integers(70, 140))
def test_compiled_packer_equals_python(lengths: list[int], capacity: int) -> None:
    compiled = load_compiled()
    if compiled is None:
        pytest.skip("numba is not installed")
    length_D = np.array(lengths, dtype=np.int64)
    arguments = np.sort(length_D)[::-1].copy(), capacity
    assert np.array_equal(compiled(*arguments), assign_python(*arguments))


def test_pack_uses_the_compiled_packer_for_many_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    length_D = (np.arange(5000) * 7919) % 97 + 1
    plain = pack(length_D, 128, 500, 1)
    budgeted = pack(length_D, 128, 500, 1, budget=1000, ranks=2)
    monkeypatch.setattr(packing, "_COMPILE_FROM", 10)
    assert np.array_equal(pack(length_D, 128, 500, 1, budget=1000, ranks=2).documents, budgeted.documents)
    compiled = pack(length_D, 128, 500, 1)
    assert np.array_equal(plain.documents, compiled.documents)
    assert np.array_equal(plain.offsets, compiled.offsets)


def test_best_fit_takes_the_fullest_pack_that_has_room() -> None:
    # 7 opens A (3 left), 6 opens B (4 left), 4 fits B exactly, 3 fits A exactly, 2 opens C.
    assert assign_python(np.array([7, 6, 4, 3, 2]), 10).tolist() == [0, 1, 1, 0, 2]


def test_the_emptiest_pack_of_a_window_moves_on_once() -> None:
    # Of 9 | 4 the 4 moves on. Of 9 | 4 3 the emptier pack has moved already; else 4, 3 and 1 would share one.
    packs = pack(np.array([9, 4, 9, 3, 1, 9]), 9, 2, 0)
    rows = [packs.of(number).tolist() for number in range(packs.num_packs)]
    assert sorted(rows) == [[0], [1, 3], [2], [4], [5]]
    assert rows[0] == [0] and sorted(rows[1:3]) == [[1, 3], [2]]


def test_seed_moves_packs_inside_their_window_only() -> None:
    length_D = np.full(40, 10, dtype=np.int64)
    one, two = pack(length_D, 10, 20, seed=1), pack(length_D, 10, 20, seed=2)
    assert one.documents.tolist() != two.documents.tolist()
    assert sorted(one.documents[:20].tolist()) == sorted(two.documents[:20].tolist()) == list(range(20))


def test_fill_on_real_shaped_lengths() -> None:
    length_D = real_shaped(20_000)
    for window, fill in ((1000, 0.9965), (20_000, 0.999)):
        packs = pack(length_D, 2048, window, 0)
        assert length_D.sum() / (packs.num_packs * 2048) > fill


def real_shaped(number: int) -> Any:
    """Lengths of a lognormal with sigma 1 and a mean of about 240, at most 2048, in a fixed order: int64[n]."""
    quantile = (np.arange(number) + 0.5) / number
    normal = np.sqrt(2) * _inverse_erf(2 * quantile - 1)
    lengths = np.clip(np.exp(5 + normal), 1, 2048).astype(np.int64)
    return lengths[(np.arange(number) * 7919) % number]


def _inverse_erf(x: np.ndarray) -> np.ndarray:
    """Winitzki's approximation, good to 0.2 %."""
    a, tail = 0.147, np.log(1 - x * x)
    half = 2 / (np.pi * a) + tail / 2
    return np.sign(x) * np.sqrt(np.sqrt(half * half - tail / a) - half)


@pytest.mark.parametrize("length", [9, -1])
def test_a_document_that_does_not_fit_is_named(length: int) -> None:
    with pytest.raises(DataError, match=rf"record 2.*found {length}.*0 to 8 tokens"):
        pack(np.array([3, 8, length, 9]), 8, 100, 0)


def test_capacity_and_window_must_be_positive() -> None:
    with pytest.raises(UsageError, match="max_length is 0"):
        pack(np.array([1]), 0, 1, 0)
    with pytest.raises(UsageError, match="packing_window is 0"):
        pack(np.array([1]), 1, 0, 0)


def test_no_documents_give_no_packs() -> None:
    assert pack(np.array([], dtype=np.int64), 8, 4, 0).num_packs == 0
    assert pack(np.array([0, 0]), 8, 4, 0).num_packs == 0


BUDGETS = st.integers(40, 400)


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(40, 130), BUDGETS, st.integers(1, 5), st.sampled_from(["best_fit", "none"]))
def test_budget_is_kept_and_every_document_is_in_one_update(
    lengths: list[int], capacity: int, budget: int, ranks: int, strategy: Any
) -> None:
    length_D = np.array(lengths, dtype=np.int64)
    packs = pack(length_D, capacity, 8, 0, strategy, budget=budget, ranks=ranks)
    assert packs.updates is not None and packs.lengths is not None
    assert sorted(packs.documents.tolist()) == np.flatnonzero(length_D).tolist()
    assert packs.lengths.tolist() == length_D[packs.documents].tolist()
    assert (packs.num_tokens <= capacity).all() and (packs.num_tokens > 0).all()
    assert (
        packs.updates[0] == 0 and packs.updates[-1] == packs.num_packs and (np.diff(packs.updates) > 0).all()
    )
    present, one_rank = (
        np.flatnonzero(length_D).tolist(),
        pack(length_D, capacity, 8, 0, strategy, budget=budget),
    )
    for update, documents_U in enumerate(documents_of_updates(packs)):
        assert length_D[documents_U].sum() <= budget
        assert documents_U == present[: len(documents_U)]  # a run of the order
        del present[: len(documents_U)]
        assert documents_U == documents_of_updates(one_rank)[update]


def documents_of_updates(packs: Packs) -> list[list[int]]:
    """The places of each update, ascending."""
    assert packs.updates is not None
    ends = packs.offsets[packs.updates].tolist()
    return [sorted(packs.documents[a:b].tolist()) for a, b in pairwise(ends)]


@pytest.mark.parametrize(
    "capacity,budget,ranks", [(2048, 8 * 2048, 8), (2048, 16 * 2048, 3), (4096, 100_000, 7)]
)
def test_budget_is_used_and_packs_are_even(capacity: int, budget: int, ranks: int) -> None:
    """The longest pack is hardly above the mean of its update, or above its longest document where that is longer."""
    packs = pack(real_shaped(20_000), capacity, 1000, 0, budget=budget, ranks=ranks)
    assert packs.updates is not None and packs.lengths is not None
    assert np.add.reduceat(packs.num_tokens, packs.updates[:-1])[:-1].mean() > 0.98 * budget
    unevenness = []
    for first, last in pairwise(packs.updates.tolist()[:-1]):  # all but the last update, which may be smaller
        assert (last - first) % ranks == 0
        tokens_P = packs.num_tokens[first:last]
        longest = packs.lengths[packs.offsets[first] : packs.offsets[last]].max()
        unevenness.append(tokens_P.max() / max(longest, tokens_P.mean()) - 1)
    assert np.mean(unevenness) < 0.01 and max(unevenness) < 0.05


def test_a_budget_below_a_document_is_named() -> None:
    with pytest.raises(DataError, match=r"record 1.*found 30.*0 to 20 tokens, train.batch_tokens"):
        pack(np.array([3, 30]), 40, 100, 0, budget=20)


def test_no_packing_keeps_every_document_alone_and_shuffles_inside_the_window() -> None:
    length_D = np.array([5, 0, 3, 8, 8, 1])
    packs = pack(length_D, 8, 3, 0, "none")
    assert sorted(packs.documents.tolist()) == [0, 2, 3, 4, 5] and packs.offsets.tolist() == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]
    assert sorted(packs.documents[:2].tolist()) == [0, 2]
    many = pack(np.full(40, 3), 8, 20, 0, "none").documents.tolist()
    assert many != list(range(40)) and sorted(many[:20]) == list(range(20))


def test_more_documents_leave_earlier_windows_as_they_were() -> None:
    length_D = real_shaped(3000)
    few, many = pack(length_D[:2000], 2048, 500, 9), pack(length_D, 2048, 500, 9)
    assert (
        many.documents[:1300].tolist() == few.documents[:1300].tolist()
    )  # all of the first three but what moved on


def test_work_of_a_pack_grows_with_tokens_and_with_squared_lengths() -> None:
    packs = pack(np.array([4, 4, 8]), 8, 3, 0)
    assert sorted(packs.num_tokens.tolist()) == [8, 8]
    assert sorted(packs.work.tolist()) == [8 * 49_152 + 32, 8 * 49_152 + 64]


def test_packing_needs_no_torch() -> None:
    code = (
        "import sys, taskmill.training.packing.steps, taskmill.training.packing.table; "
        "sys.exit(bool({'torch', 'numba', 'datasets', 'polars'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_golden_packs_change_only_with_a_new_revision() -> None:
    """The order of documents in training is part of what the train stage's REVISION stands for."""
    lengths = np.array([derive(5, "length", i) % 97 for i in range(500)])
    packs = pack(lengths, 128, 64, 3)
    found = hashlib.sha256(packs.documents.tobytes() + packs.offsets.tobytes()).hexdigest()[:16]
    assert found == "4cc9a10772753369", "other packs: raise REVISION of the train stage, then update this"
