"""Packing: nothing lost, nothing over capacity, equal packs compiled or not."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_arrays import documents

from taskmill.errors import DataError, UsageError
from taskmill.seeding import derive
from taskmill.training import packing
from taskmill.training.batches import collate, target_weights
from taskmill.training.packing import assign_python, load_compiled, pack

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
        assert len(set((row // window).tolist())) == 1
    first_of_pack = [int(packs.of(n)[0]) // window for n in range(packs.num_packs)]
    assert first_of_pack == sorted(first_of_pack)
    again = pack(length_D, capacity, window, seed)
    assert np.array_equal(again.documents, packs.documents) and np.array_equal(again.offsets, packs.offsets)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 70), max_size=150), st.integers(70, 140), st.integers(1, 60))
def test_compiled_packer_equals_python(lengths: list[int], capacity: int, window: int) -> None:
    compiled = load_compiled()
    if compiled is None:
        pytest.skip("numba is not installed")
    length_D = np.array(lengths, dtype=np.int64)
    index = np.arange(len(length_D))
    order = np.lexsort((index, -length_D, index // window))
    arguments = length_D[order], order // window, capacity
    assert np.array_equal(compiled(*arguments), assign_python(*arguments))


def test_pack_uses_the_compiled_packer_for_many_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    length_D = (np.arange(5000) * 7919) % 97 + 1
    plain = pack(length_D, 128, 500, 1)
    monkeypatch.setattr(packing, "_COMPILE_FROM", 10)
    compiled = pack(length_D, 128, 500, 1)
    assert np.array_equal(plain.documents, compiled.documents)
    assert np.array_equal(plain.offsets, compiled.offsets)


def test_best_fit_takes_the_fullest_pack_that_has_room() -> None:
    # 7 opens A (3 left), 6 opens B (4 left), 4 fits B exactly, 3 fits A exactly, 2 opens C.
    assert assign_python(np.array([7, 6, 4, 3, 2]), np.zeros(5, np.int64), 10).tolist() == [0, 1, 1, 0, 2]


def test_seed_moves_packs_inside_their_window_only() -> None:
    length_D = np.full(40, 10, dtype=np.int64)
    one, two = pack(length_D, 10, 20, seed=1), pack(length_D, 10, 20, seed=2)
    assert one.documents.tolist() != two.documents.tolist()
    assert sorted(one.documents[:20].tolist()) == sorted(two.documents[:20].tolist()) == list(range(20))


def test_fill_on_real_shaped_lengths_is_that_of_best_fit_decreasing() -> None:
    quantile = (np.arange(20_000) + 0.5) / 20_000
    normal = np.sqrt(2) * _inverse_erf(2 * quantile - 1)
    length_D = np.clip(np.exp(5 + normal), 1, 2048).astype(np.int64)[(np.arange(20_000) * 7919) % 20_000]
    packs = pack(length_D, 2048, 1000, 0)
    assert length_D.sum() / (packs.num_packs * 2048) > 0.99


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


def test_collate_shifts_targets_inside_each_document() -> None:
    arrays = documents([4, 0, 3, 2], weights=[1.0, 1.0, 0.5, 1.0], trained_from=0)
    packs = packing.Packs(np.array([0, 2, 3]), np.array([0, 2, 3]))
    batch = collate(arrays, packs, 0, 2, pad_id=9)
    ids = arrays.ids.tolist()
    assert batch.ids_BT.tolist() == [ids[:7], [*ids[7:], 9, 9, 9, 9, 9]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 3, 0, 1, 2], [0, 1, 0, 1, 2, 3, 4]]
    assert batch.documents_BT.tolist() == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1]]
    assert batch.weights_BT.tolist() == [[1, 1, 1, 0, 0.5, 0.5, 0], [1, 0, 0, 0, 0, 0, 0]]
    assert batch.targets_BT.tolist() == [[*ids[1:4], 0, *ids[5:7], 0], [ids[8], 0, 0, 0, 0, 0, 0]]
    assert (batch.num_tokens, batch.num_targets, batch.weight) == (9, 6, 5.0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.integers(0, 4))
def test_no_weight_is_lost_in_packs(lengths: list[int], trained_from: int) -> None:
    arrays = documents(lengths, [1 + i % 3 for i in range(len(lengths))], trained_from)
    packs = pack(np.diff(arrays.offsets), 20, 7, 0)
    if packs.num_packs:
        batch = collate(arrays, packs, 0, packs.num_packs, 0)
        assert batch.weight == float(target_weights(arrays).sum())


def test_target_weights_leave_out_the_first_token() -> None:
    arrays = documents([3, 1, 0, 2], [2.0, 1.0, 1.0, 0.0], trained_from=0)
    assert target_weights(arrays).tolist() == [4.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_loss_weight_that_cannot_be_used_is_named(weight: float) -> None:
    with pytest.raises(DataError, match=r"record 1.*loss_weight"):
        target_weights(documents([2, 2], [1.0, weight]))


def test_packing_needs_no_torch() -> None:
    code = "import sys, taskmill.training.packing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_golden_packs_change_only_with_a_new_revision() -> None:
    """The order of documents in training is part of what the train stage's REVISION stands for."""
    lengths = np.array([derive(5, "length", i) % 97 for i in range(500)])
    packs = pack(lengths, 128, 64, 3)
    found = hashlib.sha256(packs.documents.tobytes() + packs.offsets.tobytes()).hexdigest()[:16]
    assert found == "0b42c36113eb7edd", "other packs: raise REVISION of the train stage, then update this"
