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
MARGIN = 4.0
"""No kernel makes more of a device than so many times what the whole network does that makes the most of it. Of 2, 4
and 8 what left-out networks of 31 devices of ncnn's table are priced best with: 15.4, 15.0 and 15.1 % mean error."""
TOLD = 0.1
"""The share of its time, at the device's best rates, that a network which tells of linear layers spends in them."""
WEIGHTS = "weights:bytes"
TELLING = 2  # such networks at least: with each left out, another still tells


@dataclass(frozen=True)
class FewNetworksFit:
    """ratios: (n,) measured / predicted of each observation by the fit to those of other groups, NaN where these tell
    nothing of kernels it has, so that nothing could be predicted. untold: kinds of products whose time the networks
    tell nothing of, so that it is what physics allows and no more."""

    fit: Fit
    ratios: np.ndarray
    shrinkage: float
    untold: frozenset[str]


@dataclass(frozen=True)
class _Table:
    """Observations as a fit takes them. design: (n, columns) over the measured cost; names: of the columns; prior: (n,)
    weights; labels: groups left out together; kinds: kernel classes of each; moved: by kind of linear layers, (n,)
    megabytes of its weights over the measured cost."""

    names: list[str]
    design: np.ndarray
    prior: np.ndarray
    labels: np.ndarray
    kinds: list[set[str]]
    moved: dict[str, np.ndarray]

    def of(self, kept: np.ndarray) -> _Table:
        """The observations where `kept` (n,) holds."""
        kinds = [known for known, here in zip(self.kinds, kept, strict=True) if here]
        moved = {kind: bytes_[kept] for kind, bytes_ in self.moved.items()}
        return _Table(self.names, self.design[kept], self.prior[kept], self.labels[kept], kinds, moved)

    def spent(self, best: tuple[float, float]) -> dict[str, np.ndarray]:
        """By kind of linear layers, and for WEIGHTS of all kinds, (n,) shares of the measured time that they take at
        least on a device of these `rates`."""
        macs, moved = best
        found = {}
        for kind, weights in self.moved.items():  # it has products, which read their weights: neither rate is 0
            found[kind] = self.design[:, self.names.index(f"{kind}:macs")] / macs + weights / moved
        if WEIGHTS in self.names:
            found[WEIGHTS] = self.design[:, self.names.index(WEIGHTS)] / moved
        return found

    def untold(self, least: int) -> frozenset[str]:
        """Of what `spent` tells, that in which fewer than `least` networks spend their time."""
        shares = self.spent(rates(self.names, self.design))
        few = {kind for kind, share in shares.items() if len(np.unique(self.labels[share >= TOLD])) < least}
        return frozenset(few | set(self.moved) if WEIGHTS in few else few)  # linear layers read theirs once

    def held(self, untold: frozenset[str]) -> np.ndarray:
        """(columns,) whether the coefficient is what `physical` allows: nothing tells another."""
        return np.array([(name if name == WEIGHTS else name.removesuffix(":macs")) in untold for name in self.names])


def fit_few_networks(
    observations: Sequence[Observation], machine: Machine, groups: Sequence[Hashable] | None = None
) -> FewNetworksFit:
    """The fit to all `observations`, as strongly shrunk as leaving out shows to be right. Deterministic.

    What tens of networks tell nothing of, a plain fit gives for nothing, or for what else all of them have: linear
    layers beside convolutions that take all the time. So their multiply-accumulates, and bytes of weights, take at
    least what `physical` allows, and just that where no networks spend their time in them.

    groups: of each observation; all of a group are left out together (by default each alone). The shrinkage is chosen
    by the same errors that are returned: four choices, so they flatter it little.
    Raises MeasurementError where there is nothing to fit.
    """
    table = _table(observations, machine, range(len(observations)) if groups is None else groups)
    best: tuple[float, float, np.ndarray] | None = None
    for shrinkage in SHRINKAGES:
        ratios = _left_out(table, shrinkage)
        errors = np.abs(np.log(ratios[np.isfinite(ratios)]))
        error = float(errors.mean()) if errors.size else np.inf
        if best is None or error < best[0]:
            best = (error, shrinkage, ratios)
    assert best is not None  # SHRINKAGES is not empty
    floor = dict(zip(table.names, physical(table.names, table.design).tolist(), strict=True))
    unspent = table.untold(TELLING)
    held = [name for name, here in zip(table.names, table.held(unspent), strict=True) if here]
    found = fit(observations, machine, shrinkage=best[1], least=floor, held=held)
    at_floor = {name for name, least in floor.items() if 0 < least >= found.coefficients.get(name, 0.0) / (1 + 1e-6)}
    untold = {name.removesuffix(":macs") for name in at_floor if name.endswith(":macs")}
    if WEIGHTS not in at_floor:  # weights that meet one vector are read once: bytes tell nearly all
        untold -= {kind for kind in untold if ".vector" in kind and _told_by_bytes(kind, observations, machine)}
    return FewNetworksFit(found, best[2], best[1], frozenset(untold | unspent) - {WEIGHTS})


