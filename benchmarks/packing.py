"""Packing: our best-fit packer beside TRL's `pack_dataset` with its strategy bfd, both with the packed table made.

    python benchmarks/packing.py [--quick] [--page FILE] [--json OUT]

200,000 documents (`--quick`: 20,000) of a lognormal of sigma 1 with a mean of 246 tokens, cut at 2,048, in a shuffled
order; a quarter of the tokens of each, its last ones, are trained. Packs hold 2,048 tokens. Ours is given token arrays as
a run stores them, and returns an Arrow table of ids, labels and document lengths; TRL is given a dataset in memory with
ids and labels. Both pack windows of 1,000 documents, TRL's default, and then all documents at once.

The contenders take turns, three rounds (one with `--quick`), each in a fresh process, of which each takes the median of
three calls after a small one; imports and loading machine code are left out. Seconds are processor time of all threads, so
that waiting for other processes does not count; `wall` is by the clock. `compiled` is ours with numba's packer loaded,
which `pack` itself takes from 3 million documents on. Ratios are of medians, and above 1 where we are ahead.

Every pack is checked: none is over 2,048 tokens, no token is lost, and both tables hold the same documents, each whole and
with its labels. `budget` is our packer with a token budget: 131,072 tokens an update over 8 ranks (`uneven`: the longest pack of
an update over the mean, less 1; `uneven_work`: the same of the ranks' shares of work; of all updates but the last).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from measuring import Sample, fill, median, sample, table, versions
from numpy.typing import NDArray

CAPACITY, WINDOW, MEAN, VOCABULARY = 2048, 1000, 246, 32_000
RANKS, BUDGET = 8, 64 * CAPACITY
CALLS = 3
MEANING = {
    "speed_over_trl_bfd": "TRL, windows of 1,000; over ours",
    "speed_over_trl_bfd_whole": "TRL, all documents at once; over ours",
    "compiled_speed_over_trl_bfd": "TRL, windows of 1,000; over ours with numba's packer",
    "fill_over_trl_bfd": "our share of tokens in packs of windows of 1,000; over TRL's",
    "fill_over_trl_bfd_whole": "the same, all documents at once",
    "python_over_compiled": "ours; over ours with numba's packer",
}


# ------------------------------------------------------------------------------------------ the data


class Documents:
    """Documents with lengths of real shape: token arrays as a run stores them."""

    def __init__(self, number: int) -> None:
        from scipy.special import ndtri

        from taskmill.seeding import permute

        normal = np.exp(ndtri((np.arange(number) + 0.5) / number))
        scale = float(MEAN)
        for _ in range(50):  # until the mean is as wanted after rounding and cutting
            lengths = np.clip(np.rint(normal * scale), 1, CAPACITY).astype(np.int64)
            scale *= MEAN / lengths.mean()
        self.lengths = lengths[permute(7, np.arange(number, dtype=np.int64), number)]
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        total = int(self.offsets[-1])
        mixed = np.arange(total, dtype=np.uint32) * np.uint32(2_654_435_761)
        self.ids = (mixed >> np.uint32(17)).astype(np.uint16) % np.uint16(VOCABULARY)
        within = np.arange(total) - np.repeat(self.offsets[:-1], self.lengths)
        untrained = np.maximum(self.lengths - self.lengths // 4, 1)
        self.trained = (within >= np.repeat(untrained, self.lengths)).astype(np.uint8)
        self.loss_weight = np.ones(number, dtype=np.float32)
        self.order = np.arange(number, dtype=np.int64)

    def table(self) -> pa.Table:
        """Return ids and labels as TRL takes them."""
        ids = self.ids.astype(np.int32)
        labels = np.where(self.trained, ids, np.int32(-100))
        offsets = pa.array(self.offsets.astype(np.int32))
        return pa.table(
            {n: pa.ListArray.from_arrays(offsets, v) for n, v in (("input_ids", ids), ("labels", labels))}
        )


# ----------------------------------------------------------------------------------------- one child


def ours(documents: Documents, window: int) -> Callable[[], pa.Table]:
    """Return what packs with our packer."""
    from taskmill.training.packing.packs import pack
    from taskmill.training.packing.table import pack_table

    return lambda: pack_table(documents, pack(documents.lengths, CAPACITY, window, seed=7))


def trl(documents: Documents, window: int) -> Callable[[], pa.Table]:
    """Return what packs with TRL's packer."""
    import datasets
    from trl.data_utils import pack_dataset

    datasets.disable_progress_bars()
    rows = datasets.Dataset(documents.table())
    settings = None if window == WINDOW else {"batch_size": window}
    return lambda: pack_dataset(rows, CAPACITY, strategy="bfd", map_kwargs=settings).data.table


