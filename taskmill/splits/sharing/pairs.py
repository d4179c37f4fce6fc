"""The figures of every (train, evaluation) pair of tasks, from the shared-gram relations.

Reads `index.Shared`; returns the tables pairs, hits, touched, evidence and frequent. Everything is counted on the two
relations (example, gram), one train task at a time.

- A hit is an evaluation example that shares a gram with the train task (`num_grams` > 0), or that is short and equal
  as a whole to one of its examples (`num_grams` = 0, counted in `num_short_equal` only).
- `side` says on which side of the *evaluation* example the shared grams lie.
- A hit or touched row is `frequent` when all its grams are; `hit_fraction_rare` leaves frequent grams out.
- A gram is frequent when it stands in more groups than the recipe says, or is boilerplate wherever it stands.
- `num_groups` of a gram counts distinct (task, group) over the train and the evaluation side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from taskmill import boilerplate
from taskmill.records import SCHEMAS
from taskmill.splits.sharing.examples import I64, U8, U64, Bools, Catalogue
from taskmill.splits.sharing.index import EvaluationSide, Facts, Occurrences, Shared
from taskmill.splits.sharing.sides import INPUT, OUTPUT, SIDE_NAMES
from taskmill.text import ranges

Tables = dict[str, pa.Table]


@dataclass(frozen=True)
class Hits:
    """The evaluation examples that one train task hits, by number; all arrays of one length."""

    example: I64
    task: I64
    train_example: I64
    """The lowest that shares a gram."""
    num_grams: I64
    side: U8
    same_output: Bools
    frequent: Bools
    gram: I64
    """The first gram, in the evaluation example, that `train_example` holds too."""
    eval_position: I64
    train_position: I64


@dataclass(frozen=True)
class Touched:
    """The train examples of one train task that each evaluation task meets, sorted by (task, example)."""

    task: I64
    example: I64
    frequent: Bools


@dataclass(frozen=True)
class _Grams:
    """Facts about grams that every train task uses."""

    frequent: Bools
    hash: U64
    is_whole: Bools
    eval_indptr: I64
    """Gram g is in the evaluation rows eval_indptr[g] .. eval_indptr[g + 1] - 1."""
    task_indptr: I64
    eval_task: I64
    """Gram g is in the evaluation tasks eval_task[task_indptr[g]:task_indptr[g + 1]]."""


def _indptr(values: I64, size: int) -> I64:
    """Return where each of 0 .. size - 1 begins among ascending values, and the end: int64[size + 1]."""
    return np.searchsorted(values, np.arange(size + 1)).astype(np.int64)


def num_groups(catalogue: Catalogue, shared: Shared) -> I64:
    """Return in how many (task, group) each gram occurs, over both sides: int64[num_grams]."""
    example = np.concatenate([shared.train.example, shared.evaluation.example])
    gram = np.concatenate([shared.train.gram, shared.evaluation.gram])
    columns = (catalogue.group[example], catalogue.task_of(example), gram)
    order = np.lexsort(columns)
    changed = np.zeros(len(order), bool)
    for column in columns:
        changed |= np.concatenate([[True], column[order][1:] != column[order][:-1]])[: len(order)]
    return np.bincount(gram[order][changed], minlength=len(shared.gram_hash)).astype(np.int64)


def is_boilerplate(catalogue: Catalogue, shared: Shared, num_rendered_templates: I64) -> Bools:
    """Return which grams are boilerplate in every task that holds them, over both sides: bool[num_grams].

    A passage behind over half of one task's questions is none as long as another task has it now and then.
    """
    num_tasks = len(catalogue.tasks)
    example = np.concatenate([shared.train.example, shared.evaluation.example])
    gram = np.concatenate([shared.train.gram, shared.evaluation.gram])
    places, counts = np.unique(gram * num_tasks + catalogue.task_of(example), return_counts=True)
    sizes = np.diff(np.append(0, np.cumsum(catalogue.side != 0))[catalogue.first])
    over = counts > boilerplate.limits(sizes, num_rendered_templates)[places % num_tasks]
    elsewhere = np.bincount(places // num_tasks, ~over, minlength=len(shared.gram_hash))
    alone: Bools = elsewhere == 0
    return alone


def _gram_facts(catalogue: Catalogue, shared: Shared, frequent: Bools) -> _Grams:
    size, places = len(shared.gram_hash), shared.evaluation
    num_tasks = len(catalogue.tasks)
    both = np.unique(places.gram * num_tasks + catalogue.task_of(places.example))
    return _Grams(
        frequent,
        shared.gram_hash,
        shared.is_whole,
        _indptr(places.gram, size),
        _indptr(both // num_tasks, size),
        both % num_tasks,
    )


# ------------------------------------------------------------------------------------- one train task


def _hits(catalogue: Catalogue, shared: Shared, rows: Occurrences, grams: _Grams) -> Hits:
    """Return the hits of the train task whose relation is `rows`, sorted by evaluation example."""
    rows = rows.sorted("gram", "example")
    gram, lowest = np.unique(rows.gram, return_index=True)
    counts = grams.eval_indptr[gram + 1] - grams.eval_indptr[gram]
    places = shared.evaluation.take(ranges(grams.eval_indptr[gram], counts))
    lowest = np.repeat(lowest, counts)
    order = np.lexsort((places.position, rows.example[lowest], places.example))
    places, lowest = places.take(order), lowest[order]
    example, starts = np.unique(places.example, return_index=True)
    real = (~grams.is_whole[places.gram]).astype(np.int64)
    same = _same_output(shared, rows, places)
    return Hits(
        example,
        catalogue.task_of(example),
        rows.example[lowest[starts]],
        np.add.reduceat(real, starts),
        np.bitwise_or.reduceat(places.side, starts),
        np.logical_or.reduceat(same, starts),
        np.logical_and.reduceat(grams.frequent[places.gram], starts),
        places.gram[starts],
        places.position[starts],
        rows.position[lowest[starts]],
    )


def _outputs(facts: Facts, occurrences: Occurrences) -> tuple[I64, I64]:
    """Return (row of `occurrences`, output key) for each output key of each row's example."""
    fact = facts.rows(occurrences.example)
    counts = facts.indptr[fact + 1] - facts.indptr[fact]
    return np.repeat(np.arange(len(fact)), counts), facts.keys[ranges(facts.indptr[fact], counts)]


