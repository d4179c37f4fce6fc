"""The benchmark of near-duplicates compares what can be compared, and stops where our answers differ."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from running import ROOT
from test_benchmarks import part

TEXT = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = part("near_duplicates", monkeypatch)
    monkeypatch.setattr(found, "CORES", 2)
    return found


def test_every_peer_is_compared_on_its_cores(bench: ModuleType) -> None:
    contest = bench.Contest
    speed = {
        contest("ours", 20): 50.0,
        contest("ours", 20, 2): 90.0,
        contest("ours", 200): 60.0,
        contest("ours", 200, 2): 100.0,
        contest("ours", 20, 2, numba=False): 9.0,
        contest("daft", 20, 2): 45.0,
        contest("daft", 200, 2): 40.0,
        contest("datasketch_batch", 20, step=20): 0.5,
    }
    assert bench.ratios(speed) == {
        "speed_over_datasketch_batch": 100.0,
        "speed_over_daft": 2.5,
        "two_cores_over_one": 1.67,
    }
    assert set(bench.ratios(speed)) < set(bench.MEANING)


def test_a_peer_that_is_not_installed_takes_no_part(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "installed", lambda name: name not in ("rensa_flat", "daft"))
    assert {c.name for c in bench.contests(True)} == {"ours", "datasketch_batch", "datasketch_best"}
    monkeypatch.setattr(bench, "installed", lambda name: True)
    assert {c.name for c in bench.contests(False)} == set(bench.contenders.CONTENDERS)


def test_different_answers_of_ours_stop_it(bench: ModuleType) -> None:
    contest = bench.Contest
    samples = {contest("ours", 5, threads): [{"found": found}] for threads, found in ((1, 7), (2, 7), (3, 8))}
    with pytest.raises(SystemExit, match="ours_5mb_3t"):
        bench.check(samples)
    assert bench.check(dict(list(samples.items())[:2])) == 7


@pytest.fixture
def texts(bench: ModuleType, tmp_path: Path) -> tuple[str, str]:
    """A corpus of both sides with one document three times, one almost the same, and others."""
    others = [f"{TEXT} {' '.join(f'{name}{i}' for i in range(60))}" for name in "abcdef"]
    near = others[0].replace("a59", "changed")
    for name, some in (("train", [*others, others[0], near]), ("evaluation", [others[0], "short", "..."])):
        pq.write_table(pa.table({"text": some}), tmp_path / f"{name}.parquet")
    return str(tmp_path / "train.parquet"), str(tmp_path / "evaluation.parquet")


@pytest.mark.parametrize("name", ["ours", "datasketch_batch", "datasketch_best"])
def test_contenders_find_what_is_there(
    bench: ModuleType, texts: tuple[str, str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if not bench.installed(name):
        pytest.skip(f"{name} is not installed")
    bench.child(name, 99, 1, bench.Corpus(*map(Path, texts)))
    line = json.loads(capsys.readouterr().out)
    assert line["found"] == 3 and line["documents"] == 11 and line["seconds"] > 0


def test_quality_is_measured_against_all_pairs(
    bench: ModuleType, texts: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    bench.quality(bench.Corpus(*map(Path, texts)))
    line = json.loads(capsys.readouterr().out)
    assert (
        line["pairs_alike"] == 6 and line["recall"] == 1.0
    )  # the three copies and the near one, each with each
    assert line["pairs_estimated"] > 10 and 0 < line["estimate_error"] < 0.1


def test_the_page_has_a_row_for_every_contender(bench: ModuleType) -> None:
    sample = {"megabytes": 5.0, "seconds": 1.0, "cpu_seconds": 1.0, "documents": 9, "found": 4}
    sample |= {"peak_mb": 99.0, "others": 0.0}
    samples = {bench.Contest("ours", 5, threads): [sample] for threads in (1, 2)}
    found = bench.result(samples, {"recall": 1.0, "others": 0.0, "process_seconds": 1.0})
    assert found["ratios"] == {"two_cores_over_one": 1.0} and found["figures"]["found"] == 4
    ratios, figures = bench.tables(found)
    assert len(ratios) == 3 and len(figures) == 4 and "`ours_5mb_2t`" in figures[3]
    assert (ROOT / "benchmarks" / "near_duplicates.py").is_file()
