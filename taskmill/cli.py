"""The command line: every command imports what it needs inside its body, so that help and completion are quick.

stdout carries the result, or one JSON object with --json; stderr carries progress and messages. Exit codes: 0 done or up
to date, 1 failed, 2 wrong usage or recipe, 3 stopped for a person, 130 and 143 interrupted with the state safe.
"""

from __future__ import annotations

import functools
import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from taskmill import __version__
from taskmill.errors import TaskmillError
from taskmill.stages import NAMES, STAGES

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="taskmill")
def cli() -> None:
    """Build instruction-tuning benchmarks whose held-out splits are really held out, and train on them.

    RECIPE is a YAML file, a shipped recipe's name, or the directory of a run.

    \b
    Example:
      taskmill run demo
    """


def stage_options(function: Command) -> Command:
    """Add the options that every stage command has."""
    options = [
        click.argument("recipe"),
        click.option(
            "--run", "run", type=click.Path(path_type=Path), help="Directory of the run [runs/NAME]."
        ),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the recipe."
        ),
        click.option("--limit", type=click.IntRange(min=1), help="Read at most N examples of a task."),
        click.option("--workers", type=click.IntRange(min=1), help="Processes to use [all cores]."),
        click.option("--engine", type=click.Choice(["local"]), default="local", help="Where shards run."),
        click.option("--force", is_flag=True, help="Redo what was built from other settings or data."),
        click.option("--dry-run", is_flag=True, help="Say what would be done and write nothing."),
        click.option("--quiet", is_flag=True, help="No progress on stderr."),
        click.option(
            "--json", "as_json", is_flag=True, help="Print the result as one JSON object; nothing on failure."
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _walk(names: tuple[str, ...], options: dict[str, Any], predict_only: bool = False) -> Path:
    """Bring stages up to date, saying what each came to; returns the run's directory."""
    from taskmill import recipe_files
    from taskmill.engine import default_workers, leave_pandas_out
    from taskmill.stages import Walk, run_directory, walk

    leave_pandas_out()
    _progress(options["quiet"])
    overrides = tuple(options["overrides"])
    if options["limit"]:
        overrides += (f"limit={options['limit']}",)
    resolved = recipe_files.find(options["recipe"], overrides)
    run = run_directory(options["recipe"], resolved.recipe.name, options["run"])
    walker = Walk(resolved, run, options["workers"] or default_workers(), options["force"])
    walker.predict_only = predict_only
    outcomes = []
    for outcome in walk(walker, names, options["dry_run"]):
        outcomes.append(outcome)
        if not options["as_json"]:
            click.echo(_describe(outcome))
    if options["as_json"]:
        click.echo(json.dumps({"run": str(run), "stages": [o.to_json() for o in outcomes]}, sort_keys=True))
    elif all(o.status == "up to date" for o in outcomes):
        click.echo(f"{run}: everything is up to date")
    return run


def _describe(outcome: Any) -> str:
    """Return one line: stage, status, counts with their names, drops by reason."""
    from taskmill.commands.figures import counted, words

    body = outcome.to_json()
    counts = ", ".join(counted(v, k) for k, v in sorted(body["counts"].items()) if v)
    dropped = ", ".join(f"{v:,} {words(k)}" for k, v in sorted(body["dropped"].items()) if v)
    line = f"{outcome.stage:<9} {outcome.status:<10}"
    if outcome.detail:
        return f"{line} {outcome.detail}"
    if counts:
        line += f" {counts}"
    if dropped:
        line += f" | dropped: {dropped}"
    return line.rstrip()


def _progress(quiet: bool) -> None:
    logger = logging.getLogger("taskmill")
    logger.handlers.clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


@cli.command("run")
@stage_options
@click.option("--from", "first", metavar="STAGE", help=f"First stage [{NAMES[0]}].")
@click.option("--to", "last", metavar="STAGE", help=f"Last stage [{NAMES[-1]}].")
def run_command(first: str | None, last: str | None, **options: Any) -> None:
    """Run every stage of RECIPE, skipping what is up to date.

    \b
    Example:
      taskmill run demo --to split
    """
    from taskmill.stages import span

    names = span(first, last)
    run = _walk(names, options)
    if not options["dry_run"] and not options["as_json"] and names[-1] == NAMES[-1]:
        from taskmill.commands.inspect import show_scores

        show_scores(run)
        click.echo(
            f"\nNext: `taskmill report {run}` writes a page about it all, `taskmill inspect {run}` shows examples."
        )


def _add_stage(name: str, help_text: str) -> None:
    @stage_options
    def command(**options: Any) -> None:
        _walk((name,), options)

    command.__doc__ = f"{help_text}\n\n\b\nExample:\n  taskmill {name} demo\n"
    cli.command(name)(command)


def _add_evaluate(help_text: str) -> None:
    @stage_options
    @click.option(
        "--predict-only", is_flag=True, help="Write predictions without scores, to be scored by a later call."
    )
    def command(predict_only: bool, **options: Any) -> None:
        _walk(("evaluate",), options, predict_only)

    command.__doc__ = f"{help_text}\n\n\b\nExample:\n  taskmill evaluate demo\n"
    cli.command("evaluate")(command)


for _stage in STAGES:
    if _stage.name == "evaluate":
        _add_evaluate(_stage.help)
    else:
        _add_stage(_stage.name, _stage.help)


# ---------------------------------------------------------------------------------------------- views


@cli.command("verify")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def verify_command(run: Path, as_json: bool) -> None:
    """Check every file of RUN against its manifest: bytes, digests and rows.

    \b
    Example:
      taskmill verify runs/demo
    """
    from taskmill.commands.figures import counted
    from taskmill.stages import verify

    problems, num_files = verify(run)
    if as_json:
        click.echo(json.dumps({"files": num_files, "problems": problems, "run": str(run)}, sort_keys=True))
    else:
        for line in problems:
            click.echo(line)
        click.echo(f"{counted(num_files, 'files checked')}, {counted(len(problems), 'problems')}")
    if problems:
        raise SystemExit(1)


@cli.command("inspect")
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


@cli.command("report")
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


@cli.command("tasks")
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


@cli.command("licenses")
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


@cli.command("stats")
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


@cli.group("taxonomy")
def taxonomy_group() -> None:
    """Show, check or compare what is known of tasks: category, data set, licence and more.

    \b
    Example:
      taskmill taxonomy show
    """


@taxonomy_group.command("show")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--category", help="Only tasks of this category.")
@click.option("--dataset", help="Only tasks of this data set, by any of its names.")
@click.option(
    "--taxonomy",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A file above the shipped ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def taxonomy_show(
    patterns: tuple[str, ...],
    category: str | None,
    dataset: str | None,
    files: tuple[Path, ...],
    as_json: bool,
) -> None:
    """List the rows of tasks that match PATTERN; without any, count tasks and categories by benchmark.

    \b
    Example:
      taskmill taxonomy show "flan/*" --category "Textual Entailment"
    """
    from taskmill.commands.taxonomy import show

    show(patterns, category, dataset, files, as_json)


@taxonomy_group.command("check")
@click.argument("targets", nargs=-1, metavar="[FILE]... | [RECIPE]")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the recipe."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def taxonomy_check(targets: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Find mistakes in taxonomy FILEs, or tasks of RECIPE's sources without a row; exit code 1 for problems.

    Without an argument the shipped files are checked. Warnings name what may be meant, such as a new category.

    \b
    Example:
      taskmill taxonomy check demo
    """
    from taskmill.commands.taxonomy import check

    if check(targets, overrides, as_json):
        raise SystemExit(1)


@taxonomy_group.command("diff")
@click.argument("old")
@click.argument("new")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def taxonomy_diff(old: str, new: str, as_json: bool) -> None:
    """Show what differs between the taxonomy files OLD and NEW; `shipped` means the package's own.

    \b
    Example:
      taskmill taxonomy diff shipped mine.csv
    """
    from taskmill.commands.taxonomy import diff

    diff(old, new, as_json)


@cli.group("recipes")
def recipes_group() -> None:
    """List, show or describe recipes.

    \b
    Example:
      taskmill recipes list
    """


@recipes_group.command("list")
def recipes_list() -> None:
    """List the shipped recipes.

    \b
    Example:
      taskmill recipes list
    """
    from taskmill.recipe_files import shipped

    for name, path in shipped().items():
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        click.echo(f"{name:<12} {first}")


@recipes_group.command("show")
@click.argument("recipe")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the recipe."
)
@click.option("--json", "as_json", is_flag=True, help="Print the resolved values and origins as JSON.")
def recipes_show(recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show every resolved setting of RECIPE and where it comes from.

    \b
    Example:
      taskmill recipes show demo
    """
    from taskmill import recipe_files
    from taskmill.plain import leaves, to_json

    resolved = recipe_files.find(recipe, overrides)
    values = to_json(resolved.recipe)
    if as_json:
        click.echo(json.dumps({"origin": resolved.origin, "values": values}, sort_keys=True))
        return
    for key, value in leaves(values):
        click.echo(f"{key} = {json.dumps(value)}  # {resolved.origin[key]}")


@recipes_group.command("schema")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON schema.")
def recipes_schema(as_json: bool) -> None:
    """Print every setting: its type, its default and what it does.

    \b
    Example:
      taskmill recipes schema
    """
    from taskmill.recipe_reference import describe, help_texts

    if as_json:
        from taskmill.recipe_check import schema

        click.echo(json.dumps(schema(), indent=1, sort_keys=True))
        return
    texts = help_texts()
    for key, kind, default in describe():
        click.echo(f"{key}: {kind} = {default}")
        if key in texts:
            click.echo(f"    {texts[key]}")


# ----------------------------------------------------------------------------------------------- main


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every failure becomes one message and an exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(_guarded(functools.partial(cli.main, arguments, prog_name="taskmill", standalone_mode=False)))


class _Terminated(BaseException):
    """The process was asked to end (SIGTERM)."""


def _terminated(number: int, frame: object) -> None:
    raise _Terminated


def _guarded(call: Callable[[], Any]) -> int:
    try:
        result = call()
        return result if isinstance(result, int) else 0
    except click.exceptions.Abort:
        return _say("interrupted; what was finished is kept", 130)
    except KeyboardInterrupt:
        return _say("interrupted; what was finished is kept", 130)
    except _Terminated:
        return _say("terminated; what was finished is kept", 143)
    except click.ClickException as error:
        error.show()
        return 2
    except TaskmillError as error:
        return _say(str(error), error.exit_code)
    except BrokenPipeError:
        return 1
    except MemoryError:
        return _say("out of memory; try --workers 1 or --limit N", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{error.strerror or error}", 1)


def _say(message: str, code: int) -> int:
    click.echo(f"taskmill: {message}", err=True)
    return code
