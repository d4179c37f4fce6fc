"""Chat and instruction readers: each published form field by field, their rules and options."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chat_files import (
    ALPACA,
    BAIZE,
    DOLLY,
    SEED,
    SEEDS,
    SHAREGPT,
    TREE,
    UNNATURAL,
    flat,
    message,
    read_one,
    turns,
)
from native_files import folder, lines, read_all, write

from taskmill.curation.reader import TaskData, load_reader
from taskmill.errors import DataError, RecipeError, TaskmillError

# ------------------------------------------------------------------------------------ each form, field by field


def test_alpaca(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"up/a_train.json": json.dumps(ALPACA), "up/b.jsonl.gz": gzip.compress(lines(*ALPACA[:2]).encode())},
    )
    write(tmp_path, {"up/seed_tasks.jsonl": lines(SEED)})
    found = read_all("alpaca", folder(tmp_path, "up"))
    assert list(found) == ["a", "b"]
    data = found["a"]
    assert data.columns.fields == [
        {"instruction": "Name a river."},
        {"instruction": "Count the letters.", "input": "plum"},
        {"instruction": "Say nothing."},
        {"instruction": "Greet."},
    ]
    assert data.columns.references == [["The Weser."], ["4"], [""], ["Hello <b>you</b>"]]
    assert data.columns.upstream_split == ["train"] * 4 and data.columns.record == [0, 1, 2, 3]
    assert data.facts["metadata"] == {"shape": "instruction", "keys_not_read": {"text": 1, "topic": 1}}
    assert data.facts["category"] == "Instruction Following"
    assert (
        found["b"].columns.fields == data.columns.fields[:2]
        and found["b"].columns.upstream_split == [None] * 2
    )


def test_alpaca_leaves_out_what_is_more_than_an_instruction(tmp_path: Path) -> None:
    rows = [
        {**ALPACA[0], "system": "", "history": []},
        {**ALPACA[0], "history": [["a", "b"]]},
        {**ALPACA[0], "system": "x"},
    ]
    data = read_one("alpaca", tmp_path, lines(*rows))
    assert len(data.columns) == 1
    assert [(left.reason, left.record) for left in data.aside] == [
        ("not_single_turn", 1),
        ("not_single_turn", 2),
    ]


def test_sharegpt(tmp_path: Path) -> None:
    data = read_one("sharegpt", tmp_path, json.dumps(SHAREGPT), "set.json")
    assert data.columns.fields == [
        {
            "turns": turns(
                ("user", "Who mends <p>kettles</p>?"),
                ("assistant", "A tinker."),
                ("user", "And clocks?"),
                ("assistant", "A clockmaker."),
            )
        },
        {"turns": turns(("user", "Go on"), ("assistant", "Done"))},
        {
            "turns": turns(
                ("system", "Be brief."),
                ("user", "Weigh it."),
                ("call", '[{"name": "weigh", "arguments": {"of": "it"}}]'),
                ("tool", "3 kg"),
                ("assistant", "It weighs 3 kg."),
            ),
            "tools": '[{"name": "weigh"}]',
        },
        {
            "turns": turns(
                ("user", "Look it up"),
                ("call", '{"name": "look"}'),
                ("tool", "found"),
                ("assistant", "Here."),
            ),
            "tools": "[]x",
        },
    ]
    assert data.columns.references == [[]] * 4
    assert data.columns.upstream_id == ["Q7plumX_0", "Q7plumX_4", "17", None]
    assert data.columns.group == ["Q7plumX", "Q7plumX", "17", None]
    assert data.facts["output_fields"] == ["turns.assistant", "turns.call"]
    assert data.facts["category"] == "Conversation" and data.facts["metadata"]["shape"] == "turns"
    assert not data.aside


def test_sharegpt_from_parquet_in_both_layouts(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    said = [
        [{"from": "human", "value": "Up?"}, {"from": "gpt", "value": "Down."}],
        [{"from": "gpt", "value": "x"}],
    ]
    apart = [{key: [turn[key] for turn in row] for key in ("from", "value")} for row in said]
    (tmp_path / "up").mkdir()
    for rows in (said, apart):
        pq.write_table(
            pa.table({"conversations": rows, "id": ["a", "b"]}), tmp_path / "up/train-00000-of-00001.parquet"
        )
        data = read_all("sharegpt", folder(tmp_path, "up", task="talks"))["talks"]
        assert data.columns.fields == [
            {"turns": turns(("user", "Up?"), ("assistant", "Down."))},
            {"turns": turns(("assistant", "x"))},
        ]
        assert data.columns.upstream_split == ["train"] * 2
    assert list(read_all("sharegpt", folder(tmp_path, "up"))) == ["up"]


def conversation(*speakers: str, **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": f"{n} {who}"} for n, who in enumerate(speakers)], **more}


@pytest.mark.parametrize(
    ("speakers", "keep", "tulu"),
    [
        (["human", "gpt"], 2, 2),
        (["human", "gpt", "human"], 3, 2),
        (["gpt", "human", "gpt"], 3, "not_alternating"),
        (["gpt", "human"], 2, "not_alternating"),
        (["human", "gpt", "gpt", "human"], 4, "not_alternating"),
        (["system", "human", "gpt"], 3, "system_turn"),
        (["human", "bing"], 2, "bing_turn"),
        (["human", "bard"], 2, "other_turn"),
        (["human", "function_call", "observation", "gpt"], 4, "other_turn"),
        (["human"], "no_answer", "no_answer"),
        (["gpt"], 1, "no_answer"),
        ([], "no_turns", "no_turns"),
    ],
)
def test_sharegpt_rules(tmp_path: Path, speakers: list[str], keep: int | str, tulu: int | str) -> None:
    for rules, wanted in (("keep", keep), ("tulu", tulu)):
        data = read_one("sharegpt", tmp_path, lines(conversation(*speakers)), rules=rules)
        found = [len(fields["turns"]) for fields in data.columns.fields] + [
            left.reason for left in data.aside
        ]
        assert found == [wanted]
    assert data.facts["metadata"].get("left_out", {}) == (
        {"unpaired_last_turn": 1} if tulu == 2 != keep else {}
    )


def test_sharegpt_groups_are_conversations(tmp_path: Path) -> None:
    rows = [
        *(conversation("human", "gpt", id=f"abc_{n}") for n in (0, 3, 6)),  # in order, and never overlapping
        *(conversation("human", "gpt", id=f"identity_{n}") for n in (0, 1, 2)),  # only numbered
        *(conversation("human", "gpt", id=f"i6IyJda_{n}") for n in (0, 1)),  # a ShareGPT id
        conversation("human", "gpt", id="abc_3"),  # an id again
        conversation("human", "gpt", id="alone_4"),
        conversation("human", "gpt"),
    ]
    columns = read_one("sharegpt", tmp_path, lines(*rows)).columns
    assert columns.group[3:8] == ["identity_0", "identity_1", "identity_2", "i6IyJda", "i6IyJda"]
    assert columns.group[:3] == ["abc"] * 3 and columns.group[8:] == ["abc", "alone_4", None]
    assert columns.upstream_id[8] == "abc_3" and len(columns) == len(rows)


def test_sharegpt_by_task_field(tmp_path: Path) -> None:
    rows = [conversation("human", "gpt", source=name, id=str(n)) for n, name in enumerate("baab")]
    write(tmp_path, {"up/one.jsonl": lines(*rows, conversation("human", "gpt")) + "{broken\n"})
    write(
        tmp_path,
        {"up/two.json": json.dumps([conversation("human", "gpt", source="c"), 5]), "up/gone.json": ""},
    )
    with pytest.raises(DataError, match="not valid JSON"):
        read_all("sharegpt", folder(tmp_path, "up", task_field="source"))
    found = read_all("sharegpt", folder(tmp_path, "up", on_error="skip", task_field="source"))
    assert {name: data.columns.record for name, data in found.items()} == {
        "a": [1, 2, 4],
        "b": [0, 3],
        "c": [0],
    }
    aside = {name: [(left.file, left.record) for left in data.aside] for name, data in found.items()}
    assert aside == {"a": [("up/one.jsonl", 5), ("up/gone.json", 0)], "b": [], "c": [("up/two.json", 1)]}
    with pytest.raises(DataError, match="no record names its task"):
        load_reader("sharegpt").discover(folder(tmp_path, "up", task_field="origin"))


def oasst_paths(data: TaskData) -> tuple[list[str], Counter[str]]:
    return [
        " / ".join(next(iter(turn.values())) for turn in f["turns"]) for f in data.columns.fields
    ], Counter(left.reason for left in data.aside)


LEAVES = (
    ["Which bird sings? / The thrush. / Why? / To be heard.", "Which bird sings? / Some."],
    Counter(no_answer=1, deleted=1, rejected=1),
)


@pytest.mark.parametrize("form", ["tree", "nested", "flat", "parquet"])
def test_oasst_paths(tmp_path: Path, form: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    nested = {**TREE["prompt"], "parent_id": None}
    rows = {"tree": [TREE], "nested": [nested], "flat": list(flat(TREE)), "parquet": list(flat(TREE))}[form]
    write(tmp_path, {"up/set.jsonl": lines(*rows)})
    name = "up/set.jsonl"
    if form == "parquet":
        name = "up/set.parquet"
        keys = sorted({key for row in rows for key in row})
        pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in keys}), tmp_path / name)

    def read(**options: Any) -> TaskData:
        return read_all("oasst", folder(tmp_path, name, **options))["set"]

    data = read()
    assert oasst_paths(data) == LEAVES
    assert data.columns.group == ["p1", "p1"] and sorted(map(str, data.columns.upstream_id)) == ["a4", "a6"]
    assert data.columns.fields[1] == {"turns": turns(("user", "Which bird sings?"), ("assistant", "Some."))}
    assert data.facts["languages"] == ["English", "German"]
    every, left = oasst_paths(read(paths="all_assistant"))
    assert left == Counter(deleted=1, rejected=1)
    assert [path.rpartition(" / ")[2] for path in every] == [
        "The wren.",
        "The thrush.",
        "To be heard.",
        "Some.",
    ]
    assert oasst_paths(read(paths="top_reply")) == (LEAVES[0][:1], Counter())
    english, left = oasst_paths(read(languages=["en"]))
    assert english == LEAVES[0][1:] and left == Counter(no_answer=1, deleted=1, rejected=1, language=1)
    assert oasst_paths(read(languages=["en"], paths="top_reply")) == ([], Counter(language=1))
    classes = read(quality={"field": "rank", "map": {0: "GPT4"}, "default": "GPT3"}).columns.quality
    assert classes == ["GPT4", "GPT3"]


def test_oasst_trees_that_are_not_ready_and_prompts_alone(tmp_path: Path) -> None:
    waiting = {**TREE, "tree_state": "prompt_lottery_waiting"}
    data = read_one("oasst", tmp_path, lines(waiting, "Nobody answers", message("p9", "Nor here")))
    assert oasst_paths(data) == ([], Counter(tree_not_ready=5, no_answer=2))


def test_oasst_messages_without_a_place(tmp_path: Path) -> None:
    rows = [*flat(TREE)]
    rows += [
        {**rows[1], "text": "again"},
        message("a8", "lost", parent_id="p77"),
        message("p9", "of the lost", parent_id="a8"),
        message("p10", "round", parent_id="a11"),
        message("a11", "and round", parent_id="p10"),
        {**rows[0], "message_id": None},
    ]
    for row in rows:
        row.pop("replies", None)
    data = read_one("oasst", tmp_path, lines(*rows), on_error="skip")
    paths, left = oasst_paths(data)
    assert sorted(paths) == sorted(LEAVES[0])
    assert left == LEAVES[1] + Counter(duplicate_id=1, missing_parent=1, circle=2, wrong_type=1)
    (lost,) = (aside for aside in data.aside if aside.reason == "missing_parent")
    assert "of the lost" in lost.raw
    with pytest.raises(DataError, match=r"set\.jsonl, record"):
        read_one("oasst", tmp_path, lines(*rows))


def test_oasst_reads_deep_trees(tmp_path: Path) -> None:
    names = [f"{'ap'[n % 2]}{n}" for n in range(5000)]
    rows = [
        {"message_id": name, "parent_id": names[n - 1] if n else None, "text": name, "role": "assistant"}
        for n, name in enumerate(names)
    ]
    (fields,) = read_one("oasst", tmp_path, lines(*rows)).columns.fields
    assert [turn["assistant"] for turn in fields["turns"]] == names


def test_dolly(tmp_path: Path) -> None:
    for name, content in (("set.json", json.dumps(DOLLY)), ("set.jsonl", lines(*DOLLY))):
        data = read_one("dolly", tmp_path, content, name, quality="human")
        assert data.columns.fields == [
            {"instruction": "Who wrote it?", "input": "It was written by Ann."},
            {"instruction": "List two trees."},
        ]
        assert data.columns.references == [["Ann"], ["Oak, elm"]] and data.columns.quality == ["human"] * 2
        assert data.facts["metadata"]["categories"] == {"brainstorming": 1, "closed_qa": 1}


def test_baize(tmp_path: Path) -> None:
    data = read_one("baize", tmp_path, json.dumps(BAIZE), "set.json")
    assert data.columns.fields == [
        {
            "turns": turns(
                ("user", "How hot?"),
                ("assistant", "Very."),
                ("user", "Then?"),
                ("assistant", "Wait."),
                ("assistant", "Drink."),
            )
        }
    ]
    assert [(left.reason, left.record) for left in data.aside] == [("no_answer", 1)]
    assert data.facts["metadata"]["left_out"] == {"preamble": 2, "round_without_answer": 2}


def test_self_instruct(tmp_path: Path) -> None:
    data = read_one(
        "self_instruct", tmp_path, lines(*SEEDS["self_instruct"], {**SEED, "id": 4, "instances": []})
    )
    assert data.columns.fields == [
        {"instruction": "Compare the sizes.", "input": "ant, cow"},
        {"instruction": "Compare the sizes."},
        {"instruction": "Count the letters.", "input": "plum"},
        {"instruction": "Task:"},
    ]
    assert data.columns.references == [["cow"], ["equal"], ["4"], ["Done"]]
    assert data.columns.group == ["seed_task_x", "seed_task_x", None, None]
    assert data.columns.upstream_id == ["seed_task_x-0", "seed_task_x-1", None, None]
    assert [(left.reason, left.record) for left in data.aside] == [("prediction", 3), ("no_instances", 4)]
    assert data.facts["metadata"] == {
        "shape": "instruction",
        "num_classification": 2,
        "applications": {"Scales": 2},
    }


def test_unnatural_instructions(tmp_path: Path) -> None:
    data = read_one("unnatural_instructions", tmp_path, lines(UNNATURAL))
    assert data.columns.fields == [
        {"instruction": "Find the odd one.\nAnswer with a letter.", "input": "a, a, b"},
        {"instruction": "Find the odd one.", "input": "1, 1, 2"},
        {"instruction": "Which is odd?", "input": "a, a, b"},
        {"instruction": "In a, b, which?"},
    ]
    assert data.columns.references == [["b"], ["2"], ["b"], ["b"]]
    assert data.columns.group == ["Find the odd one."] * 4 and data.columns.record == [0] * 4
    assert data.facts["metadata"] == {
        "shape": "instruction",
        "instances": 2,
        "reformulations": 2,
        "constraints_appended": 1,
    }


# --------------------------------------------------------------------------------------------------- options


def test_quality(tmp_path: Path) -> None:
    rule: dict[str, Any] = {"field": "model", "map": {"GPT-4": "GPT4", "GPT-3.5": "GPT3"}}
    data = read_one("sharegpt", tmp_path, lines(*SHAREGPT), quality={**rule, "default": "GPT3"})
    assert data.columns.quality == ["GPT4", "GPT3", "GPT3", "GPT3"]
    data = read_one("sharegpt", tmp_path, lines(*SHAREGPT), on_error="skip", quality=rule)
    assert data.columns.quality == ["GPT4", "GPT3"]
    assert [(left.reason, left.record) for left in data.aside] == [("bad_label", 2), ("missing_field", 3)]
    with pytest.raises(DataError, match=r"record 2, field 'model'.*'other'"):
        read_one("sharegpt", tmp_path, lines(*SHAREGPT), quality=rule)


@pytest.mark.parametrize("reader", sorted(SEEDS))
def test_every_reader_has_the_shared_options(tmp_path: Path, reader: str) -> None:
    write(tmp_path, {f"up/{part}/x.jsonl": lines(*SEEDS[reader]) for part in "ab"})
    write(tmp_path, {"up/notes.jsonl": "not read\n"})
    source = folder(tmp_path, "up", task="all", files=["a/*.jsonl", "b/x.jsonl"], quality="GPT4")
    data = read_all(reader, source)["all"]
    assert set(data.columns.quality) == {"GPT4"} and set(data.columns.file) == {
        "up/a/x.jsonl",
        "up/b/x.jsonl",
    }
    for options, text in [
        ({"task": ""}, "option task"),
        ({"task": 3}, "option task"),
        ({"files": "../x"}, "option files"),
        ({"files": ["/x"]}, "option files"),
        ({"files": [1]}, "option files"),
        ({"files": "c/*.jsonl"}, "no file matches"),
        ({"quality": 3}, "option quality"),
        ({"quality": {"field": "m"}}, "quality.map"),
        ({"quality": {"field": "m", "map": {"a": "b"}, "deflt": "x"}}, "did you mean 'default'"),
        ({"quality": {"field": "m", "map": {"a": "b"}, "default": 3}}, "quality.default"),
    ]:
        with pytest.raises(TaskmillError, match=text):
            load_reader(reader).discover(folder(tmp_path, "up", **options))


@pytest.mark.parametrize(
    ("reader", "options", "text"),
    [
        ("sharegpt", {"rules": "tülu"}, "did you mean 'tulu'"),
        ("sharegpt", {"rules": ["tulu"]}, "option rules"),
        ("sharegpt", {"task_field": ""}, "option task_field"),
        ("sharegpt", {"task_field": "source", "task": "x"}, "at most one"),
        ("oasst", {"paths": "leafs"}, "did you mean 'leaf'"),
        ("oasst", {"languages": "en"}, "option languages"),
        ("oasst", {"languages": []}, "option languages"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, reader: str, options: dict[str, Any], text: str) -> None:
    write(tmp_path, {"up/x.jsonl": lines(*SEEDS[reader])})
    with pytest.raises(RecipeError, match=text):
        load_reader(reader).discover(folder(tmp_path, "up", **options))
