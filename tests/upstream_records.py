"""What an example of each real upstream file must hold, read without the package: json, csv, gzip and re alone.

`EXPECT[kind](path, task)` yields (record number, fields, references) of every example that the records of a file of that kind
(`upstream_counts.COUNTED`) make. Where a kind's text is changed on the way, `shown` undoes it before the comparison.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from upstream_counts import csv_rows, leaves, lines_of, load, load_lines, paragraphs, text_of

Example = tuple[int, dict[str, Any], list[str]]


def shown(kind: str, fields: dict[str, Any], references: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Undo what a reader changes in the texts of a kind: a line break of the CoT files is a backslash and an n there."""
    if kind != "reasoning":
        return fields, references
    return (
        {name: text.replace("\n", "\\n") for name, text in fields.items()},
        [text.replace("\n", "\\n") for text in references],
    )


def _labelled(value: Any, words: list[str]) -> list[str]:
    """The reference of a label that counts from 0; none where upstream states none."""
    return [] if value is None or int(value) < 0 else [words[int(value)]]


# ------------------------------------------------------------------------------------------- benchmarks


def _sni(path: Path, task: str) -> Iterator[Example]:
    body = load(path)
    for number, row in enumerate(body["Instances"]):
        outputs = row["output"] if isinstance(row["output"], list) else [row["output"]]
        yield number, {"input": row["input"]}, outputs
    number = len(body["Instances"])
    for kind in ("positive", "negative"):
        for row in body[f"{kind.title()} Examples"]:
            fields = {"input": row["input"], "explanation": row.get("explanation", ""), "example_kind": kind}
            yield number, fields, [row["output"]]
            number += 1


def _p3(path: Path, task: str) -> Iterator[Example]:
    for number, row in enumerate(load_lines(path)):
        text = row["completion"]
        assert text.endswith("<|endoftext|>")
        yield number, {"inputs": row["prompt"]}, [text[: -len("<|endoftext|>")]]


def _reasoning(path: Path, task: str) -> Iterator[Example]:
    for number, line in enumerate(lines_of(path)):
        question, answer, rationale = line.rstrip("\r").split("\t")
        yield number, {"question": question, "answer": answer, "rationale": rationale}, [answer]


def _superglue(path: Path, task: str) -> Iterator[Example]:
    name = task.rpartition("/")[2]
    for number, row in enumerate(load_lines(path)):
        label = row.get("label")
        if name == "copa":
            fields = {key: row[key] for key in ("premise", "choice1", "choice2", "question")}
            words = [row["choice1"], row["choice2"]]
        elif name == "wic":
            keys = ("word", "sentence1", "sentence2", "start1", "start2", "end1", "end2")
            fields = {
                key: int(row[key]) if key[-1] in "12" and "sent" not in key else row[key] for key in keys
            }
            words = ["False", "True"]
        elif name == "boolq":
            fields, words = {key: row[key] for key in ("question", "passage")}, ["No", "Yes"]
        else:
            fields = {key: row[key] for key in ("premise", "hypothesis")}
            texts = {
                "rte": ["entailment", "not_entailment"],
                "cb": ["entailment", "contradiction", "neutral"],
            }
            words = texts[name]
            label = None if label is None else words.index(label)
        number_of = -1 if label is None else int(label)
        yield number, {**fields, "label": number_of}, _labelled(number_of, words)


def _boolq(path: Path, task: str) -> Iterator[Example]:
    for number, row in enumerate(load_lines(path)):
        answer = row["answer"] if "answer" in row else row["label"]
        fields = {"question": row["question"], "passage": row["passage"], "label": int(answer)}
        yield number, fields, ["Yes" if answer else "No"]


def _multirc(path: Path, task: str) -> Iterator[Example]:
    for number, row in enumerate(load_lines(path)):
        for asked in row["passage"]["questions"]:
            for answer in asked["answers"]:
                label = answer.get("label", -1)
                fields = {
                    "paragraph": row["passage"]["text"],
                    "question": asked["question"],
                    "answer": answer["text"],
                    "label": label,
                }
                yield number, fields, _labelled(label, ["No", "Yes"])


