"""Merging: from a task as its upstream states it to rows of the catalogue, with each lost record accounted for.

Reads the TaskData of a reader, returns rows of tasks/tasks, tasks/templates and tasks/dropped, and the columns of
tasks/examples that need no look at words (`batches.py` adds those). In order: records that no table can hold are kept
aside, then duplicates, then what is over `max_examples`, then what is over `limit`. kept + dropped = read, always.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from taskmill.curation.contents import Drop, Records, encode
from taskmill.curation.licenses import spdx
from taskmill.curation.places.locating import Origin
from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.taxonomy import canonical
from taskmill.digests import canonical_json, digest
from taskmill.errors import DataError
from taskmill.leaves import sides_reader
from taskmill.records import SCHEMAS
from taskmill.seeding import smallest

FACTS = {*SCHEMAS["tasks/tasks"].names, "shape"}
SURVIVAL = ("test", "validation", "demonstration", "train", None)
"""Of duplicates the one whose upstream split comes first here survives: the evaluation copy."""
NOTES = ("example_kind", "explanation")
"""Fields that annotate a demonstration and are no part of its input."""


@dataclass(frozen=True)
class TaskPlan:
    """A task before it is read, and what is known of it beside its upstream records."""

    task: str
    benchmark: str
    name: str
    reader: str
    source: SourceFolder
    entry: TaskEntry
    row: Mapping[str, Any]
    """Its columns of the taxonomy."""
    revision: str
    """Digest of its upstream files."""
    origin: Origin = field(default_factory=Origin)
    """Where its source comes from, as the recipe says or a Hub repository's card."""
    stays: bool = False
    """Whether it is kept though another benchmark has its data set; see `pinned`."""


@dataclass(frozen=True)
class Limits:
    """How many examples of a task are kept."""

    seed: int
    max_examples: int
    """On rows whose upstream split is train or null."""
    limit: int | None
    """Per upstream split, for a quick look."""


@dataclass
class Texts:
    """The texts of examples, end to end: of each its input fields, its options by text, then its output."""

    leaves: list[str] = field(default_factory=list)
    num_inputs: list[int] = field(default_factory=list)
    """Per example: texts of fields outside `output_fields`."""
    num_options: list[int] = field(default_factory=list)
    num_outputs: list[int] = field(default_factory=list)
    """Per example: references, and texts of fields under `output_fields`."""


@dataclass(frozen=True)
class MergedTask:
    """One task's rows for each table, before its words were looked at."""

    row: dict[str, Any]
    """Lacks `num_groups`, `largest_group`, `shard` and `first_row`."""
    columns: dict[str, list[Any]]
    """Of tasks/examples, by id; lacks `task`, `group` and `normalised`."""
    keys: list[str | None]
    """Upstream's group of each example."""
    texts: Texts
    templates: list[dict[str, Any]]
    dropped: list[dict[str, Any]]


def merge_task(
    plan: TaskPlan, data: TaskData, defaults: Mapping[str, str], aliases: Mapping[str, str], limits: Limits
) -> MergedTask:
    """Turn one task's upstream records into rows.

    Args:
        plan: the task.
        data: what its reader read.
        defaults: `style` and `kind` of its reader.
        aliases: other names of data sets.
        limits: how many examples are kept.

    Raises:
        DataError: a record that no table can hold while the recipe says stop, or facts that are not JSON.
    """
    records = encode(plan.task, data.columns, stops=plan.source.on_error == "stop")
    _drop_duplicates(records)
    _drop_over_max_examples(records, limits)
    _drop_over_limit(records, limits)
    places = sorted(records.kept(), key=records.ids.__getitem__)
    templates = _templates(plan, data)
    dropped = _dropped_rows(plan, data, records)
    assert len(places) + len(dropped) == num_read(data), f"{plan.task}: kept + dropped is not read"
    row = _task_row(plan, data, records, defaults, aliases)
    row |= {"num_read": num_read(data), "num_kept": len(places)}
    row["num_rendered_templates"] = data.num_rendered_templates
    keys = [data.columns.group[i] for i in places]
    texts = _texts(data.columns, places, row["output_fields"])
    return MergedTask(row, _columns(records, places), keys, texts, templates, dropped)


def num_read(data: TaskData) -> int:
    """Return how many records a reader has read."""
    return len(data.columns) + len(data.aside)


