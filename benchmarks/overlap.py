"""Exact 13-gram overlap: our index beside lm-evaluation-harness, a Polars join and bare floors, on the same text.

    python benchmarks/overlap.py [--quick] [--samples N] [--data PATH] [--janitor FILE] [--work FOLDER]
        [--page FILE] [--json OUT]

Each contender says which train documents share a 13-gram with an evaluation document (`overlap_contenders.py` holds
them, `corpus.py` the text). With `--data`, the folder of real upstream files, on 20 and 200 MB, a first run on 1 to 200 MB
and a stream of 2 GB; without it on 5 MB made from the demo. `--quick` is one round on those 5 MB.

`--janitor` is the harness's scripts/clean_training_data/janitor_util.cpp: it is compiled with g++ and pybind11 into a
temporary folder. A peer that is not installed is skipped by name, with its ratios. `--work` keeps the text for the next
time; `--page` fills the tables of docs/performance.md.

The contenders take turns, each sample in a fresh process, three samples of each unless its figures say otherwise;
ratios are of medians, and above 1 where we are ahead. A sample is clean where other processes took no more than a tenth of
a core; where three are clean, the others are set aside. `cold` is a first pass in a process, `warm` a second. Answers that
should be equal must be: ours with each number of threads, streamed and by numpy, ours and the oracle, ours with the
harness's words and the harness's lookup.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import overlap_contenders as contenders
import pyarrow.compute as pc
from corpus import Corpus, corpus, long_stream, sides
from measuring import CLEAN, Sample, fill, median, peak_megabytes, sample, table, versions

CORES = os.cpu_count() or 1
SAMPLES = 3
FIRST_RUN = (1, 5, 20, 50, 100, 200)  # megabytes
FIRST_RUNNERS = ("ours", "polars", "polars_shifts")
FLOORS = ("tokenise", "tokenise_table", "read_and_touch")
TRUTH = {  # whose answer is right for whom
    "oracle": ("ours", "ours_numpy", "ours_stream", "polars", "polars_shifts"),
    "oracle_lm_eval": ("ours_lm_eval", "lm_eval_python", "lm_eval_clean", "lm_eval_cpp"),
}
MEANING = {
    "speed_over_lm_eval_python": "harness, lookup in Python, one process; over ours on one thread",
    "speed_over_lm_eval_python_same_words": "the same; over ours with the harness's words",
    "speed_over_lm_eval_clean": "harness, `clean_python`; over ours on one thread",
    "speed_over_lm_eval_cpp": "harness, n-grams in C++; over ours on one thread",
    "speed_over_lm_eval_cpp_same_words": "the same; over ours with the harness's words",
    "speed_over_polars": "Polars, the fastest expressions, all cores; over ours on all cores",
    "speed_over_polars_shifts": "Polars, 13 shifted columns, all cores; over ours on all cores",
    "two_cores_over_one": "ours on one thread; over ours on all cores",
    "two_cores_over_one_streaming": "ours from Parquet on one thread; over the same on all cores",
    "read_and_touch_over_ours_stream": "reading the Parquet file; over ours from Parquet, one thread",
    "tokenise_floor_over_ours": "counting words by comparisons; over ours warm, one thread",
    "tokenise_table_floor_over_ours": "counting words by a table, without branches; over ours warm, one thread",
    "first_run_over_polars": "a whole process of Polars; over ours with nothing compiled, at its worst size",
    "first_run_over_polars_shifts": "the same with 13 shifted columns",
}
EQUAL = ("ours", "ours_numpy", "ours_stream", "ours_lm_eval", "lm_eval_python")  # to the truth


@dataclass(frozen=True)
class Contest:
    """One contender on one corpus."""

    name: str
    megabytes: int
    threads: int = 1
    samples: int = SAMPLES
    whole: bool = False
    """Whether the process is timed from start to end, with nothing cached."""
    stream: int = 0
    """Megabytes of train text that are streamed past the evaluation side of `megabytes`."""

    @property
    def label(self) -> str:
        """Name in the figures."""
        kind = "first_run_" * self.whole
        return f"{kind}{self.name}_{self.stream or self.megabytes}mb_{self.threads}t"


def contests(large: bool, most: int) -> list[Contest]:
    """Return what is measured, in the order of turns, with at most so many samples of each."""
    small, big = (20, 200) if large else (5, 5)
    found = [
        *(Contest(name, small) for name in ("oracle", "oracle_lm_eval", "lm_eval_clean", "ours_numpy")),
        *(Contest(name, small) for name in ("ours", "ours_lm_eval", "lm_eval_python", "lm_eval_cpp")),
        *(Contest(name, small, CORES) for name in ("ours", "polars", "polars_shifts")),
    ]
    found = [
        replace(c, samples=1) if c.name in ("oracle", "oracle_lm_eval", "lm_eval_clean") else c for c in found
    ]
    one = ("ours", "ours_lm_eval", "lm_eval_python", *FLOORS, "ours_stream")
    all_cores = ("ours", "polars", "polars_shifts", "ours_stream")
    found += [Contest(name, big) for name in one] + [Contest(name, big, CORES) for name in all_cores]
    if large:
        found += [
            Contest("polars", big),
            Contest("ours_lm_eval", big, CORES),
            Contest("read_and_touch", big, CORES),
        ]
        found += [Contest(name, mb, CORES, whole=True) for mb in FIRST_RUN for name in FIRST_RUNNERS]
        found += [Contest("ours_stream", 200, threads, stream=2000) for threads in (1, CORES)]
    else:
        found += [Contest(name, 5, CORES, whole=True) for name in FIRST_RUNNERS]
    unique = {c.label: replace(c, samples=min(c.samples, most)) for c in found}
    return [c for c in unique.values() if contenders.installed(c.name.replace("_numpy", ""))]


# ------------------------------------------------------------------------------------------ one child


def child(name: str, text: Corpus, threads: int, answer: Path) -> None:
    """Run one contender twice; save its answer; print seconds of both passes, peak memory and its figures."""
    run = contenders.CONTENDERS[name](text, threads)
    seconds, processor = [], []
    for _ in range(2 if name in contenders.TWICE else 1):
        started, used = time.perf_counter(), time.process_time()
        found, figures = run()
        seconds.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    np.save(answer, found)
    times = {"seconds": seconds[0], "warm_seconds": seconds[-1], "processor_seconds": processor[0]}
    times["peak_mb"] = peak_megabytes()
    sys.stdout.write(json.dumps({**times, **figures}) + "\n")


def whole_child(name: str, text: Corpus, threads: int, answer: Path) -> None:
    """Do all that a single run does; the parent takes the time."""
    np.save(answer, contenders.whole_run(name, text, threads)[0])
    sys.stdout.write(json.dumps({"peak_mb": peak_megabytes()}) + "\n")


def measure(contest: Contest, work: Path, data: Path | None, folder: Path) -> Sample:
    """Take one sample of a contest."""
    text = corpus(work, data, contest.megabytes)
    if contest.stream:
        text = long_stream(work, data, contest.stream, contest.megabytes)
    answer = folder / f"{contest.label}.npy"
    kind = "whole" if contest.whole else "timed"
    name = contest.name.replace("_numpy", "")
    files = [str(text.train), str(text.evaluation), str(answer)]
    command = [sys.executable, __file__, "--child", kind, name, str(contest.threads), *files]
    environment = {"POLARS_MAX_THREADS": str(contest.threads), "JANITOR_UTIL": str(folder)}
    if contest.name == "ours_numpy":
        environment["TASKMILL_NO_NUMBA"] = "1"
    with tempfile.TemporaryDirectory() as empty:
        if contest.whole:
            environment["NUMBA_CACHE_DIR"] = environment["XDG_CACHE_HOME"] = empty
        taken = sample(command, environment)
    return {**taken, "seconds": taken["process_seconds"]} if contest.whole else taken


def compiled(janitor: Path | None, folder: Path) -> bool:
    """Compile the harness's C++ n-grams into `folder`; say whether they are there."""
    compiler = shutil.which("g++")
    if janitor is None or compiler is None or importlib.util.find_spec("pybind11") is None:
        return False
    import pybind11

    includes = [f"-I{path}" for path in (pybind11.get_include(), sysconfig.get_paths()["include"])]
    out = folder / f"janitor_util{sysconfig.get_config_var('EXT_SUFFIX')}"
    options = ["-O3", "-shared", "-std=c++17", "-fPIC", *includes]
    subprocess.run([compiler, *options, str(janitor), "-o", str(out)], check=True)
    return True


