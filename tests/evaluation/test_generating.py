"""Generation equals that of transformers; batches change nothing; stop strings cut; draws follow the distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from taskmill.errors import DataError, LimitError
from taskmill.evaluation.answering import caching, drawing, generating
from taskmill.evaluation.answering.scorer import Scorer
from taskmill.evaluation.answering.stopping import Watch, cut
from taskmill.evaluation.asking.fitting import Opening
from taskmill.recipe_evaluate import Sampling
from taskmill.seeding import derive
from taskmill.training.encoding.tokenizer import TextTokenizer

GREEDY = Sampling()
DRAWN = Sampling(num_samples=3, temperature=1.5)


def some_ids(number: int, size: int) -> np.ndarray[Any, Any]:
    return ((np.arange(size, dtype=np.int32) * 13 + number * 7) % 290 + 4).astype(np.int32)


OPENINGS = [Opening(some_ids(n, 1 + (n * 7) % 19), 4 + n % 9, key=derive(0, "test", n)) for n in range(11)]


@pytest.fixture
def ask(make_model: Callable[..., Any], tokenizer: TextTokenizer) -> Callable[..., Scorer]:
    model = make_model()

    def make(batch_size: int = 4) -> Scorer:
        return Scorer(model, tokenizer.pad_id, tokenizer.eos_id, batch_size)

    return make


def reference(scorer: Scorer, opening: Opening) -> list[int]:
    """Token ids as transformers generates them, up to the end of sequence."""
    ids = torch.tensor(opening.ids, dtype=torch.long)[None]
    whole = scorer.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=opening.max_new_tokens
    )[0, ids.shape[1] :].tolist()
    return whole[: whole.index(scorer.eos_id)] if scorer.eos_id in whole else whole


def recomputed(scorer: Scorer, opening: Opening) -> list[int]:
    """Token ids by one pass over the whole text for each."""
    ids, new = list(opening.ids), []
    while len(new) < opening.max_new_tokens:
        with torch.no_grad():
            new.append(int(scorer.model(torch.tensor([ids]).long(), use_cache=False).logits[0, -1].argmax()))
        if new[-1] == scorer.eos_id:
            return new[:-1]
        ids.append(new[-1])
    return new


def text_of(tokenizer: TextTokenizer, ids: list[int]) -> str:
    return tokenizer.backend.decode(ids, skip_special_tokens=True)


@pytest.mark.filterwarnings("ignore")
def test_greedy_equals_transformers(ask: Callable[..., Scorer], tokenizer: TextTokenizer) -> None:
    expected = [[text_of(tokenizer, reference(ask(), opening)).strip()] for opening in OPENINGS]
    assert generating.generate(ask(), tokenizer, OPENINGS, GREEDY) == expected
    assert len({text for [text] in expected}) > 5


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN, replace(DRAWN, top_p=0.9)])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_and_order_change_nothing(
    ask: Callable[..., Scorer], tokenizer: TextTokenizer, batch_size: int, sampling: Sampling
) -> None:
    expected = generating.generate(ask(), tokenizer, OPENINGS, sampling)
    assert generating.generate(ask(batch_size), tokenizer, OPENINGS, sampling) == expected
    backwards = generating.generate(ask(batch_size), tokenizer, OPENINGS[::-1], sampling)
    assert backwards[::-1] == expected
    assert generating.generate(ask(batch_size), tokenizer, OPENINGS[4:6], sampling) == expected[4:6]


def test_draws_depend_on_the_key_and_the_sample_alone(
    ask: Callable[..., Scorer], tokenizer: TextTokenizer
) -> None:
    fewer, more = (
        generating.generate(ask(), tokenizer, OPENINGS, replace(DRAWN, num_samples=n)) for n in (2, 5)
    )
    assert [texts[:2] for texts in more] == fewer
    assert sum(len(set(texts)) for texts in more) > 40
    other = [replace(opening, key=opening.key + 1) for opening in OPENINGS]
    assert generating.generate(ask(), tokenizer, other, replace(DRAWN, num_samples=2)) != fewer


def test_nothing_is_drawn_from_generators_of_others(
    ask: Callable[..., Scorer], tokenizer: TextTokenizer
) -> None:
    before = torch.get_rng_state()
    generating.generate(ask(), tokenizer, OPENINGS, DRAWN)
    assert torch.equal(torch.get_rng_state(), before)


def test_greedy_samples_are_all_the_likeliest(ask: Callable[..., Scorer], tokenizer: TextTokenizer) -> None:
    once = generating.generate(ask(), tokenizer, OPENINGS, GREEDY)
    assert generating.generate(ask(), tokenizer, OPENINGS, Sampling(num_samples=4)) == [t * 4 for t in once]
    cold = generating.generate(ask(), tokenizer, OPENINGS, Sampling(temperature=1e-6))
    assert cold == once
    narrow = generating.generate(ask(), tokenizer, OPENINGS, Sampling(temperature=1.0, top_p=1e-9))
    assert narrow == once


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["end of sequence", "end of turn"])
def test_generation_ends_where_the_model_ends_it(
    ask: Callable[..., Scorer], tokenizer: TextTokenizer, how: str
) -> None:
    free = [reference(ask(), opening) for opening in OPENINGS]
    number = next(i for i, ids in enumerate(free) if len(set(ids)) > 2)
    stop = next(i for i in free[number] if i != free[number][0])
    scorer, openings = ask(), list(OPENINGS)
    if how == "end of sequence":
        scorer = replace(scorer, eos_id=stop)
    else:
        openings[number] = replace(openings[number], end_id=stop)
    expected = text_of(tokenizer, free[number][: free[number].index(stop)]).strip()
    found = generating.generate(scorer, tokenizer, openings, GREEDY)
    assert found[number] == [expected] != [text_of(tokenizer, free[number]).strip()]
    if how == "end of turn":
        others = [text_of(tokenizer, ids).strip() for i, ids in enumerate(free) if i != number]
        assert [texts[0] for i, texts in enumerate(found) if i != number] == others


def test_an_opening_without_room_is_left_empty(ask: Callable[..., Scorer], tokenizer: TextTokenizer) -> None:
    openings = [replace(OPENINGS[0], max_new_tokens=0), OPENINGS[1]]
    found = generating.generate(ask(), tokenizer, openings, DRAWN)
    assert found[0] == ["", "", ""]
    assert found[1] == generating.generate(ask(), tokenizer, OPENINGS[1:2], DRAWN)[0]
    assert generating.generate(ask(), tokenizer, [], DRAWN) == []


# ------------------------------------------------------------------------------- batches and caches


def recorded(scorer: Scorer) -> list[tuple[int, int]]:
    """Rows and tokens of every forward pass from now on."""
    shapes: list[tuple[int, int]] = []
    scorer.model.register_forward_pre_hook(
        lambda _, __, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return shapes


def test_a_prompt_is_read_once_and_rows_leave_when_done(
    make_model: Callable[..., Any], tokenizer: TextTokenizer
) -> None:
    scorer = Scorer(make_model(), tokenizer.pad_id, 10**6, 12)
    openings = [Opening(some_ids(n, 9), 3 + 5 * (n == 0), key=n) for n in range(4)]
    shapes = recorded(scorer)
    generating.generate(scorer, tokenizer, openings, DRAWN)
    probe, *passes = shapes
    assert probe == (1, 1)
    assert passes == [(4, 9), (12, 1), (12, 1), *[(3, 1)] * 5]


def test_batches_hold_the_samples_of_a_prompt_together_and_fit_the_memory(
    ask: Callable[..., Scorer], tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = ask(64)
    expected = generating.generate(scorer, tokenizer, OPENINGS, DRAWN)
    size = caching.bytes_per_token(scorer.model)
    assert size == 2 * 2 * 32 * 4  # keys and values, layers, hidden size, fp32
    monkeypatch.setattr(caching, "_HOST_BYTES", 100 * size)
    batches = list(generating._Asked(scorer, tokenizer, DRAWN).batches(OPENINGS, 3))
    assert len(batches) > 5
    for batch in batches:
        length = max(len(row.opening.ids) for row in batch)
        longest = max(row.opening.max_new_tokens for row in batch)
        assert len(batch) == 1 or len(batch) * (length + longest) <= 100
    rows = [(row.place, row.sample) for batch in batches for row in batch]
    assert sorted(rows) == [(place, sample) for place in range(len(OPENINGS)) for sample in range(3)]
    assert all(a[0] == b[0] or b[1] == 0 for a, b in pairwise(rows))
    assert generating.generate(scorer, tokenizer, OPENINGS, DRAWN) == expected


class _Forgetful(torch.nn.Module):
    """A causal model that keeps no cache, and that padding confuses: it counts every token it is given."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config, self.dtype = model, model.config, model.dtype

    def forward(self, input_ids: Any, attention_mask: Any = None, use_cache: bool = False) -> Any:
        return SimpleNamespace(logits=self.model(input_ids, use_cache=False).logits)


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN])
def test_a_model_without_a_cache_answers_alike(
    ask: Callable[..., Scorer], tokenizer: TextTokenizer, sampling: Sampling
) -> None:
    forgetful = replace(ask(), model=_Forgetful(ask().model))
    expected = generating.generate(ask(), tokenizer, OPENINGS, sampling)
    assert generating.generate(forgetful, tokenizer, OPENINGS, sampling) == expected


