"""NNI's tuners behind ask and tell: in process, one scalar objective, several made one by random weights.

A tuner minimises one number; a search has several. So every ask draws weights, uniform on the simplex, and all that was
told is scored anew by the augmented Chebyshev distance to the best told value of each objective, every objective
divided by its told range (ParEGO; Knowles 2006): any point of the front is the best for some weights, which no fixed
sum of objectives reaches. A trial that breaks limits is worse than every trial that does not, by how much it does.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from automc.candidate import Candidate
from automc.search.strategies.strategy import CostTeller, Screen, Strategy, everything
from automc.space import Assignment, SearchSpace
from automc.trial import Trial

if TYPE_CHECKING:
    from nni.algorithms.hpo.evolution_tuner import EvolutionTuner

Choices = dict[str, int]
"""Index of the choice in each dimension: what a tuner is told of an assignment."""

_AUGMENTED = 0.05
_BROKEN = 10.0  # beyond every distance of a trial within the limits, which is at most 1 + 0.05


class NniStrategy(Strategy):
    """Scores what was told; a subclass asks its tuner. Dimensions of techniques outside the chain are chosen too."""

    NEEDS: ClassVar[tuple[str, ...]] = ("nni",)

    def __init__(
        self,
        space: SearchSpace,
        objectives: int,
        seed: int,
        screen: Screen = everything,
        costs: CostTeller | None = None,
    ) -> None:
        super().__init__(space, objectives, seed, screen, costs)
        self._told_scores: list[tuple[tuple[float, ...], float]] = []

    def propose(self) -> Assignment:
        if not self.space.dimensions:
            return {}
        chosen = self.choose(self.rng.dirichlet(np.ones(self.objectives)))
        if chosen is None:
            return self.space.draw(self.rng)
        return {dim.name: dim.choices[int(chosen[dim.name])] for dim in self.space.dimensions}

    @abstractmethod
    def choose(self, weights: npt.NDArray[np.float64]) -> Mapping[str, int] | None:
        """What the tuner proposes for these weights of the objectives; None where it has nothing to propose."""

    def choices(self, assignment: Assignment) -> Choices:
        """Of every dimension; where the candidate does not use one, its first choice."""
        return {
            dim.name: dim.choices.index(assignment[dim.name]) if dim.name in assignment else 0
            for dim in self.space.dimensions
        }

    def scalars(self, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(n,) what every told and not failed trial is worth under `weights`, less being better."""
        values = np.array([objectives for objectives, _ in self._told_scores]).reshape(-1, self.objectives)
        if not len(values):
            return np.zeros(0)
        span = np.ptp(values, axis=0)
        distance = weights * (values - values.min(axis=0)) / np.where(span > 0, span, 1.0)
        broken = np.array([violation for _, violation in self._told_scores])
        scalar: npt.NDArray[np.float64] = distance.max(axis=1) + _AUGMENTED * distance.sum(axis=1)
        return np.where(broken > 0, _BROKEN + broken, scalar)


class TpeBase(NniStrategy):
    """A tuner made afresh for every ask, from all that was told under that ask's weights and what is under way."""

    def __init__(
        self,
        space: SearchSpace,
        objectives: int,
        seed: int,
        screen: Screen = everything,
        costs: CostTeller | None = None,
    ) -> None:
        super().__init__(space, objectives, seed, screen, costs)
        self._told_choices: list[Choices] = []
        self._under_way: dict[str, Choices] = {}

    def choose(self, weights: npt.NDArray[np.float64]) -> Mapping[str, int] | None:
        import nni
        from nni.algorithms.hpo.tpe_tuner import TpeTuner

        nni.silence_stdout()
        tuner = TpeTuner("minimize", seed=int(self.rng.integers(2**31)))
        tuner.update_search_space(_space_of(self.space))
        scores = self.scalars(weights)
        told = zip(self._told_choices, scores, strict=True)
        # as its own `constant_liar` does: what has no answer yet is taken to be as good as the best
        hoped = float(scores.min(initial=np.inf)) if len(scores) else 0.0
        records = [*told, *((choices, hoped) for choices in self._under_way.values())]
        tuner.import_data([{"parameter": choices, "value": float(value)} for choices, value in records])
        try:
            proposed: Mapping[str, int] = tuner.generate_parameters(0)
        except nni.NoMoreTrialError:
            return None
        return proposed

    def accepted(self, candidate: Candidate, assignment: Assignment) -> None:
        self._under_way[candidate.id] = self.choices(assignment)

    def learn(self, trial: Trial, objectives: tuple[float, ...] | None, violation: float) -> None:
        choices = self._under_way.pop(trial.candidate.id, None)
        assignment = self.space.assignment(trial.candidate)
        if objectives is None or assignment is None:
            return
        self._told_choices.append(choices or self.choices(assignment))
        self._told_scores.append((objectives, violation))


