"""`taskmill compare`: what it says, as JSON, CSV and for people, and what it refuses."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from finished_run import HOSTILE, write_stage
from predicted import prediction, write_scored
from running import call

from taskmill import api
from taskmill.commands import terminal
from taskmill.commands.finished import FinishedRun
from taskmill.commands.scoring.compare import CSV_COLUMNS, compared, learning_curves
from taskmill.seeding import uniform

Capture = pytest.CaptureFixture[str]


def rows(model: str, share: float, number: int = 60, **more: Any) -> list[dict[str, Any]]:
    """Predictions of one model: two tasks at two levels, 0- and 2-shot, `share` of them right."""
    return [
        prediction(
            task, i, float(uniform(1, "right", model, task, i) < share), model=model, **{**place, **more}
        )
        for task, place in (
            ("p/t", {"shots": 0, "clean": True}),
            ("p/t", {"shots": 2, "clean": True}),
            ("p/u", {"shots": 0, "level": "supervised", "category": "Facts"}),
        )
        for i in range(number)
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `base` (also untrained and two checkpoints), `better` of most of its prompts, and `other`."""
    folder = tmp_path_factory.mktemp("compared")
    models = (("final", 0.5), ("initial", 0.2), ("step-000010", 0.3), ("step-000020", 0.5))
    write_scored(folder / "base", [row for model, share in models for row in rows(model, share)])
    lines = [{"step": step, "loss": 1.0} for step in range(1, 21)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_stage(folder / "base", "train", {"metrics.jsonl": text.encode()})
    better = [{**row, "value": float(row["value"] or i % 2)} for i, row in enumerate(rows("final", 0.5, 45))]
    write_scored(folder / "better", better)
    write_scored(folder / "other", [prediction("q/t", 0, 1.0)])
    write_scored(folder / "at@sea", rows("final", 0.5))
    return folder


def test_the_json_says_values_differences_and_what_is_common(runs: Path, capsys: Capture) -> None:
    code, out, err = call(capsys, "compare", str(runs / "base"), str(runs / "better"), "--json")
    assert code == 0 and not err
    body = json.loads(out)
    (one,) = body["comparisons"]
    assert (one["num_common"], one["share_of_first"], one["share_of_other"]) == (135, 0.75, 1.0)
    found = {(row["scope"], row["name"], row["shots"]): row for row in one["rows"]}
    assert set(found) == {
        ("level", "held_out", 0), ("level", "held_out", 2), ("level", "supervised", 0), ("level", "all", -1),
        ("category", "held_out/QA", 0), ("category", "held_out/QA", 2), ("category", "supervised/Facts", 0),
        ("benchmark", "held_out/p", 0), ("benchmark", "held_out/p", 2), ("benchmark", "supervised/p", 0),
        ("benchmark", "all", -1), ("task", "p/t", 0), ("task", "p/t", 2), ("task", "p/u", 0),
    }  # fmt: skip
    row = found["level", "held_out", 0]
    assert (
        row["difference"] == pytest.approx(row["other"] - row["first"], abs=2e-6) and row["difference"] > 0.1
    )
    assert row["low"] < row["difference"] < row["high"] and row["p"] < 0.01
    assert [m["model"] for m in body["models"]] == ["final", "final"]
    points = body["curves"][str(runs / "base")]
    held_out = [(p["step"], p["model"]) for p in points if (p["level"], p["shots"]) == ("held_out", 0)]
    assert held_out == [(0, "initial"), (10, "step-000010"), (20, "final")]


def test_python_gives_what_json_prints(runs: Path, capsys: Capture) -> None:
    models = (f"{runs / 'base'}@initial", str(runs / "better"))
    assert api.compare(models[0], runs / "better") == json.loads(
        call(capsys, "compare", *models, "--json")[1]
    )


def test_it_says_the_same_each_time(runs: Path) -> None:
    names = [str(runs / "base"), str(runs / "better"), str(runs / "base@initial")]
    assert compared(names) == compared(names)
    assert len(compared(names)["comparisons"]) == 2


def test_holm_counts_the_rows_of_all_comparisons(runs: Path) -> None:
    base, better, initial = str(runs / "base"), str(runs / "better"), str(runs / "base@initial")
    rows = [row for one in compared([base, initial, better])["comparisons"] for row in one["rows"]]
    surest = min((row for row in rows if row["scope"] == "level"), key=lambda row: row["p"])
    assert surest["p"] == 0.0001 and surest["p_holm"] == 0.0008  # 2 comparisons of 4 rows


def test_the_csv_has_every_row_and_stays_when_there_is_no_room(
    runs: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "c.csv"
    names = [str(runs / name) for name in ("base", "better", "base@initial")]
    code, out, _ = call(capsys, "compare", *names, "--csv", str(file), "--json")
    body = json.loads(out)
    with file.open(encoding="utf-8", newline="") as lines:
        read = list(csv.DictReader(lines))
    assert code == 0 and tuple(read[0]) == CSV_COLUMNS
    assert len(read) == sum(len(c["rows"]) for c in body["comparisons"]) == 28
    assert float(read[0]["difference"]) == body["comparisons"][0]["rows"][0]["difference"]
    code, _, err = call(capsys, "compare", *names, "--csv", str(tmp_path / "none" / "c.csv"))
    assert (code == 0) == (tmp_path / "none" / "c.csv").is_file() and "Traceback" not in err


def test_the_csv_takes_no_file_of_a_stages_place(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(runs / "base", tmp_path / "base")
    taken = tmp_path / "base" / "scores" / "predictions.parquet"
    before = taken.read_bytes()
    names = (str(tmp_path / "base"), str(tmp_path / "base@initial"))
    code, _, err = call(capsys, "compare", *names, "--csv", str(taken))
    assert code == 2 and "which its stage sweeps; choose another place" in err
    assert taken.read_bytes() == before


def test_people_read_it_in_80_columns(runs: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PLAIN_WIDTH", 80)
    monkeypatch.chdir(runs)
    code, out, _ = call(capsys, "compare", "base", "better", "base@initial", "--tasks", "1")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    for said in (
        "B against A",
        "C against A",
        "135 prompts in common: 75.0 % of A's, 100.0 % of B's",
        "held out",
    ):
        assert said in out
    assert "and 2 more tasks; --tasks N shows more" in out and "Learning curve of base" in out
    assert "supervised: Facts" in out and "clean examples only" in out


def test_the_default_is_the_trained_model_or_the_endpoint(runs: Path, tmp_path: Path) -> None:
    write_scored(tmp_path / "served", rows("endpoint", 0.9))
    body = compared([str(runs / "base"), str(tmp_path / "served"), str(runs / "at@sea")])
    assert [m["model"] for m in body["models"]] == ["final", "endpoint", "final"]


def test_what_two_runs_do_not_share_is_told(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    moved = [*rows("final", 0.9, level="partial"), prediction("q/new", 0, 1.0)]
    moved = [{**row, "metric": "rouge_l"} if row["shots"] else row for row in moved if row["task"] != "p/u"]
    code, out, _ = call(capsys, "compare", str(runs / "base"), str(write_scored(tmp_path / "moved", moved)))
    assert code == 0
    assert "1 task only in A" in out and "1 task only in B" in out
    assert "60 prompts left out: valued by other metrics" in out
    assert "1 task at another level or category in B, here as in A: p/t" in out


def test_settings_that_differ_beside_the_models_are_told(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    asked = {"normalisation": "none", "precision": "fp32", "num_resamples": 50}
    sides = []
    for name, changed in (
        ("a", {}),
        ("b", {"num_resamples": 9}),
        ("c", {"normalisation": "byte", "precision": "bf16"}),
    ):
        sides.append(write_scored(tmp_path / name, rows("final", 0.5)))
        body = {"values": {"evaluate": {**asked, **changed}}}
        (sides[-1] / "recipe.json").write_text(json.dumps(body), encoding="utf-8")
    first, *others = compared([str(side) for side in sides])["comparisons"]
    assert first["asked_otherwise"] == []
    assert others[0]["asked_otherwise"] == ["evaluate.normalisation", "evaluate.precision"]
    code, out, _ = call(capsys, "compare", str(sides[0]), str(sides[2]))
    assert code == 0 and "not asked alike: evaluate.normalisation, evaluate.precision differ" in out


def test_hostile_names_are_shown_as_they_are(tmp_path: Path, capsys: Capture) -> None:
    task = f"p/{HOSTILE}\x1b[31m[bold]"
    sides = []
    for name in ("a", "b"):
        made = [prediction(task, i, float(i % 3 == 0), category="=1+1|`x`") for i in range(4)]
        sides.append(str(write_scored(tmp_path / name, made)))
    code, out, _ = call(capsys, "compare", *sides)
    assert code == 0 and "\x1b" not in out and "[bold]" in out and "held out: =1+1|`x`" in out


@pytest.mark.parametrize(
    "names,said",
    [
        ((), "expected two models or more"),
        (("base",), "`taskmill compare {runs}/base@initial {runs}/base`"),
        (("base", "base"), "{runs}/base and {runs}/base are the same model, final of {runs}/base"),
        (("base@final", "base"), "are the same model"),
        (
            ("base", "base@inital"),
            "no scores of a model 'inital'; it has final, initial, step-",
        ),
        (("base", "nowhere"), "there is no run {runs}/nowhere"),
        (
            ("base", "other"),
            "have no prompt in common that could be compared: no task of one is in the other (p/t, p/u; q/t)",
        ),
        (("base", "unscored"), "not scored yet: run `taskmill evaluate {runs}/unscored` first"),
        (("base", "untrained"), "the stage 'evaluate' of {runs}/untrained is not finished"),
    ],
)
def test_bad_input_is_one_message(runs: Path, capsys: Capture, names: tuple[str, ...], said: str) -> None:
    if "unscored" in names and not (runs / "unscored").exists():
        write_scored(runs / "unscored", rows("final", 0.5), only_predictions=True)
    if "untrained" in names and not (runs / "untrained").exists():
        write_stage(runs / "untrained", "train", {"metrics.jsonl": b""})
    code, out, err = call(capsys, "compare", *(str(runs / name) for name in names))
    assert code == 2 and not out
    assert said.format(runs=runs) in " ".join(err.split())


def test_damaged_and_older_predictions_are_one_message(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    names = ("scores.parquet", "predictions.parquet")
    for name in names:
        run = shutil.copytree(runs / "base", tmp_path / f"damaged-{name}")
        file = run / "scores" / name
        file.write_bytes(file.read_bytes()[:-200])
        code, out, err = call(capsys, "compare", str(runs / "base"), str(run))
        assert code == 1 and not out and str(file) in err and "Traceback" not in err
    older = shutil.copytree(runs / "base", tmp_path / "older")
    file = older / "scores" / "scores.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["clean_low"]), file)
    code, _, err = call(capsys, "compare", str(runs / "base"), str(older))
    assert code == 2 and "has no column clean_low" in err and f"taskmill evaluate {older} --force" in err


def test_a_run_whose_training_is_not_there_has_one_point(runs: Path) -> None:
    assert learning_curves(FinishedRun(runs / "other"))[0]["step"] == 0
