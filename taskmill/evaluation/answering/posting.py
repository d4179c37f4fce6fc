"""Posting JSON to a server of a model: bounded patience, and failures as typed errors that say what to do.

The key comes from an environment variable and goes into one header of a request, to the host that the recipe names and
no other: redirects are not followed, and whatever a server says is shown with the key struck out. Proxies are those of
the environment, but for addresses of this machine.
"""

from __future__ import annotations

import email.utils
import functools
import http.client
import ipaddress
import json
import logging
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from taskmill.errors import EndpointError, UsageError, did_you_mean
from taskmill.recipe_evaluate import Endpoint

log = logging.getLogger("taskmill")

FIRST_WAIT = 1.0
"""Seconds before the second attempt; each further wait is twice as long, or what the server asks for."""
LONGEST_WAIT = 120.0
"""Seconds between two attempts, whatever the server asks for."""
BUSY_ATTEMPTS = 8
"""Where the server says that it cannot answer now: about two minutes in all."""
ATTEMPTS = 3
"""Where it is silent, cannot be reached, or breaks off."""
_BUSY = (408, 425, 429, 500, 502, 503, 504, 529)
_MODELS = "/models"
_MOST_BYTES = 2**26
"""Longest answer read: 64 MB."""
_LONGEST_TIMEOUT = 2e6
"""Seconds, some weeks: what sockets of every system take."""
_SECONDS_BETWEEN_WARNINGS = 10.0


class RefusedError(EndpointError):
    """A server that will not answer a request however often it is asked."""

    def __init__(self, text: str, status: int, said: str, code: str) -> None:
        """Take the whole message, the HTTP status, the server's own words and the code it gives them."""
        super().__init__(text)
        self.status, self.said, self.code = status, said, code


class _PassingError(Exception):
    """A failure that another attempt may not meet."""

    def __init__(self, problem: str, attempts: int, wait: float | None = None) -> None:
        super().__init__(problem)
        self.problem, self.attempts, self.wait = problem, attempts, wait


