"""The command `rebuild`: make a published benchmark again from its pinned sources, and say whether every row is the same.

Reads the published benchmark and the upstream files; writes the run: `RUN/recipe/`, then the stages up to split, and render where
prompts were published; with --hydrate also a folder with the texts (`hydrating`). Repeated after an interruption it goes on
where it was.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from taskmill.artifact import Inputs
from taskmill.commands.export_folder import check_folder
from taskmill.commands.figures import count, counted, visible
from taskmill.commands.progress import outcome_line, show_progress
from taskmill.commands.publishing.explaining import Difference, explain, explain_early, reasons
from taskmill.commands.publishing.hydrating import KIND as HYDRATED
from taskmill.commands.publishing.hydrating import hydrate
from taskmill.commands.publishing.targets import Target, open_target
from taskmill.commands.publishing.upstream import Upstream, check_upstream
from taskmill.engine import default_workers, leave_pandas_out
from taskmill.errors import DecisionNeededError, UsageError
from taskmill.runs import RunLock
from taskmill.splits.deciding.decision_files import FILE as DECISIONS
from taskmill.splits.publishing.published import (
    DATA,
    MANIFEST,
    RECIPE,
    Published,
    open_published,
    rows_root,
    table_path,
)
from taskmill.splits.publishing.rerunning.recipe_bundle import check_bundle, unbundle
from taskmill.splits.publishing.writing.manifest import STAGES, allowed_tasks
from taskmill.splits.publishing.writing.prompts_table import write_prompts
from taskmill.splits.publishing.writing.tables import published_tables, tables_root
from taskmill.stages import Outcome, Walk, remake
from taskmill.storage import FileEntry, is_stray


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild came to."""

    same: bool
    """Whether every row is the one that was published."""
    body: dict[str, Any]
    """The object of --json."""
    lines: list[str]


def rebuild(
    target: str,
    run: Path,
    data_root: Path | None,
    workers: int | None,
    as_json: bool,
    hydrate_to: Path | None = None,
) -> bool:
    """Rebuild a published benchmark in a run and print what it came to; return whether every row is the same.

    Args:
        target, run, data_root, workers, hydrate_to: see `rebuilt`.
        as_json: print one JSON object.

    Raises:
        UsageError, DamagedError, DataError, StorageError: see `rebuilt`.
    """
    leave_pandas_out()
    show_progress()
    said = (lambda outcome: None) if as_json else (lambda outcome: click.echo(outcome_line(outcome)))
    found = rebuilt(target, run, data_root, workers, hydrate_to, said)
    for line in [json.dumps(found.body, sort_keys=True)] if as_json else found.lines:
        click.echo(visible(line))
    return found.same


def rebuilt(
    target: str,
    run: Path,
    data_root: Path | None = None,
    workers: int | None = None,
    hydrate_to: Path | None = None,
    said: Callable[[Outcome], None] = lambda outcome: None,
) -> Rebuilt:
    """Rebuild a published benchmark in a run.

    Args:
        target: the folder or manifest of a published benchmark, or owner/name[@REVISION].
        run: directory of the run: new, empty, or an earlier rebuild of the same benchmark.
        data_root: folder with the upstream files that are not on the Hub.
        workers: processes; by default all cores.
        hydrate_to: folder for the published rows with their texts, written when the rows are the same; see `hydrate`.
        said: called with each stage that ends.

    Raises:
        UsageError: the target is no published benchmark, the run is another one, or upstream files are nowhere.
        DamagedError: a file of the published benchmark is not what the manifest states.
        DataError, StorageError: see `open_target`, and what the stages raise.
    """
    found = open_target(target)
    if found.kind == "run":
        raise UsageError(
            f"{target} is no published benchmark; expected the folder or {MANIFEST} of one (`taskmill export benchmark RUN DIR` "
            f"makes it from a run), or owner/name[@REVISION] on the Hub"
        )
    published = open_published(found.path)
    check_run(run, published)
    check_bundle(published, data_root)
    if hydrate_to is not None:
        check_folder(hydrate_to, run, HYDRATED)
    with RunLock(run):
        resolved = unbundle(published, run, data_root)
    upstream = check_upstream(published, resolved)
    if upstream.problems:
        return _other_upstream(upstream, found, run)
    names = (*STAGES, "render") if published.body["prompts_root"] is not None else STAGES
    walker = Walk(resolved, run, workers or default_workers())
    outcomes = []
    try:
        for outcome in remake(walker, names):
            said(outcome)
            outcomes.append(outcome)
    except DecisionNeededError as error:
        differences = explain_early(published, walker.inputs("split"))
        if not differences:
            raise
        roots = {stage: walker.inputs("split").manifest(stage).root for stage in ("curate", "overlap")}
        result = {"root": None, "waiting": str(error).splitlines()[0]}
        return _other(published, found, run, result, differences, reasons(published, roots, ()))
    return _compare(published, found, walker, outcomes, hydrate_to)


