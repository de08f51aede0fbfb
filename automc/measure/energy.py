"""Energy of whole networks in ONNX Runtime, read from a counter of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from automc.cost.energy import EnergyCounter, measure_energy_mj
from automc.measure.sessions import Model, open_session, random_inputs
from automc.measure.timing import settings_of

if TYPE_CHECKING:
    from automc.profiles import HardwareProfile

PASSES = 3


def measure_models_mj(
    models: Mapping[str, Model], profile: HardwareProfile, counter: EnergyCounter, *, seconds: float = 1.0
) -> dict[str, list[float]]:
    """Millijoules of one run of every model, idle power subtracted: PASSES figures each, the models taking turns.

    Raises MeasurementError where a model draws no more than idling.
    """
    settings = settings_of(profile)
    sessions = {name: open_session(model, settings) for name, model in models.items()}
    found: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(PASSES):
        for name, session in sessions.items():
            feeds = random_inputs(session)
            found[name].append(measure_energy_mj(partial(session.run, None, feeds), counter, seconds=seconds))
    return found