def leave_task(
    plan: TaskPlan, data: TaskData, reason: str, detail: str, twin: str | None = None
) -> list[dict[str, Any]]:
    """Return the dropped rows of a task of which nothing is kept, all its usable records for the same reason."""
    records = encode(plan.task, data.columns, stops=plan.source.on_error == "stop")
    records.dropped.update(dict.fromkeys(records.kept(), Drop(reason, detail, twin)))
    return _dropped_rows(plan, data, records)


def dataset_of(plan: TaskPlan, data: TaskData, aliases: Mapping[str, str]) -> str:
    """Return the canonical data set of a task: the taxonomy's, else upstream's, else its name."""
    return canonical(plan.row.get("dataset") or data.facts.get("dataset") or plan.name, aliases)


def license_of(plan: TaskPlan, data: TaskData) -> tuple[str, str]:
    """Return (SPDX expression or `unknown`, on what ground) of a task."""
    speakers = [dict(plan.row), _facts(data), _card(plan.origin)]
    said = next((said for said in speakers if "license" in said), _said(plan, data))
    default = "the taxonomy" if "license" in plan.row else "not stated by the source"
    return spdx(said.get("license")), said.get("license_evidence", default)


# ------------------------------------------------------------------------------------ what is not kept


def _drop_duplicates(records: Records) -> None:
    """Keep of the records of equal content the evaluation copy with the lowest id."""
    if len(set(records.contents)) == len(records.contents):
        return
    same: dict[bytes, list[int]] = {}
    for i in records.kept():
        same.setdefault(records.contents[i], []).append(i)
    splits = records.columns.upstream_split
    for places in same.values():
        if len(places) > 1:
            survivor = min(places, key=lambda i: (SURVIVAL.index(splits[i]), records.ids[i]))
            split = splits[survivor] or "not stated"
            drop = Drop(
                "duplicate", f"equal content; the survivor's upstream split: {split}", records.ids[survivor]
            )
            records.dropped.update({i: drop for i in places if i != survivor})


def _drop_over_max_examples(records: Records, limits: Limits) -> None:
    splits = records.columns.upstream_split
    places = [i for i in records.kept() if splits[i] in (None, "train")]
    _keep_smallest(records, places, limits.max_examples, limits.seed, "max_examples")


def _drop_over_limit(records: Records, limits: Limits) -> None:
    if limits.limit is None:
        return
    by_split: dict[str | None, list[int]] = {}
    for i in records.kept():
        by_split.setdefault(records.columns.upstream_split[i], []).append(i)
    for places in by_split.values():
        _keep_smallest(records, places, limits.limit, limits.seed, "limit")


def _keep_smallest(records: Records, places: list[int], most: int, seed: int, reason: str) -> None:
    if len(places) <= most:
        return
    chosen = {places[p] for p in smallest(most, seed, reason, [records.ids[i] for i in places])}
    drop = Drop(reason, f"{most} of {len(places)} are kept")
    records.dropped.update({i: drop for i in places if i not in chosen})


def _dropped_rows(plan: TaskPlan, data: TaskData, records: Records) -> list[dict[str, Any]]:
    rows = [
        _dropped_row(plan.task, None, Drop(d.reason, d.detail, raw=_storable(d.raw)), d.file, d.record)
        for d in data.aside
    ]
    columns = records.columns
    for i, drop in sorted(records.dropped.items()):
        rows.append(_dropped_row(plan.task, records.ids[i] or None, drop, columns.file[i], columns.record[i]))
    return rows


def _dropped_row(task: str, example: str | None, drop: Drop, file: str, record: int) -> dict[str, Any]:
    return {
        "stage": "curate",
        "task": task,
        "example": example,
        "template": None,
        "reason": drop.reason,
        "twin": drop.twin,
        "detail": drop.detail,
        "raw": drop.raw,
        "file": file,
        "record": record,
    }


def _storable(raw: str) -> str:
    return raw.encode("utf-8", "backslashreplace").decode()


# ------------------------------------------------------------------------------------------------ rows


def _columns(records: Records, places: list[int]) -> dict[str, list[Any]]:
    """Return the columns of tasks/examples that need no look at words, of the records at these places."""
    columns = records.columns
    found: dict[str, list[Any]] = {
        "example": [records.ids[i] for i in places],
        "fields": [records.fields[i] for i in places],
        "content": [records.contents[i] for i in places],
    }
    for name in ("upstream_split", "references", "options", "quality", "file", "record"):
        column = getattr(columns, name)
        found[name] = [column[i] for i in places]
    return found


