"""Chat and instruction readers on the real files: every record against an independent reading."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from native_files import folder, read_all


def parse(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8")
    return (
        json.loads(text)
        if path.suffix == ".json"
        else [json.loads(line) for line in text.split("\n") if line]
    )


def test_real_alpaca(shared_data: Path) -> None:
    for path, names in [
        ("alpaca", ["alpaca_data_cleaned_first_1000"]),
        ("code_alpaca", ["code_alpaca_2k", "new_codealpaca"]),
        ("llama_factory/alpaca_en_demo.json", ["alpaca_en_demo"]),
    ]:
        found = read_all("alpaca", folder(shared_data, f"chat/{path}"))
        assert list(found) == names
        for data in found.values():
            raw = parse(shared_data / data.columns.file[0])
            assert len(data.columns) == len(raw) and not data.aside
            for row, fields, references in zip(raw, data.columns.fields, data.columns.references):
                assert (fields["instruction"], fields.get("input", ""), references[0]) == (
                    row["instruction"],
                    row["input"],
                    row["output"],
                )


def test_real_sharegpt(shared_data: Path) -> None:
    roles = {"human": "user", "gpt": "assistant", "function_call": "call", "observation": "tool"}
    for path in ("sharegpt/dummy_conversation.json", "llama_factory/glaive_toolcall_en_demo.json"):
        raw = parse(shared_data / "chat" / path)
        (data,) = read_all("sharegpt", folder(shared_data, f"chat/{path}")).values()
        assert len(data.columns) == len(raw) and not data.aside
        for row, fields in zip(raw, data.columns.fields):
            assert fields["turns"] == [{roles[turn["from"]]: turn["value"]} for turn in row["conversations"]]
            assert fields.get("tools") == row.get("tools")
        (data,) = read_all("sharegpt", folder(shared_data, f"chat/{path}", rules="tulu")).values()
        plain = [row for row in raw if {turn["from"] for turn in row["conversations"]} == {"human", "gpt"}]
        assert (len(data.columns), len(data.aside)) == (len(plain), len(raw) - len(plain))
    assert len(set(data.columns.group)) == 1


def leaf_paths(found: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    above = (*above, found["text"])
    for reply in found["replies"]:
        yield from leaf_paths(reply, above)
    if not found["replies"]:
        yield above, found["role"]


def test_real_oasst(shared_data: Path) -> None:
    found = read_all("oasst", folder(shared_data, "chat/oasst"))
    trees = parse(shared_data / "chat/oasst/en_100_tree.jsonl")
    paths = [path for tree in trees for path in leaf_paths(tree["prompt"])]
    for name in ("en_100_tree", "en_100_message"):
        data = found[name]
        texts = [
            tuple(next(iter(turn.values())) for turn in fields["turns"]) for fields in data.columns.fields
        ]
        assert texts == [path for path, role in paths if role == "assistant"] and len(texts) == 400
        assert Counter(left.reason for left in data.aside) == {"no_answer": len(paths) - 400}
    every = read_all("oasst", folder(shared_data, "chat/oasst/en_100_tree.jsonl", paths="all_assistant"))
    text = (shared_data / "chat/oasst/en_100_tree.jsonl").read_text(encoding="utf-8")
    assert len(every["en_100_tree"].columns) == text.count('"role": "assistant"') == 687
    for name, number in (("en_100_text", 100), ("prompt_lottery_en_250_text", 250)):
        assert Counter(left.reason for left in found[name].aside) == {"no_answer": number}
        assert not found[name].columns.fields
    raw = parse(shared_data / "chat/oasst/realistic_seed_data.json")
    answered = {row["parent_message_id"] for row in raw}
    leaves = [row for row in raw if row["user_message_id"] not in answered]
    data = found["realistic_seed_data"]
    assert len(data.columns) + len(data.aside) == len(leaves)
    assert Counter(left.reason for left in data.aside) == {"tree_not_ready": 18}
    parents = {row["user_message_id"]: row for row in raw}
    for fields, name in zip(data.columns.fields, data.columns.upstream_id):
        row = parents[str(name)]
        for turn in reversed(fields["turns"]):
            assert turn == {{"prompter": "user"}.get(row["role"], row["role"]): row["text"]}
            row = parents.get(row["parent_message_id"], {})
        assert row == {}


def test_real_dolly_and_self_instruct(shared_data: Path) -> None:
    raw = parse(shared_data / "chat/dolly/dolly.json")
    data = read_all("dolly", folder(shared_data, "chat/dolly"))["dolly"]
    assert [
        (f["instruction"], f.get("input", ""), r)
        for f, r in zip(data.columns.fields, data.columns.references)
    ] == [(row["instruction"], row["context"], [row["response"]]) for row in raw]
    assert data.facts["metadata"]["categories"] == Counter(row["category"] for row in raw)
    found = read_all("self_instruct", folder(shared_data, "chat/self_instruct"))
    found |= {
        "code": read_all("self_instruct", folder(shared_data, "chat/code_alpaca/seed_tasks.jsonl"))[
            "seed_tasks"
        ]
    }
    assert {name: len(data.columns) for name, data in found.items()} == {
        "seed_tasks": 175,
        "user_oriented_instructions": 252,
        "code": 21,
    }
    for data in found.values():
        rows = parse(shared_data / data.columns.file[0])
        for row, fields, references, group in zip(
            rows, data.columns.fields, data.columns.references, data.columns.group, strict=True
        ):
            (instance,) = row["instances"]
            assert fields == {key: row[key] for key in ["instruction"]} | (
                {"input": instance["input"]} if instance["input"] else {}
            )
            assert (references, group) == ([instance["output"]], row["id"]) and not data.aside
    predictions = read_all("self_instruct", folder(shared_data, "chat/self_instruct/predictions"))
    assert [Counter(left.reason for left in data.aside) for data in predictions.values()] == [
        {"prediction": 252}
    ] * 2
