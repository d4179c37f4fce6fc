"""The first pass over a task: where each example stands and its hash, in a few bytes each.

Reads ids, places, references and fields, a stretch of rows at a time; writes nothing.
What is never rendered for want of an answer or of a quality class is told here, once per example.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taskmill import seeding
from taskmill.templates.composing.schemas import Drop
from taskmill.templates.drawing.examples import RowRange, RowReader, Stretch
from taskmill.templates.drawing.order import I64, U64
from taskmill.templates.rendering.decoding import decode

SPLITS = ("test", "train", "validation")
"""The splits that are rendered, in the order of their rows."""
_CODES = {split: code for code, split in enumerate((*SPLITS, "demonstration"))}
NO_TIER, NEGATIVE = -1, 3
DRAWN_TIERS = (0, 1, 2)
"""Upstream's positive examples, the split `demonstration`, `train`; `NEGATIVE` ones are never drawn."""

_TIERS: dict[str | None, int] = {"demonstration": 1, "train": 2}
_PLACES: dict[str | None, int] = {split: code for code, split in enumerate(SPLITS)}
_COLUMNS = ("example", "upstream_split", "references", "fields", "quality")

Answered = Callable[[Sequence[Sequence[str]], Callable[[], Sequence[str]]], list[bool]]
"""Says of examples' references and fields (JSON, read when asked for) which can be rendered with an answer."""


@dataclass
class TaskIndex:
    """The examples of one task in row order; 12 bytes each."""

    start: int
    """Row of the first one in its file."""
    places: NDArray[np.int8]
    """Position in SPLITS of those that may become prompts, else -1."""
    tiers: NDArray[np.int8]
    """How early one is taken as a demonstration, else -1; 3 for upstream's negative examples."""
    hashes: U64
    fits: NDArray[np.int16]
    """Position in `masks` of what one's fields fit."""
    masks: list[tuple[bool, ...]] = field(default_factory=list)
    """Which variants an example may draw, where that differs between examples."""
    num_members: dict[str, int] = field(default_factory=dict)
    """Split -> its examples that may become prompts, with and without an answer."""

    def rows(self, split: str) -> I64:
        """Return the rows, from 0, of the examples of a split that may become prompts."""
        return np.flatnonzero(self.places == _CODES[split])


@dataclass(frozen=True)
class Reading:
    """What the first pass asks of examples."""

    answered: Answered
    quality: Callable[[str, str | None], str | Drop | None] | None = None
    """Tells an example's quality class from its split and its own class, or why it has none; None: none is needed."""
    fitting: Callable[[str], tuple[bool, ...]] | None = None
    """Which variants an example's fields may draw; None: all."""


def index_task(
    examples: RowReader,
    rows: tuple[int, int],
    splits: Callable[[Sequence[str]], Sequence[str | None]],
    reading: Reading,
    drop: Callable[[str, Drop], None],
) -> TaskIndex:
    """Read a task's rows [start, stop); `drop` is told each (example, reason) that cannot be rendered.

    Args:
        splits: tells the splits of examples; None where one is in none.
    """
    start, stop = rows
    size = stop - start
    index = TaskIndex(
        start,
        np.full(size, -1, np.int8),
        np.full(size, NO_TIER, np.int8),
        np.zeros(size, np.uint64),
        np.zeros(size, np.int16),
    )
    for stretch in examples.stretches(start, stop, _COLUMNS):
        _index(index, stretch, splits, reading, drop)
    return index


