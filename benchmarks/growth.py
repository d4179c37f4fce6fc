"""How the overlap stage grows: seconds and peak memory by train text, evaluation text and number of tasks.

    python benchmarks/growth.py [--quick] [--data PATH] [--work FOLDER] [--docs FOLDER] [--json OUT]

Each point is a catalogue of Super-NaturalInstructions tasks made of the documents of `corpus.py`, curated (not timed), then
`taskmill overlap` in a fresh process: plan, exact 13-grams, tables of pairs and evidence, near-duplicates. Beside it stands
the index alone: the evaluation side indexed and the train side streamed past it from Parquet, in one process without
near-duplicates and tables. Two workers and two threads; memory is that of a process and its children, shared pages once.

Without `--data` the documents are the demo's, and few; `--quick` has two points a line. `--docs` draws the charts and fills the
table of that folder's performance.md. A ratio is the growth of what grows over that of the stage's seconds, from the first
point of a line to the last: above 1 where the stage grows less than in proportion.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import overlap_contenders as contenders
import pyarrow.parquet as pq
from charts import Panel, write_chart
from corpus import Corpus, Documents, corpus, read, row_groups, write
from measuring import fill, peak_megabytes, run_with_memory, sample, table, versions

WORKERS = 2
RECIPE = """
name: growth
data_root: .
sources:
  - {reader: super_natural_instructions, path: upstream}
plan:
  held_out: {categories: [Word Analogy]}
"""


@dataclass(frozen=True)
class Point:
    """Sizes of one catalogue."""

    train_mb: float
    evaluation_mb: float
    num_tasks: int


def lines(large: bool, quick: bool) -> dict[str, list[Point]]:
    """Return the points of each line; what a line is named after grows along it."""
    train, evaluation, tasks = (20.0, 1.5, 200) if large else (1.5, 0.3, 40)
    factors = (0.5, 1) if quick else (0.5, 1, 2, 4, 8) if large else (0.25, 0.5, 1, 2)
    return {
        "train_mb": [Point(train * f, evaluation, tasks) for f in factors],
        "evaluation_mb": [Point(train, evaluation * f, tasks) for f in factors],
        "num_tasks": [Point(train, evaluation, int(tasks * f)) for f in factors],
    }


def make_catalogue(folder: Path, point: Point, train: Documents, evaluation: Documents) -> None:
    """Write the task files, the recipe and the corpus file of a point."""
    tasks = folder / "upstream" / "tasks"
    tasks.mkdir(parents=True)
    num_evaluation = max(1, round(0.12 * point.num_tasks))
    made = (
        ("Question Answering", train.thinned(1e6 * point.train_mb), point.num_tasks - num_evaluation),
        ("Word Analogy", evaluation.thinned(1e6 * point.evaluation_mb), num_evaluation),
    )
    number = 0
    for category, side, num_tasks in made:
        bounds = np.linspace(0, len(side.texts), num_tasks + 1).astype(int)
        for first, last in pairwise(bounds.tolist()):
            number += 1
            write_task(tasks / f"task{number:04d}_made.json", category, side.texts[first:last])
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    for (_, side, _), path in zip(made, files(folder)):
        write(path, row_groups(side))


def files(folder: Path) -> tuple[Path, Path]:
    """Return the files of the train and of the evaluation side."""
    return folder / "train.parquet", folder / "evaluation.parquet"


def write_task(path: Path, category: str, texts: list[str]) -> None:
    """Write one task file in upstream's layout; each text is an instance."""
    task = {
        "Definition": ["Say whether the text is in order."],
        "Categories": [category],
        "Source": [path.stem],
        "Positive Examples": [],
        "Negative Examples": [],
        "Instances": [{"id": f"{path.stem}-{i}", "input": t, "output": ["yes"]} for i, t in enumerate(texts)],
    }
    path.write_text(json.dumps(task, ensure_ascii=False), encoding="utf-8")


