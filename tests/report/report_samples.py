"""A made-up run of the size of the demo, for the tests of the report: two finalists lie close, one candidate broke."""

from __future__ import annotations

import random
from dataclasses import replace

from automc.candidate import Candidate, Step
from automc.constraints import Limit
from automc.cost.kernels import KernelRow
from automc.cost.predictor import Estimate, KernelCost
from automc.profiles import EnergySource, Fingerprint, HardwareProfile, HeldOut, Int8Facts, MeasurementProtocol
from automc.report.data import KernelTimes, ReportData
from automc.run import FrontPoint
from automc.trial import Failure, Figure, Provenance, Trial

PRUNE = {ratio: Step.of("channel_pruning", ratio=ratio, criterion="l1") for ratio in (0.25, 0.5)}
DEPTH, TUNE, INT8 = Step.of("depth_pruning", ratio=0.4), Step.of("fine_tune"), Step.of("int8_ptq")
SVD, SPARSE = Step.of("low_rank", rank=0.5), Step.of("unstructured_pruning", sparsity=0.9)

CHAINS = {
    "reference": (TUNE,),
    "int8": (TUNE, INT8),
    "int8_depth": (DEPTH, TUNE, INT8),
    "pruned": (PRUNE[0.25], TUNE),
    "pruned_int8": (PRUNE[0.25], TUNE, INT8),
    "half_int8": (PRUNE[0.5], TUNE, INT8),
    "svd_prune_int8": (SVD, PRUNE[0.25], TUNE, INT8),
    "sparse_int8": (SPARSE, TUNE, INT8),
}
# name: latency ms, accuracy, size bytes
SCORES = {
    "reference": (1.82, 0.9778, 1_082_400),
    "int8": (0.74, 0.9722, 291_300),
    "int8_depth": (0.49, 0.9611, 201_800),
    "pruned": (1.31, 0.9778, 731_000),
    "pruned_int8": (0.56, 0.9694, 199_900),
    "half_int8": (0.33, 0.9472, 101_700),
    "svd_prune_int8": (0.575, 0.9650, 214_000),
    "sparse_int8": (0.745, 0.9700, 291_900),
}


def candidate(name: str) -> Candidate:
    return Candidate(CHAINS[name])


def fraction(value: float, rung: int, split: str, n: int = 360) -> Figure:
    half = 1.96 * (value * (1 - value) / n) ** 0.5
    return Figure(value, value - half, min(1.0, value + half), "fraction", "measured", n=n, rung=rung, split=split)


def trial(name: str, rung: int = 2) -> Trial:
    latency, accuracy, size = SCORES[name]
    accuracy -= (2 - rung) * 0.05
    predicted = latency * 1.03
    figures = {
        "accuracy": fraction(accuracy, rung, "validation"),
        "latency_ms": Figure(predicted, 0.9 * predicted, 1.1 * predicted, "ms", "predicted", rung=rung, coverage=1.0),
        "size_bytes": Figure(size, size, size, "bytes", "measured", n=1, rung=rung),
    }
    where = Provenance("host:1", "host", 1, 0.0, 11.4)
    return Trial(candidate(name), rung, 0, figures, artifacts={"onnx": name}, provenance=where)  # type: ignore[arg-type]


def failed(kind: str, reason: str, *steps: Step, step: str | None = None, rung: int = 0) -> Trial:
    return Trial(Candidate(steps), rung, 0, failure=Failure(kind, reason, step))  # type: ignore[arg-type]


def point(name: str, *, anchor: str | None = None, on_front: bool = True, chosen: bool = False) -> FrontPoint:
    latency, accuracy, size = SCORES[name]
    base = SCORES["reference"]
    speedup, drop, test = base[0] / latency, 100 * (base[1] - accuracy), accuracy - 0.004
    predicted = trial(name)["latency_ms"]
    wobble = 0.0 if name == "reference" else 0.9
    return FrontPoint(
        trial(name), anchor, on_front, chosen,
        {
            "accuracy": fraction(accuracy, 2, "validation"),
            "test_accuracy": fraction(test, 2, "test"),
            "drop_points": Figure(drop, drop - wobble, drop + wobble, "points", "measured", n=360, split="validation"),
            "test_drop_points": Figure(drop, drop - wobble, drop + wobble, "points", "measured", n=360, split="test"),
            "latency_ms": Figure(latency, 0.985 * latency, 1.03 * latency, "ms", "measured", n=240),
            "predicted_latency_ms": predicted,
            "speedup": Figure(speedup, 0.97 * speedup, 1.03 * speedup, "times", "measured", n=240),
            "size_bytes": Figure(size, size, size, "bytes", "measured", n=1),
            "energy_mj": Figure(9.1 * latency, 8 * latency, 10 * latency, "mJ", "predicted", source="model"),
        },
    )  # fmt: skip


def kernel(op: str, precision: str, shape: tuple[int, ...], latency_ms: float, index: int) -> KernelCost:
    row = KernelRow(f"k{index}", op, precision, "nchwc", (shape,), shape, 1000, 100, 100, 100)  # type: ignore[arg-type]
    low, high = 0.9 * latency_ms, 1.1 * latency_ms
    return KernelCost(row, Estimate(latency_ms, low, high, "ms", 1.0), Estimate(1.0, 0.9, 1.1, "mJ", 1.0))