def _record(path: Path, task: str) -> Iterator[Example]:
    rows = load(path)["data"] if path.suffix == ".json" else load_lines(path)
    for number, row in enumerate(rows):
        passage = row["passage"]["text"]
        names = sorted({passage[span["start"] : span["end"] + 1] for span in row["passage"]["entities"]})
        for asked in row["qas"]:
            answers = sorted({answer["text"] for answer in asked["answers"]})
            fields = {"passage": passage, "query": asked["query"], "entities": names, "answers": answers}
            yield number, fields, answers


def _codah(path: Path, task: str) -> Iterator[Example]:
    for number, line in enumerate(lines_of(path)):
        kind, prompt, *choices, place = line.rstrip("\r").split("\t")
        fields = {
            "question_category": "irpnqo".index(kind),
            "question_propmt": prompt,
            "candidate_answers": choices,
            "correct_answer_idx": int(place),
        }
        yield number, fields, [choices[int(place)]]


def _scan(path: Path, task: str) -> Iterator[Example]:
    for number, line in enumerate(lines_of(path)):
        command, _, actions = line.removeprefix("IN: ").partition(" OUT: ")
        yield number, {"commands": command, "actions": actions}, [actions]


def _sst(path: Path, task: str) -> Iterator[Example]:
    scores = ("0.1", "0.3", "0.5", "0.7", "0.9")
    for number, line in enumerate(lines_of(path)):
        score = scores[int(line[1])]
        words = re.findall(r"[^() ]+(?=\))", line)
        yield number, {"sentence": " ".join(words), "label": float(score)}, [score]


def _commonsense_qa(path: Path, task: str) -> Iterator[Example]:
    for number, row in enumerate(load_lines(path)):
        choices = row["question"]["choices"]
        columns = {name: [choice[name] for choice in choices] for name in ("label", "text")}
        key = row.get("answerKey", "")
        fields = {"question": row["question"]["stem"], "choices": columns, "answerKey": key}
        yield number, fields, [choice["text"] for choice in choices if choice["label"] == key]


def _piqa(path: Path, task: str) -> Iterator[Example]:
    for number, row in enumerate(load_lines(path)):
        label = row.get("label", -1)
        fields = {"goal": row["goal"], "sol1": row["sol1"], "sol2": row["sol2"], "label": label}
        yield number, fields, _labelled(label, [row["sol1"], row["sol2"]])


def _swag(path: Path, task: str) -> Iterator[Example]:
    header, *rows = csv_rows(path)
    for number, cells in enumerate(rows):
        row = dict(zip(header, cells, strict=True))
        endings = [row[f"ending{n}"] for n in range(4)]
        fields: dict[str, Any] = {name: row[name] for name in ("startphrase", "sent1", "sent2")}
        fields |= {f"ending{n}": text for n, text in enumerate(endings)}
        yield number, {**fields, "label": int(row["label"])}, [endings[int(row["label"])]]


def _snli(path: Path, task: str) -> Iterator[Example]:
    words = ["entailment", "neutral", "contradiction"]
    for number, row in enumerate(load_lines(path)):
        label = words.index(row["gold_label"]) if row["gold_label"] != "-" else -1
        fields = {"premise": row["sentence1"], "hypothesis": row["sentence2"], "label": label}
        yield number, fields, _labelled(label, words)


def _quora(path: Path, task: str) -> Iterator[Example]:
    for number, line in enumerate(lines_of(path)):
        same, first, second, _ = line.split("\t")
        fields = {"questions": {"text": [first, second]}, "is_duplicate": same == "1"}
        yield number, fields, ["duplicate" if same == "1" else "not_duplicate"]


