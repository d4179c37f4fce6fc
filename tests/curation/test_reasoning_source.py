"""Reasoning sets: FLAN's TSV with its line breaks, JSON lines, original files through casts, damage."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from mutations import mutated
from native_files import folder, lines, read_all, write

from taskmill.curation.reader import TaskData, load_reader
from taskmill.curation.sources.reasoning import unescape
from taskmill.errors import DataError


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (r"one\ntwo\n\nthree", "one\ntwo\n\nthree"),
        (r"What is\nthe radius?\nOptions:\n(A) 3", "What is\nthe radius?\nOptions:\n(A) 3"),
        (r"if $a \neq b$\nthen", "if $a \\neq b$\nthen"),
        (r"\nabla f\nand \notin S", "\\nabla f\nand \\notin S"),
        (r"most\ne¢ cient\nu = 5", "most\ne¢ cient\nu = 5"),
        (r"$\nu = 5$\nu = 5", "$\\nu = 5$\nu = 5"),
        (r"\(a \ne b\)\ne", "\\(a \\ne b\\)\ne"),
        (r"\neqx and \nequal", "\neqx and \nequal"),
        (r"no breaks, \frac12", r"no breaks, \frac12"),
    ],
)
def test_line_breaks_and_tex(cell: str, text: str) -> None:
    assert unescape(cell) == text


def test_cells_and_objects(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "cot/tides_train.tsv": "When?\\n(A) now\t(A)\tAs it is now.\n",
            "cot/tides_test.jsonl": lines({"question": "a\\nb", "answer": "b", "explanation": "c"}),
            "cot/boats_dev.jsonl": lines(
                {"question": "Is it?", "answer": True, "facts": ["One.", "Two."]},
                {"question": "How many?", "answer": 12, "chain_of_thought": "3 * 4 = 12", "id": 4},
            ),
        },
    )
    found = read_all("reasoning", folder(tmp_path, "cot"))
    assert sorted(found) == ["boats", "tides"]
    assert found["tides"].columns.fields == [
        {"question": "a\\nb", "answer": "b", "rationale": "c"},
        {"question": "When?\n(A) now", "answer": "(A)", "rationale": "As it is now."},
    ]
    assert found["tides"].columns.upstream_split == ["test", "train"]
    assert found["boats"].columns.fields == [
        {"question": "Is it?", "answer": "yes", "rationale": "One.\nTwo."},
        {"question": "How many?", "answer": "12", "rationale": "3 * 4 = 12"},
    ]
    assert found["boats"].columns.references == [["yes"], ["12"]]
    assert found["boats"].facts["output_fields"] == ["answer", "rationale"]


def table(*rows: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


CREAK = {
    "ex_id": "c1",
    "sentence": "Gulls swim.",
    "explanation": "They float.",
    "label": "true",
    "entity": "Gull",
}
STRATEGY = {
    "qid": "s1",
    "term": "Tern",
    "question": "Can it fly?",
    "answer": True,
    "facts": ["It is a bird."],
}
QASC = {
    "id": "q1",
    "question": {
        "stem": "What floats?",
        "choices": [{"text": "cork", "label": "A"}, {"text": "iron", "label": "B"}],
    },
    "answerKey": "A",
    "fact1": "Cork is light.",
    "fact2": "Light things float.",
    "combinedfact": "Cork floats.",
    "formatted_question": "What floats? (A) cork (B) iron",
}
COQA = {
    "id": "k1",
    "story": "The tern took cake.",
    "questions": [{"input_text": "Who?", "turn_id": 1}, {"input_text": "What?", "turn_id": 2}],
    "answers": [
        {"input_text": "a tern", "span_text": "The tern", "turn_id": 1},
        {"input_text": "cake", "span_text": "took cake", "turn_id": 2},
    ],
}
ORIGINALS: dict[str, tuple[str, str, dict[str, str], list[str] | None]] = {
    "aqua": (
        "dev.json",
        lines({"question": "2 + 2?", "options": list("abcde"), "rationale": "Add.", "correct": "C"}),
        {"question": "2 + 2?\na\nb\nc\nd\ne", "answer": "C", "rationale": "Add."},
        list("ABCDE"),
    ),
    "coqa": (
        "coqa-train-v1.0.json",
        json.dumps(
            {
                "version": "1.0",
                "data": [{**COQA, "questions": COQA["questions"][1:], "answers": COQA["answers"][1:]}],
            }
        ),
        {"question": "The tern took cake.\nWhat?", "answer": "cake", "rationale": "took cake"},
        None,
    ),
    "cos_e": (
        "train.jsonl",
        lines(
            {
                "id": "1",
                "question": "q",
                "choices": list("vwxyz"),
                "answer": "w",
                "abstractive_explanation": "so",
            }
        ),
        {"question": "q\nv\nw\nx\ny\nz", "answer": "w", "rationale": "so"},
        list("vwxyz"),
    ),
    "creak": (
        "train.json",
        lines(CREAK),
        {"question": "Gulls swim.", "answer": "true", "rationale": "They float."},
        ["true", "false"],
    ),
    "ecqa": (
        "cqa_data_train.csv",
        table(
            {
                "q_no": 1,
                "q_text": "q",
                **{f"q_op{n}": f"o{n}" for n in range(1, 6)},
                "q_ans": "o2",
                "taskB": "as",
            }
        ),
        {"question": "q\no1\no2\no3\no4\no5", "answer": "o2", "rationale": "as"},
        ["o1", "o2", "o3", "o4", "o5"],
    ),
    "esnli": (
        "esnli_train_2.csv",
        table(
            {
                "pairID": "p",
                "gold_label": "neutral",
                "Sentence1": "a, b",
                "Sentence2": "c",
                "Explanation_1": "d",
            }
        ),
        {"question": "a, b\nc", "answer": "neutral", "rationale": "d"},
        ["entailment", "neutral", "contradiction"],
    ),
    "gsm8k": (
        "train.jsonl",
        lines({"question": "How many?", "answer": "It is 3*4=<<3*4=12>>12 hundred.\n#### 1,200"}),
        {"question": "How many?", "answer": "1200", "rationale": "It is 3*4=12 hundred."},
        None,
    ),
    "math": (
        "test.jsonl",
        lines({"problem": "p", "solution": r"So it is $\boxed{\frac{1}{2^{3}}}$."}),
        {"question": "p", "answer": r"\frac{1}{2^{3}}", "rationale": r"So it is $\boxed{\frac{1}{2^{3}}}$."},
        None,
    ),
    "qasc": (
        "dev.jsonl",
        lines(QASC),
        {
            "question": "What floats? (A) cork (B) iron",
            "answer": "A",
            "rationale": "Cork is light.\nLight things float.",
        },
        ["A", "B"],
    ),
    "strategyqa": (
        "strategyqa_train.json",
        json.dumps([STRATEGY]),
        {"question": "Can it fly?", "answer": "yes", "rationale": "It is a bird."},
        ["yes", "no"],
    ),
}


@pytest.mark.parametrize("name", sorted(ORIGINALS))
def test_original_files_through_casts(tmp_path: Path, name: str) -> None:
    file, content, fields, options = ORIGINALS[name]
    write(tmp_path, {f"cot/{name}/{file}": content})
    (data,) = read_all("reasoning", folder(tmp_path, "cot")).values()
    assert data.columns.fields == [fields] and data.columns.references == [[fields["answer"]]]
    assert data.columns.options == [options]
    assert data.facts["output_fields"] == ["answer", "rationale"] and data.facts["definition"]


def test_a_set_in_two_forms(tmp_path: Path) -> None:
    write(tmp_path, {"cot/creak/train.json": lines(CREAK), "cot/tides_train.tsv": "a\tb\tc\n"})
    assert sorted(read_all("reasoning", folder(tmp_path, "cot"))) == ["creak", "tides"]
    write(tmp_path, {"cot/creak_train.tsv": "a\tb\tc\n"})
    with pytest.raises(DataError, match="'creak' is here twice"):
        load_reader("reasoning").discover(folder(tmp_path, "cot"))


@pytest.mark.parametrize(
    ("name", "content", "reason", "kept"),
    [
        ("s_train.tsv", b"a\tb\tc\na\tb\n", "wrong_columns", 1),
        ("s_train.tsv", b"a\t\xe9\tb\n", "bad_encoding", 0),
        ("s_train.tsv", b"", "empty_file", 0),
        ("s_train.jsonl", b'{"question": "a", "answer": "b"}\n', "missing_field", 0),
        ("s_train.jsonl", b'{"question": "a", "answer": null, "rationale": "c"}\n', "wrong_type", 0),
        ("s_train.jsonl", b'{"question": "a", "answer": "b", "facts": [1]}\n', "wrong_type", 0),
        ("s_train.jsonl", b'{"question": \n', "bad_json", 0),
    ],
)
def test_damage(tmp_path: Path, name: str, content: bytes, reason: str, kept: int) -> None:
    write(tmp_path, {f"cot/{name}": content})
    with pytest.raises(DataError, match=name):
        read_all("reasoning", folder(tmp_path, "cot"))
    (data,) = read_all("reasoning", folder(tmp_path, "cot", on_error="skip")).values()
    assert [aside.reason for aside in data.aside] == [reason] and len(data.columns) == kept


def counted(data: TaskData) -> int:
    return len(data.columns) + len(data.aside)


def test_mutated_records_are_kept_or_kept_aside(tmp_path: Path) -> None:
    cells = [line for line in mutated([b"When $\\neq$?\\n(A)\t(A)\tso"], 5_000, 8) if line]
    objects = [
        {"question": "a", "answer": "b", "rationale": ["c", "d"]},
        {"question": "a", "answer": True, "facts": []},
    ]
    seeds = [json.dumps(item).encode() for item in objects]
    jsonl = [line for line in mutated(seeds, 5_000, 9) if line.strip()]
    write(tmp_path, {"cot/a_train.tsv": b"\n".join(cells), "cot/b_train.jsonl": b"\n".join(jsonl)})
    found = read_all("reasoning", folder(tmp_path, "cot", on_error="skip"))
    assert (counted(found["a"]), counted(found["b"])) == (len(cells), len(jsonl))


def test_real_chain_of_thought_keeps_every_line_break(shared_data: Path) -> None:
    num_breaks = {"aqua": 20112, "creak": 21708, "ecqa": 42672, "gsm8k": 0, "strategyqa": 0}
    found = read_all("reasoning", folder(shared_data, "reasoning/flan_cot"))
    assert {name: len(data.columns) for name, data in found.items()} == {
        "aqua": 2728,
        "creak": 6915,
        "ecqa": 7112,
        "gsm8k": 7473,
        "strategyqa": 2061,
    }
    for name, data in found.items():
        raw = (shared_data / f"reasoning/flan_cot/{name}_train.tsv").read_bytes().split(b"\n")[:-1]
        assert len(raw) == len(data.columns) and not data.aside
        for line, fields, references in zip(raw, data.columns.fields, data.columns.references, strict=True):
            wanted = line.decode().replace("\\n", "\n").split("\t")
            assert list(fields.values()) == wanted and references == [wanted[1]]
        text = [value for fields in data.columns.fields for value in fields.values()]
        assert sum(value.count("\n") for value in text) == num_breaks[name]
