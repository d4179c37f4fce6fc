"""Reader `table`: the user's rows in five formats, splits, groups, quality, folders, the Hub's layout, and damage."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mutations import as_values, mutated, outcome, refuses_only_with_its_own_errors

from taskmill.curation.cast_keys import parse_format
from taskmill.curation.reader import SourceFolder, TaskData, load_reader
from taskmill.curation.sources._records import Format, read_records
from taskmill.errors import DataError, RecipeError

ROWS: list[dict[str, Any]] = [
    {"n": 1, "review": 'Fine, "old" mill', "stars": 1, "by": "Ann", "fold": "a", "model": "big"},
    {"n": 2, "review": "No flour\tleft", "stars": 0, "by": "Ann", "fold": "b", "model": "small"},
    {"n": 3, "review": "Schöne Mühle", "stars": 1, "by": "Ode", "fold": "a", "model": "other"},
]
CAST: dict[str, Any] = {
    "fields": {"text": "review"},
    "references": {"path": "stars", "labels": ["bad", "good"]},
    "options": {"const": ["bad", "good"]},
    "id": "n",
}


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    """Write rows in the format that the name ends with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.name.removesuffix(".gz").rpartition(".")[2]
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if suffix == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif suffix == "json":
        text = json.dumps(rows)
    else:
        file = io.StringIO()
        if suffix == "csv":
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
            text = file.getvalue()
        else:
            cells = [
                list(rows[0]),
                *([str(cell).replace("\t", " ") for cell in row.values()] for row in rows),
            ]
            text = "".join("\t".join(row) + "\n" for row in cells)
    raw = text.encode("utf-8")
    path.write_bytes(gzip.compress(raw, mtime=0) if path.name.endswith(".gz") else raw)
    return path


def read(path: Path, on_error: str = "stop", cast: Any = CAST, **options: Any) -> TaskData:
    root = path if path.is_dir() else path.parent
    source = SourceFolder(path, root, {"task": "t", "cast": cast, **options}, on_error)
    reader = load_reader("table")
    (entry,) = reader.discover(source)
    json.dumps(dict(entry.detail))
    return reader.read(entry, source)


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "a.csv.gz", "a.tsv", "a.parquet"]
)
def test_the_same_rows_in_every_format(name: str, tmp_path: Path) -> None:
    data = read(write(tmp_path / name))
    texts = [row["review"] for row in ROWS]
    if name == "a.tsv":
        texts[1] = "No flour left"
    assert [fields["text"] for fields in data.columns.fields] == texts
    assert data.columns.references == [["good"], ["bad"], ["good"]]
    assert data.columns.options == [["bad", "good"]] * 3 and data.columns.record == [0, 1, 2]
    assert data.columns.upstream_id == ["unlabeled-1", "unlabeled-2", "unlabeled-3"]
    assert data.columns.upstream_split == [None] * 3 and not data.aside


def test_facts_groups_and_quality_of_the_recipe(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    options = {
        "category": "Sentiment Analysis",
        "license": "MIT",
        "license_evidence": "we wrote it",
        "definition": "Judge.",
        "group": "by",
        "quality": {"field": "model", "map": {"big": "GPT4", "small": "GPT3"}, "default": "GPT3"},
    }
    data = read(path, **options)
    assert data.columns.group == ["Ann", "Ann", "Ode"] and data.columns.quality == ["GPT4", "GPT3", "GPT3"]
    assert {key: data.facts[key] for key in ("category", "license", "license_evidence", "definition")} == {
        key: options[key] for key in ("category", "license", "license_evidence", "definition")
    }
    assert read(path, quality="GPT4").columns.quality == ["GPT4"] * 3
    unmapped = {"field": "model", "map": {"big": "GPT4", "small": "GPT3"}}
    with pytest.raises(DataError, match="not a value that the cast maps"):
        read(path, quality=unmapped)


def test_a_column_holds_the_split(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv")
    split = {"path": "fold", "map": {"a": "train", "b": "dev"}}
    for data in (read(path, split=split), read(path, cast={**CAST, "split": split})):
        assert data.columns.upstream_split == ["train", "validation", "train"]
        assert data.columns.upstream_id == ["train-1", "validation-2", "train-3"]
    named = write(tmp_path / "b.jsonl", [{**ROWS[0], "fold": "validation"}, {**ROWS[1], "fold": None}])
    assert read(named, split="fold").columns.upstream_split == ["validation", None]
    with pytest.raises(DataError, match="record 0, field 'split': not a split"):
        read(path, split="fold")
    assert [aside.reason for aside in read(path, "skip", split="fold").aside] == ["bad_label"] * 3
    with pytest.raises(RecipeError, match="unknown split 'trian' - did you mean 'train'"):
        read(path, split={"path": "fold", "map": {"a": "trian"}})


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "json", "parquet"])
def test_a_folder_without_files_in_the_recipe(suffix: str, tmp_path: Path) -> None:
    for split, row in zip(("train", "dev", "test"), ROWS, strict=True):
        write(tmp_path / "named" / f"{split}.{suffix}", [row])
    assert read(tmp_path / "named").columns.upstream_split == ["train", "validation", "test"]
    write(tmp_path / "other" / f"one.{suffix}", ROWS[:1])
    write(tmp_path / "other" / f"two.{suffix}", ROWS[1:])
    assert read(tmp_path / "other").columns.upstream_split == [None] * 3


