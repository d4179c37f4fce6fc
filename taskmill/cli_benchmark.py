"""Commands about the benchmark as a whole: decide it on a page, publish it, check it, rebuild it, compare it, let it grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.group()
def benchmark() -> None:
    """Hold the commands until `cli` takes them."""


@benchmark.command("review")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--by", help="Who decides [login name].")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port on the loopback address [a free one]."
)
@click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")
def review_command(run: Path, by: str | None, port: int, no_browser: bool) -> None:
    """Serve a page on this machine on which people decide the overlapping pairs that RUN's rules left.

    Every step is written to RUN/decisions.csv at once. The address holds a token that only this terminal shows; nobody else on
    the network can reach the page. Ctrl-C ends it, or "End review" on the page.

    \b
    Example:
      taskmill review runs/demo
    """
    from taskmill.commands.review.serve import review

    review(run, by=by, port=port, open_browser=not no_browser)


@benchmark.command("verify")
@click.argument("target", metavar="MANIFEST|REPO|RUN")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def verify_command(target: str, as_json: bool) -> None:
    """Check every file of a run, or of a published benchmark, against its manifest: bytes, digests and rows.

    A published benchmark is named by its folder, its manifest.json, or its repository on the Hub: owner/name, or
    owner/name@REVISION with a commit, tag or branch.

    \b
    Example:
      taskmill verify runs/demo
    """
    from taskmill.commands.publishing.verify import verify

    if not verify(target, as_json):
        raise SystemExit(1)


@benchmark.command("rebuild")
@click.argument("target", metavar="MANIFEST|REPO")
@click.option(
    "--run", "run", type=click.Path(path_type=Path), required=True, help="Directory of the run to make."
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    help="Folder with the upstream files that are not on the Hub.",
)
@click.option(
    "--hydrate",
    "hydrate_to",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write the published rows with their texts into DIR too, for load_dataset; not for publishing.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes to use [all cores].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def rebuild_command(target: str, **options: Any) -> None:
    """Make a published benchmark again from its pinned sources, and say whether every row is the same.

    The sources are checked before anything is made of them. Exit code 1 with the first record that differs, and why, when the
    rows are others. Given again it goes on where it was, also with --hydrate.

    \b
    Example:
      taskmill rebuild harbour-bench --run runs/again
    """
    from taskmill.commands.publishing.rebuild import rebuild

    if not rebuild(target, **options):
        raise SystemExit(1)


@benchmark.command("diff")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("-k", "num_shown", type=click.IntRange(min=0), default=10, help="Lines shown of a kind [10].")
@click.option("--strict", is_flag=True, help="Exit with code 1 when B does not contain A.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def diff_command(before: str, after: str, num_shown: int, strict: bool, as_json: bool) -> None:
    """Show what changed between two versions of a benchmark: tasks, examples, levels, decisions, sources.

    A and B are each a run, the folder or manifest.json of a published benchmark, or owner/name[@REVISION] on the Hub. Says also
    whether B contains A: the same examples with the same content at the same places.

    \b
    Example:
      taskmill diff harbour-bench runs/again
    """
    from taskmill.commands.publishing.diff import diff

    contained = diff(before, after, num_shown=num_shown, as_json=as_json)
    if strict and not contained:
        raise SystemExit(1)


@benchmark.command("extend")
@click.argument("target", metavar="V1")
@click.option(
    "--add",
    "additions",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML with `sources` to add and, where these are to be evaluated, `plan`; may be given several times.",
)
@click.option(
    "--run", "run", type=click.Path(path_type=Path), required=True, help="Directory of the run to make."
)
@click.option("--name", help="Name of the new version [that of V1].")
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    help="Folder with V1's upstream files that are not on the Hub.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes to use [all cores].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def extend_command(target: str, **options: Any) -> None:
    """Let a benchmark grow by further sources without moving any of its examples.

    V1 is a run, the folder or manifest.json of a published benchmark, or owner/name[@REVISION] on the Hub. Its places, decisions,
    frequent grams and survivors stay; only pairs with a new task wait for a decision (exit code 3). What was proven is printed.

    \b
    Example:
      taskmill extend harbour-bench --add more.yaml --run runs/v2
    """
    from taskmill.commands.publishing.extend import extend

    if not extend(target, **options):
        raise SystemExit(1)


@benchmark.command("publish")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make a new repository that only you can see.")
@click.option("--with-data", is_flag=True, help="Publish the prompts too, of tasks whose licence allows it.")
@click.option("--with-mixture", is_flag=True, help="Publish the mixture and its shares too.")
@click.option("--tag", help="Name for this version, such as v1; a tag never moves.")
@click.option(
    "--replace",
    is_flag=True,
    help="Take the place of another benchmark or data set that the repository holds.",
)
@click.option(
    "--dry-run", is_flag=True, help="Make the files and show what would be sent, ask the Hub nothing."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def publish_command(run: Path, repository: str, **options: Any) -> None:
    """Publish RUN's benchmark as a data set on the Hugging Face Hub: ids, digests, levels, decisions, licences, recipe.

    By default no text of the data is in it, so that the sources' licences do not matter; `taskmill rebuild` makes the rows again.
    Log in with `hf auth login` or HF_TOKEN. What was sent before an interruption is not sent again.

    \b
    Example:
      taskmill publish runs/demo ann/harbour-bench --tag v1 --dry-run
    """
    from taskmill.commands.publishing.publish import publish

    publish(run, repository, **options)
