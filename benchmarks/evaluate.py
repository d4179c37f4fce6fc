"""Answering test prompts: ours beside the Hugging Face backend of lm-evaluation-harness, at equal log-likelihoods.

    python benchmarks/evaluate.py [--quick] [--data PATH] [--device cpu|cuda] [--threads N] [--rounds N] [--json OUT]

Each contender gets the same Llama with the same weights and the same questions as text, and tokenises, batches and answers them:
`options` (five of 4 to 12 tokens behind prompts of 150 to 300; with `--data`, the folder of real upstream files, MMLU's four
behind its questions), `shots` (the same behind two demonstrations that the questions of a task share), `letters` (the options
listed in the prompt, answered by A, B, C ...) and `generate` (greedy, until the end of sequence or 64 new tokens).

`rank_speed_over_lm_eval` is our questions per second over theirs on `options`; `.._shots`, `.._letters` and
`generate_speed_over_lm_eval` are the same on the others, `.._cpu` in processor time of all threads, and
`rank_speed_over_rows` ours over our own with one row per option. Contenders take turns in fresh processes of one process
tree, three rounds (one with `--quick`, which has a smaller model and fewer questions). Batches are fair in that every
contender has the same numbers of rows per forward pass to choose from, and the fastest counts for each kind of question;
a row is a question with all its options for us and one option for them, and `..peak_mb` says what memory that took.

All contenders must give our log-likelihoods to 1e-3 nats for every option of every question, and nine in ten of our texts, where
rounding can tip the scale; `.._equal` counts the questions. In bf16, on a GPU, it is half of the options chosen, since the
harness rounds its log-likelihoods to 16 bits, and texts are only counted. Contenders that are not installed are left out, and
the figures say so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from evaluate_data import items_of, write_tokenizer
from measuring import ROOT, has_gpu, llama_shape, sample, versions

SCRIPT = Path(__file__).with_name("evaluate_contenders.py")
EQUAL = 1e-3  # nats
# share of the answers that must be equal: rounding tips the scale for a text, and in 16 bits for the choice of a letter
ENOUGH = {("rank", "fp32"): 1.0, ("generate", "fp32"): 0.9, ("rank", "bf16"): 0.5, ("generate", "bf16"): 0.0}
KINDS = {"options": "rank", "shots": "rank", "letters": "rank", "generate": "generate"}
Sample = dict[str, Any]


def job_of(device: str, quick: bool, threads: int | None, data: Path | None) -> Sample:
    """Return what every contender of this device is told."""
    job: Sample = {
        "device": device,
        "precision": "fp32",
        "threads": threads,
        "context": 1024,
        "new_tokens": 64,
    }
    job["data"] = None if data is None else str(data.resolve())
    if device == "cuda":
        job |= {"precision": "bf16", "questions": 512, "generated": 128, "batch_sizes": [32, 128]}
        return job | {"vocabulary": 8000, "shape": llama_shape(32000, 2048, 24, 32, 5504)}
    if quick:
        job |= {"questions": 16, "generated": 4, "new_tokens": 16, "batch_sizes": [8]}
        job["threads"] = threads or 1
        return job | {"vocabulary": 2000, "shape": llama_shape(4000, 128, 2, 2, 344)}
    job |= {"questions": 32, "generated": 8, "batch_sizes": [4, 16]}
    return job | {"vocabulary": 8000, "shape": llama_shape(16000, 512, 6, 8, 1376)}


def measured(job: Sample, rounds: int) -> dict[tuple[str, int], list[Sample]]:
    """Return the samples of every contender with each number of rows."""
    names = ["ours", "lm_eval"] if importlib.util.find_spec("lm_eval") else ["ours"]
    turns = [(name, size) for size in job["batch_sizes"] for name in names] + [
        ("rows", job["batch_sizes"][-1])
    ]
    found: dict[tuple[str, int], list[Sample]] = {}
    settings = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), items_of(job), job["vocabulary"])
        path = Path(folder) / "job.json"
        for _ in range(rounds):
            for name, size in turns:
                told = {**job, "batch_size": size, "tokenizer": f"{folder}/tokenizer"}
                path.write_text(json.dumps(told), encoding="utf-8")
                got = sample([sys.executable, str(SCRIPT), name, str(path)], settings)
                found.setdefault((name, size), []).append(got)
                times = ", ".join(f"{kind} {got[kind]['seconds']:.2f} s" for kind in KINDS if kind in got)
                sys.stderr.write(f"{name}, {size} rows: {times}\n")
    return found


def check(job: Sample, found: dict[tuple[str, int], list[Sample]]) -> dict[str, Any]:
    """Return how many answers of all contenders are equal to ours; raises SystemExit where too few are."""
    ours = found["ours", job["batch_sizes"][0]][0]
    figures: dict[str, Any] = {}
    for kind, verb in KINDS.items():
        right = equal = len(ours[kind]["answers"])
        worst = 0.0
        for (name, size), samples in found.items():
            for other in (one[kind]["answers"] for one in samples if kind in one):
                number, most = _alike(ours[kind]["answers"], other, verb, job["precision"])
                if number < ENOUGH[verb, job["precision"]] * right:
                    raise SystemExit(f"{name}, {size} rows, {kind}: only {number} of {right} are as ours")
                equal, worst = min(equal, number), max(worst, most)
        figures |= {f"{kind}_asked": right, f"{kind}_equal": equal}
        if verb == "rank":
            figures[f"{kind}_largest_difference"] = worst
    return figures


def _alike(ours: list[Any], theirs: list[Any], verb: str, precision: str) -> tuple[int, float]:
    """Return how many questions have equal answers, and the largest difference of log-likelihoods."""
    pairs = list(zip(ours, theirs, strict=True))
    if verb == "generate":
        return sum(mine == other for mine, other in pairs), 0.0
    most = [max(abs(a - b) for a, b in zip(mine, other, strict=True)) for mine, other in pairs]
    if precision == "fp32":
        return sum(value <= EQUAL for value in most), max(most)
    return sum(mine.index(max(mine)) == other.index(max(other)) for mine, other in pairs), max(most)


def summed(job: Sample, found: dict[tuple[str, int], list[Sample]]) -> dict[str, Any]:
    """Return ratios and figures."""

    def fastest(name: str, kind: str, key: str) -> float:
        return min(
            statistics.median(one[kind][key] for one in samples)
            for (who, _), samples in found.items()
            if who == name
        )

    figures: dict[str, Any] = check(job, found)
    figures["found"] = sum(figures[f"{kind}_equal"] for kind in KINDS)
    figures |= {
        key: job[key] for key in ("device", "precision", "context", "new_tokens", "batch_sizes", "questions")
    }
    figures |= {"d_model": job["shape"]["hidden_size"], "layers": job["shape"]["num_hidden_layers"]}
    figures |= {"vocabulary": job["shape"]["vocab_size"], "prompts": "MMLU" if job["data"] else "made"}
    figures["threads"] = found["ours", job["batch_sizes"][0]][0]["threads"]
    for (name, size), samples in found.items():
        figures[f"{name}_{size}_rows_peak_mb"] = round(statistics.median(one["peak_mb"] for one in samples))
        for kind in KINDS:
            if kind in samples[0]:
                seconds = statistics.median(one[kind]["seconds"] for one in samples)
                rate = len(samples[0][kind]["answers"]) / seconds
                figures[f"{name}_{size}_rows_{kind}_per_second"] = round(rate, 3)
    ratios = {}
    for ending, key in (("", "seconds"), ("_cpu", "cpu_seconds")):
        rows = fastest("rows", "options", key) / fastest("ours", "options", key)
        ratios[f"rank_speed_over_rows{ending}"] = rows
        for kind, verb in KINDS.items():
            if any(name == "lm_eval" for name, _ in found):
                name = "" if kind in ("options", "generate") else f"_{kind}"
                ratio = fastest("lm_eval", kind, key) / fastest("ours", kind, key)
                ratios[f"{verb}_speed_over_lm_eval{name}{ending}"] = ratio
    if not any(name == "lm_eval" for name, _ in found):
        figures["lm_eval"] = "not installed"
    return {"ratios": {name: round(value, 3) for name, value in ratios.items()}, "figures": figures}


def main() -> int:
    """Run all contenders in turn, print figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller model, few questions, one round")
    parser.add_argument("--data", type=Path, help="folder of real upstream files")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--rounds", type=int, help="turns of each contender")
    parser.add_argument("--threads", type=int, help="of each contender, instead of torch's choice")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not has_gpu():
        parser.error("--device cuda: torch sees no GPU here; --device cpu does without one")
    sys.path.insert(0, str(ROOT))
    job = job_of(arguments.device, arguments.quick, arguments.threads, arguments.data)
    result = summed(job, measured(job, arguments.rounds or (1 if arguments.quick else 3)))
    result["versions"] = versions("torch", "transformers", "lm_eval", "tokenizers", "numpy")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
