"""The evaluate stage: every test prompt asked of the trained model, and of the model as it was before training.

Reads the prompts, the catalogue, the split's members, the tokenizer and the trained model, or instead of it asks a server;
writes `outputs/` (what the models answered, one table per unit, see `answering.jobs`), `predictions.parquet` (each
answer with its metric and value) and `scores.parquet` (see `aggregation`). In predictions `shots` is the number of
demonstrations asked for, `num_demonstrations` the number that the model was shown; scores go by `shots`.

Answers are kept apart from their values: an interrupted run goes on with the units that are missing, another metric asks
nothing again, and a run with `predict_only` needs no metric package; a later plain run adds the values without loading a
model. A unit depends on the model, the tokenizer, its prompts and how they are asked, on nothing else.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from taskmill.artifact import Inputs, Manifest, StageWriter
from taskmill.evaluation import predictions
from taskmill.evaluation.aggregation.hierarchy import aggregate
from taskmill.evaluation.answering import jobs
from taskmill.evaluation.answering.answers import how
from taskmill.evaluation.answering.models import Model, files, models
from taskmill.evaluation.asking import rules as asking
from taskmill.evaluation.asking.prompts import Chunk, Survey, find_places, survey
from taskmill.evaluation.asking.rules import Rule
from taskmill.evaluation.metrics import registry as metrics
from taskmill.plain import to_json
from taskmill.records import SCHEMAS
from taskmill.settings import Settings
from taskmill.storage import TableWriter, digest, read_json, read_table

log = logging.getLogger("taskmill")

PRELIMINARY = {"predict_only": True}
"""In `external` while predictions wait for their values; a plain run takes them up."""
REVISION = 3
SECTIONS = ("evaluate", "train")
READS = (
    ("curate", "tasks"),
    ("split", "members"),
    ("render", "prompts"),
    ("tokenize", "tokens.json"),
    ("tokenize", "tokenizer/tokenizer.json"),
    ("tokenize", "tokenizer/tokenizer_config.json"),
)
"""What it reads with any settings; see `reads`."""

_SECONDS_BETWEEN_LINES = 10.0
_WHY_NONE = {
    "test": "; `taskmill inspect RUN split` shows what is evaluated",
    "validation": ": no task that is tested has validation examples too; evaluate.split=test asks what there is",
}
"""What helps where a split has no prompt."""

Units = dict[tuple[str, str, int], list[jobs.Unit]]
"""(model, task, shots) -> the units of the task's chunks, in order."""


def reads(settings: Settings, inputs: Inputs) -> tuple[tuple[str, str], ...]:
    """Return (stage, table) of everything that is read.

    Beside READS the files of the models that are asked, unless a server answers, and the examples where a metric looks
    at their fields.

    Raises:
        UsageError: an earlier stage is not finished.
    """
    found = list(READS)
    if asking.may_need_fields(settings.evaluate, inputs.table("curate", "tasks", ["metric"])):
        found.append(("curate", "examples"))
    if settings.evaluate.endpoint is None:
        names = files(inputs.manifest("train"), settings.evaluate.checkpoints)
        found += [("train", name) for name in names]
    return tuple(found)


def fingerprinted(settings: Settings) -> dict[str, Any]:
    """Return the settings that count: how a model was trained does not where a server answers."""
    found = settings.values()
    if settings.evaluate.endpoint is not None:
        del found["train"]
    return found


