"""What a running training says of itself: one live line on a terminal, lines in the log elsewhere.

Writes to stderr. On a terminal the line is drawn anew at most eight times a second, no wider than the terminal; what there is no
room for is left out from the right. Lines of the log push it down. Elsewhere a line goes to the log at the first update, the
last, and every 15 seconds. With `--quiet` there is nothing.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

log = logging.getLogger("taskmill")

LOG_SECONDS = 15.0
DRAW_SECONDS = 0.125
WINDOW = 20
"""Updates over which speed and remaining time are taken."""
BAR = 16


class Progress:
    """Shows updates as they are done."""

    def __init__(
        self,
        num_steps: int,
        first_step: int = 0,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin behind `first_step` of `num_steps` updates; `stream` is stderr by default, `now` a clock in seconds."""
        self._num_steps, self._first_step, self._step = num_steps, first_step, first_step
        self._stream = sys.stderr if stream is None else stream
        self._recent: deque[tuple[int, float]] = deque(maxlen=WINDOW)
        self._loss, self._losses = 0.0, dict[str, float]()
        self._mfu: float | None = None
        self._now = now
        self._last = self._logged = now()
        self._quiet = not log.isEnabledFor(logging.INFO)
        self._live = None if self._quiet or not _is_terminal(self._stream) else _LiveLine(self._stream)

    def show(self, line: Mapping[str, Any], mfu: float | None = None) -> None:
        """Take in the line of an update, as in metrics.jsonl, and the present MFU (a share of 1) where it is known."""
        now = self._now()
        self._recent.append((line["num_tokens"], now - self._last))
        self._last, self._step, self._loss, self._mfu = now, line["step"], line["loss"], mfu
        if self._live is not None:
            self._draw(force=self._step == self._num_steps)
        elif self._step in (self._first_step + 1, self._num_steps) or now - self._logged >= LOG_SECONDS:
            self._logged = now
            log.info("train: %s", ", ".join(self._parts()))

    def validation(self, losses: Mapping[str, float]) -> None:
        """Take in the loss by level; its time counts as no update's."""
        self._losses, self._last = dict(losses), self._now()
        if losses:
            log.info("train: validation after update %d: %s", self._step, _by_level(losses))
            self._draw(force=True)

    def pause(self) -> None:
        """Say that the time until now belongs to no update (a checkpoint was saved)."""
        self._last = self._now()

    def close(self) -> None:
        """Leave the last line where it is and the terminal as it was."""
        if self._live is not None:
            self._live.close()
            self._live = None

    def _draw(self, force: bool) -> None:
        if self._live is not None and self._recent:
            self._live.draw(self._parts(), self._step / self._num_steps, self._last, force)

    def _parts(self) -> list[str]:
        tokens, seconds = sum(n for n, _ in self._recent), sum(s for _, s in self._recent)
        left = (self._num_steps - self._step) * seconds / len(self._recent)
        parts = [f"update {self._step} of {self._num_steps}", f"loss {self._loss:.4f}"]
        parts.append(f"{tokens / max(seconds, 1e-9):,.0f} tokens/s")
        parts += [] if self._mfu is None else [f"MFU {100 * self._mfu:.1f} %"]
        parts += [f"ETA {clock(left)}"] if self._step < self._num_steps else []
        return parts + ([f"validation {_by_level(self._losses)}"] if self._losses and self._live else [])


def clock(seconds: float) -> str:
    """Return a remaining time: 0:07, 12:30, 5:04:10, 2 d 03:00."""
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if days:
        return f"{days} d {hours % 24:02}:{minutes % 60:02}"
    return f"{hours}:{minutes % 60:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _by_level(losses: Mapping[str, float]) -> str:
    return ", ".join(f"{level} {loss:.4f}" for level, loss in losses.items())


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def _columns(stream: TextIO) -> int:
    """Return the present width of a terminal."""
    try:
        return max(1, os.get_terminal_size(stream.fileno()).columns)
    except OSError:
        return max(1, shutil.get_terminal_size().columns)


# ---------------------------------------------------------------------------------------- live line


class _LiveLine:
    """One line at the bottom of a terminal, which lines of the log push down."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console = Console(file=stream, force_terminal=True, highlight=False, markup=False, emoji=False)
        self._shown, self._drawn = "", 0.0
        self._guard = _Guard(self)
        log.handlers.insert(0, self._guard)

    def draw(self, parts: Sequence[str], done: float, now: float, force: bool = False) -> None:
        """Draw the line anew, unless it was just drawn; `now` is in seconds."""
        if force or now - self._drawn >= DRAW_SECONDS or not self._shown:
            text = fit(parts, done, _columns(self._stream) - 1, self._console.encoding.startswith("utf"))
            self._write(self._erasing() + self._styled(text))
            self._shown, self._drawn = text.plain, now

    def erase(self) -> None:
        """Make room for a line of the log."""
        if self._shown:
            self._write(self._erasing())
            self._shown = ""

    def close(self) -> None:
        """Leave the line where it is."""
        log.removeHandler(self._guard)
        if self._shown:
            self._write("\n")
            self._shown = ""

    def _erasing(self) -> str:
        """Return the codes that erase what was drawn: more rows than one where the terminal has become narrower."""
        rows = max(1, -(-len(self._shown) // _columns(self._stream)))
        return f"\r\x1b[{rows - 1}A\x1b[J" if rows > 1 else "\r\x1b[2K"

    def _styled(self, text: Text) -> str:
        with self._console.capture() as capture:
            self._console.print(text, end="", soft_wrap=True)
        return capture.get()

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _Guard(logging.Handler):
    """Stands before the log's own handler and takes the live line away."""

    def __init__(self, line: _LiveLine) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        """Erase the line; the next update draws it again."""
        self._line.erase()


def fit(parts: Sequence[str], done: float, width: int, drawn: bool = True) -> Text:
    """Return as much of the line as `width` has room for: parts from the left, before them a bar of what is `done`."""
    text = Text(no_wrap=True, end="")
    for place, part in enumerate(parts):
        gap = "  " if place else ""
        if len(text) + len(gap) + len(part) > width:
            break
        text.append(gap + part, style="bold" if place == 0 else "")
    if not text:
        text.append(parts[0][: max(0, width)], style="bold")
    if len(text) + BAR + 2 <= width:
        full = round(BAR * min(1.0, max(0.0, done)))
        bars = "━━" if drawn else "#-"
        text = Text.assemble((bars[0] * full, "green"), (bars[1] * (BAR - full), "dim"), "  ", text, end="")
    return text
