"""A device's costs from few measurements."""

from __future__ import annotations

import numpy as np
import pytest

from automc.cost.few_shot import FOLDS, choose, fit_few_shot
from automc.errors import MeasurementError


def test_exact_costs_are_found_from_ten_measurements() -> None:
    """cost = 3 + 2 a + 5 b: nothing is noise, so all is hit to a per cent; ten cannot tell that of the next one."""
    work = np.random.default_rng(0).integers(0, 9, size=(60, 2)).astype(float)
    cost = 3 + work @ np.array([2.0, 5.0])
    fit = fit_few_shot(work[:10], cost[:10])
    assert (fit.half_width(work[10:]) < 0.06).all()
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
    assert np.abs(fit.left_out - 1.0).max() < 1e-3


def test_intervals_hold_what_they_say_and_are_wider_where_nothing_was_measured() -> None:
    """Costs of two columns with 5 % of noise: nine in ten of a thousand others, means over 40 fits to 12 of them."""
    inside = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        work = generator.uniform(1, 9, size=(1012, 2))
        cost = (3 + work @ np.array([2.0, 5.0])) * np.exp(generator.normal(0, 0.05, 1012))
        fit = fit_few_shot(work[:12], cost[:12])
        error = np.abs(fit.predict(work[12:]) / cost[12:] - 1)
        inside.append(float(np.mean(error <= fit.half_width(work[12:]))))
    assert 0.85 < np.mean(inside) < 0.95
    near, far = fit.half_width([[5.0, 5.0], [100.0, 1.0]])
    assert far > 1.5 * near


def test_a_fit_through_three_measurements_does_not_call_itself_exact() -> None:
    """Three columns and a constant pass through three measurements; what is left out of them is not met at all."""
    work = np.array([[1.0, 0.0, 2.0], [3.0, 1.0, 0.0], [0.0, 4.0, 1.0]])
    fit = fit_few_shot(work, [4.0, 9.0, 15.0])
    assert fit.predict(work) == pytest.approx([4.0, 9.0, 15.0], rel=0.02)
    assert (fit.half_width(work) > 0.1).all()
