"""From timed networks to a profile: checked against physics and each other, fitted, judged by leaving each out."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from automc.cost.calibration import (
    Calibration,
    ClassRange,
    Interval,
    MeasuredEnergy,
    interval_of,
    use_of,
)
from automc.cost.energy import MODEL_NAME, EnergyModel
from automc.cost.features import kernel_class
from automc.cost.few_networks import FewNetworksFit, fit_few_networks
from automc.cost.fit import Observation
from automc.cost.kernels import KernelGraph
from automc.cost.predictor import CalibratedPredictor
from automc.cost.tiles import Machine
from automc.errors import ConfigError, UnseenOperatorError
from automc.importing.energies import check_energies, fitted_energy
from automc.importing.plausible import alike, check_apart, check_copies, check_each, check_rate, doubted_unit, furthest
from automc.profiles import (
    DeviceKind,
    EnergySource,
    Fingerprint,
    HardwareProfile,
    HeldOut,
    Imported,
    Int8Facts,
    MeasurementProtocol,
    calibration_text,
    own_folder,
    require_writable,
    save_profile,
)  # fmt: skip

LEAST_NETWORKS = 8
"""Fewer networks than this tell nothing that could be checked by leaving some out."""
PARTS = 5  # of a table, each left out once to see whether intervals hold
LEAST_PER_CLASS = 3
"""Networks that hold a kernel class, below which its time cannot be told from that of the rest of these networks."""


@dataclass(frozen=True)
class TimedNetwork:
    """One row of a table. where: file and row, for messages. spread_ms: between its runs, energy_mj: of one inference;
    NaN where not known."""

    name: str
    graph: KernelGraph
    latency_ms: float
    where: str
    spread_ms: float = float("nan")
    energy_mj: float = float("nan")


@dataclass(frozen=True)
class Device:
    """What a table says of a device. cannot: what is left out of the table besides what the fit itself shows."""

    name: str
    kind: DeviceKind
    runtime: str
    runtime_version: str
    threads: int
    source: str
    licence: str
    system: str = "unknown"
    cannot: tuple[str, ...] = ()
    on_gpu: bool = False


def import_device(
    rows: Sequence[TimedNetwork],
    device: Device,
    name: str,
    folder: Path | None = None,
    *,
    seconds: float | None = None,
    replace: bool = False,
) -> HardwareProfile:
    """Fit and store the profile of `device`; returns what was stored. Nothing is written before all is checked.

    folder: where profile.yaml and calibration.json go, by default the user's cache folder, where an imported profile
    of that name is written over if `replace` says so. seconds: the moment to be noted, by default now. Raises
    ConfigError (file and row) on what cannot be a measurement, too few rows, a name that another device has, or where
    nothing can be written.
    """
    target = own_folder(name, folder, imported=True, replace=replace)
    profile, calibration = assemble(rows, device, name, time.time() if seconds is None else seconds)
    if folder is None:
        require_writable(target)
    else:
        require_writable(folder, "give another --folder")
    save_profile(profile, calibration.as_json(), target)
    return profile


def assemble(
    rows: Sequence[TimedNetwork], device: Device, name: str, unix_s: float
) -> tuple[HardwareProfile, Calibration]:
    """The profile and its calibration; nothing is written. Errors as `import_device`."""
    profile, calibration, used, groups = _assembled(rows, device, name, unix_s)
    inside = _inside(used, groups, device)
    share = float(np.mean(inside)) if inside else None
    held = tuple(entry.model_copy(update={"interval_coverage": share}) for entry in profile.held_out)
    return profile.model_copy(update={"held_out": held}), calibration


def _inside(used: Sequence[TimedNetwork], groups: Sequence[int], device: Device) -> list[bool]:
    """Whether each network lies in the interval that a profile of the others states, PARTS of them left out at once.

    Empty where what is left is too little for a profile; networks such a profile cannot price are not in it.
    """
    parts = np.array(groups) % PARTS
    inside = []
    for part in range(PARTS):
        rest = [row for row, own in zip(used, parts, strict=True) if own != part]
        try:
            predictor = CalibratedPredictor(*_assembled(rest, device, "part", 0.0)[:2])
        except ConfigError:
            continue
        for row in (row for row, own in zip(used, parts, strict=True) if own == part):
            try:
                said = predictor.predict(row.graph).latency_ms
            except UnseenOperatorError:
                continue
            inside.append(said.low <= row.latency_ms <= said.high)
    return inside


def _assembled(
    rows: Sequence[TimedNetwork], device: Device, name: str, unix_s: float
) -> tuple[HardwareProfile, Calibration, list[TimedNetwork], list[int]]:
    """The profile, not yet judged by its intervals, its calibration, the rows it is fitted to, and their groups."""
    machine = Machine(columns="work")
    for row in rows:
        if not (np.isfinite(row.latency_ms) and row.latency_ms > 0):
            raise ConfigError(
                f"{row.where}: latency {row.latency_ms} ms of {row.name!r} is no measurement",
                next_step="mend or delete this row",
            )
    check_apart(rows)
    used, rare = _common(rows, machine)
    groups = alike(used)
    if len(set(groups)) < LEAST_NETWORKS:
        raise ConfigError(
            f"{len(set(groups))} different networks are too few to fit a device to and check it: "
            f"{LEAST_NETWORKS} are needed" + (f"; not counted are {rare}" if rare else ""),
            next_step="measure more networks, of different kinds and sizes, on this device"
            + (f"; each operator in {LEAST_PER_CLASS} or more of them" if rare else ""),
        )
    check_copies(used, groups)
    check_rate(used, device)
    found = fit_few_networks([Observation(row.graph, row.latency_ms) for row in used], machine, groups)
    check_each(used, found)
    held, interval = _held_out(used, found)
    has_energy = all(np.isfinite(row.energy_mj) for row in used)
    if has_energy:
        check_energies(used, device.kind)
    measured = fitted_energy(used, machine, found.ratios) if has_energy else None
    priced = set(np.array(groups)[np.isfinite(found.ratios)].tolist())
    use, reason = use_of(len(priced), held.rank_correlation, interval, measured=len(set(groups)))
    if use == "rank only":
        reason = f"{reason}; furthest off is {furthest(used, found)}"
    doubted = doubted_unit(used, device)
    if doubted is not None:
        use, reason = "rank only", doubted
    if device.on_gpu:
        use, reason = "rank only", "its GPU was timed: kernels there take what no sum of work foretells well enough"
    calibration = Calibration(
        block=machine.block,
        cache_bytes=machine.cache_bytes,
        columns=machine.columns,
        coefficients=dict(found.fit.coefficients),
        classes={
            kind: ClassRange(
                low=dict(known.low),
                high=dict.fromkeys(known.high, 0.0) if kind in found.untold else dict(known.high),
                observations=known.observations, spread=found.fit.spread[kind],
            )
            for kind, known in found.fit.ranges.items()
        },
        intervals={"fp32": interval},
        unresolved_ms=(interval.high - 1) * min(row.latency_ms for row in used),
        runtime_memory_mb=0.0,
        energy_model=EnergyModel().constants(),
        measured_energy=measured,
        seed=0,
        observations=len(used),
        rows_digest=hashlib.sha256("\n".join(_figures(row) for row in used).encode()).hexdigest(),
        versions={"numpy": version("numpy")},
        measured_s=0.0,
    )  # fmt: skip
    spreads = np.array([[row.spread_ms / row.latency_ms * 100, row.spread_ms] for row in used])
    known = spreads[np.isfinite(spreads).all(axis=1)]
    profile = HardwareProfile(
        name=name,
        description=f"{device.name}, {device.runtime}, {device.threads} thread{'s' if device.threads > 1 else ''}; "
        f"fitted to {len(used)} networks of a table",
        fingerprint=Fingerprint(
            cpu=device.name, cores=device.threads, instruction_sets=(), system=device.system, runtime=device.runtime,
            runtime_version=device.runtime_version,
        ),
        threads=device.threads,
        memory_mb=None,
        precisions=("fp32",),
        channel_multiple=1,
        int8=Int8Facts(),
        protocol=MeasurementProtocol(),
        noise_floor_percent=float(np.median(known[:, 0])) if len(known) else 0.0,
        noise_floor_ms=float(np.median(known[:, 1])) if len(known) else 0.0,
        energy=EnergySource(kind="model", detail=MODEL_NAME) if measured is None else _energy_source(measured),
        calibrated_unix_s=unix_s,
        calibration="imported",
        held_out=(held,),
        calibration_digest=hashlib.sha256(calibration_text(calibration.as_json()).encode()).hexdigest(),
        imported=Imported(
            kind=device.kind,
            source=device.source,
            licence=device.licence,
            networks=len(used),
            use=use,
            reason=reason,
            cannot=(
                *device.cannot,
                *(
                    (
                        f"how long linear layers take ({', '.join(sorted(found.untold))}): the table tells nothing of "
                        "it, and what physics allows is said, outside the calibrated range",
                    )
                    if found.untold
                    else ()
                ),
                *((f"networks with operators that fewer than {LEAST_PER_CLASS} of it have: {rare}",) if rare else ()),
                "int8, batches other than the table's, and operators that are not in it",
                "which channel multiple pays, and the memory of the runtime itself",
                *(() if has_energy else ("energy other than by the model named above: none was measured",)),
            ),
        ),
    )  # fmt: skip
    return profile, calibration, used, groups


def _figures(row: TimedNetwork) -> str:
    energy = f" {row.energy_mj!r}" if np.isfinite(row.energy_mj) else ""
    return f"{row.name} {row.latency_ms!r}{energy}"


def _energy_source(measured: MeasuredEnergy) -> EnergySource:
    return EnergySource(
        kind="fit",
        detail=f"fit to the measured energy of {measured.networks} networks, each left out once, its latency predicted "
        f"too: {measured.mape_percent:.1f} % mean error, {measured.within_10_percent:.0%} within 10 %, rank "
        f"{measured.rank_correlation:.3f} (constant power: {measured.constant_power_mape_percent:.1f} %); "
        f"{'good enough for limits' if measured.use()[0] == 'limits' else f'ranks only: {measured.use()[1]}'}",
    )


def _common(rows: Sequence[TimedNetwork], machine: Machine) -> tuple[list[TimedNetwork], str]:
    """The rows whose every kernel class is in LEAST_PER_CLASS of them or more; and, in words, the others and why."""
    used, rare = list(rows), list[str]()
    while True:
        kinds = [{kernel_class(kernel, machine) for kernel in row.graph.rows} for row in used]
        seen = Counter(kind for found in kinds for kind in found)
        few = [[kind for kind in sorted(found) if seen[kind] < LEAST_PER_CLASS] for found in kinds]
        if not any(few):
            return used, ", ".join(rare)
        rare += [f"{row.name} (for {', '.join(kinds)})" for row, kinds in zip(used, few, strict=True) if kinds]
        used = [row for row, kinds in zip(used, few, strict=True) if not kinds]


def _held_out(rows: Sequence[TimedNetwork], found: FewNetworksFit) -> tuple[HeldOut, Interval]:
    from scipy.stats import spearmanr

    priced = np.isfinite(found.ratios)
    ratios = found.ratios[priced]
    measured = np.array([row.latency_ms for row in rows])[priced]
    predicted = measured / ratios
    error = np.abs(predicted / measured - 1)
    held = HeldOut(
        precision="fp32",
        networks=len(ratios),
        families=tuple(row.name for row, known in zip(rows, priced, strict=True) if known),
        within_5_percent=float(np.mean(error <= 0.05)),
        within_10_percent=float(np.mean(error <= 0.10)),
        within_15_percent=float(np.mean(error <= 0.15)),
        mape_percent=float(error.mean() * 100),
        rank_correlation=float(spearmanr(measured, predicted).statistic),
        interval_coverage=None,
        left_out="one network",
    )
    return held, interval_of(ratios)