def child(name: str, number: int) -> None:
    """Run a contender; print its seconds and fill for each window, and what its tables hold."""
    from taskmill.training.packing import packs as packing

    documents, small = Documents(number), Documents(2 * WINDOW)
    if name == "budget":
        return say(budget(documents))
    if name == "compiled":
        packing._COMPILE_FROM = 0
        packing.load_compiled()
    make = trl if name == "trl" else ours
    line: dict[str, Any] = {"tokens": int(documents.offsets[-1]), "documents": number}
    for label, window in (("", WINDOW), ("_whole", number)):
        make(small, window)()
        call, seconds, wall = make(documents, window), [], []
        for _ in range(CALLS):
            started, wall_started = time.process_time(), time.perf_counter()
            packed = call()
            seconds.append(time.process_time() - started)
            wall.append(time.perf_counter() - wall_started)
        line[f"seconds{label}"], line[f"wall{label}"] = statistics.median(seconds), statistics.median(wall)
        line[f"packs{label}"], line[f"digest{label}"] = packed.num_rows, digest(packed)
        line[f"fill{label}"] = line["tokens"] / (packed.num_rows * CAPACITY)
    return say(line)


def say(line: dict[str, Any]) -> None:
    """Print a contender's line."""
    sys.stdout.write(json.dumps(line) + "\n")


