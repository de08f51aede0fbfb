"""Calibrate this host: time micro models and random networks, fit, and check on families that were never fitted."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from automc.cost.calibration import Calibration, ClassRange, Interval, Probes
from automc.cost.energy import MODEL_NAME, EnergyModel
from automc.cost.fit import Fit, Observation, fit
from automc.cost.tiles import Machine
from automc.errors import ConfigError, MeasurementError
from automc.measure.anchor import BEST_PERCENTILE, CALM_RATIO, Anchor
from automc.measure.batch import Pass, calm_ms, measure_batch, noise_floor
from automc.measure.families import FAMILIES, family_networks
from automc.measure.fingerprint import cache_bytes, host_fingerprint
from automc.measure.networks import Sample, essential, micro_models
from automc.measure.probes import channel_multiple, int8_facts, int8_probes, width_probes
from automc.measure.random_networks import random_networks
from automc.measure.sessions import SessionSettings
from automc.profiles import (
    EnergySource,
    HardwareProfile,
    HeldOut,
    Int8Facts,
    MeasurementProtocol,
    cache_folder,
    calibration_text,
    load_profile,
    require_writable,
    save_profile,
)  # fmt: skip

Mode = Literal["quick", "full"]
Progress = Callable[[str, float], None]
"""Called with the stage and the share of it that is done, 0 to 1."""


@dataclass(frozen=True)
class Effort:
    """How much is timed per precision, and the wall clock of the timing. passes: calm passes of what is fitted."""

    micro: int
    random: int
    per_family: int
    passes: int
    fit_s: float
    families_s: float


ATTEMPTS = 3
TOLERATED = (25.0, 50.0, 75.0)
"""Percentiles of the anchor taken for calm, one after the other, where too little met the machine at its best."""
RETESTED = 16
ENOUGH = 0.75  # share of a batch that has to be timed on a calm machine before the rest is let go

EFFORTS: dict[Mode, Effort] = {
    # 60 s in all on one calm thread: the rest goes to probes, reading the graphs and the fit
    "quick": Effort(micro=300, random=30, per_family=3, passes=2, fit_s=28.0, families_s=9.0),
    # 5 minutes in all
    "full": Effort(micro=1250, random=150, per_family=12, passes=2, fit_s=150.0, families_s=60.0),
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
    the end. Raises ConfigError on a name that no folder should have, MeasurementError where too little could be timed
    on a calm machine.
    """
    tell = progress or (lambda stage, share: None)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(
            f"{name!r} cannot be a profile's name: letters, digits, dots, hyphens and underscores can",
            next_step="automc profile calibrate host",
        )
    plan, settings, started = EFFORTS[mode], SessionSettings(threads=threads), time.monotonic()
    target = folder or cache_folder() / "profiles" / name
    require_writable(target.parent)  # now, and not after minutes of measuring
    clock = _Stopwatch(settings, Anchor(settings, known_ms=_known_anchor_ms(target, threads)), tell)
    tell("probing int8 and channel widths", 0.0)
    probes = Probes(
        int8=int8_probes(settings, clock.anchor, seed=seed), widths=width_probes(settings, clock.anchor, seed=seed)
    )
    facts = int8_facts(probes.int8, settings)
    families: list[Sample] = []
    fitted: list[Sample] = []
    for scheme in ("fp32", "u8s8" if facts.activation_type == "uint8" else "s8s8"):
        families += family_networks(plan.per_family, scheme, seed)
        fitted += micro_models(plan.micro, scheme, seed) + random_networks(plan.random, scheme, seed)
    for attempt in range(ATTEMPTS):
        clock.time("timing whole networks", families, 2, plan.families_s, seed + 100 * attempt)
        clock.time(
            "timing one kernel of each kind", essential(fitted), plan.passes, plan.fit_s / 2, seed + 100 * attempt
        )
        clock.time("timing kernels", fitted, plan.passes, plan.fit_s, seed + 100 * attempt + 1)
        if clock.enough(families, fitted):
            break
    clock.require(families)
    clock.require(fitted)
    held, seen = clock.observe(families), clock.observe(fitted)
    percent, milliseconds = clock.retest(families, seed)
    tell("fitting", 0.0)
    profile, calibration = assemble(
        Findings(
            held=held,
            seen=seen,
            int8=facts,
            probes=probes,
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
    tell("done", 1.0)
    return profile


@dataclass(frozen=True)
class Findings:
    """Everything a calibration measured. held, seen: networks of held-out families, and what is fitted."""

    held: Sequence[tuple[Sample, Observation]]
    seen: Sequence[tuple[Sample, Observation]]
    int8: Int8Facts
    probes: Probes
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
    machine = Machine(block=_block_size(), cache_bytes=cache_bytes())
    found = fit([observation for _, observation in findings.seen], machine)
    held_out, intervals = assess(found, findings.held)
    measured_s = time.monotonic() - findings.started_s
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


class _Stopwatch:
    """All passes of a calibration under one anchor: a spell judged calm early can be judged again at the end."""

    def __init__(self, settings: SessionSettings, anchor: Anchor, tell: Progress) -> None:
        self.settings, self.anchor, self.tell = settings, anchor, tell
        self.passes: dict[str, list[Pass]] = {}

    def time(self, stage: str, samples: Sequence[Sample], passes: int, budget_s: float, seed: int) -> None:
        """Time those of `samples` that no calm pass is known of."""
        todo = {sample.name: sample.model for sample in samples if not self._calm(sample)}
        found = measure_batch(
            todo,
            self.settings,
            self.anchor,
            passes=passes,
            budget_s=budget_s,
            seed=seed,
            progress=lambda done, total: self.tell(stage, done / total),
        )
        for name, entries in found.items():
            self.passes.setdefault(name, []).extend(entries)

    def enough(self, *groups: Sequence[Sample]) -> bool:
        """Whether ENOUGH of every group met a calm machine, or one at the speed that has to be taken for its usual one.

        What was timed stays and is judged again, so nothing is timed anew only because neighbours never rest.
        """
        if any(sum(sample.name in self.passes for sample in group) < ENOUGH * len(group) for group in groups):
            return False  # the clock ran out, whatever the neighbours did
        for percentile in (BEST_PERCENTILE, *TOLERATED):
            self.anchor.tolerate(percentile)
            if all(self.share(group) >= ENOUGH for group in groups):
                return True
        return False

    def share(self, samples: Sequence[Sample]) -> float:
        """Share of `samples` that met a calm machine."""
        return sum(bool(self._calm(sample)) for sample in samples) / len(samples)

    def require(self, samples: Sequence[Sample], least: float = 0.5) -> None:
        if self.share(samples) < least:
            raise MeasurementError(
                f"the machine is too busy: {self.share(samples):.0%} of {len(samples)} models were timed undisturbed",
                next_step="close what else runs on this machine, then: automc profile calibrate host",
            )

    def observe(self, samples: Sequence[Sample]) -> list[tuple[Sample, Observation]]:
        """What was timed calmly, with its kernel rows."""
        import onnx

        from automc.cost.graph import graph_from_onnx

        observed = []
        for number, sample in enumerate(samples):
            calm = self._calm(sample)
            if calm:
                graph = graph_from_onnx(onnx.load_from_string(sample.model))
                observed.append((sample, Observation(graph, min(calm))))
            self.tell("reading graphs", (number + 1) / len(samples))
        return observed

    def retest(self, samples: Sequence[Sample], seed: int) -> tuple[float, float]:
        """(percent, milliseconds) between the calm timings of RETESTED networks and new ones, 90th percentile."""
        calm = [sample for sample in samples if self._calm(sample)]
        chosen = [calm[index] for index in np.random.default_rng(seed).permutation(len(calm))[:RETESTED]]
        before = {sample.name: min(self._calm(sample)) for sample in chosen}
        self.tell("measuring the noise floor", 0.0)
        models = {sample.name: sample.model for sample in chosen}
        again = measure_batch(models, self.settings, self.anchor, passes=2, budget_s=6.0, seed=seed)
        after = {name: calm_ms(entries, self.anchor) for name, entries in again.items()}
        pairs = [(before[name], min(values)) for name, values in after.items() if values]
        if not pairs:
            raise MeasurementError(
                "the machine is too busy: the noise floor could not be measured",
                next_step="close what else runs on this machine, then: automc profile calibrate host",
            )
        return noise_floor([first for first, _ in pairs], [second for _, second in pairs])

    def _calm(self, sample: Sample) -> list[float]:
        return calm_ms(self.passes.get(sample.name, ()), self.anchor)


def _known_anchor_ms(folder: Path, threads: int) -> float | None:
    """The anchor of an earlier calibration of this very machine in `folder`; None where there is none."""
    if not (folder / "profile.yaml").is_file():
        return None
    try:
        earlier = load_profile(str(folder))
    except ConfigError:
        return None  # it is about to be replaced
    return earlier.anchor_ms if earlier.fingerprint == host_fingerprint() and earlier.threads == threads else None


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
        "from automc.measure.anchor import anchor_model; s = open_session(anchor_model());"
        "s.run(None, random_inputs(s)); print(psutil.Process().memory_info().rss)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise MeasurementError(
            f"the runtime's memory could not be measured: {done.stderr.strip()[-300:]}",
            next_step="mend what this says, then calibrate again",
        )
    return int(done.stdout) / 2**20


def _busy(slowdown: float) -> str:
    """Says of a profile that its milliseconds are those of a machine with neighbours."""
    if slowdown <= CALM_RATIO:
        return ""
    return f", beside neighbours that never rested: its usual speed, {slowdown - 1:.0%} slower than its best"


def _memory_mb() -> float:
    import psutil  # type: ignore[import-untyped]

    return float(psutil.virtual_memory().total / 2**20)


def _block_size() -> int:
    from automc.cost.lowering import block_size

    return block_size()


def _digest(observed: Sequence[tuple[Sample, Observation]]) -> str:
    text = "\n".join(f"{sample.name} {observation.latency_ms!r}" for sample, observation in observed)
    return hashlib.sha256(text.encode()).hexdigest()
