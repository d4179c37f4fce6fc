"""The folder of an export: taken when it is new, empty or an earlier export of the same kind, and finished by export.json.

Writes `.taskmill-export`, which marks the folder from the start, and `export.json`, written last: without it the export is
not finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from taskmill import __version__
from taskmill.commands.finished import FinishedRun
from taskmill.errors import UsageError
from taskmill.records import DIRECTORIES
from taskmill.storage import FileEntry, digest, is_stray, remove, write_bytes, write_json

EXPORT = "export.json"
MARK = ".taskmill-export"
"""A file that tells an export's folder, finished or not, from others; it names the kind of export, nothing for chat."""


def claim(folder: Path, run: Path, kind: bytes, written: Callable[[Path], Iterable[str]]) -> set[str]:
    """Mark the folder as an export's and return the files in it that an earlier or interrupted export wrote.

    Args:
        folder: to be written to.
        run: the run that is exported.
        kind: of the export, as the mark names it.
        written: returns the files that such an export may have written, relative to the folder.

    Raises:
        UsageError: the folder holds files that are none of such an export, or lies in a stage's.
    """
    check_folder(folder, run, kind)
    for path in _strays(folder):  # of an export that was killed
        remove(path)
    names = {name for name in written(folder) if (folder / name).is_file()}
    remove(folder / EXPORT) if (folder / EXPORT).exists() else write_bytes(folder / MARK, kind)
    return names


def check_folder(folder: Path, run: Path, kind: bytes) -> None:
    """Check that an export may be written to a folder, and change nothing; see `claim`.

    Raises:
        UsageError: the folder holds files that are none of such an export, or lies in a stage's.
    """
    for name in DIRECTORIES.values():
        if folder.resolve().is_relative_to((run / name).resolve()):
            raise UsageError(f"{folder} lies in {run / name}, which its stage sweeps; choose another folder")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; expected a folder to write to")
    strays = {path.name for path in _strays(folder)}
    present = sorted({p.name for p in folder.iterdir()} - strays) if folder.is_dir() else []
    if present and MARK not in present:
        raise UsageError(
            f"{folder} holds {present[0]!r} and is no export of taskmill; expected a new or empty folder, or an earlier "
            f"export, which is replaced"
        )
    if present and (folder / MARK).read_bytes() != kind:
        raise UsageError(f"{folder} holds another kind of export; expected a new or empty folder")


def _strays(folder: Path) -> list[Path]:
    return [path for path in folder.glob(".*.tmp") if is_stray(path)]


def finish(
    folder: Path,
    found: FinishedRun,
    stages: Sequence[str],
    entries: Sequence[FileEntry],
    body: dict[str, Any],
) -> dict[str, Any]:
    """Write export.json and return its content: `body`, what it was made of, and its files with their digests."""
    manifests = {stage: found.manifests[stage] for stage in stages if found.has(stage)}
    body = {
        **body,
        "taskmill": __version__,
        "source": {
            stage: {"fingerprint": manifest.fingerprint, "root": manifest.root}
            for stage, manifest in manifests.items()
        },
        "files": [vars(entry) for entry in sorted(entries, key=lambda entry: entry.path)],
    }
    body["digest"] = digest(body)
    write_json(folder / EXPORT, body)
    return body
