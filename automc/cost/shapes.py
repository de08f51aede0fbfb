"""Shapes and types of what the runtime's own operators put out; ONNX itself infers only the standard ones.

A saved optimised model keeps shapes of tensors that were there before optimisation; those the runtime made up (blocked
tensors, 8-bit tensors) have to be inferred here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


Inputs = Sequence[Tensor | None]
"""Tensors of a node's inputs; None where an optional one is left out."""
Rule = Callable[[Node, Inputs, int], "tuple[Tensor, ...]"]


def infer(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...] | None:
    """Outputs of an operator by the rules of this file; None where it has none for it.

    block: channels per block of the runtime's blocked layout.
    """
    rule = _upsample if node.op == "Upsample" and node.domain == NCHWC_DOMAIN else _RULES.get(node.op)
    return None if rule is None else rule(node, inputs, block)


def unknown(node: Node, inputs: Inputs) -> UnseenOperatorError:
    shapes = ", ".join(str(list(tensor.shape)) for tensor in inputs if tensor is not None and not tensor.constant)
    return UnseenOperatorError(
        f"operator {node.domain or 'ai.onnx'}.{node.op} (node {node.name!r}, inputs {shapes or 'none'}): "
        "its output shape is not known",
        next_step="give the model fixed input shapes, or leave the operator out",
    )


def _given(node: Node, inputs: Inputs, index: int = 0) -> Tensor:
    tensor = inputs[index] if len(inputs) > index else None
    if tensor is None:
        raise unknown(node, inputs)
    return tensor


