"""What a prompt becomes in files that trainers read: a message list, a prompt with its completion, or a whole text.

Reads and writes nothing. A row that the layout cannot express as it is trained is refused with a reason; what is expressed
but not in full is flagged, so that the export counts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, Literal, NamedTuple

import numpy as np

from taskmill.recipe import Condition
from taskmill.templates.chat.formats import PLAIN, ChatFormat
from taskmill.templates.chat.layout import Turn, answered_turns, prompt_turns
from taskmill.templates.chat.reading import turns_from
from taskmill.templates.composing.rendered import Drop
from taskmill.templates.composing.segments import Segment, describe_segments

Layout = Literal["messages", "prompt-completion"]
ROLES = {"system": "system", "user": "user", "assistant": "assistant", "call": "assistant", "tool": "tool"}
"""Role of a turn -> role of its message; a call is text that the model writes."""
COLUMNS = (
    "prompt",
    "example",
    "task",
    "split",
    "level",
    "template",
    "text",
    "ends",
    "kinds",
    "trained",
    "condition",
    "loss_weight",
    "format",
)
"""Columns of prompts/prompts that an export reads."""
_CONVERSATION = frozenset(("system", "user", "assistant"))

Record = dict[str, Any]


class Flag(IntFlag):
    """What is to be counted of a row."""

    DROPPED = 1
    DOCUMENT = 2
    WEIGHTED = 4
    WITH_CONDITION = 8
    WITH_TOOL_TURN = 16
    WITH_CALL = 32
    UNANSWERED_TURNS_CUT = 64
    NOT_ALTERNATING = 128


NAMES = {
    Flag.WEIGHTED: "prompts_with_a_loss_weight",
    Flag.WITH_CONDITION: "prompts_with_a_condition",
    Flag.WITH_TOOL_TURN: "prompts_with_a_tool_turn",
    Flag.WITH_CALL: "prompts_with_a_call_as_assistant",
    Flag.UNANSWERED_TURNS_CUT: "prompts_without_their_unanswered_turns",
    Flag.NOT_ALTERNATING: "prompts_that_llama_factory_skips",
}
"""Flag -> its count in export.json."""


class Exported(NamedTuple):
    """What a row becomes: records of the layout, or the one of a whole text."""

    flags: Flag
    records: tuple[Record, ...] = ()
    drop: Drop | None = None


@dataclass(frozen=True)
class Exporter:
    """Turns rows of prompts/prompts into records."""

    chat: ChatFormat
    conditions: Mapping[str, Condition]
    layout: Layout

    @property
    def is_plain(self) -> bool:
        """Whether the run has no chat format."""
        return self.chat.name == PLAIN and self.chat.template is None

    @property
    def as_text(self) -> bool:
        """Whether prompt and completion are plain texts, as the run has no chat format."""
        return self.layout == "prompt-completion" and self.is_plain

    def export(self, row: Mapping[str, Any], number: int) -> Exported:
        """Return the records of a row, its number in the prompts table `number`, or why there are none."""
        segments = [Segment(text, kind, trained) for kind, trained, text in describe_segments(row)]
        weight = float(str(np.float32(row["loss_weight"])))
        flags = Flag.WEIGHTED if weight != 1 else Flag(0)
        flags |= Flag.WITH_CONDITION if row["condition"] is not None else Flag(0)
        if weight == 0:
            return _refused(flags, "weight_zero", "its loss weight is 0, and trainers do not read weights")
        named = self._named(row, number, weight)
        if self.as_text:
            split = _split_text(segments)
            if isinstance(split, Drop):
                return Exported(flags | Flag.DROPPED, drop=split)
            return Exported(flags, ({"prompt": split[0], "completion": split[1], **named},))
        if any(segment.kind == "document" for segment in segments):
            text = "".join(segment.text for segment in segments if segment.kind != "control")
            return Exported(flags | Flag.DOCUMENT, ({"text": text, **named},))
        turns = self._turns(row, segments)
        if isinstance(turns, Drop):
            return Exported(flags | Flag.DROPPED, drop=turns)
        return self._conversation(turns, flags, named)

    def _named(self, row: Mapping[str, Any], number: int, weight: float) -> Record:
        """Return the columns that say where a record comes from; no value is null, as JSON readers guess types."""
        named = {
            "prompt_id": row["prompt"].hex(),
            "row": number,
            "task": row["task"],
            "example": row["example"],
            "template": row["template"] or "",
            "level": row["level"] or "",
            "condition": row["condition"] or "",
            "loss_weight": weight,
        }
        if self.conditions:
            text = self.conditions[row["condition"]].text if row["condition"] is not None else ""
            named["chat_template_kwargs"] = {"condition": text}
        return named

    def _turns(self, row: Mapping[str, Any], segments: Sequence[Segment]) -> list[Turn] | Drop:
        kinds = {segment.kind for segment in segments}
        if row["format"] == self.chat.name and kinds & _CONVERSATION:
            condition = row["condition"]
            return turns_from(
                self.chat, segments, None if condition is None else self.conditions[condition].text
            )
        beyond = sorted({s.kind for s in segments if s.trained} - {"output", "control"})
        if beyond:
            detail = f"{', '.join(beyond)} carries loss, and messages can only say it of answers"
            return Drop("loss_beyond_the_answer", f"{detail}; --layout prompt-completion can")
        return prompt_turns(segments)

    def _conversation(self, turns: Sequence[Turn], flags: Flag, named: Record) -> Exported:
        answered = answered_turns(turns)
        if not answered:
            return _refused(flags, "no_answer", "no turn is one that the model writes")
        flags |= Flag.UNANSWERED_TURNS_CUT if len(answered) < len(turns) else Flag(0)
        flags |= Flag.WITH_TOOL_TURN if any(turn.role == "tool" for turn in answered) else Flag(0)
        flags |= Flag.WITH_CALL if any(turn.role == "call" for turn in answered) else Flag(0)
        messages = [{"role": ROLES[turn.role], "content": turn.text} for turn in answered]
        if self.layout == "messages":
            flags |= Flag(0) if alternates(messages) else Flag.NOT_ALTERNATING
            return Exported(flags, ({"messages": messages, **named},))
        places = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        if places[0] == 0:
            return _refused(flags, "nothing_asked", "it begins with an answer, whose prompt would be empty")
        return Exported(
            flags,
            tuple(
                {"prompt": messages[:place], "completion": [messages[place]], **named, "answer": answer}
                for answer, place in enumerate(places)
            ),
        )


def _refused(flags: Flag, reason: str, detail: str) -> Exported:
    return Exported(flags | Flag.DROPPED, drop=Drop(reason, detail))


def alternates(messages: Sequence[Mapping[str, str]]) -> bool:
    """Say whether LLaMA-Factory takes a conversation: after a system text what is asked and answers take turns."""
    start = 1 if messages and messages[0]["role"] == "system" else 0
    asked, rest = ("user", "tool"), messages[start:]
    fits = all(
        (message["role"] in asked) if number % 2 == 0 else (message["role"] == "assistant")
        for number, message in enumerate(rest)
    )
    return fits and len(rest) % 2 == 0


def _split_text(segments: Sequence[Segment]) -> tuple[str, str] | Drop:
    """Return a plain prompt up to where its loss begins, and the rest; the end of the sequence is the trainer's to add."""
    body = list(segments)
    if body and body[-1].kind == "control":
        body.pop()
    trained = [segment.trained for segment in body]
    if True not in trained:
        return Drop("nothing_trained", "no text carries loss")
    first = trained.index(True)
    if not all(trained[first:]) or any(segment.kind == "control" for segment in body):
        detail = (
            "its loss stops and begins again, and a text can only say where it begins; --layout messages can"
        )
        return Drop("several_answers", detail)
    texts = [segment.text for segment in body]
    return "".join(texts[:first]), "".join(texts[first:])
