"""What timings tell of a machine before its kernels are priced: whether its last cache shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from automc.cost.caches import far_share
from automc.cost.fit import Observation
from automc.cost.tiles import Machine

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