class _Whole(torch.nn.Module):
    """A causal model that cannot be told which logits are wanted."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config, self.dtype = model, model.config, model.dtype
        self.num_logits: list[int] = []

    def get_output_embeddings(self) -> Any:
        return self.model.get_output_embeddings()

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any,
        position_ids: Any,
        past_key_values: Any = None,
        use_cache: bool = True,
    ) -> Any:
        out = self.model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
        )
        self.num_logits.append(out.logits.shape[1])
        return out


def test_only_the_last_logits_are_computed(ask: Callable[..., Scorer], tokenizer: TextTokenizer) -> None:
    whole = _Whole(ask().model)
    expected = generating.generate(ask(), tokenizer, OPENINGS, DRAWN)
    assert generating.generate(replace(ask(), model=whole), tokenizer, OPENINGS, DRAWN) == expected
    assert set(whole.num_logits) == {1}
    ids = torch.zeros(1, 3, dtype=torch.int64)
    assert ask().model(ids).logits.shape[1] == 3


@pytest.mark.parametrize("most", [3, 0])
def test_batches_that_do_not_fit_the_memory_are_halved(
    ask: Callable[..., Scorer], tokenizer: TextTokenizer, most: int
) -> None:
    expected = generating.generate(ask(), tokenizer, OPENINGS, DRAWN)
    scorer = ask(64)

    def full(_: Any, __: Any, kwargs: Any) -> None:
        rows, length = kwargs["input_ids"].shape
        if rows > most and (length > 1 or rows > 1):
            raise torch.cuda.OutOfMemoryError

    handle = scorer.model.register_forward_pre_hook(full, with_kwargs=True)
    if most:
        assert generating.generate(scorer, tokenizer, OPENINGS, DRAWN) == expected
    else:
        with pytest.raises(
            LimitError, match=r"a prompt of \d+ tokens and \d+ new ones do not fit the memory of cpu"
        ):
            generating.generate(scorer, tokenizer, OPENINGS, DRAWN)
    handle.remove()


class _Fixed(torch.nn.Module):
    """A causal model whose cache has rows that cannot be picked."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config, self.dtype = model, model.config, model.dtype

    def forward(self, input_ids: Any, attention_mask: Any, past_key_values: Any = None, **_: Any) -> Any:
        seen = input_ids if past_key_values is None else torch.cat([past_key_values["ids"], input_ids], 1)
        positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
        out = self.model(seen, attention_mask=attention_mask, position_ids=positions, use_cache=False)
        return SimpleNamespace(logits=out.logits, past_key_values={"ids": seen})


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN])
def test_a_cache_whose_rows_cannot_be_picked_keeps_all(
    ask: Callable[..., Scorer], tokenizer: TextTokenizer, sampling: Sampling
) -> None:
    fixed = replace(ask(), model=_Fixed(ask().model))
    expected = generating.generate(ask(), tokenizer, OPENINGS, sampling)
    assert generating.generate(fixed, tokenizer, OPENINGS, sampling) == expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["mamba", "gpt2", "sliding", "bloom", "adapter"])
