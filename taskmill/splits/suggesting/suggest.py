"""Proposals: the decisions of least loss for the pairs that rules and people leave open.

Reads what stands after the decisions made so far, the open pairs and which tasks share a source; returns proposals.

- *Tasks of one source* (one data set, a suspected alias, or SAME_SOURCE of one's examples in the other) cannot stand on both
  sides of a held-out or partial split: one of the two goes. Which ones is the cheapest vertex cover of the graph of such
  pairs, exact: a train task weighs its train examples, an evaluation task its evaluation examples times `weight`.
- *Other pairs* are judged by example: drop the train examples touched, or keep the pair where the outputs have nothing to
  do with each other (UNRELATED) or everything shared is frequent text. What a keep gives away is priced like evaluation
  examples lost. Where an evaluation task costs more train examples than its own hit examples weigh, these go instead.
- Supervised pairs are always judged by example.

One proposal covers what one judgement covers: the pairs of one action and one reason around one family of tasks, all pairs
of a task that goes among them. The number of such families is the least that covers every pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from taskmill.splits.deciding.decisions import Decision, Pair
from taskmill.splits.suggesting.cover import minimum_cover
from taskmill.splits.suggesting.prices import Price, Stock, given_away

SAME_SOURCE = 0.5
"""Share of one task's text that stands in the other, frequent text apart, from which both count as one source."""
FEWEST = 5
"""Examples of each task that must share text for that: a question repeated in one task and quoted once in the other is no
common source, and neither is one of two examples."""
UNRELATED = 0.05
"""Share of hit examples with an equal output, or with shared text in it, up to which outputs are unrelated: some agree
by chance."""
_ROUNDS = 20
BY = "suggestion"
"""Who decided, in decisions.csv."""

REASONS = {
    "same_dataset": "made from one data set",
    "alias": "looks like one data set under two names",
    "contained": "most of one task's text stands in the other",
    "frequent": "everything shared is text that many groups share",
    "unrelated": "shared inputs, unrelated outputs",
    "supervised": "supervised leakage is judged by example",
    "content": "shared text",
    "protected": "both tasks are protected and share no text",
}
Choices = dict[Pair, tuple[str, str]]
"""Pair -> (action, reason)."""


@dataclass(frozen=True)
class Ground:
    """What the choices look at."""

    stock: Stock
    """What stands after the decisions of people and rules."""
    roles: Mapping[str, str]
    families: Mapping[str, str]
    categories: Mapping[str, str]
    ties: Mapping[tuple[str, str], str]
    """(task, task) in both orders -> why both count as one source; see `outlook.ties`."""
    partial: frozenset[str]
    """Tasks evaluated at the level partial: their categories must train something."""
    protected: frozenset[str]
    """Tasks that are never dropped as a whole."""
    weight: int

    def source(self, pair: Pair) -> str | None:
        """Return why both tasks count as one source, or None."""
        if pair.same_dataset:
            return "same_dataset"
        hit = pair.hit_fraction_rare + pair.short_fraction
        most = hit >= SAME_SOURCE or (hit > 0 and pair.touched_fraction >= SAME_SOURCE)
        enough = min(round(hit * pair.num_eval), pair.num_train_touched) >= FEWEST
        return self.ties.get(pair.tasks) or ("contained" if most and enough else None)

    def can_drop_train(self, task: str) -> bool:
        """Say whether a task may leave training: a supervised one may not."""
        return task not in self.protected and self.roles[task] == "train"


@dataclass(frozen=True)
class Proposal:
    """One judgement about some pairs."""

    action: str
    about: str
    """The family of tasks around which the pairs stand."""
    reason: str
    """One of REASONS."""
    pairs: tuple[Pair, ...]
    """The worst first; those of one task that goes stand together."""
    price: Price
    alternatives: tuple[Price, ...]
    """Of the other actions that are open, the cheapest first."""

    @property
    def decisions(self) -> list[Decision]:
        """Return the rows of decisions.csv: one for each task that goes, on its worst pair, or one for each pair."""
        rows: dict[object, Pair] = {}
        for pair in self.pairs:
            end = {"drop_train_task": pair.train_task, "drop_eval_task": pair.eval_task}.get(self.action)
            rows.setdefault(end or pair.tasks, pair)
        why = f"{REASONS[self.reason]}; {in_words(self.price, self.pairs)}"
        return [Decision(*pair.tasks, self.action, pair.evidence, "", BY, "", why) for pair in rows.values()]


# -------------------------------------------------------------------------------------------- choices


def propose(ground: Ground, pairs: Sequence[Pair], rare: frozenset[str] = frozenset()) -> list[Proposal]:
    """Return proposals that decide every pair, the dearest first.

    Args:
        ground: what stands, and which tasks share a source.
        pairs: those that must be decided and are not.
        rare: names of the rules that look at figures without frequent grams.
    """
    choices = _sources(ground, pairs)
    choices |= {pair: _by_example(ground, pair) for pair in pairs if pair not in choices}
    _spare_train(ground, choices)
    for _ in range(_ROUNDS):
        if not _mend(ground, choices, rare):
            break
    found = [_proposal(ground, *group) for group in _grouped(ground, choices)]
    return sorted(found, key=lambda p: (-p.price.total(ground.weight), p.pairs[0].badness, p.action))


