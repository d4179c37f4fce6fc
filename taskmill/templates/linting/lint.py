"""Lint: every rule over templates, alone or with the records of their tasks.

Reads and writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from taskmill.templates.drawing.examples import Example
from taskmill.templates.linting.findings import RULES, Finding
from taskmill.templates.linting.record_rules import RecordLint
from taskmill.templates.linting.subjects import Subject
from taskmill.templates.linting.text_rules import TextLint
from taskmill.templates.rendering.library import LibraryTemplate
from taskmill.templates.rendering.renderer import Renderer
from taskmill.templates.rendering.variants import task_variants

_ORDER = {rule: place for place, rule in enumerate(RULES)}


def lint_texts(subjects: Sequence[Subject]) -> list[Finding]:
    """Return what is wrong with templates by their text alone, with duplicates within a task or file."""
    text = TextLint()
    found = [finding for subject in subjects for finding in text.check(subject)]
    return ordered([*found, *duplicates(subjects)])


def lint_task(
    task: Mapping[str, Any],
    subjects: Sequence[Subject],
    examples: Sequence[Example],
    renderer: Renderer,
    text: TextLint,
    user: Sequence[LibraryTemplate] = (),
    count: int = 20,
) -> list[Finding]:
    """Return what is wrong with a task's templates, over some of its examples.

    Args:
        task: a row of tasks/tasks.
        subjects: its own templates, and those of the library and the user.
        examples: some of its examples.
        renderer: renders them, with the run's seed and limits.
        text: checks texts.
        count: so many examples with an answer are rendered.
        user: the user's templates, as `task_variants` takes them.

    Raises:
        DataError: the task cannot be rendered.
    """
    own = [subject for subject in subjects if subject.form == "promptsource"]
    found = [f for subject in own for f in text.check(subject, task["output_fields"])]
    found += duplicates(own)
    broken = {f.subject.id for f in found if f.rule in ("bad-syntax", "refused", "unknown-filter")}
    rows = [subject.row for subject in own if subject.row is not None and subject.id not in broken]
    if own and not rows:
        return ordered(found)
    variants = task_variants(task, rows, renderer, user)
    usable = {subject.id: subject for subject in subjects if subject.id not in broken}
    answered = [example for example in examples if variants.has_answer(example)][:count]
    if answered:
        found += RecordLint(text, renderer).check(task, variants, usable, answered)
    return ordered(_without_repeats(found))


def _without_repeats(found: Sequence[Finding]) -> list[Finding]:
    """Return findings without those that follow from another one of the same template."""
    uncut = {f.subject.id for f in found if f.rule == "missing-separator"}
    shown = {f.subject.id for f in found if f.rule == "answer-shown" and f.line is not None}
    kept = []
    for finding in found:
        is_uncut = finding.subject.id in uncut and finding.rule in ("answer-shown", "never-renders")
        is_shown = finding.subject.id in shown and finding.rule == "answer-shown" and finding.line is None
        if not is_uncut and not is_shown:
            kept.append(finding)
    return kept


def duplicates(subjects: Iterable[Subject]) -> list[Finding]:
    """Return the templates whose text and choices another one of their task or file has, but for white space."""
    first: dict[tuple[Any, ...], Subject] = {}
    found = []
    for subject in subjects:
        shape = None if subject.template is None else (subject.template.style, subject.template.shape)
        metadata = None if subject.template is None else str(subject.template.metadata)
        key = (
            subject.task if subject.form == "promptsource" else None,
            shape,
            metadata,
            _squeezed(subject.body) if subject.form == "promptsource" else subject.body,
            _squeezed(subject.choices or ""),
        )
        other = first.setdefault(key, subject)
        if other is not subject:
            where = f" ({other.id})" if other.name != other.id else ""
            found.append(Finding("duplicate-template", subject, f"the same as {other.name!r}{where}"))
    return found


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def ordered(found: Iterable[Finding]) -> list[Finding]:
    """Return findings by task or file, template, severity, rule and line."""
    return sorted(
        found,
        key=lambda f: (
            f.task or f.subject.task or "",
            f.subject.file or "",
            f.subject.file_line or 0,
            f.subject.name,
            f.subject.id,
            f.severity,
            _ORDER[f.rule],
            f.line or 0,
            f.message,
        ),
    )