def test_models_of_other_kinds(tokenizer: TextTokenizer, kind: str) -> None:
    import transformers

    size = {"vocab_size": tokenizer.vocab_size, "hidden_size": 32, "num_hidden_layers": 2}
    heads = {**size, "num_attention_heads": 4}
    torch.manual_seed(0)
    if kind == "mamba":
        config = transformers.MambaConfig(**size, state_size=4)
    elif kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=tokenizer.vocab_size, n_embd=32, n_layer=2, n_head=4)
    elif kind == "bloom":
        config = transformers.BloomConfig(**{**size, "n_layer": 2, "n_head": 4})
    elif kind == "adapter":
        config = transformers.LlamaConfig(**heads, intermediate_size=48, num_key_value_heads=2)
    else:
        config = transformers.MistralConfig(
            **heads, intermediate_size=48, num_key_value_heads=2, sliding_window=6
        )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    if kind == "adapter":
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(r=2, init_lora_weights=False)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.ndim > 1 else 1.0)
    scorer = Scorer(model, tokenizer.pad_id, tokenizer.eos_id, 4)
    expected = [[text_of(tokenizer, recomputed(scorer, opening)).strip()] for opening in OPENINGS]
    assert generating.generate(scorer, tokenizer, OPENINGS, GREEDY) == expected
    alone = generating.generate(replace(scorer, batch_size=1), tokenizer, OPENINGS, DRAWN)
    assert generating.generate(scorer, tokenizer, OPENINGS, DRAWN) == alone


