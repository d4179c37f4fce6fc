"""Decisions and members of a benchmark that a recipe extends: they hold, and only pairs with an added task are decided.

- A pair of two old tasks has the decision that it had there, a rule's or a person's, or none where it had none.
- A rule's decision about a new pair that would take old examples out is turned to the other side, and its reason says so.
  A person's is refused: which side loses is theirs to say.
- Old examples stand where they stood there. Added evaluation text that an old train example equals, or nearly equals where
  `split.near_duplicates` drops anything, is taken out (reason `duplicate` or `near_duplicate`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from taskmill.errors import UsageError
from taskmill.records import ACTIONS
from taskmill.splits.deciding.decisions import Decision
from taskmill.splits.deciding.membership import Members, NearDuplicates
from taskmill.splits.sharing.examples import EVALUATION_TEXT, TRAIN_TEXT

Tasks = tuple[str, str]
"""(train task, evaluation task)"""


@dataclass(frozen=True)
class PinnedDecisions:
    """What was decided in the extended benchmark; empty where nothing is extended."""

    tasks: frozenset[str] = frozenset()
    by_pair: Mapping[Tasks, Decision] = field(default_factory=dict)

    @property
    def made(self) -> list[Decision]:
        """The decisions that stand."""
        return list(self.by_pair.values())

    def has(self, pair: Tasks) -> bool:
        """Say whether both tasks of a pair are old, so that nothing is left to decide."""
        return self.tasks.issuperset(pair)

    def open_actions(self, pair: Tasks) -> tuple[str, ...]:
        """Return the actions that take no old example out; none about a pair of two old tasks."""
        if self.has(pair):
            return ()
        moving = [
            f"drop_{side}_" for side, task in zip(("train", "eval"), pair, strict=True) if task in self.tasks
        ]
        return tuple(action for action in ACTIONS if not action.startswith(tuple(moving)))

    def turn(self, decision: Decision) -> Decision:
        """Return a rule's decision about a new pair, turned to the other side where it would take old examples out."""
        if decision.action in self.open_actions(decision.pair):
            return decision
        _, side, what = decision.action.split("_")
        other, old = ("eval", decision.train_task) if side == "train" else ("train", decision.eval_task)
        why = (
            f"{decision.why}; the {other} side goes, since {old!r} is of the benchmark that this one extends"
        )
        return replace(decision, action=f"drop_{other}_{what}", why=why.removeprefix("; "))

    def refuse(self, people: Iterable[Decision], evidence: Mapping[Tasks, str], run: object) -> None:
        """Refuse what people decided that would take old examples out, or that is decided otherwise already.

        Args:
            people: their decisions.
            evidence: pair -> its present evidence; a decision about other evidence decides nothing.
            run: the run, for the commands that help.

        Raises:
            UsageError: naming every such decision and the actions that are open.
        """
        problems = [self._problem(d, run) for d in people if evidence.get(d.pair) == d.evidence]
        found = [problem for problem in problems if problem]
        if found:
            more = [f"and {len(found) - 20} more"] if len(found) > 20 else []
            raise UsageError("\n".join([*found[:20], *more]))

    def _problem(self, decision: Decision, run: object) -> str | None:
        pair, actions = " -> ".join(decision.pair), self.open_actions(decision.pair)
        before = self.by_pair.get(decision.pair)
        if decision.action in actions or (before is not None and before.action == decision.action):
            return None
        where = f"{decision.action} on {pair}"
        if self.has(decision.pair):
            held = f"was decided there ({before.action})" if before else "was left without a decision there"
            return (
                f"{where}: both tasks are of the benchmark that this one extends, and the pair {held}, which holds; "
                f"nothing is left to decide (a row of {run}/decisions.csv that says otherwise can go)"
            )
        return (
            f"{where} would move examples of the benchmark that this one extends; open are {', '.join(actions)}: "
            f"taskmill decisions set {run} {decision.train_task} {decision.eval_task} ACTION"
        )


def yield_to_pinned(members: Members, near: NearDuplicates, mode: str) -> None:
    """Take out added evaluation text that a pinned train example equals, or nearly equals where `mode` is not `keep`."""
    side = members.side
    kept, added = members.pinned & (side == TRAIN_TEXT), ~members.pinned & (side == EVALUATION_TEXT)
    if not kept.any():
        return
    content = members.content.view("V32")[:, 0]
    copies = np.flatnonzero(added)
    members.exclude(copies[np.isin(content[copies], content[kept])], "duplicate")
    if mode != "keep":
        number, cluster = near.named()
        beside = np.isin(cluster, cluster[kept[number]])
        members.exclude(number[beside & added[number]], "near_duplicate")