def _wiki_hop(path: Path, task: str) -> Iterator[Example]:
    for number, row in enumerate(load(path)):
        fields = {name: row[name] for name in ("answer", "candidates", "supports")}
        yield number, {**fields, "question": row["query"]}, [row["answer"]]


def _squad(path: Path, task: str) -> Iterator[Example]:
    for number, part in enumerate(load(path)["data"]):
        for paragraph in part["paragraphs"]:
            for asked in paragraph["qas"]:
                columns = {key: [a[key] for a in asked["answers"]] for key in ("text", "answer_start")}
                fields = {
                    "title": part["title"],
                    "context": paragraph["context"],
                    "question": asked["question"],
                    "answers": columns,
                }
                yield number, fields, columns["text"]


# ------------------------------------------------------------------------------------------- structures


def _table(header: list[str], rows: list[list[str]]) -> str:
    cells = [[" ".join(cell.splitlines()) for cell in row] for row in (header, *rows)]
    parts = [
        f"row {n} : {' | '.join(row)}" if n else f"col : {' | '.join(row)}" for n, row in enumerate(cells)
    ]
    return " ".join(parts)


def _dart(path: Path, task: str) -> Iterator[Example]:
    for number, row in enumerate(load(path)):
        triples = [f"{a} : {relation.lower()} : {b}" for a, relation, b in row["tripleset"]]
        yield number, {"struct": " | ".join(triples)}, [note["text"] for note in row["annotations"]]


def _fetaqa(path: Path, task: str) -> Iterator[Example]:
    for number, row in enumerate(load_lines(path)):
        header, *rows = row["table_array"]
        struct = f"{row['table_page_title']} | {row['table_section_title']} {_table(header, rows)}"
        yield number, {"text": row["question"], "struct": struct}, [row["answer"]]


def _spider(path: Path, task: str) -> Iterator[Example]:
    schemas = {row["db_id"]: row for row in load(path.with_name("tables.json"))}
    for number, row in enumerate(load(path)):
        schema = schemas[row["db_id"]]
        struct = f"| {row['db_id']}"
        for place, table in enumerate(schema["table_names_original"]):
            columns = [name for where, name in schema["column_names_original"] if where == place]
            struct += f" | {table} : {' , '.join(columns)}"
        yield number, {"text": row["question"], "struct": struct}, [row["query"]]


_CELL = re.compile(r'"((?:[^"\\]|\\.)*)"(,|\n|$)', re.DOTALL)


def _wikitq_table(path: Path) -> str:
    rows: list[list[str]] = [[]]
    for match in _CELL.finditer(text_of(path)):
        rows[-1].append(re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL))
        if match[2] != ",":
            rows.append([])
    header, *others = [row for row in rows if row]
    return _table(header, others)


def _wikitq_text(text: str) -> str:
    names = {"n": "\n", "p": "|", "\\": "\\"}
    return re.sub(r"\\([np\\])", lambda match: names[match[1]], text)


def _wikitq(path: Path, task: str) -> Iterator[Example]:
    tables: dict[str, str | None] = {}
    for number, line in enumerate(lines_of(path)[1:]):
        _, question, table, target = line.split("\t")
        if table not in tables:
            file = path.parent.parent / table
            tables[table] = _wikitq_table(file) if file.is_file() else None
        answer = ", ".join(_wikitq_text(part) for part in target.split("|"))
        yield number, {"text": _wikitq_text(question), "struct": tables[table]}, [answer]


# ------------------------------------------------------------------------------------------- evaluation


def _mmlu(path: Path, task: str) -> Iterator[Example]:
    for number, (question, a, b, c, d, letter) in enumerate(csv_rows(path)):
        yield number, {"question": question}, [(a, b, c, d)["ABCD".index(letter)]]


