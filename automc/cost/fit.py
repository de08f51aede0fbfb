"""Fit the time of kernels from measured networks: non-negative least squares on relative error, robust to outliers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp

import numpy as np

from automc.cost.caches import Far, far_share
from automc.cost.features import extent_of, features, kernel_class
from automc.cost.kernels import KernelGraph, KernelRow
from automc.cost.residual import Residual
from automc.cost.tiles import Machine
from automc.errors import MeasurementError

SESSION = "session:calls"
MEMORY = "memory:"
"""What columns begin with whose bytes count by the share that has left the core's own cache."""
MEMORY_WEIGHTS = ("memory:weights", "memory:convolution_weights", "memory:vector_weights", "memory:cold_calls")
"""Of these, by the share of weights that has: the runtime's code and tables are read in a circle as weights are."""
MAIN = "main:"
"""By the share that has left the last cache as well, and comes from main memory."""
OUTLIER = 0.05  # relative residual beyond which an observation counts less; the test-retest spread of one pass
ROUNDS = 4
SHRINKAGE = 1e-3  # keeps columns that always go together from trading places; in units of the scaled columns


@dataclass(frozen=True)
class Observation:
    """Something that was timed. whole: a network through a session, else the kernels alone (no session overhead)."""

    graph: KernelGraph
    latency_ms: float
    whole: bool = True
    weight: float = 1.0


@dataclass(frozen=True)
class Range:
    """Smallest and largest extent a class was calibrated with, by quantity, and by how many observations."""

    low: Mapping[str, float]
    high: Mapping[str, float]
    observations: int


@dataclass(frozen=True)
class Parts:
    """Milliseconds of one kernel: with all data at hand, what more it takes where no activations and no weights are in
    the core's own cache, and where activations come from main memory."""

    near: float
    memory: float
    weights: float
    main: float

    def at(self, far: Far) -> float:
        """Milliseconds in a network whose data lie so far away."""
        return self.near + self.memory * far.own + self.weights * far.weights + self.main * far.shared


@dataclass(frozen=True)
class Fit:
    """coefficients: milliseconds per unit of each column (`features`). spread: |relative residual| at 90 % by class."""

    machine: Machine
    coefficients: Mapping[str, float]
    ranges: Mapping[str, Range]
    spread: Mapping[str, float]
    residual: Residual | None = None

    def row_ms(self, row: KernelRow, far: Far) -> float:
        """Milliseconds of one kernel, session overhead not included. far: `far_share` of its network."""
        return self.row_parts(row).at(far)

    def row_parts(self, row: KernelRow) -> Parts:
        """What one kernel takes, session overhead not included, by where its data come from."""
        near = memory = weights = main = 0.0
        for name, value in features(row, self.machine).items():
            priced = self.coefficients.get(name, 0.0) * value
            if name in MEMORY_WEIGHTS:
                weights += priced
            elif name.startswith(MEMORY):
                memory += priced
            elif name.startswith(MAIN):
                main += priced
            else:
                near += priced
        if self.residual is not None:
            near *= exp(self.residual.log_factor(row, kernel_class(row, self.machine), self.machine))
        return Parts(near, memory, weights, main)

    def with_residual(self, residual: Residual | None) -> Fit:
        """The same physics with another correction of single kernels."""
        return replace(self, residual=residual)

    def graph_ms(self, graph: KernelGraph) -> float:
        """Milliseconds of a whole network, session overhead included."""
        far = far_share(graph, self.machine)
        return self.coefficients.get(SESSION, 0.0) + sum(self.row_ms(row, far) for row in graph.rows)


def seen_from(row: KernelRow, machine: Machine, far: Far) -> dict[str, float]:
    """The kernel's columns in a network whose data lie so far away."""
    scales = {MEMORY: far.own, MAIN: far.shared}
    return {
        name: value * (far.weights if name in MEMORY_WEIGHTS else scales.get(name[: name.index(":") + 1], 1.0))
        for name, value in features(row, machine).items()
    }


def columns_of(observation: Observation, machine: Machine) -> dict[str, float]:
    """All columns of an observation, summed over its kernels."""
    total: dict[str, float] = defaultdict(float)
    far = far_share(observation.graph, machine)
    for row in observation.graph.rows:
        for name, value in seen_from(row, machine, far).items():
            total[name] += value
    if observation.whole:
        total[SESSION] = 1.0
    return total


