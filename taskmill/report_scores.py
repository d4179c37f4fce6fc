"""The parts of a report about single tasks: best and worst with predictions, prompt variants, clean against full, curves.

Reads the tables of evaluate, the levels of split, the prompts that the shown predictions answer, and the number of
updates of train. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.commands import figures
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.scoring.scores import (
    compared,
    evaluate_settings,
    model_title,
    score_rows,
    shown_model,
    updates_done,
)
from taskmill.evaluation.aggregation.curves import curves as points_of
from taskmill.evaluation.aggregation.nodes import ALL
from taskmill.records import INITIAL, LEVELS
from taskmill.storage import read_rows, read_table

NUM_TASKS = 5
"""Best tasks, and worst tasks, that are shown with predictions."""
NUM_SPREAD = 20
NUM_GAPS = 20
NUM_SUSPECTS = 12
NUM_OPTIONS = 8
NUM_SAMPLES = 4
NUM_CHARACTERS = 600
"""Characters of a text that are shown: of a prompt its end, of others their beginning."""
LEAKAGE_GAP = 0.05
"""How far the full score must be above the clean one before leakage is suspected, beside standing above its interval."""
LEAKAGE_CLEAN = 10
"""Clean predictions without which nothing is suspected: a handful says too little."""


# --------------------------------------------------------------------------------------- best and worst


def tasks(run: FinishedRun) -> Row:
    """Return the tasks that the shown model does best and worst, each with its best and its worst prediction."""
    shown = shown_model(run)
    rows, before = _task_rows(run, shown), _task_rows(run, INITIAL)
    shots = _fewest(rows)
    listed = [compared(row, before.get(key)) for key, row in rows.items() if key[1] == shots]
    listed.sort(key=lambda row: (-row["value"], row["name"]))
    half = min(NUM_TASKS, (len(listed) + 1) // 2)
    best, worst = listed[:half], listed[half:][-NUM_TASKS:][::-1]
    chosen = {row["name"] for row in (*best, *worst)}
    levels, predictions = _levels(run), _predictions(run, chosen, shown, shots)
    for row in (*best, *worst):
        row["level"] = levels.get(row["name"])
        row["predictions"] = predictions.get(row["name"], [])
    return {
        "best": best,
        "worst": worst,
        "shots": shots,
        "num": len(listed),
        "shown": model_title(run, shown),
        "normalisation": evaluate_settings(run).get("normalisation", "none"),
    }


def _template_names(run: FinishedRun) -> dict[tuple[str, str], str]:
    """Return the names of templates that came with their task, by task and id."""
    rows = run.rows("curate", "templates", ["task", "template", "name"])
    return {(row["task"], row["template"]): row["name"] for row in rows if row["name"]}


def _task_rows(run: FinishedRun, model: str) -> dict[tuple[str, int], Row]:
    """Return a model's scores of tasks by (task, shots)."""
    return {(row["name"], row["shots"]): row for row in score_rows(run, ["task"], [model])}


def _fewest(rows: Collection[tuple[str, int]]) -> int:
    """Return the smallest number of shots among (name, shots)."""
    return min((shots for _, shots in rows if shots >= 0), default=0)


def _levels(run: FinishedRun) -> dict[str, str]:
    """Return the level of every evaluated task."""
    return {r["task"]: r["level"] for r in run.rows("split", "tasks", ["task", "level"]) if r["level"]}


