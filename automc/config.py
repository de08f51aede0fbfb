"""What a search is asked to do, as one YAML file; every error names the file and the key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from automc.errors import ConfigError
from automc.recovery.recipe import Recipe

Objective = Literal["accuracy", "latency_ms", "energy_mj", "memory_mb", "size_bytes"]
Rule = Literal["fastest", "smallest", "most_accurate", "lowest_energy", "knee"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkloadSection(Section):
    """Which model and data; `options` are the workload's own."""

    name: str = "digits"
    options: dict[str, JsonValue] = {}


class Constraints(Section):
    """Limits a result must meet. An unset limit constrains nothing; an unknown cost never counts as met."""

    max_drop_points: float | None = Field(None, description="accuracy points below the reference, at the top rung")
    max_latency_ms: float | None = Field(None, gt=0)
    max_energy_mj: float | None = Field(None, gt=0)
    max_memory_mb: float | None = Field(None, gt=0)
    max_size_bytes: float | None = Field(None, gt=0)


class Rung(Section):
    """One fidelity: how many candidates reach it and how many optimiser steps each has had in total by its end."""

    candidates: int = Field(ge=1)
    steps: int = Field(ge=0)


class SearchSection(Section):
    """How the space is searched. Rung 0 trains nothing; every later rung goes on from the checkpoint before it."""

    strategy: str = "nsga2"
    seed: int = Field(0, ge=0)
    parallel: int = Field(2, ge=1, description="ask n follows tell n - parallel, whatever the executor")
    rungs: tuple[Rung, ...] = (
        Rung(candidates=24, steps=0),
        Rung(candidates=8, steps=40),
        Rung(candidates=4, steps=120),
    )
    finalists: int = Field(4, ge=1, description="front members re-measured on the device, besides the anchors")

    @model_validator(mode="after")
    def _rungs_rise(self) -> SearchSection:
        steps = [rung.steps for rung in self.rungs]
        counts = [rung.candidates for rung in self.rungs]
        if not steps or steps[0] != 0:
            raise ValueError("the first rung trains nothing: rungs[0].steps must be 0")
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError("steps must rise from rung to rung")
        if any(later > earlier for earlier, later in pairwise(counts)):
            raise ValueError("candidates must not grow from rung to rung")
        return self


class ExecutorSection(Section):
    """Who evaluates: `inline` in this process, `ray` on long-lived workers of a local or given cluster."""

    kind: Literal["inline", "ray"] = "ray"
    workers: int = Field(2, ge=1)
    address: str | None = Field(None, description="of a running Ray cluster; unset starts and stops a local one")


class SearchConfig(Section):
    """The whole of a search. Defaults are the embedded demo: the digits workload on this host."""

    name: str = Field("demo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    workload: WorkloadSection = WorkloadSection()
    profile: str = "host"
    calibrate: Literal["never", "quick", "full"] = Field(
        "quick", description="what to do where the profile `host` is absent or stale"
    )
    space: str = "digits"
    objectives: tuple[Objective, ...] = ("accuracy", "latency_ms", "size_bytes")
    constraints: Constraints = Constraints(max_drop_points=1.0)
    search: SearchSection = SearchSection()
    recovery: Recipe = Recipe()
    teacher: Literal["reference", "base", "none"] = "reference"
    choose: Rule = "fastest"
    executor: ExecutorSection = ExecutorSection()

    @model_validator(mode="after")
    def _objectives_trade(self) -> SearchConfig:
        if len(set(self.objectives)) != len(self.objectives):
            raise ValueError("objectives: each may be named once")
        if "accuracy" not in self.objectives or len(self.objectives) < 2:
            raise ValueError("objectives: accuracy and at least one cost, e.g. [accuracy, latency_ms]")
        return self


def load_config(path: Path | str | None = None, overrides: Mapping[str, JsonValue] | None = None) -> SearchConfig:
    """The config in `path` (None: the embedded demo) with dotted `overrides` such as {"search.seed": 3} laid over it.

    Raises ConfigError naming the file, the key and what is allowed.
    """
    source = "the embedded demo config" if path is None else str(path)
    raw: object = {}
    if path is not None:
        file = Path(path)
        if not file.is_file():
            near = difflib.get_close_matches(file.name, [p.name for p in file.parent.glob("*.yaml")], n=1)
            hint = f"; did you mean {file.parent / near[0]}?" if near else ""
            raise ConfigError(f"{path}: no such file{hint}", next_step="automc config init > search.yaml")
        try:
            raw = yaml.safe_load(file.read_text()) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not YAML: {error}", next_step="automc config check " + str(path)) from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected keys and values, found {type(raw).__name__}")
    for dotted, value in (overrides or {}).items():
        target = raw
        *parents, last = dotted.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    return parse_config(raw, source)


def parse_config(raw: Mapping[str, object], source: str) -> SearchConfig:
    """`raw` as a SearchConfig; raises ConfigError naming `source`, the key and the nearest known key."""
    try:
        return SearchConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error, source, SearchConfig), next_step="automc config schema") from error


def explain(error: ValidationError, source: str, model: type[BaseModel]) -> str:
    """A pydantic error as one line per problem: `file: key.path: what is wrong, what is allowed`."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = _known_keys(model, item["loc"][:-1])
            near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
            message = f"unknown key; did you mean {near[0]}?" if near else f"unknown key (known: {', '.join(known)})"
        elif item["type"] == "missing":
            message = "is required"
        else:
            shown = repr(item["input"])
            message = f"{message}, found {shown if len(shown) < 60 else shown[:57] + '...'}"
        lines.append(f"{source}: {where + ': ' if where else ''}{message}")
    return "\n".join(lines)


def _known_keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        kinds = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if inner:
            model = inner[0]
    return sorted(model.model_fields)


def dump_config(config: SearchConfig) -> str:
    """The config as YAML that `load_config` reads back to the same value."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text
