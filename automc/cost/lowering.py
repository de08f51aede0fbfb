"""The one lowering: from an op-level ONNX graph to the kernels ONNX Runtime really executes, and from those to rows.

Fusion, blocked layouts, int8 kernels and the transposes around them are the runtime's decisions, taken by dozens of
passes that change with its version and with the processor. So they are not imitated here: the runtime optimises the
graph itself (ORT_ENABLE_ALL, as at measuring time) and writes down what it is going to execute, in 2 to 10 ms for a
small network. Weights play no part in its decisions, which is why a trace with made-up weights lowers alike.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from automc.cost.kernels import KernelGraph, KernelRow, Layout, Precision
from automc.cost.shapes import INT64, NCHWC_DOMAIN, UINT8, Attribute, Node, Tensor, infer, infer_standard, unknown
from automc.errors import PredictorError, UnseenOperatorError

if TYPE_CHECKING:
    import onnx

_RUNTIME_NAMES = {
    "FusedConv": "Conv", "NhwcFusedConv": "Conv", "FusedGemm": "Gemm", "NhwcMaxPool": "MaxPool", "Flatten": "Reshape",
}  # fmt: skip
"""Names the runtime gives a kernel that the rest of the row (fused, layout, shapes) already tells apart."""

ALIASES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
"""Operators whose output is their input's memory under another shape."""

_BLOCK_OF_AVX512, _BLOCK_ELSEWHERE = 16, 8  # MlasNchwcGetBlockSize, onnxruntime/core/mlas/lib/snchwc.cpp


Level = Literal["basic", "extended", "all"]
"""How far the runtime optimises. all: as this host executes it, its hardware's layout included. extended: fused, in the
layout of the file, the same on every processor. basic: standard operators only, as exported."""


def lower(model: onnx.ModelProto, level: Level = "all") -> KernelGraph:
    """Kernel rows of an op-level model with fixed input shapes, as this host's runtime will execute it at `level`.

    Raises PredictorError where the runtime refuses the model, UnseenOperatorError (operator, shape) where it holds an
    operator that is unknown.
    """
    return rows_of(optimised(model, level))


def optimised(model: onnx.ModelProto, level: Level = "all") -> onnx.ModelProto:
    """The model after ONNX Runtime's own optimisation."""
    import onnx
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = {
        "basic": levels.ORT_ENABLE_BASIC, "extended": levels.ORT_ENABLE_EXTENDED, "all": levels.ORT_ENABLE_ALL,
    }[level]  # fmt: skip
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_prepacking", "1")  # the graph is all that is wanted
    with _scratch_file() as (file, path):
        options.optimized_model_filepath = path
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except state.NotImplemented as error:
            raise UnseenOperatorError(f"ONNX Runtime {ort.__version__} has no kernel: {error}") from error
        except (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf) as error:
            raise PredictorError(
                f"ONNX Runtime {ort.__version__} cannot load the model: {error}",
                next_step="check the file with onnx.checker, then export it again",
            ) from error
        written: onnx.ModelProto = onnx.ModelProto.FromString(file.read())
    return written


@contextmanager
def _scratch_file() -> Iterator[tuple[IO[bytes], str]]:
    """A file for the runtime to write to, and its path; in memory where the system has such: a disk takes 3 ms more."""
    if not hasattr(os, "memfd_create"):
        with tempfile.NamedTemporaryFile(prefix="automc-", suffix=".onnx") as file:
            yield file, file.name
        return
    with os.fdopen(os.memfd_create("automc"), "rb") as file:
        yield file, f"/proc/self/fd/{file.fileno()}"


@dataclass(frozen=True)
class Lowered:
    """What the runtime will execute: a row and a node per kernel, in one order, and every tensor's shape and type.

    inputs, outputs: names of the graph's. weights: names of its initialisers.
    """

    rows: tuple[KernelRow, ...]
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: frozenset[str]

    def kernels(self) -> KernelGraph:
        used = {name for node in self.nodes for name in node.inputs if name in self.weights}
        return KernelGraph(
            rows=self.rows,
            weight_bytes=sum(self.tensors[name].bytes for name in used if not is_parameter(self.tensors[name])),
            peak_activation_bytes=peak_bytes(self.nodes, self.tensors, self.inputs, self.outputs),
        )


def rows_of(model: onnx.ModelProto) -> KernelGraph:
    """Kernel rows of a model that is already as the runtime will execute it; nothing is optimised here."""
    return lowered(model).kernels()


