"""Bring a run's stage split up to date from within a review. Reads and writes what `taskmill split RUN` does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from taskmill import recipe_files
from taskmill.engine import default_workers
from taskmill.errors import TaskmillError
from taskmill.runs import RunLock
from taskmill.stages import Outcome, Walk


@dataclass(frozen=True)
class SplitOutcome:
    """What came of bringing the split up to date."""

    ok: bool
    status: str
    """`built`, `up to date` or `failed`."""
    message: str
    """Of the error; empty when all is well."""
    exit_code: int
    """What the command line would have ended with: 0, 1, 2, or 3 where pairs wait."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """num_train, num_test, num_tasks_held_out, num_decisions, num_unclean ...: counts of the stage's manifest."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> excluded examples."""
    seconds: float = 0.0


def bring_up_to_date(run: Path) -> SplitOutcome:
    """Build the stage split where it is not finished with the present decisions; an error is part of the outcome."""
    started = time.monotonic()
    try:
        found = _build(run)
    except TaskmillError as error:
        return SplitOutcome(False, "failed", str(error), error.exit_code, seconds=time.monotonic() - started)
    assert found.manifest is not None, found
    counts, dropped = found.manifest.counts, found.manifest.dropped
    return SplitOutcome(True, found.status, "", 0, counts, dropped, time.monotonic() - started)


def _build(run: Path) -> Outcome:
    walker = Walk(recipe_files.from_json(run), run, default_workers(), force=True)
    with RunLock(run):
        seen = walker.look("split")
        if seen.status == "up to date":
            return seen
        built = walker.build("split")
        walker.record_recipe()
        return built
