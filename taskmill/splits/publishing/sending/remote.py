"""What a repository of the Hub holds of a benchmark, beside what its folder holds: which files to send, and which to delete.

Reads the repository through `hub_client` and the folder's files where their digests are not in the manifest. Writes nothing.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from taskmill.errors import DamagedError, DataError, UsageError, shorten
from taskmill.hub_client import Hub
from taskmill.splits.publishing.published import CARD, FOLDERS, FORMAT, MANIFEST, Published
from taskmill.storage import file_digest

MARK = ".taskmill-upload"
"""Stands in the place of the manifest while a benchmark is sent in several commits, and lists the files of all versions."""
_DATA = (
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".parquet",
    ".arrow",
    ".gz",
    ".bz2",
    ".xz",
    ".zst",
    ".zip",
    ".tar",
)
"""How the names of files end that a card may be about."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it."""

    size: int
    sha256: str | None
    """Of large files (LFS); the others have `blob`."""
    blob: str
    """Git's id of the file."""

    @property
    def digest(self) -> str:
        """The digest that tells the content."""
        return self.sha256 or self.blob


@dataclass(frozen=True)
class LocalFile:
    """A file of a published folder."""

    place: Path
    size: int
    sha256: str

    @cached_property
    def blob(self) -> str:
        """Git's id of the file."""
        content = self.place.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    def digest_like(self, remote: RemoteFile) -> str:
        """Return the digest of the kind that the Hub lists of this file."""
        return self.sha256 if remote.sha256 else self.blob


@dataclass(frozen=True)
class Head:
    """The newest commit of a repository."""

    commit: str | None
    """None where the repository has none yet."""
    private: bool
    files: Mapping[str, RemoteFile]

    @property
    def manifest(self) -> str | None:
        """The digest of the manifest there, None where there is none."""
        found = self.files.get(MANIFEST)
        return None if found is None else found.digest


@dataclass(frozen=True)
class Changes:
    """What makes a repository hold a benchmark and nothing that an earlier version of it left."""

    add: Mapping[str, LocalFile]
    delete: tuple[str, ...]
    manifest: LocalFile
    known: frozenset[str]
    """Every file of this and of earlier versions."""

    def __bool__(self) -> bool:
        """Return whether there is anything to do."""
        return bool(self.add or self.delete)


def local_files(published: Published) -> dict[str, LocalFile]:
    """Return the files of a published folder by path, the manifest among them.

    Raises:
        DamagedError: a file is missing or has another size than the manifest says.
    """
    folder = published.folder
    listed = {
        entry.path: LocalFile(folder / entry.path, entry.bytes, entry.sha256) for entry in published.files
    }
    manifest = folder / MANIFEST
    listed[MANIFEST] = LocalFile(manifest, manifest.stat().st_size, file_digest(manifest))
    for path, file in listed.items():
        if not file.place.is_file() or file.place.stat().st_size != file.size:
            raise DamagedError(f"{folder / path} is missing or was changed after {MANIFEST} was written")
    return listed


def listing(hub: Hub, commit: str | None) -> dict[str, RemoteFile]:
    """Return the files of a repository at a commit.

    Raises:
        DataError, StorageError: the Hub does not tell.
    """
    found = {}
    for item in Hub(hub.repository, commit).tree() if commit else ():
        if hasattr(item, "size"):
            lfs = getattr(item, "lfs", None)
            sha256 = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
            found[str(item.path)] = RemoteFile(int(item.size), sha256, str(item.blob_id))
    return found


def changes(hub: Hub, head: Head, local: Mapping[str, LocalFile], instead_of: Published | None) -> Changes:
    """Compare a repository with a folder.

    Args:
        hub, head: the repository and its newest commit.
        local: the files of the folder.
        instead_of: the benchmark in the folder, where it may replace only another version of itself; None to replace any.

    Raises:
        UsageError: the repository holds what is no benchmark of Taskmill, and would be mixed with it, or another benchmark.
        DataError, StorageError: the Hub does not tell.
    """
    add = {path: file for path, file in local.items() if not same(head.files.get(path), file)}
    if MANIFEST not in add and MARK not in head.files:
        return Changes(add, (), local[MANIFEST], frozenset(local))
    earlier = _earlier(hub, head, instead_of)
    if earlier is None:
        _refuse_foreign(hub, head, local, add, instead_of is None)
        earlier = frozenset()
    stale = sorted(path for path in earlier if path in head.files and path not in local and path[0] != ".")
    mark = [MARK] if MARK in head.files else []
    return Changes(add, (*stale, *mark), local[MANIFEST], earlier | frozenset(local))