def kernels_alone(model: onnx.ModelProto) -> Iterator[tuple[KernelRow, onnx.ModelProto]]:
    """Each kernel of `model`, which is as the runtime will execute it, with a model of that one kernel on its shapes.

    What it reads of other kernels are inputs; its weights are its own. The runtime of this host alone can be expected
    to load such a model: the kernel may be one of its own.
    """
    from onnx import helper

    found = lowered(model)
    tensors = found.tensors
    weights = {item.name: item for item in model.graph.initializer}
    protos = {next(name for name in proto.output if name): proto for proto in model.graph.node}
    for row, node in zip(found.rows, found.nodes, strict=True):
        proto = protos[next(name for name in node.outputs if name)]
        read = [name for name in dict.fromkeys(proto.input) if name]
        graph = helper.make_graph(
            [proto],
            "kernel",
            [
                helper.make_tensor_value_info(name, tensors[name].dtype, list(tensors[name].shape))
                for name in read
                if name not in weights
            ],
            [helper.make_tensor_value_info(name, tensors[name].dtype, None) for name in proto.output if name],
            [weights[name] for name in read if name in weights],
        )
        yield row, helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def lowered(model: onnx.ModelProto) -> Lowered:
    """The kernels of a model that is already as the runtime will execute it."""
    graph = model.graph
    weights = {item.name: item for item in graph.initializer}
    tensors: dict[str, Tensor] = {
        name: Tensor(tuple(item.dims), item.data_type, constant=True) for name, item in weights.items()
    }
    for value in (*graph.input, *graph.output, *graph.value_info):
        known = _declared(value)
        if known is not None and value.name not in tensors:
            tensors[value.name] = known
    missing = [value.name for value in graph.input if value.name not in tensors]
    if missing:
        raise PredictorError(f"the model's inputs {missing} have no fixed shape", next_step="export with fixed shapes")
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 1)
    block = block_size()
    ordered = depth_first([node_of(proto) for proto in graph.node], [item.name for item in graph.output])
    protos = {next(name for name in proto.output if name): proto for proto in graph.node}
    channels_last = any(_channels_last(node) for node in ordered)
    layouts: dict[str, Layout] = {}
    rows: list[KernelRow] = []
    for node in ordered:
        if any(name not in tensors for name in node.outputs if name):
            inputs = [tensors[name] if name else None for name in node.inputs]
            out = infer(node, inputs, block)
            if out is None and node.domain:
                raise unknown(node, inputs)
            if out is None:
                out = infer_standard(protos[next(name for name in node.outputs if name)], tensors, weights, opset)
            for name, tensor in zip((name for name in node.outputs if name), out, strict=False):
                tensors.setdefault(name, tensor)
        layout = _layout(node, tensors, layouts, channels_last=channels_last)
        rows.append(_row(node, tensors, layout))
    return Lowered(
        tuple(rows), tuple(ordered), tensors, tuple(item.name for item in graph.input),
        tuple(item.name for item in graph.output), frozenset(weights),
    )  # fmt: skip


