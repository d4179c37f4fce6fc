"""What is known of tasks: `taskmill taxonomy show`, `check` and `diff`. Reads taxonomy files, and for `check` a recipe's sources.

show(["flan/*"], category=None, dataset=None, files=[], as_json=False)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from fnmatch import filter as matching
from pathlib import Path
from typing import Any

import click

from taskmill.commands.figures import count, counted
from taskmill.commands.terminal import Terminal
from taskmill.curation.taxonomy import (
    Neighbours,
    Taxonomy,
    canonical,
    categories,
    is_pattern,
    load_taxonomy,
    taxonomy_files,
)
from taskmill.curation.taxonomy_rows import PARTS, SUFFIXES
from taskmill.errors import UsageError, did_you_mean
from taskmill.recipe import Recipe
from taskmill.safe_yaml import compose_yaml

Row = dict[str, Any]
PAPER = {
    "super_natural_instructions": (1613, 76),
    "promptsource": (280, 51),
    "crossfit": (159, 32),
    "flan": (70, 12),
    "exmix": (14, 10),
    "t5": (36, 9),
    "unifiedskg": (21, 7),
    "reasoning": (14, 1),
}
"""Benchmark -> tasks and clusters in OPT-IML (Iyer et al. 2022), Table 1."""
SHIPPED_NAME = "shipped"
"""What `diff` calls the package's own files."""


# ----------------------------------------------------------------------------------------------- show


def show(
    patterns: Sequence[str], category: str | None, dataset: str | None, files: Sequence[Path], as_json: bool
) -> None:
    """Print the rows that match, or with nothing to match a summary by benchmark.

    Args:
        patterns: task ids, their names without the benchmark, or shell patterns of ids.
        category: only tasks of this category, whatever its case.
        dataset: only tasks of this data set, by any of its names.
        files: taxonomy files above the shipped ones, the weakest first.
        as_json: print one JSON object with the same content.

    Raises:
        UsageError: nothing matches; the message names the nearest.
        RecipeError: a file has mistakes.
    """
    taxonomy = load_taxonomy(taxonomy_files(files))
    if not patterns and category is None and dataset is None:
        _show_summary(summary(taxonomy), as_json)
        return
    rows = rows_of(taxonomy, patterns, category, dataset)
    if as_json:
        click.echo(json.dumps({"rows": rows}, sort_keys=True))
        return
    terminal = Terminal()
    names = ("task", "category", "data set", "corpora", "family", "metric", "licence")
    terminal.table(names, (_cells(row) for row in rows))
    found = len({row["category"] for row in rows if "category" in row})
    terminal.line("")
    terminal.line(f"{counted(len(rows), 'tasks')} in {counted(found, 'categories')}")


def _cells(row: Row) -> list[str]:
    family = row.get("family", "")
    family += f" / {row['subtask']}" if "subtask" in row else ""
    texts = (row.get(name, "") for name in ("category", "dataset"))
    return [
        row["task"],
        *texts,
        ", ".join(row.get("corpora", ())),
        family,
        row.get("metric", ""),
        row.get("license", ""),
    ]


def rows_of(
    taxonomy: Taxonomy, patterns: Sequence[str], category: str | None = None, dataset: str | None = None
) -> list[Row]:
    """Return the rows of tasks that match everything asked for, each with its `task`.

    Raises:
        UsageError: nothing matches.
    """
    tasks = taxonomy.tasks
    chosen = sorted(
        {task for pattern in patterns for task in _matching(taxonomy, tasks, pattern)} if patterns else tasks
    )
    rows = [{"task": task, **taxonomy.row(task)} for task in chosen]
    if category is not None:
        known = {row["category"] for row in rows if "category" in row}
        rows = [row for row in rows if row.get("category", "").casefold() == category.casefold()]
        if not rows:
            raise UsageError(f"no task here has the category {category!r}{did_you_mean(category, known)}")
    if dataset is not None:
        aliases = taxonomy.aliases
        known = {row["dataset"] for row in rows if "dataset" in row}
        wanted = canonical(dataset, aliases)
        rows = [row for row in rows if canonical(row.get("dataset", ""), aliases) == wanted]
        if not rows:
            raise UsageError(
                f"no task here is made from the data set {dataset!r}{did_you_mean(wanted, known)}"
            )
    return rows


