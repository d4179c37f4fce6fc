"""The real files of the evaluation sets, each against an independent reading with csv and json."""

from __future__ import annotations

import csv
import gzip
import json
import re
from pathlib import Path

from native_files import folder, read_all


def test_real_mmlu(shared_data: Path) -> None:
    prompts = "../../reasoning/mmlu_flan_cot_fewshot/_cot_prompts.json"
    found = read_all("mmlu", folder(shared_data, "eval/mmlu", cot_prompts=prompts))
    rows: dict[str, list[list[str]]] = {}
    for path in sorted((shared_data / "eval/mmlu").glob("*/*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows[path.relative_to(shared_data).as_posix()] = list(csv.reader(file))
    texts = json.loads((shared_data / "reasoning/mmlu_flan_cot_fewshot/_cot_prompts.json").read_text("utf-8"))
    num_exemplars = sum(text.count("\n\nQ: ") for text in texts.values())
    assert len(found) == 57 and sum(map(len, rows.values())) == 13_479
    kept = sum(len(data.columns) for data in found.values())
    aside = [aside for data in found.values() for aside in data.aside]
    assert kept + len(aside) == 13_479 + num_exemplars
    assert [(a.reason, "(E)" in a.raw) for a in aside] == [("uncut_exemplar", True)]
    splits = {"dev": "demonstration", "val": "validation", "test": "test"}
    for name, data in found.items():
        for i in range(len(data.columns)):
            fields, file = data.columns.fields[i], data.columns.file[i]
            if "example_kind" in fields:
                text = texts[data.facts["subtask"]]
                assert fields["question"] in text and fields["rationale"] in text
                continue
            question, *choices, letter = rows[file][data.columns.record[i]]
            assert fields == {"question": question} and data.columns.options[i] == choices
            assert data.columns.references[i] == [choices["ABCD".index(letter)]]
            assert data.columns.upstream_split[i] == splits[file.split("/")[2]]
            assert file.rpartition("/")[2].startswith(name.removeprefix("mmlu_"))


def test_worked_exemplars_of_mmlu_are_those_of_its_dev_split(shared_data: Path) -> None:
    prompts = "../../reasoning/mmlu_flan_cot_fewshot/_cot_prompts.json"
    same = total = 0
    for data in read_all("mmlu", folder(shared_data, "eval/mmlu", cot_prompts=prompts)).values():
        columns = data.columns
        dev: dict[str, tuple[list[str], list[str] | None]] = {}
        for i in range(len(columns)):
            key = re.sub(r"\W+", "", columns.fields[i]["question"])
            if "example_kind" not in columns.fields[i]:
                dev[key] = (columns.references[i], columns.options[i])
            else:
                total += 1
                same += key in dev and dev[key][1] == columns.options[i]
    assert same / total > 0.8, (same, total)


def test_real_bbh(shared_data: Path) -> None:
    found = read_all("bbh", folder(shared_data, "eval/bbh"))
    assert len(found) == 22
    num_examples = 0
    for name, data in found.items():
        stem = name.removeprefix("bbh_")
        raw = json.loads((shared_data / f"eval/bbh/{stem}.json").read_text(encoding="utf-8"))["examples"]
        prompt = (shared_data / f"eval/bbh/cot-prompts/{stem}.txt").read_text(encoding="utf-8")
        num_examples += len(raw)
        assert len(data.columns) == len(raw) + prompt.count("\nQ: ") == len(raw) + 3 and not data.aside
        assert [fields["input"] for fields in data.columns.fields[:-3]] == [
            example["input"] for example in raw
        ]
        assert data.columns.references[:-3] == [[example["target"]] for example in raw]
        for fields, references in zip(data.columns.fields[-3:], data.columns.references[-3:], strict=True):
            whole = f"Q: {fields['input']}\nA: Let's think step by step"
            ends = f"{fields['rationale']} So the answer is {references[0]}"
            assert whole in prompt and (ends in prompt or ends.replace(" So", "\nSo") in prompt)
        description = prompt.split("-----\n")[1].split("\n\nQ: ")[0].removeprefix("Task description: ")
        assert data.facts["definition"] == description.strip()
        ranked = sum(options is not None for options in data.columns.options)
        free = {"dyck_languages", "multistep_arithmetic_two", "object_counting", "word_sorting"}
        assert ranked == (0 if stem in free else len(data.columns) - 2 * (stem == "ruin_names"))
    assert num_examples == 5_261


def test_real_drop_and_truthfulqa(shared_data: Path) -> None:
    found = read_all("evaluation", folder(shared_data, "eval"))
    assert list(found) == ["drop", "gsm8k", "truthfulqa"]
    raw = json.loads((shared_data / "eval/drop/drop.json").read_text(encoding="utf-8"))
    pairs = [(key, value["passage"], pair) for key, value in raw.items() for pair in value["qa_pairs"]]
    columns = found["drop"].columns
    assert len(columns) == len(pairs) == 19 and not found["drop"].aside
    for i, (key, passage, pair) in enumerate(pairs):
        assert columns.fields[i]["question"] == pair["question"] and columns.fields[i]["context"] == passage
        assert columns.fields[i]["answer"] == pair["answer"] and columns.group[i] == key
        answers = [pair["answer"], *pair.get("validated_answers", [])]
        accepted = {
            text
            for answer in answers
            for text in (
                answer["number"],
                " ".join(part for part in answer["date"].values() if part),
                ", ".join(answer["spans"]),
            )
        }
        assert set(columns.references[i]) == accepted - {""}
    columns = found["truthfulqa"].columns
    upstream: list[dict[str, str]] = []
    for name in ("TruthfulQA.csv", "TruthfulQATest.csv"):
        with (shared_data / "eval/truthfulqa" / name).open(encoding="utf-8-sig", newline="") as file:
            upstream += csv.DictReader(file)
    assert len(columns) == len(upstream) == 817 and not found["truthfulqa"].aside
    for i, row in enumerate(upstream):
        answers = [row["Best Answer"], *row["Correct Answers"].split(";")]
        wanted = list(dict.fromkeys(answer.strip() for answer in answers if answer.strip()))
        assert columns.references[i] == wanted and columns.fields[i]["question"] == row["Question"]
        assert columns.fields[i]["incorrect_answers"] == row["Incorrect Answers"]


def test_real_humaneval(shared_data: Path) -> None:
    data = read_all("evaluation", folder(shared_data, "code"))["humaneval"]
    with gzip.open(shared_data / "code/humaneval/HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    assert len(data.columns) == len(raw) == 164 and not data.aside
    for i, row in enumerate(raw):
        fields = {"text" if key == "prompt" else key: row[key] for key in row if key != "task_id"}
        assert data.columns.fields[i] == fields
        assert data.columns.references[i] == [row["canonical_solution"]]
        assert data.columns.upstream_id[i] == f"test-{row['task_id']}"
