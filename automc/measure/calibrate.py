"""Calibrate this host: time micro models and random networks, fit, and check on families that were never fitted."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from automc.cost.caches import SPILL
from automc.cost.calibration import Calibration, ClassRange, MemoryFit, Probes, StoredResidual
from automc.cost.energy import MODEL_NAME, EnergyModel
from automc.cost.fit import Observation
from automc.cost.kernels import KernelGraph
from automc.cost.machine_fit import fitted, supported, weights_spilt
from automc.cost.residual import learn
from automc.cost.tiles import Machine
from automc.measure.anchor import CALM_RATIO, Anchor
from automc.measure.assess import assess
from automc.measure.families import family_networks
from automc.measure.fingerprint import cache_bytes, host_fingerprint, known_anchor_ms, shared_cache_bytes
from automc.measure.large_models import STREAMING, large_models
from automc.measure.memory import measure_memory
from automc.measure.micro_models import essential, micro_models
from automc.measure.networks import Sample
from automc.measure.probes import channel_multiple, int8_facts, int8_probes, thread_probes, width_probes
from automc.measure.random_networks import RANDOM, random_networks
from automc.measure.schedule import ATTEMPTS, SCHEDULES, Mode
from automc.measure.sessions import SessionSettings
from automc.measure.stopwatch import Stopwatch
from automc.measure.unfinished import Unfinished
from automc.profiles import (
    EnergySource,
    HardwareProfile,
    Int8Facts,
    MeasurementProtocol,
    calibration_text,
    own_folder,
    require_writable,
    save_profile,
)  # fmt: skip

Progress = Callable[[str, float], None]
"""Called with the stage and the share of it that is done, 0 to 1."""


def calibrate_host(
    name: str = "host",
    *,
    mode: Mode = "quick",
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> HardwareProfile:
    """Time, fit and store the profile of this machine; returns what was stored.

    mode: "quick" takes about a minute, "full" at most five, when the machine is calm. threads: of every session.
    folder: where profile.yaml and calibration.json go, by default the user's cache folder. Neither is written before
    the end; what an interrupted calibration timed is kept beside it and gone on with, for an hour. Raises ConfigError
    on a name that cannot be one or that another device has, MeasurementError where too little could be timed on a calm
    machine.
    """
    tell = progress or (lambda stage, share: None)
    plan, settings, started = SCHEDULES[mode], SessionSettings(threads=threads), time.monotonic()
    target = own_folder(name, folder, imported=False)
    require_writable(target.parent)  # now, and not after minutes of measuring
    kept = Unfinished.beside(target, _comparable(mode, threads, seed))
    started -= sum(kept.spent_s.values())
    if kept.spent_s:
        tell("going on with what an interrupted calibration timed", 0.0)
    clock = Stopwatch(settings, Anchor(settings, known_ms=known_anchor_ms(target, threads)), tell, kept)
    tell("probing int8 and channel widths", 0.0)
    probes = Probes(
        int8=int8_probes(settings, clock.anchor, seed=seed),
        widths=width_probes(settings, clock.anchor, seed=seed),
        threads=thread_probes(settings, clock.anchor, host_fingerprint().cores, seed=seed),
    )
    facts = int8_facts(probes.int8, settings)
    families: list[Sample] = []
    fitted: list[Sample] = []
    for scheme in ("fp32", "u8s8" if facts.activation_type == "uint8" else "s8s8"):
        families += family_networks(plan.per_family, scheme, seed)
        fitted += micro_models(plan.micro, scheme, seed, inside=threads > 1)
        fitted += random_networks(plan.random, scheme, seed)
        fitted += large_models(plan.large, scheme, seed, plan.large_kinds, inside=threads > 1)
    for attempt in range(ATTEMPTS):
        begun = time.monotonic() if attempt else started  # a machine that never rests is given the time once more
        clock.time("timing whole networks", families, 1, plan.families_s / 2, seed + 100 * attempt)
        reading_s = clock.read(families)
        began = time.monotonic()
        clock.time(
            "timing one kernel of each kind", essential(fitted), plan.passes, plan.fit_s / 2, seed + 100 * attempt
        )
        # twice as many passes, minutes apart: how fast main memory is depends on who else uses it
        streams = [sample for sample in fitted if sample.kind == STREAMING]
        if streams:
            clock.time("timing main memory", streams, 2 * plan.passes, plan.fit_s / 3, seed + 100 * attempt)
        now, before_s = time.monotonic(), clock.spent_s("timing kernels", seed + 100 * attempt + 1)
        left_s = plan.kernels_s(fitted_s=now - began, spent_s=now - begun - before_s, reading_s=reading_s)
        clock.time("timing kernels", fitted, plan.passes, left_s, seed + 100 * attempt + 1)
        # once before the kernels and once after: a machine that changes its speed between is no error of the fit
        clock.time("timing whole networks again", families, 1, plan.families_s / 2, seed + 100 * attempt + 2, calm=2)
        if clock.enough(families, fitted):
            break
    clock.require(families)
    clock.require(fitted)
    held, seen = clock.observe(families), clock.observe(fitted)
    percent, milliseconds = clock.retest(families, seed)
    tell("measuring memory", 0.0)
    memory = measure_memory(_of_many_sizes(families, held, plan.memory), threads)
    tell("fitting", 0.0)
    profile, calibration = assemble(
        Findings(
            held=held,
            seen=seen,
            int8=facts,
            probes=probes,
            memory=memory,
            noise_floor_percent=percent,
            noise_floor_ms=milliseconds,
            anchor_ms=clock.anchor.best_ms,
            slowdown=clock.anchor.slowdown,
            seed=seed,
            started_s=started,
        ),
        name=name,
        mode=mode,
        threads=threads,
    )
    save_profile(profile, calibration.as_json(), target)
    kept.discard()
    tell("done", 1.0)
    return profile


@dataclass(frozen=True)
class Findings:
    """Everything a calibration measured. held, seen: networks of held-out families, and what is fitted."""

    held: Sequence[tuple[Sample, Observation]]
    seen: Sequence[tuple[Sample, Observation]]
    int8: Int8Facts
    probes: Probes
    memory: MemoryFit
    noise_floor_percent: float
    noise_floor_ms: float
    anchor_ms: float
    slowdown: float
    """How many times as long as at its best the machine took for what counts as calm (`Anchor.slowdown`)."""
    seed: int
    started_s: float
    """`time.monotonic()` when measuring began."""


def assemble(findings: Findings, *, name: str, mode: Mode, threads: int) -> tuple[HardwareProfile, Calibration]:
    """Fit what was measured and judge it on what was held out; nothing is measured or written."""
    machine = Machine(
        _block_size(),
        cache_bytes(),
        spill=SPILL,
        shared_bytes=shared_cache_bytes(),
        threads=threads,
        pieces=threads > 1,
    )
    observations = [observation for _, observation in findings.seen]
    machine = supported(machine, observations)
    found = fitted(weights_spilt(machine, observations), observations)
    machine = found.machine
    networks = [observation for sample, observation in findings.seen if sample.kind == RANDOM]
    learnt = learn(found, [observation for sample, observation in findings.seen if sample.kind != RANDOM], networks)
    found = found.with_residual(learnt)
    held_out, intervals = assess(found, findings.held)
    measured_s = time.monotonic() - findings.started_s
    calibration = Calibration(
        block=machine.block,
        cache_bytes=machine.cache_bytes,
        spill=machine.spill,
        weight_spill=machine.weight_spill,
        reads=None if machine.reads == "network" else machine.reads,
        shared_bytes=machine.shared_bytes,
        threads=threads if threads > 1 else None,
        pieces=True if machine.pieces else None,
        residual=None if learnt is None else StoredResidual.of(learnt),
        coefficients=dict(found.coefficients),
        classes={
            kind: ClassRange(
                low=dict(known.low), high=dict(known.high), observations=known.observations, spread=found.spread[kind]
            )
            for kind, known in found.ranges.items()
        },
        intervals=intervals,
        runtime_memory_mb=findings.memory.runtime_mb,
        memory=findings.memory,
        energy_model=EnergyModel().constants(),
        seed=findings.seed,
        observations=len(findings.seen),
        rows_digest=_digest([*findings.held, *findings.seen]),
        versions={package: version(package) for package in ("onnxruntime", "onnx", "numpy")},
        measured_s=measured_s,
        probes=findings.probes,
    )
    here = host_fingerprint()
    profile = HardwareProfile(
        name=name,
        description=f"{here.cpu}, {threads} thread{'s' if threads > 1 else ''}, calibrated in {measured_s:.0f} s"
        + _busy(findings.slowdown),
        fingerprint=here,
        threads=threads,
        memory_mb=_memory_mb(),
        precisions=("fp32", "int8"),
        channel_multiple=channel_multiple(findings.probes.widths),
        int8=findings.int8,
        protocol=MeasurementProtocol(),
        noise_floor_percent=findings.noise_floor_percent,
        noise_floor_ms=findings.noise_floor_ms,
        energy=EnergySource(kind="model", detail=MODEL_NAME),  # of what is predicted; finalists are measured
        calibrated_unix_s=time.time(),
        calibration=mode,
        held_out=held_out,
        calibration_digest=hashlib.sha256(calibration_text(calibration.as_json()).encode()).hexdigest(),
        anchor_ms=findings.anchor_ms,
    )
    return profile, calibration


def _comparable(mode: Mode, threads: int, seed: int) -> dict[str, JsonValue]:
    """What has to be the same for the timings of an interrupted calibration to be gone on with."""
    return {
        "machine": host_fingerprint().model_dump(mode="json"), "mode": mode, "threads": threads, "seed": seed,
        "automc": version("automc"),
    }  # fmt: skip


def _of_many_sizes(
    samples: Sequence[Sample], observed: Sequence[tuple[Sample, Observation]], count: int
) -> list[tuple[bytes, KernelGraph]]:
    """`count` of the observed networks, from the smallest file to the largest."""
    graphs = {sample.name: observation.graph for sample, observation in observed}
    known = sorted((sample for sample in samples if sample.name in graphs), key=lambda sample: len(sample.model))
    places = np.unique(np.linspace(0, len(known) - 1, count).round().astype(int))
    return [(known[place].model, graphs[known[place].name]) for place in places]


def _busy(slowdown: float) -> str:
    """Says of a profile that its milliseconds are those of a machine with neighbours."""
    if slowdown <= CALM_RATIO:
        return ""
    return f", beside restless neighbours: at its usual speed, which is {slowdown - 1:.0%} slower than its best"


def _memory_mb() -> float:
    import psutil  # type: ignore[import-untyped]

    return float(psutil.virtual_memory().total / 2**20)


def _block_size() -> int:
    from automc.cost.lowering import block_size

    return block_size()


def _digest(observed: Sequence[tuple[Sample, Observation]]) -> str:
    text = "\n".join(f"{sample.name} {observation.latency_ms!r}" for sample, observation in observed)
    return hashlib.sha256(text.encode()).hexdigest()
