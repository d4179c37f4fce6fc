"""The report: one HTML file with every section, safe against hostile text, over whole and partial runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from finished_run import EVAL, HOSTILE, TRAIN, make_run
from html_page import Page, parse
from hypothesis import given
from hypothesis import strategies as st

from taskmill.cli import cli
from taskmill.commands import figures
from taskmill.commands.evidence import clip, is_marked, mark
from taskmill.digests import digest
from taskmill.errors import DamagedError, UsageError
from taskmill.normalisers import WORDS, named
from taskmill.report import SECTIONS, TEMPLATE, write_report
from taskmill.stages import NAMES
from taskmill.text import words


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run."""
    return make_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    """Its report."""
    return parse(write_report(run))


def test_every_section_is_there_in_order_and_linked(page: Page) -> None:
    names = [name for name, *_ in SECTIONS]
    assert [i for i in page.ids if i in names] == names
    assert {f"#{i}" for i in ["top", *names]} <= set(page.links) <= {f"#{i}" for i in page.ids}
    assert len(page.ids) == len(set(page.ids))
    assert "is not finished" not in "".join(page.text.values())


def test_nothing_is_loaded_and_nothing_runs(run: Path, page: Page) -> None:
    assert not page.tags & {"script", "link", "img", "iframe", "object", "base", "form"}
    source = write_report(run).read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=\s*[\"']?\s*(https?:|//|data:|javascript:)", source, re.I)
    assert not re.search(r"url\(|@import|http-equiv", source, re.I)


def test_hostile_text_stays_text(run: Path, page: Page) -> None:
    source = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in source
    assert "\x1b" not in source
    assert "safe" not in re.findall(r"\|\s*(\w+)", TEMPLATE.read_text(encoding="utf-8"))
    for section in ("catalogue", "levels", "overlap", "prompts", "tasks"):
        assert HOSTILE in page.text[section], section
    assert "Irony & <b>wit</b>" in page.text["catalogue"]


@pytest.mark.parametrize(
    ("section", "texts"),
    [
        ("head", ["tiny", "16", "of 17 read", "75.0", "+50.0 by training"]),
        ("flow", ["17 read = 16 kept + 1 dropped", "every record is accounted for", "1 unlabelled", *NAMES]),
        ("catalogue", ["Sentiment", "Arithmetic", "CC-BY-4.0"]),
        (
            "drops",
            [
                "curate",
                "duplicate",
                "equal content within one task",
                "render",
                "Nothing was left out by overlap",
            ],
        ),
        ("audit", ["The prompts have not been audited: taskmill audit"]),
        ("levels", ["Held out: 1 task", "supervised", "1 keep"]),
        (
            "overlap",
            ["25 %", f"{TRAIN}#0", f"{EVAL}#0", "frequent-only", "a person", "is the answer", "1 of 4 short"],
        ),
        ("mixture", ["alpha", "100.0 %", "12 prompts, 2.00 passes"]),
        ("prompts", ["instruction", "{eos}", "answer 2"]),
        ("training", ["12 updates", "5.000", "3.900", "validation, held out", "4.125", "after update 6"]),
        ("scores", ["65.0 – 85.0", "25.0", "Selection score 75.0"]),
        ("tasks", ["guess", "Best", "Worst", "partly right, 75.0"]),
        ("variants", ["No task was asked with more than one prompt variant"]),
        ("clean", ["70.0", "0 of 4 predictions are clean"]),
        ("curves", ["before and after training", "12 trained 75.0", "No checkpoint was scored"]),
        ("provenance", ["tiny.yaml:1", "mix.block", "numpy"]),
    ],
)
def test_sections_hold_their_figures(page: Page, section: str, texts: list[str]) -> None:
    text = " ".join(page.text[section].split())
    for wanted in texts:
        assert wanted in text, f"{wanted!r} is not in {section}: {text[:400]}"


