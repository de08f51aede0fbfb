"""An ONNX file as the base of a search: what is left to vary is the graph, and the reference is the file itself."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch import nn

from automc.errors import ConfigError, MeasurementError

if TYPE_CHECKING:
    import onnxruntime

KEY = "workload.options.model"
LEAST_OPSET = 13
"""Below it there are no quantisation pairs with a scale per channel: the graph is brought up to OPSET."""
OPSET = 20
_AGAIN = "export the model again, for example with torch.onnx.export(..., dynamo=True, dynamic_shapes=...)"
_TYPES = {
    "tensor(float)": torch.float32, "tensor(int64)": torch.int64, "tensor(int32)": torch.int32,
    "tensor(uint8)": torch.uint8, "tensor(int8)": torch.int8, "tensor(bool)": torch.bool,
}  # fmt: skip


class OnnxNetwork(nn.Module):
    """Computes what the file does, in ONNX Runtime; without weights that could be trained or cut.

    Exporting it gives `onnx_graph()`. Its state dict is the file's content, so that its digest is the file's.
    """

    content: torch.Tensor

    def __init__(self, model: onnx.ModelProto, called: str) -> None:
        """called: the file's name, for messages."""
        super().__init__()
        self.called = called
        raw = np.frombuffer(model.SerializeToString(deterministic=True), np.uint8)
        self.register_buffer("content", torch.from_numpy(raw.copy()))

    def onnx_graph(self) -> onnx.ModelProto:
        """The file's graph in the form that exports have: constants folded, the batch left open, one order."""
        from automc.canonical import canonical
        from automc.export import settle

        return canonical(settle(_loaded(self._bytes())))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """First output. Raises ConfigError where number, type or shape of the inputs is not what the file takes."""
        session = _session(hashlib.sha256(self._bytes()).digest(), _Content(self._bytes()))
        wanted = session.get_inputs()
        given = [f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}" for tensor in inputs]
        fits = len(wanted) == len(inputs) and all(map(_fits, wanted, inputs))
        if not fits:
            takes = "; ".join(f"{item.name}: {item.type} {item.shape}" for item in wanted)
            raise ConfigError(
                f"{KEY}: {self.called} takes {takes}, but the data give {'; '.join(given)}",
                next_step="give samples of the model's shape and type, in the order of its inputs",
            )
        feeds = {item.name: tensor.detach().numpy() for item, tensor in zip(wanted, inputs, strict=True)}
        output: np.ndarray = session.run(None, feeds)[0]
        return torch.from_numpy(np.ascontiguousarray(output))

    def _bytes(self) -> bytes:
        return self.content.numpy().tobytes()


def read_onnx(path: Path) -> OnnxNetwork:
    """The network in the file. Raises ConfigError where it cannot be read or run, or not on more than one sample."""
    from automc.cost.graph import load_onnx
    from automc.measure.sessions import SessionSettings, open_session

    model = load_onnx(path)
    try:
        session = open_session(model.SerializeToString(), SessionSettings())
    except MeasurementError as error:
        raise ConfigError(f"{KEY}: {path}: {error.message}", next_step=_AGAIN) from error
    for item in session.get_inputs():
        if item.type not in _TYPES:
            raise ConfigError(
                f"{KEY}: {path}: its input {item.name} is {item.type}; inputs may be {', '.join(_TYPES)}",
                next_step="export the model with float32 inputs",
            )
        if any(not isinstance(size, int) or size < 1 for size in item.shape[1:]):
            raise ConfigError(
                f"{KEY}: {path}: its input {item.name} of shape {item.shape} leaves more than the batch open",
                next_step="export the model with fixed shapes apart from the batch",
            )
    opened = _with_open_batch(_modern(model, path))
    network = OnnxNetwork(opened, path.name)
    _check_batch(network, session, path)
    return network.eval()


def _modern(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    version = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if version >= LEAST_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except (RuntimeError, onnx.checker.ValidationError, IndexError) as error:  # of an operator it cannot convert
        raise ConfigError(
            f"{KEY}: {path}: is of opset {version} and cannot be brought to opset {OPSET}: {error}",
            next_step=f"export the model again with an opset of {LEAST_OPSET} or more",
        ) from error


def _with_open_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose first axis of every input and output is the symbol `batch`."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    weights = {item.name for item in opened.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in weights]  # files of old list weights among them
    del opened.graph.input[:]
    opened.graph.input.extend(inputs)
    del opened.graph.value_info[:]
    for item in (*opened.graph.input, *opened.graph.output):
        if item.type.tensor_type.shape.dim:
            item.type.tensor_type.shape.dim[0].dim_param = "batch"
    return opened


def _check_batch(network: OnnxNetwork, session: onnxruntime.InferenceSession, path: Path) -> None:
    """Two samples at once must give what each gives alone in the file as it came."""
    from automc.measure.sessions import random_inputs

    samples = [random_inputs(session, seed=seed) for seed in (0, 1)]
    fixed = {item.name: item.shape[0] for item in session.get_inputs() if isinstance(item.shape[0], int)}
    if any(size != 1 for size in fixed.values()):
        raise ConfigError(
            f"{KEY}: {path}: takes {max(fixed.values())} samples at a time and no other number", next_step=_AGAIN
        )
    alone = [session.run(None, feeds)[0] for feeds in samples]
    columns = zip(*(feeds.values() for feeds in samples), strict=True)
    failures: tuple[type[Exception], ...] = (RuntimeError, *_run_failures())
    try:
        both = network(*(torch.from_numpy(np.concatenate(parts)) for parts in columns))
    except failures as error:
        raise ConfigError(
            f"{KEY}: {path}: runs on one sample and not on two: {str(error).splitlines()[0]}", next_step=_AGAIN
        ) from error
    wanted = np.concatenate(alone)
    scale = float(np.abs(wanted).max(initial=0.0)) or 1.0
    if both.shape != wanted.shape or not np.allclose(both.numpy(), wanted, rtol=0, atol=1e-4 * scale, equal_nan=True):
        raise ConfigError(
            f"{KEY}: {path}: gives other results for two samples at once than for each alone (shapes "
            f"{tuple(both.shape)} and {wanted.shape})",
            next_step=_AGAIN,
        )


def _fits(wanted: Any, tensor: torch.Tensor) -> bool:
    shape = wanted.shape
    return (
        tensor.dtype is _TYPES[wanted.type]
        and len(shape) == tensor.ndim
        and all(not isinstance(size, int) or size == extent for size, extent in zip(shape, tensor.shape, strict=True))
    )


def _run_failures() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (state.Fail, state.InvalidArgument, state.RuntimeException, state.InvalidGraph, state.NotImplemented)


class _Content:
    """Equal to every other one: a session is kept by the digest of its content beside it."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Content)

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(maxsize=2)
def _session(digest: bytes, content: _Content) -> onnxruntime.InferenceSession:
    """One session per file: copies of a network are many, and cannot copy a session."""
    from automc.measure.sessions import SessionSettings, open_session

    return open_session(content.content, SessionSettings())


def _loaded(content: bytes) -> onnx.ModelProto:
    return onnx.load_model_from_string(content)
