"""Cut what a chat template writes into turns: its own text, contents, special tokens, and what is trained.

Reads and writes nothing. A conversation is rendered with a mark in the place of every content. What stands between the
marks is the template's own text, so its special tokens can never be a user's. Loss starts where the prompt to generate
from (`add_generation_prompt`) ends and stops after the first special token behind the answer, or is where
`{% generation %}` says.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from taskmill.errors import shorten
from taskmill.templates.chat.hub import BEGIN, END, HubTemplate, Message, TemplateRefusedError
from taskmill.templates.composing.rendered import Drop

_LIKE_SPECIAL = r"<[|｜][^|｜<>\s]{1,60}[|｜]>"
_LEFT, _RIGHT = " \t", "\n "
"""White space around a mark that tells whether the template strips contents."""


class UncuttableError(Exception):
    """A template whose text cannot be cut into turns."""


class Content(NamedTuple):
    """The place of a turn's text."""

    turn: int
    strip_left: bool
    strip_right: bool
    trained: bool


class Literal(NamedTuple):
    """A text that the template itself writes."""

    text: str
    turn: int
    """The turn that it belongs to."""
    control: bool
    trained: bool
    before_content: bool
    """Whether the content of a turn follows at once."""

    @property
    def is_lead(self) -> bool:
        """Whether this is white space that the model writes before its answer, and so becomes part of the answer."""
        return self.trained and self.before_content and not self.control and self.text.isspace()


Skeleton = tuple[Content | Literal, ...]


def skeleton(template: HubTemplate, roles: tuple[str, ...]) -> Skeleton | Drop:
    """Return what a template writes for turns of these roles, or why it refuses them."""
    try:
        return cut(template, roles)
    except TemplateRefusedError as error:
        return Drop("refused_by_template", str(error))
    except UncuttableError as error:
        return Drop("template_cannot_be_cut", str(error))


@functools.lru_cache(maxsize=1024)
def cut(template: HubTemplate, roles: tuple[str, ...]) -> Skeleton:
    """Render turns of these roles with marks for their texts and cut the result.

    Raises:
        TemplateRefusedError: the template raises an error.
        UncuttableError: a content is missing, stands twice or elsewhere, or a boundary cannot be found.
    """
    salt = "q" + hashlib.sha256(template.source.encode()).hexdigest()[:12]
    marks = [f"{salt}n{number:05d}z" for number in range(len(roles))]
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks)]
    marked = template.render(messages)
    whole, spans = _generation_spans(marked)
    literals = _literals(whole, salt, len(roles))
    spaced = [{"role": role, "content": _LEFT + mark + _RIGHT} for role, mark in zip(roles, marks)]
    strips = _strips(literals, _literals(_generation_spans(template.render(spaced))[0], salt, len(roles)))
    if spans is None:
        spans = [
            _span(template, messages, whole, turn, mark)
            for turn, mark in enumerate(marks)
            if roles[turn] == "assistant"
        ]
    else:
        spans = _marked_spans(template, messages, whole, spans)
    return tuple(_pieces(template, whole, marks, strips, spans))


def _generation_spans(marked: str) -> tuple[str, list[tuple[int, int]] | None]:
    """Return the text without the marks of `{% generation %}`, and what they enclose; None where there are none."""
    parts = re.split(f"([{BEGIN}{END}])", marked)
    if len(parts) == 1:
        return marked, None
    text, spans, start = "", [], None
    for part in parts:
        if part == BEGIN:
            start = len(text)
        elif part == END and start is not None:
            spans.append((start, len(text)))
            start = None
        elif part not in (BEGIN, END):
            text += part
    return text, spans


def _literals(whole: str, salt: str, number: int) -> list[str]:
    """Return the texts around the marks; every mark must stand once and in order."""
    parts = re.split(rf"{salt}n(\d{{5}})z", whole)
    found = [int(part) for part in parts[1::2]]
    if found != list(range(number)):
        missing = sorted(set(range(number)) - set(found))
        what = (
            f"leaves out the content of turn {missing[0]}"
            if missing
            else "writes contents twice or in another order"
        )
        raise UncuttableError(f"it {what}")
    return parts[::2]


def _strips(plain: Sequence[str], spaced: Sequence[str]) -> list[tuple[bool, bool]]:
    """Return for each content whether white space is stripped on its left and on its right."""
    left, right = [], []
    last = len(plain) - 1
    for number, (text, found) in enumerate(zip(plain, spaced)):
        befores = ("", _RIGHT) if number else ("",)
        afters = ("", _LEFT) if number < last else ("",)
        fits = [(a, b) for a in befores for b in afters if a + text + b == found]
        if not fits:
            raise UncuttableError("it changes the white space of contents in more ways than stripping it")
        if number:
            right.append(not fits[0][0])
        if number < last:
            left.append(not fits[0][1])
    return list(zip(left, right))


