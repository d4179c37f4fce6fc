"""Chat and instruction readers: damage stops or is kept aside, and of mutated messages none is lost."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from chat_files import ALPACA, DOLLY, SEED, SEEDS, TREE, UNNATURAL, flat, message, read_one
from mutations import mutated
from native_files import folder, lines, read_all, write

from taskmill.curation.reader import TaskData
from taskmill.errors import DataError, TaskmillError

# ---------------------------------------------------------------------------------------------------- damage


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


def said(*rows: Any) -> dict[str, Any]:
    return {"conversations": list(rows)}


HUMAN = {"from": "human", "value": "a"}
NAN = float("nan")
ALL_READERS = [
    ("x.jsonl", b"", "empty_file", 0),
    ("x.json", b" \n", "empty_file", 0),
    ("x.jsonl", b'{"a": \n', "bad_json", 0),
    ("x.jsonl", b'"\xff"\n', "bad_encoding", 0),
    ("x.jsonl", b"[]\n", "wrong_type", 0),
    ("x.jsonl", b"[" * 3000 + b"\n", "bad_json", 0),
    ("x.json", b"[" * 3000, "bad_json", 0),
    ("x.json", b'{"a":\n1}', "wrong_type", 0),
    ("x.json", b"[{}", "bad_json", 0),
    ("x.parquet", b"PAR1 no", "bad_parquet", 0),
    ("x.jsonl.gz", gzip.compress(b"x" * 999, mtime=0)[:-9], "bad_gzip", 0),
    ("x.csv", b"a,b\n1,2\n", "wrong_format", 0),
]
DAMAGES: list[tuple[str, Any, str, str]] = [
    ("alpaca", without(ALPACA[1], "output"), "missing_field", "'output'"),
    ("alpaca", {**ALPACA[1], "output": None}, "wrong_type", "'output'"),
    ("alpaca", {**ALPACA[1], "input": 5}, "wrong_type", "'input'"),
    ("alpaca", {**ALPACA[1], "instruction": NAN}, "wrong_type", "nan"),
    ("alpaca", {**ALPACA[1], "output": "\ud800"}, "bad_text", "surrogate"),
    ("alpaca", {"instructions": "a", "output": "b"}, "missing_field", "did you mean 'instructions'"),
    ("sharegpt", {"conversation_": []}, "missing_field", "conversations"),
    ("sharegpt", said(None), "wrong_type", "conversations.0"),
    ("sharegpt", {"conversations": "Hi"}, "wrong_type", "a list of objects"),
    ("sharegpt", said(HUMAN, {"from": "gpt", "value": None}), "wrong_type", "conversations.1.value"),
    ("sharegpt", said(HUMAN, {"from": "gtp", "value": "b"}), "unknown_role", "did you mean 'gpt'"),
    ("sharegpt", said(HUMAN, {"value": "b"}), "missing_field", "conversations.1.from"),
    ("sharegpt", said(HUMAN, {"role": 3, "content": "b"}), "wrong_type", "conversations.1.role"),
    ("sharegpt", {**said(HUMAN), "system": {}}, "wrong_type", "'system'"),
    ("sharegpt", {**said(HUMAN), "tools": [NAN]}, "wrong_type", "'tools'"),
    ("oasst", {**TREE, "prompt": None}, "wrong_type", "'prompt'"),
    ("oasst", {**TREE, "tree_state": [[]]}, "wrong_type", "tree_state"),
    ("oasst", {**TREE, "message_tree_id": NAN}, "wrong_type", "message_tree_id"),
    ("oasst", {"prompt": message("p", "x", {"text": "y"})}, "missing_field", "prompt.replies.0.role"),
    ("oasst", {"prompt": message("p", "x", role="ghost")}, "unknown_role", "prompt.role"),
    ("oasst", {"prompt": message("p", "x", message("a", "y", rank="1"))}, "wrong_type", "replies.0.rank"),
    ("oasst", {"prompt": message("p", "x", message("a", "y", deleted="no"))}, "wrong_type", "true, false"),
    ("oasst", {"prompt": message("p", "x", lang=3)}, "wrong_type", "lang"),
    ("oasst", {"prompt": {**message("p", "x"), "replies": {}}}, "wrong_type", "prompt.replies"),
    ("oasst", message("p", None), "wrong_type", "'text'"),  # type: ignore[arg-type]
    ("oasst", message("p", "x", message("a", "y"), parent_id="z"), "missing_parent", "parent_id"),
    ("dolly", without(DOLLY[0], "response"), "missing_field", "'response'"),
    ("dolly", {**DOLLY[0], "category": []}, "wrong_type", "'category'"),
    ("baize", {"topic": "x"}, "missing_field", "'input'"),
    ("baize", {"input": None}, "wrong_type", "'input'"),
    ("self_instruct", {**SEED, "instances": None}, "wrong_type", "'instances'"),
    ("self_instruct", {**SEED, "instances": [{"input": "a"}]}, "missing_field", "instances.0.output"),
    ("self_instruct", {**SEED, "instances": [[]]}, "wrong_type", "instances.0"),
    ("self_instruct", {"prompt": 5, "completion": "a"}, "wrong_type", "'prompt'"),
    ("unnatural_instructions", without(UNNATURAL, "instances"), "missing_field", "instances"),
    ("unnatural_instructions", {**UNNATURAL, "reformulations": 3}, "wrong_type", "reformulations"),
    ("unnatural_instructions", {"instruction": 3, "instances": []}, "wrong_type", "'instruction'"),
]


def check_damage(
    reader: str, root: Path, name: str, content: bytes, reason: str, record: int, text: str
) -> TaskData:
    """Stop with a message that names file and record, or keep one record aside."""
    write(root, {f"up/{name}": content})
    with pytest.raises(DataError) as stopped:
        read_all(reader, folder(root, f"up/{name}"))
    assert f"up/{name}" in str(stopped.value) and text in str(stopped.value), str(stopped.value)
    (data,) = read_all(reader, folder(root, f"up/{name}", on_error="skip")).values()
    assert [(left.reason, left.file, left.record) for left in data.aside] == [(reason, f"up/{name}", record)]
    return data


@pytest.mark.parametrize("reader", sorted(SEEDS))
def test_damaged_files(tmp_path: Path, reader: str) -> None:
    for name, content, reason, record in ALL_READERS:
        check_damage(reader, tmp_path, name, content, reason, record, "")


@pytest.mark.parametrize(("reader", "row", "reason", "text"), DAMAGES)
def test_damaged_records(tmp_path: Path, reader: str, row: Any, reason: str, text: str) -> None:
    good = SEEDS[reader][0]
    content = lines(good, row, good).encode()
    clean = read_one(reader, tmp_path, lines(good, good))
    write(tmp_path, {"up/x.jsonl": content})
    with pytest.raises(DataError) as stopped:
        read_all(reader, folder(tmp_path, "up/x.jsonl"))
    assert "up/x.jsonl, record 1" in str(stopped.value) and text in str(stopped.value), str(stopped.value)
    data = read_all(reader, folder(tmp_path, "up/x.jsonl", on_error="skip"))["x"]
    assert [left.reason for left in data.aside if left.record == 1] == [reason]
    assert data.columns.fields == clean.columns.fields


def test_a_damaged_instance_leaves_the_others(tmp_path: Path) -> None:
    row = {**SEED, "instances": [{"input": "a", "output": 1}, *SEED["instances"]]}  # type: ignore[misc]
    data = read_one("self_instruct", tmp_path, lines(row), on_error="skip")
    assert len(data.columns) == 2 and [left.reason for left in data.aside] == ["wrong_type"]
    changed = json.loads(json.dumps(UNNATURAL))
    del changed["instances"][0]["output"], changed["reformulations"][1]["instruction_with_input"]
    data = read_one("unnatural_instructions", tmp_path, lines(changed), on_error="skip")
    assert len(data.columns) == 2 and [left.reason for left in data.aside] == ["missing_field"] * 2


def test_values_nested_too_deeply_cost_one_record(tmp_path: Path) -> None:
    for depth in (500, 900, 990):
        deep = b"[" * depth + b"]" * depth
        for reader, key in (
            ("alpaca", "output"),
            ("sharegpt", "tools"),
            ("oasst", "replies"),
            ("dolly", "context"),
        ):
            good = SEEDS[reader][0]
            row = good.get("prompt", good)
            bad = json.dumps({**row, key: "DEEP"}).encode().replace(b'"DEEP"', deep)
            content = lines(good).encode() + bad + b"\n" + lines(good).encode()
            write(tmp_path, {"up/x.jsonl": content})
            data = read_all(reader, folder(tmp_path, "up/x.jsonl", on_error="skip"))["x"]
            assert {0, 2} <= {*data.columns.record}, (reader, depth)
            assert 1 in {*data.columns.record, *(left.record for left in data.aside)}


# ------------------------------------------------------------------------------------------------- mutations


def test_mutated_messages_of_flat_trees(tmp_path: Path) -> None:
    rows = [json.dumps(row).encode() for row in flat(TREE)]
    for number, line in enumerate(mutated(rows, 1500, 5)):
        mixed = [*rows]
        mixed[number % len(rows)] = line
        write(tmp_path, {"up/x.jsonl": b"\n".join(mixed)})
        data = read_all("oasst", folder(tmp_path, "up/x.jsonl", on_error="skip"))["x"]
        told = {*data.columns.record, *(left.record for left in data.aside)}
        for place, raw in enumerate(mixed):
            assert place in told or not raw.strip() or answered(raw, mixed), raw


def answered(raw: bytes, rows: list[bytes]) -> bool:
    """Whether another message replies to this one, so that no path ends here."""
    parents = set()
    for row in rows:
        try:
            parents.add(json.loads(row).get("parent_id"))
        except (ValueError, AttributeError, TypeError):
            continue
    return json.loads(raw)["message_id"] in parents


@pytest.mark.parametrize("reader", sorted(SEEDS))
def test_mutated_documents_raise_only_our_errors(tmp_path: Path, reader: str) -> None:
    document = json.dumps(SEEDS[reader]).encode()
    for line in mutated([document], 300, 9):
        write(tmp_path, {"up/x.json": line})
        for on_error in ("stop", "skip"):
            try:
                read_all(reader, folder(tmp_path, "up/x.json", on_error=on_error))
            except TaskmillError as error:
                assert on_error == "stop"
                str(error).encode("utf-8")
