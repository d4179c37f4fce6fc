"""The evaluate stage: every test prompt scored with the trained model and with the model as it was before training.

Reads the prompts (split `test`), the catalogue, the split's members, the tokenizer and the final model; writes
`outputs/` (what the models answered, one table per model, task and number of shots), `predictions.parquet` (each
answer with its metric and value) and `scores.parquet` (see aggregation). In predictions `shots` is the number of
demonstrations asked for, `num_demonstrations` the number that the model was shown; scores go by `shots`.

Answers are kept apart from their values: an interrupted run goes on with the next (model, task, shots), and a run
with `predict_only` needs no metric package; a later plain run adds the values without loading a model.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill import seeding
from taskmill.artifact import Inputs, Manifest, ShardWriter, StageWriter
from taskmill.errors import DamagedError
from taskmill.evaluation import aggregation, fitting, metrics
from taskmill.recipe import Evaluate
from taskmill.records import LEVELS, SCHEMAS
from taskmill.settings import Settings
from taskmill.storage import RowsDigest, TableWriter, digest, read_json, read_table
from taskmill.training.encoding.tokenizer import TextTokenizer, open_tokenizer

if TYPE_CHECKING:
    from taskmill.evaluation.scoring import Scorer

log = logging.getLogger("taskmill")

PRELIMINARY = {"predict_only": True}
"""In `external` while predictions wait for their values; a plain run takes them up."""
REVISION = 2
SECTIONS = ("evaluate", "train")
READS = (
    ("curate", "tasks"),
    ("split", "members"),
    ("render", "prompts"),
    ("tokenize", "tokens.json"),
    ("tokenize", "tokenizer/tokenizer.json"),
    ("tokenize", "tokenizer/tokenizer_config.json"),
    ("train", "final/config.json"),
    ("train", "final/model.safetensors"),
    ("train", "final/adapter_config.json"),
    ("train", "final/adapter_model.safetensors"),
)
"""A model has the first two of its files, an adapter the other two; `external` has the digest of all that there are."""

FINAL, INITIAL = "final", "initial"
_SECONDS_BETWEEN_LINES = 10.0
OUTPUTS = pa.schema(
    [
        pa.field("prompt", pa.binary(8), nullable=False),
        pa.field("prediction", pa.string(), nullable=False),
        pa.field("scores", pa.list_(pa.float64())),
        pa.field("num_demonstrations", pa.int64(), nullable=False),
    ]
)
"""Columns of `outputs/`: the chosen option or the generated text, each option's log-probability in nats, and the
demonstrations that the model was shown: fewer than the shots where there were not as many or the context was full."""
_COLUMNS = (
    "prompt",
    "example",
    "task",
    "level",
    "template",
    "text",
    "ends",
    "kinds",
    "joint",
    "format",
    "trained",
    "options",
    "references",
)
_CHUNK = 2_000


def external(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """Return the digest of the final model, and whether only predictions are made."""
    only = PRELIMINARY if _predict_only(settings) else {}
    return {"model": _model_digest(FINAL, inputs), **only}


def build(settings: Settings, inputs: Inputs, out: StageWriter, predict_only: bool | None = None) -> Manifest:
    """Score the test prompts of every level.

    `predict_only`, by default the attribute of `settings` of that name, leaves values null and writes no scores.

    Raises:
        MissingPackageError: a metric's package, or torch, is not installed; said before the model loads.
        DamagedError: the model, the tokenizer or a table cannot be read.
    """
    only = _predict_only(settings) if predict_only is None else predict_only
    tasks = _task_facts(inputs)
    asked = list(_survey(settings, inputs, tasks))
    if not only:
        metrics.require(metric for task in asked for metric in task.metrics)
    for model in _models(settings):
        _predict(model, settings, inputs, out, asked)
    with out.shard("scores", {"predict_only": only, "tasks": [task.prompts for task in asked]}) as shard:
        _write(shard, settings, inputs, out, tasks, only)
    out.add(shard.record)
    return out.finish()


def _predict_only(settings: Settings) -> bool:
    return bool(getattr(settings, "predict_only", False))


def _models(settings: Settings) -> tuple[str, ...]:
    return (FINAL, INITIAL) if settings.evaluate.baseline else (FINAL,)


def _model_digest(model: str, inputs: Inputs) -> str:
    """Return what identifies a model beside the train settings and the seed."""
    trained = inputs.manifest("train")
    if model == INITIAL:
        return digest(trained.body["external"])
    return digest([[f.path, f.rows] for f in trained.files if f.path.startswith(f"{FINAL}/")])


# ---------------------------------------------------------------------------------------- the prompts


@dataclass(frozen=True)
class Asked:
    """What is asked of one task."""

    task: str
    prompts: str
    """Digest over the rows of its test prompts."""
    metrics: frozenset[str]


def _task_facts(inputs: Inputs) -> dict[str, dict[str, Any]]:
    columns = ["task", "family", "subtask", "benchmark", "category", "metric", "style"]
    return {row["task"]: row for row in inputs.table("curate", "tasks", columns).to_pylist()}


def _survey(settings: Settings, inputs: Inputs, tasks: dict[str, dict[str, Any]]) -> Iterator[Asked]:
    for table in test_tables(settings, inputs):
        rows = RowsDigest(table.schema)
        for batch in table.to_batches():
            rows.update(batch)
        task = table.column("task")[0].as_py()
        pairs = zip(table.column("options").to_pylist(), table.column("references").to_pylist())
        wanted = {metrics.metric_of(tasks[task]["metric"], options, given) for options, given in pairs}
        yield Asked(task, rows.hexdigest(), frozenset(wanted))


def test_tables(settings: Settings, inputs: Inputs) -> Iterator[pa.Table]:
    """Yield the test prompts of one task after the other, in the order of the prompts table.

    With `evaluate.max_examples` those of the examples with the smallest hashes; every variant of each.
    """
    pending: list[pa.Table] = []
    for batch in inputs.batches("render", "prompts", [*_COLUMNS, "split"]):
        wanted = pc.and_(
            pc.equal(batch.column("split"), "test"), pc.is_in(batch.column("level"), pa.array(LEVELS))
        )
        table = pa.Table.from_batches([batch]).filter(wanted).select(_COLUMNS)
        for task in table.column("task").unique().to_pylist():
            part = table.filter(pc.equal(table.column("task"), task))
            if pending and pending[0].column("task")[0].as_py() != task:
                yield _limited(settings, pa.concat_tables(pending))
                pending = []
            pending.append(part)
    if pending:
        yield _limited(settings, pa.concat_tables(pending))


def _limited(settings: Settings, table: pa.Table) -> pa.Table:
    most = settings.evaluate.max_examples
    examples = sorted(set(table.column("example").to_pylist()))
    if most is not None and len(examples) > most:
        kept = [examples[i] for i in seeding.smallest(most, settings.seed, "evaluate.examples", examples)]
        table = table.filter(pc.is_in(table.column("example"), pa.array(kept)))
    return table.combine_chunks()


# ------------------------------------------------------------------------------------------ answering


def _predict(
    model: str, settings: Settings, inputs: Inputs, out: StageWriter, asked: Sequence[Asked]
) -> None:
    """Write the answers that are not there yet; the model is loaded when the first of them is needed."""
    info = read_json(inputs.directory("tokenize") / "tokens.json")
    tokenizer = open_tokenizer(inputs.directory("tokenize") / "tokenizer")
    scorer: Scorer | None = None
    num_prompts, said = 0, time.monotonic()
    for task, table in zip(asked, test_tables(settings, inputs)):
        for shots in sorted(set(settings.evaluate.shots)):
            name = shard_name(model, task.task, shots)
            parts = {
                "model": _model_digest(model, inputs),
                "prompts": [task.task, shots, task.prompts],
                "tokenizer": [info["tokenizer"], info["max_length"]],
            }
            if out.finished(name, parts):
                continue
            scorer = scorer or _open_scorer(model, settings, inputs, tokenizer, info)
            context = fitting.Context(tokenizer, info["max_length"])
            with out.shard(name, parts) as shard:
                rows = _answers(scorer, context, settings.evaluate, table, shots, shard)
                shard.write_table(f"outputs/{name}.parquet", OUTPUTS, rows)
                shard.counts.update(vars(context.counts))
            out.add(shard.record)
            num_prompts += table.num_rows
            if time.monotonic() - said >= _SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                log.info("evaluate: %s model, %d prompts answered, %s done", model, num_prompts, task.task)
    if num_prompts:
        log.info("evaluate: %s model, %d prompts answered", model, num_prompts)


def shard_name(model: str, task: str, shots: int) -> str:
    """Return the name of the shard with a model's answers to a task."""
    return f"predict-{model}-{re.sub('[^A-Za-z0-9_.-]+', '_', task)[:80]}-{digest(task)[:8]}-{shots}"