def _predictions(run: FinishedRun, chosen: Collection[str], model: str, shots: int) -> dict[str, list[Row]]:
    """Return for each task the prediction of the highest value and that of the lowest, where they differ, for reading."""
    wanted, picked = pa.array(sorted(chosen), pa.string()), dict[str, list[Row]]()
    for path in run.inputs.files("evaluate", "predictions"):
        keys = read_table(path, ["model", "shots", "task", "value"])
        fits = pc.and_(pc.equal(keys.column("model"), model), pc.equal(keys.column("shots"), shots))
        places = pc.indices_nonzero(pc.and_(fits, pc.is_in(keys.column("task"), value_set=wanted)))
        ends = _extremes(places.to_pylist(), keys.take(places).select(["task", "value"]).to_pylist())
        for row in read_rows(path, sorted(ends)).to_pylist():
            picked.setdefault(row["task"], []).append(row)
    prompts = _prompts(run, [row for rows in picked.values() for row in rows])
    names = _template_names(run)
    return {task: [readable(row, prompts, names) for row in rows] for task, rows in picked.items()}


def _extremes(places: Sequence[int], rows: Sequence[Row]) -> set[int]:
    """Return the places of the first row of each task's highest value, and of its lowest; null counts as the lowest."""
    ends: dict[tuple[str, bool], tuple[float, int]] = {}
    for place, row in zip(places, rows, strict=True):
        value = -1.0 if row["value"] is None else row["value"]
        for sign in (1, -1):
            key = row["task"], sign > 0
            ends[key] = max(ends.get(key, (-2.0, 0)), (sign * value, -place))
    lowest = {task: -value for (task, high), (value, _) in ends.items() if not high}
    return {-at for (task, high), (value, at) in ends.items() if not high or value != lowest[task]}


def _prompts(run: FinishedRun, predictions: Sequence[Row]) -> dict[bytes, Row]:
    """Return the prompts that predictions answer, by id."""
    wanted = {row["prompt"] for row in predictions}
    rows = run.find("render", "prompts", "example", {row["example"] for row in predictions})
    return {row["prompt"]: row for row in rows if row["prompt"] in wanted}


def readable(row: Row, prompts: Mapping[bytes, Row], names: Mapping[tuple[str, str], str]) -> Row:
    """Return a prediction with its prompt's end, its options by score, and whether it is right."""
    samples = row["samples"] or []
    return {
        "example": row["example"],
        "template": names.get((row["task"], row["template"]), row["template"]),
        "clean": row["clean"],
        "prompt": _end(_asked(prompts.get(row["prompt"]), row["num_demonstrations"])),
        "prediction": _start(row["prediction"]),
        "answer": _start(row["answer"]) if row["answer"] != row["prediction"] else None,
        "references": [_start(text) for text in row["references"][:NUM_SAMPLES]],
        "num_references": len(row["references"]),
        "samples": [_start(text) for text in samples[1:NUM_SAMPLES]],
        "num_samples": len(samples),
        "value": row["value"],
        "verdict": _verdict(row["value"]),
        "metric": row["metric"],
        **_options(row),
    }


def _asked(prompt: Row | None, num_demonstrations: int) -> str:
    """Return a prompt up to its answer, with the first of its demonstrations only; empty for none."""
    if prompt is None:
        return ""
    from taskmill.templates.composing.schemas import describe_segments

    segments = describe_segments(prompt)
    outputs = [i for i, (kind, _, _) in enumerate(segments) if kind == "output"]
    others = [i for i, (kind, trained, _) in enumerate(segments) if trained and kind != "control"]
    texts = []
    for kind, _, text in segments[: (outputs or others or [len(segments)])[-1]]:
        num_demonstrations -= kind == "demonstration"
        if kind != "demonstration" or num_demonstrations >= 0:
            texts.append(text)
    return "".join(texts).rstrip()


def _verdict(value: float | None) -> str:
    if value is None:
        return "not scored"
    return "right" if value >= 1 else "wrong" if value <= 0 else "partly right"


def _options(row: Row) -> Row:
    """Return a prediction's options, the likeliest first where they were ranked; the right and the chosen are never cut."""
    options, scores = row["options"] or [], row["scores"] or []
    listed = [
        {
            "text": _start(text),
            "score": scores[place] if place < len(scores) else None,
            "chosen": bool(scores) and text == row["prediction"],
            "right": place == row["correct_option"],
        }
        for place, text in enumerate(options)
    ]
    if scores:
        listed.sort(key=lambda option: -option["score"] if option["score"] is not None else float("inf"))
    shown = listed[:NUM_OPTIONS] + [o for o in listed[NUM_OPTIONS:] if o["chosen"] or o["right"]]
    return {"options": shown, "num_options": len(listed), "ranked": bool(scores)}