def _mmlu_exemplars(path: Path, task: str) -> Iterator[Example]:
    text = load(path)[task.removeprefix("evaluation/mmlu_")]
    for number, piece in enumerate(text.rstrip().split("\n\nQ:")[1:]):
        asked, rest = piece[1:].split("\nA: Let's think step by step.", 1)
        question, listed = asked.rsplit("\n(A) ", 1)
        choices = re.split(r"\s\([BCDE]\)\s", listed)
        rationale, answer = rest.rsplit("The answer is (", 1)
        fields = {"question": question, "rationale": rationale.strip(), "example_kind": "chain_of_thought"}
        yield number, fields, [choices["ABCDE".index(answer[0])]]


def _bbh(path: Path, task: str) -> Iterator[Example]:
    for number, row in enumerate(load(path)["examples"]):
        yield number, {"input": row["input"]}, [row["target"]]


def _bbh_exemplars(path: Path, task: str) -> Iterator[Example]:
    for number, piece in enumerate(text_of(path).rstrip().split("\n\nQ: ")[1:]):
        question, rest = piece.split("\nA: Let's think step by step.", 1)
        rationale, answer = rest.rsplit("So the answer is ", 1)
        yield number, {"input": question, "rationale": rationale.strip()}, [answer.strip().removesuffix(".")]


def _gsm8k(path: Path, task: str) -> Iterator[Example]:
    for number, row in enumerate(load_lines(path)):
        answer = re.sub("<<.*?>>", "", row["answer"])
        final = row["answer"].rsplit("#### ", 1)[1].strip().replace(",", "")
        yield number, {"question": row["question"], "answer": answer}, [final]


def _truthfulqa(path: Path, task: str) -> Iterator[Example]:
    header, *rows = csv_rows(path)
    for number, cells in enumerate(rows):
        row = dict(zip(header, cells, strict=True))
        answers = [text.strip() for text in (row["Best Answer"], *row["Correct Answers"].split(";"))]
        fields = {
            "question": row["Question"],
            "correct_answers": row["Correct Answers"],
            "incorrect_answers": row["Incorrect Answers"],
            "topic": row["Category"],
            "type": row["Type"],
            "source": row["Source"],
        }
        yield number, fields, list(dict.fromkeys(text for text in answers if text))


def _drop_texts(answer: dict[str, Any]) -> list[str]:
    date = " ".join(answer["date"][part] for part in ("day", "month", "year") if answer["date"].get(part))
    return [text for text in (answer["number"], date, ", ".join(answer["spans"])) if text]


def _drop(path: Path, task: str) -> Iterator[Example]:
    for number, passage in enumerate(load(path).values()):
        for asked in passage["qa_pairs"]:
            answer, validated = asked["answer"], asked.get("validated_answers", [])
            fields = {"question": asked["question"], "answer": answer, "validated_answers": validated}
            if task.startswith("promptsource/"):
                spans = answer["spans"] or _drop_texts(answer)
                fields |= {"passage": passage["passage"], "answers_spans": {"spans": spans}}
            else:
                fields |= {"context": passage["passage"]}
            texts = [text for given in (answer, *validated) for text in _drop_texts(given)]
            yield number, fields, sorted(set(texts))


def _humaneval(path: Path, task: str) -> Iterator[Example]:
    name = "prompt" if task.startswith("promptsource/") else "text"
    for number, row in enumerate(load_lines(path)):
        fields = {key: row[key] for key in ("canonical_solution", "test", "entry_point")}
        yield number, {**fields, name: row["prompt"]}, [row["canonical_solution"]]


# -------------------------------------------------------------------------- chat, dialogues, documents


def _instruction(row: dict[str, Any], given: str, output: str) -> tuple[dict[str, Any], list[str]]:
    fields = {"instruction": row["instruction"]}
    return fields | ({"input": given} if given.strip() else {}), [output]


def _alpaca(path: Path, task: str) -> Iterator[Example]:
    for number, row in enumerate(load(path)):
        yield number, *_instruction(row, row["input"], row["output"])


def _dolly(path: Path, task: str) -> Iterator[Example]:
    for number, row in enumerate(load(path)):
        yield number, *_instruction(row, row["context"], row["response"])


