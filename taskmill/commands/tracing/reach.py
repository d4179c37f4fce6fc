"""When the prompts of a run are trained on, for the command `trace`: positions of the mixture, and the updates that take them.

Reads mixture, tokens and the manifest of the training; writes nothing. Positions and updates are exact: the mixture's function,
the places of the tokens, and the same plan that a training follows (`training.packing.plan`). What is not there yet, or is of
other prompts, is left out and said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taskmill.artifact import Manifest
from taskmill.commands.finished import FinishedRun
from taskmill.commands.mixture_order import open_mixture
from taskmill.errors import StaleError, TaskmillError
from taskmill.plain import build
from taskmill.recipe import Train
from taskmill.text import ranges
from taskmill.training.packing.plan import Plan, make_plan

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
STATES = ("trained", "planned", "left_out", "unreached", "validation", "test")
"""What a run does with a prompt: trained on, to be trained on, reached by the mixture but in no update, train prompt that the
mixture does not reach, loss measured only, asked in the evaluation."""
TRAINED, PLANNED, LEFT_OUT, UNREACHED, VALIDATION, TEST = range(len(STATES))


@dataclass
class Reach:
    """Where each prompt stands in the order of training; a place is a position of the mixture, or a piece of one."""

    row: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Prompt row of each place: int64[m]."""
    position: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Its position in the mixture."""
    document: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Its document among the tokens; -1 where there is none."""
    step: I64 | None = None
    """The update that takes it, counted from 1; 0 for none. None where that is not known."""
    num_positions: int = 0
    num_steps: int | None = None
    epoch: int | None = None
    """Positions of an epoch, where prompts come in epochs."""
    is_known: bool = False
    """Whether the mixture is finished."""
    is_trained: bool = False
    """Whether the training is."""
    all_loss: bool = False
    """Whether every segment carries loss (`train.loss: sequence`)."""
    folder: Path | None = None
    """Of the tokens."""
    missing: list[dict[str, str]] = field(default_factory=list)
    """What cannot be told, why, and the command that helps."""
    used: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Distinct rows that an update takes, or all that are reached where updates are not known."""
    reached: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Distinct rows that the mixture reaches."""

    packed: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Distinct rows of which something can be learnt."""

    def settle(self) -> Reach:
        """Find the distinct rows that are reached, and of them those that an update takes; sort the places by row."""
        order = np.lexsort((self.position, self.row))
        self.row, self.position, self.document = self.row[order], self.position[order], self.document[order]
        self.step = None if self.step is None else self.step[order]
        self.reached = np.unique(self.row)
        self.used = self.reached if self.step is None else np.unique(self.row[self.step > 0])
        return self

    def states(self, rows: I64, splits: npt.NDArray[Any]) -> I64:
        """Return the state of each prompt, an index of STATES: int64[n].

        Args:
            rows: int64[n].
            splits: the split of each, as text.
        """
        used = TRAINED if self.is_trained else PLANNED
        train = np.where(np.isin(rows, self.reached), LEFT_OUT, UNREACHED if self.is_known else PLANNED)
        train = np.where(np.isin(rows, self.used), used, train)
        states: I64 = np.where(splits == "train", train, np.where(splits == "validation", VALIDATION, TEST))
        return states

    def of(self, rows: I64, held: Mapping[int, set[int]]) -> tuple[I64, I64 | None]:
        """Return (position, step) of the places of some prompts.

        Args:
            rows: of the prompts.
            held: row -> the documents that count; no update is told for the places of its others.
        """
        first = np.searchsorted(self.row, rows)
        places = ranges(first, np.searchsorted(self.row, rows, side="right") - first)
        if self.step is None:
            return self.position[places], None
        counts = ~np.isin(self.row[places], list(held))
        counts |= np.isin(self.document[places], sorted(set[int]().union(*held.values())))
        return self.position[places], np.where(counts, self.step[places], 0)


def read_reach(found: FinishedRun) -> Reach:
    """Return what is known of the order of training.

    Raises:
        DamagedError: a file of the run is missing or changed.
    """
    reach = Reach()
    mixture = _mixture(found, reach)
    tokens = _tokens(found, reach, mixture is not None)
    if tokens is not None:
        _take_places(found, reach, tokens)
        _take_steps(found, reach)
    if mixture is not None and (tokens is None or _reads(tokens, found, "mix", "mixture.json")):
        _take_draws(reach, *mixture)
    return reach.settle()


def _mixture(found: FinishedRun, reach: Reach) -> tuple[Any, int] | None:
    if not found.has("mix"):
        reach.missing.append(_lack("positions of the mixture", "it is not made yet", found.command("mix")))
        return None
    try:
        return open_mixture(found)
    except StaleError as error:
        reach.missing.append(_lack("positions of the mixture", str(error), found.command("mix")))
        return None


def _lack(what: str, why: str, command: str) -> dict[str, str]:
    return {"what": what, "why": why, "command": command}


def _reads(manifest: Manifest, found: FinishedRun, stage: str, table: str) -> bool:
    """Say whether a stage was made of a table as it is now."""
    read = {(item["stage"], item["table"]): item["rows"] for item in manifest.body["inputs"]}
    return found.has(stage) and read.get((stage, table)) == found.manifests[stage].rows(table)


def _tokens(found: FinishedRun, reach: Reach, has_mixture: bool) -> Manifest | None:
    """Return the tokens that answer for the run's prompts: those that were trained on, else those of the mixture."""
    tokens = found.manifests.get("tokenize")
    command = found.command("tokenize")
    if tokens is None:
        gone = "the tokens that the model was trained on are gone"
        why = gone if found.has("train") else "the mixture is not tokenised yet"
        reach.missing.append(_lack("update steps", why, command))
        return None
    if not _reads(tokens, found, "render", "prompts"):
        why = "the tokens are of other prompts than the run's"
        reach.missing.append(_lack("update steps", why, f"{command} --force"))
        return None
    if _reads(tokens, found, "mix", "mixture.json"):
        return tokens
    if _trained_on(found, tokens):
        if has_mixture:
            why = "the mixture was changed after the training; positions are those that were trained on"
            reach.missing.append(_lack("positions of the mixture as it is now", why, found.command("train")))
        return tokens
    reach.missing.append(_lack("update steps", "the tokens are of another mixture", command))
    return None


