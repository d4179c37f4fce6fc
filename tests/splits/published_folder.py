"""A published benchmark made by hand: Parquet files with a few rows and the body of their manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.records import PUBLISHED, SPLITS
from taskmill.splits.publishing.describing.citations import citations
from taskmill.splits.publishing.published import TABLE_NAMES, data_path, ids_path, rows_root, table_path
from taskmill.storage import FileEntry, TableWriter

PLACES = {
    ("held_out", "test"): 3,
    ("held_out", "demonstration"): 2,
    ("held_out", "excluded"): 1,
    ("supervised", "train"): 4,
    ("supervised", "validation"): 2,
    ("supervised", "test"): 2,
    ("train", "train"): 5,
    ("train", "excluded"): 1,
}
HOSTILE = "a|b\n---\n: <script>alert(1)</script> `x` [l](http://e.org) *b* \\| ``` {{x}} \u202e\u0007 -->"


def publish(
    folder: Path, with_data: bool = False, places: Mapping[tuple[str, str], int] = PLACES, **changes: Any
) -> dict[str, Any]:
    """Write the Parquet files of a benchmark and return the body of its manifest.

    Args:
        folder: to be written to.
        with_data: publish prompts beside the ids.
        places: (configuration, split) -> examples.
        changes: keys of the body that are others.
    """
    files, levels = [], dict[str, dict[str, int]]()
    for (configuration, split), number in places.items():
        levels.setdefault(configuration, {})[split] = number
        path = ids_path(configuration, split)
        files.append(write(folder, path, PUBLISHED["ids"], id_rows(configuration, split, number)))
        for part in range(2 if with_data and split != "excluded" else 0):
            path = data_path(configuration, split, part, 2)
            rows = prompt_rows(configuration, split, number, part)
            files.append(write(folder, path, PUBLISHED["prompts"], rows))
    for name in TABLE_NAMES:
        files.append(write(folder, table_path(name), PUBLISHED[name], table_rows(name)))
    return body(files, levels, with_data) | changes


def body(files: Iterable[FileEntry], levels: Mapping[str, Any], with_data: bool) -> dict[str, Any]:
    entries = sorted(files, key=lambda entry: entry.path)
    with_digest = {"name": "a.json", "bytes": 9, "sha256": "5" * 64, "records": 20}
    return {
        "format": "taskmill-benchmark",
        "version": 1,
        "name": "harbour",
        "root": rows_root(entries, "ids", "tables"),
        "prompts_root": rows_root(entries, "data") if with_data else None,
        "mode": "with-data" if with_data else "ids-only",
        "taskmill": {"version": "0.8.0", "revisions": {"curate": 7, "overlap": 5, "split": 4}},
        "built": "2026-01-31",
        "built_with": {"python": "3.11.7", "libraries": {"pyarrow": "26.0.1"}},
        "seed": 1,
        "recipe": {"name": "harbour"},
        "recipe_digest": "0" * 64,
        "extends": None,
        "sources": [
            {
                "source": 0,
                "reader": "super_natural_instructions",
                "benchmark": "super_natural_instructions",
                "hub": None,
                "repository": "allenai/natural-instructions",
                "revision": "v2.6",
                "path": "sni",
                "license": None,
                "files": [with_digest],
            },
            {
                "source": 1,
                "reader": "table",
                "benchmark": None,
                "hub": "ann/tickets@" + "c" * 40,
                "repository": None,
                "revision": "c" * 40,
                "path": ".",
                "license": "MIT",
                "files": [with_digest | {"records": None}],
            },
        ],
        "levels": levels,
        "tasks": {"held_out": 1, "supervised": 1, "train": 2},
        "leakage": {
            "threshold": 0.01,
            "num_pairs": 12,
            "states": {"below": 9, "rule": 2, "person": 1},
            "num_unclean": 1,
            "num_unclean_rare": 0,
            "kept": [kept()],
            "num_kept": 1,
        },
        "licenses": [
            {"license": "Apache-2.0", "num_tasks": 3, "num_examples": 15, "with_data": with_data},
            {"license": "unknown", "num_tasks": 1, "num_examples": 3, "with_data": False},
        ],
        "citations": citations(["super_natural_instructions", "gsm8k"]),
        "overlap": {
            "n": 13,
            "normalisation": "words-1",
            "frequent_groups": 50,
            "near_duplicates": {"threshold": 0.8, "num_perm": 128, "seed": 1},
        },
        "stages": {},
        "files": [vars(entry) for entry in entries],
    }


def kept(**changes: Any) -> dict[str, Any]:
    pair = {"train_task": "p/train", "eval_task": "p/test", "level": "held_out", "hit_fraction": 0.25}
    return pair | {"hit_fraction_rare": 0.0004, "by": "rule", "why": "other answers"} | changes


def id_rows(configuration: str, split: str, number: int) -> list[dict[str, Any]]:
    return [
        {
            "example": f"p/{configuration}#{split}-{index}",
            "task": f"p/{configuration}",
            "level": None if configuration == "train" else configuration,
            "split": split,
            "group": 2**63 + index,
            "record": index,
            "clean": index != 0,
        }
        for index in range(number)
    ]


def prompt_rows(configuration: str, split: str, number: int, part: int) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"{row['example']}@{part}",
            "example": row["example"],
            "split": split,
            "input": HOSTILE,
            "text": "Q: 1\nA: 2",
            "ends": [6, 10],
            "kinds": ["input", "output"],
            "trained": [False, True],
            "references": ["2"],
            "demonstrations": [],
            "loss_weight": 0.5,
        }
        for row in id_rows(configuration, split, number)
    ]


def table_rows(name: str) -> list[dict[str, Any]]:
    rows: dict[str, list[dict[str, Any]]] = {
        "tasks": [
            {"task": "p/train", "languages": ["English", "German"]},
            {"task": "p/test", "level": "partial"},
        ],
        "pairs": [
            {"train_task": "p/train", "eval_task": "p/test", "hit_fraction": 0.25, "same_dataset": True}
        ],
        "drops": [{"stage": "curate", "record": 3}, {"stage": "split", "example": "p/x#1"}],
    }
    return rows.get(name, [])


def write(folder: Path, path: str, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> FileEntry:
    """Write rows; columns that a row lacks are empty."""
    full = [{field.name: row.get(field.name, _empty(field)) for field in schema} for row in rows]
    with TableWriter(folder / path, schema, path) as writer:
        writer.write(pa.Table.from_pylist(full, schema=schema))
    assert writer.entry is not None
    return writer.entry


def _empty(field: pa.Field) -> Any:
    if field.nullable:
        return None
    if pa.types.is_list(field.type):
        return []
    if pa.types.is_string(field.type):
        return ""
    return False if pa.types.is_boolean(field.type) else 0


assert {split for _, split in PLACES} <= set(SPLITS)
