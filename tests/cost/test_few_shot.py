"""A device's costs from few measurements."""

from __future__ import annotations

import numpy as np
import pytest

from automc.cost.few_shot import FOLDS, choose, fit_few_shot
from automc.errors import MeasurementError


def test_exact_costs_are_found_from_ten_measurements() -> None:
    """cost = 3 + 2 a + 5 b: nothing is noise, so what was left out is hit to a per cent."""
    work = np.random.default_rng(0).integers(0, 9, size=(60, 2)).astype(float)
    cost = 3 + work @ np.array([2.0, 5.0])
    fit = fit_few_shot(work[:10], cost[:10])
    assert fit.error < 0.01
    np.testing.assert_allclose(fit.predict(work), cost, rtol=0.01)


def test_no_coefficient_is_negative() -> None:
    work = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
    assert (fit_few_shot(work, 10.0 - work[:, 0]).coefficients >= 0).all()


def test_one_broken_measurement_does_not_decide() -> None:
    work = np.arange(1.0, 16.0)[:, None]
    cost = 1 + 2 * work[:, 0]
    cost[7] *= 4
    assert fit_few_shot(work, cost).predict([[20.0]])[0] == pytest.approx(41.0, rel=0.05)


def test_too_few_or_impossible_measurements_are_refused() -> None:
    with pytest.raises(MeasurementError, match="too few"):
        fit_few_shot([[1.0], [2.0]], [1.0, 2.0])
    with pytest.raises(ValueError, match="above 0"):
        fit_few_shot([[1.0], [2.0], [3.0]], [1.0, 0.0, 2.0])


def test_the_chosen_networks_span_what_varies() -> None:
    # 98 networks that differ in the first column alone, and two that have the others
    work = np.zeros((100, 3))
    work[:, 0] = np.linspace(1, 2, 100)
    work[40, 1] = work[70, 2] = 5.0
    chosen = choose(work, 4, seed=0)
    assert {40, 70} <= set(chosen.tolist())
    assert len(set(chosen.tolist())) == 4
    assert chosen.tolist() == choose(work, 4, seed=0).tolist()


def test_more_than_there_are_cannot_be_chosen() -> None:
    with pytest.raises(ValueError, match="5 of 4 rows"):
        choose(np.ones((4, 1)), 5, seed=0)


def test_many_measurements_are_left_out_in_folds() -> None:
    work = np.random.default_rng(0).uniform(1, 2, (3 * FOLDS, 1))
    fit = fit_few_shot(work, 3.0 + 2.0 * work[:, 0])
    assert fit.error < 1e-3
