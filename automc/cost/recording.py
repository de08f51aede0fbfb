"""A recorded trace: operators, shapes, and an ONNX graph of them with weights of the right shape and made-up values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from automc.cost.shapes import Node

if TYPE_CHECKING:
    import onnx

OPSET = 20
IR_VERSION = 10
ZEROS = "zeros_"
"""Beginning of the name of a weight of zeros, as the exporter gives a convolution without a bias."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Recording:
    """nodes: in the order they ran. inputs, outputs: name to (ONNX element type, shape).

    weights: name to (position among all that were recorded, shape, element type); values are made up.
    literals: initialisers whose values count. shapes: of every activation that a torch tensor stood for, by name.
    """

    nodes: tuple[Node, ...]
    inputs: Mapping[str, tuple[int, Shape]]
    outputs: Mapping[str, tuple[int, Shape]]
    weights: Mapping[str, tuple[int, Shape, int]]
    literals: tuple[onnx.TensorProto, ...]
    shapes: Mapping[str, Shape]

    def model(self) -> onnx.ModelProto:
        """The op-level graph."""
        from onnx import helper

        given = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in self.inputs.items()]
        made = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in self.outputs.items()]
        weights = [_made_up(name, shape, dtype, index) for name, (index, shape, dtype) in self.weights.items()]
        graph = helper.make_graph(
            [_proto(node) for node in self.nodes], "trace", given, made, [*weights, *self.literals]
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _proto(node: Node) -> onnx.NodeProto:
    from onnx import AttributeProto, NodeProto

    proto = NodeProto(op_type=node.op, input=node.inputs, output=node.outputs, name=node.name)
    for name, value in node.attributes.items():
        item = proto.attribute.add(name=name)
        if isinstance(value, int):
            item.type, item.i = AttributeProto.INT, value
        elif isinstance(value, float):
            item.type, item.f = AttributeProto.FLOAT, value
        elif isinstance(value, str):
            item.type, item.s = AttributeProto.STRING, value.encode()
        else:
            item.type = AttributeProto.INTS
            item.ints.extend(int(part) for part in value)
    return proto


def _made_up(name: str, shape: tuple[int, ...], dtype: int, index: int) -> onnx.TensorProto:
    """Distinct values per initialiser: equal ones would be merged, zeros and ones optimised away.

    Biases that an export fills with zeros are zeros here as well: the runtime merges them where they are small.
    """
    import numpy as np
    import onnx
    from onnx import helper

    kind = helper.tensor_dtype_to_np_dtype(dtype)
    value = 0.25 + index / 1024 if np.issubdtype(kind, np.floating) else 1 + index % 100
    if name.startswith(ZEROS):
        value = 0
    proto = onnx.TensorProto(name=name, data_type=dtype, dims=shape)
    proto.raw_data = np.full(shape, value, dtype=kind).tobytes()
    return proto
