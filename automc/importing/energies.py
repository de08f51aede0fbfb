"""Energy of a table's networks: checked against physics, fitted jointly with latency, judged by leaving each out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from automc.cost.calibration import Interval, MeasuredEnergy, coverage_across, interval_of
from automc.cost.fit import Observation, columns_of
from automc.cost.joint_energy import fit_constant_power, fit_energy
from automc.cost.tiles import Machine
from automc.errors import ConfigError
from automc.profiles import DeviceKind

if TYPE_CHECKING:
    from automc.importing.assemble import TimedNetwork

POWERS_W: dict[DeviceKind, tuple[float, float]] = {
    "server CPU": (1.0, 2000.0), "desktop CPU": (0.5, 600.0), "laptop CPU": (0.2, 250.0), "phone": (0.05, 20.0),
    "single-board computer": (0.05, 40.0), "embedded GPU": (0.2, 150.0), "GPU": (2.0, 2000.0), "NPU": (0.01, 500.0),
    "FPGA": (0.02, 400.0),
}  # fmt: skip
"""What such a device can draw beyond idling while it runs a network: wide enough for any, a thousandth or a thousand
times of it is not in it."""
IMPOSSIBLE_RATIO = 100.0
"""Times the median power of the table: no network differs so much from another, a mistaken unit does."""


def check_energies(rows: Sequence[TimedNetwork], kind: DeviceKind) -> None:
    """Raises ConfigError (file and row) where powers are none such a device can draw, or contradict each other."""
    watts = np.array([row.energy_mj / row.latency_ms for row in rows])
    usual = float(np.median(watts))
    low, high = POWERS_W[kind]
    worst = int(np.argmax(np.abs(np.log(watts / usual))))
    if not low <= usual <= high:
        row = rows[int(np.argmin(np.abs(watts - usual)))]
        unit = "microjoules" if usual > high else "joules"
        raise ConfigError(
            f"{row.where}: {row.energy_mj:g} mJ in {row.latency_ms:g} ms would be {row.energy_mj / row.latency_ms:.3g} "
            f"W; a {kind} draws {low:g} to {high:g} W. Are these {unit}?",
            next_step="convert the column energy_mj to millijoules of one inference, or name another kind of device",
        )
    if max(watts[worst] / usual, usual / watts[worst]) > IMPOSSIBLE_RATIO:
        row = rows[worst]
        raise ConfigError(
            f"{row.where}: {row.energy_mj:g} mJ in {row.latency_ms:g} ms are {watts[worst]:.3g} W, where the other "
            f"rows draw about {usual:.3g} W: mixed-up units, or no measurement",
            next_step="bring all rows to millijoules of one inference, or delete this one",
        )


def fitted_energy(rows: Sequence[TimedNetwork], machine: Machine, latency_ratios: np.ndarray) -> MeasuredEnergy:
    """What the device's energy is predicted by, with its error on each network when the fit knows all others.

    latency_ratios: (n,) measured / predicted latency of each row by the fit to the others, NaN where there is none: the
    energy of a network left out is predicted from its latency as it was predicted.
    """
    from scipy.stats import spearmanr

    tables = [columns_of(Observation(row.graph, row.latency_ms), machine) for row in rows]
    names = sorted({name for table in tables for name in table})
    work = np.array([[table.get(name, 0.0) for name in names] for table in tables])
    latency, energy = (np.array([getattr(row, name) for row in rows]) for name in ("latency_ms", "energy_mj"))
    said_ms = latency / latency_ratios
    found = fit_energy(work, latency, energy, left_out_ms=said_ms)
    constant = fit_constant_power(work, latency, energy, left_out_ms=said_ms)
    known = np.isfinite(found.left_out)
    ratios = 1.0 / found.left_out[known]
    error = np.abs(found.left_out[known] - 1.0)
    interval = interval_of(ratios)
    return MeasuredEnergy(
        coefficients={name: float(value) for name, value in zip(names, found.coefficients, strict=True) if value > 0},
        power_w=found.power_w,
        interval=Interval(low=interval.low, high=interval.high),
        networks=int(known.sum()),
        within_10_percent=float(np.mean(error <= 0.10)),
        mape_percent=float(error.mean() * 100),
        constant_power_mape_percent=float(np.nanmean(np.abs(constant.left_out - 1.0)) * 100),
        rank_correlation=float(spearmanr(energy[known], energy[known] * found.left_out[known]).statistic),
        interval_coverage=coverage_across(ratios, np.arange(len(ratios))),
    )
