"""From kernel rows and a profile to latency, energy and memory, each with an interval and a coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from automc.cost.caches import Far, far_share
from automc.cost.calibration import Calibration, Interval, load_calibration, memory_parts
from automc.cost.energy import MODEL_INTERVAL, MODEL_NAME
from automc.cost.features import kernel_class
from automc.cost.fit import SESSION, Parts, in_range, seen_from
from automc.cost.kernels import KernelGraph, KernelRow
from automc.errors import UnseenOperatorError
from automc.profiles import HardwareProfile
from automc.trial import Figure, Metric

if TYPE_CHECKING:
    from automc.cost.lowering import Level


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

    def by_metric(self) -> dict[Metric, Estimate]:
        return {"latency_ms": self.latency_ms, "energy_mj": self.energy_mj, "memory_mb": self.memory_mb}

    def figures(self, rung: int | None) -> dict[Metric, Figure]:
        """As figures of a candidate at `rung`, each with its interval and what it was predicted from."""
        return {
            metric: Figure(
                item.value, item.low, item.high, item.unit, "predicted",
                rung=rung, coverage=item.coverage, source=item.source,
            )
            for metric, item in self.by_metric().items()
        }  # fmt: skip


@dataclass(frozen=True)
class KernelCost:
    row: KernelRow
    latency_ms: Estimate
    energy_mj: Estimate


class Predictor(Protocol):
    """Raises UnseenOperatorError (operator and shape) on a kernel class it was not calibrated for: nothing costs 0."""

    @property
    def level(self) -> Level:
        """How graphs are to be read for it: as this host executes them, or in the form that every device shares."""
        ...

    def predict(self, graph: KernelGraph) -> Costs: ...

    def kernels(self, graph: KernelGraph) -> Sequence[KernelCost]:
        """One entry per row, in order; their latencies sum to `predict(graph).latency_ms.value`."""
        ...

    def unseen(self, graph: KernelGraph) -> Sequence[KernelRow]:
        """Rows of kernel classes that were never calibrated."""
        ...


def advice_on(unseen: Sequence[KernelRow], profile: HardwareProfile) -> str:
    """What to do about kernels that `profile` was never calibrated for."""
    if profile.imported is None:
        return f"on that machine, automc doctor CONFIG --profile {profile.name} --calibrate times them"
    if any(row.precision == "int8" for row in unseen):
        return "the table this device comes from knows float networks alone: predict the float model on it"
    return "measure networks with these operators on that device and import them, or leave them out of the model"


UNTOLD = Interval(low=1 / 12, high=6.0)
"""Of its price, what work may take of which no measurement tells. Without the seven networks that have most work in
linear layers, tables of 18 devices price these layers so that the whole tables say 0.26 to 4.5 times as much."""


class CalibratedPredictor:
    """Costs from a stored calibration: non-negative physical features per kernel class, no hidden state.

    Kernel costs are remembered by signature, so that predicting an edited graph costs what changed.
    """

    def __init__(self, profile: HardwareProfile, calibration: Calibration) -> None:
        self.profile = profile
        self._calibration = calibration
        self._fit = calibration.fit()
        self._energy = calibration.energy()
        self._session_ms = self._fit.coefficients.get(SESSION, 0.0)
        self._known: dict[KernelRow, tuple[Parts, bool]] = {}
        # a class without a range: the table tells nothing of it, and its price is a guess
        self._untold = frozenset(
            kind
            for kind, known in self._fit.ranges.items()
            if any(known.low[name] > known.high[name] for name in known.low)
        )
        self._source = (
            f"{profile.name}: {profile.calibration} calibration {profile.calibration_digest[:12]}, "
            f"{profile.fingerprint.runtime} {profile.fingerprint.runtime_version}, {profile.threads} thread"
            + ("s" if profile.threads > 1 else "")
        )

    def predict(self, graph: KernelGraph) -> Costs:
        """Costs of a whole network. Raises UnseenOperatorError naming every class that was never calibrated."""
        parts = self._parts(graph)
        latency = sum(latency for latency, _, _ in parts)
        covered = sum(latency for latency, _, inside in parts if inside)
        energy = sum(energy for _, energy, _ in parts)
        coverage = covered / latency if latency else 1.0
        told = sum(ms for row, (ms, _, _) in zip(graph.rows, parts, strict=True) if self.kind(row) not in self._untold)
        share = told / latency if latency else 1.0
        estimate = self._latency(latency, coverage, self._interval(graph), share)
        return Costs(
            # networks much smaller than any that was fitted: their time may be what every run takes, and nothing else
            replace(estimate, high=estimate.high + (1.0 - coverage) * self._calibration.unresolved_ms),
            self._joules(energy, coverage, share),
            self._memory(graph),
        )

    def kernels(self, graph: KernelGraph) -> Sequence[KernelCost]:
        """One entry per row; the overhead of calling the session is spread evenly over the rows."""
        costs = []
        for row, (latency, energy, inside) in zip(graph.rows, self._parts(graph), strict=True):
            spread = self._fit.spread.get(kernel_class(row, self._fit.machine), 0.0)
            interval = Interval(low=1 / (1 + spread), high=1 + spread)
            coverage = 1.0 if inside else 0.0
            told = 0.0 if self.kind(row) in self._untold else 1.0
            price = self._latency(latency, coverage, interval, told)
            costs.append(KernelCost(row, price, self._joules(energy, coverage, told)))
        return costs

    @property
    def level(self) -> Level:
        return "all" if self._fit.machine.columns == "tiles" else "extended"

    def unseen(self, graph: KernelGraph) -> Sequence[KernelRow]:
        return [row for row in graph.rows if self.kind(row) not in self._fit.ranges]

    def kind(self, row: KernelRow) -> str:
        """The kernel class that the row is calibrated by."""
        return kernel_class(row, self._fit.machine)

    def _parts(self, graph: KernelGraph) -> list[tuple[float, float, bool]]:
        """(milliseconds, millijoules, within the calibrated range) per row."""
        missing = self.unseen(graph)
        if missing:
            seen = {f"{kernel_class(row, self._fit.machine)} {shapes_of(row)}" for row in missing}
            raise UnseenOperatorError(
                f"profile {self.profile.name!r} was never calibrated for " + "; ".join(sorted(seen)),
                next_step=advice_on(missing, self.profile),
            )
        far = far_share(graph, self._fit.machine)
        share = self._session_ms / len(graph.rows) if graph.rows else 0.0
        parts = []
        for row in graph.rows:
            own, inside = self._row(row)
            latency = own.at(far) + share
            parts.append((latency, self._kernel_mj(row, latency, far, 1.0 / len(graph.rows)), inside))
        return parts

    def _kernel_mj(self, row: KernelRow, latency_ms: float, far: Far, session: float) -> float:
        """session: the kernel's share of calling the session."""
        measured = self._calibration.measured_energy
        if measured is None:
            return self._energy.kernel_mj(row, latency_ms, far.own)
        return measured.kernel_mj({**seen_from(row, self._fit.machine, far), SESSION: session}, latency_ms)

    def _row(self, row: KernelRow) -> tuple[Parts, bool]:
        """As `Fit.row_parts`, and whether the kernel lies within the calibrated range."""
        known = self._known.get(row)
        if known is None:
            known = (self._fit.row_parts(row), in_range(row, self._fit.ranges[self.kind(row)]))
            self._known[row] = known
        return known

    def _interval(self, graph: KernelGraph) -> Interval:
        integer = any(row.precision == "int8" and row.macs for row in graph.rows)
        return self._calibration.intervals["int8" if integer and "int8" in self._calibration.intervals else "fp32"]

    def _latency(self, value: float, coverage: float, interval: Interval, told: float) -> Estimate:
        """told: share of `value` that measurements tell of; the rest may take UNTOLD of its price."""
        # what lies outside the calibrated range may be off by as much again, in proportion to its share
        widen = 1.0 + (1.0 - coverage)
        least, most = _open(told)
        low, high = least * value * interval.low / widen, most * value * interval.high * widen
        return Estimate(value, low, high, "ms", coverage, self._source)

    def _joules(self, value: float, coverage: float, told: float) -> Estimate:
        least, most = _open(told)
        measured = self._calibration.measured_energy
        if measured is not None:
            widen = 2.0 - coverage
            low, high = least * value * measured.interval.low / widen, most * value * measured.interval.high * widen
            return Estimate(value, low, high, "mJ", coverage, self.profile.energy.detail)
        factor = MODEL_INTERVAL * (2.0 - coverage)
        return Estimate(value, least * value / factor, most * value * factor, "mJ", coverage, MODEL_NAME)

    def _memory(self, graph: KernelGraph) -> Estimate:
        """The peak of loading and running. Where no network's memory was measured: weights, live activations and the
        runtime itself, which may keep both a second time."""
        measured = self._calibration.memory
        if measured is not None:
            beyond, rest = 1.0 + measured.beyond_mb(graph), measured.runtime_mb - 1.0
            low, high = (rest + beyond * ratio for ratio in (measured.interval.low, measured.interval.high))
            return Estimate(rest + beyond, low, high, "MB", 1.0, self._source)
        weights, live, _ = memory_parts(graph)
        runtime = self._calibration.runtime_memory_mb
        return Estimate(
            runtime + weights + live, runtime + weights, runtime + 2 * weights + 2 * live, "MB", 1.0,
            self._source + ("" if self.profile.imported is None else ", without the runtime's own memory"),
        )  # fmt: skip


def _open(told: float) -> tuple[float, float]:
    """Shares of a price that it may be at least and at most, of whose `told` share measurements tell."""
    return told + UNTOLD.low * (1.0 - told), told + UNTOLD.high * (1.0 - told)


def shapes_of(row: KernelRow) -> str:
    """Input and output shapes, for messages: "[1, 3, 32, 32] -> [1, 16, 32, 32]"."""
    given = ", ".join(str(list(shape)) for shape in row.input_shapes)
    return f"{given} -> {list(row.output_shape)}"


def load_predictor(profile: HardwareProfile, folder: Path | None = None) -> CalibratedPredictor:
    """The predictor of a calibrated profile. folder: where it lies, by default where its name is found.

    Raises StaleCalibrationError where calibration.json is missing or is not the one the profile was written with.
    """
    return CalibratedPredictor(profile, load_calibration(profile, folder))
