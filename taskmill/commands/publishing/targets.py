"""What commands about benchmarks are given: a run, a published folder or its manifest, or a repository of the Hub.

    open_target("runs/harbour")                 a run
    open_target("harbour-bench")                the folder of a published benchmark, or its manifest.json
    open_target("ann/harbour-bench@v1")         fetched at one commit into the cache, each file checked against the listing

What exists here wins over a repository of the same name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from taskmill.curation.places import hub
from taskmill.errors import DamagedError, DataError, StorageError, UsageError, did_you_mean
from taskmill.hub_client import COMMIT, Hub
from taskmill.records import DIRECTORIES
from taskmill.splits.publishing.published import FORMAT, IDS, MANIFEST, RECIPE, TABLES
from taskmill.storage import read_json

REPOSITORY = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[^\s@]+))?", re.ASCII)
"""owner/name, or owner/name@REVISION."""
_DEFAULT = "main"
_PARTS = (MANIFEST, RECIPE, IDS, TABLES)
"""What rebuilding and comparing read of a repository."""


@dataclass(frozen=True)
class Target:
    """A benchmark that somebody named."""

    kind: Literal["run", "published"]
    path: Path
    """The run, or the folder or manifest of the published benchmark."""
    label: str
    """As messages call it; a repository with its commit."""
    repository: str | None = None
    """Of the Hub, where it was fetched from one."""
    commit: str | None = None


def open_target(target: str, whole: bool = False) -> Target:
    """Find what a command is about.

    Args:
        target: RUN, the folder or manifest of a published benchmark, or owner/name[@REVISION].
        whole: fetch everything of a repository, not only what rebuilding and comparing read: manifest, recipe, ids, tables.

    Raises:
        UsageError: nothing here or on the Hub is called so, or it is neither a run nor a published benchmark.
        DataError: the Hub has no such repository or revision, or no right to it.
        StorageError: the Hub cannot be reached.
        MissingPackageError: huggingface_hub is not installed.
    """
    path = Path(target)
    if path.is_dir():
        return Target("published" if is_published(path) else "run", path, target)
    if path.is_file():
        if is_published(path):
            return Target("published", path, target)
        raise UsageError(f"{target} is a file and no manifest of a published benchmark; {_expected()}")
    named = REPOSITORY.fullmatch(target)
    if named is None:
        raise UsageError(f"there is no {target}{_near(path)}; {_expected()}")
    try:
        return fetch_target(named["repository"], named["revision"], whole)
    except (DataError, StorageError) as error:
        error.args = (f"{error.args[0]}. Nor is there a folder {target}{_near(path)}",)
        raise


def is_published(path: Path) -> bool:
    """Return whether a folder or file is a published benchmark, or was one before it was damaged."""
    if path.is_dir():
        return not _is_run(path) and any((path / name).exists() for name in (MANIFEST, TABLES, IDS))
    try:
        body = read_json(path)
    except DamagedError:
        body = None
    return path.name == MANIFEST or (isinstance(body, dict) and body.get("format") == FORMAT)


def _is_run(path: Path) -> bool:
    folders = [path / name for name in DIRECTORIES.values()]
    return (path / "recipe.json").is_file() or any((folder / MANIFEST).is_file() for folder in folders)


def fetch_target(repository: str, revision: str | None, whole: bool = False) -> Target:
    """Fetch a published benchmark from the Hub, at the commit that a branch, tag or commit stands for.

    Raises:
        UsageError: the repository holds no published benchmark.
        DataError, StorageError, MissingPackageError: see `open_target`.
    """
    commit = resolve(repository, revision or _DEFAULT)
    label = f"{repository}@{commit[:12]}"
    folder = hub.fetch(
        repository, commit, MANIFEST
    )  # alone, before anything else of a repository that may hold anything
    if not (folder / MANIFEST).is_file():
        raise UsageError(f"{label} is no published benchmark: it has no {MANIFEST}")
    for part in (".",) if whole else _PARTS:
        hub.fetch(repository, commit, part)
    return Target("published", folder, label, repository, commit)


def resolve(repository: str, revision: str) -> str:
    """Return the commit (40 hex digits) that a branch, tag or commit of a data set's repository stands for now.

    Raises:
        DataError: there is no such repository or revision.
        StorageError: the Hub cannot be reached.
    """
    return revision if COMMIT.fullmatch(revision) else Hub(repository, revision).resolve()


def _expected() -> str:
    return (
        "expected a run (`taskmill run RECIPE` makes one), the folder or manifest.json of a published benchmark "
        "(`taskmill export benchmark RUN` makes one), or owner/name[@REVISION] on the Hub"
    )


def _near(path: Path) -> str:
    parent = path.parent
    return did_you_mean(path.name, [p.name for p in parent.iterdir()]) if parent.is_dir() else ""
