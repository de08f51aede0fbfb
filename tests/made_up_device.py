"""A device on paper: a profile with a calibration whose every figure is made up, for tests without timing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from bundle_samples import profile as paper_profile

from automc.cost.calibration import Calibration, ClassRange, Interval
from automc.cost.energy import EnergyModel
from automc.cost.fit import Observation, fit
from automc.cost.kernels import KernelGraph
from automc.cost.tiles import Machine
from automc.profiles import Fingerprint, HardwareProfile, calibration_text, save_profile


def a_million_macs_a_millisecond(graph: KernelGraph) -> float:
    return 0.1 + graph.macs / 1e6


def save_made_up(
    folder: Path,
    graphs: Sequence[KernelGraph],
    name: str = "paper",
    fingerprint: Fingerprint | None = None,
    latency_ms: Callable[[KernelGraph], float] = a_million_macs_a_millisecond,
) -> HardwareProfile:
    """Writes profile.yaml and calibration.json of a device on which each of `graphs` takes `latency_ms` of it.

    fingerprint: of the device it claims to be; by default of none there is.
    """
    machine = Machine(block=16, cache_bytes=1 << 20)
    found = fit([Observation(graph, latency_ms(graph)) for graph in graphs], machine)
    calibration = Calibration(
        block=machine.block,
        cache_bytes=machine.cache_bytes,
        coefficients=dict(found.coefficients),
        classes={
            kind: ClassRange(
                low=dict(known.low), high=dict(known.high), observations=known.observations, spread=found.spread[kind]
            )
            for kind, known in found.ranges.items()
        },
        intervals={"fp32": Interval(low=0.9, high=1.1), "int8": Interval(low=0.9, high=1.1)},
        runtime_memory_mb=10.0,
        energy_model=EnergyModel().constants(),
        seed=0,
        observations=len(graphs),
        rows_digest="0" * 64,
        versions={},
        measured_s=0.0,
    )
    stored = calibration.as_json()
    digest = hashlib.sha256(calibration_text(stored).encode()).hexdigest()
    told = paper_profile()
    made = told.model_copy(
        update={"name": name, "calibration_digest": digest, "fingerprint": fingerprint or told.fingerprint}
    )
    save_profile(made, stored, folder)
    return made
