"""The command `diff`: what changed between two versions of a benchmark, and whether the second contains the first.

Reads runs, published folders or repositories of the Hub (`targets`); writes nothing.

    contained = diff("runs/harbour", "ann/harbour-bench@v1", num_shown=10, as_json=False)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from taskmill.commands.finished import FinishedRun
from taskmill.commands.publishing.diff_output import show
from taskmill.commands.publishing.targets import open_target
from taskmill.recipe_files import from_json
from taskmill.splits.publishing.comparing.comparison import (
    Comparison,
    View,
    compare,
    moves,
    view_of,
    view_of_tables,
)
from taskmill.splits.publishing.published import open_published
from taskmill.splits.publishing.rerunning.recipe_bundle import portable_values
from taskmill.splits.publishing.writing.manifest import source_entries
from taskmill.splits.publishing.writing.tables import published_tables, tables_root


def diff(before: str, after: str, num_shown: int, as_json: bool) -> bool:
    """Print what changed from one version to another; return whether the second contains the first.

    Args:
        before: a run, the folder or manifest of a published benchmark, or owner/name[@REVISION].
        after: the same, of the other version.
        num_shown: most lines of a kind; JSON has all.
        as_json: print one JSON object.

    Raises:
        UsageError: a target is neither a finished run nor a published benchmark.
        DamagedError: a file of one is damaged.
        StorageError: a repository cannot be read.
    """
    found = compared(before, after)
    if as_json:
        click.echo(json.dumps(comparison_json(found), sort_keys=True))
    else:
        show(found, num_shown)
    return found.contained


def compared(before: str, after: str) -> Comparison:
    """Compare two versions of a benchmark.

    Raises:
        UsageError, DamagedError, StorageError: see `diff`.
    """
    return compare(open_view(before), open_view(after))


def open_view(target: str) -> View:
    """Read a version of a benchmark.

    Raises:
        UsageError: the target is neither a finished run nor a published benchmark.
        DamagedError: a file of it is damaged.
        StorageError: a repository cannot be read.
    """
    found = open_target(target)
    if found.kind == "run":
        return view_of_run(found.path, found.label)
    return view_of(open_published(found.path), found.label)


def view_of_run(run: Path, label: str = "") -> View:
    """Read a run that is finished to split, as it would be published.

    Raises:
        UsageError: a stage before or the stage `split` itself is not finished.
        DamagedError: a table is damaged.
    """
    finished = FinishedRun(run)
    finished.require("split")
    resolved = from_json(run)
    tables = published_tables(finished.inputs, resolved)
    recipe = portable_values(resolved, run)
    sources = source_entries(finished.inputs, recipe)
    return view_of_tables(tables, tables_root(tables), sources, recipe, label or str(run))


def comparison_json(found: Comparison) -> dict[str, Any]:
    """Return a comparison as the object of --json."""
    body: dict[str, Any] = {
        "before": _side(found.before),
        "after": _side(found.after),
        "contained": found.contained,
        "problems": found.problems,
        "same": found.same,
        "sources": found.sources,
        "settings": found.settings,
        "other_columns": found.columns,
        "other_tables": {k: {"before": a, "after": b} for k, (a, b) in found.num_rows.items()},
        "moves": [
            {"from": old, "to": new, "num_examples": number}
            for old, new, number in moves(found.tables["examples_moved"])
        ],
    }
    for kind, table in found.tables.items():
        noun, _, change = kind.partition("_")
        body.setdefault(noun, {})[change] = table.to_pylist()
    return body


def _side(view: View) -> Mapping[str, Any]:
    return {
        "target": view.label,
        "name": view.name,
        "root": view.root,
        "num_tasks": view.tasks.num_rows,
        "num_examples": view.ids.num_rows,
        "num_decisions": view.decisions.num_rows,
    }
