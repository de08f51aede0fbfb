"""What the doctor found, as data: one frozen record that is printed, and written as JSON, whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, is_dataclass
from enum import Enum
from typing import Literal

from pydantic import JsonValue

from automc.sources import Site
from automc.techniques.reach import Reach
from automc.trial import Figure, Metric

StageName = Literal["runs", "traced", "exported", "parity"]
Outlook = Literal["reachable", "not seen reachable", "unknown"]


@dataclass(frozen=True)
class Stage:
    """One thing a search does to every network, tried on the base.

    ok: None where it was not tried, because one before it failed. detail: what came out, or the reason.
    site: where it failed. possible: what a search can still do without it.
    """

    name: StageName
    ok: bool | None
    seconds: float
    detail: str
    site: Site = field(default_factory=Site)
    possible: str = ""


@dataclass(frozen=True)
class TechniqueReach:
    """What one technique can act on here. macs_share, parameters_share: of the layers it touches, None unknown."""

    technique: str
    in_space: bool
    reach: Reach
    macs_share: float | None
    parameters_share: float | None


@dataclass(frozen=True)
class Layer:
    """A layer with weights. macs: per sample, None where the network could not be traced.

    by: techniques that can act on it. blocked: technique -> what stands in its way; both, where a technique can take
    its inputs and not its outputs.
    """

    name: str
    kind: str
    parameters: int
    macs: int | None
    by: tuple[str, ...]
    blocked: dict[str, tuple[str, Site]]


@dataclass(frozen=True)
class UnknownOperator:
    """A kernel class the profile was never calibrated for. shapes: of one such kernel; kernels: how many in the base,
    candidates: how many of the candidates looked at hold one.

    calibrated: measured now and added to the profile. problem: why it could not be.
    """

    kind: str
    operator: str
    shapes: str
    kernels: int
    candidates: int
    calibrated: bool = False
    problem: str = ""


@dataclass(frozen=True)
class LimitOutlook:
    """A constraint against what was seen. lowest: the lowest figure among the candidates looked at, None unknown.

    candidate: its steps, in words. margin: it is met only within the interval of the prediction, not by its value.
    """

    metric: Metric
    maximum: float
    outlook: Outlook
    lowest: Figure | None
    candidate: str
    note: str = ""


@dataclass(frozen=True)
class SpaceOutlook:
    """size: candidates of the space; looked_at: how many were costed or refused, in `seconds`.

    infeasible, unknown: how many of them cannot exist here, or have an unknown cost. reasons: why, and how often,
    commonest first. within: how many meet every limit on predicted costs. base: costs of the base in fp32. lowest: per
    cost the lowest seen, and whose it is.
    """

    size: int
    looked_at: int
    seconds: float
    infeasible: int
    unknown: int
    within: int
    base: dict[Metric, Figure]
    lowest: dict[Metric, tuple[Figure, str]]
    reasons: dict[str, int]


@dataclass(frozen=True)
class Effort:
    """What a search will take. seconds: in all; arithmetic: how that comes about, line by line.

    memory_mb: workers alone, without Ray's own processes.
    """

    seconds: float
    arithmetic: tuple[str, ...]
    memory_mb: float
    step_s: float
    export_s: float
    scoring_s: float


@dataclass(frozen=True)
class Split:
    """classes: label -> samples of it that were looked at, None where the targets are no labels.

    problem: why the split cannot be read.
    """

    name: str
    samples: int
    classes: dict[int, int] | None
    problem: str = ""


@dataclass(frozen=True)
class Leak:
    """`samples` of split `inside` are bit for bit samples of split `of` too. first: positions of one, in both."""

    inside: str
    of: str
    samples: int
    first: tuple[int, int]


@dataclass(frozen=True)
class DataFindings:
    """leaks: None where the samples could not be compared. compared: samples looked at, of all there are.

    accuracy: of the base, exported, on train and on validation, where it could be scored.
    """

    splits: tuple[Split, ...]
    leaks: tuple[Leak, ...]
    compared: int
    samples: int
    accuracy: dict[str, Figure]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """stop: a search cannot run, or would throw every candidate away. warn: it can, and the user should know."""

    level: Literal["stop", "warn", "note"]
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything. Parts that could not be looked at are None; findings say why. seconds: the examination took."""

    name: str
    model: str
    parameters: int
    macs: int | None
    size_bytes: int | None
    profile: str
    stages: tuple[Stage, ...]
    techniques: tuple[TechniqueReach, ...]
    layers: tuple[Layer, ...]
    unknown: tuple[UnknownOperator, ...]
    space: SpaceOutlook | None
    limits: tuple[LimitOutlook, ...]
    effort: Effort | None
    data: DataFindings
    findings: tuple[Finding, ...]
    next_step: str
    seconds: float

    @property
    def searchable(self) -> bool:
        """Whether a search can run and has something to choose from."""
        return not any(finding.level == "stop" for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One line."""
        stops = [finding.text for finding in self.findings if finding.level == "stop"]
        warns = sum(finding.level == "warn" for finding in self.findings)
        if stops:
            return f"a search cannot run: {stops[0]}"
        return "a search can run" + (f"; {warns} warning{'s' if warns > 1 else ''} above" if warns else "")

    def to_json(self) -> dict[str, JsonValue]:
        found: dict[str, JsonValue] = _plain(asdict(self))  # type: ignore[assignment]
        return {**found, "searchable": self.searchable, "verdict": self.verdict}


def _plain(value: object) -> JsonValue:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} is nothing JSON can hold")