def _opening(template: HubTemplate, messages: Sequence[Message], whole: str, turn: int, start: int) -> int:
    """Return where the prompt to generate a turn from ends: at or before `start`, where the turn's content begins."""
    opening = _generation_spans(template.render(messages[:turn], generate=True))[0]
    lead = whole[len(opening) : start]
    asked = lead.strip() and opening != _generation_spans(template.render(messages[:turn]))[0]
    if not whole.startswith(opening) or len(opening) > start or (lead.strip() and not asked):
        raise UncuttableError(
            f"with add_generation_prompt it ends in {shorten(opening[-40:])}, and an answer begins with "
            f"{shorten(whole[:start][-40:])}"
        )
    return len(opening)


def _span(
    template: HubTemplate, messages: Sequence[Message], whole: str, turn: int, mark: str
) -> tuple[int, int]:
    """Return where loss begins and ends for an answer: from the prompt to generate from to a special token behind it."""
    start = whole.index(mark)
    stop = start + len(mark)
    behind = messages[turn + 1]["content"] if turn + 1 < len(messages) else ""
    tail = whole[stop : whole.index(behind) if behind else len(whole)]
    first = re.search(_pattern(template), tail)
    if first is None:
        closed = _common(whole, _generation_spans(template.render(messages[: turn + 1]))[0])
        if len(closed) < stop:
            raise UncuttableError("an answer is written in another way when more turns follow")
        return _opening(template, messages, whole, turn, start), len(closed)
    return _opening(template, messages, whole, turn, start), stop + first.end()


def _marked_spans(
    template: HubTemplate, messages: Sequence[Message], whole: str, spans: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return what `{% generation %}` encloses, each from where the prompt to generate from ends."""
    found = list(spans)
    for turn, message in enumerate(messages):
        place = whole.index(message["content"])
        around = [i for i, (start, stop) in enumerate(found) if start <= place < stop]
        if bool(around) != (message["role"] == "assistant"):
            what = (
                "leaves an answer outside" if not around else f"encloses a turn of the role {message['role']}"
            )
            raise UncuttableError(f"{{% generation %}} {what}")
        if around:
            start, stop = found[around[0]]
            opening = _opening(template, messages, whole, turn, place)
            if whole[min(start, opening) : max(start, opening)].strip():
                raise UncuttableError(
                    f"{{% generation %}} begins after {shorten(whole[:start][-40:])}, add_generation_prompt ends in "
                    f"{shorten(whole[:opening][-40:])}"
                )
            found[around[0]] = (opening, stop)
    return found


def _pattern(template: HubTemplate) -> str:
    """Return the expression that finds special tokens in the template's own text."""
    known = template.special
    if known is None:
        return "|".join([*map(re.escape, template.tokens.values()), _LIKE_SPECIAL])
    return "|".join(map(re.escape, known)) or r"(?!)"


def _pieces(
    template: HubTemplate,
    whole: str,
    marks: Sequence[str],
    strips: Sequence[tuple[bool, bool]],
    spans: Sequence[tuple[int, int]],
) -> list[Content | Literal]:
    """Cut the whole text at marks, special tokens and the borders of what is trained."""
    borders = {0, len(whole), *(place for span in spans for place in span)}
    contents: dict[int, int] = {}
    for turn, mark in enumerate(marks):
        contents[whole.index(mark)] = turn
        borders |= {whole.index(mark), whole.index(mark) + len(mark)}
    tokens = {found.start(): found.end() for found in re.finditer(_pattern(template), whole)}
    borders |= tokens.keys() | set(tokens.values())
    pieces: list[Content | Literal] = []
    turn = 0
    edges = sorted(borders)
    for start, stop in itertools.pairwise(edges):
        trained = any(a <= start and stop <= b for a, b in spans)
        if start in contents:
            turn = contents[start]
            pieces.append(Content(turn, *strips[turn], trained))
        else:
            owner = turn if trained or not pieces else min(_next(contents, start, turn), len(marks) - 1)
            text = template.symbol(whole[start:stop]) if start in tokens else whole[start:stop]
            pieces.append(Literal(text, owner, start in tokens, trained, stop in contents))
    return pieces


def _next(contents: Mapping[int, int], place: int, turn: int) -> int:
    """Return the turn whose content comes next; the present one where none does."""
    return min((number for start, number in contents.items() if start >= place), default=turn)


def _common(first: str, second: str) -> str:
    """Return what both texts begin with."""
    size = next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))
    return first[:size]