def network(label: str, precision: str, factor: float) -> KernelTimes:
    kernels = [kernel("ReorderInput", "fp32", (1, 1, 16, 16), 0.006, 0)]
    for stage, (channels, size) in enumerate(((32, 16), (64, 8), (128, 4))):
        for block in range(4):
            time = factor * (0.16, 0.12, 0.11)[stage] * (0.7 if block == 0 else 1.0)
            kernels.append(kernel("Conv", precision, (1, channels, size, size), time, len(kernels)))
    kernels.append(kernel("GlobalAveragePool", precision, (1, 128, 1, 1), 0.008, 20))
    kernels.append(kernel("Gemm", precision, (1, 10), 0.004, 21))
    return KernelTimes(label, kernels)


def profile() -> HardwareProfile:
    held_out = HeldOut(
        precision="fp32", networks=24, families=("resnet", "mobilenet", "vgg"), within_5_percent=0.71,
        within_10_percent=0.92, within_15_percent=0.96, mape_percent=4.2, rank_correlation=0.991,
        interval_coverage=0.92,
    )  # fmt: skip
    return HardwareProfile(
        name="host",
        description="made up",
        fingerprint=Fingerprint(
            cpu="Example CPU 3000",
            cores=2,
            instruction_sets=("avx2", "avx512_vnni"),
            system="Linux x86_64",
            runtime="onnxruntime",
            runtime_version="1.32.0",
        ),
        memory_mb=24_000,
        precisions=("fp32", "int8"),
        channel_multiple=16,
        int8=Int8Facts(speedup=2.4),
        protocol=MeasurementProtocol(),
        noise_floor_percent=2.5,
        noise_floor_ms=0.02,
        energy=EnergySource(kind="model", detail="energy per MAC and per byte, no counter is readable here"),
        calibrated_unix_s=0.0,
        calibration="quick",
        held_out=(held_out, held_out.model_copy(update={"precision": "int8", "within_10_percent": 0.95})),
        calibration_digest="0" * 64,
    )


def report_data(**changes: object) -> ReportData:
    rng = random.Random(0)
    rung_0 = [trial(name, 0) for name in CHAINS]
    for ratio in range(5, 60, 3):
        chain = (Step.of("channel_pruning", ratio=ratio / 100, criterion=rng.choice(["l1", "fpgm", "taylor"])), TUNE)
        chain += (INT8,) * rng.randint(0, 1)
        scale = 1 - ratio / 120
        figures = {
            "accuracy": fraction(0.9 * (1 - (ratio / 80) ** 2), 0, "validation"),
            "latency_ms": Figure(1.8 * scale, 1.6 * scale, 2.0 * scale, "ms", "predicted", rung=0, coverage=1.0),
            "size_bytes": Figure(1e6 * scale, 1e6 * scale, 1e6 * scale, "bytes", "measured", rung=0),
        }
        rung_0.append(Trial(Candidate(chain), 0, 0, figures))  # type: ignore[arg-type]
    sharp = Step.of("tucker", rank=0.9)
    broken = "outputs differ from torch by 0.31 of their range, 0.001 allowed"
    rung_0.append(failed("parity", broken, sharp, TUNE, step="tucker"))
    rung_0 += [
        failed("infeasible", "every rank is full at 0.9: nothing to factorise", Step.of("low_rank", rank=0.9), step)
        for step in (TUNE, INT8)
    ]
    screened = [
        (Candidate((Step.of("cp", rank=rank), TUNE)), Failure("screened", "latency_ms 2.6 to 3.1 exceeds 2.0"))
        for rank in (0.7, 0.8)
    ]
    names = [*CHAINS][:-1]
    finalists = [
        point("half_int8"),
        point("int8_depth", anchor="int8_depth"),
        point("pruned_int8", chosen=True),
        point("svd_prune_int8", on_front=False),
        point("int8", anchor="int8"),
        point("pruned"),
        point("reference", anchor="reference"),
    ]
    data = ReportData(
        title="demo",
        model="digits (ResNet, 0.27 M parameters)",
        profile=profile(),
        points=finalists,
        rungs=[rung_0, [trial(name, 1) for name in names], [trial(name) for name in CHAINS]],
        rung_steps=[0, 150, 450],
        screened=screened,
        anchors={candidate(name).id: name for name in ("reference", "int8", "int8_depth")},
        saves={
            "channel_pruning": ("download", "latency", "memory"),
            "depth_pruning": ("download", "latency", "memory"),
            "int8_ptq": ("download", "energy", "latency", "memory"),
            "low_rank": ("download", "latency", "memory"),
            "unstructured_pruning": ("download",),
            "fine_tune": ("accuracy",),
        },
        kernels=[network("reference", "fp32", 1.0), network("chosen", "int8", 0.3)],
        limits=[Limit("drop_points", 1.0)],
        conditions={
            "data": "train 900, validation 360, test 360 samples",
            "search": "nsga2, seed 0",
            "executor": "ray, 2 workers",
        },
    )
    return replace(data, **changes)  # type: ignore[arg-type]