def test_the_training_is_shown_as_it_was_and_names_no_place_of_the_machine(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    path = run / "model/manifest.json"
    body = json.loads(path.read_text())
    trained = {"model": "/mnt/disk/llama", "method": "full", "precision": "bf16", "schedule": "cosine"}
    body["settings"] = {
        "train": trained | {"learning_rate": 6.7e-5, "batch_size": 16, "batch_tokens": 200_000}
    }
    body["recorded"] = body["recorded"] | {
        "train": {"tokens_per_second": 1234.5, "deviations": ["no dropout"]}
    }
    body["digest"] = digest({key: value for key, value in body.items() if key != "digest"})
    path.write_text(json.dumps(body))
    text = " ".join(parse(write_report(run)).text["training"].split())
    assert "llama · full · bf16" in text and "/mnt/disk" not in text
    assert "at most 200,000 tokens an update · 1,234 tokens/s" in text and "16 sequences" not in text
    assert "Not as the recipe asks: no dropout." in text


def test_shared_words_are_marked_in_the_text_as_it_was_written(page: Page) -> None:
    assert (
        page.marked
        == ["At first, The Harbour Was Quiet That (Night) And Nobody Saw The Boat Leave Before Dawn"] * 2
    )


@pytest.mark.parametrize("last", ["curate", "split", "mix", "train"])
def test_a_partial_run_names_what_is_missing(tmp_path: Path, last: str) -> None:
    run = make_run(tmp_path, last)
    page = parse(write_report(run))
    text = " ".join("".join(page.text.values()).split())
    for stage in NAMES[NAMES.index(last) + 1 :]:
        assert f"taskmill {stage} {run}" in text
    for stage in NAMES[: NAMES.index(last) + 1]:
        assert f"taskmill {stage} {run}" not in text


def test_the_command_writes_where_it_is_told_and_twice_the_same(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "page.html"
    found = CliRunner().invoke(cli, ["report", str(run), "--output", str(path)], catch_exceptions=False)
    assert found.output.strip() == str(path)
    assert path.read_bytes() == write_report(run).read_bytes()
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no finished stage"):
        write_report(tmp_path)
    with pytest.raises(UsageError, match="there is no run"):
        write_report(tmp_path / "absent")


def test_a_damaged_run_gives_no_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, "curate")
    tasks = run / "tasks" / "tasks.parquet"
    tasks.write_bytes(tasks.read_bytes()[:-20])
    with pytest.raises(DamagedError, match=r"tasks\.parquet"):
        write_report(run)
    assert not (run / "report.html").exists()


# --------------------------------------------------------------------------------- marks and figures


@pytest.mark.parametrize(
    ("text", "window", "marked"),
    [
        ("The cat, SAT on a mat.", "cat sat on", ["cat, SAT on"]),
        ("a b a b a", "a b", ["a b a b"]),
        ("Straße 7 & CAFÉ", "strasse 7 café", ["Straße 7 & CAFÉ"]),
        ("前の東京タワー後", "東 京", ["東京"]),
        ("nothing here", "cat sat", []),
        ("don't stop", "t stop", ["t stop"]),
        ("", "cat", []),
    ],
)
def test_mark_finds_windows_in_the_text_as_written(text: str, window: str, marked: list[str]) -> None:
    pieces = mark(text, [window])
    assert [piece for piece, flag in pieces if flag] == marked
    assert "".join(piece for piece, _ in pieces) == text


@given(st.text(max_size=60), st.integers(0, 5), st.integers(1, 4))
def test_every_window_of_a_text_is_found_in_it(text: str, first: int, size: int) -> None:
    window = words(text)[first : first + size]
    pieces = mark(text, [" ".join(window)] if window else [])
    assert "".join(piece for piece, _ in pieces) == text
    found = words(" ".join(piece for piece, flag in pieces if flag))
    assert set(window) <= set(found)


@pytest.mark.parametrize(
    ("mode", "text", "window", "marked"),
    [
        ("lm-eval", "I don't stop, Zoë!", "dont stop", ["don't stop,"]),
        ("lm-eval", "ÉTÉ is – here", "is – here", ["is – here"]),
        ("gpt3", "ÉTÉ is – here", "été is here", ["ÉTÉ is – here"]),
        ("gpt3", "nothing here", "cat sat", []),
        ("lm-eval", "a\0b", "a b", ["a\0b"]),
        (None, "the ids 17 4 are here", "17 4", []),
    ],
)
def test_mark_follows_the_normalisation(mode: str | None, text: str, window: str, marked: list[str]) -> None:
    pieces = mark(text, [window], named(mode) if mode else None)
    assert [piece for piece, flag in pieces if flag] == marked
    assert "".join(piece for piece, _ in pieces) == text


@given(st.sampled_from(["gpt3", "lm-eval"]), st.text(max_size=60), st.integers(0, 5), st.integers(1, 4))
def test_every_window_is_found_or_nothing_is_marked(mode: str, text: str, first: int, size: int) -> None:
    normaliser = named(mode)
    window = normaliser.words(text)[first : first + size]
    pieces = mark(text, [" ".join(window)] if window else [], normaliser)
    assert "".join(piece for piece, _ in pieces) == text
    if is_marked(pieces):
        found = normaliser.words(" ".join(piece for piece, flag in pieces if flag))
        assert set(window) <= set(found)
    elif text.isascii():
        assert not window


def test_words_that_depend_on_what_stands_beside_them_are_not_marked() -> None:
    joined = replace(named("lm-eval"), words=lambda text: ["".join(text.split())])
    assert mark("foot ball", ["football"], joined) == [("foot ball", False)]
    assert mark("foot ball", ["foot ball"], joined) == [("foot ball", False)]
    assert mark("football", ["football"], joined) == [("football", True)]


def test_no_window_marks_nothing() -> None:
    assert mark("some text", [], WORDS) == [("some text", False)]


def test_clip_cuts_the_middle_of_long_marks() -> None:
    ((text, marked),) = clip([("a" * 500 + "b" * 500, True)], around=20)
    assert marked and text.startswith("a" * 100) and text.endswith("b" * 100) and len(text) < 220


def test_clip_keeps_marks_and_shortens_the_rest() -> None:
    pieces = clip([("a" * 500, False), ("mark", True), ("b" * 500, False)], around=20)
    assert pieces[1] == ("mark", True)
    assert pieces[0][0].endswith("a" * 20) and len(pieces[0][0]) < 30
    assert pieces[2][0].startswith("b" * 20) and len(pieces[2][0]) < 30


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (figures.count(1234567), "1,234,567"),
        (figures.compact(563_224), "563 k"),
        (figures.compact(1_563_224), "1.56 M"),
        (figures.percent(0.0004), "<0.1 %"),
        (figures.percent(0.0), "0.0 %"),
        (figures.signed(-2.81), "\u22122.8"),
        (figures.signed(0.01), "\u00b10.0"),
        (figures.duration(67), "1 min 07 s"),
        (figures.duration(3_900), "1 h 05 min"),
        (figures.size(4_600_000), "4.6 MB"),
        (figures.words("num_held_out"), "held out"),
    ],
)
def test_numbers_are_written_for_people(text: str, wanted: str) -> None:
    assert text == wanted


