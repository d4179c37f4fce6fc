"""Mistakes in templates: `taskmill templates lint`. Reads YAML files of templates, or the stage curate of a run.

lint("templates/mine.yaml", count=20, as_json=False, strict=False)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from taskmill.commands.figures import count as number
from taskmill.commands.figures import counted, percent
from taskmill.commands.finished import Row
from taskmill.commands.templates_known import Target, open_target, read_files, sampled
from taskmill.commands.terminal import Terminal
from taskmill.errors import UsageError
from taskmill.templates.linting.findings import Finding, by_rule
from taskmill.templates.linting.lint import duplicates, lint_task, lint_texts, ordered
from taskmill.templates.linting.subjects import Subject, library_subject, upstream_subject
from taskmill.templates.linting.text_rules import TextLint
from taskmill.templates.rendering.library import LIBRARY, load_library
from taskmill.templates.rendering.renderer import Renderer

_COLOURS = {"error": "red", "warning": "yellow"}


@dataclass
class Checked:
    """What lint found, and in how much."""

    findings: list[Finding] = field(default_factory=list)
    templates: int = 0
    left_out: int = 0
    """Templates that change the task, so that nothing is rendered by them."""
    tasks: int = 0
    records: int = 0

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(found.severity == "error" for found in self.findings)

    def to_json(self) -> Row:
        """Return it as JSON values."""
        return {
            "findings": [found.to_json() for found in self.findings],
            "by_rule": by_rule(self.findings),
            "num_errors": self.errors,
            "num_warnings": len(self.findings) - self.errors,
            "num_templates": self.templates,
            "num_left_out": self.left_out,
            "num_tasks": self.tasks,
            "num_records": self.records,
        }


def lint(given: str | None, count: int, as_json: bool, strict: bool) -> bool:
    """Print what is wrong with templates; return whether that is a failure.

    Args:
        given: a YAML file, a folder of them or of PromptSource's, or a run; None for the library.
        count: records of a task that templates are tried on.
        as_json: print one JSON object.
        strict: whether warnings are failures too.

    Raises:
        UsageError: there is no such file, folder or run.
        DataError: a file is no file of templates.
        DamagedError: a file of the run is missing or changed.
    """
    found = check(given, count)
    if as_json:
        click.echo(json.dumps(found.to_json(), sort_keys=True))
    else:
        _print(found, given)
    return bool(found.errors or (strict and found.findings))


def check(given: str | None, count: int) -> Checked:
    """Return what is wrong with templates; see `lint`."""
    if given is None:
        subjects = [library_subject(template) for template in load_library().values()]
        return Checked(lint_texts(subjects), len(subjects))
    path = Path(given)
    if path.is_dir() and ((path / "recipe.json").is_file() or (path / "tasks/manifest.json").is_file()):
        return _check_run(open_target(given), count)
    if not path.exists():
        raise UsageError(
            f"{given} is no YAML file, folder or run; `taskmill templates lint` alone checks the library"
        )
    read = read_files(path)
    findings = lint_texts(read.subjects)
    findings += [Finding("bad-entry", subject, problem) for subject, problem in read.wrong]
    return Checked(ordered(findings), len(read.subjects) + len(read.wrong))


def _check_run(target: Target, count: int) -> Checked:
    """Try the templates of a run's tasks on some of their records."""
    run = target.run
    assert run is not None, "it was found"
    own: dict[str, list[Row]] = {}
    for row in target.upstream:
        own.setdefault(row["task"], []).append(row)
    shared = [library_subject(template) for template in (*load_library().values(), *target.user)]
    text, renderer = TextLint(), Renderer(target.seed, target.settings.max_characters)
    found = Checked(findings=[f for subject in shared for f in text.check(subject)])
    found.findings += duplicates(shared)
    found.templates = len(shared)
    for task, examples in sampled(run, list(run.tasks), count, target.seed):
        rows = own.get(task["task"], [])
        subjects: Sequence[Subject] = [upstream_subject(row) for row in rows if row["keeps_task"]]
        found.left_out += len(rows) - len(subjects)
        found.templates += len(subjects)
        if rows and not subjects:
            continue
        found.tasks += 1
        found.records += len(examples)
        beside = [*subjects, *shared]
        found.findings += lint_task(task, beside, examples, renderer, text, target.user, count)
    found.findings = ordered(found.findings)
    return found


# ----------------------------------------------------------------------------------------- the terminal


def _print(found: Checked, given: str | None) -> None:
    terminal = Terminal()
    before: tuple[Any, ...] = ()
    for finding in found.findings:
        subject = finding.subject
        place = (finding.task or subject.task, subject.file, subject.file_line, subject.id)
        if place != before:
            where = f"{subject.file}:{subject.file_line}" if subject.file else str(place[0] or "library")
            terminal.title(subject.name, where)
            if subject.id != subject.name:
                terminal.line("  ", (subject.id, "dim"))
            before = place
        line = f"line {finding.line}: " if finding.line else ""
        share = f" [{percent(finding.share, 0)}]" if finding.share not in (None, 1.0) else ""
        label = (f"{finding.severity:<8}", _COLOURS[finding.severity])
        terminal.line("  ", label, " ", (f"{finding.rule:<20}", "cyan"), f" {line}{finding.message}{share}")
    _print_sums(terminal, found, given)


def _print_sums(terminal: Terminal, found: Checked, given: str | None) -> None:
    if found.findings:
        terminal.title("findings by rule")
        terminal.table(
            ("rule", ">findings"), ((rule, number(n)) for rule, n in by_rule(found.findings).items())
        )
    faulty = len({(f.task or f.subject.task, f.subject.file, f.subject.id) for f in found.findings})
    warnings = len(found.findings) - found.errors
    sums = f"{counted(found.errors, 'errors')} and {counted(warnings, 'warnings')} in {number(faulty)} of "
    sums += counted(found.templates, "templates")
    if found.tasks:
        sums += f", tried on {counted(found.records, 'records')} of {counted(found.tasks, 'tasks')}"
    if found.left_out:
        sums += f"; {number(found.left_out)} that change the task were left out"
    terminal.line("")
    terminal.line(sums)
    if given is None:
        terminal.line((f"the library: {len(list(LIBRARY.glob('*.yaml')))} files of the package", "dim"))
