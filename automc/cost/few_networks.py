"""The fit of a device to tens of whole networks, with the error each network has when it is left out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from automc.cost.features import kernel_class
from automc.cost.fit import Fit, Observation, columns_of, design_of, fit, solve
from automc.cost.tiles import Machine

SHRINKAGES = (1e-2, 3e-2, 1e-1, 3e-1)
"""Tried, in units of the scaled columns; the one with the smallest error on what was left out is taken."""


@dataclass(frozen=True)
class FewNetworksFit:
    """ratios: (n,) measured / predicted of each observation by the fit to those of other groups, NaN where these hold
    no kernel of a class it has, so that nothing could be predicted."""

    fit: Fit
    ratios: np.ndarray
    shrinkage: float


def fit_few_networks(
    observations: Sequence[Observation], machine: Machine, groups: Sequence[Hashable] | None = None
) -> FewNetworksFit:
    """The fit to all `observations`, as strongly shrunk as leaving out shows to be right. Deterministic.

    groups: of each observation; all of a group are left out together (by default each alone). The shrinkage is chosen
    by the same errors that are returned: four choices, so they flatter it little.
    Raises MeasurementError where there is nothing to fit.
    """
    tables = [columns_of(observation, machine) for observation in observations]
    kinds = [{kernel_class(row, machine) for row in observation.graph.rows} for observation in observations]
    _, design = design_of(tables, [observation.latency_ms for observation in observations])
    prior = np.array([observation.weight for observation in observations])
    labels = list(range(len(observations))) if groups is None else list(groups)
    best: tuple[float, float, np.ndarray] | None = None
    for shrinkage in SHRINKAGES:
        ratios = _left_out(design, prior, kinds, labels, shrinkage)
        errors = np.abs(np.log(ratios[np.isfinite(ratios)]))
        error = float(errors.mean()) if errors.size else np.inf
        if best is None or error < best[0]:
            best = (error, shrinkage, ratios)
    assert best is not None  # SHRINKAGES is not empty
    return FewNetworksFit(fit(observations, machine, shrinkage=best[1]), best[2], best[1])


def _left_out(
    design: np.ndarray, prior: np.ndarray, kinds: Sequence[set[str]], labels: Sequence[Hashable], shrinkage: float
) -> np.ndarray:
    ratios = np.full(len(design), np.nan)
    for label in dict.fromkeys(labels):
        out = np.array([other == label for other in labels])
        if out.all():
            continue
        solution = solve(design[~out], prior[~out], shrinkage)
        known = set().union(*(kind for kind, left in zip(kinds, out, strict=True) if not left))
        for line in np.flatnonzero(out).tolist():
            predicted = float(design[line] @ solution)
            if kinds[line] <= known and predicted > 0:
                ratios[line] = 1.0 / predicted
    return ratios
