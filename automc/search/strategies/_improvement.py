"""How much a point would add to the hypervolume of a front, for many points at once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from automc.pareto import non_dominated, promote

Floats = npt.NDArray[np.float64]

FRONT = {1: 1, 2: 200, 3: 96, 4: 24}  # points kept by number of objectives: boxes grow with its power m - 1
_CHUNK = 1 << 19  # (point, box) pairs held at once


@dataclass(frozen=True)
class Boxes:
    """What no point of a front dominates, cut into boxes that do not overlap: (b, m) each; lower may be -infinity."""

    lower: Floats
    upper: Floats

    def improvement(self, points: Floats) -> Floats:
        """(n,) volume that each of `points` (n, m) would add to the front's, alone. Exact for the boxes' front."""
        gained = np.zeros(len(points))
        step = max(1, _CHUNK // max(1, len(self.lower)))
        for begin in range(0, len(points), step):
            part = points[begin : begin + step, :, None]
            volume = np.ones((part.shape[0], len(self.lower)))
            for axis in range(part.shape[1]):
                edge = self.upper[:, axis] - np.maximum(self.lower[:, axis], part[:, axis])
                volume *= np.maximum(edge, 0.0)
            gained[begin : begin + step] = volume.sum(axis=1)
        return gained


def boxes_beyond(front: npt.ArrayLike, reference: npt.ArrayLike) -> Boxes:
    """The part of space better than `reference` (m,) that `front` (n, m) does not dominate; all minimised.

    Sliced along the last objective, one objective less per level (While et al. 2012); a box that goes on in the next
    slice is one box, which leaves O(n) of them for three objectives. Of more than four objectives, or of a front larger
    than FRONT keeps, the least crowded points stand for all: the improvement is then an upper bound.
    """
    bound = np.asarray(reference, dtype=np.float64)
    points = np.asarray(front, dtype=np.float64).reshape(-1, len(bound))
    points = points[(points < bound).all(axis=1)]
    points = np.unique(points[non_dominated(points)], axis=0)
    most = FRONT.get(len(bound), 12)
    if len(points) > most:
        points = points[promote(points, most)]
    found = _cut([tuple(point) for point in points.tolist()], tuple(bound.tolist()))
    lower = np.array([low for low, _ in found]).reshape(-1, len(bound))
    upper = np.array([high for _, high in found]).reshape(-1, len(bound))
    return Boxes(lower, upper)


_Corner = tuple[float, ...]
_Box = tuple[_Corner, _Corner]


def _cut(points: list[_Corner], bound: _Corner) -> list[_Box]:
    if len(bound) == 1:
        best = min([point[0] for point in points], default=bound[0])
        return [((-np.inf,), (best,))]
    if len(bound) == 2:
        return _strips(points, bound)
    ordered = sorted(points, key=lambda point: (point[-1], point))
    levels = [-np.inf, *dict.fromkeys(point[-1] for point in ordered), bound[-1]]
    found: list[_Box] = []
    since: dict[_Box, float] = {}
    for start, stop in pairwise(levels):
        if stop <= start:
            continue
        here = set(_cut([point[:-1] for point in ordered if point[-1] <= start], bound[:-1]))
        for box in [box for box in since if box not in here]:
            found.append(_raised(box, since.pop(box), start))
        for box in sorted(here - since.keys()):
            since[box] = start
    found += [_raised(box, start, bound[-1]) for box, start in since.items()]
    return found


def _raised(box: _Box, start: float, stop: float) -> _Box:
    return (*box[0], start), (*box[1], stop)


def _strips(points: list[_Corner], bound: _Corner) -> list[_Box]:
    """Between the front's neighbours in the first objective, below the lower of them in the second."""
    found: list[_Box] = []
    left, ceiling = -np.inf, bound[1]
    for x, y in sorted(points):
        if y >= ceiling:
            continue
        found.append(((left, -np.inf), (x, ceiling)))
        left, ceiling = x, y
    found.append(((left, -np.inf), (bound[0], ceiling)))
    return [box for box in found if box[1][0] > box[0][0]]
