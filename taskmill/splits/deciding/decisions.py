"""Decisions about overlapping pairs: what people decided on present evidence, and the rules that decide the clear pairs.

- A pair must be decided when its `hit_fraction` or its share of short equal examples is above the threshold, or when
  the train task is made from the data set of a held-out or partial evaluation task.
- A person's decision on the pair's present evidence wins; one on other evidence makes the pair undecided again;
  otherwise the first rule that fits decides, above the threshold or not.
- A run under `limit` sees a part of the examples, so its evidence is never the whole one: there a person's decision
  holds whatever it names. Such a run is for a quick look and cannot be published.
- In a rule, every share of hit examples counts short equal ones as hit too, on both sides: they share everything.
- A pair whose train or evaluation task another decision drops as a whole needs no decision.

Reads rows of `overlaps/pairs` and a recipe's rules; `decision_files` reads and writes what people decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from taskmill.recipe import Rule, When
from taskmill.selectors import first_match

RULE, PERSON = "rule", "person"
STATES = ("undecided", "outdated", "person", "rule", "dropped", "below")
"""What may be said of a pair: it waits for a decision; it was decided on other evidence and waits again; a person or a
rule decided it; it waits for none because another decision drops one of its tasks; or because it is below the threshold."""


@dataclass(frozen=True)
class Decision:
    """What is done about a pair, on which evidence (32 hex digits): a row of decisions.csv."""

    train_task: str
    eval_task: str
    action: str
    evidence: str
    rule: str = ""
    """The rule that decided; on a person's row a note without effect, such as the rule that once decided."""
    by: str = ""
    at: str = ""
    why: str = ""

    @property
    def pair(self) -> tuple[str, str]:
        """The tasks that it is about."""
        return self.train_task, self.eval_task

    @property
    def decider(self) -> str:
        """The rule's name, or `person`."""
        return self.rule if self.by == RULE else PERSON


@dataclass(frozen=True)
class Pair:
    """A row of `overlaps/pairs` with what rules ask about it."""

    train_task: str
    eval_task: str
    level: str
    same_dataset: bool
    num_eval: int
    num_hit: int
    hit_fraction: float
    hit_fraction_rare: float
    num_same_output: int
    num_short_equal: int
    evidence: str
    """32 hex digits."""
    hit_input: float = 0.0
    hit_output: float = 0.0
    num_train_touched: int = 0
    num_train: int = 0
    """Examples of train text that the train task has before any decision."""

    @property
    def tasks(self) -> tuple[str, str]:
        """(train task, evaluation task)."""
        return self.train_task, self.eval_task

    @property
    def short_fraction(self) -> float:
        """Short evaluation examples equal to a train example, over all evaluation examples."""
        return self.num_short_equal / self.num_eval if self.num_eval else 0.0

    @property
    def same_output_fraction(self) -> float:
        """Hit examples with an equal output, over all hit ones; 0 without hits."""
        num = self.num_hit + self.num_short_equal
        return self.num_same_output / num if num else 0.0

    @property
    def touched_fraction(self) -> float:
        """Train examples that share text, over all train text of the task."""
        return self.num_train_touched / self.num_train if self.num_train else 0.0

    @property
    def badness(self) -> tuple[float, str, str]:
        """The key that sorts pairs from the worst."""
        return -self.hit_fraction - self.short_fraction, *self.tasks

    def must_be_decided(self, threshold: float) -> bool:
        """Say whether the pair may not stay without a decision."""
        leaks = self.same_dataset and self.level in ("held_out", "partial")
        return leaks or self.hit_fraction > threshold or self.short_fraction > threshold


def read_pairs(
    rows: Iterable[Mapping[str, Any]], levels: Mapping[str, str], num_train: Mapping[str, int]
) -> list[Pair]:
    """Return the rows of `overlaps/pairs` as pairs.

    Args:
        rows: of the table.
        levels: evaluation task -> level.
        num_train: train task -> its examples of train text; see `membership.train_sizes`.
    """
    elsewhere = ("level", "evidence", "num_train")
    names = [name for name in Pair.__dataclass_fields__ if name not in elsewhere]
    return [
        Pair(
            **{name: row[name] for name in names},
            level=levels[row["eval_task"]],
            evidence=row["evidence"].hex(),
            num_train=num_train.get(row["train_task"], 0),
        )
        for row in rows
    ]


def read_made(rows: Iterable[Mapping[str, Any]]) -> list[Decision]:
    """Return the rows of `splits/decisions`, published or not, as decisions; their figures are left out."""
    names = Decision.__dataclass_fields__
    return [Decision(**{name: row[name] for name in names}) for row in rows]


@dataclass(frozen=True)
class Verdict:
    """What came of all pairs."""

    decisions: list[Decision]
    """Sorted by pair."""
    undecided: list[Pair]
    """The worst first."""
    outdated: frozenset[tuple[str, str]]
    """Undecided pairs that a person decided on other evidence."""

    def states(self, pairs: Iterable[Pair], threshold: float) -> dict[tuple[str, str], str]:
        """Return the state of each pair: one of STATES."""
        found = {d.pair: RULE if d.by == RULE else PERSON for d in self.decisions}
        waiting = {p.tasks: "outdated" if p.tasks in self.outdated else "undecided" for p in self.undecided}
        for pair in pairs:
            if pair.tasks not in found:
                asked = pair.tasks in self.outdated or pair.must_be_decided(threshold)
                found[pair.tasks] = waiting.get(pair.tasks, "dropped" if asked else "below")
        return found


