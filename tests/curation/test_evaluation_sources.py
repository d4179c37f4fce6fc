"""Readers of evaluation sets: MMLU, BBH and those with casts, on files of our own."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from mutations import as_values, mutated, outcome, refuses_only_with_its_own_errors
from native_files import folder, lines, read_all, write

from taskmill.curation.reader import load_reader
from taskmill.errors import DataError, TaskmillError

MMLU_ROW = '"Which tool, if any, cuts ""oak""?",saw,spoon,"rope\nor string",bell,A\n'
MMLU_OTHER = "How many legs has a stool?,1,2,3,12,C\n"
COT = (
    "The following are questions about tools.\n\n"
    "Q: Which tool is sharp?\nSay one.\n(A) saw (B) spoon (C) rope (D) bell\n"
    "A: Let's think step by step. A saw has teeth.\n\nTeeth cut. The answer is (A).\n\n"
    "Q: Which tool is long?\n(A) saw (B) spoon (C) rope (D) bell (E) pole\n"
    "A: Let's think step by step. Poles are. The answer is (E).\n\n"
)
BBH = {
    "canary": "not for training",
    "examples": [
        {"input": "Which is red?\nOptions:\n(A) a plum\n(B) a cherry", "target": "(B)"},
        {"input": "Which is blue?\nOptions:\n(A) a plum\n(B) the sky\n(C) milk", "target": "the sky"},
    ],
}
BBH_PROMPT = (
    "a canary line\n-----\nTask description: Name the colour.\n\nColours are seen.\n\n"
    "Q: Which is green?\nOptions:\n(A) grass\n(B) snow\nA: Let's think step by step.\nSnow is white. So the answer is (A).\n\n"
    "Q: Which is black?\nOptions:\n(A) snow\n(B) coal\nA: Let's think step by step.\nSo the answer is not (A).\n"
    "So the answer is (B)."
)
DROP = {
    "harbour_1": {
        "passage": "In 1701 three ships came. Two left on 4 May 1702.",
        "qa_pairs": [
            {
                "question": "How many ships stayed?",
                "answer": {"number": "1", "date": {"day": "", "month": "", "year": ""}, "spans": []},
                "query_id": "q1",
                "validated_answers": [
                    {"number": "1", "date": {}, "spans": []},
                    {"number": "", "date": {}, "spans": ["one ship", "the third"]},
                ],
            },
            {
                "question": "When did they leave?",
                "answer": {"number": "", "date": {"day": "4", "month": "May", "year": ""}, "spans": []},
                "query_id": "q2",
            },
        ],
    }
}
TRUTHFUL_HEAD = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
TRUTHFUL_ROW = 'Plain,Tools,Can spoons cut oak?,No,"No; Spoons cut, if at all, butter; ",Yes; They can,https://example.org\n'
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(n):\n    """Twice n."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * n\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
}


def test_mmlu_csv_with_worked_exemplars(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "mmlu/dev/old_tools_dev.csv": MMLU_OTHER,
            "mmlu/val/old_tools_val.csv.gz": gzip.compress(MMLU_ROW.encode()),
            "mmlu/test/old_tools_test.csv": MMLU_ROW + MMLU_OTHER,
            "mmlu/auxiliary_train/arc.csv": "not,read\n",
            "cot.json": json.dumps({"old_tools": COT, "absent": COT}),
        },
    )
    found = read_all("mmlu", folder(tmp_path, "mmlu", cot_prompts="../cot.json"))
    data = found.pop("mmlu_old_tools")
    assert not found
    columns = data.columns
    assert columns.upstream_split == ["demonstration", "validation", "test", "test", "demonstration"]
    question = {"question": 'Which tool, if any, cuts "oak"?'}
    assert columns.fields[1:3] == [question, question]
    assert columns.options[1] == ["saw", "spoon", "rope\nor string", "bell"]
    assert columns.references == [["3"], ["saw"], ["saw"], ["3"], ["saw"]]
    assert columns.fields[4] == {
        "question": "Which tool is sharp?\nSay one.",
        "rationale": "A saw has teeth.\n\nTeeth cut.",
        "example_kind": "chain_of_thought",
    }
    assert columns.record == [0, 0, 0, 1, 0]
    assert [(aside.reason, aside.record) for aside in data.aside] == [("uncut_exemplar", 1)]
    assert (data.facts["family"], data.facts["subtask"]) == ("mmlu", "old_tools")
    assert "old tools" in data.facts["definition"] and data.facts["metadata"] == {"shape": "choice"}


