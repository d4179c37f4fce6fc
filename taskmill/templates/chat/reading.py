"""Read turns back out of the segments of a prompt: the inverse of `layout.lay_out`.

Reads and writes nothing. A format's own text stands in segments of its own, so what is left between it is a turn's text as
it was given, whatever it says.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskmill.errors import shorten
from taskmill.templates.chat.cutting import Content, Skeleton, skeleton
from taskmill.templates.chat.formats import ChatFormat
from taskmill.templates.chat.hub import HubTemplate
from taskmill.templates.chat.layout import BOS, KINDS, Frame, Turn, affix, frame_of, lay_out, without_end
from taskmill.templates.composing.rendered import Drop
from taskmill.templates.composing.segments import Segment

ROLES_OF = {
    "system": "system",
    "user": "user",
    "instruction": "user",
    "demonstration": "user",
    "input": "user",
    "assistant": "assistant",
    "output": "assistant",
}
"""Kind of a segment -> the role whose text it can be."""
_CONTENT_KINDS = {
    role: frozenset(found for found, owner in ROLES_OF.items() if owner == ROLES_OF[kind])
    for role, kind in KINDS.items()
}
_LAST = -1
"""Stands for the end of the segments."""


def turns_from(
    chat: ChatFormat, segments: Sequence[Segment], condition: str | None = None
) -> list[Turn] | Drop:
    """Return the turns that a format wrote as these segments: `lay_out` makes the same segments of them again.

    A system text that the format added by itself is a turn like others. Roles that a format writes alike are read as the
    first of system, user, assistant, tool, call.

    Args:
        chat: the format.
        segments: a whole prompt in it.
        condition: what `{condition}` became.
    """
    given = list(segments)
    if chat.template is not None:
        turns = _turns_by_template(chat.template, given)
    else:
        turns = _turns(chat, given, condition)
    if turns is None or lay_out(chat, turns, condition, system="") != given:
        shown = shorten("".join(segment.text for segment in given))
        return Drop("not_in_the_format", f"the format {chat.name} does not write {shown}")
    return turns


def _turns(chat: ChatFormat, segments: Sequence[Segment], condition: str | None) -> list[Turn] | None:
    """Read turns from the last to the first: a place is good where a turn begins and the rest can be read."""
    head = [BOS] if chat.bos else []
    head += affix(chat.opening, "system", False, condition)
    if list(segments[: len(head)]) != head:
        return None
    order = [role for role in ("system", "user", "assistant", "tool", "call") if role in chat.roles]
    frames = {role: frame_of(chat, role, condition) for role in order}
    size = len(segments)
    found: dict[int, tuple[Turn, int]] = {}
    for start in range(size - 1, len(head) - 1, -1):
        for role in order:
            read = _read(segments, start, role, frames[role], found, chat.strip_end)
            if read is not None:
                found[start] = read
                break
    turns: list[Turn] = []
    place = len(head)
    while place not in (size, _LAST):
        if place not in found:
            return None
        turn, place = found[place]
        turns.append(turn)
    return turns


def _read(
    segments: Sequence[Segment],
    start: int,
    role: str,
    frame: Frame,
    found: dict[int, tuple[Turn, int]],
    strip_end: bool,
) -> tuple[Turn, int] | None:
    """Return a turn of this role that begins at `start`, and where the next begins; None where there is none."""
    size = len(segments)
    if strip_end and _ends(segments, start, without_end([*frame.before, *_lead(frame, role), *frame.after])):
        return Turn(role, ()), _LAST
    first = start + len(frame.before)
    if list(segments[start:first]) != frame.before:
        return None
    cut = without_end(frame.after)
    for stop in range(first, size + 1):
        after = stop + len(frame.after)
        if list(segments[stop:after]) == frame.after and (after == size or after in found):
            turn = _turn(role, frame, segments[first:stop])
            if turn is not None:
                return turn, after
        if strip_end and _ends(segments, stop, cut):
            turn = _turn(role, frame, segments[first:stop])
            if turn is not None:
                return turn, _LAST
        if stop == size or not _is_content(segments[stop], role, frame):
            return None
    return None


def _ends(segments: Sequence[Segment], start: int, last: Sequence[Segment]) -> bool:
    return start + len(last) == len(segments) and list(segments[start:]) == list(last)


def _is_content(segment: Segment, role: str, frame: Frame) -> bool:
    return segment.kind in _CONTENT_KINDS[role] and segment.trained == frame.trained


def _lead(frame: Frame, role: str) -> list[Segment]:
    return [Segment(frame.lead, KINDS[role], frame.trained)] if frame.lead else []


def _turn(role: str, frame: Frame, pieces: Sequence[Segment]) -> Turn | None:
    """Return the turn of these pieces, the first of which begins with the lead."""
    texts = [(piece.text, piece.kind) for piece in pieces]
    if frame.lead:
        if not texts or not texts[0][0].startswith(frame.lead):
            return None
        texts[0] = (texts[0][0][len(frame.lead) :], texts[0][1])
    return Turn(role, tuple(Segment(text, kind) for text, kind in texts if text))


def _turns_by_template(template: HubTemplate, segments: Sequence[Segment]) -> list[Turn] | None:
    """Read turns of a chat template: roles from the kinds of segments, texts from between the template's own."""
    roles: list[str] = []
    for segment in segments:
        role = "assistant" if segment.trained else ROLES_OF.get(segment.kind)
        if segment.kind != "control" and role is not None and role != (roles[-1] if roles else None):
            roles.append(role)
    pieces = skeleton(template, tuple(roles)) if roles else Drop("no_turns")
    return None if isinstance(pieces, Drop) else _aligned(pieces, roles, segments)


def _aligned(pieces: Skeleton, roles: Sequence[str], segments: Sequence[Segment]) -> list[Turn] | None:
    texts: list[list[Segment]] = [[] for _ in roles]
    place, lead = 0, ""
    for number, piece in enumerate(pieces):
        if not isinstance(piece, Content) and piece.is_lead:
            lead = piece.text
            continue
        if not isinstance(piece, Content):
            kind = "control" if piece.control else KINDS[roles[piece.turn]]
            if place >= len(segments) or segments[place] != (piece.text, kind, piece.trained):
                return None
            place += 1
            continue
        following = pieces[number + 1] if number + 1 < len(pieces) else None
        while place < len(segments) and ROLES_OF.get(segments[place].kind) == roles[piece.turn]:
            segment = segments[place]
            if lead:
                if not segment.text.startswith(lead):
                    return None
                segment, lead = segment._replace(text=segment.text[len(lead) :]), ""
            elif following is not None and not isinstance(following, Content):
                kind = "control" if following.control else KINDS[roles[following.turn]]
                if segment == (following.text, kind, following.trained):
                    break
            texts[piece.turn] += [Segment(segment.text, segment.kind)] if segment.text else []
            place += 1
    if place < len(segments):
        return None
    return [Turn(role, tuple(own)) for role, own in zip(roles, texts)]
