"""Render (example, template) pairs: each becomes a row of prompts, with its demonstrations and wording, or a drop.

Reads nothing but the candidates for demonstrations; writes nothing.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from taskmill import seeding
from taskmill.records import SEGMENT_KINDS
from taskmill.templates.composing.schemas import Drop, Rendered, Wording
from taskmill.templates.drawing.demonstrations import Shower, Shown, Target
from taskmill.templates.drawing.examples import Example, RowReader
from taskmill.templates.drawing.index import TaskIndex, example_hashes
from taskmill.templates.drawing.order import U64, combine
from taskmill.templates.drawing.sorting import Row
from taskmill.templates.drawing.writing import Writer
from taskmill.templates.rendering.variants import Conversation, Variant

CHUNK = 512
"""Pairs that are best rendered together."""
_KIND_CODES = {kind: code for code, kind in enumerate(SEGMENT_KINDS)}
Made = tuple[Example, Variant, int, Rendered | Conversation]
"""Example, variant, the prompt's id as a number, what the template made."""
_new_row = functools.partial(tuple.__new__, Row)
Misfit = Callable[[str, str, str, Drop], None]
"""Takes split, example, template and why the pair gave no prompt."""


class PairRenderer:
    """Renders the pairs of one task."""

    def __init__(self, writer: Writer, shower: Shower, counts: Counter[str], misfit: Misfit) -> None:
        """Count in `counts`; tell `misfit` each pair that gives no prompt."""
        self._writer, self._shower = writer, shower
        self._counts, self._misfit = counts, misfit
        self._templates: dict[tuple[str, str], np.uint64] = {}

    def read_candidates(self, examples: RowReader, index: TaskIndex, upstream: bool) -> None:
        """Read what may be shown beside other examples; `upstream`: only the task's own first examples."""
        self._shower.read(examples, index, upstream)

    def render(
        self, split: str, examples: Sequence[Example], hashes: U64, variants: Sequence[Variant]
    ) -> list[Row]:
        """Return the rows of the pairs that give a prompt, in order; `hashes` are the examples', uint64[n]."""
        self._counts["considered"] += len(examples)
        most = self._writer.most_demonstrations(split)
        made: list[Made] = []
        for example, variant, hashed in zip(
            examples, variants, self._ids(split, most, hashes, variants), strict=True
        ):
            found = variant.render(example)
            if isinstance(found, Drop):
                self._misfit(split, example.id, variant.template, found)
            else:
                made.append((example, variant, hashed, found))
        numbers: U64 = np.array([prompt for _, _, prompt, _ in made], np.uint64)
        wordings = self._writer.wordings(split, numbers, [variant for _, variant, _, _ in made])
        shown = self._show(split, made) if most else itertools.repeat(())
        rows = []
        for one, wording, own in zip(made, wordings, shown):
            row = self._row(split, one, wording, own)
            if row is not None:
                rows.append(row)
        return rows

    def _ids(self, split: str, most: int, hashes: U64, variants: Sequence[Variant]) -> list[int]:
        """Return the id of each pair's prompt as a number."""
        known, own = self._templates, set(variants)
        for variant in own:
            if (split, variant.template) not in known:
                known[split, variant.template] = template_hash(variant.template, split, most)
        if len(own) == 1:
            return cast("list[int]", combine(hashes, known[split, variants[0].template]).tolist())
        templates = np.array([known[split, variant.template] for variant in variants], np.uint64)
        return cast("list[int]", combine(hashes, templates).tolist())

    def _row(self, split: str, made: Made, wording: Wording, own: Sequence[Shown]) -> Row | None:
        """Return the row of a prompt; None where its format does not take it."""
        example, variant, prompt, found = made
        quality, weight = None, 1.0
        if self._writer.conditions:
            given = self._writer.quality(split, example.quality)
            assert not isinstance(given, Drop), "refused in the first pass"
            quality = given
            weight = 1.0 if quality is None else self._writer.conditions[quality].weight
        shown = [rendered for _, rendered in own] if own else ()
        written = self._writer.write(split, prompt, found, shown, wording, quality)
        if isinstance(written, Drop):
            self._misfit(split, example.id, variant.template, written)
            return None
        if found.notes:
            self._counts.update(found.notes)
        texts, kinds, trained, layout, joint = written
        text = "".join(texts)
        sizes = map(len, texts if text.isascii() else map(str.encode, texts))
        return _new_row(
            (
                quality or "",
                prompt,
                example.id,
                variant.template,
                text,
                tuple(itertools.accumulate(sizes)),
                _codes(kinds),
                trained,
                found.options,
                found.references,
                tuple([name for name, _ in own]) if own else (),
                weight,
                layout,
                joint,
            )
        )

    def _show(self, split: str, made: Sequence[Made]) -> list[Sequence[Shown]]:
        """Return the demonstrations of each prompt."""
        targets = []
        for example, variant, prompt, found in made:
            assert isinstance(found, Rendered), "conversations are shown no demonstrations"
            k = self._writer.num_demonstrations(split, prompt)
            targets.append(Target(example, found, prompt, k, variant.template, variant.render))
        chosen = self._shower.choose(targets)
        short = sum(len(own) < target.k for own, target in zip(chosen, targets, strict=True))
        self._counts["prompts_short_of_demonstrations"] += short
        return chosen


@functools.lru_cache(maxsize=4096)
def _codes(kinds: tuple[str, ...]) -> tuple[int, ...]:
    """Return the codes of segments' kinds."""
    return tuple(_KIND_CODES[kind] for kind in kinds)


def template_hash(template: str, split: str, k: int) -> np.uint64:
    """Return the hash of a template in a split, with at most k demonstrations asked for."""
    return np.uint64(seeding.derive(0, "prompts/template", template, split, k))


def prompt_id(example: str, template: str, split: str, k: int) -> bytes:
    """Return the 8-byte id of the prompt of an example under a template, with at most k demonstrations asked for."""
    found = combine(example_hashes([example]), template_hash(template, split, k))
    return int(found[0]).to_bytes(8, "big")
