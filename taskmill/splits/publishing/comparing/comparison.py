"""What changed between two versions of a benchmark, and whether the second contains the first.

Reads two `View`s, of published folders or of tables in memory; writes nothing. Rows are matched by their ids and compared
in columns, so that versions with hundreds of thousands of examples are compared in about a second.

    found = compare(view_of(open_published(Path("v1"))), view_of(open_published(Path("v2"))))
    found.contained, found.tables["examples_moved"].num_rows
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from taskmill.errors import DamagedError
from taskmill.records import PUBLISHED
from taskmill.splits.publishing.comparing.matching import Matched, match
from taskmill.splits.publishing.comparing.settings_changed import changed_settings, changed_sources
from taskmill.splits.publishing.published import TABLE_NAMES, Published, table_path
from taskmill.splits.publishing.writing.tables import joined_ids

EXAMPLE, TASK, PAIR, TEMPLATE = (
    ("task", "example"),
    ("task",),
    ("train_task", "eval_task"),
    ("task", "template"),
)
PLACE = ("level", "split")
STANDS = ("action", "evidence")
"""Columns of a decision that must be the same for it to stand; who, when and why may change."""
KINDS = (
    "tasks_gone",
    "tasks_added",
    "tasks_changed",
    "examples_gone",
    "examples_added",
    "examples_moved",
    "examples_rewritten",
    "examples_cleanness",
    "decisions_gone",
    "decisions_added",
    "decisions_changed",
    "templates_gone",
    "templates_added",
    "templates_changed",
)
"""Tables of a comparison, in the order in which they are shown."""


@dataclass(frozen=True)
class View:
    """A version of a benchmark, as far as it is compared."""

    label: str
    """What the user called it."""
    name: str
    root: str
    sources: Sequence[Mapping[str, Any]]
    """`sources` of its manifest."""
    recipe: Mapping[str, Any]
    """`recipe` of its manifest."""
    tables: Mapping[str, pa.Table]
    """`ids`, all of them in one, and every other table of records.PUBLISHED but the prompts."""

    @property
    def ids(self) -> pa.Table:
        return self.tables["ids"]

    @property
    def tasks(self) -> pa.Table:
        return self.tables["tasks"]

    @property
    def decisions(self) -> pa.Table:
        return self.tables["decisions"]


@dataclass(frozen=True)
class Comparison:
    """What differs from `before` to `after`."""

    before: View
    after: View
    problems: list[str]
    """Why `after` does not contain `before`; empty when it does."""
    sources: list[dict[str, Any]]
    settings: list[dict[str, Any]]
    tables: dict[str, pa.Table]
    """A table for each of KINDS."""
    columns: dict[str, dict[str, int]]
    """For `examples` and `decisions`: the rows that differ in a column that no kind shows, by column."""
    num_rows: dict[str, tuple[int, int]]
    """Rows before and after of the tables that differ and have no kind of their own: pairs, drops ..."""

    @property
    def contained(self) -> bool:
        """Whether every example of `before` is in `after` with its content and place, and every decision stands."""
        return not self.problems

    @property
    def same(self) -> bool:
        """Whether every row of every table is the same."""
        rows = any(table.num_rows for table in self.tables.values())
        return not (rows or any(self.columns.values()) or self.num_rows)


def view_of(published: Published, label: str = "") -> View:
    """Read a published benchmark.

    Raises:
        DamagedError: a file is missing or damaged, or its columns are others.
    """
    body = published.body
    try:
        tables = {"ids": published.ids(), **{name: _table(published, name) for name in TABLE_NAMES}}
    except (KeyError, pa.ArrowException) as error:
        raise DamagedError(
            f"{published.folder}: its tables do not have the columns of a published benchmark ({error}); "
            f"`taskmill verify {published.folder}` names the files that were changed"
        ) from error
    name = str(body["name"])
    return View(label or name, name, published.root, body["sources"], body["recipe"], tables)


def _table(published: Published, name: str) -> pa.Table:
    """Read a table with the columns that it has by its definition."""
    schema = PUBLISHED[name]
    return published.table(name).select(schema.names).cast(schema)


def view_of_tables(
    tables: Mapping[str, pa.Table],
    root: str,
    sources: Sequence[Mapping[str, Any]],
    recipe: Mapping[str, Any],
    label: str = "",
) -> View:
    """Return the view of a benchmark that is not written: its tables by path, as `published_tables` makes them."""
    named = {name: tables[table_path(name)] for name in TABLE_NAMES}
    named["ids"] = joined_ids(tables)
    return View(label or str(recipe["name"]), str(recipe["name"]), root, sources, recipe, named)


def compare(before: View, after: View) -> Comparison:
    """Return all that differs from one version to another."""
    tasks = match(before.tasks, after.tasks, TASK)
    examples = match(before.ids, after.ids, EXAMPLE)
    decisions = match(before.decisions, after.decisions, PAIR)
    templates = match(before.tables["templates"], after.tables["templates"], TEMPLATE)
    tables = {
        **_task_tables(tasks),
        **_example_tables(examples),
        **_decision_tables(decisions),
        **_template_tables(templates),
    }
    shown = ("content", *PLACE, "reason", "rule", "clean", "clean_rare")
    return Comparison(
        before,
        after,
        _problems(examples, decisions),
        changed_sources(before.sources, after.sources, before.recipe, after.recipe),
        changed_settings(before.recipe, after.recipe),
        {kind: tables[kind] for kind in KINDS},
        {
            "examples": {k: v for k, v in examples.changed_columns.items() if k not in shown},
            "decisions": {k: v for k, v in decisions.changed_columns.items() if k not in STANDS},
        },
        _other_tables(before, after),
    )


def _problems(examples: Matched, decisions: Matched) -> list[str]:
    """Return why `after` does not contain `before`, a line for each kind of reason; empty when it does.

    It does when each example of `before` is in `after` with the same content, level and split, and each decision of `before`
    is in `after` with the same action about the same evidence.
    """
    rewritten, moved = examples.differ("content"), examples.differ(*PLACE)
    found = [
        ("example is gone", "examples are gone", _names(examples.gone, "example")),
        (
            "example has other content",
            "examples have other content",
            _names(examples.before.filter(rewritten), "example"),
        ),
        ("example has moved", "examples have moved", _moves(examples, moved)),
        ("decision is gone", "decisions are gone", _names(decisions.gone, *PAIR)),
        ("decision is another one", "decisions are other ones", _changed_decisions(decisions)),
    ]
    return [
        f"1 {singular}: {first}" if num == 1 else f"{num:,} {plural}, the first {first}"
        for singular, plural, (num, first) in found
        if num
    ]


def _names(rows: pa.Table, *columns: str) -> tuple[int, str]:
    """Return the number of rows and what names the first."""
    if not rows.num_rows:
        return 0, ""
    return rows.num_rows, " -> ".join(str(rows.column(name)[0].as_py()) for name in columns)


def _moves(examples: Matched, mask: pa.Array) -> tuple[int, str]:
    num, first = _names(examples.before.filter(mask), "example")
    if not num:
        return 0, ""
    rows = [side.filter(mask).slice(0, 1).to_pylist()[0] for side in (examples.before, examples.after)]
    return num, f"{first}, from {place(rows[0])} to {place(rows[1])}"


def _changed_decisions(decisions: Matched) -> tuple[int, str]:
    mask = decisions.differ(*STANDS)
    num, first = _names(decisions.before.filter(mask), *PAIR)
    if not num:
        return 0, ""
    old, new = (side.filter(mask).slice(0, 1).to_pylist()[0] for side in (decisions.before, decisions.after))
    if old["action"] != new["action"]:
        return num, f"{first}, {old['action']} before and {new['action']} now"
    return num, f"{first}, {old['action']} about other evidence"


def place(row: Mapping[str, Any]) -> str:
    """Return where an example stands, and why it is there where that is said: `partial test`, `excluded (duplicate)`."""
    reason = row.get("reason")
    name = f"{row['level']} {row['split']}" if row["level"] else str(row["split"])
    return f"{name} ({reason})" if reason else name


# ------------------------------------------------------------------------------------------- the kinds


def _task_tables(tasks: Matched) -> dict[str, pa.Table]:
    columns = ["task", "level", "role", "category", "license", "num_kept"]
    rows = [
        {"task": task, "column": name, "before": _text(old), "after": _text(new)}
        for name in tasks.changed_columns
        for task, old, new in zip(
            *(part.to_pylist() for part in (tasks.before["task"], tasks.before[name], tasks.after[name]))
        )
        if old != new
    ]
    names = {name: place for place, name in enumerate(PUBLISHED["tasks"].names)}
    rows.sort(key=lambda row: (row["task"], names[str(row["column"])]))
    schema = pa.schema([(name, pa.string()) for name in ("task", "column", "before", "after")])
    return {
        "tasks_gone": tasks.gone.select(columns),
        "tasks_added": tasks.added.select(columns),
        "tasks_changed": pa.Table.from_pylist(rows, schema=schema),
    }


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _example_tables(examples: Matched) -> dict[str, pa.Table]:
    columns = [*EXAMPLE, *PLACE, "reason", "content"]
    keys = EXAMPLE
    clean = examples.differ("clean", "clean_rare")
    return {
        "examples_gone": examples.gone.select(columns),
        "examples_added": examples.added.select(columns),
        "examples_moved": examples.side_by_side(
            examples.differ(*PLACE, "reason", "rule"), keys, [*PLACE, "reason", "rule"]
        ),
        "examples_rewritten": examples.side_by_side(
            examples.differ("content"), keys, ["content", "normalised"]
        ),
        "examples_cleanness": examples.side_by_side(clean, keys, ["clean", "clean_rare"]),
    }


def _decision_tables(decisions: Matched) -> dict[str, pa.Table]:
    columns = [*PAIR, "action", "evidence", "rule", "by", "why"]
    return {
        "decisions_gone": decisions.gone.select(columns),
        "decisions_added": decisions.added.select(columns),
        "decisions_changed": decisions.side_by_side(
            decisions.differ(*STANDS), PAIR, [*STANDS, "rule", "by", "why"]
        ),
    }


def _template_tables(templates: Matched) -> dict[str, pa.Table]:
    values = ["digest", "keeps_task"]
    return {
        "templates_gone": templates.gone,
        "templates_added": templates.added,
        "templates_changed": templates.side_by_side(templates.differ(*values), TEMPLATE, values),
    }


def _other_tables(before: View, after: View) -> dict[str, tuple[int, int]]:
    """Return the rows of each table without a kind of its own, where the two differ."""
    found = {}
    for name in TABLE_NAMES:
        ours, theirs = before.tables[name], after.tables[name]
        if name not in ("tasks", "templates", "decisions") and not ours.equals(theirs):
            found[name] = (ours.num_rows, theirs.num_rows)
    return found


def moves(moved: pa.Table) -> list[tuple[str, str, int]]:
    """Return from where to where examples moved, with their number, the most frequent first."""
    if not moved.num_rows:
        return []
    columns = [f"{name}_{side}" for side in ("before", "after") for name in (*PLACE, "reason")]
    counted = moved.group_by(columns).aggregate([([], "count_all")]).to_pylist()
    places = [
        tuple(
            place({name: row[f"{name}_{side}"] for name in (*PLACE, "reason")})
            for side in ("before", "after")
        )
        for row in counted
    ]
    lines = [(old, new, int(row["count_all"])) for (old, new), row in zip(places, counted)]
    return sorted(lines, key=lambda line: (-line[2], line[:2]))
