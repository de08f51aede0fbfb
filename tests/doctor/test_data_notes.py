"""What doctor notes of the data and of what the base scores on them."""

from __future__ import annotations

import pytest

from automc.doctor.data import _notes
from automc.doctor.diagnosis import Split
from automc.trial import Figure

SPLITS = (
    Split("train", 100, {0: 60, 1: 40}, ""), Split("validation", 50, {0: 30, 1: 20}, ""),
    Split("test", 50, {0: 30, 1: 20}, ""), Split("calibration", 20, {0: 12, 1: 8}, ""),
)  # fmt: skip


def scores(value: float) -> dict[str, Figure]:
    figure = Figure(value, value - 0.05, value + 0.05, "fraction", "measured", n=50)
    return {"train": figure, "validation": figure}


@pytest.mark.parametrize(
    ("value", "metric", "noted"),
    [
        (0.62, "accuracy", True),  # the commonest class alone is right for 0.6 of them
        (0.90, "accuracy", False),
        (0.00, "cost_per_sample", False),  # the best there is, where less is better: no share of right answers
    ],
)
def test_a_base_that_guesses_is_noted_where_the_metric_counts_right_answers(
    value: float, metric: str, noted: bool
) -> None:
    assert any("is not trained" in note for note in _notes(SPLITS, scores(value), metric)) == noted
