"""Which tensors of an ONNX graph are quantised, with which numbers, and the one writer that puts them into the graph.

Scales may be calibrated, learned or allocated: all of them arrive here as a QuantSpec and leave as explicit
QuantizeLinear / DequantizeLinear pairs with integer weights and int32 biases, standard ONNX that the runtime fuses
into integer kernels. A tensor the spec does not name stays float.
Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from automc.techniques.plan import Plan, QuantiseEdit

if TYPE_CHECKING:
    import onnx

Role = Literal["integer", "activation", "follow", "float"]
IntegerType = Literal["uint8", "int8", "uint4", "int4"]

QUANTISED_OPS = frozenset(
    {"Conv", "Gemm", "MatMul", "Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "Sigmoid", "LeakyRelu"}
)
"""Operators for which ONNX Runtime CPU has an integer kernel: their float inputs and outputs are quantised."""

FOLDED_ACTIVATIONS = frozenset({"Relu", "Clip"})
"""Vanish into the saturation of the quantisation behind them when they alone follow a quantised operator."""

FOLLOWING_OPS = frozenset({
    "MaxPool", "ReduceMax", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather",
    "Expand", "Pad", "Identity",
})  # fmt: skip
"""Move or select values: on a quantised input they run on its integers and hand on its scale."""

WEIGHTED_OPS = frozenset({"Conv", "Gemm", "MatMul"})

RANGES: dict[str, tuple[int, int]] = {"uint8": (0, 255), "int8": (-128, 127), "uint4": (0, 15), "int4": (-8, 7)}


def role(op_type: str) -> Role:
    """What quantisation does with an operator: one rule for the writer and for the cost model's lowering.

    integer: runs as an integer kernel. activation: folded into the integer kernel before it (where it is that
    kernel's only reader). follow: runs on integers if its input is quantised. float: stays float, between
    a DequantizeLinear and, where an integer kernel reads its result, a QuantizeLinear.
    """
    if op_type in QUANTISED_OPS:
        return "integer"
    if op_type in FOLDED_ACTIVATIONS:
        return "activation"
    return "follow" if op_type in FOLLOWING_OPS else "float"


@dataclass(frozen=True)
class QuantSpec:
    """Per exported tensor: type, scale, zero point, axis. A tensor is named once; int32 biases are derived."""

    tensors: tuple[QuantiseEdit, ...]

    def __post_init__(self) -> None:
        names = [edit.tensor for edit in self.tensors]
        if len(set(names)) != len(names):
            raise ValueError("a tensor is named twice in one QuantSpec")

    @classmethod
    def of(cls, plan: Plan) -> QuantSpec:
        """The quantise edits of a plan, in order."""
        return cls(tuple(edit for edit in plan.edits if isinstance(edit, QuantiseEdit)))

    @cached_property
    def by_name(self) -> dict[str, QuantiseEdit]:
        return {edit.tensor: edit for edit in self.tensors}


@dataclass(frozen=True)
class Targets:
    """What of a graph can be quantised.

    activations: tensors to calibrate, in graph order. followers: tensor -> the tensor whose scale it takes.
    weights: (initialiser, channel axis, node) of every weighted operator, in graph order; `node.input[0]` is its data.
    No channel axis where operators that share the weight count their outputs along different ones.
    integer: every operator that gets an integer kernel. left: those that stay in float, each with the reason.
    """

    activations: tuple[str, ...]
    followers: dict[str, str]
    weights: tuple[tuple[str, int | None, onnx.NodeProto], ...]
    integer: tuple[onnx.NodeProto, ...] = ()
    left: tuple[tuple[onnx.NodeProto, str], ...] = ()


def targets(model: onnx.ModelProto) -> Targets:
    """The tensors int8 needs quantised for every operator of `QUANTISED_OPS` to run as an integer kernel.

    An operator whose data input is an initialiser, or whose weight is computed in the graph but is no activation
    of rank known here, is treated as its role says; element-wise operators with a constant operand stay float.
    The result of a Gemm or MatMul that only the caller reads stays float: the runtime has a kernel for that.
    """

    formed = integer_form(model)
    graph = formed.graph
    whole = _not_of_floats(formed)
    constants = {tensor.name for tensor in graph.initializer}
    readers = _readers(graph)
    outputs = {value.name for value in graph.output}
    wanted: dict[str, None] = {}
    followers: dict[str, str] = {}
    weights: list[tuple[str, int, onnx.NodeProto]] = []
    integer: list[onnx.NodeProto] = []
    left: list[tuple[onnx.NodeProto, str]] = []
    for node in graph.node:
        kind = role(node.op_type)
        if node.output[0] in whole:  # arithmetic on shapes
            continue
        if kind == "follow" and node.input[0] in (wanted.keys() | followers.keys()) and not pads_values(node, graph):
            leader = followers.get(node.input[0], node.input[0])
            followers.update({value: leader for value in node.output if value})
        if kind == "float":
            left.append((node, f"{node.op_type} has no integer kernel here"))
        if kind != "integer":
            continue
        reason = _why_float(node, constants) or _masks(node, readers, outputs)
        if reason is not None:
            left.append((node, reason))
            continue
        integer.append(node)
        if node.op_type in WEIGHTED_OPS and node.input[1] in constants:
            weights.append((node.input[1], _channel_axis(node), node))
        data = [node.input[0], *([] if node.op_type in WEIGHTED_OPS and node.input[1] in constants else node.input[1:])]
        for value in data:
            if value not in followers:
                wanted.setdefault(value)
        result = node.output[0]
        if node.op_type in ("Gemm", "MatMul") and result in outputs and not readers.get(result):
            continue
        following = readers.get(result, [])
        if result not in outputs and len(following) == 1 and following[0].op_type in FOLDED_ACTIVATIONS:
            result = following[0].output[0]
        wanted.setdefault(result)
    axes: dict[str, set[int]] = {}
    for name, axis, _ in weights:
        axes.setdefault(name, set()).add(axis)
    shared = tuple((name, axis if len(axes[name]) == 1 else None, node) for name, axis, node in weights)
    return Targets(tuple(wanted), followers, shared, tuple(integer), tuple(left))


_OF_FLOATS = QUANTISED_OPS | FOLDED_ACTIVATIONS | FOLLOWING_OPS | {"ReduceMean", "Softmax", "LayerNormalization"}
"""Operators whose first result is of the type of their first input."""


def _not_of_floats(model: onnx.ModelProto) -> set[str]:
    """Tensors known to hold anything but floats: arithmetic on shapes."""
    import onnx

    plain = {onnx.TensorProto.UNDEFINED, onnx.TensorProto.FLOAT}
    others = {tensor.name for tensor in model.graph.initializer if tensor.data_type not in plain}
    others |= {value.name for value in model.graph.input if value.type.tensor_type.elem_type not in plain}
    if all(
        node.op_type in _OF_FLOATS and len(node.output) == 1 and node.input[0] not in others
        for node in model.graph.node
    ):
        return set()  # inference takes 4 ms and more, and would find nothing
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {value.name for value in values if value.type.tensor_type.elem_type not in plain}


def write_qdq(model: onnx.ModelProto, spec: QuantSpec) -> onnx.ModelProto:
    """A copy of the float graph `model` with the tensors of `spec` quantised explicitly.

    Initialisers become integers behind a DequantizeLinear; every other tensor gets a QuantizeLinear /
    DequantizeLinear pair that all its readers share; biases of Conv and Gemm whose data and weight are both in the
    spec become int32 at scale(data) * scale(weight). Raises CompressionError on a tensor the graph does not have,
    on a scale count that does not fit its axis, and on a bias that does not fit int32 at that scale.
    """
    written = integer_form(model)
    write_qdq_into(written, spec)
    return written


def write_qdq_into(model: onnx.ModelProto, spec: QuantSpec) -> None:
    """As `write_qdq`, in a graph in integer form itself."""
    from automc.techniques._qdq_writer import QdqWriter

    QdqWriter(model, spec).run()


def integer_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which a mean over both axes of a picture is a GlobalAveragePool, which has an integer kernel.

    Same values, same names for what was there; `targets`, calibration and `write_qdq` all read this form.
    """
    import onnx
    from onnx import helper, numpy_helper

    formed = onnx.ModelProto()
    formed.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in formed.graph.initializer}
    means = {
        node.output[0]: node
        for node in formed.graph.node
        if node.op_type == "ReduceMean" and len(node.input) > 1 and node.input[1] in constants
    }
    if not means:
        return formed
    ranks = _ranks(formed.graph)
    if any(node.input[0] not in ranks for node in means.values()):
        inferred = onnx.shape_inference.infer_shapes(formed).graph
        ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*inferred.value_info, *inferred.input)}
    nodes: list[onnx.NodeProto] = []
    for node in formed.graph.node:
        if node.output[0] not in means:
            nodes.append(node)
            continue
        axes = {int(axis) % 4 for axis in numpy_helper.to_array(constants[node.input[1]])}
        if ranks.get(node.input[0]) != 4 or axes != {2, 3}:
            nodes.append(node)
            continue
        if next((item.i for item in node.attribute if item.name == "keepdims"), 1):
            nodes.append(helper.make_node("GlobalAveragePool", node.input[:1], node.output, name=node.name))
            continue
        pooled = f"{node.output[0]}.pooled"
        nodes.append(helper.make_node("GlobalAveragePool", node.input[:1], [pooled], name=node.name))
        nodes.append(helper.make_node("Flatten", [pooled], node.output, name=f"{node.name}.flatten", axis=1))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    formed.graph.ClearField("node")
    formed.graph.node.extend(copies)
    return formed