def test_mmlu_of_the_hub(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {"question": ["Q?"], "subject": ["tools"], "choices": [["a", "b", "c", "d"]], "answer": [3]}
    )
    for name in ("tools/dev", "tools/validation", "tools/test", "all/test", "auxiliary_train/train"):
        path = tmp_path / f"{name}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path)
    (data,) = read_all("mmlu", folder(tmp_path)).values()
    assert data.columns.upstream_split == ["demonstration", "validation", "test"]
    assert data.columns.references == [["d"]] * 3 and data.columns.options[0] == ["a", "b", "c", "d"]


def test_bbh(tmp_path: Path) -> None:
    closed = {
        "examples": [
            {"input": "Is it?", "target": "no"},
            {"input": "Was it?\nOptions:\n- yes\n- no ", "target": "yes"},
        ]
    }
    write(
        tmp_path,
        {
            "bbh/colours.json": json.dumps(BBH),
            "bbh/cot-prompts/colours.txt": BBH_PROMPT,
            "bbh/doubts.json": json.dumps(closed),
            "bbh/counts.json": json.dumps({"examples": [{"input": "1 + 1", "target": "2"}]}),
        },
    )
    found = read_all("bbh", folder(tmp_path, "bbh"))
    assert list(found) == ["bbh_colours", "bbh_counts", "bbh_doubts"]
    data = found["bbh_colours"]
    assert data.columns.upstream_split == ["test", "test", "demonstration", "demonstration"]
    assert data.columns.references == [["(B)"], ["the sky"], ["(A)"], ["(B)"]]
    assert data.columns.options == [["(A)", "(B)"], None, ["(A)", "(B)"], ["(A)", "(B)"]]
    assert data.columns.fields[0] == {"input": BBH["examples"][0]["input"]}  # type: ignore[index]
    assert data.columns.fields[2] == {
        "input": "Which is green?\nOptions:\n(A) grass\n(B) snow",
        "rationale": "Snow is white.",
    }
    assert data.columns.fields[3]["rationale"] == "So the answer is not (A)."
    assert data.facts["definition"] == "Name the colour.\n\nColours are seen."
    assert found["bbh_doubts"].columns.options == [["yes", "no"], ["yes", "no"]]
    assert found["bbh_counts"].columns.options == [None]


def test_drop(tmp_path: Path) -> None:
    write(tmp_path, {"drop/drop_dataset_dev.json": json.dumps(DROP)})
    (data,) = read_all("evaluation", folder(tmp_path)).values()
    assert data.columns.references == [["1", "one ship, the third"], ["4 May"]]
    assert data.columns.group == ["harbour_1", "harbour_1"] and data.columns.record == [0, 0]
    assert data.columns.upstream_id == ["validation-q1", "validation-q2"]
    assert data.columns.fields[1]["context"] == DROP["harbour_1"]["passage"]
    assert data.facts["output_fields"] == ["answer", "validated_answers"]


def test_truthfulqa_and_humaneval(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "truthfulqa/TruthfulQA.csv": "\ufeff" + TRUTHFUL_HEAD + TRUTHFUL_ROW,
            "humaneval/HumanEval.jsonl.gz": gzip.compress(lines(HUMANEVAL).encode()),
        },
    )
    found = read_all("evaluation", folder(tmp_path))
    truthful = found["truthfulqa"].columns
    assert truthful.fields[0]["question"] == "Can spoons cut oak?"
    assert truthful.fields[0]["incorrect_answers"] == "Yes; They can"
    assert truthful.references == [["No", "Spoons cut, if at all, butter"]] and truthful.options == [None]
    code = found["humaneval"].columns
    assert code.fields[0]["text"] == HUMANEVAL["prompt"] and code.fields[0]["test"] == HUMANEVAL["test"]
    assert code.references == [["    return 2 * n\n"]] and code.upstream_id == ["test-HumanEval/0"]
    assert found["humaneval"].facts["output_fields"] == ["canonical_solution", "test", "entry_point"]


