"""The command `trace`, which follows a text back to what a run was trained on."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def tracing() -> None:
    """Hold the command until `cli` takes it."""


@tracing.command("trace")
@click.argument("given", metavar="TEXT|FILE")
@click.option(
    "--run", "run", type=click.Path(path_type=Path), help="Directory of the run [the only one below runs]."
)
@click.option("--n", type=click.IntRange(1, 64), help="Words a window [the recipe's overlap.n].")
@click.option("-k", "num_shown", type=click.IntRange(min=1), default=3, help="Examples shown of a kind [3].")
@click.option("--workers", type=click.IntRange(min=1), help="Threads to use [all cores].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def trace_command(
    given: str, run: Path | None, n: int | None, num_shown: int, workers: int | None, as_json: bool
) -> None:
    """Say whether a text was trained on: which record, from which source and under which licence, at which update.

    FILE holds one text, or with .jsonl a record a line, each text of which is looked for by itself; - is standard input.
    A text of fewer than n words is compared with whole parts of prompts. The exit code is 0 whether it is found or not.

    \b
    Example:
      taskmill trace "please cancel everything that jonas pike planned on the winter rose for tuesday" --run runs/demo
    """
    from taskmill.commands.tracing.trace import trace

    trace(given, run, n, num_shown, as_json, workers)
