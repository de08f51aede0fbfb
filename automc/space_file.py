"""Reads a search-space file: YAML checked key by key against what every technique's `Params` declares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from automc.errors import ConfigError
from automc.nearest import nearest, nearest_or_all
from automc.profiles import shipped_folder
from automc.techniques import get_technique
from automc.techniques.technique import Params

Knob = JsonValue
"""In the file: one value (fixed), a list of values, or a range {min, max, step}."""
_KNOB = "write one value, a list of values, or a range such as {min: 0, max: 1, step: 0.25}"


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Range(Frozen):
    """Every value from `min` to `max` in steps of `step`; what is left out comes from the technique's `Params`."""

    min: float | None = None
    max: float | None = None
    step: Annotated[float, Field(gt=0)] | None = None


class Chains(Frozen):
    """Which chains of steps exist: all legal ones within these limits, or the ones in `list` and no other."""

    max_steps: int = Field(3, ge=0, le=8, description="most MODEL steps in one chain")
    max_recoveries: int = Field(2, ge=0, le=2, description="2: one may come between steps; 1: only the last one")
    limit: int = Field(256, ge=1, description="more legal chains than this are refused, not dropped in silence")
    list: tuple[tuple[str, ...], ...] | None = Field(
        None, description="whole chains in order; the word `recovery` stands for the technique chosen for recovery"
    )


class AnchorFile(Frozen):
    """A chain that every run evaluates; each step a technique's name, or {name: {parameter: value or values}}."""

    name: str
    steps: tuple[str | dict[str, dict[str, JsonValue] | None], ...]


class CellFile(Frozen):
    """A cell whose edges are architecture choices: what a strategy may learn from how they are wired.

    It says nothing about which candidates there are.
    """

    absent: JsonValue = Field(description="the choice that leaves an edge out")
    edges: dict[str, tuple[int, int]] = Field(
        min_length=1, description="choice: [from node, to node], rising; 0 is the input, the last node the output"
    )


class SpaceFile(Frozen):
    """The file as written."""

    name: str
    description: str = ""
    techniques: dict[str, dict[str, JsonValue] | None] = {}
    recovery: dict[str, dict[str, JsonValue] | None] = {}
    chains: Chains = Chains()
    anchors: tuple[AnchorFile, ...] | None = None
    architecture: dict[str, JsonValue] = {}
    cells: tuple[CellFile, ...] = ()


def form() -> str:
    """The next step of whoever wrote a space that is not of the form of one."""
    return f"cat {shipped_folder('search_spaces') / 'cnn.yaml'}    (a space that is complete)"


def shipped_spaces() -> dict[str, Path]:
    """The spaces that ship with automc, by name."""
    return {
        found.stem: found for found in sorted(shipped_folder("search_spaces").glob("*.yaml")) if found.stem[0] != "_"
    }


def space_path(name_or_path: str | Path) -> Path:
    """The file of a space given by path or by the name of a shipped one. Raises ConfigError with the nearest name."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    shipped = shipped_spaces()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, not a search space", next_step=f"name a file in it: ls {path}")
    hint = nearest(path.stem, shipped)
    raise ConfigError(
        f"no search space is called {str(name_or_path)!r} and no such file exists{hint} "
        f"(shipped: {', '.join(shipped)})",
        next_step="name a shipped space, or give the path of a file of that form: " + form(),
    )


def parse_space(data: object, where: str) -> SpaceFile:
    """`data` as a space file. Raises ConfigError with `where`, the key and what is allowed."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: is not a mapping with `name` and `techniques` at the top", next_step=form())
    try:
        return SpaceFile.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(item, where) for item in error.errors()), next_step=form()) from error


def _explain(item: Any, where: str) -> str:
    parts = [str(part) for part in item["loc"]]
    key = ".".join(parts)
    if item["type"] == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {"chains": Chains, "anchors": AnchorFile, "cells": CellFile}
        known = sections.get(parts[0], SpaceFile) if len(parts) > 1 else SpaceFile
        return f"{where}: {key}: there is no such key{nearest_or_all(parts[-1], known.model_fields)}"
    return f"{where}: {key}: {item['msg'][0].lower()}{item['msg'][1:]}"


