"""Which finalist is taken: by a declared rule among those that meet every constraint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from automc.candidate import Candidate
from automc.config import Constraints, Rule
from automc.constraints import Interval, Limit, limits_of, unmet
from automc.errors import ConfigError, InfeasibleSearchError
from automc.nearest import nearest
from automc.run import FrontPoint
from automc.trial import Figure, Metric, to_minimise

RULES: dict[str, tuple[Metric, ...]] = {
    "fastest": ("latency_ms",),
    "smallest": ("size_bytes",),
    "most_accurate": ("accuracy",),
    "lowest_energy": ("energy_mj",),
    "knee": ("latency_ms", "accuracy"),
}
"""The figures by which each rule chooses."""


@dataclass(frozen=True)
class Prospect:
    """A candidate that is not among those to choose from, and what its costs are predicted to be.

    why: what kept it out, as the end of a sentence ("screened out before training").
    """

    candidate: Candidate
    predicted: dict[Metric, Interval]
    why: str


def choose(
    points: Sequence[FrontPoint],
    rule: Rule | str,
    constraints: Constraints,
    *,
    prospects: Callable[[], Sequence[Prospect]] = tuple,
    noun: str = "finalist",
) -> FrontPoint:
    """The point that `rule` picks among those meeting every constraint; a candidate id picks itself.

    rule: hyphens may stand for underscores. prospects: asked where nothing meets the constraints: of them the
    one that is predicted to come closer, if any, is named as well. noun: what messages call a point.
    Raises InfeasibleSearchError (the binding constraint, by how much, the closest candidate) where none meets all, or
    none of those has what the rule chooses by; ConfigError where `rule` is neither a rule nor the id of a point.
    """
    by_id = {point.trial.candidate.id: point for point in points}
    if rule in by_id:
        return by_id[rule]
    named = rule.replace("-", "_")
    if named not in RULES:
        raise ConfigError(
            f"{rule!r} is no rule ({', '.join(RULES)}) and no {noun}'s id{nearest(rule, [*RULES, *by_id])}",
            next_step=f"give a rule, or an id: {', '.join(by_id) or 'none, no candidate came to the end'}",
        )
    limits = limits_of(constraints)
    feasible = [point for point in points if not unmet(limits, point.figures)]
    if not feasible:
        raise _infeasible(points, limits, prospects(), noun)
    known = [point for point in feasible if all(metric in point.figures for metric in RULES[named])]
    if not known:
        raise InfeasibleSearchError(
            f"{named} chooses by {' and '.join(RULES[named])}, which no {noun} that meets every constraint has",
            next_step="choose by another rule, or calibrate the profile for the operators of these networks",
        )
    if named == "knee":
        return _knee(known)
    (metric,) = RULES[named]
    return min(known, key=lambda point: (to_minimise(metric, point.figures[metric]), *_of_two_equals(point)))


def _of_two_equals(point: FrontPoint) -> tuple[float, float, str]:
    """What decides between points alike in what a rule chooses by: size, then predicted latency, then the id.

    No measured time: a resumed run measures again and has to decide alike.
    """
    size, latency = (point.figures.get(metric) for metric in ("size_bytes", "predicted_latency_ms"))
    return (
        math.inf if size is None else size.value,
        math.inf if latency is None else latency.value,
        point.trial.candidate.id,
    )


def _knee(points: Sequence[FrontPoint]) -> FrontPoint:
    """The point nearest to the best of both, latency and accuracy each scaled to 0..1 over the feasible points."""

    def scaled(values: list[float]) -> list[float]:
        low, span = min(values), max(values) - min(values)
        return [0.0 if span == 0 else (value - low) / span for value in values]

    latency = scaled([point.figures["latency_ms"].value for point in points])
    loss = scaled([to_minimise("accuracy", point.figures["accuracy"]) for point in points])
    distance = [x * x + y * y for x, y in zip(latency, loss, strict=True)]
    return points[distance.index(min(distance))]


def _infeasible(
    points: Sequence[FrontPoint], limits: Sequence[Limit], prospects: Sequence[Prospect], noun: str
) -> InfeasibleSearchError:
    """Names the limit that most points break, and the candidate whose excess over all limits is smallest."""

    def excess(point: FrontPoint) -> float:
        figures = [(limit, point.figures.get(limit.metric)) for limit in limits]
        return sum(1.0 if figure is None else limit.excess(figure) for limit, figure in figures)

    if not points:
        return InfeasibleSearchError(
            "no candidate reached the last rung", next_step="see the failures: automc report RUN"
        )
    binding = max(limits, key=lambda limit: sum(bool(unmet([limit], point.figures)) for point in points))
    closest = min(points, key=excess)
    figure = closest.figures.get(binding.metric)
    by = (
        "is unknown"
        if figure is None
        else f"has {figure.value:.4g} {figure.unit}, {figure.value - binding.maximum:.4g} too much"
    )
    also = [limit for limit in unmet(limits, closest.figures) if limit.metric != binding.metric]
    if also:
        by += "; it also breaks " + ", ".join(
            _excess_in_words(limit, closest.figures.get(limit.metric)) for limit in also
        )
    return InfeasibleSearchError(
        f"no {noun} meets every constraint; the binding one is {binding.metric} <= {binding.maximum:g}: "
        f"the closest {noun} {closest.trial.candidate.id} ({closest.trial.candidate}) {by}"
        + _closer(prospects, binding, None if figure is None else figure.value),
        next_step=_taking(closest, limits)
        + f"raise constraints.max_{binding.metric.removeprefix('max_')}, widen the space, or give more steps",
    )


def _taking(closest: FrontPoint, limits: Sequence[Limit]) -> str:
    """The command that takes the closest one after all; "" where what it breaks is unknown."""
    broken = [(limit, closest.figures.get(limit.metric)) for limit in unmet(limits, closest.figures)]
    if any(figure is None for _, figure in broken):
        return ""
    options = [
        f"--max-{limit.metric.replace('drop_points', 'drop').replace('_', '-')} {_rounded_up(figure.value):g}"
        for limit, figure in broken
        if figure is not None
    ]
    return f"automc front RUN {' '.join(options)} --pick {closest.trial.candidate.id} takes that one; else "


def _rounded_up(value: float) -> float:
    """To three significant digits, never down: 0.12341 to 0.124."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    return math.ceil(value / unit - 1e-9) * unit


def _excess_in_words(limit: Limit, figure: Figure | None) -> str:
    return f"{limit.metric} <= {limit.maximum:g} (has {'nothing known' if figure is None else f'{figure.value:.4g}'})"


def _closer(prospects: Sequence[Prospect], binding: Limit, best: float | None) -> str:
    """The prospect that is predicted to come closest to the binding limit, where it comes closer than `best`."""
    known = [(item, item.predicted[binding.metric]) for item in prospects if binding.metric in item.predicted]
    closer = [(item, figure) for item, figure in known if best is None or figure.value < best]
    if not closer:
        return ""
    item, figure = min(closer, key=lambda pair: (pair[1].value, pair[0].candidate.id))
    over = figure.value - binding.maximum
    return (
        f"; {item.candidate.id} ({item.candidate}), {item.why}, is predicted to have {figure.value:.4g} "
        f"({figure.low:.4g} to {figure.high:.4g}), {f'{over:.4g} too much' if over > 0 else 'which would meet it'}"
    )
