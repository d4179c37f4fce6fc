"""Commands on scores: models against one another, and scores as tables for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from taskmill.cli_exports import export_group


@click.group()
def score_commands() -> None:
    """Hold the commands until `cli` takes them."""


@score_commands.command("compare")
@click.argument("models", nargs=-1, metavar="RUN_A RUN_B ...")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Also write every row to this file.")
@click.option(
    "--tasks", "num_tasks", type=click.IntRange(min=0), default=20, help="How many tasks to show [20]."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def compare_command(models: tuple[str, ...], csv_file: Path | None, num_tasks: int, as_json: bool) -> None:
    """Say whether RUN_B is better than RUN_A, by level, category and task: differences, intervals, p-values.

    A run stands for its trained model; RUN@initial is the model before training, RUN@step-000500 a checkpoint. Compared are
    the prompts that both answered; further runs are compared with RUN_A each.

    \b
    Example:
      taskmill compare runs/demo@initial runs/demo
    """
    from taskmill.commands.scoring.compare import compare_runs

    compare_runs(models, as_json, csv_file, num_tasks)


@export_group.command("scores")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--predictions", is_flag=True, help="Write every prediction too.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def export_scores_command(run: Path, folder: Path, as_json: bool, **options: Any) -> None:
    """Write RUN's scores into DIR: scores.csv, scores.parquet, and scores.md to read or paste.

    Scores by level, category, benchmark and task, each with its interval and beside it the score over clean examples.

    \b
    Example:
      taskmill export scores runs/demo scores
    """
    from taskmill.commands.scoring.export_scores import export_scores

    export_scores(run, folder, as_json=as_json, **options)
