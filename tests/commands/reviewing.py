"""What the tests of the review's state share: views, its rows, and what its files come to."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from review_run import make_review_run

from taskmill.commands.decisions import open_desk
from taskmill.commands.review.deciding.state import PairRow, Review, View
from taskmill.splits.deciding.decisions import Verdict

WAITING = ("undecided", "outdated")
OPEN = View(states=WAITING)
EVERYTHING = View()


def rows(review: Review, view: View = EVERYTHING, group: tuple[str, str] | None = None) -> list[PairRow]:
    return review.pairs(view, group, 0, 10**6)[0]


def waiting(review: Review, count: int) -> tuple[tuple[str, str], ...]:
    """Pairs that wait, the worst first."""
    return tuple(row.pair.tasks for row in rows(review, OPEN)[:count])


def lines(run: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Pair -> its row in decisions.csv."""
    with (run / "decisions.csv").open(encoding="utf-8", newline="") as file:
        return {(row["train_task"], row["eval_task"]): row for row in csv.DictReader(file)}


def expected(run: Path) -> tuple[Verdict, dict[tuple[str, str], str]]:
    """What the run's own files come to, worked out from nothing."""
    desk = open_desk(run)
    verdict = desk.verdict(desk.people.values())
    return verdict, desk.states(verdict)


def check(review: Review) -> None:
    """What is shown is what the files say."""
    verdict, states = expected(review.run)
    assert {row.pair.tasks: row.state for row in rows(review)} == states
    assert [
        row.decision for row in sorted(rows(review), key=lambda r: r.pair.tasks) if row.decision
    ] == verdict.decisions
    assert review.progress().num_waiting == len(verdict.undecided)


_RUNS: dict[str, Path] = {}


def shared_run(factory: pytest.TempPathFactory) -> Path:
    if "run" not in _RUNS:
        _RUNS["run"] = make_review_run(factory.mktemp("board"), 24)
    return _RUNS["run"]