def fit(
    observations: Sequence[Observation],
    machine: Machine,
    *,
    shrinkage: float = SHRINKAGE,
    least: Mapping[str, float] | None = None,
    held: Collection[str] = (),
) -> Fit:
    """Coefficients of all columns at once: kernels alone, micro models and whole networks may be mixed freely.

    Minimises the squared relative error over non-negative coefficients; observations off by more than OUTLIER lose
    weight in proportion (Huber 1964) over ROUNDS reweightings. shrinkage: more for fewer observations. least: by
    column, what its coefficient may not be below. held: columns whose coefficient is just that. Deterministic.
    Raises MeasurementError where there is nothing to fit.
    """
    if not observations:
        raise MeasurementError(
            "nothing was measured, so nothing can be fitted", next_step="automc profile calibrate host"
        )
    tables = [columns_of(observation, machine) for observation in observations]
    names, design = design_of(tables, [observation.latency_ms for observation in observations])
    weights = np.array([observation.weight for observation in observations])
    floor = np.array([(least or {}).get(name, 0.0) for name in names])
    solution = solve(design, weights, shrinkage, floor, np.array([name in held for name in names]))
    coefficients = {name: float(value) for name, value in zip(names, solution, strict=True) if value > 0}
    residuals = design @ solution - 1.0
    return Fit(machine, coefficients, ranges_of(observations, machine), _spread(observations, machine, residuals))


def design_of(tables: Sequence[Mapping[str, float]], latency_ms: Sequence[float]) -> tuple[list[str], np.ndarray]:
    """Names of all columns, sorted, and (n, columns) of each observation's columns over its latency."""
    names = sorted({name for table in tables for name in table})
    index = {name: position for position, name in enumerate(names)}
    design = np.zeros((len(tables), len(names)))
    for line, (table, measured) in enumerate(zip(tables, latency_ms, strict=True)):
        for name, value in table.items():
            design[line, index[name]] = value / measured
    return names, design


def solve(
    design: np.ndarray,
    prior: np.ndarray,
    shrinkage: float,
    least: np.ndarray | None = None,
    held: np.ndarray | None = None,
) -> np.ndarray:
    """(columns,) coefficients x >= least with design @ x near 1. prior: (n,) weights of the observations.

    least: (columns,), by default 0. held: (columns,), where x is `least`; by default nowhere.
    """
    floor = np.zeros(design.shape[1]) if least is None else least
    wanted = 1.0 - design @ floor
    scale = np.linalg.norm(design, axis=0)
    scale[scale == 0] = 1.0
    scaled = design / scale
    if held is not None:
        scaled = np.where(held, 0.0, scaled)
    weights = prior.copy()
    solution = np.zeros(design.shape[1])
    for _ in range(ROUNDS):
        gram = scaled.T @ (scaled * weights[:, None]) + np.eye(design.shape[1]) * shrinkage**2
        solution = non_negative_least_squares(gram, scaled.T @ (weights * wanted), solution)
        residual = np.abs(scaled @ solution - wanted)
        weights = prior * np.minimum(1.0, OUTLIER / np.maximum(residual, 1e-9))
    unscaled: np.ndarray = floor + solution / scale
    return unscaled


