"""Choose the demonstrations of a prompt: from the train side only, never the target itself or its like.

Its like is what shares its group, its near-duplicate cluster, its words or, once rendered, its input: an instance that
upstream repeats among its positive examples would else be asked for right behind its answer.

Candidates come in tiers: upstream's positive examples, then the split `demonstration`, then `train`. Of each tier
the `POOL` examples with the smallest hashes take part, and they alone are held; a prompt takes those whose hash mixed
with its own is smallest, so its demonstrations stay when other examples come or go. Where the recipe wants negative
examples, upstream's first ones come last. Reads the candidates' rows; writes nothing.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from taskmill import seeding
from taskmill.recipe import TkInstruct
from taskmill.templates.composing.schemas import Drop, Rendered
from taskmill.templates.composing.tk_instruct import first_examples, task_example
from taskmill.templates.drawing.examples import Example as Example
from taskmill.templates.drawing.examples import RowReader
from taskmill.templates.drawing.index import DRAWN_TIERS, NEGATIVE, TaskIndex
from taskmill.templates.drawing.order import I64, U64, combine, smallest
from taskmill.templates.drawing.writing import Setup
from taskmill.templates.rendering.decoding import decode
from taskmill.templates.rendering.variants import Conversation
from taskmill.text import words

POOL = 512
"""Most candidates per tier."""
_BEGINNING = 160
"""Characters whose words, but the last, tell most inputs apart."""
_FIRST = 16
"""So many candidates of a tier are put in order for each prompt at first; all, when these do not suffice."""

Show = Callable[[Example], Rendered | Conversation | Drop]
Clusters = Callable[[str], int | None]
"""Returns an example's near-duplicate cluster, or None."""


class Target(NamedTuple):
    """The example that a prompt asks, and how many demonstrations it wants."""

    example: Example
    asked: Rendered
    """In the prompt's own template."""
    prompt: int
    """The prompt's id as a number."""
    k: int
    template: str
    show: Show
    """Renders an example in the prompt's own template."""


Shown = tuple[str, Rendered]
"""A demonstration: its example's id, and what its template made of it."""


class Pool(NamedTuple):
    """One tier of candidates."""

    examples: list[Example]
    hashes: U64
    """uint64[n]"""


class Input:
    """A rendered input, to be compared by its words or, where it has none, by its text."""

    def __init__(self, text: str) -> None:
        """Take the text; its words are found when they are needed."""
        self._text = text
        self._first = words(text[:_BEGINNING])[:-1]
        self._all: list[str] | None = None

    def equals(self, other: Input) -> bool:
        """Say whether two inputs are the same."""
        if any(map(operator.ne, self._first, other._first)):  # as far as both go
            return False
        own = self._words()
        return own == other._words() if own else self._text.strip() == other._text.strip()

    def _words(self) -> list[str]:
        if self._all is None:
            self._all = words(self._text)
        return self._all


class Fixed(NamedTuple):
    """An example that every prompt of its task shows, in upstream's order."""

    example: Example
    shown: Rendered
    input: Input


class Shower:
    """Chooses the demonstrations of one task's prompts."""

    def __init__(self, setup: Setup, clusters: Clusters) -> None:
        """Start without candidates: `read` them where prompts show any."""
        self._setup, self._clusters = setup, clusters
        self._purpose = np.uint64(seeding.derive(setup.seed, "demonstrations/prompt"))
        self._pools: list[Pool] = []
        self._negatives: list[Example] = []
        """Upstream's negative examples, in its order."""
        self._fixed: list[Fixed] = []
        self._rendered: dict[tuple[str, str], tuple[Rendered, Input] | None] = {}
        """(template, candidate) -> what was made of it, and its input."""

    def read(self, examples: RowReader, index: TaskIndex, upstream: bool) -> None:
        """Read the candidates; `upstream`: all prompts show the first of the task's own examples instead."""
        if upstream:
            self._fixed = self._first_examples(examples, index)
            return
        if self._setup.settings.negative_demonstrations:
            self._negatives = read_negatives(examples, index)
        for tier in read_candidates(self._setup.seed, examples, index):
            if tier:
                ids = [example.id for example in tier]
                self._pools.append(
                    Pool(tier, seeding.ranks(self._setup.seed, "demonstrations/candidate", ids))
                )

    def _first_examples(self, examples: RowReader, index: TaskIndex) -> list[Fixed]:
        held = {example.id: example for example in read_upstream(examples, index)}
        named = [(name, task_example(decode(e.fields), e.references)) for name, e in held.items()]
        return [
            Fixed(
                held[name],
                Rendered("", one.input, one.output, (), None, (), one.kind, one.explanation),
                Input(one.input),
            )
            for name, one in first_examples(named, self._setup.settings.tk_instruct)
        ]

    def choose(self, targets: Sequence[Target]) -> list[Sequence[Shown]]:
        """Return for each target up to `k` demonstrations; fewer where there are not enough candidates."""
        if self._fixed:
            return [self._beside(target) for target in targets]
        if not targets or not (self._pools or self._negatives):
            return [() for _ in targets]
        prompts = np.array([target.prompt for target in targets], np.uint64)
        own = combine(prompts, self._purpose)[:, None]
        ranks = [combine(own, pool.hashes[None, :]) for pool in self._pools]
        firsts = [_first_places(found) for found in ranks]
        return [
            self._choose(target, self._in_order(number, firsts, ranks)) if target.k else ()
            for number, target in enumerate(targets)
        ]

    def _in_order(self, number: int, firsts: list[list[list[int]]], ranks: list[U64]) -> Iterator[Example]:
        """Yield the candidates of a prompt, tier by tier, in ascending order of rank."""
        for pool, first, found in zip(self._pools, firsts, ranks, strict=True):
            for place in first[number]:
                yield pool.examples[place]
            if len(first[number]) < len(pool.examples):
                for place in np.argsort(found[number], kind="stable")[len(first[number]) :].tolist():
                    yield pool.examples[place]

    def _choose(self, target: Target, candidates: Iterator[Example]) -> list[Shown]:
        """Return demonstrations to follow, then as many not to follow as the recipe wants, never these alone."""
        most = min(self._setup.settings.negative_demonstrations, len(self._negatives), target.k - 1)
        taken: list[Shown] = []
        seen, asked = {target.example.normalised}, Input(target.asked.source)
        cluster = self._clusters(target.example.id)
        for source, number in ((candidates, target.k - most), (iter(self._negatives), most)):
            for candidate in itertools.islice(self._fitting(target, source, seen, asked, cluster), number):
                taken.append(candidate)
        return taken

    def _fitting(
        self,
        target: Target,
        candidates: Iterator[Example],
        seen: set[bytes],
        asked: Input,
        cluster: int | None,
    ) -> Iterator[Shown]:
        """Yield the candidates that may stand beside the target, and note them in `seen`."""
        for candidate in candidates:
            if candidate.normalised in seen or self._alike(candidate, target.example, cluster):
                continue
            found = self._render(target, candidate)
            if found is None or asked.equals(found[1]):
                continue
            seen.add(candidate.normalised)
            yield candidate.id, found[0]

    def _render(self, target: Target, candidate: Example) -> tuple[Rendered, Input] | None:
        """Render a candidate in the target's template, once for all prompts of that template."""
        key = (target.template, candidate.id)
        if key not in self._rendered:
            rendered = target.show(candidate)
            self._rendered[key] = (
                (_explained(rendered, candidate), Input(rendered.source))
                if isinstance(rendered, Rendered)
                else None
            )
        return self._rendered[key]

    def _beside(self, target: Target) -> list[Shown]:
        """Return the task's first examples that are neither the target nor a copy; upstream shows those of its group."""
        asked, cluster = Input(target.asked.source), self._clusters(target.example.id)
        return [
            (one.example.id, one.shown)
            for one in self._fixed
            if one.example.normalised != target.example.normalised
            and one.example.id != target.example.id
            and (cluster is None or self._clusters(one.example.id) != cluster)
            and not asked.equals(one.input)
        ]

    def _alike(self, candidate: Example, target: Example, cluster: int | None) -> bool:
        """Say whether showing the candidate could give the target away, whose near-duplicate cluster is `cluster`."""
        if candidate.id == target.id or candidate.group == target.group:
            return True
        return cluster is not None and self._clusters(candidate.id) == cluster


