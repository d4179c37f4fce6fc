"""What is left of each pair's shared content after the decisions: evaluation examples that still share a gram with train text.

Reads tasks/{tasks,examples}, overlaps/{hits,touched} and splits/{tasks,members}; writes nothing. Pairs that lost all
of their touched train examples, or none, follow from the tables; the others are compared again, with what is still there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.artifact import Inputs
from taskmill.grams import GramIndex
from taskmill.normalisers import Normaliser
from taskmill.splits.sharing.examples import EVALUATION_TEXT, TRAIN_TEXT, text_sides
from taskmill.splits.sharing.sides import sides

Key = tuple[str, str]
_PAIR = ["train_task", "eval_task"]


@dataclass(frozen=True)
class Remaining:
    """What is left of the content figures."""

    num_hit: dict[Key, int]
    """(train task, evaluation task) -> evaluation examples that share a gram with what is trained on; 0 where absent."""
    num_eval: dict[str, int]
    """Evaluation task -> evaluation examples left."""

    def fraction(self, pair: Key) -> float:
        """Return the share of the evaluation task's examples that still share a gram."""
        num = self.num_hit.get(pair, 0)
        return num / self.num_eval[pair[1]] if num else 0.0


def remaining(inputs: Inputs, n: int, normaliser: Normaliser, threads: int = 1) -> Remaining:
    """Count what the decisions left.

    Args:
        inputs: where curate, overlap and split are finished.
        n: words a gram, as overlap counted them.
        normaliser: as overlap used it.
        threads: cores to use; never changes a result.

    Raises:
        DamagedError: a table is damaged.
    """
    trained, evaluated, num_eval = _members(inputs)
    hits = inputs.table("overlap", "hits", [*_PAIR, "eval_example", "num_grams"])
    hits = hits.filter(pc.greater(hits["num_grams"], 0))
    hits = hits.filter(pc.is_in(hits["eval_example"], value_set=evaluated))
    touched = inputs.table("overlap", "touched", [*_PAIR, "train_example"])
    left = pc.is_in(touched["train_example"], value_set=trained)
    counts = touched.append_column("left", pc.cast(left, pa.int64())).group_by(_PAIR)
    totals = counts.aggregate([("left", "sum"), ("left", "count")]).to_pylist()
    whole = {_key(row) for row in totals if row["left_sum"] == row["left_count"]}
    part = {_key(row) for row in totals if 0 < row["left_sum"] < row["left_count"]}
    found = {
        _key(row): row["eval_example_count"]
        for row in hits.group_by(_PAIR).aggregate([("eval_example", "count")]).to_pylist()
        if _key(row) in whole
    }
    if part:
        wanted = _wanted(hits, "eval_example", part), _wanted(touched.filter(left), "train_example", part)
        found |= _compare(inputs, *wanted, GramSettings(n, normaliser, threads))
    return Remaining(found, num_eval)


@dataclass(frozen=True)
class GramSettings:
    """How grams are found."""

    n: int
    normaliser: Normaliser
    threads: int


def _key(row: Mapping[str, str]) -> Key:
    return row["train_task"], row["eval_task"]


def _members(inputs: Inputs) -> tuple[pa.Array, pa.Array, dict[str, int]]:
    """Return the examples of train text, those of evaluation text, and how many of these each task has."""
    roles = inputs.table("split", "tasks", ["task", "role"])
    trained, evaluated, tasks = list[pa.Array](), list[pa.Array](), list[pa.Array]()
    for batch in inputs.batches("split", "members", ("example", "task", "split")):
        at = pc.index_in(batch.column("task"), value_set=roles["task"].combine_chunks())
        side = text_sides(batch.column("split").to_pylist(), roles["role"].take(at).to_pylist())
        trained.append(batch.column("example").filter(pa.array(side == TRAIN_TEXT)))
        evaluated.append(batch.column("example").filter(pa.array(side == EVALUATION_TEXT)))
        tasks.append(batch.column("task").filter(pa.array(side == EVALUATION_TEXT)))
    counts = pa.chunked_array(tasks, pa.string()).value_counts().to_pylist()
    names = (pa.chunked_array(part, pa.string()).combine_chunks() for part in (trained, evaluated))
    return *names, {row["values"]: row["counts"] for row in counts}  # type: ignore[return-value]


def _wanted(rows: pa.Table, column: str, pairs: Iterable[Key]) -> dict[str, set[Key]]:
    """Return example -> pairs, of the rows of some pairs."""
    wanted, found = set(pairs), dict[str, set[Key]]()
    for train_task, eval_task, example in zip(*(rows[name].to_pylist() for name in (*_PAIR, column))):
        if (train_task, eval_task) in wanted:
            found.setdefault(example, set()).add((train_task, eval_task))
    return found


def _compare(
    inputs: Inputs, hit: Mapping[str, set[Key]], touched: Mapping[str, set[Key]], grams: GramSettings
) -> dict[Key, int]:
    """Look the touched train examples up among the hit evaluation examples; returns the hits of each pair."""
    texts, owner = list[str](), list[str]()
    for own, examples in _texts(inputs, hit):
        texts += own
        owner += examples
    index = GramIndex(texts, grams.n, grams.normaliser, grams.threads)
    still = dict[Key, set[str]]()
    for own, examples in _texts(inputs, touched):
        places = index.find(own, grams.threads)
        rows = np.unique(np.stack([places.text, places.gram]), axis=1)
        for text, gram in rows.T.tolist():
            held = {owner[t] for t in index.text[index.indptr[gram] : index.indptr[gram + 1]].tolist()}
            for example in held:
                for pair in hit[example] & touched[examples[text]]:
                    still.setdefault(pair, set()).add(example)
    return {pair: len(examples) for pair, examples in still.items()}


def _texts(inputs: Inputs, wanted: Mapping[str, object]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield (texts, the example of each) of the examples that are wanted, batch by batch."""
    outputs = dict(
        zip(
            *(
                inputs.table("curate", "tasks", ["task", "output_fields"])[c].to_pylist()
                for c in ("task", "output_fields")
            )
        )
    )
    names = pa.array(sorted(wanted), pa.string())
    columns = ("example", "task", "fields", "references", "options")
    for batch in inputs.batches("curate", "examples", columns):
        part = batch.filter(pc.is_in(batch.column("example"), value_set=names))
        texts, examples = list[str](), list[str]()
        for row in part.to_pylist():
            found = sides(json.loads(row["fields"]), row["references"], row["options"], outputs[row["task"]])
            own = [*found[0], *found[1]]
            texts += own
            examples += [row["example"]] * len(own)
        if texts:
            yield texts, examples