def _answers(
    scorer: Scorer,
    context: fitting.Context,
    evaluate: Evaluate,
    table: pa.Table,
    shots: int,
    shard: ShardWriter,
) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    for start in range(0, table.num_rows, _CHUNK):
        rows = table.slice(start, _CHUNK).to_pylist()
        ranked = [i for i, row in enumerate(rows) if _correct_option(row) is not None]
        generated = sorted(set(range(len(rows))) - set(ranked))
        found = _rank(scorer, context, [rows[i] for i in ranked], shots)
        found += _generate(scorer, context, evaluate, [rows[i] for i in generated], shots)
        answers += [answer for _, answer in sorted(zip(ranked + generated, found), key=lambda pair: pair[0])]
        shard.count("predictions", len(rows))
        shard.count("ranked", len(ranked))
        shard.count("generated", len(generated))
        shard.count("answer_not_in_options", sum(bool(rows[i]["options"]) for i in generated))
    return answers


def _question(row: dict[str, Any], shots: int) -> fitting.Question:
    columns = ("text", "ends", "kinds", "trained", "joint", "format")
    question = fitting.split_prompt(*(row[column] for column in columns))
    return fitting.keep_shots(question, shots)


def _references(row: dict[str, Any]) -> list[str]:
    """Return a prompt's references: its own, else its answer as rendered."""
    return row["references"] or [_question(row, 0).answer.strip()]


