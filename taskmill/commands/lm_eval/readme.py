"""The README.md of an export: how to run it, and where the harness's numbers can differ from the run's."""

from __future__ import annotations

from typing import Any

from taskmill.commands.finished import FinishedRun
from taskmill.commands.lm_eval.keys import HARNESS_VERSION
from taskmill.commands.lm_eval.layout import Names
from taskmill.recipe import Evaluate

_TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def command(found: FinishedRun, names: Names, max_length: int, precision: str = "fp32") -> str:
    """Return the two commands that run the export, as lines of a shell."""
    lora = found.recipe.get("values", {}).get("train", {}).get("method") == "lora"
    arguments = f"pretrained=MODEL,dtype={_TYPES[precision]},add_bos_token=False,max_length={max_length}"
    return (
        f"taskmill export model RUN MODEL{' --merge' if lora else ''}\n"
        f"lm_eval run --model hf --model_args {arguments} \\\n"
        f"  --include_path . --tasks {names.root} --batch_size 16 --output_path results --log_samples"
    )


def readme(
    found: FinishedRun, names: Names, body: dict[str, Any], max_length: int, evaluate: Evaluate
) -> str:
    """Return the text.

    Args:
        found: the run.
        names: of tasks and groups.
        body: the content of export.json.
        max_length: tokens of context.
        evaluate: the recipe's section.
    """
    name = str(found.recipe.get("values", {}).get("name", found.run.name))
    counts = body["counts"]
    parts = [
        f"# {name} for the lm-evaluation-harness",
        f"{counts['prompts']:,} prompts as {counts['tasks']:,} tasks in {counts['groups']:,} groups, written for lm_eval "
        f"{HARNESS_VERSION}. In this folder:",
        f"```\n{command(found, names, max_length, evaluate.precision)}\n```",
        "The folder can be moved; nothing in it needs Taskmill. `HF_HUB_OFFLINE=1` keeps the harness off the network. The "
        "metrics need `rouge_score` (rouge_l) and `sacrebleu` (bleu, chrf) where tasks have them.",
        f"The group `{names.root}` holds a group for each level and number of demonstrations, and these a group for each "
        f"category; `{names.benchmarks}` holds the same tasks by benchmark. The harness refuses to run both at once. "
        "`scores.json` has the run's own scores by the names that tasks and groups have here.",
        "A task's first metric is its score. Metrics that begin with `in_` are that score times what it counts for in a "
        "group, times the number of tasks of the group: the harness averages the tasks of a group all alike, and the run's "
        "scores are means of means, so only the groups' rows of these metrics are to be read.",
        _differences(body, evaluate),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _differences(body: dict[str, Any], evaluate: Evaluate) -> str:
    """Return a list of what makes the harness's numbers differ; nothing where nothing does."""
    counts = body["counts"]
    lines = [
        (
            counts["other_tokens"],
            "prompts reach the model as other tokens: no text gives the run's own in the harness",
        ),
        (
            counts["other_boundary"],
            "prompts have the same tokens, of which the harness sums others for an option: mostly the white space before "
            "it. Log-probabilities differ, all of one prompt by about the same",
        ),
        (
            counts["more_room"],
            "prompts have more room for an answer in the run than in the harness, which keeps the same for all of a task",
        ),
        *(
            (
                number,
                f"prompts are left out, so that scores of what holds them differ: {reason.replace('_', ' ')}",
            )
            for reason, number in body["left_out"].items()
        ),
        (
            counts["prompts"] - counts["ranked"] if evaluate.sampling.temperature else 0,
            "prompts are answered by drawing tokens, and the harness draws others, one answer each",
        ),
    ]
    if evaluate.precision != "fp32":
        text = (
            f"prompts were answered in {evaluate.precision}, but for the output layer, which computed in fp32"
        )
        lines.append((counts["prompts"], text))
    told = [f"- {number:,} {text}." for number, text in lines if number]
    return "\n".join(["Where its numbers can differ:", "", *told]) if told else ""
