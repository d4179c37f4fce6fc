"""Asking the Hub through `huggingface_hub`: bounded patience, and failures as typed errors that say what to do.

Tokens stay with that package (HF_TOKEN, or `hf auth login`): they are in no message and in no file of ours.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from taskmill.errors import DataError, MissingPackageError, StorageError, TaskmillError, UsageError

log = logging.getLogger("taskmill")

ATTEMPTS = 3
"""The library itself tries again where a connection fails; this is for what it passes on."""
LONGEST_WAIT = 120.0
"""Seconds between two attempts, whatever the server asks for."""
_DEFAULT_ENDPOINT = "https://huggingface.co"
_SECRET = re.compile(r"hf_\w+|[Bb]earer\s+\S+|//[^/@\s]+@|\?[^\s'\"]+")
"""Tokens, logins in addresses, and their queries, which may hold signatures."""
_NO_LISTING = (KeyError, TypeError, AttributeError)
"""What the library raises on an answer that is none of the Hub's."""
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.EIO)
_Result = TypeVar("_Result")


class Hub:
    """One data set repository at one commit."""

    def __init__(self, repository: str, commit: str) -> None:
        """Connect to nothing yet.

        Raises:
            MissingPackageError: huggingface_hub is not installed.
            UsageError: HF_ENDPOINT is no address.
        """
        try:
            import huggingface_hub
            import huggingface_hub.errors
            import huggingface_hub.utils
        except ImportError as error:
            purpose = f"Fetching {repository} from the Hub"
            raise MissingPackageError("huggingface_hub", "hub", purpose) from error
        self.repository, self.commit = repository, commit
        self.endpoint = _endpoint()
        self._library: Any = huggingface_hub
        self._api: Any = huggingface_hub.HfApi(endpoint=self.endpoint, library_name="taskmill")

    def tree(self) -> list[Any]:
        """Return every file and folder of the repository.

        Raises:
            DataError, StorageError: see `_explain`.
        """

        def ask() -> list[Any]:
            found = self._api.list_repo_tree(
                self.repository, recursive=True, revision=self.commit, repo_type="dataset"
            )
            return list(found)

        return self._patiently(ask, "its files")

    def download(self, path: str, folder: Path) -> Path:
        """Fetch one file below `folder` and return where it is.

        Raises:
            DataError, StorageError: see `_explain`.
        """

        def ask() -> str:
            found: str = self._library.hf_hub_download(
                self.repository,
                path,
                revision=self.commit,
                repo_type="dataset",
                local_dir=folder,
                endpoint=self.endpoint,
                library_name="taskmill",
            )
            return found

        with _without_bars(self._library):
            return Path(self._patiently(ask, path))

    def _patiently(self, ask: Callable[[], _Result], what: str) -> _Result:
        errors = self._library.errors
        kinds = (getattr(errors, "HTTPError", OSError), OSError, ValueError, RuntimeError, *_NO_LISTING)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return ask()
            except kinds as error:
                if isinstance(error, OSError) and error.errno in _DISK and _status(error) is None:
                    raise
                wait = _wait(error, attempt)
                if wait is None or attempt == ATTEMPTS:
                    raise self._explain(error, what) from error
                log.warning(
                    "hub: %s: %s: %s; trying again in %d s", self.repository, what, _plain(error), wait
                )
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _explain(self, error: BaseException, what: str) -> TaskmillError:
        """Return what a failure means and what helps."""
        errors = self._library.errors
        page = f"{_bare(self.endpoint)}/datasets/{self.repository}"
        status = _status(error)
        log_in = "log in with `hf auth login` or set HF_TOKEN"
        if isinstance(error, errors.GatedRepoError):
            return DataError(f"{self.repository} is gated: accept its conditions at {page}, then {log_in}")
        if isinstance(error, errors.RevisionNotFoundError):
            return DataError(
                f"{self.repository} has no commit {self.commit} (any more); {page}/commits/main lists those it has"
            )
        unreachable = isinstance(error, errors.LocalEntryNotFoundError)
        if isinstance(error, errors.EntryNotFoundError) and not unreachable:
            return DataError(f"{self.repository}@{self.commit[:12]} lists {what}, but does not have it")
        if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
            return DataError(
                f"the Hub shows no data set {self.repository} (HTTP {status}): look for it at {page}; "
                f"if it is private or gated, {log_in}"
            )
        if status == 403:
            return DataError(
                f"{self.repository} may not be read with this login (HTTP 403): {page}; {log_in}"
            )
        if isinstance(error, errors.HFValidationError):
            return DataError(f"{self.repository!r} is no name of a data set on the Hub: {_plain(error)}")
        if isinstance(error, _NO_LISTING) or (isinstance(error, ValueError) and status is None):
            return StorageError(
                f"{_bare(self.endpoint)} does not answer like a Hub when asked for {what} of {self.repository}: "
                f"{_plain(error)}; look whether HF_ENDPOINT is right, and whether a proxy asks for a login"
            )
        if status is not None:
            return StorageError(
                f"the Hub answered HTTP {status} to {ATTEMPTS} requests for {what} of {self.repository}; "
                "run again later: files that are complete are kept"
            )
        return StorageError(
            f"{what} of {self.repository} could not be fetched from {_bare(self.endpoint)} and is not in the cache: "
            f"{_plain(error)}; connect and run again (files that are complete are kept), or set HF_ENDPOINT or "
            "TASKMILL_CACHE if a mirror or another cache has it"
        )


def _wait(error: BaseException, attempt: int) -> float | None:
    """Return how many seconds to wait before another attempt; None where none will help."""
    status = _status(error)
    if status is not None and status not in (408, 429) and status < 500:
        return None
    name = type(error).__name__
    unreachable = name == "LocalEntryNotFoundError"  # neither the Hub nor the library's own cache has it
    if name in ("OfflineModeIsEnabled", "ConnectError") or (
        isinstance(error, (ValueError, *_NO_LISTING)) and not unreachable
    ):
        return None
    if isinstance(error, OSError) and error.errno is not None and status is None:
        return None  # the disk, not the Hub
    return min(LONGEST_WAIT, _retry_after(error) or float(2 ** (attempt - 1)))


def _status(error: BaseException) -> int | None:
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None


def _retry_after(error: BaseException) -> float | None:
    """Return the seconds that a server asks to wait for, given as such or as a date."""
    stated = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After")
    if not isinstance(stated, str):
        return None
    if stated.strip().isdigit():
        return float(stated)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(stated).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _plain(error: BaseException) -> str:
    """Return the first line of a failure, without anything that could be a secret."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{type(error).__name__}: {_SECRET.sub('***', text)[:300]}"


def _endpoint() -> str:
    endpoint = (os.environ.get("HF_ENDPOINT") or _DEFAULT_ENDPOINT).rstrip("/")
    try:
        parts = urlsplit(endpoint)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise UsageError(f"HF_ENDPOINT is not the address of a Hub; expected one like {_DEFAULT_ENDPOINT}")
    return endpoint


def _bare(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


@contextlib.contextmanager
def _without_bars(library: Any) -> Iterator[None]:
    """Keep the library's progress bars off the terminal; what is fetched is logged."""
    utils = library.utils
    if utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()
