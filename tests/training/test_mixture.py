"""Shares and sizes of a mixture against closed forms, published figures and values computed by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from catalogue_rows import catalogue
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from taskmill.errors import TaskmillError, UsageError
from taskmill.recipe import Auxiliary, Mix
from taskmill.training.mixing.draws import Entry, Mixture
from taskmill.training.mixing.plan import num_positions, plan
from taskmill.training.mixing.shares import set_aside
from taskmill.training.mixing.sizes import spread
from taskmill.training.mixture import share_table

PARTS = ("crossfit", "exmix", "flan", "super_natural_instructions", "promptsource", "t5", "unifiedskg")
NATURAL = dict(zip(PARTS, (2, 1, 5, 71, 18, 1, 2)))
FINAL = dict(zip(PARTS, (4, 2, 20, 25, 45, 2, 2)))
"""Proportions of OPT-IML (section 4.1), in percent, in the paper's order."""


def opt_iml() -> dict[str, list[int]]:
    """Task sizes whose capped sums stand to each other as the natural row: sizes over the cap count as the cap."""
    sizes = {}
    for name, percent in NATURAL.items():
        rate = percent * 1_000
        tasks = [5_000 + 7 * i for i in range(rate // 4_096)]
        sizes[name] = [*tasks, rate - 4_096 * len(tasks)]
    return sizes


def shares_of(entries: list[Entry]) -> dict[str, float]:
    names = {e.benchmark for e in entries}
    return {name: math.fsum(e.share for e in entries if e.benchmark == name) for name in names}


def drawn(entries: list[Entry], num: int, seed: int = 0, in_epochs: bool = False) -> dict[str, int]:
    mixture = Mixture(entries, seed, 1000, in_epochs)
    names = np.array([e.benchmark for e in mixture.entries])[mixture.draws(num)[0]].tolist()
    return {name: names.count(name) for name in set(names)}


# ------------------------------------------------------------------------------------ OPT-IML's figures


@pytest.mark.parametrize("seed", [0, 1])
def test_opt_iml_row_is_met_within_a_tenth_of_a_point(seed: int) -> None:
    rows, tasks = catalogue(opt_iml())
    assert shares_of(plan(Mix(), rows, tasks)) == pytest.approx({n: p / 100 for n, p in NATURAL.items()})
    entries = plan(Mix(shares={n: p / 100 for n, p in FINAL.items()}), rows, tasks)
    found = drawn(entries, 10_000, seed)
    assert all(abs(found[name] / 100 - percent) < 0.1 for name, percent in FINAL.items())


def test_both_readings_of_the_auxiliary_shares() -> None:
    """Reasoning 1 % of prompts and pre-training 5 % of sequences, documents eight times as long as prompts.

    q 8000 = 0.05 (B (1 - q) + 8000 q), with B = 1000 the mean of all that is displaced: q = 50 / 7650.
    """
    sizes = {**opt_iml(), "reasoning": [50, 150], "pretraining": [2_000]}
    mean = dict.fromkeys((*PARTS, "reasoning"), 1_000.0) | {"pretraining": 8_000.0}
    rows, tasks = catalogue(sizes, mean)
    shares = {n: p / 100 for n, p in FINAL.items()}
    text = float(Fraction(50, 7650))
    for payer, factor, left in (
        (None, 1 - 0.01 - text, 0.25 * (1 - 0.01 - text)),
        ("super_natural_instructions", 1 - text, 0.25 * (1 - text) - 0.01),
    ):
        aside = {"reasoning": Auxiliary(0.01, paid_by=payer), "pretraining": Auxiliary(0.05, "sequences")}
        entries = plan(Mix(shares=shares, auxiliary=aside), rows, tasks)
        wanted = {n: share * factor for n, share in shares.items()}
        wanted |= {"super_natural_instructions": left, "reasoning": 0.01, "pretraining": text}
        assert shares_of(entries) == pytest.approx(wanted)
        found = drawn(entries, 100_000)
        assert all(abs(found[name] / 100_000 - share) < 0.0001 for name, share in wanted.items())
        whole = sum(count * mean[name] for name, count in found.items())
        assert found["pretraining"] * 8_000 / whole == pytest.approx(0.05, abs=2e-4)


def test_pretraining_may_be_paid_too() -> None:
    """q 8000 = 0.05 M and M = 1000 + q (8000 - 1000) where the payer's prompts are as long as the others'."""
    rows, tasks = catalogue(
        {"a": [60], "b": [40], "pretraining": [9]}, {"a": 1e3, "b": 1e3, "pretraining": 8e3}
    )
    aside = {"pretraining": Auxiliary(0.05, "tokens", "a")}
    q = 50 / (8_000 - 0.05 * 7_000)
    assert shares_of(plan(Mix(auxiliary=aside), rows, tasks)) == pytest.approx(
        {"a": 0.6 - q, "b": 0.4, "pretraining": q}
    )


# ---------------------------------------------------------------------------------------------- shares


def test_task_shares_follow_capped_sizes() -> None:
    rows, tasks = catalogue({"a": [10, 100, 1000], "b": [5]})
    entries = {e.task: e for e in plan(Mix(shares={"a": 0.75, "b": 0.25}, cap=100), rows, tasks)}
    assert entries["a/0"].share == pytest.approx(0.75 * 10 / 210)
    assert entries["a/1"].share == entries["a/2"].share == pytest.approx(0.75 * 100 / 210)
    assert entries["b/0"].share == pytest.approx(0.25)
    natural = plan(Mix(cap=100), rows, tasks)
    assert shares_of(natural) == {"a": pytest.approx(210 / 215), "b": pytest.approx(5 / 215)}


def test_auxiliary_share_is_rescaled_or_paid() -> None:
    rows, tasks = catalogue({"a": [100], "b": [100], "reasoning": [10, 30], "dialogue": [7]})
    shares = {"a": 0.6, "b": 0.3, "dialogue_bench": 0.1}
    rescaled = plan(Mix(shares=shares, auxiliary={"reasoning": Auxiliary(0.2)}), rows, tasks)
    assert shares_of(rescaled) == pytest.approx(
        {"a": 0.48, "b": 0.24, "dialogue_bench": 0.08, "reasoning": 0.2}
    )
    paid = plan(Mix(shares=shares, auxiliary={"reasoning": Auxiliary(0.2, paid_by="a")}), rows, tasks)
    assert shares_of(paid) == pytest.approx({"a": 0.4, "b": 0.3, "dialogue_bench": 0.1, "reasoning": 0.2})
    both = {"reasoning": Auxiliary(0.2, paid_by="a"), "dialogue": Auxiliary(0.5)}
    found = shares_of(plan(Mix(shares={"a": 0.6, "b": 0.4}, auxiliary=both), rows, tasks))
    assert found == pytest.approx({"a": 0.1, "b": 0.2, "reasoning": 0.2, "dialogue": 0.5})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.floats(1, 1e5)), min_size=2, max_size=5),
    st.floats(0.01, 0.45),
    st.floats(0.01, 0.45),
    st.tuples(st.floats(1, 1e5), st.floats(1, 1e5)),
    st.sampled_from(["tokens", "sequences", "prompts"]),
)
def test_a_share_of_text_is_that_share_of_all_bytes(
    parts: list[tuple[float, float]], first: float, second: float, sizes: tuple[float, float], unit: str
) -> None:
    total = math.fsum(w for w, _ in parts)
    base = {str(i): w / total for i, (w, _) in enumerate(parts)}
    mean = {str(i): m for i, (_, m) in enumerate(parts)} | {"reasoning": sizes[0], "pretraining": sizes[1]}
    auxiliary = {"reasoning": Auxiliary(first, "tokens"), "pretraining": Auxiliary(second, unit)}  # type: ignore[arg-type]
    try:
        shares = set_aside(base, auxiliary, mean)
    except UsageError:
        assume(unit != "prompts")  # a share of prompts and one of text can be more than everything together
        raise
    assert math.fsum(shares.values()) == pytest.approx(1) and min(shares.values()) >= 0
    whole = math.fsum(shares[n] * mean[n] for n in shares)
    assert shares["reasoning"] * mean["reasoning"] / whole == pytest.approx(first)
    got = shares["pretraining"] if unit == "prompts" else shares["pretraining"] * mean["pretraining"] / whole
    assert got == pytest.approx(second)
    ratios = [shares[n] / base[n] for n in base]
    assert min(ratios) == pytest.approx(max(ratios))