_KEEPS_RANK = frozenset({
    "Conv", "Relu", "Clip", "Sigmoid", "MaxPool", "AveragePool", "GlobalAveragePool", "BatchNormalization", "Pad",
    "Slice",
})  # fmt: skip


def _ranks(graph: onnx.GraphProto) -> dict[str, int]:
    """Ranks of tensors as far as plain operators tell them; inference takes a hundred times as long."""
    shaped = [value for value in graph.input if value.type.tensor_type.HasField("shape")]
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in shaped}
    ranks |= {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in _KEEPS_RANK and node.input[0] in ranks:
            ranks[node.output[0]] = ranks[node.input[0]]
        elif node.op_type in ("Add", "Mul", "Sub", "Div") and all(name in ranks for name in node.input):
            ranks[node.output[0]] = max(ranks[name] for name in node.input)
    return ranks


def read_spec(model: onnx.ModelProto) -> QuantSpec:
    """The QuantSpec a graph written by `write_qdq` carries, int32 biases left out; empty for a float graph."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, QuantiseEdit] = {}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        weight = node.op_type == "DequantizeLinear" and node.input[0] in constants
        if node.op_type == "DequantizeLinear" and not weight:
            continue
        scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        if constants[node.input[2]].data_type == TensorProto.INT32:
            continue
        axis = next((helper.get_attribute_value(item) for item in node.attribute if item.name == "axis"), None)
        name = node.input[1].removesuffix(".scale")
        found[name] = QuantiseEdit(
            tensor=name,
            dtype=_type_name(constants[node.input[2]].data_type),
            scale=tuple(float(value) for value in scale.reshape(-1)),
            zero_point=tuple(int(value) for value in zero.reshape(-1)),
            axis=axis if scale.ndim else None,
        )
    return QuantSpec(tuple(found.values()))


def quantise(values: np.ndarray, edit: QuantiseEdit) -> np.ndarray:
    """Integers of `values` under `edit`, rounded half to even and saturated, in int8 or uint8 (4-bit ones too)."""
    low, high = RANGES[edit.dtype]
    scale, zero = _along(edit, values.ndim)
    whole = np.rint(values.astype(np.float64) / scale) + zero
    integers: np.ndarray = np.clip(whole, low, high).astype(np.uint8 if low == 0 else np.int8)
    return integers


def dequantise(integers: np.ndarray, edit: QuantiseEdit) -> np.ndarray:
    """Real values (float32) that `integers` stand for under `edit`."""
    scale, zero = _along(edit, integers.ndim)
    real: np.ndarray = ((integers.astype(np.int64) - zero) * scale).astype(np.float32)
    return real


def _along(edit: QuantiseEdit, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale (as float32 holds it) and zero point, shaped to broadcast over a tensor of `rank` axes."""
    shape = [1] * rank
    if edit.axis is not None:
        shape[edit.axis] = len(edit.scale)
    scale = np.asarray(edit.scale, np.float32).astype(np.float64)
    return scale.reshape(shape), np.asarray(edit.zero_point, np.int64).reshape(shape)


def _type_name(data_type: int) -> IntegerType:
    from onnx import TensorProto

    names: dict[int, IntegerType] = {
        TensorProto.UINT8: "uint8", TensorProto.INT8: "int8", TensorProto.UINT4: "uint4", TensorProto.INT4: "int4",
    }  # fmt: skip
    return names[data_type]


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for value in node.input:
            readers.setdefault(value, []).append(node)
    return readers


def pads_values(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    """Whether the node is a Pad with anything but zeros."""
    from onnx import numpy_helper

    if node.op_type != "Pad":
        return False
    if any(item.name == "mode" and item.s != b"constant" for item in node.attribute):
        return True
    if len(node.input) < 3 or not node.input[2]:
        return False
    value = next((tensor for tensor in graph.initializer if tensor.name == node.input[2]), None)
    return value is None or bool(numpy_helper.to_array(value).any())


def _why_float(node: onnx.NodeProto, constants: set[str]) -> str | None:
    """Why the operands are not what the integer kernel takes (activations, constants only as weights); else None."""
    if node.input[0] in constants:
        return f"{node.op_type} of constant data stays in float"
    if node.op_type in WEIGHTED_OPS:
        plain: dict[str, float] = {
            item.name: (item.f if item.name in ("alpha", "beta") else item.i) for item in node.attribute
        }
        if plain.get("alpha", 1.0) == 1.0 and plain.get("beta", 1.0) == 1.0 and plain.get("transA", 0) == 0:
            return None
        return f"{node.op_type} that scales or transposes its data has no integer kernel here"
    if all(value not in constants for value in node.input):
        return None
    return f"{node.op_type} with a constant stays in float"


def _masks(node: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]], outputs: set[str]) -> str | None:
    """Why a sum that only a Softmax reads stays in float: what it adds hides positions, from far below any scale."""
    following = readers.get(node.output[0], [])
    if node.op_type != "Add" or not following or node.output[0] in outputs:
        return None
    masks = all(reader.op_type == "Softmax" for reader in following)
    return "Add of a mask before a Softmax stays in float: its range has no use for 8 bits" if masks else None


