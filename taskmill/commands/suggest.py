"""`taskmill split RECIPE --suggest`: what to decide about the pairs that rules and people leave open, and what it costs.

Reads the finished stages curate and overlap of a run and its decisions; compares all tasks of the catalogue with each
other; writes `suggested.csv` beside the decisions, and no stage. Tasks of a benchmark that the recipe extends are kept.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
import pyarrow.compute as pc

from taskmill.artifact import Inputs
from taskmill.commands.figures import count
from taskmill.commands.suggestion import SuggestionPrinter
from taskmill.errors import UsageError
from taskmill.runs import RunLock
from taskmill.selectors import TASK_COLUMNS, read_facts, select, unmatched
from taskmill.splits import split as splitting
from taskmill.splits.deciding.decision_files import write_decisions
from taskmill.splits.deciding.decisions import RULE, Decision, Pair, Verdict
from taskmill.splits.deciding.membership import links, rules_on_rare, train_sizes
from taskmill.splits.overlap import make_catalogue
from taskmill.splits.publishing.pins import read_pins
from taskmill.splits.suggesting import graph as graphs
from taskmill.splits.suggesting import outlook
from taskmill.splits.suggesting.prices import WEIGHT, Price, Stock
from taskmill.splits.suggesting.suggest import REASONS, Ground, Proposal, in_words, propose
from taskmill.stages import Walk

log = logging.getLogger("taskmill")

FILE = "suggested.csv"
"""In the run, in the form of decisions.csv."""
_COLUMNS = tuple(dict.fromkeys((*TASK_COLUMNS, *graphs.TASK_COLUMNS)))


@dataclass(frozen=True)
class _Found:
    """What was read and decided."""

    base: Stock
    ground: Ground
    pairs: Sequence[Pair]
    verdict: Verdict
    proposals: Sequence[Proposal]
    graph: graphs.LeakGraph
    levels: dict[str, str]
    num_train: dict[str, int]

    @property
    def made(self) -> list[Decision]:
        """All decisions, the proposed ones last."""
        return [*self.verdict.decisions, *(d for p in self.proposals for d in p.decisions)]


def suggest(
    walk: Walk, keep: Sequence[str], weight: int | None, as_json: bool, dry_run: bool = False
) -> None:
    """Print proposals and what they cost, and write them to `suggested.csv` in the run.

    Args:
        walk: the recipe and the run.
        keep: selectors of tasks that are never dropped as a whole.
        weight: train examples that an evaluation example is worth; WEIGHT without one.
        as_json: print one JSON object.
        dry_run: print only.

    Raises:
        UsageError: curate or overlap is not finished with these settings, or a selector fits no task.
        DamagedError: a table of the run is damaged.
        BusyError: another process writes the run.
    """
    weight = weight or WEIGHT
    inputs = walk.inputs("split")
    inputs.identity(splitting.READS)
    outcome = walk.look("overlap")
    if outcome.status != "up to date":
        raise UsageError(
            f"the stage 'overlap' of {walk.run} was not finished with these settings ({outcome.detail}): run "
            f"`taskmill overlap` with the same options first"
        )
    found = _find(walk, inputs, keep, weight)
    body = _body(walk, found, weight) | {"file": None if dry_run else str(walk.run / FILE)}
    if not dry_run:
        turn = read_pins(walk.settings("split")).decided.turn
        with RunLock(walk.run):
            write_decisions(walk.run / FILE, [turn(d) for p in found.proposals for d in p.decisions])
    if as_json:
        click.echo(json.dumps(body, sort_keys=True))
    else:
        SuggestionPrinter(weight).suggestion(body)


# ------------------------------------------------------------------------------------------- reading


def _find(walk: Walk, inputs: Inputs, keep: Sequence[str], weight: int) -> _Found:
    settings = walk.settings("split")
    tasks = inputs.table("curate", "tasks", [*_COLUMNS]).sort_by("task")
    plan, assignment = inputs.table("overlap", "plan"), inputs.table("overlap", "assignment")
    names = plan["task"].to_pylist()
    protected = _protected(tasks, keep) | read_pins(settings).decided.tasks
    pairs = splitting.pairs_of(inputs)
    verdict = splitting.judge(settings, pairs, splitting.people_of(settings, inputs, walk.run))
    rare = rules_on_rare(settings.split.rules)
    base = _stock(inputs, tasks, plan, assignment)
    graph = graphs.leak_graph(
        tasks.select(list(graphs.TASK_COLUMNS)),
        inputs.batches("curate", "examples", graphs.COLUMNS),
        walk.settings("overlap").overlap,
        inputs.table("overlap", "near_duplicates"),
    )
    log.info(
        "suggest: %s of %s pairs of tasks share text or a data set",
        count(len(graph.first)),
        count(graph.num_pairs),
    )
    aliases = inputs.table("curate", "suspected_aliases", ["task_a", "task_b"])
    ground = Ground(
        base.after(verdict.decisions, rare),
        dict(zip(names, plan["role"].to_pylist())),
        {row["task"]: row["family"] or row["task"] for row in tasks.select(["task", "family"]).to_pylist()},
        dict(zip(tasks["task"].to_pylist(), tasks["category"].to_pylist())),
        outlook.ties(graph, zip(aliases["task_a"].to_pylist(), aliases["task_b"].to_pylist())),
        frozenset(plan.filter(pc.equal(plan["level"], "partial"))["task"].to_pylist()),
        protected,
        weight,
    )
    proposals = propose(ground, verdict.undecided, rare)
    levels = {task: level for task, level in zip(names, plan["level"].to_pylist()) if level}
    return _Found(base, ground, pairs, verdict, proposals, graph, levels, train_sizes(plan, assignment))


def _protected(tasks: Any, keep: Sequence[str]) -> frozenset[str]:
    facts = read_facts(tasks)
    problems = unmatched("--keep", keep, facts, "tasks")
    if problems:
        raise UsageError("\n".join(problems))
    return frozenset(select(facts, keep))


def _stock(inputs: Inputs, tasks: Any, plan: Any, assignment: Any) -> Stock:
    """Return the examples as assigned, without train copies of evaluation examples."""
    batches = inputs.batches("curate", "examples", ["example", "task", "content"])
    catalogue = make_catalogue(tasks, plan, assignment)
    members = splitting.make_members(catalogue, plan, assignment, batches)
    hits = links(members, inputs.table("overlap", "hits"), "eval_example")
    return Stock(members, hits, links(members, inputs.table("overlap", "touched"), "train_example"))


# ---------------------------------------------------------------------------------------- the result


def _body(walk: Walk, found: _Found, weight: int) -> dict[str, Any]:
    settings = walk.settings("split").split
    rare, threshold = rules_on_rare(settings.rules), settings.threshold
    asked = [
        pair
        for pair in found.pairs
        if pair.must_be_decided(threshold) or pair.tasks in found.verdict.outdated
    ]
    states = Counter(found.verdict.states(asked, threshold)[pair.tasks] for pair in asked)
    after = found.base.after(found.made, rare)
    stocks = {"assigned": found.base, "decided": found.ground.stock, "proposed": after}
    return {
        "run": str(walk.run),
        "weight": weight,
        "threshold": threshold,
        "catalogue": {
            "tasks": len(found.graph.tasks),
            "pairs": found.graph.num_pairs,
            "pairs_sharing": len(found.graph.first),
            "directed_pairs_above": graphs.pairs_sharing(found.graph, threshold),
        },
        "pairs": {
            "above": len(asked),
            **{state: states[state] for state in ("rule", "person", "dropped")},
            "proposed": len(found.verdict.undecided),
        },
        "examples": {
            name: {"train": stock.num_train, "evaluation": stock.num_evaluation}
            for name, stock in stocks.items()
        },
        "proposals": [_proposal(proposal, weight) for proposal in found.proposals],
        "rules": _rules(found, rare),
        **_outlook(found, weight),
    }


def _proposal(proposal: Proposal, weight: int) -> dict[str, Any]:
    def priced(price: Price) -> dict[str, Any]:
        return {**asdict(price), "total": price.total(weight), "text": in_words(price, proposal.pairs)}

    return {
        "action": proposal.action,
        "about": proposal.about,
        "reason": REASONS[proposal.reason],
        "price": priced(proposal.price),
        "alternatives": [priced(price) for price in proposal.alternatives],
        "pairs": [
            {"train_task": p.train_task, "eval_task": p.eval_task, "evidence": p.evidence}
            for p in proposal.pairs
        ],
    }


def _rules(found: _Found, rare: frozenset[str]) -> list[dict[str, Any]]:
    """Return what each rule costs alone, and what people's decisions do, the dearest first."""
    plain = found.base.after([], rare)
    parts: dict[str, list[Decision]] = {}
    for decision in found.verdict.decisions:
        parts.setdefault(decision.rule if decision.by == RULE else "(people)", []).append(decision)
    rows = []
    for name, decisions in parts.items():
        after = found.base.after(decisions, rare)
        rows.append(
            {
                "rule": name,
                "pairs": len(decisions),
                "train": plain.num_train - after.num_train,
                "evaluation": plain.num_evaluation - after.num_evaluation,
            }
        )
    return sorted(rows, key=lambda row: (-row["train"] - row["evaluation"], row["rule"]))


