"""The timing protocol: calm spells, paired speed-ups, noise floors. Figures are made up where time would decide."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from automc.errors import MeasurementError
from automc.measure import timing
from automc.measure.anchor import CALM_RATIO, Anchor, time_runs
from automc.measure.batch import Pass, calm_ms, measure_batch, noise_floor
from automc.measure.probes import probe_network
from automc.measure.sessions import SPINNING_S, SessionSettings, open_session, random_inputs
from automc.measure.timing import BLOCKS_PER_PASS, Timing, _one_pass, _Samples, interleaved, paired_speedup

SETTINGS = SessionSettings()


@pytest.fixture
def anchor() -> Anchor:
    """An anchor that has seen 1 ms a hundred times."""
    made = Anchor(SETTINGS)
    made.history = [1.0] * 100
    return made


def test_a_pass_is_calm_up_to_the_ratio_of_the_best_anchor(anchor: Anchor) -> None:
    passes = [Pass(5.0, 1.0), Pass(7.0, CALM_RATIO + 0.01), Pass(6.0, CALM_RATIO - 0.01)]
    assert calm_ms(passes, anchor) == [5.0, 6.0]
    assert calm_ms([], anchor) == []


def test_a_spell_that_looked_calm_is_judged_again_when_the_machine_turns_out_faster(anchor: Anchor) -> None:
    assert anchor.is_calm(1.0)
    anchor.history += [0.6] * 10
    assert anchor.best_ms == 0.6
    assert not anchor.is_calm(1.0)


def test_a_known_speed_counts_once_the_machine_has_shown_it(anchor: Anchor) -> None:
    anchor._known_ms = 0.6
    assert anchor.best_ms == 1.0  # never seen here: the machine may have become another
    anchor.history.append(0.61)
    assert anchor.best_ms == 0.6


def test_a_machine_that_is_never_at_rest_has_a_usual_speed_which_is_named(anchor: Anchor) -> None:
    anchor.history = [1.0] * 5 + [1.5] * 95  # at its best one time in twenty
    assert anchor.best_ms == 1.0
    assert anchor.slowdown == 1.0
    assert not anchor.is_calm(1.5)
    anchor.tolerate(25.0)
    assert anchor.best_ms == 1.5
    assert anchor.slowdown == 1.5
    assert anchor.is_calm(1.5 * CALM_RATIO)
    assert not anchor.is_calm(1.5 * CALM_RATIO + 0.01)
    anchor.tolerate(2.0)  # never less than before
    assert anchor.best_ms == 1.5


def test_waiting_for_calm_takes_only_a_part_of_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    anchor = Anchor(SETTINGS)
    anchor.history = [1.0] * 100
    waits = []
    monkeypatch.setattr(anchor, "check", lambda: 2.0)  # a neighbour that never rests
    monkeypatch.setattr(anchor, "wait", lambda: (waits.append(time.sleep(0.3)), 2.0)[1])
    models = {str(width): probe_network("fp32", width, size=4) for width in (8, 16)}
    found = measure_batch(models, SETTINGS, anchor, passes=1, warmup=0, runs=1, budget_s=1.0)
    assert len(waits) == 1  # 0.3 s, a fifth of the budget is 0.2 s
    assert set(found) == set(models)


def test_a_speedup_is_paired_over_blocks() -> None:
    speedup, low, high = paired_speedup(np.array([2.0, 2.0, 2.0, 2.0]), np.random.default_rng(0))
    assert (speedup, low, high) == (2.0, 2.0, 2.0)
    speedup, low, high = paired_speedup(np.array([1.0, 2.0, 4.0]), np.random.default_rng(0))
    assert speedup == 2.0
    assert 1.0 <= low <= 2.0 <= high <= 4.0


def test_the_noise_floor_is_the_ninetieth_percentile_of_retests() -> None:
    first, second = [1.0] * 11, [1.0] * 9 + [1.5, 1.5]
    # gaps: nine 0, two 0.5; rank 0.9 x 10 = 9 is the first 0.5
    assert noise_floor(first, second) == (50.0, 0.5)
    assert noise_floor([2.0], [2.0]) == (0.0, 0.0)
    with pytest.raises(ValueError, match="non-empty"):
        noise_floor([], [])
    with pytest.raises(ValueError, match="equally long"):
        noise_floor([1.0], [1.0, 2.0])


def test_runs_are_timed_one_by_one_after_the_warm_up() -> None:
    session = open_session(probe_network("fp32", 8, size=8))
    samples = time_runs(session, random_inputs(session), warmup=2, runs=7)
    assert samples.shape == (7,)
    assert (samples > 0).all()


def test_a_batch_times_every_model_in_every_pass() -> None:
    models = {"a": probe_network("fp32", 8, size=8), "b": probe_network("u8s8", 8, size=8)}
    seen: list[tuple[int, int]] = []
    found = measure_batch(
        models, SETTINGS, Anchor(SETTINGS), passes=2, warmup=1, runs=3, progress=lambda *at: seen.append(at)
    )
    assert set(found) == {"a", "b"}
    assert all(len(passes) >= 2 for passes in found.values())
    assert seen[-1][1] == 4


def test_a_batch_out_of_time_leaves_out_what_it_did_not_reach() -> None:
    models = {str(index): probe_network("fp32", 8, size=8) for index in range(3)}
    assert measure_batch(models, SETTINGS, Anchor(SETTINGS), budget_s=0.0) == {}


def test_a_pass_beside_a_slow_anchor_is_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    anchor = Anchor(SETTINGS)
    anchor.history = [1.0] * 100
    # before: calm; after the first model: slow; the wait finds calm again; after the second: calm
    answers = iter([1.0, 2.0, 1.0, 1.0])
    monkeypatch.setattr(anchor, "check", lambda: next(answers))
    found = measure_batch({"a": probe_network("fp32", 8, size=8)}, SETTINGS, anchor, passes=1, warmup=0, runs=2)
    assert [entry.anchor_ms for entry in found["a"]] == [2.0, 1.0]
    assert len(calm_ms(found["a"], anchor)) == 1


def test_interleaved_models_get_the_runs_they_were_promised() -> None:
    models = {"slow": probe_network("fp32", 32), "fast": probe_network("fp32", 8, size=4)}
    found = interleaved(models, SETTINGS, runs=32, passes=2, warmup=1)
    assert all(entry.n >= 32 for entry in found.values())
    assert found["slow"].speedup == 1.0
    assert found["fast"].speedup is not None
    assert found["fast"].speedup > 3
    for entry in found.values():
        assert entry.p10_ms <= entry.median_ms <= entry.p90_ms
        assert entry.speedup_low is not None
        assert entry.speedup_high is not None
        assert entry.speedup_low <= (entry.speedup or 0) <= entry.speedup_high


def test_passes_that_never_agree_are_an_error_after_measuring_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def noisy(models, settings, samples, generator, per_block, warmup, percentile, anchor):  # type: ignore[no-untyped-def]
        tried.append(1)
        for entry in samples.values():
            entry.passes.append(np.full(8, 2.0 ** len(entry.passes)))  # every pass twice as slow as the one before
            entry.block_ms.append(1.0)
        return [1.0, 1.0]

    monkeypatch.setattr(timing, "_one_pass", noisy)
    with pytest.raises(MeasurementError, match=r"too noisy.*no two agree"):
        interleaved({"a": probe_network("fp32", 8)}, SETTINGS, runs=8, passes=2)
    assert len(tried) == 2 + timing.EXTRA_PASSES


def test_a_machine_slower_than_when_calibrated_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"a": probe_network("fp32", 8, size=8)}
    monkeypatch.setattr(timing, "_agrees", lambda *_: True)  # this machine's own neighbours are not what is tested
    calm = interleaved(model, SETTINGS, runs=8, passes=2, known_ms=1e9)
    assert calm["a"].calm  # any machine is faster than an anchor of a million seconds
    monkeypatch.setattr(timing, "PATIENCE_S", 0.1)
    started = time.monotonic()
    disturbed = interleaved(model, SETTINGS, runs=8, passes=2, known_ms=1e-9)
    assert not disturbed["a"].calm
    assert time.monotonic() - started >= 0.1 * timing.EXTRA_PASSES  # it waited for calm before every repeat
    assert disturbed["a"].slowdown > 1e4


def test_a_speed_up_is_told_by_calm_blocks_where_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside neighbours the small model loses more than the large one: three times as long against one and a half."""
    slow = [False] * 12 + [True] * 12
    block = iter(slow + slow)

    class Machine:
        best_ms = 1.0
        now = False

        def check(self) -> float:
            self.now = next(block, False)
            return 2.0 if self.now else 1.0

    machine = Machine()

    def timed(session: str, *_: object, runs: int, **__: object) -> np.ndarray:
        return np.full(
            runs, {"large": 4.0, "small": 1.0}[session] * ((3.0 if session == "small" else 1.5) ** machine.now)
        )

    monkeypatch.setattr(timing, "Anchor", lambda *_, **__: machine)
    monkeypatch.setattr(timing, "open_session", lambda model, _: model.decode())
    monkeypatch.setattr(timing, "random_inputs", lambda _: {})
    monkeypatch.setattr(timing, "time_runs", timed)
    monkeypatch.setattr(timing, "PATIENCE_S", 0.0)
    found = interleaved({"large": b"large", "small": b"small"}, SETTINGS, runs=24, passes=3, known_ms=1.0)
    assert found["small"].speedup == 4.0
    assert (found["small"].speedup_low, found["small"].speedup_high) == (4.0, 4.0)
    never = iter([True] * 200)
    monkeypatch.setattr(machine, "check", lambda: (setattr(machine, "now", next(never)), 2.0)[1], raising=False)
    assert (
        interleaved({"large": b"large", "small": b"small"}, SETTINGS, runs=24, passes=3, known_ms=1.0)["small"].speedup
        == 2.0
    )