def test_evaluation_sets_of_the_hub(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[str, dict[str, Any]] = {
        "truthfulqa/generation/validation-00000-of-00001.parquet": {
            "type": "Plain",
            "category": "Tools",
            "question": "Can spoons cut oak?",
            "best_answer": "No",
            "correct_answers": ["No", "Spoons cut; if at all; butter"],
            "incorrect_answers": ["Yes", "They can"],
            "source": "https://example.org",
        },
        "drop/data/train-00000-of-00001.parquet": {
            "section_id": "harbour_1",
            "query_id": "q1",
            "passage": "Three ships came.",
            "question": "How many came?",
            "answers_spans": {"spans": ["3", "three"], "types": ["number", "span"]},
        },
        "humaneval/openai_humaneval/test-00000-of-00001.parquet": HUMANEVAL,
    }
    for name, row in rows.items():
        (tmp_path / name).parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / name)
    found = read_all("evaluation", folder(tmp_path))
    assert list(found) == ["drop", "humaneval", "truthfulqa"]
    truthful = found["truthfulqa"].columns
    assert truthful.references == [["No", "Spoons cut; if at all; butter"]]
    assert truthful.fields[0]["incorrect_answers"] == "Yes; They can"
    drop = found["drop"].columns
    assert drop.references == [["3", "three"]] and drop.group == ["harbour_1"]
    assert drop.fields[0]["context"] == "Three ships came." and drop.upstream_split == ["train"]
    assert found["humaneval"].columns.fields[0]["text"] == HUMANEVAL["prompt"]


# ------------------------------------------------------------------------------------------- damage

EXAMPLE = BBH["examples"][0]  # type: ignore[index]
DAMAGES: list[tuple[str, str, str | bytes, str, int, str]] = [
    ("mmlu", "test/t_test.csv", b"", "empty_file", 0, "no record"),
    ("mmlu", "test/t_test.csv", MMLU_OTHER + "Why?,a,b,c,d\n", "wrong_columns", 1, "5 columns"),
    ("mmlu", "test/t_test.csv", MMLU_OTHER + "Why?,a,b,c,d,E\n", "bad_label", 1, "A, B, C, D"),
    ("mmlu", "test/t_test.csv", MMLU_OTHER + '"Why? a,b,c,d,A\n', "bad_csv", 1, "not valid CSV"),
    (
        "mmlu",
        "test/t_test.csv",
        MMLU_OTHER.encode() + b"\xffWhy?,a,b,c,d,A\n",
        "bad_encoding",
        1,
        "not UTF-8",
    ),
    (
        "mmlu",
        "test/t_test.csv.gz",
        gzip.compress(MMLU_OTHER.encode() * 99, mtime=0)[:-9],
        "bad_gzip",
        0,
        "gzip",
    ),
    ("mmlu", "t/test-00000-of-00001.parquet", b"PAR1", "bad_parquet", 0, "Parquet"),
    ("bbh", "t.json", b"", "empty_file", 0, "empty"),
    ("bbh", "t.json", json.dumps(BBH)[:-5], "bad_json", 0, "not valid JSON"),
    ("bbh", "t.json", b'{"examples": "\xff"}', "bad_json", 0, "utf-8"),
    ("bbh", "t.json", '{"example": []}', "missing_field", 0, "did you mean 'example'"),
    ("bbh", "t.json", '{"examples": {}}', "wrong_type", 0, "a list"),
    ("bbh", "t.json", json.dumps({"examples": [EXAMPLE, []]}), "wrong_type", 1, "record 1"),
    ("bbh", "t.json", json.dumps({"examples": [EXAMPLE, {"input": "a"}]}), "missing_field", 1, "target"),
    (
        "bbh",
        "t.json",
        json.dumps({"examples": [EXAMPLE, {"input": "a", "target": float("nan")}]}),
        "wrong_type",
        1,
        "target",
    ),
    ("evaluation", "drop/drop.json", "[]", "empty_file", 0, "no record"),
    ("evaluation", "drop/drop.json", json.dumps({"a": 3}), "wrong_type", 0, "an object"),
    ("evaluation", "drop/drop.json", json.dumps({"a": {"passage": "b"}}), "missing_field", 0, "qa_pairs"),
    (
        "evaluation",
        "drop/drop.json",
        json.dumps(
            {
                "a": {
                    "passage": "b",
                    "qa_pairs": [{"question": "c", "answer": {"number": True, "date": {}, "spans": []}}],
                }
            }
        ),
        "wrong_type",
        0,
        "answers_spans",
    ),
    (
        "evaluation",
        "truthfulqa/TruthfulQA.csv",
        TRUTHFUL_HEAD + TRUTHFUL_ROW + "a,b\n",
        "wrong_columns",
        1,
        "2 columns",
    ),
    ("evaluation", "truthfulqa/TruthfulQA.csv", "Type,Type\na,b\n", "bad_header", 0, "header"),
    (
        "evaluation",
        "humaneval/HumanEval.jsonl",
        lines(HUMANEVAL, {**HUMANEVAL, "prompt": None}),
        "missing_field",
        1,
        "null",
    ),
    (
        "evaluation",
        "humaneval/HumanEval.jsonl",
        lines(HUMANEVAL, {"task_id": "x"}),
        "missing_field",
        1,
        "prompt",
    ),
    (
        "evaluation",
        "humaneval/HumanEval.jsonl",
        lines(HUMANEVAL, {**HUMANEVAL, "test": float("inf")}),
        "not_finite",
        1,
        "NaN",
    ),
]


