"""The cache: what is slow to make and the same every time, kept between runs.

Holds digests of upstream files, unpacked archives and files of Hub repositories. Deleting it, or any part of it,
loses nothing but time. No path of it is in a fingerprint, and `taskmill verify` never looks at it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from taskmill.errors import StorageError
from taskmill.storage import file_digest, write_bytes

log = logging.getLogger("taskmill")

YOUNG_NS = 2_000_000_000
"""A file changed this shortly before it was read could change again within the clock's resolution."""
MAX_DIGESTS = 200_000
"""Files whose digests are kept, the last read ones."""

Stamp = tuple[int, int, int]
"""Size, time of the last change of the bytes, and of the file's entry, in nanoseconds."""


def cache_folder() -> Path:
    """Return the folder of the cache: $TASKMILL_CACHE, else $XDG_CACHE_HOME/taskmill, else ~/.cache/taskmill."""
    named = os.environ.get("TASKMILL_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser().absolute() if base else Path.home() / ".cache") / "taskmill"


def file_digests(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the sha256 (hex) of each file; files that have not changed since the last time are not read again.

    Raises:
        StorageError: a file cannot be read. The cache itself never fails: damaged or not writable, it is not used.
    """
    place = cache_folder() / "digests.json"
    kept = _read(place)
    wanted = sorted(set(paths))
    digests: dict[Path, str] = {}
    unknown: list[Path] = []
    for path in wanted:
        entry = kept.get(str(path))
        if entry is not None and entry[0] == _stamp(path):
            digests[path] = entry[1]
        else:
            unknown.append(path)
    fresh = {path: _hash_one(path) for path in unknown}  # threads do not pay: hashing is as fast as memory
    digests.update((path, sha256) for path, (_, sha256) in fresh.items())
    found = {str(path): (stamp, sha256) for path, (stamp, sha256) in fresh.items() if stamp is not None}
    if found:
        _write(place, {**kept, **found})
    return {path: digests[path] for path in wanted}


def _hash_one(path: Path) -> tuple[Stamp | None, str]:
    """Return (stamp, sha256) of a file; the stamp is None where the file may have changed meanwhile."""
    before = _stamp(path)
    now = time.time_ns()
    sha256 = file_digest(path)
    settled = before is not None and before == _stamp(path) and now - max(before[1:]) > YOUNG_NS
    return (before if settled else None), sha256


def _stamp(path: Path) -> Stamp | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _read(place: Path) -> dict[str, tuple[Stamp, str]]:
    """Return path -> (stamp, sha256); empty where the file is missing or not what was written."""
    try:
        seal, _, body = place.read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != seal:
            return {}
        entries = json.loads(body)
        return {
            path: ((size, changed, entered), sha) for path, (size, changed, entered, sha) in entries.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _write(place: Path, entries: Mapping[str, tuple[Stamp, str]]) -> None:
    rows = {path: [*stamp, sha256] for path, (stamp, sha256) in list(entries.items())[-MAX_DIGESTS:]}
    body = json.dumps(rows, separators=(",", ":")).encode("ascii")
    try:
        write_bytes(place, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    except StorageError as error:
        log.debug("the cache is not used: %s", error)
