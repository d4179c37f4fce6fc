"""What a recipe with `extends` holds on to: the published benchmark that it grows from, as the stages ask for it.

Reads the folder that `extends` names (ids alone are enough): tasks, ids, decisions, pairs, near_duplicates, frequent.

    pins = read_pins(settings)          # nothing is pinned where the recipe extends nothing
    pins.root                           # of the extended benchmark, in the fingerprints of overlap and split
    pins.check_examples(inputs)         # every example is there, with its content
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.artifact import Inputs
from taskmill.errors import DamagedError, UsageError, shorten
from taskmill.records import ACTIONS, LEVELS, ROLES, SCHEMAS, SPLITS
from taskmill.settings import Settings
from taskmill.splits.deciding.decisions import read_made
from taskmill.splits.deciding.membership import Members
from taskmill.splits.deciding.pinned import PinnedDecisions, Tasks
from taskmill.splits.planning.pinned import PinnedPlan
from taskmill.splits.planning.roles import TaskPlan
from taskmill.splits.publishing.published import IDS, TABLES, Published, open_published
from taskmill.splits.sharing.examples import text_sides
from taskmill.splits.sharing.pinned import PinnedText
from taskmill.storage import file_digest

log = logging.getLogger("taskmill")

_PLACED = ("split", "reason", "rule")


@dataclass(frozen=True)
class Pins:
    """The benchmark that a recipe extends; empty where it extends none."""

    root: str | None = None
    label: str = ""
    """The folder as the recipe names it."""
    ids: pa.Table | None = None
    """Its examples, sorted by task and id."""
    plan: PinnedPlan = field(default_factory=PinnedPlan)
    text: PinnedText = field(default_factory=PinnedText)
    decided: PinnedDecisions = field(default_factory=PinnedDecisions)
    decisions: pa.Table = field(default_factory=SCHEMAS["splits/decisions"].empty_table)
    """Its decisions with their figures."""
    evidence: Mapping[Tasks, str] = field(default_factory=dict)
    """Pair -> evidence (32 hex digits)."""

    @property
    def external(self) -> dict[str, Any]:
        """What belongs to the identity of a stage that reads the pins."""
        return {} if self.root is None else {"extends": self.root}

    @property
    def advice(self) -> str:
        """What to tell a person who decides, in a line; nothing where nothing is extended."""
        if self.root is None:
            return ""
        return (
            f"\nThis benchmark extends {self.label!r}, of which no example may go. For a pair with one of its train tasks choose "
            f"keep, drop_eval_task or drop_eval_examples; with one of its evaluation tasks keep, drop_train_task or "
            f"drop_train_examples."
        )

    # ------------------------------------------------------------------------------------------ overlap

    def check_examples(self, inputs: Inputs, limit: int | None) -> None:
        """Check that curate made every pinned example again, with its content, and no other one of the same tasks.

        Raises:
            UsageError: it did not; the message names the first example that differs and its file.
        """
        if self.ids is None:
            return
        if limit is not None:
            raise UsageError(
                f"limit: a benchmark that extends {self.label!r} needs every example of it; take the limit away"
            )
        names = self.ids["task"].unique()
        parts = []
        for batch in inputs.batches("curate", "examples", ["example", "task", "content", "file", "record"]):
            parts.append(batch.filter(pc.is_in(batch.column("task"), value_set=names)))
        schema = pa.schema([SCHEMAS["tasks/examples"].field(name) for name in parts[0].schema.names])
        found = pa.Table.from_batches([part.cast(schema) for part in parts], schema)
        found = found.sort_by([("task", "ascending"), ("example", "ascending")])
        content = pa.array([digest.hex() for digest in found["content"].to_pylist()], pa.string())
        if found["example"].equals(self.ids["example"]) and self.ids["content"].equals(
            pa.chunked_array([content])
        ):
            return
        raise UsageError(_difference(self.label, self.ids, found, content))

    def check_pairs(self, pairs: pa.Table) -> None:
        """Check that overlap finds every pinned pair again; where its evidence is another, its decision holds all the same.

        Raises:
            UsageError: a pair is not found any more.
        """
        columns = (pairs[name].to_pylist() for name in ("train_task", "eval_task", "evidence"))
        present = {(train, evaluated): evidence.hex() for train, evaluated, evidence in zip(*columns)}
        gone = sorted(self.evidence.keys() - present.keys())
        if gone:
            raise UsageError(
                f"overlap does not find {len(gone)} pairs of {self.label!r} any more, such as {' -> '.join(gone[0])}: "
                f"it was made with other settings of `overlap` or another version; extend it with the same"
            )
        other = sorted(pair for pair, evidence in self.evidence.items() if present[pair] != evidence)
        if other:
            log.warning(
                "overlap: %d pairs of %s have other evidence than there, such as %s -> %s; their decisions hold",
                *(len(other), self.label, *other[0]),
            )

    # -------------------------------------------------------------------------------------------- split

    def place(self, members: Members) -> Members:
        """Put every pinned example where it stands; `members` are as assigned, and changed in place."""
        if self.ids is None:
            return members
        task = np.array([name in self.plan.entries for name in members.tasks], bool)
        rows = np.flatnonzero(task[members.task])
        members.pinned[rows] = True
        members.split[rows] = pc.index_in(self.ids["split"], value_set=pa.array(SPLITS)).to_numpy()
        members.reason[rows], members.rule[rows] = (_objects(self.ids[name]) for name in ("reason", "rule"))
        return members

    def uphold(self, made: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        """Return split's tables with the pinned decisions as they were, after a look at every pinned member.

        Raises:
            DamagedError: a pinned member does not stand where it stood.
        """
        if self.ids is None:
            return dict(made)
        members = made["members"].filter(
            pc.is_in(made["members"]["task"], value_set=self.ids["task"].unique())
        )
        for name in ("example", *_PLACED):
            ours = self.ids[name].combine_chunks()
            theirs = members[name].combine_chunks()
            if not theirs.equals(ours):
                place = next(i for i in range(len(ours)) if ours[i].as_py() != theirs[i].as_py())
                raise DamagedError(
                    f"{self.ids['example'][place]} of {self.label!r} has the {name} {ours[place]} there and "
                    f"{theirs[place]} here; a benchmark that grows must not move an example"
                )
        pairs = set(self.decided.by_pair)
        columns = (made["decisions"][name].to_pylist() for name in ("train_task", "eval_task"))
        added = made["decisions"].filter(pa.array([pair not in pairs for pair in zip(*columns)], pa.bool_()))
        keys = [("train_task", "ascending"), ("eval_task", "ascending")]
        return {**made, "decisions": pa.concat_tables([self.decisions, added]).sort_by(keys)}


def _objects(column: pa.ChunkedArray) -> Any:
    return np.array(column.to_pylist(), dtype=object)


def _difference(label: str, ids: pa.Table, found: pa.Table, content: pa.Array) -> str:
    """Return which pinned example is the first that curate did not make again."""
    now = {name: place for place, name in enumerate(found["example"].to_pylist())}
    digests = content.to_pylist()
    for row in ids.select(["example", "content", "file", "record"]).to_pylist():
        place = now.pop(row["example"], None)
        where = f"record {row['record']} of {row['file']}"
        if place is None:
            return (
                f"the example {row['example']!r} of {label!r} is gone: it was {where}. The sources of a benchmark that "
                f"grows must be the files that it was made of"
            )
        if digests[place] != row["content"]:
            return (
                f"the example {row['example']!r} of {label!r} has other content: {row['content'][:16]} there, "
                f"{digests[place][:16]} here ({where}). The sources of a benchmark that grows must be the files that it was "
                f"made of, read with the same casts and the same version"
            )
    name, place = next(iter(now.items()))
    file, record = found["file"][place], found["record"][place]
    return (
        f"the example {name!r} (record {record} of {file}) is in a task of {label!r} that does not have it: a task of a "
        f"benchmark that grows keeps its examples; put new ones into a source of their own"
    )


# --------------------------------------------------------------------------------------------- reading


def read_pins(settings: Settings) -> Pins:
    """Return what the recipe's `extends` pins; nothing where it extends nothing.

    Raises:
        UsageError: the folder is no published benchmark.
        DamagedError: a file of it is missing or is not the one that was published.
    """
    if settings.extends is None:
        return Pins()
    published = open_published(settings.path(settings.extends))
    return _read(published.folder, published.root, str(published.body["digest"]), str(published.body["name"]))


@functools.lru_cache(maxsize=2)
def _read(folder: Path, root: str, digest: str, label: str) -> Pins:
    """Read the pins of a published folder, once while its manifest (by `digest`) is the same."""
    published = open_published(folder)
    _check_files(published)
    names = ("tasks", "decisions", "pairs", "near_duplicates", "frequent")
    ids, tables = published.ids(), {name: published.table(name) for name in names}
    _check_values(label, ids, tables)
    return pins_of(root, label, ids, tables)


def pins_of(root: str, label: str, ids: pa.Table, tables: Mapping[str, pa.Table]) -> Pins:
    """Return what the tables of a published benchmark pin; `tables` are those beside `ids`, by name."""
    tasks, ids = tables["tasks"].to_pylist(), ids.combine_chunks()
    decisions = tables["decisions"].cast(SCHEMAS["splits/decisions"])
    pairs = tables["pairs"].select(["train_task", "eval_task", "evidence"])
    names = frozenset(row["task"] for row in tasks)
    entries = {
        row["task"]: TaskPlan(row["task"], row["planned_level"], row["planned_role"], row["planned_why"])
        for row in tasks
    }
    roles = {task: entry.role for task, entry in entries.items()}
    standing = text_sides(ids["split"].to_pylist(), [roles[task] for task in ids["task"].to_pylist()])
    return Pins(
        root,
        label,
        ids,
        PinnedPlan(entries, dict(_assigned(ids, names))),
        PinnedText(
            names,
            tables["frequent"]["gram"].to_numpy(),
            standing,
            tables["near_duplicates"].cast(SCHEMAS["overlaps/near_duplicates"]),
        ),
        PinnedDecisions(names, {made.pair: made for made in read_made(decisions.to_pylist())}),
        decisions,
        {(row["train_task"], row["eval_task"]): row["evidence"] for row in pairs.to_pylist()},
    )


def _check_values(label: str, ids: pa.Table, tables: Mapping[str, pa.Table]) -> None:
    """Check that examples, tasks and decisions have the words that these columns can have.

    Raises:
        DamagedError: one does not.
    """
    tasks = tables["tasks"]["task"].unique()
    for what, column, known in (
        ("task", ids["task"], tasks),
        ("split", ids["split"], pa.array(SPLITS)),
        ("split", ids["assigned"], pa.array(SPLITS)),
        ("role", tables["tasks"]["planned_role"], pa.array(ROLES)),
        ("level", tables["tasks"]["planned_level"], pa.array(LEVELS)),
        ("action", tables["decisions"]["action"], pa.array(ACTIONS)),
        ("task", tables["decisions"]["train_task"], tasks),
        ("task", tables["decisions"]["eval_task"], tasks),
    ):
        named = column.drop_null()
        strange = named.filter(pc.invert(pc.is_in(named, value_set=known)))
        if len(strange):
            raise DamagedError(
                f"{label!r} has an entry with the {what} {shorten(strange[0].as_py())}, which there is not"
            )


def _check_files(published: Published) -> None:
    """Check the bytes of every file below ids/ and tables/."""
    for entry in published.files:
        path = published.folder / entry.path
        if entry.path.split("/")[0] in (IDS, TABLES) and (
            not path.is_file() or file_digest(path) != entry.sha256
        ):
            raise DamagedError(
                f"{path} is missing or is not the file that was published; `taskmill verify {published.folder}` "
                f"lists what is damaged"
            )


def _assigned(ids: pa.Table, names: Iterable[str]) -> Iterable[tuple[str, Any]]:
    """Yield (task, (split, reason) of its examples as assigned); a task without examples has none."""
    tasks = ids["task"].to_numpy()
    split, reason = (_objects(ids[name]) for name in ("assigned", "assigned_reason"))
    for name in sorted(names):
        low, high = (int(np.searchsorted(tasks, name, side=side)) for side in ("left", "right"))
        yield name, (split[low:high], reason[low:high])