@pytest.mark.parametrize(("reader", "name", "content", "reason", "kept", "message"), DAMAGES)
def test_damaged_evaluation_sets_stop_or_are_kept_aside(
    tmp_path: Path, reader: str, name: str, content: Any, reason: str, kept: int, message: str
) -> None:
    write(tmp_path, {f"up/{name}": content})
    with pytest.raises(DataError) as stopped:
        read_all(reader, folder(tmp_path, "up"))
    assert message in str(stopped.value) and f"up/{name}" in str(stopped.value)
    (data,) = read_all(reader, folder(tmp_path, "up", on_error="skip")).values()
    (aside,) = data.aside
    assert (aside.reason, aside.file) == (reason, f"up/{name}")
    assert len(data.columns) == kept or reason == "bad_gzip"


def test_rows_behind_a_broken_row_of_a_table_are_read(tmp_path: Path) -> None:
    broken = 'Why "so?,a,b,c,d,"A"B\n'
    write(tmp_path, {"mmlu/test/t_test.csv": MMLU_OTHER + broken + MMLU_OTHER})
    (data,) = read_all("mmlu", folder(tmp_path, "mmlu", on_error="skip")).values()
    assert data.columns.record == [0, 2]
    assert [(aside.record, aside.raw) for aside in data.aside] == [(1, broken)]


def test_damaged_exemplars(tmp_path: Path) -> None:
    write(tmp_path, {"mmlu/test/t_test.csv": MMLU_OTHER, "bbh/t.json": json.dumps(BBH)})
    for content, reason in [
        (b"[1]", "wrong_type"),
        (b'{"t": 3}', "wrong_type"),
        (b"{", "bad_json"),
        (b"", "empty_file"),
    ]:
        write(tmp_path, {"cot.json": content})
        with pytest.raises(DataError, match=r"cot\.json"):
            read_all("mmlu", folder(tmp_path, "mmlu", cot_prompts="../cot.json"))
        (data,) = read_all(
            "mmlu", folder(tmp_path, "mmlu", on_error="skip", cot_prompts="../cot.json")
        ).values()
        assert [aside.reason for aside in data.aside] == [reason] and len(data.columns) == 1
    for content, reason, kept in [
        (b"", "empty_file", 2),
        (b"\xff", "bad_encoding", 2),
        (BBH_PROMPT.replace("step by step.\nSnow", "step.\nSnow").encode(), "no_match", 3),
    ]:
        write(tmp_path, {"bbh/cot-prompts/t.txt": content})
        with pytest.raises(DataError, match=r"cot-prompts/t\.txt"):
            read_all("bbh", folder(tmp_path, "bbh"))
        (data,) = read_all("bbh", folder(tmp_path, "bbh", on_error="skip")).values()
        assert [aside.reason for aside in data.aside] == [reason] and len(data.columns) == kept
    for wanted, message in [
        ("../nothing.json", "no such file"),
        (3, "option cot_prompts"),
        ("a\0b", "cot_prompts"),
    ]:
        with pytest.raises(TaskmillError, match=message):
            load_reader("mmlu").discover(folder(tmp_path, "mmlu", cot_prompts=wanted))


