"""Energy of whole networks in ONNX Runtime on this machine, read from its counter or from a power meter."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from automc.errors import MeasurementError
from automc.measure.counters import EnergyCounter, find_counter
from automc.measure.meter import MeterFile
from automc.measure.sessions import Model, SessionSettings, open_session, random_inputs

PASSES = 3
LEAST_SHARE = 0.01  # of the idle energy; less is the drift of idling itself


def counter_of(energy: str, provider: str) -> EnergyCounter | None:
    """What a config's `energy` stands for: "auto", the counter of the device that `provider` runs on, None where there
    is none; "model", None; else the file of a power meter. Raises ConfigError where that file is none."""
    if energy == "model":
        return None
    if energy == "auto":
        return find_counter("gpu" if provider.startswith(("CUDA", "Tensorrt")) else "cpu")
    return MeterFile(Path(energy))


def measure_energy_mj(
    run: Callable[[], object],
    counter: EnergyCounter,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Millijoules of one `run`, idle power subtracted: repeats for the counter's least time after idling as long.

    Raises MeasurementError where the runs took no more than idling: the counter then says nothing about them.
    """
    least_s = counter.least_s
    idle_s, idle_mj, _ = _spell(counter, lambda: sleep(least_s), least_s, clock)
    busy_s, busy_mj, runs = _spell(counter, run, least_s, clock)
    idle = idle_mj / idle_s * busy_s
    used = busy_mj - idle
    if used <= LEAST_SHARE * idle:
        raise MeasurementError(
            f"{runs} runs drew no more than idling ({idle_mj / idle_s / 1e3:.2f} W)",
            next_step="close what else runs on this machine, then measure again",
        )
    return used / runs


def _spell(
    counter: EnergyCounter, run: Callable[[], object], least_s: float, clock: Callable[[], float]
) -> tuple[float, float, int]:
    """(seconds, millijoules, how often) of running `run` for at least `least_s`."""
    runs, began, start = 0, clock(), counter.mark()
    while runs == 0 or clock() - began < least_s:
        run()
        runs += 1
    end, ended = counter.mark(), clock()
    return ended - began, counter.spent_mj(start, end), runs


def measure_models_mj(
    models: Mapping[str, Model], settings: SessionSettings, counter: EnergyCounter
) -> dict[str, list[float]]:
    """Millijoules of one run of every model, idle power subtracted: PASSES figures each, the models taking turns.

    Raises MeasurementError where a model draws no more than idling.
    """
    sessions = {name: open_session(model, settings) for name, model in models.items()}
    found: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(PASSES):
        for name, session in sessions.items():
            feeds = random_inputs(session)
            found[name].append(measure_energy_mj(partial(session.run, None, feeds), counter))
    return found