# ------------------------------------------------------------------------------------------ the result


def check(measured: list[Contest], folder: Path) -> dict[Contest, dict[str, float]]:
    """Compare every answer with the oracle's on the same text, or with ours where no oracle ran: recall and precision.

    Raises SystemExit where answers differ that should be equal.
    """
    answers = {c: np.load(folder / f"{c.label}.npy") for c in measured}
    figures: dict[Contest, dict[str, float]] = {}
    for contest, found in answers.items():
        truth = next((oracle for oracle, names in TRUTH.items() if contest.name in names), None)
        rivals = [(c, a) for c, a in answers.items() if truth and same_text(c, contest)]
        right = [a for c, a in rivals if c.name == truth] or [
            a for c, a in rivals if c.name == TRUTH[truth][0]
        ]
        if not right:
            continue
        common = len(np.intersect1d(found, right[0]))
        if contest.name in EQUAL and not np.array_equal(found, right[0]):
            raise SystemExit(
                f"{contest.label}: {len(found)} documents, {common} of the right {len(right[0])}"
            )
        recall, precision = common / max(1, len(right[0])), common / max(1, len(found))
        figures[contest] = {"found": len(found), "recall": round(recall, 4), "precision": round(precision, 4)}
    return figures


def same_text(one: Contest, other: Contest) -> bool:
    """Say whether two contests have the same sides."""
    return (one.megabytes, one.stream) == (other.megabytes, other.stream)


