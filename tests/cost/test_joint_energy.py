"""Energy fitted jointly with latency: constant power where that is all there is, work where it earns its place."""

from __future__ import annotations

import numpy as np
import pytest

from automc.cost.few_shot import fit_few_shot
from automc.cost.joint_energy import fit_constant_power, fit_energy
from automc.errors import MeasurementError


def networks(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(count, 2) million MACs and million bytes, and milliseconds: 0.5 + MACs / 4 + bytes / 2."""
    work = np.random.default_rng(seed).uniform(1, 20, (count, 2))
    return work, 0.5 + work[:, 0] / 4 + work[:, 1] / 2


def test_constant_power_is_recovered_exactly() -> None:
    work, latency = networks(12)
    fit = fit_energy(work, latency, 1.5 * latency, left_out_ms=latency)
    assert fit.power_w == pytest.approx(1.5, rel=1e-12)  # 1.5 mJ a millisecond
    assert (fit.coefficients == 0).all()
    assert np.isinf(fit.shrinkage)
    assert fit.doubt.reach < 0.035  # what twelve can say of it
    assert fit.predict([[3.0, 4.0]], [2.0])[0] == pytest.approx(3.0)


def test_energy_of_a_multiply_accumulate_is_recovered() -> None:
    """energy = 1 W x latency + 0.4 mJ per million MACs: constant power alone is off by tens of per cent."""
    work, latency = networks(30)
    energy = latency + 0.4 * work[:, 0]
    fit = fit_energy(work, latency, energy, left_out_ms=latency)
    # of a network of 10 million MACs and 10 million bytes in 8 ms: 8 + 4 = 12 mJ
    assert fit.predict([[10.0, 10.0]], [8.0])[0] == pytest.approx(12.0, rel=0.01)
    # of one of as many MACs that waits twice as long: 16 + 4 = 20 mJ
    assert fit.predict([[10.0, 10.0]], [16.0])[0] == pytest.approx(20.0, rel=0.05)
    assert fit.coefficients[0] == pytest.approx(0.4, rel=0.05)
    assert fit.power_w == pytest.approx(1.0, rel=0.05)
    constant = fit_constant_power(work, latency, energy, left_out_ms=latency)
    assert fit.doubt.reach < 0.02 < 0.1 < constant.doubt.reach


def test_work_that_only_fits_noise_stays_out() -> None:
    work, latency = networks(10)
    energy = 2.0 * latency * np.random.default_rng(1).uniform(0.95, 1.05, 10)
    fit = fit_energy(work, latency, energy, left_out_ms=latency)
    constant = fit_constant_power(work, latency, energy, left_out_ms=latency)
    tested, longer = networks(200, seed=2)
    np.testing.assert_allclose(fit.predict(tested, longer), constant.predict(tested, longer), rtol=0.05)


def test_the_error_is_that_of_energy_from_a_latency_that_was_predicted_too() -> None:
    # power is constant, so all error is that of the latency, which each network's left-out fit says: 10 % too much
    work, latency = networks(12)
    fit = fit_energy(work, latency, 2 * latency, left_out_ms=1.1 * latency)
    assert fit.doubt.reach > 0.1 > 3 * fit_energy(work, latency, 2 * latency, left_out_ms=latency).doubt.reach
    np.testing.assert_allclose(fit.left_out, 1.1)


def test_nine_in_ten_networks_that_were_not_fitted_lie_within_the_stated_error() -> None:
    rng = np.random.default_rng(5)
    work, latency = networks(450, seed=3)
    latency = latency * np.exp(0.05 * rng.standard_normal(450))
    energy = (1.2 * latency + 0.2 * work[:, 0]) * np.exp(0.03 * rng.standard_normal(450))
    fit = fit_energy(work[:50], latency[:50], energy[:50])
    said = fit_few_shot(work[:50], latency[:50]).predict(work[50:])
    inside = np.abs(fit.predict(work[50:], said) / energy[50:] - 1) <= fit.half_width(work[50:], said)
    assert 0.82 <= inside.mean() <= 0.97  # 0.90, and what 50 and 400 samples leave open


def test_a_network_whose_latency_nobody_could_say_is_not_judged() -> None:
    work, latency = networks(8)
    said = latency.copy()
    said[3] = np.nan
    fit = fit_energy(work, latency, latency, left_out_ms=said)
    assert np.isnan(fit.left_out).tolist() == [False] * 3 + [True] + [False] * 4
    assert fit.doubt.reach < 0.05
    with pytest.raises(MeasurementError, match="cannot be judged"):
        fit_energy(work, latency, latency, left_out_ms=np.full(8, np.nan))


def test_one_broken_measurement_does_not_decide() -> None:
    work, latency = networks(15)
    energy = 3.0 * latency
    energy[7] *= 4
    assert fit_energy(work, latency, energy).predict([[5.0, 5.0]], [10.0])[0] == pytest.approx(30.0, rel=0.02)


def test_the_same_measurements_give_the_same_numbers() -> None:
    work, latency = networks(20)
    energy = latency + 0.1 * work[:, 1]
    first, second = fit_energy(work, latency, energy), fit_energy(work, latency, energy)
    assert (first.coefficients.tolist(), first.power_w) == (second.coefficients.tolist(), second.power_w)


def test_too_few_or_impossible_measurements_are_refused() -> None:
    with pytest.raises(MeasurementError, match="2 measurements of energy are too few"):
        fit_energy([[1.0], [2.0]], [1.0, 2.0], [1.0, 2.0])
    for energy, latency in (([1.0, 0.0, 2.0], [1.0, 1.0, 1.0]), ([1.0, 1.0, np.nan], [1.0, 1.0, 1.0]),
                            ([1.0, 1.0, 1.0], [1.0, -1.0, 1.0])):  # fmt: skip
        with pytest.raises(ValueError, match="above 0"):
            fit_energy([[1.0], [2.0], [3.0]], latency, energy)
