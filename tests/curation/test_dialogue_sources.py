"""Readers of dialogues: SGD, QuAC and any list of turns, on files of our own and on the real ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from mutations import as_values, mutated, outcome, refuses_only_with_its_own_errors
from native_files import folder, lines, read_all, write

from taskmill.curation.reader import load_reader
from taskmill.errors import DataError, RecipeError

SGD = [
    {
        "dialogue_id": "1_00000",
        "services": ["Ferries_1"],
        "turns": [
            {"frames": [], "speaker": "USER", "utterance": "When does the ferry leave?"},
            {"frames": [{"service": "Ferries_1"}], "speaker": "SYSTEM", "utterance": "At nine."},
            {"frames": [], "speaker": "USER", "utterance": "Thank you."},
        ],
    },
    {
        "dialogue_id": "1_00001",
        "services": [],
        "turns": [{"frames": [], "speaker": "USER", "utterance": "Good day, I look for a café."}],
    },
]
QUAC_PARAGRAPH = {
    "context": "The mill was built of oak. It burnt down twice. CANNOTANSWER",
    "id": "C_mill_0",
    "qas": [
        {
            "question": "What was it built of?",
            "orig_answer": {"text": "oak", "answer_start": 22},
            "answers": [{"text": "of oak", "answer_start": 19}],
            "followup": "y",
            "yesno": "x",
            "id": "C_mill_0_q#0",
        },
        {
            "question": "By whom?",
            "answers": [{"text": "CANNOTANSWER", "answer_start": 48}, {"text": "nobody"}],
            "id": "C_mill_0_q#1",
        },
    ],
}
QUAC = {"data": [{"title": "The mill", "paragraphs": [QUAC_PARAGRAPH, {**QUAC_PARAGRAPH, "id": 7}]}]}


def test_sgd(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "sgd/train/dialogues_001.json": json.dumps(SGD),
            "sgd/train/schema.json": "[not read",
            "sgd/dev/dialogues_001.json.gz": gzip.compress(json.dumps(SGD[:1]).encode()),
        },
    )
    (data,) = read_all("sgd", folder(tmp_path, "sgd")).values()
    columns = data.columns
    assert columns.fields[0] == {
        "turns": [
            {"user": "When does the ferry leave?"},
            {"assistant": "At nine."},
            {"user": "Thank you."},
        ]
    }
    assert columns.upstream_id == columns.group == ["train-1_00000", "train-1_00001", "validation-1_00000"]
    assert columns.upstream_split == ["train", "train", "validation"]
    assert columns.references == [[], [], []] and columns.record == [0, 1, 0]
    assert data.facts["metadata"] == {"shape": "turns"} and not data.aside


def test_quac(tmp_path: Path) -> None:
    write(tmp_path, {"quac/val_v0.2.json": json.dumps(QUAC), "quac/quac_sample.json": json.dumps(QUAC)})
    (data,) = read_all("quac", folder(tmp_path, "quac")).values()
    assert data.columns.fields[0] == {
        "context": QUAC_PARAGRAPH["context"],
        "turns": [
            {"user": "What was it built of?"},
            {"assistant": "oak"},
            {"user": "By whom?"},
            {"assistant": "CANNOTANSWER"},
        ],
    }
    assert data.columns.upstream_split == [None, None, "validation", "validation"]
    assert data.columns.upstream_id == ["C_mill_0", "7", "C_mill_0", "7"]
    assert data.columns.group == [fields["context"] for fields in data.columns.fields]
    assert data.columns.record == [0, 1, 0, 1]


TURNS: list[tuple[str, Any, dict[str, Any], dict[str, Any]]] = [
    (
        "texts alone",
        {"turns": ["Hi.", "Hello.", "Bye."]},
        {},
        {"turns": [{"user": "Hi."}, {"assistant": "Hello."}, {"user": "Bye."}]},
    ),
    (
        "pairs of speaker and text",
        {"personas": ["I fish.", "I row."], "dialog": [[1, "Hi."], [0, "Hello."], [1, "Bye."]]},
        {"turns": "dialog", "speaker": "0", "text": "1", "context": "personas"},
        {"turns": [{"user": "Hi."}, {"assistant": "Hello."}, {"user": "Bye."}], "context": "I fish.\nI row."},
    ),
    (
        "objects with roles",
        {"dialog": [{"speaker": "0_Teacher", "text": "Ask."}, {"speaker": "1_Pupil", "text": "Why?"}]},
        {
            "turns": "dialog",
            "speaker": "speaker",
            "text": "text",
            "roles": {"*_Pupil": "user", "*_Teacher": "assistant"},
        },
        {"turns": [{"assistant": "Ask."}, {"user": "Why?"}]},
    ),
    (
        "turns left out",
        {"d7": {"log": [{"who": "A => B", "say": "Hi."}, {"who": "B => Search", "say": "x"}]}},
        {
            "turns": "log",
            "speaker": "who",
            "text": "say",
            "unwrap": True,
            "id": "id",
            "roles": {"* => Search": None, "A*": "user"},
        },
        {"turns": [{"user": "Hi."}]},
    ),
    (
        "two lists by turns",
        {"free": ["Hi.", "Bye."], "guided": ["Hello."]},
        {"turns": ["free", "guided"]},
        {"turns": [{"user": "Hi."}, {"assistant": "Hello."}, {"user": "Bye."}]},
    ),
]


@pytest.mark.parametrize(
    ("row", "options", "fields"), [case[1:] for case in TURNS], ids=[c[0] for c in TURNS]
)
def test_lists_of_turns(tmp_path: Path, row: Any, options: dict[str, Any], fields: Any) -> None:
    write(
        tmp_path,
        {"d/talk_train.jsonl": lines(row), "d/talk_valid.jsonl.gz": gzip.compress(lines(row).encode())},
    )
    (data,) = read_all("dialogue", folder(tmp_path, "d", **options)).values()
    assert data.columns.fields == [fields, fields]
    assert data.columns.upstream_split == ["train", "validation"]
    assert data.facts["dataset"] == "talk"
    write(tmp_path, {"e/talk.json": json.dumps([row, row])})
    (data,) = read_all("dialogue", folder(tmp_path, "e", **options)).values()
    assert data.columns.fields == [fields, fields] and data.columns.record == [0, 1]


def test_ids_and_groups_of_dialogues(tmp_path: Path) -> None:
    rows = [
        {"n": 5, "story": "s1", "turns": ["a"]},
        {"n": 5, "story": "s1", "turns": ["b"]},
        {"turns": ["c"]},
    ]
    write(tmp_path, {"d/t_train.jsonl": lines(*rows)})
    (data,) = read_all("dialogue", folder(tmp_path, "d", id="n")).values()
    assert data.columns.upstream_id == ["train-5", "train-5", None]
    assert data.columns.group == ["train-5", "train-5", None]
    (data,) = read_all("dialogue", folder(tmp_path, "d", group="story")).values()
    assert data.columns.group == ["train-s1", "train-s1", None]


def test_wrong_options_of_dialogues(tmp_path: Path) -> None:
    write(tmp_path, {"d/t.jsonl": lines({"turns": ["a"]})})
    for options, message in [
        ({"turns": 3}, "option turns"),
        ({"turns": []}, "option turns"),
        ({"speaker": ""}, "option speaker"),
        ({"unwrap": "yes"}, "option unwrap"),
        ({"roles": ["user"]}, "option roles"),
        ({"roles": {"A": "asistant"}, "speaker": "s"}, "did you mean 'assistant'"),
        ({"roles": {"A": "user"}}, "without the option speaker"),
    ]:
        with pytest.raises(RecipeError, match=message):
            load_reader("dialogue").discover(folder(tmp_path, "d", **options))


# ------------------------------------------------------------------------------------------- damage


def changed(document: Any, path: list[Any], value: Any) -> str:
    copy = json.loads(json.dumps(document))
    at = copy
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return json.dumps(copy)


SPEAKERS = {"speaker": "0", "text": "1"}
DAMAGES: list[tuple[str, str, str | bytes, str, int, str, dict[str, Any]]] = [
    ("sgd", "train/dialogues_001.json", b"", "empty_file", 0, "empty", {}),
    ("sgd", "train/dialogues_001.json", json.dumps(SGD)[:-9], "bad_json", 0, "not valid JSON", {}),
    ("sgd", "train/dialogues_001.json", b'[{"dialogue_id": "\xff"}]', "bad_json", 0, "utf-8", {}),
    ("sgd", "train/dialogues_001.json", "{}", "wrong_type", 0, "a list", {}),
    ("sgd", "train/dialogues_001.json", changed(SGD, [1], 3), "wrong_type", 1, "record 1", {}),
    ("sgd", "train/dialogues_001.json", changed(SGD, [1], {}), "missing_field", 1, "dialogue_id", {}),
    ("sgd", "train/dialogues_001.json", changed(SGD, [1, "turns"], []), "wrong_type", 1, "turns", {}),
    (
        "sgd",
        "train/dialogues_001.json",
        changed(SGD, [1, "turns", 0, "speaker"], "User"),
        "bad_turn",
        1,
        "turns.0",
        {},
    ),
    (
        "sgd",
        "train/dialogues_001.json",
        changed(SGD, [1, "turns", 0, "utterance"], float("nan")),
        "bad_turn",
        1,
        "turns.0",
        {},
    ),
    (
        "sgd",
        "train/dialogues_001.json",
        changed(SGD, [1, "turns", 0, "utterance"], "\ud800"),
        "bad_text",
        1,
        "surrogate",
        {},
    ),
    ("quac", "q.json", "[]", "missing_field", 0, "data", {}),
    ("quac", "q.json", changed(QUAC, ["data", 0, "paragraphs"], None), "missing_field", 0, "paragraphs", {}),
    (
        "quac",
        "q.json",
        changed(QUAC, ["data", 0, "paragraphs", 1, "context"], 1),
        "wrong_type",
        1,
        "context",
        {},
    ),
    ("quac", "q.json", changed(QUAC, ["data", 0, "paragraphs", 1, "qas"], {}), "wrong_type", 1, "qas", {}),
    (
        "quac",
        "q.json",
        changed(QUAC, ["data", 0, "paragraphs", 1, "qas", 1, "answers"], []),
        "bad_turn",
        1,
        "qas.1",
        {},
    ),
    ("dialogue", "t.jsonl", lines({"turns": ["a"]}) + '{"turns": [', "bad_json", 1, "record 1", {}),
    (
        "dialogue",
        "t.jsonl",
        lines({"turns": ["a"]}, {"turn": []}),
        "missing_field",
        1,
        "did you mean 'turn'",
        {},
    ),
    ("dialogue", "t.jsonl", lines({"turns": ["a"]}, {"turns": [1]}), "bad_turn", 1, "turns.0", {}),
    ("dialogue", "t.jsonl", lines({"turns": ["a"]}, {"turns": []}), "wrong_type", 1, "at least one turn", {}),
    (
        "dialogue",
        "t.jsonl",
        lines({"turns": [["A", "x"]]}, {"turns": [["A", "x"], ["B", "x"], ["C", "x"]]}),
        "unknown_speaker",
        1,
        "third speaker",
        SPEAKERS,
    ),
    (
        "dialogue",
        "t.jsonl",
        lines({"turns": [["Anna", "x"]]}, {"turns": [["Ana", "x"]]}),
        "unknown_speaker",
        1,
        "did you mean 'Anna'",
        {**SPEAKERS, "roles": {"Anna": "user"}},
    ),
    ("dialogue", "t.jsonl.gz", b"plain", "bad_gzip", 0, "gzip", {}),
    ("dialogue", "t.parquet", b"PAR1 not", "bad_parquet", 0, "Parquet", {}),
]


@pytest.mark.parametrize(("reader", "name", "content", "reason", "kept", "message", "options"), DAMAGES)
def test_damaged_dialogues_stop_or_are_kept_aside(
    tmp_path: Path, reader: str, name: str, content: Any, reason: str, kept: int, message: str, options: Any
) -> None:
    write(tmp_path, {f"up/{name}": content})
    with pytest.raises(DataError) as stopped:
        read_all(reader, folder(tmp_path, "up", **options))
    assert message in str(stopped.value) and f"up/{name}" in str(stopped.value)
    (data,) = read_all(reader, folder(tmp_path, "up", on_error="skip", **options)).values()
    (aside,) = data.aside
    assert (aside.reason, aside.file, aside.record) == (reason, f"up/{name}", kept)
    assert len(data.columns) == kept


def test_mutated_dialogues_are_kept_or_aside(tmp_path: Path) -> None:
    texts = [json.dumps(dialogue).encode() for dialogue in SGD]
    found = list(as_values(mutated(texts, 10_000, 1)))
    write(tmp_path, {"sgd/train/dialogues_001.json": f"[{', '.join(found)}]"})
    kept, aside = outcome("sgd", folder(tmp_path, "sgd", on_error="skip"))
    assert kept + aside == 10_000 and min(kept, aside) > 500

    found = list(as_values(mutated([json.dumps(QUAC_PARAGRAPH).encode()], 10_000, 2)))
    articles = [
        f'{{"title": "t", "paragraphs": [{", ".join(found[i : i + 4])}]}}' for i in range(0, 10_000, 4)
    ]
    write(tmp_path, {"quac/train.json": f'{{"data": [{", ".join(articles)}]}}'})
    kept, aside = outcome("quac", folder(tmp_path, "quac", on_error="skip"))
    assert kept + aside == 10_000 and min(kept, aside) > 500

    row = {"id": "a", "bio": ["x"], "dialog": [[0, "Hi there."], [1, "Hello."], [0, "Bye."]]}
    rows = list(mutated([json.dumps(row).encode()], 10_000, 3))
    write(tmp_path, {"d/t.jsonl": b"\n".join(rows)})
    options = {"turns": "dialog", "speaker": "0", "text": "1", "context": "bio", "id": "id"}
    kept, aside = outcome("dialogue", folder(tmp_path, "d", on_error="skip", **options))
    assert kept + aside == sum(bool(row.strip()) for row in rows) and min(kept, aside) > 500


def test_mutated_files_of_dialogues_raise_only_our_errors(tmp_path: Path) -> None:
    sgd, quac = (json.dumps(document, indent=1).encode() for document in (SGD, QUAC))
    refuses_only_with_its_own_errors("sgd", tmp_path, "sgd/dev/dialogues_1.json", sgd, 300)
    refuses_only_with_its_own_errors("quac", tmp_path, "quac/q.json", quac, 300)
    rows = lines({"turns": ["a", "b"]}, {"turns": ["c"]}).encode()
    refuses_only_with_its_own_errors("dialogue", tmp_path, "d/t.jsonl", rows, 300)


# --------------------------------------------------------------------------------------------- real


def test_real_sgd(shared_data: Path) -> None:
    (data,) = read_all("sgd", folder(shared_data, "dialogue/sgd")).values()
    by_file: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((shared_data / "dialogue/sgd").glob("*/dialogues_*.json")):
        by_file[path.relative_to(shared_data).as_posix()] = json.loads(path.read_text(encoding="utf-8"))
    assert len(data.columns) == sum(map(len, by_file.values())) == 623 and not data.aside
    roles = {"USER": "user", "SYSTEM": "assistant"}
    for i in range(0, len(data.columns), 5):
        raw = by_file[data.columns.file[i]][data.columns.record[i]]
        turns = [{roles[turn["speaker"]]: turn["utterance"]} for turn in raw["turns"]]
        assert data.columns.fields[i] == {"turns": turns}
        assert str(data.columns.upstream_id[i]).endswith("-" + raw["dialogue_id"])
    splits = {"train": "train", "dev": "validation", "test": "test"}
    assert all(
        split == splits[file.split("/")[2]]
        for split, file in zip(data.columns.upstream_split, data.columns.file, strict=True)
    )


def test_real_quac(shared_data: Path) -> None:
    (data,) = read_all("quac", folder(shared_data, "dialogue/quac")).values()
    raw = json.loads((shared_data / "dialogue/quac/quac_sample.json").read_text(encoding="utf-8"))
    paragraphs = [paragraph for article in raw["data"] for paragraph in article["paragraphs"]]
    assert len(data.columns) == len(paragraphs) == 2 and not data.aside
    for fields, paragraph in zip(data.columns.fields, paragraphs, strict=True):
        turns = [{"user": q["question"], "assistant": q["orig_answer"]["text"]} for q in paragraph["qas"]]
        assert fields["turns"] == [{role: text} for turn in turns for role, text in turn.items()]
        assert fields["context"] == paragraph["context"]
