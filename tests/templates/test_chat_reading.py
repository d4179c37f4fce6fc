"""Turns read back from the segments of every shipped format, of formats of one's own and of chat templates."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_templates import BRACKETS, CHATML, HEADERS, MARKED, write
from hypothesis import given
from hypothesis import strategies as st

from taskmill.templates.chat.formats import ChatFormat, format_names, load_format
from taskmill.templates.chat.layout import KINDS, Turn, lay_out, prompt_turns
from taskmill.templates.chat.reading import turns_from
from taskmill.templates.composing.rendered import Drop, Rendered, Wording
from taskmill.templates.composing.schemas import compose
from taskmill.templates.composing.segments import Segment

OWN = """\
control: ["<end>"]
opening: "({condition})<end>"
roles:
  system: {end: " - "}
  user: {prefix: "Q: ", end: " "}
  assistant: {prefix: "A {condition}:", lead: " ", end: "<end>", separator: "\\n"}
  call: {prefix: "C:", end: "<end>"}
  tool: {prefix: "R: ", end: " "}
conditions: {good: {text: well, weight: 1}}
rules: {system: anywhere, unanswered: keep}
strip_end: true
"""
TEXTS = st.text(st.sampled_from("aZ ß\n\t<|>{}/sé数"), max_size=12) | st.sampled_from(
    ["</s>", "{eos}", "{bos}", "<|im_end|>", "<|user|>\n", " ASSISTANT:", "USER: ", "\n", " ", "{condition}"]
)
TALKS = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant", "call", "tool"]), TEXTS), min_size=1, max_size=7
)
ALTERNATING = st.lists(TEXTS, min_size=2, max_size=6)
RENDERED = st.builds(Rendered, TEXTS, TEXTS, TEXTS, st.just(("x",)))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.yaml").write_text(OWN)
    return load_format("own.yaml", folder)


def turn(role: str, text: str) -> Turn:
    return Turn(role, (Segment(text, KINDS[role]),))


def check(chat: ChatFormat, turns: list[Turn], system: str | None = None) -> list[Turn] | None:
    """Lay out, read back, lay out again: the same segments. Returns the turns read; None where none were written."""
    segments = lay_out(chat, turns, "well", system)
    if isinstance(segments, Drop):
        return None
    read = turns_from(chat, segments, "well")
    assert not isinstance(read, Drop), read
    assert lay_out(chat, read, "well", "") == segments
    return read


def said(turns: list[Turn], strip: bool) -> list[tuple[str, str]]:
    roles = {"call": "assistant"}
    texts = [(roles.get(one.role, one.role), one.text) for one in turns]
    return [(role, text.strip() if strip else text) for role, text in texts]


@pytest.mark.parametrize("name", format_names())
@given(TALKS, st.sampled_from([None, "", "S"]))
def test_any_conversation_is_written_again_as_it_was(
    name: str, talk: list[tuple[str, str]], system: str | None
) -> None:
    check(load_format(name, Path()), [turn(role, text) for role, text in talk], system)


@pytest.mark.parametrize("name", format_names())
@given(ALTERNATING)
def test_turns_are_read_as_they_were_said(name: str, texts: list[str]) -> None:
    chat = load_format(name, Path())
    turns = [turn(("user", "assistant")[number % 2], text) for number, text in enumerate(texts)]
    read = check(chat, turns, "")
    if read is not None and all(text.strip() for text in texts):
        assert said(read, chat.strip) == said(turns, chat.strip)[: len(read)]
        assert len(read) >= len(texts) // 2 * 2


@pytest.mark.parametrize("name", format_names())
@given(st.sampled_from(["task", "instance"]), RENDERED, st.lists(RENDERED, max_size=2))
def test_two_part_prompts_keep_their_pieces(
    name: str, style: str, rendered: Rendered, shown: list[Rendered]
) -> None:
    chat = load_format(name, Path())
    turns = prompt_turns(compose(style, rendered, shown, Wording("\nAnswer:")))
    read = check(chat, turns)
    if read is not None:
        assert read[-1].text == turns[-1].text
        kinds = [piece.kind for piece in turns[0].pieces if piece.text.strip()]
        assert [piece.kind for piece in read[-2].pieces if piece.text.strip()] == kinds


@given(TALKS)
def test_a_format_of_one_s_own(own: ChatFormat, talk: list[tuple[str, str]]) -> None:
    check(own, [turn(role, text) for role, text in talk])


def test_roles_with_a_layout_of_their_own_are_told_apart(own: ChatFormat) -> None:
    talk = [
        turn("user", "a"),
        turn("call", "f()"),
        turn("tool", "1"),
        turn("assistant", "b"),
        turn("user", "c"),
    ]
    assert check(own, talk) == talk
    chatml = load_format("chatml", Path())
    read = check(chatml, [turn("system", "s"), *talk[:4]])
    assert read is not None
    assert [one.role for one in read] == ["system", "user", "assistant", "tool", "assistant"]


def test_a_default_system_text_is_read_as_a_turn() -> None:
    read = check(load_format("vicuna-v1.1", Path()), [turn("user", "a"), turn("assistant", "b")])
    assert read is not None and read[0].role == "system" and read[0].text.startswith("A chat between")


@pytest.mark.parametrize("template", [CHATML, BRACKETS, HEADERS, MARKED])
@given(ALTERNATING, st.booleans())
def test_chat_templates(
    tmp_path_factory: pytest.TempPathFactory, template: str, texts: list[str], has_system: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"template-{len(template)}"
    folder.mkdir(exist_ok=True)
    chat = load_format(str(write(folder, template)), Path())
    turns = [turn(("user", "assistant")[number % 2], text) for number, text in enumerate(texts)]
    turns = [turn("system", "Be kind."), *turns] if has_system else turns
    segments = lay_out(chat, turns)
    if isinstance(segments, Drop):
        return
    read = turns_from(chat, segments)
    if isinstance(read, Drop):  # two turns with nothing between them
        assert not all(text.strip() for text in texts)
        return
    assert lay_out(chat, read) == segments
    if all(text.strip() for text in texts):
        assert said(read, True) == said(turns, True)[: len(read)]


def test_what_a_format_does_not_write_is_refused() -> None:
    chat = load_format("chatml", Path())
    segments = lay_out(chat, [turn("user", "a"), turn("assistant", "b")])
    assert not isinstance(segments, Drop)
    for changed in (segments[1:], segments[:-1], [], [*segments, Segment("x", "user")], segments[:4]):
        found = turns_from(chat, changed)
        assert isinstance(found, Drop) and found.reason == "not_in_the_format", changed
    plain = load_format("plain", Path())
    assert isinstance(turns_from(plain, segments), Drop)
    openchat = load_format("openchat-v2", Path())
    laid = lay_out(openchat, [turn("user", "a"), turn("assistant", "b")], "GPT4")
    assert not isinstance(laid, Drop)
    assert not isinstance(turns_from(openchat, laid, "GPT4"), Drop)
    assert isinstance(turns_from(openchat, laid, "GPT3"), Drop)


def test_a_long_conversation_is_read_in_no_time() -> None:
    chat = load_format("tulu", Path())
    talk = [turn(("user", "assistant")[number % 2], f"text {number}") for number in range(4000)]
    read = check(chat, talk)
    assert read is not None and len(read) == 4000
