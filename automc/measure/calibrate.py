"""Calibrate this host: time micro models and random networks, fit, and check on families that were never fitted."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from automc.cost.calibration import Calibration, ClassRange, Interval
from automc.cost.energy import EnergyModel, energy_source, find_counter
from automc.cost.features import Machine
from automc.cost.fit import Fit, Observation, fit
from automc.errors import MeasurementError
from automc.measure.families import FAMILIES, family_networks
from automc.measure.fingerprint import cache_bytes, host_fingerprint
from automc.measure.networks import Sample, micro_models, random_networks
from automc.measure.probes import channel_multiple, int8_facts
from automc.measure.sessions import SessionSettings
from automc.measure.timing import Anchor, ModelTiming, measure_batch, noise_floor
from automc.profiles import (
    HardwareProfile,
    HeldOut,
    MeasurementProtocol,
    cache_folder,
    calibration_text,
    save_profile,
)  # fmt: skip

Mode = Literal["quick", "full"]
Progress = Callable[[str, float], None]
"""Called with the stage and the share of it that is done, 0 to 1."""


@dataclass(frozen=True)
class Plan:
    """How much is timed per precision, and the wall clock of the timing. passes: calm passes of what is fitted."""

    micro: int
    random: int
    per_family: int
    passes: int
    fit_s: float
    families_s: float


PLANS: dict[Mode, Plan] = {
    # 60 s in all on one calm thread: the rest goes to probes, reading the graphs and the fit
    "quick": Plan(micro=420, random=40, per_family=4, passes=1, fit_s=26.0, families_s=10.0),
    # 5 minutes in all
    "full": Plan(micro=1250, random=150, per_family=12, passes=2, fit_s=150.0, families_s=60.0),
}


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
    folder: where profile.yaml and calibration.json go, by default the user's cache folder. Nothing is written before
    the end. Raises MeasurementError where too little could be timed on a calm machine.
    """
    tell = progress or (lambda stage, share: None)
    plan, settings, started = PLANS[mode], SessionSettings(threads=threads), time.monotonic()
    tell("probing int8 and channel widths", 0.0)
    facts = int8_facts(settings, seed=seed)
    multiple = channel_multiple(settings, seed=seed)
    families: list[Sample] = []
    fitted: list[Sample] = []
    for scheme in ("fp32", "u8s8" if facts.activation_type == "uint8" else "s8s8"):
        families += family_networks(plan.per_family, scheme, seed)
        fitted += micro_models(plan.micro, scheme, seed) + random_networks(plan.random, scheme, seed)
    family_ms = _timed(families, settings, 2, plan.families_s, seed, lambda share: tell("timing whole networks", share))
    fitted_ms = _timed(fitted, settings, plan.passes, plan.fit_s, seed + 1, lambda share: tell("timing kernels", share))
    machine = Machine(block=_block_size(), cache_bytes=cache_bytes())
    held = _observe(families, family_ms, lambda share: tell("reading whole networks", share))
    seen = _observe(fitted, fitted_ms, lambda share: tell("reading kernels", share))
    tell("fitting", 0.0)
    found = fit([observation for _, observation in seen], machine)
    held_out, intervals = assess(found, held)
    two = [entry.pass_ms for entry in (*family_ms, *fitted_ms) if entry.calm and len(entry.pass_ms) > 1]
    percent, milliseconds = noise_floor([passes[0] for passes in two], [passes[1] for passes in two])
    measured_s = time.monotonic() - started
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
        intervals=intervals,
        runtime_memory_mb=runtime_memory_mb(),
        energy_model=EnergyModel().constants(),
        seed=seed,
        observations=len(seen),
        rows_digest=_digest([*family_ms, *fitted_ms]),
        versions={package: version(package) for package in ("onnxruntime", "onnx", "numpy")},
        measured_s=measured_s,
    )
    stored, here = calibration.as_json(), host_fingerprint()
    profile = HardwareProfile(
        name=name,
        description=f"{here.cpu}, {threads} thread{'s' if threads > 1 else ''}, calibrated in {measured_s:.0f} s",
        fingerprint=here,
        threads=threads,
        memory_mb=_memory_mb(),
        precisions=("fp32", "int8"),
        channel_multiple=multiple,
        int8=facts,
        protocol=MeasurementProtocol(),
        noise_floor_percent=percent,
        noise_floor_ms=milliseconds,
        energy=energy_source(find_counter()),
        calibrated_unix_s=time.time(),
        calibration=mode,
        held_out=held_out,
        calibration_digest=hashlib.sha256(calibration_text(stored).encode()).hexdigest(),
        anchor_ms=Anchor(settings).best_ms,
    )
    save_profile(profile, stored, folder or cache_folder() / "profiles" / name)
    tell("done", 1.0)
    return profile


