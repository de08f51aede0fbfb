"""A workload that costs nothing to score: what is left of a trial's time is the search's own cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from automc.candidate import Candidate
from automc.space import SearchSpace
from automc.trial import Figure, Metric
from automc.workloads.options import NoOptions, parse_options


class Noop:
    """Scores follow from the candidate by arithmetic; they are labelled as predicted by this workload.

    With u the mean of the candidate's architecture values x (0 to 1) and v the mean of |x - 0.5|: accuracy = 1 - v,
    latency_ms = 1 + 9 u, energy_mj = 2 + 5 u^2, size_bytes = 1000 (1 + u). The front runs from all 0 to all 0.5.
    """

    name = "noop"
    options_model = NoOptions

    def space(self) -> SearchSpace:
        return SearchSpace.load(self.name)

    def score(self, candidate: Candidate, rung: int, seed: int) -> Mapping[Metric, Figure]:
        shares = [float(str(value)) for value in candidate.architecture.values()]
        mean = sum(shares) / len(shares)
        spread = sum(abs(share - 0.5) for share in shares) / len(shares)
        return {
            "accuracy": _figure(1 - spread, "share", rung),
            "latency_ms": _figure(1 + 9 * mean, "ms", rung),
            "energy_mj": _figure(2 + 5 * mean**2, "mJ", rung),
            "size_bytes": _figure(1000 * (1 + mean), "bytes", rung),
        }


def _figure(value: float, unit: str, rung: int) -> Figure:
    return Figure(value, value, value, unit, "predicted", rung=rung, source="noop: arithmetic, not a device")


def create(options: Mapping[str, JsonValue], data_root: Path | None) -> Noop:
    """Takes no options and reads no data."""
    parse_options(NoOptions, "noop", options)
    return Noop()
