"""The model card of an export: `README.md` as the Hub reads it, from what the run recorded and nothing else.

Reads manifests, recipe.json, the shares of mixture and tokens, metrics.jsonl and scores; returns text. Paths of the machine
are left out of the recipe that it shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from taskmill import __version__
from taskmill.commands.figures import compact, count, decimal, duration, percent
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.scoring.scores import level_scores
from taskmill.recipe import Train
from taskmill.records import DIRECTORIES, FINAL, INITIAL, LEVELS
from taskmill.storage import read_json
from taskmill.training.models.base_files import is_hub_id, portable_name


def card(found: FinishedRun, train: Train, kind: str, info: Row, checkpoint: int | None) -> str:
    """Return the text of a model card.

    Args:
        found: the run.
        train: settings of the training, with `model` located.
        kind: model, adapter or merged.
        info: tokens.json.
        checkpoint: updates of the checkpoint that is exported, None for the end.
    """
    name = str(found.recipe.get("values", {}).get("name", found.run.name))
    base = _base(found, train)
    parts = [
        "---\n" + yaml.safe_dump(_front(train, base, kind), sort_keys=True) + "---",
        f"# {name}",
        _about(train, base, kind, checkpoint),
        f"## Use\n\n```python\n{_use(train, base, kind, info)}\n```",
        "## Training\n\n" + _table(("", ""), _training(found, train, info, checkpoint)),
        *_deviations(found),
        *_mixture(found),
        *_scores(found, checkpoint),
        _splits(found),
        f"## Recipe\n\n<details><summary>As resolved</summary>\n\n```yaml\n{_recipe(found)}```\n\n</details>",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _base(found: FinishedRun, train: Train) -> str | None:
    """Return the base as the recipe names it; None for weights that the run made."""
    named = found.recipe.get("values", {}).get("train", {}).get("model")
    return portable_name(named) if train.weights == "pretrained" else None


def _front(train: Train, base: str | None, kind: str) -> dict[str, Any]:
    """Return the head that the Hub reads; without a statement of the base its license is unknown."""
    front: dict[str, Any] = {
        "library_name": "peft" if kind == "adapter" else "transformers",
        "license": _license(train),
        "pipeline_tag": "text-generation",
        "tags": ["taskmill", "instruction-tuning", *(["lora"] if train.method == "lora" else [])],
    }
    if base is not None and _on_hub(train):
        front |= {"base_model": base, "base_model_relation": "adapter" if kind == "adapter" else "finetune"}
    return front


def _on_hub(train: Train) -> bool:
    return train.model is not None and is_hub_id(train.model) and not Path(train.model).exists()


def _license(train: Train) -> str:
    """Return the license that the base's own card states, `unknown` where it states none."""
    path = Path(train.model or "") / "README.md"
    try:
        text = path.read_text(encoding="utf-8") if train.model and path.is_file() else ""
        head = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else {}
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return "unknown"
    stated = head.get("license") if isinstance(head, dict) else None
    return stated if isinstance(stated, str) else "unknown"


def _about(train: Train, base: str | None, kind: str, checkpoint: int | None) -> str:
    what = {"adapter": "LoRA adapters", "merged": "A model with LoRA adapters merged into its weights"}
    begun = f"`{base}`" if base else "random weights"
    place = f", at the checkpoint after update {checkpoint}" if checkpoint else ""
    text = f"{what.get(kind, 'A causal language model')} fine-tuned from {begun} with Taskmill {__version__}{place}."
    if train.quantization == "4bit":
        text += " The base was held in 4 bits (NF4) during training"
        text += "; merged are its quantised values." if kind == "merged" else "."
    return text


def _use(train: Train, base: str | None, kind: str, info: Row) -> str:
    """Return Python that opens the folder."""
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    if kind != "adapter":
        lines += ['model = AutoModelForCausalLM.from_pretrained("DIR")']
    else:
        revision = f', revision="{train.revision}"' if base and train.revision else ""
        place = f'"{base}"{revision}' if base else '"DIR/base"'
        size = info["vocab_size"]
        lines = [
            "from peft import PeftModel",
            lines[0],
            "",
            f"base = AutoModelForCausalLM.from_pretrained({place})",
        ]
        if base and train.quantization == "4bit":
            lines[1] = lines[1].replace("AutoTokenizer", "AutoTokenizer, BitsAndBytesConfig")
            lines[-1] = lines[-1][:-1] + ", quantization_config=four_bits)"
            settings = 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True'
            lines.insert(-1, f"four_bits = BitsAndBytesConfig({settings})")
        if base:
            lines += [
                f"if base.get_input_embeddings().num_embeddings < {size}:",
                f"    base.resize_token_embeddings({size})",
            ]
        lines += ['model = PeftModel.from_pretrained(base, "DIR")']
    return "\n".join([*lines, 'tokenizer = AutoTokenizer.from_pretrained("DIR")'])


