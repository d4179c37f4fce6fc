"""Contenders of evaluate.py: `python evaluate_contenders.py NAME JOB`; JOB is JSON, the last line printed is the sample.

NAME is `ours`, `rows` (ours with one row per option, on `options` alone) or `lm_eval` (the Hugging Face backend of
lm-evaluation-harness, given the same model object). Each reads the same questions as text, so tokenising counts; each answers a
few before the clock starts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluate_data import Item, Job, items_of, make_model
from measuring import peak_megabytes

Answer = Callable[[list[Item]], list[Any]]


def ours(job: Job, tree: bool = True) -> tuple[Answer, Answer]:
    """Return what ranks and what generates here."""
    from dataclasses import replace

    from taskmill.evaluation.answering.generating import generate
    from taskmill.evaluation.answering.ranking import open_scorer, rank
    from taskmill.evaluation.asking.fitting import Context, Question, Segment, fit_openings, fit_rankings
    from taskmill.recipe_evaluate import Sampling
    from taskmill.records import SEGMENT_KINDS
    from taskmill.training.encoding.tokenizer import open_tokenizer

    tokenizer = open_tokenizer(Path(job["tokenizer"]))
    scorer = open_scorer(make_model(job), tokenizer.pad_id, tokenizer.eos_id, job["batch_size"])
    if not scorer.tree:
        raise SystemExit("options do not share rows")
    scorer = replace(scorer, tree=tree)
    kind = SEGMENT_KINDS.index("input")

    def questions(items: list[Item]) -> list[Question]:
        return [Question((Segment(prompt, kind),), " ?") for prompt, _ in items]

    def ranked(items: list[Item]) -> list[Any]:
        context = Context(tokenizer, job["context"])
        return rank(scorer, fit_rankings(context, questions(items), [options for _, options in items]))

    def generated(items: list[Item]) -> list[Any]:
        openings = fit_openings(Context(tokenizer, job["context"]), questions(items), job["new_tokens"])
        return [texts[0] for texts in generate(scorer, tokenizer, openings, Sampling())]

    return ranked, generated


def lm_eval(job: Job) -> tuple[Answer, Answer]:
    """Return what ranks and what generates with lm-evaluation-harness."""
    import logging

    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    logging.disable(logging.WARNING)
    model = HFLM(
        pretrained=make_model(job),
        tokenizer=AutoTokenizer.from_pretrained(job["tokenizer"]),
        batch_size=job["batch_size"],
        max_length=job["context"],
        device=job["device"],
    )

    def ranked(items: list[Item]) -> list[Any]:
        requests = [
            Instance("loglikelihood", {}, (prompt, f" {option}"), i)
            for i, (prompt, options) in enumerate(items)
            for option in options
        ]
        found = iter(model.loglikelihood(requests, disable_tqdm=True))
        return [[next(found)[0] for _ in options] for _, options in items]

    def generated(items: list[Item]) -> list[Any]:
        settings = {"until": [], "do_sample": False, "max_gen_toks": job["new_tokens"]}
        requests = [
            Instance("generate_until", {}, (prompt, settings), i) for i, (prompt, _) in enumerate(items)
        ]
        return [found.strip() for found in model.generate_until(requests, disable_tqdm=True)]

    return ranked, generated


CONTENDERS = {"ours": ours, "rows": lambda job: ours(job, tree=False), "lm_eval": lm_eval}


def wait(device: str) -> tuple[float, float]:
    """Return the time, and this process's own, when the device has done all that it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def timed(job: Job, answer: Answer, items: list[Item]) -> Job:
    """Answer a few questions, then all with the clock running."""
    answer(items[:2])
    start = wait(job["device"])
    answers = answer(items)
    end = wait(job["device"])
    return {"seconds": end[0] - start[0], "cpu_seconds": end[1] - start[1], "answers": answers}


def run(name: str, job: Job) -> Job:
    """Return a contender's sample."""
    items = items_of(job)
    ranked, generated = CONTENDERS[name](job)
    found: Job = {"options": timed(job, ranked, items["options"])}
    if name != "rows":
        found |= {kind: timed(job, ranked, items[kind]) for kind in ("shots", "letters")}
        found["generate"] = timed(job, generated, items["generate"])
    import torch

    on_gpu = job["device"] == "cuda"
    found["peak_mb"] = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else peak_megabytes()
    return found | {"threads": torch.get_num_threads()}


if __name__ == "__main__":
    told = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    if told["threads"]:
        os.environ["OMP_NUM_THREADS"] = str(told["threads"])  # before torch is imported
    sys.stdout.write("\n" + json.dumps(run(sys.argv[1], told)) + "\n")
