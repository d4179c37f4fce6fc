"""Every shipped chat format, spelled out; what formats refuse; formats of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.errors import RecipeError, UsageError
from taskmill.recipe import Condition
from taskmill.records import SEGMENT_KINDS
from taskmill.templates.chat.formats import ChatFormat, format_names, load_format
from taskmill.templates.chat.layout import Turn, lay_out, prompt_turns, turns_of
from taskmill.templates.composing.rendered import Drop, Rendered, Wording
from taskmill.templates.composing.schemas import compose
from taskmill.templates.composing.segments import Segment

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
TALK = [{"user": " Hi </s> "}, {"assistant": "Yo."}, {"user": "So?"}, {"assistant": "So\n"}]


def shipped(name: str) -> ChatFormat:
    return load_format(name, Path())


def turns(talk: list[dict[str, str]]) -> list[Turn]:
    found = turns_of({"turns": talk})
    assert not isinstance(found, Drop)
    return found


def laid(
    name: str, talk: list[dict[str, str]], condition: str | None = None, system: str | None = None
) -> str:
    """Lay out and write control segments in ‹› and trained ones in «»."""
    segments = lay_out(shipped(name), turns(talk), condition, system)
    assert not isinstance(segments, Drop), segments
    return marked(segments)


def marked(segments: list[Segment]) -> str:
    text = ""
    for segment in segments:
        own = f"‹{segment.text}›" if segment.kind == "control" else segment.text
        text += f"«{own}»" if segment.trained else own
    return text.replace("»«", "")


def dropped(name: str, talk: list[dict[str, str]], condition: str | None = None) -> str:
    found = lay_out(shipped(name), turns(talk), condition)
    assert isinstance(found, Drop), found
    return found.reason


EXPECTED = {
    "plain": "Hi </s>\n«Yo.‹{eos}›»\nSo?\n«So‹{eos}›»",
    "tulu": "‹{bos}›<|user|>\nHi </s>\n<|assistant|>\n«Yo.‹{eos}›\n»<|user|>\nSo?\n<|assistant|>\n«So‹{eos}›»",
    "vicuna-v1.1": f"‹{{bos}}›{SYSTEM} USER:  Hi </s>  ASSISTANT:« Yo.‹{{eos}}›»USER: So? ASSISTANT:« So\n‹{{eos}}›»",
    "flacuna": f"‹{{bos}}›{SYSTEM} USER:  Hi </s>  ASSISTANT:« Yo.‹{{eos}}›»USER: So? ASSISTANT:« So\n‹{{eos}}›»",
    "openchat-v2": "‹{bos}›User: Hi </s> ‹E›Assistant GPT3:«Yo.‹E›»User:So?‹E›Assistant GPT3:«So\n‹E›»",
    "openchat-v3.1": "‹{bos}›Assistant is GPT3‹E›User: Hi </s> ‹E›Assistant:«Yo.‹E›»User:So?‹E›Assistant:«So\n‹E›»",
    "openchat-v3.2": "‹{bos}›GPT3 User: Hi </s> ‹E›GPT3 Assistant:«Yo.‹E›»GPT3 User:So?‹E›GPT3 Assistant:«So\n‹E›»",
    "chatml": "‹S›user\n Hi </s> ‹T›\n‹S›assistant\n«Yo.‹T›»\n‹S›user\nSo?‹T›\n‹S›assistant\n«So\n‹T›»\n",
}
SHORT = {"E": "<|end_of_turn|>", "S": "<|im_start|>", "T": "<|im_end|>"}


def test_every_shipped_format_is_spelled_out_here() -> None:
    assert format_names() == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_text_and_trained_spans(name: str) -> None:
    expected = EXPECTED[name]
    for short, token in SHORT.items():
        expected = expected.replace(f"‹{short}›", f"‹{token}›")
    assert laid(name, TALK, "GPT3") == expected


def test_one_turn_of_each() -> None:
    one = [{"user": "a"}, {"assistant": "b"}]
    assert laid("tulu", one) == "‹{bos}›<|user|>\na\n<|assistant|>\n«b‹{eos}›»"
    assert laid("vicuna-v1.1", one) == f"‹{{bos}}›{SYSTEM} USER: a ASSISTANT:« b‹{{eos}}›»"
    assert laid("plain", one) == "a\n«b‹{eos}›»"


SYSTEMS = {
    "plain": "S\na\n«b‹{eos}›»",
    "tulu": "‹{bos}›<|system|>\nS\n<|user|>\na\n<|assistant|>\n«b‹{eos}›»",
    "vicuna-v1.1": "‹{bos}›S USER: a ASSISTANT:« b‹{eos}›»",
    "openchat-v2": "‹{bos}›S‹E›User:a‹E›Assistant GPT4:«b‹E›»",
    "openchat-v3.1": "‹{bos}›Assistant is GPT4‹E›S‹E›User:a‹E›Assistant:«b‹E›»",
    "openchat-v3.2": "‹{bos}›S‹E›GPT4 User:a‹E›GPT4 Assistant:«b‹E›»",
    "chatml": "‹S›system\nS‹T›\n‹S›user\na‹T›\n‹S›assistant\n«b‹T›»\n",
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_system_text_of_the_conversation_or_of_the_recipe(name: str) -> None:
    expected = SYSTEMS[name]
    for short, token in SHORT.items():
        expected = expected.replace(f"‹{short}›", f"‹{token}›")
    assert laid(name, [{"system": "S"}, {"user": "a"}, {"assistant": "b"}], "GPT4", "other") == expected
    assert laid(name, [{"user": "a"}, {"assistant": "b"}], "GPT4", "S") == expected


def test_unanswered_turns() -> None:
    talk = [{"user": "a"}, {"assistant": "b"}, {"user": "c "}]
    assert laid("tulu", talk) == "‹{bos}›<|user|>\na\n<|assistant|>\n«b‹{eos}›\n»<|user|>\nc"
    assert dropped("vicuna-v1.1", talk) == "unanswered"
    assert laid("openchat-v2", talk, "GPT4").endswith("User:c ‹<|end_of_turn|>›")
    assert laid("openchat-v3.2", talk, "GPT4").endswith("«b‹<|end_of_turn|>›»")
    assert laid("chatml", talk).endswith("«b‹<|im_end|>›»\n")


def test_vicuna_leaves_a_leading_answer_out_and_wants_turns_to_alternate() -> None:
    led = [{"assistant": "hello"}, {"user": "a"}, {"assistant": "b"}]
    assert laid("vicuna-v1.1", led) == laid("vicuna-v1.1", led[1:])
    assert dropped("vicuna-v1.1", [led[0], *led]) == "roles_do_not_alternate"
    assert dropped("vicuna-v1.1", [led[1], led[1], led[2]]) == "roles_do_not_alternate"
    assert dropped("vicuna-v1.1", [{"user": ""}, led[2]]) == "empty_turn"
    assert dropped("vicuna-v1.1", [led[0]]) == "no_assistant_turn"


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"chatml", "plain"}))
def test_roles_that_a_format_has_not(name: str) -> None:
    talk = [{"user": "a"}, {"call": "f()"}, {"tool": "1"}, {"assistant": "b"}]
    assert dropped(name, talk, "GPT4") == "role_not_in_format"


def test_calls_are_trained_and_results_are_not() -> None:
    talk = [{"user": "a"}, {"call": "f()"}, {"tool": "1"}, {"assistant": "b"}]
    written = laid("chatml", talk)
    assert laid("plain", talk) == "a\n«f()‹{eos}›»\n1\n«b‹{eos}›»"
    assert "assistant\n«f()‹<|im_end|>›»\n‹<|im_start|>›tool\n1‹<|im_end|>›\n" in written


@pytest.mark.parametrize("name", ["openchat-v2", "openchat-v3.1", "openchat-v3.2"])
def test_conditions(name: str) -> None:
    chat = shipped(name)
    assert chat.has_conditions and not chat.joint and chat.inference == "GPT4"
    assert chat.conditions == {"GPT4": Condition("GPT4", 1.0), "GPT3": Condition("GPT3", 0.1)}
    assert dropped(name, TALK) == "no_condition"
    assert "Human" in laid(name, TALK, "Human")


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({}, "no_turns"),
        ({"turns": []}, "no_turns"),
        ({"turns": ["a"]}, "bad_turn"),
        ({"turns": [{"user": "a", "assistant": "b"}]}, "bad_turn"),
        ({"turns": [{"human": "a"}]}, "bad_turn"),
        ({"turns": [{"user": None}]}, "bad_turn"),
    ],
)
def test_fields_that_are_no_turns(fields: dict[str, object], reason: str) -> None:
    found = turns_of(fields)
    assert isinstance(found, Drop) and found.reason == reason


def test_a_two_part_prompt_is_two_turns_and_keeps_its_pieces() -> None:
    rendered = Rendered("Add.", "1 + 1", "2", ("2",))
    composed = compose("task", rendered, [rendered], Wording("\nAnswer:"))
    segments = lay_out(shipped("tulu"), prompt_turns(composed))
    assert not isinstance(segments, Drop)
    assert marked(segments) == (
        "‹{bos}›<|user|>\nAdd.\n\n1 + 1\nAnswer: 2\n\n1 + 1\nAnswer:\n<|assistant|>\n«2‹{eos}›»"
    )
    kinds = [
        "control",
        "user",
        "instruction",
        "demonstration",
        "input",
        "user",
        "assistant",
        "output",
        "control",
    ]
    assert [s.kind for s in segments] == kinds
    flacuna = lay_out(shipped("flacuna"), prompt_turns(compose("task", rendered, [], Wording("\nOutput:"))))
    assert not isinstance(flacuna, Drop)
    assert marked(flacuna).endswith("USER: Add.\n\n1 + 1\nOutput: ASSISTANT:« 2‹{eos}›»")
    assert shipped("flacuna").delimiter == "\nOutput:"


texts = st.text(st.sampled_from("aZ ß\n\t<|>{}/sé数"), max_size=12) | st.sampled_from(
    ["</s>", "{eos}", "{bos}", "<|end_of_turn|>", "<|im_end|>", "<|user|>\n", " ASSISTANT: ", "{condition}"]
)
talks = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant", "call", "tool"]), texts), min_size=1, max_size=6
)


@given(st.sampled_from(sorted(EXPECTED)), talks)
def test_whatever_is_said_stays_text(name: str, talk: list[tuple[str, str]]) -> None:
    chat = shipped(name)
    given_turns = turns([{role: text} for role, text in talk])
    segments = lay_out(chat, given_turns, "GPT4")
    if isinstance(segments, Drop):
        assert segments.reason and segments.detail
        return
    own = {"{bos}"} | {
        p.text for r in chat.roles.values() for p in (*r.prefix, *r.end, *r.separator) if p.control
    }
    own |= {part.text for part in chat.opening if part.control}
    assert {s.text for s in segments if s.kind == "control"} <= own
    assert all(s.kind in SEGMENT_KINDS and s.text for s in segments)
    assert all(s.kind in ("assistant", "control") for s in segments if s.trained)
    control = sum(s.kind == "control" for s in segments)
    silent = lay_out(chat, [Turn(t.role, (Segment("x", t.pieces[0].kind),)) for t in given_turns], "GPT4")
    if not isinstance(silent, Drop) and all(text.strip() for _, text in talk):
        assert control == sum(s.kind == "control" for s in silent)
    trained = "".join(s.text for s in segments if s.trained and s.kind != "control")
    kept = talk[1:] if talk[0][0] == "system" else talk
    if chat.rules.first == "user" and kept[0][0] != "user":
        kept = kept[1:]
    said = "".join(text for role, text in kept if role in ("assistant", "call"))
    assert "".join(trained.split()) == "".join(said.split())


# ------------------------------------------------------------------------------------ formats of one's own

OWN = """\
tokenization: segments
control: ["<end>"]
roles:
  user: {prefix: "Q: ", end: "<end>"}
  assistant: {prefix: "A ({condition}):", lead: " ", end: "<end>", separator: "\\n"}