def depth_first(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """The nodes in the order in which a walk from the outputs, inputs first, completes them.

    The runtime orders independent branches by chance, anew in every session; here equal graphs give equal orders.
    """
    producer = {name: node for node in nodes for name in node.outputs if name}
    order: list[Node] = []
    done: set[str] = set()
    stack = [(producer[name], False) for name in reversed(outputs) if name in producer]
    while stack:
        node, complete = stack.pop()
        key = next(name for name in node.outputs if name)
        if key in done:
            continue
        if complete:
            done.add(key)
            order.append(node)
            continue
        stack.append((node, True))
        stack.extend((producer[name], False) for name in reversed(node.inputs) if name in producer)
    return order


@cache
def block_size() -> int:
    """Channels per block of the runtime's blocked layout on this host: 16 with AVX-512, else 8."""
    flags = Path("/proc/cpuinfo")
    text = flags.read_text() if flags.is_file() else ""
    return _BLOCK_OF_AVX512 if " avx512f" in text else _BLOCK_ELSEWHERE


def node_of(proto: onnx.NodeProto) -> Node:
    from onnx import AttributeProto

    attributes: dict[str, Attribute] = {}
    for item in proto.attribute:
        if item.type == AttributeProto.INT:
            attributes[item.name] = item.i
        elif item.type == AttributeProto.FLOAT:
            attributes[item.name] = item.f
        elif item.type == AttributeProto.STRING:
            attributes[item.name] = item.s.decode()
        elif item.type == AttributeProto.INTS:
            attributes[item.name] = tuple(item.ints)
        elif item.type == AttributeProto.FLOATS:
            attributes[item.name] = tuple(item.floats)
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    return Node(proto.name, proto.op_type, domain, tuple(proto.input), tuple(proto.output), attributes)


def _declared(value: onnx.ValueInfoProto) -> Tensor | None:
    kind = value.type.tensor_type
    if (
        not kind.elem_type
        or not kind.HasField("shape")
        or any(not extent.HasField("dim_value") for extent in kind.shape.dim)
    ):
        return None
    return Tensor(tuple(extent.dim_value for extent in kind.shape.dim), kind.elem_type)


def _channels_last(node: Node) -> bool:
    if node.domain == NCHWC_DOMAIN:
        return False
    return bool(node.int("channels_last")) or node.op in ("NhwcMaxPool", "NhwcFusedConv")


def _layout(node: Node, tensors: dict[str, Tensor], layouts: dict[str, Layout], *, channels_last: bool) -> Layout:
    """Layout the kernel works in; notes the layout of its outputs in `layouts` (nchw where a name is absent).

    channels_last: the graph has kernels of that layout. Where it has none, a transpose (as in attention) is just one.
    """
    from_inputs: Layout = next((layouts[name] for name in node.inputs if name in layouts), "nchw")
    row: Layout = from_inputs
    out: Layout = from_inputs
    if node.domain == NCHWC_DOMAIN:
        row = out = "nchwc"
        if node.op == "ReorderOutput":
            out = "nhwc" if node.int("channels_last") else "nchw"
    elif _channels_last(node):
        row = out = "nhwc"
    elif node.op == "Transpose":
        perm = node.ints("perm")
        rank = len(perm)
        to_last, to_first = (0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))
        row = out = "nhwc" if channels_last and rank > 2 and perm == to_last and from_inputs == "nchw" else "nchw"
        if perm == to_first and from_inputs == "nhwc":
            row, out = "nhwc", "nchw"
    elif node.op in ("Reshape", "Flatten") or node.op in _MATRIX_PRODUCTS:
        out = "nchw"
    if out != "nchw":
        layouts.update({name: out for name in node.outputs if len(tensors[name].shape) > 2})
    return row


def _row(node: Node, tensors: dict[str, Tensor], layout: Layout) -> KernelRow:
    moving = [tensors[name] for name in node.inputs if name and not tensors[name].constant]
    fixed = [tensors[name] for name in dict.fromkeys(node.inputs) if name and tensors[name].constant]
    outputs = [tensors[name] for name in node.outputs if name and name in tensors]
    eight_bit = any(tensor.dtype in (UINT8, UINT8 + 1) for tensor in (*moving, *outputs))
    precision: Precision = "int8" if eight_bit else "fp32"
    free = node.op in ALIASES
    spatial = node.op.endswith(("Conv", "Pool", "ConvTranspose"))
    kernel = node.ints("kernel_shape")
    if spatial and not kernel:  # global pools look at all of it
        shape = moving[0].shape
        kernel = shape[1:-1] if layout == "nhwc" else shape[2:]
    return KernelRow(
        name=_label(node, tensors),
        op=_RUNTIME_NAMES.get(node.op, node.op),
        precision=precision,
        layout=layout,
        input_shapes=tuple(tensor.shape for tensor in moving),
        output_shape=outputs[0].shape,
        macs=_macs(node, tensors),
        bytes_in=0 if free else sum(tensor.bytes for tensor in moving),
        bytes_out=0 if free else sum(tensor.bytes for tensor in outputs),
        bytes_weights=sum(tensor.bytes for tensor in fixed if not is_parameter(tensor)),
        kernel=kernel if spatial else (),
        stride=(node.ints("strides") or (1,) * len(kernel)) if spatial else (),
        dilation=(node.ints("dilations") or (1,) * len(kernel)) if spatial else (),
        groups=node.int("group", 1) if spatial else 1,
        fused=_fused(node),
        runs=0 if moving or node.op != "DequantizeLinear" else _runs(node, tensors),
    )


