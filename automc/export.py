"""From a torch network to the ONNX graph that is measured, compared and shipped.

The dynamo exporter traces; ONNX Runtime's BASIC optimiser, which writes standard operators only, folds constants and
BatchNorm; what is left is named after the modules it came from, put into one order and stripped of everything that
does not compute. The same network therefore gives the same bytes.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
import onnx

from automc.canonical import canonical, clean, name_after_modules
from automc.errors import ExportError, MeasurementError, ParityError
from automc.outputs import records_of, tensors_alone, tensors_of
from automc.sources import raised_here
from automc.splits import split_directly
from automc.techniques._probing import RUN_FAILURES
from automc.translation import OPSET, shortcuts, translations

if TYPE_CHECKING:
    import onnxruntime
    import torch
    from torch import nn

_PASSES = 6
"""BASIC folds in waves (constants, then BatchNorm, then what that freed); networks here settle after two or three."""


@runtime_checkable
class HoldsGraph(Protocol):
    """A network that came as an ONNX graph, and has it at hand in the form that `export_onnx` gives."""

    def onnx_graph(self) -> onnx.ModelProto: ...


def export_onnx(
    model: nn.Module, example_inputs: Sequence[torch.Tensor], *, dynamic_batch: bool = True
) -> onnx.ModelProto:
    """The network in eval mode as an ONNX graph of standard operators, BatchNorm folded, without metadata.

    example_inputs: one tensor per model input, first axis the batch (any size). The graph's inputs are called
    `input` (or `input_0`, `input_1`, ...), its output `output` (or `output_0`, ...); nodes and weights bear the names
    of the modules they came from. dynamic_batch: the first axis of every input is the symbol `batch`.
    What the network answers besides tensors (a decoder's cache) is left out. The model is not changed. Raises
    ExportError, chained, where the exporter refuses the network.
    """
    import torch

    if isinstance(model, HoldsGraph):
        return model.onnx_graph()
    network = copy.deepcopy(model).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.AdaptiveAvgPool1d):  # of a transposed tensor it is exported as a gather
            module.register_forward_pre_hook(_contiguous)
    inputs = tuple(tensor.detach() for tensor in example_inputs)
    shapes = None
    if dynamic_batch:
        # torch.export takes an axis of size 1 for a constant, so it is shown two samples.
        inputs = tuple(torch.cat([tensor[:1], tensor[:1]]) for tensor in inputs)
        shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    with torch.no_grad(), _quiet(), shortcuts():
        if records_of(network(*inputs)):
            network.forward = tensors_alone(network.forward)
        try:
            program = torch.onnx.export(
                network,
                inputs,
                dynamo=True,
                dynamic_shapes=shapes,
                opset_version=OPSET,
                custom_translation_table=translations(),
                optimize=False,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, *RUN_FAILURES) as error:
            if not isinstance(error, torch.onnx.errors.OnnxExporterError) and raised_here(error):
                raise
            raise ExportError(
                f"torch cannot export {type(model).__name__} to ONNX: {_first_cause(error)}",
                next_step=_BRANCHES
                if "data-dependent" in str(error)
                else "rewrite the operation the message names, or leave the technique out that introduced it",
            ) from error
    if program is None:
        raise ExportError(f"torch returned no ONNX program for {type(model).__name__}")
    return canonical(settle(split_directly(name_after_modules(program.model_proto))))


def optimise_offline(model: onnx.ModelProto, level: Literal["basic", "extended"]) -> onnx.ModelProto:
    """What ONNX Runtime's offline optimiser makes of `model` at `level`; the input is untouched.

    basic: standard operators only. extended: also com.microsoft fusions that every ONNX Runtime CPU build executes.
    Raises ExportError, chained, where ONNX Runtime refuses the graph.
    """
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    levels = {
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    }
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.graph_optimization_level = levels[level]
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="automc-") as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except (state.Fail, state.InvalidGraph, state.InvalidArgument, state.NotImplemented) as error:
            raise ExportError(f"ONNX Runtime refuses the graph: {error}") from error
        return onnx.load(path)


def run_onnx(model: onnx.ModelProto, inputs: Sequence[np.ndarray], threads: int = 1) -> np.ndarray:
    """First output of `model`, as `run_all`."""
    return run_all(model, inputs, threads)[0]


def run_all(model: onnx.ModelProto, inputs: Sequence[np.ndarray], threads: int = 1) -> list[np.ndarray]:
    """Outputs of `model` on ONNX Runtime CPU at ORT_ENABLE_ALL; `inputs` in the order of the graph's inputs.

    Opens a session per call: for one batch. Raises ExportError, chained, where ONNX Runtime refuses graph or inputs.
    """
    session = open_session(model, threads)
    names = [given.name for given in session.get_inputs()]
    if len(names) != len(inputs):
        raise ValueError(f"the graph takes {len(names)} inputs ({', '.join(names)}), {len(inputs)} were given")
    outputs: list[np.ndarray] = session.run(None, dict(zip(names, inputs, strict=True)))
    return outputs


def open_session(model: onnx.ModelProto, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session on ONNX Runtime CPU at ORT_ENABLE_ALL. Raises ExportError, chained, where the graph is refused."""
    from automc.measure import sessions

    try:
        return sessions.open_session(model.SerializeToString(), sessions.SessionSettings(threads=threads))
    except MeasurementError as error:
        raise ExportError(f"ONNX Runtime refuses the graph: {error.message}") from error


def expose(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy of `model` with the named tensors as additional outputs (float32, shape left open)."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    known = {value.name for value in (*model.graph.output, *model.graph.input)}
    for name in tensors:
        if name not in known:
            exposed.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return exposed


def check_parity(
    torch_model: nn.Module, onnx_model: onnx.ModelProto, inputs: Sequence[torch.Tensor], *, tolerance: float = 1e-4
) -> float:
    """Largest absolute difference of an output over the largest absolute value torch gives for it (1e-6 or so).

    Every output counts, by its own range. Raises ParityError where one exceeds `tolerance`, where their number or
    shapes differ, or where either side is not finite.
    """
    import torch

    network = copy.deepcopy(torch_model).eval()
    with torch.no_grad():
        expected = [tensor.detach().cpu().numpy() for tensor in tensors_of(network(*inputs))]
    actual = run_all(onnx_model, [tensor.detach().cpu().numpy() for tensor in inputs])
    return compare_all(expected, actual, tolerance=tolerance)


def compare_all(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray], *, tolerance: float) -> float:
    """The largest `compare` of the outputs, pair by pair. Raises ParityError as `check_parity` does."""
    if len(expected) != len(actual):
        raise ParityError(f"the graph gives {len(actual)} outputs, the network {len(expected)}")
    worst = 0.0
    for index, (wanted, given) in enumerate(zip(expected, actual, strict=True)):
        try:
            worst = max(worst, compare(wanted, given, tolerance=tolerance))
        except ParityError as error:
            if len(expected) == 1:
                raise
            raise ParityError(f"output {index}: {error.message}") from error
    return worst


def compare(expected: np.ndarray, actual: np.ndarray, *, tolerance: float) -> float:
    """Largest |expected - actual| over largest |expected|. Raises ParityError as `check_parity` does."""
    if expected.shape != actual.shape:
        raise ParityError(f"output shape {actual.shape} instead of {expected.shape}")
    if not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        raise ParityError("an output is not finite")
    if expected.size == 0:
        return 0.0
    scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    error = float(np.abs(expected.astype(np.float64) - actual).max()) / scale
    if error > tolerance:
        raise ParityError(
            f"the graph differs from the network by {error:.2e} of the output's range, over {tolerance:.0e}"
        )
    return error


def onnx_bytes(model: onnx.ModelProto) -> bytes:
    """The model as a file's content; equal models give equal bytes."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def settle(model: onnx.ModelProto, level: Literal["basic", "extended"] = "basic") -> onnx.ModelProto:
    """`model` through the offline optimiser until it stays: constants and BatchNorm folded, dead parts gone."""
    current = model
    for _ in range(_PASSES):
        before = Counter(node.op_type for node in current.graph.node)
        current = clean(optimise_offline(current, level))
        if Counter(node.op_type for node in current.graph.node) == before:
            break
    return current


def _contiguous(_module: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in given)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings, its log lines and the graphs it writes to stderr; errors still raise."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx.experimental.symbolic_shapes")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


_BRANCHES = (
    "write what depends on values of tensors without Python's if, while or indices: torch.where for a choice by "
    "element, torch.cond for a branch"
)


def _first_cause(error: BaseException) -> str:
    """First line of the innermost error, which is the one that names the operation."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
