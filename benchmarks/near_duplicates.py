"""Near-duplicates by MinHash: ours beside datasketch, rensa and daft, on the same text.

    python benchmarks/near_duplicates.py [--quick] [--data PATH] [--work FOLDER] [--page FILE] [--json OUT]

Every document is signed with 128 values of 13-word shingles and looked up in bands for a Jaccard similarity of 0.8
(`near_duplicates_contenders.py` says what each contender does, `corpus.py` which text). Ours also confirms every pair and
joins the pairs into clusters; daft only signs. The text is in memory before the clock starts, for datasketch as Python
strings, for the others as Arrow's; imports, machine code and the choice of bands are made ready before too. With `--data`,
the folder of real upstream files, on 20 and 200 MB; without it on 5 MB made from the demo. `--quick` is one round on those.

datasketch is measured on every so many-th document and compared per megabyte: its time grows with the text. It runs on one
core and is compared with ours on one; rensa and daft are compared with ours on all cores, which all three use. Each process
is held to the cores that its label names. The contenders take turns, each sample in a fresh process, three samples of each;
ratios are of medians, and above 1 where we are ahead. A peer that is not installed is skipped by name, with its ratio. Our
answers must be the same with any number of threads, and with numpy in the place of machine code.

`recall` is the share of the pairs of similarity 0.8 or more, found by comparing all documents of a sample with all, that
ours puts into one cluster; `recall_expected` is what the bands promise for these pairs, were none linked through a third
document. `estimate_error` is the root mean square error of 10,000 estimates of similarity, `theoretical_error` that of 128
independent draws.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import near_duplicates_contenders as contenders
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from corpus import Corpus, corpus
from measuring import CLEAN, Sample, fill, median, peak_megabytes, sample, table, versions

CORES = os.cpu_count() or 1
NUM_BLOCKS, BLOCK = 8, 750  # documents that are compared with all others of the sample: runs of neighbours
NUM_PAIRS = 10_000
MEANING = {
    "speed_over_datasketch_batch": "datasketch, `update_batch`, sha1, per MB; over ours on one thread",
    "speed_over_datasketch_best": "datasketch, xxh32 and shared permutations, per MB; over ours on one thread",
    "speed_over_rensa_flat": "rensa from our shingles, all cores; over ours on all cores",
    "speed_over_daft": "daft, signatures only, all cores; over ours on all cores",
    "two_cores_over_one": "ours on one thread; over ours on all cores",
}


@dataclass(frozen=True)
class Contest:
    """One contender on one corpus."""

    name: str
    megabytes: int
    threads: int = 1
    step: int = 1
    """Every so many-th document."""
    numba: bool = True

    @property
    def label(self) -> str:
        """Name in the figures."""
        return f"{self.name}{'' if self.numba else '_numpy'}_{self.megabytes}mb_{self.threads}t"


def contests(large: bool) -> list[Contest]:
    """Return what is measured, in the order of turns."""
    found = []
    for megabytes in (20, 200) if large else (5,):
        found += [Contest("ours", megabytes, threads) for threads in sorted({1, CORES})]
        found += [Contest(name, megabytes, CORES) for name in ("rensa_flat", "daft")]
    small, big = (20, 200) if large else (5, 5)
    found += [Contest(name, big, step=big // 2) for name in contenders.SLOW]
    found.append(Contest("ours", small, CORES, numba=False))
    return [c for c in found if installed(c.name)]


def installed(name: str) -> bool:
    """Say whether what a contender needs is installed."""
    return importlib.util.find_spec(contenders.NEEDS.get(name, "numpy")) is not None


# ------------------------------------------------------------------------------------------ one child


def read(found: Corpus, step: int = 1) -> pa.Array:
    """Return every `step`-th document of both sides of a corpus."""
    parts = [pq.read_table(path, columns=["text"])["text"] for path in (found.train, found.evaluation)]
    texts = pa.chunked_array([chunk for part in parts for chunk in part.chunks]).combine_chunks()
    return texts.take(pa.array(range(0, len(texts), step)))


def child(name: str, threads: int, step: int, found_in: Corpus) -> None:
    """Run one contender; print its seconds, the megabytes that it saw, and how many documents it found."""
    texts = read(found_in, step)
    best = banding()
    run = contenders.CONTENDERS[name](texts, best.bands, best.rows, threads)
    started, cpu_started = time.perf_counter(), time.process_time()
    found = run()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    megabytes = pc.sum(pc.binary_length(texts)).as_py() / 1e6
    line = {"seconds": seconds, "megabytes": megabytes, "found": found, "peak_mb": peak_megabytes()}
    sys.stdout.write(json.dumps({**line, "cpu_seconds": cpu_seconds, "documents": len(texts)}) + "\n")


def banding() -> Any:
    """Return the bands and rows of all contenders but rensa."""
    from taskmill import minhash

    return minhash.banding(contenders.THRESHOLD, contenders.NUM_PERM)


def quality(found_in: Corpus) -> None:
    """Compare every document of a sample with every other; print recall and the error of estimates."""
    from scipy.sparse import csr_array

    from taskmill import minhash
    from taskmill.normalisers import WORDS
    from taskmill.splits.sharing.near_duplicates import Method, collect, find_clusters
    from taskmill.text import word_hashes

    texts = read(found_in).to_pylist()
    starts = np.linspace(0, max(0, len(texts) - BLOCK), NUM_BLOCKS).astype(int)
    chosen = sorted({place for start in starts for place in range(start, min(start + BLOCK, len(texts)))})
    first, some = np.arange(len(chosen) + 1), [texts[place] for place in chosen]
    sets, indptr = minhash.shingles(*word_hashes(some), first, contenders.N)
    columns = np.unique(sets, return_inverse=True)[1]
    rows = csr_array((np.ones(len(sets), np.int32), columns, indptr))
    shared = (rows @ rows.T).tocoo()
    upper = shared.row < shared.col
    left, right, common = shared.row[upper], shared.col[upper], shared.data[upper]
    sizes = np.diff(indptr)
    true = common / (sizes[left] + sizes[right] - common)
    method = Method(contenders.N, WORDS, contenders.NUM_PERM, contenders.SEED, banding())
    clusters = find_clusters(collect([(some, first)], method), np.arange(len(some)), method.banding)
    alike = true >= contenders.THRESHOLD
    found = clusters[left[alike]] == clusters[right[alike]]
    promised = [method.banding.probability(value) for value in true[alike].tolist()]
    between = np.flatnonzero(true < 1)
    pairs = between[np.linspace(0, len(between) - 1, min(NUM_PAIRS, len(between))).astype(int)]
    signed = minhash.signatures(sets, indptr, contenders.NUM_PERM, contenders.SEED)
    errors = (signed[left[pairs]] == signed[right[pairs]]).mean(axis=1) - true[pairs]
    theory = np.sqrt(np.mean(true[pairs] * (1 - true[pairs]) / contenders.NUM_PERM))
    figures = {
        "recall": found.mean() if len(found) else 1.0,
        "recall_expected": np.mean(promised) if promised else 1.0,
        "pairs_alike": len(found),
        "pairs_estimated": len(pairs),
        "estimate_error": np.sqrt(np.mean(errors**2)),
        "theoretical_error": theory,
    }
    sys.stdout.write(json.dumps({name: round(float(value), 4) for name, value in figures.items()}) + "\n")


# ------------------------------------------------------------------------------------------ measuring


def measure(contest: Contest, found_in: Corpus) -> Sample:
    """Take one sample of a contest."""
    paths = str(found_in.train), str(found_in.evaluation)
    arguments = ["--child", contest.name, str(contest.threads), str(contest.step), *paths]
    environment = {name: str(contest.threads) for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS")}
    environment["TASKMILL_NO_NUMBA"] = "0" if contest.numba else "1"
    return sample([sys.executable, __file__, *arguments], {**environment, "DO_NOT_TRACK": "1"})


def check(samples: dict[Contest, list[Sample]]) -> int:
    """Return how many documents ours found on the smallest corpus.

    Raises SystemExit where ours found different numbers on one corpus.
    """
    mine = {c: taken[0]["found"] for c, taken in samples.items() if c.name == "ours"}
    for contest, found in mine.items():
        others = {c.label: f for c, f in mine.items() if c.megabytes == contest.megabytes and f != found}
        if others:
            raise SystemExit(f"{contest.label} found {found} documents, but {others}")
    return int(min(mine.values()))


def speeds(samples: dict[Contest, list[Sample]]) -> dict[Contest, float]:
    """Return the megabytes a second of each contest."""
    return {c: taken[0]["megabytes"] / median(taken, "seconds") for c, taken in samples.items()}


def ratios(speed: dict[Contest, float]) -> dict[str, float]:
    """Return the ratios of which both sides were measured, on the largest text that the peer ran on."""
    found: dict[str, float] = {}
    for contest, peer in sorted(speed.items(), key=lambda item: item[0].megabytes):
        ours = speed[Contest("ours", contest.megabytes, contest.threads)]
        if contest.name != "ours":
            found[f"speed_over_{contest.name}"] = round(ours / peer, 2)
        elif contest.threads > 1 and contest.numba:
            found["two_cores_over_one"] = round(peer / speed[replace(contest, threads=1)], 2)
    return {name: found[name] for name in MEANING if name in found}


def result(samples: dict[Contest, list[Sample]], sampled: Sample) -> dict[str, Any]:
    """Return the ratios, figures and versions."""
    speed = speeds(samples)
    figures: dict[str, Any] = {"found": check(samples), "cores": CORES}
    figures |= {name: value for name, value in sampled.items() if name not in ("process_seconds", "others")}
    for contest, taken in samples.items():
        figures[contest.label] = {
            "mb_per_s": round(speed[contest], 2),
            "seconds": round(median(taken, "seconds"), 3),
            "cpu_seconds": round(median(taken, "cpu_seconds"), 3),
            "megabytes": round(taken[0]["megabytes"], 1),
            "documents": taken[0]["documents"],
            "peak_mb": round(max(one["peak_mb"] for one in taken)),
            "found": taken[0]["found"],
            "samples": len(taken),
            "clean_samples": sum(one["others"] <= CLEAN for one in taken),
        }
    packages = ("numpy", "numba", "scipy", "datasketch", "xxhash", "rensa", "daft")
    return {"ratios": ratios(speed), "figures": figures, "versions": versions(*packages)}


def tables(found: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the ratios and the contests as tables of Markdown."""
    rows = [[f"`{name}`: {MEANING[name]}", f"{ratio:.2f}"] for name, ratio in found["ratios"].items()]
    keys = ("mb_per_s", "seconds", "megabytes", "documents", "found", "peak_mb", "clean_samples")
    contested = {label: figure for label, figure in found["figures"].items() if isinstance(figure, dict)}
    cells = [[f"`{label}`", *(str(figure[key]) for key in keys)] for label, figure in contested.items()]
    heads = [
        "contender, text, threads",
        "MB/s",
        "s",
        "MB",
        "documents",
        "found",
        "peak memory, MB",
        "clean samples",
    ]
    return table(["ratio: seconds of what; over seconds of what", "measured"], rows), table(heads, cells)