def _runs(node: Node, tensors: dict[str, Tensor]) -> int:
    """Stretches of one scale, in the order of memory: one in all where the scale is a single number."""
    weights, scale = tensors[node.inputs[0]].shape, tensors[node.inputs[1]]
    return 1 if scale.elements == 1 else prod(weights[: node.int("axis", 1) % len(weights) + 1])


_OWNED = re.compile(r"(.+)\.(?:weight|bias|folded_bias|folded_\d+)(?:\.|$)")
_RENAMED = re.compile(r"^fused |(?:_nchwc|_token_\d+)$")


def _label(node: Node, tensors: dict[str, Tensor]) -> str:
    """Name of the module whose weights the kernel holds; else its own, without what the runtime appended."""
    for name in node.inputs:
        owned = _OWNED.match(name) if name and tensors[name].constant else None
        if owned:
            return owned[1]
    return plain_name(node.name) or next(name for name in node.outputs if name)


def plain_name(name: str) -> str:
    """A kernel's name without what the runtime put before and after it."""
    return _RENAMED.sub("", name)


def _fused(node: Node) -> tuple[str, ...]:
    """Element-wise work inside the kernel, in order: the sum of a residual comes before the activation."""
    residual = ("Add",) if node.op in ("Conv", "FusedConv", "NhwcFusedConv") and len(node.inputs) > 3 else ()
    activation = node.text("activation")
    return (*residual, activation) if activation else residual


def is_parameter(tensor: Tensor) -> bool:
    """Whether an initialiser is a parameter of its operator rather than weights: a single number, a shape, axes."""
    return tensor.elements == 1 or (tensor.dtype == INT64 and len(tensor.shape) <= 1)


_MATRIX_PRODUCTS = frozenset({
    "MatMul", "FusedMatMul", "FusedMatMulActivation", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
    "QLinearMatMul", "MatMulNBits",
})  # fmt: skip


def _macs(node: Node, tensors: dict[str, Tensor]) -> int:
    """Multiply-accumulates as the kernel executes them, channels that only pad a block included."""
    out = tensors[next(name for name in node.outputs if name)]
    if node.op.endswith("Conv"):
        weights = tensors[node.inputs[3 if node.op == "QLinearConv" else 1]]
        return out.elements * (weights.elements // weights.shape[0])
    if node.op == "ConvInteger":
        weights = tensors[node.inputs[1]]
        return out.elements * (weights.elements // weights.shape[0])
    first = tensors[node.inputs[0]] if node.inputs and node.inputs[0] else out
    if node.op == "ConvTranspose":
        weights = tensors[node.inputs[1]]
        return first.elements * (weights.elements // weights.shape[0])
    if node.op in ("Gemm", "FusedGemm", "QGemm"):
        return out.elements * first.shape[0 if node.int("transA") else 1]
    if node.op in ("LSTM", "GRU", "RNN"):  # (length, batch, inputs), then weights of inputs and of the state
        steps = first.shape[0] * first.shape[1]
        return steps * sum(tensors[name].elements for name in node.inputs[1:3])
    if node.op in _MATRIX_PRODUCTS:
        if not node.int("transA"):
            return out.elements * first.shape[-1]
        return out.elements * first.shape[0 if node.int("transBatchA") else -2]
    return 0


def peak_bytes(
    nodes: Sequence[Node], tensors: Mapping[str, Tensor], inputs: Iterable[str], outputs: Iterable[str]
) -> int:
    """Largest sum of live activations at any kernel: a tensor lives from producer to last reader; views share."""
    owner: dict[str, str] = {name: name for name in inputs}
    last: dict[str, int] = {}
    born: dict[str, int] = dict.fromkeys(owner, 0)
    for step, node in enumerate(nodes):
        for name in node.inputs:
            if name in owner:
                last[owner[name]] = step
        for name in node.outputs:
            if not name:
                continue
            source = node.inputs[0] if node.inputs else ""
            owner[name] = owner[source] if node.op in ALIASES and source in owner else name
            born.setdefault(owner[name], step)
            last.setdefault(owner[name], step)
    for name in outputs:
        if name in owner:
            last[owner[name]] = max(len(nodes) - 1, 0)
    change = [0] * (max(len(nodes), 1) + 1)
    for name, start in born.items():
        change[start] += tensors[name].bytes
        change[last.get(name, start) + 1] -= tensors[name].bytes
    peak = live = 0
    for delta in change:
        live += delta
        peak = max(peak, live)
    return peak
