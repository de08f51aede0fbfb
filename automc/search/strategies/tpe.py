"""TPE: models where good trials lie, dimension by dimension. Source: Bergstra et al. 2011; Ozaki et al. 2022."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automc.search.strategies._optuna import OptunaStrategy

if TYPE_CHECKING:
    import optuna


class TpeStrategy(OptunaStrategy):
    name = "tpe"
    summary = "models where good trials lie; strong with few trials, slower to ask with many"
    conditional = True

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(n_startup_trials=10, seed=seed)