class EvolutionBase(NniStrategy):
    """One tuner, whose population is ranked anew under every ask's weights."""

    POPULATION: ClassVar[int] = 32

    def __init__(
        self,
        space: SearchSpace,
        objectives: int,
        seed: int,
        screen: Screen = everything,
        costs: CostTeller | None = None,
    ) -> None:
        super().__init__(space, objectives, seed, screen, costs)
        self._tuner: EvolutionTuner | None = None
        self._number = 0
        self._open: dict[str, int] = {}
        self._proposed: int | None = None

    def choose(self, weights: npt.NDArray[np.float64]) -> Mapping[str, int] | None:
        tuner = self._started()
        self._proposed = None
        if not tuner.population:  # more asks without an answer than individuals
            return None
        scores = self.scalars(weights)
        for one in tuner.population:
            if one.info is not None:
                one.result = -float(scores[one.info])  # it keeps the higher
        self._number += 1
        self._proposed = self._number
        with self._own_chance():
            proposed: Mapping[str, int] = tuner.generate_parameters(self._number)
        return proposed

    def accepted(self, candidate: Candidate, assignment: Assignment) -> None:
        if self._proposed is not None:
            self._open[candidate.id] = self._proposed
        self._proposed = None

    def rejected(self, assignment: Assignment) -> None:
        if self._proposed is not None:
            self._ended(self._proposed)
        self._proposed = None

    def learn(self, trial: Trial, objectives: tuple[float, ...] | None, violation: float) -> None:
        tuner, number = self._started(), self._open.pop(trial.candidate.id, None)
        if objectives is None:
            if number is not None:
                self._ended(number)
            return
        assignment = self.space.assignment(trial.candidate)
        if assignment is None:
            return
        self._told_scores.append((objectives, violation))
        if number is not None:
            tuner.receive_trial_result(number, None, 0.0)
            tuner.population[-1].info = len(self._told_scores) - 1
        else:
            self._join(tuner, assignment)

    def _join(self, tuner: EvolutionTuner, assignment: Assignment) -> None:
        """Have a trial that the tuner did not propose in its population."""
        from nni.algorithms.hpo.evolution_tuner import Individual

        config = {name: {"_index": at, "_value": at} for name, at in self.choices(assignment).items()}
        tuner.population.append(Individual(config=config, info=len(self._told_scores) - 1, result=0.0))

    def _ended(self, number: int) -> None:
        with self._own_chance():
            self._started().trial_end(number, success=False)  # takes in a random individual instead

    def _started(self) -> EvolutionTuner:
        if self._tuner is None:
            import nni
            from nni.algorithms.hpo.evolution_tuner import EvolutionTuner

            nni.silence_stdout()  # else every proposal that is refused is a line among the user's own
            tuner = EvolutionTuner("maximize", population_size=self.POPULATION)
            tuner.update_search_space(_space_of(self.space))
            # its first population came from a generator seeded by the clock
            tuner.random_state = np.random.RandomState(int(self.rng.integers(2**31)))
            tuner.population = []
            for _ in range(self.POPULATION):
                tuner._random_generate_individual()
            self._tuner = tuner
        return self._tuner

    @contextmanager
    def _own_chance(self) -> Iterator[None]:
        """The tuner draws from Python's global generator: seeded for the call, and left as it was found."""
        before = random.getstate()
        random.seed(int(self.rng.integers(2**31)))
        try:
            yield
        finally:
            random.setstate(before)


def _space_of(space: SearchSpace) -> dict[str, dict[str, Any]]:
    """A tuner's search space: the index of the choice in each dimension."""
    values: dict[str, list[JsonValue]] = {dim.name: list(range(len(dim.choices))) for dim in space.dimensions}
    return {name: {"_type": "choice", "_value": indices} for name, indices in values.items()}