def _start(text: str) -> str:
    return text if len(text) <= NUM_CHARACTERS else f"{text[:NUM_CHARACTERS]} \u2026"


def _end(text: str) -> str:
    return text if len(text) <= NUM_CHARACTERS else f"\u2026 {text[-NUM_CHARACTERS:]}"


# ------------------------------------------------------------------------------------- prompt variants


def variants(run: FinishedRun) -> Row:
    """Return how far the prompt variants of a task are apart: by level on average, and the tasks where it is widest.

    The spread of a task is the difference between its best and its worst variant; tasks with one variant have none.
    """
    shown = shown_model(run)
    levels, known = _levels(run), {name for name, _ in _task_rows(run, shown)}
    names = _template_names(run)
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in score_rows(run, ["variant"], [shown]):
        task, template = _variant(row["name"], known)
        named = names.get((task, template), template)
        groups.setdefault((task, row["shots"]), []).append({**row, "template": named})
    rows = [_spread(*key, mine, levels.get(key[0])) for key, mine in groups.items() if len(mine) > 1]
    rows.sort(key=lambda row: (-row["spread"], row["task"], row["shots"]))
    by_level = []
    for level in LEVELS:
        for shots in sorted({row["shots"] for row in rows if row["level"] == level}):
            mine = [row for row in rows if (row["level"], row["shots"]) == (level, shots)]
            by_level.append(
                {
                    "level": level,
                    "shots": shots,
                    "num": len(mine),
                    "mean": sum(row["spread"] for row in mine) / len(mine),
                    "widest": mine[0],
                    "num_variants": sum(row["num_variants"] for row in mine) / len(mine),
                }
            )
    return {
        "rows": [row for row in rows[:NUM_SPREAD] if row["spread"] > 0],
        "num": len(rows),
        "num_single": len(groups) - len(rows),
        "levels": by_level,
        "shown": model_title(run, shown),
    }


def _variant(name: str, tasks: Collection[str]) -> tuple[str, str]:
    """Return the task and the template of a name `task::template`, either of which may hold `::` too."""
    parts = name.split("::")
    cuts = [("::".join(parts[:i]), "::".join(parts[i:])) for i in range(1, len(parts))]
    return next((cut for cut in cuts if cut[0] in tasks), (parts[0], "::".join(parts[1:])))


def _spread(task: str, shots: int, rows: Sequence[Row], level: str | None) -> Row:
    order = sorted(rows, key=lambda row: (row["value"], row["template"]))
    low, high = order[0], order[-1]
    return {
        "task": task,
        "shots": shots,
        "level": level,
        "num_variants": len(rows),
        "low": low["value"],
        "high": high["value"],
        "mean": sum(row["value"] for row in rows) / len(rows),
        "spread": high["value"] - low["value"],
        "worst": low["template"],
        "best": high["template"],
        "dots": [100 * min(1.0, max(0.0, row["value"])) for row in order],
    }


# ---------------------------------------------------------------------------------- clean against full


