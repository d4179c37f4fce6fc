"""The table of stages, in order, and the walk over them: what is up to date is skipped, what is stale is refused."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from taskmill.errors import MissingPackageError, TaskmillError, UsageError, did_you_mean

if TYPE_CHECKING:
    from taskmill.artifact import Identity, Inputs, Manifest, StageWriter
    from taskmill.recipe import Resolved
    from taskmill.settings import Settings

log = logging.getLogger("taskmill")


@dataclass(frozen=True)
class Stage:
    """One stage: a command, a module with `build`, a directory of the run."""

    name: str
    module: str
    help: str


STAGES = (
    Stage("curate", "taskmill.curation.build", "Read the sources and merge them into categorised tasks."),
    Stage(
        "overlap", "taskmill.splits.overlap", "Plan the levels and find text that train and evaluation share."
    ),
    Stage("split", "taskmill.splits.split", "Decide overlapping pairs and write the three levels."),
    Stage("render", "taskmill.templates.build", "Turn examples into prompts through schemas and templates."),
    Stage("mix", "taskmill.training.mixture", "Work out which benchmark is drawn how often."),
    Stage(
        "tokenize", "taskmill.training.tokens", "Turn the prompts that the mixture reaches into token ids."
    ),
    Stage("train", "taskmill.training.loop", "Fine-tune a causal language model on the tokens."),
    Stage("evaluate", "taskmill.evaluation.build", "Score the three levels of generalisation."),
)
NAMES = tuple(stage.name for stage in STAGES)
WAITS = "for an earlier stage"


class StageModule(Protocol):
    """What the module of a stage offers. Optional: `external`, digests of whatever else it reads, `PRELIMINARY`,
    values of `external` that mark a finished stage as an unfinished form of the one without them, `pending`,
    what has to be fetched before `external` can be known, `follow`, the part of the processes of a launch but rank 0,
    `reads`, what it reads with the present settings where that is not always READS, `fingerprinted`, the settings that
    count where these are not all of SECTIONS, and `check_settings`, which refuses what does not fit before a finished
    stage is redone."""

    REVISION: int
    SECTIONS: tuple[str, ...]
    READS: tuple[tuple[str, str], ...]
    build: Callable[[Settings, Inputs, StageWriter], Manifest]


@dataclass(frozen=True)
class Outcome:
    """What a stage came to in this walk."""

    stage: str
    status: str
    """`up to date`, `built`, or in a dry run `to do`, `stale`, `damaged` or `waits`."""
    detail: str
    manifest: Manifest | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        body = self.manifest.body if self.manifest else {}
        return {
            "stage": self.stage,
            "status": self.status,
            "detail": self.detail,
            "seconds": round(self.seconds, 3),
            "counts": body.get("counts", {}),
            "dropped": body.get("dropped", {}),
            "root": body.get("root"),
        }


def position(name: str) -> int:
    """Return a stage's place in the order.

    Raises:
        UsageError: no stage has that name.
    """
    if name not in NAMES:
        hint = did_you_mean(name, NAMES) or f"; the stages are {', '.join(NAMES)}"
        raise UsageError(f"no stage {name!r}{hint}")
    return NAMES.index(name)


class Walk:
    """The stages of one run, opened one after another."""

    def __init__(self, resolved: Resolved, run: Path, workers: int = 1, force: bool = False) -> None:
        """Use the recipe for the run directory `run`; `workers` never changes a result."""
        self.resolved, self.run, self.workers, self.force = resolved, run, workers, force
        self.predict_only = False
        self.track: tuple[str, ...] = ()

    def module(self, name: str) -> StageModule:
        """Import a stage's module.

        Raises:
            MissingPackageError: a package of its extra is not installed.
        """
        try:
            return cast(StageModule, importlib.import_module(STAGES[position(name)].module))
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in ("", "taskmill"):
                raise
            extra = "eval" if name == "evaluate" and package == "rouge_score" else "train"
            raise MissingPackageError(package, extra, f"the stage {name}") from error

    def settings(self, name: str) -> Settings:
        """Return the part of the recipe that a stage reads."""
        from taskmill.settings import Settings

        settings = Settings(self.resolved, self.module(name).SECTIONS, self.workers)
        settings.predict_only, settings.track = self.predict_only, self.track
        return settings

    def inputs(self, name: str) -> Inputs:
        """Return access to the stages before this one."""
        from taskmill.artifact import Inputs, stage_directory

        earlier = NAMES[: position(name)]
        directories = {n: stage_directory(self.run, n) for n in earlier if n != "tokenize"}
        if "tokenize" in earlier and self.ready("tokenize"):
            directories["tokenize"] = self.directory("tokenize")
        return Inputs(directories)

    def ready(self, name: str) -> bool:
        """Return whether everything a stage reads is finished."""
        try:
            inputs = self.inputs(name)
            inputs.identity(self._reads(name, self.settings(name), inputs))
        except UsageError:
            return False
        return True

    def _reads(self, name: str, settings: Settings, inputs: Inputs) -> tuple[tuple[str, str], ...]:
        """Return (stage, table) of everything that a stage reads.

        Raises:
            UsageError: an earlier stage is not finished.
        """
        module: Any = self.module(name)
        found: tuple[tuple[str, str], ...] = (
            module.reads(settings, inputs) if hasattr(module, "reads") else module.READS
        )
        return found

    def identity(self, name: str, settings: Settings | None = None) -> Identity:
        """Return everything that a stage's result depends on; `settings` are by default new ones of the stage.

        Raises:
            UsageError: an earlier stage is not finished.
        """
        from taskmill.artifact import Identity

        module, settings, inputs = self.module(name), settings or self.settings(name), self.inputs(name)
        tables = inputs.identity(self._reads(name, settings, inputs))
        external = getattr(module, "external", None)
        fingerprinted = getattr(module, "fingerprinted", None)
        return Identity(
            stage=name,
            revision=module.REVISION,
            settings=fingerprinted(settings) if fingerprinted else settings.values(),
            seed=settings.seed,
            limit=settings.limit if name == "curate" else None,
            inputs=tables,
            external=external(settings, inputs) if external else {},
        )

    def directory(self, name: str) -> Path:
        """Return a stage's folder for the present recipe."""
        from taskmill.artifact import stage_directory

        fingerprint = self.identity(name).fingerprint if name == "tokenize" else None
        return stage_directory(self.run, name, fingerprint)

    def build(self, name: str) -> Outcome:
        """Bring one stage up to date.

        Raises:
            StaleError: it was finished with other settings or inputs, and --force is off.
            DamagedError: a file that it reads does not hold the bytes that were written.
            TaskmillError: whatever the stage reports.
        """
        from taskmill.artifact import Manifest, open_stage
        from taskmill.runs import check_inputs

        started = time.time()
        module, settings = self.module(name), self.settings(name)
        directory, identity = self.directory(name), self.identity(name, settings)
        redo = self.force or self._completes(name, directory, identity)
        check = getattr(module, "check_settings", None)
        if redo and check:
            check(settings, self.inputs(name))
        opened = open_stage(directory, identity, redo)
        if isinstance(opened, Manifest):
            return Outcome(name, "up to date", "", opened, time.time() - started)
        inputs = self.inputs(name)
        check_inputs(inputs, self._reads(name, settings, inputs))
        replaced = self.record_recipe()
        log.info("%s: started", name)
        try:
            manifest = module.build(settings, inputs, opened)
        except TaskmillError as error:
            if error.exit_code == 2:
                self._write(replaced)  # `taskmill run RUN` must not take up a setting that does not fit
            raise
        seconds = time.time() - started
        log.info("%s: done in %.1f s", name, seconds)
        return Outcome(name, "built", "", manifest, seconds)

    def _completes(self, name: str, directory: Path, identity: Identity) -> bool:
        """Return whether the finished stage is this one, but for what its module calls preliminary."""
        from taskmill.artifact import read_manifest

        preliminary: dict[str, Any] = getattr(self.module(name), "PRELIMINARY", {})
        manifest = read_manifest(directory) if preliminary and not self.force else None
        before = dataclasses.replace(identity, external={**identity.external, **preliminary})
        return manifest is not None and manifest.fingerprint == before.fingerprint != identity.fingerprint

    def look(self, name: str) -> Outcome:
        """Say what `build` would do, writing nothing."""
        from taskmill.artifact import changed_fields, read_manifest
        from taskmill.storage import has_size

        if not self.ready(name):
            return Outcome(name, "waits", WAITS, None, 0.0)
        pending = getattr(self.module(name), "pending", None)
        absent = pending(self.settings(name)) if pending else []
        if absent:
            detail = f"would first fetch {', '.join(absent)} from the Hub; what follows depends on it"
            return Outcome(name, "to do", detail, None, 0.0)
        identity, directory = self.identity(name), self.directory(name)
        manifest = read_manifest(directory)
        if manifest is None:
            num_shards = len(list((directory / "shards").glob("*.json")))
            kept = f"; of {num_shards} finished shards those that still fit are kept" if num_shards else ""
            return Outcome(name, "to do", f"would be built{kept}", None, 0.0)
        if manifest.fingerprint == identity.fingerprint:
            lost = [f.path for f in manifest.files if not has_size(directory / f.path, f.bytes)]
            if lost:
                detail = f"{directory / lost[0]} is missing or has another size; --force makes it again"
                return Outcome(name, "damaged", detail, manifest, 0.0)
            return Outcome(name, "up to date", "", manifest, 0.0)
        changes = "; ".join(changed_fields(manifest.body, dataclasses.asdict(identity)))
        verb = (
            "would be redone" if self.force or self._completes(name, directory, identity) else "needs --force"
        )
        return Outcome(name, "stale", f"{verb}: {changes}", manifest, 0.0)

    def record_recipe(self) -> dict[str, bytes]:
        """Write `recipe.yaml` and `recipe.json` into the run, where they differ; return what they replace."""
        from taskmill.recipe_files import resolved_json
        from taskmill.storage import canonical_json

        return self._write(
            {
                "recipe.yaml": self.resolved.text.encode(),
                "recipe.json": canonical_json(resolved_json(self.resolved)) + b"\n",
            }
        )

    def _write(self, texts: dict[str, bytes]) -> dict[str, bytes]:
        from taskmill.storage import write_bytes

        replaced = {}
        for name, data in texts.items():
            path = self.run / name
            for stray in self.run.glob(f".{name}.*.tmp"):
                stray.unlink(missing_ok=True)
            before = path.read_bytes() if path.is_file() else None
            if before != data:
                write_bytes(path, data)
            if before is not None:
                replaced[name] = before
        return replaced