def _sources(ground: Ground, pairs: Sequence[Pair]) -> Choices:
    """Return the task that goes for each pair of one source, and for each other pair of a task that goes."""
    stock, edges = ground.stock, list[Pair]()
    for pair in pairs:
        open_ends = ground.can_drop_train(pair.train_task) or pair.eval_task not in ground.protected
        if pair.level != "supervised" and open_ends and ground.source(pair):
            edges.append(pair)
    left = {task: stock.train_of(task) for task in {pair.train_task for pair in edges}}
    right = {task: ground.weight * stock.evaluation_of(task) for task in {pair.eval_task for pair in edges}}
    never = 1 + sum(left.values()) + sum(right.values())
    left |= {task: never for task in left if not ground.can_drop_train(task)}
    right |= {task: never for task in right if task in ground.protected}
    gone_train, gone_eval = map(set, minimum_cover((pair.tasks for pair in edges), left, right))
    choices: Choices = {}
    for pair in pairs:
        reason = ground.source(pair) or "content"
        if pair.train_task in gone_train:
            choices[pair] = "drop_train_task", reason
        elif pair.eval_task in gone_eval:
            choices[pair] = "drop_eval_task", reason
    return choices


def _by_example(ground: Ground, pair: Pair) -> tuple[str, str]:
    """Return the cheaper of keeping a pair, where that may be, and dropping its touched train examples."""
    source = ground.source(pair) if pair.level != "supervised" else None
    if not pair.num_hit + pair.num_short_equal:
        return "keep", "protected" if source else "unrelated"
    if pair.hit_fraction_rare + pair.short_fraction == 0:
        return "keep", "frequent"
    dropped = ground.stock.price("drop_train_examples", [pair]).total(ground.weight)
    kept = ground.stock.price("keep", [pair]).total(ground.weight)
    if not source and kept <= dropped and _unrelated(pair):
        return "keep", "unrelated"
    return "drop_train_examples", source or ("supervised" if pair.level == "supervised" else "content")


def _unrelated(pair: Pair) -> bool:
    """Say whether outputs have nothing to do with each other: they are not equal, and hold no shared text."""
    few = pair.hit_output <= UNRELATED * pair.hit_fraction
    return not pair.num_short_equal and pair.same_output_fraction <= UNRELATED and few


def _spare_train(ground: Ground, choices: Choices) -> None:
    """Drop an evaluation task's hit examples instead of the train examples that they touch, wherever that is cheaper.

    One task after another, the largest saving first; a train example that another pair touches as well is none saved.
    """
    stock = ground.stock
    open_pairs: dict[str, list[Pair]] = {}
    for pair, (action, _) in choices.items():
        if action == "drop_train_examples":
            open_pairs.setdefault(pair.eval_task, []).append(pair)
    touched = {task: stock.touched_by(pairs) for task, pairs in open_pairs.items()}
    times = np.zeros(len(stock.trains), np.int64)
    for rows in touched.values():
        times[rows] += 1
    cost = {task: ground.weight * len(stock.hit_by(pairs)) for task, pairs in open_pairs.items()}
    while touched:
        saved = {task: int((times[rows] == 1).sum()) - cost[task] for task, rows in touched.items()}
        best = max(sorted(saved), key=lambda task: saved[task])
        if saved[best] <= 0:
            return
        times[touched.pop(best)] -= 1
        for pair in open_pairs[best]:
            choices[pair] = "drop_eval_examples", choices[pair][1]


def _mend(ground: Ground, choices: Choices, rare: frozenset[str]) -> bool:
    """Change the choices that leave a level without examples; return whether any was changed."""
    decisions = [Decision(*pair.tasks, action, pair.evidence) for pair, (action, _) in choices.items()]
    after = ground.stock.after(decisions, rare)
    tasks, categories = _untrained(ground, choices, after)
    changes: Choices = {}
    for pair, (action, reason) in choices.items():
        train, evaluation = pair.tasks
        fixed = evaluation in ground.protected
        if action == "drop_eval_examples" and not after.split_of(evaluation, "test"):
            changes[pair] = "drop_train_examples" if fixed else "drop_eval_task", reason
        elif action == "drop_train_examples" and _lacks_train(ground, train, after):
            whole = train == evaluation and not fixed
            changes[pair] = "drop_eval_task" if whole else "drop_eval_examples", reason
        elif not fixed and (
            evaluation in tasks or (ground.categories[train] in categories and "train" in action)
        ):
            changes[pair] = "drop_eval_task", reason
    gone = {pair.eval_task for pair, (action, _) in changes.items() if action == "drop_eval_task"}
    changes |= {p: ("drop_eval_task", reason) for p, (_, reason) in choices.items() if p.eval_task in gone}
    changes = {pair: choice for pair, choice in changes.items() if choices[pair] != choice}
    choices |= changes
    return bool(changes)


