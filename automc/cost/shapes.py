"""Shapes and types of what the runtime's own operators put out; ONNX itself infers only the standard ones.

A saved optimised model keeps shapes of tensors that were there before optimisation; those the runtime made up (blocked
tensors, 8-bit tensors) have to be inferred here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from automc.errors import UnseenOperatorError

if TYPE_CHECKING:
    import onnx

NCHWC_DOMAIN = "com.microsoft.nchwc"

FLOAT, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7  # onnx.TensorProto.DataType
BYTES_OF_TYPE: Mapping[int, int] = {
    1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2, 17: 1, 18: 1, 19: 1, 20: 1,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """Shape and ONNX element type of one tensor; constant: it is an initialiser."""

    shape: tuple[int, ...]
    dtype: int
    constant: bool = False

    @property
    def elements(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    @property
    def bytes(self) -> int:
        if self.dtype not in BYTES_OF_TYPE:
            raise UnseenOperatorError(f"a tensor of shape {list(self.shape)} has the unknown element type {self.dtype}")
        return self.elements * BYTES_OF_TYPE[self.dtype]


Attribute = int | float | str | tuple[int, ...] | tuple[float, ...]


@dataclass(frozen=True)
class Node:
    """One operator of a graph. inputs: names, "" where an optional one is left out. domain "": the standard one."""

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    def ints(self, name: str) -> tuple[int, ...]:
        value = self.attributes.get(name, ())
        return tuple(int(item) for item in value) if isinstance(value, tuple) else ()

    def int(self, name: str, default: int = 0) -> int:
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default

    def text(self, name: str) -> str:
        value = self.attributes.get(name, "")
        return value if isinstance(value, str) else ""


def broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The common shape of element-wise operands, by the rules of numpy and ONNX. ValueError where there is none."""
    rank = max(len(shape) for shape in shapes)
    out: list[int] = []
    for extents in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        wide = {extent for extent in extents if extent != 1}
        if len(wide) > 1:
            raise ValueError(f"shapes {list(shapes)} do not broadcast")
        out.append(wide.pop() if wide else 1)
    return tuple(out)


