"""NNI's evolution tuner, its objectives made one by random weights at every ask. Sources: `_nni`; Real et al. 2017."""

from __future__ import annotations

from automc.search.strategies._nni import EvolutionBase


class NniEvolutionStrategy(EvolutionBase):
    name = "nni_evolution"
    summary = "NNI's evolution tuner under random weights of the objectives; needs the extra nas"