def _same_output(shared: Shared, train: Occurrences, evaluation: Occurrences) -> Bools:
    """Say of each evaluation row whether a train example with its gram has an equal output."""
    train_row, train_key = _outputs(shared.train_facts, train)
    eval_row, eval_key = _outputs(shared.eval_facts, evaluation)
    width = shared.num_output_keys
    joint = np.sort(train.gram[train_row] * width + train_key)
    wanted = evaluation.gram[eval_row] * width + eval_key
    place = np.searchsorted(joint, wanted)
    known = np.flatnonzero(place < len(joint))
    same = np.zeros(len(evaluation.gram), bool)
    same[eval_row[known[joint[place[known]] == wanted[known]]]] = True
    return same


def _touched(rows: Occurrences, grams: _Grams) -> tuple[Touched, Occurrences, I64]:
    """Return what each evaluation task touches, and the rows behind it with the evaluation task of each.

    The rows are sorted by (evaluation task, example, gram).
    """
    counts = grams.task_indptr[rows.gram + 1] - grams.task_indptr[rows.gram]
    task = grams.eval_task[ranges(grams.task_indptr[rows.gram], counts)]
    joined = rows.take(np.repeat(np.arange(len(rows.gram)), counts))
    order = np.lexsort((joined.gram, joined.example, task))
    joined, task = joined.take(order), task[order]
    starts = np.flatnonzero((np.diff(task, prepend=-1) != 0) | (np.diff(joined.example, prepend=-1) != 0))
    frequent = np.logical_and.reduceat(grams.frequent[joined.gram], starts)
    return Touched(task[starts], joined.example[starts], frequent), joined, task


def _records(facts: Facts, rows: Occurrences, gram_hash: U64) -> bytes:
    """Return the sorted distinct (content, gram hash) of some rows as bytes, 40 a record."""
    records = np.empty((len(rows.example), 40), np.uint8)
    records[:, :32] = facts.content[facts.rows(rows.example)]
    records[:, 32:] = gram_hash[rows.gram].astype(">u8").view(np.uint8).reshape(-1, 8)
    return np.unique(records.view("V40")).tobytes()


def evidence_digest(train: bytes, evaluation: bytes, same_dataset: bool) -> bytes:
    """Return the digest of a pair's evidence: bytes[16].

    Args:
        train: the sorted distinct (content, gram hash) of the train examples touched.
        evaluation: the same of the evaluation examples hit.
        same_dataset: whether the tasks are made from one data set.
    """
    digest = blake2b(digest_size=16, person=b"evidence-1")
    for part in (train, evaluation):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    digest.update(bytes([same_dataset]))
    return digest.digest()


