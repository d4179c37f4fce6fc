"""Render one task: draw (example, template) pairs by hash until there are enough prompts, account for the rest.

A first pass reads where each example stands; then the pairs of smallest hash are rendered, batch of examples after
batch, and for each that gave nothing the pair next in rank, until N prompts are made or no pair is left. Test takes every
variant of every example. Each considered pair is either a row of prompts or a row of dropped. What is held does not grow
with the texts: hashes and places of the examples, the candidates for demonstrations, and rows on their way to be sorted.

A test variant that fails on some example is left out whole, because its score would be over other examples than
its siblings' (OPT-IML appendix A.1); where every variant fails somewhere, all are kept where they fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from taskmill import seeding
from taskmill.templates.composing.schemas import Drop
from taskmill.templates.drawing import pairs
from taskmill.templates.drawing.demonstrations import Clusters, Shower
from taskmill.templates.drawing.examples import RowReader
from taskmill.templates.drawing.index import SPLITS, Reading, TaskIndex, index_task
from taskmill.templates.drawing.order import I64, PairOrder, combine, smallest, weighted_choice
from taskmill.templates.drawing.sorting import Place, PromptSorter, Row
from taskmill.templates.drawing.writing import Setup, Writer
from taskmill.templates.rendering.variants import TaskVariants

MISFITS = ("no_output", "empty", "render_error")
"""Reasons that make a test variant unfit for its task; the others are about the example or the limits."""


class Output(Protocol):
    """Where the rows of a task go."""

    def prompts(self, place: Place, rows: Sequence[Row] | pa.RecordBatch) -> None:
        """Take rows of a task and split, in order."""

    def drop(self, task: str, example: str | None, template: str | None, drop: Drop) -> None:
        """Take what did not become a prompt."""


@dataclass
class TaskSource:
    """A task and where its examples are."""

    task: Mapping[str, Any]
    level: str | None
    rows: tuple[int, int]
    """Of the examples' file, [start, stop)."""
    splits: Callable[[Sequence[str]], Sequence[str | None]]
    """Tells examples' splits, asked in ascending order of ids."""
    clusters: Clusters


@dataclass
class TaskCounts:
    """What rendering one task came to."""

    counts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    members: dict[str, int] = field(default_factory=dict)
    """Split -> examples that may become prompts, with and without an answer."""


