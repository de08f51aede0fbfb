"""Latency as a protocol: fresh sessions, shuffled passes spread over time, percentiles that n supports.

On a shared machine drift and bursts dominate, so precision comes from more passes, not from more runs: within a pass
the 10th percentile discards bursts, and the minimum over passes discards slow spells. Speed-ups are paired: every
pass times the baseline and the finalist in alternating blocks, so that both see the same spell.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from automc.errors import MeasurementError
from automc.measure.anchor import CALM_RATIO, Anchor, time_runs
from automc.measure.sessions import SPINNING_S, Model, SessionSettings, open_session, random_inputs

if TYPE_CHECKING:
    from automc.profiles import HardwareProfile

# A pass that is slower than the best one by more than this is a bad spell and is repeated, at most EXTRA_PASSES times.
SPELL_RATIO = 1.25
EXTRA_PASSES = 4
BLOCKS_PER_PASS = 8
LEAST_BLOCKS = 8
"""Calm blocks, below which a speed-up is told by all of them."""
PATIENCE_S = 8.0
"""How long to wait, before a pass is repeated, for the machine to be at its usual speed."""


@dataclass(frozen=True)
class Timing:
    """What was measured for one model. n: timed runs over all passes; latencies in milliseconds.

    p10_ms: the smallest over calm passes of the pass's 10th percentile: the figure predictions are held against.
    median_ms, p90_ms: over all runs of all passes. pass_p10_ms: one per pass, in order of measuring.
    speedup: median over blocks of baseline / this, by the percentile of each, with `speedup_low`, `speedup_high` a 95 %
    interval from the bootstrap over blocks; all None for models measured without a baseline. Of the blocks that met the
    machine at its usual speed, where there are LEAST_BLOCKS: neighbours do not slow all networks alike.
    calm: whether p10_ms comes from a pass that met the machine at its usual speed; if not, it is too slow by an
    unknown factor.
    slowdown: how many times as long as usual the anchor took in the calmest pass, at least 1.0; up to CALM_RATIO counts
    as calm.
    """

    n: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    pass_p10_ms: tuple[float, ...]
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    calm: bool = True
    slowdown: float = 1.0

    def repeats_ms(self, noise_percent: float) -> tuple[float, float]:
        """(low, high) that p10_ms is to be expected within when it is measured again.

        The lowest and the highest pass, both widened by the device's noise floor, and downwards by what neighbours may
        have added.
        """
        noise = 1.0 + noise_percent / 100
        return min(self.pass_p10_ms) / noise / self.slowdown, max(self.pass_p10_ms) * noise


@dataclass
class _Samples:
    passes: list[np.ndarray] = field(default_factory=list)
    block_ms: list[float] = field(default_factory=list)


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
        known_ms=profile.anchor_ms,
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
    known_ms: float | None = None,
) -> dict[str, Timing]:
    """`measure_interleaved` with its settings spelt out. known_ms: the anchor's time on this machine when calm."""
    if not models or runs < 1 or passes < 1:
        raise ValueError(
            f"needs at least one model, run and pass; got {len(models)} models, {runs} runs, {passes} passes"
        )
    reference = next(iter(models)) if baseline is None else baseline
    if reference not in models:
        raise ValueError(f"baseline {reference!r} is not among the models {sorted(models)}")
    generator = np.random.default_rng(seed)
    anchor = Anchor(settings, known_ms=known_ms)
    samples = {name: _Samples() for name in models}
    spells: list[float] = []
    beside: list[float] = []  # the slower anchor around each block
    per_block = max(1, -(-runs // (passes * BLOCKS_PER_PASS)))
    done = 0
    while done < passes or (
        done < passes + EXTRA_PASSES and not (_settled(samples, percentile) and any(_calm(spells, anchor, known_ms)))
    ):
        if done and pause_s:
            time.sleep(pause_s)
        if done >= passes:
            _wait(anchor, known_ms)
        around = _one_pass(models, settings, samples, generator, per_block, warmup, percentile, anchor)
        # the lower quartile: a tenth percentile needs no more than a part of the pass to be calm
        spells.append(float(np.percentile(around[:-1], 25)))
        beside += [max(before, after) for before, after in pairwise(around)]
        done += 1
    if passes > 1 and not _settled(samples, percentile):
        raise MeasurementError(
            f"the machine is too noisy: after {done} passes no two agree within {(SPELL_RATIO - 1) * 100:.0f} % for "
            + ", ".join(name for name, entry in samples.items() if not _agrees(entry, percentile)),
            next_step="close what else runs on this machine, then measure again",
        )
    calm, paired = _calm(spells, anchor, known_ms), np.array(_calm(beside, anchor, known_ms))
    if paired.sum() < LEAST_BLOCKS:
        paired[:] = True
    base = np.array(samples[reference].block_ms)
    slowdown = max(1.0, min(spells) / _usual_ms(anchor, known_ms))
    return {
        name: _summary(entry, (base / np.array(entry.block_ms))[paired], percentile, generator, calm, slowdown)
        for name, entry in samples.items()
    }


def _usual_ms(anchor: Anchor, known_ms: float | None) -> float:
    """What the anchor takes at the machine's usual speed, the known one where there is one."""
    return anchor.best_ms if known_ms is None else known_ms


def _calm(spells: Sequence[float], anchor: Anchor, known_ms: float | None) -> list[bool]:
    """Per pass or block: whether its anchor was at the machine's usual speed."""
    return [spell <= CALM_RATIO * _usual_ms(anchor, known_ms) for spell in spells]


def _wait(anchor: Anchor, known_ms: float | None) -> None:
    """Return once the machine is at its usual speed, or after PATIENCE_S."""
    given_up = time.monotonic() + PATIENCE_S
    while anchor.check() > CALM_RATIO * _usual_ms(anchor, known_ms) and time.monotonic() < given_up:
        time.sleep(0.05)


def _one_pass(
    models: Mapping[str, Model],
    settings: SessionSettings,
    samples: Mapping[str, _Samples],
    generator: np.random.Generator,
    per_block: int,
    warmup: int,
    percentile: float,
    anchor: Anchor,
) -> list[float]:
    """Time one pass into `samples`. Returns the anchor before every block and after the last one, milliseconds."""
    sessions = {name: open_session(model, settings) for name, model in models.items()}
    feeds = {name: random_inputs(session) for name, session in sessions.items()}
    blocks: dict[str, list[np.ndarray]] = {name: [] for name in models}
    names = list(models)
    anchors = []
    for block in range(BLOCKS_PER_PASS):
        generator.shuffle(names)
        anchors.append(anchor.check())
        for name in names:
            # the caches hold the previous model: a short warm-up before every block, the full one before the first
            untimed = warmup if block == 0 else min(2, warmup)
            blocks[name].append(time_runs(sessions[name], feeds[name], warmup=untimed, runs=per_block))
            if settings.spins and len(models) > 1:
                time.sleep(SPINNING_S)
    for name, parts in blocks.items():
        samples[name].passes.append(np.concatenate(parts))
        samples[name].block_ms.extend(float(np.percentile(part, percentile)) for part in parts)
    return [*anchors, anchor.check()]


def _agrees(entry: _Samples, percentile: float) -> bool:
    best = sorted(float(np.percentile(part, percentile)) for part in entry.passes)
    return len(best) < 2 or best[1] <= best[0] * SPELL_RATIO


def _settled(samples: Mapping[str, _Samples], percentile: float) -> bool:
    return all(_agrees(entry, percentile) for entry in samples.values())


def _summary(
    entry: _Samples,
    ratios: np.ndarray,
    percentile: float,
    generator: np.random.Generator,
    calm: Sequence[bool],
    slowdown: float,
) -> Timing:
    everything = np.concatenate(entry.passes)
    per_pass = tuple(float(np.percentile(part, percentile)) for part in entry.passes)
    speedup, low, high = paired_speedup(ratios, generator)
    return Timing(
        n=everything.size,
        median_ms=float(np.median(everything)),
        p10_ms=min(value for value, usable in zip(per_pass, calm, strict=True) if usable or not any(calm)),
        p90_ms=float(np.percentile(everything, 90)),
        pass_p10_ms=per_pass,
        speedup=speedup,
        speedup_low=low,
        speedup_high=high,
        calm=any(calm),
        slowdown=slowdown,
    )


def paired_speedup(
    ratios: np.ndarray, generator: np.random.Generator, *, resamples: int = 1000
) -> tuple[float, float, float]:
    """(median, low, high) of paired ratios; the interval is the 95 % percentile bootstrap over pairs."""
    draws = generator.integers(0, ratios.size, size=(resamples, ratios.size))
    medians = np.median(ratios[draws], axis=1)
    return float(np.median(ratios)), float(np.percentile(medians, 2.5)), float(np.percentile(medians, 97.5))
