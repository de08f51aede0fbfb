"""An op-level ONNX graph from a torch module without exporting it: shapes alone, on the meta device, in milliseconds.

The module runs once on meta tensors under two modes. Functions that export as one operator but dissolve inside torch
(linear, matmul, attention, convolution, batch normalisation) are caught as they are called; everything else is caught
as the aten operators it becomes. Each is written down in the vocabulary and in the form of the exported graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from automc.cost.aten import quick_result, record_call, unseen
from automc.cost.attention import ATTENTION
from automc.cost.functions import FUNCTIONS
from automc.cost.lowering import optimised
from automc.cost.recorder import Recorder
from automc.cost.recording import Recording
from automc.errors import CompressionError, UnseenOperatorError
from automc.outputs import tensors_of
from automc.sources import raised_here
from automc.techniques._probing import RUN_FAILURES
from automc.techniques.edits import shapes_alone

if TYPE_CHECKING:
    import onnx


def traced(model: nn.Module, example_inputs: tuple[torch.Tensor, ...], *, batch: int = 1) -> onnx.ModelProto:
    """`recorded` as an ONNX graph; initialisers have the right shape and type, made-up values."""
    return recorded(model, example_inputs, batch=batch).model()


def recorded(model: nn.Module, example_inputs: tuple[torch.Tensor, ...], *, batch: int = 1) -> Recording:
    """The module's inference graph in ONNX operators.

    example_inputs: as for export, on any device; only their types and shapes are used, the first axis becomes `batch`.
    The module may be on the meta device, in training mode or not; it is neither changed nor copied with its weights.
    Raises UnseenOperatorError (operator, shapes) on an operator without a translation, and, chained, where the module
    does not run on shapes alone.
    """
    network = shapes_alone(model).eval() if any(module.training for module in model.modules()) else model
    try:
        return _record(network, example_inputs, batch)
    except UnseenOperatorError as error:
        try:
            with _exporting():
                return _record(network, example_inputs, batch)
        except UnseenOperatorError:
            raise error from error.__cause__


def _record(network: nn.Module, example_inputs: tuple[torch.Tensor, ...], batch: int) -> Recording:
    recorder = Recorder(_names_of(network))
    inputs = tuple(
        torch.empty((batch, *tensor.shape[1:]), dtype=tensor.dtype, device="meta") for tensor in example_inputs
    )
    for index, tensor in enumerate(inputs):
        recorder.declare(tensor, f"input_{index}")
    try:
        with torch.no_grad(), _Operators(recorder), _Functions(recorder):
            result = network(*inputs)
    except RUN_FAILURES as error:
        if raised_here(error):
            raise
        raise UnseenOperatorError(
            f"{type(network).__name__} does not run on shapes alone: {type(error).__name__}: {error}",
            next_step="keep values out of its control flow, or export it and predict the file",
        ) from error
    return recorder.recording(inputs, _tensors(result))


def _names_of(network: nn.Module) -> dict[int, str]:
    """Qualified names of parameters and buffers by identity; of several the last, a buffer's before a parameter's."""
    parameters, buffers = dict[int, str](), dict[int, str]()
    for owner, module in network.named_modules(remove_duplicate=False):
        for held, names in ((module._parameters, parameters), (module._buffers, buffers)):
            for name, tensor in held.items():
                if tensor is not None:
                    names[id(tensor)] = f"{owner}.{name}" if owner else name
    return parameters | buffers


@contextmanager
def _exporting() -> Iterator[None]:
    """Networks that ask whether they are being exported, to leave out what depends on values, are told that they are.

    For those that a trace cannot follow otherwise: told so, others choose operators of another kind. The two flags are
    those that torch.export sets, and what torch.compiler answers by.
    """
    compiler = torch.compiler
    before = compiler._is_compiling_flag, compiler._is_exporting_flag
    compiler._is_compiling_flag = compiler._is_exporting_flag = True
    try:
        yield
    finally:
        compiler._is_compiling_flag, compiler._is_exporting_flag = before


_CALLS = {**FUNCTIONS, **ATTENTION}


class _Functions(TorchFunctionMode):
    """Catches the calls that must not dissolve."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        handler = _CALLS.get(func)
        if handler is not None:
            made = handler(self._recorder, args, kwargs or {})
            if made is not None:
                return made
        return func(*args, **(kwargs or {}))


