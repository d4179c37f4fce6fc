"""Paired comparison: joins, differences, intervals and p-values against hand-made and simulated truth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from predicted import TYPES, prediction

from taskmill.evaluation.aggregation import comparing
from taskmill.evaluation.aggregation.comparing import adjust, compare, compare_task, holm, p_value
from taskmill.evaluation.aggregation.hierarchy import aggregate
from taskmill.evaluation.aggregation.joining import join, why_apart
from taskmill.evaluation.metrics.registry import Item, Measure, combine, values
from taskmill.seeding import uniform

SCHEMA = pa.schema(list(TYPES.items()))


def table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def answers(task: str, worth: Sequence[float], **more: Any) -> list[dict[str, Any]]:
    """Rows of one task, an example each, each a group."""
    return [prediction(task, i, value, **more) for i, value in enumerate(worth)]


def rows_of(first: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]], **more: int) -> dict[Any, Any]:
    rows = compare(join(table(first), table(other)), **more)
    adjust(rows)
    return {(row["scope"], row["name"], row["shots"]): row for row in rows}


def coin(share: float, *ids: object) -> float:
    return float(uniform(1, "test.comparing", *ids) < share)


# ---------------------------------------------------------------------------------------- differences


def test_identical_predictions_differ_by_nothing() -> None:
    rows = [*answers("p/t", [0.0, 1.0] * 30), *answers("p/u", [1.0] * 3, level="partial", clean=False)]
    found = rows_of(rows, [{**row, "model": "initial"} for row in rows])
    for row in found.values():
        assert (row["difference"], row["low"], row["high"], row["p"], row["p_holm"]) == (0, 0, 0, 1, 1)
    assert found["task", "p/u", 0]["clean_p"] is None and found["task", "p/u", 0]["clean_difference"] is None
    assert found["level", "all", -1]["clean_p_holm"] == 1


def test_a_planted_difference_is_found() -> None:
    first = answers("p/t", [coin(0.5, "a", i) for i in range(300)])
    other = answers("p/t", [coin(0.7, "b", i) for i in range(300)])
    row = rows_of(first, other)["level", "held_out", 0]
    assert row["p"] == row["p_holm"] / 2 == 0.0001  # two rows: the level and the selection score
    assert 0 < row["low"] < 0.2 < row["high"] and row["difference"] == pytest.approx(0.2, abs=0.08)


def test_swapping_the_models_turns_the_sign_and_nothing_else() -> None:
    first = answers("p/t", [coin(0.5, "a", i) for i in range(80)])
    other = answers("p/t", [coin(0.6, "b", i) for i in range(80)])
    one, two = (rows_of(*pair)["task", "p/t", 0] for pair in ((first, other), (other, first)))
    assert one["p"] == two["p"] and one["difference"] == -two["difference"]
    assert (one["low"], one["high"]) == (-two["high"], -two["low"])


def test_values_are_those_of_the_scores_table() -> None:
    first, other = [
        [
            *answers("p/t", [coin(0.5, model, i) for i in range(20)], family="m"),
            *answers("p/t", [coin(0.5, model, "b", i) for i in range(20)], family="m", template="b"),
            *answers("q/t", [coin(0.2, model, i) for i in range(9)], family="m"),
            *answers("q/t", [coin(0.3, model, "k", i) for i in range(9)], family="m", shots=2),
            *answers("p/u", [coin(0.9, model, i) for i in range(5)], level="supervised", clean=False),
        ]
        for model in ("a", "b")
    ]
    found = rows_of(first, other)
    for side, rows in (("first", first), ("other", other)):
        parts = [
            [r for r in rows if (r["task"], r["shots"]) == key]
            for key in {(r["task"], r["shots"]) for r in rows}
        ]
        scores = aggregate(map(table, parts), seed=0, num_resamples=10)
        kept = {(s["scope"], s["name"], s["shots"]): s for s in scores if s["scope"] in comparing.COMPARED}
        assert set(kept) == set(found)
        for key, score in kept.items():
            assert found[key][side] == score["value"] and found[key]["num"] == score["num"]
            assert found[key][f"clean_{side}"] == score["clean_value"]


def test_clean_is_what_is_clean_for_both() -> None:
    first = [prediction("p/t", i, 1.0, clean=i != 0) for i in range(4)]
    other = [prediction("p/t", i, float(i > 1), clean=i != 1) for i in range(4)]
    row = rows_of(first, other)["task", "p/t", 0]
    assert (row["difference"], row["clean_difference"], row["num_clean"]) == (-0.5, 0.0, 2)


# ------------------------------------------------------------------------------------------- p-values


def test_few_groups_are_counted_out() -> None:
    found = rows_of(answers("p/t", [0.0] * 4), answers("p/t", [1.0] * 4))
    assert found["task", "p/t", 0]["p"] == 2 / 16
    uneven = rows_of(answers("p/t", [0.0] * 3), answers("p/t", [1.0, 0.5, 0.25]))
    differences = [1.0, 0.5, 0.25]
    totals = [abs(sum(s * d for s, d in zip(signs, differences))) for signs in product((1, -1), repeat=3)]
    assert uneven["task", "p/t", 0]["p"] == sum(t >= 1.75 for t in totals) / 8


def test_a_group_swaps_as_one() -> None:
    first = [prediction("p/t", i, 0.0, group=i // 10) for i in range(40)]
    other = [prediction("p/t", i, 1.0, group=i // 10) for i in range(40)]
    assert rows_of(first, other)["task", "p/t", 0]["p"] == 2 / 16
    shots = [[*rows, *({**row, "shots": 2} for row in rows)] for rows in (first, other)]
    assert rows_of(*shots)["level", "all", -1]["p"] == 2 / 16, "both numbers of shots are of the same groups"


def test_drawn_permutations_approach_all_of_them() -> None:
    for trial in range(5):
        first = answers(f"p/t{trial}", [uniform(1, "a", trial, i) for i in range(10)])
        other = answers(f"p/t{trial}", [uniform(1, "b", trial, i) for i in range(10)])
        node = compare_task(table(first), table(other), 10, 20_000).full
        assert node.terms is not None and len(node.terms) == 10
        exact = p_value(node)
        drawn = p_value(comparing.Paired(node.first, node.other, node.difference, node.flips_P, None))
        assert drawn == pytest.approx(exact, abs=0.015)


@pytest.fixture(scope="module")
def nulls() -> list[dict[str, Any]]:
    """1,000 tasks on which both models draw values between 0 and 1 alike, in groups of two; a row each."""
    size, number = 40, 1000
    bits = np.random.Philox(key=7).random_raw(2 * number * size).reshape(2, number, size)
    worth = (bits >> np.uint64(40)).astype(np.float64) / 2**24
    sides = []
    for model in worth:
        columns = {
            "task": [f"p/{t}" for t in range(number) for _ in range(size)],
            "example": [f"{i}" for _ in range(number) for i in range(size)],
            "group": [i // 2 for _ in range(number) for i in range(size)],
            "value": model.ravel().tolist(),
        }
        same = {**prediction("p/0", 0, 0.0), "family": "f"}
        rest = {name: [same[name]] * (number * size) for name in TYPES if name not in columns}
        sides.append(
            pa.table({**columns, **rest}, schema=SCHEMA.empty_table().select([*columns, *rest]).schema)
        )
    rows = compare(join(*sides), num_resamples=300, num_permutations=399)
    return [row for row in rows if row["scope"] == "task"]


def test_false_alarms_come_as_often_as_promised(nulls: list[dict[str, Any]]) -> None:
    assert len(nulls) == 1000
    for level in (0.05, 0.2):
        rate = np.mean([row["p"] <= level for row in nulls])
        assert abs(rate - level) < 3.5 * (level * (1 - level) / 1000) ** 0.5
    assert max(row["p"] for row in nulls) > 0.99
    alarms = [dict(row) for row in nulls]
    adjust(alarms)
    assert min(row["p_holm"] for row in alarms) > 0.05


def test_the_interval_of_no_difference_holds_0_about_19_times_in_20(nulls: list[dict[str, Any]]) -> None:
    held = np.mean([row["low"] <= 0 <= row["high"] for row in nulls])
    assert 0.90 <= held <= 0.98


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=12))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for place, p in enumerate(p_values):
        above = [(sum(q >= r for q in p_values), r) for r in p_values if r <= p]
        assert adjusted[place] == pytest.approx(min(1.0, max(k * r for k, r in above)))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


# -------------------------------------------------------------------------------- metrics of a corpus

GIVEN = {
    "a": [
        "the cat sat on the mat today",
        "a dog ran over there quickly",
        "birds sing in the old tree at dawn",
    ],
    "b": ["the cat sat on a mat today", "dogs run there", "birds sang at dawn in the old tree"],
}
WANTED = [
    "the cat sat on a mat today",
    "the dog ran over there now",
    "birds sang at dawn in the old oak tree",
]


def translated(side: str) -> list[dict[str, Any]]:
    items = [Item([g], [w], None, None, "e", "p/t", "") for g, w in zip(GIVEN[side], WANTED)]
    valued = values(Measure("bleu"), items, 1)
    return [
        {**prediction("p/t", i, v.value, metric="bleu"), "statistics": v.statistics}
        for i, v in enumerate(valued)
    ]


def test_bleu_is_of_swapped_corpora() -> None:
    first, other = translated("a"), translated("b")
    node = compare_task(table(first), table(other), 200, 300).full
    sides = [np.array([row["statistics"] for row in rows]) for rows in (first, other)]
    possible = set()
    for swaps in product((0, 1), repeat=3):
        sums = [np.stack([sides[side ^ s][i] for i, s in enumerate(swaps)]).sum(axis=0) for side in (0, 1)]
        ends = combine("bleu", np.stack(sums))
        possible.add(round(float(ends[1] - ends[0]), 9))
    assert {round(d, 9) for d in node.flips_P.tolist()} == possible
    whole = combine("bleu", np.stack([side.sum(axis=0) for side in sides]))
    assert (node.first, node.other) == pytest.approx(tuple(whole))
    assert node.difference.value == pytest.approx(whole[1] - whole[0]) and node.terms is None


def test_the_same_translations_have_p_1() -> None:
    row = rows_of(translated("a"), translated("a"))["task", "p/t", 0]
    assert (row["difference"], row["low"], row["high"], row["p"]) == (0, 0, 0, 1)


# ---------------------------------------------------------------------------------------------- joins


def test_only_what_both_answered_counts() -> None:
    first = [*answers("p/t", [1.0] * 6), *answers("p/only", [1.0] * 3)]
    other = [
        *answers("p/t", [0.0] * 4)[::-1],
        *answers("q/only", [1.0]),
        *answers("p/t", [1.0], template="b"),
    ]
    joined = join(table(first), table(other))
    assert joined.num == 4
    assert joined.first.column("example").to_pylist() == joined.other.column("example").to_pylist()
    found = {row["name"] for row in compare(joined) if row["scope"] == "task"}
    assert found == {"p/t"}


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_predictions_changes_nothing(seed: int) -> None:
    first = [
        *answers("p/t", [coin(0.5, i) for i in range(30)]),
        *answers("q/t", [1.0, 0.0], shots=2, template=None),
    ]
    other = [{**row, "value": coin(0.5, "o", i)} for i, row in enumerate(first)]
    mixed = [
        sorted(rows, key=lambda r: uniform(seed, "mix", r["example"], r["task"])) for rows in (first, other)
    ]
    assert rows_of(*mixed) == rows_of(first, other)


def test_a_missing_template_is_one_of_its_own() -> None:
    first = answers("p/t", [1.0], template=None) + answers("p/t", [0.0], template="a")
    other = answers("p/t", [0.5], template="a") + answers("p/t", [0.75], template=None)
    joined = join(table(first), table(other))
    pairs = zip(joined.first.column("value").to_pylist(), joined.other.column("value").to_pylist())
    assert set(pairs) == {(1.0, 0.75), (0.0, 0.5)}


def test_other_metrics_and_other_places_are_told() -> None:
    first = answers("p/t", [1.0] * 3) + answers("p/u", [1.0] * 2)
    other = answers("p/t", [1.0] * 3, metric="rouge_l") + answers("p/u", [1.0] * 2, level="supervised")
    joined = join(table(first), table(other))
    assert (joined.num, joined.num_other_metric, joined.moved()) == (2, 3, ["p/u"])
    assert {row["name"] for row in compare(joined) if row["scope"] == "level"} == {"held_out", "all"}


@pytest.mark.parametrize(
    "change,said",
    [
        ({"task": "q/t"}, "no task of one is in the other (p/t; q/t)"),
        ({"example": "x"}, "no example of one is in the other: their data, split or evaluate.split differ"),
        ({"shots": 5}, "no shots of one is in the other (0; 5)"),
        ({"template": None}, "no template of one is in the other (a; default)"),
        ({"metric": "bleu"}, "no metric of one is in the other (accuracy; bleu)"),
    ],
)
def test_nothing_in_common_is_explained(change: dict[str, Any], said: str) -> None:
    first = answers("p/t", [1.0])
    other = [{**row, **change} for row in first]
    joined = join(table(first), table(other))
    assert joined.num == 0 and list(joined.tasks()) == []
    assert why_apart(table(first), table(other)) == said
