"""How much of what a network touches has left the caches before it is needed again."""

from __future__ import annotations

from dataclasses import dataclass

from automc.cost.kernels import KernelGraph
from automc.cost.tiles import Machine

SPILL = (0.5, 1.5)
"""Of `Machine`, for new calibrations: of five pairs the one that left the least error on fitted models that fill more
than half of the cache, on an Intel Xeon with 2 MB of it (9.3 %; with what exceeds it and weights alone, 13.9 %)."""
WEIGHT_SPILL = (0.25, 1.0)
"""As SPILL, of weights alone, unless a calibration found another (`machine_fit.weights_spilt`): they are read in the
same order every time, and what is read in a circle larger than the cache is never found there again. On 24 development
MLPs in float and int8 on an AMD EPYC of 1 MB a core a mean error of 3.1 and 2.6 %, with (0.5, 1) 3.6 and 2.8 %; with
SPILL more, and with nothing of their own for vectors and for calls 4.3 and 3.7 %."""
SHARED_SPILL = (0.25, 0.75)
"""As SPILL, of the last cache: a core has to share it. Seven pairs were tried on an AMD EPYC of 32 MB, with models of
several samples in the fit, on 80 networks of 16 samples that served this choice alone: this one and two beside it left
a mean error of 3.9 %, the others up to 5.2 %, no second level 5.7 %."""


@dataclass(frozen=True)
class Far:
    """Shares of a network's data, 0 to 1, that have left a cache before they are needed again: of its activations the
    core's own and the last one, which cores share; of its weights the core's own."""

    own: float
    weights: float
    shared: float = 0.0


def held_bytes(graph: KernelGraph) -> int:
    """Weights, and activations at the moment that most are live: what a network has to keep at hand."""
    return graph.weight_bytes + graph.peak_activation_bytes


def far_share(graph: KernelGraph, machine: Machine) -> Far:
    """How much of what a network touches has left the caches before it is needed again."""
    total = held_bytes(graph)
    if machine.spill is None:
        own = weights = max(0.0, 1.0 - machine.cache_bytes / total) if total else 0.0
    else:
        filled = total / machine.cache_bytes
        own, weights = spilt(filled, machine.spill), spilt(filled, machine.weight_spill or WEIGHT_SPILL)
    return Far(own, weights, 0.0 if machine.shared_bytes is None else spilt(total / machine.shared_bytes, SHARED_SPILL))


def spilt(filled: float, spill: tuple[float, float]) -> float:
    """Share that has left a cache which is `filled` so many times, between where some and where all of it has."""
    some, all_of_it = spill
    return min(1.0, max(0.0, (filled - some) / (all_of_it - some)))
