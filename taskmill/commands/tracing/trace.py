"""The command `trace`: was this trained on - which record, from which source and under which licence, at which update?

Reads the texts that are asked for (see `texts`) and a run: prompts/prompts, mixture, tokens, the training's manifest, tasks;
before there are prompts the examples of the splits or of the catalogue. Writes the answer to stdout, nothing else.

Texts are compared as the overlap check compares them: windows of n normalised words inside one text, each confirmed on the words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.tracing.answer import FOUND, VERDICTS, Answers, Hits
from taskmill.commands.tracing.output import Printer
from taskmill.commands.tracing.reach import STATES, Reach, read_reach
from taskmill.commands.tracing.search import (
    EXAMPLE_COLUMNS,
    PROMPT_COLUMNS,
    Spans,
    Wanted,
    search_examples,
    search_prompts,
)
from taskmill.commands.tracing.texts import Text, read_texts
from taskmill.engine import default_workers
from taskmill.errors import UsageError
from taskmill.normalisers import Normaliser, named
from taskmill.records import SPLITS

RUNS = Path("runs")
_PROMPT_FACTS = ("prompt", "example", "task", "split", "template", "demonstrations")
_EXAMPLE_FACTS = ("example", "task")
_CATALOGUE = (*SPLITS, "catalogue")
"""States of examples: their split, or none yet."""


@dataclass(frozen=True)
class Search:
    """How texts are compared."""

    n: int
    normalisation: str
    normaliser: Normaliser
    threads: int


def trace(
    given: str, run: Path | None, n: int | None, num_shown: int, as_json: bool, workers: int | None
) -> None:
    """Find texts in what a run trains on, and print what is known of the records that hold them.

    Args:
        given: a file, - for standard input, or a text.
        run: the run; by default the only one below ./runs.
        n: words a window; by default the recipe's overlap.n.
        num_shown: examples shown of each state of a text.
        as_json: print one JSON object.
        workers: threads; by default one a core.

    Raises:
        UsageError: a text without words, a file that is none of text, no run, or one without examples.
        DataError: a record of the file is damaged.
        DamagedError: a file of the run is missing or changed.
    """
    texts = read_texts(given)
    body = traced(FinishedRun(_only_run() if run is None else run), texts, n, num_shown, workers)
    if as_json:
        click.echo(json.dumps(body, sort_keys=True))
    else:
        Printer().show(body)


def traced(
    found: FinishedRun,
    texts: Sequence[Text],
    n: int | None = None,
    num_shown: int = 3,
    workers: int | None = None,
) -> Row:
    """Return what is known of texts, as docs/trace.md describes the object; see `trace`.

    Raises:
        UsageError: texts without words, or a run without examples.
        DamagedError: a file of the run is missing or changed.
    """
    search = _search(found, n, workers)
    wanted = Wanted([item.text for item in texts], search.n, search.normaliser)
    kept = [i for i, words in enumerate(wanted.num_words.tolist()) if words]
    if not kept:
        raise UsageError(f"there is no word in {texts[0].file or 'the text'}: nothing to look for")
    if len(kept) < len(texts):
        texts = [texts[i] for i in kept]
        wanted = Wanted([item.text for item in texts], search.n, search.normaliser)
    reach = read_reach(found)
    answers = Answers(found, wanted, texts, reach, num_shown)
    hits, searched = _hits(found, wanted, reach, search.threads)
    rows = answers.of_texts(hits, range(len(texts)))
    missing = [number for number, row in rows.items() if row["verdict"] == "not_found"]
    if missing and hits.in_prompts and found.has("curate"):
        catalogue, more = _example_hits(found, wanted, search.threads)
        searched |= more
        rows |= answers.of_texts(catalogue, missing)
    return _body(found, search, reach, searched, list(rows.values()))


def _only_run() -> Path:
    """Return the only run below ./runs.

    Raises:
        UsageError: there is none, or more than one.
    """
    runs = sorted(path.parent for path in RUNS.glob("*/recipe.json"))
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise UsageError(
            f"there is no run below {RUNS}: name one with --run RUN; `taskmill run RECIPE` makes one"
        )
    raise UsageError(f"there are several runs: name one with --run; {', '.join(map(str, runs))}")


def _search(found: FinishedRun, n: int | None, workers: int | None) -> Search:
    """Return how texts are compared: as the recipe's overlap check does, unless another n is given."""
    overlap = found.recipe.get("values", {}).get("overlap", {})
    name = overlap.get("normalisation", "words-1")
    normaliser = named(name, overlap.get("tokenizer"), overlap.get("revision"))
    return Search(n or overlap.get("n", 13), name, normaliser, workers or default_workers())


