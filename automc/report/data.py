"""What a report shows, and what can be said of it in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from automc.candidate import Candidate, Step
from automc.constraints import Limit, unmet
from automc.cost.predictor import KernelCost
from automc.profiles import HardwareProfile
from automc.run import FrontPoint
from automc.search.fidelity import predicted_ms, rank_correlation
from automc.trial import DISTURBED, Failure, Figure, Metric, Trial


@dataclass(frozen=True)
class KernelTimes:
    """Predicted time of every kernel of one network, in execution order. label: "reference", "chosen", ..."""

    label: str
    kernels: Sequence[KernelCost]


@dataclass(frozen=True)
class ReportData:
    """One finished run.

    model: what was compressed, in words. points: every re-measured finalist. rungs: every trial of each rung, failed
    ones included, lowest rung first; rung_steps: optimiser steps a candidate has had by the end of each.
    screened: candidates dropped before any work. anchors: candidate id to the name of its anchor.
    saves: per technique, what its class declares. conditions: label to value, shown as they are, in order.
    """

    title: str
    model: str
    profile: HardwareProfile
    points: Sequence[FrontPoint]
    rungs: Sequence[Sequence[Trial]]
    rung_steps: Sequence[int]
    screened: Sequence[tuple[Candidate, Failure]] = ()
    anchors: Mapping[str, str] = field(default_factory=dict)
    saves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kernels: Sequence[KernelTimes] = ()
    limits: Sequence[Limit] = ()
    conditions: Mapping[str, str] = field(default_factory=dict)
    metric: str = "accuracy"

    def point(self, anchor: str) -> FrontPoint | None:
        return next((point for point in self.points if point.anchor == anchor), None)

    @property
    def chosen(self) -> FrontPoint | None:
        return next((point for point in self.points if point.chosen), None)


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of a change over several comparisons."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Effect:
    """What adding `technique` changed, over `pairs` of candidates of one rung that differ in it alone.

    latency, size: per cent of the candidate without it (negative is less); latency is None where no pair's is known.
    accuracy: points (of the metric) more than without it, which is worse where the metric is an error.
    """

    technique: str
    rung: int
    pairs: int
    latency: Spread | None
    size: Spread
    accuracy: Spread


def effects(rungs: Sequence[Sequence[Trial]]) -> list[Effect]:
    """One effect per technique, from the highest rung that holds a pair; techniques without any pair are left out."""
    found: dict[str, Effect] = {}
    for rung, trials in reversed(list(enumerate(rungs))):
        by_steps = {trial.candidate.steps: trial for trial in trials if trial.ok}
        pairs: dict[str, list[tuple[Trial, Trial]]] = {}
        for steps, trial in by_steps.items():
            for technique in {step.technique for step in steps}:
                without = by_steps.get(_without(steps, technique))
                if without is not None and without.candidate.architecture == trial.candidate.architecture:
                    pairs.setdefault(technique, []).append((without, trial))
        for technique, compared in pairs.items():
            if technique not in found:
                found[technique] = _effect(technique, rung, compared)
    return sorted(found.values(), key=lambda effect: math.inf if effect.latency is None else effect.latency.middle)


def _without(steps: tuple[Step, ...], technique: str) -> tuple[Step, ...]:
    return tuple(step for step in steps if step.technique != technique)


def _effect(technique: str, rung: int, pairs: Sequence[tuple[Trial, Trial]]) -> Effect:
    def percent(metric: Metric, among: Sequence[tuple[Trial, Trial]]) -> Spread:
        return Spread.of([100 * (after[metric].value / before[metric].value - 1) for before, after in among])

    known = [pair for pair in pairs if all("latency_ms" in (trial.figures or {}) for trial in pair)]
    latency = percent("latency_ms", known) if known else None
    gained = [points(after["accuracy"]) - points(before["accuracy"]) for before, after in pairs]
    return Effect(technique, rung, len(pairs), latency, percent("size_bytes", pairs), Spread.of(gained))


def orders(rungs: Sequence[Sequence[Trial]]) -> list[list[Trial]]:
    """Successful candidates of the highest rung that holds any, which take the same steps in different orders."""
    for trials in reversed(rungs):
        groups: dict[tuple[str, tuple[Step, ...]], list[Trial]] = {}
        for trial in trials:
            if trial.ok:
                same = tuple(sorted(trial.candidate.steps, key=lambda step: (step.technique, step.params_json)))
                groups.setdefault((trial.candidate.architecture_json, same), []).append(trial)
        found = [group for group in groups.values() if len({trial.candidate.steps for trial in group}) > 1]
        if found:
            return [sorted(group, key=predicted_ms) for group in found]
    return []


@dataclass(frozen=True)
class Foresight:
    """How far the order of accuracies at one rung was that at the next: Spearman's rank correlation over the `shared`
    candidates that came through both; None where those are fewer than three, or all alike.
    """

    correlation: float | None
    shared: int

    @property
    def words(self) -> str:
        if self.correlation is None:
            return f"unknown ({self.shared} in both)"
        return f"{self.correlation:.2f} over {self.shared}"


def foresight(rungs: Sequence[Sequence[Trial]]) -> list[Foresight | None]:
    """One for each rung, None for the last."""
    keyed = [{trial.candidate.id: trial for trial in trials if trial.ok} for trials in rungs]
    found: list[Foresight | None] = [
        Foresight(rank_correlation(lower, upper, "accuracy"), len(lower.keys() & upper.keys()))
        for lower, upper in pairwise(keyed)
    ]
    return [*found, None] if rungs else []


def points(figure: Figure) -> float:
    """The value in points: hundredths where the figure is a fraction or an error, as it is otherwise."""
    return 100 * figure.value if figure.unit == "fraction" or figure.direction == "min" else figure.value


MISSED = 1.3
"""Times as long, or as short, as predicted, beyond which it is said."""


@dataclass(frozen=True)
class Said:
    """The result in words: one headline and the sentences that go with it."""

    headline: str
    sentences: tuple[str, ...]


def in_words(data: ReportData) -> Said:
    """What came out, honestly: a tie is called a tie, and an unmet constraint unmet."""
    reference, chosen = data.point("reference"), data.chosen
    if not data.points:
        return Said("No candidate reached the last rung", ("The failures below say why.",))
    if chosen is None:
        return Said("No finalist meets every constraint", tuple(_broken(data)))
    sentences = [*_beside_reference(chosen, reference), *_beside_int8(data, chosen)]
    if chosen.anchor not in (None, "reference"):
        sentences.append(f"It is the anchor {chosen.anchor}: the search found nothing better than this obvious chain.")
    sentences += [*_download_only(data, chosen), *_predicted_wrongly(data)]
    if reference is None:
        return Said(f"Chosen: {chosen.trial.candidate}", tuple(sentences))
    if chosen is reference or "speedup" not in chosen.figures:
        return Said("Nothing within the constraints beats the reference", tuple(sentences))
    speedup = chosen.figures["speedup"]
    if speedup.low <= 1.0:
        return Said("The chosen network is not faster than the reference by more than the noise", tuple(sentences))
    return Said(f"{speedup.value:.3g} times as fast, {_drop_words(chosen)}", tuple(sentences))


def _predicted_wrongly(data: ReportData) -> list[str]:
    """Says so where a finalist took a time that its prediction had ruled out, and by far."""
    missed = []
    for point in data.points:
        measured, predicted = point.figures.get("latency_ms"), point.figures.get("predicted_latency_ms")
        if measured is None or predicted is None or DISTURBED in (measured.source or ""):
            continue
        ratio = measured.value / predicted.value
        outside = not predicted.low <= measured.value <= predicted.high
        if outside and max(ratio, 1 / ratio) > MISSED:
            missed.append((max(ratio, 1 / ratio), point, predicted.value, measured.value))
    if not missed:
        return []
    factor, worst, predicted_ms, measured_ms = max(missed, key=lambda entry: entry[0])
    return [
        f"Latency was predicted wrongly for {len(missed)} of {len(data.points)} finalists, at worst by a factor of "
        f"{factor:.1f} ({worst.trial.candidate}: {predicted_ms:#.3g} ms predicted, {measured_ms:#.3g} ms measured), so "
        "candidates may have been left out that are faster than these: calibrate in full (automc profile calibrate), "
        "then search again."
    ]


def _drop_of(point: FrontPoint) -> Figure | None:
    return point.figures.get("test_drop_points") or point.figures.get("drop_points")


def _drop_words(point: FrontPoint) -> str:
    drop = _drop_of(point)
    if drop is None:
        return "accuracy unknown"
    if drop.low <= 0 <= drop.high:
        return f"at an {'error' if is_error(point) else 'accuracy'} that ties with the reference"
    return f"{abs(drop.value):.1f} points {side(point, drop)} the reference"


def is_error(point: FrontPoint) -> bool:
    """Whether the figure called accuracy is an error, of which less is better."""
    return point.figures["accuracy"].direction == "min"


def side(point: FrontPoint, drop: Figure) -> str:
    """On which side of the reference a drop lies: a worse accuracy is below it, a worse error is not."""
    if is_error(point):
        return "worse than" if drop.value > 0 else "better than"
    return "below" if drop.value > 0 else "above"


def _beside_reference(chosen: FrontPoint, reference: FrontPoint | None) -> list[str]:
    if reference is None or chosen is reference:
        return []
    said = []
    if {"latency_ms", "speedup"} <= chosen.figures.keys() and "latency_ms" in reference.figures:
        speedup = chosen.figures["speedup"]
        mine, theirs = chosen.figures["latency_ms"].value, reference.figures["latency_ms"].value
        said.append(
            f"Speed-up {speedup.low:.2f} to {speedup.high:.2f}, by blocks of runs that took turns; "
            f"10th percentiles {mine:#.3g} ms against {theirs:#.3g} ms."
        )
        source = chosen.figures["latency_ms"].source or ""
        if DISTURBED in source:
            said.append("The machine was disturbed all the while: these latencies are too slow by an unknown factor.")
    drop = _drop_of(chosen)
    if drop is not None:
        noun, where = ("The error", "is") if is_error(chosen) else ("Accuracy", "lies")
        said.append(
            f"{noun} on the {drop.split} split is the reference's (drop {drop.low:+.2f} to {drop.high:+.2f} at 95 %, "
            f"paired over n {drop.n})."
            if drop.value == 0
            else f"{noun} on the {drop.split} split {where} {abs(drop.value):.2f} points {side(chosen, drop)} the "
            f"reference's (drop {drop.low:+.2f} to {drop.high:+.2f} at 95 %, paired over n {drop.n})."
        )
    if "size_bytes" in chosen.figures and "size_bytes" in reference.figures:
        ratio = reference.figures["size_bytes"].value / chosen.figures["size_bytes"].value
        said.append(f"The file is {ratio:.1f} times smaller." if ratio > 1 else "The file is not smaller.")
    return said


def faster(one: FrontPoint, other: FrontPoint, noise_percent: float) -> bool:
    """Whether `one` is faster by more than the noise: intervals of the speed-up apart, and beyond the noise floor.

    Nothing is, where a disturbed machine was all there was to measure on.
    """
    if "speedup" not in one.figures or "speedup" not in other.figures:
        return False
    first, second = one.figures["speedup"], other.figures["speedup"]
    if any(DISTURBED in (point.figures["latency_ms"].source or "") for point in (one, other)):
        return False
    return first.low > second.high and first.value > second.value * (1 + noise_percent / 100)


def _beside_int8(data: ReportData, chosen: FrontPoint) -> list[str]:
    int8 = data.point("int8")
    if int8 is None or "speedup" not in int8.figures:
        return []
    if unmet(data.limits, int8.figures):
        return ["Plain int8 of the reference does not meet the constraints."]
    better = [
        p
        for p in data.points
        if not unmet(data.limits, p.figures) and faster(p, int8, data.profile.noise_floor_percent)
    ]
    if not better:
        return ["Nothing that meets the constraints beats plain int8 by more than the noise."]
    best = chosen if chosen in better else better[0]
    gain = best.figures["speedup"].value / int8.figures["speedup"].value
    name = "It" if best is chosen else f"{best.trial.candidate}"
    return [f"{name} is {gain:.2f} times as fast as plain int8 of the reference, beyond the noise."]


def _download_only(data: ReportData, chosen: FrontPoint) -> list[str]:
    used = [step.technique for step in chosen.trial.candidate.steps]
    only = [name for name in dict.fromkeys(used) if set(data.saves.get(name, ())) == {"download"}]
    verb = "saves" if len(only) == 1 else "save"
    return [f"{', '.join(only)} {verb} only download: a smaller coded file, no time and no memory."] if only else []


def _broken(data: ReportData) -> list[str]:
    said = []
    for limit in data.limits:
        known = [point.figures[limit.metric] for point in data.points if limit.metric in point.figures]
        if not known:
            said.append(f"{limit.metric} is unknown for every finalist, and unknown is not met.")
        elif all(figure.value > limit.maximum for figure in known):
            best = min(figure.value for figure in known)
            said.append(f"{limit.metric} should be at most {limit.maximum:g}; the best finalist has {best:.4g}.")
    return said or ["Each constraint is met by some finalist, but no finalist meets all."]
