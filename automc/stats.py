"""Intervals for measured figures: means over samples, paired differences, medians of ratios."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from automc.trial import Direction, Figure

if TYPE_CHECKING:
    import numpy as np

Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal


def mean_figure(scores: np.ndarray, *, rung: int | None, split: str, direction: Direction = "max") -> Figure:
    """Mean of per-sample scores (n,) with its 95 % interval: Wilson's where all scores are 0 or 1, else the normal one.

    direction: "min" where the scores are errors, which are never taken for shares of right answers.
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    n = len(scores)
    mean = float(scores.mean()) if n else math.nan
    if math.isnan(mean):
        raise ValueError("no samples, or a score is NaN: a missing score is a failed trial, not a bad one")
    if direction == "max" and bool(((scores == 0) | (scores == 1)).all()):
        centre = (mean + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        half = Z95 / (1 + Z95**2 / n) * math.sqrt(mean * (1 - mean) / n + Z95**2 / (4 * n * n))
        low, high, unit = centre - half, centre + half, "fraction"
    else:
        half = Z95 * float(scores.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
        low, high, unit = mean - half, mean + half, "score"
    return Figure(
        mean, min(low, mean), max(high, mean), unit, "measured", n=n, rung=rung, split=split,
        direction="min" if direction == "min" else None,
    )  # fmt: skip


def drop_figure(
    reference: np.ndarray, scores: np.ndarray, *, rung: int | None, split: str, direction: Direction = "max"
) -> Figure:
    """Points (hundredths) by which `scores` are worse than `reference`, paired over the same samples, with a 95 %
    interval: lower where more is better, higher where they are errors (direction "min"), in hundredths of their unit.

    Raises ValueError where the two were not taken over the same number of samples.
    """
    if len(reference) != len(scores):
        raise ValueError(f"paired drop needs the same samples: {len(reference)} and {len(scores)}")
    difference = 100.0 * (scores - reference if direction == "min" else reference - scores)
    n, mean = len(difference), float(difference.mean())
    half = Z95 * float(difference.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return Figure(mean, mean - half, mean + half, "points", "measured", n=n, rung=rung, split=split)
