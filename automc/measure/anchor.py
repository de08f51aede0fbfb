"""Timing of one session, and the anchor that tells whether the machine is at its usual speed."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from automc.measure.sessions import SPINNING_S, Model, SessionSettings, open_session, random_inputs

if TYPE_CHECKING:
    import onnxruntime

# 210 networks, 4 passes each on a machine with 5 runnable processes for 2 cores: 68 % of the passes were beside an
# anchor within 10 % of its best. Nine in ten of those were within 2 % of the network's own best, nineteen in twenty
# within 5 %; of all passes, within 19 % and 47 %.
CALM_RATIO = 1.10
BEST_PERCENTILE = 2.0
SPELL_S = 0.25
"""How much is timed on several threads between two checks, which take 0.06 s each for the threads to rest."""


def time_runs(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, np.ndarray], *, warmup: int, runs: int
) -> np.ndarray:
    """(runs,) milliseconds of single runs after `warmup` untimed ones. Loading the session is not part of it."""
    outputs = [entry.name for entry in session.get_outputs()]
    feeds = dict(inputs)
    call, clock = session.run, time.perf_counter_ns
    for _ in range(warmup):
        call(outputs, feeds)
    stamps = [0] * (runs + 1)
    collecting = gc.isenabled()
    gc.disable()
    try:
        stamps[0] = clock()
        for index in range(1, runs + 1):
            call(outputs, feeds)
            stamps[index] = clock()
    finally:
        if collecting:
            gc.enable()
    return np.array([after - before for before, after in pairwise(stamps)]) / 1e6


def measure_once(
    model: Model, settings: SessionSettings, *, warmup: int, runs: int, percentile: float = 10.0
) -> tuple[float, np.ndarray]:
    """One pass in a fresh session: (the percentile, all runs), milliseconds."""
    session = open_session(model, settings)
    samples = time_runs(session, random_inputs(session), warmup=warmup, runs=runs)
    return float(np.percentile(samples, percentile)), samples


class Anchor:
    """A small fixed network, timed again and again to tell calm spells of the machine from bad ones.

    On virtual machines a neighbour on the same physical core slows everything by up to 2 for seconds or minutes. The
    median of a few runs of one known network (about 0.03 ms each) shows it; what was timed beside a slow anchor is
    timed again.
    On several threads it also shows spells in which they do not help each other (two virtual cores on one physical
    core). Its own then go on spinning for a while beside what is timed next: of 90 models on two threads a third ran as
    if on one, and 7 % after a rest. As resting takes time, what is timed within `spell_s` seconds shares two checks.
    known_ms: what the anchor took on this machine before; it counts once the machine has shown that speed again.

    Where neighbours never rest, hardly anything meets the machine at its best. `tolerate` then takes a more usual speed
    for calm, and `slowdown` says how far that lies from the best.
    """

    def __init__(self, settings: SessionSettings, *, known_ms: float | None = None) -> None:
        self._session = open_session(anchor_model(), settings)
        self._rest_s = SPINNING_S if settings.spins else 0.0
        self.spell_s = SPELL_S if settings.spins else 0.0
        self._feeds = random_inputs(self._session)
        self._known_ms = known_ms
        self._percentile = BEST_PERCENTILE
        self.history: list[float] = []
        for _ in range(20):
            self.check()

    def check(self) -> float:
        """Milliseconds of the anchor now."""
        # the median: the fastest run finds the gap in a neighbour's work that a longer network does not get
        self.history.append(float(np.median(time_runs(self._session, self._feeds, warmup=4, runs=15))))
        time.sleep(self._rest_s)
        return self.history[-1]

    @property
    def best_ms(self) -> float:
        """What the anchor takes when the machine is calm: the 2nd percentile of everything seen, or what is known.

        Once a more usual speed is tolerated, that one.
        """
        seen = float(np.percentile(self.history, self._percentile))
        if self._percentile > BEST_PERCENTILE:
            return seen
        if self._known_ms is not None and min(self.history) <= CALM_RATIO * self._known_ms:
            return min(seen, self._known_ms)
        return seen

    def tolerate(self, percentile: float) -> None:
        """Take the speed at `percentile` of everything seen for the machine's usual one, and up to that for calm."""
        self._percentile = max(self._percentile, percentile)

    @property
    def slowdown(self) -> float:
        """How many times as long as at its best the anchor takes at what counts as calm; 1.0 unless tolerated."""
        return self.best_ms / min(self.best_ms, float(np.percentile(self.history, BEST_PERCENTILE)))

    def is_calm(self, anchor_ms: float) -> bool:
        """Whether something timed beside an anchor of `anchor_ms` met a calm machine, as far as is known now."""
        return anchor_ms <= CALM_RATIO * self.best_ms

    def wait(self, *, seconds: float = 1.0) -> float:
        """The anchor's time as soon as the machine is calm, or after `seconds`."""
        start, now = time.monotonic(), self.check()
        while not self.is_calm(now) and time.monotonic() - start < seconds:
            time.sleep(0.02)
            now = self.check()
        return now


def anchor_model() -> bytes:
    """Two depthwise 3x3 convolutions of 64 channels at 20x20: loads and stores more than arithmetic.

    Of eight candidates it slowed most when the core was shared (median 1.5 of its best, three dense convolutions
    1.1 to 1.2), so it tells calm from disturbed best.
    """
    from automc.measure.builder import GraphBuilder

    builder = GraphBuilder("fp32", np.random.default_rng(0))
    x = builder.input((1, 64, 20, 20))
    for _ in range(2):
        x = builder.conv(x, 64, 3, groups=64)
    return builder.finish(x)