def test_rows_of_every_cache_are_picked() -> None:
    from transformers import DynamicCache, LlamaConfig, StaticCache

    keys, values = torch.arange(24.0).reshape(3, 1, 2, 4), torch.arange(24.0, 48.0).reshape(3, 1, 2, 4)
    rows = torch.tensor([2, 0, 0, 1])
    config = LlamaConfig(num_hidden_layers=1, hidden_size=4, num_attention_heads=1, num_key_value_heads=1)
    for cache in (DynamicCache(), StaticCache(config=config, max_cache_len=5)):
        cache.update(keys, values, 0, {"cache_position": torch.arange(2)})
        assert caching.pickable(cache)
        layer = caching.pick(cache, rows).layers[0]
        assert torch.equal(layer.keys[:, :, :2], keys[rows])
        assert torch.equal(layer.values[:, :, :2], values[rows])
    picked = caching.pick(((keys, values, None),), rows)
    assert torch.equal(picked[0][0], keys[rows]) and torch.equal(picked[0][1], values[rows])
    assert picked[0][2] is None
    assert not caching.pickable(object())


def test_a_cache_with_room_holds_what_a_plain_one_holds() -> None:
    from transformers import DynamicCache

    plain = DynamicCache()
    plain.update(torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 1, 4), 0)
    held = caching.roomy(plain, 6)
    assert held is not None and held.get_seq_length() == 0
    expected = DynamicCache()
    values = iter(torch.arange(1e4))
    for step, (size, rows) in enumerate(
        [(3, [0, 0, 1]), (1, None), (1, [2, 0]), (1, None), (2, None), (1, [1])]
    ):
        num_rows = 2 if not step else expected.layers[0].keys.shape[0]
        added = [torch.stack([next(values) for _ in range(num_rows * size * 4)]) for _ in range(2)]
        keys, other = (part.reshape(num_rows, 1, size, 4) for part in added)
        found, wanted = held.update(keys, other, 0), expected.update(keys, other, 0)
        assert torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])
        assert held.get_seq_length() == expected.get_seq_length()
        if rows is not None:
            caching.pick(held, torch.tensor(rows)), caching.pick(expected, torch.tensor(rows))
    assert caching.roomy(None, 6) is caching.roomy(((keys, other),), 6) is None


