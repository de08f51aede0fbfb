"""calibration.json: coefficients with their units, ranges, errors and the conditions they were measured under."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import JsonValue, ValidationError

from automc.cost.doubt import LEVEL
from automc.cost.energy import EnergyModel
from automc.cost.fit import Fit, Range
from automc.cost.kernels import KernelGraph
from automc.cost.residual import Residual
from automc.cost.tiles import Machine
from automc.errors import StaleCalibrationError
from automc.profiles import Frozen, HardwareProfile, Use, profile_folder

Activations = Literal["uint8", "int8"]
ACTIVATIONS: tuple[Activations, ...] = ("uint8", "int8")


class ClassRange(Frozen):
    """The extents a kernel class was calibrated with, and by how many observations."""

    low: dict[str, float]
    high: dict[str, float]
    observations: int
    spread: float
    """|relative residual| of the observations holding this class, 90th percentile."""


class Interval(Frozen):
    """Ratios measured / predicted that hold 90 % of the held-out networks."""

    low: float
    high: float


def interval_of(ratios: np.ndarray) -> Interval:
    """Symmetric in rank: the smallest and largest ratio after cutting (1 - LEVEL) / 2 at each end, rounded outwards."""
    ordered = np.sort(ratios)
    cut = int(np.floor((1 - LEVEL) / 2 * (ordered.size + 1)))
    return Interval(low=float(ordered[max(0, cut - 1)]), high=float(ordered[min(ordered.size - 1, ordered.size - cut)]))


def coverage_across(ratios: np.ndarray, groups: np.ndarray) -> float:
    """The share of networks whose ratio lies in the interval that all other groups give; of a single group, 1.0.

    ratios: (n,) measured / predicted; groups: (n,), families, or a number for each network where every one stands
    alone. What a user's network meets, which is none of these.
    """
    names = np.unique(groups)
    if len(names) < 2:
        return 1.0
    inside: list[bool] = []
    for name in names:
        other = interval_of(ratios[groups != name])
        inside += [bool(other.low <= ratio <= other.high) for ratio in ratios[groups == name]]
    return float(np.mean(inside))


LEAST_FOR_LIMITS = 20
WIDEST = 3.0  # high / low of the 90 % interval beyond which a figure decides nothing
LEAST_RANK = 0.9


def use_of(
    networks: int, rank_correlation: float, interval: Interval, *, measured: int | None = None
) -> tuple[Use, str]:
    """What predictions with these errors are good for, and why. All of networks that were left out of the fit.

    measured: how many there were, those included of which the others told too little; by default `networks`.
    """
    wide = interval.high / interval.low
    if (networks if measured is None else measured) < LEAST_FOR_LIMITS:
        return "rank only", f"{networks} networks are too few for an interval: {LEAST_FOR_LIMITS} are needed"
    if rank_correlation < LEAST_RANK:
        return "rank only", f"rank correlation {rank_correlation:.2f} on networks left out"
    if wide > WIDEST:
        return "rank only", f"nine in ten networks left out lie within a factor of {wide:.1f}, not of {WIDEST:g}"
    of = f" of {measured}" if measured is not None and measured > networks else ""
    return "limits", f"{networks}{of} networks left out one by one, nine in ten within a factor of {wide:.1f}"


class StoredResidual(Frozen):
    """A learned correction as it is stored (`Residual`): by class, a place and a leftover for each timed kernel."""

    places: dict[str, tuple[tuple[float, ...], ...]]
    left: dict[str, tuple[float, ...]]
    reach: float
    draw: float
    earned: float

    def learnt(self) -> Residual:
        """As it was when stored: same numbers in any process."""
        return Residual(
            {kind: np.array(rows) for kind, rows in self.places.items()},
            {kind: np.array(values) for kind, values in self.left.items()},
            self.reach, self.draw, self.earned,
        )  # fmt: skip

    @classmethod
    def of(cls, learnt: Residual) -> StoredResidual:
        return cls(
            places={kind: tuple(map(tuple, rows.tolist())) for kind, rows in learnt.places.items()},
            left={kind: tuple(values.tolist()) for kind, values in learnt.left.items()},
            reach=learnt.reach, draw=learnt.draw, earned=learnt.earned,
        )  # fmt: skip


class MemoryFit(Frozen):
    """Peaks of processes that load the runtime and a network and run it, MB (2^20 bytes): `runtime_mb` whatever the
    network, and what grows with its weights, its live activations and its kernels."""

    runtime_mb: float
    per_weight: float
    """MB a MB: the runtime holds weights in the file, parsed, and packed for its kernels."""
    per_live: float
    per_kernel_mb: float
    interval: Interval
    """Ratios measured / predicted of 1 MB and what a network takes beyond the runtime; each network left out once."""
    networks: int

    def beyond_mb(self, graph: KernelGraph) -> float:
        """What a network takes beyond the runtime."""
        weights, live, kernels = memory_parts(graph)
        return self.per_weight * weights + self.per_live * live + self.per_kernel_mb * kernels


def memory_parts(graph: KernelGraph) -> tuple[float, float, int]:
    """(MB of weights, MB of activations at the moment that most are live, kernels)."""
    return graph.weight_bytes / 2**20, graph.peak_activation_bytes / 2**20, len(graph.rows)


class WidthProbe(Frozen):
    """What the probe network took in fp32 with `width` channels in every layer."""

    width: int
    latency_ms: float


class Int8Probe(Frozen):
    """What one probe network took in fp32 and in int8, by the type of its activations (weights int8 per channel)."""

    width: int
    size: int
    """Height and width of the picture, pixels."""
    fp32_ms: float
    uint8_ms: float
    int8_ms: float

    def gain(self, activations: Activations) -> float:
        """How many times as fast as fp32."""
        return self.fp32_ms / (self.uint8_ms if activations == "uint8" else self.int8_ms)


class ThreadProbe(Frozen):
    """What one probe network took in fp32 with so many threads of one operator."""

    threads: int
    latency_ms: float


class Probes(Frozen):
    """What the device was asked directly: latencies behind the profile's channel multiple and facts about int8."""

    widths: tuple[WidthProbe, ...]
    """Narrowest first; widths that were not reached in time are missing."""
    int8: tuple[Int8Probe, ...]
    threads: tuple[ThreadProbe, ...] = ()
    """One thread first; empty on a machine of one core, and of calibrations by earlier versions."""


