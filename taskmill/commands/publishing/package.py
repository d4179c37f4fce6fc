"""The command `export benchmark`, and what it shares with `publish`: a run's benchmark as a folder of files.

Reads the stages curate, overlap and split of a run, with render and mix where these are published, and no file of upstream.
Writes the folder that `splits.publishing.published` describes.

    make_package(Path("runs/demo"), Path("benchmark"), with_data=False, with_mixture=False, repository=None)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from taskmill import recipe_files
from taskmill.artifact import Identity, Manifest, changed_fields, read_manifest
from taskmill.commands.export_folder import claim
from taskmill.commands.figures import count, counted, visible
from taskmill.commands.finished import FinishedRun
from taskmill.curation.catalogue import read_catalogue
from taskmill.errors import BusyError, DataError, RecipeError, StaleError, StorageError, UsageError
from taskmill.recipe import Resolved
from taskmill.runs import check_inputs
from taskmill.settings import Settings
from taskmill.splits.publishing.describing.card import card
from taskmill.splits.publishing.describing.card_front import without_prompts
from taskmill.splits.publishing.describing.croissant import croissant
from taskmill.splits.publishing.describing.redistribution import redistributable
from taskmill.splits.publishing.published import CARD, CROISSANT, FOLDERS, MANIFEST, Published
from taskmill.splits.publishing.rerunning.recipe_bundle import bundle
from taskmill.splits.publishing.writing.folder import write_published
from taskmill.splits.publishing.writing.manifest import PublishPlan
from taskmill.splits.publishing.writing.tables import READS
from taskmill.stages import Walk
from taskmill.storage import is_stray, read_table, remove

MIXTURE = ("mixture.json", "shares.csv")
"""Files of the stage mix that are published."""
_KIND = b"benchmark\n"


def export_benchmark(run: Path, folder: Path, with_data: bool, with_mixture: bool, as_json: bool) -> None:
    """Write a run's benchmark into a folder and print what came of it.

    Raises:
        UsageError, StaleError, DamagedError, BusyError, StorageError: see `exported`.
    """
    made = exported(run, folder, with_data, with_mixture)
    if as_json:
        click.echo(json.dumps(exported_json(made, run, folder), sort_keys=True))
        return
    for line in described(made):
        click.echo(visible(line))
    click.echo(f"{folder / MANIFEST}")
    chosen = "".join(
        f" {option}" for option, on in (("--with-data", with_data), ("--with-mixture", with_mixture)) if on
    )
    click.echo(f"\nNext:\n  taskmill verify {folder}\n  taskmill publish {run} OWNER/NAME --dry-run{chosen}")


def exported(run: Path, folder: Path, with_data: bool, with_mixture: bool) -> Published:
    """Write a run's benchmark into a folder of the user's.

    Raises:
        UsageError: the run cannot be published, or the folder holds files that are none of ours.
        StaleError: the stages of the run do not belong together, or not to its recipe and decisions.
        DamagedError: a file of the run is not the one that was written.
        BusyError: another process made a stage anew in the meantime.
        StorageError: the folder cannot be written.
    """
    checked = check_publishable(run, with_data, with_mixture)
    claim(folder, run, _KIND, _written)
    return write_package(*checked, folder, PublishPlan(with_data, with_mixture), None)


def exported_json(made: Published, run: Path, folder: Path) -> dict[str, Any]:
    """Return what an export came to, as the object of --json."""
    return {"folder": str(folder), "run": str(run), **summary(made)}


def make_package(
    run: Path, folder: Path, with_data: bool, with_mixture: bool, repository: str | None
) -> Published:
    """Write a run's benchmark into a folder of ours; what is in the benchmark's own folders there and not of it goes.

    Args:
        run: finished up to split, to render with data, to mix with the mixture.
        folder: new, empty or made by this function.
        with_data: publish the prompts too, of tasks whose licence allows it.
        with_mixture: publish the mixture too.
        repository: owner/name on the Hub that the card names, where it is known.

    Raises:
        UsageError: the run cannot be published: a stage is missing, it sees a part of the examples, or its recipe names what
            others cannot have.
        StaleError: the stages do not belong together, or not to the run's recipe and decisions.
        DamagedError: a file of the run is not the one that was written.
        BusyError: another process made a stage anew in the meantime.
        StorageError: the folder cannot be written.
    """
    found, resolved = check_publishable(run, with_data, with_mixture)
    return write_package(found, resolved, folder, PublishPlan(with_data, with_mixture), repository)


def write_package(
    found: FinishedRun, resolved: Resolved, folder: Path, plan: PublishPlan, repository: str | None
) -> Published:
    """Write the benchmark of a run that `check_publishable` has checked; see `make_package`."""
    linked = [top for top in FOLDERS if (folder / top).is_symlink()]
    if linked:
        raise UsageError(
            f"{folder / linked[0]} is a link, behind which files would be replaced; remove it first"
        )
    extra = {}
    if plan.with_mixture:
        mixture = found.inputs.directory("mix")
        extra = {f"mixture/{name}": (mixture / name).read_bytes() for name in MIXTURE}

    def texts(body: dict[str, Any]) -> dict[str, bytes]:
        described = json.dumps(croissant(body, repository), indent=2, ensure_ascii=False) + "\n"
        return {CARD: card(body, repository).encode(), CROISSANT: described.encode()}

    made = write_published(found.inputs, resolved, folder, plan, bundle(resolved, found.run), texts, extra)
    for stage in plan.stages:
        now = read_manifest(found.manifests[stage].directory)
        if now is None or now.body["digest"] != found.manifests[stage].body["digest"]:
            remove(folder / MANIFEST)
            raise BusyError(
                f"{found.run}: {stage} was made anew while it was read; wait until that is finished"
            )
    _sweep(folder, {entry.path for entry in made.files})
    return made


def summary(made: Published) -> dict[str, Any]:
    """Return what a published benchmark is, as JSON values."""
    keys = ("name", "mode", "root", "prompts_root", "levels", "tasks", "licenses")
    num_bytes = sum(entry.bytes for entry in made.files)
    return {**{key: made.body[key] for key in keys}, "files": len(made.files) + 1, "bytes": num_bytes}


def described(made: Published) -> list[str]:
    """Return what a published benchmark is, in lines."""
    body = made.body
    lines = [
        f"{configuration}: {counted(body['tasks'].get(configuration, 0), 'tasks')}; "
        + ", ".join(f"{count(number)} {split}" for split, number in sorted(splits.items()))
        for configuration, splits in body["levels"].items()
    ]
    if body["mode"] == "with-data":
        left = [row for row in body["licenses"] if not row["with_data"]]
        if left:
            number = sum(row["num_tasks"] for row in left)
            names = ", ".join(row["license"] for row in left[:5]) + (", ..." if len(left) > 5 else "")
            lines.append(
                f"without prompts: {counted(number, 'tasks')} whose licences do not allow it ({names})"
            )
        for level in without_prompts(body):
            lines.append(
                f"no prompt at all of {level}, so load_dataset has no {level}; its ids are in ids/{level}"
            )
    num_bytes = sum(entry.bytes for entry in made.files)
    lines.append(f"{counted(len(made.files) + 1, 'files')}, {count(num_bytes)} bytes, {body['mode']}")
    return [*lines, f"root digest {body['root']}"]


# ------------------------------------------------------------------------------- what may be published


def check_publishable(run: Path, with_data: bool, with_mixture: bool) -> tuple[FinishedRun, Resolved]:
    """Return a run and its recipe when it can be published.

    Raises:
        UsageError, StaleError, DamagedError: see `make_package`.
    """
    found = FinishedRun(run)
    plan = PublishPlan(with_data, with_mixture)
    needed = [*plan.stages, *(["render"] if with_mixture and not with_data else [])]
    for stage in needed:
        found.require(stage)
    resolved = recipe_files.from_json(run)
    limit = resolved.recipe.limit or found.manifests["curate"].body["limit"]
    if limit is not None:
        raise UsageError(
            f"{run} was made with --limit {limit}: it sees a part of the examples, and its shared text is not all there is; "
            f"run the recipe without --limit in another directory, and publish that"
        )
    _check_together(found, needed)
    _check_settings(Walk(resolved, run), found, needed)
    tables = [*READS, *([("render", "prompts")] if with_data else [])]
    _require_data(found, plan)
    check_inputs(found.inputs, [*tables, *([("mix", name) for name in MIXTURE] if with_mixture else [])])
    return found, resolved


def _check_together(found: FinishedRun, stages: Sequence[str]) -> None:
    """Check that each stage was built from the rows that the stages before it have now."""
    for stage in stages:
        for item in found.manifests[stage].body["inputs"]:
            before = found.manifests.get(item["stage"])
            if before is None or before.rows(item["table"]) != item["rows"]:
                raise StaleError(
                    f"{found.run}: the stage {stage!r} was built from other rows of {item['stage']}/{item['table']} than "
                    f"are there now; `taskmill run {found.run} --to {stages[-1]} --force` makes them anew"
                )


def _check_settings(walk: Walk, found: FinishedRun, stages: Sequence[str]) -> None:
    """Check that each stage was built from the recipe, the decisions and the files that the run has now.

    Upstream's files need not be here any more; those that are here must be the ones that curate read.
    """
    for stage in stages:
        manifest = found.manifests[stage]
        now = _identity(walk, stage, manifest)
        if now.fingerprint != manifest.fingerprint:
            changes = "\n".join(
                f"  {line}" for line in changed_fields(manifest.body, dataclasses.asdict(now))
            )
            raise StaleError(
                f"{manifest.directory} was built from other settings, decisions or data than {found.run} has now:\n{changes}\n"
                f"Run `taskmill run {found.run} --to {stages[-1]} --force` to make it anew, then publish."
            )


def _identity(walk: Walk, stage: str, manifest: Manifest) -> Identity:
    """Return what a stage would be built from now; of curate, with the files that it read where they are gone."""
    settings = walk.settings(stage)
    if stage != "curate" or _upstream_is_here(walk, settings, manifest):
        return walk.identity(stage, settings)
    return Identity(
        stage=stage,
        revision=walk.module(stage).REVISION,
        settings=settings.values(),
        seed=settings.seed,
        limit=settings.limit,
        inputs=(),
        external=manifest.body["external"],
    )


def _upstream_is_here(walk: Walk, settings: Settings, manifest: Manifest) -> bool:
    """Return whether every upstream file that curate read is here, without fetching any."""
    module: Any = walk.module("curate")
    try:
        if module.pending(settings):
            return False
        now = {entry["source"]: entry["files"] for entry in read_catalogue(settings).upstream()}
    except (RecipeError, DataError, StorageError):
        return False
    return all(
        {file["name"] for file in entry["files"]} <= {file["name"] for file in now.get(entry["source"], ())}
        for entry in manifest.body["upstream"]
    )


def _require_data(found: FinishedRun, plan: PublishPlan) -> None:
    """Refuse to publish with data where no licence allows any.

    Raises:
        UsageError: so it is.
    """
    if not plan.with_data:
        return
    path = found.inputs.files("curate", "tasks")[0]
    licenses = sorted(set(read_table(path, ["license"])["license"].to_pylist()))
    if not any(redistributable(license) for license in licenses):
        raise UsageError(
            f"no task of {found.run} has a licence that allows to publish its text: found {', '.join(licenses)}; publish "
            f"without --with-data, and `taskmill licenses {found.run}` shows where each is stated"
        )


# ------------------------------------------------------------------------------------------- the folder


def _written(folder: Path) -> list[str]:
    """Return what an export may have written into a folder."""
    below = [path for top in FOLDERS for path in (folder / top).rglob("*")]
    names = [path.relative_to(folder).as_posix() for path in below]
    return [CARD, CROISSANT, MANIFEST, *names]


def _sweep(folder: Path, keep: set[str]) -> None:
    """Remove what earlier or interrupted packages left in the benchmark's own folders."""
    for name in sorted((*_written(folder), *FOLDERS), reverse=True):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif name not in keep and name != MANIFEST and name not in FOLDERS:
            remove(path)
    for path in filter(is_stray, folder.iterdir()):
        remove(path)