def _explained(rendered: Rendered, candidate: Example) -> Rendered:
    """Return the demonstration with what upstream says of it as an example of its task."""
    if candidate.upstream_split != "demonstration":
        return rendered
    fields = decode(candidate.fields)
    return rendered._replace(
        example_kind=str(fields.get("example_kind") or "positive"),
        explanation=str(fields.get("explanation") or ""),
    )


def _first_places(ranks: U64) -> list[list[int]]:
    """Return for each row of ranks the places of the smallest, in ascending order of rank."""
    number = min(_FIRST, ranks.shape[1])
    if number < ranks.shape[1]:
        places = np.argpartition(ranks, number - 1, axis=1)[:, :number]
    else:
        places = np.broadcast_to(np.arange(number), ranks.shape)
    order = np.argsort(np.take_along_axis(ranks, places, axis=1), axis=1, kind="stable")
    found: list[list[int]] = np.take_along_axis(places, order, axis=1).tolist()
    return found


# ---------------------------------------------------------------------------------------- candidates


def read_candidates(seed: int, examples: RowReader, index: TaskIndex) -> list[list[Example]]:
    """Return the candidates of each tier, in order of their ids."""
    purpose = np.uint64(seeding.derive(seed, "demonstrations/pool"))
    chosen = []
    for tier in DRAWN_TIERS:
        places = np.flatnonzero(index.tiers == tier)
        chosen.append(places[smallest(combine(index.hashes[places], purpose), POOL)])
    return _read(examples, index, chosen)


def read_upstream(examples: RowReader, index: TaskIndex) -> list[Example]:
    """Return upstream's own examples of the task, positive and negative, in order of their ids."""
    shown = np.flatnonzero((index.tiers == DRAWN_TIERS[0]) | (index.tiers == NEGATIVE))
    return _read(examples, index, [shown])[0]


def read_negatives(examples: RowReader, index: TaskIndex) -> list[Example]:
    """Return upstream's negative examples of the task, in its order."""
    held = {e.id: e for e in _read(examples, index, [np.flatnonzero(index.tiers == NEGATIVE)])[0]}
    named = [(name, task_example(decode(e.fields), e.references)) for name, e in held.items()]
    return [held[name] for name, _ in first_examples(named, TkInstruct(0, negative_examples=len(named)))]


def _read(examples: RowReader, index: TaskIndex, chosen: Sequence[I64]) -> list[list[Example]]:
    tiers: list[list[Example]] = [[] for _ in chosen]
    wanted = np.sort(np.concatenate(list(chosen)))
    if not len(wanted):
        return tiers
    tier_of = {place: tier for tier, places in enumerate(chosen) for place in places.tolist()}
    start, stop = index.start + int(wanted[0]), index.start + int(wanted[-1]) + 1
    for stretch in examples.stretches(start, stop):
        first = stretch.first - index.start
        low, high = np.searchsorted(wanted, [first, first + stretch.high - stretch.low])
        inside = wanted[low:high]
        for place, example in zip(inside.tolist(), stretch.examples((inside - first).tolist()), strict=True):
            tiers[tier_of[place]].append(example)
    return tiers
