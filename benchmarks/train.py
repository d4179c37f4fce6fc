"""A training step: ours beside TRL's packed step and beside padding, at equal loss; its memory and its MFU.

    python benchmarks/train.py [--quick] [--device cpu|cuda] [--threads N] [--rounds N] [--json OUT]

Each contender trains the same Llama with the same weights on the same invented documents (lengths lognormal, mean 246, context
2,048, the last fifth of each carries loss), packed or padded in its own way, for so many updates of about as many
tokens, clipping and AdamW included; the first update is set aside. Speed is tokens of documents per second, padding not
counted. Contenders take turns in fresh processes of one process tree, three rounds (one with `--quick`, which has a smaller
model, a context of 1,024 and one thread); the medians count. `.._cpu` are the same ratios in processor time of all threads.

`speed_over_trl_packed` is our speed over that of the fastest setting of TRL's SFTTrainer, out of those whose batches keep
documents apart: a small model's logits for the first batch are compared with those of each document alone, and what
leaks is named and not timed. TRL's loss of the same documents must equal ours to 1e-4. Activation checkpointing, which TRL
turns on by default, is off for all, and TRL gets one row per pass, at which it is fastest on a CPU. `speed_over_padding` is
our speed over transformers alone with one document per row, padded to the longest of its forward pass. MFU is model FLOPs
per second over the rate of matrix products measured in our process; TRL's and padding's count the same FLOPs per token.

On a GPU the model is of the 1.3B class, in bf16, full and with LoRA (`lora_...`), each once; where MFU is below a half, the
longest kernels of an update are in `profile`. Contenders that are not installed are left out, and the figures say so.
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

from measuring import ROOT, has_gpu, llama_shape, sample, versions

SCRIPT = Path(__file__).with_name("train_contenders.py")
EQUAL_LOSS = 1e-4
PACKED, FREE = "packing, bfd, sdpa", "padding-free, sdpa"
Sample = dict[str, Any]


def job_of(device: str, quick: bool, threads: int | None) -> Sample:
    """Return what every contender of this device is told."""
    job: Sample = {"device": device, "method": "full", "context": 2048, "mean_length": 246, "check": False}
    job |= {"attention": "auto", "setting": PACKED, "trl_rows": 1, "precision": "fp32", "threads": threads}
    if device == "cuda":
        job |= {"precision": "bf16", "updates": 8, "batch_size": 32, "micro_batch_size": 8}
        return job | {"padded_rows": 16, "trl_rows": 8, "shape": llama_shape(32000, 2048, 24, 32, 5504)}
    if quick:
        job |= {"updates": 3, "batch_size": 2, "micro_batch_size": 2, "padded_rows": 4, "context": 1024}
        job["threads"] = threads or 1
        return job | {"shape": llama_shape(32000, 128, 2, 2, 384)}
    job |= {"updates": 4, "batch_size": 4, "micro_batch_size": 4, "padded_rows": 4}
    return job | {"shape": llama_shape(32000, 256, 4, 4, 688)}


def plan(job: Sample, quick: bool) -> list[tuple[str, str, Sample]]:
    """Return (name of the figures, contender, its job) in the order of their turns."""
    has_trl = all(importlib.util.find_spec(name) for name in ("trl", "datasets"))
    turns: list[tuple[str, str, Sample]] = [("ours", "ours", job)]
    turns += [("trl_packed", "trl", {**job, "check": True})] if has_trl else []
    turns += [("padding", "padded", job)]
    if job["device"] == "cuda":
        lora = {**job, "method": "lora"}
        turns += [("lora_ours", "ours", lora)] + [("lora_trl_packed", "trl", lora)] * has_trl
    elif not quick:
        turns += [("ours_with_a_mask", "ours", {**job, "attention": "sdpa"})]
        turns += [("trl_padding_free", "trl", {**job, "setting": FREE, "trl_rows": 8})] * has_trl
    return turns


def measured(job: Sample, quick: bool, rounds: int) -> dict[str, list[Sample]]:
    """Return the samples of every contender; the check of TRL's settings is part of its first turn."""
    found: dict[str, list[Sample]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        for turn in range(rounds):
            for name, contender, told in plan(job, quick):
                path.write_text(json.dumps({**told, "check": told["check"] and turn == 0}), encoding="utf-8")
                settings = {
                    "OMP_WAIT_POLICY": "PASSIVE",
                    "HF_HUB_OFFLINE": "1",
                    "TOKENIZERS_PARALLELISM": "false",
                }
                got = sample([sys.executable, str(SCRIPT), contender, str(path)], settings)
                found.setdefault(name, []).append(got)
                sys.stderr.write(f"{name}: {got['tokens_per_second']:.0f} tokens/s\n")
    return found


def check(found: dict[str, list[Sample]]) -> dict[str, Any]:
    """Return which of TRL's settings keep documents apart; raises SystemExit where none does or the loss is another."""
    if "trl_packed" not in found:
        return {"trl": "not installed"}
    first = found["trl_packed"][0]
    apart = {name: value <= 1e-4 for name, value in first["differences"].items()}
    if not apart[PACKED]:
        raise SystemExit(f"TRL's {PACKED} mixes documents: {first['differences']}")
    worst = max(first["loss_differences"].values())
    if not worst <= EQUAL_LOSS:
        raise SystemExit(f"losses of the same documents differ by {worst}: {first['loss_differences']}")
    for name, value in first["differences"].items():
        sys.stderr.write(f"TRL {name}: {'apart' if apart[name] else 'LEAKS'}, logits differ by {value:.1g}\n")
    return {"trl_settings_apart": apart, "loss_difference": worst}


def summed(job: Sample, found: dict[str, list[Sample]]) -> dict[str, Any]:
    """Return ratios and figures."""

    def median(name: str, key: str) -> float:
        return statistics.median(one[key] for one in found[name])

    speeds = {name: median(name, "tokens_per_second") for name in found}
    thrift = {name: median(name, "tokens_per_cpu_second") for name in found}
    memory = {name: median(name, "peak_mb") for name in found}
    ratios = {"speed_over_padding": speeds["ours"] / speeds["padding"]}
    ratios["speed_over_padding_cpu"] = thrift["ours"] / thrift["padding"]
    ratios["memory_of_padding"] = memory["padding"] / memory["ours"]
    if "trl_packed" in found:
        theirs = [name for name in ("trl_packed", "trl_padding_free") if name in found]
        ratios["speed_over_trl_packed"] = speeds["ours"] / max(speeds[name] for name in theirs)
        ratios["speed_over_trl_packed_cpu"] = thrift["ours"] / max(thrift[name] for name in theirs)
        ratios["memory_of_trl_packed"] = memory["trl_packed"] / memory["ours"]
    if "lora_trl_packed" in found:
        ratios["lora_speed_over_trl_packed"] = speeds["lora_ours"] / speeds["lora_trl_packed"]
        ratios["lora_memory_of_trl_packed"] = memory["lora_trl_packed"] / memory["lora_ours"]
    if "ours_with_a_mask" in found:
        ratios["documents_over_mask_cpu"] = thrift["ours"] / thrift["ours_with_a_mask"]
        ratios["documents_over_mask"] = speeds["ours"] / speeds["ours_with_a_mask"]
    ours = found["ours"][0]
    figures: dict[str, Any] = {"found": ours["num_trained"], **check(found)}
    figures |= {key: job[key] for key in ("device", "precision", "context", "batch_size", "micro_batch_size")}
    figures["threads"] = ours["threads"]
    figures |= {"d_model": job["shape"]["hidden_size"], "layers": job["shape"]["num_hidden_layers"]}
    figures |= {"vocabulary": job["shape"]["vocab_size"], "parameters": ours["parameters"]}
    figures |= {"attention": ours["attention"], "share_trained": round(ours["share_trained"], 3)}
    figures["matmul_tflops"] = round(median("ours", "matmul_tflops"), 3)
    for name in found:
        figures[f"{name}_tokens_per_second"] = round(speeds[name])
        figures[f"{name}_tokens_per_cpu_second"] = round(thrift[name])
        figures[f"{name}_peak_mb"] = round(memory[name])
        basis = "lora_ours" if name.startswith("lora") else "ours"
        rate = median(basis, "matmul_tflops") * 1e12
        figures[f"{name}_mfu"] = round(speeds[name] * median(basis, "flops_per_token") / rate, 4)
        if "profile" in found[name][0]:
            figures[f"{name}_profile"] = found[name][0]["profile"]
    return {"ratios": {name: round(value, 3) for name, value in ratios.items()}, "figures": figures}


def main() -> int:
    """Run all contenders in turn, print figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller model, few updates, one round")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--rounds", type=int, help="turns of each contender")
    parser.add_argument("--threads", type=int, help="of each contender, instead of torch's choice")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not has_gpu():
        parser.error("--device cuda: torch sees no GPU here; --device cpu does without one")
    sys.path.insert(0, str(ROOT))
    job = job_of(arguments.device, arguments.quick, arguments.threads)
    rounds = arguments.rounds or (1 if arguments.quick or arguments.device == "cuda" else 3)
    result = summed(job, measured(job, arguments.quick, rounds))
    result["versions"] = versions("torch", "transformers", "trl", "peft", "numpy")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