def check_run(run: Path, published: Published) -> None:
    """Refuse a directory that holds anything but an earlier rebuild of the same benchmark.

    Raises:
        UsageError: it does.
    """
    if run.exists() and not run.is_dir():
        raise UsageError(f"{run} is a file; choose a directory for the run with --run DIR")
    mark = Path(RECIPE) / "recipe.json"
    stated = (published.folder / mark).read_bytes() if (published.folder / mark).is_file() else None
    here = (run / mark).read_bytes() if (run / mark).is_file() else None
    if here is not None and here != stated:
        raise UsageError(
            f"{run} is a rebuild of another benchmark, or of another version of {published.body['name']}; choose a new "
            "directory with --run DIR"
        )
    if here is None and run.is_dir():
        taken = sorted(p.name for p in run.iterdir() if p.name != ".lock")
        if taken == [RECIPE]:  # of an earlier rebuild that was ended at once
            taken = sorted(p.name for p in (run / RECIPE).iterdir() if not is_stray(p))
        if taken:
            raise UsageError(
                f"{run} holds {taken[0]} and is no earlier rebuild of {published.body['name']}; choose a new directory "
                "with --run DIR"
            )
    used = published.folder / RECIPE / DECISIONS
    mine = run / DECISIONS
    if mine.is_file() and (not used.is_file() or used.read_bytes() != mine.read_bytes()):
        raise UsageError(
            f"{mine} is not the file that was published: somebody decided in this run; rebuild in a new directory"
        )


def _compare(
    published: Published, found: Target, walker: Walk, outcomes: list[Outcome], hydrate_to: Path | None
) -> Rebuilt:
    inputs = walker.inputs("mix")
    tables = published_tables(inputs, walker.resolved)
    result: dict[str, Any] = {"root": tables_root(tables)}
    differences: list[Difference] = []
    why: list[str] = []
    roots = {outcome.stage: outcome.manifest.root for outcome in outcomes if outcome.manifest is not None}
    if result["root"] != published.root:
        differences = explain(published, tables, roots)
        why = reasons(published, roots, [one.table for one in differences])
    if published.body["prompts_root"] is not None:
        files = prompt_files(published, inputs, tables[table_path("tasks")])
        result["prompts_root"] = rows_root(files, DATA)
        if result["prompts_root"] != published.body["prompts_root"]:
            why += _other_prompts(published, files)
            why += [line for line in reasons(published, roots, ()) if line not in why]
    stated = _stated(published)
    if any(result[name] != stated[name] for name in stated if name in result):
        made = _other(published, found, walker.run, result, differences, why)
        unwritten = [] if hydrate_to is None else [f"{hydrate_to} was not written: the rows are others"]
        return replace(made, lines=[*made.lines, *unwritten])
    body = {**_body(published, found, walker.run, result, [], []), "same": True}
    if hydrate_to is not None:
        del tables
        body["hydrated"] = {"folder": str(hydrate_to), **hydrate(published, walker.run, hydrate_to)}
    return Rebuilt(True, body, _told_same(published, walker.run, body))


def prompt_files(published: Published, inputs: Inputs, tasks: pa.Table) -> list[FileEntry]:
    """Return the entries that the run's prompts would have when they were published as these were."""
    licenses = {entry["license"]: entry["with_data"] for entry in published.body["licenses"]}
    allowed = allowed_tasks(tasks, lambda license: licenses.get(license, False))
    with tempfile.TemporaryDirectory(prefix="taskmill-prompts-") as folder:
        return write_prompts(inputs, tasks, allowed, Path(folder))


