"""Many models, each timed in calm spells only, in passes spread over time: what calibration is made of."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from automc.measure.anchor import Anchor, measure_once
from automc.measure.sessions import Model, SessionSettings


@dataclass(frozen=True)
class Pass:
    """One pass of one model: its percentile, and the slower of the anchors before and after it, milliseconds."""

    latency_ms: float
    anchor_ms: float


def calm_ms(passes: Sequence[Pass], anchor: Anchor) -> list[float]:
    """Latencies of the passes that met a calm machine, in order."""
    return [entry.latency_ms for entry in passes if anchor.is_calm(entry.anchor_ms)]


MAX_ATTEMPTS = 6
WAITING_SHARE = 0.2  # of a budget: where neighbours never rest, waiting for calm would spend all of it


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
    taken: Callable[[str, Pass], None] | None = None,
) -> dict[str, list[Pass]]:
    """Time many models, each in `passes` calm passes if the budget allows; every pass in a new random order.

    A pass beside a slow anchor is put back at the end of the queue, and stays in the answer: a spell that looked calm
    may turn out not to have been. budget_s: wall clock; models the first pass did not reach are missing from the
    answer, so with a budget it is a random part of `models`. At most WAITING_SHARE of it is spent waiting for calm.
    taken: told every pass as soon as the anchor after it is known, so that an interruption loses no more than a spell.
    """
    generator = np.random.default_rng(seed)
    names = list(models)
    found: dict[str, list[Pass]] = {}
    start, waited = time.monotonic(), 0.0
    for number in range(passes):
        queue = deque(names[index] for index in generator.permutation(len(names)))
        before = anchor.check()
        while queue and (budget_s is None or time.monotonic() - start < budget_s):
            if not anchor.is_calm(before) and (budget_s is None or waited < WAITING_SHARE * budget_s):
                asked = time.monotonic()
                before = anchor.wait()
                waited += time.monotonic() - asked
            spell: list[tuple[str, float]] = []
            began = time.monotonic()
            while queue and (not spell or time.monotonic() - began < anchor.spell_s):
                name = queue.popleft()
                value, _ = measure_once(models[name], settings, warmup=warmup, runs=runs, percentile=percentile)
                spell.append((name, value))
            after = anchor.check()
            for name, value in spell:
                entries = found.setdefault(name, [])
                entries.append(Pass(value, max(before, after)))
                if taken is not None:
                    taken(name, entries[-1])
                if len(calm_ms(entries, anchor)) <= number and len(entries) < MAX_ATTEMPTS * passes:
                    queue.append(name)
            before = after
            if progress is not None:
                total = len(names) * passes
                spent = 0.0 if budget_s is None else min(1.0, (time.monotonic() - start) / budget_s)
                # beside neighbours most models go back into the queue, and it is the clock that comes to an end
                progress(max(len(names) * (number + 1) - len(queue), int(total * spent)), total)
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