# ------------------------------------------------------------------------------------------ all pairs


@dataclass(frozen=True)
class _Context:
    catalogue: Catalogue
    evaluation: EvaluationSide
    shared: Shared
    grams: _Grams
    num_eval: I64
    same_dataset: Mapping[int, set[int]]
    num_evidence: int


def compare(
    catalogue: Catalogue,
    evaluation: EvaluationSide,
    shared: Shared,
    same_dataset: Mapping[int, set[int]],
    frequent_groups: int,
    num_evidence: int,
    num_rendered_templates: I64,
    settle_frequent: Callable[[Catalogue, Shared, Bools], Bools] | None = None,
) -> Tables:
    """Return the tables pairs, hits, touched, evidence and frequent.

    Args:
        catalogue: the numbering of tasks and examples.
        evaluation: the evaluation side, for the texts of windows.
        shared: the relations.
        same_dataset: train task -> evaluation tasks of its data set, by number; they get a row whatever they share.
        frequent_groups: a gram in more groups than this is frequent.
        num_evidence: windows kept per pair, those of the examples with most shared grams.
        num_rendered_templates: int64[num_tasks], as in the task table.
        settle_frequent: what is frequent after all, from what counting says: bool[num_grams].
    """
    groups = num_groups(catalogue, shared)
    frequent = (groups > frequent_groups) | is_boilerplate(catalogue, shared, num_rendered_templates)
    frequent &= ~shared.is_whole
    if settle_frequent is not None:
        frequent = settle_frequent(catalogue, shared, frequent)
    context = _Context(
        catalogue,
        evaluation,
        shared,
        _gram_facts(catalogue, shared, frequent),
        catalogue.num_eval,
        same_dataset,
        num_evidence,
    )
    parts: dict[str, list[pa.Table]] = {name: [] for name in ("pairs", "hits", "touched", "evidence")}
    starts = np.searchsorted(shared.train.example, catalogue.first)
    for task in range(len(catalogue.tasks)):
        rows = shared.train.take(slice(starts[task], starts[task + 1]))
        for name, part in _compare_task(context, task, rows).items():
            parts[name].append(part)
    tables = {name: _joined(f"overlaps/{name}", found) for name, found in parts.items()}
    tables["frequent"] = _frequent_table(evaluation, shared, frequent, groups)
    return tables


def _compare_task(context: _Context, task: int, rows: Occurrences) -> Tables:
    """Return the tables of one train task; nothing for what it has no row in."""
    same = context.same_dataset.get(task, set())
    if not len(rows.gram):
        return {"pairs": _pairs_table(context, task, {}, same)} if same else {}
    hits = _hits(context.catalogue, context.shared, rows, context.grams)
    touched, joined, joined_task = _touched(rows, context.grams)
    places = _places(context, rows)
    places_task = context.catalogue.task_of(places.example)
    figures = {}
    for eval_task in np.unique(hits.task).tolist():
        evidence = evidence_digest(
            _records(
                context.shared.train_facts, joined.take(_part(joined_task, eval_task)), context.grams.hash
            ),
            _records(
                context.shared.eval_facts, places.take(_part(places_task, eval_task)), context.grams.hash
            ),
            eval_task in same,
        )
        num_touched = len(touched.task[_part(touched.task, eval_task)])
        figures[eval_task] = _figures(hits, _part(hits.task, eval_task), int(context.num_eval[eval_task]))
        figures[eval_task] |= {"num_train_touched": num_touched, "evidence": evidence}
    return {
        "pairs": _pairs_table(context, task, figures, same),
        "hits": _hits_table(context.catalogue, task, hits),
        "touched": _touched_table(context.catalogue, task, touched),
        "evidence": _evidence_table(context, task, hits),
    }


def _places(context: _Context, rows: Occurrences) -> Occurrences:
    """Return the evaluation rows of every gram in `rows`, sorted by example and gram."""
    gram, indptr = np.unique(rows.gram), context.grams.eval_indptr
    places = context.shared.evaluation.take(ranges(indptr[gram], indptr[gram + 1] - indptr[gram]))
    return places.sorted("example", "gram")


def _part(ascending: I64, value: int) -> slice:
    return slice(*np.searchsorted(ascending, [value, value + 1]).tolist())