def _index(
    index: TaskIndex,
    stretch: Stretch,
    splits: Callable[[Sequence[str]], Sequence[str | None]],
    reading: Reading,
    drop: Callable[[str, Drop], None],
) -> None:
    ids, qualities = stretch.column("example"), stretch.column("quality")
    first = stretch.first - index.start
    index.hashes[first : first + len(ids)] = example_hashes(ids)
    own, shown = splits(ids), stretch.column("upstream_split")
    answered = reading.answered(stretch.column("references"), lambda: stretch.column("fields"))
    if not (reading.quality or reading.fitting):
        _index_plain(index, stretch, own, answered, drop)
        return
    places, tiers, counts = [-1] * len(ids), [NO_TIER] * len(ids), index.num_members
    rows = zip(own, shown, answered, strict=True)
    for place, (split, upstream, has_answer) in enumerate(rows):
        if split not in _CODES:
            continue
        is_shown = upstream == "demonstration"
        is_prompt = split != "demonstration" and not is_shown
        if is_prompt:
            counts[split] = counts.get(split, 0) + 1
        if not has_answer:
            if is_prompt:
                drop(ids[place], Drop("unlabelled", "upstream gives no answer"))
            continue
        if is_prompt:
            refused = reading.quality(split, qualities[place]) if reading.quality else None
            if reading.fitting and not isinstance(refused, Drop):
                refused = _fit(index, first + place, reading.fitting(stretch.column("fields")[place]))
            if isinstance(refused, Drop):
                drop(ids[place], refused)
            else:
                places[place] = _CODES[split]
        if is_shown:
            if split in ("train", "demonstration"):
                tiers[place] = _kind(stretch.column("fields")[place])
        elif split in _TIERS:
            tiers[place] = _TIERS[split]
    index.places[first : first + len(ids)], index.tiers[first : first + len(ids)] = places, tiers


def _index_plain(
    index: TaskIndex,
    stretch: Stretch,
    splits: Sequence[str | None],
    answered: Sequence[bool],
    drop: Callable[[str, Drop], None],
) -> None:
    """Note examples that need an answer alone: first all as if they had one, then those that are otherwise."""
    places = [_PLACES.get(split, -1) for split in splits]
    tiers = [_TIERS.get(split, NO_TIER) for split in splits]
    counted, shown = Counter(splits), stretch.column("upstream_split")
    for place, (upstream, has_answer) in enumerate(zip(shown, answered, strict=True)):
        if has_answer and upstream != "demonstration":
            continue
        split, is_prompt, places[place], tiers[place] = splits[place], places[place] >= 0, -1, NO_TIER
        if upstream == "demonstration":
            counted[split] -= 1
            if has_answer and split in ("train", "demonstration"):
                tiers[place] = _kind(stretch.column("fields")[place])
        elif is_prompt:
            drop(stretch.column("example")[place], Drop("unlabelled", "upstream gives no answer"))
    first, counts = stretch.first - index.start, index.num_members
    for name in SPLITS:
        if counted[name] > 0:
            counts[name] = counts.get(name, 0) + counted[name]
    index.places[first : first + len(places)] = places
    index.tiers[first : first + len(tiers)] = tiers


def _fit(index: TaskIndex, place: int, mask: tuple[bool, ...]) -> Drop | None:
    """Note which variants an example may draw; return why it can draw none, or None."""
    if not any(mask):
        return Drop("no_template", "the fields fit no template")
    if mask not in index.masks:
        index.masks.append(mask)
    index.fits[place] = index.masks.index(mask)
    return None


def _kind(fields: str) -> int:
    """Return the tier of one of upstream's own examples of its task."""
    return 0 if decode(fields).get("example_kind", "positive") == "positive" else NEGATIVE


def example_hashes(names: Sequence[str]) -> U64:
    """Return one hash per example: uint64[n]; seeds come in where it is mixed with another."""
    return seeding.ranks(0, "prompts/example", names)


def splits_of(
    ranges: Sequence[RowRange], readers: Mapping[Path, RowReader]
) -> Callable[[Sequence[str]], Sequence[str | None]]:
    """Return a function that tells examples' splits, or None; asked in ascending order of ids.

    `ranges` are the rows of splits/members that one task has, in ascending order of ids too.
    """
    waiting = (
        stretch for found in ranges for stretch in readers[found.path].stretches(found.start, found.stop)
    )
    names: list[str] = []
    splits: list[str] = []

    def splits_for(wanted: Sequence[str]) -> Sequence[str | None]:
        while len(names) < len(wanted) or (names and names[-1] < wanted[-1]):
            stretch = next(waiting, None)
            if stretch is None:
                break
            names.extend(stretch.column("example"))
            splits.extend(stretch.column("split"))
        size = len(wanted)
        if names[:size] == wanted:
            found: Sequence[str | None] = splits[:size]
            del names[:size], splits[:size]
            return found
        known = dict(zip(names, splits, strict=True))
        past = bisect.bisect_right(names, wanted[-1])
        del names[:past], splits[:past]
        return [known.get(name) for name in wanted]

    return splits_for