_READS_VALUES = frozenset({
    torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.unique_dim.default,
    torch.ops.aten._unique2.default, torch.ops.aten.masked_select.default, torch.ops.aten.is_nonzero.default,
    torch.ops.aten.equal.default,
})  # fmt: skip
"""What they return depends on values, of which a trace has none."""


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Catches every aten operator."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recorder = recorder

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        recorder = self._recorder
        keywords = dict(kwargs or {})
        active = any(recorder.is_activation(item) for item in _flat(args) if isinstance(item, torch.Tensor))
        if func in _READS_VALUES:
            if active or any(item.device.type == "meta" for item in args if isinstance(item, torch.Tensor)):
                raise unseen(func, args)
            return func(*args, **keywords)
        seen = [item for item in _flat((*args, *keywords.values())) if isinstance(item, torch.Tensor)]
        if any(tensor.device.type != "meta" for tensor in seen):
            args = tuple(_mapped(recorder, item) for item in args)
            keywords = {key: _mapped(recorder, item) for key, item in keywords.items()}
        if "device" in keywords and not seen:
            keywords["device"] = torch.device("meta")
        result = quick_result(func, args)
        if result is None:
            result = func(*args, **keywords)
        if active:
            record_call(recorder, func, args, keywords, result)
        return result


def _flat(values: Sequence[object]) -> list[object]:
    """The values, with those of lists and tuples among them."""
    out: list[object] = []
    for value in values:
        if isinstance(value, list | tuple):
            out.extend(value)
        else:
            out.append(value)
    return out


def _mapped(recorder: Recorder, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return recorder.on_meta(value)
    if isinstance(value, list | tuple):
        return type(value)(_mapped(recorder, item) for item in value)
    return value


def _tensors(result: object) -> tuple[torch.Tensor, ...]:
    """Tensors of a forward's result, in order. Raises UnseenOperatorError, chained, where there are none."""
    try:
        return tensors_of(result)
    except CompressionError as error:
        raise UnseenOperatorError(error.message) from error


_LEFT_ALONE = frozenset({
    "Conv", "Gemm", "Relu", "Clip", "Sigmoid", "HardSigmoid", "MaxPool", "AveragePool", "ReduceMean", "Reshape",
    "Slice", "Concat",
})  # fmt: skip
_WINDOWS = frozenset({"Conv", "MaxPool", "AveragePool"})


def as_exported(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A traced graph after the BASIC optimisation that every export goes through, until it stays as it is."""
    if _is_settled(graph):
        return graph
    current = optimised(graph, level="basic")
    while True:
        again = optimised(current, level="basic")
        if len(again.graph.node) == len(current.graph.node):
            return _with_free_names(again, graph)
        current = again


def _with_free_names(settled: onnx.ModelProto, graph: onnx.ModelProto) -> onnx.ModelProto:
    """`settled`, which is changed: weights that the runtime made of `graph` get names it will not make again.

    A Gemm that stays for a later level (beside an attention) is given shapes of the same names, and those that are
    there already are refused: "Attempt to replace the existing tensor".
    """
    known = {item.name for item in graph.graph.initializer}
    names = {item.name: f"{item.name}.settled" for item in settled.graph.initializer if item.name not in known}
    for item in settled.graph.initializer:
        item.name = names.get(item.name, item.name)
    for node in settled.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    return settled


def _is_settled(graph: onnx.ModelProto) -> bool:
    """Whether BASIC would leave a traced graph as it is; knowing it saves 6 ms and more.

    It takes composed activations apart, merges a Pad into the window operator behind it, a constant Add or Mul into the
    convolution before it, and a MatMul with its Add.
    """
    weights = {item.name for item in graph.graph.initializer}
    padded: set[str] = set()
    for node in graph.graph.node:
        if node.op_type in ("Add", "Mul"):
            if any(name in weights for name in node.input):
                return False
        elif node.op_type == "Pad":
            padded.add(node.output[0])
        elif node.op_type not in _LEFT_ALONE:
            return False
        if node.op_type in _WINDOWS and node.input[0] in padded:
            return False
    return True