def test_paid_share_of_text() -> None:
    mean = {"a": 100.0, "b": 300.0, "pretraining": 50.0}
    shares = set_aside({"a": 0.5, "b": 0.5}, {"pretraining": Auxiliary(0.1, "sequences", "b")}, mean)
    whole = math.fsum(shares[n] * mean[n] for n in shares)
    assert shares["pretraining"] * 50 / whole == pytest.approx(0.1)
    assert shares["a"] == 0.5 and shares["b"] == pytest.approx(0.5 - shares["pretraining"])


def test_benchmark_of_share_0_is_left_out() -> None:
    rows, tasks = catalogue({"a": [10], "b": [10]})
    mix = Mix(shares={"a": 1.0, "b": 0.0})
    entries = plan(mix, rows, tasks)
    mixture = Mixture(entries, 0, 100)
    assert mixture.benchmarks == ["a"]
    table = {r["benchmark"]: r for r in share_table(mix, entries, mixture, 40)}
    assert table["b"]["realised"] == 0 and table["b"]["natural"] == 0.5
    assert (table["a"]["prompts"], table["a"]["passes"]) == (40, 4.0)


def test_classes_are_parts() -> None:
    rows, tasks = catalogue({"a": [10, 30], "b": [20]}, conditions=("GPT3", "GPT4"))
    rows += catalogue({"d": [6]})[0]
    tasks["d/0"] = ("d", "benchmark")
    entries = plan(Mix(by="class", shares={"GPT3": 0.25, "GPT4": 0.25, "none": 0.5}, cap=15), rows, tasks)
    assert shares_of(entries) == pytest.approx({"GPT3": 0.25, "GPT4": 0.25, "none": 0.5})
    found = {(e.task, e.condition): e.share for e in entries}
    assert found["a/1", "GPT4"] == found["b/0", "GPT4"] == pytest.approx(0.25 * 15 / 40)
    assert found["d/0", None] == pytest.approx(0.5)


