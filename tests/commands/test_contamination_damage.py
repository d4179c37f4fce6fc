"""Contamination of damaged files and records: named, or skipped, counted and left out of copies."""

from __future__ import annotations

import gzip
from hashlib import blake2b
from pathlib import Path

import pytest
from ferry_files import (
    EVAL,
    TRAIN,
    as_jsonl,
    refused,
    run,
    write,
)

DAMAGE = {
    "t.jsonl": (b'{"question": "fine"}\n{"question": \n{"question": "fine too"}\n', 1, "not valid JSON", 1),
    "t.csv": (b"question,answer\na,b\na,b,c\nd,e\n", 1, "3 columns; expected 2", 1),
    "t.tsv": (b"question\tanswer\na\tb\na\nd\te\n", 1, "1 columns; expected 2", 1),
    "t.txt": (b"fine\n\xff\xfe\nfine too\n", 1, "not UTF-8", 1),
    "u.jsonl": (b'{"question": "fine"}\n[1, 2]\n', 1, "the record has no fields", 1),
    "v.jsonl": (b'{"question": "fine"}\n{"answer": "2"}\n', 1, "there is no field 'question'", 1),
}
WHOLE = {
    "t.json": (b'[{"question": "x"},]', "not valid JSON"),
    "u.json": (b'[{"question": "x"}] more', "not valid JSON"),
    "v.json": (b'"text"', "expected a list of records"),
    "w.json": (b"[]", "the list holds no record"),
    "t.parquet": (b"PAR1 no", "not a sound Parquet file"),
    "t.jsonl.gz": (b"", "damaged gzip file"),
    "t.jsonl": (b"", "the file is empty"),
    "t.csv": (b"", "the file is empty"),
    "u.csv": (b"a,a\n1,2\n", "names a column twice"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_record_is_named_or_skipped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    content, record, message, damaged = DAMAGE[name]
    train, test = write(tmp_path / name, content), write(tmp_path / "e.jsonl", as_jsonl(EVAL))
    fields = () if name == "t.txt" else ("--field", "question")
    err = refused(capsys, "--train", train, "--against", test, *fields)
    assert f"{train}, record {record}: " in err and message in err and "--on-error skip" in err
    arguments = ("--train", train, "--against", test, *fields, "--on-error", "skip")
    body = run(capsys, *arguments, "--clean", "--out", tmp_path / "o")
    assert body["train"]["num_damaged"] == damaged and message in body["train"]["errors"][0]
    assert body["clean"][0]["num_kept"] == body["train"]["num_records"]
    copy = (tmp_path / "o/clean" / name).read_bytes()
    lines = content.splitlines(keepends=True)
    assert copy == b"".join(line for line in lines if line != lines[record + (name[-2:] == "sv")])


@pytest.mark.parametrize("name", WHOLE)
def test_a_damaged_file_is_named_or_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    content, message = WHOLE[name]
    train = tmp_path / name
    train.write_bytes(b"\x1f\x8b damaged" if name.endswith("gz") else content)
    good, test = write(tmp_path / "good.jsonl", as_jsonl(TRAIN)), write(tmp_path / "e.jsonl", as_jsonl(EVAL))
    err = refused(capsys, "--train", train, good, "--against", test)
    assert str(train) in err and message in err
    arguments = (
        "--train",
        train,
        good,
        "--against",
        test,
        "--on-error",
        "skip",
        "--clean",
        "--out",
        tmp_path / "o",
    )
    body = run(capsys, *arguments)
    assert body["train"]["files"][0] == {
        **body["train"]["files"][0],
        "num_records": 0,
        "num_damaged": 1,
    }
    assert body["train"]["num_touched"] == 2 and message in body["train"]["errors"][0]
    assert body["clean"][0]["copy"] is None and body["clean"][1]["num_kept"] == 2


def test_a_file_that_breaks_off_counts_what_was_read_and_has_no_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*TRAIN, *({"question": first, "answer": second} for first, second in _noise(4000))]
    train = tmp_path / "t.jsonl.gz"
    train.write_bytes(gzip.compress(as_jsonl(rows))[:-2000])
    test = write(tmp_path / "e.jsonl", as_jsonl(EVAL))
    assert "damaged gzip file" in refused(capsys, "--train", train, "--against", test)
    arguments = (
        "--train",
        train,
        "--against",
        test,
        "--on-error",
        "skip",
        "--clean",
        "--out",
        tmp_path / "o",
    )
    body = run(capsys, *arguments)
    assert body["train"]["num_touched"] == 2 and 5 < body["train"]["num_records"] < len(rows)
    assert body["train"]["num_damaged"] == 1 and body["clean"][0]["copy"] is None
    assert not (tmp_path / "o/clean").exists()


def _noise(number: int) -> list[tuple[str, str]]:
    return [
        (blake2b(str(i).encode()).hexdigest(), blake2b(str(-i).encode()).hexdigest()) for i in range(number)
    ]