@dataclass(frozen=True)
class Knobs:
    """What a space says about one technique: values that are fixed and values that vary (ascending where numeric)."""

    fixed: Mapping[str, JsonValue]
    varied: Mapping[str, tuple[JsonValue, ...]]


def read_knobs(technique: str, given: Mapping[str, Knob] | None, where: str) -> Knobs:
    """The knobs of one technique, every value checked against its `Params`. where: 'FILE: section.technique'.

    Raises ConfigError: an unknown parameter (nearest name), a value that the technique does not allow.
    """
    params = get_technique(technique).params
    fixed: dict[str, JsonValue] = {}
    varied: dict[str, tuple[JsonValue, ...]] = {}
    for name, knob in (given or {}).items():
        if name not in params.model_fields:
            raise ConfigError(
                f"{where}.{name}: {technique} has no such parameter{nearest_or_all(name, params.model_fields)}",
                next_step=f"automc technique show {technique}",
            )
        limits = _Limits(technique, name, params, f"{where}.{name}")
        choices = distinct(limits.choices(knob))
        if len(choices) == 1:
            fixed[name] = choices[0]
        else:
            varied[name] = choices
    return Knobs(fixed, varied)


def read_architecture(name: str, knob: Knob, where: str) -> tuple[JsonValue, ...]:
    """The choices of one architecture dimension; a range must give min, max and step itself."""
    if isinstance(knob, Mapping):
        span = _parse_range(knob, f"{where}.{name}")
        if span.min is None or span.max is None or span.step is None:
            raise ConfigError(f"{where}.{name}: a range needs min, max and step", next_step=_KNOB)
        return grid(span.min, span.max, span.step)
    choices = distinct(knob if isinstance(knob, list) else [knob])
    if not choices:
        raise ConfigError(f"{where}.{name}: holds no choice", next_step=_KNOB)
    return choices


def grid(low: float, high: float, step: float) -> tuple[JsonValue, ...]:
    """low, low + step, ... up to `high`, at 12 significant digits; integers where all three are whole numbers."""
    count = math.floor((high - low) / step + 1e-9) + 1
    values = [snap(low + step * i) for i in range(count)]
    if all(float(part).is_integer() for part in (low, step)):
        return tuple(int(value) for value in values)
    return tuple(values)


def snap(value: float) -> float:
    """`value` at 12 significant digits, so that 0.30000000000000004 and 0.3 are one."""
    return float(f"{value:.12g}")


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def distinct(choices: Iterable[JsonValue]) -> tuple[JsonValue, ...]:
    """Without repetition, floats snapped; ascending where all are numbers, in the given order otherwise."""
    snapped = [snap(value) if isinstance(value, float) else value for value in choices]
    unique = [value for i, value in enumerate(snapped) if value not in snapped[:i]]
    if all(is_number(value) for value in unique):
        unique.sort(key=lambda value: cast(float, value))
    return tuple(unique)


def _parse_range(knob: Mapping[str, JsonValue], where: str) -> Range:
    try:
        return Range.model_validate(knob)
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(str(part) for part in item["loc"])
        raise ConfigError(f"{where}.{key}: {item['msg']} (a range is min, max and step)", next_step=_KNOB) from error


