"""Packed tables: the rows hold what batches hold, and TRL's collator reads them as meant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_arrays import documents

from taskmill.training.packing import table as packed_table
from taskmill.training.packing.batches import Objective, collate
from taskmill.training.packing.packs import Packs, pack
from taskmill.training.packing.table import pack_table


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.sampled_from([Objective(), Objective("sequence"), Objective(normalisation="message")]),
    st.booleans(),
)
def test_rows_hold_what_batches_hold(lengths: list[int], objective: Objective, weighted: bool) -> None:
    weights = [1.0 if not weighted or i % 3 else 0.1 for i in range(len(lengths))]
    arrays = documents(lengths, weights, order=[*range(len(lengths)), 0, 0])
    packs = pack(np.diff(arrays.offsets)[arrays.order], 20, 9, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_table, "_CHUNK", 17)
        rows = pack_table(arrays, packs, objective).to_pylist()
    assert len(rows) == packs.num_packs
    for number, row in enumerate(rows):
        batch = collate(arrays, packs, [number], 0, objective)
        assert row["input_ids"] == batch.ids_BT[0].tolist()
        assert [label != -100 for label in row["labels"][1:]] == (batch.weights_BT[0, :-1] > 0).tolist()
        targets = [label if label != -100 else 0 for label in row["labels"][1:]]
        assert targets == batch.targets_BT[0, :-1].tolist()
        assert row["seq_lengths"] == np.bincount(batch.documents_BT[0]).tolist()
        if "weights" in row:
            assert row["weights"][1:] == batch.weights_BT[0, :-1].tolist()
        else:
            assert len(set(batch.weights_BT[batch.weights_BT > 0].tolist())) <= 1


def test_a_part_of_the_packs_is_that_part_of_the_table() -> None:
    arrays = documents([4, 9, 3, 12, 5, 8, 2])
    packs = pack(np.diff(arrays.offsets), 12, 4, 0)
    whole = pack_table(arrays, packs).to_pylist()
    assert pack_table(arrays, packs, first=1, last=3).to_pylist() == whole[1:3]
    assert pack_table(arrays, packs, first=2, last=2).num_rows == 0
    empty = pack_table(documents([]), Packs(np.zeros(0, np.int64), np.zeros(1, np.int64)))
    assert empty.num_rows == 0 and empty.column_names == ["input_ids", "labels", "seq_lengths"]


def test_trl_reads_rows_as_meant() -> None:
    """Its padding-free collator restarts positions at each document; no label crosses one."""
    collator = pytest.importorskip("trl.trainer.sft_trainer").DataCollatorForLanguageModeling
    arrays = documents([4, 3, 6], trained_from=0)
    packs = Packs(np.arange(3), np.array([0, 2, 3]))
    rows: list[dict[str, Any]] = pack_table(arrays, packs).to_pylist()
    found = collator(pad_token_id=0, padding_free=True)(rows)
    assert found["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3, 4, 5]]
    ids = arrays.ids.tolist()
    labels = [-100, *ids[1:4], -100, *ids[5:7], -100, *ids[8:]]
    assert found["input_ids"].tolist() == [ids] and found["labels"].tolist() == [labels]
