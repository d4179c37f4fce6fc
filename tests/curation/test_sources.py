"""Readers: records in each native format, field by field, and the real and demo files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_files import FLAN_ROWS, PETS_CAST, SNI_TASK, TEMPLATES, folder, lines, read_all, write

from taskmill.curation.reader import SourceFolder, load_reader
from taskmill.curation.sources import _files
from taskmill.errors import RecipeError, TaskmillError
from taskmill.recipe import known_readers


@pytest.mark.parametrize("name", known_readers())
def test_every_reader_has_the_contract(name: str) -> None:
    reader = load_reader(name)
    assert reader.BENCHMARK and reader.STYLE and reader.KIND
    assert callable(reader.discover) and callable(reader.read)
    assert all(isinstance(line, str) and line for line in reader.OPTIONS.values())


# --------------------------------------------------------------------------- one reader after another


def test_super_natural_instructions(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "ni/tasks/task1_made_up.json": SNI_TASK,
            "ni/more/task2_b.json": SNI_TASK,
            "ni/splits/default/train_tasks.txt": "task1_made_up\ntask9_absent\n",
            "ni/splits/default/test_tasks.txt": "task2_b\n",
            "ni/splits/xlingual/excluded_tasks.txt": "task1_made_up\n",
        },
    )
    found = read_all("super_natural_instructions", folder(tmp_path, "ni", tasks=["tasks", "more"]))
    assert [found[name].facts["upstream_role"] for name in found] == ["train", "test"]
    task = found["task1_made_up"]
    columns = task.columns
    assert columns.fields == [
        {"input": "one café"},
        {"input": "two"},
        {"input": ""},
        {"input": "a b", "explanation": "short", "example_kind": "positive"},
        {"input": "c d", "explanation": "wrong", "example_kind": "negative"},
    ]
    assert columns.references == [["One", "1"], ["Two"], [], ["A"], ["D"]]
    assert columns.upstream_id == ["t1-x", "t1-x", "t1-z", "positive-1", "negative-1"]
    assert columns.upstream_split == [None, None, None, "demonstration", "demonstration"]
    assert columns.record == [0, 1, 2, 3, 4]
    assert set(columns.file) == {"ni/tasks/task1_made_up.json"}
    facts = task.facts
    assert (facts["category"], facts["dataset"], facts["definition"]) == (
        "Title Generation",
        "made_up",
        "Write a title.",
    )
    assert facts["languages"] == ["English", "French"]
    assert facts["license"] == "MIT; CC BY 4.0"
    assert facts["license_evidence"] == "Instance License: MIT; CC BY 4.0"
    assert facts["homepage"] is None
    assert facts["metadata"]["nan_keys"] == ["URL"] and facts["metadata"]["url"] == [None]
    assert facts["metadata"]["definitions"] == ["Write a title.", "Give the text a name."]
    other = read_all("super_natural_instructions", folder(tmp_path, "ni", split_list="xlingual"))
    assert other["task1_made_up"].facts["upstream_role"] == "excluded"


@pytest.mark.parametrize("word", ["synthetic", "Missing", "miscellaneous"])
def test_tasks_made_from_no_data_set_are_not_made_from_one(tmp_path: Path, word: str) -> None:
    """Else holding one of them out would drop every other as its twin."""
    task = json.loads(SNI_TASK)
    files = {
        f"ni/tasks/task{n}_made.json": json.dumps({**task, "Source": names})
        for n, names in enumerate([[word], [word, "boolq"]])
    }
    write(tmp_path, files)
    found = read_all("super_natural_instructions", folder(tmp_path, "ni"))
    assert "dataset" not in found["task0_made"].facts
    assert found["task0_made"].facts["metadata"]["source"] == [word]
    assert found["task1_made"].facts["dataset"] == "boolq"


def test_super_natural_instructions_without_orjson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SNI_TASK.replace(
        '"Domains": ["News"]', '"Domains": ["Law"], "Domains": [12345678901234567890123, -0, 1e5]'
    )
    write(tmp_path, {"tasks/t.json": text, "tasks/u.json": SNI_TASK})
    with_orjson = read_all("super_natural_instructions", folder(tmp_path))
    monkeypatch.setattr(_files, "orjson", None)
    without = read_all("super_natural_instructions", folder(tmp_path))
    assert without == with_orjson
    assert without["t"].facts["metadata"]["domains"] == [12345678901234567890123, 0, 1e5]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        max_leaves=8,
    )
)
@settings(max_examples=150, deadline=None)
def test_json_is_read_alike_with_and_without_orjson(value: Any) -> None:
    raw = json.dumps(value).encode()
    assert repr(_files.parse_json(raw)) == repr(json.loads(raw))


def test_flan(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"flan/a_zs_train.jsonl": lines(*FLAN_ROWS[:3]), "flan/b.jsonl": lines(FLAN_ROWS[3], FLAN_ROWS[0])},
    )
    found = read_all("flan", folder(tmp_path, "flan"))
    assert list(found) == ["glue/x", "other"]
    columns = found["glue/x"].columns
    assert columns.fields == [{"inputs": FLAN_ROWS[i]["inputs"]} for i in (0, 1, 0)]
    assert columns.references == [["yes"], ["d"], ["yes"]]
    assert columns.options == [["yes", "no"], ["c", "d"], ["yes", "no"]]
    assert columns.upstream_split == ["train", "train", None]
    assert list(zip(columns.file, columns.record)) == [
        ("flan/a_zs_train.jsonl", 0),
        ("flan/a_zs_train.jsonl", 1),
        ("flan/b.jsonl", 1),
    ]
    assert found["glue/x"].facts["metadata"]["template_types"] == {"fs_opt": 1, "zs_opt": 2}
    assert found["other"].columns.options == [None, None]
    assert found["other"].facts["metadata"]["task_sources"] == ["CoT", "Flan"]


def test_promptsource(tmp_path: Path) -> None:
    rows = [
        {"text": "Tom", "label": 1, "words": ["a"], "n": 4},
        {"text": "Kit", "label": -1, "words": [], "n": 4},
    ]
    write(
        tmp_path,
        {
            "ps/templates/pets/cats/templates.yaml": TEMPLATES,
            "ps/templates/pets/dogs/templates.yaml": TEMPLATES,
            "ps/data/pets/cats/train.jsonl": lines(*rows),
            "casts/pets-cats.yaml": PETS_CAST,
        },
    )
    (task,) = read_all("promptsource", folder(tmp_path, "ps", cast_folders=(tmp_path / "casts",))).items()
    name, data = task
    assert name == "pets/cats"
    assert data.columns.fields == [{k: v for k, v in row.items() if k != "n"} for row in rows]
    assert data.columns.references == [["yes"], []]
    assert data.columns.options == [None, None]
    assert data.columns.upstream_id == ["train-4", "train-4"]
    assert data.facts["dataset"] == "cats" and data.facts["output_fields"] == ["label"]
    assert data.facts["languages"] == ["English"]
    first, second, third = data.templates
    assert first == {
        "template": "1b0f",
        "name": "read_it",
        "body": "Read {{ text | upper }} {% for w in words if w.size == 2 %}{{ w }}{% endfor %} ||| "
        "{{ answer_choices[label] }}",
        "choices": "no ||| yes",
        "reads": ["label", "text", "words"],
        "keeps_task": True,
        "why": None,
        "metadata": {
            "choices_in_prompt": True,
            "languages": ["en"],
            "metrics": ["Accuracy"],
            "original_task": True,
            "reference": "someone",
        },
    }
    assert (second["keeps_task"], second["choices"], second["reads"]) == (False, None, ["text"])
    assert "not the original task" in second["why"]
    assert third["metadata"]["metrics"] == ["Accuracy"]


def test_promptsource_data_from_several_folders_and_other_splits(tmp_path: Path) -> None:
    row = {"text": "Tom", "label": 0, "words": []}
    write(
        tmp_path,
        {
            "templates/pets/cats/templates.yaml": TEMPLATES,
            "a/train.jsonl": lines(row),
            "b/train.jsonl": lines(row, row),
            "casts/pets-cats.yaml": PETS_CAST,
        },
    )
    casts = (tmp_path / "casts",)
    both = folder(tmp_path, cast_folders=casts, data={"pets/cats": ["b", "a"]})
    assert read_all("promptsource", both)["pets/cats"].columns.file == ["b/train.jsonl"] * 2 + [
        "a/train.jsonl"
    ]
    test = folder(
        tmp_path, cast_folders=casts, data={"pets/cats": {"folder": "a", "files": {"test": "*.jsonl"}}}
    )
    assert read_all("promptsource", test)["pets/cats"].columns.upstream_split == ["test"]
    for wrong, message in [
        ({"pets/cat": "a"}, "did you mean 'pets/cats'"),
        ({"pets/cats": "c"}, "no such folder"),
        ({"pets/cats": {"folder": "a", "files": {"tset": "x"}}}, "did you mean 'test'"),
        ({"pets/cats": {"folder": "a", "files": {"test": "none*.jsonl"}}}, "none"),
        (7, "expected a folder"),
    ]:
        with pytest.raises(TaskmillError, match=message):
            load_reader("promptsource").discover(folder(tmp_path, cast_folders=casts, data=wrong))


@pytest.mark.parametrize(
    ("body", "reads"),
    [
        ("{{ a.b }} {{ c['d'] }} {{ e[f] }}", ["a", "c", "e", "f"]),
        ("{% set x = y %}{{ x | join(z, attribute='q') }} {{ range(n) }}", ["n", "y", "z"]),
        ("{% for a, b in pairs %}{{ a ~ b ~ loop.index }}{% endfor %}", ["pairs"]),
        ("{% if x is defined and y == 'text here' %}{{ answer_choices[0] }}{% endif %}", ["x", "y"]),
        ("{%- if not a is none -%}{{b}}{%- endif -%} outside", ["a", "b"]),
    ],
)
def test_fields_that_a_template_reads(body: str, reads: list[str]) -> None:
    from taskmill.curation.sources.promptsource import fields_read

    assert fields_read(body) == reads


@pytest.mark.parametrize(("stated", "keeps"), [(True, True), (False, False), (None, False), ("yes", False)])
def test_a_template_keeps_the_task_only_where_upstream_says_so(stated: Any, keeps: bool) -> None:
    from taskmill.curation.sources.promptsource import template_row

    row = template_row("x", {"jinja": "a ||| b", "name": "n", "metadata": {"original_task": stated}})
    assert row["keeps_task"] is keeps and (row["why"] is None) is keeps


def test_crossfit(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "cf/qa/qa_16_13_train.tsv": "Who? (A) me (B) you\tyou\nNo choice\tx\ty\n",
            "cf/qa/qa_16_13_dev.tsv": "Who? (A) me (C) you\tyou\n",
            "cf/qa/qa_16_21_test.tsv": "Who? (A) me (B) you\tthey\n\n",
            "cf/qa/notes.tsv": "not\tdata\n",
        },
    )
    columns = read_all("crossfit", folder(tmp_path, "cf"))["qa"].columns
    assert columns.fields == [
        {"text": t}
        for t in ("Who? (A) me (C) you", "Who? (A) me (B) you", "No choice", "Who? (A) me (B) you")
    ]
    assert columns.references == [["you"], ["you"], ["x", "y"], ["they"]]
    assert columns.options == [None, ["me", "you"], None, None]
    assert columns.upstream_split == ["validation", "train", "train", "test"]


def test_unifiedskg(tmp_path: Path) -> None:
    rows = [
        {"text_in": "Who?", "struct_in": "col : a", "seq_out": "me", "table_id": 7},
        {"text_in": " ", "struct_in": "col : b", "seq_out": "B"},
    ]
    write(tmp_path, {"kg/wiki_sql_dev.jsonl": lines(*rows), "kg/wiki_sql_train.jsonl": lines(rows[1])})
    data = read_all("unifiedskg", folder(tmp_path, "kg"))["wiki_sql"]
    assert data.columns.fields == [
        {"text": "Who?", "struct": "col : a"},
        {"struct": "col : b"},
        {"struct": "col : b"},
    ]
    assert data.columns.references == [["me"], ["B"], ["B"]]
    assert data.columns.group == ["7", "col : b", "col : b"]
    assert data.columns.upstream_split == ["validation", "validation", "train"]
    assert data.facts["metadata"] == {"shape": "structured"}


def test_reasoning(tmp_path: Path) -> None:
    write(tmp_path, {"cot/sums_train.tsv": 'Say "1\\n+1"\t2\tit is 2\r\nb\tc\td\n'})
    data = read_all("reasoning", folder(tmp_path, "cot"))["sums"]
    assert data.columns.fields == [
        {"question": 'Say "1\n+1"', "answer": "2", "rationale": "it is 2"},
        {"question": "b", "answer": "c", "rationale": "d"},
    ]
    assert data.columns.references == [["2"], ["c"]] and data.columns.upstream_split == ["train"] * 2
    assert data.facts["output_fields"] == ["answer", "rationale"]


def test_documents(tmp_path: Path) -> None:
    write(tmp_path, {"d/a.jsonl": lines({"text": "one"}, {"text": "two"}), "d/b.txt": "\n\nx\ny\n\n \nz"})
    found = read_all("documents", folder(tmp_path, "d"))
    assert found["a"].columns.fields == [{"text": "one"}, {"text": "two"}]
    assert found["b"].columns.fields == [{"text": "x\ny"}, {"text": "z"}]
    assert found["b"].columns.references == [[], []] and found["b"].columns.record == [0, 1]
    by_line = read_all("documents", folder(tmp_path, "d", text_unit="line"))["b"].columns
    assert by_line.fields == [{"text": t} for t in "xyz"]
    whole = read_all("documents", folder(tmp_path, "d/b.txt", text_unit="file"))["b"].columns
    assert whole.fields == [{"text": "x\ny\n\n \nz"}]
    with pytest.raises(RecipeError, match="did you mean 'line'"):
        load_reader("documents").discover(folder(tmp_path, "d", text_unit="lines"))


def test_exmix_and_t5_through_casts(tmp_path: Path) -> None:
    boolq = {"question": "is it", "passage": "It is.", "answer": True, "title": "It"}
    write(
        tmp_path,
        {
            "ex/boolq/dev.jsonl": lines(boolq),
            "ex/scan/tasks.txt": "IN: jump OUT: I_JUMP\n",
            "ex/other/tasks.txt": "IN: walk OUT: I_WALK\n",
        },
    )
    found = read_all("exmix", folder(tmp_path, "ex"))
    assert list(found) == ["boolq", "scan"]
    columns = found["boolq"].columns
    assert columns.fields == [{"question": "is it", "context": "It is."}]
    assert (columns.references, columns.options) == ([["yes"]], [["no", "yes"]])
    assert (columns.group, columns.upstream_split) == (["It is."], ["validation"])
    assert found["boolq"].facts["metadata"]["shape"] == "question"
    assert found["boolq"].facts["output_fields"] == []
    assert found["scan"].columns.fields == [{"request": "jump"}] and found["scan"].columns.references == [
        ["I_JUMP"]
    ]
    elsewhere = read_all("t5", folder(tmp_path, "ex", casts={"scan": "other"}))
    assert elsewhere["scan"].columns.references == [["I_WALK"]]


def test_option_casts(tmp_path: Path) -> None:
    write(tmp_path, {"ex/scan/tasks.txt": "IN: jump OUT: I_JUMP\n"})
    options = SourceFolder(tmp_path / "ex", tmp_path, {"casts": ["scan"]}, "stop")
    assert list(read_all("exmix", options)) == ["scan"]
    for wanted, message in [
        (["scam"], "did you mean 'scan'"),
        (["glue-ax"], "has no `shape`"),
        ({"codah": "."}, "full_data.tsv"),
        (5, "names of casts"),
    ]:
        with pytest.raises(TaskmillError, match=message):
            load_reader("exmix").discover(SourceFolder(tmp_path / "ex", tmp_path, {"casts": wanted}, "stop"))


def test_table(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {"review": ['fine, "good"\nfood', "bad"], "stars": [1, 0]}
    write(tmp_path, {"mine/a.csv": 'review,stars\n"fine, ""good""\nfood",1\nbad,0\n'})
    pq.write_table(pa.table(rows), tmp_path / "mine/b.parquet")
    (tmp_path / "mine/c.json").write_text(json.dumps([dict(zip(rows, row)) for row in zip(*rows.values())]))
    cast = {"fields": {"text": "review"}, "references": {"path": "stars", "labels": ["no", "yes"]}}
    for file in ("a.csv", "b.parquet", "c.json"):
        options = {"task": "food", "cast": cast, "files": {"test": file}, "category": "Sentiment Analysis"}
        data = read_all("table", folder(tmp_path, "mine", **options))["food"]
        assert data.columns.fields == [{"text": text} for text in rows["review"]]
        assert data.columns.references == [["yes"], ["no"]]
        assert data.columns.upstream_split == ["test"] * 2 and data.columns.record == [0, 1]
        assert data.facts["category"] == "Sentiment Analysis" and data.facts["style"] == "keywords"
        assert data.facts["dataset"] == "food" and data.facts["metadata"]["shape"] == "text"


def test_table_refuses_what_makes_no_sense(tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "x\n1\n"})
    good: dict[str, Any] = {"cast": {"fields": {"text": "x"}}, "files": {"train": ["a.csv"]}}
    assert len(read_all("table", folder(tmp_path, task="t", **good))["t"].columns) == 1
    for change, message in [
        ({"cast": None}, "expected the name of a cast or a mapping"),
        ({"cast": "scam"}, "did you mean 'scan'"),
        ({"cast": {"fields": {"text": "x"}, "refrences": "x"}}, "did you mean 'references'"),
        ({"files": {"train": ["../a.csv"]}}, "below the data set's folder"),
        ({"files": {"train": ["b.csv"]}}, "b.csv"),
        ({"metric": "accurracy"}, "metric: found 'accurracy'"),
        ({"style": "keyword"}, "option style"),
        ({"shape": "pairs"}, "did you mean 'pair'"),
        ({"shape": "pair"}, "text_a"),
        ({"task": ""}, "option task"),
    ]:
        with pytest.raises(TaskmillError, match=message):
            load_reader("table").discover(folder(tmp_path, **{"task": "t", **good, **change}))


def test_gzip_and_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeff" + lines({"text": "one"})
    write(
        tmp_path,
        {"d/a.jsonl.gz": gzip.compress(text.encode()), "t/tasks/t.json.gz": gzip.compress(SNI_TASK.encode())},
    )
    assert read_all("documents", folder(tmp_path, "d"))["a"].columns.fields == [{"text": "one"}]
    assert len(read_all("super_natural_instructions", folder(tmp_path, "t"))["t"].columns) == 5


# ------------------------------------------------------------------------------------- real and demo files


def test_real_super_natural_instructions(shared_data: Path) -> None:
    source = folder(shared_data, "super_natural_instructions", tasks=["tasks", "tasks_shallow"])
    reader = load_reader("super_natural_instructions")
    entries = reader.discover(source)
    assert len(entries) == 1421
    for entry in entries[::97]:
        raw = json.loads(entry.files[0].read_text(encoding="utf-8"))
        data = reader.read(entry, source)
        count = len(raw["Instances"])
        assert len(data.columns) == count + len(raw["Positive Examples"]) + len(raw["Negative Examples"])
        for number in range(0, count, 7):
            instance = raw["Instances"][number]
            assert data.columns.fields[number] == {"input": instance["input"]}
            assert data.columns.references[number] == instance["output"]
            assert data.columns.upstream_id[number] == instance["id"]
        assert data.facts["category"] == raw["Categories"][0] and data.facts["dataset"] == raw["Source"][0]
        assert data.facts["definition"] == raw["Definition"][0] and not data.aside


def test_real_documents(shared_data: Path) -> None:
    found = read_all("documents", folder(shared_data, "pretraining", text_unit="line"))
    raw = (shared_data / "pretraining/c4_demo.jsonl").read_text(encoding="utf-8").split("\n")
    assert [f["text"] for f in found["c4_demo"].columns.fields] == [
        json.loads(line)["text"] for line in raw if line
    ]
    assert len(found["wiki_demo"].columns) == 30


def test_demo_data_is_read_whole(repository: Path) -> None:
    root = repository / "examples" / "meta_datasets"
    tasks = json.loads((root / "TASKS.json").read_text(encoding="utf-8"))
    casts = (root / "casts",)
    for benchmark in sorted({task["benchmark"] for task in tasks}):
        found = read_all(benchmark, SourceFolder(root / benchmark, root, {}, "stop", casts))
        wanted = {
            task["task"]: sum(task["splits"].values()) for task in tasks if task["benchmark"] == benchmark
        }
        assert {name: len(data.columns) for name, data in found.items()} == wanted