def same(remote: RemoteFile | None, local: LocalFile) -> bool:
    """Return whether the Hub lists a file with the content of a local one."""
    return remote is not None and remote.size == local.size and remote.digest == local.digest_like(remote)


def differing(files: Mapping[str, RemoteFile], local: Mapping[str, LocalFile]) -> str | None:
    """Say which file a repository does not hold as it was sent, None when it holds all."""
    for path, file in local.items():
        there = files.get(path)
        if there is None:
            return f"{path} is not there"
        if not same(there, file):
            return (
                f"{path} has {there.size:,} bytes with digest {there.digest}; {file.size:,} with "
                f"{file.digest_like(there)} were sent"
            )
    return None


def _earlier(hub: Hub, head: Head, published: Published | None) -> frozenset[str] | None:
    """Return the files that an earlier version lists, finished or not; None where there is none.

    Raises:
        UsageError: another benchmark than `published` is there, or something else under the name of a manifest.
    """
    for name in (MARK, MANIFEST):
        if name in head.files and head.commit is not None:
            body = _json_there(hub, head.commit, name)
            if not isinstance(body, dict) or body.get("format") != FORMAT:
                raise UsageError(
                    f"{hub.repository} holds a {name} that is not of a published benchmark (`format: {FORMAT}`); "
                    f"choose another OWNER/NAME: {hub.page}"
                )
            if published is not None:
                _refuse_other(hub, body, published.body)
            return frozenset(_paths(body.get("files")))
    return None


def _refuse_other(hub: Hub, there: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse a repository that holds a benchmark of another name, unless ours grew from it."""
    name, extended = there.get("name"), ours.get("extends") or {}
    if name in (None, ours.get("name")) or there.get("root") == extended.get("root"):
        return
    raise UsageError(
        f"{hub.repository} holds another benchmark, {shorten(name)} with the root {str(there.get('root'))[:16]}; this one is "
        f"{shorten(ours.get('name'))}: choose another OWNER/NAME, or publish with --replace to put it in that one's place, "
        f"which stays in the history and under its tags: {hub.page}"
    )


def _paths(files: Any) -> Iterable[str]:
    for entry in files if isinstance(files, list) else ():
        path = entry.get("path") if isinstance(entry, dict) else entry
        if isinstance(path, str) and path:
            yield path


def _json_there(hub: Hub, commit: str, name: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        place = Hub(hub.repository, commit).download(name, Path(folder))
        try:
            return json.loads(place.read_bytes())
        except (ValueError, RecursionError):
            return None


def _refuse_foreign(
    hub: Hub, head: Head, local: Mapping[str, LocalFile], add: Mapping[str, LocalFile], replace: bool
) -> None:
    """Refuse a repository whose own files would lie among the benchmark's, or be replaced by them.

    The card may be replaced where there is nothing else, or on request.
    """
    mine = {path for path in local if path != CARD}
    foreign = [
        p for p in head.files if (p in mine and p in add) or (p not in mine and p.split("/")[0] in FOLDERS)
    ]
    if foreign:
        raise UsageError(
            f"{hub.repository} holds {min(foreign)}, and no manifest of a published benchmark: choose another OWNER/NAME, "
            f"or delete that file at {hub.page} first"
        )
    data = [path for path in head.files if path not in mine and path.lower().endswith(_DATA)]
    if data and not replace:
        raise UsageError(
            f"{hub.repository} holds {min(data)}, a data set of its own whose card would be replaced: choose another "
            f"OWNER/NAME, or publish with --replace, which leaves that file there: {hub.page}"
        )


def other_version(hub: Hub, head: Head) -> DataError:
    """Return the error that somebody else published meanwhile."""
    return DataError(
        f"another version was published to {hub.repository} meanwhile: commit {head.commit}, which was left as it is; "
        f"look at it with `taskmill diff {hub.repository} RUN`, and publish again to replace it"
    )
