"""The command `verify`: whether every file of a run or of a published benchmark is the one that was written.

Of a run the recipe is read too, and people's decisions are compared with those that the split was made with. Writes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from taskmill.artifact import read_manifest
from taskmill.commands.figures import counted, visible
from taskmill.commands.publishing.targets import Target, open_target
from taskmill.errors import DamagedError, UsageError
from taskmill.recipe_files import from_json
from taskmill.records import DIRECTORIES
from taskmill.splits.deciding.decision_files import FILE as DECISIONS
from taskmill.splits.deciding.decision_files import decisions_digest, read_decisions
from taskmill.splits.publishing.checking import verify_published
from taskmill.splits.publishing.published import open_published
from taskmill.stages import verify as verify_stages
from taskmill.storage import read_table


def verify(target: str, as_json: bool) -> bool:
    """Print what differs from the manifests; return whether nothing does.

    Args:
        target: RUN, the folder or manifest of a published benchmark, or owner/name[@REVISION].
        as_json: print one JSON object.

    Raises:
        UsageError: the target is neither a run nor a published benchmark.
        DataError, StorageError: see `open_target`.
    """
    found, body = _verified(target)
    if as_json:
        click.echo(json.dumps(body, sort_keys=True))
        return not body["problems"]
    for line in body["problems"]:
        click.echo(visible(line))
    click.echo(f"{counted(body['files'], 'files checked')}, {counted(len(body['problems']), 'problems')}")
    if "root" in body:
        click.echo(f"root digest {body['root']}")
    if body["problems"] and found.commit is not None:
        click.echo(
            f"{found.label} was checked as it lies in {found.path}; delete that folder to fetch it again"
        )
    return not body["problems"]


def verified(target: str) -> dict[str, Any]:
    """Return what differs from the manifests: the object of --json.

    Args:
        target: RUN, the folder or manifest of a published benchmark, or owner/name[@REVISION].

    Raises:
        UsageError: the target is neither a run nor a published benchmark.
        DataError, StorageError: see `open_target`.
    """
    return _verified(target)[1]


def _verified(target: str) -> tuple[Target, dict[str, Any]]:
    found = open_target(target, whole=True)
    if found.kind == "run":
        problems, num_files = verify_run(found.path)
    else:
        problems, num_files = verify_published(found.path)
    body = {"files": num_files, "problems": problems, "run" if found.kind == "run" else "target": target}
    if found.kind == "published" and not problems:
        body["root"] = open_published(found.path).root
    if found.commit is not None:
        body["commit"] = found.commit
    return found, body


def verify_run(run: Path) -> tuple[list[str], int]:
    """Check every finished stage of a run, its recipe, and that its split is made with the decisions that are there.

    Returns:
        one line per problem, and the number of files that manifests name.

    Raises:
        UsageError: the folder holds no finished stage.
    """
    problems, num_files = verify_stages(run)
    if (run / "recipe.json").exists():
        try:
            from_json(run)
        except UsageError as error:
            problems.append(str(error))
    try:
        problems += _other_decisions(run)
    except DamagedError:
        pass  # a manifest or table, which is among the problems
    except UsageError as error:
        problems += str(error).split("\n")
    return problems, num_files


def _other_decisions(run: Path) -> list[str]:
    """Return a problem where decisions.csv does not say what the split was made with.

    Raises:
        DamagedError: a manifest or a table is damaged.
        UsageError: the decisions cannot be read.
    """
    split, overlap = (read_manifest(run / DIRECTORIES[stage]) for stage in ("split", "overlap"))
    used = split.body["external"].get("decisions") if split is not None else None
    path = run / DECISIONS
    if used is None or overlap is None:
        return []
    if not path.is_file():
        missing = f"{path}: missing; the split was made with the decisions in it"
        return [missing] if used != decisions_digest([]) else []
    plan = read_table(overlap.directory / "plan.parquet", ["task"])
    if decisions_digest(read_decisions(path, plan["task"].to_pylist())) == used:
        return []
    return [
        f"{path}: not the decisions that the split was made with; `taskmill split {run} --force` applies them"
    ]
