"""Growth of a front's hypervolume for many points at once, against the volumes themselves."""

from __future__ import annotations

import numpy as np
import pytest

from automc.pareto import hypervolume
from automc.search.strategies._improvement import boxes_beyond


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_growth_is_the_difference_of_the_volumes(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    front, points = rng.random((12, objectives)), rng.random((40, objectives)) * 1.2
    corner = np.full(objectives, 1.1)
    base = hypervolume(front, corner)
    expected = [hypervolume(np.vstack([front, point]), corner) - base for point in points]
    np.testing.assert_allclose(boxes_beyond(front, corner).improvement(points), expected, atol=1e-12)


def test_two_points_by_hand() -> None:
    """Front (1, 2), (2, 1) below (3, 3): (1, 1) adds the square between them, (0, 0) 9 - 3 = 6, (2, 2) nothing."""
    grown = boxes_beyond([(1.0, 2.0), (2.0, 1.0)], (3.0, 3.0)).improvement(np.array([[1.0, 1], [0, 0], [2, 2]]))
    assert grown.tolist() == [1.0, 6.0, 0.0]


def test_without_a_front_everything_up_to_the_corner_is_gained() -> None:
    assert boxes_beyond(np.zeros((0, 2)), (2.0, 3.0)).improvement(np.array([[0.0, 0.0], [2.0, 0.0]])).tolist() == [6, 0]
