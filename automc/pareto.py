"""Fronts, crowding and hypervolume over finite points, every objective minimised."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


def non_dominated(points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """(n,) True where no other point is at least as good in every objective and better in one.

    points: (n, m), any units, one column per objective. Equal points do not dominate each other: both stay.
    Raises ValueError on NaN or infinity: a missing score is a failed trial, not a bad one.
    """
    values = _checked(points)
    mask = np.zeros(len(values), dtype=np.bool_)
    mask[_front_indices(values, np.arange(len(values)))] = True
    return mask


def rank(points: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """(n,) index of the front each point lies on: 0 is the non-dominated set, 1 what is so once it is gone, ..."""
    values = _checked(points)
    ranks = np.zeros(len(values), dtype=np.int64)
    for level, front in enumerate(fronts(values)):
        ranks[front] = level
    return ranks


def fronts(points: npt.ArrayLike) -> list[npt.NDArray[np.int64]]:
    """Indices (ascending) of the points of each front, best front first; together every index once."""
    values = _checked(points)
    remaining = np.arange(len(values))
    found: list[npt.NDArray[np.int64]] = []
    while len(remaining):
        front = _front_indices(values, remaining)
        found.append(front)
        remaining = np.setdiff1d(remaining, front, assume_unique=True)
    return found


def crowding_distance(points: npt.ArrayLike) -> Points:
    """(n,) how far each point of ONE front is from its neighbours: the larger, the more it is alone; ends are inf.

    points: (n, m) of one front. An objective that is the same everywhere tells nothing and adds nothing; neighbours
    among equal values are taken in index order. Source: Deb et al. 2002, NSGA-II, section III-B.
    """
    values = _checked(points)
    count = len(values)
    if count <= 2:
        return np.full(count, np.inf)
    distance = np.zeros(count)
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        span = ordered[-1] - ordered[0]
        if span == 0:
            continue
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    return distance


def promote(points: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    """Indices of the `count` best points (all, where there are fewer): by front, then the least crowded, then index."""
    values = _checked(points)
    chosen: list[int] = []
    for front in fronts(values):
        if len(chosen) >= count:
            break
        crowded = crowding_distance(values[front])
        chosen.extend(int(front[i]) for i in np.argsort(-crowded, kind="stable"))
    return np.asarray(chosen[: max(count, 0)], dtype=np.int64)


def hypervolume(points: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Volume dominated by `points` and bounded by `reference` (minimisation).

    points: (n, m), any units, one column per objective; rows beyond `reference` add nothing.
    reference: (m,), same units. Exact for every m; O(n log n) for m = 2, O(n^2 log n) for m = 3, exponential in m.
    Raises ValueError on NaN or infinity: a missing score is a failed trial, not a bad one.
    Source: While et al. 2012, "A Fast Way of Calculating Exact Hypervolumes" (the slicing form, one objective less per
    level).
    """
    bound = np.asarray(reference, dtype=np.float64)
    if bound.ndim != 1 or not np.isfinite(bound).all():
        raise ValueError(f"reference must be (m,) and finite, got {bound!r}")
    values = _checked(points)
    if len(values) == 0:
        return 0.0
    if values.shape[1] != len(bound):
        raise ValueError(f"points have {values.shape[1]} objectives, reference has {len(bound)}")
    inside = values[(values < bound).all(axis=1)]
    return _volume(inside, bound)


def _volume(points: Points, bound: Points) -> float:
    if len(points) == 0:
        return 0.0
    if len(bound) == 1:
        return float(bound[0] - points.min())
    if len(bound) == 2:
        return _area(points, bound)
    points = points[_front_indices(points, np.arange(len(points)))]
    points = points[np.argsort(-points[:, -1], kind="stable")]  # worst last objective first
    total = 0.0
    for i, point in enumerate(points):
        # All later points are at least as good in the last objective: clipped to this point they lie in one slice.
        own = float(np.prod(bound[:-1] - point[:-1]))
        shared = _volume(np.maximum(points[i + 1 :, :-1], point[:-1]), bound[:-1])
        total += float(bound[-1] - point[-1]) * (own - shared)
    return total


def _area(points: Points, bound: Points) -> float:
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
    lowest = np.minimum.accumulate(ordered[:, 1])
    ceiling = np.concatenate(([bound[1]], lowest[:-1]))
    return float(np.sum((bound[0] - ordered[:, 0]) * (ceiling - lowest)))


def _front_indices(values: Points, among: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Ascending indices, of those in `among`, that no other of `among` dominates."""
    if len(among) == 0 or values.shape[1] == 0:
        return among
    # In lexicographic order a point can only be dominated by an earlier one, which is then on the front or behind it.
    order = among[np.lexsort(values[among].T[::-1])]
    front = np.empty((len(order), values.shape[1]))
    kept: list[int] = []
    for index in order:
        point, before = values[index], front[: len(kept)]
        if not np.any((before <= point).all(axis=1) & (before < point).any(axis=1)):
            front[len(kept)] = point
            kept.append(int(index))
    return np.sort(np.asarray(kept, dtype=np.int64))


def _checked(points: npt.ArrayLike) -> Points:
    values = np.asarray(points, dtype=np.float64)
    if values.size == 0 and values.ndim < 2:
        return values.reshape(0, 1)
    if values.ndim != 2:
        raise ValueError(f"points must be (n, m), got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("points hold NaN or infinity: a missing score is a failed trial, not a bad one")
    return values
