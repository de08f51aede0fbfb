"""Exact merges of float ONNX operators that the runtime leaves apart: products of products, folded norms, doubles."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

_IDEMPOTENT = frozenset({"Relu", "Identity"})


def merged(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the float graph with every merge applied until none is left.

    A pair of products is merged only if the first one's result has no other reader and the merged product needs no
    more multiplications than the two: a low-rank pair stays a pair.
    """
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = _Graph(result.graph)
    while any(rule(graph) for rule in _RULES):
        graph.refresh()
    return result


class _Graph:
    """A graph with its producers, readers and constants at hand; `refresh` after every change."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.refresh()

    def refresh(self) -> None:
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.outputs = {value.name for value in self.graph.output}
        self.producer = {output: node for node in self.graph.node for output in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for value in node.input:
                self.readers.setdefault(value, []).append(node)

    def before(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The producer of the node's data, if the node alone reads it."""
        value = node.input[0]
        if value in self.outputs or len(self.readers[value]) != 1:
            return None
        return self.producer.get(value)

    def array(self, node: onnx.NodeProto, slot: int) -> np.ndarray | None:
        """The constant at an input slot as float64, or None where it is absent or computed."""
        from onnx import numpy_helper

        if slot >= len(node.input) or node.input[slot] not in self.constants:
            return None
        values: np.ndarray = numpy_helper.to_array(self.constants[node.input[slot]]).astype(np.float64)
        return values

    def computed(self, node: onnx.NodeProto, slot: int) -> bool:
        return slot < len(node.input) and bool(node.input[slot]) and node.input[slot] not in self.constants

    def replace(
        self, first: onnx.NodeProto, second: onnx.NodeProto, weight: np.ndarray, bias: np.ndarray | None, **ints: object
    ) -> None:
        """`second` takes the place of both, under the name of the first, with new constants and attributes."""
        from onnx import helper, numpy_helper

        inputs = [first.input[0]]
        for label, values in (("weight", weight), ("bias", bias)):
            if values is not None:
                name = f"{first.name}.{label}.merged.{len(self.graph.initializer)}"
                self.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
                inputs.append(name)
        second.input[:] = inputs
        second.name = first.name
        kept = [item for item in second.attribute if item.name not in ints]
        del second.attribute[:]
        second.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in ints.items())])
        # The merged node must come no earlier than its inputs: it takes the place of the second, which does.
        self.graph.node.remove(first)