def result(samples: dict[Contest, list[Sample]], checked: dict[Contest, dict[str, float]]) -> dict[str, Any]:
    """Return the ratios, the figures of every contest and the versions."""
    seconds = {c.label: median(s, "seconds") for c, s in samples.items()}
    warm = {
        c.label: median(s, "warm_seconds")
        for c, s in samples.items()
        if c.name in contenders.TWICE and not c.whole
    }
    figures: dict[str, Any] = {}
    for contest, taken in samples.items():
        figure = {"seconds": round(seconds[contest.label], 3), "peak_mb": round(median(taken, "peak_mb"))}
        if contest.label in warm:
            figure["warm_seconds"] = round(warm[contest.label], 3)
        if "processor_seconds" in taken[0]:
            figure["processor_seconds"] = round(median(taken, "processor_seconds"), 3)
        if "documents_that_raise" in taken[0]:
            figure["documents_that_raise"] = taken[0]["documents_that_raise"]
        clean = sum(one["others"] <= CLEAN for one in taken)
        figures[contest.label] = {
            **figure,
            **checked.get(contest, {}),
            "samples": len(taken),
            "clean_samples": clean,
        }
    packages = ("numpy", "numba", "pyarrow", "polars", "lm_eval", "pybind11")
    return {"ratios": ratios(seconds, warm), "figures": figures, "versions": versions(*packages)}


def ratios(seconds: dict[str, float], warm: dict[str, float]) -> dict[str, float]:
    """Return the ratios of which both sides were measured."""
    small, big = (20, 200) if "ours_200mb_1t" in seconds else (5, 5)
    one, two = f"{big}mb_1t", f"{big}mb_{CORES}t"
    pairs = {
        "speed_over_lm_eval_python": (f"lm_eval_python_{one}", f"ours_{one}"),
        "speed_over_lm_eval_python_same_words": (f"lm_eval_python_{one}", f"ours_lm_eval_{one}"),
        "speed_over_lm_eval_clean": (f"lm_eval_clean_{small}mb_1t", f"ours_{small}mb_1t"),
        "speed_over_lm_eval_cpp": (f"lm_eval_cpp_{small}mb_1t", f"ours_{small}mb_1t"),
        "speed_over_lm_eval_cpp_same_words": (f"lm_eval_cpp_{small}mb_1t", f"ours_lm_eval_{small}mb_1t"),
        "speed_over_polars": (f"polars_{two}", f"ours_{two}"),
        "speed_over_polars_shifts": (f"polars_shifts_{two}", f"ours_{two}"),
        "two_cores_over_one": (f"ours_{one}", f"ours_{two}"),
        "two_cores_over_one_streaming": (f"ours_stream_{one}", f"ours_stream_{two}"),
        "read_and_touch_over_ours_stream": (f"read_and_touch_{one}", f"ours_stream_{one}"),
    }
    found = {name: seconds[a] / seconds[b] for name, (a, b) in pairs.items() if {a, b} <= seconds.keys()}
    for floor in ("tokenise", "tokenise_table"):
        if {f"{floor}_{one}", f"ours_{one}"} <= warm.keys():
            found[f"{floor}_floor_over_ours"] = warm[f"{floor}_{one}"] / warm[f"ours_{one}"]
    for peer in ("polars", "polars_shifts"):
        runs = [
            (label.replace("_ours_", f"_{peer}_"), label) for label in seconds if "first_run_ours" in label
        ]
        worst = [seconds[other] / seconds[own] for other, own in runs if other in seconds]
        if worst:
            found[f"first_run_over_{peer}"] = min(worst)
    return {name: round(ratio, 3) for name, ratio in found.items() if CORES > 1 or "two_cores" not in name}


