"""Casts: values, formats, explode, messages; the shipped casts on rows in upstream's and the Hub's form; real files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.curation.casting import SHIPPED, Cast, known_casts, load_cast, parse_cast
from taskmill.curation.reader import SourceFolder, TaskData, load_reader
from taskmill.curation.sources._cast_record import caster, getter
from taskmill.curation.sources._casted import layout_of
from taskmill.curation.sources._values import Unusable, Value, evaluate
from taskmill.errors import DataError, RecipeError, TaskmillError
from taskmill.shapes import SHAPES

SMALL: dict[str, Any] = {"dataset": "x", "format": "jsonl", "fields": {"text": "text"}}
DEMO_CASTS = Path(__file__).resolve().parents[2] / "examples" / "meta_datasets" / "casts"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from("abc"), x, max_size=3),
    max_leaves=6,
)


@given(
    raw=JSON,
    key=st.sampled_from(
        sorted(["fields", "files", "explode", "keywords", "facts", "columns", "id", "shape", "format"])
    ),
)
@settings(max_examples=300, deadline=None)
def test_any_cast_is_parsed_or_refused(raw: Any, key: str) -> None:
    for wrong in (raw, {**SMALL, key: raw}):
        try:
            parse_cast(wrong, "x", "x.yaml")
        except RecipeError as error:
            assert all(problem.startswith("x.yaml: ") for problem in error.problems)


# ---------------------------------------------------------------------------------- parsing, messages


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"refrences": "x"}, "unknown key 'refrences' - did you mean 'references'"),
        ({"format": "jsnl"}, "format: found 'jsnl'.*did you mean 'jsonl'"),
        ({"fields": {}}, "fields: found {}"),
        ({"fields": {"text": {"pth": "x"}}}, r"fields\.text: unknown key 'pth' - did you mean 'path'"),
        ({"fields": {"text": {"path": "x", "const": 1}}}, "exactly one of path, first_of and const"),
        ({"fields": {"text": {"path": "x", "type": "integer"}}}, "did you mean 'int'"),
        ({"fields": {"text": {"path": "x", "extract": "(a)(b)"}}}, "has 2 groups; expected 1"),
        ({"fields": {"text": {"path": "x", "remove": "("}}}, "not a regular expression"),
        ({"references": {"path": "x", "labels": [True, False]}}, "quote yes and no"),
        ({"files": {"trian": "x"}}, "did you mean 'train'"),
        ({"files": {"train": "/etc/x"}}, "below the data set's folder"),
        ({"files": {"train": "**x"}}, "below the data set's folder"),
        ({"output_fields": ["txt"]}, "no field 'txt' - did you mean 'text'"),
        ({"shape": "txt"}, "did you mean 'text'"),
        ({"shape": "pair"}, "needs text_a, text_b"),
        (
            {"keywords": {"text": "txet"}},
            r"keywords\.text: the cast has no field 'txet' - did you mean 'text'",
        ),
        ({"facts": {"licence": "MIT"}}, "did you mean 'license'"),
        ({"facts": {"metric": "blue"}}, "accuracy, exact_match, token_f1, rouge_l, bleu"),
        ({"format": "lines"}, "pattern: found None"),
        ({"format": "parallel"}, "at least two columns"),
        ({"explode": ["a"]}, "explode: found"),
        ({"explode": {"a": [1]}}, "explode: found"),
        ({"fields": {"text": {"path": "x", "classes": [1]}}}, "quote yes and no"),
        ({"fields": {"text": {"path": "x", "columns": "x"}}}, r"columns: found 'x'; expected a list"),
        ({"fields": {"text": {"join_of": []}}}, r"join_of: found \[\]"),
        ({"fields": {"text": {"join_of": ["a"], "path": "b"}}}, "exactly one of"),
        ({"fields": {"text": {"object": 3}}}, "object: found 3"),
        ({"fields": ["text", 3]}, "or a list of names"),
        ({"columns": {"label": 3}}, "their files' suffixes"),
        (
            {"split": {"path": "x", "map": {"a": "trian"}}},
            "split.map: unknown split 'trian' - did you mean 'train'",
        ),
        ({"layouts": {"hub": 3}}, "layouts: found"),
        ({"layouts": {"hub": {"feilds": {}}}}, r"layouts\.hub: unknown key 'feilds' - did you mean 'fields'"),
        (
            {"layouts": {"old": {"fields": {"other": "x"}}}},
            r"layouts\.old: fields: other stand in one layout alone",
        ),
        (
            {"layouts": {"hub": {"splits": {"trian": "x"}}}},
            r"splits: unknown split 'trian' - did you mean 'train'",
        ),
        ({"layouts": {"hub": {"splits": {"train": "../x"}}}}, "name of a split, without / and"),
        ({"layouts": {"old": {"splits": {}}}}, "unknown key 'splits'"),
    ],
)
def test_a_cast_that_makes_no_sense_names_file_and_key(tmp_path: Path, change: Any, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(json.dumps({**SMALL, **change}))
    with pytest.raises(RecipeError, match=message) as refused:
        load_cast("mine", [tmp_path])
    assert str(refused.value).startswith("casts/mine.yaml: ")


def test_every_problem_of_a_cast_is_reported_at_once() -> None:
    with pytest.raises(RecipeError) as refused:
        parse_cast({"format": "xml", "fields": 3, "id": {"x": 1}, "shape": 2}, "x", "x.yaml")
    assert len(refused.value.problems) >= 4


def test_a_casts_own_folder_wins_over_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "scan.yaml").write_text(json.dumps({**SMALL, "dataset": "mine"}))
    assert load_cast("scan", [tmp_path]).dataset == "mine"
    assert load_cast("scan", []).dataset == "scan"
    with pytest.raises(RecipeError, match="no such folder"):
        known_casts([tmp_path / "absent"])


def every_cast() -> list[Path]:
    return sorted([*SHIPPED.glob("*.yaml"), *DEMO_CASTS.glob("*.yaml")])


@pytest.mark.parametrize("path", every_cast(), ids=lambda path: path.stem)
def test_every_cast_of_the_project_is_sound(path: Path) -> None:
    cast = load_cast(path.stem, [path.parent])
    assert cast.files and cast.references is not None
    served = cast.datasets or cast.shape or cast.name.startswith("reasoning-")
    assert served, "neither PromptSource nor a keywords or reasoning benchmark could use it"
    assert cast.shape is None or (cast.shape in SHAPES and "definition" in cast.facts)
    again = parse_cast(json.loads(json.dumps(cast.raw)), cast.name, "again")
    assert again == cast


# -------------------------------------------------------------------------------------------- formats


def read(root: Path, cast: dict[str, Any], on_error: str = "stop", **options: Any) -> TaskData:
    source = SourceFolder(root, root, {"task": "t", "cast": cast, **options}, on_error)
    reader = load_reader("table")
    (entry,) = reader.discover(source)
    return reader.read(entry, source)


FORMATS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"format": "jsonl"}, {"a.x": '{"q": "one", "a": "1"}\n\n{"q": "two, \\"x\\"", "a": "2"}\n'}),
    ({"format": "json"}, {"a.x": '[{"q": "one", "a": "1"}, {"q": "two, \\"x\\"", "a": "2"}]'}),
    (
        {"format": "json", "records": "v.0"},
        {"a.x": '{"v": [[{"q": "one", "a": "1"}, {"q": "two, \\"x\\"", "a": "2"}]]}'},
    ),
    ({"format": "csv"}, {"a.x": 'q,a\none,1\n"two, ""x""",2\n'}),
    ({"format": "csv", "columns": ["q", "a"]}, {"a.x": 'one,1\n"two, ""x""",2\n'}),
    ({"format": "tsv"}, {"a.x": 'q\ta\none\t1\ntwo, "x"\t2\n'}),
    ({"format": "tsv", "columns": ["q", "a"]}, {"a.x": 'one\t1\r\ntwo, "x"\t2'}),
    (
        {"format": "lines", "pattern": r"Q: (?P<q>.*) A: (?P<a>\d)"},
        {"a.x": 'Q: one A: 1\nQ: two, "x" A: 2\n'},
    ),
    ({"format": "parallel", "columns": {"q": ".x", "a": ".y"}}, {"a.x": 'one\ntwo, "x"\n', "a.y": "1\n2\n"}),
]


