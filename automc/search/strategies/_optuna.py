"""Optuna's samplers behind ask and tell: one in-memory study per strategy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from automc.candidate import Candidate
from automc.search.strategies.strategy import CostTeller, Screen, Strategy, everything
from automc.space import Assignment, Dimension, SearchSpace
from automc.trial import Trial

if TYPE_CHECKING:
    import optuna

_HEAD = ("chain", "graph", "recovery")


class OptunaStrategy(Strategy):
    """A choice is its index in its dimension: an integer where the dimension is ordered, a category elsewhere.

    conditional: a trial holds only the dimensions its chain uses (for samplers that learn each dimension by itself);
    otherwise all of them (for samplers that cross whole trials).
    """

    conditional: bool

    def __init__(
        self,
        space: SearchSpace,
        objectives: int,
        seed: int,
        screen: Screen = everything,
        costs: CostTeller | None = None,
    ) -> None:
        import optuna

        super().__init__(space, objectives, seed, screen, costs)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(directions=["minimize"] * objectives, sampler=self.sampler(seed))
        self._open: dict[str, optuna.Trial] = {}
        self._proposed: optuna.Trial | None = None

    @abstractmethod
    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """A sampler seeded with `seed`, for several objectives and constraints."""

    def propose(self) -> Assignment:
        self._proposed = self._study.ask()
        return self._suggest(self._proposed)

    def accepted(self, candidate: Candidate, assignment: Assignment) -> None:
        if self._proposed is not None:
            self._open[candidate.id] = self._proposed
        else:
            self._open[candidate.id] = self._insert(assignment)
        self._proposed = None

    def rejected(self, assignment: Assignment) -> None:
        import optuna

        assert self._proposed is not None
        self._study.tell(self._proposed, state=optuna.trial.TrialState.FAIL)
        self._proposed = None

    def learn(self, trial: Trial, objectives: tuple[float, ...] | None, violation: float) -> None:
        import optuna

        mine = self._open.pop(trial.candidate.id, None)
        if mine is None:
            assignment = self.space.assignment(trial.candidate)
            if assignment is None:
                return
            mine = self._insert(assignment)
        if objectives is None:
            self._study.tell(mine, state=optuna.trial.TrialState.FAIL)
            return
        mine.set_constraint("violation", violation)
        self._study.tell(mine, list(objectives))

    def _insert(self, assignment: Assignment) -> optuna.Trial:
        """A trial of the study with these choices; a dimension that is not given gets what the sampler proposes."""
        fixed = {dim.name: dim.choices.index(assignment[dim.name]) for dim in self._dimensions(assignment)}
        self._study.enqueue_trial(fixed)
        mine = self._study.ask()
        _ = mine.relative_params  # else a sampler does not hear of a trial whose every choice is given
        self._suggest(mine)
        return mine

    def _dimensions(self, assignment: Assignment) -> Sequence[Dimension]:
        return [dim for dim in self.space.dimensions if dim.name in assignment]

    def _suggest(self, mine: optuna.Trial) -> dict[str, JsonValue]:
        head = [dim for dim in self.space.dimensions if dim.name in _HEAD]
        chosen = {dim.name: _suggest_one(mine, dim) for dim in head}
        wanted = self.space.active(chosen) if self.conditional else [dim.name for dim in self.space.dimensions]
        for dim in self.space.dimensions:
            if dim.name in wanted and dim.name not in chosen:
                chosen[dim.name] = _suggest_one(mine, dim)
        return chosen


def _suggest_one(mine: optuna.Trial, dimension: Dimension) -> JsonValue:
    last = len(dimension.choices) - 1
    if dimension.ordered:
        return dimension.choices[mine.suggest_int(dimension.name, 0, last)]
    return dimension.choices[mine.suggest_categorical(dimension.name, range(last + 1))]