class TaskRenderer:
    """Renders the examples of one task."""

    def __init__(
        self,
        source: TaskSource,
        examples: RowReader,
        found: TaskVariants,
        setup: Setup,
        folder: Path,
        out: Output,
    ) -> None:
        """Take a task, its variants, the reader of its examples, and a folder for rows that are being sorted."""
        self._source, self._reader, self._found, self._setup = source, examples, found, setup
        self._name: str = source.task["task"]
        self._variants = found.variants
        self._folder, self._out = folder, out
        self._writer = Writer(source.task, setup)
        self._result = TaskCounts()
        self._pairs = pairs.PairRenderer(
            self._writer, Shower(setup, source.clusters), self._result.counts, self._misfit
        )
        self._kept: set[str] = set()
        """Templates of the test prompts so far."""
        self._unfit: dict[str, Drop] = {}

    def run(self) -> TaskCounts:
        """Render the test, train and validation prompts of the task."""
        quality = self._writer.quality if self._writer.conditions else None
        reading = Reading(self._found.answered, quality, self._found.fitting)
        index = index_task(self._reader, self._source.rows, self._source.splits, reading, self._refuse)
        self._result.members = index.num_members
        if index.num_members:
            for refused in self._found.refused:
                self._result.counts["considered"] += 1
                self._drop(None, refused.template, refused.drop)
        if any(self._writer.most_demonstrations(s) for s in index.num_members):
            self._pairs.read_candidates(self._reader, index, self._writer.shows_upstream)
        for split in SPLITS:
            rows = index.rows(split)
            if not len(rows):
                continue
            with PromptSorter(Place(self._name, split, self._source.level), self._folder) as sorter:
                if split == "test":
                    self._every_variant(index, rows, sorter)
                else:
                    self._draw(split, index, rows, sorter)
        return self._result

    def _refuse(self, example: str, drop: Drop) -> None:
        self._result.counts["considered"] += 1
        self._drop(example, None, drop)

    def _misfit(self, split: str, example: str, template: str, drop: Drop) -> None:
        """Account for a pair that gave no prompt."""
        self._drop(example, template, drop)
        if split == "test" and drop.reason in MISFITS:
            self._unfit.setdefault(template, Drop("unfit_template", f"{drop.reason}: {example}"))

    def _drop(self, example: str | None, template: str | None, drop: Drop) -> None:
        self._result.dropped[drop.reason] += 1
        self._out.drop(self._name, example, template, drop)

    # ------------------------------------------------------------------------------------------ pairs

    def _draw(self, split: str, index: TaskIndex, rows: I64, sorter: PromptSorter) -> None:
        """Render the pairs of smallest hash until there are enough prompts."""
        settings = self._setup.settings
        limit = settings.validation_prompts if split == "validation" else settings.prompts_per_task
        wanted = len(rows) if limit is None else limit
        hashes = index.hashes[rows]
        if self._found.draws_one:
            chosen = self._one_each(split, index, rows)
            order = PairOrder(hashes, seeding.ranks(self._setup.seed, f"render/{split}/template", [""]))
        elif len(rows) * len(self._found.variants) <= wanted:
            self._sweep(split, index, rows, None, sorter)
            self._finish(split, sorter)
            return
        else:
            chosen = None
            names = [v.template for v in self._found.variants]
            order = PairOrder(hashes, seeding.ranks(self._setup.seed, f"render/{split}/template", names))
        while sorter.num_rows < wanted:
            examples, variants = order.take(wanted - sorter.num_rows)
            if not len(examples):
                break
            if chosen is not None:
                variants = chosen[examples]
            by_row = np.lexsort((variants, examples))
            self._sweep(split, index, rows[examples[by_row]], variants[by_row], sorter)
        self._finish(split, sorter)

    def _one_each(self, split: str, index: TaskIndex, rows: I64) -> I64:
        """Return the variant that each example draws."""
        variants = self._found.variants
        purpose = f"render/{split}/variant"
        templates = seeding.ranks(self._setup.seed, purpose, [v.template for v in variants])
        masks = np.array(index.masks or [(True,) * len(variants)], np.float64)[index.fits[rows]]
        weights = [masks[:, place] * variant.weight for place, variant in enumerate(variants)]
        return weighted_choice(index.hashes[rows], templates, weights)

    def _every_variant(self, index: TaskIndex, rows: I64, sorter: PromptSorter) -> None:
        """Render every variant of the test examples, and leave out the variants that do not fit them all."""
        limit = self._setup.settings.test_examples
        if limit is not None:
            purpose = np.uint64(seeding.derive(self._setup.seed, "render/test"))
            rows = rows[smallest(combine(index.hashes[rows], purpose), limit)]
        if self._found.draws_one:
            self._sweep("test", index, rows, self._one_each("test", index, rows), sorter)
            self._unfit.clear()
        else:
            self._sweep("test", index, rows, None, sorter)
        if self._kept and self._kept <= self._unfit.keys():
            self._result.counts["test_variants_that_fit_some_only"] += len(self._kept)
            self._unfit.clear()
        without = self._kept & self._unfit.keys()
        if without:
            for template, example in sorter.named(without):
                self._drop(example, template, self._unfit[template])
        self._finish("test", sorter, without)

    def _finish(self, split: str, sorter: PromptSorter, without: Collection[str] = ()) -> None:
        number = 0
        place = Place(self._name, split, self._source.level)
        for rows in sorter.sorted(without):
            self._out.prompts(place, rows)
            number += len(rows)
        self._result.counts[f"prompts_{split}"] += number
        self._result.counts["prompts"] += number

    def _sweep(
        self, split: str, index: TaskIndex, rows: I64, variants: I64 | None, sorter: PromptSorter
    ) -> None:
        """Render pairs in ascending order of their rows: of every variant where none are given."""
        if not len(rows) or not self._found.variants:
            return
        start, own = index.start, self._found.variants
        for stretch in self._reader.stretches(start + int(rows[0]), start + int(rows[-1]) + 1):
            first = stretch.first - start
            low, high = np.searchsorted(rows, [first, first + stretch.high - stretch.low]).tolist()
            if low == high:
                continue
            inside = rows[low:high]
            examples, hashes = stretch.examples((inside - first).tolist()), index.hashes[inside]
            if variants is not None:
                chosen = [own[number] for number in variants[low:high].tolist()]
            elif len(own) == 1:
                chosen = [own[0]] * len(examples)
            else:
                chosen = own * len(examples)
                examples = [example for example in examples for _ in own]
                hashes = np.repeat(hashes, len(own))
            for begin in range(0, len(examples), pairs.CHUNK):
                end = begin + pairs.CHUNK
                made = self._pairs.render(split, examples[begin:end], hashes[begin:end], chosen[begin:end])
                sorter.extend(made)
                if split == "test":
                    self._kept.update([row.template for row in made])
