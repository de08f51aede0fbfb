"""A candidate: architecture choices and an ordered list of technique steps, frozen and named by its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue


def canonical_json(value: object) -> str:
    """One text per value: keys sorted, no white space, floats at 12 significant digits, NaN refused."""
    return json.dumps(_snap(value), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest(value: object) -> str:
    """sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _snap(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.12g}")
    if isinstance(value, Mapping):
        return {str(key): _snap(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_snap(item) for item in value]
    return value


@dataclass(frozen=True)
class Step:
    """One technique with its parameters, as canonical JSON text so that equal steps are equal and hashable."""

    technique: str
    params_json: str = "{}"

    @classmethod
    def of(cls, technique: str, **params: JsonValue) -> Step:
        return cls(technique, canonical_json(params))

    @property
    def params(self) -> dict[str, JsonValue]:
        loaded: dict[str, JsonValue] = json.loads(self.params_json)
        return loaded

    def __str__(self) -> str:
        shown = ", ".join(f"{key}={value}" for key, value in self.params.items())
        return f"{self.technique}({shown})" if shown else self.technique


@dataclass(frozen=True)
class Candidate:
    """What to build: choices of architecture and the steps in the order they run."""

    steps: tuple[Step, ...] = ()
    architecture_json: str = "{}"

    @property
    def architecture(self) -> dict[str, JsonValue]:
        loaded: dict[str, JsonValue] = json.loads(self.architecture_json)
        return loaded

    @cached_property
    def id(self) -> str:
        """First 12 hex digits of the sha256 of the canonical JSON."""
        return digest(self.to_json())[:12]

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "architecture": self.architecture,
            "steps": [{"technique": step.technique, "params": step.params} for step in self.steps],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Candidate:
        """Inverse of `to_json`; raises KeyError or TypeError on anything else."""
        steps = value["steps"]
        if not isinstance(steps, list):
            raise TypeError("steps must be a list")
        return cls(
            steps=tuple(Step(str(item["technique"]), canonical_json(item["params"])) for item in steps),
            architecture_json=canonical_json(value["architecture"]),
        )

    def __str__(self) -> str:
        return " > ".join(str(step) for step in self.steps) or "base"