@pytest.mark.parametrize("place", [".", "data", "default"])
def test_the_layout_of_a_hub_repository(place: str, tmp_path: Path) -> None:
    for split, row in zip(("train", "validation", "test"), ROWS, strict=True):
        write(tmp_path / place / f"{split}-00000-of-00001.parquet", [row])
    (tmp_path / "README.md").write_text("no data")
    data = read(tmp_path)
    assert data.columns.upstream_split == ["train", "validation", "test"]
    assert data.columns.file[0].endswith("train-00000-of-00001.parquet")


def test_a_named_cast_over_files_of_ones_own(tmp_path: Path) -> None:
    rows = [{"premise": "a", "hypothesis": "b", "label": "neutral", "by": "Ann"}]
    write(tmp_path / "mine.jsonl", rows)
    data = read(tmp_path / "mine.jsonl", cast="super_glue-cb", group="by", shape="entailment")
    assert data.columns.references == [["neutral"]] and data.columns.group == ["Ann"]
    assert data.columns.fields == [{"premise": "a", "hypothesis": "b"}]
    write(tmp_path / "train-00000-of-00001.parquet", [{**rows[0], "label": 2}])
    assert read(tmp_path, cast="super_glue-cb").columns.references == [["neutral"]]


def test_values_of_parquet_that_json_does_not_have(tmp_path: Path) -> None:
    import datetime
    import decimal

    row = {
        "f": 3.8,
        "list": [0.1, None],
        "deep": [{"f": 0.7, "s": "x"}],
        "day": datetime.date(2020, 1, 2),
        "cents": decimal.Decimal("1.50"),
        "map": [("k", 1)],
    }
    single = pa.float32()
    schema = pa.schema(
        [
            ("f", single),
            ("list", pa.list_(single)),
            ("deep", pa.list_(pa.struct([("f", single), ("s", pa.string())]))),
            ("day", pa.date32()),
            ("cents", pa.decimal128(6, 2)),
            ("map", pa.map_(pa.string(), pa.int64())),
        ]
    )
    pq.write_table(pa.Table.from_pylist([row], schema), tmp_path / "a.parquet")
    data = read(tmp_path / "a.parquet", cast={"fields": list(row)}, style="instance")
    assert data.columns.fields == [
        {
            "f": 3.8,
            "list": [0.1, None],
            "deep": [{"f": 0.7, "s": "x"}],
            "day": "2020-01-02",
            "cents": "1.50",
            "map": {"k": 1},
        }
    ]