def extended(known: Fit, observations: Sequence[Observation], kinds: Sequence[str]) -> Fit:
    """`known` with the columns of new kernel classes, fitted to what `known` leaves of the observations' time.

    kinds: classes `known` does not have; every observation may hold kernels of these and of known ones. Coefficients
    that are known stay as they are. A class whose time cannot be told from the session's own gets the smallest cost of
    a call that any known class has: nothing costs nothing.
    Raises MeasurementError where a kind is in no observation.
    """
    machine = known.machine
    new = tuple(f"{kind}:" for kind in kinds)
    tables = [columns_of(observation, machine) for observation in observations]
    ranges = ranges_of(observations, machine)
    missing = [kind for kind in kinds if kind not in ranges]
    if missing:
        raise MeasurementError(f"no kernel of {', '.join(missing)} was timed", next_step="automc doctor CONFIG")
    names = sorted({name for table in tables for name in table if name.startswith(new)})
    index = {name: position for position, name in enumerate(names)}
    design, left = np.zeros((len(tables), len(names))), np.zeros(len(tables))
    for line, (table, observation) in enumerate(zip(tables, observations, strict=True)):
        priced = sum(known.coefficients.get(name, 0.0) * value for name, value in table.items() if name not in index)
        left[line] = max(0.0, observation.latency_ms - priced) / observation.latency_ms
        for name, value in table.items():
            if name in index:
                design[line, index[name]] = value / observation.latency_ms
    scale = np.linalg.norm(design, axis=0)
    scale[scale == 0] = 1.0
    design /= scale
    gram = design.T @ design + np.eye(len(names)) * SHRINKAGE**2
    solution = non_negative_least_squares(gram, design.T @ left, np.zeros(len(names)))
    coefficients = dict(known.coefficients)
    coefficients |= {name: float(value) for name, value in zip(names, solution / scale, strict=True) if value > 0}
    least = min(value for name, value in known.coefficients.items() if name.endswith(":calls") and value > 0)
    for kind in kinds:
        if not any(name.startswith(f"{kind}:") for name in coefficients):
            coefficients[f"{kind}:calls"] = least
    made = replace(known, coefficients=coefficients)
    residuals = np.array([made.graph_ms(item.graph) / item.latency_ms - 1.0 for item in observations])
    spread = _spread(observations, machine, residuals)
    return replace(
        made,
        ranges={**known.ranges, **{kind: ranges[kind] for kind in kinds}},
        spread={**known.spread, **{kind: spread[kind] for kind in kinds}},
    )


def non_negative_least_squares(gram: np.ndarray, projected: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The x >= 0 that minimises x' gram x / 2 - projected' x, by active sets, from the support of `start`.

    gram: (n, n), positive definite. projected, start: (n,). Exact up to rounding; a warm start saves most of the steps.
    Source: Bro and De Jong 1997, "A fast non-negativity-constrained least squares algorithm".
    """
    x = start.copy()
    passive = x > 0
    x[~passive] = 0.0
    tolerance = 1e-10 * max(1.0, float(np.abs(projected).max()))
    for step in range(10 * x.size + 1):
        while passive.any():
            trial = np.zeros_like(x)
            trial[passive] = np.linalg.solve(gram[np.ix_(passive, passive)], projected[passive])
            sunk = passive & (trial <= 0)
            if not sunk.any():
                x = trial
                break
            # go as far towards the trial as feasibility allows, then drop what reached zero
            ratios = x[sunk] / np.maximum(x[sunk] - trial[sunk], 1e-300)
            x = x + float(ratios.min()) * (trial - x)
            passive &= x > 1e-14
            x[~passive] = 0.0
        slope = projected - gram @ x
        slope[passive] = -np.inf
        if slope.max() <= tolerance:
            return x
        if step < min(40, x.size):  # early on many columns enter at once
            passive |= slope > 0.3 * slope.max()
        else:  # single entries keep it from cycling
            passive[int(slope.argmax())] = True
    raise MeasurementError("the fit did not converge", next_step="automc profile calibrate host")


def ranges_of(observations: Sequence[Observation], machine: Machine) -> dict[str, Range]:
    """The smallest and largest extents of each kernel class, and by how many observations."""
    extents: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    seen: Counter[str] = Counter()
    for observation in observations:
        kinds = set()
        for row in observation.graph.rows:
            kind = kernel_class(row, machine)
            extents[kind].append(extent_of(row))
            kinds.add(kind)
        seen.update(kinds)
    return {
        kind: Range(
            {name: min(entry[name] for entry in entries) for name in entries[0]},
            {name: max(entry[name] for entry in entries) for name in entries[0]},
            seen[kind],
        )
        for kind, entries in sorted(extents.items())
    }


def _spread(observations: Sequence[Observation], machine: Machine, residuals: np.ndarray) -> dict[str, float]:
    by_kind: dict[str, list[float]] = defaultdict(list)
    for observation, residual in zip(observations, residuals, strict=True):
        for kind in {kernel_class(row, machine) for row in observation.graph.rows}:
            by_kind[kind].append(abs(float(residual)))
    return {kind: float(np.percentile(values, 90)) for kind, values in sorted(by_kind.items())}


def in_range(row: KernelRow, known: Range, *, slack: float = 1.5) -> bool:
    """Whether the kernel's extents lie within the calibrated ones, widened by `slack` on both sides."""
    return all(known.low[name] / slack <= value <= known.high[name] * slack for name, value in extent_of(row).items())
