"""Rendering: our stage beside a bare Jinja loop and beside PromptSource's own engine, per core; and what it holds in memory.

    python benchmarks/render.py [--quick] [--data PATH] [--recipe RECIPE] [--run RUN] [--promptsource PATH] [--json OUT]

The bare loop reads the examples' Parquet files, decodes each example's JSON with the standard library (`fast_bare`: with
orjson), renders a compiled template in a plain environment for every pair of example and template that our stage kept, and
writes the texts to one Parquet file with zstd: no ranks, ids, segments, demonstrations, sandbox, references, digests,
checksums or order. So that both write the same texts, the library's templates, which show an example's input, have
instruction and answer around them there; `bare_bodies` is the loop for the input alone. `ours_over_bare_jinja_speed` is
processor time of the loop over processor time of our stage, of all threads, one process each, imports left out.

`speed_over_promptsource` sets PromptSource's `Template.apply`, which parses the template for every example, beside our
renderer: every PromptSource template of every example with a prompt; ours compiles within its time, and both decode the
example's JSON. `stage_over_promptsource` is our whole stage on the tasks with PromptSource templates beside that engine,
`.._on_all` our whole stage on everything beside it, given the texts of the bare loop. PATH is a clone of
bigscience-workshop/promptsource, whose `promptsource/templates.py` is loaded by path; without it a stand-in that parses
for every example does its work, in plain Jinja, and the figures say so.

The data are an invented run, or, with `--data`, a folder of real upstream files, of which the recipe's tasks are curated and
split first, or `--run`, a run that is finished up to split. Contenders take turns, three rounds (one with `--quick`); the
medians count. Memory: peak of a process that renders one task of 30,000 examples (10,000), and of ten times as many.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import ROOT, sample, versions

SCRIPT = Path(__file__).with_name("render_contenders.py")
OTHERS = ("bare", "fast_bare", "bare_bodies", "ours_engine")
Sample = dict[str, Any]


def contender(name: str, run: Path, out: Path, *rest: str) -> Sample:
    """Run a contender in a fresh process."""
    return sample([sys.executable, str(SCRIPT), name, str(run), str(out), *rest])


def prepared(folder: Path, data: Path | None, recipe: Path, quick: bool) -> Path:
    """Return a run that is finished up to split."""
    run = folder / "run"
    if data is None:
        from render_data import write_run

        scale = 1 if quick else 8
        write_run(run, 6000 * scale, 3000 * scale, 1500 * scale)
        return run
    settings = ["--set", f"data_root={data.resolve()}", "--run", str(run), "--quiet"]
    for stage in ("curate", "overlap", "split"):
        subprocess.run(
            [sys.executable, "-m", "taskmill", stage, str(recipe), *settings],
            check=True,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
    return run


def measured(run: Path, folder: Path, clone: Path | None, quick: bool) -> dict[str, list[Sample]]:
    """Return the samples of every contender."""
    found: dict[str, list[Sample]] = {}
    for turn in range(1 if quick else 3):
        out = folder / f"out-{turn}"
        out.mkdir()
        prompts = out / "prompts"
        steps = [("ours", out, []), *((name, prompts, []) for name in OTHERS)]
        for name in ("promptsource", "promptsource_all"):
            steps.append((name, prompts, [str(clone or ""), "200" if quick else "2000"]))
        for name, place, rest in steps:
            found.setdefault(name, []).append(contender(name, run, place, *rest))
    return found


def memory(folder: Path, number: int) -> tuple[float, float]:
    """Return the peak megabytes of rendering one task of `number` examples, and one of ten times as many."""
    from render_data import write_run

    peaks = []
    for size in (number, 10 * number):
        run, out = folder / f"memory-{size}", folder / f"memory-{size}-out"
        write_run(run, 0, 0, size)
        out.mkdir()
        peaks.append(contender("ours", run, out)["peak_mb"])
    return peaks[0], peaks[1]


def main() -> int:
    """Run all contenders in turn, print figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small invented run and one round")
    parser.add_argument("--data", type=Path, help="folder of real upstream files")
    parser.add_argument("--recipe", type=Path, default=ROOT / "examples" / "recipes" / "catalogue.yaml")
    parser.add_argument("--run", type=Path, help="a run that is finished up to split, instead of --data")
    parser.add_argument("--promptsource", type=Path, help="a clone of bigscience-workshop/promptsource")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = arguments.run or prepared(folder, arguments.data, arguments.recipe.resolve(), arguments.quick)
        clone = arguments.promptsource.resolve() if arguments.promptsource else None
        samples = measured(run.resolve(), folder, clone, arguments.quick)
        peak, peak_of_ten = memory(folder, 10_000 if arguments.quick else 30_000)

    def median(contender: str, key: str) -> float:
        return statistics.median(sample[key] for sample in samples[contender])

    if median("ours", "prompts") != median("bare", "prompts"):
        sys.stderr.write(f"the numbers of prompts differ: {samples}\n")
        return 1
    per_prompt = {name: median(name, "seconds") / median(name, "prompts") for name in samples}
    on_templates = median("ours", "template_seconds") / median("ours", "template_prompts")
    result = {
        "ratios": {
            "ours_over_bare_jinja_speed": round(per_prompt["bare"] / per_prompt["ours"], 3),
            "ours_over_fast_bare_jinja_speed": round(per_prompt["fast_bare"] / per_prompt["ours"], 3),
            "speed_over_promptsource": round(per_prompt["promptsource"] / per_prompt["ours_engine"], 1),
            "stage_over_promptsource": round(per_prompt["promptsource"] / on_templates, 1),
            "stage_over_promptsource_on_all": round(per_prompt["promptsource_all"] / per_prompt["ours"], 1),
            "memory_of_ten_times_the_input": round(peak / peak_of_ten, 3),
        },
        "figures": {
            "found": int(median("ours", "prompts")),
            "prompts_of_promptsource_templates": int(median("ours", "template_prompts")),
            "ours_on_promptsource_templates_microseconds": round(on_templates * 1e6, 1),
            **{f"{name}_microseconds": round(value * 1e6, 1) for name, value in per_prompt.items()},
            **{f"{name}_seconds": round(median(name, "seconds"), 2) for name in samples},
            "promptsource_engine": "clone" if clone else "stand-in",
            "peak_mb": round(peak),
            "peak_mb_of_ten_times_the_input": round(peak_of_ten),
        },
        "versions": versions("numpy", "pyarrow", "jinja2", "orjson"),
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
