"""How wrong a fit is on networks of families it never saw, and the interval that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from automc.cost.calibration import Interval, coverage_across, interval_of
from automc.cost.fit import Fit, Observation
from automc.errors import MeasurementError
from automc.measure.families import FAMILIES
from automc.measure.networks import Sample
from automc.profiles import HeldOut

LEAST = 8
"""Whole networks, below which no error is stated."""


def assess(
    found: Fit, held: Sequence[tuple[Sample, Observation]]
) -> tuple[tuple[HeldOut, ...], dict[Literal["fp32", "int8"], Interval]]:
    """Error on networks the fit never saw, and the interval of measured / predicted that holds 90 % of them.

    Raises MeasurementError below LEAST networks of either precision.
    """
    from scipy.stats import spearmanr

    results: list[HeldOut] = []
    intervals: dict[Literal["fp32", "int8"], Interval] = {}
    precisions: tuple[Literal["fp32", "int8"], ...] = ("fp32", "int8")
    for precision in precisions:
        chosen = [(s, o) for s, o in held if (s.scheme == "fp32") == (precision == "fp32")]
        if len(chosen) < LEAST:
            raise MeasurementError(
                f"only {len(chosen)} whole networks could be timed in {precision}",
                next_step="automc profile calibrate host",
            )
        measured = np.array([observation.latency_ms for _, observation in chosen])
        predicted = np.array([found.graph_ms(observation.graph) for _, observation in chosen])
        kinds = np.array([sample.kind for sample, _ in chosen])
        error = np.abs(predicted / measured - 1)
        ratios = measured / predicted
        intervals[precision] = interval_of(ratios)
        results.append(
            HeldOut(
                precision=precision,
                networks=len(chosen),
                families=tuple(family for family in FAMILIES if family in set(kinds)),
                within_5_percent=float(np.mean(error <= 0.05)),
                within_10_percent=float(np.mean(error <= 0.10)),
                within_15_percent=float(np.mean(error <= 0.15)),
                mape_percent=float(error.mean() * 100),
                rank_correlation=float(spearmanr(measured, predicted).statistic),
                interval_coverage=coverage_across(ratios, kinds),
            )
        )
    return tuple(results), intervals
