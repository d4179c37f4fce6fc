"""Bring decisions together: rows of other files that still hold for a run, and what several people agree on.

Works on rows as `decision_files` reads them. A row holds when the pair's present evidence is the one that it names; two
rows agree when their action is the same. Nothing here looks at rules: these are people's decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from taskmill.errors import did_you_mean
from taskmill.splits.deciding.decision_files import Placed, last_rows
from taskmill.splits.deciding.decisions import Decision

NEWEST = "newest"
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Refused:
    """A row that says nothing about the run as it is."""

    row: Placed
    why: str


@dataclass(frozen=True)
class Conflict:
    """Rows on the same evidence of one pair that say different things, each with the name of its file."""

    rows: tuple[tuple[str, Placed], ...]

    @property
    def pair(self) -> tuple[str, str]:
        """The tasks that they are about."""
        return self.rows[0][1].decision.pair


def holding(
    rows: Iterable[Placed], present: Mapping[tuple[str, str], str], tasks: Iterable[str], limited: bool
) -> tuple[list[Placed], list[Refused]]:
    """Divide a file's rows into those that hold and those that do not; of rows about one pair only the last counts.

    Args:
        rows: of one file.
        present: pair -> its present evidence.
        tasks: every task of the run.
        limited: whether the run sees a part of the examples, where a decision holds on any evidence.
    """
    known, held, refused = set(tasks), list[Placed](), list[Refused]()
    for row in last_rows(rows):
        decision, pair = row.decision, row.decision.pair
        strange = [task for task in pair if task not in known]
        evidence = present.get(pair)
        if strange:
            why = f"no task is called {strange[0]!r}{did_you_mean(strange[0], known)}"
        elif evidence is None:
            why = "the two tasks share nothing here"
        elif evidence != decision.evidence and not limited:
            why = f"it judged the evidence {decision.evidence[:8]}, and the present one is {evidence[:8]}"
        else:
            held.append(row)
            continue
        refused.append(Refused(row, why))
    return held, refused


def unite(
    files: Sequence[tuple[str, Sequence[Placed]]], prefer: str | None
) -> tuple[list[Decision], list[Conflict]]:
    """Return what the files say together, sorted by pair, and where they contradict each other.

    Args:
        files: (name, rows that hold) of each; a file has one row a pair.
        prefer: the name of the file that wins, `newest` for the latest `at`, None for neither.
    """
    by_pair: dict[tuple[str, str], list[tuple[str, Placed]]] = {}
    for name, rows in files:
        for row in rows:
            by_pair.setdefault(row.decision.pair, []).append((name, row))
    united, conflicts = list[Decision](), list[Conflict]()
    for _, named in sorted(by_pair.items()):
        chosen = _preferred(named, prefer)
        if len({row.decision.action for _, row in chosen}) > 1:
            conflicts.append(Conflict(tuple(named)))
        else:
            united.append(_joined([row.decision for _, row in chosen]))
    return united, conflicts


def _preferred(named: list[tuple[str, Placed]], prefer: str | None) -> list[tuple[str, Placed]]:
    """Return the rows that count where rows contradict each other; all of them where nothing is preferred."""
    if prefer is None or len({row.decision.action for _, row in named}) == 1:
        return named
    if prefer == NEWEST:
        newest = max(_time(row.decision) for _, row in named)
        return [(name, row) for name, row in named if _time(row.decision) == newest]
    return [(name, row) for name, row in named if name == prefer] or named


def _time(decision: Decision) -> datetime:
    """Return when it was decided; long ago where `at` is no ISO date."""
    try:
        found = datetime.fromisoformat(decision.at)
    except ValueError:
        return _NEVER
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _joined(decisions: Sequence[Decision]) -> Decision:
    """Return one decision for equal ones: everybody's names and reasons, each once, and the latest time."""
    if len(decisions) == 1:
        return decisions[0]
    latest = max(decisions, key=_time)
    return replace(
        latest, by=_once(", ", (d.by for d in decisions)), why=_once("; ", (d.why for d in decisions))
    )


def _once(between: str, texts: Iterable[str]) -> str:
    """Return the parts of texts, each once, so that merging again changes nothing."""
    return between.join(dict.fromkeys(part for text in texts for part in text.split(between) if part))
