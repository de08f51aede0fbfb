"""What a device that a run was not made on may decide, and what keeps its figures from being as good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from automc.config import Constraints, parse_constraints
from automc.errors import ConfigError
from automc.pipeline import final_precision
from automc.run import Run

if TYPE_CHECKING:
    from automc.cost.calibration import MeasuredEnergy
    from automc.profiles import Fingerprint, HardwareProfile
    from automc.trial import Trial

OF_THE_DEVICE = ("max_latency_ms", "max_energy_mj", "max_memory_mb")
"""Limits that mean something on the device they were written for alone."""


def require_limits(
    device: HardwareProfile, energy: MeasuredEnergy | None, limits: Mapping[str, float | None], said: str
) -> None:
    """Raises ConfigError where a limit is set that the profile, or the table it comes from, says too little for.

    energy: what was fitted where energy was measured. said: how good the profile's latencies are, and why.
    """
    ranks_only = device.good_for()[0] == "rank only"
    table = f"{device.name} comes from a table of {'latencies' if energy is None else 'latencies and energies'} alone"
    use, reason = ("rank only", table) if energy is None else energy.use()
    if energy is not None and use == "rank only":
        reason = f"the energies of {device.name} are good for ranking only: {reason}"
    why = {
        "max_latency_ms": said if ranks_only else None,
        "max_energy_mj": said if ranks_only else reason if use == "rank only" else None,
        "max_memory_mb": None if device.imported is None else said if ranks_only else table,  # no matter of timing
    }
    for key in OF_THE_DEVICE:
        if limits.get(key) is not None and why[key] is not None:
            option = "--" + key.replace("_", "-")
            raise ConfigError(
                f"{option} cannot be judged: {why[key]}",
                next_step=f"leave out {option}, or insist with --insist: the limit is then judged by what may be far "
                "off",
            )


def constraints_of(run: Run, given: Mapping[str, float | None] | None, *, own: bool) -> tuple[Constraints, list[str]]:
    """The run's constraints with `given` laid over, and what was left out of them for another device."""
    kept = run.config.constraints.model_dump()
    dropped = []
    for key in OF_THE_DEVICE:
        if not own and kept[key] is not None and key not in (given or {}):
            dropped.append(f"The run's {key} of {kept[key]:g} holds for its own device and was left out.")
            kept[key] = None
    return parse_constraints({**kept, **(given or {})}), dropped


def differences(mine: HardwareProfile, other: HardwareProfile, trials: Sequence[Trial]) -> list[str]:
    """What keeps figures of another device from being as good as a search on it."""
    from automc.measure.fingerprint import host_fingerprint

    notes = [f"These candidates were found, cut and trained for {mine.name}."]
    if other.imported is None:
        notes = [f"{notes[0][:-1]}; a search on {other.name} may find better ones."]
    here, there = host_fingerprint(), other.fingerprint
    unlike = _unlike(here, there)
    if unlike and other.imported is None:  # of a table's device the graph is read as it is on every processor
        notes.append(
            f"Kernels are read from the graph as ONNX Runtime optimises it on this machine; {other.name} has other "
            f"{' and '.join(unlike)}, may lay out and fuse otherwise, and its intervals do not cover that: read these "
            "predictions as a ranking until they are measured there."
        )
    scheme, wanted = mine.int8, other.int8
    integer = any(final_precision(trial.candidate.steps) == "int8" for trial in trials)
    apart = [
        f"{name} {getattr(scheme, name)} and not {getattr(wanted, name)}"
        for name in ("activation_type", "weight_type", "per_channel", "reduce_range")
        if getattr(scheme, name) != getattr(wanted, name)
    ]
    if integer and apart and other.imported is None:  # a table says nothing of int8
        notes.append(
            f"The int8 candidates are quantised as is fast on {mine.name}: {', '.join(apart)}, as is fast on "
            f"{other.name}. They may be slower there than predicted, or saturate; quantise anew for it."
        )
    return notes


def _unlike(here: Fingerprint, there: Fingerprint) -> list[str]:
    said = {"instruction_sets": "instruction sets", "system": "system", "runtime_version": "runtime version"}
    return [words for field, words in said.items() if getattr(here, field) != getattr(there, field)]
