"""Draws of groups and signs: pure, whole, uniform, and the same however they are cut."""

from __future__ import annotations

import numpy as np
import pytest

from taskmill.evaluation.aggregation import resampling
from taskmill.evaluation.aggregation.resampling import draws, flip, interval, resample, signs


def test_draws_are_uniform_and_whole() -> None:
    drawn = np.concatenate([part for _, part in draws(5, 2000, 7)])
    assert (drawn.sum(axis=1) == 7).all()
    assert drawn.mean(axis=0) == pytest.approx(np.ones(7), abs=0.1)
    assert drawn.std() == pytest.approx((6 / 7) ** 0.5, abs=0.05)


@pytest.mark.parametrize("num_groups", [1, 3, 64, 65, 130])
def test_signs_are_fair_and_independent(num_groups: int) -> None:
    drawn = np.concatenate([part for _, part in signs(5, 4000, num_groups)])
    assert drawn.shape == (4000, num_groups) and set(np.unique(drawn)) == {-1.0, 1.0}
    assert np.abs(drawn.mean(axis=0)).max() < 0.08
    if num_groups > 1:
        products = drawn.T @ drawn / 4000 - np.eye(num_groups)
        assert np.abs(products).max() < 0.1


def test_draws_do_not_depend_on_how_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.arange(10.0).reshape(5, 2)
    whole, flipped = resample(sums, 9, 33), flip(sums, 9, 33)
    monkeypatch.setattr(resampling, "CHUNK", 12)
    monkeypatch.setattr(resampling, "_PRODUCT", 1)
    assert (resample(sums, 9, 33) == whole).all()
    assert (flip(sums, 9, 33) == flipped).all()
    assert (resample(sums, 10, 33) != whole).any()


def test_the_first_resamples_of_many_are_those_of_few() -> None:
    sums = np.arange(6.0)[:, None]
    assert (resample(sums, 1, 50)[:20] == resample(sums, 1, 20)).all()


def test_pinned_draws_are_the_same_on_every_machine() -> None:
    ((_, drawn),) = draws(123, 2, 5)
    ((_, signed),) = signs(123, 2, 5)
    assert drawn.astype(int).tolist() == PINNED_DRAWS
    assert signed.astype(int).tolist() == PINNED_SIGNS


PINNED_DRAWS = [[1, 3, 1, 0, 0], [2, 0, 1, 1, 1]]
PINNED_SIGNS = [[1, 1, -1, -1, -1], [-1, 1, -1, 1, 1]]


def test_an_interval_leaves_out_what_was_not_drawn() -> None:
    assert interval(np.array([np.nan, np.nan]), 0.25) == (0.25, 0.25)
    low, high = interval(np.array([np.nan, *np.linspace(0, 1, 41)]), 0.5)
    assert (low, high) == pytest.approx((0.025, 0.975))
