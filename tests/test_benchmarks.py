"""Every benchmark runs, its contenders agree, and it writes what `--json` promises; its own parts do what they say."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
from running import ROOT

BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(path for path in BENCHMARKS.glob("*.py") if "def main()" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_quick_run(script: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--json", str(out)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert set(result) == {"ratios", "figures", "versions"}
    assert all(ratio > 0 for ratio in result["ratios"].values()) and result["ratios"]
    assert result["figures"]["found"] > 0


def part(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a file of benchmarks/ as its scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


def test_a_copy_has_one_word_in_eight_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = part("corpus", monkeypatch)
    texts = [" ".join(f"{text}.{word}" for word in range(100)) for text in range(400)] + ["", "one\ntwo"]
    made = corpus.altered(texts, 0, 0)
    assert made == corpus.altered(texts, 0, 0) != corpus.altered(texts, 1, 0)
    assert [len(text.split(" ")) for text in made] == [len(text.split(" ")) for text in texts]
    pairs = [
        (a, b) for before, after in zip(texts, made) for a, b in zip(before.split(" "), after.split(" "))
    ]
    changed = sum(a != b for a, b in pairs) / len(pairs)
    assert 0.115 < changed < 0.135


def test_the_demo_s_text_has_whole_tasks_on_either_side(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    corpus = part("corpus", monkeypatch)
    text = corpus.corpus(tmp_path, None, 3)
    train, evaluation = corpus.read(text.train), corpus.read(text.evaluation)
    num_train, num_evaluation = len(set(train.tasks)), len(set(evaluation.tasks))
    assert not set(train.tasks) & set(evaluation.tasks)
    assert 0.1 < num_evaluation / (num_train + num_evaluation) < 0.14
    assert train.num_bytes + evaluation.num_bytes == pytest.approx(3_000_000, rel=0.2)
    assert [side.to_pylist() for side in corpus.sides(text)] == [train.texts, evaluation.texts]
    assert corpus.corpus(tmp_path, None, 3) == text  # as it is
    longer = corpus.long_stream(tmp_path, None, 6, start=3)
    streamed = corpus.read(longer.train)
    assert longer.evaluation == text.evaluation and set(streamed.tasks) == set(train.tasks)
    assert streamed.texts[: len(train.texts)] == train.texts and len(streamed.texts) > len(train.texts)


def test_a_wrong_answer_stops_the_benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    overlap = part("overlap", monkeypatch)
    contests = [overlap.Contest(name, 5) for name in ("oracle", "ours", "polars")]
    for contest, answer in zip(contests, ([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 9])):
        np.save(tmp_path / f"{contest.label}.npy", np.array(answer))
    figures = overlap.check(contests, tmp_path)
    assert figures[contests[1]] == {"found": 4, "recall": 1.0, "precision": 1.0}
    assert figures[contests[2]] == {"found": 3, "recall": 0.5, "precision": 0.6667}
    np.save(tmp_path / f"{contests[1].label}.npy", np.array([1, 2, 3]))
    with pytest.raises(SystemExit, match="ours_5mb_1t: 3 documents, 3 of the right 4"):
        overlap.check(contests, tmp_path)


def test_another_likelihood_stops_the_benchmark_of_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = part("evaluate", monkeypatch)
    job = evaluate.job_of("cpu", True, None, None)
    scores, letters, texts = [[-9.5, -3.25], [-1.0, -7.0]], [[-1.0, -2.0]] * 2, ["a", "b"]

    def one(options: list[list[float]], texts: list[str], seconds: float) -> dict[str, object]:
        answers = {"options": options, "shots": scores, "letters": letters, "generate": texts}
        timed = {k: {"seconds": seconds, "cpu_seconds": seconds, "answers": a} for k, a in answers.items()}
        return {**timed, "peak_mb": 1.0, "threads": 1}

    ours, near = one(scores, texts, 1.0), [[-9.5, -3.2505], [-1.0, -7.0]]
    rows = {"options": {"seconds": 3.0, "cpu_seconds": 4.0, "answers": scores}, "peak_mb": 1.0}
    found = {("ours", 8): [ours], ("lm_eval", 8): [one(near, texts, 2.5)], ("rows", 8): [rows]}
    result = evaluate.summed(job, found)
    assert result["ratios"]["rank_speed_over_lm_eval"] == 2.5
    assert result["ratios"]["rank_speed_over_rows_cpu"] == 4.0
    assert result["figures"]["found"] == 8
    assert result["figures"]["options_largest_difference"] == pytest.approx(5e-4)
    with pytest.raises(SystemExit, match="lm_eval, 8 rows, options: only 1 of 2 are as ours"):
        evaluate.check(job, {**found, ("lm_eval", 8): [one([[-9.5, -3.2], scores[1]], texts, 2.5)]})
    with pytest.raises(SystemExit, match="lm_eval, 8 rows, generate: only 1 of 2 are as ours"):
        evaluate.check(job, {**found, ("lm_eval", 8): [one(scores, ["a", "c"], 2.5)]})
    alone = {name: samples for name, samples in found.items() if name[0] != "lm_eval"}
    assert set(evaluate.summed(job, alone)["ratios"]) == {"rank_speed_over_rows", "rank_speed_over_rows_cpu"}


def test_questions_to_rank_have_options_of_many_tokens_and_tasks_share_demonstrations(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = part("evaluate", monkeypatch).job_of("cpu", True, None, None)
    data = part("evaluate_data", monkeypatch)
    items = data.items_of(job)
    assert len({prompt for prompt, _ in items["options"]}) == job["questions"]
    assert all(len(options) == 5 == len(set(options)) for _, options in items["options"])
    assert len({prompt.partition("\n\n")[0] for prompt, _ in items["shots"]}) == 1
    for (plain, _), (shown, _), (listed, _) in zip(*(items[k] for k in ("options", "shots", "letters"))):
        assert shown.endswith(plain) and shown != plain and listed.count("\n") == 6
    assert len(items["generate"]) == job["generated"]
    data.write_tokenizer(tmp_path, items, job["vocabulary"])
    from taskmill.training.encoding.tokenizer import open_tokenizer

    backend = open_tokenizer(tmp_path / "tokenizer").backend
    sizes = [len(backend.encode(f" {option}").ids) for _, many in items["options"] for option in many]
    assert min(sizes) >= 4 and max(sizes) <= 12


def test_a_ratio_without_its_peer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    overlap = part("overlap", monkeypatch)
    monkeypatch.setattr(overlap, "CORES", 2)
    seconds = {"ours_5mb_1t": 2.0, "ours_5mb_2t": 1.0, "polars_5mb_2t": 3.0}
    seconds |= {"first_run_ours_1mb_2t": 1.0, "first_run_polars_1mb_2t": 1.5}
    seconds |= {"first_run_ours_5mb_2t": 1.0, "first_run_polars_5mb_2t": 0.9}
    ratios = overlap.ratios(seconds, {"ours_5mb_1t": 1.5, "tokenise_5mb_1t": 0.5})
    assert ratios == {
        "speed_over_polars": 3.0,
        "two_cores_over_one": 2.0,
        "tokenise_floor_over_ours": 0.333,
        "first_run_over_polars": 0.9,
    }
    assert set(ratios) <= set(overlap.MEANING)


def test_the_median_is_of_clean_samples_where_there_are_three(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = part("measuring", monkeypatch)
    clean = [{"seconds": seconds, "others": 0.0} for seconds in (1.0, 2.0, 3.0)]
    busy = [{"seconds": 9.0, "others": 0.5}] * 4
    assert measuring.median([*clean, *busy], "seconds") == 2.0
    assert measuring.median([*clean[:2], *busy], "seconds") == 9.0


def test_a_page_is_filled_between_its_comments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measuring = part("measuring", monkeypatch)
    page = tmp_path / "page.md"
    page.write_text("Before.\n\n<!-- growth -->\nold\n<!-- end growth -->\n\nAfter.\n", encoding="utf-8")
    for _ in range(2):
        measuring.fill(page, "growth", measuring.table(["size", "s"], [["1", "2.5"]]))
    body = "\n| size | s |\n| --- | ---: |\n| 1 | 2.5 |\n\n"
    assert page.read_text() == f"Before.\n\n<!-- growth -->\n{body}<!-- end growth -->\n\nAfter.\n"
    with pytest.raises(SystemExit, match="no place for ratios"):
        measuring.fill(page, "ratios", [])


def test_a_chart_is_plain_and_holds_every_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    charts = part("charts", monkeypatch)
    lines = {"a & b": [(1.0, 10.0), (4.0, 37.0)], "c": [(1.0, 0.5), (4.0, 0.5)]}
    charts.write_chart(tmp_path / "plots" / "x.svg", "tasks", [charts.Panel("seconds", lines)])
    root = ElementTree.parse(tmp_path / "plots" / "x.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f".//{space}circle")) == 4 and len(root.findall(f".//{space}polyline")) == 2
    assert not root.findall(f".//{space}rect")  # nothing behind the lines: the page shows through
    assert "a & b" in [element.text for element in root.findall(f".//{space}text")]
    assert charts.ticks(37) == [0, 10, 20, 30, 40] and charts.ticks(0.5) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert charts.ticks(2000)[-1] == 2000 and charts.ticks(0) == [0, 1]


def test_the_performance_page_shows_the_charts_and_has_places_for_tables() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    charts = sorted((ROOT / "docs" / "plots").glob("*.svg"))
    assert charts and all(f"plots/{path.name}" in page for path in charts)
    assert "<!-- overlap text -->" in page and "<!-- end overlap text -->" in page
    for name in ("overlap ratios", "overlap figures", "growth"):
        body = page.partition(f"<!-- {name} -->")[2].partition(f"<!-- end {name} -->")[0]
        assert body.count("\n| ") >= 4, name
