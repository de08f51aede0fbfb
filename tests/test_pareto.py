"""Fronts, crowding and hypervolume against values worked by hand and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automc.pareto import crowding_distance, fronts, hypervolume, non_dominated, promote, rank

STAIRS = [[1.0, 4.0], [2.0, 2.0], [4.0, 1.0]]


def test_a_point_worse_in_everything_is_dominated() -> None:
    assert non_dominated([[1, 2], [2, 1], [2, 2]]).tolist() == [True, True, False]


def test_a_point_equal_in_one_and_worse_in_another_is_dominated() -> None:
    assert non_dominated([[1, 2], [1, 3]]).tolist() == [True, False]


def test_equal_points_do_not_dominate_each_other() -> None:
    assert non_dominated([[1, 1], [1, 1], [2, 2]]).tolist() == [True, True, False]


def test_no_points_have_an_empty_front() -> None:
    assert non_dominated([]).tolist() == []
    assert fronts(np.empty((0, 3))) == []
    assert promote([], 3).tolist() == []
    assert hypervolume([], [1.0, 1.0]) == 0.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_missing_score_is_refused(bad: float) -> None:
    for function in (non_dominated, rank, crowding_distance):
        with pytest.raises(ValueError, match="failed trial"):
            function([[1.0, bad]])
    with pytest.raises(ValueError, match="failed trial"):
        promote([[1.0, bad]], 1)
    with pytest.raises(ValueError, match="failed trial"):
        hypervolume([[1.0, bad]], [2.0, 2.0])
    with pytest.raises(ValueError, match="reference"):
        hypervolume([[1.0, 1.0]], [2.0, bad])


def test_ranks_peel_one_front_after_the_other() -> None:
    points = [*STAIRS, [3.0, 3.0], [5.0, 5.0], [2.0, 5.0]]
    assert rank(points).tolist() == [0, 0, 0, 1, 2, 1]
    assert [front.tolist() for front in fronts(points)] == [[0, 1, 2], [3, 5], [4]]


def test_crowding_is_the_normalised_distance_between_neighbours() -> None:
    # spans 4 and 4; point (1, 3): (2 - 0)/4 + (4 - 2)/4 = 1; point (2, 2): (4 - 1)/4 + (3 - 0)/4 = 1.5
    distance = crowding_distance([[0, 4], [1, 3], [2, 2], [4, 0]])
    assert distance.tolist() == [np.inf, 1.0, 1.5, np.inf]


def test_an_objective_that_is_the_same_everywhere_adds_nothing() -> None:
    assert crowding_distance([[0, 7], [1, 7], [3, 7]]).tolist() == [np.inf, 1.0, np.inf]
    assert crowding_distance([[1, 7], [1, 7], [1, 7]]).tolist() == [0.0, 0.0, 0.0]


def test_promotion_takes_the_front_first_and_the_lonely_of_the_last_front() -> None:
    points = [[0, 4], [1, 3], [2, 2], [4, 0], [5, 5]]
    assert promote(points, 3).tolist() == [0, 3, 2]
    assert promote(points, 5).tolist() == [0, 3, 2, 1, 4]
    assert promote(points, 9).tolist() == [0, 3, 2, 1, 4]
    assert promote(points, 0).tolist() == []


def test_ties_in_promotion_go_to_the_smaller_index() -> None:
    assert promote([[1, 1], [1, 1], [1, 1]], 2).tolist() == [0, 1]


def test_hypervolume_of_stairs() -> None:
    # columns of the staircase to (5, 5): x 1..2 height 1, x 2..4 height 3, x 4..5 height 4 -> 1 + 6 + 4
    assert hypervolume(STAIRS, [5, 5]) == pytest.approx(11.0)


def test_one_objective_is_a_length() -> None:
    assert hypervolume([[3.0], [1.0]], [4.0]) == pytest.approx(3.0)


def test_points_on_or_beyond_the_reference_add_nothing() -> None:
    assert hypervolume([*STAIRS, [0.0, 5.0], [6.0, 0.0]], [5, 5]) == pytest.approx(11.0)


def test_two_boxes_in_three_dimensions() -> None:
    # (0,0,1) to (2,2,2): 4; (1,1,0) to (2,2,2): 2; shared (1,1,1) to (2,2,2): 1 -> 5
    assert hypervolume([[0, 0, 1], [1, 1, 0]], [2, 2, 2]) == pytest.approx(5.0)


def test_the_reference_must_have_as_many_objectives_as_the_points() -> None:
    with pytest.raises(ValueError, match="2 objectives, reference has 3"):
        hypervolume(STAIRS, [5, 5, 5])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda m: st.lists(st.lists(st.integers(0, 4), min_size=m, max_size=m), min_size=1, max_size=7)
    )
)
def test_hypervolume_counts_the_dominated_unit_cells(points: list[list[int]]) -> None:
    size = len(points[0])
    cells = np.stack(np.meshgrid(*[np.arange(4)] * size, indexing="ij"), axis=-1).reshape(-1, size)
    covered = sum(any(all(p[i] <= cell[i] for i in range(size)) for p in points) for cell in cells)
    assert hypervolume(points, [4.0] * size) == pytest.approx(covered)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=12))
def test_the_front_is_what_brute_force_finds(points: list[list[int]]) -> None:
    def dominates(a: list[int], b: list[int]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    expected = [not any(dominates(other, point) for other in points) for point in points]
    assert non_dominated(points).tolist() == expected