def _other_prompts(published: Published, files: list[FileEntry]) -> list[str]:
    before = {entry.path: entry for entry in published.files if entry.path.startswith(f"{DATA}/")}
    after = {entry.path: entry for entry in files}
    lines = []
    for path in sorted(before.keys() | after.keys()):
        rows = [side[path].rows if path in side else None for side in (before, after)]
        if rows[0] != rows[1]:
            sizes = [
                f"{side[path].num_rows:,} rows" if path in side else "not there" for side in (before, after)
            ]
            lines.append(f"{path}: other prompts (published: {sizes[0]}; rebuilt: {sizes[1]})")
    return lines


# ------------------------------------------------------------------------------------------- telling


def _other_upstream(upstream: Upstream, found: Target, run: Path) -> Rebuilt:
    body = {**_names(found, run), "same": False, "upstream": upstream.problems}
    body["difference"] = asdict(upstream.first) if upstream.first else None
    first = upstream.first.lines() if upstream.first is not None else []
    lines = [
        *upstream.problems,
        *(["", "The first record that differs:", *(f"  {line}" for line in first)] if first else []),
        "",
        f"{found.label}: the upstream files are not those that it was made of; nothing was built",
    ]
    return Rebuilt(False, body, lines)


def _names(found: Target, run: Path) -> dict[str, Any]:
    return {"target": found.label, "commit": found.commit, "run": str(run)}


def _stated(published: Published) -> dict[str, Any]:
    return {"root": published.root, "prompts_root": published.body["prompts_root"]}


def _body(
    published: Published,
    found: Target,
    run: Path,
    result: Mapping[str, Any],
    differences: list[Difference],
    why: list[str],
) -> dict[str, Any]:
    body = {**_names(found, run), **result, "same": False, "published": _stated(published), "upstream": []}
    body |= {"why": why, "difference": asdict(differences[0]) if differences else None}
    return {**body, "tables": {one.table: one.counts for one in differences}}


def _told_same(published: Published, run: Path, made: Mapping[str, Any]) -> list[str]:
    """Return what is said of a rebuild with the published rows."""
    body = published.body
    total = sum(number for splits in body["levels"].values() for number in splits.values())
    lines = [
        "",
        f"{run} is {body['name']} as it was published, row for row: {counted(total, 'examples')}",
        *(f"  {name:<12}  {made[name]}" for name in ("root", "prompts_root") if made.get(name)),
    ]
    if "hydrated" in made:
        folder, level = made["hydrated"]["folder"], made["hydrated"]["configurations"][:1]
        lines += [
            f"{folder} holds the same rows with their texts, of every licence; it is not for publishing",
            *(f"  load_dataset({json.dumps(folder)}, {json.dumps(name)})" for name in level),
        ]
    lines += ["", "Next:"]
    if not made.get("prompts_root"):
        lines.append(f"  taskmill render {run}  # the prompts of every level")
    lines.append(f"  taskmill inspect {run} split  # what lies where")
    lines.append(f"  taskmill run {run}  # train and evaluate on it")
    if "hydrated" not in made:
        lines.append("  the same command with --hydrate DIR  # the rows with their texts, for load_dataset")
    return lines


def _other(
    published: Published,
    found: Target,
    run: Path,
    result: Mapping[str, Any],
    differences: list[Difference],
    why: list[str],
) -> Rebuilt:
    """Return what a rebuild with other rows came to."""
    lines = ["", f"{run} is not {found.label} as it was published."]
    lines += [
        f"  {name}: published {value}, rebuilt {result[name] or 'none: ' + result['waiting']}"
        for name, value in _stated(published).items()
        if name in result and result[name] != value
    ]
    if differences:
        lines += ["The first record that differs:", *(f"  {line}" for line in differences[0].lines())]
    lines += [f"Why: {line}" for line in why]
    for one in differences:
        said = ", ".join(f"{count(number)} {kind}" for kind, number in one.counts.items() if number)
        lines.append(f"  {one.table}: {said}")
    return Rebuilt(False, _body(published, found, run, result, differences, why), lines)
