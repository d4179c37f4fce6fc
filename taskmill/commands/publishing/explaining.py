"""In what a rebuilt benchmark differs from the published one: the first record, both values, and why. Writes nothing.

Tables are looked at in the order in which a run makes them, from the first stage whose digest is another one, so that what is
named first is a cause and not its consequence.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill import __version__
from taskmill.artifact import Inputs
from taskmill.errors import shorten
from taskmill.records import PUBLISHED
from taskmill.splits.publishing.comparing.matching import Matched, match
from taskmill.splits.publishing.published import Published, table_path
from taskmill.splits.publishing.writing.tables import hex_column, joined_ids
from taskmill.stages import STAGES

KEYS = {
    "ids": ("task", "example"),
    "templates": ("task", "template"),
    "tasks": ("task",),
    "frequent": ("gram",),
    "near_duplicates": ("task", "example", "survivor"),
    "pairs": ("train_task", "eval_task"),
    "decisions": ("train_task", "eval_task"),
    "drops": ("stage", "task", "example", "reason", "file", "record"),
}
"""Columns that name a row of each table, in the order in which a run makes the tables."""
CURATED = ("example", "task", "upstream_split", "group", "file", "record", "content", "normalised")
"""Columns of ids that the stage curate states."""
_CAUSES = (
    "content",
    "normalised",
    "group",
    "upstream_split",
    "file",
    "record",
    "assigned",
    "action",
    "evidence",
)
"""Columns that are named before others that follow from them."""
_KEY = "\x00key"
_NULL = "\x01"


@dataclass(frozen=True)
class Difference:
    """The first record in which two benchmarks differ."""

    table: str
    change: str
    """`changed`, `missing` (only in the published one) or `additional`."""
    key: dict[str, Any]
    """What names the record."""
    columns: list[dict[str, Any]]
    """{column, published, rebuilt} of each column that differs, the cause first; none unless the record changed."""
    counts: dict[str, int]
    """Records of the table that are changed, missing and additional."""
    file: str | None = None
    """Upstream file and record that it was read from, where that is known."""

    def lines(self) -> list[str]:
        """Return it in words."""
        where = ", ".join(f"{name} {value}" for name, value in self.key.items() if value is not None)
        if self.change == "changed":
            said = [
                f"{c['column']}: published {shorten(c['published'])}, rebuilt {shorten(c['rebuilt'])}"
                for c in self.columns
            ]
            head = f"{self.table}: {where}: {said[0]}"
            rest = [f"  {line}" for line in said[1:]]
        else:
            side = "published, not rebuilt" if self.change == "missing" else "rebuilt, not published"
            head, rest = f"{self.table}: {where}: {side}", []
        return [head, *rest, *([f"  read from {self.file}"] if self.file else [])]


def first_difference(name: str, before: pa.Table, after: pa.Table) -> Difference | None:
    """Return the first record, in the order of the tables, in which two tables with the same columns differ."""
    keys = KEYS[name]
    found = match(_keyed(before, keys), _keyed(after, keys), [_KEY])
    columns = [column for column in before.column_names if column not in keys]
    mask = found.differ(*columns) if columns and found.before.num_rows else pa.array([], pa.bool_())
    counts = {
        "changed": pc.sum(mask, min_count=0).as_py(),
        "missing": len(found.gone),
        "additional": len(found.added),
    }
    if not any(counts.values()):
        return None
    candidates: list[tuple[tuple[int, str], str, dict[str, Any]]] = []
    order = {key: number for number, key in enumerate(_keyed(before, keys)[_KEY].to_pylist())}
    if counts["changed"]:
        first = pc.index(mask, True).as_py()
        row = found.before.slice(first, 1).to_pylist()[0]
        candidates.append(((order[row[_KEY]], ""), "changed", row))
    if counts["missing"]:
        row = found.gone.slice(0, 1).to_pylist()[0]
        candidates.append(((order[row[_KEY]], ""), "missing", row))
    if counts["additional"]:
        row = found.added.slice(0, 1).to_pylist()[0]
        candidates.append(((len(order), row[_KEY]), "additional", row))
    _, change, row = min(candidates, key=lambda one: one[0])
    differing = _columns(found, mask, columns) if change == "changed" else []
    file = (
        f"{row['file']}, record {row['record']}" if {"file", "record"} <= row.keys() and row["file"] else None
    )
    return Difference(name, change, {key: row[key] for key in keys}, differing, counts, file)


def _keyed(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Return the table with one text more, which names each row; of rows with the same keys also the number."""
    parts = [pc.fill_null(table[key].cast(pa.string()).combine_chunks(), _NULL) for key in keys]
    text = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, "\x00")
    if pc.count_distinct(text).as_py() < len(text):
        seen: Counter[str] = Counter()
        names = []
        for name in text.to_pylist():
            names.append(f"{name}\x00{seen[name]}")
            seen[name] += 1
        text = pa.array(names, pa.string())
    return table.append_column(_KEY, text)