def _outlook(found: _Found, weight: int) -> dict[str, Any]:
    """Return what the plan itself costs, before any decision."""
    ground, levels = found.ground, found.levels
    gone = {d.train_task: d.pair for d in found.made if d.action == "drop_train_task"}
    pairs = [p for p in found.pairs if p.level != "supervised" and p.train_task in gone]
    edges = sorted({p.tasks for p in pairs if ground.source(p)} | set(gone.values()))
    sizes = {task: found.base.evaluation_of(task) for task in levels}
    judged = {d.pair for d in found.made} | {pair.tasks for pair in found.verdict.undecided}
    ruled = {d.train_task for d in found.verdict.decisions if d.action == "drop_train_task" and d.by == RULE}
    by_category = {task: ground.categories[task] for task, level in levels.items() if level == "held_out"}
    held_out = [edge for edge in edges if edge[1] in by_category]
    itself = {task: task for task in levels}
    swaps = outlook.exchanges(
        [edge for edge in edges if edge[0] in ruled], found.num_train, sizes, weight, ground.protected
    )
    return {
        "exchanges": [asdict(swap) for swap in swaps],
        "evaluation_tasks": [
            asdict(p) for p in outlook.evaluation_prices(edges, itself, found.num_train, sizes)
        ],
        "held_out_categories": [
            asdict(p) for p in outlook.evaluation_prices(held_out, by_category, found.num_train, sizes)
        ],
        "suspects": [
            {"train_task": task, "eval_task": other, "reason": REASONS[reason]}
            for (task, other), reason in sorted(ground.ties.items())
            if reason != "same_dataset"
            and ground.roles[task] == "train"
            and levels.get(other) in ("held_out", "partial")
            and task not in gone
            and (task, other) not in judged
        ],
        "moves": [
            {"train_task": task, "category": ground.categories[task], "eval_tasks": others}
            for task, others in outlook.moves(edges, ground.categories).items()
        ],
        "categories": [
            {**asdict(price), "total": price.total}
            for price in outlook.category_prices(found.graph, ground.ties, ground.categories, levels)
        ],
    }