class _Limits:
    """What a technique allows for one parameter, read from the field of its `Params`."""

    def __init__(self, technique: str, name: str, params: type[Params], where: str) -> None:
        self.technique, self.name, self.params, self.where = technique, name, params, where
        self.show = f"automc technique show {technique}"
        field = params.model_fields[name]
        self.low: float | None = None
        self.high: float | None = None
        for bound in field.metadata:
            self.low = getattr(bound, "ge", getattr(bound, "gt", self.low))
            self.high = getattr(bound, "le", getattr(bound, "lt", self.high))
        self.open_low = any(hasattr(bound, "gt") for bound in field.metadata)
        self.open_high = any(hasattr(bound, "lt") for bound in field.metadata)
        extra = field.json_schema_extra
        self.step = cast("float | None", extra.get("step") if isinstance(extra, dict) else None)
        self.literals = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()

    def choices(self, knob: Knob) -> tuple[JsonValue, ...]:
        if isinstance(knob, Mapping) and knob.keys() & {"min", "max", "step"}:
            return self._range(_parse_range(knob, self.where))
        values = knob if isinstance(knob, list) else [knob]
        if not values:
            raise ConfigError(f"{self.where}: holds no choice", next_step=self.show)
        for value in values:
            self._refuse("", value, self._out_of_bounds(value) or self._off_grid(value))
        return tuple(values)

    def _range(self, span: Range) -> tuple[JsonValue, ...]:
        low, high = self.low if span.min is None else span.min, self.high if span.max is None else span.max
        step = self.step if span.step is None else span.step
        for key, part in (("min", low), ("max", high), ("step", step)):
            if part is None:
                raise ConfigError(
                    f"{self.where}: a range needs {key}: {self.technique} declares none itself", next_step=self.show
                )
        assert low is not None
        assert high is not None
        assert step is not None
        if high < low:
            raise ConfigError(f"{self.where}: min = {low} is above max = {high}", next_step="exchange them")
        values = grid(low, high, step)
        self._refuse(".min", low, self._out_of_bounds(values[0]) or self._off_grid(low))
        self._refuse(".max", high, self._out_of_bounds(math.floor(high) if isinstance(values[0], int) else high))
        for value in values:
            self._refuse(".step", step, self._off_grid(value) or self._out_of_bounds(value))
        return values

    def _refuse(self, key: str, value: JsonValue, allowed: str | None) -> None:
        if allowed is not None:
            raise ConfigError(
                f"{self.where}{key} = {value}, but {self.technique} allows {allowed}", next_step=self.show
            )

    def _out_of_bounds(self, value: JsonValue) -> str | None:
        """What is allowed where `value` is not, judged by the technique's own Params; else None."""
        try:
            self.params.model_validate({self.name: value})
        except ValidationError as error:
            own = [item["msg"] for item in error.errors() if item["loc"][:1] == (self.name,)]
            return self._allowed(own[0]) if own else None
        return None

    def _off_grid(self, value: JsonValue) -> str | None:
        if self.step is None or not is_number(value):
            return None
        offset = (cast(float, value) - (self.low or 0.0)) / self.step
        return f"{self._allowed('values')} in steps of {self.step}" if abs(offset - round(offset)) > 1e-6 else None

    def _allowed(self, otherwise: str) -> str:
        if self.literals:
            return ", ".join(str(value) for value in self.literals)
        if self.low is None or self.high is None:
            return otherwise
        return f"{'above ' if self.open_low else ''}{self.low} to {'below ' if self.open_high else ''}{self.high}"


def check_cells(
    cells: Iterable[CellFile], architecture: Mapping[str, tuple[JsonValue, ...]], where: str
) -> tuple[CellFile, ...]:
    """The cells, whose every edge is a choice of `architecture` that may be absent. Raises ConfigError, else."""
    checked = tuple(cells)
    for number, cell in enumerate(checked):
        for name, (start, end) in cell.edges.items():
            key = f"{where}: cells.{number}.edges.{name}"
            if name not in architecture:
                raise ConfigError(
                    f"{key}: no architecture choice has this name{nearest_or_all(name, architecture)}",
                    next_step="name the choices of `architecture`",
                )
            if cell.absent not in architecture[name]:
                raise ConfigError(
                    f"{key}: {cell.absent!r} is not among its choices {list(architecture[name])}",
                    next_step="give the choice that leaves an edge out as `absent`",
                )
            if not 0 <= start < end:
                raise ConfigError(
                    f"{key}: an edge leads from a node to a later one, found [{start}, {end}]",
                    next_step="number the nodes from 0, the input, so that every edge rises",
                )
    return checked
