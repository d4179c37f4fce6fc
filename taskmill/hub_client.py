"""Asking the Hub through `huggingface_hub`: bounded patience, and failures as typed errors that say what to do.

Tokens stay with that package (HF_TOKEN, or `hf auth login`): they are in no message, no log line and no file of ours. While
it is asked, what it warns of goes through our own log, with anything that could be a secret masked.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import json
import logging
import os
import re
import sys
import time
import warnings
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
SILENCE = 300.0
"""Seconds without a byte after which a connection counts as dropped."""
LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
_DEFAULT_ENDPOINT = "https://huggingface.co"
_SECRET = re.compile(r"hf_\w+|[Bb]earer\s+\S+|//[^/@\s]+@|\?[^\s'\"]+")
"""Tokens, logins in addresses, and their queries, which may hold signatures."""
COMMIT = re.compile(r"[0-9a-f]{40}")
"""What names a commit, and never a branch or tag."""
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN")
_LOGGERS = ("huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "requests")
"""Whose own handlers and levels do not count while the library is asked; the first is passed on."""
_LIMIT = re.compile(r"(;\s*t=)(\d+)")
NO_ANSWER = (KeyError, TypeError, AttributeError)
"""What the library raises on an answer that is none of the Hub's."""
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.EIO)
_Result = TypeVar("_Result")


class Hub:
    """One data set repository, at a revision where it is read."""

    def __init__(
        self, repository: str, commit: str = "main", purpose: str = "Fetching {} from the Hub"
    ) -> None:
        """Connect to nothing yet.

        Args:
            repository: `owner/name`.
            commit: 40 hex digits; a branch or a tag for `resolve` alone.
            purpose: what the library is needed for, with a place for the repository.

        Raises:
            MissingPackageError: huggingface_hub is not installed.
            UsageError: HF_ENDPOINT is no address.
        """
        try:
            import huggingface_hub
            import huggingface_hub.errors
            import huggingface_hub.utils
        except ImportError as error:
            raise MissingPackageError("huggingface_hub", "hub", purpose.format(repository)) from error
        self.repository, self.commit = repository, commit
        self.endpoint = _endpoint()
        self.library: Any = huggingface_hub
        self.api: Any = huggingface_hub.HfApi(endpoint=self.endpoint, library_name="taskmill")

    @property
    def page(self) -> str:
        """The address of the repository, for people."""
        return f"{bare(self.endpoint)}/datasets/{self.repository}"

    def resolve(self) -> str:
        """Return the commit that the revision means: 40 hex digits.

        Raises:
            DataError, StorageError: see `_explain`.
        """

        def ask() -> str:
            found = self.api.repo_info(self.repository, revision=self.commit, repo_type="dataset")
            if not COMMIT.fullmatch(str(found.sha)):
                raise ValueError(f"found {str(found.sha)[:60]!r}; expected the 40 hex digits of a commit")
            return str(found.sha)

        return self.patiently(ask, f"its revision {self.commit}")

    def tree(self) -> list[Any]:
        """Return every file and folder of the repository.

        Raises:
            DataError, StorageError: see `_explain`.
        """

        def ask() -> list[Any]:
            found = self.api.list_repo_tree(
                self.repository, recursive=True, revision=self.commit, repo_type="dataset"
            )
            return list(found)

        return self.patiently(ask, "its files")

    def download(self, path: str, folder: Path) -> Path:
        """Fetch one file below `folder` and return where it is.

        Raises:
            DataError, StorageError: see `_explain`.
        """

        def ask() -> str:
            found: str = self.library.hf_hub_download(
                self.repository,
                path,
                revision=self.commit,
                repo_type="dataset",
                local_dir=folder,
                endpoint=self.endpoint,
                library_name="taskmill",
            )
            return found

        return Path(self.patiently(ask, path))

    def patiently(
        self,
        ask: Callable[[], _Result],
        what: str,
        explain: Callable[[BaseException, str], TaskmillError | None] | None = None,
    ) -> _Result:
        """Call the library until it answers, a bounded number of times.

        Args:
            ask: the call; it may be made several times.
            what: is asked for, for messages.
            explain: says what a failure means; None, or where it returns None, the failure is one of reading.

        Raises:
            TaskmillError: as `explain` and `_explain` say.
            OSError: of the disk.
        """
        errors = self.library.errors
        kinds = (getattr(errors, "HTTPError", OSError), OSError, ValueError, RuntimeError, *NO_ANSWER)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with _hushed(self.library):
                    return ask()
            except kinds as error:
                cause = source(error)
                if isinstance(cause, OSError) and cause.errno in _DISK and status_of(cause) is None:
                    raise
                wait = _wait(cause, attempt, cause is not error)
                if wait is None or attempt == ATTEMPTS:
                    explained = explain(error, what) if explain is not None else None
                    raise (explained or self._explain(cause, what)) from error
                log.warning(
                    "hub: %s: %s: %s; trying again in %d s", self.repository, what, plain(cause), wait
                )
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _explain(self, error: BaseException, what: str) -> TaskmillError:
        """Return what a failure means and what helps."""
        errors = self.library.errors
        page, status = self.page, status_of(error)
        if isinstance(error, errors.GatedRepoError):
            return DataError(f"{self.repository} is gated: accept its conditions at {page}, then {LOG_IN}")
        if isinstance(error, errors.RevisionNotFoundError):
            kind = "commit" if COMMIT.fullmatch(self.commit) else "branch or tag"
            return DataError(
                f"{self.repository} has no {kind} {self.commit} (any more); {page}/commits/main lists those it has"
            )
        unreachable = isinstance(error, errors.LocalEntryNotFoundError)
        if isinstance(error, errors.EntryNotFoundError) and not unreachable:
            return DataError(f"{self.repository}@{self.commit[:12]} lists {what}, but does not have it")
        if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
            return DataError(
                f"the Hub shows no data set {self.repository} (HTTP {status}): look for it at {page}; "
                f"if it is private or gated, {LOG_IN}"
            )
        if status == 403:
            return DataError(
                f"{self.repository} may not be read with this login (HTTP 403): {page}; {LOG_IN}"
            )
        if isinstance(error, errors.HFValidationError):
            return DataError(f"{self.repository!r} is no name of a data set on the Hub: {plain(error)}")
        if isinstance(error, NO_ANSWER) or (
            isinstance(error, ValueError) and status is None and not unreachable
        ):
            return StorageError(
                f"{bare(self.endpoint)} does not answer like a Hub when asked for {what} of {self.repository}: "
                f"{plain(error)}; look whether HF_ENDPOINT is right, and whether a proxy asks for a login"
            )
        if status is not None:
            return StorageError(
                f"the Hub answered HTTP {status} to {ATTEMPTS} requests for {what} of {self.repository}; "
                "run again later: files that are complete are kept"
            )
        return StorageError(
            f"{what} of {self.repository} could not be fetched from {bare(self.endpoint)} and is not in the cache: "
            f"{plain(error)}; connect and run again (files that are complete are kept), or set HF_ENDPOINT or "
            "TASKMILL_CACHE if a mirror or another cache has it"
        )


