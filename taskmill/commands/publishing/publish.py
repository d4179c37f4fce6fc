"""The command `publish`: a run's benchmark as a data set of the Hub, complete before anybody can find it.

Makes the package in `RUN/.publish`, which it sweeps before and after; sends what the repository does not have; writes nothing
else. With --dry-run it shows the package and asks nobody anything.

    taskmill publish runs/demo ann/harbour-bench --tag v1 --dry-run
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from taskmill.commands.figures import count, counted, size, visible
from taskmill.commands.finished import FinishedRun
from taskmill.commands.progress import show_progress
from taskmill.commands.publishing.package import described, make_package, summary
from taskmill.errors import StorageError
from taskmill.records import LEVELS
from taskmill.runs import RunLock
from taskmill.splits.publishing.describing.redistribution import judge
from taskmill.splits.publishing.published import CARD, MANIFEST, Published
from taskmill.splits.publishing.rerunning.recipe_bundle import needs_data_root
from taskmill.splits.publishing.sending.hub import Sent, check_names, send

FOLDER = ".publish"
"""Of a run, where the package lies while it is sent."""
_CARD_LINES = 24


def publish(
    run: Path,
    repository: str,
    private: bool,
    with_data: bool,
    with_mixture: bool,
    tag: str | None,
    dry_run: bool,
    as_json: bool,
    replace: bool = False,
) -> None:
    """Publish a run's benchmark as a data set on the Hub, or show what would be sent, and print what came of it.

    Raises:
        UsageError, StaleError, DamagedError, DataError, StorageError, BusyError, MissingPackageError: see `sent_or_planned`.
    """
    show_progress()
    body, lines = sent_or_planned(run, repository, private, with_data, with_mixture, tag, dry_run, replace)
    for line in [json.dumps(body, sort_keys=True)] if as_json else lines:
        click.echo(visible(line))


def sent_or_planned(
    run: Path,
    repository: str,
    private: bool,
    with_data: bool,
    with_mixture: bool,
    tag: str | None,
    dry_run: bool,
    replace: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Publish a run's benchmark as a data set on the Hub, or make the files and ask the Hub nothing.

    Returns:
        what came of it, as the object of --json, and as lines.

    Raises:
        UsageError: the run cannot be published, or the repository or the tag may not be called so or holds other things.
        StaleError, DamagedError: the run's files do not belong together, or the Hub holds other bytes than were sent.
        DataError: no right to write there, or a tag of another commit.
        StorageError: the Hub or the disk fails.
        BusyError: another process writes or publishes the run.
        MissingPackageError: huggingface_hub is not installed.
    """
    check_names(repository, tag)
    FinishedRun(run)
    with RunLock(run), _package(run, with_data, with_mixture, repository) as made:
        if dry_run:
            return _planned(made, repository, private, tag)
        sent = send(made, repository, private, tag, replace)
        body = {"run": str(run), "root": made.root, "commands": _commands(made, sent), **asdict(sent)}
        return body, _told(made, sent)


@contextlib.contextmanager
def _package(run: Path, with_data: bool, with_mixture: bool, repository: str) -> Iterator[Published]:
    """Make the package below the run, and remove it in the end."""
    folder = run / FOLDER
    _sweep(folder)
    try:
        yield make_package(run, folder, with_data, with_mixture, repository)
    finally:
        _sweep(folder)


def _sweep(folder: Path) -> None:
    """Remove what this or a killed process left."""
    try:
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise StorageError(f"cannot remove {folder}: {error.strerror or error}") from error


# ------------------------------------------------------------------------------------------ what was done


