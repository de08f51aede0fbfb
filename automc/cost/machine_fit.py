"""What timings tell of a machine beside what its kernels cost: from where weights leave its own cache, whether a kernel
finds there what the one before wrote, and whether its last cache shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from automc.cost.caches import WEIGHT_SPILL, far_share, held_bytes
from automc.cost.features import is_product
from automc.cost.fit import Fit, Observation, fit
from automc.cost.tiles import Machine

WEIGHT_SPILLS = (WEIGHT_SPILL, (0.5, 1.0), (0.5, 1.25), (0.5, 1.5), (0.75, 1.25), (0.75, 1.5), (1.0, 1.5))
"""What `weights_spilt` chooses from: how soon a cache loses what is read in a circle depends on how lines are replaced.
On an Intel Xeon of 2 MB a core, with 59 linear networks near it, the pairs left 8.8, 7.4, 5.3, 4.8, 6.4, 6.6 and 9.5 %;
with the fourth the error of float MLPs that were not fitted fell from 15.0 to 5.4 %, n = 18."""
LEAST_NEAR = 12
NEAR = (0.25, 2.0)
"""As many linear networks that fill such shares of the cache tell from where weights leave it."""
KERNEL_SPILL = (0.25, 1.5)
"""As `caches.SPILL`, where `Machine.reads` is "kernel". On fitted models that fill more than a quarter of the cache of
that Xeon a mean error of 6.21 %, with (0.5, 1.5) 6.27 %; where the network decides 6.37 %."""
LEAST_FAR = 8
FAR_SHARED = 0.3
"""As many observations with such a share of their data beyond the last cache tell what main memory costs. Quick
calibrations have none and full ones without large models two: their coefficient then came from networks that hardly
leave the cache, and put float MLPs fifty times too high."""


def supported(machine: Machine, observations: Sequence[Observation]) -> Machine:
    """The machine, without its last cache where too few observations leave it to tell what main memory costs."""
    far = [far_share(observation.graph, machine).shared for observation in observations]
    enough = sum(share >= FAR_SHARED for share in far) >= LEAST_FAR
    return machine if enough else replace(machine, shared_bytes=None)


def weights_spilt(machine: Machine, observations: Sequence[Observation]) -> Machine:
    """The machine, with the shares of its cache from which weights have left it that price linear networks best.

    Of networks whose weights all belong to matrix products, reading weights is most of the time. They are priced alone,
    with each of WEIGHT_SPILLS; the pair with the least mean error on those near the size of the cache is taken. Too few
    of these leave the machine as it is.
    """
    linear = [item for item in observations if _is_linear(item)]
    near = [item for item in linear if NEAR[0] <= held_bytes(item.graph) / machine.cache_bytes <= NEAR[1]]
    if machine.spill is None or len(near) < LEAST_NEAR:
        return machine
    machines = [replace(machine, weight_spill=pair) for pair in WEIGHT_SPILLS]
    return min(machines, key=lambda tried: _error(fit(linear, tried), near))


def fitted(machine: Machine, observations: Sequence[Observation]) -> Fit:
    """The fit where the network decides what a kernel finds in the cache, or where the kernel does (`Machine.reads`):
    the one with the least mean error on what fills more than a quarter of the cache, if that is LEAST_NEAR or more."""
    found = fit(observations, machine)
    near = [item for item in observations if held_bytes(item.graph) >= NEAR[0] * machine.cache_bytes]
    if machine.spill is None or len(near) < LEAST_NEAR:
        return found
    other = fit(observations, replace(machine, spill=KERNEL_SPILL, reads="kernel"))
    return min((found, other), key=lambda one: _error(one, near))


def _error(found: Fit, observations: Sequence[Observation]) -> float:
    return float(np.mean([abs(found.graph_ms(item.graph) / item.latency_ms - 1) for item in observations]))


def _is_linear(observation: Observation) -> bool:
    weighty = [row for row in observation.graph.rows if row.bytes_weights > 0]
    return bool(weighty) and all(is_product(row) for row in weighty)
