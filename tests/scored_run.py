"""A finished run with many scores for the tests of the report: variants, shots, checkpoints, a leaked task, hostile text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from finished_run import BOTH, EVAL, PARTIAL, examples, make_run, prompt_name, write_stage

from taskmill.evaluation.aggregation.hierarchy import aggregate
from taskmill.records import SCHEMAS

PLANTED = "<img src=x onerror=\"document.title='ran'\"><script>document.title='ran'</script>"
"""What would leave a mark on the page if it were more than text."""
LONG = "w" * 100_000
ODD = "before \u202edesrever\u202c \x1b[31m\x07 after"
PREDICTIONS = (f"guess {PLANTED}", LONG, ODD, "")
TEMPLATES = ("plain", "middle", f"odd {PLANTED}")
FACTS = {
    EVAL: ("held_out", "Irony & <b>wit</b>", "beta"),
    PARTIAL: ("partial", "Facts", "beta"),
    BOTH: ("supervised", "Arithmetic", "alpha"),
}
STEPS = {"initial": 0.0, "step-000006": 0.125, "step-000012": 0.25, "final": 0.25}
"""Models, and what their values of clean examples have on top of the untrained one's."""


def make_scored_run(folder: Path, models: Sequence[str] = tuple(STEPS)) -> Path:
    """Write the run `folder/tiny`, scored by `models`, and return it.

    Of each task 12 examples, three variants and 0 and 2 shots. A clean example has the value of its variant (see
    `value_of`); the first half of EVAL is not clean, and every model but the untrained one is right there.
    """
    run = make_run(folder, "train")
    parts = [predictions(model, task, shots) for model in models for task in FACTS for shots in (0, 2)]
    files = {
        "predictions.parquet": ("scores/predictions", [row for part in parts for row in part]),
        "scores.parquet": ("scores/scores", scored(parts)),
    }
    write_stage(run, "evaluate", files, num_predictions=sum(map(len, parts)))
    return run


def scored(parts: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows of scores of predictions, a list for each model, task and number of shots."""
    schema = SCHEMAS["scores/predictions"]
    tables = [
        pa.Table.from_pylist([{f.name: row.get(f.name) for f in schema} for row in part], schema=schema)
        for part in parts
    ]
    return aggregate(tables, seed=3, num_resamples=40)


def value_of(model: str, task: str, template: str, shots: int) -> float:
    """Return the value of a clean example: variants are 0.125 apart, tasks too."""
    base = {EVAL: 0.125, PARTIAL: 0.25, BOTH: 0.375}[task]
    apart = 0.0 if task == PARTIAL else 0.125 * TEMPLATES.index(template)
    return base + apart + STEPS.get(model, 0.25) + (0.0625 if shots else 0.0)


def predictions(model: str, task: str, shots: int) -> list[dict[str, Any]]:
    """Return a model's predictions on a task, variants within examples."""
    level, category, benchmark = FACTS[task]
    real = {row["example"]: row for row in examples()}
    rows = []
    for i in range(12):
        for template in TEMPLATES:
            name = f"{task}#{i}"
            leaked = task == EVAL and i < 6
            value = 1.0 if leaked and model != "initial" else value_of(model, task, template, shots)
            row = {
                "model": model,
                "prompt": prompt_name(name),
                "example": name,
                "group": i,
                "task": task,
                "family": task.split("/")[1],
                "benchmark": benchmark,
                "level": level,
                "category": category,
                "template": template,
                "shots": shots,
                "num_demonstrations": 0,
                "references": real[name]["references"] if name in real else [f"answer {PLANTED}"],
                "metric": "exact_match",
                "value": value,
                "clean": not leaked,
            }
            rows.append({**row, **_answer(task, i)})
    return rows


def _answer(task: str, i: int) -> dict[str, Any]:
    """Return what was answered: BOTH is ranked, PARTIAL has samples and an answer extracted, EVAL free text."""
    if task == BOTH:
        options = [f"answer {i}", f"other {PLANTED}", *(f"option {j}" for j in range(12))]
        ranked = {
            "options": options,
            "correct_option": 0,
            "scores": [-9.0, -1.5, *(-2.0 - j for j in range(12))],
        }
        return {"prediction": options[1], "answer": options[1], "metric": "accuracy", **ranked}
    text = PREDICTIONS[i % len(PREDICTIONS)]
    if task == PARTIAL:
        return {
            "prediction": text,
            "answer": f"extracted {i}",
            "samples": [text, f"again {PLANTED}", "third"],
        }
    return {"prediction": text, "answer": text}