def _figures(hits: Hits, part: slice, num_eval: int) -> dict[str, Any]:
    """Return the figures of one pair over its hits."""
    real = hits.num_grams[part] > 0
    side = hits.side[part]
    num_hit = int(real.sum())
    fractions = {
        "hit_fraction": num_hit,
        "hit_fraction_rare": int((real & ~hits.frequent[part]).sum()),
        "hit_input": int((real & ((side & INPUT) > 0)).sum()),
        "hit_output": int((real & ((side & OUTPUT) > 0)).sum()),
    }
    return {
        "num_hit": num_hit,
        **{name: number / num_eval for name, number in fractions.items()},
        "num_same_output": int(hits.same_output[part].sum()),
        "num_short_equal": int((~real).sum()),
    }


_NOTHING: Mapping[str, Any] = {
    **dict.fromkeys(("num_hit", "num_same_output", "num_short_equal", "num_train_touched"), 0),
    **dict.fromkeys(("hit_fraction", "hit_fraction_rare", "hit_input", "hit_output"), 0.0),
    "evidence": evidence_digest(b"", b"", True),
}
"""The figures of a pair of one data set that shares no text."""


def _pairs_table(
    context: _Context, task: int, figures: Mapping[int, Mapping[str, Any]], same: set[int]
) -> pa.Table:
    rows = [
        {
            "train_task": context.catalogue.tasks[task],
            "eval_task": context.catalogue.tasks[eval_task],
            "same_dataset": eval_task in same,
            "num_eval": int(context.num_eval[eval_task]),
            **figures.get(eval_task, _NOTHING),
        }
        for eval_task in sorted(figures.keys() | same)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["overlaps/pairs"])


def _hits_table(catalogue: Catalogue, task: int, hits: Hits) -> pa.Table:
    names = pa.array([SIDE_NAMES.get(side, "") for side in range(4)])
    return _table(
        "overlaps/hits",
        train_task=_repeated(catalogue.tasks[task], len(hits.example)),
        eval_task=_taken(catalogue.tasks, hits.task),
        eval_example=catalogue.ids.take(pa.array(hits.example)),
        train_example=catalogue.ids.take(pa.array(hits.train_example)),
        num_grams=pa.array(hits.num_grams),
        side=names.take(pa.array(hits.side)),
        same_output=pa.array(hits.same_output),
        frequent=pa.array(hits.frequent),
    )


def _touched_table(catalogue: Catalogue, task: int, touched: Touched) -> pa.Table:
    return _table(
        "overlaps/touched",
        train_task=_repeated(catalogue.tasks[task], len(touched.example)),
        eval_task=_taken(catalogue.tasks, touched.task),
        train_example=catalogue.ids.take(pa.array(touched.example)),
        frequent=pa.array(touched.frequent),
    )


def _evidence_table(context: _Context, task: int, hits: Hits) -> pa.Table:
    """Return a window of each of the examples with most shared grams, per evaluation task."""
    order = np.lexsort((hits.example, -hits.num_grams, hits.task))
    rank = np.arange(len(order)) - np.searchsorted(hits.task[order], hits.task[order])
    rows = order[rank < context.num_evidence]
    ids = context.catalogue.ids
    return _table(
        "overlaps/evidence",
        train_task=_repeated(context.catalogue.tasks[task], len(rows)),
        eval_task=_taken(context.catalogue.tasks, hits.task[rows]),
        train_example=ids.take(pa.array(hits.train_example[rows])),
        eval_example=ids.take(pa.array(hits.example[rows])),
        window=pa.array(context.evaluation.windows(context.shared.gram_key[hits.gram[rows]]), pa.string()),
        train_position=pa.array(hits.train_position[rows]),
        eval_position=pa.array(hits.eval_position[rows]),
    )


def _frequent_table(evaluation: EvaluationSide, shared: Shared, frequent: Bools, groups: I64) -> pa.Table:
    rows = np.flatnonzero(frequent)
    texts = evaluation.windows(shared.gram_key[rows])
    table = _table(
        "overlaps/frequent",
        gram=pa.array(shared.gram_hash[rows]),
        text=pa.array(texts, pa.string()),
        num_groups=pa.array(groups[rows]),
    )
    return table.sort_by([("gram", "ascending"), ("text", "ascending")])


def _table(name: str, **columns: Any) -> pa.Table:
    return pa.Table.from_pydict(columns, schema=SCHEMAS[name])


def _joined(name: str, parts: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables([SCHEMAS[name].empty_table(), *parts])


def _repeated(value: str, num: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.string()), num)


def _taken(names: Sequence[str], numbers: I64) -> pa.Array:
    return pa.array([names[number] for number in numbers.tolist()], pa.string())
