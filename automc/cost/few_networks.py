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
MARGIN = 8.0
"""No kernel makes more of a device than so many times what the whole network does that makes the most of it. Of 4, 6, 8
and 16 the tightest that costs nothing: mean error of left-out networks over 31 devices of ncnn's table 16.7, 16.4, 16.3
and 16.2 %; 16.3 % without."""


@dataclass(frozen=True)
class FewNetworksFit:
    """ratios: (n,) measured / predicted of each observation by the fit to those of other groups, NaN where these hold
    no kernel of a class it has, so that nothing could be predicted. untold: kinds of products whose time the networks
    tell nothing of, so that it is what physics allows and no more."""

    fit: Fit
    ratios: np.ndarray
    shrinkage: float
    untold: frozenset[str]


def fit_few_networks(
    observations: Sequence[Observation], machine: Machine, groups: Sequence[Hashable] | None = None
) -> FewNetworksFit:
    """The fit to all `observations`, as strongly shrunk as leaving out shows to be right. Deterministic.

    What tens of networks tell nothing of, a plain fit would give for nothing: linear layers beside convolutions that
    take all the time. So their multiply-accumulates, and bytes of weights, take at least what `physical` allows.

    groups: of each observation; all of a group are left out together (by default each alone). The shrinkage is chosen
    by the same errors that are returned: four choices, so they flatter it little.
    Raises MeasurementError where there is nothing to fit.
    """
    tables = [columns_of(observation, machine) for observation in observations]
    kinds = [{kernel_class(row, machine) for row in observation.graph.rows} for observation in observations]
    names, design = design_of(tables, [observation.latency_ms for observation in observations])
    prior = np.array([observation.weight for observation in observations])
    labels = list(range(len(observations))) if groups is None else list(groups)
    best: tuple[float, float, np.ndarray] | None = None
    for shrinkage in SHRINKAGES:
        ratios = _left_out(names, design, prior, kinds, labels, shrinkage)
        errors = np.abs(np.log(ratios[np.isfinite(ratios)]))
        error = float(errors.mean()) if errors.size else np.inf
        if best is None or error < best[0]:
            best = (error, shrinkage, ratios)
    assert best is not None  # SHRINKAGES is not empty
    floor = dict(zip(names, physical(names, design).tolist(), strict=True))
    found = fit(observations, machine, shrinkage=best[1], least=floor)
    at_floor = {name for name, least in floor.items() if 0 < least >= found.coefficients.get(name, 0.0) / (1 + 1e-6)}
    untold = {name.removesuffix(":macs") for name in at_floor if name.endswith(":macs")}
    if "weights:bytes" not in at_floor:  # weights that meet one vector are read once: bytes tell nearly all
        untold -= {kind for kind in untold if ".vector" in kind and _told_by_bytes(kind, observations, machine)}
    return FewNetworksFit(found, best[2], best[1], frozenset(untold))


def _told_by_bytes(kind: str, observations: Sequence[Observation], machine: Machine) -> bool:
    """Whether there is a network most of whose bytes are weights of that kind."""
    for observation in observations:
        rows = observation.graph.rows
        every = sum(row.bytes_in + row.bytes_out + row.bytes_weights for row in rows)
        if 2 * sum(row.bytes_weights for row in rows if kernel_class(row, machine) == kind) > every:
            return True
    return False


def physical(names: Sequence[str], design: np.ndarray) -> np.ndarray:
    """(columns,) milliseconds that a unit of each column takes at least; 0 where nothing is known.

    design: (n, columns) of measured networks over their latencies. The network that gets most multiply-accumulates done
    in a millisecond, and the one that moves most bytes, say what the device can do, to within MARGIN: of weights as of
    any bytes, for networks of convolutions read few weights in a millisecond, however fast the device could.
    """
    products = np.array([name.endswith(":macs") for name in names])
    linear = np.array([name.startswith("matrix") and name.endswith(":macs") for name in names])
    moved = np.array([name.endswith(":bytes") for name in names])
    weights = np.array([name == "weights:bytes" for name in names])
    least = np.zeros(len(names))
    for done, bounded in ((products, linear), (moved, weights)):  # every network's convolutions tell their own time
        fastest = float(design[:, done].sum(axis=1).max()) if done.any() else 0.0
        if fastest > 0:
            least[bounded] = 1.0 / (MARGIN * fastest)
    return least


def _left_out(
    names: Sequence[str],
    design: np.ndarray,
    prior: np.ndarray,
    kinds: Sequence[set[str]],
    labels: Sequence[Hashable],
    shrinkage: float,
) -> np.ndarray:
    ratios = np.full(len(design), np.nan)
    for label in dict.fromkeys(labels):
        out = np.array([other == label for other in labels])
        if out.all():
            continue
        solution = solve(design[~out], prior[~out], shrinkage, physical(names, design[~out]))
        known = set().union(*(kind for kind, left in zip(kinds, out, strict=True) if not left))
        for line in np.flatnonzero(out).tolist():
            predicted = float(design[line] @ solution)
            if kinds[line] <= known and predicted > 0:
                ratios[line] = 1.0 / predicted
    return ratios
