"""What lint looks at: one template of either form, and where it comes from.

Reads YAML files of library-form templates; writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from taskmill.errors import DataError
from taskmill.safe_yaml import YamlError, compose_yaml, load_yaml
from taskmill.templates.rendering.library import LIBRARY, LibraryTemplate, read_entry


@dataclass(frozen=True)
class Subject:
    """A template to be looked at."""

    id: str
    name: str
    form: Literal["promptsource", "library"]
    body: str
    choices: str | None = None
    """The expression of a PromptSource template's answer choices."""
    template: LibraryTemplate | None = None
    """The template, where it is of the library's form."""
    row: Mapping[str, Any] | None = None
    """Its row of tasks/templates, where it is PromptSource's."""
    task: str | None = None
    """The task, or folder of templates, that it belongs to."""
    file: str | None = None
    file_line: int | None = None
    """Where it begins in the file, from 1."""


def library_subject(template: LibraryTemplate, file: str | None = None, line: int | None = None) -> Subject:
    """Return a template of the library's form as a subject."""
    return Subject(
        template.id,
        template.id,
        "library",
        template.body,
        template=template,
        file=file,
        file_line=line,
    )


def upstream_subject(row: Mapping[str, Any], file: str | None = None, line: int | None = None) -> Subject:
    """Return a row of tasks/templates as a subject."""
    return Subject(
        row["template"],
        row["name"],
        "promptsource",
        row["body"],
        row["choices"],
        row=row,
        task=row.get("task"),
        file=file,
        file_line=line,
    )


def read_library_file(path: Path) -> tuple[list[Subject], list[tuple[Subject, str]]]:
    """Read a YAML file of library-form templates, entry by entry.

    Returns:
        The templates, and what is wrong with entries that are none.

    Raises:
        DataError: the file cannot be read, is no YAML or no list.
    """
    try:
        text = path.read_text(encoding="utf-8")
        entries = load_yaml(text)
    except (OSError, UnicodeDecodeError, YamlError) as error:
        raise DataError(f"cannot be read as templates: {error}", file=path) from error
    if not isinstance(entries, list) or not entries:
        raise DataError("not a file of templates", file=path, value=entries, expected="a list of entries")
    prefix = "" if path.resolve().parent == LIBRARY else path.stem
    found: list[Subject] = []
    wrong: list[tuple[Subject, str]] = []
    seen: dict[str, int] = {}
    for number, (entry, line) in enumerate(zip(entries, _entry_lines(text), strict=True)):
        try:
            template = read_entry(entry, path.name, number, prefix)
            if template.id in seen:
                raise DataError(
                    f"the id stands in line {seen[template.id]} already", field="id", value=template.id
                )
        except DataError as error:
            name = str(entry["id"]) if isinstance(entry, dict) and "id" in entry else f"entry {number}"
            bare = Subject(name, name, "library", "", file=str(path), file_line=line)
            wrong.append((bare, str(error).removeprefix(f"{path.name}, record {number}, ")))
            continue
        seen[template.id] = line
        found.append(library_subject(template, str(path), line))
    return found, wrong


def _entry_lines(text: str) -> list[int]:
    """Return the line, from 1, in which each entry of a YAML list begins."""
    node, _ = compose_yaml(text)
    assert isinstance(node, yaml.SequenceNode), "it was read as a list"
    return [item.start_mark.line + 1 for item in node.value]