def _table(observations: Sequence[Observation], machine: Machine, groups: Sequence[Hashable]) -> _Table:
    tables = [columns_of(observation, machine) for observation in observations]
    names, design = design_of(tables, [observation.latency_ms for observation in observations])
    numbers: dict[Hashable, int] = {}
    labels = [numbers.setdefault(group, len(numbers)) for group in groups]
    moved: dict[str, np.ndarray] = {}
    for line, observation in enumerate(observations):
        for row in observation.graph.rows:
            kind = kernel_class(row, machine)
            if kind.startswith("matrix") and f"{kind}:macs" in names:
                bytes_ = moved.setdefault(kind, np.zeros(len(observations)))
                bytes_[line] += row.bytes_weights / 1e6 / observation.latency_ms
    return _Table(
        names, design, np.array([observation.weight for observation in observations]), np.array(labels),
        [{kernel_class(row, machine) for row in observation.graph.rows} for observation in observations], moved,
    )  # fmt: skip


def _told_by_bytes(kind: str, observations: Sequence[Observation], machine: Machine) -> bool:
    """Whether there is a network most of whose bytes are weights of that kind."""
    for observation in observations:
        rows = observation.graph.rows
        every = sum(row.bytes_in + row.bytes_out + row.bytes_weights for row in rows)
        if 2 * sum(row.bytes_weights for row in rows if kernel_class(row, machine) == kind) > every:
            return True
    return False


def rates(names: Sequence[str], design: np.ndarray) -> tuple[float, float]:
    """What the device can do in a millisecond at the least: (millions of multiply-accumulates, megabytes).

    design: (n, columns) of measured networks over their latencies. The network that gets most multiply-accumulates done
    in a millisecond says the one, that which moves most bytes the other.
    """
    totals = []
    for ending in (":macs", ":bytes"):
        done = np.array([name.endswith(ending) for name in names], dtype=bool)
        totals.append(float(design[:, done].sum(axis=1).max()) if done.any() else 0.0)
    return totals[0], totals[1]


def physical(names: Sequence[str], design: np.ndarray) -> np.ndarray:
    """(columns,) milliseconds that a unit of each column takes at least; 0 where nothing is known.

    design: as of `rates`, which are right to within MARGIN: of weights as of any bytes, for networks of convolutions
    read few weights in a millisecond, however fast the device could.
    """
    macs, moved = rates(names, design)
    linear = np.array([name.startswith("matrix") and name.endswith(":macs") for name in names], dtype=bool)
    weights = np.array([name == WEIGHTS for name in names], dtype=bool)
    least = np.zeros(len(names))
    for bounded, fastest in ((linear, macs), (weights, moved)):  # every network's convolutions tell their own time
        if fastest > 0:
            least[bounded] = 1.0 / (MARGIN * fastest)
    return least


def _left_out(table: _Table, shrinkage: float) -> np.ndarray:
    ratios = np.full(len(table.design), np.nan)
    for label in np.unique(table.labels):
        out = table.labels == label
        if out.all():
            continue
        rest = table.of(~out)
        untold = rest.untold(TELLING - 1)
        solution = solve(rest.design, rest.prior, shrinkage, physical(rest.names, rest.design), rest.held(untold))
        known = set().union(*rest.kinds)
        spent = table.spent(rates(rest.names, rest.design))
        for line in np.flatnonzero(out).tolist():
            predicted = float(table.design[line] @ solution)
            guessed = any(spent[kind][line] >= TOLD for kind in untold)
            if table.kinds[line] <= known and predicted > 0 and not guessed:
                ratios[line] = 1.0 / predicted
    return ratios