def _timed(
    samples: Sequence[Sample],
    settings: SessionSettings,
    passes: int,
    budget_s: float,
    seed: int,
    tell: Callable[[float], None],
) -> list[ModelTiming]:
    """Timings of `samples`; refuses a batch of which less than half met a calm machine."""
    found = measure_batch(
        [(sample.name, sample.model) for sample in samples],
        settings,
        passes=passes,
        budget_s=budget_s,
        seed=seed,
        progress=lambda done, total: tell(done / total),
    )
    calm = sum(entry.calm for entry in found)
    if calm < len(samples) / 2:
        raise MeasurementError(
            f"the machine is too busy: {calm} of {len(samples)} models could be timed undisturbed in {budget_s:.0f} s",
            next_step="close what else runs on this machine, then: automc profile calibrate host",
        )
    return found


def _observe(
    samples: Sequence[Sample], timings: Sequence[ModelTiming], tell: Callable[[float], None]
) -> list[tuple[Sample, Observation]]:
    """What was timed calmly, with its kernel rows."""
    import onnx

    from automc.cost.graph import graph_from_onnx

    by_name = {sample.name: sample for sample in samples}
    observed = []
    for number, timing in enumerate(timings):
        if timing.calm:
            sample = by_name[timing.name]
            graph = graph_from_onnx(onnx.load_from_string(sample.model))
            observed.append((sample, Observation(graph, timing.latency_ms)))
        tell((number + 1) / len(timings))
    return observed


def assess(
    found: Fit, held: Sequence[tuple[Sample, Observation]]
) -> tuple[tuple[HeldOut, ...], dict[Literal["fp32", "int8"], Interval]]:
    """Error on networks the fit never saw, and the interval of measured / predicted that holds 90 % of them.

    The interval is widened to the ranks that a sample of n supports (Vovk's conformal quantiles), and its stated
    coverage is cross-validated: each family is judged by the interval the other families give.
    """
    from scipy.stats import spearmanr

    results: list[HeldOut] = []
    intervals: dict[Literal["fp32", "int8"], Interval] = {}
    precisions: tuple[Literal["fp32", "int8"], ...] = ("fp32", "int8")
    for precision in precisions:
        chosen = [(s, o) for s, o in held if (s.scheme == "fp32") == (precision == "fp32")]
        if len(chosen) < 8:
            raise MeasurementError(
                f"only {len(chosen)} whole networks could be timed in {precision}",
                next_step="automc profile calibrate host",
            )
        measured = np.array([observation.latency_ms for _, observation in chosen])
        predicted = np.array([found.graph_ms(observation.graph) for _, observation in chosen])
        kinds = np.array([sample.kind for sample, _ in chosen])
        error = np.abs(predicted / measured - 1)
        ratios = measured / predicted
        intervals[precision] = interval_of(ratios)
        inside = []
        for family in sorted(set(kinds)):
            if len(set(kinds)) > 1:
                other = interval_of(ratios[kinds != family])
                inside += [other.low <= ratio <= other.high for ratio in ratios[kinds == family]]
        results.append(
            HeldOut(
                precision=precision,
                networks=len(chosen),
                families=tuple(family for family in FAMILIES if family in set(kinds)),
                within_5_percent=float(np.mean(error <= 0.05)),
                within_10_percent=float(np.mean(error <= 0.10)),
                within_15_percent=float(np.mean(error <= 0.15)),
                mape_percent=float(error.mean() * 100),
                rank_correlation=float(spearmanr(measured, predicted).statistic),
                interval_coverage=float(np.mean(inside)) if inside else 1.0,
            )
        )
    return tuple(results), intervals


def interval_of(ratios: np.ndarray, *, level: float = 0.9) -> Interval:
    """Symmetric in rank: the smallest and largest ratio after cutting (1 - level) / 2 at each end, rounded outwards."""
    ordered = np.sort(ratios)
    cut = int(np.floor((1 - level) / 2 * (ordered.size + 1)))
    return Interval(low=float(ordered[max(0, cut - 1)]), high=float(ordered[min(ordered.size - 1, ordered.size - cut)]))


def runtime_memory_mb() -> float:
    """Resident memory of a fresh process that has loaded the runtime and run a network of 0.1 MB, in MB."""
    code = (
        "import psutil; from automc.measure.sessions import open_session, random_inputs;"
        "from automc.measure.timing import anchor_model; s = open_session(anchor_model());"
        "s.run(None, random_inputs(s)); print(psutil.Process().memory_info().rss)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise MeasurementError(f"the runtime's memory could not be measured: {done.stderr.strip()[-300:]}")
    return int(done.stdout) / 2**20


def _memory_mb() -> float:
    import psutil  # type: ignore[import-untyped]

    return float(psutil.virtual_memory().total / 2**20)


def _block_size() -> int:
    from automc.cost.lowering import block_size

    return block_size()


def _digest(timings: Sequence[ModelTiming]) -> str:
    text = "\n".join(f"{entry.name} {entry.latency_ms!r}" for entry in timings)
    return hashlib.sha256(text.encode()).hexdigest()
