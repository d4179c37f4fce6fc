"""One watchdog for the workers of a stage: what each is doing, for how long, and how much memory it holds.

A worker publishes what it does into shared memory, a few bytes and no system call. The parent looks at it ten times a second,
and ends a worker that stays with one thing for too long or holds too much memory: even one that is stuck in compiled code,
where no exception reaches. Such limits stop a stage; they never change a row. Reads `/proc/<pid>/statm` where the system
has it (elsewhere memory is not limited); writes nothing.
"""

from __future__ import annotations

import os
import signal
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskmill.errors import LimitError

SLOT = 512
"""Bytes per worker: process, beat, length of the text, text."""
_HEAD = struct.Struct("QQQ")
_ROOM = SLOT - _HEAD.size
_INTERVAL = 0.1
"""Seconds between two looks."""
_KEPT = "what was finished is kept"


@dataclass(frozen=True)
class Watch:
    """The limits of a worker."""

    seconds: float
    """Longest time with one thing, by the clock on the wall."""
    megabytes: int
    """Most memory that a worker may hold while it is at one."""
    advice: str = ""
    """What the user can do about a thing that goes beyond."""


class Activity:
    """What this worker is doing: the writing side."""

    def __init__(self) -> None:
        """Publish to nobody; `join` names a board."""
        self.watched = False
        self._head: Any = None
        self._text: Any = None
        self._beat = 0

    def join(self, board: Any, number: int) -> None:
        """Publish to slot `number` of a board from now on."""
        slot = memoryview(board).cast("B")[number * SLOT : (number + 1) * SLOT]
        self._head, self._text = slot[: _HEAD.size].cast("Q"), slot[_HEAD.size :]
        self._head[0], self.watched = os.getpid(), True
        self.rest()

    def begin(self, what: str) -> None:
        """Say that this worker begins with `what`."""
        head = self._head
        if head is not None:
            text = what.encode("utf-8", "replace")
            size = len(text)
            if size > _ROOM:
                text, size = text[:_ROOM], _ROOM
            self._text[:size] = text
            head[2] = size
            self._beat = head[1] = self._beat + 1

    def rest(self) -> None:
        """Say that this worker is at nothing that is watched."""
        if self._head is not None:
            self._head[2] = 0
            self._beat = self._head[1] = self._beat + 1


activity = Activity()
"""This process's own."""


class Watchdog:
    """Looks at a board until it is stopped: the reading side."""

    def __init__(self, watch: Watch, board: Any) -> None:
        """Watch the workers of `board`, shared memory of SLOT bytes each."""
        self._watch, self._board = watch, memoryview(board).cast("B")
        self._since: dict[int, tuple[int, float]] = {}
        self._done = threading.Event()
        self.error: LimitError | None = None
        """Why a worker was ended."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._done.set()
        self._thread.join()

    def doing(self) -> list[str]:
        """Return what the workers were at when they were last seen."""
        slots = (self._read(number) for number in range(len(self._board) // SLOT))
        return [what for _, _, what in slots if what]

    def _read(self, number: int) -> tuple[int, int, str]:
        slot = self._board[number * SLOT : (number + 1) * SLOT]
        pid, beat, size = _HEAD.unpack_from(slot)
        return pid, beat, bytes(slot[_HEAD.size : _HEAD.size + size]).decode("utf-8", "replace")

    def _run(self) -> None:
        while not self._done.wait(_INTERVAL) and self.error is None:
            for number in range(len(self._board) // SLOT):
                pid, beat, what = self._read(number)
                if pid and what and self.error is None:
                    problem = self._problem(number, pid, beat)
                    if problem is not None and self._read(number)[:2] == (pid, beat):
                        advice = f". {self._watch.advice}" if self._watch.advice else ""
                        self.error = LimitError(f"{what}: {problem}; the worker was ended, {_KEPT}{advice}")
                        os.kill(pid, signal.SIGKILL)

    def _problem(self, number: int, pid: int, beat: int) -> str | None:
        now = time.monotonic()
        if self._since.get(number, (None, 0.0))[0] != beat:
            self._since[number] = (beat, now)
        if now - self._since[number][1] > self._watch.seconds:
            return f"took longer than {self._watch.seconds:g} seconds"
        held = resident_megabytes(pid)
        if held > self._watch.megabytes:
            return f"made the worker hold more than {self._watch.megabytes} MB of memory"
        return None


def resident_megabytes(pid: int) -> int:
    """Return the memory that a process holds, in MB of 2**20 bytes; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20
