"""The catalogue before anything is read: which tasks the recipe's sources offer, and digests of their files."""

from __future__ import annotations

import functools
import glob
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from taskmill.cache import file_digests
from taskmill.curation.merging import TaskPlan
from taskmill.curation.places.locating import Origin, locate, origin_of
from taskmill.curation.places.naming import refuse_pointers
from taskmill.curation.reader import Reader, SourceFolder, TaskEntry, check_options, load_reader
from taskmill.curation.taxonomy import Taxonomy, load_taxonomy, taxonomy_files, warn_of_categories
from taskmill.errors import RecipeError, did_you_mean
from taskmill.recipe import Source
from taskmill.settings import Settings
from taskmill.storage import digest

log = logging.getLogger("taskmill")

_BENCHMARK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class SourcePlan:
    """One source of the recipe and the tasks taken from it."""

    number: int
    """Place in the recipe, from 0."""
    benchmark: str
    reader: str
    folder: SourceFolder
    path: str
    """As the recipe writes it."""
    origin: Origin
    entries: tuple[TaskEntry, ...]
    is_missing: bool = False
    """Whether its path is not there and the recipe goes on without."""

    @property
    def label(self) -> str:
        """Its name in fingerprints and manifests."""
        return f"{self.number}. {self.benchmark} ({self.reader})"


@dataclass(frozen=True)
class Catalogue:
    """Every task that will be read."""

    sources: tuple[SourcePlan, ...]
    plans: tuple[TaskPlan, ...]
    """By task id."""
    digests: dict[Path, str]
    """sha256 of each upstream file."""
    aliases: dict[str, str]
    taxonomy_keys: list[str]

    def parts_of(self, plan: TaskPlan) -> list[Any]:
        """Return exactly what reading a task depends on: no place on this machine is among it."""
        files = _named(plan.source, plan.entry.files, self.digests)
        source = [plan.reader, plan.source.options, asdict(plan.origin)]
        return [plan.task, source, files, plan.entry.detail, plan.row, *(["stays"] if plan.stays else [])]

    def by_source(self) -> dict[str, str]:
        """Return a digest over the files of each source and what its reader will do with them."""
        return {
            s.label: digest([[e.name, _named(s.folder, e.files, self.digests), e.detail] for e in s.entries])
            for s in self.sources
        }

    def upstream(self) -> list[dict[str, Any]]:
        """Return what the manifest says of the upstream files."""
        listed = []
        for source in self.sources:
            files = [
                {
                    "name": source.folder.relative(path),
                    "bytes": path.stat().st_size,
                    "sha256": self.digests[path],
                }
                for path in _files(source.entries)
            ]
            entry = {"source": source.label, "path": source.path, **asdict(source.origin), "files": files}
            listed.append({**entry, "missing": True} if source.is_missing else entry)
        return listed


@functools.lru_cache(maxsize=1)
def read_catalogue(settings: Settings) -> Catalogue:
    """Look into every source, without reading records; once per `settings` object.

    What a stage is compared by and what it then builds from are so one look at the files: a walk makes new settings
    for every stage that it opens.

    Raises:
        RecipeError: all problems of sources at once, then all of the taxonomy, then every task named twice.
        DataError: what a reader raises for files that are not as its format says.
        StorageError: an upstream file cannot be read.
    """
    taxonomy = load_taxonomy(taxonomy_files(settings.path(file) for file in settings.curate.taxonomy))
    warn_of_categories(taxonomy)
    problems: list[str] = []
    sources = [
        _source_plan(number, source, settings, problems) for number, source in enumerate(settings.sources)
    ]
    if problems:
        raise RecipeError(problems)
    found = tuple(source for source in sources if source is not None)
    if all(source.is_missing for source in found):
        raise RecipeError(
            [f"sources: none of the {len(found)} is there, the first at {found[0].folder.path}"]
        )
    _check_unique(found)
    for source in found:
        refuse_pointers((path, source.folder.relative(path)) for path in _files(source.entries))
    digests = file_digests(path for source in found for path in _files(source.entries))
    plans = [_task_plan(source, entry, taxonomy, digests) for source in found for entry in source.entries]
    plans.sort(key=lambda plan: plan.task)
    return Catalogue(found, tuple(plans), digests, taxonomy.aliases, taxonomy.keys)


