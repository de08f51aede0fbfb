"""A traced graph as `int8_ptq` would leave it: the same tensors quantised by the same writer, with made-up ranges.

Which tensors are quantised is one rule, `automc.techniques.quantspec.targets`, and one writer puts the pairs into the
graph; only the numbers are missing here, and no kernel depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from automc.profiles import Int8Facts
from automc.techniques.plan import QuantiseEdit
from automc.techniques.quantspec import QuantSpec, activation_edit, targets, write_qdq

if TYPE_CHECKING:
    import onnx

_NOT_NEGATIVE: Mapping[str, float] = {"Relu": 4.0, "Clip": 6.0, "Sigmoid": 1.0, "HardSigmoid": 1.0, "Softmax": 1.0}
"""Operators whose result starts at 0, with an upper end it may have: a Relu in front of such a range folds into it."""


def quantised(model: onnx.ModelProto, scheme: Int8Facts | None = None) -> onnx.ModelProto:
    """A float op-level graph, in the form of an export, with QuantizeLinear / DequantizeLinear pairs, integer weights.

    scheme: types and granularity, as a profile found them fast; by default uint8 activations, int8 per channel.
    """
    chosen = scheme or Int8Facts()
    found = targets(model)
    producer = {name: node.op_type for node in model.graph.node for name in node.output}
    dims = {item.name: tuple(item.dims) for item in model.graph.initializer}
    edits: dict[str, QuantiseEdit] = {}
    for index, tensor in enumerate(found.activations):
        high = _NOT_NEGATIVE.get(producer.get(tensor, ""))
        stretch = 1.0 - index / 4096  # no two tensors share a scale by chance, so none here do
        low, high = (0.0, high * stretch) if high is not None else (-stretch, stretch)
        edits[tensor] = activation_edit(low, high, tensor, chosen.activation_type)
    for tensor, leader in found.followers.items():
        edits[tensor] = edits[leader].model_copy(update={"tensor": tensor})
    zero = 128 if chosen.weight_type == "uint8" else 0
    for tensor, axis, _ in found.weights:
        count = dims[tensor][axis] if chosen.per_channel else 1
        edits[tensor] = QuantiseEdit(
            tensor=tensor, dtype=chosen.weight_type, scale=(0.01,) * count, zero_point=(zero,) * count,
            axis=axis if chosen.per_channel else None,
        )  # fmt: skip
    return write_qdq(model, QuantSpec(tuple(edits.values())))
