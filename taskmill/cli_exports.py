"""The group `export`: each command writes what a run has in the form of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.group("export")
def export_group() -> None:
    """Write what a run has in the forms of other tools.

    \b
    Example:
      taskmill export chat runs/demo chat
    """


@export_group.command("chat")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    type=click.Choice(["messages", "prompt-completion"]),
    default="messages",
    help="Whole conversations, or one row for each answer [messages].",
)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test", "all"]),
    default="train",
    help="Which prompts [train].",
)
@click.option(
    "--order",
    type=click.Choice(["rows", "mixture"]),
    default="rows",
    help="Each prompt once, or as the mixture draws them, repeats included [rows].",
)
@click.option(
    "--num",
    type=click.IntRange(min=1),
    help="Most prompts of a split, or positions of the mixture [all; as many as mix reaches].",
)
@click.option("--shard-size", type=click.IntRange(min=1), default=1_000_000, help="Rows in a file [1000000].")
@click.option("--parquet", is_flag=True, help="Write Parquet instead of JSON lines.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def export_chat_command(run: Path, folder: Path, as_json: bool, **options: Any) -> None:
    """Write RUN's prompts into DIR as files that TRL, axolotl and LLaMA-Factory read as they are.

    Turns lose the marks of their chat format, which the trainer's chat template writes again; DIR/chat_template.jinja is
    the run's own. What a layout cannot say as it is trained is left out, counted, and listed in DIR/dropped.parquet.

    \b
    Example:
      taskmill export chat runs/demo chat --order mixture --layout messages
    """
    from taskmill.commands.export_chat import Plan, export_chat

    export_chat(run, folder, Plan(**options), as_json)


@export_group.command("mixture")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--with-text", is_flag=True, help="Write the prompts' texts and segments too.")
@click.option("--num", type=click.IntRange(min=1), help="Positions [as many as mix reaches].")
@click.option("--shard-size", type=click.IntRange(min=1), default=100_000, help="Rows in a file [100000].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def export_mixture_command(run: Path, folder: Path, as_json: bool, **options: Any) -> None:
    """Write the order in which RUN draws its prompts into DIR, as a data set that `load_dataset(DIR)` streams.

    A row is a position of the mixture: prompt, example, task, template, demonstrations, condition and loss weight.

    \b
    Example:
      taskmill export mixture runs/demo lock --with-text
    """
    from taskmill.commands.export_mixture import LockPlan, export_mixture

    export_mixture(run, folder, LockPlan(**options), as_json)


@export_group.command("model")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--merge", is_flag=True, help="Add an adapter's weights to its base and write a whole model.")
@click.option(
    "--checkpoint", type=click.IntRange(min=1), metavar="STEP", help="A checkpoint instead of the end."
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    help="Type of a whole model's weights [fp32].",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def export_model_command(run: Path, folder: Path, as_json: bool, **options: Any) -> None:
    """Write RUN's model into DIR as transformers and peft open it, with tokenizer, chat template and model card.

    The card says what the model was trained on: recipe, shares, losses, scores by level, and the root digest of the splits.

    \b
    Example:
      taskmill export model runs/demo model --merge
    """
    from taskmill.commands.export_model import ModelPlan, export_model

    export_model(run, folder, ModelPlan(**options), as_json)


@export_group.command("lm-eval")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def export_lm_eval_command(run: Path, folder: Path, as_json: bool) -> None:
    """Write RUN's evaluated tasks into DIR as tasks of the lm-evaluation-harness, which give the same scores there.

    DIR has a task for each variant and number of demonstrations, and groups by category, benchmark and level; DIR/README.md
    has the command to use. What the harness reads otherwise is counted and told.

    \b
    Example:
      taskmill export lm-eval runs/demo lm_eval
    """
    from taskmill.commands.lm_eval.export_lm_eval import export_lm_eval

    export_lm_eval(run, folder, as_json)


@export_group.command("scores")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--predictions", is_flag=True, help="Write every prediction too.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def export_scores_command(run: Path, folder: Path, as_json: bool, **options: Any) -> None:
    """Write RUN's scores into DIR: scores.csv, scores.parquet, and scores.md to read or paste.

    Scores by level, category, benchmark and task, each with its interval and beside it the score over clean examples.

    \b
    Example:
      taskmill export scores runs/demo scores
    """
    from taskmill.commands.scoring.export_scores import export_scores

    export_scores(run, folder, as_json=as_json, **options)


@export_group.command("benchmark")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--with-data", is_flag=True, help="Write the prompts too, of tasks whose licence allows it.")
@click.option("--with-mixture", is_flag=True, help="Write the mixture and its shares too.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def export_benchmark_command(run: Path, folder: Path, as_json: bool, **options: Any) -> None:
    """Write RUN's benchmark into DIR as `publish` sends it: ids, digests, levels, decisions, licences, recipe, manifest.

    `taskmill verify DIR`, `taskmill rebuild DIR --run RUN` and `load_dataset(DIR, "held_out")` read it as it is.

    \b
    Example:
      taskmill export benchmark runs/demo benchmark
    """
    from taskmill.commands.publishing.package import export_benchmark

    export_benchmark(run, folder, as_json=as_json, **options)
