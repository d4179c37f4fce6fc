"""Ranking equals one forward pass per option, whatever the model; batches change nothing; nothing is computed twice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from taskmill.errors import DataError, LimitError
from taskmill.evaluation.answering import caching
from taskmill.evaluation.answering import ranking as ranks
from taskmill.evaluation.answering import rows as layouts
from taskmill.evaluation.answering.scorer import Scorer, is_exact, logits_at, widen_head, window
from taskmill.evaluation.asking.fitting import Ranking
from taskmill.training.encoding.tokenizer import TextTokenizer
from taskmill.training.models.pretrained import cast_weights


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
HEAD = some_ids(5, 21)
HEADED = [
    Ranking(np.concatenate([HEAD, some_ids(n, 1 + n)]), (some_ids(n, 3), some_ids(n + 1, 2)), (0, 0))
    for n in range(6)
]
LETTERS = [
    Ranking(some_ids(n, 3 + n), tuple(some_ids(40 + o, 1) for o in range(4)), (0,) * 4) for n in range(5)
]


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


def fed(scorer: Scorer, rankings: list[Ranking]) -> tuple[int, int, int]:
    """Return the tokens that go through the model, the places whose logits are computed, and the forward passes."""
    tokens, places = [], []
    model = scorer.model
    hooks = [
        model.get_input_embeddings().register_forward_hook(
            lambda _, given, out: tokens.append(given[0].numel())
        ),
        model.get_output_embeddings().register_forward_hook(
            lambda _, given, out: places.append(out.shape[:-1].numel())
        ),
    ]
    try:
        ranks.rank(scorer, rankings)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(tokens), sum(places), len(tokens)


# ------------------------------------------------------------------------------------- what is computed


@pytest.mark.parametrize("tree", [True, False])
@pytest.mark.parametrize("rankings", [RANKINGS, HEADED, LETTERS], ids=["mixed", "headed", "letters"])
def test_ranking_equals_one_forward_pass_per_option(
    ask: Callable[..., Scorer], tree: bool, rankings: list[Ranking]
) -> None:
    scorer = ask(tree=tree)
    for ranking, scores in zip(rankings, ranks.rank(scorer, rankings)):
        assert scores == pytest.approx(naive(scorer.model, ranking), abs=1e-5)


def test_ranking_sees_the_prefix_and_not_the_other_options(ask: Callable[..., Scorer]) -> None:
    shared, option = some_ids(1, 9), some_ids(2, 3)
    alone = ranks.rank(ask(), [Ranking(shared, (option,), (0,))])[0][0]
    beside = [Ranking(shared, (some_ids(n, 4), option), (0, 0)) for n in (5, 6)]
    assert [row[1] for row in ranks.rank(ask(), beside)] == pytest.approx([alone] * 2, abs=1e-5)
    assert abs(ranks.rank(ask(), [Ranking(shared[1:], (option,), (0,))])[0][0] - alone) > 1e-2


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_changes_nothing(ask: Callable[..., Scorer], batch_size: int) -> None:
    everything = RANKINGS + HEADED + LETTERS
    expected, scores = ranks.rank(ask(), everything), ranks.rank(ask(batch_size), everything)
    for one, other in zip(expected, scores):
        assert other == pytest.approx(one, abs=1e-5)


def test_the_order_of_questions_changes_nothing(ask: Callable[..., Scorer]) -> None:
    everything = RANKINGS + HEADED + LETTERS
    backwards = ranks.rank(ask(), everything[::-1])[::-1]
    for one, other in zip(ranks.rank(ask(), everything), backwards):
        assert other == pytest.approx(one, abs=1e-5)


def test_options_without_tokens_alone_or_all_skipped(ask: Callable[..., Scorer]) -> None:
    shared, option, nothing = some_ids(1, 6), some_ids(2, 3), some_ids(0, 0)
    rankings = [
        Ranking(shared, (option, nothing), (0, 0)),
        Ranking(shared, (nothing,), (0,)),
        Ranking(shared, (option, some_ids(3, 2)), (3, 1)),
        Ranking(shared, (option,), (2,)),
        Ranking(shared[:1], (), ()),
    ]
    found = ranks.rank(ask(), rankings)
    for ranking, scores in zip(rankings, found):
        assert scores == pytest.approx(naive(ask().model, ranking), abs=1e-5)
    assert found[0][1] == 0.0 and found[1] == [0.0] and found[2][0] == 0.0 and found[4] == []
    assert ranks.rank(ask(), []) == []


def test_equal_options_tie_and_the_lowest_index_wins(ask: Callable[..., Scorer]) -> None:
    same = some_ids(4, 3)
    [scores] = ranks.rank(ask(), [Ranking(some_ids(1, 8), (same, some_ids(9, 3), same), (0, 0, 0))])
    assert scores[0] == scores[2] != scores[1]
    assert ranks.best([-2.0, *scores[:1] * 2]) == (0 if scores[0] < -2.0 else 1)
    assert ranks.best([-3.0, -1.000001, -1.0]) == 1
    assert ranks.best([-3.0, -1.001, -1.0]) == 2


# ------------------------------------------------------------------------------------------- how much


def test_a_prefix_goes_through_the_model_once_and_last_tokens_never(ask: Callable[..., Scorer]) -> None:
    ranking = Ranking(some_ids(1, 9), (some_ids(2, 3), some_ids(3, 4), some_ids(4, 1)), (0, 0, 0))
    assert fed(ask(), [ranking]) == (9 + 2 + 3, 1 + 2 + 3, 2)
    assert fed(ask(tree=False), [ranking])[0] == 3 * (9 + 3)  # padded to the longest


@pytest.mark.parametrize("tree", [True, False])
def test_letters_need_one_pass_and_one_row_of_logits_per_question(
    ask: Callable[..., Scorer], tree: bool
) -> None:
    width = max(len(ranking.shared) for ranking in LETTERS)
    assert fed(ask(8, tree), LETTERS) == (width * len(LETTERS), len(LETTERS), 1)


@pytest.mark.parametrize("batch_size", [3, 64])
def test_what_questions_begin_with_goes_through_the_model_once(
    ask: Callable[..., Scorer], batch_size: int
) -> None:
    scorer = ask(batch_size)
    tail, parts = 2 + 1, [[6, 5, 4], [3, 2, 1]] if batch_size == 3 else [[6, 5, 4, 3, 2, 1]]
    tokens, _, passes = fed(scorer, HEADED)
    assert passes == 1 + 2 * len(parts)
    assert tokens == len(HEAD) + sum(len(part) * (part[0] + tail) for part in parts)
    few = [Ranking(ranking.shared[-8:], ranking.suffixes, ranking.skip) for ranking in HEADED]
    assert fed(scorer, few)[2] == 2 * len(parts)  # too little in common


def test_questions_with_a_frequent_head_share_batches(ask: Callable[..., Scorer]) -> None:
    strangers = [Ranking(some_ids(n + 9, len(r.shared)), r.suffixes, r.skip) for n, r in enumerate(HEADED)]
    mixed = [ranking for pair in zip(HEADED, strangers) for ranking in pair]
    layout = layouts.Layout.of(ask(6))
    rows = [row for index, ranking in enumerate(mixed) for row in layout.rows(index, ranking)]
    batches = list(layout.batches(rows))
    assert [(head, sorted(row.question for row in batch)) for head, batch in batches] == [
        (len(HEAD), [0, 2, 4, 6, 8, 10]),
        (0, [1, 3, 5, 7, 9, 11]),
    ]
    apart = layouts.Layout.of(ask(6, tree=False))
    assert {
        head for head, _ in apart.batches([r for i, m in enumerate(mixed) for r in apart.rows(i, m)])
    } == {0}


def test_two_heads_are_kept_apart(ask: Callable[..., Scorer]) -> None:
    others = [
        Ranking(np.concatenate([HEAD[::-1], r.shared[len(HEAD) :]]), r.suffixes, r.skip) for r in HEADED
    ]
    scorer = ask(3)
    for ranking, scores in zip(HEADED + others, ranks.rank(scorer, HEADED + others)):
        assert scores == pytest.approx(naive(scorer.model, ranking), abs=1e-5)
    assert fed(scorer, HEADED + others)[2] == 2 * fed(scorer, HEADED)[2]


def test_a_head_is_not_among_the_tokens_of_a_pass(
    ask: Callable[..., Scorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "_THREAD_TOKENS", 14)  # 28 of a pass: three rows of 6 + 3, one of 27 + 3
    layout = layouts.Layout.of(ask(64))
    rows = [row for index, ranking in enumerate(HEADED) for row in layout.rows(index, ranking)]
    assert [len(batch) for _, batch in layout.batches(rows)] == [3, 3]


def test_equal_questions_are_asked_once(ask: Callable[..., Scorer]) -> None:
    once = fed(ask(), RANKINGS[:3])
    assert fed(ask(), RANKINGS[:3] * 5) == once
    scores = ranks.rank(ask(), RANKINGS[:3] * 5)
    assert scores == ranks.rank(ask(), RANKINGS[:3]) * 5
    scores[0][0] = 1.0
    assert scores[3][0] != 1.0


def test_questions_and_options_that_skip_other_tokens_are_not_equal(ask: Callable[..., Scorer]) -> None:
    shared, option = some_ids(1, 6), some_ids(2, 3)
    rankings = [Ranking(shared, (option, option), skip) for skip in ((0, 1), (0, 2), (1, 1))]
    for ranking, scores in zip(rankings, ranks.rank(ask(), rankings)):
        assert scores == pytest.approx(naive(ask().model, ranking), abs=1e-5)


def test_many_options_are_spread_over_rows(
    ask: Callable[..., Scorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "_ROW_TOKENS", 12)
    many = Ranking(some_ids(3, 6), tuple(some_ids(n, 3) for n in range(9)), (0,) * 9)
    assert [len(row.options) for row in layouts.Layout.of(ask()).rows(0, many)] == [4, 4, 1]
    assert ranks.rank(ask(), [many])[0] == pytest.approx(naive(ask().model, many), abs=1e-5)


@pytest.mark.parametrize("limit", ["mask", "logits", "cache", "fed"])
def test_batches_stay_within_each_limit(
    ask: Callable[..., Scorer], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    scorer = ask(64)
    names = {"mask": "_MASK_CELLS", "logits": "_LOGIT_CELLS", "fed": "_THREAD_TOKENS"}
    limits = {"mask": 500, "logits": 20 * 320, "fed": 40, "cache": 90 * caching.bytes_per_token(scorer.model)}
    owner, name = (caching, "_HOST_BYTES") if limit == "cache" else (layouts, names[limit])
    layout = layouts.Layout.of(scorer)
    rows = [row for index, ranking in enumerate(RANKINGS) for row in layout.rows(index, ranking)]
    assert len(list(layout.batches(rows))) == 1
    monkeypatch.setattr(owner, name, limits[limit])
    layout = layouts.Layout.of(scorer)
    batches = [batch for _, batch in layout.batches(rows)]
    assert sorted(row.question for batch in batches for row in batch) == sorted(r.question for r in rows)
    assert 1 < len(batches) < len(rows)
    for batch in batches:
        tail = max(row.tail for row in batch)
        cells = len(batch) * (max(len(row.trunk) for row in batch) + tail)
        used = {"mask": cells * tail / 500, "cache": cells / 90, "fed": cells / 80}
        used["logits"] = sum(row.wanted for row in batch) / 20
        assert len(batch) == 1 or used[limit] <= 1
    for ranking, scores in zip(RANKINGS, ranks.rank(scorer, RANKINGS)):
        assert scores == pytest.approx(naive(scorer.model, ranking), abs=1e-5)


# ---------------------------------------------------------------------------------------- normalisation


def test_what_options_are_compared_by() -> None:
    ranking = Ranking(some_ids(1, 4), (some_ids(2, 3), some_ids(3, 2), some_ids(0, 0)), (1, 0, 0))
    scores, options, alone = [-6.0, -3.0, 0.0], [" naïve", "no", ""], [-1.0, -2.5, 0.0]

    def by(kind: str) -> list[float]:
        return ranks.normalised(kind, scores, ranking, options, alone)

    assert by("none") == scores
    assert by("token") == [-3.0, -1.5, 0.0]
    assert by("byte") == [-1.0, -1.5, 0.0]
    assert by("unconditional") == [-5.0, -0.5, 0.0]
    assert [ranks.best(by(kind)[:2]) for kind in ("none", "token", "byte", "unconditional")] == [1, 1, 0, 1]


def test_a_normalisation_that_is_not_known_or_lacks_its_scores_is_no_guess() -> None:
    for kind in ("bytes", "unconditional"):
        with pytest.raises(AssertionError):
            ranks.normalised(kind, [-1.0], LETTERS[0], ["a"], None)


# ------------------------------------------------------------------------------------------ other models

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
SHARED = {**SIZES, "num_key_value_heads": 2}
OLD = {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4}
MODELS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "gpt2": ("GPT2", {**OLD, "n_positions": 128}, True),
    "gpt_neox": ("GPTNeoX", SIZES, True),
    "gpt_neo, local attention": (
        "GPTNeo",
        {
            "vocab_size": 300, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 12,
            "attention_types": [[["global", "local"], 1]],
        },
        True,
    ),
    "qwen2": ("Qwen2", SHARED, True),
    "phi": ("Phi", SIZES, True),
    "opt": (
        "OPT",
        {"vocab_size": 300, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "word_embed_proj_dim": 32, "max_position_embeddings": 128},
        True,
    ),
    "mistral, all beyond its window": ("Mistral", {**SHARED, "sliding_window": 6}, True),
    "mistral, some beyond its window": ("Mistral", {**SHARED, "sliding_window": 15}, True),
    "gemma2, capped logits": (
        "Gemma2",
        {**SHARED, "head_dim": 8, "sliding_window": 12, "final_logit_softcapping": 4.0},
        True,
    ),
    "gemma3": ("Gemma3Text", {**SHARED, "head_dim": 8, "sliding_window": 12}, True),
    "gpt_oss": (
        "GptOss",
        {**SHARED, "head_dim": 8, "sliding_window": 12, "num_local_experts": 4, "num_experts_per_tok": 2},
        True,
    ),
    "mixtral": ("Mixtral", {**SHARED, "num_local_experts": 4, "num_experts_per_tok": 2}, True),
    "cohere, scaled logits": ("Cohere", {**SHARED, "logit_scale": 0.3}, True),
    "granite, divided logits": ("Granite", {**SHARED, "logits_scaling": 3.0}, True),
    "xglm, positions of its own": (
        "XGLM",
        {"vocab_size": 300, "d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
        transformers.__version__ >= "5",
    ),
    "bloom, no such mask": ("Bloom", {"vocab_size": 300, "hidden_size": 32, "n_layer": 2, "n_head": 4}, False),
    "mamba, no such cache": (
        "Mamba",
        {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
        False,
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_models_of_other_kinds(name: str) -> None:
    kind, sizes, tree = MODELS[name]
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes, **special)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.ndim > 1 else 1.0)
    everything = RANKINGS + HEADED + LETTERS
    expected = [naive(model, ranking) for ranking in everything]
    assert np.std(np.concatenate(expected)) > 1
    scorer = ranks.open_scorer(model, 0, 2, 64)
    assert scorer.tree is tree and scorer.batch_size == 64
    assert scorer.windowed is ("sliding_window" in sizes)
    for size, windowed in itertools.product((1, 4, 64), {False, scorer.windowed}):
        asked = replace(scorer, batch_size=size, windowed=windowed)
        for scores, right in zip(ranks.rank(asked, everything), expected):
            assert scores == pytest.approx(right, abs=1e-4)


def test_windows_are_read_from_the_configuration() -> None:
    assert window(type("M", (), {"config": transformers.LlamaConfig()})) is None
    assert window(type("M", (), {"config": transformers.MistralConfig(sliding_window=7)})) == 7
    assert window(type("M", (), {"config": transformers.Qwen2Config(use_sliding_window=False)})) is None
    assert window(type("M", (), {"config": transformers.GPTNeoConfig()})) == 256


def test_sixteen_bits_share_rows_too(ask: Callable[..., Scorer]) -> None:
    half = ask().model.to(torch.bfloat16)
    try:
        scorer = ranks.open_scorer(half, 2, 1, 4)
        assert scorer.tree
        plain = ranks.rank(Scorer(half, 2, 1, 4, False), RANKINGS)
        for one, other in zip(ranks.rank(scorer, RANKINGS), plain):
            assert one == pytest.approx(other, abs=0.5)
    finally:
        half.float()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_models_in_16_bits_are_fp32(make_model: Callable[..., Any], dtype: torch.dtype) -> None:
    model, exact = cast_weights(make_model(3), dtype), make_model(3)
    embeddings = model.get_input_embeddings().weight
    model.get_output_embeddings().weight = embeddings  # tied
    exact.get_output_embeddings().weight = exact.get_input_embeddings().weight
    places, ids = torch.arange(14), torch.from_numpy(some_ids(3, 14).astype(np.int64))[None]
    rounded = logits_at(model, places, input_ids=ids)
    widen_head(model)
    widen_head(exact)
    logits = logits_at(model, places, input_ids=ids)
    assert (rounded.dtype, logits.dtype) == (dtype, torch.float32)
    assert model.get_input_embeddings().weight is embeddings and embeddings.dtype == dtype
    assert torch.allclose(logits, rounded.float(), rtol=0.01, atol=1e-3)
    right = logits_at(exact, places, input_ids=ids)
    assert right.dtype == torch.float32 and torch.allclose(logits, right, atol=0.5)
    assert not is_exact(model) and is_exact(exact)


def test_positions_are_not_rounded_with_the_weights(make_model: Callable[..., Any]) -> None:
    model = make_model()
    frequencies = model.model.rotary_emb.inv_freq.clone()
    for dtype in (torch.bfloat16, torch.float32):
        cast_weights(model, dtype)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
        assert torch.equal(model.model.rotary_emb.inv_freq, frequencies)


def test_batches_that_do_not_fit_the_memory_are_halved(ask: Callable[..., Scorer]) -> None:
    everything, scorer = RANKINGS + HEADED + LETTERS, ask(64)
    expected = ranks.rank(scorer, everything)
    most = 3

    def full(_: Any, given: Any, options: Any) -> None:
        if len(options["input_ids"]) > most:
            raise torch.cuda.OutOfMemoryError

    handle = scorer.model.register_forward_pre_hook(full, with_kwargs=True)
    try:
        for one, other in zip(expected, ranks.rank(scorer, everything)):
            assert other == pytest.approx(one, abs=1e-5)
        most = 0
        with pytest.raises(LimitError, match=r"a prompt of \d+ tokens .* does not fit the memory of cpu"):
            ranks.rank(scorer, everything)
    finally:
        handle.remove()


def test_a_model_without_numbers_is_said(make_model: Callable[..., Any]) -> None:
    model = make_model()
    scorer = ranks.open_scorer(model, 2, 1, 4)
    model.get_output_embeddings().weight.data[5] = math.nan
    with pytest.raises(DataError, match=r"\(NaN\) for the log-probability of an option"):
        ranks.rank(scorer, RANKINGS)
    with pytest.raises(DataError, match="NaN"):
        ranks.open_scorer(model, 2, 1, 4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_scores(make_model: Callable[..., Any]) -> None:
    everything = RANKINGS + HEADED + LETTERS
    model = make_model()
    expected = [naive(model, ranking) for ranking in everything]
    scorer = ranks.open_scorer(model.to("cuda"), 2, 1, 4)
    assert scorer.tree
    for size in (2, 64):
        for scores, right in zip(ranks.rank(replace(scorer, batch_size=size), everything), expected):
            assert scores == pytest.approx(right, abs=1e-2)
    assert ranks.open_scorer(model.to(torch.bfloat16), 2, 1, 4).tree


class _Deaf(torch.nn.Module):
    """A causal model that ignores masks made for sharing rows: every earlier token counts."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype  # type: ignore[no-any-return]

    def get_input_embeddings(self) -> Any:
        return self.model.get_input_embeddings()

    def forward(self, input_ids: Any, attention_mask: Any = None, **arguments: Any) -> Any:
        mask = attention_mask if attention_mask is not None and attention_mask.ndim == 2 else None
        return self.model(input_ids, attention_mask=mask, **arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_ignores_the_mask_is_found_out(
    make_model: Callable[..., Any], dtype: torch.dtype
) -> None:
    model = make_model().to(dtype)
    assert ranks.open_scorer(model, 2, 1, 4).tree
    deaf = ranks.open_scorer(_Deaf(model), 2, 1, 4)
    assert not deaf.tree
    if dtype == torch.float32:
        for ranking, scores in zip(RANKINGS, ranks.rank(deaf, RANKINGS)):
            assert scores == pytest.approx(naive(model, ranking), abs=1e-5)


def test_logits_are_those_of_the_places_asked_for(ask: Callable[..., Scorer]) -> None:
    model, ids = ask().model, torch.from_numpy(np.stack([some_ids(1, 7), some_ids(2, 7)]).astype(np.int64))
    place = torch.tensor([3, 9, 13])
    with torch.no_grad():
        whole = model(ids).logits.flatten(0, 1)[place]
        assert torch.allclose(logits_at(model, place, input_ids=ids), whole, atol=1e-5)
        assert torch.allclose(logits_at(_Deaf(model), place, input_ids=ids), whole, atol=1e-5)
        assert torch.allclose(model(ids).logits.flatten(0, 1)[place], whole)  # the hook is gone


def test_keys_and_values_get_a_share_of_what_the_model_leaves_of_a_gpu(
    ask: Callable[..., Scorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ask().model
    held, size = sum(parameter.nbytes for parameter in model.parameters()), caching.bytes_per_token(model)
    for left, most in ((80 * size, 20), (0, 0), (-held // 2, 0)):
        device = SimpleNamespace(total_memory=held + left)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, device=device: device)
        assert caching.most_tokens(model, torch.device("cuda")) == most