def _told(made: Published, sent: Sent) -> list[str]:
    """Return what publishing came to, in lines."""
    there = sent.num_files - sent.num_sent
    done = [
        f"{counted(sent.num_sent, 'files')} sent ({size(sent.num_bytes_sent)})",
        f"{count(there)} there already",
        *([f"{count(sent.num_deleted)} of an earlier version deleted"] if sent.num_deleted else []),
    ]
    named = f", tag {sent.tag}" if sent.tag else ""
    return [
        sent.page + (" (private)" if sent.private else ""),
        f"commit {sent.commit}{named}",
        f"root digest {made.root}",
        f"{counted(sent.num_files, 'files')}, {size(sent.num_bytes)}: {', '.join(done)}",
        *([] if sent.num_commits else ["the repository was up to date: no commit was made"]),
        "",
        "Whoever may read it can run:" if sent.private else "Anyone can run:",
        *(f"  {command}" for command in _commands(made, sent)),
    ]


def _commands(made: Published, sent: Sent) -> list[str]:
    """Return the commands that read, check and rebuild what was published."""
    levels = made.body["levels"]
    level = next((name for name in LEVELS if name in levels), next(iter(levels), "train"))
    revision = sent.tag or sent.commit
    place = " --data-root DIR" if needs_data_root(made.body["sources"]) else ""
    loading = f'load_dataset("{sent.repository}", "{level}", revision="{revision}")'
    return [
        f"python -c 'from datasets import load_dataset; print({loading})'",
        f"taskmill verify {sent.repository}@{revision}",
        f"taskmill rebuild {sent.repository}@{revision} --run runs/{sent.repository.split('/')[1]}-rebuilt{place}",
    ]


# ------------------------------------------------------------------------------------------ the dry run


def _planned(
    made: Published, repository: str, private: bool, tag: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Return what would be sent, as the object of --json, and as lines."""
    card = (made.folder / CARD).read_text(encoding="utf-8")
    sizes = {entry.path: entry.bytes for entry in made.files}
    sizes[MANIFEST] = (made.folder / MANIFEST).stat().st_size
    left_out = _left_out(made)
    body = {"repository": repository, "private": private, "tag": tag, "dry_run": True, "card": card}
    body |= {**summary(made), "sizes": sizes, "left_out": left_out}
    named = (f", tag {tag}" if tag else "") + (", private if it is new" if private else "")
    lines = [f"{repository}{named} would hold:", *(f"  {line}" for line in described(made)), "", "Files:"]
    lines += [f"  {count(number):>13}  {path}" for path, number in sorted(sizes.items())]
    lines += ["", "Licences:", *(f"  {line}" for line in _licenses(made))]
    lines += ["", "Left out:", *(f"  {line}" for line in left_out)] if left_out else []
    shown = card.split("---\n", 2)[2].strip().splitlines()  # without the front, which is for programs
    lines += ["", f"{CARD}, as people see it:", *(f"  {line}".rstrip() for line in shown[:_CARD_LINES])]
    more = len(shown) - _CARD_LINES
    lines += [f"  ({counted(more, 'lines')} more)"] if more > 0 else []
    return body, [*lines, "", "Nothing was sent, and nothing was asked of the Hub."]


def _licenses(made: Published) -> list[str]:
    return [
        f"{row['license']}: {counted(row['num_tasks'], 'tasks')}, {counted(row['num_examples'], 'examples')}; "
        + ("its text may be published" if judge(row["license"]).allowed else judge(row["license"]).why)
        for row in made.body["licenses"]
    ]


def _left_out(made: Published) -> list[str]:
    """Return what is not published, each with its reason."""
    rows: list[dict[str, Any]] = made.body["licenses"]
    refused = [row for row in rows if not judge(row["license"]).allowed]
    allowed = sum(row["num_tasks"] for row in rows) - sum(row["num_tasks"] for row in refused)
    if made.body["mode"] == "ids-only":
        more = f"; --with-data adds those of {counted(allowed, 'tasks')}" if allowed else ""
        lines = [f"every prompt and text of the data: ids and digests stand for them{more}"]
    else:
        lines = [
            f"the prompts of {counted(row['num_tasks'], 'tasks')} under {row['license']}: {judge(row['license']).why}"
            for row in refused
        ]
    if not any(entry.path.startswith("mixture/") for entry in made.files):
        lines.append("the mixture and its shares: --with-mixture adds them")
    return lines