# ----------------------------------------------------------------------------------------------- sizes


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.integers(1, 70),
    st.integers(0, 500),
    st.integers(0, 9),
)
def test_sizes_are_spread_by_capped_size(sizes: list[int], cap: int, size: int, more: int) -> None:
    rates = [min(n, cap) for n in sizes]
    kept = spread(size, rates, sizes)
    assert kept.sum() == min(size, sum(sizes)) and all(kept <= sizes)
    assert all(spread(size + more, rates, sizes) >= kept), "more prompts take none away"
    free = [(k, r) for k, r, n in zip(kept.tolist(), rates, sizes) if k < n]
    for k, r in free:  # no task could take a prompt over from another and be nearer to its rate
        assert all(
            (other - 0.5) / rate <= (k + 0.5) / r + 1e-9 for other, rate in zip(kept.tolist(), rates) if other
        )


def test_flan_mini_takes_a_fixed_number_of_each() -> None:
    rows, tasks = catalogue({"niv2": [5, 40, 4000], "code": [100], "chat_sets": [70, 3]})
    mix = Mix("concatenation", sizes={"niv2": 145, "code": 200}, cap=100)
    entries = plan(mix, rows, tasks)
    assert {e.task: e.num_kept for e in entries} == {
        "niv2/0": 5,
        "niv2/1": 40,
        "niv2/2": 100,
        "code/0": 100,
        "chat_sets/0": 70,
        "chat_sets/1": 3,
    }
    assert num_positions(mix, entries) == 318
    table = {r["benchmark"]: r for r in share_table(mix, entries, Mixture(entries, 0, 50, True), 318)}
    assert [table["code"][k] for k in ("kept", "short", "prompts", "realised")] == [100, 100, 100, 0.314465]
    assert (table["niv2"]["short"], table["niv2"]["tasks_capped"], table["chat_sets"]["tasks_capped"]) == (
        0,
        1,
        0,
    )
    assert drawn(entries, 318, in_epochs=True) == {"niv2": 145, "code": 100, "chat_sets": 73}


