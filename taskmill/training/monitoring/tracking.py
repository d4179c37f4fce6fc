"""Training curves in TensorBoard or trackio, beside metrics.jsonl, which is always written.

    trackers = open_trackers(("tensorboard",), run / "tracking", "demo", {"learning_rate": 5e-5}, first_step=0)
    trackers.log({"loss": 2.31, "learning_rate": 5e-5}, step=1)

Writes below the folder it is given, `tensorboard/` (event files) and `trackio/` (a database): local files, no network, no
server. They are no part of the train stage: no digest covers them. A training that starts anew clears them; one that goes on
takes away what lies behind the checkpoint it goes on from. A tracker that fails is dropped with one warning.
"""

from __future__ import annotations

import importlib
import logging
import math
import shutil
import sqlite3
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from taskmill.errors import MissingPackageError, UsageError, did_you_mean

log = logging.getLogger("taskmill")

FLUSH_SECONDS = 5.0
"""Longest time that values wait to be written."""
FAILURES = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, ImportError, LookupError),
    *(OSError, RuntimeError, TypeError, ValueError, sqlite3.Error),
)
"""How a tracker can fail: whatever it is, a training is worth more than its curves."""


class Tracker(Protocol):
    """Where values go."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take in the values of a step."""

    def flush(self) -> None:
        """Write everything that was taken in."""

    def close(self) -> None:
        """Write everything and let go of files."""


class Trackers:
    """The trackers of one training; one that fails is dropped with a warning, and training goes on."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        """Take trackers by name."""
        self._trackers, self._flushed = dict(trackers), time.monotonic()

    @property
    def names(self) -> tuple[str, ...]:
        """Those that still take values."""
        return tuple(self._trackers)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Give the values of a step, counted from 1, to every tracker."""
        self._each(lambda tracker: tracker.log(values, step))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was given so far; to be called before a checkpoint is saved, so that it is behind none."""
        self._each(lambda tracker: tracker.flush())
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Write everything; nothing can be given after."""
        self._each(lambda tracker: tracker.close())
        self._trackers.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except FAILURES as error:
                del self._trackers[name]
                log.warning("train: %s failed and is left out from here on: %s", name, _reason(error))


def open_trackers(
    names: Sequence[str], directory: Path, run_name: str, config: Mapping[str, Any], first_step: int = 0
) -> Trackers:
    """Open trackers by name, `tensorboard` or `trackio`.

    Args:
        names: none is fine.
        directory: what lies below it belongs to the trackers; `RUN/tracking`.
        run_name: what the training is called in them.
        config: settings shown beside the curves.
        first_step: updates that the checkpoint holds from which the training goes on; later values are taken away.

    Raises:
        UsageError: no tracker has that name.
        MissingPackageError: its package is absent.
    """
    opened: dict[str, Tracker] = {}
    for name in dict.fromkeys(names):
        if name not in TRACKERS:
            hint = did_you_mean(name, TRACKERS) or f"; expected one of {', '.join(TRACKERS)}"
            raise UsageError(f"there is no tracker {name!r}{hint}")
        package, make = TRACKERS[name]
        folder = directory / name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if first_step == 0:
                    shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True, exist_ok=True)
                opened[name] = make(folder, run_name, config, first_step)
        except ImportError as error:
            raise MissingPackageError(package, "track", f"tracking with {name}") from error
        except FAILURES as error:
            log.warning("train: %s cannot be opened and is left out: %s", name, _reason(error))
    return Trackers(opened)


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# -------------------------------------------------------------------------------------- tensorboard


class _TensorBoard:
    """Event files; steps behind the checkpoint are marked as purged, which readers of event files heed."""

    def __init__(self, folder: Path, run_name: str, config: Mapping[str, Any], first_step: int) -> None:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        purge = first_step + 1 if first_step else None
        _await_next_second(folder)
        self._writer = writer(str(folder / run_name), purge_step=purge)
        if not first_step:
            rows = "".join(f"| {key} | {value} |\n" for key, value in sorted(config.items()))
            self._writer.add_text("settings", f"| setting | value |\n| --- | --- |\n{rows}", 0)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _await_next_second(folder: Path) -> None:
    """Wait until the clock is past the last event file: readers take files in the order of the seconds in their names."""
    newest = max((path.stat().st_mtime for path in folder.rglob("*tfevents*")), default=0.0)
    left = math.floor(newest) + 1 - time.time()
    if 0 < left <= 1:
        time.sleep(left)


# ------------------------------------------------------------------------------------------ trackio


class _Trackio:
    """trackio's own database in our folder, written without its server, its threads and its lines on stdout."""

    def __init__(self, folder: Path, run_name: str, config: Mapping[str, Any], first_step: int) -> None:
        storage: Any = importlib.import_module("trackio.sqlite_storage")
        paths: Any = importlib.import_module("trackio.utils")
        storage.TRACKIO_DIR = paths.TRACKIO_DIR = folder.absolute()
        self._storage, self._run = storage.SQLiteStorage, run_name
        self._config: dict[str, Any] | None = dict(config)
        self._pending: list[tuple[dict[str, float], int, str]] = []
        if first_step:
            self._forget_after(first_step)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._pending.append((dict(values), step, datetime.now(UTC).isoformat()))

    def flush(self) -> None:
        if self._pending:
            values, steps, times = (list(column) for column in zip(*self._pending))
            self._storage.bulk_log(self._run, self._run, values, steps, times, self._config)
            self._pending, self._config = [], None

    def close(self) -> None:
        self.flush()

    def _forget_after(self, step: int) -> None:
        kept = [row for row in self._storage.get_logs(self._run, self._run) if row["step"] <= step]
        self._storage.delete_run(self._run, self._run)
        for row in kept:
            values = {key: value for key, value in row.items() if key not in ("step", "timestamp")}
            self._pending.append((values, row["step"], row["timestamp"]))
        self.flush()


TRACKERS: dict[str, tuple[str, Callable[[Path, str, Mapping[str, Any], int], Tracker]]] = {
    "tensorboard": ("tensorboard", _TensorBoard),
    "trackio": ("trackio", _Trackio),
}
"""Package and maker of each tracker."""