def _wait(error: BaseException, attempt: int, sending: bool = False) -> float | None:
    """Return how many seconds to wait before another attempt; None where none will help.

    A file that is refused while it is sent (`sending`) may have been changed on its way.
    """
    status = status_of(error)
    again = (400, 408, 409, 422, 429) if sending else (408, 429)
    if status is not None and status not in again and status < 500:
        return None
    name = type(error).__name__
    unreachable = name == "LocalEntryNotFoundError"  # neither the Hub nor the library's own cache has it
    if name in ("OfflineModeIsEnabled", "ConnectError") or (
        isinstance(error, (ValueError, *NO_ANSWER))
        and not unreachable
        and not isinstance(
            error, json.JSONDecodeError
        )  # a page in the place of an answer: an overloaded proxy's
    ):
        return None
    if isinstance(error, OSError) and error.errno is not None and status is None:
        return None  # the disk, not the Hub
    return min(LONGEST_WAIT, _retry_after(error) or float(2 ** (attempt - 1)))


def source(error: BaseException) -> BaseException:
    """Return the failure below those that only say where it happened."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of a failure, None where there was no answer."""
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


def plain(error: BaseException) -> str:
    """Return the first line of a failure, without anything that could be a secret."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{type(error).__name__}: {masked(text)[:300]}"


def masked(text: str) -> str:
    """Return a text without anything that could be a secret."""
    for name in _TOKENS:
        token = os.environ.get(name, "").strip()
        text = text.replace(token, "***") if len(token) > 5 else text
    return _SECRET.sub("***", text)


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


def bare(endpoint: str) -> str:
    """Return an address without the login in it."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


# ------------------------------------------------------------------------------------------ the library


class _Relay(logging.Handler):
    """Passes what the library logs on to our log, masked."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one line on."""
        text = (record.getMessage().strip() or record.name).splitlines()[0]
        log.warning("hub: %s", masked(text)[:300])


@contextlib.contextmanager
def _hushed(library: Any) -> Iterator[None]:
    """Keep the library's bars and its own log lines off the terminal, and its waits bounded."""
    _bound(library)
    utils = library.utils
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.level, logger.propagate, logger.handlers) for logger in loggers]
    bars = not utils.are_progress_bars_disabled()
    if bars:
        utils.disable_progress_bars()
    for logger in loggers:
        logger.handlers = [_Relay()] if logger.name == _LOGGERS[0] else []
        logger.propagate = logger.name != _LOGGERS[0]
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            yield
        for warning in noted:
            if not issubclass(warning.category, DeprecationWarning):  # between that library and its own
                log.warning("hub: %s", masked(" ".join(str(warning.message).split()))[:300])
    finally:
        for logger, (level, propagate, handlers) in zip(loggers, before):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        if bars:
            utils.enable_progress_bars()


def _bound(library: Any) -> None:
    """Let the library's connections break after a long silence and its pauses stay short, where it has such a client."""
    refusals: tuple[type[Exception], ...] = (ImportError, ValueError, *_bad_addresses())
    try:
        client = library.utils.get_session()
    except refusals as error:
        raise UsageError(
            f"no connection can be made with the proxy that the environment names (http_proxy, https_proxy, all_proxy): "
            f"{plain(error)}"
        ) from error
    hooks = getattr(client, "event_hooks", None)
    if not isinstance(hooks, dict):
        return
    client.timeout = SILENCE
    if _shorten_pause not in hooks.get("response", []):
        client.event_hooks = {**hooks, "response": [*hooks.get("response", []), _shorten_pause]}


def _bad_addresses() -> tuple[type[Exception], ...]:
    """Return what the library's clients raise on an address that is none."""
    modules = (sys.modules.get(name) for name in ("httpx", "httpx2"))
    return tuple(module.InvalidURL for module in modules if module is not None)


def _shorten_pause(response: Any) -> None:
    """Cut the pause that an answer asks for to the longest that we wait."""
    stated = response.headers.get("Retry-After", "").strip()
    if stated.isdigit() and float(stated) > LONGEST_WAIT:
        response.headers["Retry-After"] = str(int(LONGEST_WAIT))
    limit = response.headers.get("ratelimit", "")
    if any(float(seconds) > LONGEST_WAIT for _, seconds in _LIMIT.findall(limit)):
        response.headers["ratelimit"] = _LIMIT.sub(rf"\g<1>{int(LONGEST_WAIT)}", limit)
