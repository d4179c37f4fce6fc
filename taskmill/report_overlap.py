"""The parts of a report that say what train and evaluation text share, what decisions took out, and what the audit found.

Reads the tables of overlap and split, the examples that evidence names, and RUN/audit where there is one. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.commands import evidence, figures
from taskmill.commands.audit import DIRECTORY, VERDICTS
from taskmill.commands.finished import FinishedRun, Row
from taskmill.errors import DamagedError
from taskmill.splits.auditing.segments import PLACES
from taskmill.splits.deciding.decisions import RULE
from taskmill.splits.sharing.examples import EVALUATION_TEXT, I64, text_sides
from taskmill.storage import read_table

NUM_CATEGORIES = 100
"""Rows and columns of the matrix that are shown; the rest is counted."""
NUM_PAIRS = 12
NUM_CLUSTERS = 10
NUM_CLUSTER_TASKS = 6
NUM_FREQUENT = 20
NUM_DECISIONS = 20
NUM_AUDITED = 15
NUM_WINDOWS = 20

Cell: TypeAlias = tuple[str, str]
"""Category of the evaluation task, category of the train task."""

MEANINGS = {
    "leak": "content above the threshold is left, and no decision keeps it",
    "kept": "content above the threshold is left, by a decision",
    "template": "only the prompts are above the threshold: what they share is put around the content, or beside it",
    "demonstrations": "the same, and outside of demonstrations the prompts are not above it",
    "clean": "neither figure is above the threshold",
}
"""What each verdict of the audit says."""


def overlap(run: FinishedRun) -> Row:
    """Return the matrix of categories, the worst pairs with their texts, decisions, near-duplicates, frequent grams."""
    pairs = run.rows("overlap", "pairs")
    values = run.recipe.get("values", {})
    settings = values.get("overlap", {})
    frequent = sorted(run.rows("overlap", "frequent"), key=lambda row: (-row["num_groups"], row["text"]))
    dropped = [row for row in run.rows("curate", "dropped") if row["reason"] == "duplicate"]
    return {
        "n": settings.get("n", 13),
        "normalisation": settings.get("normalisation", "words-1"),
        "num_pairs": sum(_share(pair) > 0 for pair in pairs),
        "num_same_dataset": sum(pair["same_dataset"] for pair in pairs),
        "num_hit": sum(pair["num_hit"] > 0 for pair in pairs),
        "num_whole": sum(pair["num_short_equal"] > 0 for pair in pairs),
        "matrix": matrix(run, pairs),
        "pairs": _worst(run),
        "split_finished": run.has("split"),
        "split_command": run.command("split"),
        "threshold": values.get("split", {}).get("threshold"),
        "decisions": decisions(run),
        "near": near(run),
        "frequent": frequent[:NUM_FREQUENT],
        "num_frequent": len(frequent),
        "frequent_groups": settings.get("frequent_groups"),
        "duplicates": dropped[:10],
        "num_duplicates": len(dropped),
    }


def _worst(run: FinishedRun) -> list[Row]:
    """Return the worst pairs of those that share text or were decided, their texts cut to what is around the marks.

    `marked` of an item of evidence is whether anything in its texts is.
    """
    listed = [
        {**pair, "share": _share(pair)}
        for pair in evidence.worst_pairs(run, None, NUM_PAIRS)
        if _share(pair) or pair["decision"]
    ]
    for pair in listed:
        for item in pair["evidence"]:
            item["marked"] = any(
                evidence.is_marked(parts) for side in ("train", "eval") for parts in item[side].values()
            )
            for side in ("train", "eval"):
                item[side] = {name: evidence.clip(parts) for name, parts in item[side].items() if parts}
    return listed


# --------------------------------------------------------------------------------------- categories


def matrix(run: FinishedRun, pairs: Sequence[Row]) -> Row:
    """Return how much of each evaluation category any task of each train category has, the worst first.

    A cell holds the share of the category's evaluation examples that share a window with, or are short and equal as a whole
    to, an example of any train task of the other category; and the pair of tasks that is worst. Categories without any
    are left out.
    """
    category = {task: row["category"] for task, row in run.tasks.items()}
    num_eval = _num_eval(run, pairs)
    sizes: dict[str, int] = {}
    for task, number in num_eval.items():
        name = category.get(task, task)
        sizes[name] = sizes.get(name, 0) + number
    cells, totals = _distinct_hits(run, category)
    worst: dict[Cell, Row] = {}
    for pair in sorted(pairs, key=lambda p: (-p["num_hit"] - p["num_short_equal"], _names(p))):
        key = (
            category.get(pair["eval_task"], pair["eval_task"]),
            category.get(pair["train_task"], pair["train_task"]),
        )
        if key in cells and _share(pair) > _share(worst.get(key, {})):
            worst[key] = pair
    rows = sorted(totals, key=lambda name: (-totals[name] / max(1, sizes.get(name, 0)), name))
    most: dict[str, float] = {}
    for (row, column), number in cells.items():
        most[column] = max(most.get(column, 0.0), number / max(1, sizes.get(row, 0)))
    columns = sorted(most, key=lambda name: (-most[name], name))[:NUM_CATEGORIES]
    return {
        "columns": columns,
        "num_more_columns": len(most) - len(columns),
        "num_more_rows": max(0, len(rows) - NUM_CATEGORIES),
        "rows": [
            {
                "category": row,
                "num": totals[row],
                "size": sizes.get(row, 0),
                "share": totals[row] / max(1, sizes.get(row, 0)),
                "cells": [
                    _cell(cells.get((row, column), 0), sizes.get(row, 0), worst.get((row, column)))
                    for column in columns
                ],
            }
            for row in rows[:NUM_CATEGORIES]
        ],
    }


def _cell(number: int, size: int, worst: Row | None) -> Row | None:
    if not number:
        return None
    pair = {"train_task": worst["train_task"], "eval_task": worst["eval_task"]} if worst else {}
    return {"num": number, "share": number / max(1, size), "worst": _share(worst or {}), **pair}


def _names(pair: Row) -> Cell:
    return pair["train_task"], pair["eval_task"]


def _share(pair: Mapping[str, float]) -> float:
    """Return the share of a pair's evaluation examples that are hit, or short and equal as a whole."""
    return (pair["num_hit"] + pair["num_short_equal"]) / max(1, pair["num_eval"]) if pair else 0.0


