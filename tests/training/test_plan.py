"""The plan of a training: what is left out, what is refused, and what each process takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from token_arrays import VOCAB, documents, write_tokens

from taskmill.errors import DamagedError, DataError, TaskmillError
from taskmill.recipe import Train
from taskmill.training.packing.plan import Plan, make_plan
from taskmill.training.tokens import Tokens

TRAIN = Train(batch_size=4, micro_batch_size=2, warmup_steps=0, packing_window=100)


def plan_for(
    folder: Path, arrays: object, train: Train = TRAIN, max_length: int = 64, world_size: int = 1
) -> Plan:
    inputs = write_tokens(folder / f"tokens{world_size}", arrays, max_length)  # type: ignore[arg-type]
    return make_plan(train, Tokens.open(inputs.directory("tokenize")), 0, world_size)


def test_documents_without_a_target_are_left_out_and_counted(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, documents([5, 2, 0, 7, 1, 6], [1, 1, 1, 0, 1, 1]))
    assert sorted(plan.packs.documents.tolist()) == [0, 5]
    assert plan.counts()["num_documents_without_target"] == 3


def test_nothing_to_learn_is_explained(tmp_path: Path) -> None:
    with pytest.raises(TaskmillError, match="inspect RUN tokenize"):
        plan_for(tmp_path, documents([2, 1, 0]))


def test_a_document_over_the_context_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="record 1"):
        plan_for(tmp_path, documents([5, 20]), max_length=10)


def test_ids_that_the_tokenizer_has_not_are_refused(tmp_path: Path) -> None:
    arrays = documents([5, 6])
    arrays.ids[3] = VOCAB
    with pytest.raises(DamagedError, match=f"{VOCAB} ids"):
        plan_for(tmp_path, arrays)


@pytest.mark.parametrize(
    "change", [{}, {"loss_normalisation": "message"}, {"loss": "sequence"}, {"batch_tokens": 200}]
)
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_process_knows_the_weight_of_the_whole_update(
    tmp_path: Path, change: dict[str, object], world_size: int
) -> None:
    lengths = [3 + i * 7 % 30 for i in range(60)]
    arrays = documents(lengths, [0.1 + i % 3 for i in range(60)])
    train = dataclasses.replace(TRAIN, **change)  # type: ignore[arg-type]
    plan = plan_for(tmp_path, arrays, train, world_size=world_size)
    seen = 0
    for step in range(plan.num_steps):
        batches = [plan.batches(step, rank) for rank in range(world_size)]
        assert len({len(mine) for mine in batches}) == 1
        weight = sum(batch.weight for mine in batches for batch in mine)
        assert plan.weight(step) == pytest.approx(weight, rel=1e-6)
        seen += sum(batch.num_tokens for mine in batches for batch in mine)
    assert seen == plan.counts()["num_tokens"] == sum(lengths)