def _matching(taxonomy: Taxonomy, tasks: Sequence[str], pattern: str) -> list[str]:
    """Return the tasks that one pattern means.

    Raises:
        UsageError: none.
    """
    if is_pattern(pattern):
        found = matching(tasks, pattern)
    else:
        found = [task for task in tasks if task == pattern or task.endswith(f"/{pattern}")]
        if not found and "/" in pattern and taxonomy.row(pattern):
            found = [pattern]
    if not found:
        raise UsageError(f"no task with a row matches {pattern!r}{Neighbours(tasks).hint(pattern)}")
    return found


def summary(taxonomy: Taxonomy) -> Row:
    """Return tasks, categories and data sets of each benchmark, with OPT-IML's figures beside them, and of all."""
    rows = [{"task": task, **taxonomy.row(task)} for task in taxonomy.tasks if "/" in task]
    benchmarks: dict[str, list[Row]] = {}
    for row in rows:
        benchmarks.setdefault(row["task"].partition("/")[0], []).append(row)
    order = [name for name in PAPER if name in benchmarks] + sorted(benchmarks.keys() - PAPER.keys())
    listed = []
    for name in order:
        tasks, clusters = PAPER.get(name, (None, None))
        listed.append(
            {"benchmark": name, **_counts(benchmarks[name]), "paper_tasks": tasks, "paper_clusters": clusters}
        )
    used = {row["category"] for row in rows if "category" in row}
    return {
        "benchmarks": listed,
        "all": _counts(rows),
        "unused_categories": sorted(categories().keys() - used),
    }


def _counts(rows: Iterable[Row]) -> dict[str, int]:
    rows = list(rows)
    return {
        "num_tasks": len(rows),
        "num_categories": len({row["category"] for row in rows if "category" in row}),
        "num_datasets": len({row["dataset"] for row in rows if "dataset" in row}),
    }


def _show_summary(body: Row, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(body, sort_keys=True))
        return
    terminal = Terminal()
    names = ("benchmark", ">tasks", ">categories", ">data sets", ">tasks in OPT-IML", ">clusters in OPT-IML")
    keys = ("num_tasks", "num_categories", "num_datasets", "paper_tasks", "paper_clusters")
    lines = [(row["benchmark"], *(count(row[key]) for key in keys)) for row in body["benchmarks"]]
    terminal.table(names, [*lines, ("all", *(count(body["all"].get(key)) for key in keys))])
    terminal.line("")
    terminal.line("`taskmill taxonomy show PATTERN` lists rows; categories of all benchmarks make one union")


# ---------------------------------------------------------------------------------------------- check


def check(targets: Sequence[str], overrides: tuple[str, ...], as_json: bool) -> bool:
    """Print what is wrong or doubtful in taxonomy files, or in a recipe's; return whether anything is wrong.

    Args:
        targets: taxonomy files, the weakest first, or one recipe; nothing means the shipped files.
        overrides: `key=value` strings, for a recipe.
        as_json: print one JSON object with the same content.

    Raises:
        UsageError: a target is neither a file nor a recipe, or recipes and files are mixed.
        RecipeError, DataError, StorageError: the recipe or its sources cannot be read.
    """
    from taskmill.curation.taxonomy_check import check_files, check_shipped

    files = [Path(target) for target in targets if _is_taxonomy(Path(target))]
    recipes = [target for target in targets if Path(target) not in files]
    if len(recipes) > 1 or (recipes and files):
        raise UsageError(f"expected taxonomy files or one recipe, found {', '.join(targets)}")
    found = (
        _check_recipe(recipes[0], overrides) if recipes else check_files(files) if files else check_shipped()
    )
    if as_json:
        click.echo(json.dumps({"problems": found.problems, "warnings": found.warnings}, sort_keys=True))
    else:
        for line in found.problems:
            click.echo(line)
        for line in found.warnings:
            click.echo(f"warning: {line}")
        click.echo(f"{counted(len(found.problems), 'problems')}, {counted(len(found.warnings), 'warnings')}")
    return bool(found.problems)


