"""The command `verify`: whether every file of a run or of a published benchmark is the one that was written."""

from __future__ import annotations

import json
from pathlib import Path

import click

from taskmill.commands.figures import counted
from taskmill.stages import verify as verify_run


def verify(target: str, as_json: bool) -> bool:
    """Print what differs from the manifests; return whether nothing does.

    Raises:
        UsageError: the target is neither a run nor a published benchmark.
    """
    problems, num_files = verify_run(Path(target))
    if as_json:
        click.echo(json.dumps({"files": num_files, "problems": problems, "run": target}, sort_keys=True))
    else:
        for line in problems:
            click.echo(line)
        click.echo(f"{counted(num_files, 'files checked')}, {counted(len(problems), 'problems')}")
    return not problems