def _source_plan(number: int, source: Source, settings: Settings, problems: list[str]) -> SourcePlan | None:
    try:
        reader = load_reader(source.reader)
        check_options(source.reader, source.options, reader.OPTIONS)
    except RecipeError as error:
        problems += error.problems
        return None
    try:
        folder = locate(source, settings)
    except RecipeError as error:
        problems += error.problems
        return None
    benchmark = source.benchmark or reader.BENCHMARK
    if not _BENCHMARK.fullmatch(benchmark):
        problems.append(
            f"sources.{number}.benchmark: found {benchmark!r}; expected letters, digits, dots, dashes, underscores"
        )
        return None
    plan = SourcePlan(number, benchmark, source.reader, folder, source.path, origin_of(source), ())
    if not folder.path.exists():
        absent = f"sources.{number}.path: {source.path!r} does not exist below {_shown_root(source, folder)}"
        if settings.curate.on_missing == "skip":
            log.warning("curate: left out, %s", absent)
            return replace(plan, is_missing=True)
        hint = _near_path(folder.path) or "; `--set curate.on_missing=skip` leaves it out"
        problems.append(f"{absent}{hint}")
        return None
    return replace(plan, entries=_chosen(number, source, reader, folder, problems))


def _shown_root(source: Source, folder: SourceFolder) -> str:
    if folder.prefix:
        return f"the top of the archive {folder.prefix}"
    return f"the top of {source.hub}" if source.hub else f"the data root {folder.root}"


def _near_path(path: Path) -> str:
    parent = path.parent
    return did_you_mean(path.name, [p.name for p in parent.iterdir()]) if parent.is_dir() else ""


def _chosen(
    number: int, source: Source, reader: Reader, folder: SourceFolder, problems: list[str]
) -> tuple[TaskEntry, ...]:
    """Return the tasks that `include` and `exclude` leave; none is a problem."""
    offered = reader.discover(folder)
    names = [entry.name for entry in offered]
    chosen = [
        entry
        for entry in offered
        if _matches(entry.name, source.include) and not _matches(entry.name, source.exclude)
    ]
    if not offered:
        problems.append(
            f"sources.{number}: the reader {source.reader!r} finds no task in {source.path!r}; "
            "expected files in its upstream's layout"
        )
    elif not chosen:
        hint = did_you_mean(source.include[0], names) if source.include else ""
        problems.append(
            f"sources.{number}: include {list(source.include)} and exclude {list(source.exclude)} leave none of "
            f"the {len(offered)} tasks in {source.path!r}{hint or f'; the first is {names[0]!r}'}"
        )
    problems += [_bad_name(number, entry, folder) for entry in chosen if not _can_be_named(entry.name)]
    return tuple(chosen)


def _can_be_named(name: str) -> bool:
    """Return whether a task can have a name: ids of its examples put `#` behind it."""
    return "#" not in name and name.isprintable() and bool(name)


def _bad_name(number: int, entry: TaskEntry, folder: SourceFolder) -> str:
    file = folder.relative(entry.files[0]) if entry.files else "its files"
    return (
        f"sources.{number}: the task name {entry.name!r} (from {file}) holds `#` or a control character, which ids cannot; "
        f"rename the file, or leave the task out with `exclude: [{glob.escape(entry.name)!r}]`"
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_unique(sources: Sequence[SourcePlan]) -> None:
    """Refuse tasks that two sources, or one source twice, call the same."""
    first: dict[str, SourcePlan] = {}
    problems = []
    for source in sources:
        for entry in source.entries:
            task = f"{source.benchmark}/{entry.name}"
            other = first.get(task)
            first[task] = source
            if other is not None:
                problems.append(
                    f"sources.{source.number}: the task {task!r} is also in sources.{other.number} "
                    f"({other.path!r}); exclude one of them, or give one source another `benchmark`"
                )
    if problems:
        raise RecipeError(problems)


def _task_plan(
    source: SourcePlan, entry: TaskEntry, taxonomy: Taxonomy, digests: dict[Path, str]
) -> TaskPlan:
    task = f"{source.benchmark}/{entry.name}"
    revision = "sha256:" + digest(_named(source.folder, entry.files, digests))[:16]
    row = taxonomy.row(task, f"{load_reader(source.reader).BENCHMARK}/{entry.name}")
    origin = source.origin
    return TaskPlan(
        task, source.benchmark, entry.name, source.reader, source.folder, entry, row, revision, origin
    )


def _files(entries: Sequence[TaskEntry]) -> list[Path]:
    return sorted({path for entry in entries for path in entry.files})


def _named(folder: SourceFolder, files: Sequence[Path], digests: dict[Path, str]) -> list[list[str]]:
    return [[folder.relative(path), digests[path]] for path in files]
