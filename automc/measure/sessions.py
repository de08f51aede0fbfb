"""ONNX Runtime sessions as this project runs them: the profile's threads, every optimisation on, telemetry off."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from automc.errors import ConfigError, MeasurementError

if TYPE_CHECKING:
    import onnxruntime

Model = bytes | str | os.PathLike[str]
SPINNING_S = 0.06
"""How long threads of a session go on spinning after a run, and take a core from another session (40 ms were seen)."""

_ELEMENT_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class SessionSettings:
    """How a session is built. threads: intra-operator; one operator runs at a time (inter-operator threads are 1).

    spinning: idle threads burn cycles while they wait, which shortens latency when several threads share one
    operator. With one thread nothing waits, so it is off; turn it off too where sessions share their cores.
    """

    threads: int = 1
    provider: str = "CPUExecutionProvider"
    spinning: bool | None = None
    optimised_path: Path | None = None
    """Where the runtime writes the graph it will execute; None writes nothing."""

    @property
    def spins(self) -> bool:
        return self.threads > 1 if self.spinning is None else self.spinning


def open_session(model: Model, settings: SessionSettings | None = None) -> onnxruntime.InferenceSession:
    """A session at ORT_ENABLE_ALL. model: serialised bytes or a path.

    Where ONNX Runtime cannot load the model: ConfigError for a file, which is the user's, MeasurementError for bytes.
    """
    import onnxruntime as ort

    chosen = settings or SessionSettings()
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = chosen.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if chosen.spins else "0")
    if chosen.optimised_path is not None:
        options.optimized_model_filepath = str(chosen.optimised_path)
    source = model if isinstance(model, bytes) else os.fspath(model)
    try:
        return ort.InferenceSession(source, options, providers=[chosen.provider])
    except _load_errors() as error:
        kind, name = (MeasurementError, "the model") if isinstance(model, bytes) else (ConfigError, os.fspath(model))
        raise kind(
            f"ONNX Runtime {ort.__version__} cannot load {name}: {error}",
            next_step="check the file with onnx.checker, then export it again",
        ) from error


def _load_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile,
        state.NotImplemented, state.RuntimeException,
    )  # fmt: skip


def random_inputs(session: onnxruntime.InferenceSession, *, seed: int = 0, batch: int = 1) -> dict[str, np.ndarray]:
    """One standard-normal input per graph input (integers: zeros, ones for shapes). Unknown dimensions become `batch`.

    Latency of dense kernels does not depend on the values, only denormals would change it, so none are drawn.
    """
    generator = np.random.default_rng(seed)
    feeds: dict[str, np.ndarray] = {}
    for entry in session.get_inputs():
        shape = tuple(size if isinstance(size, int) and size > 0 else batch for size in entry.shape)
        element = _ELEMENT_TYPES.get(entry.type)
        if element is None:
            raise MeasurementError(
                f"input {entry.name!r} has type {entry.type}, which cannot be generated",
                next_step="pass inputs of your own",
            )
        if np.issubdtype(element, np.floating):
            feeds[entry.name] = generator.standard_normal(shape).astype(element)
        else:
            feeds[entry.name] = np.zeros(shape, dtype=element)
    return feeds


def run(
    model: Model, inputs: Mapping[str, np.ndarray], *, settings: SessionSettings | None = None
) -> dict[str, np.ndarray]:
    """Outputs of one run by name. Opens a session for this call alone; keep one open where you run often."""
    session = open_session(model, settings)
    names = [entry.name for entry in session.get_outputs()]
    return {name: np.asarray(value) for name, value in zip(names, session.run(names, dict(inputs)), strict=True)}