@given(st.lists(st.floats(0, 20, allow_nan=False), min_size=1, max_size=50))
def test_the_loss_curve_stays_in_its_box(losses: list[float]) -> None:
    curve = figures.loss_curve(list(range(1, len(losses) + 1)), losses)
    for name in ("raw", "smooth"):
        points = [tuple(map(float, p.strip("ML ").split())) for p in curve[name].split("L")]
        assert all(0 <= x <= figures.WIDTH and 0 <= y <= figures.HEIGHT for x, y in points)
    assert all(0 <= tick["at"] <= 100 for tick in curve["x_ticks"] + curve["y_ticks"])


def test_validation_losses_are_drawn_in_the_box_of_the_loss() -> None:
    levels = {"held_out": [(2.0, 9.0), (4.0, 8.0)], "supervised": [(4.0, 1.0)]}
    curve = figures.loss_curve([1, 2, 3, 4], [5.0, 4.0, 3.0, 2.0], levels)
    assert [level["name"] for level in curve["levels"]] == ["held_out", "supervised"]
    for level in curve["levels"]:
        points = [tuple(map(float, p.strip("ML ").split())) for p in level["line"].split("L")]
        assert all(0 <= x <= figures.WIDTH and 0 <= y <= figures.HEIGHT for x, y in points)
        assert level["dots"].count("h0") == len(levels[level["name"]])
    assert curve["levels"][0]["line"].startswith(f"M{figures.WIDTH / 3:.1f} ")


def test_a_long_loss_curve_is_thinned() -> None:
    curve = figures.loss_curve(list(range(100_000)), [1.0 + i % 7 for i in range(100_000)])
    assert curve["raw"].count("L") < figures.MOST_POINTS


@pytest.mark.parametrize(
    ("number", "name", "wanted"),
    [
        (1, "tasks_left", "1 task left"),
        (2, "num_tasks", "2 tasks"),
        (1, "near_duplicates", "1 near duplicate"),
        (1, "renders_with_more_parts", "1 render with more parts"),
        (1, "answer_not_in_options", "1 answer not in options"),
        (1, "unlabelled", "1 unlabelled"),
        (1234, "num_examples_kept", "1,234 examples kept"),
    ],
)
def test_counters_are_in_the_singular_for_one(number: int, name: str, wanted: str) -> None:
    assert figures.counted(number, name) == wanted