# ------------------------------------------------------------------------------------ stop strings


@pytest.mark.filterwarnings("ignore")
def test_stop_strings_cut_the_text_wherever_they_begin(
    ask: Callable[..., Scorer], tokenizer: TextTokenizer
) -> None:
    num_cut = 0
    for number, opening in enumerate(OPENINGS):
        ids = reference(ask(), opening)
        text = text_of(tokenizer, ids)
        for start in range(1, len(text)):
            stop = (text[start : start + 1 + (start + number) % 4], "never this")
            found = generating.generate(ask(), tokenizer, [replace(opening, stop=stop)], GREEDY)
            assert found == [[text[: text.find(stop[0])].strip()]]
            num_cut += 1
    assert num_cut > 100


def test_generation_ends_with_the_token_that_ends_a_stop_string(
    make_model: Callable[..., Any], tokenizer: TextTokenizer
) -> None:
    scorer = Scorer(make_model(), tokenizer.pad_id, 10**6, 1)
    opening = Opening(some_ids(3, 9), 40)
    [[text]] = generating.generate(scorer, tokenizer, [opening], GREEDY)
    shapes = recorded(scorer)
    generating.generate(scorer, tokenizer, [replace(opening, stop=(text[2:5],))], GREEDY)
    assert len(shapes) < 10


def test_a_stop_string_of_the_prompt_does_not_count(
    ask: Callable[..., Scorer], tokenizer: TextTokenizer
) -> None:
    free = generating.generate(ask(), tokenizer, OPENINGS, GREEDY)
    for opening, [text] in zip(OPENINGS, free):
        stop = text_of(tokenizer, opening.ids.tolist())
        if stop and stop not in text:
            found = generating.generate(ask(), tokenizer, [replace(opening, stop=(stop, ""))], GREEDY)
            assert found == [[text]]


@pytest.mark.parametrize(
    "text, stop, expected",
    [
        ("one two three", ("two", "one t"), ""),
        ("one two", ("three",), "one two"),
        ("one two", ("", "two"), "one "),
        ("ab", (), "ab"),
        ("a\n\nb", ("\n",), "a"),
    ],
)
def test_cut(text: str, stop: tuple[str, ...], expected: str) -> None:
    assert cut(text, stop) == expected