def test_openchat_samples_one_class() -> None:
    rows, tasks = catalogue({"sharegpt": [600, 43]}, conditions=("GPT3", "GPT4"))
    mix = Mix("concatenation", by="class", keep={"GPT3": 0.1}, epochs=5)
    entries = plan(mix, rows, tasks)
    kept = {(e.task, e.benchmark): e.num_kept for e in entries}
    assert kept == {
        ("sharegpt/0", "GPT3"): 60,
        ("sharegpt/1", "GPT3"): 4,
        ("sharegpt/0", "GPT4"): 600,
        ("sharegpt/1", "GPT4"): 43,
    }
    assert num_positions(mix, entries) == 5 * 707
    none = Mix("concatenation", by="class", keep={"GPT3": 0.0})
    entries = plan(none, rows, tasks)
    mixture = Mixture(entries, 0, 1000, True)
    assert (mixture.benchmarks, mixture.epoch) == (["GPT4"], 643)
    first = share_table(none, entries, mixture, 643)[0]
    assert [first[k] for k in ("benchmark", "wanted", "prompts", "passes", "kept")] == ["GPT3", 0, 0, 0, 0]


# ------------------------------------------------------------------------------------- what fits nothing


@pytest.mark.parametrize(
    "mix,message",
    [
        (Mix(shares={"a": 0.5, "bb": 0.5}), "mix.shares.bb: no benchmark of that name has train prompts.*'b'"),
        (Mix(shares={"a": 1.0}), "no share for 'b', which has train prompts; give it 0"),
        (Mix(auxiliary={"dialogue": Auxiliary(0.1)}), "mix.auxiliary.dialogue: no task of kind 'dialogue'"),
        (Mix(auxiliary={"reasoning": Auxiliary(0.9, paid_by="a")}), "'a' is to pay 0.9000 of the prompts and has 0."),
        (Mix(auxiliary={"reasoning": Auxiliary(0.1, paid_by="aa")}), "no benchmark 'aa' has train prompts.*'a'"),
        (Mix(auxiliary={"reasoning": Auxiliary(1.0)}), "leave nothing for the benchmarks"),
        (Mix("concatenation", sizes={"bb": 3}), "mix.sizes.bb: no benchmark of that name has train prompts.*'b'"),
        (Mix("concatenation", keep={"zzz": 0.5}), "mix.keep.zzz: no benchmark .*with train prompts: a, b, reasoning_bench"),
        (Mix("concatenation", "class", keep={"a": 0.5}), "mix.keep.a: no class of that name .*classes with train prompts: none"),
        (Mix("concatenation", keep=dict.fromkeys(("a", "b", "reasoning_bench"), 0.0)), "leaves no prompt to train on"),
        (Mix("concatenation", num_prompts=51, epochs=2), "found 51; expected at most 50, which mix.epochs = 2 of 25"),
        (Mix("concatenation", epochs=10**9), "25,000,000,000 positions; expected at most 4,294,967,296"),
        (Mix(num_prompts=10**10), "10,000,000,000 positions; expected at most"),
    ],
)  # fmt: skip
def test_settings_that_fit_nothing_are_refused(mix: Mix, message: str) -> None:
    rows, tasks = catalogue({"a": [10], "b": [10], "reasoning": [5]})
    shares = {**mix.shares, "reasoning_bench": 0.0} if mix.shares else None
    changed = Mix(**{**vars(mix), "shares": shares})
    with pytest.raises(UsageError, match=message):
        plan(changed, rows, tasks)


def test_an_epoch_that_cannot_be_met_exactly_is_refused() -> None:
    rows, tasks = catalogue({"a": [2**29 + 1]})
    with pytest.raises(UsageError, match="an epoch has 536,870,913 prompts; expected at most 536,870,912"):
        plan(Mix("concatenation"), rows, tasks)


def test_a_kind_and_a_benchmark_of_one_name() -> None:
    rows, tasks = catalogue({"a": [10], "reasoning": [5]})
    tasks["a/0"] = ("reasoning", "benchmark")
    with pytest.raises(UsageError, match="a/0 is of the benchmark 'reasoning' and of kind 'benchmark'"):
        plan(Mix(auxiliary={"reasoning": Auxiliary(0.1)}), rows, tasks)


def test_no_train_prompt_at_all() -> None:
    for mix in (Mix(), Mix("concatenation")):
        with pytest.raises(TaskmillError, match="the mixture is empty"):
            plan(mix, [], {})
    rows, tasks = catalogue({"reasoning": [5]})
    with pytest.raises(UsageError, match="every train prompt is of a kind"):
        plan(Mix(auxiliary={"reasoning": Auxiliary(0.5)}), rows, tasks)