def _texts(columns: Columns, places: list[int], output_fields: list[str]) -> Texts:
    """Collect the texts of the examples at these places; what annotates a demonstration counts as output."""
    found, noted = Texts(), [*output_fields, *NOTES]
    plain, shown = sides_reader(output_fields), sides_reader(noted)
    splits, fields = columns.upstream_split, columns.fields
    leaves, num_inputs, num_options, num_outputs = (
        found.leaves,
        found.num_inputs,
        found.num_options,
        found.num_outputs,
    )
    for i in places:
        inputs, outputs = (shown if splits[i] == "demonstration" else plain)(fields[i])
        leaves += inputs
        if options := columns.options[i]:
            leaves += sorted(options)
        references = columns.references[i]
        leaves += references
        leaves += outputs
        num_inputs.append(len(inputs))
        num_options.append(len(options or ()))
        num_outputs.append(len(references) + len(outputs))
    return found


def _templates(plan: TaskPlan, data: TaskData) -> list[dict[str, Any]]:
    rows = []
    for template in data.templates:
        metadata = _json_text(plan, "template " + template["name"], template["metadata"])
        rows.append({**template, "metadata": metadata, "task": plan.task, "digest": digest(template)})
    rows.sort(key=lambda row: row["template"])
    repeated = [t for t, number in Counter(row["template"] for row in rows).items() if number > 1]
    if repeated:
        raise DataError(f"task {plan.task} has two templates {repeated[0]!r}")
    return rows


def _task_row(
    plan: TaskPlan,
    data: TaskData,
    records: Records,
    defaults: Mapping[str, str],
    aliases: Mapping[str, str],
) -> dict[str, Any]:
    """Merge what taxonomy, upstream and defaults say of a task; the first that speaks counts."""
    assert data.facts.keys() <= FACTS, (
        f"{plan.reader} states unknown facts {sorted(data.facts.keys() - FACTS)}"
    )
    said, facts = _said(plan, data), _facts(data)
    dataset = dataset_of(plan, data, aliases)
    style = said.get("style", defaults["style"])
    license, evidence = license_of(plan, data)
    choice = said.get("multiple_choice", _multiple_choice(data, records))
    metadata = {**facts.get("metadata", {}), **({"shape": said["shape"]} if "shape" in said else {})}
    row: dict[str, Any] = {
        "task": plan.task,
        "benchmark": plan.benchmark,
        "name": plan.name,
        "category": said.get("category", ""),
        "dataset": dataset,
        "family": said.get("family", dataset),
        "kind": said.get("kind", defaults["kind"]),
        "style": style,
        "demonstrations": _demonstrations(records),
        "metric": said.get("metric", "accuracy" if choice and style == "instance" else "rouge_l"),
        "multiple_choice": choice,
        "license": license,
        "license_evidence": evidence,
        "revision": plan.origin.revision or said.get("revision", plan.revision),
        "metadata": _json_text(plan, "metadata", metadata),
    }
    row |= {name: said.get(name, []) for name in ("corpora", "output_fields", "languages")}
    row["repository"] = plan.origin.repository or said.get("repository")
    optional = ("subtask", "definition", "upstream_role", "homepage")
    return row | {name: said.get(name) for name in optional}


def _facts(data: TaskData) -> dict[str, Any]:
    return {name: value for name, value in data.facts.items() if value not in (None, "", [])}


def _said(plan: TaskPlan, data: TaskData) -> dict[str, Any]:
    """Return what the repository's card, upstream and the taxonomy say of a task, the later the stronger."""
    return {**_card(plan.origin), **_facts(data), **plan.row}


def _card(origin: Origin) -> dict[str, Any]:
    """Return what a repository's card says of its licence: weaker than what its files say."""
    if origin.license is None:
        return {}
    return {"license": origin.license, "license_evidence": f"the card of {origin.repository}"}


def _multiple_choice(data: TaskData, records: Records) -> bool:
    """Return whether every example, demonstrations aside, or any template offers options."""
    options, splits = records.columns.options, records.columns.upstream_split
    offered = [bool(options[i]) for i in records.kept() if splits[i] != "demonstration"]
    return bool(offered and all(offered)) or any(template.get("choices") for template in data.templates)


def _demonstrations(records: Records) -> list[str]:
    """Return the ids of the positive demonstrations that upstream names, in its order."""
    columns = records.columns
    return [
        records.ids[i]
        for i in records.kept()
        if columns.upstream_split[i] == "demonstration"
        and columns.fields[i].get("example_kind", "positive") == "positive"
    ]


def _json_text(plan: TaskPlan, what: str, value: Any) -> str:
    try:
        return canonical_json(value).decode()
    except (TypeError, ValueError) as error:
        raise DataError(f"task {plan.task}: {what} is no JSON: {error}") from error
