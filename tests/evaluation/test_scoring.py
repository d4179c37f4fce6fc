"""Ranking equals one forward pass per option; generation equals that of transformers; batches change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from taskmill.evaluation import scoring
from taskmill.evaluation.fitting import Opening, Ranking
from taskmill.evaluation.scoring import Scorer
from taskmill.training.encoding.tokenizer import TextTokenizer


def some_ids(number: int, size: int) -> np.ndarray[Any, Any]:
    return ((np.arange(size, dtype=np.int32) * 13 + number * 7) % 290 + 4).astype(np.int32)


RANKINGS = [
    Ranking(
        some_ids(n, 1 + (n * 5) % 17),
        tuple(some_ids(n + 31 * o, 1 + (n + o) % 4) for o in range(2 + n % 3)),
        tuple((n + o) % 2 if (n + o) % 4 else 0 for o in range(2 + n % 3)),
    )
    for n in range(14)
]
OPENINGS = [Opening(some_ids(n, 1 + (n * 7) % 19), 4 + n % 9) for n in range(11)]


def naive(model: Any, ranking: Ranking) -> list[float]:
    scores = []
    for suffix, skip in zip(ranking.suffixes, ranking.skip):
        ids = torch.tensor(np.concatenate([ranking.shared, suffix]), dtype=torch.long)
        with torch.no_grad():
            logprobs = model(ids[None]).logits[0].log_softmax(-1)
        start = len(ranking.shared)
        scores.append(sum(float(logprobs[start + i - 1, ids[start + i]]) for i in range(skip, len(suffix))))
    return scores


@pytest.fixture
def ask(make_model: Callable[..., Any], tokenizer: TextTokenizer) -> Callable[..., Scorer]:
    model = make_model()

    def make(batch_size: int = 4, tree: bool = True) -> Scorer:
        return Scorer(model, tokenizer.pad_id, tokenizer.eos_id, batch_size, tree)

    return make


@pytest.mark.parametrize("tree", [True, False])
def test_ranking_equals_one_forward_pass_per_option(ask: Callable[..., Scorer], tree: bool) -> None:
    scorer = ask(tree=tree)
    for ranking, scores in zip(RANKINGS, scoring.rank(scorer, RANKINGS)):
        assert scores == pytest.approx(naive(scorer.model, ranking), abs=1e-5)


def test_ranking_sees_the_prefix_and_not_the_other_options(ask: Callable[..., Scorer]) -> None:
    shared, option = some_ids(1, 9), some_ids(2, 3)
    alone = scoring.rank(ask(), [Ranking(shared, (option,), (0,))])[0][0]
    beside = [Ranking(shared, (some_ids(n, 4), option), (0, 0)) for n in (5, 6)]
    assert [row[1] for row in scoring.rank(ask(), beside)] == pytest.approx([alone] * 2, abs=1e-5)
    assert abs(scoring.rank(ask(), [Ranking(shared[1:], (option,), (0,))])[0][0] - alone) > 1e-2


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_changes_nothing(ask: Callable[..., Scorer], batch_size: int) -> None:
    expected, scores = scoring.rank(ask(), RANKINGS), scoring.rank(ask(batch_size), RANKINGS)
    for one, other in zip(expected, scores):
        assert other == pytest.approx(one, abs=1e-5)
    assert scoring.generate(ask(batch_size), OPENINGS) == scoring.generate(ask(), OPENINGS)


def test_many_options_are_spread_over_rows(
    ask: Callable[..., Scorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_ROW_TOKENS", 12)
    many = Ranking(some_ids(3, 6), tuple(some_ids(n, 3) for n in range(9)), (0,) * 9)
    assert scoring.rank(ask(), [many])[0] == pytest.approx(naive(ask().model, many), abs=1e-5)


def test_masks_and_logits_stay_within_their_limits(
    ask: Callable[..., Scorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_MASK_CELLS", 900)
    rows = [row for i, r in enumerate(RANKINGS) for row in scoring._rows(i, r, True)]
    rows.sort(key=lambda row: -row.length)
    batches = list(scoring._batches(ask(64), rows))
    assert [row for batch in batches for row in batch] == rows
    assert all(len(b) == 1 or len(b) * b[0].length ** 2 <= 900 for b in batches)
    assert len(batches) > 2


def test_equal_options_tie_and_the_lowest_index_wins(ask: Callable[..., Scorer]) -> None:
    same = some_ids(4, 3)
    [scores] = scoring.rank(ask(), [Ranking(some_ids(1, 8), (same, same, same), (0, 0, 0))])
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-5)
    assert scoring.best(scores) == 0
    assert scoring.best([-3.0, -1.000001, -1.0]) == 1
    assert scoring.best([-3.0, -1.001, -1.0]) == 2


@pytest.mark.filterwarnings("ignore")
def test_greedy_equals_transformers(ask: Callable[..., Scorer]) -> None:
    scorer = ask()
    for opening, found in zip(OPENINGS, scoring.generate(scorer, OPENINGS)):
        ids = torch.tensor(opening.ids, dtype=torch.long)[None]
        whole = scorer.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=opening.max_new_tokens
        )[0, ids.shape[1] :].tolist()
        assert found == (whole[: whole.index(scorer.eos_id)] if scorer.eos_id in whole else whole)


def test_generation_stops_at_the_end_of_sequence(ask: Callable[..., Scorer]) -> None:
    free = scoring.generate(ask(), OPENINGS)
    number = next(i for i, ids in enumerate(free) if len(set(ids)) > 2)
    stop = next(i for i in free[number] if i != free[number][0])
    scorer = scoring.replace(ask(), eos_id=stop)
    assert scoring.generate(scorer, OPENINGS)[number] == free[number][: free[number].index(stop)]


def test_generation_stops_at_the_end_of_the_turn_of_its_own_format(ask: Callable[..., Scorer]) -> None:
    free = scoring.generate(ask(), OPENINGS)
    number = next(i for i, ids in enumerate(free) if len(set(ids)) > 2)
    stop = next(i for i in free[number] if i != free[number][0])
    ended = [scoring.replace(o, end_id=stop if i == number else None) for i, o in enumerate(OPENINGS)]
    expected = [ids[: ids.index(stop)] if i == number else ids for i, ids in enumerate(free)]
    assert scoring.generate(ask(), ended) == expected


class _Deaf(torch.nn.Module):
    """A causal model that ignores masks made for sharing rows: every earlier token counts."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config, self.dtype = model, model.config, model.dtype

    def get_input_embeddings(self) -> Any:
        return self.model.get_input_embeddings()

    def forward(self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None, **_: Any) -> Any:
        mask = attention_mask if attention_mask.ndim == 2 else None
        return self.model(input_ids, attention_mask=mask, position_ids=position_ids, use_cache=False)


def test_a_model_that_ignores_the_mask_is_found_out(make_model: Callable[..., Any]) -> None:
    model = make_model()
    assert scoring.open_scorer(model, 2, 1, 4).tree
    deaf = scoring.open_scorer(_Deaf(model), 2, 1, 4)
    assert not deaf.tree
    for ranking, scores in zip(RANKINGS, scoring.rank(deaf, RANKINGS)):
        assert scores == pytest.approx(naive(model, ranking), abs=1e-5)