def _correct_option(row: dict[str, Any]) -> int | None:
    return metrics.answer_index(row["options"], _references(row))


def _rank(
    scorer: Scorer, context: fitting.Context, rows: Sequence[dict[str, Any]], shots: int
) -> list[dict[str, Any]]:
    from taskmill.evaluation.scoring import best, rank

    options = [row["options"] for row in rows]
    rankings = fitting.fit_rankings(context, [_question(row, shots) for row in rows], options)
    return [
        _answer(row, row["options"][best(scores)], scores, ranking.num_demonstrations)
        for row, ranking, scores in zip(rows, rankings, rank(scorer, rankings))
    ]


def _generate(
    scorer: Scorer,
    context: fitting.Context,
    evaluate: Evaluate,
    rows: Sequence[dict[str, Any]],
    shots: int,
) -> list[dict[str, Any]]:
    from taskmill.evaluation.scoring import generate

    questions = [_question(row, shots) for row in rows]
    openings = fitting.fit_openings(context, questions, evaluate.max_new_tokens)
    texts = context.tokenizer.backend.decode_batch(generate(scorer, openings), skip_special_tokens=True)
    return [
        _answer(row, text.strip(), None, opening.num_demonstrations)
        for row, opening, text in zip(rows, openings, texts)
    ]


def _answer(
    row: dict[str, Any], prediction: str, scores: list[float] | None, num_demonstrations: int
) -> dict[str, Any]:
    """Return a row of `outputs/`."""
    return {
        "prompt": row["prompt"],
        "prediction": prediction,
        "scores": scores,
        "num_demonstrations": num_demonstrations,
    }


# --------------------------------------------------------------------------------------------- model


