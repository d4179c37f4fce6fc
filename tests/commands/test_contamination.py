"""Contamination of plain files: every format, both modes and cleaned copies byte for byte."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ferry_files import (
    EVAL,
    FORMATS,
    KEPT,
    LONG,
    TRAIN,
    UNICODE,
    as_csv,
    as_json,
    as_jsonl,
    as_parquet,
    as_tsv,
    as_txt,
    read,
    refused,
    run,
    write,
)
from hub_server import Repository, serve
from running import call

from taskmill import hub_client
from taskmill.commands.contamination_files import DataFile, Layout, pieces

# ------------------------------------------------------------------------------------------ formats


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_figures_and_an_exact_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, ending: str
) -> None:
    if form == "parquet" and ending:
        pytest.skip("Parquet is compressed inside")
    train = write(tmp_path / f"train.{form}{ending}", FORMATS[form](TRAIN))
    test = write(tmp_path / "test.jsonl", as_txt(EVAL) if form == "txt" else as_jsonl(EVAL))
    if form == "txt":
        test = write(tmp_path / "test.txt", as_txt(EVAL))
    body = run(capsys, "--train", train, "--against", test, "--out", tmp_path / "out", "--clean", "-k", 1)
    assert (body["train"]["num_records"], body["train"]["num_touched"], body["train"]["num_equal"]) == (
        5,
        2,
        1,
    )
    assert (body["evaluation"]["num_hit"], body["evaluation"]["num_short_equal"]) == (2, 1)
    assert body["evaluation"]["hit_fraction"] == 0.5 and body["train"]["num_touched_rare"] == 2
    (copy,) = body["clean"]
    target = tmp_path / "out/clean" / train.name
    assert (copy["copy"], copy["num_kept"], copy["num_dropped"]) == (str(target), 2, 3)
    if form == "parquet":
        kept = pq.read_table(target)
        assert kept.to_pylist() == KEPT and kept.schema.equals(
            pq.read_table(train).schema, check_metadata=True
        )
        assert pq.ParquetFile(target).metadata.row_group(0).column(0).compression == "GZIP"
    elif form == "json":
        assert json.loads(read(target)) == KEPT
        assert (
            read(target)
            == b"[\n "
            + b",\n ".join(
                json.dumps(row, indent=1, ensure_ascii=False).replace("\n", "\n ").encode() for row in KEPT
            )
            + b"\n]\n"
        )
    else:
        original = read(train)
        assert set(read(target).splitlines()) < set(original.splitlines())
        wanted = FORMATS[form](KEPT)
        if form == "jsonl":
            lines = original.splitlines(keepends=True)
            wanted = lines[1] + lines[4]
        assert read(target) == wanted
    assert json.loads((tmp_path / "out/report.json").read_bytes()) == body
    rows = [json.loads(line) for line in (tmp_path / "out/hits.jsonl").read_bytes().splitlines()]
    assert rows == pq.read_table(tmp_path / "out/hits.parquet").to_pylist()
    assert [(row["record"], row["train_record"], row["equal"]) for row in rows] == [
        (0, 0, False),
        (2, 2, True),
        (3, 3, False),
    ]
    touched = pq.read_table(tmp_path / "out/touched.parquet").to_pylist()
    assert [(row["record"], row["frequent"], row["equal"]) for row in touched] == [
        (0, False, False),
        (2, False, True),
        (3, False, False),
    ]
    assert "<mark>" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "tsv", "txt"])
def test_pieces_are_the_bytes_of_a_file(tmp_path: Path, form: str) -> None:
    mark = b"" if form == "txt" else b"\xef\xbb\xbf"
    for content in (
        mark + FORMATS[form](TRAIN),
        FORMATS[form](TRAIN).replace(b"\n", b"\r\n"),
        FORMATS[form](TRAIN[:1]),
    ):
        path = write(tmp_path / f"file.{form}", content)
        found = list(pieces(DataFile(path, "x", "x", form, Layout())))
        assert b"".join(piece.separator + piece.raw for piece in found) == content
        numbers = [piece.number for piece in found if piece.number is not None]
        assert numbers == list(range(len(numbers))) or form == "txt"


def test_copies_keep_blank_lines_and_the_mark_of_the_encoding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = as_jsonl(TRAIN).splitlines(keepends=True)
    train = write(tmp_path / "t.jsonl", b"\xef\xbb\xbf" + lines[0] + b"\n  \n" + lines[1] + lines[4].rstrip())
    run(
        capsys,
        "--train",
        train,
        "--against",
        write(tmp_path / "e.jsonl", as_jsonl(EVAL)),
        "--out",
        tmp_path / "o",
        "--clean",
    )
    assert (tmp_path / "o/clean/t.jsonl").read_bytes() == b"\xef\xbb\xbf\n  \n" + lines[1] + lines[4].rstrip()


def test_the_evaluation_side_can_be_cleaned_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write(tmp_path / "t.jsonl", as_jsonl(TRAIN))
    test = write(tmp_path / "e.csv", as_csv(EVAL))
    body = run(capsys, "--train", train, "--against", test, "--clean", "evaluation", "--out", tmp_path / "o")
    assert body["clean"][0]["num_dropped"] == 3
    assert (tmp_path / "o/clean/e.csv").read_bytes() == as_csv([EVAL[1]])
    again = run(capsys, "--train", train, "--against", tmp_path / "o/clean/e.csv")
    assert again["evaluation"]["num_hit"] == again["evaluation"]["num_short_equal"] == 0


def test_a_cleaned_copy_is_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = (write(tmp_path / f"{n}.json", as_json(rows)) for n, rows in (("t", TRAIN), ("e", EVAL)))
    run(capsys, "--train", train, "--against", test, "--clean", "--out", tmp_path / "o")
    again = run(capsys, "--train", tmp_path / "o/clean/t.json", "--against", test)
    assert again["train"]["num_touched"] == again["train"]["num_equal"] == again["evaluation"]["num_hit"] == 0
    assert train.read_bytes() == as_json(TRAIN), "the input is as it was"


# ------------------------------------------------------------------------------------------- places


def test_folders_archives_and_many_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "train"
    write(folder / "deep/a.jsonl", as_jsonl(TRAIN[:3]))
    write(folder / "b.csv.gz", as_csv(TRAIN[3:]))
    write(folder / ".hidden/c.jsonl", as_jsonl(EVAL))
    write(folder / "README.md", b"# Not data")
    with tarfile.open(tmp_path / "test.tar.gz", "w:gz") as archive:
        for name, rows in (("x/e.jsonl", EVAL[:2]), ("x/f.tsv", EVAL[2:])):
            content = as_jsonl(rows) if name.endswith("l") else as_tsv(rows)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    body = run(
        capsys, "--train", folder, "--against", tmp_path / "test.tar.gz", "--out", tmp_path / "o", "--clean"
    )
    assert [row["file"].removeprefix(str(folder)) for row in body["train"]["files"]] == [
        "/b.csv.gz",
        "/deep/a.jsonl",
    ]
    assert [row["num_touched"] for row in body["train"]["files"]] == [1, 1]
    assert [row["num_hit"] for row in body["evaluation"]["files"]] == [1, 1]
    assert {p.relative_to(tmp_path / "o/clean").as_posix() for p in (tmp_path / "o/clean").rglob("*.*")} == {
        "b.csv.gz",
        "deep/a.jsonl",
    }
    inside = run(
        capsys, "--train", folder / "b.csv.gz", folder / "deep", "--against", tmp_path / "test.tar.gz/x/f.tsv"
    )
    assert inside["train"]["num_touched"] == 1 and inside["train"]["num_equal"] == 1
    assert [row["num_records"] for row in inside["evaluation"]["files"]] == [2]


def test_a_data_set_on_the_hub(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setattr(hub_client.time, "sleep", lambda seconds: None)
    commit = "89" * 20
    train = write(tmp_path / "t.jsonl", as_jsonl(TRAIN))
    with serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        files = {
            "README.md": b"# Ferries",
            "data/test.parquet": as_parquet(EVAL),
            "other/x.jsonl": as_jsonl(EVAL[1:2]),
        }
        running.repositories["someone/ferries"] = Repository(commit, files)
        place = f"hub:someone/ferries@{commit}"
        assert run(capsys, "--train", train, "--against", f"{place}/data")["evaluation"]["num_hit"] == 2
        assert not [request for request in running.requests if "/other/" in request]
        assert run(capsys, "--train", train, "--against", place)["evaluation"]["num_records"] == 5
        assert "no file or folder 'dat'" in refused(capsys, "--train", train, "--against", f"{place}/dat")
    assert "40 hex digits" in refused(capsys, "--train", train, "--against", "hub:someone/ferries@main")


def test_the_same_file_on_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "t.jsonl", as_jsonl(TRAIN))
    body = run(capsys, "--train", file, "--against", file)
    assert body["same_files"] == [str(file)] and body["evaluation"]["num_hit"] == 2
    assert body["evaluation"]["num_short"] == body["evaluation"]["num_short_equal"] == 3
    assert (
        "is compared with itself"
        in call(capsys, "contamination", "--train", str(file), "--against", str(file))[1]
    )


# ------------------------------------------------------------------------------------------- fields


def test_fields_choose_what_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write(
        tmp_path / "t.jsonl",
        as_jsonl(
            [{"turns": [{"user": LONG}, {"assistant": "yes"}], "note": UNICODE}, {"turns": [], "note": "x"}]
        ),  # type: ignore[list-item]
    )
    test = write(tmp_path / "e.jsonl", as_jsonl(EVAL))
    base = ("--train", train, "--against", test, "--against-field", "question")
    assert run(capsys, *base)["evaluation"]["num_hit"] == 2
    assert run(capsys, *base, "--train-field", "turns.user")["evaluation"]["num_hit"] == 1
    assert (
        run(capsys, *base, "--train-field", "turns.user", "--train-field", "note")["evaluation"]["num_hit"]
        == 2
    )
    err = refused(capsys, *base, "--train-field", "turn")
    assert (
        f"{train}, record 0: there is no field 'turn' - did you mean 'turns'?" in err
        and "--train-field" in err
    )
    assert "no field 'question'" in refused(
        capsys, "--train", train, "--against", test, "--field", "question"
    )


def test_records_inside_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = write(tmp_path / "e.jsonl", as_jsonl(EVAL))
    one = {"version": 1, "data": TRAIN, "licence": "x"}
    train = write(tmp_path / "t.json", json.dumps(one).encode())
    assert run(capsys, "--train", train, "--against", test)["train"]["num_touched"] == 2
    two = write(
        tmp_path / "u.json",
        json.dumps({"few": TRAIN[:1], "deep": {"many": TRAIN}, "more": TRAIN[:2]}).encode(),
    )
    err = refused(capsys, "--train", two, "--against", test)
    assert "`--records 'more'` takes one of ['few', 'more']" in err
    body = run(
        capsys,
        "--train",
        two,
        "--against",
        test,
        "--records",
        "deep.many",
        "--clean",
        "--out",
        tmp_path / "o",
    )
    assert body["train"]["num_touched"] == 2
    cleaned = json.loads((tmp_path / "o/clean/u.json").read_bytes())
    assert cleaned == {"few": TRAIN[:1], "deep": {"many": KEPT}, "more": TRAIN[:2]}
    assert "no list 'deep.mny' - did you mean 'many'?" in refused(
        capsys, "--train", two, "--against", test, "--records", "deep.mny"
    )


def test_files_without_a_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = write(tmp_path / "e.jsonl", as_jsonl(EVAL))
    for name, content in (("t.tsv", as_tsv(TRAIN)), ("t.csv", as_csv(TRAIN))):
        bare = write(tmp_path / name, content.split(b"\n", 1)[1])
        body = run(capsys, "--train", bare, "--against", test, "--no-header", "--train-field", "0")
        assert (body["train"]["num_records"], body["train"]["num_touched"]) == (5, 2)
    long = write(tmp_path / "l.tsv", f"{LONG} {LONG} {LONG}\tx\n".encode())
    assert "`--no-header` reads it as a record" in refused(capsys, "--train", long, "--against", test)


def test_wrong_usage_says_what_helps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = write(tmp_path / "t.jsonl", as_jsonl(TRAIN)), write(tmp_path / "e.jsonl", as_jsonl(EVAL))
    (tmp_path / "empty").mkdir()
    both = ("--train", train, "--against", test)
    assert "--train PLACE --against PLACE" in refused(capsys, "--train", train)
    assert "did you mean 't.jsonl'" in refused(capsys, "--train", tmp_path / "t.json", "--against", test)
    assert "holds no data file" in refused(capsys, "--train", tmp_path / "empty", "--against", test)
    assert "of no known format" in refused(
        capsys, "--train", write(tmp_path / "a.md", b"x"), "--against", test
    )
    assert "name one" in refused(capsys, *both, "--clean")
    assert "name another --out" in refused(capsys, *both, "--clean", "--out", tmp_path)
    assert "needs a tokenizer" in refused(capsys, *both, "--normalisation", "tokenizer")
    bad = write(tmp_path / "b.jsonl", b"{\n")
    assert "no record of" in refused(capsys, "--train", train, "--against", bad, "--on-error", "skip")
    assert "--train: no record of" in refused(
        capsys, "--train", write(tmp_path / "n.jsonl", b"\n\n"), "--against", test
    )
    assert "expected a number from 0 to 1" in refused(capsys, *both, "--threshold", "nan")
    assert "1<=x<=64" in refused(capsys, *both, "--n", "1" + "0" * 20)
    assert "add --clean" in refused(capsys, *both, "--ignore-frequent")
    assert "--normalisation tokenizer" in refused(capsys, *both, "--tokenizer", "gpt2")
    assert "is no folder" in refused(capsys, *both, "--out", test / "below")
    assert train.read_bytes() == as_jsonl(TRAIN)


def test_the_result_says_what_the_first_line_was_taken_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = write(tmp_path / "e.jsonl", as_jsonl(EVAL))
    bare = write(tmp_path / "bare.tsv", f"{LONG[:60]}\t1\n{LONG}\t0\n".encode())
    lone = write(tmp_path / "lone.tsv", f"{LONG[:60]}\t1\n".encode())
    code, out, _ = call(capsys, "contamination", "--train", str(bare), "--against", str(test))
    assert code == 0 and f"columns {LONG[:60]!r}, '1'  (--no-header" in out, out
    assert run(capsys, "--train", bare, "--against", test)["train"]["files"][0]["columns"] == [LONG[:60], "1"]
    body = run(capsys, "--train", bare, "--against", test, "--no-header")
    assert (body["train"]["files"][0]["columns"], body["train"]["num_records"]) == ([], 2)
    assert "unless `--no-header` is given" in refused(capsys, "--train", lone, "--against", test)


def test_the_threshold_is_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = write(tmp_path / "t.jsonl", as_jsonl(TRAIN)), write(tmp_path / "e.jsonl", as_jsonl(EVAL))
    both = ("contamination", "--train", str(train), "--against", str(test), "--threshold")
    assert call(capsys, *both, "0.5")[0] == 0
    assert call(capsys, *both, "0.49")[0] == 1


@pytest.mark.parametrize("mode", ["words-1", "gpt3", "lm-eval"])
def test_the_terminal_shows_both_texts_with_the_window_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    train, test = write(tmp_path / "t.jsonl", as_jsonl(TRAIN)), write(tmp_path / "e.jsonl", as_jsonl(EVAL))
    code, out, _ = call(
        capsys, "contamination", "--train", str(train), "--against", str(test), "--normalisation", mode
    )
    dot = "" if mode == "words-1" else "."
    assert code == 0 and f"Well, [[{LONG}{dot}]]" in out, out
    assert f"They say that [[{LONG.upper()}{'!' if dot else ''}]]" in out and "record 0" in out
    share = "25.00 %" if mode == "lm-eval" else "50.00 %"
    assert share in out and "\x1b" not in out, "the harness does not fold letters beyond ASCII"


def test_text_of_records_cannot_move_the_cursor_or_leave_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = f"\x1b[31m<script>alert(1)</script> {LONG}"
    train = write(tmp_path / "t.jsonl", as_jsonl([{"a": hostile, "b": "\ud800"}]))
    code, out, _ = call(
        capsys, "contamination", "--train", str(train), "--against", str(train), "--out", str(tmp_path / "o")
    )
    assert code == 0 and "\x1b" not in out
    page = (tmp_path / "o/report.html").read_text(encoding="utf-8")
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_frequent_grams_and_what_a_copy_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phrase = "this message was left at the counter of the harbour office on a monday"
    train = write(
        tmp_path / "t.jsonl", as_jsonl([{"text": f"{phrase} {i}"} for i in range(60)] + [{"text": LONG}])
    )
    test = write(
        tmp_path / "e.jsonl", as_jsonl([{"text": f"{i} {phrase}"} for i in range(3)] + [{"text": LONG}])
    )
    arguments = ("--train", train, "--against", test, "--clean", "--out", tmp_path / "o")
    body = run(capsys, *arguments)
    assert (body["train"]["num_touched"], body["train"]["num_touched_rare"]) == (61, 1)
    assert (body["evaluation"]["num_hit"], body["evaluation"]["num_hit_rare"]) == (4, 1)
    assert body["clean"][0]["num_kept"] == 0 and body["worst"][0]["record"] == 3
    assert run(capsys, *arguments, "--ignore-frequent")["clean"][0]["num_kept"] == 60
    more = run(capsys, *arguments, "--frequent", "63")
    assert more["train"]["num_touched_rare"] == 61 and more["evaluation"]["num_hit_rare"] == 4
