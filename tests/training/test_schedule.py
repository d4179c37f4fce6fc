"""Learning rates and warm-up against the published trainings."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.recipe import Train
from taskmill.training.updating.schedule import (
    learning_rate,
    limit_steps,
    validates_after,
    warmup_updates,
)


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line, called by other tests, keeps its lines to itself."""
    monkeypatch.setattr(logging.getLogger("taskmill"), "propagate", True)


def train(**values: Any) -> Train:
    return Train(**values)


def test_opt_iml_rises_for_60_updates_and_falls_to_0_at_4000() -> None:
    """OPT-IML, table 3 (30B): 5e-5, 4000 updates, 60 of warm-up, linear."""
    recipe = train(learning_rate=5e-5, warmup_steps=60, schedule="linear")
    assert warmup_updates(recipe, 4000) == 60
    assert learning_rate(recipe, 0, 4000) == pytest.approx(5e-5 / 60, rel=1e-12)
    assert learning_rate(recipe, 59, 4000) == 5e-5
    assert learning_rate(recipe, 60, 4000) == 5e-5
    assert learning_rate(recipe, 2030, 4000) == pytest.approx(2.5e-5, rel=1e-12)
    assert learning_rate(recipe, 3999, 4000) == pytest.approx(5e-5 / 3940, rel=1e-9)
    assert learning_rate(recipe, 4000, 4000) == 0.0


def test_flacuna_has_the_warm_up_of_the_paper_or_of_the_script() -> None:
    """FLACUNA: one epoch over 1,340,153 rows of 128 a step, 2e-5; 3000 updates in the paper, a share of 1e-4 in the script."""
    num_steps = math.ceil(1_340_153 / 128)
    assert num_steps == 10_470
    script = train(learning_rate=2e-5, warmup_share=1e-4, schedule="cosine")
    assert warmup_updates(script, num_steps) == 2  # 1.047, rounded up
    assert learning_rate(script, 0, num_steps) == 1e-5
    assert learning_rate(script, 1, num_steps) == 2e-5
    paper = train(learning_rate=2e-5, warmup_steps=3000, schedule="cosine")
    assert learning_rate(paper, 1499, num_steps) == pytest.approx(1e-5, rel=1e-12)
    assert learning_rate(paper, 2999, num_steps) == 2e-5
    assert learning_rate(paper, 3000 + 3735, num_steps) == pytest.approx(1.1e-5, rel=1e-9)


def test_tulu_warms_up_for_3_percent() -> None:
    """TULU: linear to 0, 3 % warm-up; two epochs of the human mixture, 128 rows a step."""
    num_steps = math.ceil(2 * (100_000 + 100_000 + 15_011 + 34_795) / 128)
    recipe = train(learning_rate=2e-5, warmup_share=0.03, schedule="linear")
    assert (num_steps, warmup_updates(recipe, num_steps)) == (3904, 118)  # 117.12
    assert learning_rate(recipe, 117, num_steps) == 2e-5
    assert learning_rate(recipe, 118, num_steps) == 2e-5
    assert learning_rate(recipe, 119, num_steps) < 2e-5
    assert learning_rate(recipe, num_steps, num_steps) == 0.0


def test_openchat_falls_along_a_cosine_to_10_percent() -> None:
    """OpenChat: 6.7e-5, min_ratio 0.1."""
    recipe = train(learning_rate=6.7e-5, warmup_steps=0, schedule="cosine")
    for step in (0, 1, 250, 500, 999, 1000):
        published = 0.1 + 0.9 * max(0.0, 0.5 * (1 + math.cos(math.pi * step / 1000)))
        assert learning_rate(recipe, step, 1000) == pytest.approx(6.7e-5 * published, rel=1e-12)
    assert learning_rate(recipe, 1000, 1000) == pytest.approx(6.7e-6, rel=1e-9)


@pytest.mark.parametrize(
    ("share", "num_steps", "expected"),
    [(0.0, 50, 0), (0.07, 100, 7), (0.1, 30, 3), (0.03, 1, 1), (1.0, 9, 9), (1e-05, 10, 1)],
)
def test_a_share_of_warm_up_is_the_number_as_written(share: float, num_steps: int, expected: int) -> None:
    assert warmup_updates(train(warmup_share=share, warmup_steps=60), num_steps) == expected


@given(
    st.sampled_from(["linear", "cosine", "constant"]),
    st.integers(1, 300),
    st.one_of(st.none(), st.floats(0, 1)),
    st.integers(0, 400),
)
def test_rates_rise_to_the_peak_and_never_after(
    schedule: str, num_steps: int, share: float | None, warmup: int
) -> None:
    recipe = train(learning_rate=1.0, schedule=schedule, warmup_share=share, warmup_steps=warmup)
    rates = [learning_rate(recipe, step, num_steps) for step in range(num_steps)]
    peak = min(warmup_updates(recipe, num_steps), num_steps)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert all(0 < rate <= 1 for rate in rates)


def test_updates_are_those_that_the_packs_fill(caplog: pytest.LogCaptureFixture) -> None:
    assert limit_steps(train(warmup_steps=0, num_steps=2), 3) == 2
    assert limit_steps(train(warmup_share=0.5), 7) == 7
    assert not caplog.records
    assert limit_steps(train(num_steps=8, warmup_steps=0), 7) == 7
    assert "train.num_steps is 8 and the mixture fills 7 updates" in caplog.text


def test_a_warm_up_that_never_ends_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "taskmill")
    limit_steps(train(warmup_share=1.0), 5)
    assert "warm-up of 5 updates does not end within 5" in caplog.text


def test_validation_is_measured_every_so_many_updates_and_after_the_last() -> None:
    assert [s for s in range(1, 11) if validates_after(train(validation_steps=4), s, 10)] == [4, 8, 10]
    assert [s for s in range(1, 11) if validates_after(train(), s, 10)] == [10]
