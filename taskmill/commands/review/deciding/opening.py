"""A run as a review reads it once: its pairs, its tasks, and whether its split is up to date. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from taskmill import recipe_files
from taskmill.artifact import Identity, read_manifest
from taskmill.commands.evidence import normaliser_of
from taskmill.commands.finished import FinishedRun
from taskmill.commands.review.deciding.board import Board
from taskmill.commands.review.deciding.evidence_texts import Examples, Shared, Texts
from taskmill.commands.review.deciding.filters import Key
from taskmill.commands.review.deciding.keeping import Signature, signature
from taskmill.engine import leave_pandas_out
from taskmill.errors import DamagedError
from taskmill.recipe import Resolved
from taskmill.records import DIRECTORIES
from taskmill.settings import Settings
from taskmill.splits.deciding.decision_files import decisions_digest
from taskmill.splits.deciding.decisions import Decision
from taskmill.splits.split import pairs_of
from taskmill.stages import Walk
from taskmill.storage import has_size

_TASK_COLUMNS = ("task", "dataset", "category", "output_fields", "shard")
_WATCHED = ("recipe.json", "tasks/manifest.json", "overlaps/manifest.json")


@dataclass
class Opened:
    """What stays as it is until curate or overlap are built again, or the recipe changes."""

    run: Path
    resolved: Resolved
    settings: Settings
    tasks: list[str]
    """Every task of the plan."""
    board: Board
    shared: Shared
    texts: Texts
    revision: str
    watched: tuple[Signature, ...]

    def is_stale(self) -> bool:
        """Say whether the run is another one by now."""
        return self.watched != watched(self.run)

    @cached_property
    def _identity(self) -> Identity:
        return Walk(self.resolved, self.run).identity("split")

    @cached_property
    def _known_digest(self) -> bool:
        """Whether the split's fingerprint holds the plain digest of people's decisions, which needs no file read again."""
        return self._identity.external.get("decisions") == decisions_digest(self.board.people.values())

    def split_status(self, people: Mapping[Key, Decision]) -> str:
        """Return whether the stage split fits the present decisions: `up to date`, `stale`, `to do` or `damaged`."""
        folder = self.run / DIRECTORIES["split"]
        try:
            manifest = read_manifest(folder)
        except DamagedError:
            return "damaged"
        if manifest is None:
            return "to do"
        if self._known_digest:
            external = {**self._identity.external, "decisions": decisions_digest(people.values())}
            identity = replace(self._identity, external=external)
        else:
            identity = Walk(self.resolved, self.run).identity("split")
        if manifest.fingerprint != identity.fingerprint:
            return "stale"
        whole = all(has_size(folder / entry.path, entry.bytes) for entry in manifest.files)
        return "up to date" if whole else "damaged"


def watched(run: Path) -> tuple[Signature, ...]:
    """Return what tells whether the run was built again."""
    return tuple(signature(run / name) for name in _WATCHED)


def open_run(run: Path) -> Opened:
    """Read a run whose overlap is finished.

    Raises:
        UsageError: there is no such run, or overlap is not finished.
        DamagedError: a table is damaged.
    """
    leave_pandas_out()
    seen = watched(run)
    found = FinishedRun(run)
    found.require("curate")
    found.require("overlap")
    resolved = recipe_files.from_json(run)
    settings = Settings(resolved, ("split",))
    rows = {row["task"]: row for row in found.rows("curate", "tasks", _TASK_COLUMNS)}
    tasks = found.inputs.table("overlap", "plan", ["task"])["task"].to_pylist()
    board = Board(settings, pairs_of(found.inputs), rows)
    shared = Shared(found.inputs, board.pairs)
    examples = Examples(
        found.inputs.files("curate", "examples"), {task: row["shard"] for task, row in rows.items()}
    )
    outputs = {task: row["output_fields"] for task, row in rows.items()}
    texts = Texts(examples, shared, outputs, resolved.recipe.overlap.n, normaliser_of(found))
    revision = found.manifests["overlap"].rows("pairs")[:16]
    return Opened(run, resolved, settings, tasks, board, shared, texts, revision, seen)