def _num_eval(run: FinishedRun, pairs: Sequence[Row]) -> dict[str, int]:
    """Return the evaluation examples of every task that has some, as overlap saw them."""
    roles = {row["task"]: row["role"] for row in run.rows("overlap", "plan", ["task", "role"])}
    assigned = run.inputs.table("overlap", "assignment", ["task", "split"])
    counts = assigned.group_by(["task", "split"]).aggregate([([], "count_all")]).to_pylist()
    found: dict[str, int] = {}
    sides = text_sides([row["split"] for row in counts], [roles[row["task"]] for row in counts])
    for row, side in zip(counts, sides.tolist()):
        if side == EVALUATION_TEXT:
            found[row["task"]] = found.get(row["task"], 0) + row["count_all"]
    return {**found, **{pair["eval_task"]: pair["num_eval"] for pair in pairs}}


def _distinct_hits(run: FinishedRun, category: Mapping[str, str]) -> tuple[dict[Cell, int], dict[str, int]]:
    """Return the distinct evaluation examples that are hit, by both categories and by that of the evaluation task."""
    hits = run.table("overlap", "hits", ["train_task", "eval_task", "eval_example"])
    if hits is None or not hits.num_rows:
        return {}, {}
    names = sorted({*category.values(), *hits["train_task"].unique().to_pylist()})
    names = sorted({*names, *hits["eval_task"].unique().to_pylist()})
    number = {name: place for place, name in enumerate(names)}

    def codes(column: str) -> I64:
        tasks = hits[column].unique()
        table = np.array([number[category.get(task, task)] for task in tasks.to_pylist()], np.int64)
        coded: I64 = table[pc.index_in(hits[column], value_set=tasks).to_numpy()]
        return coded

    evaluation, train = codes("eval_task"), codes("train_task")
    encoded = hits["eval_example"].combine_chunks().dictionary_encode()
    example = encoded.indices.to_numpy().astype(np.int64)
    size = len(encoded.dictionary)
    cell = np.unique((evaluation * len(names) + train) * size + example) // size
    total = np.unique(evaluation * size + example) // size
    cells = zip(*(part.tolist() for part in np.unique(cell, return_counts=True)))
    totals = zip(*(part.tolist() for part in np.unique(total, return_counts=True)))
    return (
        {(names[key // len(names)], names[key % len(names)]): count for key, count in cells},
        {names[key]: count for key, count in totals},
    )


# ---------------------------------------------------------------------------------------- decisions


def decisions(run: FinishedRun) -> Row:
    """Return what decisions took out, by action and who decided, and those that took out most."""
    rows = run.rows("split", "decisions")
    for row in rows:
        row["who"] = f"rule {row['rule']}" if row["by"] in ("", RULE) else row["by"]
    groups: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = row["action"], row["who"] if row["by"] in ("", RULE) else "people"
        group = groups.setdefault(key, {"action": key[0], "who": key[1], "num_pairs": 0, "num_dropped": 0})
        group["num_pairs"] += 1
        group["num_dropped"] += row["num_dropped"]
    most = sorted(
        (row for row in rows if row["num_dropped"]), key=lambda row: (-row["num_dropped"], _names(row))
    )
    return {
        "num": len(rows),
        "num_dropped": sum(row["num_dropped"] for row in rows),
        "groups": sorted(
            groups.values(), key=lambda g: (-g["num_dropped"], -g["num_pairs"], g["action"], g["who"])
        ),
        "most": most[:NUM_DECISIONS],
        "num_dropping": len(most),
    }


# ---------------------------------------------------------------------------------- near-duplicates


def near(run: FinishedRun) -> Row:
    """Return near-duplicates with the texts of the clusters that matter most, what came of them, and the banding."""
    found = evidence.near_duplicates(run, NUM_CLUSTERS)
    for cluster in found["clusters"]:
        cluster["num_tasks"] = len(cluster["tasks"])
        cluster["tasks"] = cluster["tasks"][:NUM_CLUSTER_TASKS]
    split = run.manifests.get("split")
    return {
        **found,
        "mode": run.recipe.get("values", {}).get("split", {}).get("near_duplicates"),
        "num_dropped": split.dropped.get("near_duplicate", 0) if split else None,
        "banding": banding(run),
    }


def banding(run: FinishedRun) -> Row | None:
    """Return bands, rows and what they miss; None where datasketch, which chooses them, is not installed."""
    near = run.recipe.get("values", {}).get("overlap", {}).get("near_duplicates")
    if not near:
        return None
    from taskmill.minhash import banding as choose

    try:
        best = choose(near["threshold"], near["num_perm"])
    except ImportError:
        return None
    threshold = best.threshold
    shown = sorted(
        {threshold / 2, 0.75 * threshold, threshold, (1 + threshold) / 2, 0.25 + 0.75 * threshold, 1.0}
    )
    return {
        "threshold": threshold,
        "num_perm": near["num_perm"],
        "bands": best.bands,
        "rows": best.rows,
        "false_negative": best.false_negative,
        "false_positive": best.false_positive,
        "curve": [(similarity, best.probability(similarity)) for similarity in shown],
    }


# -------------------------------------------------------------------------------------------- audit


def audit(run: FinishedRun) -> Row:
    """Return what the audit of the prompts found, or the command that makes it.

    Raises:
        DamagedError: RUN/audit holds something else.
    """
    command = f"taskmill audit {run.run}"
    folder = run.run / DIRECTORY
    body = run.json_file(folder / "audit.json")
    if not body:
        return {"command": command, "found": None}
    if lacking := sorted({"check", "members", "prompts", "totals"} - body.keys()):
        raise DamagedError(
            f"{folder / 'audit.json'} lacks {', '.join(lacking)}: it is no audit; `{command}` makes it anew"
        )
    windows = _windows(read_table(folder / "windows.parquet"))
    rows = read_table(folder / "pairs.parquet").to_pylist()
    shown = [row for row in rows if row["verdict"] != "clean"]
    shown.sort(key=lambda row: (-row["left_fraction"], -row["example_fraction"], _names(row)))
    shown.sort(key=lambda row: VERDICTS.index(row["verdict"]))
    for row in shown:
        row["places"] = [
            (name, row[f"eval_{name}"] / max(1, row["num_prompts"])) for name in PLACES if row[f"eval_{name}"]
        ]
    stale = [
        stage
        for stage, root in (("split", body["members"]), ("render", body["prompts"]))
        if not run.has(stage) or run.manifests[stage].root != root
    ]
    return {
        "command": command,
        "found": body,
        "stale": stale,
        "verdicts": [(name, body["totals"]["verdicts"].get(name, 0), MEANINGS[name]) for name in VERDICTS],
        "rows": shown[:NUM_AUDITED],
        "num_rows": len(shown),
        "windows": windows[:NUM_WINDOWS],
        "num_windows": len(windows),
    }


def _windows(table: pa.Table) -> list[Row]:
    """Return the distinct windows, those in most test prompts first, then those of most pairs."""
    found: dict[str, Row] = {}
    for row in table.to_pylist():
        window = found.setdefault(row["text"], {"text": row["text"], "num": 0, "pairs": 0, "kinds": set()})
        window["num"] = max(window["num"], row["num_texts"])
        window["pairs"] += 1
        window["kinds"].update(row["kinds"])
    ordered = sorted(found.values(), key=lambda row: (-row["num"], -row["pairs"], row["text"]))
    return [{**row, "kinds": ", ".join(map(figures.words, sorted(row["kinds"])))} for row in ordered]
