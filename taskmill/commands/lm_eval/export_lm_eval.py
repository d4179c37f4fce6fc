"""The command `export lm-eval`: a run's evaluated tasks as tasks of the lm-evaluation-harness, which give its scores there.

Reads the prompts, the catalogue, the tokenizer and, where there are some, the scores; writes a folder for the harness's
`--include_path`: `tasks/` (YAML and scoring.py), `groups/`, `data/`, `scores.json` with the run's own scores by the names
in the harness, `README.md` with the command to use, and `export.json`, written last. docs/lm-eval.md says more.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from taskmill import recipe_files
from taskmill.commands.export_folder import claim, finish
from taskmill.commands.figures import counted, words
from taskmill.commands.finished import FinishedRun
from taskmill.commands.lm_eval.bundling import bundle
from taskmill.commands.lm_eval.contexts import HarnessTokenizer, open_harness_tokenizer
from taskmill.commands.lm_eval.expected import own_scores
from taskmill.commands.lm_eval.keys import HARNESS_VERSION
from taskmill.commands.lm_eval.layout import (
    DATA,
    GROUPS,
    SCORING,
    TASKS,
    Names,
    data_file,
    group_files,
    name_all,
    task_file,
)
from taskmill.commands.lm_eval.leaves import Group, Leaf, corpora, factors, groups_of
from taskmill.commands.lm_eval.readme import readme
from taskmill.commands.lm_eval.rows import FREE, RANKED, Asked, Counts, generation, leaf_rows
from taskmill.errors import StaleError, TaskmillError
from taskmill.evaluation.aggregation.nodes import Place
from taskmill.evaluation.asking.prompts import find_places, metric_of, read_prompts
from taskmill.evaluation.asking.rules import COLUMNS, Rule, resolve
from taskmill.plain import build
from taskmill.recipe import Evaluate
from taskmill.recipe_evaluate import runs_code
from taskmill.storage import FileEntry, TableWriter, canonical_json, read_json, remove, write_bytes

FORMAT_VERSION = 1
_KIND = b"lm-eval\n"
_HEADER = "Rows and metrics of the tasks beside this file, for the lm-evaluation-harness; written by `taskmill export lm-eval`."
_CARDS = ("README.md", "scores.json", f"{TASKS}/{SCORING}.py")
Row = dict[str, Any]


@dataclass
class _Export:
    """An export under way."""

    found: FinishedRun
    folder: Path
    name: str
    evaluate: Evaluate
    seed: int
    tokenizer: HarnessTokenizer
    places: dict[str, Place] = field(default_factory=dict)
    num_rows: dict[Leaf, int] = field(default_factory=dict)
    generation: dict[Leaf, Row] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    entries: list[FileEntry] = field(default_factory=list)


def export_lm_eval(run: Path, folder: Path, as_json: bool) -> None:
    """Export a run's evaluated tasks into a folder and print what came of it.

    Raises:
        UsageError: the run lacks a stage, or the folder holds other files.
        StaleError: the scores are not of the prompts.
        TaskmillError: no prompt can be exported.
        StorageError: the folder cannot be written.
        MissingPackageError: the package tokenizers is absent.
    """
    body = write_export(run, folder)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **body}, sort_keys=True))
        return
    counts = body["counts"]
    click.echo(f"{counted(counts['tasks'], 'tasks')}, {counted(counts['groups'], 'groups')} of the harness")
    for name, number in counts.items():
        if number and name not in ("tasks", "groups"):
            click.echo(f"{words(name)}: {number:,}")
    for reason, number in body["left_out"].items():
        click.echo(f"left out, {words(reason)}: {number:,}")
    click.echo(f"{folder / 'README.md'}")


def write_export(run: Path, folder: Path) -> Row:
    """Write the folder and return the content of its export.json; see `export_lm_eval`."""
    found = FinishedRun(run)
    for stage in ("curate", "split", "render", "tokenize"):
        found.require(stage)
    export = _open(found, folder)
    earlier = claim(folder, run, _KIND, _written)
    for path in sorted(earlier):
        remove(folder / path)
    _write_rows(export)
    if not export.num_rows:
        raise TaskmillError(_nothing(export))
    groups = groups_of(export.places, export.num_rows)
    names = name_all(export.name, export.num_rows, groups)
    metrics = {leaf: _metric(export, leaf) for leaf in export.num_rows}
    _write_yaml(export, groups, names, metrics)
    return _finish(export, groups, names, metrics)


def _open(found: FinishedRun, folder: Path) -> _Export:
    """Return an export that has written nothing; where the run has scores, with the settings that they were made with."""
    resolved = recipe_files.from_json(found.run)
    evaluate, seed = resolved.recipe.evaluate, resolved.recipe.seed
    if found.has("evaluate"):
        body = found.manifests["evaluate"].body
        _check_fresh(found, body["inputs"])
        evaluate, seed = build(Evaluate, body["settings"]["evaluate"]), int(body["seed"])
    tokens = found.inputs.directory("tokenize")
    tokenizer = open_harness_tokenizer(
        tokens / "tokenizer", int(read_json(tokens / "tokens.json")["max_length"])
    )
    return _Export(found, folder, resolved.recipe.name, evaluate, seed, tokenizer)


def _check_fresh(found: FinishedRun, scored: list[Row]) -> None:
    """Check that the scores are of the prompts that there are; `scored` is what they were made of.

    Raises:
        StaleError: they are not.
    """
    for table in found.inputs.identity((("curate", "tasks"), ("render", "prompts"))):
        if table not in scored:
            raise StaleError(
                f"the {table['table']} of {found.run} have changed since its scores were made: run "
                f"`{found.command('evaluate')}` first"
            )


def _written(folder: Path) -> list[str]:
    """Return the names of files that an export may have written."""
    names = list(_CARDS)
    for part, end in ((TASKS, "yaml"), (GROUPS, "yaml"), (DATA, "parquet")):
        names += [f"{part}/{path.name}" for path in (folder / part).glob(f"taskmill_*.{end}")]
    return names


# ------------------------------------------------------------------------------------------------ rows


def _write_rows(export: _Export) -> None:
    """Write the rows of every leaf, a task at a time, under the names that leaves have in the end."""
    inputs = export.found.inputs
    tasks = inputs.table("curate", "tasks", list(COLUMNS))
    facts = {row["task"]: row for row in tasks.to_pylist()}
    asked = list(find_places(inputs, export.evaluate, export.seed))
    export.rules = resolve(export.evaluate, tasks, [place.task for place in asked])
    for place in asked:
        prompts = read_prompts(place)
        row = {**facts[place.task], "level": prompts[0]["level"]}
        export.places[place.task] = Place(**{name: row[name] for name in Place.__annotations__})
        rule = export.rules[place.task]
        for shots in rule.shots:
            _write_task(export, rule, prompts, shots)


def _write_task(export: _Export, rule: Rule, prompts: list[Row], shots: int) -> None:
    kept = [row for row in prompts if not runs_code(metric_of(rule, row))]
    if len(kept) < len(prompts):
        export.counts.left_out["metric_runs_code"] += len(prompts) - len(kept)
    asked = Asked(export.tokenizer, rule, export.evaluate.normalisation, export.counts)
    generated = generation(asked, kept, export.evaluate.sampling)
    for leaf, rows in leaf_rows(asked, kept, shots).items():
        if not leaf.ranked:
            export.generation[leaf] = generated
        export.num_rows[leaf] = len(rows)
        path = data_file(leaf)
        with TableWriter(export.folder / path, RANKED if leaf.ranked else FREE, path) as writer:
            writer.write(rows)
        assert writer.entry is not None, "set when the table is closed"
        export.entries.append(writer.entry)


def _nothing(export: _Export) -> str:
    if not export.counts.left_out:
        return f"there is no {export.evaluate.split} prompt to export; `taskmill inspect RUN render` shows what there is"
    why = ", ".join(
        f"{number:,} {words(reason)}" for reason, number in sorted(export.counts.left_out.items())
    )
    return f"every prompt was left out ({why})"


# ------------------------------------------------------------------------------------------------ YAML


def _write_yaml(export: _Export, groups: list[Group], names: Names, metrics: dict[Leaf, str]) -> None:
    """Write tasks, groups and the Python file that the tasks use."""
    version, shares, whole = _version(export.found), factors(groups), corpora(export.num_rows)
    files: list[tuple[str, bytes]] = []
    for leaf in sorted(export.num_rows):
        columns = {**_columns(export, leaf), "name": metrics[leaf], "corpus": leaf in whole}
        columns["shares"] = dict(sorted(shares[leaf].items()))
        files.append(task_file(names.leaf(leaf), leaf, export.generation.get(leaf), columns, version))
    files += group_files(groups, names, version)
    functions = ["rows", "ranked", "generated", "corpus"]
    files.append(
        (f"{TASKS}/{SCORING}.py", bundle("taskmill.commands.lm_eval.scoring", functions, _HEADER).encode())
    )
    for path, data in files:
        _write_file(export, path, data)


def _write_file(export: _Export, path: str, data: bytes) -> None:
    export.entries.append(replace(write_bytes(export.folder / path, data), path=path))


def _version(found: FinishedRun) -> str:
    """Return what identifies the benchmark: the first digits of the digest of its splits."""
    return found.manifests["split"].root[:12]


def _metric(export: _Export, leaf: Leaf) -> str:
    """Return what the harness calls the metric of a leaf."""
    if leaf.ranked and export.evaluate.normalisation == "unconditional":
        return "acc_mutual_info"  # under this name alone the harness asks for options without their prompt
    return "acc" if leaf.metric == "accuracy" else leaf.metric


def _columns(export: _Export, leaf: Leaf) -> Row:
    """Return how all answers of a leaf are valued, as columns of its rows."""
    rule = export.rules[leaf.task]
    extract = "whole" if leaf.ranked else rule.extract
    return {"metric": leaf.metric, "normaliser": rule.normaliser or "", "extract": extract}


# --------------------------------------------------------------------------------------------- results


def _finish(export: _Export, groups: list[Group], names: Names, metrics: dict[Leaf, str]) -> Row:
    """Write the scores of the run, README.md and export.json, and return the content of the last."""
    found = export.found
    scores = own_scores(found, metrics, groups, names)
    if scores:
        _write_file(export, "scores.json", canonical_json(scores) + b"\n")
    counts = {key: value for key, value in asdict(export.counts).items() if key != "left_out"}
    body = {
        "format": FORMAT_VERSION,
        "harness": HARNESS_VERSION,
        "group": names.root,
        "counts": {"tasks": len(export.num_rows), "groups": len(groups) + 1, **counts},
        "left_out": dict(sorted(export.counts.left_out.items())),
    }
    text = readme(found, names, body, export.tokenizer.max_length, export.evaluate)
    _write_file(export, "README.md", text.encode())
    stages = ("curate", "split", "render", "tokenize", "evaluate")
    return finish(export.folder, found, stages, export.entries, body)
