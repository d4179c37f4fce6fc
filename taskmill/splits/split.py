"""Stage split: decide every overlapping pair, then say where each example stands.

Reads curate's tasks and examples (`content` only), overlap's plan, assignment, pairs, hits, touched and near_duplicates,
and the run's `decisions.csv`, which starts as a copy of the file that the recipe names. Writes `tasks`, `members` and
`decisions`. While a pair that must be decided is not, it writes nothing but `undecided.csv` beside the decisions, and stops.
Decisions and examples of a benchmark that the recipe extends stay as they are (see publishing.pins).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.artifact import Inputs, Manifest, ShardWriter, StageWriter
from taskmill.errors import DecisionNeededError, UsageError
from taskmill.recipe import Split
from taskmill.records import SCHEMAS, SPLITS
from taskmill.settings import Settings
from taskmill.splits.deciding.decision_files import (
    FILE,
    UNDECIDED_FILE,
    decisions_digest,
    read_decisions,
    undecided_message,
    write_undecided,
)
from taskmill.splits.deciding.decisions import RULE, Decision, Pair, Verdict, decide, read_pairs
from taskmill.splits.deciding.membership import (
    Members,
    apply_decisions,
    clean_rows,
    drop_near_duplicates,
    links,
    near_duplicates,
    rules_on_rare,
    train_sizes,
)
from taskmill.splits.deciding.outcome import Findings, check, decisions_table, members_table, tasks_table
from taskmill.splits.deciding.pinned import yield_to_pinned
from taskmill.splits.overlap import make_catalogue
from taskmill.splits.publishing.pins import Pins, read_pins
from taskmill.splits.sharing.examples import Catalogue, numbered
from taskmill.storage import write_bytes

log = logging.getLogger("taskmill")

REVISION = 2
SECTIONS = ("split",)
READS = (
    ("curate", "tasks"),
    ("curate", "examples"),
    ("overlap", "plan"),
    ("overlap", "assignment"),
    ("overlap", "pairs"),
    ("overlap", "hits"),
    ("overlap", "touched"),
    ("overlap", "near_duplicates"),
)


def external(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """Return the digest of the decisions that count (pairs, actions and evidence), whether the run is limited, what it extends.

    Raises:
        UsageError: the decisions cannot be read; see `read_decisions`.
    """
    run = inputs.directory("overlap").parent
    found: dict[str, Any] = {"decisions": decisions_digest(people_of(settings, inputs, run))}
    found |= read_pins(settings).external
    return found if settings.limit is None else {**found, "limited": True}


def source_of(settings: Settings, run: Path) -> Path | None:
    """Return the file of people's decisions: the run's, else the one that the recipe names, else None.

    Raises:
        UsageError: the recipe names one that is not there.
    """
    if (run / FILE).is_file():
        return run / FILE
    named = settings.split.decisions
    if named is None:
        return None
    path: Path = settings.path(named)
    if not path.is_file():
        raise UsageError(f"split.decisions: there is no file {path}; leave the key out or write the file")
    return path


def people_of(settings: Settings, inputs: Inputs, run: Path) -> list[Decision]:
    """Return what people have decided.

    Raises:
        UsageError: the decisions cannot be read; see `read_decisions`.
    """
    path = source_of(settings, run)
    if path is None:
        return []
    return read_decisions(path, inputs.table("overlap", "plan", ["task"])["task"].to_pylist())


def pairs_of(inputs: Inputs) -> list[Pair]:
    """Return every overlapping pair that the stage overlap found."""
    plan = inputs.table("overlap", "plan")
    levels = dict(zip(plan["task"].to_pylist(), plan["level"].to_pylist()))
    sizes = train_sizes(plan, inputs.table("overlap", "assignment", ["example", "task", "split"]))
    return read_pairs(inputs.table("overlap", "pairs").to_pylist(), levels, sizes)


def judge(settings: Settings, pairs: Sequence[Pair], people: Sequence[Decision]) -> Verdict:
    """Return what comes of the pairs under the recipe's rules and these people's decisions."""
    section, limited = settings.split, settings.limit is not None
    pinned = read_pins(settings).decided
    new = [pair for pair in pairs if not pinned.has(pair.tasks)]
    return decide(new, people, section.rules, section.threshold, limited, pinned.made, pinned.turn)


def build(settings: Settings, inputs: Inputs, out: StageWriter) -> Manifest:
    """Decide, apply the decisions and write the split.

    Raises:
        DecisionNeededError: pairs that must be decided are not.
        UsageError: the decisions are malformed, leave a level without examples, or would move what is extended.
        DamagedError: a table of an earlier stage is damaged.
    """
    pins = read_pins(settings)
    run = out.directory.parent
    people = people_of(settings, inputs, run)
    source = source_of(settings, run)
    if source is not None and source != run / FILE:
        write_bytes(run / FILE, source.read_bytes())
    parts = [[i["stage"], i["table"], i["rows"]] for i in inputs.identity(READS)]
    if not out.finished("splits", [parts, out.identity.external]):
        pairs = pairs_of(inputs)
        pins.decided.refuse(people, {pair.tasks: pair.evidence for pair in pairs}, run)
        decisions = _decided(settings, pairs, people, run)
        with out.shard("splits", [parts, out.identity.external]) as shard:
            _write(shard, inputs, settings.split, decisions, pairs, pins)
        out.add(shard.record)
    return out.finish()


def _decided(
    settings: Settings, pairs: Sequence[Pair], people: Sequence[Decision], run: Path
) -> list[Decision]:
    verdict = judge(settings, pairs, people)
    idle = len({decision.pair for decision in people} - {pair.tasks for pair in pairs})
    if idle:
        log.info("split: %d decisions are about pairs that share nothing", idle)
    if verdict.undecided:
        num_filled = write_undecided(run / UNDECIDED_FILE, verdict.undecided)
        threshold = settings.split.threshold
        message = undecided_message(verdict, len(pairs), threshold, run, num_filled)
        raise DecisionNeededError(message + read_pins(settings).advice)
    (run / UNDECIDED_FILE).unlink(missing_ok=True)
    return verdict.decisions


def _write(
    shard: ShardWriter,
    inputs: Inputs,
    section: Split,
    decisions: Sequence[Decision],
    pairs: Sequence[Pair],
    pins: Pins,
) -> None:
    tasks = inputs.table("curate", "tasks", ["task", "category", "output_fields"]).sort_by("task")
    plan, assignment = inputs.table("overlap", "plan"), inputs.table("overlap", "assignment")
    catalogue = make_catalogue(tasks, plan, assignment)
    batches = inputs.batches("curate", "examples", ["example", "task", "content"])
    members = pins.place(make_members(catalogue, plan, assignment, batches))
    tables = {name: inputs.table("overlap", name) for name in ("hits", "touched", "near_duplicates")}
    categories = dict(zip(tasks["task"].to_pylist(), tasks["category"].to_pylist()))
    made = settle(members, plan, categories, assignment["group"], tables, section, decisions, pairs)
    made = pins.uphold(made)
    for name in ("tasks", "members", "decisions"):
        shard.write_table(f"{name}.parquet", SCHEMAS[f"splits/{name}"], made[name])
    _count(shard, made, decisions)


def settle(
    members: Members,
    plan: pa.Table,
    categories: Mapping[str, str],
    group: pa.ChunkedArray,
    tables: Mapping[str, pa.Table],
    section: Split,
    decisions: Sequence[Decision],
    pairs: Sequence[Pair],
) -> dict[str, pa.Table]:
    """Return the tables tasks, members and decisions.

    Args:
        members: the examples as assigned; changed in place.
        plan: `overlaps/plan`.
        categories: task -> category.
        group: of each example.
        tables: hits, touched and near_duplicates of overlap.
        section: the recipe's section.
        decisions: of all pairs that must be decided.
        pairs: every overlapping pair.

    Raises:
        UsageError: the decisions leave a level without examples.
    """
    hits = links(members, tables["hits"], "eval_example")
    touched = links(members, tables["touched"], "train_example")
    near = near_duplicates(members, tables["near_duplicates"])
    rare = rules_on_rare(section.rules)
    yield_to_pinned(members, near, section.near_duplicates)
    taken = apply_decisions(members, decisions, hits, touched, rare)
    drop_near_duplicates(members, near, section.near_duplicates)
    found = Findings(hits, touched, near, section.near_duplicates, rare)
    check(members, plan["level"].to_pylist(), categories, decisions, found)
    clean, clean_rare = clean_rows(members, hits, touched), clean_rows(members, hits, touched, rare=True)
    return {
        "tasks": tasks_table(members, plan, decisions),
        "members": members_table(members, group, clean, clean_rare),
        "decisions": decisions_table(decisions, pairs, taken),
    }


def make_members(
    catalogue: Catalogue, plan: pa.Table, assignment: pa.Table, batches: Iterable[pa.RecordBatch]
) -> Members:
    """Return the examples as assigned; `batches` is a pass over the examples with example, task and content."""
    size = len(catalogue.ids)
    content = np.zeros((size, 32), np.uint8)
    for numbers, batch in numbered(catalogue, batches):
        column = b"".join(batch.column("content").to_pylist())
        content[numbers] = np.frombuffer(column, np.uint8).reshape(-1, 32)
    return Members(
        catalogue.ids,
        catalogue.task_of(np.arange(size)),
        catalogue.tasks,
        plan["role"].to_pylist(),
        pc.index_in(assignment["split"], value_set=pa.array(SPLITS)).to_numpy().astype(np.uint8),
        np.array(assignment["reason"].to_pylist(), dtype=object),
        np.full(size, None, dtype=object),
        content,
        np.zeros(size, bool),
    )


def _count(shard: ShardWriter, made: Mapping[str, pa.Table], decisions: Sequence[Decision]) -> None:
    """Count examples by split, the excluded ones by reason, tasks by level, decisions by action."""
    members = made["members"]
    for split, number in _counted(members["split"]):
        shard.count(f"num_{split}", number)
    for reason, number in _counted(members["reason"]):
        shard.drop(reason, number)
    for level, number in _counted(made["tasks"]["level"]):
        shard.count(f"num_tasks_{level}", number)
    shard.count("num_decisions", len(decisions))
    for action, number in sorted(Counter(decision.action for decision in decisions).items()):
        shard.count(f"num_{action}", number)
    shard.count("num_decisions_people", sum(decision.by != RULE for decision in decisions))
    shard.count("num_unclean", members.num_rows - pc.sum(members["clean"], min_count=0).as_py())
    shard.count("num_unclean_rare", members.num_rows - pc.sum(members["clean_rare"], min_count=0).as_py())


def _counted(column: pa.ChunkedArray) -> list[tuple[str, int]]:
    """Return (value, how often) of a column, without nulls, sorted."""
    found = column.drop_null().value_counts().to_pylist()
    return sorted((row["values"], row["counts"]) for row in found)