class MeasuredEnergy(Frozen):
    """Energy fitted where it was measured: power_w times latency, and what work adds. Errors: each network left out,
    its latency predicted too."""

    units: str = "millijoules per unit of a column; power in watts (millijoules a millisecond)"
    coefficients: dict[str, float]
    power_w: float
    interval: Interval
    networks: int
    within_10_percent: float
    mape_percent: float
    constant_power_mape_percent: float
    """Of power times predicted latency alone: what the columns had to beat."""
    rank_correlation: float
    interval_coverage: float

    def use(self) -> tuple[Use, str]:
        """What the predicted energies are good for, and why."""
        return use_of(self.networks, self.rank_correlation, self.interval)

    def kernel_mj(self, columns: Mapping[str, float], latency_ms: float) -> float:
        """Millijoules of one kernel with these columns of work."""
        return self.power_w * latency_ms + sum(
            self.coefficients.get(name, 0.0) * value for name, value in columns.items()
        )


class Calibration(Frozen):
    """What `load_predictor` needs, and what a reader needs to judge it."""

    schema_version: Literal[1] = 1
    units: str = "milliseconds per unit: a call, a million elements, MACs or steps, or a million bytes"
    block: int
    cache_bytes: int
    columns: Literal["tiles", "work"] = "tiles"
    """Whose work the coefficients price: the tiles of this host's runtime, or the graph's own (`Machine.columns`)."""
    spill: tuple[float, float] | None = None
    """As of `Machine`."""
    weight_spill: tuple[float, float] | None = None
    """As of `Machine`."""
    reads: Literal["kernel"] | None = None
    """As of `Machine`; None: the network."""
    shared_bytes: int | None = None
    """As of `Machine`."""
    threads: int | None = None
    """As of `Machine`; None: one, and in earlier calibrations."""
    pieces: Literal[True] | None = None
    """As of `Machine`; None: not, and on one thread."""
    coefficients: dict[str, float]
    classes: dict[str, ClassRange]
    intervals: dict[Literal["fp32", "int8"], Interval]
    unresolved_ms: float = 0.0
    """What a run may take whatever the network, that the smallest network fitted is too large to tell."""
    runtime_memory_mb: float
    residual: StoredResidual | None = None
    """None: nothing learned from single kernels told whole networks better than physics alone."""
    memory: MemoryFit | None = None
    """None: of networks nothing was measured, and bounds stand in."""
    energy_model: dict[str, float]
    seed: int
    observations: int
    rows_digest: str
    """sha256 over every observation's name and milliseconds."""
    versions: dict[str, str]
    measured_s: float
    measured_energy: MeasuredEnergy | None = None
    """None: no energy was measured on the device, and `energy_model` stands in for it."""
    probes: Probes | None = None
    """None: not asked (a table tells no such thing), or not kept by the version that calibrated."""

    def _machine(self) -> Machine:
        return Machine(
            self.block,
            self.cache_bytes,
            self.columns,
            self.spill,
            self.shared_bytes,
            self.threads or 1,
            self.weight_spill,
            self.reads or "network",
            self.pieces or False,
        )

    def fit(self) -> Fit:
        """The fit as it was when stored: same numbers in any process."""
        return Fit(
            self._machine(),
            self.coefficients,
            {name: Range(entry.low, entry.high, entry.observations) for name, entry in self.classes.items()},
            {name: entry.spread for name, entry in self.classes.items()},
            None if self.residual is None else self.residual.learnt(),
        )

    def energy(self) -> EnergyModel:
        return EnergyModel.from_constants(self.energy_model)

    def as_json(self) -> dict[str, JsonValue]:
        """What is not known is left out, so that what an earlier version stored is stored again as it was."""
        stored: dict[str, JsonValue] = self.model_dump(mode="json", exclude_none=True)
        return stored


def load_calibration(profile: HardwareProfile, folder: Path | None = None) -> Calibration:
    """calibration.json beside the profile. folder: where the profile lies, by default where its name is found.

    Raises StaleCalibrationError where the file is missing, damaged, or not the one the profile was written with.
    """
    path = (folder or profile_folder(profile.name)) / "calibration.json"
    again = f"automc profile calibrate {profile.name}"
    if profile.imported is not None:
        again = f"automc profile import, from {profile.imported.source}"
    if not path.is_file():
        raise StaleCalibrationError(
            f"{path}: no such file, so profile {profile.name!r} cannot predict", next_step=again
        )
    text = path.read_text()
    digest = hashlib.sha256(text.encode()).hexdigest()
    if digest != profile.calibration_digest:
        raise StaleCalibrationError(
            f"{path} is not what profile {profile.name!r} was calibrated with: sha256 {digest[:12]}, "
            f"expected {profile.calibration_digest[:12]}",
            next_step=again,
        )
    try:
        return Calibration.model_validate_json(text)
    except ValidationError as error:
        raise StaleCalibrationError(f"{path}: written by another version: {error}", next_step=again) from error
