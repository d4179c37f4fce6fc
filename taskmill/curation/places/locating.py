"""Where a source lies: a local path, inside an archive, in a Hub repository, as one folder that readers can read.

Reads the recipe's `path`, `hub`, `repository` and `revision`, and `{hub: ..}` places in a reader's options; fetches and
unpacks through the cache. Readers know of none of it: they see a folder, and files named as upstream names them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from taskmill.curation.places import hub
from taskmill.curation.places.archives import is_archive, unpack
from taskmill.curation.reader import SourceFolder
from taskmill.errors import RecipeError
from taskmill.recipe import Source
from taskmill.recipe_values import PINNED
from taskmill.settings import Settings

PACKED = (".7z", ".rar", ".zst", ".bz2", ".xz", ".lz4", ".lzma", ".z")
"""Endings of what has to be unpacked by hand."""
SHIPPED_CASTS = Path(__file__).resolve().parents[1] / "casts"


@dataclass(frozen=True)
class Origin:
    """Where a source comes from, for the record."""

    repository: str | None = None
    revision: str | None = None
    license: str | None = None
    """As the repository's own card states it."""


def locate(source: Source, settings: Settings) -> SourceFolder:
    """Return the folder of a source, fetched and unpacked where that is needed.

    A path that does not exist is returned as it is: whoever asks says so, with the nearest name.

    Raises:
        DataError: an archive or repository that cannot be used.
        StorageError: the cache cannot be written, or the Hub cannot be reached.
        MissingPackageError: a package for the Hub is missing.
        RecipeError: a `{hub: ..}` place in the options that makes no sense, or a file packed in a way that is not read.
    """
    casts = (*(settings.path(folder) for folder in settings.curate.casts), SHIPPED_CASTS)
    repositories = {pinned: _fetch(pinned, path) for pinned, path in _places(source)}
    root = settings.data_root
    if source.hub is not None:
        root = _fetch(source.hub, source.path)
    path, archive = _enter(Path(os.path.normpath(root / source.path)), root)
    prefix, name = "", "" if source.hub is None else hub.parse_pinned(source.hub)[0].split("/")[-1]
    if archive is not None:
        unpacked = unpack(archive, _name(archive, root))
        root, path, prefix = unpacked, unpacked / path, _name(archive, root)
        name = archive.name.split(".")[0]
    elif not path.is_relative_to(root):
        root = path.parent
    if path.is_file() and (is_archive(path) or path.name.lower().endswith(PACKED)):
        packed = "packed in a way that is not read" if archive is None else "an archive in an archive"
        problem = f"{source.path!r} is {packed}; unpack it, and let `path` name what comes out"
        raise RecipeError([f"sources: {problem}"])
    return SourceFolder(
        path, root, source.options, settings.curate.on_error, casts, prefix, repositories, name
    )


def origin_of(source: Source) -> Origin:
    """Return where a source that was located comes from."""
    if source.hub is None:
        return Origin(source.repository, source.revision, None)
    repository, commit = hub.parse_pinned(source.hub)
    return Origin(repository, commit, hub.license_of(repository, commit))


def absent(settings: Settings) -> list[str]:
    """Return the Hub repositories of the recipe that `locate` would have to fetch something of.

    Raises:
        RecipeError, DataError: see `locate`.
    """
    wanted = [place for source in settings.sources for place in _pinned(source)]
    return sorted({pinned for pinned, path in wanted if not hub.is_here(*hub.parse_pinned(pinned), path)})


def _pinned(source: Source) -> Iterator[tuple[str, str]]:
    """Yield (pinned repository, place in it) of a source and its options."""
    if source.hub is not None:
        yield source.hub, source.path
    yield from _places(source)


def _fetch(pinned: str, path: str) -> Path:
    repository, commit = hub.parse_pinned(pinned)
    return hub.fetch(repository, commit, path)


def _places(source: Source) -> Iterator[tuple[str, str]]:
    """Yield (pinned repository, folder) of every place in the options that is one of the Hub."""
    for where, place in _mappings(source.options):
        if "hub" not in place:
            continue
        pinned = place["hub"]
        folders = place.get("folder", ".")
        listed = [folders] if isinstance(folders, str) else folders
        if not isinstance(pinned, str) or not PINNED.fullmatch(pinned) or not isinstance(listed, list):
            expected = "`hub: owner/name@COMMIT` (40 hex digits) and `folder`"
            raise RecipeError([f"sources: reader {source.reader!r}: option {where}: expected {expected}"])
        for folder in listed:
            yield pinned, str(folder)


def _mappings(value: Any, where: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        yield where, value
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in items:
        yield from _mappings(item, f"{where}.{key}" if where else str(key))


def _enter(path: Path, root: Path) -> tuple[Path, Path | None]:
    """Return (path, None), or (path inside, archive) where an archive stands in the way."""
    for place in [path, *path.parents]:
        if place == root:
            break
        if is_archive(place) and place.is_file():
            return path.relative_to(place), place
    return path, None


def _name(archive: Path, root: Path) -> str:
    try:
        return archive.relative_to(root).as_posix()
    except ValueError:
        return PurePosixPath(archive.name).as_posix()