conditions:
  good: {text: well, weight: 1}
  bad: {text: badly, weight: 0.2}
inference: good
rules: {alternate: true}
"""


def test_a_format_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    chat = load_format("own.yaml", tmp_path)
    assert (chat.name, chat.joint, chat.conditions["bad"].weight, chat.inference) == (
        "own.yaml",
        False,
        0.2,
        "good",
    )
    segments = lay_out(chat, turns([{"user": "a"}, {"assistant": "b"}]), "well")
    assert not isinstance(segments, Drop)
    assert marked(segments) == "Q: a‹<end>›A (well):« b‹<end>›»\n"
    assert isinstance(
        lay_out(chat, turns([{"system": "s"}, {"user": "a"}, {"assistant": "b"}]), "well"), Drop
    )
    first = chat.digest
    (tmp_path / "own.yaml").write_text(OWN + "strip: true\n")
    assert load_format("own.yaml", tmp_path).digest != first


PROBLEMS = {
    "roles: {user: {}}": ["own.yaml:1: roles: the role 'assistant' is missing"],
    "rols: {}": [
        "own.yaml:1: rols: unknown key - did you mean 'roles'?",
        "the role 'user' is missing",
        "the role 'assistant' is missing",
    ],
    OWN.replace("segments", "segment"): [
        "own.yaml:1: tokenization: found 'segment' - did you mean 'segments'?"
    ],
    OWN.replace('prefix: "Q', 'prefx: "Q'): [
        "own.yaml:4: roles.user.prefx: unknown key - did you mean 'prefix'?"
    ],
    OWN.replace("  user:", "  usr: {}\n  user:"): [
        "own.yaml:4: roles.usr: unknown key - did you mean 'user'?"
    ],
    OWN.replace("weight: 1}", "weight: -1}"): [
        "own.yaml:7: conditions.good.weight: found -1; expected a loss weight"
    ],
    OWN.replace("inference: good", "inference: god"): [
        "own.yaml:9: inference: found 'god' - did you mean 'good'?"
    ],
    OWN.replace("alternate: true", "alternate: often"): [
        "rules.alternate: found 'often'; expected true or false"
    ],
    OWN.replace("alternate: true", "empty: no"): ["rules.empty: found False; expected one of keep, drop"],
    OWN.replace("({condition})", ""): ["conditions: no prefix, end, separator or opening writes {condition}"],
    OWN.replace('{prefix: "Q: "', '{lead: " ", prefix: "Q: "'): [
        "only turns that the model writes have a lead"
    ],
    OWN + "bos: 1\nstrip: true\nstrip: true\n": [
        "bos: found 1; expected true or false",
        "strip: given twice",
    ],
    OWN + "control: x\n": ["control: given twice", "expected a list of special tokens"],
    OWN + "source: !!python/object/apply:os.getcwd []\n": ["source: found \\[\\]; expected a text"],
    OWN + "source: !!python/name:os.getcwd x\n": ["builds an object; expected plain values"],
    OWN + "source: [": ["not valid YAML"],
    "a: &a [1]\nb: *a\n": ["own.yaml:1: a: unknown key", "own.yaml:2: b: unknown key"],
    "[" * 300 + "]" * 300: ["more than 8 levels"],
    "- 1": ["expected a mapping with at least `roles`"],
    "roles: [1]": ["roles: found \\[1\\]; expected a mapping"],
    "roles: {user: x, assistant: {}}": ["roles.user: found 'x'; expected a mapping"],
}


@pytest.mark.parametrize("text", PROBLEMS, ids=range(len(PROBLEMS)))
def test_problems_of_a_format_are_listed_with_line_and_nearest_name(text: str, tmp_path: Path) -> None:
    import re

    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_format("own.yaml", tmp_path)
    for expected in PROBLEMS[text]:
        found = expected in str(caught.value) or re.search(expected, str(caught.value))
        assert found, str(caught.value)


def test_names_that_are_no_format(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'tullu' - did you mean 'tulu'.*expected one of chatml, flacuna"):
        load_format("tullu", tmp_path)
    (tmp_path / "big.yaml").write_text("# " + "x" * 200_000)
    with pytest.raises(UsageError, match="at most 100000"):
        load_format("big.yaml", tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="cannot read the chat format"):
        load_format("bytes.yaml", tmp_path)
