"""Train and evaluation records about a ferry in every format, and how tests run `taskmill contamination` on them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from running import call

LONG = "the old ferry leaves the north quay at dawn and nobody waits for it"
UNICODE = "\u00c9t\u00e9 \u00e0 la mer: les bateaux \u2014 blancs et bleus \u2014 quittent le port avant l'aube d\u00e9j\u00e0"
TRAIN = [
    {"question": f"They say that {LONG.upper()}!", "answer": "so it is"},
    {"question": "What colour is the lighthouse on the western rock of the bay?", "answer": "red"},
    {"question": "Who sings?", "answer": "Gulls!"},
    {"question": UNICODE.lower().replace("\u2014", "\u2013"), "answer": "oui"},
    {"question": 'A "quoted", comma and\na second line', "answer": "fine"},
]
EVAL = [
    {"question": f"Well, {LONG}.", "answer": "true"},
    {"question": "How many masts does the schooner in the painting above the bar have?", "answer": "2"},
    {"question": "who sings", "answer": "gulls"},
    {"question": UNICODE, "answer": "non"},
]
KEPT = [TRAIN[1], TRAIN[4]]
"""What a copy without touched and equal records holds."""


def as_jsonl(rows: Sequence[dict[str, str]]) -> bytes:
    return b"".join(
        json.dumps(row, ensure_ascii=place % 2 == 0).encode() + b"\n" for place, row in enumerate(rows)
    )


def as_csv(rows: Sequence[dict[str, str]]) -> bytes:
    out = io.StringIO(newline="")
    table = csv.DictWriter(out, ["question", "answer"])
    table.writeheader()
    table.writerows(rows)
    return out.getvalue().encode()


def as_tsv(rows: Sequence[dict[str, str]]) -> bytes:
    lines = ["question\tanswer", *("\t".join(row.values()).replace("\n", " ") for row in rows)]
    return "\n".join(lines).encode()


def as_json(rows: Sequence[dict[str, str]]) -> bytes:
    return json.dumps(rows, indent=1, ensure_ascii=False).encode() + b"\n"


def as_parquet(rows: Sequence[dict[str, str]]) -> bytes:
    out = io.BytesIO()
    table = pa.Table.from_pylist(list(rows)).replace_schema_metadata({"made": "here"})
    pq.write_table(table, out, row_group_size=2, compression="gzip")
    return out.getvalue()


def as_txt(rows: Sequence[dict[str, str]]) -> bytes:
    return "".join(f"{row['question']}\n".replace("\na", " a") for row in rows).encode()


FORMATS: dict[str, Callable[[Sequence[dict[str, str]]], bytes]] = {
    "jsonl": as_jsonl,
    "json": as_json,
    "csv": as_csv,
    "tsv": as_tsv,
    "parquet": as_parquet,
    "txt": as_txt,
}


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def read(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    code, out, err = call(capsys, "contamination", *map(str, arguments), "--json")
    assert code == 0, err
    body: dict[str, Any] = json.loads(out)
    return body


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code, out, err = call(capsys, "contamination", *map(str, arguments))
    assert code in (1, 2) and not out and "Traceback" not in err, (out, err)
    return err