def walk(walker: Walk, names: tuple[str, ...], dry_run: bool = False) -> Iterator[Outcome]:
    """Bring stages up to date in order, under the run's lock; a dry run only looks.

    Raises:
        UsageError: the directory is none of ours.
        BusyError: another process writes the run.
        StaleError: a stage is stale and --force is off.
        TaskmillError: whatever a stage reports.
    """
    from taskmill.runs import RunLock, check_place

    check_place(walker.run, walker.resolved.text)
    if dry_run:
        earlier_done = True
        for name in names:
            outcome = walker.look(name) if earlier_done else Outcome(name, "waits", WAITS, None, 0.0)
            earlier_done = earlier_done and outcome.status == "up to date"
            yield outcome
        return
    with RunLock(walker.run):
        for name in names:
            yield walker.build(name)
        walker.record_recipe()


def remake(walker: Walk, names: tuple[str, ...]) -> Iterator[Outcome]:
    """Bring stages up to date in order, under the run's lock; what was made otherwise is made anew, as with --force.

    Raises:
        UsageError, BusyError, TaskmillError: see `walk`.
    """
    from taskmill.runs import RunLock, check_place

    check_place(walker.run, walker.resolved.text)
    with RunLock(walker.run):
        for name in names:
            walker.force = walker.look(name).status in ("stale", "damaged")
            yield walker.build(name)
        walker.record_recipe()