def _reorder_input(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
    first = _given(node, inputs)
    shape = first.shape
    if node.int("channels_last"):
        shape = (shape[0], shape[-1], *shape[1:-1])
    return (Tensor((shape[0], -(-shape[1] // block) * block, *shape[2:]), first.dtype),)


def _reorder_output(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
    first = _given(node, inputs)
    batch, _, *spatial = first.shape
    channels = node.int("channels")
    shape = (batch, *spatial, channels) if node.int("channels_last") else (batch, channels, *spatial)
    return (Tensor(shape, first.dtype),)


def _convolution(weights_at: int) -> Rule:
    def rule(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
        first, weights = _given(node, inputs), _given(node, inputs, weights_at)
        nhwc = bool(node.int("channels_last")) or node.op == "NhwcFusedConv"
        spatial = windows(first.shape[1:-1] if nhwc else first.shape[2:], weights.shape[2:], node)
        channels = weights.shape[0]
        return (Tensor((first.shape[0], *((*spatial, channels) if nhwc else (channels, *spatial))), first.dtype),)

    return rule


def _pool(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
    first = _given(node, inputs)
    nhwc = bool(node.int("channels_last")) or node.op == "NhwcMaxPool"
    channels = first.shape[-1] if nhwc else first.shape[1]
    extents = first.shape[1:-1] if nhwc else first.shape[2:]
    if "Global" in node.op:
        spatial: tuple[int, ...] = (1,) * len(extents)
    else:
        spatial = windows(extents, node.ints("kernel_shape"), node, ceil_mode=bool(node.int("ceil_mode")))
    pooled = Tensor((first.shape[0], *((*spatial, channels) if nhwc else (channels, *spatial))), first.dtype)
    return (pooled, Tensor(pooled.shape, INT64))[: len(node.outputs)]


def _upsample(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
    first = _given(node, inputs)
    scales = node.ints("scales")
    return (Tensor(tuple(extent * scale for extent, scale in zip(first.shape, scales, strict=True)), first.dtype),)


def _elementwise(*operands: int) -> Rule:
    def rule(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
        given = [_given(node, inputs, index) for index in operands]
        return (Tensor(broadcast([tensor.shape for tensor in given]), given[0].dtype),)

    return rule


def _same(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
    first = _given(node, inputs)
    return (Tensor(first.shape, first.dtype),)


def _normalisation(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
    """Mean and deviation, which a training runtime asks for, are absent at inference; the fourth is the sum."""
    first = _given(node, inputs)
    return (Tensor(first.shape, first.dtype),) * len(node.outputs)


def _quantise(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
    zero_point = inputs[2] if len(inputs) > 2 else None
    return (Tensor(_given(node, inputs).shape, UINT8 if zero_point is None else zero_point.dtype),)


def _dequantise(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
    return (Tensor(_given(node, inputs).shape, _given(node, inputs, 1).dtype),)


def _concatenate(first_at: int, step: int) -> Rule:
    def rule(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
        parts = [_given(node, inputs, index) for index in range(first_at, len(inputs), step)]
        axis = node.int("axis") % len(parts[0].shape)
        total = sum(part.shape[axis] for part in parts)
        return (Tensor((*parts[0].shape[:axis], total, *parts[0].shape[axis + 1 :]), parts[0].dtype),)

    return rule


def _transpose(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
    first = _given(node, inputs)
    perm = node.ints("perm") or tuple(reversed(range(len(first.shape))))
    return (Tensor(tuple(first.shape[axis] for axis in perm), first.dtype),)


def _gemm(weights_at: int) -> Rule:
    def rule(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
        first, weights = _given(node, inputs), _given(node, inputs, weights_at)
        rows = first.shape[1] if node.int("transA") else first.shape[0]
        columns = weights.shape[0] if node.int("transB") else weights.shape[1]
        to_float = node.op == "QGemm" and (len(inputs) < 8 or inputs[7] is None)  # no output scale
        return (Tensor((rows, columns), FLOAT if to_float else first.dtype),)

    return rule


def _matmul(right_at: int, dtype: int | None = None) -> Rule:
    def rule(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
        first, second = _given(node, inputs), _given(node, inputs, right_at)
        return (Tensor(matmul_shape(node, first.shape, second.shape), first.dtype if dtype is None else dtype),)

    return rule


def _matmul_n_bits(node: Node, inputs: Inputs, block: int) -> tuple[Tensor, ...]:
    first = _given(node, inputs)
    return (Tensor((*first.shape[:-1], node.int("N")), first.dtype),)


def matmul_shape(node: Node, left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a (batched) matrix product, transposed where the node says so; vectors count as in numpy."""
    if node.int("transBatchA"):  # the first axis counts rows (or columns) and comes after those of the batch
        left = (*left[1:-1], left[0], left[-1])
    if node.int("transBatchB"):
        right = (*right[1:-1], right[0], right[-1])
    if len(left) > 1 and node.int("transA"):
        left = (*left[:-2], left[-1], left[-2])
    if len(right) > 1 and node.int("transB"):
        right = (*right[:-2], right[-1], right[-2])
    batch = broadcast((left[:-2], right[:-2])) if len(left) > 2 or len(right) > 2 else ()
    return (*batch, *left[-2:-1], *(right[-1:] if len(right) > 1 else ()))


_RULES: Mapping[str, Rule] = {
    "ReorderInput": _reorder_input, "ReorderOutput": _reorder_output,
    **dict.fromkeys(("Conv", "FusedConv", "NhwcFusedConv"), _convolution(1)), "QLinearConv": _convolution(3),
    **dict.fromkeys((
        "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "NhwcMaxPool", "QLinearAveragePool",
        "QLinearGlobalAveragePool",
    ), _pool),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow"), _elementwise(0, 1)),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), _elementwise(0, 3)),
    **dict.fromkeys((
        "Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Sqrt", "LeakyRelu", "Elu", "Softmax",
        "Gelu", "BiasGelu", "FastGelu", "QuickGelu", "BiasSoftmax", "QLinearSigmoid", "QLinearLeakyRelu",
        "QLinearSoftmax",
    ), _same),
    **dict.fromkeys((
        "LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    ), _normalisation),
    "QuantizeLinear": _quantise, "DequantizeLinear": _dequantise, "Concat": _concatenate(0, 1),
    "QLinearConcat": _concatenate(2, 3), "Transpose": _transpose, "Gemm": _gemm(1), "FusedGemm": _gemm(1),
    "QGemm": _gemm(3), "MatMul": _matmul(1), "FusedMatMul": _matmul(1), "FusedMatMulActivation": _matmul(1),
    "QLinearMatMul": _matmul(3), "MatMulInteger": _matmul(1, INT32), "MatMulIntegerToFloat": _matmul(1, FLOAT),
    "DynamicQuantizeMatMul": _matmul(1, FLOAT), "MatMulNBits": _matmul_n_bits,
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
        if kind is None or not kind.elem_type or any(not extent.HasField("dim_value") for extent in kind.shape.dim):
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