def _check_recipe(name: str, overrides: tuple[str, ...]) -> Any:
    from taskmill import recipe_files
    from taskmill.curation.build import SECTIONS
    from taskmill.curation.taxonomy_check import check_recipe
    from taskmill.settings import Settings

    return check_recipe(Settings(recipe_files.find(name, overrides), SECTIONS))


def _is_taxonomy(path: Path) -> bool:
    """Return whether a target is a file that does not look like a recipe."""
    if path.suffix.lower() not in SUFFIXES or path.is_dir():
        return False
    try:
        text = path.read_text(encoding="utf-8") if path.suffix.lower() != ".csv" else ""
        keys = {str(key.value) for key, _ in getattr(compose_yaml(text)[0], "value", ())}
    except (OSError, TypeError, ValueError):  # not UTF-8 and not YAML are ValueErrors
        return True
    return bool(keys & set(PARTS)) or not keys & {field.name for field in fields(Recipe)}


# ----------------------------------------------------------------------------------------------- diff


def diff(old: str, new: str, as_json: bool) -> None:
    """Print which rows and aliases are added, removed and changed from one taxonomy to another.

    Args:
        old: a taxonomy file, or `shipped`. A file beside `shipped` is taken as a recipe does: above the shipped ones.
        new: likewise.
        as_json: print one JSON object with the same content.

    Raises:
        RecipeError: a file has mistakes or is not there.
    """
    body = differences(*(_taxonomy(name, SHIPPED_NAME in (old, new)) for name in (old, new)))
    if as_json:
        click.echo(json.dumps(body, sort_keys=True))
        return
    for task, row in body["added"].items():
        click.echo(f"+ {task}: {_said(row)}")
    for task, row in body["removed"].items():
        click.echo(f"- {task}: {_said(row)}")
    for task, columns in body["changed"].items():
        for column, (before, after) in columns.items():
            click.echo(f"~ {task}.{column}: {_value(before)} -> {_value(after)}")
    for name, (before, after) in body["aliases"].items():
        click.echo(f"~ data set {name}: {_value(before)} -> {_value(after)}")
    rows = ", ".join(f"{len(body[key]):,} {key}" for key in ("added", "removed", "changed"))
    click.echo(f"rows: {rows}; {counted(len(body['aliases']), 'other names')} of data sets")


def _taxonomy(name: str, above_shipped: bool) -> Taxonomy:
    files = [] if name == SHIPPED_NAME else [Path(name)]
    return load_taxonomy(taxonomy_files(files) if above_shipped else files)


def differences(old: Taxonomy, new: Taxonomy) -> Row:
    """Return added and removed rows, changed columns as [before, after], and the same of aliases."""
    before, after = _rows(old), _rows(new)
    changed = {key: _changes(before[key], after[key]) for key in sorted(before.keys() & after.keys())}
    return {
        "added": {key: after[key] for key in sorted(after.keys() - before.keys())},
        "removed": {key: before[key] for key in sorted(before.keys() - after.keys())},
        "changed": {key: columns for key, columns in changed.items() if columns},
        "aliases": _changes(old.aliases, new.aliases),
    }


def _rows(taxonomy: Taxonomy) -> dict[str, Row]:
    """Return what holds of each task with a row, and each pattern as it is written."""
    patterns = {key: dict(layer.rows[key]) for layer in taxonomy.layers for key in layer.patterns}
    return patterns | {task: taxonomy.row(task) for task in taxonomy.tasks}


def _changes(before: Row, after: Row) -> dict[str, list[Any]]:
    names = sorted(before.keys() | after.keys())
    return {
        name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)
    }


def _said(row: Row) -> str:
    return ", ".join(f"{name}={_value(row[name])}" for name in row) or "nothing"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(value) or "nothing"
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
