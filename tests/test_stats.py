"""Intervals, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from automc.stats import drop_figure, mean_figure


def test_wilsons_interval_of_90_of_100() -> None:
    # z = 1.96: centre (0.9 + 3.8415/200) / (1 + 3.8415/100) = 0.91921/1.03841 = 0.88521; half
    # 1.96/1.03841 * sqrt(0.9*0.1/100 + 3.8415/40000) = 1.88748 * 0.031560 = 0.05957
    figure = mean_figure(np.array([1.0] * 90 + [0.0] * 10), rung=2, split="validation")
    assert figure.value == pytest.approx(0.9)
    assert (figure.low, figure.high) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert (figure.n, figure.unit, figure.kind, figure.split) == (100, "fraction", "measured", "validation")


def test_all_right_has_an_interval_below_one() -> None:
    figure = mean_figure(np.ones(50), rung=0, split="test")
    assert figure.value == figure.high == 1.0
    assert figure.low == pytest.approx(50 / (50 + 1.959964**2), abs=1e-6)


def test_drop_is_paired_over_the_same_samples() -> None:
    # differences in points: 100, 0, 0, -100 -> mean 0; sample deviation sqrt(20000/3) = 81.65; half 1.96*81.65/2 = 80.0
    reference, scores = np.array([1.0, 1, 0, 0]), np.array([0.0, 1, 0, 1])
    figure = drop_figure(reference, scores, rung=1, split="validation")
    assert figure.value == 0
    assert figure.high == pytest.approx(80.02, abs=0.01)
    same = drop_figure(reference, reference, rung=1, split="validation")
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_of_errors_more_is_the_drop_and_none_is_a_share_of_right_answers() -> None:
    # differences in hundredths: 10, 30 -> mean 20; sample deviation 14.142; half 1.96 * 14.142 / sqrt 2 = 19.6
    drop = drop_figure(np.array([0.1, 0.2]), np.array([0.2, 0.5]), rung=1, split="test", direction="min")
    assert (drop.value, drop.low, drop.high) == pytest.approx((20, 0.4, 39.6), abs=0.01)
    faultless = mean_figure(np.zeros(3), rung=0, split="test", direction="min")
    assert (faultless.value, faultless.low, faultless.high) == (0, 0, 0)
    assert (faultless.unit, faultless.direction) == ("score", "min")


def test_different_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="same samples"):
        drop_figure(np.ones(3), np.ones(4), rung=0, split="test")


def test_a_nan_score_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        mean_figure(np.array([1.0, np.nan]), rung=0, split="test")


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        mean_figure(np.array([]), rung=0, split="test")
