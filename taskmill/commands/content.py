"""What `inspect` shows, as JSON values: a stage of a run, or one example from its upstream record to its predictions.

Reads finished stages, writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np

from taskmill.commands.evidence import worst_pairs
from taskmill.commands.finished import FinishedRun, Row
from taskmill.errors import UsageError, did_you_mean
from taskmill.records import LEVELS, SPLITS

NUM_NEAR = 5_000
"""Ids among which the nearest to a mistyped one is looked for."""
NUM_POSITIONS = 20


def overview(run: FinishedRun) -> Row:
    """Return the run on one screen: stages, levels, mixture, scores."""
    stages = [
        {
            "stage": name,
            "counts": m.counts,
            "dropped": m.dropped,
            "seconds": m.body["recorded"]["seconds"],
            "root": m.root,
        }
        for name, m in run.manifests.items()
    ]
    return {
        "run": str(run.run),
        "name": run.recipe.get("values", {}).get("name") or run.run.name,
        "stages": stages,
        "levels": _levels(run.rows("split", "tasks")),
        "mixture": run.shares("mix"),
        "scores": _level_scores(run),
    }


def _levels(tasks: Sequence[Row]) -> list[Row]:
    found: dict[str, Row] = {}
    for task in tasks:
        name = task["level"] or ("excluded" if task["role"] == "excluded" else "train only")
        row = found.setdefault(name, {"level": name, "tasks": 0, **dict.fromkeys(SPLITS, 0)})
        row["tasks"] += 1
        for split in SPLITS:
            row[split] += task[f"num_{split}"]
    order = [*LEVELS, "train only", "excluded"]
    return [found[name] for name in order if name in found]


def _level_scores(run: FinishedRun) -> list[Row]:
    return [row for row in run.rows("evaluate", "scores") if row["scope"] == "level"]


# --------------------------------------------------------------------------------------------- stages


def curate(run: FinishedRun, task: str | None, count: int) -> Row:
    """Return the tasks that match, and examples of them."""
    names = run.matching(task)
    rows = [run.tasks[name] for name in names]
    examples = run.spread("curate", "examples", names, count)
    return {"tasks": rows, "examples": [_readable(run, row) for row in examples]}


def overlap(run: FinishedRun, task: str | None, count: int) -> Row:
    """Return the worst pairs with both texts in parts, those they share marked."""
    names = None if task is None else run.matching(task, _names(run, "overlap", "plan"))
    return {
        "pairs": worst_pairs(run, names, count),
        "num_pairs": len(run.rows("overlap", "pairs", ["eval_task"])),
    }


def split(run: FinishedRun, task: str | None, count: int) -> Row:
    """Return the levels, the tasks that match (evaluated ones first) and the decisions that touch them."""
    tasks = run.rows("split", "tasks")
    names = set(run.matching(task, [row["task"] for row in tasks]))
    order = {level: place for place, level in enumerate((*LEVELS, None))}
    tasks = sorted((row for row in tasks if row["task"] in names), key=lambda row: order[row["level"]])
    decisions = run.rows("split", "decisions")
    decisions = [d for d in decisions if d["train_task"] in names or d["eval_task"] in names]
    decisions.sort(key=lambda d: (-d["hit_fraction"], d["train_task"], d["eval_task"]))
    return {"levels": _levels(tasks), "tasks": tasks, "decisions": decisions}


def render(run: FinishedRun, task: str | None, count: int) -> Row:
    """Return prompts in segments, taken in turn from the tasks that match."""
    names = run.matching(task, _names(run, "render", "prompts"))
    return {"prompts": [_segments(row) for row in run.spread("render", "prompts", names, count)]}


def mix(run: FinishedRun, task: str | None, count: int) -> Row:
    """Return the shares of benchmarks, and the entries of tasks."""
    body = run.json_file(run.manifests["mix"].directory / "mixture.json")
    names = set(run.matching(task, {entry["task"] for entry in body["tasks"]}))
    entries = sorted((e for e in body["tasks"] if e["task"] in names), key=lambda e: (-e["share"], e["task"]))
    return {"num_prompts": body["num_prompts"], "shares": run.shares("mix"), "tasks": entries}


def tokenize(run: FinishedRun, task: str | None, count: int) -> Row:
    """Return the first documents of the mixture as tokens, in its order, and how many prompts were cut how."""
    from taskmill.training.encoding.fitting import FitCounts

    documents = run.tokens.order
    if task is not None:
        prompts = run.find("render", "prompts", "task", run.matching(task, _names(run, "render", "prompts")))
        wanted = np.array([row["row"] for row in prompts], dtype=np.int64)
        documents = np.flatnonzero(np.isin(run.tokens.rows, wanted))
    info = run.tokens.info
    return {
        "info": info,
        "cuts": {part.name: info[part.name] for part in fields(FitCounts)},
        "documents": [_document(run, int(n)) for n in documents[:count]],
    }


def train(run: FinishedRun, task: str | None, count: int) -> Row:
    """Return the first update and the last ones, and the last losses on validation prompts."""
    updates = [line for line in run.metrics if "validation" not in line]
    validations = [line for line in run.metrics if "validation" in line]
    return {
        "counts": run.manifests["train"].counts,
        "num_updates": len(updates),
        "first": updates[:1],
        "last": updates[1:][-count:],
        "validations": validations[-count:],
    }


def evaluate(run: FinishedRun, task: str | None, count: int) -> Row:
    """Return the scores of levels and of the tasks that match, and predictions."""
    names = run.matching(task, _names(run, "evaluate", "predictions"))
    scores = run.rows("evaluate", "scores")
    chosen = [row for row in scores if row["scope"] == "task" and row["name"] in names] if task else []
    predictions = run.spread("evaluate", "predictions", names, count)
    return {
        "levels": _level_scores(run),
        "tasks": chosen,
        "predictions": [_plain(row) for row in predictions],
    }


COLLECT: dict[str, Callable[[FinishedRun, str | None, int], Row]] = {
    "curate": curate,
    "overlap": overlap,
    "split": split,
    "render": render,
    "mix": mix,
    "tokenize": tokenize,
    "train": train,
    "evaluate": evaluate,
}


def _names(run: FinishedRun, stage: str, table: str) -> list[str]:
    found = run.table(stage, table, ["task"])
    return [] if found is None else found.column("task").unique().to_pylist()


def _readable(run: FinishedRun, row: Row) -> Row:
    """Return an example with its fields as an object, hashes as hex, and where its task comes from."""
    task = run.tasks[row["task"]]
    origin = {name: task[name] for name in ("repository", "revision", "license")}
    return {**_plain(row), "fields": json.loads(row["fields"]), **origin}


def _plain(row: Row) -> Row:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in row.items()}


def _segments(row: Row) -> Row:
    from taskmill.templates.composing.schemas import describe_segments

    rest = {k: v for k, v in _plain(row).items() if k not in ("text", "ends", "kinds", "trained")}
    parts = [{"kind": kind, "trained": flag, "text": text} for kind, flag, text in describe_segments(row)]
    return {**rest, "segments": parts}


def _document(run: FinishedRun, number: int) -> Row:
    tokens = run.document(number)
    return {
        "document": number,
        "row": int(run.tokens.rows[number]),
        "num_tokens": len(tokens),
        "num_trained": sum(trained for _, trained in tokens),
        "tokens": [{"text": text, "trained": trained} for text, trained in tokens],
    }


# ---------------------------------------------------------------------------------------- one example


def follow(run: FinishedRun, example: str) -> Row:
    """Return everything the run holds about an example, stage by stage.

    Raises:
        UsageError: no example has that id; the message names the nearest.
    """
    run.require("curate")
    found = run.examples([example])
    drops = [
        _plain(row)
        for stage in ("curate", "render", "tokenize")
        for row in run.find(stage, "dropped", "example", [example])
    ]
    if example not in found and not drops:
        raise UsageError(f"no example {example!r} in {run.run}{nearest_example(run, example)}")
    prompts = run.find("render", "prompts", "example", [example])
    rows = [row["row"] for row in prompts]
    return {
        "example": _readable(run, found[example]) if example in found else None,
        "dropped": drops,
        "split": _standing(run, example),
        "overlaps": _overlaps(run, example),
        "prompts": [_segments(row) for row in prompts],
        "mixture": _positions(run, rows),
        "tokens": _tokens(run, rows),
        "predictions": [_plain(row) for row in run.find("evaluate", "predictions", "example", [example])],
    }


def nearest_example(run: FinishedRun, example: str) -> str:
    """Return what to add to a message about an example that is not there."""
    task = example.split("#", 1)[0]
    if task not in run.tasks:
        hint = did_you_mean(task, run.tasks)
        return (
            f": it has no task {task!r}{hint}"
            if hint
            else f"; `taskmill inspect {run.run} curate` shows some"
        )
    ids = [row["example"] for row in run.spread("curate", "examples", [task], NUM_NEAR)]
    return did_you_mean(example, ids) or f"; one of that task is {ids[0]!r}" if ids else ""


def _standing(run: FinishedRun, example: str) -> Row | None:
    """Return where the example stands: split, level, and why."""
    members = run.find("split", "members", "example", [example])
    tasks = {row["task"]: row for row in run.rows("split", "tasks")}
    for member in members:
        task = tasks.get(member["task"], {})
        return {
            **_plain(member),
            "level": task.get("level"),
            "role": task.get("role"),
            "why": task.get("why"),
        }
    planned = run.find("overlap", "assignment", "example", [example])
    return _plain(planned[0]) if planned else None


def _overlaps(run: FinishedRun, example: str) -> Row:
    """Return the hits, touches and windows that name the example, and the decisions on their pairs."""
    found: dict[str, list[Row]] = {}
    for table, columns in (
        ("hits", ("eval_example", "train_example")),
        ("touched", ("train_example",)),
        ("evidence", ("eval_example", "train_example")),
        ("near_duplicates", ("example", "survivor")),
    ):
        rows = [row for column in columns for row in run.find("overlap", table, column, [example])]
        found[table] = list({row["row"]: _plain(row) for row in rows}.values())
    pairs = {(r["train_task"], r["eval_task"]) for t in ("hits", "touched") for r in found[t]}
    decisions = run.rows("split", "decisions") if pairs else []
    return {**found, "decisions": [d for d in decisions if (d["train_task"], d["eval_task"]) in pairs]}


def _positions(run: FinishedRun, rows: Sequence[int]) -> Row | None:
    """Return the positions of the mixture at which one of the prompts' rows is drawn."""
    if not run.has("mix"):
        return None
    from taskmill.training.mixture import Mixture

    directory = run.manifests["mix"].directory
    num_prompts = run.json_file(directory / "mixture.json")["num_prompts"]
    drawn = Mixture.open(directory).rows(num_prompts)
    at = np.flatnonzero(np.isin(drawn, np.array(rows, dtype=np.int64))).tolist()
    return {"num_prompts": num_prompts, "num_positions": len(at), "positions": at[:NUM_POSITIONS]}


def _tokens(run: FinishedRun, rows: Sequence[int]) -> list[Row]:
    """Return the documents made from the rows."""
    if not run.has("tokenize"):
        return []
    numbers = np.flatnonzero(np.isin(run.tokens.rows, np.array(rows, dtype=np.int64)))
    return [_document(run, number) for number in numbers.tolist()]
