"""Uniform random search: what every other strategy has to beat."""

from __future__ import annotations

from automc.search.strategies.strategy import Strategy
from automc.space import Assignment
from automc.trial import Trial


class RandomStrategy(Strategy):
    name = "random"
    summary = "uniform over every dimension; learns nothing"

    def propose(self) -> Assignment:
        return self.space.draw(self.rng)

    def learn(self, trial: Trial, objectives: tuple[float, ...] | None, violation: float) -> None:
        """Learns nothing."""
