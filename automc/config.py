"""What a search is asked to do, as one YAML file; every error names the file and the key."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from automc.errors import ConfigError
from automc.nearest import nearest, nearest_or_all
from automc.recovery.recipe import Recipe
from automc.yaml_files import read_yaml

Objective = Literal["accuracy", "latency_ms", "energy_mj", "memory_mb", "size_bytes"]
Rule = Literal["fastest", "smallest", "most_accurate", "lowest_energy", "knee"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkloadSection(Section):
    """Which model and data."""

    name: str = Field(
        "digits",
        description="digits, mnist, cifar10; with data of your own: own (Python), arrays (npz), images (folders), "
        "table (CSV); or one that is installed",
    )
    options: dict[str, JsonValue] = Field(
        {}, description="the workload's own; `automc config init --workload NAME` prints them"
    )


class Constraints(Section):
    """Limits a result must meet. null constrains nothing; an unknown cost never counts as met."""

    max_drop_points: float | None = Field(None, description="accuracy points below the reference, at the top rung")
    max_latency_ms: float | None = Field(None, gt=0, description="milliseconds of one inference, 10th percentile")
    max_energy_mj: float | None = Field(None, gt=0, description="millijoules of one inference")
    max_memory_mb: float | None = Field(None, gt=0, description="MB (2^20 bytes) that one inference needs")
    max_size_bytes: float | None = Field(None, gt=0, description="bytes of the ONNX file")


class Rung(Section):
    """One fidelity: how many candidates reach it and how many optimiser steps each has had in total by its end."""

    candidates: int = Field(ge=1, description="how many reach it, anchors not counted; never more than the rung before")
    steps: int = Field(ge=0, description="optimiser steps each has had in total by its end; rising, 0 in the first")


class SearchSection(Section):
    """How the space is searched. Rung 0 trains nothing; every later rung goes on from the checkpoint before it."""

    strategy: str = Field(
        "guided",
        description="what proposes candidates: guided, nsga2, tpe, random, nni_tpe or nni_evolution (both need the "
        "extra `nas`), or one that is installed",
    )
    seed: int = Field(0, ge=0, description="of every random choice")
    parallel: int = Field(2, ge=1, description="candidates under way: ask n follows tell n - parallel")
    rungs: tuple[Rung, ...] = Field(
        (Rung(candidates=24, steps=0), Rung(candidates=8, steps=40), Rung(candidates=4, steps=120)),
        description="fidelities, cheapest first",
    )
    minutes: float | None = Field(
        None,
        gt=0,
        description="of searching: the rungs are repeated with new candidates while there is time, and cut short where "
        "there is none; calibrating before and measuring at the end come on top. null: the rungs once",
    )
    finalists: int = Field(4, ge=1, description="candidates re-measured on the device at the end, besides the anchors")

    @model_validator(mode="after")
    def _rungs_rise(self) -> SearchSection:
        steps = [rung.steps for rung in self.rungs]
        counts = [rung.candidates for rung in self.rungs]
        if not steps:
            raise ValueError("rungs: is empty; write at least one, e.g. rungs: [{candidates: 24, steps: 0}]")
        if steps[0] != 0:
            raise ValueError(f"rungs: the first trains nothing, so rungs.0.steps must be 0, found {steps[0]}")
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError(f"rungs: steps must rise from rung to rung, found {steps}")
        if any(later > earlier for earlier, later in pairwise(counts)):
            raise ValueError(f"rungs: candidates must not grow from rung to rung, found {counts}")
        return self


class ExecutorSection(Section):
    """Who evaluates: `inline` in this process, `ray` on long-lived workers of a local or given cluster."""

    kind: Literal["inline", "ray"] = Field("ray", description="decisions are the same with both")
    workers: int = Field(2, ge=1, description="processes of one thread each; ray only")
    address: str | None = Field(None, description="of a running Ray cluster; null starts and stops a local one")


class SearchConfig(Section):
    """The whole of a search. Defaults are the embedded demo: the digits workload on this host."""

    name: str = Field(
        "demo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the run's folder below runs/; no spaces"
    )
    workload: WorkloadSection = WorkloadSection()
    profile: str = Field("host", description="the device: a name of `automc profile list`, or a profile's folder")
    calibrate: Literal["never", "quick", "full"] = Field(
        "quick", description="what to do where the profile `host` is absent or stale (quick: 1 minute, full: 5)"
    )
    energy: str = Field(
        "auto",
        description="what finalists' energy is read from: auto (this machine's counter: RAPL, NVML, a Jetson's rails; "
        "without one it stays predicted), model (stays predicted), or the CSV file a power meter is writing",
    )
    space: str = Field("digits", description="what may vary: a shipped search space, or the path of your own file")
    objectives: tuple[Objective, ...] = Field(
        ("accuracy", "latency_ms", "size_bytes"), description="what is traded: accuracy and at least one cost"
    )
    constraints: Constraints = Constraints(max_drop_points=1.0)
    insist: bool = Field(
        False, description="let a profile that only ranks networks (`automc profile list`) decide limits all the same"
    )
    search: SearchSection = SearchSection()
    recovery: Recipe = Recipe()
    teacher: Literal["reference", "base", "none"] = Field(
        "reference", description="what distillation learns from: the base trained on alike, the base as given, nothing"
    )
    choose: Rule = Field("fastest", description="which finalist within the constraints is bundled")
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
        _find(file)
        raw = read_yaml(file, next_step=f"mend it, then: automc config check {path}") or {}
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{source}: expected keys and values, found {type(raw).__name__}", next_step="automc config init"
        )
    lay_over(raw, overrides or {})
    return parse_config(raw, source)


def lay_over(raw: dict[str, Any], overrides: Mapping[str, JsonValue]) -> None:
    """Put dotted `overrides` into `raw`, in place; where `raw` is wrong there, which parsing will say, it stays."""
    for dotted, value in overrides.items():
        target: object = raw
        *parents, last = dotted.split(".")
        for parent in parents:
            target = target.setdefault(parent, {}) if isinstance(target, dict) else target
        if isinstance(target, dict):
            target[last] = value


def _find(file: Path) -> None:
    """Raises ConfigError where `file` is not there, or is a folder."""
    if file.is_dir():
        inside = sorted(found.name for found in file.iterdir() if found.suffix in (".yaml", ".yml"))
        raise ConfigError(
            f"{file}: is a folder, not a config file"
            + (f" (it holds {', '.join(inside[:5])})" if inside else " (and holds no YAML file)"),
            next_step=f"automc config check {file / inside[0]}" if inside else "automc config init > search.yaml",
        )
    if not file.is_file():
        beside = [found.name for found in file.parent.glob("*.y*ml")]
        hint = nearest(file.name, beside)
        raise ConfigError(f"{file}: no such file{hint}", next_step="automc config init > search.yaml")


def parse_config(raw: Mapping[str, object], source: str) -> SearchConfig:
    """`raw` as a SearchConfig; raises ConfigError naming `source`, the key and the nearest known key."""
    try:
        return SearchConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error, source, SearchConfig), next_step="automc config init") from error


def parse_constraints(raw: Mapping[str, object]) -> Constraints:
    """`raw` as Constraints; raises ConfigError naming the key."""
    try:
        return Constraints.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error, "limits", Constraints), next_step="automc front --help") from error


def explain(error: ValidationError, source: str, model: type[BaseModel]) -> str:
    """A pydantic error as one line per problem: `file: key.path: what is wrong, what is allowed`."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = _known_keys(model, item["loc"][:-1])
            message = f"unknown key{nearest_or_all(str(item['loc'][-1]), known)}"
        elif item["type"] == "missing":
            message = "is required"
        elif item["type"] == "model_type":
            message = f"expected keys and values, found {item['input']!r}"
        elif item["type"] == "value_error":
            pass  # ours: says itself what was found
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