class Server:
    """A server, and the key to it, which is shown nowhere."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connect to nothing yet.

        Raises:
            UsageError: the address is none, or the key cannot be sent.
        """
        self.endpoint, self._parts = endpoint, _address(endpoint.url)
        self._key = _key(endpoint.api_key_variable)
        # As it is, and as it stands in JSON and in addresses: how somebody else may repeat it.
        forms = {self._key, json.dumps(self._key)[1:-1], quote(self._key), quote(self._key, safe="")}
        self._forms = sorted(forms - {""}, key=lambda form: (-len(form), form))
        local = _is_local(self._parts.hostname or "")
        proxies = urllib.request.ProxyHandler({}) if local else urllib.request.ProxyHandler()
        self._opener = urllib.request.build_opener(proxies, _NoRedirects)
        self._warned = 0.0
        if self._key and self._parts.scheme == "http" and not local:
            warn_once(f"the key goes to {self.address('')} unencrypted; https would hide it")

    def __repr__(self) -> str:
        """Show where the server is, without the key."""
        return f"Server({self.address('')!r})"

    def address(self, path: str) -> str:
        """Return the address of a part of the interface, with no login."""
        return self._parts._replace(path=self._parts.path.rstrip("/") + path, fragment="").geturl()

    def post(self, path: str, body: dict[str, Any], stopped: threading.Event) -> Any:
        """Return what the server answers, parsed; ask again where it may help, until `stopped` is set.

        Raises:
            RefusedError: the server refuses the request as such.
            EndpointError: no answer that can be read after several attempts.
        """
        data = json.dumps(body).encode()
        for attempt in range(1, BUSY_ATTEMPTS + 1):
            try:
                return self._once(path, data)
            except _PassingError as error:
                problem, last = error.problem, attempt >= error.attempts
                wait = FIRST_WAIT * 2 ** (attempt - 1) if error.wait is None else error.wait
            if last or stopped.is_set():
                break
            wait = min(wait, LONGEST_WAIT)
            self._warn(f"{problem}; asking again in {wait:.0f} s")
            if stopped.wait(wait):
                break
        raise EndpointError(
            f"{self._named(path)} {problem}, {attempt} times in a row; look whether the server runs and how busy it is "
            "(evaluate.endpoint.num_requests, evaluate.endpoint.timeout_seconds), and run again: what is answered is kept"
        )

    def models(self) -> list[str]:
        """Return the names of the models that the server lists; none where it lists none."""
        try:
            found = self._once(_MODELS, None)
            return sorted(self._plain(str(entry["id"])) for entry in found["data"])
        except (_PassingError, EndpointError, KeyError, TypeError):
            return []

    def _once(self, path: str, data: bytes | None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "taskmill"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.address(path), data, headers)
        seconds = min(self.endpoint.timeout_seconds, _LONGEST_TIMEOUT)
        failure: Exception
        try:
            with self._opener.open(request, timeout=seconds) as response:
                raw = _read(response, time.monotonic() + seconds)
        except urllib.error.HTTPError as error:
            failure = self._status(path, error, time.monotonic() + seconds)
        except (OSError, http.client.HTTPException) as error:
            failure = self._broken(path, error)
        else:
            try:
                return json.loads(raw)
            except (ValueError, RecursionError):
                failure = _PassingError(f"answered no JSON but {self._plain(raw)!r}", ATTEMPTS)
        raise failure

    def _broken(self, path: str, error: Exception) -> Exception:
        """Return what a failure below HTTP means."""
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return EndpointError(
                f"{self._named(path)} shows a certificate that is not trusted here ({reason.verify_message}); "
                "SSL_CERT_FILE names a file of those that are"
            )
        if isinstance(reason, TimeoutError):
            return _PassingError(f"gave no answer in {self.endpoint.timeout_seconds:g} s", ATTEMPTS)
        said = self._plain(str(reason) or type(reason).__name__)
        return _PassingError(f"could not be reached or broke off ({said})", ATTEMPTS)

    def _status(self, path: str, error: urllib.error.HTTPError, deadline: float) -> Exception:
        """Return what an answer with an HTTP status of failure means."""
        with error:
            try:
                raw = _read(error, deadline)
            except (OSError, http.client.HTTPException):
                raw = b""
        said, code = self._said(raw)
        if error.code in _BUSY and code != "insufficient_quota":
            wait = _retry_after(error.headers.get("Retry-After"))
            return _PassingError(
                f"answered HTTP {error.code}{f' ({said})' if said else ''}", BUSY_ATTEMPTS, wait
            )
        text = f"{self._named(path)} answered HTTP {error.code}{f': {said}' if said else ''}; "
        where = self._plain(error.headers.get("Location") or "")
        return RefusedError(text + self._advice(path, error.code, where), error.code, said, code)

    def _advice(self, path: str, status: int, where: str) -> str:
        variable = self.endpoint.api_key_variable
        if status in (401, 403):
            held = "is refused" if self._key else "is not set"
            return (
                f"the key in the environment variable {variable} {held} (evaluate.endpoint.api_key_variable)"
            )
        if status == 404:
            models = self.models() if path != _MODELS else []
            known = ""
            if models and self.endpoint.model not in models:
                known = f"{did_you_mean(self.endpoint.model, models)} (it has {', '.join(models[:10])})"
            return (
                f"look at evaluate.endpoint.model{known}, and at evaluate.endpoint.url, which ends where "
                "/completions or /chat/completions begins, as http://localhost:8000/v1 does"
            )
        if 300 <= status < 400:
            return f"redirects are not followed, so that the key goes nowhere else; it points to {where or 'nowhere'}"
        if status in (402, 429):
            return "the account behind the key has no more credit"
        return (
            "the request is not one that it takes: a prompt and `evaluate.max_new_tokens` may exceed its context, "
            "or evaluate.endpoint.api may be the other one"
        )

    def _said(self, raw: bytes) -> tuple[str, str]:
        """Return what a server says of a failure in its own words, and its code."""
        try:
            error = json.loads(raw)
        except (ValueError, RecursionError):
            return self._plain(raw), ""
        if isinstance(error, dict):
            error = error.get("error", error)
        if not isinstance(error, dict):
            return self._plain(str(error)), ""
        said = error.get("message") or error.get("detail") or ""
        return self._plain(said if isinstance(said, str) else json.dumps(said)), str(error.get("code") or "")

    def shown(self, found: Any) -> str:
        """Return the beginning of an answer, without the key."""
        return self._plain(json.dumps(found))

    def _plain(self, said: str | bytes) -> str:
        """Return the beginning of what somebody else said, in one line and without the key."""
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        for form in self._forms:
            text = text.replace(form, "***")
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return text if len(text) <= 300 else text[:297] + "..."

    def _named(self, path: str) -> str:
        return f"{self.address(path)} (model {self.endpoint.model!r})"

    def _warn(self, text: str) -> None:
        """Log a line, at most one in a while: many requests meet the same trouble."""
        now = time.monotonic()
        if not self._warned or now - self._warned > _SECONDS_BETWEEN_WARNINGS:
            self._warned = now
            log.warning("endpoint: %s %s", self.address(""), text)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to the caller, as failures."""

    def redirect_request(self, *arguments: Any) -> None:
        """Follow nothing."""


def _read(response: Any, deadline: float) -> bytes:
    """Return the body of an answer; `deadline` is by the monotonic clock."""
    parts: list[bytes] = []
    size = 0
    while part := response.read1(2**16):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError
        if size > _MOST_BYTES:
            raise http.client.HTTPException("an answer of more than 64 MB")
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(parts)


def _address(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        sound = sound and url.isascii() and url.isprintable() and " " not in url
        (parts.hostname or "").encode("idna")  # refuses labels that no name may have
    except ValueError:
        sound = False
    if not sound:
        raise UsageError("evaluate.endpoint.url is no address; expected one such as http://localhost:8000/v1")
    if "@" in parts.netloc:
        raise UsageError(
            "evaluate.endpoint.url holds a login, which a recipe should not; take it out and put the key into the "
            "environment variable that evaluate.endpoint.api_key_variable names"
        )
    return parts


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"the environment variable {variable} holds no key: it has characters that none has")
    return key


@functools.cache
def warn_once(text: str) -> None:
    """Log a line about a server, the first time only: every task meets it again."""
    log.warning("endpoint: %s", text)


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _retry_after(stated: str | None) -> float | None:
    """Return the seconds that a server asks to wait for, given as such or as a date."""
    if not stated:
        return None
    try:
        return max(0.0, float(stated))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(stated).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
