"""From kernel rows and a profile to latency, energy and memory, each with an interval and a coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from automc.cost.kernels import KernelGraph, KernelRow


@dataclass(frozen=True)
class Estimate:
    """A predicted quantity. low, high: 90 % interval, same unit. coverage: share of it within the calibrated range.

    source: what it was predicted from (profile and calibration; for energy the counter or model, by name).
    """

    value: float
    low: float
    high: float
    unit: str
    coverage: float
    source: str = ""


@dataclass(frozen=True)
class Costs:
    """Predicted costs of one network on one profile."""

    latency_ms: Estimate
    energy_mj: Estimate
    memory_mb: Estimate


@dataclass(frozen=True)
class KernelCost:
    row: KernelRow
    latency_ms: Estimate
    energy_mj: Estimate


class Predictor(Protocol):
    """Raises UnseenOperatorError (operator and shape) on a kernel class it was not calibrated for: nothing costs 0."""

    def predict(self, graph: KernelGraph) -> Costs: ...

    def kernels(self, graph: KernelGraph) -> Sequence[KernelCost]:
        """One entry per row, in order; their latencies sum to `predict(graph).latency_ms.value`."""
        ...

    def unseen(self, graph: KernelGraph) -> Sequence[KernelRow]:
        """Rows of kernel classes that were never calibrated."""
        ...
