"""Latency as a protocol: fresh sessions, shuffled passes spread over time, percentiles that n supports.

On a shared machine drift and bursts dominate, so precision comes from more passes, not from more runs: within a pass
the 10th percentile discards bursts, and the minimum over passes discards slow spells. Speed-ups are paired: every
pass times the baseline and the finalist in alternating blocks, so that both see the same spell.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from automc.errors import MeasurementError
from automc.measure.sessions import Model, SessionSettings, open_session, random_inputs

if TYPE_CHECKING:
    import onnxruntime

    from automc.profiles import HardwareProfile

# A pass that is slower than the best one by more than this is a bad spell and is repeated, at most EXTRA_PASSES times.
SPELL_RATIO = 1.25
EXTRA_PASSES = 4
BLOCKS_PER_PASS = 8


@dataclass(frozen=True)
class Timing:
    """What was measured for one model. n: timed runs over all passes; latencies in milliseconds.

    p10_ms: the smallest over passes of the pass's 10th percentile: the figure predictions are held against.
    median_ms, p90_ms: over all runs of all passes. pass_p10_ms: one per pass, in order of measuring.
    speedup: median over blocks of baseline median / this median, with `speedup_low`, `speedup_high` a 95 %
    interval from the bootstrap over blocks; all None for models measured without a baseline.
    """

    n: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    pass_p10_ms: tuple[float, ...]
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None


@dataclass
class _Samples:
    passes: list[np.ndarray] = field(default_factory=list)
    block_medians: list[float] = field(default_factory=list)


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


def settings_of(profile: HardwareProfile) -> SessionSettings:
    """The session settings a profile stands for."""
    return SessionSettings(threads=profile.threads, provider=profile.execution_provider)


def measure_interleaved(
    models: Mapping[str, Model],
    profile: HardwareProfile,
    *,
    runs: int | None = None,
    passes: int | None = None,
    baseline: str | None = None,
    seed: int = 0,
    pause_s: float = 0.0,
) -> dict[str, Timing]:
    """Time `models` against each other: at least `runs` runs each, spread over `passes` passes in shuffled order.

    Each pass opens fresh sessions and times blocks of all models in turn. baseline: the model speed-ups are paired
    with (default: the first). runs, passes: default the profile's finalist protocol. pause_s: wait between passes.
    Raises MeasurementError if after extra passes no two passes of a model agree within the spell ratio.
    """
    return interleaved(
        models,
        settings_of(profile),
        runs=profile.protocol.finalist_runs if runs is None else runs,
        passes=max(2, profile.protocol.passes) if passes is None else passes,
        warmup=profile.protocol.warmup,
        percentile=profile.protocol.percentile,
        baseline=baseline,
        seed=seed,
        pause_s=pause_s,
    )


def interleaved(
    models: Mapping[str, Model],
    settings: SessionSettings,
    *,
    runs: int,
    passes: int,
    warmup: int = 8,
    percentile: float = 10.0,
    baseline: str | None = None,
    seed: int = 0,
    pause_s: float = 0.0,
) -> dict[str, Timing]:
    """`measure_interleaved` with its settings spelt out."""
    if not models or runs < 1 or passes < 1:
        raise ValueError(
            f"needs at least one model, run and pass; got {len(models)} models, {runs} runs, {passes} passes"
        )
    reference = next(iter(models)) if baseline is None else baseline
    if reference not in models:
        raise ValueError(f"baseline {reference!r} is not among the models {sorted(models)}")
    generator = np.random.default_rng(seed)
    samples = {name: _Samples() for name in models}
    per_block = max(1, -(-runs // (passes * BLOCKS_PER_PASS)))
    done = 0
    while done < passes or (done < passes + EXTRA_PASSES and not _settled(samples, percentile)):
        if done and pause_s:
            time.sleep(pause_s)
        _one_pass(models, settings, samples, generator, per_block, warmup)
        done += 1
    if passes > 1 and not _settled(samples, percentile):
        raise MeasurementError(
            f"the machine is too noisy: after {done} passes no two agree within {(SPELL_RATIO - 1) * 100:.0f} % for "
            + ", ".join(name for name, entry in samples.items() if not _agrees(entry, percentile)),
            next_step="close what else runs on this machine, then measure again",
        )
    base = np.array(samples[reference].block_medians)
    return {name: _summary(entry, base, percentile, generator) for name, entry in samples.items()}


def _one_pass(
    models: Mapping[str, Model],
    settings: SessionSettings,
    samples: Mapping[str, _Samples],
    generator: np.random.Generator,
    per_block: int,
    warmup: int,
) -> None:
    sessions = {name: open_session(model, settings) for name, model in models.items()}
    feeds = {name: random_inputs(session) for name, session in sessions.items()}
    blocks: dict[str, list[np.ndarray]] = {name: [] for name in models}
    names = list(models)
    for block in range(BLOCKS_PER_PASS):
        generator.shuffle(names)
        for name in names:
            # the caches hold the previous model: a short warm-up before every block, the full one before the first
            untimed = warmup if block == 0 else min(2, warmup)
            blocks[name].append(time_runs(sessions[name], feeds[name], warmup=untimed, runs=per_block))
    for name, parts in blocks.items():
        samples[name].passes.append(np.concatenate(parts))
        samples[name].block_medians.extend(float(np.median(part)) for part in parts)


def _agrees(entry: _Samples, percentile: float) -> bool:
    best = sorted(float(np.percentile(part, percentile)) for part in entry.passes)
    return len(best) < 2 or best[1] <= best[0] * SPELL_RATIO


def _settled(samples: Mapping[str, _Samples], percentile: float) -> bool:
    return all(_agrees(entry, percentile) for entry in samples.values())


def _summary(entry: _Samples, base: np.ndarray, percentile: float, generator: np.random.Generator) -> Timing:
    everything = np.concatenate(entry.passes)
    per_pass = tuple(float(np.percentile(part, percentile)) for part in entry.passes)
    ratios = base / np.array(entry.block_medians)
    speedup, low, high = paired_speedup(ratios, generator)
    return Timing(
        n=everything.size,
        median_ms=float(np.median(everything)),
        p10_ms=min(per_pass),
        p90_ms=float(np.percentile(everything, 90)),
        pass_p10_ms=per_pass,
        speedup=speedup,
        speedup_low=low,
        speedup_high=high,
    )


def paired_speedup(
    ratios: np.ndarray, generator: np.random.Generator, *, resamples: int = 1000
) -> tuple[float, float, float]:
    """(median, low, high) of paired ratios; the interval is the 95 % percentile bootstrap over pairs."""
    draws = generator.integers(0, ratios.size, size=(resamples, ratios.size))
    medians = np.median(ratios[draws], axis=1)
    return float(np.median(ratios)), float(np.percentile(medians, 2.5)), float(np.percentile(medians, 97.5))


class Anchor:
    """A small fixed network, timed again and again to tell calm spells of the machine from bad ones.

    On virtual machines a neighbour on the same physical core slows everything by up to 2 for seconds or minutes. The
    fastest of a few runs of one known network (about 0.1 ms each) shows it; what was timed beside a slow anchor is
    timed again.
    known_ms: what the anchor took on this machine before; it counts once the machine has shown that speed again.
    """

    def __init__(self, settings: SessionSettings, *, known_ms: float | None = None) -> None:
        self._session = open_session(anchor_model(), settings)
        self._feeds = random_inputs(self._session)
        self._known_ms = known_ms
        self.history: list[float] = []
        for _ in range(20):
            self.check()

    def check(self) -> float:
        """Milliseconds of the anchor now."""
        self.history.append(float(time_runs(self._session, self._feeds, warmup=1, runs=6).min()))
        return self.history[-1]

    @property
    def best_ms(self) -> float:
        """What the anchor takes when the machine is calm: the 2nd percentile of everything seen, or what is known."""
        seen = float(np.percentile(self.history, 2))
        if self._known_ms is not None and min(self.history) <= CALM_RATIO * self._known_ms:
            return min(seen, self._known_ms)
        return seen

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
    """Three 3x3 convolutions of 32 channels at 16x16: 7 million multiply-accumulates."""
    from automc.measure.builder import GraphBuilder

    builder = GraphBuilder("fp32", np.random.default_rng(0))
    x = builder.input((1, 32, 16, 16))
    for _ in range(3):
        x = builder.conv(x, 32, 3)
    return builder.finish(x)


@dataclass(frozen=True)
class Pass:
    """One pass of one model: its percentile, and the slower of the anchors before and after it, milliseconds."""

    latency_ms: float
    anchor_ms: float


def calm_ms(passes: Sequence[Pass], anchor: Anchor) -> list[float]:
    """Latencies of the passes that met a calm machine, in order."""
    return [entry.latency_ms for entry in passes if anchor.is_calm(entry.anchor_ms)]


# What was timed beside an anchor within 15 % of its best agreed with its own best within 2 % nine times in ten and
# within 10 % ninety-nine times in a hundred (260 models, 5 passes, through spells that slowed everything by 1.8).
CALM_RATIO = 1.15
MAX_ATTEMPTS = 6


def measure_batch(
    models: Mapping[str, Model],
    settings: SessionSettings,
    anchor: Anchor,
    *,
    passes: int = 2,
    warmup: int = 8,
    runs: int = 60,
    percentile: float = 10.0,
    budget_s: float | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[Pass]]:
    """Time many models, each in `passes` calm passes if the budget allows; every pass in a new random order.

    A pass beside a slow anchor is put back at the end of the queue, and stays in the answer: a spell that looked calm
    may turn out not to have been. budget_s: wall clock; models the first pass did not reach are missing from the
    answer, so with a budget it is a random part of `models`.
    """
    generator = np.random.default_rng(seed)
    names = list(models)
    found: dict[str, list[Pass]] = {}
    start = time.monotonic()
    for number in range(passes):
        queue = deque(names[index] for index in generator.permutation(len(names)))
        before = anchor.check()
        while queue and (budget_s is None or time.monotonic() - start < budget_s):
            if not anchor.is_calm(before):
                before = anchor.wait()
            name = queue.popleft()
            value, _ = measure_once(models[name], settings, warmup=warmup, runs=runs, percentile=percentile)
            after = anchor.check()
            entries = found.setdefault(name, [])
            entries.append(Pass(value, max(before, after)))
            before = after
            if len(calm_ms(entries, anchor)) <= number and len(entries) < MAX_ATTEMPTS * passes:
                queue.append(name)
            if progress is not None:
                progress(len(names) * (number + 1) - len(queue), len(names) * passes)
    return found


def noise_floor(first_ms: Sequence[float], second_ms: Sequence[float]) -> tuple[float, float]:
    """(percent, milliseconds): test-retest spread of the same models, 90th percentile of |first - second|.

    first_ms, second_ms: two independent measurements of the same models, in the same order.
    The percentage is relative to the smaller one. Differences below it are not differences.
    """
    first, second = np.asarray(first_ms, dtype=float), np.asarray(second_ms, dtype=float)
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"needs two equally long, non-empty lists; got {first.shape} and {second.shape}")
    gap = np.abs(first - second)
    return float(np.percentile(gap / np.minimum(first, second) * 100, 90)), float(np.percentile(gap, 90))