def _columns(found: Matched, mask: pa.Array, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return {column, published, rebuilt} of the first row of `mask`, the cause first."""
    first = pc.index(mask, True).as_py()
    ours, theirs = (side.slice(first, 1).to_pylist()[0] for side in (found.before, found.after))
    differing = [name for name in columns if ours[name] != theirs[name]]
    differing.sort(key=lambda name: _CAUSES.index(name) if name in _CAUSES else len(_CAUSES))
    return [{"column": name, "published": ours[name], "rebuilt": theirs[name]} for name in differing]


def curated_ids(inputs: Inputs) -> pa.Table:
    """Return what the stage curate states of each example, as `ids` has it, sorted by task and example."""
    table = inputs.table("curate", "examples", CURATED).select(CURATED)
    for name in ("content", "normalised"):
        place = table.column_names.index(name)
        table = table.set_column(place, name, hex_column(table[name]))
    schema = pa.schema([PUBLISHED["ids"].field(name) for name in CURATED])
    return table.cast(schema).sort_by([("task", "ascending"), ("example", "ascending")])


# ------------------------------------------------------------------------------------------- two whole


def explain(
    published: Published, tables: Mapping[str, pa.Table], roots: Mapping[str, str]
) -> list[Difference]:
    """Return the first difference of each table that differs, the first cause first.

    Args:
        published: the benchmark.
        tables: those of the new run, by path.
        roots: of the stages of the new run.
    """
    stage = first_stage(published, roots)
    found = []
    for name in KEYS:
        if name == "ids":
            before, after = published.ids(), joined_ids(tables)
        else:
            before, after = published.table(name), tables[table_path(name)]
        difference = first_difference(name, before, after)
        if difference is not None:
            found.append(difference)
    causes = {"overlap": ("frequent", "near_duplicates", "pairs"), "split": ("decisions",)}.get(
        stage or "", ()
    )
    return sorted(found, key=lambda one: one.table not in causes)


def explain_early(published: Published, inputs: Inputs) -> list[Difference]:
    """Return what differs in a run whose split waits for decisions: examples, then pairs and their evidence."""
    found = [first_difference("ids", published.ids(list(CURATED)), curated_ids(inputs))]
    pairs = inputs.table("overlap", "pairs")
    pairs = pairs.set_column(pairs.column_names.index("evidence"), "evidence", hex_column(pairs["evidence"]))
    names = [name for name in PUBLISHED["pairs"].names if name in pairs.column_names]
    found.append(
        first_difference("pairs", published.table("pairs", names).select(names), pairs.select(names))
    )
    return [difference for difference in found if difference is not None]


def first_stage(published: Published, roots: Mapping[str, str]) -> str | None:
    """Return the first stage whose digest is not the published one, or None."""
    stated = published.body["stages"]
    return next(
        (stage for stage, root in roots.items() if stage in stated and stated[stage]["root"] != root), None
    )


def reasons(published: Published, roots: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Return why a rebuild from the same upstream files may differ, the likeliest first.

    Args:
        published: the benchmark.
        roots: of the stages of the new run.
        names: tables that differ.
    """
    found: list[str] = []
    stated = published.body["taskmill"]
    for stage, then in stated["revisions"].items():
        now = revision_of(stage)
        if now != then:
            found.append(
                f"the stage {stage} has revision {now} in this version of Taskmill ({__version__}) and had {then} in the one "
                f"that published it ({stated['version']}): install taskmill {stated['version']} and rebuild in a new directory"
            )
    stage = first_stage(published, roots)
    if stage is None:
        return [
            *found,
            "every stage has the digest that the manifest states, so the published tables are not what these stages give: they "
            "were changed after they were made, or made by another version",
        ]
    found.append(f"{stage} is the first stage whose digest is another one; the upstream files are the same")
    if "decisions" in set(names) and stage == "split":
        found.append("other pairs were decided, or otherwise: see the table decisions")
    if stated["version"] != __version__ and len(found) == 1:
        found.insert(0, f"Taskmill {stated['version']} published it, and this is {__version__}")
    found += _libraries(published.body["built_with"]["libraries"])
    return found


def _libraries(then: Mapping[str, str]) -> list[str]:
    """Return one line about the libraries that have another version here."""
    changed = []
    for name in ("numpy", "pyarrow", "jinja2", "tokenizers", "transformers"):
        try:
            now = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if name in then and then[name] != now:
            changed.append(f"{name} {then[name]} then, {now} now")
    return [f"libraries differ: {'; '.join(changed)}"] if changed else []


def revision_of(stage: str) -> int:
    """Return the revision of a stage in this version."""
    module = next(one.module for one in STAGES if one.name == stage)
    revision: int = importlib.import_module(module).REVISION
    return revision