def measure(point: Point, train: Documents, evaluation: Documents) -> dict[str, float]:
    """Return the seconds and megabytes of the stage and of the index alone, and the pairs found."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_catalogue(folder, point, train, evaluation)
        recipe, run = folder / "recipe.yaml", folder / "run"
        options = [str(recipe), "--run", str(run), "--workers", str(WORKERS), "--quiet"]
        run_with_memory([sys.executable, "-m", "taskmill", "curate", *options])
        seconds, peak = run_with_memory([sys.executable, "-m", "taskmill", "overlap", *options])
        index = sample([sys.executable, __file__, "--child", *map(str, files(folder))])
        pairs = pq.read_table(run / "overlaps" / "pairs.parquet", columns=["num_hit"])
        found = {
            "train_mb": train.thinned(1e6 * point.train_mb).num_bytes / 1e6,
            "evaluation_mb": evaluation.thinned(1e6 * point.evaluation_mb).num_bytes / 1e6,
            "num_tasks": point.num_tasks,
            "stage_seconds": seconds,
            "stage_mb": peak,
            "index_seconds": index["seconds"],
            "index_mb": index["peak_mb"],
            "pairs": int(np.count_nonzero(pairs["num_hit"].to_numpy())),
        }
    return {key: round(value, 2) for key, value in found.items()}


def child(train: Path, evaluation: Path) -> None:
    """Index and stream one corpus; print seconds and peak memory."""
    import time

    run = contenders.ours_stream(Corpus(train, evaluation), WORKERS)
    started = time.perf_counter()
    run()
    result = {"seconds": time.perf_counter() - started, "peak_mb": peak_megabytes()}
    sys.stdout.write(json.dumps(result) + "\n")


def draw(folder: Path, measured: dict[str, list[dict[str, float]]]) -> None:
    """Draw one chart for each line: seconds and memory side by side."""
    names = {"train_mb": "train text, MB", "evaluation_mb": "evaluation text, MB", "num_tasks": "tasks"}
    for grown, points in measured.items():
        panels = [
            Panel(
                title,
                {
                    name: [(point[grown], point[f"{kind}_{unit}"]) for point in points]
                    for kind, name in (("stage", "overlap stage"), ("index", "index alone"))
                },
            )
            for title, unit in (("seconds", "seconds"), ("peak memory, MB", "mb"))
        ]
        write_chart(folder / f"overlap-{grown.replace('_', '-')}.svg", names[grown], panels)


def growth_table(measured: dict[str, list[dict[str, float]]]) -> list[str]:
    """Return every point as a row of Markdown."""
    heads = [
        "train text, MB",
        "evaluation text, MB",
        "tasks",
        "pairs that share text",
        "stage, s",
        "stage, MB",
    ]
    keys = ("train_mb", "evaluation_mb", "num_tasks", "pairs", "stage_seconds", "stage_mb")
    shown = {"stage_mb": ",.0f", "index_mb": ",.0f", "num_tasks": ",", "pairs": ","}
    rows = [
        [format(point[key], shown.get(key, ".1f")) for key in (*keys, "index_seconds", "index_mb")]
        for points in measured.values()
        for point in points
    ]
    return table([*heads, "index alone, s", "index alone, MB"], rows)


def main() -> int:
    """Measure every point, print figures and ratios, draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two points a line, of the demo's text")
    parser.add_argument("--data", type=Path, help="folder of real upstream files")
    parser.add_argument("--work", type=Path, help="folder that keeps the text")
    parser.add_argument(
        "--docs", type=Path, help="draw the charts and fill the table of performance.md there"
    )
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--child", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return 0
    large = arguments.data is not None and not arguments.quick
    with tempfile.TemporaryDirectory() as name:
        text = corpus(arguments.work or Path(name), arguments.data, 200 if large else 5)
        train, evaluation = read(text.train), read(text.evaluation)
    wanted = lines(large, arguments.quick)
    found: dict[Point, dict[str, float]] = {}
    for point in (point for points in wanted.values() for point in points):
        if point not in found:
            found[point] = measure(point, train, evaluation)
            sys.stderr.write(f"{found[point]}\n")
    measured = {grown: [found[point] for point in points] for grown, points in wanted.items()}
    if arguments.docs:
        draw(arguments.docs / "plots", measured)
        fill(arguments.docs / "performance.md", "growth", growth_table(measured))
    result = summary(measured)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def summary(measured: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return ratios, figures and versions."""
    ratios = {}
    for grown, points in measured.items():
        growth = points[-1][grown] / points[0][grown]
        ratios[f"{grown}_over_seconds"] = round(
            growth / (points[-1]["stage_seconds"] / points[0]["stage_seconds"]), 2
        )
    found = max(point["pairs"] for points in measured.values() for point in points)
    figures: dict[str, Any] = {"found": found, **measured}
    return {"ratios": ratios, "figures": figures, "versions": versions("numpy", "numba", "pyarrow")}


if __name__ == "__main__":
    raise SystemExit(main())
