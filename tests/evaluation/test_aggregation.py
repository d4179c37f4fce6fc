"""Means of means by hand: every scope, selection scores, clean beside full, metrics of a whole corpus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from taskmill.evaluation.aggregation.hierarchy import MIXED, aggregate
from taskmill.evaluation.aggregation.nodes import ALL_SHOTS, mean, mean_of_estimates
from taskmill.evaluation.aggregation.resampling import draws
from taskmill.evaluation.aggregation.variants import bootstrap_key, variant_nodes
from taskmill.evaluation.metrics.registry import Item, Measure, values

Scores = dict[tuple[str, str, int], dict[str, Any]]


def part(
    task: str,
    values: dict[str | None, list[float]],
    *,
    family: str | None = None,
    subtask: str | None = None,
    level: str = "held_out",
    category: str = "QA",
    shots: int = 0,
    metric: str = "accuracy",
    clean: list[bool] | None = None,
    groups: list[int] | None = None,
    model: str = "final",
    statistics: list[list[float]] | None = None,
) -> pa.Table:
    """A table of predictions: template -> a value per example."""
    rows: list[dict[str, Any]] = []
    for template, row in values.items():
        for i, value in enumerate(row):
            rows.append(
                {"model": model, "task": task, "shots": shots, "template": template,
                 "group": groups[i] if groups else i, "family": family or task.split("/")[1], "subtask": subtask,
                 "benchmark": task.split("/")[0], "level": level, "category": category, "metric": metric,
                 "value": value, "clean": clean[i] if clean else True,
                 "statistics": statistics[i] if statistics else None}
            )  # fmt: skip
    names = ("model", "task", "template", "family", "subtask", "benchmark", "level", "category", "metric")
    types = {**dict.fromkeys(names, pa.string()), "shots": pa.int64(), "group": pa.uint64()}
    types |= {"value": pa.float64(), "clean": pa.bool_(), "statistics": pa.list_(pa.float64())}
    return pa.Table.from_pylist(rows, schema=pa.schema(list(types.items())))


def table(parts: list[pa.Table], resamples: int = 20) -> Scores:
    rows = aggregate(parts, seed=1, num_resamples=resamples)
    found = {(row["scope"], row["name"], row["shots"]): row for row in rows}
    assert len(found) == len(rows)
    return found


HAND = [
    # Family m has sub-tasks in benchmark p, two tasks of them the sub-task x, and a copy in q; n stands alone in p.
    part("p/m1", {"a": [1, 0], "b": [1, 1]}, family="m", subtask="x", clean=[True, False]),
    part("p/m1b", {"a": [0.25]}, family="m", subtask="x"),
    part("p/m2", {"a": [0, 0, 0, 1]}, family="m", subtask="y", clean=[False, True, False, True]),
    part("q/m", {"a": [1, 1]}, family="m", metric="exact_match"),
    part("q/m", {"a": [1, 0]}, family="m", metric="exact_match", shots=2),
    part("p/n", {None: [0.2]}, category="Other", clean=[False]),
    part("p/n", {None: [0.4]}, category="Other", clean=[False], shots=2),
    part("p/sum", {"a": [0.3]}, level="partial", category="Summarization", metric="rouge_l"),
    part("p/s", {"a": [1]}, level="supervised", metric="rouge_l"),
    part("p/s", {"a": [0]}, level="supervised", metric="rouge_l", shots=2),
]
EXPECTED = {  # (scope, name, shots): (value, clean value, predictions, clean predictions)
    ("variant", "p/m1::a", 0): (0.5, 1.0, 2, 1),
    ("variant", "p/m1::b", 0): (1.0, 1.0, 2, 1),
    ("variant", "p/m1b::a", 0): (0.25, 0.25, 1, 1),
    ("variant", "p/m2::a", 0): (0.25, 0.5, 4, 2),
    ("variant", "q/m::a", 0): (1.0, 1.0, 2, 2),
    ("variant", "q/m::a", 2): (0.5, 0.5, 2, 2),
    ("variant", "p/n::default", 0): (0.2, None, 1, 0),
    ("variant", "p/n::default", 2): (0.4, None, 1, 0),
    ("variant", "p/sum::a", 0): (0.3, 0.3, 1, 1),
    ("variant", "p/s::a", 0): (1.0, 1.0, 1, 1),
    ("variant", "p/s::a", 2): (0.0, 0.0, 1, 1),
    ("task", "p/m1", 0): (0.75, 1.0, 4, 2),
    ("task", "p/m1b", 0): (0.25, 0.25, 1, 1),
    ("task", "p/m2", 0): (0.25, 0.5, 4, 2),
    ("task", "q/m", 0): (1.0, 1.0, 2, 2),
    ("task", "q/m", 2): (0.5, 0.5, 2, 2),
    ("task", "p/n", 0): (0.2, None, 1, 0),
    ("task", "p/n", 2): (0.4, None, 1, 0),
    ("task", "p/sum", 0): (0.3, 0.3, 1, 1),
    ("task", "p/s", 0): (1.0, 1.0, 1, 1),
    ("task", "p/s", 2): (0.0, 0.0, 1, 1),
    # Sub-task x of p: (.75 + .25) / 2 = .5, clean (1 + .25) / 2 = .625; y: .25, clean .5; so p: .375, clean .5625; q: 1.
    ("family", "held_out/QA/m", 0): (0.6875, 0.78125, 11, 7),
    ("family", "held_out/QA/m", 2): (0.5, 0.5, 2, 2),
    ("family", "held_out/Other/n", 0): (0.2, None, 1, 0),
    ("family", "held_out/Other/n", 2): (0.4, None, 1, 0),
    ("family", "partial/Summarization/sum", 0): (0.3, 0.3, 1, 1),
    ("family", "supervised/QA/s", 0): (1.0, 1.0, 1, 1),
    ("family", "supervised/QA/s", 2): (0.0, 0.0, 1, 1),
    ("category", "held_out/QA", 0): (0.6875, 0.78125, 11, 7),
    ("category", "held_out/QA", 2): (0.5, 0.5, 2, 2),
    ("category", "held_out/Other", 0): (0.2, None, 1, 0),
    ("category", "held_out/Other", 2): (0.4, None, 1, 0),
    ("category", "partial/Summarization", 0): (0.3, 0.3, 1, 1),
    ("category", "supervised/QA", 0): (1.0, 1.0, 1, 1),
    ("category", "supervised/QA", 2): (0.0, 0.0, 1, 1),
    ("benchmark", "held_out/p", 0): (0.2875, 0.5625, 10, 5),  # families m (.375) and n (.2, none clean) of p
    ("benchmark", "held_out/p", 2): (0.4, None, 1, 0),
    ("benchmark", "held_out/q", 0): (1.0, 1.0, 2, 2),
    ("benchmark", "held_out/q", 2): (0.5, 0.5, 2, 2),
    ("benchmark", "partial/p", 0): (0.3, 0.3, 1, 1),
    ("benchmark", "supervised/p", 0): (1.0, 1.0, 1, 1),
    ("benchmark", "supervised/p", 2): (0.0, 0.0, 1, 1),
    ("level", "held_out", 0): (0.44375, 0.78125, 12, 7),  # (.6875 + .2) / 2
    ("level", "held_out", 2): (0.45, 0.5, 3, 2),
    ("level", "partial", 0): (0.3, 0.3, 1, 1),
    ("level", "supervised", 0): (1.0, 1.0, 1, 1),
    ("level", "supervised", 2): (0.0, 0.0, 1, 1),
    # Over shots held_out .446875, partial .3 (0-shot only), supervised .5; clean (.640625 + .3 + .5) / 3.
    ("level", "all", ALL_SHOTS): (0.415625, 0.480208, 18, 12),
    # held_out 0-shot (.2875 + 1) / 2 = .64375, 2-shot (.4 + .5) / 2 = .45, so .546875; clean (.5625 + 1) / 2 and .5.
    ("benchmark", "all", ALL_SHOTS): (0.448958, 0.480208, 18, 12),
}
MATCHED = {  # what the clean value is compared with, where a part below has no clean prediction
    ("benchmark", "held_out/p", 0): 0.375,
    ("level", "held_out", 0): 0.6875,
    ("level", "held_out", 2): 0.5,
    ("level", "all", ALL_SHOTS): 0.464583,  # ((.6875 + .5) / 2 + .3 + .5) / 3
    ("benchmark", "all", ALL_SHOTS): 0.464583,  # held_out ((.375 + 1) / 2 + .5) / 2
}


def test_every_row_equals_the_table_made_by_hand() -> None:
    names = ("value", "clean_value", "num", "num_clean")
    found = {key: tuple(row[name] for name in names) for key, row in table(HAND).items()}
    assert found == EXPECTED
    for key, row in table(HAND).items():
        whole = None if row["clean_value"] is None else row["value"]
        assert row["matched_value"] == MATCHED.get(key, whole)


def test_metrics_are_named_or_mixed() -> None:
    found = table(HAND)
    assert found["task", "p/m1", 0]["metric"] == "accuracy"
    assert found["family", "held_out/QA/m", 0]["metric"] == MIXED


def test_57_subjects_count_once() -> None:
    subjects = [part(f"p/mmlu_{i}", {"a": [0.0]}, family="mmlu", subtask=str(i)) for i in range(57)]
    found = table([*subjects, part("p/race", {"a": [1.0]})])
    assert found["category", "held_out/QA", 0]["value"] == 0.5
    unnamed = [part(f"p/winobias_{i}", {"a": [0.0]}, family="winobias") for i in range(4)]
    assert table([*unnamed, part("p/race", {"a": [1.0]})])["level", "held_out", 0]["value"] == 0.5


def test_every_value_lies_in_its_interval_and_one_group_has_no_width() -> None:
    found = table(HAND, resamples=200)
    for row in found.values():
        assert row["low"] <= row["value"] <= row["high"]
        if row["clean_value"] is None:
            assert row["clean_low"] is row["clean_high"] is None
        else:
            assert row["clean_low"] <= row["clean_value"] <= row["clean_high"]
    alone = found["task", "p/n", 0]
    assert alone["low"] == alone["high"] == 0.2


def test_clean_is_the_score_of_the_clean_rows_alone() -> None:
    clean = [i % 3 > 0 for i in range(30)]
    rows = part("p/t", {"a": [i % 2 for i in range(30)], "b": [i % 5 / 5 for i in range(30)]}, clean=clean)
    found = table([rows], 300)
    alone = table([rows.filter(rows.column("clean"))], 300)
    for key, row in alone.items():
        for name in ("value", "low", "high"):
            assert found[key][f"clean_{name}"] == row[name]
        assert found[key]["num_clean"] == row["num"]
        assert [row[f"clean_{name}"] for name in ("value", "low", "high")] == [
            row[n] for n in ("value", "low", "high")
        ]


def test_a_leaked_task_scores_higher_in_full_than_clean() -> None:
    found = table([part("p/t", {"a": [1, 1, 0, 0]}, clean=[False, False, True, True])])
    assert found["level", "held_out", 0]["value"] > found["level", "held_out", 0]["clean_value"]


def test_the_order_of_parts_and_models_changes_nothing() -> None:
    both = HAND + [t.set_column(0, "model", pa.array(["initial"] * t.num_rows)) for t in HAND]
    rows = aggregate(both, seed=1, num_resamples=30)
    assert rows == aggregate(both[::-1], seed=1, num_resamples=30)
    halves = [[{**r, "model": ""} for r in rows if r["model"] == m] for m in ("final", "initial")]
    assert halves[0] == halves[1], "draws belong to the task: equal models have equal intervals"
    other = aggregate(both, seed=2, num_resamples=30)
    assert [r["value"] for r in other] == [r["value"] for r in rows] and other != rows


def test_resampling_is_by_group_not_by_prediction() -> None:
    values = [float(i % 2) for i in range(40)]
    own = table([part("p/t", {"a": values})], 400)["task", "p/t", 0]
    halves = part("p/t", {"a": sorted(values)}, groups=[i // 20 for i in range(40)])
    two = table([halves], 400)["task", "p/t", 0]
    assert (two["low"], two["high"]) == (0.0, 1.0)
    assert 0.25 < own["low"] < 0.5 < own["high"] < 0.75


def test_a_resample_without_a_variant_leaves_it_out() -> None:
    rows = part("p/t", {"a": [1, 1, 1, 1], "b": [0]}).to_pylist()
    rows[-1]["group"] = 0
    found = table([pa.Table.from_pylist(rows, schema=HAND[0].schema)], 300)
    assert found["variant", "p/t::b", 0]["low"] == found["variant", "p/t::b", 0]["high"] == 0.0
    assert found["task", "p/t", 0]["high"] == 1.0  # where group 0 was not drawn
    assert found["task", "p/t", 0]["low"] == 0.5


def test_intervals_are_those_of_the_draws_multiplied_out_by_hand() -> None:
    values = [0.0, 0.25, 1.0, 0.5, 0.75]
    node = variant_nodes(part("p/t", {"a": values}), 3, 40)["a"]
    ((_, weights),) = draws(bootstrap_key(3, "p/t"), 40, 5)
    by_hand = [math.fsum(w * v for w, v in zip(row, values)) / 5 for row in weights.tolist()]
    assert node.full.samples_R.tolist() == pytest.approx(by_hand, abs=1e-12)


def test_the_interval_covers_the_truth_about_19_times_in_20() -> None:
    covered = 0
    for trial in range(300):
        raw = np.random.Philox(key=trial).random_raw(60)
        drawn = ((raw >> np.uint64(40)) % np.uint64(10) < np.uint64(3)).astype(float).tolist()
        row = table([part(f"p/{trial}", {"a": drawn})], 200)["task", f"p/{trial}", 0]
        covered += row["low"] <= 0.3 <= row["high"]
    assert 0.88 <= covered / 300 <= 0.99


# ------------------------------------------------------------------------------- metrics of a corpus


GIVEN = [
    "the cat sat on the mat today",
    "a dog ran over there quickly now",
    "birds sing at dawn in the old tree",
]
WANTED = [
    "the cat sat on a mat today",
    "the dog ran over there now",
    "birds sang at dawn in the old oak tree",
]


def translated(clean: list[bool]) -> pa.Table:
    """Predictions valued by our BLEU."""
    items = [Item([g], [w], None, None, "p/t#1", "p/t", "") for g, w in zip(GIVEN, WANTED)]
    valued = values(Measure("bleu"), items, 1)
    found = [v.statistics or [] for v in valued]
    return part("p/t", {"a": [v.value for v in valued]}, metric="bleu", clean=clean, statistics=found)


def corpus_bleu(places: Sequence[int]) -> float:
    """BLEU of some of the predictions as sacrebleu has it."""
    sacrebleu = pytest.importorskip("sacrebleu")
    wanted = [[WANTED[i] for i in places]]
    return float(sacrebleu.corpus_bleu([GIVEN[i] for i in places], wanted).score) / 100


def test_bleu_of_a_task_and_of_its_resamples_is_of_the_corpus() -> None:
    rows = translated([True, True, False])
    found = table([rows], 400)["task", "p/t", 0]
    assert found["value"] == pytest.approx(corpus_bleu([0, 1, 2]), abs=1e-6)
    assert found["clean_value"] == pytest.approx(corpus_bleu([0, 1]), abs=1e-6)
    assert found["value"] != pytest.approx(np.mean(rows.column("value").to_pylist()), abs=0.01)
    samples = variant_nodes(rows, 1, 400)["a"].full.samples_R
    possible = {round(corpus_bleu(drawn), 9) for drawn in product(range(3), repeat=3)}
    assert {round(value, 9) for value in samples.tolist()} == possible


def test_a_mean_of_bleu_and_accuracy_is_a_mean_of_scores() -> None:
    found = table([translated([True] * 3), part("p/u", {"a": [1, 0]})])
    assert found["level", "held_out", 0]["value"] == pytest.approx(
        (corpus_bleu([0, 1, 2]) + 0.5) / 2, abs=1e-6
    )


# --------------------------------------------------------------------------------------------- edges


def test_no_scores_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no scores"):
        mean_of_estimates([])
    with pytest.raises(ValueError, match="no scores"):
        mean([])
    assert aggregate([], seed=0, num_resamples=1) == []


def test_a_prediction_without_a_value_is_an_error_of_the_caller() -> None:
    rows = part("p/t", {"a": [1, 1]}).to_pylist()
    rows[1]["value"] = None
    with pytest.raises(ValueError, match="no value"):
        table([pa.Table.from_pylist(rows, schema=HAND[0].schema)])


def test_parts_of_a_model_that_are_apart_are_an_error_of_the_caller() -> None:
    other = HAND[0].set_column(0, "model", pa.array(["initial"] * HAND[0].num_rows))
    with pytest.raises(ValueError, match="parts of final are apart"):
        table([HAND[0], other, HAND[1]])
