"""Progress of stages on stderr, and what each came to as one line. Reads and writes nothing else."""

from __future__ import annotations

import logging
import sys

from taskmill.commands.figures import counted, visible, words
from taskmill.stages import Outcome


class _Visible(logging.Formatter):
    """Shows control characters of names as signs."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line."""
        return visible(super().format(record))


def show_progress(level: int = logging.INFO) -> None:
    """Send what the package says from `level` on to stderr, with the time of day."""
    logger = logging.getLogger("taskmill")
    logger.handlers.clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Visible("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(level)


def outcome_line(outcome: Outcome) -> str:
    """Return one line: stage, status, counts with their names, drops by reason."""
    body = outcome.to_json()
    counts = ", ".join(counted(v, k) for k, v in sorted(body["counts"].items()) if v)
    dropped = ", ".join(f"{v:,} {words(k)}" for k, v in sorted(body["dropped"].items()) if v)
    line = f"{outcome.stage:<9} {outcome.status:<10}"
    if outcome.detail:
        return visible(f"{line} {outcome.detail}")
    if counts:
        line += f" {counts}"
    if dropped:
        line += f" | dropped: {dropped}"
    return visible(line.rstrip())
