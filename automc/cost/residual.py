"""What physics leaves of a kernel's time: learned from kernels that were timed, fading to nothing away from them.

The physical fit prices a kernel by work and bytes; a runtime's code for a shape is a little faster or slower than
that, and shapes near each other alike. So the correction of a kernel is the mean of what was left over at timed kernels
of its class, weighted by nearness (Nadaraya 1964; Watson 1964) and drawn to none as if one more, without anything left
over, stood at every place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import log, prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from automc.cost.features import kernel_class
from automc.cost.kernels import KernelRow
from automc.cost.tiles import Machine, channels_of

if TYPE_CHECKING:
    from automc.cost.fit import Fit, Observation

Floats = npt.NDArray[np.float64]
MAIN_SHARE = 0.6
"""Of an observation's predicted time that its costliest kernel has to take, for the rest to be its own."""
MOST = 0.4
"""A natural logarithm that no correction exceeds: what is off by more than half is no matter of shapes."""
LEAST_ROWS = 12
"""Timed kernels of a class, below which nothing is learned of it."""
LEAST_JUDGES = 30
EARNED = 0.95
"""Times the error without it that the error of judging networks may at most be, for a correction to be kept."""
REACHES = (0.5, 1.0, 2.0)
DRAWS = (0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Residual:
    """places: by kernel class (n, d), where kernels were timed (`place_of`); left: (n,) log of measured / predicted.

    reach: the distance, in octaves, at which a neighbour counts exp(-1/2); draw: weight of the neighbour that has
    nothing left over. earned: what the mean error of networks it did not learn from was multiplied by.
    """

    places: Mapping[str, Floats]
    left: Mapping[str, Floats]
    reach: float
    draw: float
    earned: float = 1.0

    def log_factor(self, row: KernelRow, kind: str, machine: Machine) -> float:
        """Logarithm of what the physical time of a kernel is to be multiplied by; 0.0 where nothing is known."""
        places = self.places.get(kind)
        if places is None:
            return 0.0
        near = _nearness(places, place_of(row, machine), self.reach)
        return float(np.clip((near @ self.left[kind]) / (near.sum() + self.draw), -MOST, MOST))


def place_of(row: KernelRow, machine: Machine) -> Floats:
    """(d,) where a kernel stands in its class: sizes in octaves, and how far channels miss a whole block."""
    shape = row.input_shapes[0] if row.input_shapes else row.output_shape
    inputs, outputs = (channels_of(one, row) if len(one) > 1 else prod(one) for one in (shape, row.output_shape))
    return np.array([
        *(log(1 + value, 2) for value in (row.macs, row.bytes_weights, inputs, outputs)),
        log(1 + prod(row.output_shape) / max(1, outputs), 2),
        log(prod(row.kernel) if row.kernel else 1, 2),
        log(prod(row.stride) if row.stride else 1, 2),
        *(2 * (-channels % machine.block) / machine.block for channels in (inputs, outputs)),
    ])  # fmt: skip


def _nearness(places: Floats, place: Floats, reach: float) -> Floats:
    squared = ((places - place) ** 2).sum(axis=1)
    near: Floats = np.exp(-squared / (2 * reach**2))
    return near


def learn(found: Fit, timed: Sequence[Observation], judges: Sequence[Observation]) -> Residual | None:
    """What `found` leaves of `timed`, or None where it earns nothing on `judges`, networks it does not learn from.

    timed: kernels, alone or nearly so. judges: whole networks. Reach and draw are those with which each timed kernel is
    told best by the others of its class. Deterministic.
    """
    places, left = _leftovers(found, timed)
    if not places or len(judges) < LEAST_JUDGES:
        return None
    reach, draw = min(product(REACHES, DRAWS), key=lambda pair: _left_out_error(places, left, *pair))
    learnt = Residual(places, left, reach, draw)
    without, with_it = (
        float(np.mean([abs(log(judge.latency_ms / fit.graph_ms(judge.graph))) for judge in judges]))
        for fit in (found, found.with_residual(learnt))
    )
    return replace(learnt, earned=with_it / without) if with_it <= EARNED * without else None


def _leftovers(found: Fit, timed: Sequence[Observation]) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Places and logs of measured / predicted, by class, of the kernels that an observation is mostly about."""
    places: dict[str, list[Floats]] = defaultdict(list)
    left: dict[str, list[float]] = defaultdict(list)
    for observation in timed:
        predicted = found.graph_ms(observation.graph)
        row, own = max(((row, found.row_parts(row).near) for row in observation.graph.rows), key=lambda item: item[1])
        if own < MAIN_SHARE * predicted:
            continue
        kind = kernel_class(row, found.machine)
        places[kind].append(place_of(row, found.machine))
        ratio = (observation.latency_ms - (predicted - own)) / own
        left[kind].append(float(np.clip(np.log(max(ratio, 1e-3)), -MOST, MOST)))
    enough = [kind for kind, rows in places.items() if len(rows) >= LEAST_ROWS]
    return {kind: np.array(places[kind]) for kind in enough}, {kind: np.array(left[kind]) for kind in enough}


def _left_out_error(places: Mapping[str, Floats], left: Mapping[str, Floats], reach: float, draw: float) -> float:
    """Mean absolute error of each kernel's leftover as the others of its class tell it."""
    errors = []
    for kind, points in places.items():
        squared = ((points[:, None, :] - points[None, :, :]) ** 2).sum(axis=2)
        near = np.exp(-squared / (2 * reach**2))
        np.fill_diagonal(near, 0.0)
        told = (near @ left[kind]) / (near.sum(axis=1) + draw)
        errors.append(np.abs(told - left[kind]))
    return float(np.concatenate(errors).mean())
