"""Calibration: judged on what it never saw, atomic, and the same in quick and full but for its size."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from automc.cost.calibration import coverage_across, interval_of, load_calibration
from automc.cost.fit import Fit, Observation
from automc.cost.kernels import KernelGraph, KernelRow
from automc.cost.predictor import load_predictor
from automc.cost.tiles import Machine
from automc.errors import ConfigError, MeasurementError
from automc.measure import calibrate, schedule
from automc.measure.anchor import Anchor
from automc.measure.assess import assess
from automc.measure.batch import Pass
from automc.measure.calibrate import _busy, calibrate_host
from automc.measure.networks import Sample
from automc.measure.probes import channel_multiple, int8_facts
from automc.measure.schedule import SCHEDULES, Schedule
from automc.measure.sessions import SessionSettings
from automc.measure.stopwatch import Stopwatch
from automc.measure.unfinished import VALID_S, Unfinished
from automc.profiles import load_profile

RELU = KernelRow("r", "Relu", "fp32", "nchw", ((1, 10),), (1, 10), 0, 40, 40, 0)


def held(scheme: str, family: str, measured_ms: float, kernels: int = 1) -> tuple[Sample, Observation]:
    sample = Sample(f"{family}.{scheme}", family, "fp32" if scheme == "fp32" else "u8s8", b"")
    return sample, Observation(KernelGraph((RELU,) * kernels, 0, 0), measured_ms)


def test_a_cache_folder_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("AUTOMC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(calibrate, "int8_probes", lambda *_, **__: pytest.fail("it began to measure"))
    with pytest.raises(ConfigError, match="home/profiles: cannot be written") as caught:
        calibrate_host()
    assert "AUTOMC_HOME" in str(caught.value)


def test_held_out_error_is_counted_over_networks() -> None:
    one_ms = Fit(Machine(), {"Relu.fp32:calls": 1.0}, {}, {})  # predicts 1 ms a kernel
    # n kernels that take n x these; |1 / measured - 1|: 0, 0, 4.2 %, 8.7 %, 13.6 %, 25 %, and 0 twice
    measured = [1.0, 1.0, 0.96, 0.92, 0.88, 0.80, 1.0, 1.0]
    networks = [
        held(scheme, f"family{n % 2}", n * ms, kernels=n)
        for scheme in ("fp32", "int8")
        for n, ms in enumerate(measured, 1)
    ]
    results, intervals = assess(one_ms, networks)
    assert [entry.precision for entry in results] == ["fp32", "int8"]
    assert results[0].networks == 8
    assert results[0].within_5_percent == 5 / 8
    assert results[0].within_10_percent == 6 / 8
    assert results[0].within_15_percent == 7 / 8
    assert intervals["fp32"].low == pytest.approx(0.80)
    assert intervals["fp32"].high == 1.0


def test_too_few_networks_give_no_error_figure() -> None:
    with pytest.raises(MeasurementError, match="only 1 whole networks"):
        assess(Fit(Machine(), {"Relu.fp32:calls": 1.0}, {}, {}), [held("fp32", "a", 1.0)])


def test_coverage_is_stated_on_families_that_an_interval_was_not_made_of() -> None:
    generator = np.random.default_rng(2)
    families = np.repeat(np.arange(8), 12)
    # errors are alike within a family: what holds 90 % of all leaves most of the worst one out
    ratios = np.exp(0.05 * generator.standard_normal(8)[families] + 0.04 * generator.standard_normal(96))
    plain = interval_of(ratios)
    assert np.mean((ratios >= plain.low) & (ratios <= plain.high)) >= 0.9 > coverage_across(ratios, families) > 0.7
    alike = np.exp(0.04 * generator.standard_normal(96))
    assert coverage_across(alike, families) == pytest.approx(0.9, abs=0.05)
    apart = np.where(families == 3, 2.0, alike)
    assert coverage_across(apart, families) <= 7 / 8
    assert coverage_across(ratios[:12], families[:12]) == 1.0


def test_an_interval_leaves_out_no_more_than_a_tenth() -> None:
    ratios = np.arange(1, 101) / 50  # 0.02 to 2.00
    interval = interval_of(ratios)
    inside = np.mean((ratios >= interval.low) & (ratios <= interval.high))
    assert 0.9 <= inside <= 0.94
    few = interval_of(np.array([0.9, 1.0, 1.1]))
    assert (few.low, few.high) == (0.9, 1.1)  # three networks say nothing about tails: all of them count


@pytest.mark.parametrize("mode", ["quick", "full"])
def test_a_slow_machine_times_less_and_is_done_in_time(mode: schedule.Mode) -> None:
    plan = SCHEDULES[mode]
    before_s = plan.families_s / 2 + plan.total_s / 30  # whole networks, probes
    fitted_s = plan.fit_s / 2
    left = {
        reading_s: plan.kernels_s(fitted_s=fitted_s, spent_s=before_s + fitted_s, reading_s=reading_s)
        for reading_s in (0.0, plan.total_s / 12, plan.total_s)
    }
    fast, slow, crawling = left.values()
    assert fast == pytest.approx((schedule.MOST_FIT - 0.5) * plan.fit_s)
    assert plan.fit_s / 4 < slow < fast
    after_s = plan.families_s / 2 + schedule.AFTER_S + schedule.AFTER_READING * plan.total_s / 12
    assert before_s + fitted_s + slow + after_s == pytest.approx(plan.total_s)
    assert crawling == plan.fit_s / 4  # no calibration is worth its name with less


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Schedule(
        micro=16, random=1, large=4, per_family=1, passes=1, fit_s=5.0, families_s=60.0, total_s=99.0, memory=4
    )  # all 16 have to be timed
    monkeypatch.setitem(schedule.SCHEDULES, "quick", plan)
    # on a shared machine nothing may be calm; what is tested here is the way, not the figures
    monkeypatch.setattr("automc.measure.anchor.CALM_RATIO", 1e9)
    monkeypatch.setattr("automc.measure.timing.CALM_RATIO", 1e9)


@pytest.mark.usefixtures("tiny")
def test_a_calibration_is_stored_whole_and_predicts(tmp_path: Path) -> None:
    stages: list[str] = []
    made = calibrate_host(folder=tmp_path / "host", progress=lambda stage, share: stages.append(stage))
    assert load_profile(str(tmp_path / "host")) == made
    assert sorted(path.name for path in (tmp_path / "host").iterdir()) == ["calibration.json", "profile.yaml"]
    assert {entry.precision for entry in made.held_out} == {"fp32", "int8"}
    assert made.anchor_ms is not None
    assert made.anchor_ms > 0
    assert stages[-1] == "done"
    assert "timing kernels" in stages
    load_predictor(made, tmp_path / "host")
    asked = load_calibration(made, tmp_path / "host").probes
    assert asked is not None
    assert channel_multiple(asked.widths) == made.channel_multiple
    assert int8_facts(asked.int8, SessionSettings()) == made.int8


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden"])
def test_a_name_that_leaves_the_folder_of_profiles_is_refused_before_anything_is_measured(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a profile's name"):
        calibrate_host(name)


@pytest.mark.usefixtures("tiny")
def test_an_interrupted_calibration_leaves_nothing(tmp_path: Path) -> None:
    def stop(stage: str, share: float) -> None:
        if stage == "timing kernels":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate_host(folder=tmp_path / "host", progress=stop)
    assert not (tmp_path / "host").exists()


@pytest.mark.usefixtures("tiny")
def test_an_interrupted_calibration_is_gone_on_with_from_what_was_timed(tmp_path: Path) -> None:
    def stop(stage: str, share: float) -> None:
        if stage == "timing kernels":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate_host(folder=tmp_path / "host", progress=stop)
    file = tmp_path / ".host.unfinished.json"
    timed = set(json.loads(file.read_text())["passes"])
    assert timed
    stages: list[str] = []
    calibrate_host(folder=tmp_path / "host", progress=lambda stage, _: stages.append(stage))
    assert "timing whole networks" not in stages  # they were all timed before the interruption
    assert "timing kernels" in stages
    assert not file.exists()
    with pytest.raises(KeyboardInterrupt):  # a finished one is done anew
        calibrate_host(folder=tmp_path / "host", progress=stop)
    stages.clear()
    calibrate_host(folder=tmp_path / "host", seed=1, progress=lambda stage, _: stages.append(stage))
    assert "timing whole networks" in stages  # other networks: nothing of the interrupted one is of use


def test_what_was_timed_is_kept_for_an_hour_and_for_the_same_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Unfinished.beside(tmp_path / "host", {"machine": "a"})
    made.passes["net"] = [Pass(2.0, 1.0), Pass(3.0, 1.5)]
    made.spent_s["timing"] = 7.0
    made.save([1.0, 1.1])
    again = Unfinished.beside(tmp_path / "host", {"machine": "a"})
    assert (again.passes, again.spent_s, again.anchor_ms) == (made.passes, made.spent_s, [1.0, 1.1])
    assert Unfinished.beside(tmp_path / "host", {"machine": "b"}).passes == {}
    assert Unfinished.beside(tmp_path / "other", {"machine": "a"}).passes == {}
    later = time.time() + VALID_S + 1
    monkeypatch.setattr("automc.measure.unfinished.time.time", lambda: later)
    assert Unfinished.beside(tmp_path / "host", {"machine": "a"}).passes == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": {"machine": "a"}, "unix_s": 1e12, "passes": {"n": [[1]]}}'])
def test_a_damaged_record_of_what_was_timed_costs_time_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / ".host.unfinished.json").write_text(text)
    assert Unfinished.beside(tmp_path / "host", {"machine": "a"}).passes == {}


def test_where_the_machine_was_too_busy_the_next_calibration_begins_anew(tmp_path: Path) -> None:
    kept = Unfinished.beside(tmp_path / "host", None)
    watch = Stopwatch(SessionSettings(), Anchor(SessionSettings()), lambda *_: None, kept)
    kept.save([])
    with pytest.raises(MeasurementError, match="too busy: 0% of 1 models"):
        watch.require([Sample("a", "plain", "fp32", b"")])
    assert not kept.path.exists()


class _Told:
    """A stopwatch's passes as they came out, made up."""

    def __init__(self, anchor_ms: list[float], timed: int | None = None) -> None:
        self.samples = [Sample(str(index), "plain", "fp32", b"") for index in range(len(anchor_ms))]
        kept = Unfinished(Path("nowhere"), None)
        self.watch = Stopwatch(SessionSettings(), Anchor(SessionSettings()), lambda *_: None, kept)
        self.watch.anchor.history = [1.0] * 10 + anchor_ms
        for sample, spell in list(zip(self.samples, anchor_ms, strict=True))[:timed]:
            self.watch.passes[sample.name] = [Pass(1.0, spell)]


