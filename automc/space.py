"""What may vary: techniques, their ranges, the orders allowed; turns assignments into candidates, refuses the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import JsonValue, ValidationError

from automc.candidate import Candidate, Step, canonical_json, digest
from automc.chains import ORDER, RECOVER, RECOVERY, ChainRules
from automc.errors import ConfigError, InfeasibleCandidate
from automc.nearest import nearest
from automc.profiles import shipped_folder
from automc.space_file import (
    AnchorFile,
    Knobs,
    SpaceFile,
    check_cells,
    distinct,
    form,
    is_number,
    parse_space,
    read_architecture,
    read_knobs,
    space_path,
)
from automc.techniques import get_technique, technique_names
from automc.techniques.technique import Phase, Technique
from automc.yaml_files import read_yaml

Assignment = Mapping[str, JsonValue]
"""A choice for each dimension by name; dimensions of techniques outside the chosen chain may be left out."""


@dataclass(frozen=True)
class Dimension:
    """One thing that varies. choices: at least two, distinct. ordered: they are numbers, ascending."""

    name: str
    choices: tuple[JsonValue, ...]
    ordered: bool


@dataclass(frozen=True)
class Anchor:
    """The obvious thing, evaluated in every run (law 8); of several candidates the best is carried up."""

    name: str
    candidates: tuple[Candidate, ...]


class SearchSpace:
    """The candidates of one space file.

    dimensions: `chain` (order of the MODEL steps and the recoveries among them), `graph` (what follows export),
    `recovery` (which technique trains), `technique.parameter` and `architecture.name`; what has one choice is no
    dimension. Built by `load` or `parse`, which raise ConfigError with file, key and what is allowed.
    """

    def __init__(self, spec: SpaceFile, where: str) -> None:
        self.spec, self.name, self.where = spec, spec.name, where
        self._techniques: dict[str, Technique[Any]] = {}
        self._knobs: dict[str, Knobs] = {}
        for section, given in (("techniques", spec.techniques), (RECOVERY, spec.recovery)):
            for name, knobs in given.items():
                self._techniques[name] = self._known(name, section)
                self._knobs[name] = read_knobs(name, knobs, f"{where}: {section}.{name}")
        self._recoveries = tuple(spec.recovery)
        self._architecture = {
            name: read_architecture(name, knob, f"{where}: architecture") for name, knob in spec.architecture.items()
        }
        self.cells = check_cells(spec.cells, self._architecture, where)
        self._rules = ChainRules(self._techniques, self._recoveries, where)
        self._chains, self._graphs = self._rules.chains(spec.chains)
        self.dimensions = self._dimensions()
        self.anchors = self._anchors()

    @classmethod
    def load(cls, name_or_path: str | Path) -> SearchSpace:
        """The shipped space of that name, or the file at that path."""
        path = space_path(name_or_path)
        return cls(parse_space(read_yaml(path, next_step=form()), str(path)), str(path))

    @classmethod
    def parse(cls, data: Mapping[str, object], where: str = "search space") -> SearchSpace:
        """A space from the mapping a file would hold; `where` is what errors call it."""
        return cls(parse_space(dict(data), where), where)

    def to_json(self) -> dict[str, JsonValue]:
        """The space as `parse` takes it back, for the lock file."""
        dumped: dict[str, JsonValue] = self.spec.model_dump(mode="json")
        return dumped

    @property
    def digest(self) -> str:
        return digest(self.to_json())

    @property
    def techniques(self) -> tuple[str, ...]:
        """Every technique a candidate of this space, or an anchor, may use."""
        anchored = [step.technique for anchor in self.anchors for one in anchor.candidates for step in one.steps]
        return tuple(dict.fromkeys([*self._techniques, *anchored]))

    # --- candidates -------------------------------------------------------------------------------------------------

    def candidate(self, assignment: Assignment) -> Candidate:
        """The candidate of `assignment`; equal chains with equal used parameters are equal, with equal ids.

        Raises InfeasibleCandidate where the choices exclude each other or a technique refuses their combination,
        ValueError where a needed dimension is absent, unknown or given a value that is not among its choices.
        """
        unknown = set(assignment) - {dimension.name for dimension in self.dimensions}
        if unknown:
            raise ValueError(f"{self.where} has no dimension {sorted(unknown)[0]!r}")
        names = self.sequence(assignment)
        steps = tuple(self._step(name, self._parameters(name, assignment)) for name in names)
        architecture = {
            name: self._chosen(f"architecture.{name}", assignment, choices)
            for name, choices in self._architecture.items()
        }
        return Candidate(steps, canonical_json(architecture))

    def assignment(self, candidate: Candidate) -> dict[str, JsonValue] | None:
        """The inverse of `candidate`, used dimensions only; None where this space does not hold the candidate."""
        layout = self._layouts.get(tuple(step.technique for step in candidate.steps))
        if layout is None or set(candidate.architecture) != set(self._architecture):
            return None
        wanted: dict[str, JsonValue] = dict(zip(("chain", "graph", RECOVERY), layout, strict=True))
        for step in candidate.steps:
            params = self._techniques[step.technique].params.model_validate(step.params).model_dump(mode="json")
            wanted.update({f"{step.technique}.{name}": params[name] for name in self._knobs[step.technique].varied})
        wanted.update({f"architecture.{name}": value for name, value in candidate.architecture.items()})
        varying = {dimension.name: dimension for dimension in self.dimensions}
        found = {name: value for name, value in wanted.items() if name in varying}
        if any(value not in varying[name].choices for name, value in found.items()):
            return None
        return found if self.candidate(found) == candidate else None

    def sequence(self, assignment: Assignment) -> tuple[str, ...]:
        """Names of the candidate's techniques in the order they run; chain, graph and recovery decide it.

        Raises InfeasibleCandidate where they exclude each other.
        """
        names = self._names(assignment)
        reason = self._rules.illegal(names)
        if reason is not None:
            raise InfeasibleCandidate(reason)
        return names

    def active(self, assignment: Assignment) -> tuple[str, ...]:
        """Names of the dimensions that matter once chain, graph and recovery are chosen as in `assignment`."""
        names = self._names(assignment)
        heads = {"chain", "graph", "architecture", *names}
        if not set(names).isdisjoint(self._recoveries):
            heads.add(RECOVERY)
        return tuple(dim.name for dim in self.dimensions if dim.name.partition(".")[0] in heads)

    def used(self, assignment: Assignment) -> dict[str, JsonValue]:
        """The part of a full `assignment` that decides its candidate."""
        return {name: assignment[name] for name in self.active(assignment)}

    def draw(self, rng: np.random.Generator) -> dict[str, JsonValue]:
        """A full assignment, every dimension uniform and independent; it may be infeasible."""
        return {dim.name: dim.choices[int(rng.integers(len(dim.choices)))] for dim in self.dimensions}

    def sample(self, rng: np.random.Generator, attempts: int = 1000) -> Candidate:
        """A feasible candidate. Raises InfeasibleCandidate where `attempts` draws found none."""
        for _ in range(attempts):
            try:
                return self.candidate(self.draw(rng))
            except InfeasibleCandidate:
                continue
        raise InfeasibleCandidate(f"{self.where}: {attempts} draws found no feasible candidate")

    def candidates(self) -> Iterator[Candidate]:
        """Every feasible candidate once, in a fixed order."""
        for names in self._layouts:
            parts = [[(key, value) for value in values] for name in names for key, values in self._varied(name)] + [
                [(f"architecture.{name}", value) for value in values] for name, values in self._architecture.items()
            ]
            for chosen in product(*parts):
                values = dict(chosen)
                try:
                    steps = tuple(self._step(name, self._parameters(name, values)) for name in names)
                except InfeasibleCandidate:
                    continue
                architecture = {name: values[f"architecture.{name}"] for name in self._architecture}
                yield Candidate(steps, canonical_json(architecture))

    @cached_property
    def size(self) -> int:
        """How many candidates differ, before any is refused for a combination its technique cannot take."""
        total = 0
        for names in self._layouts:
            counted = {key: len(values) for name in names for key, values in self._varied(name)}
            total += math.prod(counted.values())
        return total * math.prod(len(values) for values in self._architecture.values())

    # --- chains -----------------------------------------------------------------------------------------------------

    @cached_property
    def _layouts(self) -> dict[tuple[str, ...], tuple[str, str, str]]:
        """Legal sequence of techniques -> (chain, graph, recovery) that gives it; the first where several do."""
        found: dict[tuple[str, ...], tuple[str, str, str]] = {}
        for labels in product(self._chains, self._graphs, self._recoveries or ("",)):
            names = self._sequence(*labels)
            if names not in found and self._rules.illegal(names) is None:
                found[names] = labels
        return found

    def _names(self, assignment: Assignment) -> tuple[str, ...]:
        return self._sequence(
            str(self._chosen("chain", assignment, tuple(self._chains))),
            str(self._chosen("graph", assignment, tuple(self._graphs))),
            str(self._chosen(RECOVERY, assignment, self._recoveries or ("",))),
        )

    def _sequence(self, chain_label: str, graph_label: str, recovery: str) -> tuple[str, ...]:
        model = tuple(recovery if word == RECOVERY else word for word in self._chains[chain_label])
        return model + self._graphs[graph_label]

    # --- pieces -----------------------------------------------------------------------------------------------------

    def _known(self, name: str, section: str) -> Technique[Any]:
        key = f"{self.where}: {section}.{name}"
        if name not in technique_names():
            raise ConfigError(
                f"{key}: no technique is called {name!r}{nearest(name, technique_names())}",
                next_step="automc technique list",
            )
        technique = get_technique(name)
        recovers = technique.phase is Phase.RECOVERY
        if recovers != (section == RECOVERY):
            belongs = RECOVERY if recovers else "techniques"
            raise ConfigError(f"{key}: {name} belongs under `{belongs}`", next_step=f"move it to `{belongs}`")
        if technique.needs_training and not self.spec.recovery:
            raise ConfigError(
                f"{key}: {name} needs training, but the space lists no technique under `recovery`", next_step=RECOVER
            )
        return technique

    def _dimensions(self) -> tuple[Dimension, ...]:
        named: list[tuple[str, tuple[JsonValue, ...]]] = [
            ("chain", tuple(self._chains)),
            ("graph", tuple(self._graphs)),
            (RECOVERY, self._recoveries),
        ]
        reachable = set(chain.from_iterable(self._layouts))
        named += [item for name in self._techniques if name in reachable for item in self._varied(name)]
        named += [(f"architecture.{name}", choices) for name, choices in self._architecture.items()]
        return tuple(
            Dimension(name, choices, all(is_number(choice) for choice in choices))
            for name, choices in named
            if len(choices) > 1
        )

    def _varied(self, technique: str) -> Iterator[tuple[str, tuple[JsonValue, ...]]]:
        for name, choices in self._knobs[technique].varied.items():
            yield f"{technique}.{name}", choices

    def _chosen(self, name: str, assignment: Assignment, choices: tuple[JsonValue, ...]) -> JsonValue:
        if len(choices) == 1:
            return choices[0]
        if name not in assignment:
            raise ValueError(f"the assignment lacks {name!r}")
        (value,) = distinct([assignment[name]])
        if value not in choices:
            raise ValueError(f"{name} = {value!r} is not among {choices}")
        return value

    def _parameters(self, technique: str, assignment: Assignment) -> dict[str, JsonValue]:
        knobs = self._knobs[technique]
        chosen = {
            name: self._chosen(f"{technique}.{name}", assignment, choices) for name, choices in knobs.varied.items()
        }
        return {**knobs.fixed, **chosen}

    def _step(self, technique: str, params: Mapping[str, JsonValue]) -> Step:
        """The step without parameters at their defaults, so that saying a default and not saying it are one."""
        try:
            checked = get_technique(technique).params.model_validate(params)
        except ValidationError as error:
            raise InfeasibleCandidate(f"{technique}: {error.errors()[0]['msg']}") from error
        return Step.of(technique, **checked.model_dump(mode="json", exclude_defaults=True))

    # --- anchors ----------------------------------------------------------------------------------------------------

    def _anchors(self) -> tuple[Anchor, ...]:
        """The file's anchors, else the default ones; `reference`, recovery alone, always first where any recovers."""
        written = self.spec.anchors
        where = self.where
        if written is None and self._recoveries:
            path = shipped_folder("search_spaces") / "_anchors.yaml"
            where = str(path)
            written = tuple(
                AnchorFile.model_validate(item) for item in cast("list[object]", read_yaml(path, next_step=form()))
            )
        written = written or ()
        if self._recoveries and "reference" not in [anchor.name for anchor in written]:
            written = (AnchorFile(name="reference", steps=(RECOVERY,)), *written)
        names = [anchor.name for anchor in written]
        if len(set(names)) != len(names):
            raise ConfigError(
                f"{where}: anchors: a name is used twice: {', '.join(names)}", next_step="give each a name of its own"
            )
        return tuple(self._anchor(anchor, f"{where}: anchors.{anchor.name}") for anchor in written)

    def _anchor(self, anchor: AnchorFile, key: str) -> Anchor:
        options: list[list[Step]] = []
        for item in anchor.steps:
            if isinstance(item, dict) and len(item) != 1:
                raise ConfigError(
                    f"{key}: each step is a name or one {{name: parameters}}, got {sorted(item)}",
                    next_step="begin a new list item for every step",
                )
            name, given = (item, None) if isinstance(item, str) else next(iter(item.items()))
            if name == RECOVERY:
                if not self._recoveries:
                    raise ConfigError(
                        f"{key}: asks for recovery, but the space lists no technique under `recovery`",
                        next_step=RECOVER,
                    )
                name = self._recoveries[0]
                knobs = self._knobs[name]
                first = {field: choices[0] for field, choices in knobs.varied.items()}
                options.append([self._step(name, {**knobs.fixed, **first})])
                continue
            if name not in technique_names():
                raise ConfigError(
                    f"{key}: no technique is called {name!r}{nearest(name, technique_names())}",
                    next_step="automc technique list",
                )
            knobs = read_knobs(name, given, f"{key}.{name}")
            varied = [[(field, value) for value in values] for field, values in knobs.varied.items()]
            options.append([self._step(name, {**knobs.fixed, **dict(chosen)}) for chosen in product(*varied)])
        reason = self._rules.illegal([steps[0].technique for steps in options])
        if reason is not None:
            raise ConfigError(f"{key}: {reason}", next_step=ORDER)
        return Anchor(anchor.name, tuple(Candidate(steps) for steps in product(*options)))
