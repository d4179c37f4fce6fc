"""Lay out a conversation in a chat format: turns in, the segments of a prompt out.

Reads and writes nothing. Only a format's own control texts become control segments, whatever a turn says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from taskmill.templates.chat.cutting import Content, skeleton
from taskmill.templates.chat.formats import ROLES, TRAINED_ROLES, ChatFormat, Part
from taskmill.templates.chat.hub import BEGIN, END, HubTemplate, TemplateRefusedError
from taskmill.templates.composing.rendered import Drop
from taskmill.templates.composing.segments import Segment

KINDS = {"system": "system", "user": "user", "assistant": "assistant", "call": "assistant", "tool": "user"}
"""Role of a turn -> kind of its segments."""
BOS = Segment("{bos}", "control")


class Turn(NamedTuple):
    """What one speaker says, as one or more pieces of text."""

    role: str
    """system, user, assistant, call or tool."""
    pieces: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(piece.text for piece in self.pieces)


def turns_of(fields: Mapping[str, Any]) -> list[Turn] | Drop:
    """Return the turns of an example of shape `turns`: a list of {role: text}."""
    given = fields.get("turns")
    if not isinstance(given, list) or not given:
        return Drop("no_turns", "the field `turns` is no list of turns")
    turns: list[Turn] = []
    for number, item in enumerate(given):
        if not isinstance(item, dict) or len(item) != 1:
            return Drop("bad_turn", f"turn {number} is not {{role: text}}")
        ((role, text),) = item.items()
        if role not in ROLES or not isinstance(text, str):
            return Drop("bad_turn", f"turn {number}: expected one of {', '.join(ROLES)} and a text")
        turns.append(Turn(role, (Segment(text, KINDS[role]),)))
    return turns


def prompt_turns(segments: Sequence[Segment]) -> list[Turn]:
    """Return a two-part prompt as a user turn (all but output and control) and an assistant turn (the output).

    The space that separates the output from the input is left out; a format writes its own.
    """
    user, answer = [], ""
    for segment in segments:
        if segment.kind == "output":
            answer += segment.text
        elif segment.kind != "control":
            user.append(segment)
    return [Turn("user", tuple(user)), Turn("assistant", (Segment(answer.strip(), "output"),))]


def lay_out(
    chat: ChatFormat, turns: Sequence[Turn], condition: str | None = None, system: str | None = None
) -> list[Segment] | Drop:
    """Write turns in a chat format.

    Args:
        chat: the format.
        turns: the conversation.
        condition: what `{condition}` becomes; formats with conditions need one.
        system: system text of conversations that have none; by default the format's own.

    Returns:
        the segments of the prompt, or why the format does not take the conversation.
    """
    if chat.template is not None:
        return _lay_out_by_template(chat.template, turns, system)
    if chat.has_conditions and condition is None:
        return Drop("no_condition", f"the format {chat.name} names a quality class and the example has none")
    found = _accepted(chat, turns, chat.default_system if system is None else system)
    if isinstance(found, Drop):
        return found
    segments = [BOS] if chat.bos else []
    segments += affix(chat.opening, "system", False, condition)
    for turn in found:
        _write(segments, turn, frame_of(chat, turn.role, condition))
    return without_end(segments) if chat.strip_end else segments


def _lay_out_by_template(
    template: HubTemplate, turns: Sequence[Turn], system: str | None
) -> list[Segment] | Drop:
    """Write turns as a chat template does; what it would write for the real contents must be the same text."""
    if any(turn.role == "call" for turn in turns):
        return Drop("role_not_in_format", f"{template.label} gets texts only, and a turn is a call")
    kept = answered_turns(turns)
    if not kept:
        return Drop("no_assistant_turn", "no turn is one that the model writes")
    if system and kept[0].role != "system":
        kept.insert(0, Turn("system", (Segment(system, "system"),)))
    pieces = skeleton(template, tuple(turn.role for turn in kept))
    if isinstance(pieces, Drop):
        return pieces
    segments: list[Segment] = []
    text = lead = ""
    for piece in pieces:
        turn = kept[piece.turn]
        if isinstance(piece, Content):
            found = [part for part in stripped(turn, piece.strip_left, piece.strip_right).pieces if part.text]
            text += "".join(part.text for part in found)
            for part in found or [Segment("", KINDS[turn.role])][: len(lead)]:
                segments.append(Segment(lead + part.text, part.kind, piece.trained))
                lead = ""
        elif piece.is_lead:
            lead = piece.text
            text += lead
        else:
            kind = "control" if piece.control else KINDS[turn.role]
            segments.append(Segment(piece.text, kind, piece.trained))
            text += template.written(piece.text) if piece.control else piece.text
    try:
        whole = template.render([{"role": turn.role, "content": turn.text} for turn in kept])
    except TemplateRefusedError as error:
        return Drop("refused_by_template", str(error))
    if _unmarked(whole) != _unmarked(text):
        return Drop("template_changes_contents", f"{template.label} writes contents otherwise than they are")
    return segments


def _unmarked(text: str) -> str:
    return text.replace(BEGIN, "").replace(END, "")


def _accepted(chat: ChatFormat, turns: Sequence[Turn], system: str | None) -> list[Turn] | Drop:
    """Return the turns that the format writes: system text first, contents stripped, rules kept."""
    rules = chat.rules
    kept = [stripped(turn) for turn in turns] if chat.strip else list(turns)
    head: list[Turn] = []
    while kept and kept[0].role == "system" and not (head and head[0].text):
        head = [kept.pop(0)]  # one without text says that there is none
    if kept and rules.first == "user" and kept[0].role != "user":
        kept.pop(0)
    for number, turn in enumerate(kept):
        if turn.role not in chat.roles or (turn.role == "system" and rules.system == "first"):
            return Drop(
                "role_not_in_format", f"turn {number}: the format {chat.name} has no {turn.role} turn there"
            )
        if rules.alternate and turn.role != ("user", "assistant")[number % 2]:
            return Drop("roles_do_not_alternate", f"turn {number} is of the role {turn.role}")
        if rules.empty == "drop" and not any(piece.text for piece in turn.pieces):
            return Drop("empty_turn", f"turn {number}, of the role {turn.role}")
    answered = answered_turns(kept)
    if not answered:
        return Drop("no_assistant_turn", "no turn is one that the model writes")
    if len(answered) < len(kept) and rules.unanswered == "drop":
        return Drop("unanswered", f"the last turn is of the role {kept[-1].role}")
    if rules.unanswered == "cut":
        kept = answered
    if not head and system and "system" in chat.roles:
        head = [Turn("system", (Segment(system, "system"),))]
    if head and "system" not in chat.roles:
        return Drop("role_not_in_format", f"the format {chat.name} has no system turn")
    return head + kept if head and head[0].text else kept


def answered_turns(turns: Sequence[Turn]) -> list[Turn]:
    """Return the turns up to the last one that the model writes."""
    last = len(turns)
    while last and turns[last - 1].role not in TRAINED_ROLES:
        last -= 1
    return list(turns[:last])


def stripped(turn: Turn, left: bool = True, right: bool = True) -> Turn:
    """Return the turn without white space on the sides of its text."""
    pieces = list(turn.pieces)
    while left and pieces and not pieces[0].text.strip():
        pieces.pop(0)
    while right and pieces and not pieces[-1].text.strip():
        pieces.pop()
    if left and pieces and pieces[0].text[0].isspace():
        pieces[0] = pieces[0]._replace(text=pieces[0].text.lstrip())
    if right and pieces and pieces[-1].text[-1].isspace():
        pieces[-1] = pieces[-1]._replace(text=pieces[-1].text.rstrip())
    return Turn(turn.role, tuple(pieces))


class Frame(NamedTuple):
    """What stands around the text of a role's turns."""

    before: list[Segment]
    lead: str
    after: list[Segment]
    trained: bool


