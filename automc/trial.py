"""A trial: a candidate and what became of it at one fidelity. Scores or a named failure, never both, never neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from automc.candidate import Candidate

FailureKind = Literal["infeasible", "screened", "compression", "diverged", "export", "parity", "budget", "unknown_cost"]
DISTURBED = "which was disturbed all the while"
"""In the source of a latency: no calm spell was found to measure it in."""

Direction = Literal["max", "min"]
"""What is better of a task's metric: more (a share of right answers) or less (an error)."""

Metric = Literal["accuracy", "drop_points", "latency_ms", "energy_mj", "memory_mb", "size_bytes"]


@dataclass(frozen=True)
class Figure:
    """One number with where it comes from.

    value, low, high: in `unit`; low and high bound the stated interval (95 % for accuracy, 90 % for predictions).
    n: samples or timed runs behind a measured figure; None for a prediction.
    rung: fidelity it was obtained at. split: data split, for accuracy.
    coverage: share (0 to 1) of a predicted cost that lies within the calibrated range.
    direction: "min" where the figure called accuracy is an error; None for every other accuracy, and for costs.
    """

    value: float
    low: float
    high: float
    unit: str
    kind: Literal["measured", "predicted"]
    n: int | None = None
    rung: int | None = None
    split: str | None = None
    coverage: float | None = None
    source: str | None = None
    direction: Literal["min"] | None = None

    def to_json(self) -> dict[str, JsonValue]:
        return {key: value for key, value in self.__dict__.items() if value is not None}


def to_minimise(metric: str, figure: Figure) -> float:
    """The value as every comparison takes it, less being better: an accuracy is negated unless it is an error."""
    return -figure.value if metric == "accuracy" and figure.direction != "min" else figure.value


@dataclass(frozen=True)
class Failure:
    """Why a candidate has no scores: `kind` for machines, `reason` for people, `step` the technique it broke in."""

    kind: FailureKind
    reason: str
    step: str | None = None

    def to_json(self) -> dict[str, JsonValue]:
        return {"kind": self.kind, "reason": self.reason, "step": self.step}


@dataclass(frozen=True)
class Provenance:
    """Who evaluated the trial and how long it took: never part of a comparison between runs."""

    worker: str
    host: str
    pid: int
    started_unix_s: float
    seconds: float
    steps_trained: int = 0

    def to_json(self) -> dict[str, JsonValue]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Trial:
    """A candidate at one rung with its figures or its failure; `artifacts` maps a name to a content hash of the run."""

    candidate: Candidate
    rung: int
    seed: int
    figures: Mapping[Metric, Figure] | None = None
    failure: Failure | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        if (self.figures is None) == (self.failure is None):
            raise ValueError("a trial has figures or a failure, never both, never neither")

    @property
    def ok(self) -> bool:
        return self.failure is None

    def __getitem__(self, metric: Metric) -> Figure:
        """The figure of `metric`; KeyError where the trial failed or never had it."""
        if self.figures is None:
            raise KeyError(metric)
        return self.figures[metric]

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "candidate": self.candidate.to_json(),
            "id": self.candidate.id,
            "rung": self.rung,
            "seed": self.seed,
            "figures": None if self.figures is None else {key: fig.to_json() for key, fig in self.figures.items()},
            "failure": None if self.failure is None else self.failure.to_json(),
            "artifacts": dict(self.artifacts),
            "facts": dict(self.facts),
            "provenance": None if self.provenance is None else self.provenance.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Trial:
        """Inverse of `to_json`; raises KeyError, TypeError or ValueError on anything else."""
        record: dict[str, object] = dict(value)
        figures, failure, provenance = record["figures"], record["failure"], record["provenance"]
        candidate = record["candidate"]
        if not isinstance(candidate, Mapping):
            raise TypeError("candidate must be an object")
        return cls(
            candidate=Candidate.from_json(candidate),
            rung=int(str(record["rung"])),
            seed=int(str(record["seed"])),
            figures={key: Figure(**item) for key, item in figures.items()} if isinstance(figures, dict) else None,
            failure=Failure(**failure) if isinstance(failure, dict) else None,
            artifacts=dict(record["artifacts"]) if isinstance(record["artifacts"], dict) else {},
            facts=dict(record["facts"]) if isinstance(record["facts"], dict) else {},
            provenance=Provenance(**provenance) if isinstance(provenance, dict) else None,
        )
