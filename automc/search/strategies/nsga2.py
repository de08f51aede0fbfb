"""NSGA-II: a population crossed and mutated, kept by non-dominated rank and crowding. Source: Deb et al. 2002."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automc.search.strategies._optuna import OptunaStrategy

if TYPE_CHECKING:
    import optuna


class Nsga2Strategy(OptunaStrategy):
    name = "nsga2"
    summary = "evolves a population towards the whole front; needs a few dozen trials"
    conditional = False
    POPULATION = 16

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(population_size=self.POPULATION, seed=seed)