def frame_of(chat: ChatFormat, role: str, condition: str | None) -> Frame:
    """Return what the format writes around turns of a role, made once for each condition."""
    found: Frame | None = chat.written.get((role, condition))
    if found is None:
        given, kind, trained = chat.roles[role], KINDS[role], role in TRAINED_ROLES
        after = affix(given.end, kind, trained, condition)
        after += affix(given.separator, kind, False, condition)
        found = Frame(affix(given.prefix, kind, False, condition), given.lead, after, trained)
        chat.written[role, condition] = found
    return found


def _write(segments: list[Segment], turn: Turn, frame: Frame) -> None:
    """Add a turn to the segments of a prompt."""
    segments += frame.before
    lead = frame.lead
    for text, kind, _ in turn.pieces:
        if text:
            segments.append(Segment(lead + text, kind, frame.trained))
            lead = ""
    if lead:
        segments.append(Segment(lead, KINDS[turn.role], frame.trained))
    segments += frame.after


def affix(parts: Sequence[Part], kind: str, trained: bool, condition: str | None) -> list[Segment]:
    """Return the segments of a text that the format writes itself."""
    return [
        Segment(part.text, "control", trained)
        if part.control
        else Segment(part.text.replace("{condition}", condition or ""), kind, trained)
        for part in parts
    ]


def without_end(segments: Sequence[Segment]) -> list[Segment]:
    """Return the segments without white space at the end of the whole prompt."""
    kept = list(segments)
    while kept and kept[-1].kind != "control":
        text = kept[-1].text.rstrip()
        if text:
            kept[-1] = kept[-1]._replace(text=text)
            break
        kept.pop()
    return kept
