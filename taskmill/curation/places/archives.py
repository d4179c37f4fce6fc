"""Archives (zip, tar) as folders: unpacked into the cache once, never outside it, never without limits.

Reads an archive, writes `archives/<sha256>/` of the cache. The folder appears under that name whole or not at all.
Nothing in an archive is run or loaded here; archives inside archives stay files.
"""

from __future__ import annotations

import contextlib
import json
import logging
import lzma
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from filelock import FileLock

from taskmill.cache import cache_folder, file_digests
from taskmill.curation.places.inflating import Forward, open_tar_bytes
from taskmill.curation.places.naming import parts_of, refuse_pointers, shown
from taskmill.errors import DataError, StorageError
from taskmill.storage import write_json

log = logging.getLogger("taskmill")

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_MEMBERS = 200_000
"""Most files and folders of an archive."""
MAX_BYTES = 200 << 30
"""Most bytes that an archive may unpack to."""
MAX_RATIO = 200
"""Most bytes per byte of the archive; counted once more than SMALL_BYTES have been written."""
SMALL_BYTES = 100 << 20
_CHUNK = 1 << 20
_JUNK = ("__MACOSX", ".DS_Store")
"""What archivers of one system add for itself."""
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,
    RuntimeError,
    KeyError,
    IndexError,
)
"""What the standard library raises on archives that are none, or not whole."""


class _Member(NamedTuple):
    name: str
    """As the archive states it."""
    is_folder: bool
    content: Any
    """What opens it: a callable without arguments that returns a binary file; None for folders."""


