"""Data set repositories of the Hugging Face Hub: their data files at one commit, in the cache, verified.

Reads the Hub through `huggingface_hub` (its own environment: HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE), writes
`hub/<owner>/<name>/<commit>/` of the cache: `listing.json`, what the repository holds, and `files/`, each file under
its own name once its bytes are those that the listing names. What is there is never asked for again.
Loading scripts, pickles and weights are not even downloaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from taskmill.cache import cache_folder
from taskmill.curation.places.naming import parts_of, shown
from taskmill.errors import DataError, StorageError, did_you_mean
from taskmill.hub_client import Hub
from taskmill.recipe_values import PINNED
from taskmill.storage import remove, write_json

log = logging.getLogger("taskmill")

CODE = ("py", "pyc", "ipynb", "sh", "js", "so", "dll", "exe", "jar", "class")
PICKLES = ("pkl", "pickle", "joblib", "dill", "pt", "pth", "bin", "ckpt", "npy", "npz", "rds", "rdata", "mat")
WEIGHTS = ("h5", "hdf5", "onnx", "msgpack", "safetensors", "gguf", "tflite")
MEDIA = ("png", "jpg", "jpeg", "gif", "webp", "pdf", "mp3", "wav", "flac", "ogg", "mp4", "avi", "mov")
NEVER = frozenset((*CODE, *PICKLES, *WEIGHTS, *MEDIA))
"""Endings that no file has which a reader could read."""
COMPRESSED = ("gz", "bz2", "xz", "zst")
CARD = "README.md"
_LISTING = "listing.json"
_CARD_BYTES = 1 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository as the Hub lists it."""

    path: str
    size: int
    sha256: str | None
    """Of large files (LFS); the others have `blob`."""
    blob: str
    """Git's id of the file."""


def parse_pinned(hub: str) -> tuple[str, str]:
    """Return (repository, commit) of `owner/name@COMMIT`.

    Raises:
        DataError: it is not written so.
    """
    match = PINNED.fullmatch(hub)
    if match is None:
        raise DataError(f"found {hub!r}", expected="owner/name@COMMIT with the 40 hex digits of a commit")
    return match["repository"], match["commit"]


def snapshot(repository: str, commit: str) -> Path:
    """Return the folder that holds what has been fetched of a repository at a commit."""
    return _place(repository, commit) / "files"


def fetch(repository: str, commit: str, path: str = ".") -> Path:
    """Return the top folder of a repository, with every data file below `path` in it.

    Args:
        repository: `owner/name` of a data set.
        commit: 40 hex digits.
        path: a folder or file of it; what stands behind the name of an archive is looked up inside later.

    Raises:
        DataError: no such repository, commit or path, no right to read it, or bytes that are not those listed.
        StorageError: the Hub cannot be reached and the files are not in the cache, or the cache cannot be written.
        MissingPackageError: huggingface_hub is not installed, and something has to be fetched.
    """
    place = _place(repository, commit)
    if is_here(repository, commit, path):
        return place / "files"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / "lock"):
            _download(place, repository, commit, path)
    except OSError as error:
        raise StorageError(
            f"cannot keep {repository} in {place}: {error.strerror or error}; $TASKMILL_CACHE names another cache"
        ) from error
    return place / "files"


def is_here(repository: str, commit: str, path: str = ".") -> bool:
    """Return whether the cache holds all that `fetch` would fetch.

    Raises:
        DataError: the repository is known to have no such path, or no data file in it.
    """
    place = _place(repository, commit)
    listed = _read_listing(place)
    return listed is not None and all(
        _is_there(place, file) for file in _wanted(listed, path, repository, commit)
    )


def license_of(repository: str, commit: str) -> str | None:
    """Return the licence that the repository's card states, as it writes it; None where it states none."""
    from taskmill.curation.sources._yaml import load_yaml

    try:
        text = (snapshot(repository, commit) / CARD).read_text(encoding="utf-8", errors="replace")
        if not text.startswith("---"):
            return None
        stated = load_yaml(text[3:].split("\n---", 1)[0])
    except (OSError, ValueError, RecursionError):
        return None
    found = stated.get("license") if isinstance(stated, dict) else None
    names = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return "; ".join(name for name in names if isinstance(name, str)) or None


def _place(repository: str, commit: str) -> Path:
    return cache_folder() / "hub" / repository / commit


# ---------------------------------------------------------------------------------------- what is wanted


