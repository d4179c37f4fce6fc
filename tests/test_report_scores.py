"""The report's parts about scores: levels and categories, best and worst tasks, variants, clean against full, curves."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from finished_run import BOTH, EVAL, PARTIAL, TRAIN, make_run, write_stage
from html_page import Page, parse
from hypothesis import given
from hypothesis import strategies as st
from scored_run import FACTS, LONG, PLANTED, TEMPLATES, make_scored_run, predictions, scored, value_of

from taskmill.commands import figures
from taskmill.commands.finished import FinishedRun
from taskmill.commands.scoring.scores import level_scores, models, scores, shown_model
from taskmill.errors import UsageError
from taskmill.report import render, write_report
from taskmill.report_scores import (
    LEAKAGE_GAP,
    NUM_CHARACTERS,
    NUM_GAPS,
    NUM_OPTIONS,
    NUM_SPREAD,
    clean,
    curves,
    tasks,
    variants,
)
from taskmill.templates.composing.schemas import Rendered, Wording, compose, encode

PARTS = ("scores", "tasks", "variants", "clean", "curves")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with many scores."""
    return make_scored_run(tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    """Its report."""
    return parse(write_report(run))


def words_of(page: Page, section: str) -> str:
    return " ".join(page.text[section].split())


# ----------------------------------------------------------------------------------- levels, categories


def test_each_level_has_its_score_and_those_of_its_categories(run: Path, page: Page) -> None:
    data = scores(FinishedRun(run))
    assert [block["level"]["name"] for block in data["blocks"]] == ["held_out", "partial", "supervised"]
    assert [[row["short"] for row in block["categories"]] for block in data["blocks"]] == [
        [FACTS[EVAL][1]],
        ["Facts"],
        ["Arithmetic"],
    ]
    assert [shots for shots, _ in data["more_blocks"]] == [2]
    partial = data["blocks"][1]["level"]
    assert partial["value"] == value_of("final", PARTIAL, "plain", 0) == 0.5
    assert partial["before"]["value"] == 0.25
    text = words_of(page, "scores")
    assert "Partial +25.0 · mean of 1 category, 36 predictions 50.0 50.0 – 50.0 25.0 25.0 – 25.0" in text
    selection = next(row for row in level_rows(run) if row["name"] == "all")
    assert f"Selection score {100 * selection['value']:.1f}" in text


def level_rows(run: Path) -> list[dict]:
    table = FinishedRun(run).table("evaluate", "scores")
    return [r for r in table.to_pylist() if r["scope"] == "level" and r["model"] == "final"]


def test_levels_stand_with_every_number_of_demonstrations(page: Page) -> None:
    text = words_of(page, "scores")
    for wanted in ("partial 0-shot, 36 predictions 50.0", "partial 2-shot, 36 predictions 56.2"):
        assert wanted in text


def test_who_was_scored_is_shown_in_its_order(run: Path, tmp_path: Path) -> None:
    assert models(FinishedRun(run)) == ["final", "step-000012", "step-000006", "initial"]
    other = FinishedRun(make_scored_run(tmp_path, ("step-000006", "initial")))
    assert shown_model(other) == "step-000006" and scores(other)["shown"] == "after 6 updates"


def test_a_server_is_shown_where_there_is_no_trained_model(tmp_path: Path) -> None:
    run = make_scored_run(tmp_path, ("endpoint",))
    page = parse(write_report(run))
    assert level_scores(FinishedRun(run), "final") == []
    assert "partial score" in " ".join(page.text["head"].split())
    for section in ("scores", "tasks", "clean"):
        assert "50.0" in words_of(page, section), section
    for section in PARTS[:-1]:
        assert "untrained" not in words_of(page, section).replace("difference to untrained", ""), section
    assert "server" in words_of(page, "scores")
    assert "No checkpoint was scored" in words_of(page, "curves")


def test_a_server_is_called_by_its_name_and_validation_examples_are_said(tmp_path: Path) -> None:
    found = FinishedRun(make_scored_run(tmp_path, ("endpoint",)))
    asked = {"endpoint": {"model": "acme/one", "url": "http://localhost"}, "split": "validation"}
    found.manifests["evaluate"].body["settings"]["evaluate"] = asked
    page = render(found)
    assert "acme/one (server)" in page and "On the validation examples" in page


def test_an_untrained_model_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    found = FinishedRun(make_scored_run(tmp_path, ("initial",)))
    assert scores(found)["has_baseline"] is False
    assert not any(row["before"] for row in clean(found)["tasks"])


# --------------------------------------------------------------------------------------- best and worst


def test_best_and_worst_tasks_come_with_what_was_asked_and_answered(run: Path, page: Page) -> None:
    data = tasks(FinishedRun(run))
    order = [row["name"] for row in (*data["best"], *data["worst"][::-1])]
    values = {row["name"]: row["value"] for row in (*data["best"], *data["worst"])}
    assert order == sorted(values, key=lambda name: -values[name]) and set(order) == set(FACTS)
    found = {row["name"]: row["predictions"] for row in (*data["best"], *data["worst"])}
    right, other = sorted(found[EVAL], key=lambda row: -row["value"])
    assert (right["verdict"], right["clean"]) == ("right", False)
    assert (other["verdict"], other["value"]) == ("partly right", value_of("final", EVAL, "plain", 0))
    assert right["prompt"].endswith("Answer:") and "answer 0" not in right["prompt"]
    (same,) = found[PARTIAL]
    assert same["answer"] == "extracted 0" and same["num_samples"] == 3
    assert same["samples"] == [f"again {PLANTED}", "third"]
    text = words_of(page, "tasks")
    for wanted in ("✓ right", "partly right, 37.5", "valued, after extraction extracted 0", "sample 2 of 3"):
        assert wanted in text, wanted


def test_options_are_ordered_by_score_and_the_right_one_is_never_cut(run: Path) -> None:
    data = tasks(FinishedRun(run))
    row = next(r for r in (*data["best"], *data["worst"]) if r["name"] == BOTH)["predictions"][0]
    assert row["num_options"] == 14 and len(row["options"]) == NUM_OPTIONS + 1
    assert (row["options"][0]["chosen"], row["options"][0]["right"]) == (True, False)
    assert (row["options"][-1]["right"], row["options"][-1]["score"]) == (True, -9.0)
    shown = [option["score"] for option in row["options"]]
    assert shown == sorted(shown, reverse=True)


def test_a_prompt_is_shown_with_the_demonstrations_that_the_model_saw() -> None:
    from taskmill.report_scores import _asked

    demonstrations = [Rendered("Add.", f"{i} and 1", str(i + 1), (str(i + 1),)) for i in (4, 6)]
    segments = compose(
        "task", Rendered("Add.", "2 and 2", "four", ("four",)), demonstrations, Wording("\nAnswer:")
    )
    prompt = encode(segments)
    assert [name in _asked(prompt, 1) for name in ("4 and 1", "6 and 1", "2 and 2", "four")] == [
        True,
        False,
        True,
        False,
    ]
    assert "4 and 1" not in _asked(prompt, 0)
    assert _asked(None, 0) == ""


def test_long_texts_are_cut(run: Path, page: Page) -> None:
    source = write_report(run).read_text(encoding="utf-8")
    assert len(LONG) > len(source) - len(source.replace("w" * NUM_CHARACTERS, ""))
    assert LONG[: 2 * NUM_CHARACTERS] not in source


# ------------------------------------------------------------------------------------------- variants


def test_the_spread_of_variants_is_that_of_their_scores(run: Path, page: Page) -> None:
    data = variants(FinishedRun(run))
    rows = {(row["task"], row["shots"]): row for row in data["rows"]}
    both = rows[BOTH, 0]
    assert (both["low"], both["high"], both["mean"], both["spread"]) == (0.625, 0.875, 0.75, 0.25)
    assert (both["worst"], both["best"], both["num_variants"]) == ("plain", TEMPLATES[2], 3)
    assert rows[EVAL, 0]["spread"] == 0.125  # half of the examples do not differ
    assert (PARTIAL, 0) not in rows and data["num"] == 6
    assert [row["spread"] for row in data["rows"]] == sorted(
        (r["spread"] for r in data["rows"]), reverse=True
    )
    levels = {(row["level"], row["shots"]): row["mean"] for row in data["levels"]}
    assert levels["supervised", 0] == 0.25 and levels["partial", 0] == 0
    text = words_of(page, "variants")
    assert f"mean 75.0 · highest {TEMPLATES[2]} · lowest plain" in text and "25.0 62.5 – 87.5" in text
    assert "and 2 more" in text


def test_a_task_with_one_variant_has_no_spread(tmp_path: Path) -> None:
    found = FinishedRun(make_run(tmp_path))
    assert variants(found)["num"] == 0
    assert "No task was asked with more than one prompt variant" in words_of(
        parse(write_report(found.run)), "variants"
    )


# -------------------------------------------------------------------------------------- clean and full


def test_a_leaked_task_is_called_out_with_both_scores(run: Path, page: Page) -> None:
    data = clean(FinishedRun(run))
    assert {row["name"] for row in data["suspects"]} == {EVAL}
    row = next(row for row in data["tasks"] if row["shots"] == 0)
    full, wanted = (6 * 1.0 + 6 * 0.5) / 12, 0.5
    assert (row["name"], row["value"], row["clean_value"]) == (EVAL, full, wanted)
    assert (row["num"], row["num_clean"], row["gap"]) == (36, 18, full - wanted)
    assert row["before"]["gap"] == 0
    text = words_of(page, "clean")
    assert "Suspected effect of leakage in 1 task." in text
    assert (
        f"{EVAL}, 0-shot: 75.0 on all 36 predictions, 50.0 (50.0 – 50.0) on the 18 clean ones · kept by decision: {TRAIN}"
        in text
    )
    assert "full less clean +25.0, untrained ±0.0" in text


@pytest.mark.parametrize(
    ("full", "clean_high", "num_clean", "suspect"),
    [(0.75, 0.6, 20, True), (0.75, 0.8, 20, False), (0.54, 0.52, 20, False), (0.75, 0.6, 9, False)],
)
def test_a_gap_is_suspect_above_the_interval_and_of_some_size(
    full: float, clean_high: float, num_clean: int, suspect: bool
) -> None:
    from taskmill.report_scores import _beside

    row = {
        "value": full,
        "low": full - 0.1,
        "high": full + 0.1,
        "num": 40,
        "clean_value": 0.5,
        "matched_value": full,
    }
    row |= {"clean_low": 0.4, "clean_high": clean_high, "num_clean": num_clean}
    assert _beside(row)["suspect"] is suspect and LEAKAGE_GAP == 0.05


def test_tasks_without_a_clean_example_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train")
    part = [{**row, "clean": False} for row in predictions("final", EVAL, 0)]
    parts = [part, predictions("final", BOTH, 0)]
    files = {
        "predictions.parquet": ("scores/predictions", [row for rows in parts for row in rows]),
        "scores.parquet": ("scores/scores", scored(parts)),
    }
    write_stage(run, "evaluate", files)
    assert clean(FinishedRun(run))["without"] == [EVAL]
    text = words_of(parse(write_report(run)), "clean")
    assert f"Of 2 scores of tasks, 1 is of clean examples only; 1 has no clean example: {EVAL}." in text
    assert "0 of 36 predictions are clean · no clean score" in text
    assert "No task's full score stands above" in text


def test_where_every_task_has_both_kinds_of_examples_none_is_counted(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train")
    part = predictions("final", EVAL, 0)
    files = {
        "predictions.parquet": ("scores/predictions", part),
        "scores.parquet": ("scores/scores", scored([part])),
    }
    write_stage(run, "evaluate", files)
    assert clean(FinishedRun(run))["num_all_clean"] == 0
    text = words_of(parse(write_report(run)), "clean")
    assert "scores of tasks" not in text and "18 of 36 predictions are clean" in text


# --------------------------------------------------------------------------------------------- curves


def test_curves_go_from_the_untrained_over_the_checkpoints_to_the_trained_model(
    run: Path, page: Page
) -> None:
    data = curves(FinishedRun(run))
    assert [row["step"] for row in data["rows"]] == [0, 6, 12]  # step-000012 is the trained model
    assert [row["title"] for row in data["rows"]] == ["untrained", "after 6 updates", "trained"]
    place = data["columns"].index(("partial", 0))
    assert [row["cells"][place]["value"] for row in data["rows"]] == [0.25, 0.375, 0.5]
    assert data["columns"][-1] == ("all", -1) and data["num"] == 1
    line = next(level for level in data["figure"]["levels"] if level["name"] == "partial")
    assert line["line"].count("L") == 2 and line["dots"].count("h0") == 3
    text = words_of(page, "curves")
    assert "at 1 checkpoint" in text and "selection score" in text and "6 37.5" not in text
    assert "12 trained" in text


POINT = st.tuples(st.integers(0, 10_000), *[st.floats(0, 1)] * 3)


@given(
    st.dictionaries(
        st.sampled_from(["held_out", "partial"]), st.lists(POINT, min_size=1, max_size=8), min_size=1
    )
)
def test_score_curves_stay_in_their_box(lines: dict[str, list[tuple[int, float, float, float]]]) -> None:
    levels = {
        name: [
            {"step": step, "value": sorted(rest)[1], "low": min(rest), "high": max(rest)}
            for step, *rest in points
        ]
        for name, points in lines.items()
    }
    found = figures.score_curves(levels)
    for level in found["levels"]:
        for name in ("line", "band"):
            points = [tuple(map(float, p.strip("MLZ ").split())) for p in level[name].split("L")]
            assert all(0 <= x <= figures.WIDTH and 0 <= y <= figures.HEIGHT for x, y in points)
    assert all(0 <= tick["at"] <= 100 for tick in found["x_ticks"] + found["y_ticks"])
    assert found["y_ticks"]


# ------------------------------------------------------------------------------------------- the page


def test_hostile_text_of_predictions_stays_text(run: Path, page: Page) -> None:
    source = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in source and "<img" not in source
    assert not set("\x1b\x07\u202e") & set(source)
    for section in ("tasks", "variants"):
        assert PLANTED in page.text[section], section
    for name in ("report.html.j2", "report_scores.html.j2"):
        text = (Path(__file__).parents[1] / "taskmill" / name).read_text(encoding="utf-8")
        assert "| safe" not in text and "autoescape" not in text


def test_scores_without_the_clean_columns_ask_for_another_evaluation(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    path = run / "scores" / "scores.parquet"
    pq.write_table(pq.read_table(path).drop(["clean_low", "num_clean"]), path, write_page_checksum=True)
    with pytest.raises(UsageError, match=r"no column clean_low, num_clean.*taskmill evaluate .* --force"):
        write_report(run)


def test_predictions_that_wait_for_their_values_are_said_to(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train")
    rows = [{**row, "value": None} for row in predictions("final", BOTH, 0)]
    write_stage(run, "evaluate", {"predictions.parquet": ("scores/predictions", rows)})
    page = parse(write_report(run))
    for section in ("scores", "tasks", "clean"):
        assert "run evaluate without --predict-only" in words_of(page, section)


def test_long_lists_are_cut_with_counts(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train")
    names = [f"beta/task_{i:03d}" for i in range(90)]
    parts = []
    for i, name in enumerate(names):
        part = [{**row, "task": name, "family": name} for row in predictions("final", EVAL, 0)]
        for row in part:
            row["category"] = f"Category {i}"
            row["value"] = min(1.0, row["value"] + 0.001 * i * (row["template"] == TEMPLATES[0]))
        parts.append(part)
    files = {
        "predictions.parquet": ("scores/predictions", [row for part in parts for row in part]),
        "scores.parquet": ("scores/scores", scored(parts)),
    }
    write_stage(run, "evaluate", files)
    found = FinishedRun(run)
    assert len(clean(found)["tasks"]) == NUM_GAPS and len(variants(found)["rows"]) == NUM_SPREAD
    start = time.monotonic()
    page = parse(write_report(run))
    assert time.monotonic() - start < 30
    assert "60 more categories" in words_of(page, "scores")
    assert f"and {90 - NUM_SPREAD} more" in words_of(page, "variants")
    assert f"and {90 - NUM_GAPS} more with a smaller gap" in words_of(page, "clean")
    assert "and 78 more" in words_of(page, "clean")  # 12 suspects are listed
