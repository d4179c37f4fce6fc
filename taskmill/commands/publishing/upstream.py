"""Whether the upstream files of a rebuild are those that were published, before anything is made of them.

Reads the sources through the catalogue of the stage curate, so that archives and the Hub are no special case. Where a file is
another one, the tasks that read it are curated alone, in a temporary folder, to name the first record that differs.
"""

from __future__ import annotations

import dataclasses
import glob
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.commands.figures import counted
from taskmill.commands.publishing.explaining import Difference, curated_ids, first_difference
from taskmill.curation.catalogue import Catalogue, read_catalogue
from taskmill.errors import TaskmillError
from taskmill.recipe import Resolved
from taskmill.settings import Settings
from taskmill.splits.publishing.published import Published
from taskmill.splits.publishing.rerunning.portable import local_names
from taskmill.splits.publishing.rerunning.recipe_bundle import origin_of, top_file
from taskmill.stages import Walk

MOST_NAMED = 20
"""Files that are named of a kind; the others are counted."""
_SECTIONS = ("sources", "curate")
Source = Mapping[str, Any]


@dataclass(frozen=True)
class Upstream:
    """What is wrong with the upstream files of a rebuild."""

    problems: list[str]
    """A line for each file, or source."""
    first: Difference | None = None
    """The first record that differs, where a file is another one and could be read."""


def check_upstream(published: Published, resolved: Resolved) -> Upstream:
    """Compare the files that a rebuild would read with those that were published.

    Raises:
        RecipeError, DataError, StorageError: sources that cannot be looked into, or fetched.
    """
    read = [source for source in published.body["sources"] if not source.get("missing")]
    root = resolved.path(resolved.recipe.data_root)
    missing = [line for source in read if not source["hub"] for line in _missing(source, root)]
    if missing:
        return Upstream(missing)
    catalogue = read_catalogue(Settings(resolved, _SECTIONS))
    problems: list[str] = []
    changed: dict[int, set[str]] = {}
    for number, (source, found) in enumerate(zip(read, catalogue.upstream(), strict=True)):
        lines, names = _compare(source, found["files"])
        problems += lines
        if names:
            changed[number] = names
    return Upstream(problems, _first_record(published, resolved, catalogue, changed) if changed else None)


def _missing(source: Source, root: Path) -> list[str]:
    """Return what to fetch of a source that is not there, or which of its files are missing."""
    names = sorted({top_file(name, root) for name in local_names(source["files"])})
    absent = [name for name in names if not (root / name).is_file()]
    if not absent:
        return []
    if len(absent) == len(names):
        where = root / source["path"]
        return [f"{source['source']}: nothing of it is at {where}; {_how_to_get(source, where)}"]
    lines = [f"{root / name}: missing; it is part of {origin_of(source)}" for name in absent]
    return _shortened(lines, "files are missing")


def _how_to_get(source: Source, where: Path) -> str:
    if not source.get("repository"):
        files = counted(len(source["files"]), "files")
        return f"the benchmark names no repository that has its {files}; ask who published it"
    revision = f", at {source['revision']}," if source.get("revision") else ""
    return f"get {source['repository']}{revision} and put it there, or name another folder with --data-root"


def _compare(source: Source, found: Sequence[Mapping[str, Any]]) -> tuple[list[str], set[str]]:
    """Return (problems, names of files that are other ones) of a source."""
    wanted = {file["name"]: file["sha256"] for file in source["files"]}
    here = {file["name"]: file["sha256"] for file in found}
    other = sorted(name for name in wanted.keys() & here.keys() if wanted[name] != here[name])
    changed = [
        f"{name}: sha256 {here[name]}, published {wanted[name]} ({origin_of(source)})" for name in other
    ]
    extra = [
        f"{name}: was not there when it was published, and would be read"
        for name in sorted(here.keys() - wanted.keys())
    ]
    gone = [
        f"{name}: missing, or no longer read ({origin_of(source)})"
        for name in sorted(wanted.keys() - here.keys())
    ]
    problems = _shortened(changed, "files are other ones") + _shortened(gone, "files are missing")
    return problems + _shortened(extra, "files are additional"), set(other)


def _shortened(lines: Sequence[str], what: str) -> list[str]:
    rest = len(lines) - MOST_NAMED
    return [*lines[:MOST_NAMED], *([f"... and {rest:,} more {what}"] if rest > 0 else [])]


# ----------------------------------------------------------------------------------- the first record


def _first_record(
    published: Published, resolved: Resolved, catalogue: Catalogue, changed: Mapping[int, set[str]]
) -> Difference | None:
    """Return the first record of the changed files that is another one, by curating the tasks that read them.

    None where it cannot be told: the files cannot be read, or only their bytes differ.
    """
    sources, tasks = [], list[str]()
    for source in catalogue.sources:
        names = [
            entry.name
            for entry in source.entries
            if any(source.folder.relative(path) in changed.get(source.number, ()) for path in entry.files)
        ]
        if names:
            chosen = tuple(glob.escape(name) for name in names)
            stated = resolved.recipe.sources[source.number]
            sources.append(dataclasses.replace(stated, include=chosen, exclude=()))
            tasks += [f"{source.benchmark}/{name}" for name in names]
    recipe = dataclasses.replace(resolved.recipe, sources=tuple(sources), extends=None)
    try:
        with tempfile.TemporaryDirectory(prefix="taskmill-rebuild-") as folder:
            walker = Walk(dataclasses.replace(resolved, recipe=recipe), Path(folder))
            walker.build("curate")
            here = curated_ids(walker.inputs("overlap"))
    except TaskmillError:
        return None  # the file itself is named
    columns = here.column_names
    before = published.ids(columns)
    before = _of_tasks(before, tasks)
    named = [name for names in changed.values() for name in names]
    return first_difference("ids", _of_files(before, named), _of_files(_of_tasks(here, tasks), named))


def _of_tasks(table: pa.Table, tasks: Iterable[str]) -> pa.Table:
    return table.filter(pc.is_in(table["task"], value_set=pa.array(sorted(tasks), pa.string())))


def _of_files(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """Return the rows read from some files, in their order there."""
    fits = pc.is_in(table["file"], value_set=pa.array(sorted(names), pa.string()))
    return table.filter(fits).sort_by([("task", "ascending"), ("file", "ascending"), ("record", "ascending")])
