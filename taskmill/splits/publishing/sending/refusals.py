"""What it means when the Hub does not take what is sent, and what helps; nothing in it that could be a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from taskmill.errors import DataError, StorageError, TaskmillError, UsageError
from taskmill.hub_client import ATTEMPTS, LOG_IN, NO_ANSWER, Hub, bare, masked, plain, source, status_of


class ConflictError(DataError):
    """Something there has changed since it was looked at, or is there already."""


def explainer(hub: Hub) -> Callable[[BaseException, str], TaskmillError | None]:
    """Return what says of a failure while writing what it means and what helps; None for those of reading."""

    def explain(error: BaseException, what: str) -> TaskmillError | None:
        cause = source(error)
        status, said = status_of(cause), _said(cause)
        owner = hub.repository.split("/")[0]
        if status == 401 or type(cause).__name__ == "XetAuthenticationError":
            return DataError(
                f"the Hub does not accept this login for {hub.repository} (HTTP {status or 401}{said}): {LOG_IN}, with a token "
                "that may write"
            )
        if status == 403:
            return DataError(
                f"this login may not write to {hub.repository} (HTTP 403{said}): use a token that may write to {owner}'s "
                "repositories, or publish under another OWNER/NAME"
            )
        if status in (409, 412):
            return ConflictError(f"{what} of {hub.repository}: HTTP {status}{said}")
        if status == 404:
            return None
        again = "run the same command again: what was sent is not sent again"
        if status is not None and status < 500 and status not in (408, 429):
            return DataError(
                f"the Hub refuses {what} of {hub.repository} (HTTP {status}{said}){_where(error)}; {again}"
            )
        if status is not None:
            return StorageError(
                f"the Hub answered HTTP {status} to {ATTEMPTS} requests for {what} of {hub.repository}{_where(error)}; {again}"
            )
        if isinstance(cause, hub.library.errors.HFValidationError):
            return UsageError(f"{hub.repository!r} is no name of a data set on the Hub: {plain(cause)}")
        if isinstance(cause, ValueError) and not isinstance(cause, json.JSONDecodeError):
            return DataError(
                f"the Hub refuses {what} of {hub.repository}: {masked(' '.join(str(cause).split()))[:500]}; {again}"
            )
        if isinstance(cause, (*NO_ANSWER, json.JSONDecodeError)):
            return None
        hint = (
            "; HF_HUB_DISABLE_XET=1 helps where a Hub has no xet storage"
            if "xet" in str(cause).lower()
            else ""
        )
        return StorageError(
            f"{what} of {hub.repository} could not be sent to {bare(hub.endpoint)}: {plain(cause)}{_where(error)}; {again}{hint}"
        )

    return explain


def _said(error: BaseException) -> str:
    """Return what the Hub said, to stand behind the status."""
    text = getattr(error, "server_message", None)
    return f": {masked(' '.join(text.split()))[:200]}" if isinstance(text, str) and text.strip() else ""


def _where(error: BaseException) -> str:
    """Return which file it was, where the library says so."""
    found = re.search(r"uploading '([^']+)'", str(error))
    return f", at {found[1]}" if found is not None else ""