def _channel_axis(node: onnx.NodeProto) -> int:
    """Axis of a weight that counts the outputs: Conv (out, in, ...), Gemm (in, out) or transposed, MatMul (in, out)."""
    if node.op_type == "Conv":
        return 0
    transposed = any(item.name == "transB" and item.i for item in node.attribute)
    return 0 if transposed else 1


def weight_edit(
    values: np.ndarray, tensor: str, axis: int | None, dtype: Literal["uint8", "int8"], *, reduce_range: bool = False
) -> QuantiseEdit:
    """Symmetric quantisation of a weight over its largest magnitude (per channel of `axis`, or per tensor).

    reduce_range: 7 instead of 8 bits, for processors whose 8-bit products saturate at 16 bits when added in pairs.
    A channel of zeros gets scale 1 / top, which represents it exactly.
    """
    top = 63 if reduce_range else 127
    others = tuple(index for index in range(values.ndim) if index != axis)
    largest = np.abs(values.astype(np.float64)).max(axis=others if axis is not None else None)
    scale = np.where(largest > 0, largest, 1.0).reshape(-1) / top
    zero = 128 if dtype == "uint8" else 0
    return QuantiseEdit(
        tensor=tensor,
        dtype=dtype,
        scale=tuple(float(value) for value in scale),
        zero_point=(zero,) * len(scale),
        axis=axis,
    )


def activation_edit(low: float, high: float, tensor: str, dtype: Literal["uint8", "int8"]) -> QuantiseEdit:
    """Asymmetric quantisation of the range [low, high] widened to hold 0, which is represented exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    bottom, top = RANGES[dtype]
    scale = (high - low) / (top - bottom) or 1.0
    zero = int(np.clip(round(bottom - low / scale), bottom, top))
    return QuantiseEdit(tensor=tensor, dtype=dtype, scale=(scale,), zero_point=(zero,))


def room_for_bias(weight: QuantiseEdit, data: QuantiseEdit, bias: np.ndarray) -> QuantiseEdit:
    """`weight` with scales raised where its int32 bias, at scale(data) * scale(weight), would not fit 31 bits.

    Happens for channels whose weights are almost or exactly zero; their weights then lose resolution they do not need.
    """
    needed = np.abs(bias.astype(np.float64)) / (data.scale[0] * 2.0**30)
    if weight.axis is None:
        needed = needed.max(initial=0.0, keepdims=True)
    scale = np.maximum(weight.scale, needed)
    return weight.model_copy(update={"scale": tuple(float(value) for value in scale)})
