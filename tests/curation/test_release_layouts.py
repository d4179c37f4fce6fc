"""What full releases hold and small samples do not: Hub folders, nested columns, ids over several files, contents in parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chat_files import TREE, flat, read_one
from native_files import folder, lines, read_all, write

from taskmill.curation.reader import SourceFolder, load_reader
from taskmill.curation.sources import _files, _records
from taskmill.errors import DataError


def table(root: Path, name: str, rows: list[dict[str, Any]], **settings: Any) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    keys = sorted({key for row in rows for key in row})
    pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in keys}), root / name, **settings)


# -------------------------------------------------------------------------------------- names of tasks and splits

SHARDS = ("{}/train-00000-of-00001-b42a.parquet", "{}/validation-00000-of-00001-134b.parquet")


@pytest.mark.parametrize(
    ("reader", "row"),
    [
        ("dialogue", {"turns": ["Hi.", "Hello."]}),
        ("dolly", {"instruction": "a", "context": "", "response": "b", "category": "c"}),
        ("unifiedskg", {"text_in": "a", "struct_in": "b", "seq_out": "c"}),
    ],
)
def test_shards_of_the_hub_are_one_task_with_their_splits(
    tmp_path: Path, reader: str, row: dict[str, Any]
) -> None:
    for place in ("up/pets/data", "up/pets"):
        for name in SHARDS:
            table(tmp_path, name.format(place), [row])
        (found,) = read_all(reader, folder(tmp_path, place)).items()
        assert found[0] == "pets" and found[1].columns.upstream_split == ["train", "validation"]
        for name in SHARDS:
            (tmp_path / name.format(place)).unlink()
    table(tmp_path, "up/pets/default/train/0000.parquet", [row])
    (found,) = read_all(reader, folder(tmp_path, "up/pets/default/train")).items()
    assert found[0] == "pets" and found[1].columns.upstream_split == ["train"]


def test_the_top_folder_of_a_repository_goes_by_its_name(tmp_path: Path) -> None:
    root = tmp_path / "5f0c/files"
    for name in SHARDS:
        table(root, name.format("data"), [{"turns": ["Hi.", "Hello."]}])
    source = SourceFolder(root / "data", root, {}, "stop", name="pets")
    assert [entry.name for entry in load_reader("dialogue").discover(source)] == ["pets"]


def test_ids_that_count_anew_in_every_file(tmp_path: Path) -> None:
    row = {"id": 0, "instruction": "a", "output": "b"}
    write(tmp_path, {"up/x_train.jsonl": lines(row), "up/x_test.jsonl": lines(row)})
    data = read_all("alpaca", folder(tmp_path, "up"))["x"]
    assert data.columns.upstream_id == ["x_test-0", "x_train-0"]
    table(tmp_path, "p/train-00000-of-00002.parquet", [row])
    table(tmp_path, "p/train-00001-of-00002.parquet", [{**row, "id": 1}])
    assert read_all("alpaca", folder(tmp_path, "p"))["p"].columns.upstream_id == ["0", "1"]


# ------------------------------------------------------------------------------------------------ large Parquet


def test_lists_that_nobody_asks_for_are_not_read(tmp_path: Path) -> None:
    solutions = {"language": [3, 1], "solution": ["good", "other"]}
    row = {
        "name": "n",
        "description": "d",
        "public_tests": {"input": ["1"]},
        "solutions": solutions,
        "private_tests": {"input": ["2"]},
        "generated_tests": {"input": ["3"] * 9},
    }
    table(tmp_path, "up/code_contests/data/train-00000-of-00001.parquet", [row])
    path = tmp_path / "up/code_contests/data/train-00000-of-00001.parquet"
    form = _records.Format("parquet", wanted=frozenset({"solutions"}))
    (record,) = _records.read_records(form, path, folder(tmp_path, "up"))
    assert record.value == {"name": "n", "description": "d", "solutions": solutions}
    (data,) = read_all("code", folder(tmp_path, "up", casts="code_contests")).values()
    assert data.columns.references == [["good"]]
    assert data.columns.fields[0]["public_tests"] == {"input": ["1"]}
    rows = [{**message, "labels": {"name": ["spam"], "value": [0.5]}} for message in flat(TREE)]
    table(tmp_path, "up/oasst.parquet", rows)
    data = read_all("oasst", folder(tmp_path, "up/oasst.parquet"))["oasst"]
    assert len(data.columns) == 2 and all('"labels"' not in left.raw for left in data.aside)


def test_long_rows_are_read_few_at_a_time(tmp_path: Path) -> None:
    table(tmp_path, "x.parquet", [{"text": str(n) + "x" * 100_000} for n in range(40)], compression="none")
    with pq.ParquetFile(tmp_path / "x.parquet") as file:
        assert 100 < _records._rows_at_once(file.metadata) < 200
    table(tmp_path, "y.parquet", [{"text": "a"}])
    with pq.ParquetFile(tmp_path / "y.parquet") as file:
        assert _records._rows_at_once(file.metadata) == _records.BATCH_ROWS


# ------------------------------------------------------------------------------------------------------ JSON


def test_long_numbers_within_texts_do_not_slow_json_down(monkeypatch: pytest.MonkeyPatch) -> None:
    if _files.orjson is None:
        pytest.skip("without orjson")
    slow: list[Any] = []
    monkeypatch.setattr(_files.json, "loads", lambda raw: slow.append(raw))
    for text in ("12345678901234567890, and on", 'a "12345678901234567890" b\\', "3.12345678901234567890"):
        assert _files.parse_json(json.dumps({"a": [text, 1]}).encode()) == {"a": [text, 1]}
    assert _files.parse_json(b'{"a": 0.12345678901234567890}') is None
    _files.parse_json(b'{"a": ["x", -12345678901234567890]}')
    assert len(slow) == 2


def test_an_object_that_spans_lines_is_no_json_lines(tmp_path: Path) -> None:
    for reader in ("dialogue", "flan", "alpaca"):
        write(tmp_path, {"up/x.json": '{"a":\n1}'})
        with pytest.raises(DataError, match="does not hold a list of records"):
            read_all(reader, folder(tmp_path, "up"))
    rows = [{"inputs": "a", "targets": "b", "task_name": "t"}]
    for content in (json.dumps(rows), json.dumps(rows, indent=1), lines(*rows)):
        write(tmp_path, {"up/x.json": content})
        assert read_all("flan", folder(tmp_path, "up"))["t"].columns.references == [["b"]]


# ----------------------------------------------------------------------------------------------- conversations


def said(*contents: Any, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": c} for n, c in enumerate(contents)], **more}


def test_contents_in_parts(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Look:"}, {"type": "text", "text": "a cat."}]
    data = read_one("sharegpt", tmp_path, lines(said(parts, "Nice."), said(["Hi"], [])))
    assert [fields["turns"] for fields in data.columns.fields] == [
        [{"user": "Look:\na cat."}, {"assistant": "Nice."}],
        [{"user": "Hi"}, {"assistant": ""}],
    ]
    image = [*parts, {"type": "image_url", "image_url": {"url": "x"}}]
    data = read_one("sharegpt", tmp_path, lines(said(image, "Nice.")), on_error="skip")
    assert [(left.reason, "messages.0.content.2" in left.detail) for left in data.aside] == [
        ("not_text", True)
    ]


@pytest.mark.parametrize("name", ["system", "system_prompt", "system_message"])
def test_every_name_of_a_system_text(tmp_path: Path, name: str) -> None:
    rows = [said("Hi", "Hello", **{name: "Be kind."}), said("Hi", "Hello", **{name: None})]
    data = read_one("sharegpt", tmp_path, lines(*rows))
    assert [[*fields["turns"][0]] for fields in data.columns.fields] == [["system"], ["user"]]


def test_a_function_call_is_a_call(tmp_path: Path) -> None:
    row = said("Weigh it.", None)
    row["messages"][1]["function_call"] = {"name": "weigh", "arguments": "{}"}
    row["messages"].insert(0, {"role": "developer", "content": "Be brief."})
    (fields,) = read_one("sharegpt", tmp_path, lines(row)).columns.fields
    assert [*map(list, fields["turns"])] == [["system"], ["user"], ["call"]]
    assert json.loads(fields["turns"][2]["call"]) == {"name": "weigh", "arguments": "{}"}


def test_a_task_field_in_a_json_document(tmp_path: Path) -> None:
    rows = [said("a", "b", source=name, id="7") for name in ("x", "y", "x")]
    write(tmp_path, {"up/mini.json": json.dumps(rows)})
    found = read_all("sharegpt", folder(tmp_path, "up", task_field="source"))
    assert {name: data.columns.record for name, data in found.items()} == {"x": [0, 2], "y": [1]}
    assert found["y"].columns.upstream_id == ["7"]


def test_mmlu_as_the_hub_converts_it(tmp_path: Path) -> None:
    row = {"question": "Who?", "choices": ["a", "b", "c", "d"], "answer": 1}
    for name in ("law/test/0000", "law/dev/0000", "all/test/0000", "birds/validation-00000-of-00001"):
        table(tmp_path, f"up/{name}.parquet", [row])
    found = read_all("mmlu", folder(tmp_path, "up"))
    splits = {name: data.columns.upstream_split for name, data in found.items()}
    assert splits == {"mmlu_law": ["demonstration", "test"], "mmlu_birds": ["validation"]}
