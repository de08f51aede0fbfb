"""The fit finds what kernels cost, is not misled by a disturbed timing, and never prices below zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import nnls

from automc.cost.caches import Far, far_share
from automc.cost.features import features
from automc.cost.fit import (
    Fit,
    Observation,
    columns_of,
    fit,
    in_range,
    non_negative_least_squares,
)
from automc.cost.kernels import KernelGraph, KernelRow
from automc.cost.machine_fit import LEAST_FAR, supported
from automc.cost.tiles import Machine
from automc.errors import MeasurementError

MACHINE = Machine(block=16, cache_bytes=1 << 20)


def relu(elements: int) -> KernelRow:
    return KernelRow("r", "Relu", "fp32", "nchw", ((1, elements),), (1, elements), 0, elements * 4, elements * 4, 0)


def graph(*rows: KernelRow, weights: int = 0, live: int = 0) -> KernelGraph:
    return KernelGraph(rows, weights, live)


def relu_observations(disturbed: float = 1.0) -> list[Observation]:
    """A call costs 0.004 ms, a million elements 0.5 ms, a session 0.01 ms; every fifth took `disturbed` times that."""
    sizes = [(count, elements) for count in (1, 2, 3) for elements in (1_000, 2_000, 4_000, 8_000)]
    return [
        Observation(
            graph(*[relu(elements)] * count),
            (0.01 + count * (0.004 + 0.5 * elements / 1e6)) * (disturbed if number % 5 == 4 else 1.0),
        )
        for number, (count, elements) in enumerate(sizes)
    ]


def test_a_network_between_the_calibrated_ones_costs_the_sum_of_its_kernels() -> None:
    found = fit(relu_observations(), MACHINE)
    # 0.01 + 2 x (0.004 + 0.5 x 0.003) = 0.021 ms; the shrinkage is allowed a thousandth
    assert found.graph_ms(graph(relu(3_000), relu(3_000))) == pytest.approx(0.021, rel=1e-3)


def test_one_timing_in_six_that_took_half_as_long_again_moves_a_prediction_by_less_than_two_percent() -> None:
    found = fit(relu_observations(disturbed=1.5), MACHINE)
    assert found.graph_ms(graph(relu(3_000), relu(3_000))) == pytest.approx(0.021, rel=0.02)


def test_kernels_timed_alone_carry_no_session_overhead() -> None:
    alone = [Observation(graph(relu(n)), 0.004 + 0.5 * n / 1e6, whole=False) for n in (1_000, 4_000, 8_000)]
    found = fit(alone, MACHINE)
    assert found.graph_ms(graph(relu(2_000))) == pytest.approx(0.005, rel=1e-3)


def test_no_coefficient_is_negative_even_where_timings_fall_with_size() -> None:
    shrinking = [Observation(graph(relu(n)), 1.0 / n) for n in (1_000, 2_000, 4_000)]
    assert all(value >= 0 for value in fit(shrinking, MACHINE).coefficients.values())


def test_nothing_measured_is_an_error_and_not_a_fit() -> None:
    with pytest.raises(MeasurementError, match="nothing was measured"):
        fit([], MACHINE)


@pytest.mark.parametrize("seed", range(5))
def test_the_solver_agrees_with_scipy_on_random_problems(seed: int) -> None:
    generator = np.random.default_rng(seed)
    left, right = generator.random((80, 25)), generator.standard_normal(80) + 1
    expected, _ = nnls(left, right)
    found = non_negative_least_squares(left.T @ left, left.T @ right, np.zeros(25))
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("copies", [2, 3, 4])
def test_columns_that_are_equal_share_what_one_would_have(copies: int) -> None:
    # x1 is right of itself; x2 and its copies can say nothing that one of them could not
    first, second = np.array([1.0, 0.0, 0.5]), np.array([0.2, 1.0, 0.9])
    left = np.stack([first, *[second] * copies], axis=1)
    right = 0.1 * first + 3.0 * second
    gram = left.T @ left + np.eye(copies + 1) * 1e-6
    found = non_negative_least_squares(gram, left.T @ right, np.zeros(copies + 1))
    np.testing.assert_allclose(found, [0.1, *[3.0 / copies] * copies], rtol=1e-3)


def test_a_few_equal_columns_beside_a_useless_one_do_not_go_round_for_ever() -> None:
    gram = np.full((4, 4), 1.0) + np.eye(4) * 1e-6
    gram[0, 1:] = gram[1:, 0] = 0.9
    found = non_negative_least_squares(gram, np.array([0.0145, 0.0224, 0.0224, 0.0224]), np.zeros(4))
    np.testing.assert_allclose(found, [0.0, *[0.0224 / 3] * 3], rtol=1e-4)


def test_the_solver_gives_the_same_from_a_warm_start() -> None:
    generator = np.random.default_rng(9)
    left, right = generator.random((60, 20)), generator.standard_normal(60) + 1
    gram, projected = left.T @ left, left.T @ right
    cold = non_negative_least_squares(gram, projected, np.zeros(20))
    np.testing.assert_allclose(non_negative_least_squares(gram, projected, generator.random(20)), cold, atol=1e-8)


def test_data_that_fits_the_cache_stays_there_and_the_rest_is_far() -> None:
    assert far_share(graph(weights=1 << 19, live=1 << 18), MACHINE) == Far(0.0, 0.0)
    # 3 MB of weights and 1 MB live against 1 MB of cache: three quarters are far
    assert far_share(graph(weights=3 << 20, live=1 << 20), MACHINE) == Far(0.75, 0.75)
    assert far_share(graph(), MACHINE) == Far(0.0, 0.0)


def convolution() -> KernelRow:
    shape = (1, 16, 8, 8)
    return KernelRow(
        "c", "Conv", "fp32", "nchwc", (shape,), shape, 147_456, 4096, 4096, 9216, (3, 3), (1, 1), (1, 1)
    )  # fmt: skip


def test_data_leaves_the_cache_between_the_shares_of_it_that_a_calibration_says() -> None:
    spilling = replace(MACHINE, spill=(0.5, 1.5))
    filled = {
        share: far_share(graph(weights=int(share * (1 << 20))), spilling).own for share in (0.25, 0.5, 0.75, 1, 1.5, 9)
    }
    assert filled == {0.25: 0.0, 0.5: 0.0, 0.75: 0.25, 1: 0.5, 1.5: 1.0, 9: 1.0}
    row = convolution()
    counted = {name for name in features(row, spilling) if name.startswith(("memory:", "main:"))}
    assert counted == {"memory:activations", "memory:convolution_weights", "memory:cold_calls"}
    found = Fit(spilling, {"memory:activations": 2.0}, {}, {})
    parts = found.row_parts(row)
    assert (parts.near, parts.weights, parts.main) == (0.0, 0.0, 0.0)
    assert parts.memory == pytest.approx(2.0 * (row.bytes_in + row.bytes_out) / 1e6)
    assert found.row_ms(row, Far(0.25, 1.0)) == pytest.approx(0.25 * parts.memory)


def test_data_that_leaves_the_last_cache_comes_from_main_memory() -> None:
    shared = replace(MACHINE, spill=(0.5, 1.5), shared_bytes=8 << 20)
    filled = {megabytes: far_share(graph(live=megabytes << 20), shared) for megabytes in (1, 2, 4, 6, 8)}
    assert filled == {
        1: Far(0.5, 1.0, 0.0),
        2: Far(1.0, 1.0, 0.0),
        4: Far(1.0, 1.0, 0.5),
        6: Far(1.0, 1.0, 1.0),
        8: Far(1.0, 1.0, 1.0),
    }
    row = convolution()
    found = Fit(shared, {"main:activations": 3.0, "memory:activations": 2.0}, {}, {})
    main = 3.0 * (row.bytes_in + row.bytes_out) / 1e6
    near_by = found.row_ms(row, Far(1.0, 1.0, 0.0))
    assert found.row_ms(row, Far(1.0, 1.0, 0.5)) == pytest.approx(near_by + 0.5 * main)


def test_weights_have_left_a_cache_as_soon_as_a_network_is_larger_than_it() -> None:
    spilling = replace(MACHINE, spill=(0.5, 1.5))
    filled = {
        share: far_share(graph(weights=int(share * (1 << 20))), spilling).weights for share in (0.25, 0.5, 0.75, 1, 1.5)
    }
    assert filled == {0.25: 0.0, 0.5: pytest.approx(1 / 3), 0.75: pytest.approx(2 / 3), 1: 1.0, 1.5: 1.0}
    row = replace(convolution(), op="Gemm", kernel=(), stride=(), dilation=(), layout="nchw", bytes_weights=1 << 20)
    found = Fit(spilling, {"memory:weights": 2.0}, {}, {})
    assert found.row_ms(row, Far(1.0, 0.25)) == pytest.approx(0.25 * 2.0 * (1 << 20) / 1e6)
    one = columns_of(Observation(graph(row, weights=int(0.75 * (1 << 20))), 1.0), spilling)
    assert one["memory:weights"] == pytest.approx(2 / 3 * (1 << 20) / 1e6)


def test_weights_that_meet_a_single_vector_and_calls_cost_more_in_a_network_larger_than_the_cache() -> None:
    spilling, weights = replace(MACHINE, spill=(0.5, 1.5)), 1 << 20

    def linear(rows: int) -> KernelRow:
        return replace(
            convolution(), op="Gemm", kernel=(), stride=(), dilation=(), layout="nchw", bytes_weights=weights,
            input_shapes=((rows, 512),), output_shape=(rows, 512),
        )  # fmt: skip

    one, many = features(linear(1), spilling), features(linear(64), spilling)
    assert one["memory:vector_weights"] == many["memory:weights"] == weights / 1e6
    assert "memory:weights" not in one
    assert "memory:vector_weights" not in many
    found = Fit(spilling, {"memory:vector_weights": 2.0, "memory:cold_calls": 0.125}, {}, {})
    assert found.row_ms(linear(1), Far(0.0, 0.5)) == pytest.approx(0.5 * (2.0 * weights / 1e6 + 0.125))
    assert found.row_ms(linear(64), Far(1.0, 0.5)) == pytest.approx(0.5 * 0.125)
    assert "memory:cold_calls" not in features(linear(1), MACHINE)  # of calibrations that know no spill


def test_on_several_threads_the_first_multiply_accumulates_are_done_by_one() -> None:
    """The runtime shares a product among threads from 65,536 of them on."""
    shared = replace(MACHINE, threads=2)
    small, large = replace(convolution(), macs=30_000), replace(convolution(), macs=147_456)
    name = next(column for column in features(large, shared) if column.endswith(":macs_unshared"))
    assert features(small, shared)[name] == pytest.approx(0.03)
    assert features(large, shared)[name] == pytest.approx(0.065536)
    assert name not in features(large, MACHINE)


def test_what_main_memory_costs_is_fitted_only_from_enough_networks_that_leave_the_last_cache() -> None:
    shared = replace(MACHINE, spill=(0.5, 1.5), shared_bytes=8 << 20)
    small = [Observation(graph(live=1 << 20), 1.0)] * 100
    leaving = Observation(graph(live=4 << 20), 1.0)
    assert supported(shared, [*small, *[leaving] * (LEAST_FAR - 1)]).shared_bytes is None
    assert supported(shared, [*small, *[leaving] * LEAST_FAR]) == shared
    nowhere = replace(shared, shared_bytes=None)
    assert supported(nowhere, [leaving] * LEAST_FAR) == nowhere


def test_a_kernel_is_in_range_up_to_half_as_much_again() -> None:
    known = fit(relu_observations(), MACHINE).ranges["Relu.fp32"]  # 1,000 to 8,000 elements
    assert known.observations == 12
    assert in_range(relu(12_000), known)
    assert not in_range(relu(12_001), known)
    assert in_range(relu(667), known)
    assert not in_range(relu(666), known)