def test_bytes_of_parquet_are_damage(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"review": [b"\xff", b"a"], "stars": [1, 1], "n": [1, 2]}), tmp_path / "a.parquet"
    )
    assert [aside.reason for aside in read(tmp_path / "a.parquet", "skip").aside] == ["wrong_type"] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"cast": {**CAST, "fields": {"text": "reveiw"}}},
            "no 'reveiw'; the record has .*did you mean 'review'",
        ),
        ({"cast": {**CAST, "references": "star"}}, "did you mean 'stars'"),
        ({"split": "folds"}, "did you mean 'fold'"),
        ({"files": {"train": "b.jsonl"}}, "no file that the cast 't' reads"),
        ({"cast": {**CAST, "references": {"path": "stars", "labels": ["bad"]}}}, "a number below 1"),
    ],
)
def test_what_does_not_fit_the_rows_is_named_with_what_does(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=message):
        read(tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 3}, "option quality: found 3"),
        ({"style": "keyword"}, "option style: found 'keyword'"),
        ({"cast": None}, "option cast: found None"),
        ({"cast": {"fields": {"text": "a"}, "fromat": "csv"}}, "did you mean 'format'"),
        ({"files": {"tarin": "a.jsonl"}}, "did you mean 'train'"),
        ({"category": 3}, "facts.category: found 3"),
        ({"metric": "blue"}, "accuracy"),
        ({"split": {"column": "fold"}}, "split: unknown key 'column'"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        read(write(tmp_path / "a.jsonl"), **options)


# -------------------------------------------------------------------------------------------- damage

CSV = "n,review,stars\n1,Fine,1\n2,Bad,0\n"
TSV = CSV.replace(",", "\t")
JSONL = '{"n": 1, "review": "Fine", "stars": 1}\n{"n": 2, "review": "Bad", "stars": 0}\n'


@pytest.mark.parametrize(
    ("name", "content", "reason", "record", "kept"),
    [
        ("a.csv", CSV[:-1] + ',9\n3,"Late",1\n', "wrong_columns", 1, 2),
        ("a.csv", CSV + "3,\udcff,1\n", "bad_encoding", 2, 2),
        ("a.csv", CSV + '3,"open,1\n', "bad_csv", 2, 2),
        ("a.csv", CSV + '3,"a"b,1\n', "bad_csv", 2, 2),
        ("a.csv", CSV + "3,Odd,seven\n", "bad_label", 2, 2),
        ("a.csv", "\udcff,review,stars\n1,Fine,1\n", "bad_encoding", 0, 0),
        ("a.csv", "n,review,review\n1,Fine,1\n", "bad_header", 0, 0),
        ("a.csv", "", "empty_file", 0, 0),
        ("a.csv", "n,review,stars\n", "empty_file", 0, 0),
        ("a.csv.gz", "no gzip", "bad_gzip", 0, 0),
        ("a.tsv", TSV + "3\tRagged\n", "wrong_columns", 2, 2),
        ("a.tsv", TSV + "3\t\udcff\t1\n", "bad_encoding", 2, 2),
        ("a.tsv", TSV + '3\t"bare" quote\t7\n', "bad_label", 2, 2),
        ("a.tsv", "", "empty_file", 0, 0),
        ("a.tsv", "n\treview\tstars\n", "empty_file", 0, 0),
        ("a.csv", CSV.replace(",", ";"), "bad_header", 0, 0),
        ("a.tsv", CSV, "bad_header", 0, 0),
        ("a.jsonl", JSONL + '{"n": 3, "review": ["a"], "stars": 1}\n', "wrong_type", 2, 2),
        ("a.jsonl", JSONL + '{"n": 3, "review": null, "stars": 1}\n', "missing_field", 2, 2),
        ("a.jsonl", JSONL + '{"n": 3, "review": "Cut', "bad_json", 2, 2),
        ("a.jsonl", JSONL + '{"n": 3, "stars": 1}\n', "missing_field", 2, 2),
        ("a.jsonl", JSONL + '{"n": 3, "review": NaN, "stars": 1}\n', "not_finite", 2, 2),
        ("a.jsonl", JSONL + '{"n": 3, "review": "a", "stars": [1, {}]}\n', "bad_label", 2, 2),
        ("a.jsonl", JSONL + '{"n": 3, "review": "\\ud800", "stars": 1}\n', "bad_text", 2, 2),
        ("a.jsonl", JSONL + '["n"]\n', "wrong_type", 2, 2),
        ("a.jsonl", JSONL + '{"n": 3, "review": "\udcff", "stars": 1}\n', "bad_encoding", 2, 2),
        ("a.jsonl", "", "empty_file", 0, 0),
        ("a.json", "[" + JSONL.strip().replace("\n", ",") + ",3]", "wrong_type", 2, 2),
        ("a.json", '[{"n": 1', "bad_json", 0, 0),
        ("a.json", '{"rows": []}', "wrong_type", 0, 0),
        ("a.json", "\udcff[]", "bad_json", 0, 0),
        ("a.parquet", "PAR1 cut", "bad_parquet", 0, 0),
        ("a.parquet", "", "bad_parquet", 0, 0),
    ],
)
def test_damage_is_named_and_stops_or_is_kept_aside(
    name: str, content: str, reason: str, record: int, kept: int, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=name):
        read(path)
    data = read(path, "skip")
    assert [(aside.reason, aside.record, aside.file) for aside in data.aside] == [(reason, record, name)]
    assert len(data.columns) == kept


def test_two_parquet_columns_of_one_name_are_damage(tmp_path: Path) -> None:
    columns = [pa.array(["a"]), pa.array(["b"]), pa.array([1])]
    pq.write_table(pa.Table.from_arrays(columns, names=["review", "review", "stars"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"two columns of one name \(found \['review'\]\)"):
        read(tmp_path / "a.parquet")


def test_other_separators(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('n;review;stars\n1;"Fine; old";1\n')
    assert read(tmp_path / "a.csv", cast={**CAST, "separator": ";"}).columns.fields == [{"text": "Fine; old"}]
    with pytest.raises(DataError, match="`separator: ';'`"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"a": 1, "choices": ["x", "y", None, ""]}, (["x", "y"], ["y"])),
        ({"a": 1.0, "choices": ["x", "y"]}, (["x", "y"], ["y"])),
        ({"a": 1, "choices": ["x", None, "y"]}, "null among the options"),
        ({"a": 2, "choices": ["x", "y", ""]}, "a number below 2"),
    ],
)
def test_options_keep_the_places_that_labels_count(
    row: dict[str, Any], expected: Any, tmp_path: Path
) -> None:
    cast = {"fields": {"text": "q"}, "references": {"path": "a", "labels": "options"}, "options": "choices"}
    (tmp_path / "a.jsonl").write_text(json.dumps({"q": 3, **row}))
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            read(tmp_path / "a.jsonl", cast=cast)
        return
    columns = read(tmp_path / "a.jsonl", cast=cast).columns
    assert (columns.options[0], columns.references[0]) == expected
    assert columns.fields == [{"text": "3"}], "a number is text in a prompt"


def test_nan_is_no_reference_and_no_group(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"review": "a", "stars": NaN, "by": NaN}\n')
    cast = {"fields": {"text": "review"}, "references": "stars", "group": "by"}
    with pytest.raises(DataError, match=r"references.*NaN.*none: \[.nan\]"):
        read(tmp_path / "a.jsonl", cast=cast)
    cast["references"] = {"path": "stars", "none": [float("nan")]}
    columns = read(tmp_path / "a.jsonl", cast=cast).columns
    assert columns.references == [[]] and columns.group == [None]


def test_json_lines_that_are_called_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(JSONL)
    assert len(read(tmp_path / "a.json").columns) == 2
    (tmp_path / "a.json").write_text('{"rows": [' + JSONL.strip().replace("\n", ",") + "]}")
    with pytest.raises(DataError, match="`records: rows`"):
        read(tmp_path / "a.json")


def test_what_is_not_read_or_not_there_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("data/train.csv", "data/extra.csv"):
        write(tmp_path / name)
    data = read(tmp_path, cast={**CAST, "group": "writer"})
    assert data.columns.upstream_split == ["train"] * 3
    assert "1 files" in caplog.text and "data/extra.csv" in caplog.text
    assert "no record has what the cast names as `group` (writer)" in caplog.text
    with pytest.raises(
        DataError, match=r"there is data/extra.csv, data/train.csv: .*`files: {train: \[data/train.csv\]}`"
    ):
        read(tmp_path, files={"train": "b.csv"})


def test_names_that_tell_no_format(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(RecipeError, match=r"states no `format`.*found a\.xlsx"):
        read(tmp_path / "a.xlsx")


def test_a_parquet_file_with_changed_bytes_gives_the_projects_own_errors(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.parquet", ROWS * 20).read_bytes()
    path = tmp_path / "changed.parquet"
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        data = read(path, "skip")
        assert len(data.columns) + len(data.aside) > 0


def test_a_parquet_file_cut_anywhere_is_one_damaged_file(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.parquet", ROWS * 20).read_bytes()
    for size in range(0, len(whole), 97):
        path = tmp_path / "cut.parquet"
        path.write_bytes(whole[:size])
        data = read(path, "skip")
        assert (len(data.columns), [aside.reason for aside in data.aside]) == (0, ["bad_parquet"])


def test_ids_that_come_twice_are_kept_as_upstream_states_them(tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.jsonl", [ROWS[0], ROWS[0], {**ROWS[1], "n": None}]))
    assert data.columns.upstream_id == ["unlabeled-1", "unlabeled-1", None] and len(data.columns) == 3


def test_a_column_of_labels_beside_json_lines(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"review": "a"}, {"review": "b"}])
    cast = {**CAST, "format": "jsonl", "columns": {"stars": "-labels.lst"}}
    (tmp_path / "train-labels.lst").write_text("1\n0\n")
    assert read(tmp_path, cast=cast).columns.references == [["good"], ["bad"]]
    (tmp_path / "train-labels.lst").write_text("1\n")
    data = read(tmp_path, "skip", cast=cast)
    assert [(aside.reason, aside.record) for aside in data.aside] == [("missing_line", 1)]


@pytest.mark.parametrize("records", ["*", "mills.*"])
def test_an_object_of_records_keeps_its_keys(records: str, tmp_path: Path) -> None:
    held = {"m1": {"review": "a", "stars": 1}, "m2": {"review": "b", "stars": 0}}
    (tmp_path / "a.json").write_text(json.dumps({"mills": held} if records != "*" else held))
    data = read(tmp_path / "a.json", cast={**CAST, "records": records, "group": "*"})
    assert data.columns.group == ["m1", "m2"] and data.columns.references == [["good"], ["bad"]]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet"])
def test_large_files_are_read_record_by_record(name: str, tmp_path: Path) -> None:
    rows = [{"n": i, "review": f"{i} " * 40, "stars": 1} for i in range(20_000)]
    path = write(tmp_path / name, rows)
    source = SourceFolder(tmp_path, tmp_path, {}, "stop")
    form: Format = parse_format({"format": name.split(".")[1]}, [])
    tracemalloc.start()
    assert sum(1 for _ in read_records(form, path, source)) == len(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000, "a file of several megabytes was held as a whole"


@pytest.mark.parametrize(("suffix", "seed"), [("jsonl", 1), ("tsv", 3), ("json", 4)])
def test_ten_thousand_mutated_records(suffix: str, seed: int, tmp_path: Path) -> None:
    number = 12_000
    whole = write(tmp_path / f"x.{suffix}", [{**row, "text": "a\tb"} for row in ROWS]).read_bytes()
    head = whole.split(b"\n")[:1] if suffix == "tsv" else []
    if suffix == "json":
        whole = write(tmp_path / "x.jsonl").read_bytes()
    changed = mutated(whole.split(b"\n")[len(head) : -1], number, seed)
    content = b"\n".join([*head, *changed])
    if suffix == "json":
        content = b"[" + ",\n".join(as_values(content.split(b"\n"))).encode("utf-8") + b"]"
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / f"a.{suffix}").write_bytes(content)
    source = SourceFolder(
        tmp_path / "t", tmp_path, {"task": "t", "cast": CAST, "files": {"train": f"*.{suffix}"}}, "skip"
    )
    kept, aside = outcome("table", source)
    if suffix == "json":
        assert kept + aside == number and kept > 100
    else:
        lines = [
            line
            for line in content.split(b"\n")[len(head) :]
            if (line.strip() if suffix == "jsonl" else line.strip(b"\r"))
        ]
        assert kept + aside == len(lines) and kept > 100 and aside > 100


def test_ten_thousand_mutated_records_of_csv_in_small_files(tmp_path: Path) -> None:
    """A quote that is not closed ends a CSV file: what follows it is one damaged record."""
    head, *lines = write(tmp_path / "x.csv").read_bytes().split(b"\r\n")[:-1]
    changed = list(mutated(lines, 12_000, 2))
    kept = aside = 0
    for start in range(0, len(changed), 20):
        (tmp_path / "a.csv").write_bytes(b"\n".join([head, *changed[start : start + 20]]))
        data = read(tmp_path / "a.csv", "skip")
        assert 0 < len(data.columns) + len(data.aside) <= 21
        assert all(damage.reason and damage.file == "a.csv" for damage in data.aside)
        kept, aside = kept + len(data.columns), aside + len(data.aside)
    assert kept > 2_000 and kept + aside > 9_000


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json"])
def test_mutated_files_give_the_projects_own_errors(suffix: str, tmp_path: Path) -> None:
    content = write(tmp_path / f"x.{suffix}").read_bytes()
    refuses_only_with_its_own_errors(
        "table", tmp_path, f"t/a.{suffix}", content, 300, task="t", cast=CAST, files={"train": f"*.{suffix}"}
    )
