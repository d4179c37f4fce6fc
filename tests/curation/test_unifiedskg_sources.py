"""UnifiedSKG: instantiated records and the raw sets; structures as text; damage; real files against other readings."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mutations import as_values, mutated
from native_files import folder, lines, read_all, write

from taskmill.curation.reader import TaskData, load_reader
from taskmill.curation.sources._linear import (
    dialogue_text,
    schema_text,
    state_text,
    table_text,
    triples_text,
    unescape,
)
from taskmill.errors import DataError

TABLE = '"Boat","Cargo"\n"Tern","oat \\"cakes\\", two"\n"Gull\nII","a\\\\b"\n'
WIKITQ_HEAD = "id\tutterance\tcontext\ttargetValue\n"
WIKITQ = {
    "wt/csv/1-csv/0.csv": TABLE,
    "wt/data/training.tsv": WIKITQ_HEAD
    + "nt-0\twhat \\p why\tcsv/1-csv/0.csv\tTern|a\\pb\n"
    + "nt-1\twho\tcsv/1-csv/9.csv\tTern\n",
    "wt/data/pristine-unseen-tables.tsv": WIKITQ_HEAD + "nu-0\twhich\tcsv/1-csv/0.csv\tGull\n",
    "wt/data/training-before300.tsv": WIKITQ_HEAD + "nt-0\twhat \\p why\tcsv/1-csv/0.csv\tTern|a\\pb\n",
    "wt/data/random-split-seed-1-dev.tsv": WIKITQ_HEAD + "nt-5\twhen\tcsv/1-csv/0.csv\t1\n",
    "wt/data/training-before300.examples": "(example (id nt-0))\n",
}
DART = {
    "tripleset": [["Tern", "SAILS_TO", "Ermin"], ["Ermin", "IS", "an island"]],
    "annotations": [
        {"source": "made_up", "text": "The Tern sails to Ermin."},
        {"source": "x", "text": "To Ermin!"},
    ],
}
FETAQA = {
    "feta_id": 7,
    "table_page_title": "Boats",
    "table_section_title": "List",
    "table_array": [["Boat", "Year"], ["Tern", "1901"]],
    "highlighted_cell_ids": [[1, 1]],
    "question": "When?",
    "answer": "In 1901.",
}
SCHEMA = {
    "db_id": "harbour",
    "table_names_original": ["Boat", "Island"],
    "column_names_original": [[-1, "*"], [0, "Boat_ID"], [0, "Name"], [1, "Name"]],
}
SPIDER = {"db_id": "harbour", "question": "How many boats?", "query": "SELECT count(*) FROM Boat"}
TABFACT = {
    "t-1.html.csv": [["the tern carry cake", "no boat"], [1, 0], "boats"],
    "t-2.csv": [["x"], [0], "y"],
}
NOTHING = {"semi": {"area": "", "stars": "not mentioned"}, "book": {"booked": [], "day": ""}}
ASKED = {"semi": {"area": "east", "stars": "dont care"}, "book": {"booked": [{"name": "x"}], "day": "Sunday"}}
LOG = [
    {"text": "A bed, please?", "metadata": {}},
    {"text": "Where?\n", "metadata": {"hotel": NOTHING}},
    {"text": "In the east,\non Sunday.", "metadata": {}},
    {"text": "Done.", "metadata": {"hotel": ASKED}},
]
RAW: dict[str, str | bytes] = {
    **WIKITQ,
    "dart/dart-v1.1.1-full-train.json": json.dumps([DART], indent=2),
    "feta/fetaQA-v1_dev.jsonl": lines(FETAQA),
    "spider/dev.json": json.dumps([SPIDER, {**SPIDER, "db_id": "nowhere"}]),
    "spider/tables.json": json.dumps([SCHEMA]),
    "facts/test_examples.json": json.dumps(TABFACT),
    "facts/all_csv/t-1.html.csv": "boat#cargo\ntern#cake\n",
    "woz/data.json": json.dumps({"a.json": {"goal": {}, "log": LOG}, "b.json": {"log": LOG[:2]}}),
    "woz/valListFile.txt": "c.json\n",
    "woz/testListFile.json": "b.json\n",
    "blec/template_to_names_test.json": "[{}]",
    "LICENSE": "none",
}


def test_structures_as_text() -> None:
    assert table_text(["a", "b"], [["x", "y"], ["z\nz", ""]]) == "col : a | b row 1 : x | y row 2 : z z | "
    assert triples_text(DART["tripleset"]) == "Tern : sails_to : Ermin | Ermin : is : an island"  # type: ignore[arg-type]
    assert schema_text(SCHEMA) == "| harbour | Boat : Boat_ID , Name | Island : Name"
    assert state_text([("hotel-area", "east"), ("hotel-book day", " Sunday ")]) == (
        "hotel-area east, hotel-book day Sunday"
    )
    assert state_text([]) == "none"
    assert dialogue_text([("user", "Hi\nyou"), ("system", "Yes? ")]) == "user : Hi you\nsystem : Yes?"
    assert unescape(r"a\pb\\n\n") == "a|b\\n\n"


def test_raw_sets(tmp_path: Path) -> None:
    write(tmp_path, {f"up/{name}": content for name, content in RAW.items()})
    found = read_all("unifiedskg", folder(tmp_path, "up"))
    assert sorted(found) == ["dart", "fetaqa", "multiwoz", "spider", "tabfact", "wikitq"]
    for data in found.values():
        assert data.facts["metadata"]["shape"] == "structured" and data.facts["definition"]
    table = 'col : Boat | Cargo row 1 : Tern | oat "cakes", two row 2 : Gull II | a\\b'
    columns = found["wikitq"].columns
    assert columns.fields == [
        {"text": "which", "struct": table},
        {"text": "when", "struct": table},
        {"text": "what | why", "struct": table},
    ]
    assert columns.references == [["Gull"], ["1"], ["Tern, a|b"]]
    assert columns.upstream_split == ["test", "validation", "train"]
    assert columns.upstream_id == ["nu-0", "nt-5", "nt-0"] and set(columns.group) == {"csv/1-csv/0.csv"}
    assert Counter(a.reason for a in found["wikitq"].aside) == {"missing_table": 1, "read_before": 1}
    columns = found["dart"].columns
    assert columns.fields == [{"struct": triples_text(DART["tripleset"])}]  # type: ignore[arg-type]
    assert columns.references == [["The Tern sails to Ermin.", "To Ermin!"]]
    assert columns.upstream_split == ["train"] and columns.group == [columns.fields[0]["struct"]]
    columns = found["fetaqa"].columns
    assert columns.fields == [
        {"text": "When?", "struct": "Boats | List col : Boat | Year row 1 : Tern | 1901"}
    ]
    assert columns.references == [["In 1901."]] and columns.upstream_id == ["7"]
    columns = found["spider"].columns
    assert columns.fields == [{"text": "How many boats?", "struct": schema_text(SCHEMA)}]
    assert columns.references == [["SELECT count(*) FROM Boat"]] and columns.group == ["harbour"]
    assert [a.reason for a in found["spider"].aside] == ["missing_schema"]
    columns = found["tabfact"].columns
    struct = "col : boat | cargo row 1 : tern | cake"
    assert columns.fields == [
        {"text": "the tern carry cake", "struct": struct},
        {"text": "no boat", "struct": struct},
    ]
    assert columns.references == [["entailed"], ["refuted"]] and columns.record == [0, 1]
    assert [(a.reason, a.record) for a in found["tabfact"].aside] == [("missing_table", 2)]


def test_the_state_of_a_dialogue_after_each_turn_of_the_user(tmp_path: Path) -> None:
    write(tmp_path, {f"up/{name}": content for name, content in RAW.items() if name.startswith("woz/")})
    columns = read_all("unifiedskg", folder(tmp_path, "up"))["multiwoz"].columns
    slots = "hotel-area, hotel-stars, hotel-book day"
    first = {"text": "user : A bed, please?", "struct": slots}
    talk = "user : A bed, please?\nsystem : Where?\nuser : In the east, on Sunday."
    assert columns.fields == [first, {"text": talk, "struct": slots}, first]
    assert columns.references == [
        ["none"],
        ["hotel-area east, hotel-stars dont care, hotel-book day Sunday"],
        ["none"],
    ]
    assert columns.upstream_split == ["train", "train", "test"]
    assert columns.group == ["a.json", "a.json", "b.json"] and columns.record == [0, 1, 2]


def test_both_forms_and_compression(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    record = {"text_in": "a", "struct_in": "b", "seq_out": "c", "table_id": 4}
    write(
        tmp_path,
        {
            "up/kv_train.jsonl": lines(record),
            "up/deep/kv_dev.jsonl.gz": gzip.compress(lines(record).encode()),
            "up/dart-v9-full-test.json.gz": gzip.compress(json.dumps([DART]).encode()),
        },
    )
    (tmp_path / "up/sql").mkdir()
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "up/sql/validation-00000-of-00001.parquet")
    found = read_all("unifiedskg", folder(tmp_path, "up"))
    assert {name: data.columns.upstream_split for name, data in found.items()} == {
        "dart": ["test"],
        "kv": ["validation", "train"],
        "sql": ["validation"],
    }
    assert found["sql"].columns.fields == [{"text": "a", "struct": "b"}] and found["sql"].columns.group == [
        "4"
    ]
    write(tmp_path, {"up/dart_train.jsonl": lines(record)})
    with pytest.raises(DataError, match="here twice"):
        load_reader("unifiedskg").discover(folder(tmp_path, "up"))


WIKITQ_LINE = b"nt-0\twhat\tcsv/1-csv/0.csv\tTern\n"
DAMAGES: list[tuple[str, bytes, str, int]] = [
    ("wt/data/training.tsv", b"", "empty_file", 0),
    ("wt/data/training.tsv", WIKITQ_HEAD.encode() + WIKITQ_LINE + b"nt-9\tx\n", "wrong_columns", 1),
    ("wt/data/training.tsv", WIKITQ_HEAD.encode() + b"nt-9\t\xff\tc\td\n", "bad_encoding", 0),
    (
        "wt/data/training.tsv",
        WIKITQ_HEAD.replace("context", "table").encode() + WIKITQ_LINE,
        "missing_field",
        0,
    ),
    (
        "dart/dart-v1.1.1-full-train.json",
        json.dumps([{**DART, "tripleset": [["a", "b"]]}]).encode(),
        "wrong_type",
        0,
    ),
    ("dart/dart-v1.1.1-full-train.json", json.dumps([{**DART, "annotations": []}]).encode(), "wrong_type", 0),
    ("dart/dart-v1.1.1-full-train.json", json.dumps([DART])[:-9].encode(), "bad_json", 0),
    ("dart/dart-v1.1.1-full-train.json", b'{"a": 1}', "wrong_type", 0),
    ("feta/fetaQA-v1_dev.jsonl", lines({**FETAQA, "table_array": [[1]]}).encode(), "wrong_type", 0),
    ("feta/fetaQA-v1_dev.jsonl", lines(FETAQA, {**FETAQA, "answer": None}).encode(), "wrong_type", 1),
    ("feta/fetaQA-v1_dev.jsonl", lines(FETAQA).encode() + b'{"feta', "bad_json", 1),
    ("spider/dev.json", json.dumps([SPIDER, {"question": "x"}]).encode(), "missing_field", 1),
    (
        "spider/tables.json",
        json.dumps([{**SCHEMA, "column_names_original": [[5, "x"]]}]).encode(),
        "bad_schema",
        0,
    ),
    ("spider/tables.json", b"[", "bad_json", 0),
    (
        "facts/test_examples.json",
        json.dumps({"t-1.html.csv": [["a"], [1, 0], "c"]}).encode(),
        "wrong_type",
        0,
    ),
    ("facts/test_examples.json", json.dumps({"t-1.html.csv": [["a"], [2], "c"]}).encode(), "wrong_type", 0),
    ("facts/test_examples.json", b"[]", "wrong_type", 0),
    (
        "woz/data.json",
        json.dumps({"a": {"log": LOG[:2]}, "b": {"log": [{"text": 1}]}}).encode(),
        "wrong_type",
        1,
    ),
    ("woz/data.json", json.dumps({"a": {"log": LOG[:1] * 2}, "b": {}}).encode(), "wrong_type", 1),
    ("woz/data.json", json.dumps({"a": {"log": [LOG[0], {"text": "x"}]}}).encode(), "wrong_type", 0),
    ("facts/test_examples.json", b'{"a": \xff}', "bad_json", 0),
]


@pytest.mark.parametrize(("name", "content", "reason", "kept"), DAMAGES)
def test_damage(tmp_path: Path, name: str, content: bytes, reason: str, kept: int) -> None:
    within = name.split("/")[0]
    own = {key: text for key, text in RAW.items() if key.startswith(f"{within}/") and "before300" not in key}
    own = {key: text for key, text in own.items() if "pristine" not in key and "random" not in key}
    if name == "spider/tables.json":
        own["spider/dev.json"] = json.dumps([SPIDER])
    write(tmp_path, {**own, name: content})
    with pytest.raises(DataError):
        read_all("unifiedskg", folder(tmp_path, within))
    (data,) = read_all("unifiedskg", folder(tmp_path, within, on_error="skip")).values()
    assert [aside.reason for aside in data.aside] == [reason] and len(data.columns) == kept


@pytest.mark.parametrize(
    "context", ["../secret.csv", "/etc/hosts", "csv/1-csv", "", "csv/../../secret.csv", "\0"]
)
def test_tables_outside_the_folder_are_missing(tmp_path: Path, context: str) -> None:
    files = {**WIKITQ, "wt/data/training.tsv": f"{WIKITQ_HEAD}nt-8\twho\t{context}\tx\n", "secret.csv": "a\n"}
    write(tmp_path, files)
    data = read_all("unifiedskg", folder(tmp_path, "wt"))["wikitq"]
    assert "nt-8" not in data.columns.upstream_id and "missing_table" in [a.reason for a in data.aside]


def test_a_damaged_table_is_damage_of_the_questions_about_it(tmp_path: Path) -> None:
    for content in (b"\xff\xfe", b'"a","b\n', b""):
        write(tmp_path, {**WIKITQ, "wt/csv/1-csv/0.csv": content})
        with pytest.raises(DataError, match=r"csv/1-csv/0\.csv"):
            read_all("unifiedskg", folder(tmp_path, "wt"))
        data = read_all("unifiedskg", folder(tmp_path, "wt", on_error="skip"))["wikitq"]
        assert not len(data.columns) and [a.reason for a in data.aside].count("bad_table") == 4


def counted(data: TaskData) -> int:
    return len(data.columns) + len(data.aside)


def test_mutated_records_are_kept_or_kept_aside(tmp_path: Path) -> None:
    record = {"text_in": "a", "struct_in": "b", "seq_out": "c", "table_id": 1}
    changed = [line for line in mutated([lines(record).strip().encode()], 10_000, 1) if line.strip()]
    dart = list(mutated([json.dumps(DART).encode()], 3_000, 2))
    feta = [line for line in mutated([json.dumps(FETAQA).encode()], 3_000, 3) if line.strip()]
    spider = list(mutated([json.dumps(SPIDER).encode()], 3_000, 4))
    question = b"nt-1\twhat \\p why\tcsv/1-csv/0.csv\tTern|a\\pb"
    wikitq = [line for line in mutated([question], 3_000, 5) if line]
    write(
        tmp_path,
        {
            "m/kv_train.jsonl": b"\n".join(changed),
            "m/dart-v1-full-dev.json": f"[{', '.join(as_values(dart))}]",
            "m/fetaQA-v1_dev.jsonl": b"\n".join(feta),
            "m/dev.json": f"[{', '.join(as_values(spider))}]",
            "m/tables.json": json.dumps([SCHEMA]),
            "m/csv/1-csv/0.csv": TABLE,
            "m/data/training.tsv": WIKITQ_HEAD.encode() + b"\n".join(wikitq),
        },
    )
    found = read_all("unifiedskg", folder(tmp_path, "m", on_error="skip"))
    assert {name: counted(data) for name, data in found.items()} == {
        "kv": len(changed),
        "dart": 3_000,
        "fetaqa": len(feta),
        "spider": 3_000,
        "wikitq": len(wikitq),
    }


def test_mutated_statements_and_schemas(tmp_path: Path) -> None:
    for name, document in (("test_examples.json", TABFACT), ("tables.json", [SCHEMA])):
        write(tmp_path, {"m/dev.json": json.dumps([SPIDER]), "m/tables.json": json.dumps([SCHEMA])})
        write(tmp_path, {"m/test_examples.json": json.dumps(TABFACT), "m/all_csv/t-1.html.csv": "a#b\n"})
        for line in mutated([json.dumps(document).encode()], 400, 6):
            write(tmp_path, {f"m/{name}": line})
            found = read_all("unifiedskg", folder(tmp_path, "m", on_error="skip"))
            assert all(counted(data) for data in found.values())


# ------------------------------------------------------------------------------------------- real files


def fields_of(data: TaskData, path: str) -> dict[int, tuple[dict[str, Any], list[str]]]:
    columns = data.columns
    return {
        record: (fields, references)
        for file, record, fields, references in zip(
            columns.file, columns.record, columns.fields, columns.references, strict=True
        )
        if file == path
    }


def test_real_raw_sets(shared_data: Path) -> None:
    root = shared_data / "unifiedskg"
    found = read_all("unifiedskg", folder(shared_data, "unifiedskg"))
    assert {name: (len(d.columns), Counter(a.reason for a in d.aside)) for name, d in found.items()} == {
        "dart": (2768, {}),
        "fetaqa": (1001, {}),
        "spider": (1034, {}),
        "tabfact": (0, {"missing_table": 12779}),
        "wikitq": (5072, {"missing_table": 2272, "read_before": 300}),
    }
    _compare_wikitq(root / "wikitablequestions", found["wikitq"])
    dart = json.loads((root / "dart/dart-v1.1.1-full-dev.json").read_text(encoding="utf-8"))
    read = fields_of(found["dart"], "unifiedskg/dart/dart-v1.1.1-full-dev.json")
    for number, raw in enumerate(dart):
        struct = " | ".join(" : ".join((a, b.lower(), c)) for a, b, c in raw["tripleset"])
        assert read[number] == ({"struct": struct}, [note["text"] for note in raw["annotations"]])
    text = (root / "fetaqa/fetaQA-v1_dev.jsonl").read_text(encoding="utf-8")
    read = fields_of(found["fetaqa"], "unifiedskg/fetaqa/fetaQA-v1_dev.jsonl")
    for number, line in enumerate(text.split("\n")[:-1]):
        raw = json.loads(line)
        fields, references = read[number]
        assert (fields["text"], references) == (raw["question"], [raw["answer"]])
        assert all(cell in fields["struct"] for row in raw["table_array"] for cell in row if "\n" not in cell)
    _compare_spider(root / "spider", found["spider"])
    _compare_tab_fact(root / "tabfact/test_examples.json", found["tabfact"])


def _compare_wikitq(root: Path, data: TaskData) -> None:
    for name in ("training", "pristine-unseen-tables"):
        read = fields_of(data, f"unifiedskg/wikitablequestions/data/{name}.tsv")
        rows = (root / f"data/{name}.tsv").read_text(encoding="utf-8").split("\n")[1:-1]
        for number, row in enumerate(rows):
            _, question, context, target = row.split("\t")
            assert (number in read) == (root / context).is_file()
            if number in read:
                fields, references = read[number]
                assert (fields["text"], references) == (question, [target.replace("|", ", ")])
                if number % 50 == 0:
                    with (root / context).open(encoding="utf-8", newline="") as file:
                        text = file.read().replace('\\"', '""').replace("\\\\", "\\")
                    cells = [c for row in csv.reader(text.splitlines(keepends=True)) for c in row]
                    assert all(" ".join(cell.splitlines()) in fields["struct"] for cell in cells)


def _compare_spider(root: Path, data: TaskData) -> None:
    schemas = {s["db_id"]: s for s in json.loads((root / "tables.json").read_text(encoding="utf-8"))}
    read = fields_of(data, "unifiedskg/spider/dev.json")
    for number, raw in enumerate(json.loads((root / "dev.json").read_text(encoding="utf-8"))):
        fields, references = read[number]
        assert (fields["text"], references) == (raw["question"], [raw["query"]])
        parts = fields["struct"].split(" | ")
        schema = schemas[raw["db_id"]]
        assert parts[0] == f"| {raw['db_id']}" and len(parts) == 1 + len(schema["table_names_original"])
        for place, name in enumerate(schema["table_names_original"]):
            columns = [column for table, column in schema["column_names_original"] if table == place]
            assert parts[1 + place] == f"{name} : {' , '.join(columns)}"


def _compare_tab_fact(path: Path, data: TaskData) -> None:
    raw = json.loads(path.read_text(encoding="utf-8"))
    wanted = [
        {"table": table, "statement": statement, "label": label}
        for table, (statements, labels, _) in raw.items()
        for statement, label in zip(statements, labels, strict=True)
    ]
    assert [json.loads(aside.raw) for aside in data.aside] == wanted
    assert [aside.record for aside in data.aside] == list(range(12779))
