"""`taskmill export scores`: its files, names that would break out of them, folders and runs that are refused."""

from __future__ import annotations

import csv
import errno
import io
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import pytest
from faults import State, run_with_errors, run_with_faults, temporary_files
from finished_run import HOSTILE, write_stage
from markdown_it import MarkdownIt
from predicted import prediction, write_scored
from running import call

from taskmill.commands.scoring.export_scores import CURVE_COLUMNS, scored_run, write_scores_folder
from taskmill.commands.scoring.tables import csv_bytes, guarded
from taskmill.records import SCHEMAS
from taskmill.storage import file_digest

Capture = pytest.CaptureFixture[str]
NAMES = (
    "=HYPERLINK('http://x','y')",
    f"{HOSTILE} | `tick` | [link](http://x) **bold** www.example.org",
    "@SUM(1) \\| a\nb",
    "``",
    "-1+1",
)


def rows(model: str, value: float) -> list[dict[str, Any]]:
    return [
        prediction(
            f"p/{task}",
            i,
            value if i else 1.0,
            model=model,
            shots=shots,
            level=level,
            clean=i > 1 or task == "t",
        )
        for task, level in (("t", "held_out"), ("u", "supervised"))
        for shots in (0, 2)
        for i in range(5)
    ]


def hostile() -> list[dict[str, Any]]:
    return [
        prediction(
            name, i, i / 4, category=name, family=name, benchmark=name, template=name, metric=f"{name}.py:f"
        )
        for name in NAMES
        for i in range(3)
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = (("final", 0.75), ("initial", 0.25), ("step-000002", 0.5))
    folder = write_scored(
        tmp_path_factory.mktemp("scored") / "run",
        [row for model, value in models for row in rows(model, value)],
    )
    write_stage(folder, "train", {"metrics.jsonl": b'{"step": 4, "loss": 1}\n'})
    return folder


def tables(text: str) -> dict[str, list[list[str]]]:
    """Return the cells of the tables of a page as a reader of Markdown sees them, by the title above."""
    found: dict[str, list[list[str]]] = {}
    title, opened = "", ""
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(text):
        if token.type.endswith("_open"):
            opened = token.type
        if token.type == "tr_open":
            found.setdefault(title, []).append([])
        if token.type != "inline":
            assert token.type != "html_block"
            continue
        kinds = {child.type for child in token.children or ()}
        assert not kinds & {"html_inline", "link_open", "image"}, token.content
        if opened == "heading_open":
            title = token.content
        if opened in ("td_open", "th_open"):
            found[title][-1].append("".join(child.content for child in token.children or ()))
    return found


def test_the_files_hold_the_scores(run: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "out"
    code, out, err = call(capsys, "export", "scores", str(run), str(folder), "--predictions", "--json")
    body = json.loads(out)
    assert code == 0 and not err
    names = {"scores.csv", "scores.parquet", "scores.md", "curves.csv", "predictions.parquet"}
    assert {entry["path"] for entry in body["files"]} == names
    assert {p.name for p in folder.iterdir()} == {*names, "export.json", ".taskmill-export"}
    for entry in body["files"]:
        assert file_digest(folder / entry["path"]) == entry["sha256"]
    scores = scored_run(run)[1]
    assert pq.read_table(folder / "scores.parquet").to_pylist() == scores
    assert pq.read_table(folder / "predictions.parquet").schema.equals(SCHEMAS["scores/predictions"])
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == SCHEMAS["scores/scores"].names and len(read) == len(scores)
    for line, score in zip(read, scores):
        assert {name: "" if value is None else str(value) for name, value in score.items()} == line
    with (folder / "curves.csv").open(encoding="utf-8", newline="") as file:
        curve = list(csv.DictReader(file))
    assert tuple(curve[0]) == CURVE_COLUMNS
    held_out = [row["step"] for row in curve if (row["level"], row["shots"]) == ("held_out", "0")]
    assert held_out == ["0", "2", "4"]


def test_the_page_has_every_part_and_the_selection_score_first(
    run: Path, tmp_path: Path, capsys: Capture
) -> None:
    code, out, _ = call(capsys, "export", "scores", str(run), str(tmp_path / "out"))
    text = (tmp_path / "out/scores.md").read_text(encoding="utf-8")
    found = tables(text)
    titles = ["Scores of run", "Levels", "Categories", "Benchmarks", "Tasks", "Learning curves"]
    assert code == 0 and list(found) == titles
    assert "selection score of final: 80.0 (" in out.splitlines()[0] and "clean 77.5" in out
    head, final, step, initial = found["Scores of run"]
    assert head[:3] == ["model", "selection score", "95 % interval"]
    assert [row[:2] for row in (final, step, initial)] == [
        ["final", "80.0"], ["step-000002", "60.0"], ["initial", "40.0"],
    ]  # fmt: skip
    assert final[3] == "77.5" and final[5] == "80.0"
    levels = [row[:3] + row[4:5] + row[8:] for row in found["Levels"]]
    assert levels == [
        ["level", "shots", "score", "clean", "before"],
        ["held out", "0", "80.0", "80.0", "40.0"],
        ["held out", "2", "80.0", "80.0", "40.0"],
        ["supervised", "0", "80.0", "75.0", "40.0"],
        ["supervised", "2", "80.0", "75.0", "40.0"],
    ]
    assert [row[0] for row in found["Categories"][1:]] == ["held out: QA"] * 2 + ["supervised: QA"] * 2
    assert found["Tasks"][1][:2] == ["p/t", "0"] and found["Tasks"][1][8] == "accuracy"
    assert [row[0] for row in found["Learning curves"][1:]] == ["0", "2", "4"]


def test_a_task_without_a_clean_example_is_named(tmp_path: Path) -> None:
    made = [prediction("p/t", i, 1.0, clean=False) for i in range(2)] + [prediction("p/u", 0, 1.0)]
    found, scores = scored_run(write_scored(tmp_path / "run", made))
    write_scores_folder(found, scores, tmp_path / "out", False)
    text = (tmp_path / "out/scores.md").read_text(encoding="utf-8")
    assert "No clean example: `p/t`. They are missing from the clean scores above them." in text
    levels, tasks = tables(text)["Levels"], tables(text)["Tasks"]
    assert levels[1][4] == "100.0" and tasks[1][4] == "\u2013" and not (tmp_path / "out/curves.csv").exists()


def test_names_cannot_break_out(tmp_path: Path, capsys: Capture) -> None:
    run = write_scored(tmp_path / "run", hostile())
    (run / "recipe.json").write_text(json.dumps({"values": {"name": NAMES[1]}}))
    code, _, _ = call(capsys, "export", "scores", str(run), str(tmp_path / "out"), "--predictions")
    assert code == 0
    with (tmp_path / "out/scores.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            for cell in row:
                assert not cell.startswith(("=", "+", "@", "\t", "\r")), cell
                assert not cell.startswith("-") or float(cell) <= 0
    exact = set(pq.read_table(tmp_path / "out/scores.parquet", columns=["name"]).column("name").to_pylist())
    assert set(NAMES) < exact
    found = tables((tmp_path / "out/scores.md").read_text(encoding="utf-8"))
    for title in ("Tasks", "Categories", "Benchmarks"):
        width = len(found[title][0])
        assert [len(row) for row in found[title]] == [width] * (1 + len(NAMES))
        shown = {row[0].removeprefix("held out: ") for row in found[title][1:]}
        assert shown == {" ".join(name.split()) for name in NAMES}


@pytest.mark.parametrize("cell", ["=1", "+1", "-1+1", "@a", "\t=1", "\r=1", "\uff1d1"])
def test_formulas_begin_with_an_apostrophe_and_numbers_stay(cell: str) -> None:
    assert guarded(cell) == f"'{cell}"
    written = csv_bytes([{"a": cell, "b": -0.5, "c": None}], ("a", "b", "c")).decode()
    read = list(csv.reader(io.StringIO(written, newline="")))
    assert read == [["a", "b", "c"], [f"'{cell}", "-0.5", ""]]


def test_an_earlier_export_is_replaced_and_other_folders_are_refused(
    run: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "out"
    assert call(capsys, "export", "scores", str(run), str(folder), "--predictions")[0] == 0
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert call(capsys, "export", "scores", str(run), str(folder), "--predictions")[0] == 0
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == first
    assert call(capsys, "export", "scores", str(run), str(folder))[0] == 0
    assert not (folder / "predictions.parquet").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    code, _, err = call(capsys, "export", "scores", str(run), str(mine))
    assert code == 2 and "notes.txt" in err and [p.name for p in mine.iterdir()] == ["notes.txt"]
    code, _, err = call(capsys, "export", "scores", str(run), str(run / "scores"))
    assert code == 2 and "choose another folder" in err


def test_runs_without_scores_are_refused(tmp_path: Path, capsys: Capture) -> None:
    bare = write_scored(tmp_path / "bare", rows("final", 1.0), only_predictions=True)
    write_scored(tmp_path / "unasked", [])
    for name, said in (
        ("nowhere", "there is no run"),
        ("bare", f"run `taskmill evaluate {bare}` first"),
        ("unasked", "was evaluated on no prompt: it has no scores to export"),
    ):
        code, out, err = call(capsys, "export", "scores", str(tmp_path / name), str(tmp_path / "out"))
        assert code == 2 and not out and said in " ".join(err.split())
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_a_stopped_export_is_not_finished_and_begins_again(
    run: Path, tmp_path: Path, fault: Literal["kill", "full"]
) -> None:
    folder = tmp_path / "out"
    found, scores = scored_run(run)
    write_scores_folder(found, scores, tmp_path / "whole", True)
    whole = {p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir()}

    def build() -> None:
        write_scores_folder(found, scores, folder, True)

    def check(state: State) -> None:
        if state == "finished":
            assert {p.name: p.read_bytes() for p in folder.iterdir()} == whole
            assert not temporary_files(folder)
        else:
            assert not (folder / "export.json").exists()

    def reset() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    if fault == "kill":
        assert run_with_faults(build, check, reset, step=9) >= 3
    else:
        assert run_with_errors(build, check, reset, errno.ENOSPC, step=5) >= 3
