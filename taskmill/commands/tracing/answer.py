"""What the command `trace` answers: for each text, the records that hold stretches of it, and when they were trained on.

Puts together what a search found; reads single records of the run, writes nothing.

| verdict | the best that is known of a text |
|---|---|
| `trained` | a stretch of it stood in text that carried loss, in an update that was made |
| `seen` | it was only read, in an update that was made: instruction, demonstration or input |
| `planned` | it stands in prompts that the next training takes |
| `left_out` | the mixture reaches its prompts and no update has it: cut off, nothing to learn in it, or behind the last update |
| `unreached` | it stands in train prompts that the mixture does not reach |
| `evaluation` | it stands in prompts of validation or test, and in none that is trained on |
| `train_examples` | there are no prompts yet, and it stands in examples of the train split |
| `catalogue` | it stands in examples of the catalogue, and in no prompt |
| `not_found` | none of the above |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from taskmill.commands.evidence import word_spans
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.tracing.cuts import Cuts
from taskmill.commands.tracing.reach import LEFT_OUT, PLANNED, STATES, TRAINED, Reach
from taskmill.commands.tracing.records import Records, cut
from taskmill.commands.tracing.search import LOSS, LOSS_KINDS, Spans, Wanted
from taskmill.commands.tracing.texts import Text
from taskmill.records import SEGMENT_KINDS

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

VERDICTS = (
    *("trained", "seen", "planned", "train_examples", "left_out", "unreached"),
    *("evaluation", "catalogue", "not_found"),
)
FOUND = ("trained", "seen", "planned", "train_examples")
"""Verdicts that say that a text is, or will be, in what a model is trained on."""
NUM_LISTED = 10
"""Prompts of an example and spans of a prompt that are listed; all are counted."""
NUM_POSITIONS = 1000
"""Positions and updates that are listed; all are counted."""


@dataclass(frozen=True)
class Hits:
    """What a search found: spans, and what is known of each row that has one."""

    spans: Spans
    rows: I64
    """Distinct rows that have a span, ascending."""
    facts: pa.Table
    """Of each of them, the columns that are not its text; with `split`."""
    state: I64
    """Of each of them, an index of `states`."""
    states: tuple[str, ...]
    """STATES for prompts, splits for examples."""

    @property
    def in_prompts(self) -> bool:
        """Whether the rows are prompts."""
        return self.states is STATES


@dataclass(frozen=True)
class _Part:
    """The spans of one text in rows of one state."""

    number: int
    spans: Spans
    rows: I64
    """The distinct ones, ascending."""
    facts: pa.Table
    """Of each of them."""
    cut_rows: I64
    """Those of which it was cut off."""
    held: dict[int, set[int]]
    """Row of which something was cut off -> the documents that hold what is left of the text."""
    num_shown: int

    @cached_property
    def chosen(self) -> dict[str, list[int]]:
        """Example -> places of its rows in `rows`: of the longest spans, those that carry loss first among equals."""
        names = self.facts.column("example").to_pylist()
        chosen: dict[str, list[int]] = {}
        for place in np.lexsort((self.rows, ~self.has_loss(), -self.longest)).tolist():
            if names[place] in chosen or len(chosen) < self.num_shown:
                chosen.setdefault(names[place], []).append(place)
        return chosen

    @cached_property
    def longest(self) -> I64:
        """Words of the longest span of each row."""
        longest = np.zeros(len(self.rows), np.int64)
        np.maximum.at(longest, np.searchsorted(self.rows, self.spans.row), self.spans.size)
        return longest

    def has_loss(self) -> Bools:
        """Say of each row whether one of its longest spans carries loss."""
        place = np.searchsorted(self.rows, self.spans.row)
        best = self.spans.size == self.longest[place]
        loss = np.zeros(len(self.rows), bool)
        np.logical_or.at(loss, place, best & ((self.spans.mask & LOSS) != 0))
        return loss


class Answers:
    """Puts answers together."""

    def __init__(
        self, found: FinishedRun, wanted: Wanted, texts: Sequence[Text], reach: Reach, num_shown: int
    ) -> None:
        """Take the run, what was looked for, when prompts are trained on, and how many examples of a state are shown."""
        self.wanted, self.texts, self.reach, self.num_shown = wanted, texts, reach, num_shown
        self.has_prompts = found.has("render")
        self.records = Records(found, wanted.normaliser)
        self.cuts = Cuts(found, wanted.normaliser, reach.folder is not None)
        self._words = dict[int, list[str]]()
        self._places = dict[int, list[tuple[int, int]]]()

    def words(self, number: int) -> list[str]:
        """Return the words of a text."""
        if number not in self._words:
            self._words[number] = self.wanted.normaliser.words(self.texts[number].text)
        return self._words[number]

    def of_texts(self, hits: Hits, numbers: Sequence[int]) -> dict[int, Row]:
        """Return the answer for some of the texts, by their numbers."""
        spans = hits.spans.take(np.argsort(hits.spans.text, kind="stable"))
        first = np.searchsorted(spans.text, numbers).tolist()
        last = np.searchsorted(spans.text, numbers, side="right").tolist()
        found = {
            number: self._parts(number, spans.take(np.arange(start, stop)), hits)
            for number, start, stop in zip(numbers, first, last)
        }
        examples, rows = set[str](), set[int]()
        for part in (part for parts in found.values() for part in parts.values()):
            examples.update(part.chosen)
            for place in (place for places in part.chosen.values() for place in places[:NUM_LISTED]):
                rows.add(int(part.rows[place]))
                if hits.in_prompts:
                    examples.update(part.facts.column("demonstrations")[place].as_py())
        self.records.load(examples, rows if hits.in_prompts else ())
        return {number: self._text(number, parts, hits.in_prompts) for number, parts in found.items()}

    def _parts(self, number: int, spans: Spans, hits: Hits) -> dict[str, _Part]:
        """Return the spans of a text by the state of their rows; what was cut off is left out, whatever the prompt is."""
        lost, held = np.zeros(len(spans.row), bool), dict[int, set[int]]()
        if hits.in_prompts:
            state = hits.state[np.searchsorted(hits.rows, spans.row)]
            used = (state == TRAINED) | (state == PLANNED)
            own, cut_off, held = self.cuts.settle(
                spans.take(np.flatnonzero(used)), self.words(number), self._n(number)
            )
            spans = Spans.joined([own, spans.take(np.flatnonzero(~used))])
            lost = np.append(cut_off, np.zeros(len(spans.row) - len(cut_off), bool))
        state = np.where(lost, LEFT_OUT, hits.state[np.searchsorted(hits.rows, spans.row)])
        parts = {}
        for code, name in enumerate(hits.states):
            chosen = np.flatnonzero(state == code)
            if len(chosen):
                own = spans.take(chosen)
                rows = np.unique(own.row)
                facts = hits.facts.take(pa.array(np.searchsorted(hits.rows, rows)))
                cut_rows = np.unique(own.row[lost[chosen]])
                kept = held | {row: set[int]() for row in cut_rows.tolist()}
                parts[name] = _Part(number, own, rows, facts, cut_rows, kept, self.num_shown)
        return parts

    def _text(self, number: int, parts: dict[str, _Part], in_prompts: bool) -> Row:
        groups = {name: self._group(part, in_prompts) for name, part in parts.items()}
        if in_prompts and "left_out" in parts:
            groups["left_out"]["reasons"] = self._reasons(parts["left_out"])
        item, num_words = self.texts[number], int(self.wanted.num_words[number])
        return {
            "text": cut(item.text),
            "file": item.file,
            "record": item.record,
            "field": item.field,
            "num_words": num_words,
            "compared": "whole" if num_words < self.wanted.n else "windows",
            "verdict": _verdict(groups, in_prompts, self.has_prompts),
            "groups": groups,
        }

    def _n(self, number: int) -> int:
        return min(self.wanted.n, len(self.words(number)))

    def _reasons(self, part: _Part) -> dict[str, int]:
        """Count why prompts that the mixture reaches are in no update."""
        rest = part.rows[~np.isin(part.rows, part.cut_rows)]
        behind = int(np.isin(rest, self.reach.packed).sum())
        counts = {
            "cut_off": len(part.cut_rows),
            "behind_last_update": behind,
            "nothing_to_learn": len(rest) - behind,
        }
        return {reason: number for reason, number in counts.items() if number}

    def _group(self, part: _Part, in_prompts: bool) -> Row:
        """Return what is known of the rows of one state that hold stretches of a text."""
        covered = self.wanted.covered(part.spans, part.number)
        tasks = Counter(part.facts.column("task").to_pylist())
        loss = bool(((part.spans.mask & LOSS) != 0).any())
        body = {
            "num_prompts": len(part.rows) if in_prompts else 0,
            "num_examples": len(set(part.facts.column("example").to_pylist())),
            "longest": int(part.spans.size.max()),
            "share": round(float(covered.mean()), 4),
            "tasks": [{"task": t, "num": k} for t, k in sorted(tasks.items(), key=lambda x: (-x[1], x[0]))],
        }
        if in_prompts:
            body |= self._times(part, part.rows)
            if part.facts.column("split")[0].as_py() == "train":
                body["carries_loss"] = self.reach.all_loss or loss
        examples = [self._example(part, name, places) for name, places in part.chosen.items()]
        return {**body, "examples": examples}

    # --------------------------------------------------------------------------------------- examples

    def _example(self, part: _Part, name: str, places: list[int]) -> Row:
        facts = [part.facts.slice(place, 1).to_pylist()[0] for place in places[:NUM_LISTED]]
        rows = [int(part.rows[place]) for place in places[:NUM_LISTED]]
        body = {"example": name, "task": facts[0]["task"], **self.records.source(name, facts[0]["task"])}
        if "prompt" not in facts[0]:
            return {**body, "split": facts[0]["split"], "spans": self._spans(part, rows[0], facts[0])}
        prompts = [
            {
                "prompt": fact["prompt"].hex(),
                "split": fact["split"],
                "template": fact["template"],
                **self._times(part, np.array([row])),
                "spans": self._spans(part, row, fact),
            }
            for fact, row in zip(facts, rows)
        ]
        times = self._times(part, part.rows[places])
        return {**body, "num_prompts": len(places), **times, "prompts": prompts}

    def _spans(self, part: _Part, row: int, facts: Row) -> list[Row]:
        """Return the spans of a row, the longest first."""
        own = part.spans.take(np.flatnonzero(part.spans.row == row))
        content = (
            self.records.prompt_text(row)
            if "prompt" in facts
            else self.records.example_text(facts["example"])
        )
        order = np.lexsort((own.start, -own.size))[:NUM_LISTED].tolist()
        return [self._span(part.number, own, i, content, facts) for i in order]

    def _span(self, number: int, spans: Spans, i: int, content: str, facts: Row) -> Row:
        start, size = int(spans.start[i]), int(spans.size[i])
        kinds, loss = _kinds(int(spans.mask[i]))
        words = self.words(number)[start : start + size]
        body: Row = {"start": start, "num_words": size, "kinds": kinds}
        if "prompt" in facts and facts["split"] == "train":
            body["carries_loss"] = self.reach.all_loss or loss
        if "demonstration" in kinds:
            body["demonstration"] = self.records.holder(facts["demonstrations"], words, self._n(number))
        body["text"] = cut(self._quote(number, start, size))
        return {**body, "record": self.records.quote(content, words, int(spans.position[i]), loss)}

    def _quote(self, number: int, start: int, size: int) -> str:
        text = self.texts[number].text
        if number not in self._places:
            self._places[number] = word_spans(text, self.wanted.normaliser)
        places = self._places[number]
        return text[places[start][0] : places[start + size - 1][1]] if start + size <= len(places) else text

    def _times(self, part: _Part, rows: I64) -> Row:
        """Return how often and when some prompts are drawn: positions from 0, updates and epochs from 1.

        Where updates are known, the positions are those that one takes, and the rest are counted; of prompts that none takes,
        all are listed.
        """
        position, step = self.reach.of(rows, part.held)
        taken = position if step is None or not (step > 0).any() else position[step > 0]
        positions = np.unique(taken)
        body = _listed("positions", positions)
        body["num_left_out"] = len(np.unique(position)) - len(positions)
        if self.reach.epoch:
            body["epochs"] = (np.unique(positions // self.reach.epoch) + 1).tolist()
        return body if step is None else {**body, **_listed("steps", np.unique(step[step > 0]))}


def _listed(name: str, numbers: I64) -> dict[str, Any]:
    """Return how many numbers there are, the first and last, and some."""
    ends = (int(numbers[0]), int(numbers[-1])) if len(numbers) else (None, None)
    singular = name.removesuffix("s")
    return {
        f"num_{name}": len(numbers),
        f"first_{singular}": ends[0],
        f"last_{singular}": ends[1],
        name: numbers[:NUM_POSITIONS].tolist(),
    }


def _verdict(groups: Row, in_prompts: bool, has_prompts: bool) -> str:
    if not groups:
        return "not_found"
    if not in_prompts:
        return "train_examples" if not has_prompts and "train" in groups else "catalogue"
    if "trained" in groups:
        return "trained" if groups["trained"]["carries_loss"] else "seen"
    return next((name for name in ("planned", "left_out", "unreached") if name in groups), "evaluation")


def _kinds(mask: int) -> tuple[list[str], bool]:
    """Return the kinds of segments of a mask, in order of SEGMENT_KINDS, and whether one of them carries loss."""
    names = {kind for place, kind in enumerate(SEGMENT_KINDS) if mask >> place & 1}
    names |= {kind for place, kind in enumerate(LOSS_KINDS) if mask >> (len(SEGMENT_KINDS) + 1 + place) & 1}
    return [kind for kind in SEGMENT_KINDS if kind in names], bool(mask & LOSS)