def clean(run: FinishedRun) -> Row:
    """Return every score beside the one without examples that share a 13-gram with the train side.

    A task is a suspect when its full score stands above the interval of its clean one, and by LEAKAGE_GAP at least.
    """
    shown = shown_model(run)
    rows, before = _task_rows(run, shown), _task_rows(run, INITIAL)
    levels = _levels(run)
    listed = []
    for key, row in rows.items():
        if row["num_clean"] < row["num"]:
            old = before.get(key) if shown != INITIAL else None
            listed.append(
                {**_beside(row), "level": levels.get(key[0]), "before": _beside(old) if old else None}
            )
    listed.sort(key=lambda row: (row["gap"] is None, -(row["gap"] or 0.0), row["name"], row["shots"]))
    wide = [_beside(row) for row in score_rows(run, ["level", "category"], [shown]) if row["name"] != ALL]
    for row in wide:
        row["level"], _, row["short"] = row["name"].partition("/")
        row["before"] = None
    wide.sort(key=lambda row: (LEVELS.index(row["level"]), row["short"], row["shots"]))
    touched = [row for row in wide if row["short"] and row["num_clean"] < row["num"]]
    suspects = [row for row in listed if row["suspect"]]
    kept = _kept(run)
    for row in suspects:
        row["kept"] = kept.get(row["name"], [])
    return {
        "levels": [row for row in wide if not row["short"]],
        "categories": touched,
        "num_categories": sum(bool(row["short"]) for row in wide),
        "tasks": [row for row in listed if row["gap"] is not None][:NUM_GAPS],
        "num_gaps": sum(row["gap"] is not None for row in listed),
        "num_all_clean": len(rows) - len(listed),
        "num": len(rows),
        "without": [row["name"] for row in listed if row["gap"] is None],
        "suspects": suspects[:NUM_SUSPECTS],
        "num_suspects": len(suspects),
        "num_suspect_tasks": len({row["name"] for row in suspects}),
        "shown": model_title(run, shown),
        "has_baseline": any(row["before"] for row in listed),
        "least_gap": LEAKAGE_GAP,
        "least_clean": LEAKAGE_CLEAN,
    }


def _kept(run: FinishedRun) -> dict[str, list[str]]:
    """Return the train tasks that a decision kept beside each evaluation task."""
    found: dict[str, list[str]] = {}
    for row in run.rows("split", "decisions", ["train_task", "eval_task", "action"]):
        if row["action"] == "keep":
            found.setdefault(row["eval_task"], []).append(row["train_task"])
    return found


def _beside(row: Row) -> Row:
    """Return a score with its gap to the clean one, both bars, and whether the gap is suspect."""
    value, high = row["clean_value"], row["clean_high"]
    matched = row["matched_value"]
    gap = None if value is None or matched is None else matched - value
    suspect = gap is not None and high is not None and gap >= LEAKAGE_GAP and matched > high
    bounds = {
        name: value if row[f"clean_{name}"] is None else row[f"clean_{name}"]
        for name in ("value", "low", "high")
    }
    return {
        **row,
        "gap": gap,
        "others": gap is not None and matched != row["value"],
        "suspect": suspect and row["num_clean"] >= LEAKAGE_CLEAN,
        "bar": figures.interval(row),
        "clean_bar": None if value is None else figures.interval(bounds),
    }


# --------------------------------------------------------------------------------------------- curves


def curves(run: FinishedRun) -> Row:
    """Return the scores of levels over training: from the untrained model over the checkpoints to the trained one."""
    last = run.manifests["train"].counts.get("num_steps", 0) if run.has("train") else 0
    points = points_of(score_rows(run, ["level"]), last)
    columns = list(dict.fromkeys((point["level"], point["shots"]) for point in points))
    at = {(point["step"], point["level"], point["shots"]): point for point in points}
    steps = {point["step"]: point["model"] for point in sorted(points, key=lambda p: p["step"])}
    fewest = min((shots for _, shots in columns if shots >= 0), default=0)
    lines = {
        level: [at[step, level, fewest] for step in steps if (step, level, fewest) in at] for level in LEVELS
    }
    return {
        "num": sum(updates_done(model) is not None for model in steps.values()),
        "figure": figures.score_curves({k: v for k, v in lines.items() if v}) if len(steps) > 1 else None,
        "columns": columns,
        "rows": [
            {
                "step": step,
                "title": model_title(run, model),
                "cells": [at.get((step, *column)) for column in columns],
            }
            for step, model in steps.items()
        ],
        "shots": fewest,
    }