@pytest.mark.parametrize(("form", "files"), FORMATS, ids=lambda part: part.get("format"))
def test_the_same_rows_in_every_format(tmp_path: Path, form: dict[str, Any], files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    data = read(tmp_path, {**form, "fields": {"text": "q"}, "references": "a", "files": {"test": ["a.x"]}})
    assert data.columns.fields == [{"text": "one"}, {"text": 'two, "x"'}]
    assert data.columns.references == [["1"], ["2"]]
    first, second = data.columns.record
    assert (first, second) == ((0, 2) if form["format"] == "jsonl" else (0, 1))


@pytest.mark.parametrize(
    ("form", "files", "reason", "kept"),
    [
        ({"format": "csv"}, {"a.x": "q,a\n1,2\n3\n"}, "wrong_columns", 1),
        ({"format": "csv"}, {"a.x": 'q,a\n1,2\n"open,3\n'}, "bad_csv", 1),
        ({"format": "csv"}, {"a.x": "q,a\n1,2\n\udcff,3\n"}, "bad_encoding", 1),
        ({"format": "csv"}, {"a.x": "q,q\n1,2\n"}, "bad_header", 0),
        ({"format": "csv"}, {"a.x": "q,a\n"}, "empty_file", 0),
        ({"format": "tsv"}, {"a.x": "q\ta\n1\t2\t3\n1\t2\n"}, "wrong_columns", 1),
        ({"format": "json"}, {"a.x": '{"q": 1}'}, "wrong_type", 0),
        ({"format": "json", "records": "rows"}, {"a.x": '{"row": []}'}, "missing_field", 0),
        ({"format": "json"}, {"a.x": '[{"q": "1", "a": "2"}, 3]'}, "wrong_type", 1),
        ({"format": "json"}, {"a.x": "["}, "bad_json", 0),
        ({"format": "lines", "pattern": "(?P<q>.) (?P<a>.)"}, {"a.x": "1 2\n12\n"}, "no_match", 1),
        (
            {"format": "parallel", "columns": {"q": ".x", "a": ".y"}},
            {"a.x": "1\n2\n", "a.y": "1\n"},
            "missing_line",
            1,
        ),
        ({"format": "jsonl"}, {"a.x": '{"q": "1", "a": "2"}\n{"q": "1"}\n'}, "missing_field", 1),
        ({"format": "jsonl"}, {"a.x": '{"q": "1", "a": "2"}\n{"q": NaN, "a": "2"}\n'}, "not_finite", 1),
        ({"format": "jsonl"}, {"a.x": '{"q": "1", "a": "2"}\n{"q": "1", "a": true}\n'}, "wrong_type", 1),
        (
            {"format": "jsonl"},
            {"a.x": '{"q": "1", "a": "2"}\n{"q": ' + "[" * 99 + "]" * 99 + ', "a": "2"}\n'},
            "wrong_type",
            1,
        ),
        ({"format": "parquet"}, {"a.x": "no parquet"}, "bad_parquet", 0),
    ],
)
def test_damage_in_every_format(
    tmp_path: Path, form: dict[str, Any], files: dict[str, str], reason: str, kept: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    cast = {**form, "fields": {"text": "q"}, "references": "a", "files": {"test": ["a.x"]}}
    with pytest.raises(DataError, match=r"a\.x"):
        read(tmp_path, cast)
    data = read(tmp_path, cast, on_error="skip")
    assert [damage.reason for damage in data.aside] == [reason]
    assert len(data.columns) == kept


def test_explode_in_two_steps_with_a_damaged_element(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "p": "P", "qs": [{"q": "A?", "as": [{"t": "x", "l": 1}, {"l": 0}]}, {"q": "B?", "as": []}]},
        {"id": 8, "p": "R", "qs": [{"q": "C?", "as": [{"t": "y", "l": None}]}]},
        {"id": 9, "p": "S", "qs": "none"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cast = {
        "format": "jsonl",
        "files": {"train": ["*.jsonl"]},
        "explode": {"asked": "qs", "said": "asked.as"},
        "fields": {"text": "p", "said": "said.t"},
        "output_fields": ["said"],
        "references": {"path": "said.l", "labels": ["no", "yes"]},
        "group": "p",
        "id": ["id", "said.l"],
    }
    columns = (data := read(tmp_path, cast, on_error="skip")).columns
    assert columns.fields == [{"text": "P", "said": "x"}, {"text": "R", "said": "y"}]
    assert columns.references == [["yes"], []]
    assert (columns.group, columns.record) == (["P", "R"], [0, 1])
    assert columns.upstream_id == ["train-7-1", None]
    assert [(damage.reason, damage.record) for damage in data.aside] == [
        ("missing_field", 0),
        ("wrong_type", 2),
    ]


def test_explode_along_lists_that_go_together(tmp_path: Path) -> None:
    rows = [{"p": "P", "q": ["A?", "B?"], "d": {"a": ["x", "y"]}}, {"p": "R", "q": ["C?"], "d": {"a": []}}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cast = {"explode": {"asked": ["q", "d.a"]}, "fields": {"text": "asked.q"}, "references": "asked.a"}
    data = read(tmp_path, cast, on_error="skip")
    assert [fields["text"] for fields in data.columns.fields] == ["A?", "B?"]
    assert data.columns.references == [["x"], ["y"]]
    assert [(damage.reason, damage.record) for damage in data.aside] == [("wrong_type", 1)]


def test_a_record_without_an_element_is_left_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"qs": [{"q": "A?"}]}\n{"qs": []}\n')
    data = read(tmp_path, {"explode": {"asked": "qs"}, "fields": {"text": "asked.q"}}, on_error="stop")
    assert [fields["text"] for fields in data.columns.fields] == ["A?"]
    assert [(aside.reason, aside.record) for aside in data.aside] == [("empty_list", 1)]


def test_layouts_take_over_what_they_do_not_change() -> None:
    raw = {
        **SMALL,
        "format": "tsv",
        "columns": ["text", "mark"],
        "fields": ["text", {"label": "mark"}],
        "files": {"train": "a.tsv"},
        "layouts": {
            "headed": {"columns": None, "files": {"test": "b.tsv"}},
            "lines": {"format": "lines", "pattern": "(?P<text>.*)=(?P<mark>.)", "files": {"test": "c.txt"}},
            "hub": {"fields": ["label"]},
        },
    }
    cast = parse_cast(raw, "x", "x.yaml")
    headed, lines, hub = (cast.layouts[name] for name in ("headed", "lines", "hub"))
    assert headed.form.columns == () and headed.fields == cast.fields and headed.form.name == "tsv"
    assert lines.form.columns == () and lines.form.pattern is not None
    assert hub.form.name == "parquet" and hub.fields["label"].paths == ("label",) and "text" in hub.fields
    assert hub.files["validation"] == ("validation", "valid", "val", "dev")
    names = {"a.tsv": "", "b.tsv": "headed", "c.txt.gz": "lines", "z.parquet": "hub", "unknown.tsv": ""}
    assert {name: layout_of(cast, Path("folder") / name) for name in names} == names


def test_files_of_all_splits(tmp_path: Path) -> None:
    for name in ("train", "dev", "test", "more"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name, "id": 1}) + "\n")
    files = {"train": ["train.*"], "dev": ["d*"], "test": ["t*.jsonl"], "null": ["more.jsonl", "train.jsonl"]}
    columns = read(tmp_path, {**SMALL, "id": "id", "files": files}).columns
    found = dict(zip([fields["text"] for fields in columns.fields], columns.upstream_split, strict=True))
    assert found == {"train": "train", "dev": "validation", "test": "test", "more": None}
    assert columns.upstream_id == ["train-1", "validation-1", "test-1", "unlabeled-1"]


# -------------------------------------------------------------------------------------- shipped casts


def example(name: str, row: dict[str, Any], *, keywords: bool = False) -> dict[str, Any]:
    return caster(load_cast(name, []), keywords=keywords)(row)


@pytest.mark.parametrize(
    ("name", "upstream", "hub", "label", "references"),
    [
        ("super_glue-boolq", {"label": True}, {"label": 1}, 1, ["Yes"]),
        ("super_glue-boolq", {"answer": False}, {"label": 0}, 0, ["No"]),
        ("super_glue-boolq", {}, {"label": -1}, -1, []),
        ("super_glue-cb", {"label": "neutral"}, {"label": 2}, 2, ["neutral"]),
        ("super_glue-cb", {}, {"label": -1}, -1, []),
        ("super_glue-rte", {"label": "not_entailment"}, {"label": 1}, 1, ["not_entailment"]),
        ("super_glue-wic", {"label": False}, {"label": 0}, 0, ["False"]),
        ("super_glue-copa", {"label": 1}, {"label": 1}, 1, ["c2"]),
        ("super_glue-copa", {}, {"label": None}, -1, []),
    ],
)
def test_labels_are_the_hubs_in_both_layouts(
    name: str, upstream: dict[str, Any], hub: dict[str, Any], label: int, references: list[str]
) -> None:
    texts = {
        key: key for key in ("question", "passage", "premise", "hypothesis", "word", "sentence1", "sentence2")
    }
    row = {
        **texts,
        "choice1": "c1",
        "choice2": "c2",
        "idx": 3,
        "start1": 0,
        "start2": 1,
        "end1": 2,
        "end2": 3,
    }
    found = [example(name, {**row, **form}) for form in (upstream, hub)]
    assert found[0] == found[1]
    assert found[0]["fields"]["label"] == label and type(found[0]["fields"]["label"]) is int
    assert found[0]["references"] == references and found[0]["upstream_id"] == "3"


def test_a_label_that_nobody_has_is_refused() -> None:
    with pytest.raises(Unusable, match="not a value that the cast maps"):
        example("super_glue-rte", {"premise": "a", "hypothesis": "b", "label": "maybe"})


def test_gsm8k() -> None:
    row = {"question": "Q", "answer": "1,000+4=<<1000+4=1004>>1,004\n#### 1,004"}
    found = example("gsm8k", row, keywords=True)
    assert found["fields"] == {"question": "Q", "answer": "1,000+4=1,004\n#### 1,004"}
    assert found["references"] == ["1004"]


def test_record_has_the_hubs_entities_and_answers() -> None:
    text = "Ann met Bob. Ann left."
    spans = [{"start": 8, "end": 10}, {"start": 0, "end": 2}, {"start": 13, "end": 15}]
    asked = {"query": "@placeholder left", "answers": [{"text": "Ann", "start": 0, "end": 2}], "idx": 5}
    row = {"passage": {"text": text, "entities": spans}, "asked": asked, "idx": 2}
    found = example("super_glue-record", row)
    assert found["fields"]["entities"] == ["Ann", "Bob"] and found["references"] == ["Ann"]
    assert found["upstream_id"] == "2-5"


# ----------------------------------------------------------------------------------------- real files


def real(shared_data: Path, data: dict[str, Any]) -> dict[str, TaskData]:
    reader = load_reader("promptsource")
    options = {"templates": "promptsource/templates", "data": data}
    source = SourceFolder(shared_data, shared_data, options, "stop", (SHIPPED,))
    return {entry.name: reader.read(entry, source) for entry in reader.discover(source)}


FEWGLUE = "exmix_t5/superglue_fewglue"


def test_every_name_that_real_templates_read_is_a_field(shared_data: Path) -> None:
    sets = {"boolq": "BoolQ", "cb": "CB", "copa": "COPA", "rte": "RTE", "wic": "WiC", "record": "ReCoRD"}
    data: dict[str, Any] = {f"super_glue/{name}": f"{FEWGLUE}/{folder}" for name, folder in sets.items()}
    data["super_glue/multirc"] = {"folder": f"{FEWGLUE}/MultiRC", "files": {"train": "train.jsonl"}}
    data["codah/codah"] = "exmix_t5/codah"
    found = real(shared_data, data)
    assert sorted(found) == sorted(data)
    for task in found.values():
        fields = set(task.columns.fields[0])
        assert task.templates and all(set(template["reads"]) <= fields for template in task.templates)
        assert set(task.facts["output_fields"]) <= fields


def test_real_rows_are_the_rows_of_the_files(shared_data: Path) -> None:
    found = real(
        shared_data,
        {
            "super_glue/boolq": [f"{FEWGLUE}/BoolQ", "exmix_t5/boolq"],
            "super_glue/cb": f"{FEWGLUE}/CB",
            "codah/codah": "exmix_t5/codah",
        },
    )
    boolq = found["super_glue/boolq"].columns
    raw = [json.loads(line) for line in (shared_data / "exmix_t5/boolq/dev.jsonl").read_bytes().splitlines()]
    assert boolq.upstream_split == ["train"] * 32 + ["validation"] * len(raw)
    for number in range(0, len(raw), 41):
        row = raw[number]
        wanted = {"question": row["question"], "passage": row["passage"], "label": int(row["answer"])}
        assert boolq.fields[32 + number] == wanted and boolq.group[32 + number] == row["passage"]
    codah = found["codah/codah"].columns
    lines = (shared_data / "exmix_t5/codah/full_data.tsv").read_text(encoding="utf-8").split("\n")[:-1]
    assert len(codah) == len(lines) == 2771
    for number in range(0, len(lines), 97):
        _, prompt, *candidates, label = lines[number].split("\t")
        assert codah.fields[number]["question_propmt"] == prompt
        assert codah.fields[number]["candidate_answers"] == candidates
        assert codah.references[number] == [candidates[int(label)]]


def test_real_nested_rows_are_counted_by_their_answers(shared_data: Path) -> None:
    columns = real(shared_data, {"super_glue/multirc": f"{FEWGLUE}/MultiRC"})["super_glue/multirc"].columns
    text = "".join(
        (shared_data / FEWGLUE / "MultiRC" / f"{name}.jsonl").read_text() for name in ("train", "unlabeled")
    )
    answers = sum(
        len(question["answers"])
        for line in text.splitlines()
        for question in json.loads(line)["passage"]["questions"]
    )
    assert len(columns) == answers
    assert sum(bool(references) for references in columns.references) == len(re.findall('"label"', text))


def test_real_gsm8k_and_scan(shared_data: Path) -> None:
    gsm8k = read(shared_data / "eval/gsm8k", "gsm8k").columns  # type: ignore[arg-type]
    assert (gsm8k.upstream_split.count("train"), gsm8k.upstream_split.count("test")) == (7473, 1319)
    assert all(re.fullmatch(r"-?[\d.]+", answer) for (answer,) in gsm8k.references)
    assert not any("<<" in fields["answer"] for fields in gsm8k.fields)
    scan = read(shared_data / "exmix_t5/scan", "scan").columns  # type: ignore[arg-type]
    lines = (shared_data / "exmix_t5/scan/tasks.txt").read_text().splitlines()
    joined = [f"IN: {f['request']} OUT: {r[0]}" for f, r in zip(scan.fields, scan.references, strict=True)]
    assert joined == lines


def test_errors_of_casts_are_the_projects_own() -> None:
    assert issubclass(RecipeError, TaskmillError) and isinstance(load_cast("scan", []), Cast)


@pytest.mark.parametrize(("label", "reference"), [("1", "4"), (1, "4"), ("9", "9"), ("8", "8"), ("0", "1")])
def test_a_label_among_options_that_are_numbers_is_the_place_of_one(label: Any, reference: str) -> None:
    """One of CODAH's sums: the answer with the number 1 is 4, though another answer is 1."""
    raw = {**SMALL, "references": {"path": "label", "labels": "options"}, "options": {"path": "choices"}}
    cast = parse_cast(raw, "x", "x.yaml")
    record = {"text": "2+2=", "choices": ["1", "4", "8", "9"], "label": label}
    assert caster(cast, keywords=False)(record)["references"] == [reference]


def _outcome(find: Any) -> Any:
    """Return a value with its type, or what is said of the record."""
    try:
        found = find()
    except Unusable as error:
        return str(error), error.reason, error.field, error.value
    return type(found), found


CELLS = st.sampled_from(["1", "yes", "no", 1, 0, True, False, -1, 7, 1.0, None, [1], {"b": "yes"}, ""])
VALUES = [
    Value(("a",)),
    Value(("a.b",)),
    Value(("a.*",)),
    Value(("a.0", "c"), default="x"),
    Value(("a",), none=frozenset({"-1", "no"}), default=3),
    Value(const="x"),
    Value(("a",), labels=("no", "yes"), default=-1),
    Value(("a.b",), classes=("no", "yes")),
    Value(("a",), type="int"),
    Value(("a",), type="str", map={"1": 5, "true": [5]}, other=0),
    Value(("a",), labels="options"),
    Value(items=(Value(("a",)), Value(("c",))), join=", "),
]


@pytest.mark.parametrize("value", VALUES)
@given(st.lists(st.dictionaries(st.sampled_from(["a", "c", "a.b"]), CELLS), max_size=8))
def test_a_value_made_ready_once_is_what_it_is_of_each_record(
    value: Value, records: list[dict[str, Any]]
) -> None:
    get, options = getter(value, "key"), ["x", "yes"]
    for record in records:
        ready = _outcome(lambda record=record: get(record, options))
        assert ready == _outcome(lambda record=record: evaluate(value, record, "key", options))
