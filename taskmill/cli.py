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
from typing import TYPE_CHECKING, Any, TypeVar

import click

from taskmill import __version__
from taskmill.cli_tools import tools
from taskmill.cli_views import views
from taskmill.errors import TaskmillError
from taskmill.stages import NAMES, STAGES

if TYPE_CHECKING:
    from taskmill.stages import Walk

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


def _walker(options: dict[str, Any]) -> Walk:
    """Return the recipe's stages in the run that the options name."""
    from taskmill import recipe_files
    from taskmill.engine import default_workers, leave_pandas_out
    from taskmill.stages import Walk, run_directory

    leave_pandas_out()
    _progress(options["quiet"])
    overrides = tuple(options["overrides"])
    if options["limit"]:
        overrides += (f"limit={options['limit']}",)
    resolved = recipe_files.find(options["recipe"], overrides)
    run = run_directory(options["recipe"], resolved.recipe.name, options["run"])
    return Walk(resolved, run, options["workers"] or default_workers(), options["force"])


def _walk(names: tuple[str, ...], options: dict[str, Any], predict_only: bool = False) -> Path:
    """Bring stages up to date, saying what each came to; returns the run's directory."""
    from taskmill.stages import walk

    walker = _walker(options)
    walker.predict_only = predict_only
    outcomes = []
    for outcome in walk(walker, names, options["dry_run"]):
        outcomes.append(outcome)
        if not options["as_json"]:
            click.echo(_describe(outcome))
    if options["as_json"]:
        click.echo(
            json.dumps({"run": str(walker.run), "stages": [o.to_json() for o in outcomes]}, sort_keys=True)
        )
    elif all(o.status == "up to date" for o in outcomes):
        click.echo(f"{walker.run}: everything is up to date")
    return walker.run


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


def _add_split(help_text: str) -> None:
    @stage_options
    @click.option(
        "--suggest",
        is_flag=True,
        help="Propose decisions of least loss in RUN/suggested.csv; decide nothing.",
    )
    @click.option(
        "--keep",
        multiple=True,
        metavar="SELECTOR",
        help="With --suggest: never drop these tasks as a whole.",
    )
    @click.option(
        "--weight",
        type=click.IntRange(min=1),
        help="With --suggest: train examples that an evaluation example is worth [100].",
    )
    def command(suggest: bool, keep: tuple[str, ...], weight: int | None, **options: Any) -> None:
        if suggest:
            from taskmill.commands.suggest import suggest as suggest_decisions

            suggest_decisions(_walker(options), keep, weight, options["as_json"], options["dry_run"])
        elif keep or weight:
            raise click.UsageError("--keep and --weight say what --suggest proposes: give it as well")
        else:
            _walk(("split",), options)

    command.__doc__ = f"{help_text}\n\n\b\nExample:\n  taskmill split demo\n  taskmill split demo --suggest\n"
    cli.command("split")(command)


for _stage in STAGES:
    if _stage.name == "split":
        _add_split(_stage.help)
    elif _stage.name == "evaluate":
        _add_evaluate(_stage.help)
    else:
        _add_stage(_stage.name, _stage.help)

for _command in (*views.commands.values(), *tools.commands.values()):
    cli.add_command(_command)


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
