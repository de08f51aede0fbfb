"""Energy where it was measured: constant power times latency, and what physical work adds to it.

Energy follows time closely: a chip that is busy draws much the same whatever it computes (1.35 to 1.49 W over nine in
ten NAS-Bench-201 cells on a Raspberry Pi 5). So the fit starts from `power x latency` and lets columns of work (MACs,
bytes, calls) add non-negative millijoules as far as leaving measurements out shows that they earn it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from automc.cost.doubt import Doubt, doubt_of
from automc.cost.few_shot import LEAST, NOTHING, Floats, fit_few_shot, folds, robust_non_negative
from automc.errors import MeasurementError

SHRINKAGES = (np.inf, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""Tried, of the work columns towards no millijoule of their own, in units of the scaled columns; infinite: constant
power. The one with the smallest error on what was left out is taken, of equal ones the first."""


@dataclass(frozen=True)
class EnergyFit:
    """coefficients: (k,) millijoules per unit of each column. power_w: what a millisecond takes besides, mJ / ms.

    doubt: how far off its predictions may be, latency predicted too.
    left_out: (n,) predicted / measured of each measurement by the fit to the others, NaN where its latency is unknown.
    """

    coefficients: Floats
    power_w: float
    doubt: Doubt
    shrinkage: float
    samples: int
    left_out: Floats

    def predict(self, columns: npt.ArrayLike, predicted_latency_ms: npt.ArrayLike) -> Floats:
        """(n,) millijoules of networks with these columns (n, k) that are predicted to take so long (n,)."""
        work, latency = np.asarray(columns, dtype=np.float64), np.asarray(predicted_latency_ms, dtype=np.float64)
        predicted: Floats = work @ self.coefficients + self.power_w * latency
        return predicted

    def half_width(self, columns: npt.ArrayLike, predicted_latency_ms: npt.ArrayLike) -> Floats:
        """(n,) of the LEVEL intervals of `predict`, as shares of it: wider, the less like what was measured."""
        work, latency = np.asarray(columns, dtype=np.float64), np.asarray(predicted_latency_ms, dtype=np.float64)
        said = np.maximum(self.predict(work, latency), NOTHING)
        return self.doubt.half_width(np.column_stack([work, latency]) / said[:, None])


def fit_energy(
    columns: npt.ArrayLike,
    latency_ms: npt.ArrayLike,
    energy_mj: npt.ArrayLike,
    *,
    left_out_ms: npt.ArrayLike | None = None,
    shrinkages: tuple[float, ...] = SHRINKAGES,
) -> EnergyFit:
    """The fit to n networks of which both were measured. Deterministic.

    columns: (n, k), not negative, as of `fit_few_shot`. latency_ms, energy_mj: (n,) positive, measured: what the fit
    learns from. left_out_ms: (n,) the latency that is said of each network by a fit to the others, which its left-out
    energy is predicted from; by default `fit_few_shot` of these columns; NaN where none could be said, and where it is
    the measured latency, `doubt` is that of energy alone.
    Raises MeasurementError below LEAST measurements, ValueError on what is not positive.
    """
    work, energy = np.asarray(columns, dtype=np.float64), np.asarray(energy_mj, dtype=np.float64)
    latency = np.asarray(latency_ms, dtype=np.float64)
    if len(energy) < LEAST:
        raise MeasurementError(
            f"{len(energy)} measurements of energy are too few to fit a device to",
            next_step=f"measure the energy of {LEAST} networks or more",
        )
    positive = (work >= 0).all() and (latency > 0).all() and (energy > 0).all()
    if not (positive and all(np.isfinite(values).all() for values in (work, latency, energy))):
        raise ValueError("columns must be 0 or more, latencies and energies above 0, and all finite")
    said = fit_few_shot(work, latency).left_out * latency if left_out_ms is None else np.asarray(left_out_ms, float)
    learnt = np.column_stack([work, latency]) / energy[:, None]
    asked = np.column_stack([work, said]) / energy[:, None]
    left_out = {shrinkage: _left_out(learnt, asked, shrinkage) for shrinkage in shrinkages}
    errors = {shrinkage: np.abs(ratios - 1.0) for shrinkage, ratios in left_out.items()}
    known = np.isfinite(said)
    if not known.any():
        raise MeasurementError(
            "no network's latency is known when it is left out, so its energy cannot be judged",
            next_step="measure more networks of the same kinds",
        )
    best = min(shrinkages, key=lambda shrinkage: float(np.mean(errors[shrinkage][known])))
    solution = _solve(learnt, best)
    doubt = doubt_of(asked[known], left_out[best][known] - 1.0, left_out=True)
    return EnergyFit(solution[:-1], float(solution[-1]), doubt, best, len(energy), left_out[best])


def fit_constant_power(
    columns: npt.ArrayLike,
    latency_ms: npt.ArrayLike,
    energy_mj: npt.ArrayLike,
    *,
    left_out_ms: npt.ArrayLike | None = None,
) -> EnergyFit:
    """`fit_energy` of power times latency alone: what any other fit has to beat. Arguments and errors as there."""
    return fit_energy(columns, latency_ms, energy_mj, left_out_ms=left_out_ms, shrinkages=(np.inf,))


def _left_out(learnt: Floats, asked: Floats, shrinkage: float) -> Floats:
    """(n,) predicted / measured of each measurement by the fit to the others. learnt, asked: (n, k + 1) over energy,
    with the latency to learn from and the one to be asked with in the last column."""
    ratios = np.empty(len(learnt))
    for out in folds(len(learnt)):
        ratios[out] = asked[out] @ _solve(learnt[~out], shrinkage)
    return ratios


def _solve(design: Floats, shrinkage: float) -> Floats:
    """(k + 1,) coefficients; the last, of latency, is free, the others are drawn to 0 by `shrinkage`."""
    found = np.zeros(design.shape[1])
    if np.isinf(shrinkage):
        found[-1:] = robust_non_negative(design[:, -1:], 0.0)
        return found
    towards = np.full(design.shape[1], shrinkage)
    towards[-1] = 0.0
    return robust_non_negative(design, towards)
