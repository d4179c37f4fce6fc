"""Names of files that somebody else chose: which of them may become files of ours, and which files only stand for others.

Reads the first bytes of small files, writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from taskmill.errors import DataError

MAX_DEPTH = 64
"""Most folders in one name."""
MAX_NAME_BYTES = 1000
"""Most bytes of a whole name; of one part of it, file systems allow 255."""
_MAX_PART_BYTES = 255
_DRIVE = re.compile(r"[A-Za-z]:")
_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024


def parts_of(name: str) -> list[str]:
    """Return the folders and the file of a name that stays below any folder that it is put in.

    Raises:
        ValueError: it could lead elsewhere, is no plain text or too long; the message says which.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or _DRIVE.match(name) or ".." in parts or "\\" in name:
        raise ValueError("a name that could land outside of its folder")
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in name):
        raise ValueError("a name that is no plain text")
    longest = max((len(part.encode()) for part in parts), default=0)
    if len(name.encode()) > MAX_NAME_BYTES or longest > _MAX_PART_BYTES or len(parts) > MAX_DEPTH:
        raise ValueError("a name that is too long or has too many folders")
    return parts


def shown(name: str) -> str:
    """Return a name as a message may show it."""
    return ascii(name[:200])


def refuse_pointers(files: Iterable[tuple[Path, str]]) -> None:
    """Refuse files of a Git clone that only stand for large ones which were not fetched.

    Args:
        files: each with what messages call it.

    Raises:
        DataError: there is one.
    """
    for path, name in files:
        try:
            is_pointer = path.stat().st_size <= _POINTER_BYTES and path.read_bytes().startswith(_POINTER)
        except OSError:
            continue
        if is_pointer:
            problem = "a pointer of Git LFS, not the file itself"
            raise DataError(problem, file=name, hint="Run `git lfs pull` in the clone that it lies in")
