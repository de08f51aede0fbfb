"""A tiny network and what a bundle of it holds, for the tests of the bundle."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from automc.bundle.templates import run as runner
from automc.bundle.write import BundleContents
from automc.candidate import Candidate, Step
from automc.profiles import EnergySource, Fingerprint, HardwareProfile, Int8Facts, MeasurementProtocol
from automc.techniques.plan import Plan, SliceEdit
from automc.trial import Figure

PREPROCESSING = {
    "raw": {"shape": [8, 8, 3], "layout": "HWC", "dtype": "uint8", "colour": "RGB"},
    "steps": [
        {"op": "transpose", "axes": [2, 0, 1]},
        {"op": "divide", "by": 255.0},
        {"op": "normalise", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
    ],
    "input": {"shape": [3, 8, 8], "dtype": "float32"},
}


def tiny_model(batch: int | str = 1) -> onnx.ModelProto:
    """(batch, 3, 8, 8) to (batch, 4): convolution, ReLU, mean over the picture, linear."""
    rng = np.random.default_rng(0)
    weights = {
        "conv.weight": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "fc.weight": rng.normal(size=(4, 8)).astype(np.float32),
        "fc.bias": rng.normal(size=4).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def samples(count: int = 6) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, size=(count, 8, 8, 3), dtype=np.uint8)


def profile() -> HardwareProfile:
    return HardwareProfile(
        name="test-device",
        description="made up for the tests",
        fingerprint=Fingerprint(
            cpu="made up",
            cores=2,
            instruction_sets=("avx2",),
            system="Linux",
            runtime="onnxruntime",
            runtime_version="1",
        ),
        memory_mb=1024.0,
        precisions=("fp32", "int8"),
        channel_multiple=8,
        int8=Int8Facts(),
        protocol=MeasurementProtocol(warmup=2, runs=10, passes=2, finalist_runs=30),
        noise_floor_percent=3.0,
        noise_floor_ms=0.01,
        energy=EnergySource(kind="model", detail="energy per MAC and byte, documented model"),
        calibrated_unix_s=0.0,
        calibration="quick",
        held_out=(),
        calibration_digest="0" * 64,
    )


def contents(**changes: object) -> BundleContents:
    raw = samples()
    filled: dict[str, object] = {
        "name": "tiny-pruned",
        "base_name": "tiny",
        "model": tiny_model(),
        "profile": profile(),
        "candidate": Candidate(
            steps=(Step.of("channel_pruning", ratio=0.25), Step.of("unstructured_pruning", ratio=0.9))
        ),
        "figures": {
            "accuracy": Figure(0.5, 0.2, 0.8, "fraction", "measured", n=6, split="test"),
            "latency_ms": Figure(1000.0, 900.0, 1100.0, "ms", "measured", n=200, source="p10"),
            "size_bytes": Figure(1504.0, 1504.0, 1504.0, "bytes", "measured"),
        },
        "golden_inputs": (runner.prepare(raw, PREPROCESSING),),
        "golden_raw": raw,
        "preprocessing": PREPROCESSING,
        "reference": {"latency_ms": Figure(2000.0, 1900.0, 2100.0, "ms", "measured", n=200, source="p10")},
        "speedup": Figure(2.0, 1.9, 2.1, "times", "measured", n=200, source="interleaved blocks"),
        "plans": (Plan(technique="channel_pruning", edits=(SliceEdit(module="conv", axis="out", keep=(0, 2)),)),),
        "data_digests": {"test": "ab" * 32, "base": "cd" * 32},
        "saves": {"channel_pruning": ("latency", "memory", "download"), "unstructured_pruning": ("download",)},
        "class_labels": ("cat", "dog", "fish", "newt"),
    }
    return BundleContents(**(filled | changes))  # type: ignore[arg-type]
