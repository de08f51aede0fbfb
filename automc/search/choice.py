"""Which finalist is taken: by a declared rule among those that meet every constraint."""

from __future__ import annotations

from collections.abc import Sequence

from automc.config import Constraints, Rule
from automc.constraints import Limit, limits_of, unmet
from automc.errors import ConfigError, InfeasibleSearchError
from automc.nearest import nearest
from automc.run import FrontPoint
from automc.trial import Metric, to_minimise

_RULES: dict[str, tuple[Metric, ...]] = {
    "fastest": ("latency_ms",),
    "smallest": ("size_bytes",),
    "most_accurate": ("accuracy",),
    "lowest_energy": ("energy_mj",),
    "knee": ("latency_ms", "accuracy"),
}
"""The figures by which each rule chooses."""


def choose(points: Sequence[FrontPoint], rule: Rule | str, constraints: Constraints) -> FrontPoint:
    """The point that `rule` picks among those meeting every constraint; a candidate id picks itself.

    Raises InfeasibleSearchError (the binding constraint, by how much, the closest candidate) where none meets all, or
    none of those has what the rule chooses by; ConfigError where `rule` is neither a rule nor the id of a finalist.
    """
    by_id = {point.trial.candidate.id: point for point in points}
    if rule in by_id:
        return by_id[rule]
    if rule not in _RULES:
        raise ConfigError(
            f"{rule!r} is no rule ({', '.join(_RULES)}) and no finalist's id{nearest(rule, [*_RULES, *by_id])}",
            next_step=f"give a rule, or an id: {', '.join(by_id) or 'none, no candidate came to the end'}",
        )
    limits = limits_of(constraints)
    feasible = [point for point in points if not unmet(limits, point.figures)]
    if not feasible:
        raise _infeasible(points, limits)
    known = [point for point in feasible if all(metric in point.figures for metric in _RULES[rule])]
    if not known:
        raise InfeasibleSearchError(
            f"{rule} chooses by {' and '.join(_RULES[rule])}, which no finalist that meets every constraint has",
            next_step="choose by another rule, or calibrate the profile for the operators of these networks",
        )
    if rule == "knee":
        return _knee(known)
    (metric,) = _RULES[rule]
    return min(known, key=lambda point: (to_minimise(metric, point.figures[metric]), point.trial.candidate.id))


def _knee(points: Sequence[FrontPoint]) -> FrontPoint:
    """The point nearest to the best of both, latency and accuracy each scaled to 0..1 over the feasible points."""

    def scaled(values: list[float]) -> list[float]:
        low, span = min(values), max(values) - min(values)
        return [0.0 if span == 0 else (value - low) / span for value in values]

    latency = scaled([point.figures["latency_ms"].value for point in points])
    loss = scaled([to_minimise("accuracy", point.figures["accuracy"]) for point in points])
    distance = [x * x + y * y for x, y in zip(latency, loss, strict=True)]
    return points[distance.index(min(distance))]


def _infeasible(points: Sequence[FrontPoint], limits: Sequence[Limit]) -> InfeasibleSearchError:
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
    return InfeasibleSearchError(
        f"no finalist meets every constraint; the binding one is {binding.metric} <= {binding.maximum:g}: "
        f"the closest candidate {closest.trial.candidate.id} ({closest.trial.candidate}) {by}",
        next_step=f"raise constraints.max_{binding.metric.removeprefix('max_')}, widen the space, or give more steps",
    )
