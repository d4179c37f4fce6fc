"""What evaluate.py asks: questions with options, made or from MMLU, their tokenizer, and the model that answers."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from render_data import text

SUBJECTS = ("high_school_psychology", "professional_medicine", "security_studies", "professional_law")
Job = dict[str, Any]
Item = tuple[str, list[str]]  # a prompt and its options, each to stand behind the prompt and a space


def items_of(job: Job) -> dict[str, list[Item]]:
    """Return the questions of each kind: `options` of many tokens, the same behind `shots`, `letters`, and to `generate`."""
    rows = list(_mmlu(Path(job["data"])) if job["data"] else _made(job["questions"]))
    kept = [rows[i * len(rows) // job["questions"]] for i in range(min(job["questions"], len(rows)))]
    return {
        "options": [(f"{question}\nAnswer:", options) for question, options, _ in kept],
        "shots": [(f"{shots}{question}\nAnswer:", options) for question, options, shots in kept],
        "letters": [(f"{_listed(question, options)}\nAnswer:", list("ABCDE")[: len(options)]) for question, options, _ in kept],
        "generate": [(f"{question}\nAnswer:", []) for question, _, _ in kept[:: max(1, len(kept) // job["generated"])]],
    }  # fmt: skip


def _listed(question: str, options: list[str]) -> str:
    return "\n".join([question, *(f"{letter}. {option}" for letter, option in zip("ABCDE", options))])


def _made(number: int) -> Iterator[tuple[str, list[str], str]]:
    """Yield (question, options, demonstrations): words in a row; every task of 16 questions has its demonstrations."""
    for i in range(number):
        question = text(50 + 37 * i % 51, "question", i)
        options = [text(2 + (i + 2 * o) % 3, "option", i, o) for o in range(5)]
        yield (
            question,
            options,
            _shots([(text(40, "q", i // 16, s), text(3, "a", i // 16, s)) for s in range(2)]),
        )


def _mmlu(data: Path) -> Iterator[tuple[str, list[str], str]]:
    """Yield the same of MMLU's test questions, each subject's first two development questions before them."""
    for subject in SUBJECTS:
        found = {}
        for split in ("dev", "test"):
            path = data / "eval" / "mmlu" / split / f"{subject}_{split}.csv"
            with path.open(encoding="utf-8", newline="") as file:
                found[split] = list(csv.reader(file))
        shots = _shots([(row[0], row[1 + "ABCD".index(row[5])]) for row in found["dev"][:2]])
        for row in found["test"]:
            yield row[0].strip(), [option.strip() for option in row[1:5]], shots


def _shots(pairs: list[tuple[str, str]]) -> str:
    return "".join(f"{question.strip()}\nAnswer: {answer.strip()}\n\n" for question, answer in pairs)


def write_tokenizer(folder: Path, items: dict[str, list[Item]], vocab_size: int) -> None:
    """Train a tokenizer on the questions, into `tokenizer/` of a folder."""
    from taskmill.artifact import ShardWriter
    from taskmill.training.encoding.tokenizer import train_tokenizer

    texts = [" ".join([prompt, *options]) for kind in sorted(items) for prompt, options in items[kind]]
    with ShardWriter(folder, "tokenizer", "x") as shard:
        train_tokenizer(iter(texts), vocab_size, shard)


def make_model(job: Job) -> Any:
    """Return a Llama of the job's shape with the same random weights each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **job["shape"],
        max_position_embeddings=job["context"],
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    with torch.device(job["device"]):
        model = LlamaForCausalLM(config)
    return model.to(torch.bfloat16 if job["precision"] == "bf16" else torch.float32).eval()
