"""Stage overlap: what each task is used for, and which text the train and the evaluation side share.

Reads the tables `tasks` and `examples` of curate. Writes `plan` and `assignment` (see levels), `pairs`, `hits`,
`touched`, `evidence`, `frequent` (see pairs) and `near_duplicates`. What a benchmark that the recipe extends says of its own
tasks and examples is taken from there (see publishing.pins).

The evaluation side is kept in memory and indexed. All other examples stream past it and past the sketches of
near-duplicates in one pass: read in one thread, searched and sketched in others, with the same tables whatever their number.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.artifact import Inputs, Manifest, ShardWriter, StageWriter
from taskmill.errors import UsageError
from taskmill.normalisers import named
from taskmill.recipe import Overlap
from taskmill.records import SCHEMAS
from taskmill.selectors import TASK_COLUMNS
from taskmill.settings import Settings
from taskmill.splits.planning.assignment import plan_and_assign
from taskmill.splits.planning.layout_files import find_layout
from taskmill.splits.planning.roles import EVALUATION_ROLES, TRAINING_ROLES
from taskmill.splits.publishing.pins import read_pins
from taskmill.splits.sharing.examples import (
    COLUMNS,
    EVALUATION_TEXT,
    TRAIN_TEXT,
    Bools,
    Catalogue,
    Examples,
    read_examples,
    read_side,
    text_sides,
)
from taskmill.splits.sharing.index import EvaluationSide, Found, relate, scan
from taskmill.splits.sharing.near_duplicates import find_near_duplicates
from taskmill.splits.sharing.pairs import compare
from taskmill.splits.sharing.pinned import PinnedText
from taskmill.storage import file_digest, read_table

log = logging.getLogger("taskmill")

REVISION = 2
SECTIONS = ("plan", "overlap")
READS = (("curate", "tasks"), ("curate", "examples"))
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

_ASSIGNMENT_COLUMNS = ("example", "task", "upstream_split", "group", "fields", "references")


def external(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """Return what the layout says, the identity of the tokenizer whose ids are the words, and of what is extended.

    Raises:
        RecipeError: the layout is missing or has problems.
        UsageError: a tokenizer is missing, is named for nothing, or its folder holds none; nothing published is extended.
        DamagedError: what is extended is damaged.
    """
    layout = find_layout(settings.plan.layout, settings.path)
    found = _tokenizer_files(settings) | ({"layout": layout.digest} if layout else {})
    return found | read_pins(settings).external


def _tokenizer_files(settings: Settings) -> dict[str, Any]:
    """Return the digests of a tokenizer's files; a Hub id is a setting.

    Raises:
        UsageError: a tokenizer is missing, is named for nothing, or its folder holds none.
    """
    overlap = settings.overlap
    if overlap.normalisation != "tokenizer":
        if overlap.tokenizer is not None:
            raise UsageError(
                f"overlap.tokenizer is only for `normalisation: tokenizer`; the recipe has {overlap.normalisation!r}"
            )
        return {}
    if overlap.tokenizer is None:
        raise UsageError(
            "overlap.tokenizer: `normalisation: tokenizer` needs a tokenizer: a folder or a Hub id"
        )
    folder = settings.path(overlap.tokenizer)
    if not folder.exists():
        return {"tokenizer": overlap.tokenizer, "revision": overlap.revision}
    files = sorted(path for path in folder.glob("*") if path.is_file()) if folder.is_dir() else []
    if not any(path.name == "tokenizer.json" for path in files):
        raise UsageError(
            f"overlap.tokenizer: {folder} holds no tokenizer.json; expected the folder of a fast tokenizer, "
            f"relative to the recipe, or a Hub id"
        )
    return {"tokenizer": {path.name: file_digest(path) for path in files if path.name in TOKENIZER_FILES}}


def build(settings: Settings, inputs: Inputs, out: StageWriter) -> Manifest:
    """Plan, assign every example and compare the two sides.

    Raises:
        RecipeError: the plan does not fit the tasks; see `levels`.
        UsageError: a tokenizer cannot be loaded, or no banding of signatures fits (see `near_duplicates`); examples of what
            is extended are not here as they were there.
        DamagedError: a table of curate is damaged or not sorted.
        StorageError: the disk refuses.
    """
    pins = read_pins(settings)
    tasks = inputs.table(
        "curate", "tasks", (*TASK_COLUMNS, "output_fields", "num_rendered_templates")
    ).sort_by("task")
    parts = [[[i["table"], i["rows"]] for i in inputs.identity(READS)], out.identity.external]
    if not out.finished("assignment", parts):
        pins.check_examples(inputs, settings.limit)
        with out.shard("assignment", parts) as shard:
            batches = inputs.batches("curate", "examples", _ASSIGNMENT_COLUMNS)
            layout = find_layout(settings.plan.layout, settings.path)
            plan, assignment = plan_and_assign(
                tasks, batches, settings.plan, settings.seed, layout, pins.plan
            )
            shard.write_table("plan.parquet", SCHEMAS["overlaps/plan"], plan)
            shard.write_table("assignment.parquet", SCHEMAS["overlaps/assignment"], assignment)
            _count_assignment(shard, plan, assignment)
        out.add(shard.record)
    if not out.finished("overlaps", parts):
        plan, assignment = (read_table(out.directory / f"{name}.parquet") for name in ("plan", "assignment"))
        with out.shard("overlaps", parts) as shard:
            tables = find_overlaps(
                tasks,
                plan,
                assignment,
                lambda: inputs.batches("curate", "examples", COLUMNS),
                with_folder(settings),
                settings.workers,
                pins.text if pins.root else None,
            )
            pins.check_pairs(tables["pairs"])
            for name, table in sorted(tables.items()):
                shard.write_table(f"{name}.parquet", SCHEMAS[f"overlaps/{name}"], table)
                shard.count(f"num_{name}", table.num_rows)
            shard.count("num_pairs_hit", int(np.count_nonzero(tables["pairs"]["num_hit"].to_numpy())))
        out.add(shard.record)
    return out.finish()


def with_folder(settings: Settings) -> Overlap:
    """Return the section with a tokenizer's folder made absolute."""
    overlap: Overlap = settings.overlap
    if overlap.tokenizer is None or not settings.path(overlap.tokenizer).exists():
        return overlap
    return dataclasses.replace(overlap, tokenizer=str(settings.path(overlap.tokenizer)))