def _trained_on(found: FinishedRun, tokens: Manifest) -> bool:
    """Say whether the finished training read these tokens."""
    train = found.manifests.get("train")
    read = [item for item in train.body["inputs"] if item["stage"] == "tokenize"] if train else []
    return bool(read) and all(tokens.rows(item["table"]) == item["rows"] for item in read)


def _take_places(found: FinishedRun, reach: Reach, tokens: Manifest) -> None:
    arrays = found.tokens
    reach.document = np.asarray(arrays.order).astype(np.int64)
    reach.row = np.asarray(arrays.rows)[reach.document].astype(np.int64)
    reach.position = np.asarray(arrays.positions).astype(np.int64)
    reach.num_positions, reach.is_known = int(arrays.info["num_positions"]), True
    reach.folder = tokens.directory


def _take_draws(reach: Reach, mixture: Any, num_positions: int) -> None:
    """Add the positions that have no place among the tokens, or all of them before there are tokens."""
    rows = mixture.draws(num_positions)[1]
    without = np.ones(num_positions, bool)
    without[reach.position] = False
    position = np.flatnonzero(without)
    reach.row = np.append(reach.row, rows[position])
    reach.position = np.append(reach.position, position)
    reach.document = np.append(reach.document, np.full(len(position), -1))
    if reach.step is not None:
        reach.step = np.append(reach.step, np.zeros(len(position), np.int64))
    reach.num_positions, reach.is_known = num_positions, True
    reach.epoch = mixture.epoch if mixture.in_epochs else None


# --------------------------------------------------------------------------------------------- steps


def _take_steps(found: FinishedRun, reach: Reach) -> None:
    """Find the update of each place, of the training that was or of the one that the recipe asks for."""
    assert reach.folder is not None, "tokens were found"
    tokens = found.manifests["tokenize"]
    trained = found.manifests.get("train")
    if trained is not None and not _trained_on(found, tokens):
        why = "the model was trained on other tokens: steps are those of the next training"
        reach.missing.append(_lack("what the finished model was trained on", why, found.command("train")))
        trained = None
    settings = _settings(found, trained)
    if settings is None:
        reach.missing.append(_lack("update steps", "the run has no recipe.json", found.command("train")))
        return
    train, seed, num_processes = settings
    try:
        with _quiet():
            plan = make_plan(train, found.tokens, seed, num_processes)
    except TaskmillError as error:
        reach.missing.append(_lack("update steps", str(error), found.command("train")))
        return
    if trained is not None and trained.counts.get("num_steps", plan.num_steps) != plan.num_steps:
        why = "the training had another number of updates than this version plans for it"
        reach.missing.append(_lack("update steps", why, f"{found.command('train')} --force"))
        return
    reach.step, reach.num_steps = _steps(plan), plan.num_steps
    reach.packed = np.unique(reach.row[plan.packs.documents])
    reach.is_trained, reach.all_loss = trained is not None, train.loss == "sequence"
    if trained is None:
        why = "no training of these tokens is finished; updates are those that it will make"
        reach.missing.append(_lack("what a model was trained on", why, found.command("train")))


def _settings(found: FinishedRun, trained: Manifest | None) -> tuple[Train, int, int] | None:
    """Return the settings, seed and number of processes of a training: of the finished one, else of the recipe."""
    if trained is not None and "train" in trained.body["settings"]:
        recorded = trained.body["recorded"].get("train", {})
        train = build(Train, trained.body["settings"]["train"], "train")
        return train, trained.body["seed"], int(recorded.get("num_processes", 1))
    values = found.recipe.get("values")
    return None if values is None else (build(Train, values["train"], "train"), values["seed"], 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a training says of its plan off the screen: nothing is trained here."""
    log = logging.getLogger("taskmill")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _steps(plan: Plan) -> I64:
    """Return the update that takes each place of the tokens' order, counted from 1; 0 where none does: int64[m]."""
    packs, steps = plan.packs, plan.steps
    step_of_pack = np.zeros(packs.num_packs, np.int64)
    update = np.repeat(np.arange(1, steps.num_steps + 1), np.diff(steps.offsets))
    step_of_pack[steps.order] = np.where(update <= plan.num_steps, update, 0)
    found = np.zeros(len(plan.tokens.order), np.int64)
    found[packs.documents] = np.repeat(step_of_pack, np.diff(packs.offsets))
    return found