def is_archive(path: Path) -> bool:
    """Return whether a name ends like an archive that can be unpacked."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, name: str) -> Path:
    """Return a folder with an archive's members, unpacked now or by an earlier run.

    Args:
        archive: absolute path.
        name: what messages call it.

    Raises:
        DataError: damaged, encrypted, over a limit, or a member that could land outside or on another.
        StorageError: the archive cannot be read, or the cache cannot be written.
    """
    refuse_pointers([(archive, name)])
    sha256 = file_digests([archive])[archive]
    folder = cache_folder() / "archives" / sha256
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not _is_whole(folder):
                _unpack_anew(archive, name, folder)
    except OSError as error:
        raise StorageError(
            f"cannot unpack {name} into {folder.parent}: {error.strerror or error}; $TASKMILL_CACHE names another cache"
        ) from error
    return folder


def _is_whole(folder: Path) -> bool:
    """Return whether every unpacked file is there with its size."""
    try:
        sizes = json.loads(folder.with_suffix(".json").read_bytes())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _unpack_anew(archive: Path, name: str, folder: Path) -> None:
    temporary = folder.with_suffix(".tmp")
    for old in (temporary, folder):
        if old.exists():
            shutil.rmtree(old)
    temporary.mkdir()
    try:
        sizes = _Unpacking(archive, name, temporary).run()
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    write_json(folder.with_suffix(".json"), sizes)
    log.info("unpacked %s: %d files, %d bytes", name, len(sizes), sum(sizes.values()))


class _Unpacking:
    """One archive being unpacked into an empty folder."""

    def __init__(self, archive: Path, name: str, folder: Path) -> None:
        """`name` is what messages call the archive."""
        self._archive, self._name, self._folder = archive, name, folder
        self._size = archive.stat().st_size
        self._num_bytes = 0
        self._taken: dict[str, tuple[str, bool]] = {}
        """Folded name -> (name, is a folder) of everything so far."""

    def run(self) -> dict[str, int]:
        """Unpack every member; return the size of each file by name."""
        sizes: dict[str, int] = {}
        record = -1
        try:
            for record, member in enumerate(self._members()):
                if record >= MAX_MEMBERS:
                    raise self._error(f"more than {MAX_MEMBERS:,} members", None)
                place = self._place(member)
                if place is not None and member.is_folder:
                    (self._folder / place).mkdir(parents=True, exist_ok=True)
                elif place is not None:
                    sizes[place] = self._write(member, place)
        except _DAMAGED as error:
            problem = f"a damaged archive: {error or type(error).__name__}"
            raise self._error(problem, record + 1, hint="Fetch it again: nothing of it is used") from error
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise self._error(f"an archive that cannot be read: {error}", record + 1) from error
        if not sizes:
            raise self._error("the archive holds no file", None)
        return sizes

    def _members(self) -> Iterator[_Member]:
        return self._zip() if self._archive.name.lower().endswith(".zip") else self._tar()

    def _zip(self) -> Iterator[_Member]:
        with zipfile.ZipFile(self._archive) as whole:
            if len(whole.infolist()) > MAX_MEMBERS:
                raise self._error(f"more than {MAX_MEMBERS:,} members", None)
            for info in whole.infolist():
                name = info.orig_filename
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise self._error("a link or device, which is never unpacked", name)
                if info.flag_bits & 1:
                    hint = "Unpack it yourself and let `path` name the folder"
                    raise self._error("the archive is encrypted", name, hint=hint)
                if info.is_dir():
                    yield _Member(name, True, None)
                else:
                    yield _Member(name, False, lambda info=info: whole.open(info))

    def _tar(self) -> Iterator[_Member]:
        with open_tar_bytes(self._archive) as raw, Forward(raw, self._check_size) as forward:
            whole = tarfile.TarFile(fileobj=forward)
            for info in whole:
                if info.size < 0:
                    raise ValueError(f"a member of {info.size} bytes")
                if info.issparse() or not (info.isreg() or info.isdir()):
                    problem = "a link, device or sparse file, which is never unpacked"
                    raise self._error(problem, info.name)
                if info.isdir():
                    yield _Member(info.name, True, None)
                else:
                    yield _Member(info.name, False, lambda info=info: whole.extractfile(info))
            forward.check_end()

    def _place(self, member: _Member) -> str | None:
        """Return where a member goes, relative to the folder; None for what is nothing.

        Raises:
            DataError: it would land outside, or on another member.
        """
        try:
            parts = parts_of(member.name)
        except ValueError as error:
            raise self._error(str(error), member.name) from error
        if not parts or parts[0] in _JUNK or parts[-1] in _JUNK:
            return None
        for depth in range(1, len(parts) + 1):
            self._take("/".join(parts[:depth]), member.is_folder or depth < len(parts))
        return str(PurePosixPath(*parts))

    def _take(self, path: str, is_folder: bool) -> None:
        folded = unicodedata.normalize("NFC", path).casefold()
        earlier = self._taken.get(folded)
        if earlier is None:
            self._taken[folded] = (path, is_folder)
        elif earlier != (path, True) or not is_folder:
            raise self._error(f"a member whose name collides with {shown(earlier[0])}", path)

    def _write(self, member: _Member, place: str) -> int:
        target = self._folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        with contextlib.closing(member.content()) as content, target.open("xb") as file:
            while chunk := content.read(_CHUNK):
                size += len(chunk)
                self._num_bytes += len(chunk)
                self._check_size(self._num_bytes)
                file.write(chunk)
        return size

    def _check_size(self, num_bytes: int) -> None:
        """Refuse to go on once an archive has given more bytes than one of its size may."""
        if num_bytes > MAX_BYTES:
            raise self._error(f"it unpacks to more than {MAX_BYTES >> 30} GiB", None)
        if num_bytes > max(SMALL_BYTES, MAX_RATIO * self._size):
            problem = f"it unpacks to more than {MAX_RATIO} times its {self._size:,} bytes"
            raise self._error(problem, None, hint="Unpack it yourself and let `path` name the folder")

    def _error(self, problem: str, member: str | int | None, hint: str | None = None) -> DataError:
        text = problem if not isinstance(member, str) else f"{problem}: {shown(member)}"
        record = member if isinstance(member, int) else None
        return DataError(text, file=self._name, record=record, hint=hint)
