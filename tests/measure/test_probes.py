"""The channel multiple that pays, from latencies made up to be read."""

from __future__ import annotations

import numpy as np
import pytest

from automc.cost.calibration import Int8Probe, WidthProbe
from automc.measure import probes
from automc.measure.anchor import Anchor
from automc.measure.batch import Pass
from automc.measure.probes import (
    channel_multiple,
    int8_facts,
    int8_probes,
    overflows,
    paying_multiple,
    thread_probes,
    width_probes,
)
from automc.measure.sessions import SessionSettings


def steps_of(multiple: int) -> dict[int, float]:
    """Latency rises in steps of `multiple` channels."""
    return {width: float(-(-width // multiple)) for width in range(33, 65)}


def test_a_device_that_works_in_steps_pays_for_each_step() -> None:
    for multiple in (32, 16, 8, 4):  # a step of 2 channels in 60 is within the tolerance
        assert paying_multiple(steps_of(multiple)) == multiple


def test_where_every_channel_costs_none_can_be_rounded_up_for_free() -> None:
    # 63 to 64 is 1.6 % and within the tolerance, so small multiples pay even here; 16 more channels do not
    assert paying_multiple({width: float(width) for width in range(33, 65)}) <= 4


def test_one_disturbed_width_decides_nothing() -> None:
    assert paying_multiple({**steps_of(16), 33: 0.1}) == 16  # 1 of 30 pairs says no
    half = dict.fromkeys(range(33, 47), 0.1)
    assert paying_multiple({**steps_of(16), **half}) < 16  # 14 of 30 do


def test_nothing_known_means_no_rounding() -> None:
    assert paying_multiple({}) == 1
    assert paying_multiple({64: 1.0}) == 1


def test_this_host_answers_its_probes() -> None:
    settings = SessionSettings()
    assert overflows(settings) in (True, False)
    asked = int8_probes(settings, Anchor(settings), budget_s=8.0)
    assert [(probe.width, probe.size) for probe in asked] == [(32, 16), (64, 16), (64, 8), (128, 8)]
    facts = int8_facts(asked, settings)
    assert facts.activation_type in ("uint8", "int8")
    assert np.isfinite(facts.speedup)
    assert facts.speedup > 0


def test_widths_that_never_met_a_calm_machine_are_judged_by_their_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was disturbed all the time: without its timings every width would seem to pay alike."""
    anchor = Anchor(SessionSettings())
    anchor.history = [1.0] * 100

    def timed(models: dict[str, bytes], *_: object, **__: object) -> dict[str, list[Pass]]:
        rounded = {name: float(-(-int(name) // 8) * 8) for name in models}  # blocks of 8 channels
        return {name: [Pass(value + 3.0, 2.0), Pass(value, 2.0)] for name, value in rounded.items()}

    monkeypatch.setattr(probes, "measure_batch", timed)
    asked = width_probes(SessionSettings(), anchor)
    assert asked[:2] == (WidthProbe(width=33, latency_ms=40.0), WidthProbe(width=36, latency_ms=40.0))
    assert channel_multiple(asked) == 8


def test_threads_are_tried_in_powers_of_two_up_to_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    anchor = Anchor(SessionSettings())
    anchor.history = [1.0] * 100

    def timed(models: dict[str, bytes], settings: SessionSettings, *_: object, **__: object) -> dict[str, list[Pass]]:
        if settings.threads == 4:
            return {}  # the budget was spent
        return {name: [Pass(8.0 / settings.threads, 1.0)] for name in models}

    monkeypatch.setattr(probes, "measure_batch", timed)
    asked = thread_probes(SessionSettings(), anchor, 6)
    assert [(probe.threads, probe.latency_ms) for probe in asked] == [(1, 8.0), (2, 4.0), (6, 8 / 6)]
    assert thread_probes(SessionSettings(), anchor, 1) == ()


@pytest.mark.parametrize(
    ("uint8_ms", "int8_ms", "scheme", "speedup"),
    [
        ((1.0, 1.0, 2.0), (2.0, 2.0, 2.0), "uint8", 4.0),  # gains of 4, 4 and 2 against 2
        ((2.0, 2.0, 2.0), (1.0, 1.0, 1.0), "int8", 4.0),  # 2 against 4
        ((2.0, 2.0, 2.0), (1.96, 1.96, 1.96), "uint8", 2.0),  # 2.04 is no more than 5 % above 2
    ],
)
def test_the_scheme_of_int8_is_the_one_of_the_larger_median_gain(
    uint8_ms: tuple[float, ...], int8_ms: tuple[float, ...], scheme: str, speedup: float
) -> None:
    asked = [
        Int8Probe(width=32, size=16, fp32_ms=4.0, uint8_ms=unsigned, int8_ms=signed)
        for unsigned, signed in zip(uint8_ms, int8_ms, strict=True)
    ]
    facts = int8_facts(asked, SessionSettings())
    assert facts.activation_type == scheme
    assert facts.speedup == pytest.approx(speedup)