def ratio_table(ratios: dict[str, float]) -> list[str]:
    """Return the ratios as rows of Markdown."""
    rows = [[f"`{name}`: {MEANING[name]}", f"{ratio:.2f}"] for name, ratio in ratios.items()]
    return table(["ratio: seconds of what; over seconds of what", "measured"], rows)


def text_line(figures: dict[str, Any]) -> str:
    """Return how much text was compared, in a sentence."""
    sides = [
        f"{figures[f'{s}_documents']:,} documents and {figures[f'{s}_mb']} MB"
        for s in ("train", "evaluation")
    ]
    return f"The train side has {sides[0]}, the evaluation side {sides[1]}; {figures['found']:,} train documents are found."


def figure_table(figures: dict[str, Any]) -> list[str]:
    """Return the contests as rows of Markdown."""
    keys = (
        "seconds",
        "warm_seconds",
        "processor_seconds",
        "peak_mb",
        "found",
        "recall",
        "precision",
        "samples",
        "clean_samples",
    )
    rows = [
        [f"`{label}`", *(format(figure[key], ",") if key in figure else "" for key in keys)]
        for label, figure in figures.items()
        if isinstance(figure, dict)
    ]
    heads = [
        "s",
        "warm, s",
        "processor, s",
        "peak memory, MB",
        "documents found",
        "recall",
        "precision",
        "samples",
        "clean",
    ]
    return table(["contender, text, threads", *heads], rows)


def run(arguments: argparse.Namespace, work: Path, folder: Path) -> dict[str, Any]:
    """Measure every contest in turns; return the result."""
    large = arguments.data is not None and not arguments.quick
    todo = [
        c
        for c in contests(large, 1 if arguments.quick else arguments.samples)
        if c.name != "lm_eval_cpp" or compiled(arguments.janitor, folder)
    ]
    skipped = {name for name in contenders.CONTENDERS if name not in {c.name for c in todo}}
    for name in sorted(skipped):
        sys.stderr.write(f"{name} is skipped: {contenders.NEEDS[name]} is not installed\n")
    samples: dict[Contest, list[Sample]] = {c: [] for c in todo}
    for turn in range(max(c.samples for c in todo)):
        for contest in (c for c in todo if turn < c.samples):
            samples[contest].append(measure(contest, work, arguments.data, folder))
            taken = samples[contest][-1]
            sys.stderr.write(
                f"{contest.label}: {taken['seconds']:.2f} s, others {taken['others']:.2f} cores\n"
            )
    found = result(samples, check(todo, folder))
    big = 200 if large else 5
    train, evaluation = sides(corpus(work, arguments.data, big))
    texts = {"train_documents": len(train), "evaluation_documents": len(evaluation)}
    size = {"train_mb": bytes_of(train), "evaluation_mb": bytes_of(evaluation), "cores": CORES}
    answer = {"found": found["figures"][f"ours_{big}mb_1t"]["found"]}
    return {**found, "figures": {**answer, **texts, **size, **found["figures"]}}


def bytes_of(texts: Any) -> float:
    """Return the megabytes of text in an Arrow array."""
    return round(pc.sum(pc.binary_length(texts)).as_py() / 1e6, 1)


def main() -> int:
    """Run all contenders in turn, print figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="5 MB and one round")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of each contender, at most")
    parser.add_argument("--data", type=Path, help="folder of real upstream files")
    parser.add_argument("--janitor", type=Path, help="janitor_util.cpp of lm-evaluation-harness")
    parser.add_argument("--work", type=Path, help="folder that keeps the text")
    parser.add_argument("--page", type=Path, help="fill the tables of this page")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, name, threads, train, evaluation, answer = arguments.child
        text = Corpus(Path(train), Path(evaluation))
        (whole_child if kind == "whole" else child)(name, text, int(threads), Path(answer))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = run(arguments, arguments.work or folder, folder)
    if arguments.page:
        fill(arguments.page, "overlap ratios", ratio_table(found["ratios"]))
        fill(arguments.page, "overlap text", [text_line(found["figures"])])
        fill(arguments.page, "overlap figures", figure_table(found["figures"]))
    printed = json.dumps(found, indent=1)
    sys.stdout.write(printed + "\n")
    if arguments.json:
        arguments.json.write_text(printed + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
