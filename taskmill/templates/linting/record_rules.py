"""Rules over real records: what a template makes of some of them, as the stage renders them.

Reads and writes nothing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskmill.templates.composing.schemas import Drop, Rendered
from taskmill.templates.drawing.examples import Example
from taskmill.templates.linting import trees
from taskmill.templates.linting.findings import Finding
from taskmill.templates.linting.subjects import Subject
from taskmill.templates.linting.text_rules import CHOICES, TextLint
from taskmill.templates.rendering.renderer import Renderer
from taskmill.templates.rendering.variants import TaskVariants, Variant

_WORD = re.compile(r"\w+|[^\w\s]")
_EMPTY = ("empty", "no_output")
_FAILED = ("render_error", "limit", "unsafe")
_MIN_CONSTANT = 5
"""Records that a template needs before its own text is judged by their answers."""
_MIN_CONDITIONAL = 10
"""Records from which on a template whose text hangs on a condition is expected to give a prompt."""
_MIN_SHOWN = 0.2
"""Share of the records from which on answers in the input are no coincidence."""


@dataclass
class _Seen:
    """What a template made of the sampled records."""

    num: int = 0
    made: list[tuple[Example, Rendered]] = field(default_factory=list)
    num_made: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)


class RecordLint:
    """Checks the templates of a task over some of its records."""

    def __init__(self, text: TextLint, renderer: Renderer) -> None:
        """Take what parses templates and what renders them."""
        self._text, self._renderer = text, renderer

    def check(
        self,
        task: Mapping[str, Any],
        variants: TaskVariants,
        subjects: Mapping[str, Subject],
        examples: Sequence[Example],
    ) -> Iterator[Finding]:
        """Yield what is wrong with the templates of a task over examples that have an answer.

        Args:
            task: a row of tasks/tasks.
            variants: what renders its examples.
            subjects: its templates by id; variants that are none of these are left out.
            examples: some of its examples, each with an answer.
        """
        rows = [json.loads(example.fields) for example in examples]
        inputs = [words_of(_input_texts(row, task["output_fields"])) for row in rows]
        for variant in variants.variants:
            subject = subjects.get(variant.template)
            if subject is None:
                continue
            seen = _look(variant, examples)
            for rule, message, share in self._judge(
                subject, seen, rows, dict(zip(examples, inputs, strict=True))
            ):
                yield Finding(rule, subject, message, None, task["task"], share)

    def _judge(
        self,
        subject: Subject,
        seen: _Seen,
        rows: Sequence[Mapping[str, Any]],
        inputs: Mapping[Example, str],
    ) -> Iterator[tuple[str, str, float | None]]:
        """Yield (rule, message, share) of what was seen."""
        tree = self._text.tree(subject)
        part = trees.read_input(tree)
        yield from _drops(seen, part.is_conditional)
        if subject.form == "promptsource":
            yield from _notes(seen)
            yield from _missing(self._text.fields(subject), rows)
            yield from self._indexes(subject, tree, rows)
        yield from _answers(seen, inputs, words_of(part.constant))

    def _indexes(
        self, subject: Subject, tree: Any, rows: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[str, str, float | None]]:
        """Yield the fields whose values are no index into constant answer choices."""
        assert subject.row is not None
        choices = self._renderer.fixed_choices(subject.row)
        if choices is None:
            return
        for path, line in trees.choice_indexes(tree):
            values = [_at(row, path) for row in rows] if isinstance(path, str) else []
            wrong = [v for v in values if isinstance(v, int) and not 0 <= int(v) < len(choices)]
            if wrong:
                why = "takes the last one" if wrong[0] == -1 else f"of {len(choices)} answer choices"
                problem = f"{CHOICES}[{path}] in line {line} is {CHOICES}[{wrong[0]}], {why}"
                yield "choice-index", _of(len(wrong), len(values), problem), len(wrong) / len(values)


def _look(variant: Variant, examples: Sequence[Example]) -> _Seen:
    """Render examples and gather what came of them."""
    seen = _Seen(len(examples))
    for example in examples:
        made = variant.render(example)
        if isinstance(made, Drop):
            seen.dropped[made.reason] += 1
            seen.details.setdefault(made.reason, f"{made.detail} ({example.id})")
            continue
        seen.num_made += 1
        seen.notes.update(made.notes)
        if isinstance(made, Rendered):
            seen.made.append((example, made))
    return seen


def _of(number: int, total: int, problem: str) -> str:
    return f"{number} of {total} records: {problem}"


def _drops(seen: _Seen, is_conditional: bool) -> Iterator[tuple[str, str, float | None]]:
    """Yield what kept records from becoming prompts."""
    if not seen.num_made:
        if is_conditional and seen.num < _MIN_CONDITIONAL and not set(seen.dropped) - set(_EMPTY):
            return
        reasons = "; ".join(f"{reason}: {seen.details[reason]}" for reason in sorted(seen.dropped))
        yield "never-renders", f"none of {seen.num} records gives a prompt. {reasons}", 1.0
        return
    groups = [("render-errors", _FAILED), ("too-long", ("too_long",))]
    if not is_conditional:  # a template with its ||| in a condition leaves records out on purpose
        groups.insert(0, ("empty-renders", _EMPTY))
    for rule, named in groups:
        number = sum(seen.dropped[reason] for reason in named)
        if number:
            first = next(seen.details[reason] for reason in named if reason in seen.details)
            yield rule, _of(number, seen.num, first), number / seen.num


def _notes(seen: _Seen) -> Iterator[tuple[str, str, float | None]]:
    counted = {
        "options_without_the_answer": ("answer-not-an-option", "the output is not among the answer choices"),
        "renders_with_more_parts": ("more-parts", "text behind a second ||| is left out"),
    }
    for note, (rule, problem) in counted.items():
        if number := seen.notes[note]:
            example = next((e.id for e, made in seen.made if note in made.notes), "")
            yield rule, _of(number, seen.num_made, f"{problem} ({example})"), number / seen.num_made


def _missing(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str, float | None]]:
    """Yield the fields that a template reads and no record has."""
    known = {name for row in rows for name in row}
    for name in names:
        if name not in known:
            yield "missing-field", f"none of {len(rows)} records has the field {name!r}", 1.0


# -------------------------------------------------------------------------------------------- answers


def words_of(texts: Sequence[str]) -> str:
    """Return texts as lower-case words and signs, one space around each."""
    return " " + " ".join(" ".join(_WORD.findall(text.casefold())) for text in texts) + " "


def _answers(
    seen: _Seen, inputs: Mapping[Example, str], constant: str
) -> Iterator[tuple[str, str, float | None]]:
    """Yield the answers that stand in inputs, and come neither from the record's own input nor from a list of all options."""
    if not seen.made:
        return
    given, stated = [], 0
    for example, made in seen.made:
        answer = words_of([made.target])
        source = words_of([made.source])
        if not answer.strip() or answer not in source or _lists_all(made, source):
            continue
        if answer in constant:
            stated += 1
        elif answer not in inputs[example]:
            given.append((example.id, made.target))
    total = len(seen.made)
    if len(given) / total >= _MIN_SHOWN:
        name, answer = given[0]
        problem = f"the input holds the answer {answer[:60]!r}, which is not in the record's input ({name})"
        yield "answer-shown", _of(len(given), total, problem), len(given) / total
    if stated == total >= _MIN_CONSTANT:
        yield "answer-shown", f"the template's own text states the answer of all {total} records", 1.0


def _lists_all(made: Rendered, source: str) -> bool:
    return made.options is not None and all(words_of([option]) in source for option in made.options)


def _input_texts(row: Mapping[str, Any], output_fields: Sequence[str]) -> list[str]:
    """Return every text and number of a record but those of its output fields."""
    return list(_leaves(row, "", frozenset(output_fields)))


def _leaves(value: Any, path: str, skipped: frozenset[str]) -> Iterator[str]:
    if path in skipped:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key, skipped)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, path, skipped)
    elif value is not None:
        yield str(value)


def _at(row: Mapping[str, Any], path: str) -> Any:
    value: Any = row
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