def _wanted(listed: Sequence[RemoteFile], path: str, repository: str, commit: str) -> list[RemoteFile]:
    """Return the data files at or below `path`, and the card.

    Raises:
        DataError: there is none.
    """
    where = PurePosixPath(path)
    if where.is_absolute() or ".." in where.parts:
        raise DataError(f"the path {path!r} leads out of the repository {repository}")
    parts = where.parts
    below = [file for file in listed if _meet(PurePosixPath(file.path).parts, parts)]
    wanted = [file for file in below if _is_data(file.path)]
    if wanted:
        chosen = {file.path for file in wanted}
        card = [file for file in listed if file.path == CARD and file.size <= _CARD_BYTES]
        return [*wanted, *(file for file in card if file.path not in chosen)]
    name = f"{repository}@{commit[:12]}"
    if below:
        kinds = sorted({PurePosixPath(file.path).suffix or file.path for file in below})
        raise DataError(
            f"{name} has no data file in {path!r}, only {', '.join(kinds[:8])}; code is never run"
        )
    known = {str(parent) for file in listed for parent in [file.path, *PurePosixPath(file.path).parents]}
    hint = did_you_mean(path, known - {"."}) or f"; it has {', '.join(sorted(_top(listed))[:8])}"
    raise DataError(f"{name} has no file or folder {path!r}{hint}")


def _meet(file: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """Return whether a file lies below a path, or is the archive that the path goes into."""
    return file[: len(path)] == path or path[: len(file)] == file


def _top(listed: Sequence[RemoteFile]) -> set[str]:
    return {PurePosixPath(file.path).parts[0] for file in listed}


def _is_data(path: str) -> bool:
    parts = PurePosixPath(path).parts
    suffixes = [part.lower() for part in parts[-1].split(".")[1:]]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return not any(part.startswith(".") for part in parts) and not NEVER & set(suffixes[-1:])


# ------------------------------------------------------------------------------------------ the listing


def _read_listing(place: Path) -> list[RemoteFile] | None:
    try:
        found = json.loads((place / _LISTING).read_bytes())
        return [RemoteFile(**file) for file in found]
    except (OSError, ValueError, TypeError):
        return None


def _list(hub: Hub, place: Path) -> list[RemoteFile]:
    """Ask what the repository holds, and keep the answer."""
    listed = []
    for item in hub.tree():
        lfs = getattr(item, "lfs", None)
        if not hasattr(item, "size"):
            continue
        try:
            path = "/".join(parts_of(item.path))
        except ValueError as error:
            raise DataError(f"{hub.repository} lists a file with {error}: {shown(item.path)}") from error
        listed.append(RemoteFile(path, int(item.size), _sha256(lfs), str(item.blob_id)))
    if not listed:
        raise DataError(f"the Hub lists no file of {hub.repository}@{hub.commit[:12]}")
    listed.sort(key=lambda file: file.path)
    write_json(place / _LISTING, [asdict(file) for file in listed])
    return listed


def _sha256(lfs: Any) -> str | None:
    found = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    return None if found is None else str(found)


# -------------------------------------------------------------------------------------------- the files


def _download(place: Path, repository: str, commit: str, path: str) -> None:
    """Fetch what is missing; files that are already there stay.

    Raises:
        DataError, StorageError, MissingPackageError: see `fetch`.
    """
    hub = Hub(repository, commit)
    listed = _read_listing(place) or _list(hub, place)
    missing = [file for file in _wanted(listed, path, repository, commit) if not _is_there(place, file)]
    size = sum(file.size for file in missing)
    free = shutil.disk_usage(place).free
    if size > free:
        raise StorageError(
            f"{repository} is {size:,} bytes more than the cache has and its disk has {free:,} left: "
            "name a folder of it with `path`, or another cache with $TASKMILL_CACHE"
        )
    log.info("hub: %s@%s: fetching %d files, %d bytes", repository, commit[:12], len(missing), size)
    incoming = place / "incoming"
    for file in missing:
        _fetch_one(hub, file, incoming, place / "files" / file.path, place / _LISTING)
    shutil.rmtree(incoming, ignore_errors=True)


def _fetch_one(hub: Hub, file: RemoteFile, incoming: Path, target: Path, listing: Path) -> None:
    for attempt in (1, 2):
        got = hub.download(file.path, incoming)
        problem = _problem(got, file)
        if problem is None:
            target.parent.mkdir(parents=True, exist_ok=True)
            got.replace(target)
            return
        with contextlib.suppress(OSError):
            shutil.rmtree(incoming)
        log.warning("hub: %s of %s: %s (attempt %d)", file.path, hub.repository, problem, attempt)
    remove(listing)  # it may be what is wrong: the next run asks anew
    raise DataError(
        f"the Hub does not send what it lists: {problem}",
        file=f"{hub.repository}@{hub.commit[:12]}/{file.path}",
        hint="Nothing of it was kept; run again later, or look whether a proxy changes what it passes on",
    )


def _is_there(place: Path, file: RemoteFile) -> bool:
    try:
        return (place / "files" / file.path).stat().st_size == file.size
    except OSError:
        return False


def _problem(path: Path, file: RemoteFile) -> str | None:
    """Say in what a downloaded file differs from what is listed."""
    size = path.stat().st_size
    if size != file.size:
        return f"{size:,} bytes; expected {file.size:,}"
    found = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            found.update(chunk)
    expected = file.sha256 or file.blob
    return None if found.hexdigest() == expected else f"digest {found.hexdigest()}; expected {expected}"