@pytest.fixture(scope="module", params=["byte level", "sentence pieces"])
def speaking(request: pytest.FixtureRequest, tokenizer: TextTokenizer) -> TextTokenizer:
    """The tokenizer of the tests, and one in the manner of Llama 2: bytes of what it does not know, spaces as marks."""
    if request.param == "byte level":
        return tokenizer
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"abcdn", "ab"]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, "\u2581a"])}
    merges = [("a", "b"), ("\u2581", "a")]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    steps = [
        decoders.Replace("\u2581", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
    backend.decoder = decoders.Sequence(steps)
    return TextTokenizer(backend, 1, 2, 2, len(vocabulary))


@given(
    text=st.text(alphabet="ab cdn\u00e9\U0001f600\n ", min_size=1, max_size=30),
    start=st.integers(0, 29),
    size=st.integers(1, 6),
    other=st.text(alphabet="ab \u00e9\U0001f600", max_size=4),
)
@example(text="a\U0001f600\n\u00e9", start=3, size=1, other="")
def test_watching_finds_a_stop_string_with_the_token_that_ends_it(
    speaking: TextTokenizer, text: str, start: int, size: int, other: str
) -> None:
    ids = speaking.backend.encode(text, add_special_tokens=False).ids
    whole = text_of(speaking, ids)
    stop = tuple(string for string in (whole[start : start + size], other) if string)
    texts = [text_of(speaking, ids[: n + 1]) for n in range(len(ids))]
    first = next((n for n, seen in enumerate(texts) if any(string in seen for string in stop)), None)
    watch = Watch(speaking, stop)
    found = next((n for n in range(len(ids)) if watch.stopped(ids[: n + 1])), None)
    assert found == first


# ------------------------------------------------------------------------------------------ drawing


def test_draws_have_the_probabilities_of_the_model() -> None:
    probability = torch.tensor([0.1, 0.0, 0.35, 0.05, 0.5], dtype=torch.float64)
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    rows = probability.log().float().expand(1000, -1)
    found = drawing.draw(rows, uniform, 1.0, 1.0).bincount(minlength=5)
    assert found.tolist() == [100, 0, 350, 50, 500]
    nucleus = drawing.draw(rows, uniform, 1.0, 0.84).bincount(minlength=5)
    assert nucleus.tolist() == [0, 0, 412, 0, 588]  # 0.35 and 0.5 of 0.85
    warm = drawing.draw(rows, uniform, 2.0, 1.0).bincount(minlength=5)
    root = probability.sqrt() / probability.sqrt().sum()
    assert (warm / 1000 - root).abs().max() < 2e-3


@given(
    logits=st.lists(st.integers(-4, 4), min_size=1, max_size=12),
    uniform=st.floats(0, 1, exclude_max=True),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_p=st.sampled_from([1e-6, 0.3, 0.9, 1.0]),
    top=st.sampled_from([2, 5, 1024]),
)
def test_draw_is_the_inverse_of_the_cumulative_distribution(
    logits: list[int], uniform: float, temperature: float, top_p: float, top: int
) -> None:
    weights = [np.exp(logit / temperature) for logit in logits]
    kept, mass = [], 0.0
    for index in sorted(range(len(logits)), key=lambda i: (-weights[i], i)):
        if mass < top_p * sum(weights) * (1 - 1e-12):
            kept.append(index)
        mass += weights[index]
    edge, expected = 0.0, []
    target = uniform * sum(weights[i] for i in kept)
    for index in sorted(kept):
        if edge - 1e-9 <= target <= edge + weights[index] + 1e-9:
            expected.append(index)
        edge += weights[index]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_TOP", top)
        rows, number = torch.tensor([logits]).float(), torch.tensor([uniform], dtype=torch.float64)
        found = drawing.draw(rows, number, temperature, top_p)
    assert int(found[0]) in expected


def test_the_last_number_below_one_draws_a_token_that_can_be_drawn() -> None:
    rows = torch.tensor([[0.0, 0.0, 0.0, -torch.inf, -torch.inf]])
    for uniform in (0.0, 1 - 2**-53):
        found = drawing.draw(rows, torch.tensor([uniform], dtype=torch.float64), 1.0, 1.0)
        assert int(found[0]) == (0 if uniform == 0 else 2)


def test_numbers_to_draw_with_differ_by_key_sample_and_step() -> None:
    numbers = drawing.uniforms([1, 1, 2**64 - 1], [0, 1, 0], 500)
    assert len(np.unique(numbers)) == 1500
    assert numbers.min() >= 0 and numbers.max() < 1
    assert np.abs(numbers.mean(axis=1) - 0.5).max() < 0.05
    assert np.array_equal(drawing.uniforms([1], [1], 20)[0], numbers[1, :20])


def test_of_equal_logits_the_lowest_id_wins() -> None:
    assert drawing.likeliest(torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])).tolist() == [1, 0]


def test_a_model_that_changes_positions_in_place_changes_nothing_else(
    ask: Callable[..., Scorer], tokenizer: TextTokenizer
) -> None:
    expected = generating.generate(ask(), tokenizer, OPENINGS, DRAWN)
    scorer = ask()

    def shift(_: Any, __: Any, given: Any) -> None:
        given["position_ids"] += 3  # rotary positions are relative

    handle = scorer.model.register_forward_pre_hook(shift, with_kwargs=True)
    try:
        assert generating.generate(scorer, tokenizer, OPENINGS, DRAWN) == expected
    finally:
        handle.remove()


def test_a_model_without_numbers_is_said(make_model: Callable[..., Any], tokenizer: TextTokenizer) -> None:
    model = make_model()
    model.get_output_embeddings().weight.data[5] = math.nan
    with pytest.raises(DataError, match=r"\(NaN\) for the next token"):
        generating.generate(Scorer(model, 2, 1, 4), tokenizer, OPENINGS, GREEDY)