def _open_scorer(
    model: str, settings: Settings, inputs: Inputs, tokenizer: TextTokenizer, info: dict[str, Any]
) -> Scorer:
    """Load the trained model, or make the one that training began with, in fp32; a base in 4 bits stays so.

    `info` is tokens.json.
    """
    from taskmill.evaluation.scoring import open_scorer
    from taskmill.training.models.model import initial_model, load_model, located, new_ids, pick_device

    train, folder = settings.train, inputs.directory("train") / FINAL
    device = pick_device(train.device)
    base: Any = None
    if model == INITIAL or train.method == "lora":
        base = initial_model(
            located(train, settings.path),
            tokenizer.vocab_size,
            info["max_length"],
            pad_id=tokenizer.pad_id,
            bos_id=tokenizer.bos_id,
            eos_id=tokenizer.eos_id,
            seed=settings.seed,
            new_ids=new_ids(info),
            device=device,
        )
    if model == INITIAL:
        loaded = base.eval()
    else:
        loaded = load_model(folder, base, device, "eager" if train.attention == "eager" else "sdpa")
    return open_scorer(loaded, tokenizer.pad_id, tokenizer.eos_id, settings.evaluate.batch_size)


# -------------------------------------------------------------------------------------------- values


def _write(
    shard: ShardWriter,
    settings: Settings,
    inputs: Inputs,
    out: StageWriter,
    tasks: dict[str, dict[str, Any]],
    predict_only: bool,
) -> None:
    """Write predictions.parquet and, unless `predict_only`, scores.parquet."""
    with shard.table("predictions.parquet", SCHEMAS["scores/predictions"]) as writer:
        parts = _prediction_tables(writer, settings, inputs, out, tasks, predict_only)
        if predict_only:
            num = sum(part.num_rows for part in parts)
            log.info("evaluate: %d predictions without values; run evaluate again to score them", num)
            return
        evaluate = settings.evaluate
        rows = aggregation.aggregate(parts, seed=settings.seed, num_resamples=evaluate.num_resamples)
    shard.write_table("scores.parquet", SCHEMAS["scores/scores"], rows)


def _prediction_tables(
    writer: TableWriter,
    settings: Settings,
    inputs: Inputs,
    out: StageWriter,
    tasks: dict[str, dict[str, Any]],
    predict_only: bool,
) -> Iterator[pa.Table]:
    """Yield, and write, the predictions of one model, task and number of shots after the other."""
    members = _members(inputs)
    for model in _models(settings):
        for table in test_tables(settings, inputs):
            prompts = table.to_pylist()
            facts = tasks[prompts[0]["task"]]
            for shots in sorted(set(settings.evaluate.shots)):
                name = shard_name(model, facts["task"], shots)
                answers = read_table(out.directory / "outputs" / f"{name}.parquet").to_pylist()
                if [p["prompt"] for p in prompts] != [a["prompt"] for a in answers]:
                    raise DamagedError(
                        f"outputs/{name}.parquet answers other prompts; --force makes it again"
                    )
                shared = {"model": model, "shots": shots, **facts}
                rows = [
                    {**shared, **_prediction(prompt, answer, facts, members, predict_only)}
                    for prompt, answer in zip(prompts, answers)
                ]
                part = pa.Table.from_pylist(rows, schema=SCHEMAS["scores/predictions"])
                writer.write(part)
                yield part


def _prediction(
    prompt: dict[str, Any],
    answer: dict[str, Any],
    facts: dict[str, Any],
    members: dict[str, tuple[int, bool]],
    predict_only: bool,
) -> dict[str, Any]:
    references = _references(prompt)
    metric = metrics.metric_of(facts["metric"], prompt["options"], references)
    given = answer["prediction"]
    if facts["style"] == "reasoning" and metric != "accuracy":
        given = metrics.final_answer(given)
    value = None if predict_only else metrics.score(metric, given, references)
    group, clean = members[prompt["example"]]
    return {
        **{name: prompt[name] for name in ("prompt", "example", "level", "template", "options")},
        **answer,
        "group": group,
        "references": references,
        "correct_option": metrics.answer_index(prompt["options"], references),
        "metric": metric,
        "value": None if value is None else round(value, aggregation.DECIMALS),
        "clean": clean,
    }


def _members(inputs: Inputs) -> dict[str, tuple[int, bool]]:
    """Return (group, clean) of every test example."""
    members: dict[str, tuple[int, bool]] = {}
    for batch in inputs.batches("split", "members", ["example", "split", "group", "clean"]):
        test = batch.filter(pc.equal(batch.column("split"), "test"))
        pairs = zip(test.column("group").to_pylist(), test.column("clean").to_pylist())
        members.update(zip(test.column("example").to_pylist(), pairs))
    return members
