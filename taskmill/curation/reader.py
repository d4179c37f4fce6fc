"""What a reader is: two functions and three facts, in a file of `sources/` that is named like the reader.

    BENCHMARK = "flan"                      # the benchmark its tasks belong to unless the recipe names another
    STYLE, KIND = "instance", "benchmark"   # as in records.STYLES and records.KINDS
    OPTIONS = {"data": "..."}               # options it knows, with one line of help each

    def discover(source: SourceFolder) -> list[TaskEntry]: ...      # cheap: names and files, sorted by name
    def read(entry: TaskEntry, source: SourceFolder) -> TaskData: ...

Readers work in columns: one list per column of `Columns`, all of one length.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from taskmill.errors import DataError, RecipeError, did_you_mean
from taskmill.recipe import known_readers


@dataclass(frozen=True)
class SourceFolder:
    """One source of the recipe as a reader sees it."""

    path: Path
    """Absolute folder or file of the source."""
    root: Path
    """Absolute folder that file names are relative to: the data root, a repository's snapshot, an unpacked archive."""
    options: Mapping[str, Any]
    on_error: str
    """`stop` or `skip`: see `TaskData.aside`."""
    casts: tuple[Path, ...] = ()
    """Folders of casts, the recipe's own before the shipped one."""
    prefix: str = ""
    """What stands before a file's name: the archive that it was unpacked from."""
    repositories: Mapping[str, Path] = field(default_factory=dict)
    """`owner/name@COMMIT` -> top folder, of Hub repositories that its options name beside `path`."""
    name: str = ""
    """What `root` goes by where its own name says nothing: the name of a repository, or of an archive without suffix."""

    def relative(self, path: Path) -> str:
        """Return a file's name relative to `root`, with forward slashes, behind `prefix`.

        A file of another repository has that repository's pinned name in front.
        """
        text, top = str(path), f"{self.root}/"
        try:
            name = text[len(top) :] if text.startswith(top) else path.relative_to(self.root).as_posix()
        except ValueError:
            for pinned, root in self.repositories.items():
                if path.is_relative_to(root):
                    return f"{pinned}/{path.relative_to(root).as_posix()}"
            name = path.name
        return (self.prefix if name == "." else f"{self.prefix}/{name}") if self.prefix else name


@dataclass(frozen=True)
class TaskEntry:
    """A task that a source offers, before its records are read."""

    name: str
    files: tuple[Path, ...]
    """Every upstream file that `read` will open for it, absolute."""
    num_bytes: int
    """Size of these files; shards are cut by it."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """What `read` needs beside the files; JSON values, part of the shard's fingerprint."""


class Encoded(NamedTuple):
    """An example as it is stored and recognised."""

    fields: bytes
    """Canonical JSON."""
    content: bytes
    """sha256 of the canonical JSON of fields, options and references."""
    options: list[str] | None
    """Those of the example when it was encoded."""


@dataclass
class Columns:
    """The examples of one task, one list per column, all of one length, in upstream order."""

    upstream_id: list[str | None] = field(default_factory=list)
    """Upstream's own id where it has one; must be unique in the task."""
    upstream_split: list[str | None] = field(default_factory=list)
    """One of records.UPSTREAM_SPLITS, or None."""
    group: list[str | None] = field(default_factory=list)
    """Upstream's passage, table or conversation, whatever must stay on one side; None: by shared text."""
    fields: list[dict[str, Any]] = field(default_factory=list)
    references: list[list[str]] = field(default_factory=list)
    """Answers as text where the reader or cast knows them."""
    options: list[list[str] | None] = field(default_factory=list)
    quality: list[str | None] = field(default_factory=list)
    file: list[str] = field(default_factory=list)
    """Relative to the data root."""
    record: list[int] = field(default_factory=list)
    """Number of the record in its file, from 0."""
    encoded: list[Encoded | None] = field(default_factory=list)
    """Where it was already made; void once the options are others."""

    def __len__(self) -> int:
        return len(self.fields)

    def append(
        self,
        fields: dict[str, Any],
        references: list[str],
        *,
        file: str,
        record: int,
        upstream_id: str | None = None,
        upstream_split: str | None = None,
        group: str | None = None,
        options: list[str] | None = None,
        quality: str | None = None,
        encoded: Encoded | None = None,
    ) -> None:
        """Add one example."""
        self.upstream_id.append(upstream_id)
        self.upstream_split.append(upstream_split)
        self.group.append(group)
        self.fields.append(fields)
        self.references.append(references)
        self.options.append(options)
        self.quality.append(quality)
        self.file.append(file)
        self.record.append(record)
        self.encoded.append(encoded)


@dataclass(frozen=True)
class Aside:
    """A record that is not used, damaged or left by a rule of its format: kept aside, never lost."""

    file: str
    record: int
    reason: str
    """Short and countable, such as `bad_json` or `missing_field`."""
    detail: str
    raw: str
    """The record as upstream wrote it (or the line)."""


@dataclass
class TaskData:
    """A task as its upstream states it."""

    facts: dict[str, Any]
    """Columns of tasks/tasks that upstream itself states (category, dataset, definition, license, languages,
    upstream_role, homepage, metadata as a dict ...); the taxonomy fills in and overrides the rest."""
    columns: Columns
    templates: list[dict[str, Any]] = field(default_factory=list)
    """Rows of tasks/templates without `task` and `digest`; `metadata` as a dict."""
    aside: list[Aside] = field(default_factory=list)
    """Records read and not used; each becomes a row of tasks/dropped."""
    num_rendered_templates: int = 0
    """Templates with which upstream rendered its rows; 0 where the rows are no rendered prompts."""

    def fail(self, source: SourceFolder, error: DataError, damage: Aside) -> None:
        """Stop with `error`, or keep the record aside, as the recipe's `curate.on_error` says."""
        if source.on_error == "stop":
            raise error.with_hint("`--set curate.on_error=skip` keeps what is damaged aside")
        self.aside.append(damage)


class Reader(Protocol):
    """The module of a reader."""

    BENCHMARK: str
    STYLE: str
    KIND: str
    OPTIONS: Mapping[str, str]
    discover: Callable[[SourceFolder], list[TaskEntry]]
    read: Callable[[TaskEntry, SourceFolder], TaskData]


@functools.cache
def load_reader(name: str) -> Reader:
    """Import a reader by name.

    Raises:
        RecipeError: no reader has that name.
    """
    if name not in known_readers():
        raise RecipeError([f"sources: no reader {name!r}{did_you_mean(name, known_readers())}"])
    return cast(Reader, importlib.import_module(f"taskmill.curation.sources.{name}"))


def check_options(reader: str, options: Mapping[str, Any], known: Mapping[str, str]) -> None:
    """Refuse options that a reader does not know.

    Raises:
        RecipeError: one line per unknown option.
    """
    problems = [
        f"sources: reader {reader!r} has no option {key!r}{did_you_mean(key, known) or f'; it knows {sorted(known)}'}"
        for key in options
        if key not in known
    ]
    if problems:
        raise RecipeError(problems)


def parse_line(line: bytes, source: SourceFolder, path: Path, record: int, data: TaskData) -> Any | None:
    """Parse one line of a JSONL file; a bad line stops or is kept aside and gives None.

    Raises:
        DataError: the line is not JSON and the recipe says stop.
    """
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raw = line.decode("utf-8", "replace").rstrip("\n")
        problem = DataError(
            f"not valid JSON: {error}", file=source.relative(path), record=record, value=raw[:200]
        )
        data.fail(source, problem, Aside(source.relative(path), record, "bad_json", str(error), raw))
        return None
