"""Rules that need no record: what is wrong with a template by its text, declared fields and output fields.

Reads and writes nothing.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator, Sequence

from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError

from taskmill.errors import did_you_mean
from taskmill.templates.linting import trees
from taskmill.templates.linting.findings import Finding
from taskmill.templates.linting.subjects import Subject
from taskmill.templates.rendering import upstream
from taskmill.templates.rendering.bodies import GIVEN
from taskmill.templates.rendering.renderer import explain
from taskmill.templates.sandboxing.sandbox import CountedEnvironment, OverBudgetError, strict_environment

CHOICES = "answer_choices"
_MAX_CHOICES = 4
"""Answer choices named in a message."""
_AT_END = re.compile(r"[ \t]+(?=\r?\n)")


class TextLint:
    """Checks templates by their text."""

    def __init__(self) -> None:
        """Make the environments of both forms."""
        self._environments = {"library": strict_environment(), "promptsource": upstream.environment()}

    def check(self, subject: Subject, output_fields: Sequence[str] = ()) -> list[Finding]:
        """Return what is wrong with a template.

        Args:
            subject: the template.
            output_fields: paths of its task's fields that hold the answer, where they are known.
        """
        environment = self._environments[subject.form]
        tree = self._tree(environment, subject, subject.body)
        listed = None if subject.choices is None else self._tree(environment, subject, subject.choices)
        if isinstance(tree, Finding) or isinstance(listed, Finding):
            return [found for found in (tree, listed) if isinstance(found, Finding)]
        found = [*_trailing(subject, tree)]
        if subject.form == "library":
            return [*found, *_fields(subject, tree)]
        if not trees.has_separator(tree):
            found.append(Finding("missing-separator", subject, "there is no ||| between input and output"))
        if listed is not None:
            found += self._indexes(environment, subject, tree, listed)
        return [*found, *_shown(subject, tree, output_fields)]

    def tree(self, subject: Subject) -> nodes.Template:
        """Return the syntax tree of a template that `check` found nothing wrong in."""
        return self._environments[subject.form].parse(subject.body)

    def fields(self, subject: Subject) -> list[str]:
        """Return the names that a template and its answer choices take from the record, sorted."""
        parse = self._environments[subject.form].parse
        names = meta.find_undeclared_variables(parse(subject.body))
        names |= meta.find_undeclared_variables(parse(subject.choices or ""))
        return sorted(names - {CHOICES})

    def _tree(
        self, environment: CountedEnvironment, subject: Subject, source: str
    ) -> nodes.Template | Finding:
        """Return the syntax tree of a text, or why it cannot be used."""
        try:
            environment.prepare(source)
            tree = environment.parse(source)
        except (SecurityError, OverBudgetError) as error:
            return _refused(subject, "refused", str(error))
        except TemplateSyntaxError as error:
            unknown = _unknown_name(environment, error)
            rule = "unknown-filter" if unknown else "bad-syntax"
            return Finding(rule, subject, unknown or str(error.message), error.lineno)
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
            return _refused(subject, "bad-syntax", explain(error))
        for node in tree.find_all((nodes.Filter, nodes.Test)):
            offered = environment.filters if isinstance(node, nodes.Filter) else environment.tests
            if node.name not in offered:
                kind = "filter" if isinstance(node, nodes.Filter) else "test"
                problem = f"no {kind} named {node.name!r}{did_you_mean(node.name, offered)}"
                return Finding("unknown-filter", subject, problem, node.lineno)
        return tree

    def _indexes(
        self,
        environment: CountedEnvironment,
        subject: Subject,
        tree: nodes.Template,
        listed: nodes.Template,
    ) -> Iterator[Finding]:
        """Yield constant indexes beyond constant answer choices."""
        if meta.find_undeclared_variables(listed) or any(listed.find_all(nodes.Filter)):
            return
        assert subject.choices is not None
        choices = upstream.plan(environment, subject.body, subject.choices).fixed or ()
        for index, line in trees.choice_indexes(tree):
            if isinstance(index, int) and not -len(choices) <= index < len(choices):
                yield Finding("choice-index", subject, _beyond(index, choices), line)


def _beyond(index: int, choices: Sequence[str]) -> str:
    named = " ||| ".join(choices[:_MAX_CHOICES]) + (" ..." if len(choices) > _MAX_CHOICES else "")
    return f"{CHOICES}[{index}] of {len(choices)} answer choices: {named}"


def _refused(subject: Subject, rule: str, message: str) -> Finding:
    """Return a finding whose message may begin with its line."""
    at = re.match(r"line (\d+): ", message)
    return Finding(rule, subject, message[at.end() :] if at else message, int(at[1]) if at else None)


def _unknown_name(environment: CountedEnvironment, error: TemplateSyntaxError) -> str | None:
    """Return what is wrong where Jinja does not know a filter or test, else None."""
    named = re.fullmatch(r"No (filter|test) named '(.*)'\.", str(error.message))
    if named is None:
        return None
    offered = environment.filters if named[1] == "filter" else environment.tests
    return f"no {named[1]} named {named[2]!r}{did_you_mean(named[2], offered)}"


def _fields(subject: Subject, tree: nodes.Template) -> Iterator[Finding]:
    """Yield what a template of the library declares and does not read, or reads and may not; see `bodies.body_problem`."""
    assert subject.template is not None
    declared, used = subject.template.reads, meta.find_undeclared_variables(tree)
    for name in sorted(used - set(declared) - set(GIVEN)):
        line = next((node.lineno for node in tree.find_all(nodes.Name) if node.name == name), None)
        hint = did_you_mean(name, [*declared, *GIVEN])
        yield Finding("undeclared-field", subject, f"`reads` does not declare {name!r}{hint}", line)
    for name in sorted(set(declared) - used):
        yield Finding("unused-field", subject, f"`reads` declares {name!r}, which the text does not read")
    if "|||" in subject.body:
        line = subject.body[: subject.body.index("|||")].count("\n") + 1
        yield Finding(
            "unwanted-separator", subject, "the body is the input alone; the answer is the reference", line
        )


def _trailing(subject: Subject, tree: nodes.Template) -> Iterator[Finding]:
    """Yield one finding for the lines of the prompt that end in white space, where it is not stripped away."""
    parts = [part for output in tree.find_all(nodes.Output) for part in output.nodes]
    texts = [part.data if isinstance(part, nodes.TemplateData) else "x" for part in parts]
    starts = list(itertools.accumulate(map(len, texts), initial=0))
    whole = "".join(texts)
    lines = []
    end = -len(upstream.SEPARATOR)
    for part in whole.split(upstream.SEPARATOR):  # each is stripped
        start, end = end + len(upstream.SEPARATOR), end + len(upstream.SEPARATOR) + len(part)
        first, last = start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())
        for match in _AT_END.finditer(whole, first, max(first, last)):
            place = bisect.bisect_right(starts, match.start()) - 1
            lines.append(parts[place].lineno + whole.count("\n", starts[place], match.start()))
    if lines:
        more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
        yield Finding("trailing-whitespace", subject, f"white space at the end of the line{more}", lines[0])


def _shown(subject: Subject, tree: nodes.Template, output_fields: Sequence[str]) -> Iterator[Finding]:
    """Yield the output fields that the input part prints, or whose value decides what it prints."""
    found = trees.read_input(tree)
    for verb, places in (("prints", found.printed), ("depends on", found.decided)):
        named = set[str]()
        for path, line in places:
            if path in named or not any(_touches(path, output) for output in output_fields):
                continue
            named.add(path)
            yield Finding("answer-shown", subject, f"the input {verb} {path!r}, which holds the answer", line)


def _touches(path: str, output: str) -> bool:
    """Say whether a path is an output field, inside of one, or around one."""
    return path == output or path.startswith(f"{output}.") or output.startswith(f"{path}.")
