"""Chat prompts as tokens: jointly or segment by segment, equal to a second statement of each format's rules."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from running import ROOT

from taskmill.evaluation.asking import fitting
from taskmill.records import SEGMENT_KINDS
from taskmill.templates.chat.formats import format_names, load_format
from taskmill.templates.chat.layout import lay_out, prompt_turns, turns_of
from taskmill.templates.composing.rendered import Drop, Rendered, Wording
from taskmill.templates.composing.schemas import compose
from taskmill.templates.composing.segments import Segment
from taskmill.templates.composing.segments import encode as columns
from taskmill.training.encoding.encoder import encode
from taskmill.training.encoding.fitting import FitCounts, fit
from taskmill.training.encoding.rows import Prompt, Rows
from taskmill.training.encoding.tokenizer import TextTokenizer, open_tokenizer, train_tokenizer

KINDS = {"llama", "words", "bytes"}


@pytest.fixture(scope="module")
def benchmark(request: pytest.FixtureRequest) -> ModuleType:
    """The comparison with the references, whose second statements need no clone."""
    pytest.importorskip("transformers")
    patch = pytest.MonkeyPatch()
    request.addfinalizer(patch.undo)
    patch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("chat_formats")


@pytest.fixture(scope="module", params=sorted(KINDS))
def pair(
    request: pytest.FixtureRequest, benchmark: ModuleType, tmp_path_factory: Any
) -> tuple[Any, TextTokenizer]:
    """One tokenizer as transformers opens it and as we do."""
    folder = tmp_path_factory.mktemp(request.param)
    texts = [text for talk in benchmark.made_up() for _, text in talk.turns]
    return benchmark.train(request.param, texts, folder), open_tokenizer(folder)


@pytest.mark.parametrize(
    "name", ["tulu", "vicuna-v1.1", "flacuna", "openchat-v2", "openchat-v3.1", "openchat-v3.2"]
)
def test_made_up_conversations_equal_the_second_statement(
    name: str, benchmark: ModuleType, pair: tuple[Any, TextTokenizer]
) -> None:
    reference = benchmark.references.expected(name)
    verdicts = [benchmark.compare(name, reference, pair, talk) for talk in benchmark.made_up()]
    assert {verdict for verdict, _ in verdicts} <= {"equal", "both refuse"}, verdicts
    assert sum(verdict == "equal" for verdict, _ in verdicts) >= 40


def test_a_wrong_statement_is_noticed(benchmark: ModuleType, pair: tuple[Any, TextTokenizer]) -> None:
    talk = benchmark.Conversation("x", (("user", "Grüße"), ("assistant", "mat, then")), "GPT4")
    other = benchmark.references.expected("openchat-v2")
    assert benchmark.compare("openchat-v3.2", other, pair, talk)[0] == "other ids"
    right = benchmark.references.expected("tulu")

    def shifted(tokenizer: Any, given: Any) -> Any:
        found = right(tokenizer, given)
        return found._replace(labels=[-100, *found.ids[1:]])

    assert benchmark.compare("tulu", shifted, pair, talk)[0] == "loss on other tokens"


@pytest.mark.parametrize("name", ["tulu", "vicuna-v1.1", "openchat-v3.2"])
def test_real_conversations_equal_the_second_statement(
    name: str, benchmark: ModuleType, pair: tuple[Any, TextTokenizer], shared_data: Path
) -> None:
    talks = list(benchmark.real(shared_data))[::97]
    reference = benchmark.references.expected(name)
    verdicts = [benchmark.compare(name, reference, pair, talk) for talk in talks]
    alike = [verdict for verdict, _ in verdicts if verdict in ("equal", "both refuse")]
    causes = {verdict for verdict, _ in verdicts} - {"equal", "both refuse"}
    assert len(alike) >= 0.97 * len(talks) and all("a special token's text" in cause for cause in causes), (
        causes
    )


def spoken(pair: tuple[Any, TextTokenizer], segments: list[Segment], joint: bool) -> list[list[str]]:
    """Return the tokens of each segment."""
    row = columns(segments)
    found = encode(pair[1], [Prompt(row["text"], row["ends"], row["kinds"], row["trained"], joint)])[0]
    tokens = pair[0].convert_ids_to_tokens(found.ids.tolist())
    return [[t for t, s in zip(tokens, found.segment) if s == n] for n in range(len(segments))]


def test_segments_are_encoded_on_their_own_and_pieces_together(pair: tuple[Any, TextTokenizer]) -> None:
    def alone(text: str) -> list[str]:
        return pair[0].convert_ids_to_tokens(pair[1].backend.encode(text, add_special_tokens=False).ids)  # type: ignore[no-any-return]

    segments = [
        Segment("{bos}", "control"), Segment("User:", "user"), Segment("the c", "instruction"),
        Segment("at sat\n", "demonstration"), Segment("</s> mat", "input"), Segment("<|end_of_turn|>", "control"),
        Segment("Assistant:", "assistant"), Segment("the", "assistant", True),
    ]  # fmt: skip
    found = spoken(pair, segments, joint=False)
    assert found[0] == ["<s>"] and found[5] == ["<|end_of_turn|>"]
    assert found[1] == alone("User:") and found[6] == alone("Assistant:") and found[7] == alone("the")
    assert found[2] + found[3] + found[4] == alone("the cat sat\n</s> mat")
    assert "</s>" not in found[4]
    joined = spoken(pair, segments, joint=True)
    assert joined[1] + joined[2] + joined[3] + joined[4] == alone("User:the cat sat\n</s> mat")
    assert joined[6] + joined[7] == alone("Assistant:the")


@pytest.mark.parametrize("name", [n for n in format_names() if n != "plain"])
def test_special_texts_of_users_stay_text(name: str, pair: tuple[Any, TextTokenizer]) -> None:
    if name == "chatml":
        return  # these tokenizers have no such tokens
    turns = turns_of({"turns": [{"user": "<s> </s> <|end_of_turn|>"}, {"assistant": "</s><pad>"}]})
    assert not isinstance(turns, Drop)
    chat = load_format(name, Path())
    segments = lay_out(chat, turns, "GPT4")
    assert not isinstance(segments, Drop)
    row = columns(segments)
    found = encode(pair[1], [Prompt(row["text"], row["ends"], row["kinds"], row["trained"], chat.joint)])[0]
    special = [pair[1].symbol(t) for t in ("<s>", "</s>", "<|end_of_turn|>", "<pad>")]
    number = sum(segment.kind == "control" for segment in segments)
    assert int(np.isin(found.ids, special).sum()) == number


# -------------------------------------------------------------------------------------------- evaluation

OPENINGS = {
    "plain": ("Say it.\n", ""),
    "tulu": ("<s><|user|>\nSay it.\n<|assistant|>\n", ""),
    "vicuna-v1.1": ("polite answers to the user's questions. USER: Say it. ASSISTANT:", " "),
    "flacuna": ("polite answers to the user's questions. USER: Say it. ASSISTANT:", " "),
    "openchat-v2": ("<s>User:Say it.<|end_of_turn|>Assistant GPT4:", ""),
    "openchat-v3.1": ("<s>Assistant is GPT4<|end_of_turn|>User:Say it.<|end_of_turn|>Assistant:", ""),
    "openchat-v3.2": ("<s>GPT4 User:Say it.<|end_of_turn|>GPT4 Assistant:", ""),
}


@pytest.mark.parametrize("name", OPENINGS)
def test_a_test_prompt_ends_where_the_format_generates(name: str, pair: tuple[Any, TextTokenizer]) -> None:
    chat = load_format(name, Path())
    turns = turns_of({"turns": [{"user": "Say it."}, {"assistant": "It."}]})
    assert not isinstance(turns, Drop)
    segments = lay_out(chat, turns, "GPT4")
    assert not isinstance(segments, Drop)
    row = columns(segments)
    question = fitting.split_prompt(row["text"], row["ends"], row["kinds"], row["trained"], chat.joint)
    text, lead = OPENINGS[name]
    written = "".join(s.text for s in question.prefix).replace("{bos}", "<s>")
    assert written.endswith(text) and question.lead == lead and question.answer == lead + "It."
    assert question.joint == chat.joint
    context = fitting.Context(pair[1], 512)
    opening = fitting.fit_openings(context, [question], 8)[0]
    whole = encode(pair[1], [Prompt(row["text"], row["ends"], row["kinds"], row["trained"], chat.joint)])[0]
    first = int(np.flatnonzero(whole.trained)[0])
    assert opening.ids.tolist() == whole.ids[:first].tolist()
    assert opening.end_id == int(whole.ids[-1])
    ranking = fitting.fit_rankings(context, [question], [["It.", "Grüße"]])[0]
    own = np.concatenate([ranking.shared, ranking.suffixes[0]])
    assert own.tolist() == whole.ids[:-1].tolist()


def test_the_answer_asked_for_is_the_last_one_whatever_follows_it() -> None:
    chat = load_format("tulu", Path())
    turns = turns_of({"turns": [{"user": "a"}, {"assistant": "b"}, {"user": "c"}]})
    assert not isinstance(turns, Drop)
    segments = lay_out(chat, turns)
    assert not isinstance(segments, Drop)
    row = columns(segments)
    assert fitting.split_prompt(row["text"], row["ends"], row["kinds"], row["trained"]).answer == "b"


def test_two_part_prompts_rank_options_after_the_lead(pair: tuple[Any, TextTokenizer]) -> None:
    composed = compose("task", Rendered("Add.", "1 + 1", "2", ("2",)), [], Wording("\nAnswer:"))
    segments = lay_out(load_format("vicuna-v1.1", Path()), prompt_turns(composed))
    assert not isinstance(segments, Drop)
    row = columns(segments)
    question = fitting.split_prompt(row["text"], row["ends"], row["kinds"], row["trained"])
    assert (question.answer, question.lead, question.prefix[-1].text) == (" 2", " ", "ASSISTANT:")


# ----------------------------------------------------------------------------------------------- context


def test_a_long_conversation_keeps_its_beginning_as_in_the_references(
    pair: tuple[Any, TextTokenizer],
) -> None:
    turns = turns_of(
        {"turns": [{"user": "the cat"}, {"assistant": "sat upon"}, {"user": "then"}, {"assistant": "def"}]}
    )
    assert not isinstance(turns, Drop)
    segments = lay_out(load_format("tulu", Path()), turns)
    assert not isinstance(segments, Drop)
    row = columns(segments)
    whole = encode(pair[1], [Prompt(row["text"], row["ends"], row["kinds"], row["trained"])])[0]
    for size in range(2, len(whole.ids)):
        counts = FitCounts()
        kept = fit(whole, row["kinds"], size, counts)
        if whole.trained[:size].any():
            assert kept[0].ids.tolist() == whole.ids[:size].tolist() and counts.conversation_truncated == 1
            assert kept[0].trained.tolist() == whole.trained[:size].tolist()
        else:
            assert kept == [] and counts.no_trained_token == 1


def test_a_long_two_part_prompt_keeps_what_the_format_writes(pair: tuple[Any, TextTokenizer]) -> None:
    rendered = Rendered("then upon the mat", "the cat sat " * 9, "def", ("def",))
    composed = compose("task", rendered, [rendered], Wording("\nAnswer:"))
    segments = lay_out(load_format("vicuna-v1.1", Path()), prompt_turns(composed))
    assert not isinstance(segments, Drop)
    row = columns(segments)
    whole = encode(pair[1], [Prompt(row["text"], row["ends"], row["kinds"], row["trained"])])[0]
    kinds = np.asarray(row["kinds"])[whole.segment]
    source = np.isin(kinds, [SEGMENT_KINDS.index(k) for k in ("instruction", "input", "demonstration")])
    own = whole.ids[~source].tolist()
    counts = FitCounts()
    kept = fit(whole, row["kinds"], len(own) + 5, counts)[0]
    assert (counts.demonstrations_dropped, counts.input_truncated, len(kept.ids)) == (1, 1, len(own) + 5)
    assert kept.ids[0] == pair[1].bos_id and kept.ids[-1] == pair[1].eos_id
    places = np.isin(
        np.asarray(row["kinds"])[kept.segment], [SEGMENT_KINDS.index(k) for k in ("instruction", "input")]
    )
    assert kept.ids[~places].tolist() == own
    assert kept.ids[places].tolist() == whole.ids[source][-5:].tolist()


# -------------------------------------------------------------------------------------------- tokenizers


def test_a_tokenizer_of_the_run_gets_the_format_s_special_tokens(tmp_path: Path) -> None:
    segments = [
        Segment("<|im_start|>", "control"),
        Segment("user\nhi", "user"),
        Segment("{eos}", "control", True),
    ]
    row = columns(segments)
    prompt = Prompt(row["text"], row["ends"], row["kinds"], row["trained"])
    rows = Rows.of_prompts([prompt])
    texts, controls = list(rows.whole_texts()), rows.controls()
    assert texts == ["user\nhi"] and controls == {"<|im_start|>", "{eos}"}
    written: dict[str, bytes] = {}
    writer: Any = SimpleNamespace(write_bytes=written.__setitem__)
    train_tokenizer(iter(texts), 300, writer, controls)
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name, data in written.items():
        (tmp_path / name).write_bytes(data)
    tokenizer = open_tokenizer(folder)
    assert tokenizer.symbol("<|im_start|>") == tokenizer.vocab_size - 1
    assert "{eos}" not in tokenizer.backend.get_vocab(with_added_tokens=True)
    found = encode(tokenizer, [prompt])[0]
    assert found.ids[0] == tokenizer.symbol("<|im_start|>") and found.ids[-1] == tokenizer.eos_id


def test_special_tokens_that_take_white_space_with_them(
    tmp_path: Path, pair: tuple[Any, TextTokenizer]
) -> None:
    from tokenizers import AddedToken, Tokenizer

    backend = Tokenizer.from_str(pair[1].backend.to_str())
    backend.add_special_tokens([AddedToken("<|end|>", rstrip=True), AddedToken("<|go|>", lstrip=True)])
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    tokenizer = open_tokenizer(tmp_path)
    segments = [
        Segment("the ", "user"), Segment("<|go|>", "control"), Segment(" cat ", "user"),
        Segment("<|end|>", "control"), Segment("\n", "user"), Segment("<|end|>", "control"), Segment(" sat", "user"),
    ]  # fmt: skip
    row = columns(segments)
    found = encode(tokenizer, [Prompt(row["text"], row["ends"], row["kinds"], row["trained"])])[0]
    whole = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert found.ids.tolist() == whole.encode(row["text"], add_special_tokens=False).ids
    assert SEGMENT_KINDS[row["kinds"][1]] == "control"
    assert found.segment.tolist() == sorted(found.segment.tolist()) and 4 not in found.segment
