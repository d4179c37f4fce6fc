"""Commands that look at a run: each reads finished directories and changes no stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.group()
def views() -> None:
    """Hold the commands until `cli` takes them."""


@views.command("inspect")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("stage", required=False)
@click.option("--task", help="Only this task, or tasks matching this pattern.")
@click.option("--example", help="Follow this example from its upstream record to tokens.")
@click.option("-n", "count", type=click.IntRange(min=1), default=3, help="How many records [3].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def inspect_command(
    run: Path, stage: str | None, task: str | None, example: str | None, count: int, as_json: bool
) -> None:
    """Show what a stage of RUN holds, or follow one example through all stages.

    \b
    Example:
      taskmill inspect runs/demo render -n 2
    """
    from taskmill.commands.inspect import inspect

    inspect(run, stage, task, example, count, as_json)


@views.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="File to write [RUN/report.html].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def report_command(run: Path, output: Path | None, as_json: bool) -> None:
    """Write one self-contained HTML file about RUN: flow, mixture, overlap, loss, scores.

    \b
    Example:
      taskmill report runs/demo
    """
    from taskmill.report import write_report

    path = write_report(run, output)
    click.echo(json.dumps({"report": str(path)}) if as_json else f"{path}")


@views.command("tasks")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("pattern", required=False)
@click.option("--category", help="Only tasks of this category.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def tasks_command(run: Path, pattern: str | None, category: str | None, as_json: bool) -> None:
    """List the tasks of RUN that match PATTERN: category, counts, groups, licence, suspected aliases.

    \b
    Example:
      taskmill tasks runs/demo "flan/*"
    """
    from taskmill.commands.catalogue import list_tasks

    list_tasks(run, pattern, category, as_json)


@views.command("licenses")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def licenses_command(run: Path, as_json: bool) -> None:
    """List the licences of RUN's tasks, on which ground each is known, and what a licence dropped.

    \b
    Example:
      taskmill licenses runs/demo
    """
    from taskmill.commands.catalogue import list_licenses

    list_licenses(run, as_json)


@views.command("stats")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--by",
    type=click.Choice(["benchmark", "category", "level"]),
    default="benchmark",
    help="What the lines are [benchmark].",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def stats_command(run: Path, by: str, as_json: bool) -> None:
    """Show tasks, categories, examples, templates a task and lengths in words, of conversations also rounds.

    \b
    Example:
      taskmill stats runs/demo --by category
    """
    from taskmill.commands.statistics import show_statistics

    show_statistics(run, by, as_json)


@views.command("audit")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--n", type=click.IntRange(1, 64), help="Words a gram [the recipe's overlap.n].")
@click.option(
    "--normalisation",
    type=click.Choice(["words-1", "gpt3", "lm-eval", "tokenizer"]),
    help="How prompts are cut into words [the recipe's overlap.normalisation].",
)
@click.option("-k", "num_shown", type=click.IntRange(min=0), default=10, help="Pairs shown of a kind [10].")
@click.option("--strict", is_flag=True, help="Exit with code 1 when a leak is left.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads to use [all cores].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def audit_command(run: Path, strict: bool, **options: Any) -> None:
    """Compare RUN's finished train prompts with its test prompts: 13-grams of the instantiated text.

    This is OPT-IML's own check, template text included, beside the content figures of the same pairs. What
    the two disagree on is template text; content that the decisions left above the threshold is a leak.

    \b
    Example:
      taskmill audit runs/demo
    """
    from taskmill.commands.audit import audit

    if audit(run, strict=strict, **options):
        raise SystemExit(1)


@views.command("compare")
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


@views.command("trace")
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


# ------------------------------------------------------------------------------------------- decisions


@views.group("decisions")
def decisions_group() -> None:
    """List the overlapping pairs of a run and decide them: needs the stage overlap, and no other.

    An action is keep, drop_train_task, drop_eval_task, drop_train_examples or drop_eval_examples. People's decisions win
    over rules, and hold while the evidence is the one that they judged.

    \b
    Example:
      taskmill decisions list runs/demo
    """


@decisions_group.command("list")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("pattern", required=False)
@click.option(
    "--state",
    type=click.Choice(["all", "undecided", "outdated", "person", "rule", "dropped", "below"]),
    default="all",
    help="Only pairs of this state: waiting, waiting again, decided by a person or by a rule, of a dropped task, "
    "or below the threshold [all].",
)
@click.option("-n", "count", type=click.IntRange(min=1), default=40, help="How many pairs [40].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def decisions_list(run: Path, pattern: str | None, state: str, count: int, as_json: bool) -> None:
    """List the pairs of RUN, the worst first: figures, state, decision, and how to continue.

    PATTERN is a shell pattern of task ids; a pair is listed when one of its tasks fits.

    \b
    Example:
      taskmill decisions list runs/demo --state undecided
    """
    from taskmill.commands.decisions import list_pairs

    list_pairs(run, pattern, state, count, as_json)


@decisions_group.command("set")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("train_task")
@click.argument("eval_task")
@click.argument("action")
@click.option("--why", default="", help="The reason, written beside the decision.")
@click.option("--by", help="Who decides [login name].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def decisions_set(
    run: Path, train_task: str, eval_task: str, action: str, why: str, by: str | None, as_json: bool
) -> None:
    """Decide the pair of TRAIN_TASK and EVAL_TASK on its present evidence.

    Either may be a shell pattern: then every pair that fits and waits for a decision is decided. Two full names decide
    their pair whatever its state, over rules and earlier decisions.

    \b
    Example:
      taskmill decisions set runs/demo flan/harbour_news promptsource/harbour_news drop_train_examples --why "same passages"
    """
    from taskmill.commands.deciding import set_action

    set_action(run, train_task, eval_task, action, why, by, as_json)


@decisions_group.command("apply")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def decisions_apply(run: Path, file: Path, as_json: bool) -> None:
    """Take the rows of FILE that have an action into RUN's decisions.

    FILE is a filled undecided.csv, a suggested.csv, or the decisions.csv of another run. Rows that judged other evidence
    than the present one are refused and named, the others are taken; exit code 1 when any was refused.

    \b
    Example:
      taskmill decisions apply runs/demo runs/demo/undecided.csv
    """
    from taskmill.commands.deciding import apply

    if not apply(run, file, as_json):
        raise SystemExit(1)


@decisions_group.command("merge")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--prefer", metavar="FILE|newest", help="Whose row wins where files contradict each other.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def decisions_merge(run: Path, files: tuple[Path, ...], prefer: str | None, as_json: bool) -> None:
    """Unite the decisions in each FILE with those of RUN.

    Equal decisions become one with everybody's name. Different ones about a pair are listed with who and why, nothing
    is written and the exit code is 3, unless --prefer says who wins. Rows on other evidence are refused as by `apply`.

    \b
    Example:
      taskmill decisions merge runs/demo ann.csv bob.csv --prefer newest
    """
    from taskmill.commands.deciding import merge

    if not merge(run, files, prefer, as_json):
        raise SystemExit(1)