def decide(
    pairs: Sequence[Pair],
    people: Iterable[Decision],
    rules: Sequence[Rule],
    threshold: float,
    limited: bool = False,
    made: Sequence[Decision] = (),
    turn: Callable[[Decision], Decision] | None = None,
) -> Verdict:
    """Decide every pair that a person or a rule decides; see the module's docstring for who wins.

    Args:
        pairs: those to decide.
        people: what people decided.
        rules: the recipe's, in their order.
        threshold: see `Pair.must_be_decided`.
        limited: whether a person's decision holds whatever evidence it names.
        made: decisions about other pairs, which stand.
        turn: what becomes of a rule's decision; by default it stays.
    """
    by_pair = {decision.pair: decision for decision in people}
    decisions, open_pairs, outdated = list(made), list[Pair](), set[tuple[str, str]]()
    for pair in sorted(pairs, key=lambda p: p.tasks):
        person = by_pair.get(pair.tasks)
        if person is not None and (limited or person.evidence == pair.evidence):
            decisions.append(replace(person, by=PERSON if person.by in ("", RULE) else person.by))
            continue
        rule = None if person is not None else first_rule(pair, rules)
        if rule is not None:
            decision = Decision(*pair.tasks, rule.action, pair.evidence, rule.name, RULE, "", rule.why)
            decisions.append(turn(decision) if turn else decision)
        elif person is not None or pair.must_be_decided(threshold):
            open_pairs.append(pair)
            outdated |= {person.pair} if person is not None else set()
    gone_train, gone_eval = dropped_tasks(decisions)
    undecided = [p for p in open_pairs if p.train_task not in gone_train and p.eval_task not in gone_eval]
    undecided.sort(key=lambda p: p.badness)
    decisions.sort(key=lambda d: d.pair)
    return Verdict(decisions, undecided, frozenset(outdated))


def dropped_tasks(decisions: Iterable[Decision]) -> tuple[set[str], set[str]]:
    """Return (train tasks, evaluation tasks) that decisions drop as a whole."""
    decisions = list(decisions)
    train = {d.train_task for d in decisions if d.action == "drop_train_task"}
    return train, {d.eval_task for d in decisions if d.action == "drop_eval_task"}


def first_rule(pair: Pair, rules: Sequence[Rule]) -> Rule | None:
    """Return the first rule that fits a pair: their order is all that ranks them."""
    return next((rule for rule in rules if fits(rule.when, pair)), None)


def fits(when: When, pair: Pair) -> bool:
    """Say whether a pair meets all conditions of a rule."""
    short, same_output = pair.short_fraction, pair.same_output_fraction
    return (
        when.same_dataset in (None, pair.same_dataset)
        and when.same_task in (None, pair.train_task == pair.eval_task)
        and (not when.level or pair.level in when.level)
        and _over(pair.hit_fraction + short, when.hit_fraction_over)
        and _over(pair.hit_fraction_rare + short, when.hit_fraction_rare_over)
        and _at_most(pair.hit_fraction_rare + short, when.hit_fraction_rare_at_most)
        and _over(pair.hit_input + short, when.hit_input_over)
        and _over(pair.hit_output + short, when.hit_output_over)
        and _at_most(pair.num_hit + pair.num_short_equal, when.num_hit_at_most)
        and _over(pair.touched_fraction, when.touched_fraction_over)
        and _over(same_output, when.same_output_fraction_over)
        and _at_most(same_output, when.same_output_fraction_at_most)
        and (not when.train_task or first_match(pair.train_task, when.train_task) is not None)
        and (not when.eval_task or first_match(pair.eval_task, when.eval_task) is not None)
    )


def _over(value: float, limit: float | None) -> bool:
    return limit is None or value > limit


def _at_most(value: float, limit: float | None) -> bool:
    return limit is None or value <= limit


def figures_of(pair: Pair) -> dict[str, float | int]:
    """Return the figures that are written beside a decision."""
    names = ("hit_fraction", "hit_fraction_rare", "num_hit", "num_same_output", "num_train_touched")
    return {name: getattr(pair, name) for name in names}


def describe(pair: Pair) -> str:
    """Return the figures of a pair in words."""
    notes = [
        f"{pair.hit_fraction:.2%} of {pair.num_eval:,} examples share text",
        f"{pair.hit_fraction_rare:.2%} without frequent text",
        f"{pair.num_same_output:,} with an equal output",
        f"{pair.num_train_touched:,} of {pair.num_train:,} train examples touched",
    ]
    notes += [f"{pair.num_short_equal:,} short ones equal"] if pair.num_short_equal else []
    notes += ["same data set"] if pair.same_dataset else []
    return ", ".join(notes)
