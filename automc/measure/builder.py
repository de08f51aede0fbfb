"""ONNX graphs written directly with onnx.helper, in fp32 or as explicit QDQ int8, for calibration.

The int8 form is the one automc exports: uint8 activations with scale and zero point, int8 weights per output
channel with integer initialisers, int32 biases, a Q-DQ pair after every quantised operator. Weights are random:
the time of a dense kernel does not depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 9
TOP = 7.65  # of a quantised range: about +-4 when signed

THIN = 4
"""Channels at the ends of a model that is `inside`: the fewest that the integer kernels take whole."""

Scheme = Literal["fp32", "u8s8", "s8s8"]
Attribute = int | float | list[int]

# Operators that stay in float between DQ and Q in the int8 form (ONNX Runtime has no integer kernel that pays).
FLOAT_ONLY = frozenset({"HardSwish", "Erf", "Gelu", "LayerNormalization", "Sqrt", "Tanh", "Clip", "Elu", "Exp"})


@dataclass(frozen=True)
class Value:
    """A tensor in the graph under construction; in the int8 form what its DequantizeLinear, of step `scale`, gives."""

    name: str
    shape: tuple[int, ...]
    scale: float = 1.0


class GraphBuilder:
    """Adds operators and tracks shapes; `finish` returns the serialised model.

    scheme: "fp32", or activations-weights types "u8s8" / "s8s8".
    quantise_elementwise: whether everything but convolutions, gemms and matmuls is quantised too. batch: samples of
    every input, which is given for one.
    """

    inside = False
    """Whether pictures (`picture`) come from a thin convolution, as they would within a network, not from outside."""

    def __init__(
        self, scheme: Scheme, generator: np.random.Generator, *, quantise_elementwise: bool = True, batch: int = 1
    ) -> None:
        self.scheme = scheme
        self.batch = batch
        self.generator = generator
        self.quantise_elementwise = quantise_elementwise
        self._nodes: list[onnx.NodeProto] = []
        self._initialisers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    # -- graph edges ---------------------------------------------------------------------------------------------

    def input(self, shape: Sequence[int], *, plain: bool = False) -> Value:
        """plain: stays in float whatever the scheme, and so does what reads it."""
        name = self._name("input")
        shape = (shape[0] * self.batch, *shape[1:])
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        given = Value(name, shape)
        return given if plain else self._requantise(given, signed=True)

    def picture(self, channels: int, height: int, width: int) -> Value:
        """(batch, channels, height, width): an input; where `inside`, made of one of THIN channels by a convolution."""
        if not self.inside or channels <= THIN:
            return self.input((1, channels, height, width))
        return self.conv(self.input((1, THIN, height, width)), channels, 1, act=None)

    def leave(self, x: Value) -> Value:
        """What a model puts out instead of `x`: where `inside`, a convolution of THIN channels of a wider picture."""
        return self.conv(x, THIN, 1, act=None) if self.inside and len(x.shape) == 4 and x.shape[1] > THIN else x

    def lookup(self, tokens: int, rows: int, width: int) -> Value:
        """(batch, tokens, width): an embedding of `rows` entries, read at integer inputs."""
        name = self._name("tokens")
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, [self.batch, tokens]))
        table = self._constant(self.generator.standard_normal((rows, width)).astype(np.float32))
        return self._after(Value(self._node("Gather", [table, name]), (self.batch, tokens, width)), signed=True)

    def finish(self, *outputs: Value) -> bytes:
        """The serialised model whose outputs are `outputs`."""
        infos = [helper.make_tensor_value_info(value.name, TensorProto.FLOAT, list(value.shape)) for value in outputs]
        graph = helper.make_graph(self._nodes, "calibration", self._inputs, infos, self._initialisers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        data: bytes = model.SerializeToString()
        return data

    # -- operators with weights ----------------------------------------------------------------------------------

    def conv(
        self,
        x: Value,
        channels: int,
        kernel: int | tuple[int, ...] = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        act: str | None = "Relu",
        add: Value | None = None,
    ) -> Value:
        """Convolution with bias, "same" padding; then an optional addition and activation (which may be fused).

        x: (batch, depth, height, width), or (batch, depth, length) of a signal.
        """
        batch, depth, *extents = x.shape
        window = [kernel] * len(extents) if isinstance(kernel, int) else list(kernel)
        name = self._name("conv")
        weights = self._weights(name, (channels, depth // groups, *window), depth // groups * prod(window), x.scale)
        pads = [k // 2 for k in window] * 2
        self._node(
            "Conv",
            [x.name, *weights],
            {"kernel_shape": window, "pads": pads, "strides": [stride] * len(window), "group": groups},
            output=name,
        )
        size = [(extent + 2 * (k // 2) - k) // stride + 1 for extent, k in zip(extents, window, strict=True)]
        y = Value(name, (batch, channels, *size))
        if add is not None:
            y = self._requantise(y, signed=True)
            y = Value(self._node("Add", [y.name, add.name]), y.shape)
        return self._activate(y, act)

    def gemm(self, x: Value, features: int, *, act: str | None = None) -> Value:
        """Linear layer on (batch, features_in)."""
        name = self._name("gemm")
        weights = self._weights(name, (features, x.shape[1]), x.shape[1], x.scale)
        self._node("Gemm", [x.name, *weights], {"transB": 1}, output=name)
        return self._activate(Value(name, (x.shape[0], features)), act)

    def linear(self, x: Value, features: int, *, act: str | None = None) -> Value:
        """Linear layer on (..., features_in) as exporters write it: MatMul with a constant, then Add of a bias."""
        name = self._name("matmul")
        (weight, _) = self._weights(name, (features, x.shape[-1]), x.shape[-1], x.scale, transposed=True)
        self._node("MatMul", [x.name, weight], output=name)
        bias = self._constant(np.zeros(features, np.float32))
        y = self._after(Value(name, (*x.shape[:-1], features)), signed=True)
        y = Value(self._node("Add", [y.name, bias]), y.shape)
        return self._activate(y, act)

    # -- operators without weights -------------------------------------------------------------------------------

    def matmul(self, a: Value, b: Value) -> Value:
        name = self._node("MatMul", [a.name, b.name])
        return self._requantise(Value(name, (*a.shape[:-1], b.shape[-1])), signed=True)

    def binary(self, op: str, a: Value, b: Value, *, act: str | None = None) -> Value:
        """Element-wise with broadcasting."""
        shape = tuple(np.broadcast_shapes(a.shape, b.shape))
        return self._activate(Value(self._node(op, [a.name, b.name]), shape), act, elementwise=True)

    def constant_binary(self, op: str, a: Value, shape: Sequence[int] = (1,)) -> Value:
        """Element-wise with a constant of `shape`."""
        constant = self._constant(np.full(tuple(shape), 0.7, np.float32))
        return self._activate(Value(self._node(op, [a.name, constant]), a.shape), None, elementwise=True)

    def unary(self, op: str, x: Value, **attributes: int | float) -> Value:
        inputs = [x.name]
        if op == "Clip":
            inputs += [self._constant(np.float32(0)), self._constant(np.float32(6))]
        name = self._node(op, inputs, attributes)
        return self._after(Value(name, x.shape), signed=op not in ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Clip"))

    def layer_norm(self, x: Value) -> Value:
        size = x.shape[-1]
        scale, bias = self._constant(np.ones(size, np.float32)), self._constant(np.zeros(size, np.float32))
        name = self._node("LayerNormalization", [x.name, scale, bias], {"axis": -1})
        return self._after(Value(name, x.shape), signed=True)

    def pool(self, x: Value, op: str = "MaxPool", kernel: int = 2, stride: int = 2) -> Value:
        batch, depth, height, width = x.shape
        pad = kernel // 2 if kernel % 2 else 0
        attributes: dict[str, Attribute] = {
            "kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4,
        }  # fmt: skip
        name = self._node(op, [x.name], attributes)
        size = [(extent + 2 * pad - kernel) // stride + 1 for extent in (height, width)]
        return self._after(Value(name, (batch, depth, *size)), signed=False)

    def global_pool(self, x: Value) -> Value:
        return self._after(Value(self._node("GlobalAveragePool", [x.name]), (*x.shape[:2], 1, 1)), signed=False)

    def reduce_mean(self, x: Value, axes: Sequence[int], *, keep: bool = False) -> Value:
        name = self._node("ReduceMean", [x.name], {"axes": list(axes), "keepdims": int(keep)})
        drop = {axis % len(x.shape) for axis in axes}
        shape = tuple(1 if i in drop else size for i, size in enumerate(x.shape) if keep or i not in drop)
        return self._after(Value(name, shape), signed=True)

    def concat(self, values: Sequence[Value], axis: int = 1) -> Value:
        shape = list(values[0].shape)
        shape[axis] = sum(value.shape[axis] for value in values)
        return self._after(
            Value(self._node("Concat", [v.name for v in values], {"axis": axis}), tuple(shape)), signed=True
        )

    def split(self, x: Value, parts: int, axis: int = 1) -> list[Value]:
        names = [self._name("split") for _ in range(parts)]
        size = x.shape[axis] // parts
        sizes = self._constant(np.full(parts, size, np.int64))
        self._nodes.append(helper.make_node("Split", [x.name, sizes], names, axis=axis))
        shape = tuple(size if i == axis % len(x.shape) else extent for i, extent in enumerate(x.shape))
        return [self._after(Value(name, shape), signed=True) for name in names]

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        target = self._constant(np.array(shape, np.int64))
        return self._after(Value(self._node("Reshape", [x.name, target]), tuple(shape)), signed=True)

    def unsqueeze(self, x: Value, axis: int) -> Value:
        shape = (*x.shape[:axis], 1, *x.shape[axis:])
        name = self._node("Unsqueeze", [x.name, self._constant(np.array([axis], np.int64))])
        return self._after(Value(name, shape), signed=True)

    def squeeze(self, x: Value, axis: int) -> Value:
        name = self._node("Squeeze", [x.name, self._constant(np.array([axis], np.int64))])
        return self._after(Value(name, (*x.shape[:axis], *x.shape[axis + 1 :])), signed=True)

    def transpose(self, x: Value, order: Sequence[int]) -> Value:
        name = self._node("Transpose", [x.name], {"perm": list(order)})
        return self._after(Value(name, tuple(x.shape[axis] for axis in order)), signed=True)

    def flatten(self, x: Value) -> Value:
        return self._after(Value(self._node("Flatten", [x.name]), (x.shape[0], int(np.prod(x.shape[1:])))), signed=True)

    def pad(self, x: Value, amount: int = 1) -> Value:
        """Zeros around the picture."""
        shape = (*x.shape[:2], x.shape[2] + 2 * amount, x.shape[3] + 2 * amount)
        return self._pad(x, [0, 0, amount, amount] * 2, shape)

    def pad_channels(self, x: Value, amount: int) -> Value:
        """Zeros behind the channels."""
        return self._pad(x, [0] * 5 + [amount, 0, 0], (x.shape[0], x.shape[1] + amount, *x.shape[2:]))

    def _pad(self, x: Value, amounts: list[int], shape: tuple[int, ...]) -> Value:
        pads = self._constant(np.array(amounts, np.int64))
        if not (self._quantised and self.quantise_elementwise):
            return self._after(Value(self._node("Pad", [x.name, pads]), shape), signed=True)
        # on the integers themselves, as the quantiser writes it: the runtime would not move it there
        scale, point = self._grid(signed=True)
        quantised = self._node("QuantizeLinear", [x.name, scale, point])
        padded = self._node("Pad", [quantised, pads, point])
        return Value(self._node("DequantizeLinear", [padded, scale, point]), shape, TOP / 255)

    def slice(self, x: Value, axis: int, stop: int, *, step: int = 1) -> Value:
        inputs = [x.name] + [self._constant(np.array([value], np.int64)) for value in (0, stop, axis, step)]
        shape = tuple(-(-stop // step) if i == axis else extent for i, extent in enumerate(x.shape))
        return self._after(Value(self._node("Slice", inputs), shape), signed=True)

    def resize(self, x: Value, factor: int = 2) -> Value:
        scales = self._constant(np.array([1, 1, factor, factor], np.float32))
        name = self._name("resize")
        node = helper.make_node(
            "Resize", [x.name, "", scales], [name], mode="nearest", nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )  # fmt: skip
        self._nodes.append(node)
        return self._after(Value(name, (*x.shape[:2], x.shape[2] * factor, x.shape[3] * factor)), signed=True)

    # -- quantisation --------------------------------------------------------------------------------------------

    @property
    def _quantised(self) -> bool:
        return self.scheme != "fp32"

    def _after(self, x: Value, *, signed: bool) -> Value:
        return self._requantise(x, signed=signed) if self.quantise_elementwise else x

    def _activate(self, x: Value, act: str | None, *, elementwise: bool = False) -> Value:
        if act in FLOAT_ONLY and act != "Clip":
            x = self._requantise(x, signed=True) if not elementwise or self.quantise_elementwise else x
        if act == "SiLU":
            x = self._requantise(x, signed=True)
            gate = self.unary("Sigmoid", x)
            return self.binary("Mul", x, gate)
        if act == "Clip" and self._quantised:
            pass  # the quantised range ends at 6 and needs no operator for it, as quantisers write it
        elif act == "Clip":
            bounds = [self._constant(np.float32(0)), self._constant(np.float32(6))]
            x = Value(self._node("Clip", [x.name, *bounds]), x.shape)
        elif act is not None:
            x = Value(self._node(act, [x.name]), x.shape)
        if elementwise and not self.quantise_elementwise:
            return x
        # a rectifier at 6 disappears only where the quantised range ends there too
        return self._requantise(x, signed=act not in ("Relu", "Clip", "Sigmoid"), top=5.999 if act == "Clip" else TOP)

    def _requantise(self, x: Value, *, signed: bool, top: float = TOP) -> Value:
        """Insert Q-DQ after `x`; the range of `top` (about +-4 when signed) fits unit-variance activations."""
        if not self._quantised:
            return x
        scale, point = self._grid(signed=signed, top=top)
        quantised = self._node("QuantizeLinear", [x.name, scale, point])
        return Value(self._node("DequantizeLinear", [quantised, scale, point]), x.shape, top / 255)

    def _grid(self, *, signed: bool, top: float = TOP) -> tuple[str, str]:
        """Names of scale and zero point of a range of `top`."""
        unsigned = self.scheme == "u8s8"
        low = 0 if unsigned else -128
        zero = low + 128 if signed else low
        point = self._constant(np.array(zero, np.uint8 if unsigned else np.int8))
        return self._constant(np.float32(top / 255)), point

    def _weights(
        self, name: str, shape: tuple[int, ...], fan_in: int, input_scale: float, *, transposed: bool = False
    ) -> tuple[str, str]:
        """Names of weight and bias: floats, or DequantizeLinear outputs of integer initialisers.

        The step of the bias is that of the weights times that of the input: any other, and the runtime keeps floats.
        """
        channels = shape[0]
        if not self._quantised:
            floats = self.generator.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(fan_in))
            return self._constant(floats.T.copy() if transposed else floats), self._constant(
                np.zeros(channels, np.float32)
            )
        integers = self.generator.integers(-127, 128, size=shape, dtype=np.int8)
        integers = integers.T.copy() if transposed else integers
        axis = 1 if transposed else 0
        step = np.full(channels, 1 / (73 * np.sqrt(fan_in)), np.float32)  # 73: deviation of uniform int8
        weight = self._dequantised(integers, step, np.zeros(channels, np.int8), axis)
        zeros = np.zeros(channels, np.int32)
        bias = self._dequantised(zeros, step * np.float32(input_scale), zeros, 0)
        return weight, bias

    def _dequantised(self, integers: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int) -> str:
        inputs = [self._constant(integers), self._constant(scale), self._constant(zero)]
        return self._node("DequantizeLinear", inputs, {"axis": axis})

    # -- plumbing ------------------------------------------------------------------------------------------------

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    def _constant(self, value: np.ndarray | np.generic) -> str:
        name = self._name("constant")
        self._initialisers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(
        self, op: str, inputs: Sequence[str], attributes: Mapping[str, Attribute] | None = None, *, output: str = ""
    ) -> str:
        name = output or self._name(op.lower())
        node = helper.make_node(op, list(inputs), [name], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in (attributes or {}).items())
        self._nodes.append(node)
        return name