def _untrained(ground: Ground, choices: Choices, after: Stock) -> tuple[set[str], set[str]]:
    """Return the partial tasks whose category trains nothing, and the categories of those that no decision is about."""
    trained = {ground.categories[task] for task in ground.roles if after.split_of(task, "train")}
    lacking = {t for t in ground.partial if ground.categories[t] not in trained and after.split_of(t, "test")}
    judged = {pair.eval_task for pair in choices}
    return lacking, {ground.categories[task] for task in lacking - judged}


def _lacks_train(ground: Ground, task: str, after: Stock) -> bool:
    return ground.roles[task] == "both" and not after.split_of(task, "train")


# ------------------------------------------------------------------------------------------ proposals


@dataclass(frozen=True)
class _Unit:
    """What is never judged apart: a task that goes with all its pairs, or one pair."""

    action: str
    reason: str
    ends: tuple[str, str]
    """Families of the train and the evaluation task; of a task that goes, those of its worst pair."""
    pairs: tuple[Pair, ...]


def _units(ground: Ground, choices: Choices) -> list[_Unit]:
    parts: dict[tuple[str, object], list[Pair]] = {}
    for pair, (action, _) in choices.items():
        end = {"drop_train_task": pair.train_task, "drop_eval_task": pair.eval_task}.get(action)
        parts.setdefault((action, end or pair.tasks), []).append(pair)
    units = []
    for (action, _), pairs in parts.items():
        pairs.sort(key=lambda p: (choices[p][1] == "content", p.badness))
        ends = ground.families[pairs[0].train_task], ground.families[pairs[0].eval_task]
        units.append(_Unit(action, choices[pairs[0]][1], ends, tuple(pairs)))
    return units


def _grouped(ground: Ground, choices: Choices) -> Iterable[tuple[str, str, str, list[Pair]]]:
    """Yield (action, family, reason, pairs) of each proposal: as few families as touch every unit."""
    kinds: dict[tuple[str, str], list[_Unit]] = {}
    for unit in _units(ground, choices):
        kinds.setdefault((unit.action, unit.reason), []).append(unit)
    for (action, reason), units in kinds.items():
        ones = {family: 1 for unit in units for family in unit.ends}
        around_train, _ = minimum_cover((unit.ends for unit in units), ones, ones)
        stars: dict[tuple[bool, str], list[_Unit]] = {}
        for unit in units:
            on_train = unit.ends[0] in around_train
            stars.setdefault((on_train, unit.ends[0] if on_train else unit.ends[1]), []).append(unit)
        for (_, family), members in stars.items():
            members.sort(key=lambda unit: unit.pairs[0].badness)
            yield action, family, reason, [pair for unit in members for pair in unit.pairs]


def _proposal(ground: Ground, action: str, about: str, reason: str, pairs: list[Pair]) -> Proposal:
    stock = ground.stock
    open_actions = ["drop_train_examples", "drop_eval_examples", "keep"]
    if all(ground.can_drop_train(pair.train_task) for pair in pairs):
        open_actions.append("drop_train_task")
    if ground.protected.isdisjoint(pair.eval_task for pair in pairs):
        open_actions.append("drop_eval_task")
    others = [stock.price(other, pairs) for other in open_actions if other != action]
    others = [price for price in others if price.action == "keep" or price.total(ground.weight)]
    others.sort(key=lambda price: (price.total(ground.weight), price.action))
    return Proposal(action, about, reason, tuple(pairs), stock.price(action, pairs), tuple(others))


def in_words(price: Price, pairs: Sequence[Pair]) -> str:
    """Return an action on some pairs and what it costs."""
    trains, evaluations = sorted({p.train_task for p in pairs}), sorted({p.eval_task for p in pairs})
    train = f"train task {trains[0]}" if len(trains) == 1 else f"{len(trains):,} train tasks"
    evaluation = (
        f"evaluation task {evaluations[0]}"
        if len(evaluations) == 1
        else f"{len(evaluations):,} evaluation tasks"
    )
    if price.action == "drop_train_task":
        return f"drop {train}: -{price.train:,} train examples"
    if price.action == "drop_eval_task":
        return f"drop {evaluation}: -{price.evaluation:,} evaluation examples"
    if price.action == "drop_train_examples":
        return f"drop the touched examples of {train}: -{price.train:,} train examples"
    if price.action == "drop_eval_examples":
        return f"drop the hit examples of {evaluation}: -{price.evaluation:,} evaluation examples"
    worst = pairs[0]
    num = worst.num_hit + worst.num_short_equal
    share = f"{num / max(1, worst.num_eval):.1%}".replace("%", " %")
    where = f"{share} of {worst.eval_task} touched ({num:,} of {worst.num_eval:,})"
    more = f", at worst, over {len(pairs):,} pairs" if len(pairs) > 1 else ""
    return f"keep: {where}{more}, {sum(map(given_away, pairs)):,} with an equal output"