def digest(packed: pa.Table) -> list[int]:
    """Return sums that two tables share when they hold the same documents with the same labels, in any order.

    Raises SystemExit where a pack is too long, or its documents do not fill it.
    """
    columns = {name: packed[name].combine_chunks() for name in ("input_ids", "labels", "seq_lengths")}
    sizes = np.diff(columns["input_ids"].offsets.to_numpy())
    lengths = columns["seq_lengths"].flatten().to_numpy().astype(np.int64)
    counts = np.concatenate([[0], np.cumsum(lengths)])[columns["seq_lengths"].offsets.to_numpy()]
    if sizes.max() > CAPACITY or not np.array_equal(np.diff(counts), sizes):
        raise SystemExit("a pack is too long, or its documents do not fill it")
    starts = np.cumsum(lengths) - lengths
    place = np.arange(int(lengths.sum()), dtype=np.uint64) - np.repeat(starts, lengths).astype(np.uint64)
    hashes = mixed(lengths.astype(np.uint64))
    for name in ("input_ids", "labels"):
        values = columns[name].flatten().to_numpy().astype(np.uint64)  # -100 wraps around, for both alike
        hashes = mixed(hashes + np.add.reduceat(mixed(values * np.uint64(CAPACITY) + place), starts))
    return [len(lengths), int(lengths.sum()), int(hashes.sum()), int(np.bitwise_xor.reduce(hashes))]


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a hash of each value (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def budget(documents: Documents) -> dict[str, Any]:
    """Return how much of a token budget our packer uses, and how even its packs and the ranks' shares of work are."""
    from taskmill.recipe import Train
    from taskmill.training.packing.packs import pack
    from taskmill.training.packing.steps import make_steps

    started = time.process_time()
    packs = pack(documents.lengths, CAPACITY, WINDOW, seed=7, budget=BUDGET, ranks=RANKS)
    seconds = time.process_time() - started
    steps = make_steps(packs, Train(batch_tokens=BUDGET, micro_batch_size=4), RANKS)
    num_tokens, work = packs.num_tokens, packs.work
    used, uneven, uneven_work = [], [], []
    for step in range(steps.num_steps - 1):
        tokens_P = num_tokens[steps.packs(step)]
        used.append(tokens_P.sum() / BUDGET)
        uneven.append(tokens_P.max() / tokens_P.mean() - 1)
        work_R = [sum(work[numbers].sum() for numbers in steps.micro_batches(step, r)) for r in range(RANKS)]
        uneven_work.append(np.max(work_R) / np.mean(work_R) - 1)
    means = {"used": used, "uneven": uneven, "uneven_work": uneven_work}
    figures = {name: float(np.mean(values)) for name, values in means.items()}
    return {"seconds": seconds, **figures, "most_uneven": float(max(uneven)), "updates": steps.num_steps}


# ------------------------------------------------------------------------------------------ measuring


def result(samples: dict[str, list[Sample]]) -> dict[str, Any]:
    """Return ratios, figures and versions.

    Raises SystemExit where a contender's table does not hold the documents of ours.
    """
    first = samples["ours"][0]
    for name, taken in samples.items():
        for key in ("digest", "digest_whole"):
            if name != "budget" and any(one[key] != first["digest"] for one in taken):
                raise SystemExit(
                    f"{name} holds other documents than ours: {taken[0][key]}, {first['digest']}"
                )
    if first["digest"][:2] != [first["documents"], first["tokens"]]:
        raise SystemExit(f"{first['digest'][:2]} documents and tokens are packed of {first}")
    found = {
        n: {k: median(t, k) for k in t[0] if k.startswith(("seconds", "wall"))} for n, t in samples.items()
    }
    ratios = {}
    if "compiled" in samples:
        ratios["python_over_compiled"] = found["ours"]["seconds"] / found["compiled"]["seconds"]
    for label in ("", "_whole") if "trl" in samples else ():
        peer = samples["trl"][0]
        ratios[f"speed_over_trl_bfd{label}"] = (
            found["trl"][f"seconds{label}"] / found["ours"][f"seconds{label}"]
        )
        ratios[f"fill_over_trl_bfd{label}"] = first[f"fill{label}"] / peer[f"fill{label}"]
    if "trl" in samples and "compiled" in samples:
        ratios["compiled_speed_over_trl_bfd"] = found["trl"]["seconds"] / found["compiled"]["seconds"]
    figures: dict[str, Any] = {
        "found": first["documents"],
        "tokens": first["tokens"],
        "cores": os.cpu_count(),
    }
    figures["least_packs"] = -(-first["tokens"] // CAPACITY)
    for name, taken in samples.items():
        kept = {
            k: v
            for k, v in taken[0].items()
            if k.startswith(("fill", "packs", "used", "uneven", "most_", "updates"))
        }
        seconds = {k: round(v, 3) for k, v in found[name].items()}
        figures[name] = {**seconds, **{k: round(v, 5) for k, v in kept.items()}, "samples": len(taken)}
    ordered = {name: round(ratios[name], 3) for name in MEANING if name in ratios}
    return {
        "ratios": ordered,
        "figures": figures,
        "versions": versions("numpy", "pyarrow", "numba", "trl", "datasets"),
    }


def tables(found: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return ratios and contenders as tables of Markdown."""
    ratios = [[f"`{name}`: {MEANING[name]}", f"{ratio:.3f}"] for name, ratio in found["ratios"].items()]
    rows = []
    for name in ("ours", "compiled", "trl"):
        for label, window in (("", "1,000"), ("_whole", "all")):
            if name in found["figures"]:
                one = found["figures"][name]
                numbers = f"{one[f'packs{label}']:,}", f"{100 * one[f'fill{label}']:.3f} %"
                rows.append([f"{name}, {window}", f"{one[f'seconds{label}']:.2f}", *numbers])
    heads = ["contender, documents of a window", "seconds", "packs", "filled"]
    return table(["ratio: what; over what", "measured"], ratios), table(heads, rows)


def main() -> int:
    """Run all contenders in turn, print figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="20,000 documents and one round")
    parser.add_argument("--page", type=Path, help="fill the tables of this page")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], int(arguments.child[1]))
        return 0
    names, number = ["ours", "compiled", "trl", "budget"], 20_000 if arguments.quick else 200_000
    for name, package in (("trl", "trl"), ("compiled", "numba")):
        if importlib.util.find_spec(package) is None:
            sys.stderr.write(f"{name} is skipped: {package} is not installed\n")
            names.remove(name)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        settings = {"HF_HUB_OFFLINE": "1", "HF_HOME": folder, "OMP_WAIT_POLICY": "PASSIVE"}
        for _ in range(1 if arguments.quick else 3):
            for name in names:
                samples[name].append(
                    sample([sys.executable, __file__, "--child", name, str(number)], settings)
                )
                last = samples[name][-1]
                sys.stderr.write(f"{name}: {last['seconds']:.3f} s, others {last['others']:.2f} cores\n")
    found = result(samples)
    if arguments.page:
        for name, lines in zip(("ratios", "figures"), tables(found)):
            fill(arguments.page, f"packing {name}", lines)
    text = json.dumps(found, indent=1)
    sys.stdout.write(text + "\n")
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