def run(data: Path | None, quick: bool, work: Path) -> dict[str, Any]:
    """Measure every contest in turns; return the result."""
    todo = contests(data is not None and not quick)
    for name in sorted(set(contenders.CONTENDERS) - {c.name for c in todo}):
        sys.stderr.write(f"{name} is skipped: {contenders.NEEDS[name]} is not installed\n")
    made = {megabytes: corpus(work, data, megabytes) for megabytes in sorted({c.megabytes for c in todo})}
    samples: dict[Contest, list[Sample]] = {c: [] for c in todo}
    for _ in range(1 if quick else 3):
        for contest in todo:
            samples[contest].append(measure(contest, made[contest.megabytes]))
            taken = samples[contest][-1]
            sys.stderr.write(
                f"{contest.label}: {taken['seconds']:.2f} s, others {taken['others']:.2f} cores\n"
            )
    whole = made[max(made)]
    sampled = sample([sys.executable, __file__, "--quality", str(whole.train), str(whole.evaluation)])
    return result(samples, sampled)


def main() -> int:
    """Run all contenders in turn, print figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="5 MB and one round")
    parser.add_argument("--data", type=Path, help="folder of real upstream files")
    parser.add_argument("--work", type=Path, help="folder that keeps the text")
    parser.add_argument("--page", type=Path, help="fill the tables of this page")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--quality", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, threads, step, *paths = arguments.child
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
        child(name, int(threads), int(step), Corpus(*map(Path, paths)))
        return 0
    if arguments.quality:
        quality(Corpus(*arguments.quality))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = run(arguments.data, arguments.quick, arguments.work or Path(folder))
    if arguments.page:
        for name, lines in zip(("ratios", "figures"), tables(found)):
            fill(arguments.page, f"near-duplicates {name}", lines)
    text = json.dumps(found, indent=1)
    sys.stdout.write(text + "\n")
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
