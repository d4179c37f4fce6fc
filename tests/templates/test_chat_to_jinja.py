"""A format's chat template writes what `lay_out` writes, and marks what it trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.templates.chat.formats import format_names, load_format
from taskmill.templates.chat.hub import BEGIN, END, HubTemplate, TemplateRefusedError
from taskmill.templates.chat.layout import KINDS, Turn, lay_out
from taskmill.templates.chat.to_jinja import chat_template
from taskmill.templates.composing.rendered import Drop
from taskmill.templates.composing.segments import Segment

TOKENS = {"bos_token": "{bos}", "eos_token": "{eos}"}
TEXTS = st.text(st.sampled_from("aZ ß\n\t<|>{}'\"\\%sé数😀"), min_size=1, max_size=12).filter(str.strip)
OWN = """\
control: ["<end>"]
roles:
  user: {prefix: "Q\\\\n'\\"é😀: ", end: "<end>"}
  assistant: {prefix: "{condition} A:", lead: " ", end: "<end>{eos} \\n", separator: "-\\n "}
conditions: {good: {text: "so'", weight: 1}}
inference: good
strip_end: true
"""


def marked(segments: list[Segment]) -> str:
    text = "".join(f"{BEGIN}{one.text}{END}" if one.trained else one.text for one in segments)
    return text.replace(END + BEGIN, "")


@pytest.mark.parametrize("name", [*format_names(), "own.yaml"])
@given(st.lists(TEXTS, min_size=2, max_size=5), st.sampled_from(["", None, "S 'x'"]))
def test_the_template_writes_what_the_format_writes(
    tmp_path_factory: pytest.TempPathFactory, name: str, texts: list[str], system: str | None
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "own.yaml").write_text(OWN)
    chat = load_format(name, folder)
    turns = [
        Turn(role, (Segment(text, KINDS[role]),))
        for number, text in enumerate(texts)
        for role in [("user", "assistant")[number % 2]]
    ]
    condition = chat.conditions[chat.inference].text if chat.inference else None
    segments = lay_out(chat, turns, condition, system)
    if isinstance(segments, Drop):
        return
    template = HubTemplate("own", chat_template(chat, system), TOKENS, ())
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    if len(texts) % 2 and chat.rules.unanswered == "cut":
        messages.pop()
    assert template.render(messages) == marked(segments)
    asked = template.render(messages[:1], generate=True)
    whole = template.render(messages[:2])
    assert whole.startswith(asked) and whole[len(asked)] == BEGIN


def test_roles_that_the_format_has_not_are_refused() -> None:
    template = HubTemplate("tulu", chat_template(load_format("tulu", Path())), TOKENS, ())
    with pytest.raises(TemplateRefusedError, match="the format tulu has no such turn: tool"):
        template.render([{"role": "tool", "content": "x"}])
