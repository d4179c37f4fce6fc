"""The command `extend`: a benchmark with further sources, in which no example of the first one moves.

Reads V1, the sources of both, and what is added. Writes the run: `recipe/` (V1's recipe), `extends/` (V1's ids and tables),
then the stages up to split, which take from there what holds (`splits.publishing.pins`). Repeated it goes on where it was.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from taskmill import recipe_files
from taskmill.commands.figures import count, counted, visible
from taskmill.commands.progress import outcome_line, show_progress
from taskmill.commands.publishing.additions import join, read_addition
from taskmill.commands.publishing.diff_output import verdict
from taskmill.commands.publishing.package import make_package
from taskmill.commands.publishing.targets import Target, open_target
from taskmill.commands.publishing.upstream import check_upstream
from taskmill.engine import default_workers, leave_pandas_out
from taskmill.errors import DataError, UsageError
from taskmill.recipe import Resolved
from taskmill.runs import RunLock
from taskmill.splits.publishing.checking import require_sound
from taskmill.splits.publishing.comparing.comparison import Comparison, compare, view_of, view_of_tables
from taskmill.splits.publishing.published import IDS, MANIFEST, RECIPE, TABLES, Published, open_published
from taskmill.splits.publishing.rerunning.recipe_bundle import unbundle
from taskmill.splits.publishing.writing.manifest import STAGES
from taskmill.splits.publishing.writing.tables import published_tables, tables_root
from taskmill.stages import Outcome, Walk, remake
from taskmill.storage import file_digest, write_bytes

EXTENDS = "extends"
"""Folder of the run with the benchmark that it extends."""
_OURS = {EXTENDS, RECIPE, ".lock"}


@dataclass(frozen=True)
class Before:
    """The benchmark that grows."""

    target: Target
    published: Published
    run: Resolved | None = None
    """The recipe of the run that it is, which knows where its files lie."""


def extend(
    target: str,
    additions: Sequence[Path],
    run: Path,
    name: str | None,
    data_root: Path | None,
    workers: int | None,
    as_json: bool,
) -> bool:
    """Make a benchmark from another one and further sources; return whether it contains the other one.

    Args:
        target: V1: a run, the folder or manifest of a published benchmark, or owner/name[@REVISION].
        additions: YAML files with what is added; see `additions`.
        run: directory of the new run: new, empty, or an earlier extension of the same V1.
        name: of the new version; by default that of V1.
        data_root: folder with V1's upstream files that are not on the Hub; a run knows its own.
        workers: processes; by default all cores.
        as_json: print one JSON object.

    Raises:
        DecisionNeededError: pairs with an added task wait for a decision.
        UsageError: the target is no benchmark, the run is another one, or an example of V1 would move.
        RecipeError: what is added has problems.
        DataError: an upstream file of V1 is not the one that it was made of.
        DamagedError: a file of V1 is damaged.
        StorageError: the disk refuses, or the Hub cannot be reached.
    """
    leave_pandas_out()
    show_progress()
    added = [read_addition(path) for path in additions]
    with opened(target) as before:
        check_run(run, before.published)
        with RunLock(run):
            keep(before.published, run / EXTENDS)
            resolved = recipe_of(before, run, data_root)
        _check_sources(before, resolved)
    merged = join(resolved, added, name, os.path.join("..", EXTENDS))
    walker = Walk(merged, run, workers or default_workers())
    outcomes = []
    for outcome in remake(walker, STAGES):
        outcomes.append(outcome)
        if not as_json:
            click.echo(outcome_line(outcome))
    found = compared(walker, before.target.label)
    _tell(found, run, outcomes, as_json)
    return found.contained


@contextmanager
def opened(target: str) -> Iterator[Before]:
    """Open V1 in its published form; that of a run lies in a temporary folder.

    Raises:
        UsageError: the target is no benchmark, or a run that cannot be published.
        DamagedError: a file of it is not the one that was published.
        StaleError: see `make_package`.
    """
    found = open_target(target)
    if found.kind == "published":
        published = open_published(found.path)
        require_sound(published, IDS, TABLES)
        yield Before(found, published)
        return
    with tempfile.TemporaryDirectory(prefix="taskmill-extend-") as folder:
        published = make_package(found.path, Path(folder), False, False, None)
        yield Before(found, published, recipe_files.from_json(found.path))


def check_run(run: Path, published: Published) -> None:
    """Refuse a directory that holds anything but an earlier extension of the same benchmark.

    Raises:
        UsageError: it does.
    """
    if run.exists() and not run.is_dir():
        raise UsageError(f"{run} is a file; choose a directory for the run with --run DIR")
    here = {path.name for path in run.iterdir()} if run.is_dir() else set()
    mark = run / EXTENDS / MANIFEST
    if mark.is_file():
        root = open_published(mark).root
        if root != published.root:
            raise UsageError(
                f"{run} extends another version than this one: its root is {root[:16]}, here it is {published.root[:16]}; "
                f"choose a new directory with --run DIR"
            )
    elif here - _OURS:
        raise UsageError(
            f"{run} holds {min(here - _OURS)} and is no earlier extension of {published.body['name']}; choose a new "
            f"directory with --run DIR"
        )


def keep(published: Published, folder: Path) -> None:
    """Copy what a benchmark pins, its manifest first, into the folder of a run; what is there already stays.

    Raises:
        DamagedError: a file is missing, a link, or not the one that was published.
        StorageError: the disk refuses.
    """
    write_bytes(folder / MANIFEST, (published.folder / MANIFEST).read_bytes())
    for entry in published.files:
        place = folder / entry.path
        if entry.path.split("/")[0] not in (IDS, TABLES) or not entry.path.endswith(".parquet"):
            continue
        if not place.is_file() or file_digest(place) != entry.sha256:
            write_bytes(place, published.content(entry))


def recipe_of(before: Before, run: Path, data_root: Path | None) -> Resolved:
    """Write V1's recipe into `run/recipe/` and return it; the sources of a run lie where they are, unless `data_root` is said.

    Raises:
        UsageError: files are needed and no folder is given; see `unbundle`.
        DamagedError: see `unbundle`.
    """
    if before.run is None or data_root is not None:
        return unbundle(before.published, run, data_root)
    root = before.run.path(before.run.recipe.data_root)
    resolved = unbundle(before.published, run, root)
    read = [not source.get("missing") for source in before.published.body["sources"]]
    own = itertools.compress(before.run.recipe.sources, read)
    paths = [source.path if source.hub else os.path.normpath(root / source.path) for source in own]
    sources = tuple(replace(s, path=p) for s, p in zip(resolved.recipe.sources, paths, strict=True))
    return replace(resolved, recipe=replace(resolved.recipe, sources=sources))


def _check_sources(before: Before, resolved: Resolved) -> None:
    """Check that V1's upstream files are those that it was made of; those of a run outside of its data_root are told by curate.

    Raises:
        DataError: one is not; the message names every such file, and the first record that differs.
    """
    root = resolved.path(resolved.recipe.data_root)
    if not all(source.hub or (root / source.path).is_relative_to(root) for source in resolved.recipe.sources):
        return
    upstream = check_upstream(before.published, resolved)
    if upstream.problems:
        lines = [
            f"{before.target.label}: its upstream files are not those that it was made of; nothing was built"
        ]
        lines += upstream.problems
        if upstream.first is not None:
            lines += ["The first record that differs:", *(f"  {line}" for line in upstream.first.lines())]
        raise DataError("\n".join(lines))


def compared(walker: Walk, label: str) -> Comparison:
    """Compare the tables of the run with those that it extends, which `label` calls as the user does.

    Raises:
        DamagedError: a table is damaged.
    """
    before = view_of(open_published(walker.run / EXTENDS), label)
    tables = published_tables(walker.inputs("render"), walker.resolved)
    recipe = {**before.recipe, "name": walker.resolved.recipe.name}
    return compare(
        before, view_of_tables(tables, tables_root(tables), before.sources, recipe, str(walker.run))
    )


# --------------------------------------------------------------------------------------------- telling


def _tell(found: Comparison, run: Path, outcomes: Sequence[Outcome], as_json: bool) -> None:
    before, after, tables = found.before, found.after, found.tables
    changes = tables["examples_cleanness"].to_pylist()
    num_unclean = sum(row["clean_before"] and not row["clean_after"] for row in changes)
    if as_json:
        body: dict[str, Any] = {
            "run": str(run),
            "name": after.name,
            "root": after.root,
            "extends": {"target": before.label, "name": before.name, "root": before.root},
            "contained": found.contained,
            "problems": found.problems,
            "num_examples": {"before": before.ids.num_rows, "added": tables["examples_added"].num_rows},
            "num_tasks": {"before": before.tasks.num_rows, "added": tables["tasks_added"].num_rows},
            "num_decisions": {
                "before": before.decisions.num_rows,
                "added": tables["decisions_added"].num_rows,
            },
            "num_moved": tables["examples_moved"].num_rows,
            "num_unclean": num_unclean,
            "stages": [outcome.to_json() for outcome in outcomes],
        }
        click.echo(json.dumps(body, sort_keys=True))
        return
    sides = f"\nA is {before.name} ({before.label}), B is {after.name} ({run})"
    for line in [sides, *verdict(before, after, found.problems)]:
        click.echo(visible(line))
    idle = tables["tasks_added"]["role"].to_pylist().count("excluded")
    note = f" ({count(idle)} without a part, `taskmill inspect {run} split` says why)" if idle else ""
    click.echo(
        f"added: {counted(tables['tasks_added'].num_rows, 'tasks')}{note}, "
        f"{counted(tables['examples_added'].num_rows, 'examples')}, "
        f"{counted(tables['decisions_added'].num_rows, 'decisions')}"
    )
    if num_unclean:
        click.echo(
            f"no longer clean: {counted(num_unclean, 'evaluation examples')} of A, beside added train text that was kept"
        )
    if found.contained:
        click.echo(f"publish it: taskmill publish {run} OWNER/NAME --tag v2")