def test_beside_neighbours_that_never_rest_the_usual_speed_is_taken_and_nothing_timed_again() -> None:
    told = _Told([1.6] * 90)
    assert told.watch.share(told.samples) == 0.0
    assert told.watch.enough(told.samples)
    assert told.watch.anchor.slowdown == pytest.approx(1.6)
    calm = _Told([1.0] * 90)
    assert calm.watch.enough(calm.samples)
    assert calm.watch.anchor.slowdown == 1.0


def test_where_the_clock_ran_out_no_worse_speed_is_taken() -> None:
    told = _Told([1.6] * 90, timed=45)
    assert not told.watch.enough(told.samples)
    assert told.watch.anchor.best_ms == 1.0


def test_a_profile_of_a_busy_machine_says_so() -> None:
    assert _busy(1.05) == ""
    assert "60% slower than its best" in _busy(1.6)


def test_a_noise_floor_is_told_by_the_passes_there_are_where_no_new_one_is_calm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = _Told([1.0] * 20)
    monkeypatch.setattr(
        "automc.measure.stopwatch.measure_batch", lambda models, *_, **__: {name: [Pass(9.0, 5.0)] for name in models}
    )
    with pytest.raises(MeasurementError, match="the noise floor could not be measured"):
        told.watch.retest(told.samples, 0)  # a single pass of each, and none of the new ones was calm
    for sample in told.samples:
        told.watch.passes[sample.name] = [Pass(1.0, 1.0), Pass(1.04, 1.0)]
    percent, milliseconds = told.watch.retest(told.samples, 0)
    assert (percent, milliseconds) == pytest.approx((4.0, 0.04))