def external(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """Return what identifies the models and the files of one's own metrics, and whether only predictions are made.

    Raises:
        UsageError: the file of a metric is missing.
    """
    functions = asking.function_digests(settings.evaluate, settings.path("."))
    return {
        "models": {model.name: model.identity for model in models(settings, inputs)},
        **({"functions": functions} if functions else {}),
        **(PRELIMINARY if settings.predict_only else {}),
    }


def check_settings(settings: Settings, inputs: Inputs) -> None:
    """Refuse, before finished scores are made again, settings that do not suit the tasks.

    Raises:
        RecipeError, UsageError: see build.
    """
    tasks = inputs.table("curate", "tasks", asking.COLUMNS)
    places = find_places(inputs, settings.evaluate, settings.seed)
    rules = asking.resolve(settings.evaluate, tasks, [place.task for place in places])
    if not settings.predict_only:
        asking.check_code(rules, settings.evaluate)
        predictions.open_functions(settings.evaluate, settings.path("."))


def build(settings: Settings, inputs: Inputs, out: StageWriter) -> Manifest:
    """Score the prompts of every level; with `settings.predict_only` values stay null and no scores are written.

    Raises:
        MissingPackageError: a metric's package, or torch, is not installed; said before a model loads.
        RecipeError: selectors that fit no task, or another setting that does not suit the tasks.
        UsageError: a metric would run programs, and the recipe does not allow it.
        DamagedError: the model, the tokenizer or a table cannot be read.
        TaskmillError: a server does not answer, or a worker was killed.
    """
    out.apart = tuple((section,) for section in out.identity.settings)
    tasks = inputs.table("curate", "tasks", asking.COLUMNS)
    split = settings.evaluate.split
    places = list(find_places(inputs, settings.evaluate, settings.seed))
    if not places:
        log.warning("evaluate: there is no prompt of the split %s at any level%s", split, _WHY_NONE[split])
    rules = asking.resolve(settings.evaluate, tasks, [place.task for place in places])
    surveys = [survey(place, rules[place.task]) for place in places if rules[place.task].shots]
    valuing = _valuing(settings, inputs, out, tasks)
    if not settings.predict_only:
        asking.check_code(rules, settings.evaluate)
        metrics.require(predictions.measures_of(valuing, surveys, rules))
    asked, pending = _units(settings, inputs, out, surveys, rules)
    _answer(settings, inputs, out, asked, pending)
    with out.shard("scores", out.identity.fingerprint) as shard:
        with shard.table("predictions.parquet", SCHEMAS["scores/predictions"]) as writer:
            parts = _parts(writer, valuing, surveys, asked, out)
            rows = _scores(settings, parts)
        if rows is not None:
            shard.write_table("scores.parquet", SCHEMAS["scores/scores"], rows)
    out.add(shard.record)
    return out.finish()


def _valuing(settings: Settings, inputs: Inputs, out: StageWriter, tasks: pa.Table) -> predictions.Valuing:
    only = settings.predict_only
    return predictions.Valuing(
        evaluate=settings.evaluate,
        facts={row["task"]: row for row in tasks.to_pylist()},
        members=predictions.Members(inputs, settings.evaluate.split),
        fields=predictions.Fields(inputs, tasks),
        functions={} if only else predictions.open_functions(settings.evaluate, settings.path(".")),
        outputs=out.directory,
        workers=settings.workers,
        predict_only=only,
    )


# ------------------------------------------------------------------------------------------ answering


def _units(
    settings: Settings,
    inputs: Inputs,
    out: StageWriter,
    surveys: Sequence[Survey],
    rules: Mapping[str, Rule],
) -> tuple[Units, list[jobs.Unit]]:
    """Return everything that is to be asked, in the order of predictions, and the units that are not there yet."""
    info = read_json(inputs.directory("tokenize") / "tokens.json")
    fits = [info["tokenizer"], info["max_length"]]
    units: Units = {}
    pending: list[jobs.Unit] = []
    which = models(settings, inputs)
    if settings.evaluate.checkpoints and not any(model.name.startswith("step-") for model in which):
        log.warning("evaluate: training kept no checkpoint before its end (see train.checkpoint_steps)")
    for model in which:
        for found in surveys:
            rule = rules[found.place.task]
            for shots in rule.shots:
                own = units[model.name, rule.task, shots] = []
                for number, chunk in enumerate(found.chunks):
                    name = f"{shard_name('predict', model.name, rule.task, shots)}-{number:04d}"
                    parts = _parts_of(settings, model, fits, rule, chunk, shots)
                    own.append(jobs.Unit(name, out.shard_fingerprint(parts), model, rule, shots, chunk))
                    if out.finished(name, parts) is None:
                        pending.append(own[-1])
    return units, pending


def _parts_of(
    settings: Settings, model: Model, fits: list[Any], rule: Rule, chunk: Chunk, shots: int
) -> dict[str, Any]:
    """Return what the answers to a chunk depend on."""
    num_generated = chunk.num_prompts - chunk.num_ranked
    return {
        "model": model.identity,
        "tokenizer": fits,
        "prompts": [rule.task, chunk.digest],
        "shots": shots,
        "how": how(settings.evaluate, rule, chunk.num_ranked, num_generated),
    }


def shard_name(kind: str, model: str, task: str, shots: int) -> str:
    """Return the beginning of the names of shards about a model's answers to a task."""
    slug = re.sub("[^A-Za-z0-9_.-]+", "_", task)[:80]
    return f"{kind}-{model}-{slug}-{digest(task)[:8]}-{shots}"


def _answer(
    settings: Settings, inputs: Inputs, out: StageWriter, asked: Units, pending: Sequence[jobs.Unit]
) -> None:
    """Write the answers that are not there yet."""
    if not pending:
        return
    every = [unit for units in asked.values() for unit in units]
    if len(pending) < len(every):
        log.info("evaluate: %d of %d units were answered before", len(every) - len(pending), len(every))
    tokens = inputs.directory("tokenize")
    for record in jobs.answer_units(pending, every, settings, tokens, out.directory):
        out.add(record)


# -------------------------------------------------------------------------------------------- values


def _scores(settings: Settings, parts: Iterator[pa.Table]) -> list[dict[str, Any]] | None:
    """Return the rows of scores.parquet, or None with `predict_only`; `parts` are used up."""
    if settings.predict_only:
        num = sum(part.num_rows for part in parts)
        log.info("evaluate: %d predictions without values; run evaluate again to score them", num)
        return None
    return aggregate(parts, seed=settings.seed, num_resamples=settings.evaluate.num_resamples)


def _parts(
    writer: TableWriter,
    valuing: predictions.Valuing,
    surveys: Sequence[Survey],
    asked: Units,
    out: StageWriter,
) -> Iterator[pa.Table]:
    """Yield, and write, the predictions of one model, task and number of shots after the other."""
    found = {item.place.task: item for item in surveys}
    said = time.monotonic()
    for (model, task, shots), units in asked.items():
        answered = predictions.read_answers(valuing, found[task], units)
        if units[0].rule.needs_fields and not valuing.predict_only:
            valued = _kept_values(valuing, answered, units, shard_name("value", model, task, shots), out)
        else:
            valued = predictions.values(valuing, answered)
        part = predictions.prediction_table(valuing, answered, valued)
        writer.write(part)
        if time.monotonic() - said >= _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            log.info("evaluate: %d predictions valued, now %s of the %s model", writer.num_rows, task, model)
        yield part


def _kept_values(
    valuing: predictions.Valuing,
    answered: predictions.Answered,
    units: Sequence[jobs.Unit],
    name: str,
    out: StageWriter,
) -> list[dict[str, Any]]:
    """Return the values of metrics that may take long, programs and functions of one's own: a shard that a kill leaves."""
    rule, evaluate = answered.rule, valuing.evaluate
    parts = {
        "answers": [unit.fingerprint for unit in units],
        "references": [row["references"] for row in answered.rows],
        "examples": [item for item in out.identity.inputs if item["stage"] == "curate"],
        "functions": out.identity.external.get("functions"),
        "measure": [rule.metric, rule.is_own_metric, rule.normaliser, rule.extract, evaluate.pass_k],
        "code": to_json(evaluate.code),
    }
    path = f"values/{name}.parquet"
    if out.finished(name, parts) is None:
        with out.shard(name, parts) as shard:
            shard.write_table(path, predictions.VALUES, predictions.values(valuing, answered))
        out.add(shard.record)
    rows: list[dict[str, Any]] = read_table(out.directory / path).to_pylist()
    return rows
