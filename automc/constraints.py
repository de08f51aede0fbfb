"""Limits, judged in three values: met, broken or unknown. Unknown is not satisfied (law 2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from automc.trial import Figure, Metric

if TYPE_CHECKING:
    from automc.config import Constraints, SearchConfig

PREDICTED: frozenset[Metric] = frozenset({"latency_ms", "energy_mj", "memory_mb"})
"""Costs that a predictor says, all of them or none: one operator it was not calibrated for leaves every sum unknown."""


class Verdict(Enum):
    MET = "met"
    BROKEN = "broken"
    UNKNOWN = "unknown"


class Interval(Protocol):
    """Anything with a point value and an interval in one unit: an Estimate or a Figure."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


@dataclass(frozen=True)
class Limit:
    """`metric` must not exceed `maximum` (same unit as the metric)."""

    metric: Metric
    maximum: float

    def judge(self, figure: Interval | None) -> Verdict:
        """By the point value; a figure nobody has is unknown."""
        if figure is None:
            return Verdict.UNKNOWN
        return Verdict.MET if figure.value <= self.maximum else Verdict.BROKEN

    def certainly_broken(self, figure: Interval) -> bool:
        """Whether the whole interval lies beyond the limit: the only ground for dropping a candidate unseen."""
        return figure.low > self.maximum

    def excess(self, figure: Interval) -> float:
        """How far beyond the limit, as a share of it; 0 where it is met."""
        return max(0.0, figure.value - self.maximum) / max(abs(self.maximum), 1e-12)


def limits_of(constraints: Constraints) -> tuple[Limit, ...]:
    """The limits that are set, in the order of the config's keys."""
    metrics: dict[str, Metric] = {
        "max_drop_points": "drop_points",
        "max_latency_ms": "latency_ms",
        "max_energy_mj": "energy_mj",
        "max_memory_mb": "memory_mb",
        "max_size_bytes": "size_bytes",
    }
    values = ((metric, getattr(constraints, key)) for key, metric in metrics.items())
    return tuple(Limit(metric, float(value)) for metric, value in values if value is not None)


def needed_of(config: SearchConfig) -> frozenset[Metric]:
    """Metrics that objectives, limits or the rule of choice rest on: a candidate without one of them cannot be judged.

    Rules by latency rest on the measured one, which every finalist has.
    """
    by_rule: frozenset[Metric] = frozenset({"energy_mj"} if config.choose == "lowest_energy" else ())
    return frozenset(config.objectives) | {limit.metric for limit in limits_of(config.constraints)} | by_rule


def unmet(limits: Iterable[Limit], figures: Mapping[str, Figure] | Mapping[Metric, Figure]) -> list[Limit]:
    """The limits that are not known to be met: broken ones, and those on a figure nobody has."""
    return [limit for limit in limits if limit.judge(figures.get(limit.metric)) is not Verdict.MET]
