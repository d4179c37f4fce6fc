"""Steps: every pack once, the same packs per update for any number of ranks, every rank the same number of passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.errors import UsageError
from taskmill.recipe import Train
from taskmill.recipe_values import find_problems
from taskmill.training.packing.packs import Packs, pack
from taskmill.training.packing.steps import Steps, make_steps

LENGTHS = st.lists(st.integers(0, 40), max_size=150)
RANKS = (1, 2, 3, 4)


def made(lengths: list[int], train: Train, ranks: int) -> tuple[Packs, Steps]:
    """Packs of at most 40 tokens and their steps."""
    packs = pack(
        np.array(lengths, dtype=np.int64),
        40,
        train.packing_window,
        3,
        train.packing,
        budget=train.batch_tokens,
        ranks=ranks,
    )
    return packs, make_steps(packs, train, ranks)


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 4), st.sampled_from(["best_fit", "none"]), st.booleans())
def test_nothing_is_lost_and_ranks_go_through_as_many_passes(
    lengths: list[int], batch_size: int, micro: int, packing: str, by_tokens: bool
) -> None:
    budget = 40 * batch_size if by_tokens else None
    train = Train(
        batch_size=batch_size,
        micro_batch_size=micro,
        batch_tokens=budget,
        packing_window=20,
        packing=packing,  # type: ignore[arg-type]
    )
    documents: dict[int, list[list[int]]] = {}
    for ranks in RANKS:
        packs, steps = made(lengths, train, ranks)
        seen: list[int] = []
        documents[ranks] = []
        for step in range(steps.num_steps):
            passes = [steps.micro_batches(step, rank) for rank in range(ranks)]
            assert len({len(own) for own in passes}) == 1 and passes[0]
            numbers = [int(n) for own in passes for part in own for n in part]
            assert all(len(part) <= micro for own in passes for part in own)
            assert sorted(numbers) == sorted(steps.packs(step).tolist())
            if not by_tokens:
                assert len(numbers) <= batch_size
                sizes = [sum(map(len, own)) for own in passes]
                assert max(sizes) - min(sizes) <= max(1, micro)
            here = np.concatenate([packs.of(n) for n in numbers])
            assert not by_tokens or np.array(lengths)[here].sum() <= 40 * batch_size
            documents[ranks].append(sorted(here.tolist()))
            seen += numbers
        assert sorted(seen) == list(range(packs.num_packs))
    assert all(documents[ranks] == documents[1] for ranks in RANKS)


def test_one_rank_takes_consecutive_packs_the_largest_first() -> None:
    packs = Packs(np.arange(5), np.arange(6), lengths=np.array([3, 9, 5, 7, 2]))
    steps = make_steps(packs, Train(batch_size=3, micro_batch_size=2))
    assert steps.num_steps == 2
    assert [part.tolist() for part in steps.micro_batches(0, 0)] == [[1, 2], [0]]
    assert [part.tolist() for part in steps.micro_batches(1, 0)] == [[3, 4]]


def test_ranks_are_dealt_to_there_and_back() -> None:
    packs = Packs(np.arange(7), np.arange(8), lengths=np.array([9, 8, 7, 6, 5, 4, 3]))
    steps = make_steps(packs, Train(batch_size=7, micro_batch_size=2), world_size=2)
    assert [part.tolist() for part in steps.micro_batches(0, 0)] == [[0, 3], [4]]
    assert [part.tolist() for part in steps.micro_batches(0, 1)] == [[1, 2], [5, 6]]
    few = make_steps(packs, Train(batch_size=3, micro_batch_size=1), world_size=2)
    assert [part.tolist() for part in few.micro_batches(0, 1)] == [[1], []]


def test_a_budget_gives_every_rank_even_passes() -> None:
    lengths = [1 + (i * 7919) % 97 for i in range(4000)]
    length_D = np.array(lengths, dtype=np.int64)
    packs = pack(length_D, 512, 1000, 0, budget=8 * 512, ranks=4)
    steps = make_steps(packs, Train(batch_tokens=8 * 512, micro_batch_size=1), world_size=4)
    for step in range(steps.num_steps - 1):
        loads = [
            [int(packs.num_tokens[p].sum()) for p in steps.micro_batches(step, rank)] for rank in range(4)
        ]
        assert [len(own) for own in loads] == [2, 2, 2, 2]
        assert max(map(sum, loads)) < 1.05 * np.mean([sum(own) for own in loads])


@pytest.mark.parametrize("budget,batch_tokens", [(None, 100), (100, None)])
def test_packs_of_another_kind_of_update_are_refused(budget: int | None, batch_tokens: int | None) -> None:
    packs = pack(np.array([10, 20]), 40, 10, 0, budget=budget)
    with pytest.raises(UsageError, match=r"budget=train\.batch_tokens"):
        make_steps(packs, Train(batch_tokens=batch_tokens))


def test_a_budget_below_the_context_is_a_problem_of_the_recipe() -> None:
    raw = {"tokenize": {"max_length": 2048}, "train": {"batch_tokens": 2000}}
    problems = [(where, text) for where, text in find_problems(raw) if "batch_tokens" in where]
    assert len(problems) == 1 and "at least tokenize.max_length = 2048" in problems[0][1]
    raw["train"]["batch_tokens"] = 2048
    assert not [where for where, _ in find_problems(raw) if "batch_tokens" in where]


def test_no_packs_make_no_steps() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert make_steps(pack(none, 8, 4, 0), Train()).num_steps == 0
    assert make_steps(pack(none, 8, 4, 0, budget=8), Train(batch_tokens=8)).num_steps == 0
