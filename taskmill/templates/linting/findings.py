"""What lint knows to look for: the rules, and a finding of one. Reads and writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from taskmill.templates.linting.subjects import Subject


class Rule(NamedTuple):
    """One kind of mistake."""

    severity: Literal["error", "warning"]
    about: str


RULES: dict[str, Rule] = {
    "bad-entry": Rule("error", "a file or an entry of it that is no template"),
    "bad-syntax": Rule("error", "Jinja cannot parse or compile it"),
    "refused": Rule("error", "the sandbox refuses it before rendering"),
    "unknown-filter": Rule("error", "a filter or test that is not offered"),
    "undeclared-field": Rule("error", "a name that `reads` does not declare"),
    "unused-field": Rule("error", "a declared field that the text does not read"),
    "unwanted-separator": Rule("error", "a template of the library's form with `|||`"),
    "missing-separator": Rule("error", "a PromptSource template without `|||`"),
    "choice-index": Rule("error", "an index beyond the answer choices"),
    "never-renders": Rule("error", "no sampled record gives a prompt"),
    "missing-field": Rule("warning", "a field that no sampled record has"),
    "empty-renders": Rule("warning", "records of which the input or the output is empty"),
    "render-errors": Rule("warning", "records on which the template fails"),
    "too-long": Rule("warning", "records whose text is longer than render.max_characters"),
    "more-parts": Rule("warning", "records with text behind a second `|||`, which is left out"),
    "answer-not-an-option": Rule("warning", "records whose output is not among the answer choices"),
    "answer-shown": Rule("warning", "the input gives the answer away"),
    "trailing-whitespace": Rule("warning", "white space at the end of a line of the prompt"),
    "duplicate-template": Rule("warning", "the same text and choices as another template"),
}
"""Id -> what it is about, and how bad it is."""


class Finding(NamedTuple):
    """One mistake in one template."""

    rule: str
    subject: Subject
    message: str
    line: int | None = None
    """Of the template's body, from 1."""
    task: str | None = None
    """The task on whose records it was seen."""
    share: float | None = None
    """Of the sampled records that it concerns."""

    @property
    def severity(self) -> str:
        """`error` or `warning`."""
        return RULES[self.rule].severity

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "rule": self.rule,
            "severity": self.severity,
            "template": self.subject.id,
            "name": self.subject.name,
            "task": self.task or self.subject.task,
            "file": self.subject.file,
            "file_line": self.subject.file_line,
            "line": self.line,
            "message": self.message,
            "share": self.share,
        }


def by_rule(findings: Iterable[Finding]) -> dict[str, int]:
    """Return how many findings each rule has, in the order of RULES."""
    counts = Counter(finding.rule for finding in findings)
    return {rule: counts[rule] for rule in RULES if counts[rule]}