def _training(
    found: FinishedRun, train: Train, info: Row, checkpoint: int | None
) -> Iterable[tuple[str, str]]:
    """Yield (what, figure) of a training."""
    lines = _metrics(found, checkpoint)
    done = [line for line in lines if "validation" not in line]
    recorded = found.manifests["train"].body["recorded"].get("train", {}) if found.has("train") else {}
    method = (
        "all weights" if train.method == "full" else f"LoRA, rank {train.lora.rank}, alpha {train.lora.alpha}"
    )
    yield "Trained", method + (f", on {', '.join(train.lora.targets)}" if train.method == "lora" else "")
    yield (
        "Precision",
        train.precision + (", frozen weights in 4 bits" if train.quantization == "4bit" else ""),
    )
    if done:
        yield "Updates", count(done[-1]["step"])
        yield (
            "Tokens",
            f"{compact(sum(line['num_tokens'] for line in done))}, {_targets(done)} of them trained",
        )
        yield "Loss in the last update", decimal(done[-1]["loss"], 4)
    for line in [line for line in lines if "validation" in line][-1:]:
        for level, loss in line["validation"].items():
            yield f"Validation loss, {level}", decimal(loss, 4)
    yield "Context", f"{count(info['max_length'])} tokens"
    yield "Learning rate", f"{train.learning_rate:g}, {train.schedule}"
    if recorded.get("tokens_per_second"):
        yield "Speed", f"{count(recorded['tokens_per_second'])} tokens/s on {recorded.get('device', 'cpu')}"
    if recorded.get("seconds"):
        yield "Time", duration(recorded["seconds"])


def _metrics(found: FinishedRun, checkpoint: int | None) -> list[Row]:
    """Return the lines of metrics.jsonl, those before a checkpoint where one is given."""
    if checkpoint is None:
        return found.metrics
    directory = found.run / DIRECTORIES["train"]
    size = read_json(directory / f"step-{checkpoint:06d}" / "state.json")["metrics_bytes"]
    text = (directory / "metrics.jsonl").read_bytes()[:size].decode()
    return [json.loads(line) for line in text.splitlines()]


def _targets(lines: Sequence[Row]) -> str:
    return compact(sum(line["num_trained"] for line in lines))


def _deviations(found: FinishedRun) -> list[str]:
    recorded = found.manifests["train"].body["recorded"].get("train", {}) if found.has("train") else {}
    lines = [f"- {line}" for line in recorded.get("deviations", ())]
    return (
        ["Where the architecture has no place for what the recipe asks:\n\n" + "\n".join(lines)]
        if lines
        else []
    )


def _mixture(found: FinishedRun) -> list[str]:
    tokens = {row["benchmark"]: row for row in found.shares("tokenize")}
    rows = []
    for row in found.shares("mix"):
        other = tokens.get(row["benchmark"], {})
        share = other.get("share_tokens")
        rows.append(
            (
                row["benchmark"],
                percent(float(row["wanted"])),
                percent(float(row["realised"])),
                percent(float(share)) if share else "\u2013",
                row["prompts"],
            )
        )
    head = ("part", "share wanted", "share of prompts", "share of tokens", "prompts drawn")
    return ["## Mixture\n\n" + _table(head, rows)] if rows else []


def _scores(found: FinishedRun, checkpoint: int | None) -> list[str]:
    if not found.has("evaluate") or checkpoint is not None:
        return []
    before = {(row["level"], row["shots"]): row["value"] for row in level_scores(found, INITIAL)}
    rows = [
        (
            row["level"],
            row["shots"],
            decimal(row["value"]),
            f"{decimal(row['low'])} to {decimal(row['high'])}",
            decimal(before.get((row["level"], row["shots"]))),
        )
        for row in level_scores(found, FINAL)
        if row["shots"] >= 0
    ]
    head = ("level", "demonstrations", "score", "95 % interval", "before training")
    said = "Held out: categories never trained on. Partial: category seen, task not. Supervised: task seen, examples not."
    return [f"## Scores by level\n\n{said}\n\n{_table(head, rows)}"] if rows else []


def _splits(found: FinishedRun) -> str:
    if not found.has("split"):
        return ""
    manifest = found.manifests["split"]
    kinds = ("train", "validation", "test", "demonstration", "excluded")
    table = _table(
        ("split", "examples"), [(kind, count(manifest.counts.get(f"num_{kind}", 0))) for kind in kinds]
    )
    tasks = [f"{count(manifest.counts.get(f'num_tasks_{level}', 0))} {level}" for level in LEVELS]
    return (
        f"## Splits\n\n{table}\n\nTasks that are evaluated: {', '.join(tasks)}. Root digest of the splits' manifest: "
        f"`{manifest.root}`. Runs of this digest train and test on the same examples, row for row."
    )


def _recipe(found: FinishedRun) -> str:
    values = _without_places(found.recipe.get("values", {}))
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def _without_places(value: Any) -> Any:
    """Return the values with paths of this machine cut to their last part."""
    if isinstance(value, dict):
        return {key: _without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_places(item) for item in value]
    return portable_name(value) if isinstance(value, str) and value.startswith("/") else value


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines)
