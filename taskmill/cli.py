"""The command line: every command imports what it needs inside its body, so that help and completion are quick.

stdout carries the result, or one JSON object with --json; stderr carries progress and messages. Exit codes: 0 done or up
to date, 1 failed, 2 wrong usage or recipe, 3 stopped for a person, 130 and 143 interrupted with the state safe.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from taskmill import __version__
from taskmill.cli_benchmark import benchmark
from taskmill.cli_exports import export_group
from taskmill.cli_tools import tools
from taskmill.cli_views import views
from taskmill.errors import TaskmillError
from taskmill.stages import NAMES, STAGES

if TYPE_CHECKING:
    from taskmill.stages import Walk
    from taskmill.training.updating.distributed import World

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
    """Return the recipe's stages in the run that the options name.

    In a launch of several processes only rank 0 gets that far: the others take part where it calls them, then end.
    """
    from taskmill import recipe_files
    from taskmill.commands.progress import show_progress
    from taskmill.engine import default_workers, leave_pandas_out
    from taskmill.stages import Walk, follow, run_directory

    leave_pandas_out()
    joined = _launched()
    show_progress(logging.WARNING if options["quiet"] else logging.INFO)
    if not joined.is_main:
        logging.getLogger("taskmill").setLevel(logging.CRITICAL)
        warnings.simplefilter("ignore")
    overrides = tuple(options["overrides"])
    if options["limit"]:
        overrides += (f"limit={options['limit']}",)
    resolved = recipe_files.find(options["recipe"], overrides)
    run = run_directory(options["recipe"], resolved.recipe.name, options["run"])
    walker = Walk(resolved, run, options["workers"] or default_workers(), options["force"])
    walker.track = tuple(options.get("track", ()))
    if not joined.is_main:
        follow(walker)
        raise SystemExit(0)
    return walker


def _walk(
    names: tuple[str, ...],
    options: dict[str, Any],
    predict_only: bool = False,
    more: Callable[[Path], dict[str, Any]] | None = None,
) -> Path:
    """Bring stages up to date, saying what each came to; returns the run's directory.

    `more` gives keys of the JSON object, of the run that is finished then.
    """
    from taskmill.commands.progress import outcome_line
    from taskmill.stages import walk

    walker = _walker(options)
    walker.predict_only = predict_only
    outcomes = []
    for outcome in walk(walker, names, options["dry_run"]):
        outcomes.append(outcome)
        if not options["as_json"]:
            click.echo(outcome_line(outcome))
    if options["as_json"]:
        body = {"run": str(walker.run), "stages": [o.to_json() for o in outcomes]}
        click.echo(json.dumps({**body, **(more(walker.run) if more else {})}, sort_keys=True))
    elif all(o.status == "up to date" for o in outcomes):
        click.echo(f"{walker.run}: everything is up to date")
    return walker.run


def _track_option(function: Command) -> Command:
    """Add the option that names trackers."""
    return click.option(
        "--track",
        multiple=True,
        type=click.Choice(["tensorboard", "trackio"]),
        help="Write training curves to RUN/tracking too; repeatable.",
    )(function)


@cli.command("run")
@stage_options
@_track_option
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
        _show_scores(run)


def _show_scores(run: Path) -> None:
    """Print the scores of a finished run, and the commands that look further."""
    from taskmill.commands.inspect import show_scores
    from taskmill.records import FINAL, INITIAL

    models = show_scores(run)
    commands = {f"taskmill report {run}": "a page about it all", f"taskmill inspect {run}": "examples of it"}
    if {FINAL, INITIAL} <= set(models):
        commands = {f"taskmill compare {run}@{INITIAL} {run}": "what training changed", **commands}
    width = max(map(len, commands))
    click.echo("\nNext:")
    for command, said in commands.items():
        click.echo(f"  {command:<{width}}  # {said}")


def _add_stage(name: str, help_text: str) -> None:
    @stage_options
    def command(**options: Any) -> None:
        _walk((name,), options)

    command.__doc__ = f"{help_text}\n\n\b\nExample:\n  taskmill {name} demo\n"
    cli.command(name)(command)


def _add_train(help_text: str) -> None:
    @stage_options
    @_track_option
    def command(**options: Any) -> None:
        _walk(("train",), options)

    examples = "  taskmill train demo\n  torchrun --nproc-per-node 8 -m taskmill train demo\n"
    command.__doc__ = f"{help_text}\n\n\b\nExample:\n{examples}"
    cli.command("train")(command)


def _add_evaluate(help_text: str) -> None:
    @stage_options
    @click.option(
        "--predict-only", is_flag=True, help="Write predictions without scores, to be scored by a later call."
    )
    def command(predict_only: bool, **options: Any) -> None:
        run = _walk(("evaluate",), options, predict_only)
        if not (predict_only or options["dry_run"] or options["as_json"]):
            _show_scores(run)

    examples = (
        "  taskmill evaluate demo\n  taskmill evaluate runs/demo --set evaluate.checkpoints=true --force\n"
    )
    command.__doc__ = f"{help_text}\n\n\b\nExample:\n{examples}"
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


def _add_mix(help_text: str) -> None:
    @stage_options
    @click.option(
        "--explain",
        is_flag=True,
        help="Show natural, wanted and realised shares, tasks capped, and passes over each task.",
    )
    def command(explain: bool, **options: Any) -> None:
        if not explain:
            _walk(("mix",), options)
            return
        if options["dry_run"]:
            raise click.UsageError("--explain shows the finished mixture, which --dry-run does not make")
        from taskmill.commands.explain_mix import explain_mixture, show_mixture

        run = _walk(("mix",), options, more=lambda run: {"mixture": explain_mixture(run)})
        if not options["as_json"]:
            show_mixture(explain_mixture(run))

    command.__doc__ = f"{help_text}\n\n\b\nExample:\n  taskmill mix demo\n  taskmill mix demo --explain\n"
    cli.command("mix")(command)


for _stage in STAGES:
    if _stage.name == "split":
        _add_split(_stage.help)
    elif _stage.name == "mix":
        _add_mix(_stage.help)
    elif _stage.name == "train":
        _add_train(_stage.help)
    elif _stage.name == "evaluate":
        _add_evaluate(_stage.help)
    else:
        _add_stage(_stage.name, _stage.help)

for _command in (
    *views.commands.values(),
    *benchmark.commands.values(),
    export_group,
    *tools.commands.values(),
):
    cli.add_command(_command)


# ----------------------------------------------------------------------------------------------- main


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every failure becomes one message and an exit code."""
    _open_streams()
    signal.signal(signal.SIGTERM, _terminated)
    call = functools.partial(cli.main, arguments, prog_name="taskmill", standalone_mode=False)
    message, code = _guarded(call)
    if "RANK" in os.environ:
        from taskmill.training.updating.distributed import leave

        said, code = leave(message, code)
        message = message if said else ""
    if message:
        from taskmill.commands.figures import visible

        click.echo(visible(message), err=True)
    sys.exit(code)


def _launched() -> World:
    """Return the processes that `torchrun` or `accelerate launch` started together; mostly it is this one alone."""
    from taskmill.training.updating.distributed import world

    return world()


def _open_streams() -> None:
    """Let streams that are closed (`>&-`) read and write nothing, before another file gets their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - it stays open


class _Terminated(BaseException):
    """The process was asked to end (SIGTERM)."""


def _terminated(number: int, frame: object) -> None:
    raise _Terminated


def _guarded(call: Callable[[], Any]) -> tuple[str, int]:
    """Return the message, "" for none, and the exit code that a call comes to."""
    try:
        result = call()
        return "", result if isinstance(result, int) else 0
    except (click.exceptions.Abort, KeyboardInterrupt):
        return "taskmill: interrupted; what was finished is kept", 130
    except _Terminated:
        return "taskmill: terminated; what was finished is kept", 143
    except SystemExit as stopped:
        return "", stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(file=shown)
        return shown.getvalue().rstrip("\n"), 2
    except TaskmillError as error:
        return f"taskmill: {error}", error.exit_code
    except BrokenPipeError:
        return "", 1
    except MemoryError:
        return "taskmill: out of memory; try --workers 1 or --limit N", 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return f"taskmill: {where}{error.strerror or error}", 1
