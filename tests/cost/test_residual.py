"""A correction learned from single kernels: found where shapes matter, refused where it earns nothing."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest

from automc.cost.calibration import StoredResidual
from automc.cost.features import features, kernel_class
from automc.cost.fit import Fit, Observation, fit
from automc.cost.kernels import KernelGraph, KernelRow
from automc.cost.residual import MOST, Residual, learn, place_of
from automc.cost.tiles import Machine

MACHINE = Machine(block=16, cache_bytes=1 << 20)
CHANNELS = range(16, 144, 4)


def conv(channels: int, size: int = 16) -> KernelRow:
    shape = (1, channels, size, size)
    return KernelRow(
        "c", "Conv", "fp32", "nchwc", (shape,), shape, channels * channels * 9 * size * size, 4 * channels * size**2,
        4 * channels * size**2, 36 * channels * channels, kernel=(3, 3), stride=(1, 1), dilation=(1, 1),
    )  # fmt: skip


def graph(*rows: KernelRow) -> KernelGraph:
    return KernelGraph(rows, 4096, 4096)


def physical_ms(row: KernelRow) -> float:
    """A microsecond for a call and 10 GMAC/s."""
    return 1e-3 + row.macs / 1e7


def slow_off_the_block(row: KernelRow) -> float:
    """Half as long again where channels are no multiple of 16: what no column of the fit counts in this class."""
    return physical_ms(row) * (1.5 if row.input_shapes[0][1] % 16 else 1.0)


def observed(ms, *, noise: float = 0.0, seed: int = 0) -> tuple[list[Observation], list[Observation]]:
    """Single kernels, and networks of four."""
    generator = np.random.default_rng(seed)

    def timed(*rows: KernelRow) -> Observation:
        return Observation(graph(*rows), sum(map(ms, rows)) * exp(noise * generator.standard_normal()), whole=False)

    single = [timed(conv(channels, size)) for channels in CHANNELS for size in (8, 16)]
    judges = [timed(*(conv(int(c), 16) for c in generator.choice(CHANNELS, 4))) for _ in range(40)]
    return single, judges


def physics(single: list[Observation]) -> Fit:
    """A fit that knows calls and multiplications of the class and nothing else."""
    kind = kernel_class(single[0].graph.rows[0], MACHINE)
    whole = fit(single, MACHINE)
    calls, work = f"{kind}:calls", next(name for name in features(single[0].graph.rows[0], MACHINE) if "mac" in name)
    rows = [observation.graph.rows[0] for observation in single]
    design = np.array([[1.0, features(row, MACHINE)[work]] for row in rows])
    measured = np.array([observation.latency_ms for observation in single])
    solved = np.linalg.lstsq(design / measured[:, None], np.ones(len(rows)), rcond=None)[0]
    return Fit(MACHINE, {calls: float(solved[0]), work: float(solved[1])}, whole.ranges, whole.spread)


def error(found: Fit, judges: list[Observation]) -> float:
    return float(np.mean([abs(log(item.latency_ms / found.graph_ms(item.graph))) for item in judges]))


def test_an_effect_of_shape_that_physics_leaves_is_learned_and_told_on_other_networks() -> None:
    single, judges = observed(slow_off_the_block)
    found = physics(single)
    learnt = learn(found, single, judges)
    assert learnt is not None
    assert learnt.earned == pytest.approx(error(found.with_residual(learnt), judges) / error(found, judges))
    assert learnt.earned < 0.6


def test_nothing_is_learned_where_only_noise_is_left() -> None:
    single, judges = observed(physical_ms, noise=0.05)
    assert learn(physics(single), single, judges) is None


def test_nothing_is_learned_without_networks_to_judge_it() -> None:
    single, judges = observed(slow_off_the_block)
    assert learn(physics(single), single, judges[:10]) is None


def test_a_correction_fades_away_from_what_was_timed_and_is_bounded() -> None:
    single, judges = observed(lambda row: 4 * slow_off_the_block(row))
    found = physics(observed(physical_ms)[0])
    learnt = learn(found, single, judges)
    assert learnt is not None
    kind = kernel_class(conv(64), MACHINE)
    assert learnt.log_factor(conv(64), kind, MACHINE) == pytest.approx(
        MOST, rel=0.1
    )  # four times as long, at most e**0.4
    assert abs(learnt.log_factor(conv(4096, 512), kind, MACHINE)) < 1e-3
    assert learnt.log_factor(conv(64), "Relu.fp32", MACHINE) == 0.0


def test_kernels_of_single_numbers_and_of_vectors_have_a_place_too() -> None:
    for shape in ((), (8,), (1, 8)):
        row = KernelRow("g", "Gather", "fp32", "nchw", (shape,), shape, 0, 32, 32, 0)
        assert np.isfinite(place_of(row, MACHINE)).all()


def test_a_stored_correction_says_the_same() -> None:
    learnt = learn(physics(observed(slow_off_the_block)[0]), *observed(slow_off_the_block))
    assert learnt is not None
    again = StoredResidual.model_validate_json(StoredResidual.of(learnt).model_dump_json()).learnt()
    assert isinstance(again, Residual)
    kind = kernel_class(conv(36), MACHINE)
    assert again.log_factor(conv(36), kind, MACHINE) == learnt.log_factor(conv(36), kind, MACHINE)
