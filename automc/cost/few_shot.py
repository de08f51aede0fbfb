"""A device's costs from ten to fifty of its measurements: non-negative totals of physical work, relative error.

What `fit.py` does for a profile with thousands of timings, for a device nobody calibrated: few columns, and as much
shrinkage as leaving measurements out shows to be right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from automc.cost.doubt import Doubt, doubt_of
from automc.cost.fit import OUTLIER, ROUNDS
from automc.errors import MeasurementError

Floats = npt.NDArray[np.float64]

SHRINKAGES = (1e-3, 1e-2, 3e-2, 1e-1)
"""Tried, in units of the scaled columns; the one with the smallest error on what was left out is taken."""
LEAST = 3
FOLDS = 50
"""Up to as many measurements, each is left out alone; of more, every FOLDS-th together."""
NOTHING = 1e-100  # of any unit: a prediction of 0 has an interval without end
_TRUST = 0.1  # of the prior that `choose` adds to: below it, an axis of the columns counts as unexplored


@dataclass(frozen=True)
class FewShotFit:
    """coefficients: (k + 1,) cost per unit of each column, then what every network costs.

    doubt: how far off its predictions may be.
    left_out: (n,) predicted / measured of each measurement by the fit to the others.
    """

    coefficients: Floats
    doubt: Doubt
    shrinkage: float
    samples: int
    left_out: Floats

    def predict(self, columns: npt.ArrayLike) -> Floats:
        """(n,) costs of networks with these columns (n, k), in the unit of the measurements."""
        values = np.asarray(columns, dtype=np.float64)
        predicted: Floats = values @ self.coefficients[:-1] + self.coefficients[-1]
        return predicted

    def half_width(self, columns: npt.ArrayLike) -> Floats:
        """(n,) of the LEVEL intervals of `predict`, as shares of it: wider, the less like what was measured."""
        values = np.asarray(columns, dtype=np.float64)
        said = np.maximum(self.predict(values), NOTHING)
        return self.doubt.half_width(np.column_stack([values, np.ones(len(values))]) / said[:, None])


def fit_few_shot(columns: npt.ArrayLike, measured: npt.ArrayLike) -> FewShotFit:
    """The fit to n measured networks. Deterministic.

    columns: (n, k), not negative: total MACs, bytes, calls by kernel class, whatever drives the cost. measured: (n,)
    positive costs, one unit. Raises MeasurementError below LEAST measurements, ValueError on what is not positive.
    """
    work, cost = np.asarray(columns, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if len(cost) < LEAST:
        raise MeasurementError(
            f"{len(cost)} measurements are too few to fit a device to", next_step=f"measure {LEAST} networks or more"
        )
    if not ((work >= 0).all() and (cost > 0).all() and np.isfinite(work).all() and np.isfinite(cost).all()):
        raise ValueError("columns must be 0 or more, costs above 0, and both finite")
    design = np.column_stack([work, np.ones(len(cost))]) / cost[:, None]
    left_out = {shrinkage: _left_out(design, shrinkage) for shrinkage in SHRINKAGES}
    best = min(SHRINKAGES, key=lambda shrinkage: float(np.mean(np.abs(left_out[shrinkage] - 1.0))))
    coefficients = robust_non_negative(design, best)
    doubt = doubt_of(design, design @ coefficients - 1.0)
    return FewShotFit(coefficients, doubt, best, len(cost), left_out[best])


def _left_out(design: Floats, shrinkage: float) -> Floats:
    """(n,) predicted / measured of each measurement by the fit to the others."""
    ratios = np.empty(len(design))
    for out in folds(len(design)):
        ratios[out] = design[out] @ robust_non_negative(design[~out], shrinkage)
    return ratios


def folds(count: int) -> list[npt.NDArray[np.bool_]]:
    """Of `count` measurements, which are left out together: masks (count,), every one in exactly one of them."""
    return [np.arange(count) % FOLDS == fold for fold in range(min(count, FOLDS))]


def choose(columns: npt.ArrayLike, count: int, seed: int, *, pool: int = 1000) -> npt.NDArray[np.int64]:
    """(count,) rows of `columns` (n, k) to measure: those that tell a fit most, of `pool` drawn at random.

    Each next one has the columns that those before say least about (greedy D-optimal design, Fedorov 1972). No
    measurement plays a part. Raises ValueError where there are fewer rows than `count`.
    """
    work = np.asarray(columns, dtype=np.float64)
    if len(work) < count:
        raise ValueError(f"{count} of {len(work)} rows cannot be chosen")
    drawn = np.random.default_rng(seed).choice(len(work), min(max(pool, count), len(work)), replace=False)
    scale = np.sqrt((work[drawn] ** 2).mean(axis=0))
    scaled = np.column_stack([work[drawn] / np.where(scale > 0, scale, 1.0), np.ones(len(drawn))])
    unknown = np.eye(scaled.shape[1]) / _TRUST
    taken: list[int] = []
    for _ in range(count):
        told = np.einsum("ij,jk,ik->i", scaled, unknown, scaled)
        told[taken] = -1.0
        best = int(np.argmax(told))
        taken.append(best)
        along = unknown @ scaled[best]
        unknown = unknown - np.outer(along, along) / (1.0 + scaled[best] @ along)
    chosen: npt.NDArray[np.int64] = drawn[taken]
    return chosen


def robust_non_negative(design: Floats, shrinkage: float | Floats) -> Floats:
    """Coefficients x >= 0 with design @ x near 1; measurements far off lose weight (Huber 1964).

    design: (n, k) columns over the measured cost. shrinkage: of all columns, or (k,) of each, in units of the scaled
    columns; 0 leaves a column free.
    """
    from scipy.optimize import nnls

    scale = np.linalg.norm(design, axis=0)
    scale[scale == 0] = 1.0
    scaled = design / scale
    weights, solution = np.ones(len(scaled)), np.zeros(scaled.shape[1])
    for _ in range(ROUNDS):
        heavy = np.sqrt(weights)
        system = np.vstack([scaled * heavy[:, None], shrinkage * np.eye(scaled.shape[1])])
        solution, _ = nnls(system, np.concatenate([heavy, np.zeros(scaled.shape[1])]))
        weights = np.minimum(1.0, OUTLIER / np.maximum(np.abs(scaled @ solution - 1.0), 1e-9))
    unscaled: Floats = solution / scale
    return unscaled