def _self_instruct(path: Path, task: str) -> Iterator[Example]:
    for number, row in enumerate(load_lines(path)):
        for instance in row["instances"]:
            yield number, *_instruction(row, instance["input"], instance["output"])


def _sharegpt(path: Path, task: str) -> Iterator[Example]:
    roles = {"human": "user", "gpt": "assistant", "function_call": "call", "observation": "tool"}
    for number, row in enumerate(load(path)):
        turns = [{roles[turn["from"]]: turn["value"]} for turn in row["conversations"]]
        yield number, {"turns": turns, **({"tools": row["tools"]} if "tools" in row else {})}, []


def _turn(message: dict[str, Any]) -> dict[str, str]:
    return {{"prompter": "user"}.get(message["role"], message["role"]): message["text"]}


def _oasst(path: Path, task: str) -> Iterator[Example]:
    if path.suffix == ".json":
        messages = load(path)
        places = {message["user_message_id"]: place for place, message in enumerate(messages)}
        answered = {message["parent_message_id"] for message in messages}
        for place, message in enumerate(messages):
            if message["user_message_id"] not in answered:
                turns, above = [_turn(message)], message
                while above["parent_message_id"] in places:
                    above = messages[places[above["parent_message_id"]]]
                    turns.insert(0, _turn(above))
                yield place, {"turns": turns}, []
        return
    for number, row in enumerate(load_lines(path)):
        if isinstance(row, str):
            yield number, {"turns": [{"user": row}]}, []
            continue
        for messages in leaves(row.get("prompt", row)):
            yield number, {"turns": [_turn(message) for message in messages]}, []


def _sgd(path: Path, task: str) -> Iterator[Example]:
    roles = {"USER": "user", "SYSTEM": "assistant"}
    for number, row in enumerate(load(path)):
        yield number, {"turns": [{roles[turn["speaker"]]: turn["utterance"]} for turn in row["turns"]]}, []


def _quac(path: Path, task: str) -> Iterator[Example]:
    for number, paragraph in enumerate(paragraphs(path)):
        turns = []
        for pair in paragraph["qas"]:
            given = pair.get("orig_answer") or pair["answers"][0]
            turns += [{"user": pair["question"]}, {"assistant": given["text"]}]
        yield number, {"context": paragraph["context"], "turns": turns}, []


def _documents(path: Path, task: str) -> Iterator[Example]:
    lines = lines_of(path)
    texts = [json.loads(line)["text"] for line in lines] if path.suffix == ".jsonl" else lines
    yield from ((number, {"text": text}, []) for number, text in enumerate(texts))


EXPECT: dict[str, Callable[[Path, str], Iterator[Example]]] = {
    "super_natural_instructions": _sni,
    "p3": _p3,
    "reasoning": _reasoning,
    "superglue": _superglue,
    "boolq": _boolq,
    "multirc": _multirc,
    "record": _record,
    "codah": _codah,
    "scan": _scan,
    "sst": _sst,
    "commonsense_qa": _commonsense_qa,
    "piqa": _piqa,
    "swag": _swag,
    "snli": _snli,
    "quora": _quora,
    "wiki_hop": _wiki_hop,
    "squad": _squad,
    "dart": _dart,
    "fetaqa": _fetaqa,
    "spider": _spider,
    "wikitq": _wikitq,
    "mmlu": _mmlu,
    "mmlu_exemplars": _mmlu_exemplars,
    "bbh": _bbh,
    "bbh_exemplars": _bbh_exemplars,
    "gsm8k": _gsm8k,
    "truthfulqa": _truthfulqa,
    "drop": _drop,
    "humaneval": _humaneval,
    "alpaca": _alpaca,
    "dolly": _dolly,
    "self_instruct": _self_instruct,
    "sharegpt": _sharegpt,
    "oasst": _oasst,
    "sgd": _sgd,
    "quac": _quac,
    "documents": _documents,
}
"""Every format but those of which no example is kept: predictions of models, and TabFact without its tables."""