def follow(walker: Walk) -> None:
    """Take part, in a launch of several processes, in the stages that rank 0 builds with all of them, until it is done.

    Nothing is written, and rank 0 alone holds the run's lock.

    Raises:
        TaskmillError: whatever a stage reports.
    """
    from taskmill.training.updating.distributed import world

    for name in world().calls():
        module: Any = walker.module(name)
        module.follow(walker.settings(name), walker.inputs(name))


def run_directory(recipe: str, name: str, chosen: Path | None = None) -> Path:
    """Return the directory of a run: the chosen one, else `recipe` where that is a run, else `runs/<name>`.

    Raises:
        UsageError: there is a file in its place, or its name is not UTF-8.
    """
    given = Path(recipe)
    run = chosen or (given if (given / "recipe.json").is_file() else Path("runs") / name)
    if str(run) != str(run).encode("utf-8", "replace").decode():
        raise UsageError(f"the run {str(run)!r} has a name that is not UTF-8; choose another with --run DIR")
    for path in (run, *run.parents):
        if path.exists() and not path.is_dir():
            raise UsageError(
                f"the run {run} cannot be a directory: {path} is a file; choose another with --run DIR"
            )
    return run


def span(first: str | None, last: str | None) -> tuple[str, ...]:
    """Return the stages from `first` to `last`, both included.

    Raises:
        UsageError: unknown names, or `first` after `last`.
    """
    start = position(first) if first else 0
    stop = position(last) if last else len(NAMES) - 1
    if start > stop:
        raise UsageError(f"--from {first} comes after --to {last}")
    return NAMES[start : stop + 1]


def verify(run: Path) -> tuple[list[str], int]:
    """Check every finished stage of a run: bytes, digests, rows, and that each was built from the present inputs.

    Returns:
        one line per problem, and the number of files checked.

    Raises:
        UsageError: the folder holds no finished stage.
    """
    from taskmill.artifact import read_manifest
    from taskmill.records import DIRECTORIES
    from taskmill.runs import verify_stage

    problems: list[str] = []
    num_files = 0
    manifests: dict[str, Manifest] = {}
    for stage in NAMES:
        folder = run / DIRECTORIES[stage]
        folders = sorted(folder.glob("*/")) if stage == "tokenize" else [folder]
        for directory in folders:
            if not (directory / "manifest.json").is_file():
                continue
            found = verify_stage(directory)
            problems += found
            if any("manifest.json" in line for line in found):
                continue
            manifest = read_manifest(directory)
            assert manifest is not None
            num_files += len(manifest.files) + 1
            problems += _broken_inputs(manifest, manifests)
            manifests.setdefault(stage, manifest)
    if not manifests and not problems:
        raise UsageError(f"{run} holds no finished stage; `taskmill run RECIPE` makes one")
    return problems, num_files


def _broken_inputs(manifest: Manifest, earlier: dict[str, Manifest]) -> list[str]:
    problems = []
    for item in manifest.body["inputs"]:
        before = earlier.get(item["stage"])
        if before is None or item["stage"] == "tokenize":
            continue
        if before.rows(item["table"]) != item["rows"]:
            problems.append(
                f"{manifest.directory}: built from other rows of {item['stage']}/{item['table']} than are there now"
            )
    return problems