def _ints(node: onnx.NodeProto, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return next((tuple(item.ints) for item in node.attribute if item.name == name), default)


def _int(node: onnx.NodeProto, name: str, default: int = 0) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def _plain_conv(node: onnx.NodeProto) -> bool:
    auto = next((item.s.decode() for item in node.attribute if item.name == "auto_pad"), "NOTSET")
    return (
        node.op_type == "Conv" and node.domain in ("", "ai.onnx") and _int(node, "group", 1) == 1 and auto == "NOTSET"
    )


def _convolutions(graph: _Graph) -> bool:
    """Conv then pointwise Conv, or pointwise Conv then Conv, becomes one Conv."""
    for second in graph.graph.node:
        first = graph.before(second) if _plain_conv(second) else None
        if first is None or not _plain_conv(first):
            continue
        if graph.computed(first, 2) or graph.computed(second, 2):
            continue
        a, b = graph.array(first, 1), graph.array(second, 1)
        if a is None or b is None:
            continue
        bias_a, bias_b = graph.array(first, 2), graph.array(second, 2)
        rank = a.ndim - 2
        kernel_a, kernel_b = a.shape[2:], b.shape[2:]
        stride_a, stride_b = _ints(first, "strides", (1,) * rank), _ints(second, "strides", (1,) * rank)
        padded_a, padded_b = any(_ints(first, "pads", ())), any(_ints(second, "pads", ()))
        taps_a, taps_b = int(np.prod(kernel_a)), int(np.prod(kernel_b))
        sharing = int(np.prod(stride_b))  # outputs of the first per output of the second
        work = sharing * a.shape[0] * a.shape[1] * taps_a + b.shape[0] * b.shape[1] * taps_b
        if taps_b == 1 and not padded_b:
            # (floor(n / s1)) / s2 rounded down is floor(n / (s1 s2)): the output keeps its size
            if b.shape[0] * a.shape[1] * taps_a > work:
                continue
            weight = np.tensordot(b.reshape(b.shape[:2]), a, axes=1)
            bias = _sum_bias(b.reshape(b.shape[:2]), bias_a, bias_b)
            strides = [x * y for x, y in zip(stride_a, stride_b, strict=True)]
            attributes = {
                name: list(_ints(first, name, ())) for name in ("pads", "dilations") if _ints(first, name, ())
            }
            graph.replace(first, second, weight, bias, strides=strides, kernel_shape=list(kernel_a), **attributes)
            return True
        if taps_a == 1 and not padded_a and set(stride_a) == {1}:
            # the second pads with zeros where the first would have written its bias
            if padded_b and bias_a is not None and bias_a.any():
                continue
            if b.shape[0] * a.shape[1] * taps_b > work:
                continue
            weight = np.einsum("om...,mi->oi...", b, a.reshape(a.shape[:2]))
            bias = _sum_bias(b.reshape(*b.shape[:2], -1).sum(2), bias_a, bias_b)
            graph.replace(first, second, weight, bias)
            return True
    return False


def _sum_bias(weight: np.ndarray, first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    if first is None:
        return second
    total: np.ndarray = weight @ first + (0.0 if second is None else second)
    return total


def _gemm_parts(graph: _Graph, node: onnx.NodeProto) -> tuple[np.ndarray, np.ndarray | None] | None:
    """(in, out) weight and (out,) bias of a Gemm or MatMul that is a linear layer, else None."""
    weight = graph.array(node, 1)
    if weight is None or weight.ndim != 2 or graph.computed(node, 2):
        return None
    if node.op_type == "MatMul":
        return weight, None
    scales = {item.name: item.f for item in node.attribute if item.name in ("alpha", "beta")}
    if node.op_type != "Gemm" or _int(node, "transA") or set(scales.values()) - {1.0}:
        return None
    bias = graph.array(node, 2)
    transposed = weight.T if _int(node, "transB") else weight
    return transposed, None if bias is None else np.broadcast_to(bias.reshape(-1), transposed.shape[1:])


def _linears(graph: _Graph) -> bool:
    """Gemm then Gemm becomes one Gemm; MatMul then MatMul one MatMul."""
    for second in graph.graph.node:
        if second.op_type not in ("Gemm", "MatMul"):
            continue
        first = graph.before(second)
        if first is None or first.op_type != second.op_type:
            continue
        one, two = _gemm_parts(graph, first), _gemm_parts(graph, second)
        if one is None or two is None:
            continue
        (a, bias_a), (b, bias_b) = one, two
        if a.shape[0] * b.shape[1] > a.size + b.size:
            continue
        bias = _sum_bias(b.T, bias_a, bias_b)
        if second.op_type == "Gemm":
            graph.replace(first, second, (a @ b).T, bias, transB=1)
        else:
            graph.replace(first, second, a @ b, None)
        return True
    return False


def _norms(graph: _Graph) -> bool:
    """BatchNorm after a linear layer folds into it (after a convolution the BASIC optimiser has done it)."""
    for norm in graph.graph.node:
        first = graph.before(norm) if norm.op_type == "BatchNormalization" and len(norm.output) == 1 else None
        if first is None or first.op_type != "Gemm":
            continue
        parts = _gemm_parts(graph, first)
        scale, shift, mean, variance = (graph.array(norm, slot) for slot in (1, 2, 3, 4))
        if parts is None or scale is None or shift is None or mean is None or variance is None:
            continue
        weight, bias = parts
        epsilon = next((item.f for item in norm.attribute if item.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        norm.op_type = "Gemm"
        del norm.attribute[:]
        graph.replace(
            first, norm, (weight * factor).T, shift + factor * ((0.0 if bias is None else bias) - mean), transB=1
        )
        return True
    return False


def _doubles(graph: _Graph) -> bool:
    """Relu of Relu is Relu, and an Identity between two operators is nothing."""
    for node in graph.graph.node:
        if node.op_type not in _IDEMPOTENT or (node.op_type == "Identity" and node.output[0] in graph.outputs):
            continue
        source = graph.producer.get(node.input[0])
        if node.op_type != "Identity" and (source is None or source.op_type != node.op_type):
            continue
        if node.output[0] in graph.outputs and source is not None:
            node.input[0] = source.input[0]
        else:
            for reader in graph.readers.get(node.output[0], []):
                reader.input[:] = [node.input[0] if value == node.output[0] else value for value in reader.input]
            graph.graph.node.remove(node)
        return True
    return False


_RULES: tuple[Callable[[_Graph], bool], ...] = (_convolutions, _linears, _norms, _doubles)