def _count_assignment(shard: ShardWriter, plan: pa.Table, assignment: pa.Table) -> None:
    """Count tasks by role, examples by split, and the excluded ones by reason."""
    for role, number in sorted(Counter(plan["role"].to_pylist()).items()):
        shard.count(f"num_tasks_{role}", number)
    for split, number in sorted(Counter(assignment["split"].to_pylist()).items()):
        shard.count(f"num_{split}", number)
    for reason, number in sorted(Counter(assignment["reason"].drop_null().to_pylist()).items()):
        shard.drop(reason, number)


# ----------------------------------------------------------------------------------------- overlaps


def find_overlaps(
    tasks: pa.Table,
    plan: pa.Table,
    assignment: pa.Table,
    batches: Callable[[], Iterable[pa.RecordBatch]],
    settings: Overlap,
    workers: int = 1,
    pinned: PinnedText | None = None,
) -> dict[str, pa.Table]:
    """Return the tables pairs, hits, touched, evidence, frequent and near_duplicates.

    Args:
        tasks: `task`, `dataset` and `output_fields`, sorted by task.
        plan: as `plan_and_assign` returns it.
        assignment: as `plan_and_assign` returns it.
        batches: starts a pass over the examples, with the columns `examples.COLUMNS`, each task sorted by example.
        settings: the recipe's section.
        workers: threads; no result depends on it.
        pinned: what was found in the benchmark that the recipe extends.

    Raises:
        DamagedError: the examples are not those of the assignment, or not sorted.
        UsageError: see `normalisers.named`, `find_near_duplicates`.
    """
    catalogue = make_catalogue(tasks, plan, assignment)
    normaliser = named(settings.normalisation, settings.tokenizer, settings.revision)
    parts = list(read_side(catalogue, batches(), EVALUATION_TEXT))
    evaluation = EvaluationSide(parts, settings.n, normaliser, workers)
    log.info(
        "overlap: %d evaluation examples, %d distinct grams of %d words",
        len(evaluation.examples.number),
        len(evaluation.index.gram_hash),
        settings.n,
    )
    taking_part, found = assignment["split"].to_numpy() != "excluded", list[Found]()
    examples = _stream(catalogue, batches(), taking_part, evaluation, workers, found)
    losers = pinned.losers if pinned else None
    near_duplicates = find_near_duplicates(catalogue, examples, taking_part, settings, workers, losers)
    shared = relate(evaluation, found)
    log.info(
        "overlap: %d shared grams and wholes in %d train places",
        len(shared.gram_hash),
        len(shared.train.gram),
    )
    same = same_dataset_pairs(plan["role"].to_pylist(), tasks["dataset"].to_pylist())
    rendered = tasks["num_rendered_templates"].to_numpy()
    frequent, num_evidence = settings.frequent_groups, settings.num_evidence
    settle = pinned.settle_frequent if pinned else None
    tables = compare(catalogue, evaluation, shared, same, frequent, num_evidence, rendered, settle)
    return {**tables, "near_duplicates": pinned.with_rows(near_duplicates) if pinned else near_duplicates}


def _stream(
    catalogue: Catalogue,
    batches: Iterable[pa.RecordBatch],
    taking_part: Bools,
    evaluation: EvaluationSide,
    threads: int,
    found: list[Found],
) -> Iterator[Examples]:
    """Yield every example that takes part; appends to `found` what the train examples hold of the evaluation side."""
    yield evaluation.examples
    others = read_examples(catalogue, batches, taking_part & (catalogue.side != EVALUATION_TEXT))
    for examples, part in scan(evaluation.probe, others, threads, catalogue.side == TRAIN_TEXT):
        found.append(part)
        yield examples


def make_catalogue(tasks: pa.Table, plan: pa.Table, assignment: pa.Table) -> Catalogue:
    """Return the numbering of tasks and examples, and the side of each example."""
    names = plan["task"].to_pylist()
    number = pc.index_in(assignment["task"], value_set=pa.array(names, pa.string())).to_numpy()
    roles = np.array(plan["role"].to_pylist(), dtype="U16")[number]
    return Catalogue(
        names,
        tasks["output_fields"].to_pylist(),
        np.searchsorted(number, np.arange(len(names) + 1)).astype(np.int64),
        assignment["example"].combine_chunks(),
        assignment["group"].to_numpy(),
        text_sides(assignment["split"].to_numpy(), roles),
    )


def same_dataset_pairs(roles: Sequence[str], datasets: Sequence[str]) -> dict[int, set[int]]:
    """Return train task -> the evaluation tasks of its data set, by number; a supervised task pairs with itself."""
    evaluated: dict[str, set[int]] = {}
    for task, (role, dataset) in enumerate(zip(roles, datasets)):
        if role in EVALUATION_ROLES and dataset:
            evaluated.setdefault(dataset, set()).add(task)
    return {
        task: evaluated[dataset]
        for task, (role, dataset) in enumerate(zip(roles, datasets))
        if role in TRAINING_ROLES and dataset in evaluated
    }