def test_mutated_evaluation_sets_are_kept_or_aside(tmp_path: Path) -> None:
    rows = list(mutated([MMLU_ROW.replace("\n", " ").encode(), MMLU_OTHER.encode()], 14_000, 1))
    rows = [row for row in rows if row.strip() and b'"' not in row][:10_000]
    extra = [row for row in mutated([MMLU_OTHER.encode()], 12_000, 2) if row.strip() and b'"' not in row]
    rows = [*rows, *extra][:10_000]
    write(tmp_path, {"mmlu/test/t_test.csv": b"\n".join(rows)})
    kept, aside = outcome("mmlu", folder(tmp_path, "mmlu", on_error="skip"))
    assert kept + aside == len(rows) == 10_000 and min(kept, aside) > 500

    seeds = [json.dumps(example).encode() for example in BBH["examples"]]
    found = list(as_values(mutated(seeds, 10_000, 3)))
    exemplars = list(
        mutated([piece.replace("\n", "~").encode() for piece in BBH_PROMPT.split("\n\n")[2:]], 2_000, 4)
    )
    prompts = b"x\n\n" + b"\n\n".join(b"Q: " + piece.replace(b"~", b"\n").strip() for piece in exemplars)
    write(tmp_path, {"bbh/t.json": f'{{"examples": [{", ".join(found)}]}}'})
    write(tmp_path, {"bbh/cot-prompts/t.txt": prompts.decode("utf-8", "replace")})
    kept, aside = outcome("bbh", folder(tmp_path, "bbh", on_error="skip"))
    assert kept + aside == 12_000 and min(kept, aside) > 500

    passages = list(as_values(mutated([json.dumps(DROP["harbour_1"]).encode()], 10_000, 5)))
    document = ", ".join(f'"p{number}": {passage}' for number, passage in enumerate(passages))
    write(tmp_path, {"drop/drop.json": f"{{{document}}}"})
    kept, aside = outcome("evaluation", folder(tmp_path, on_error="skip", casts=["drop"]))
    assert kept + aside == sum(map(questions, map(json.loads, passages))) and min(kept, aside) > 500


def questions(passage: Any) -> int:
    """Return how many examples a passage makes: one a question, or one where it has none or no list of them."""
    pairs = passage.get("qa_pairs") if isinstance(passage, dict) else None
    return len(pairs) or 1 if isinstance(pairs, list) else 1


def test_mutated_files_of_evaluation_sets_raise_only_our_errors(tmp_path: Path) -> None:
    for reader, name, content in [
        ("mmlu", "mmlu/test/t_test.csv", MMLU_ROW + MMLU_OTHER),
        ("bbh", "bbh/t.json", json.dumps(BBH, indent=1)),
        ("evaluation", "drop/drop/drop.json", json.dumps(DROP, indent=1)),
        ("evaluation", "truth/truthfulqa/TruthfulQA.csv", TRUTHFUL_HEAD + TRUTHFUL_ROW * 2),
        ("evaluation", "human/humaneval/HumanEval.jsonl", lines(HUMANEVAL)),
    ]:
        refuses_only_with_its_own_errors(reader, tmp_path, name, content.encode(), 200)
    options = {"cot_prompts": "cot.json"}
    write(tmp_path, {"cot/test/t_test.csv": MMLU_OTHER})
    content = json.dumps({"t": COT}).encode()
    refuses_only_with_its_own_errors("mmlu", tmp_path, "cot/cot.json", content, 200, **options)