def windows(extents: Sequence[int], kernel: Sequence[int], node: Node, *, ceil_mode: bool = False) -> tuple[int, ...]:
    """Spatial extents a convolution or pool puts out. ONNX operator reference, Conv and MaxPool, `output_shape`."""
    rank = len(extents)
    strides = node.ints("strides") or (1,) * rank
    dilations = node.ints("dilations") or (1,) * rank
    pads = node.ints("pads") or (0,) * (2 * rank)
    auto = node.text("auto_pad")
    out = []
    for axis in range(rank):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            out.append(-(-extents[axis] // strides[axis]))
            continue
        padding = 0 if auto == "VALID" else pads[axis] + pads[axis + rank]
        span = extents[axis] + padding - reach
        steps = -(-span // strides[axis]) if ceil_mode else span // strides[axis]
        if ceil_mode and steps * strides[axis] >= extents[axis] + pads[axis]:  # the last window must start inside
            steps -= 1
        out.append(steps + 1)
    return tuple(out)


def infer(node: Node, inputs: Sequence[Tensor | None], block: int) -> tuple[Tensor, ...]:
    """Outputs of an operator outside the ONNX standard. inputs: None where an optional one is left out.

    block: channels per block of the runtime's blocked layout. Raises UnseenOperatorError (operator, shapes) on an
    operator it does not know.
    """
    op = node.op
    first = inputs[0] if inputs else None
    if first is not None and op == "ReorderInput":
        shape = first.shape
        if node.int("channels_last"):
            shape = (shape[0], shape[-1], *shape[1:-1])
        return (Tensor((shape[0], -(-shape[1] // block) * block, *shape[2:]), first.dtype),)
    if first is not None and op == "ReorderOutput":
        batch, _, *spatial = first.shape
        channels = node.int("channels")
        shape = (batch, *spatial, channels) if node.int("channels_last") else (batch, channels, *spatial)
        return (Tensor(shape, first.dtype),)
    if first is not None and op in _CONVOLUTIONS:
        weights = inputs[_CONVOLUTIONS[op]]
        if weights is not None:
            nhwc = bool(node.int("channels_last")) or op == "NhwcFusedConv"
            spatial_in = first.shape[1:-1] if nhwc else first.shape[2:]
            spatial_out = windows(spatial_in, weights.shape[2:], node)
            out = (*spatial_out, weights.shape[0]) if nhwc else (weights.shape[0], *spatial_out)
            return (Tensor((first.shape[0], *out), first.dtype),)
    if first is not None and op in _POOLS:
        nhwc = bool(node.int("channels_last")) or op == "NhwcMaxPool"
        channels = first.shape[-1] if nhwc else first.shape[1]
        spatial_in = first.shape[1:-1] if nhwc else first.shape[2:]
        whole = "Global" in op
        kernel = node.ints("kernel_shape")
        ceil_mode = bool(node.int("ceil_mode"))
        spatial_out = (1,) * len(spatial_in) if whole else windows(spatial_in, kernel, node, ceil_mode=ceil_mode)
        out = (*spatial_out, channels) if nhwc else (channels, *spatial_out)
        return (Tensor((first.shape[0], *out), first.dtype),)
    if first is not None and op in _PAIRS:
        second = inputs[_PAIRS[op]]
        if second is not None:
            return (Tensor(broadcast((first.shape, second.shape)), first.dtype),)
    if first is not None and op in _SAME:
        return (Tensor(first.shape, first.dtype), *(Tensor((), FLOAT) for _ in node.outputs[1:]))
    if first is not None and op in ("QuantizeLinear", "DequantizeLinear"):
        zero = inputs[2] if len(inputs) > 2 else None
        return (Tensor(first.shape, FLOAT if op[0] == "D" else zero.dtype if zero is not None else UINT8),)
    if op == "QLinearConcat":
        parts = [part for part in inputs[2::3] if part is not None]
        axis = node.int("axis") % len(parts[0].shape)
        total = sum(part.shape[axis] for part in parts)
        shape = (*parts[0].shape[:axis], total, *parts[0].shape[axis + 1 :])
        return (Tensor(shape, parts[0].dtype),)
    if first is not None and op in _GEMMS:
        weights = inputs[_GEMMS[op]]
        if weights is not None:
            rows = first.shape[1] if node.int("transA") else first.shape[0]
            columns = weights.shape[0] if node.int("transB") else weights.shape[1]
            output = inputs[7] if op == "QGemm" and len(inputs) > 7 else None
            quantised = op != "QGemm" or output is not None
            return (Tensor((rows, columns), first.dtype if quantised else FLOAT),)
    if first is not None and op == "MatMulNBits":
        return (Tensor((*first.shape[:-1], node.int("N")), first.dtype),)
    if first is not None and op in _MATMULS:
        second = inputs[_MATMULS[op]]
        if second is not None:
            dtype = first.dtype if op in ("QLinearMatMul", "FusedMatMul") else FLOAT
            return (Tensor(matmul_shape(node, first.shape, second.shape), dtype),)
    shapes = ", ".join(str(list(tensor.shape)) for tensor in inputs if tensor is not None and not tensor.constant)
    raise UnseenOperatorError(
        f"operator {node.domain or 'ai.onnx'}.{op} (node {node.name!r}, inputs {shapes or 'none'}): "
        "its output shape is not known",
        next_step="give the model fixed input shapes, or leave the operator out",
    )


def matmul_shape(node: Node, left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a (batched) matrix product, transposed where the node says so; vectors count as in numpy."""
    if len(left) > 1 and node.int("transA"):
        left = (*left[:-2], left[-1], left[-2])
    if len(right) > 1 and node.int("transB"):
        right = (*right[:-2], right[-1], right[-2])
    batch = broadcast((left[:-2], right[:-2])) if len(left) > 2 or len(right) > 2 else ()
    return (*batch, *left[-2:-1], *(right[-1:] if len(right) > 1 else ()))


_CONVOLUTIONS: Mapping[str, int] = {"Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "QLinearConv": 3}
_POOLS = frozenset({
    "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "NhwcMaxPool", "QLinearAveragePool",
    "QLinearGlobalAveragePool",
})  # fmt: skip
_PAIRS: Mapping[str, int] = {"QLinearAdd": 3, "QLinearMul": 3}
_SAME = frozenset({
    "BiasGelu", "FastGelu", "Gelu", "QuickGelu", "SkipLayerNormalization", "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "BiasSoftmax",
})  # fmt: skip
_GEMMS: Mapping[str, int] = {"FusedGemm": 1, "QGemm": 3}
_MATMULS: Mapping[str, int] = {
    "FusedMatMul": 1, "FusedMatMulActivation": 1, "MatMulIntegerToFloat": 1, "DynamicQuantizeMatMul": 1,
    "QLinearMatMul": 3,
}  # fmt: skip


def infer_standard(
    node: onnx.NodeProto, inputs: Mapping[str, Tensor], data: Mapping[str, onnx.TensorProto], opset: int
) -> tuple[Tensor, ...]:
    """Outputs of a standard operator, by ONNX's own inference. data: initialisers that shapes depend on.

    Raises UnseenOperatorError where ONNX cannot tell.
    """
    import onnx
    from onnx import helper, shape_inference

    schema = _schema(node.op_type, opset, node.domain)
    types = {name: helper.make_tensor_type_proto(inputs[name].dtype, inputs[name].shape) for name in node.input if name}
    try:
        found = shape_inference.infer_node_outputs(
            schema,
            node,
            types,
            {name: data[name] for name in node.input if name in data},
            opset_imports=[_opset(opset)],
        )
    except (onnx.shape_inference.InferenceError, KeyError) as error:
        raise UnseenOperatorError(f"operator {node.op_type} (node {node.name!r}): {error}") from error
    out = []
    for name in node.output:
        if not name:
            continue
        kind = found[name].tensor_type if name in found else None
        if kind is None or any(not extent.HasField("dim_value") for extent in kind.shape.dim):
            shapes = [list(inputs[name].shape) for name in node.input if name]
            raise UnseenOperatorError(
                f"operator {node.op_type} (node {node.name!r}, inputs {shapes}): its output shape depends on data",
                next_step="give the model fixed input shapes, or leave the operator out",
            )
        out.append(Tensor(tuple(extent.dim_value for extent in kind.shape.dim), kind.elem_type))
    return tuple(out)


@cache
def _schema(op: str, opset: int, domain: str) -> onnx.defs.OpSchema:
    import onnx

    try:
        return onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError as error:
        raise UnseenOperatorError(f"operator {domain or 'ai.onnx'}.{op} is not of opset {opset}") from error


@cache
def _opset(version: int) -> onnx.OperatorSetIdProto:
    from onnx import helper

    return helper.make_opsetid("", version)
