"""What proposes candidates: ask and tell, nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from automc.candidate import Candidate
from automc.errors import InfeasibleCandidate
from automc.space import Assignment, SearchSpace
from automc.trial import Trial

Screen = Callable[[Sequence[Candidate]], Sequence[bool]]
"""Which of the candidates may be evaluated, in order: predicted costs and the network itself do not rule them out."""

CostTeller = Callable[[Sequence[Candidate]], npt.NDArray[np.float64]]
"""(n, m) what each objective of each candidate will be by prediction, NaN where nothing predicts it. Thousands at once,
cheaply, and always the same for the same candidate: costs follow from the shape alone."""


def everything(candidates: Sequence[Candidate]) -> list[bool]:
    """The screen that lets all through."""
    return [True] * len(candidates)


class Strategy(ABC):
    """Proposes candidates and learns from trials. Owns no loop, no thread, no storage, no clock.

    A strategy owes its caller:
    - replay: the same seed, the same answers of `screen` and `costs` and the same tells between the same asks give the
      same asks;
    - every candidate it asks comes from the space, so it is feasible;
    - a candidate is not asked twice, nor one asked that the screen refuses, as long as PROPOSALS tries find another.
      In a space that is used up `ask` repeats itself; the caller counts what is new;
    - `ask` and `tell` may come in any order and number: several asks may be open, a tell may be of a candidate that
      was never asked (an anchor), or never come.
    The caller owes it trials of one rung only, since rungs are not compared, and objectives that are finite.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    PROPOSALS: ClassVar[int] = 64
    OWN_PROPOSALS: ClassVar[int] = 8
    """Of the PROPOSALS for one ask, how many come from what was learned; the others are drawn uniformly."""
    NEEDS: ClassVar[tuple[str, ...]] = ()
    """Packages of the extra `nas` without which it cannot be made."""

    def __init__(
        self,
        space: SearchSpace,
        objectives: int,
        seed: int,
        screen: Screen = everything,
        costs: CostTeller | None = None,
    ) -> None:
        """objectives: how many a tell brings, all to be minimised. seed: non-negative. costs: None where none is cheap.

        A strategy need not use `costs`.
        """
        self.space, self.objectives, self.seed, self.screen, self.costs = space, objectives, seed, screen, costs
        self.rng = np.random.default_rng(seed)
        self._asked: dict[str, Candidate] = {}
        self._refused: dict[str, Candidate] = {}
        self._told: set[str] = set()

    def ask(self) -> Candidate:
        """The next candidate to evaluate."""
        for attempt in range(self.PROPOSALS):
            assignment = self.propose() if attempt < self.OWN_PROPOSALS else self.space.draw(self.rng)
            candidate = self._new(assignment)
            if candidate is not None:
                self._asked[candidate.id] = candidate
                self.accepted(candidate, assignment)
                return candidate
            if attempt < self.OWN_PROPOSALS:
                self.rejected(assignment)
        return self._fallback()

    def tell(self, trial: Trial, objectives: Sequence[float] | None, violation: float) -> None:
        """What became of a candidate.

        objectives: (m,) to be minimised, None for a failed trial. violation: how far constraints are exceeded, 0 where
        all are met; a constraint that is unknown is not met. A second tell of one candidate teaches nothing new and is
        ignored. Raises ValueError on a wrong count or a NaN.
        """
        if objectives is not None:
            values = np.asarray(objectives, dtype=np.float64)
            if values.shape != (self.objectives,) or not np.isfinite(values).all():
                raise ValueError(f"expected {self.objectives} finite objectives, got {tuple(objectives)}")
        if not violation >= 0:
            raise ValueError(f"violation must be 0 or more, got {violation}")
        if trial.candidate.id in self._told:
            return
        self._told.add(trial.candidate.id)
        self.learn(trial, None if objectives is None else tuple(objectives), violation)

    @abstractmethod
    def propose(self) -> Assignment:
        """An assignment of the space; it may turn out infeasible, known or screened out."""

    def accepted(self, candidate: Candidate, assignment: Assignment) -> None:  # noqa: B027 - not all need to know
        """`assignment` is being asked: proposed by `propose`, or drawn uniformly where that found nothing new."""

    def rejected(self, assignment: Assignment) -> None:  # noqa: B027 - not all need to know
        """`assignment`, the last proposed, is not being asked."""

    @abstractmethod
    def learn(self, trial: Trial, objectives: tuple[float, ...] | None, violation: float) -> None:
        """As `tell`, with checked values."""

    def _new(self, assignment: Assignment) -> Candidate | None:
        """The candidate of `assignment` where it is feasible, new, and let through by the screen."""
        try:
            candidate = self.space.candidate(assignment)
        except InfeasibleCandidate:
            return None
        if candidate.id in self._asked or candidate.id in self._refused:
            return None
        if not self.screen([candidate])[0]:
            self._refused[candidate.id] = candidate
            return None
        return candidate

    def _fallback(self) -> Candidate:
        """The first candidate in the space's own order that is new; else one refused by the screen, else one asked."""
        if len(self._asked) + len(self._refused) < self.space.size:
            for candidate in self.space.candidates():
                if candidate.id not in self._asked and candidate.id not in self._refused:
                    self._asked[candidate.id] = candidate
                    return candidate
        known = self._refused or self._asked
        if not known:
            raise InfeasibleCandidate(f"{self.space.where}: holds no feasible candidate")
        return next(iter(known.values()))