def _hits(found: FinishedRun, wanted: Wanted, reach: Reach, threads: int) -> tuple[Hits, Row]:
    """Search the prompts of a run, or its examples before there are prompts; returns too what was searched."""
    if not found.has("render"):
        if not found.has("curate"):
            raise UsageError(f"{found.run} has no examples yet: run `{found.command('curate')}` first")
        return _example_hits(found, wanted, threads)
    counts = dict.fromkeys(("train", "validation", "test"), 0)

    def parts() -> Iterator[tuple[pa.RecordBatch, int, Spans]]:
        batches = found.inputs.batches("render", "prompts", PROMPT_COLUMNS)
        for batch, first, spans in search_prompts(wanted, batches, threads):
            for item in pc.value_counts(batch.column("split")).to_pylist():
                counts[item["values"]] = counts.get(item["values"], 0) + item["counts"]
            yield batch, first, spans

    spans, rows, facts = _kept(parts(), _PROMPT_FACTS)
    splits = facts.column("split").to_numpy(zero_copy_only=False) if len(rows) else np.empty(0, object)
    searched = {f"num_{split}_prompts": number for split, number in counts.items()}
    searched |= {"num_prompts": sum(counts.values()), "num_reached_prompts": len(reach.reached)}
    return Hits(spans, rows, facts, reach.states(rows, splits), STATES), searched


def _example_hits(found: FinishedRun, wanted: Wanted, threads: int) -> tuple[Hits, Row]:
    """Search the examples of the catalogue; each is told with its split, once there are splits."""
    outputs = {task: row["output_fields"] for task, row in found.tasks.items()}
    batches = found.inputs.batches("curate", "examples", EXAMPLE_COLUMNS)
    spans, rows, facts = _kept(search_examples(wanted, batches, outputs, threads), _EXAMPLE_FACTS)
    splits = _splits(found, facts.column("example")) if len(rows) else []
    facts = facts.append_column("split", pa.array(splits, pa.string()))
    state = np.array([_CATALOGUE.index(split) for split in splits], np.int64)
    number = sum(entry.num_rows for entry in found.manifests["curate"].table_files("examples"))
    return Hits(spans, rows, facts, state, _CATALOGUE), {"num_examples": number}


def _kept(
    parts: Iterator[tuple[pa.RecordBatch, int, Spans]], names: Sequence[str]
) -> tuple[Spans, Any, pa.Table]:
    """Return all spans, the distinct rows that have one, and some columns of these."""
    spans, rows, facts = list[Spans](), list[Any](), list[pa.RecordBatch]()
    for batch, first, found in parts:
        if len(found.row):
            own = np.unique(found.row)
            spans.append(found)
            rows.append(own)
            facts.append(batch.select(list(names)).take(pa.array(own - first)))
    table = (
        pa.Table.from_batches(facts)
        if facts
        else pa.table({name: pa.array([], pa.string()) for name in names})
    )
    return Spans.joined(spans), np.concatenate([np.empty(0, np.int64), *rows]), table


def _splits(found: FinishedRun, examples: Any) -> list[str]:
    """Return the split of some examples, as the stage split has it or overlap planned it."""
    names = examples.combine_chunks() if isinstance(examples, pa.ChunkedArray) else examples
    for stage, table in (("split", "members"), ("overlap", "assignment")):
        if found.has(stage):
            members = found.inputs.table(stage, table, ["example", "split"])
            places = pc.index_in(names, value_set=members.column("example").combine_chunks())
            return [split or "catalogue" for split in members.column("split").take(places).to_pylist()]
    return ["catalogue"] * len(names)


def _body(found: FinishedRun, search: Search, reach: Reach, searched: Row, rows: list[Row]) -> Row:
    missing = list(reach.missing)
    if not found.has("render"):
        stage = next(s for s in ("curate", "overlap", "split", "render") if not found.has(s))
        why = "there are no prompts yet; examples were searched"
        missing = [{"what": "prompts, positions and updates", "why": why, "command": found.command(stage)}]
    verdicts = {name: sum(row["verdict"] == name for row in rows) for name in VERDICTS}
    return {
        "run": str(found.run),
        "n": search.n,
        "normalisation": search.normalisation,
        "searched": searched,
        "num_positions": reach.num_positions if reach.is_known else None,
        "num_steps": reach.num_steps,
        "is_trained": reach.is_trained,
        "missing": missing,
        "found": any(verdicts[name] for name in FOUND),
        "num_texts": len(rows),
        "verdicts": verdicts,
        "texts": rows,
    }
