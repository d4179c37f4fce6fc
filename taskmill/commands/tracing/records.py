"""The records behind what `trace` finds: text to quote, upstream file, reader, repository, revision and licence.

Reads rows of prompts/prompts and tasks/examples, and the task table; writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa

from taskmill.commands.evidence import word_spans
from taskmill.commands.finished import FinishedRun, Row
from taskmill.leaves import text_leaves
from taskmill.normalisers import Normaliser
from taskmill.splits.auditing.segments import SYMBOLS
from taskmill.storage import read_rows

AROUND = 80
"""Characters that are quoted on either side of what is shared."""
MOST = 2_000
"""Characters of a quote."""


class Records:
    """Looks records up; those that were loaded together are read together."""

    def __init__(self, found: FinishedRun, normaliser: Normaliser) -> None:
        """Take the run, and how texts are cut into words."""
        self.found, self.normaliser = found, normaliser
        self._examples, self._texts = dict[str, Row](), dict[int, str]()

    def load(self, examples: Collection[str], prompts: Collection[int]) -> None:
        """Read examples of the catalogue, and the texts of rows of the prompts table.

        Raises:
            DamagedError: a file of the run is missing or changed.
        """
        if self.found.has("curate"):
            self._examples = self.found.examples(examples)
        for rows, table in read_prompt_rows(self.found, sorted(prompts)):
            self._texts.update(zip(rows, map(_without_symbols, table.column("text").to_pylist())))

    def prompt_text(self, row: int) -> str:
        """Return the text of a row of the prompts table that was loaded, without symbols."""
        return self._texts[row]

    def example_text(self, name: str) -> str:
        """Return the texts of an example, a line each."""
        row = self._examples.get(name)
        if row is None:
            return ""
        texts = [text for _, text in text_leaves(json.loads(row["fields"]))]
        return "\n".join([*texts, *(row["options"] or ()), *row["references"]])

    def source(self, name: str, task: str) -> Row:
        """Return where an example comes from and what is known of its licence."""
        record, row = self._examples.get(name, {}), self.found.tasks.get(task, {})
        facts = ("benchmark", "category", "dataset", "repository", "revision", "license", "license_evidence")
        return {
            "file": record.get("file"),
            "record": record.get("record"),
            "upstream_split": record.get("upstream_split"),
            "reader": self._readers.get(record.get("file", "")),
            **{fact: row.get(fact) for fact in facts},
        }

    @cached_property
    def _readers(self) -> dict[str, str]:
        """Upstream file -> reader of the source that it belongs to."""
        body = self.found.manifests["curate"].body if self.found.has("curate") else {}
        sources = body.get("settings", {}).get("sources", [])
        readers = dict[str, str]()
        for item in body.get("upstream", []):
            place = item["source"].partition(".")[0]  # "3. path (benchmark)"
            if place.isdigit() and int(place) < len(sources):
                readers |= dict.fromkeys((f["name"] for f in item["files"]), sources[int(place)]["reader"])
        return readers

    def quote(self, content: str, words: Sequence[str], position: int, from_end: bool) -> Row | None:
        """Return words of a text as they were written, and what is beside them; None where that cannot be told.

        Args:
            content: the text.
            words: those that are quoted.
            position: the number of the first; below 0 for wherever they stand.
            from_end: whether that is the last place or the first.
        """
        own = self.normaliser.words(content)
        if position < 0 or own[position : position + len(words)] != words:
            line, wanted = f" {' '.join(own)} ", f" {' '.join(words)} "
            at = line.rfind(wanted) if from_end else line.find(wanted)
            position = line.count(" ", 0, at) if at >= 0 else -1
        spans = word_spans(content, self.normaliser)
        if position < 0 or position + len(words) > len(spans):
            return None
        start, end = spans[position][0], spans[position + len(words) - 1][1]
        return {
            "before": content[max(0, start - AROUND) : start],
            "text": cut(content[start:end]),
            "after": content[end : end + AROUND],
        }

    def holder(self, names: Sequence[str], words: Sequence[str], n: int) -> str | None:
        """Return the first of some examples that has a window of the words."""
        windows = {" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}
        for name in names:
            line = f" {' '.join(self.normaliser.words(self.example_text(name)))} "
            if any(f" {window} " in line for window in windows):
                return name
        return None


def read_prompt_rows(found: FinishedRun, rows: Sequence[int]) -> Iterator[tuple[list[int], pa.Table]]:
    """Yield (row numbers, rows) of the prompts table, file by file, for ascending numbers.

    Raises:
        DamagedError: a file is missing or changed.
    """
    wanted, first = np.array(rows, np.int64), 0
    if not len(wanted):
        return
    entries = found.manifests["render"].table_files("prompts")
    for path, entry in zip(found.inputs.files("render", "prompts"), entries):
        own = wanted[(wanted >= first) & (wanted < first + entry.num_rows)]
        if len(own):
            yield own.tolist(), read_rows(path, (own - first).tolist())
        first += entry.num_rows


def _without_symbols(text: str) -> str:
    for symbol in SYMBOLS:
        text = text.replace(symbol, "")
    return text


def cut(text: str) -> str:
    """Return a text that is not too long to be shown."""
    return text if len(text) <= MOST else text[:MOST] + " ..."
