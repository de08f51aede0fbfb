"""Times the networks of a calibration under one anchor, and keeps what was timed if it is interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from automc.cost.fit import Observation
from automc.cost.kernels import KernelGraph
from automc.errors import MeasurementError
from automc.measure.anchor import BEST_PERCENTILE, Anchor
from automc.measure.batch import Pass, calm_ms, measure_batch, noise_floor
from automc.measure.networks import Sample
from automc.measure.sessions import SessionSettings
from automc.measure.unfinished import Unfinished

TOLERATED = (25.0, 50.0, 75.0)
"""Percentiles of the anchor taken for calm, one after the other, where too little met the machine at its best."""
RETESTED = 16
ENOUGH = 0.75  # share of a batch that has to be timed on a calm machine before the rest is let go
SAVED_EVERY_S = 5.0


class Stopwatch:
    """All passes of a calibration under one anchor: a spell judged calm early can be judged again at the end."""

    def __init__(
        self, settings: SessionSettings, anchor: Anchor, tell: Callable[[str, float], None], kept: Unfinished
    ) -> None:
        """kept: what an interrupted calibration left, which is gone on with; tell: given a stage and its share."""
        self.settings, self.anchor, self.tell, self.kept = settings, anchor, tell, kept
        self._graphs: dict[str, KernelGraph] = {}
        anchor.history[:0] = kept.anchor_ms

    @property
    def passes(self) -> dict[str, list[Pass]]:
        """Of every model, in the order of timing."""
        return self.kept.passes

    def time(
        self, stage: str, samples: Sequence[Sample], passes: int, budget_s: float, seed: int, *, calm: int = 1
    ) -> None:
        """Time those of `samples` of which fewer than `calm` calm passes are known, in the rest of the budget."""
        todo = {sample.name: sample.model for sample in samples if len(self._calm(sample)) < calm}
        before, start, saved = self.spent_s(stage, seed), time.monotonic(), time.monotonic()
        if before >= budget_s:
            return

        def keep() -> None:
            nonlocal saved
            saved = time.monotonic()
            self.kept.spent_s[_named(stage, seed)] = before + saved - start
            self.kept.save(self.anchor.history)

        def note(done: int, total: int) -> None:
            self.tell(stage, done / total)
            if time.monotonic() - saved > SAVED_EVERY_S:
                keep()

        try:
            measure_batch(
                todo,
                self.settings,
                self.anchor,
                passes=passes,
                budget_s=budget_s - before,
                seed=seed,
                progress=note,
                taken=lambda model, entry: self.passes.setdefault(model, []).append(entry),
            )
        finally:
            keep()

    def enough(self, *groups: Sequence[Sample]) -> bool:
        """Whether ENOUGH of every group met a calm machine, or one at the speed that has to be taken for its usual one.

        What was timed stays and is judged again, so nothing is timed anew only because neighbours never rest.
        """
        if any(sum(sample.name in self.passes for sample in group) < ENOUGH * len(group) for group in groups):
            return False  # the clock ran out, whatever the neighbours did
        for percentile in (BEST_PERCENTILE, *TOLERATED):
            self.anchor.tolerate(percentile)
            if all(self.share(group) >= ENOUGH for group in groups):
                return True
        return False

    def share(self, samples: Sequence[Sample]) -> float:
        """Share of `samples` that met a calm machine."""
        return sum(bool(self._calm(sample)) for sample in samples) / len(samples)

    def require(self, samples: Sequence[Sample], least: float = 0.5) -> None:
        if self.share(samples) < least:
            self.kept.discard()  # going on from it would end here again
            raise MeasurementError(
                f"the machine is too busy: {self.share(samples):.0%} of {len(samples)} models were timed undisturbed",
                next_step="close what else runs on this machine, then: automc profile calibrate host",
            )

    def spent_s(self, stage: str, seed: int) -> float:
        """Seconds this stage has had, those of an interrupted calibration included."""
        return self.kept.spent_s.get(_named(stage, seed), 0.0)

    def read(self, samples: Sequence[Sample]) -> float:
        """Read the kernel graphs of those that were timed and not read yet; returns the seconds that took."""
        from automc.cost.graph import graph_from_onnx

        start = time.monotonic()
        for number, sample in enumerate(samples):
            if sample.name in self.passes and sample.name not in self._graphs:
                self._graphs[sample.name] = graph_from_onnx(onnx.load_from_string(sample.model))
            self.tell("reading graphs", (number + 1) / len(samples))
        return time.monotonic() - start

    def observe(self, samples: Sequence[Sample]) -> list[tuple[Sample, Observation]]:
        """What was timed calmly, with its kernel rows."""
        calm = [(sample, found) for sample in samples if (found := self._calm(sample))]
        self.read([sample for sample, _ in calm])
        return [(sample, Observation(self._graphs[sample.name], min(found))) for sample, found in calm]

    def retest(self, samples: Sequence[Sample], seed: int) -> tuple[float, float]:
        """(percent, milliseconds) between timings of the same network, 90th percentile.

        Between the calm passes that it was given, minutes apart, and for RETESTED of them, between these and new ones.
        """
        calm = [sample for sample in samples if self._calm(sample)]
        chosen = [calm[index] for index in np.random.default_rng(seed).permutation(len(calm))[:RETESTED]]
        before = {sample.name: min(self._calm(sample)) for sample in chosen}
        self.tell("measuring the noise floor", 0.0)
        models = {sample.name: sample.model for sample in chosen}
        again = measure_batch(models, self.settings, self.anchor, passes=2, budget_s=6.0, seed=seed)
        after = {name: calm_ms(entries, self.anchor) for name, entries in again.items()}
        pairs = [(before[name], min(values)) for name, values in after.items() if values]
        passes = [self._calm(sample)[:2] for sample in samples]
        pairs += [(found[0], found[1]) for found in passes if len(found) == 2]
        if not pairs:
            self.kept.discard()
            raise MeasurementError(
                "the machine is too busy: the noise floor could not be measured",
                next_step="close what else runs on this machine, then: automc profile calibrate host",
            )
        return noise_floor([first for first, _ in pairs], [second for _, second in pairs])

    def _calm(self, sample: Sample) -> list[float]:
        return calm_ms(self.passes.get(sample.name, ()), self.anchor)


def _named(stage: str, seed: int) -> str:
    return f"{stage}, seed {seed}"