def test_a_repeat_is_expected_within_the_noise_floor_and_below_where_the_machine_was_disturbed() -> None:
    calm = Timing(n=24, median_ms=2.1, p10_ms=2.0, p90_ms=2.5, pass_p10_ms=(2.2, 2.0, 2.1))
    assert calm.repeats_ms(10.0) == pytest.approx((2.0 / 1.1, 2.2 * 1.1))
    disturbed = replace(calm, calm=False, slowdown=1.6)
    assert disturbed.repeats_ms(10.0) == pytest.approx((2.0 / 1.1 / 1.6, 2.2 * 1.1))


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one model"):
        interleaved({}, SETTINGS, runs=1, passes=1)
    with pytest.raises(ValueError, match="baseline 'x' is not among"):
        interleaved({"a": b""}, SETTINGS, runs=1, passes=1, baseline="x")


def test_passes_of_one_spell_share_its_anchors_and_are_timed_again_together(monkeypatch: pytest.MonkeyPatch) -> None:
    anchor = Anchor(SETTINGS)
    anchor.history, anchor.spell_s = [1.0] * 100, 60.0
    # before: calm; after both models: slow; the wait finds calm again; after both: calm
    answers = iter([1.0, 2.0, 1.0, 1.0])
    monkeypatch.setattr(anchor, "check", lambda: next(answers))
    models = {"a": probe_network("fp32", 8, size=8), "b": probe_network("u8s8", 8, size=8)}
    found = measure_batch(models, SETTINGS, anchor, passes=1, warmup=0, runs=2)
    assert {name: [entry.anchor_ms for entry in passes] for name, passes in found.items()} == {
        "a": [2.0, 1.0],
        "b": [2.0, 1.0],
    }


@pytest.mark.parametrize(("threads", "rest"), [(1, 0.0), (2, SPINNING_S)])
def test_threads_that_spin_are_let_come_to_rest_before_another_session_is_timed(
    monkeypatch: pytest.MonkeyPatch, threads: int, rest: float
) -> None:
    """Beside the spinning threads of an anchor a third of 90 models on two threads ran as if on one."""
    settings = SessionSettings(threads=threads)
    made = Anchor(settings)
    assert (made.spell_s > 0) == (threads > 1)
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    made.check()
    assert slept == [rest]
    slept.clear()
    models = {"a": probe_network("fp32", 8, size=8), "b": probe_network("fp32", 16, size=8)}
    _one_pass(models, settings, {name: _Samples() for name in models}, np.random.default_rng(0), 1, 0, 10.0, made)
    anchors = BLOCKS_PER_PASS + 1
    assert sum(entry == SPINNING_S for entry in slept) == (BLOCKS_PER_PASS * len(models) + anchors) * (threads > 1)
