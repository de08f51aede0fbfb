"""A traced graph as `int8_ptq` would leave it: the same tensors quantised by the same writer, with made-up ranges.

Which tensors are quantised is one rule, `automc.techniques.quantspec.targets`, and one writer puts the pairs into the
graph; only the numbers are missing here, and no kernel depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from automc.profiles import Int8Facts
from automc.techniques.plan import QuantiseEdit
from automc.techniques.quantspec import QuantSpec, activation_edit, integer_form, targets, write_qdq_into

if TYPE_CHECKING:
    import onnx

_HIGHEST: Mapping[str, float] = {"Relu": 4.0, "Clip": 6.0, "Sigmoid": 1.0, "HardSigmoid": 1.0, "Softmax": 1.0}
"""Operators whose result starts at 0, with an upper end it may have: a Relu in front of such a range folds into it."""

_KEEPS_SIGN = frozenset({
    "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "Expand", "Pad", "Concat",
    "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceMax", "ReduceSum", "Resize", "Add", "Mul",
})  # fmt: skip
"""Operators that put out nothing negative where all their activations are not."""

_KEEPS_RANGE = frozenset({"Expand", "Resize", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"})
"""Operators that repeat or move values: calibration finds their input's range again (not of an interpolation)."""


def quantised(model: onnx.ModelProto, scheme: Int8Facts | None = None) -> onnx.ModelProto:
    """A float op-level graph, in the form of an export, with QuantizeLinear / DequantizeLinear pairs, integer weights.
    scheme: types and granularity, as a profile found them fast; by default uint8 activations, int8 per channel.
    """
    chosen = scheme or Int8Facts()
    model = integer_form(model)  # what the writer and the runtime see; it has tensors that the traced graph has not
    found = targets(model)
    dims = {item.name: tuple(item.dims) for item in model.graph.initializer}
    ranges = _ranges(model)
    edits: dict[str, QuantiseEdit] = {}
    for tensor in found.activations:
        edits[tensor] = activation_edit(*ranges[tensor], tensor, chosen.activation_type)
    for tensor, leader in found.followers.items():
        edits[tensor] = edits[leader].model_copy(update={"tensor": tensor})
    zero = 128 if chosen.weight_type == "uint8" else 0
    for index, (tensor, axis, _) in enumerate(found.weights):
        channels = axis if chosen.per_channel else None
        count = 1 if channels is None else dims[tensor][channels]
        scale = 0.01 * (1.0 - (index + 1) / 4096)  # no two alike: the runtime stores small equal constants once
        edits[tensor] = QuantiseEdit(
            tensor=tensor, dtype=chosen.weight_type, scale=(scale,) * count, zero_point=(zero,) * count,
            axis=channels,
        )  # fmt: skip
    write_qdq_into(model, QuantSpec(tuple(edits.values())))
    return model


def _ranges(model: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    """A range every activation might have: from 0 where it cannot be negative, equal to another's where it has to be.

    Apart from that no two are equal, as no two calibrated ones are: the runtime drops pairs between equal ones.
    """
    weights = {item.name for item in model.graph.initializer}
    ranges = {item.name: (-1.0, 1.0) for item in model.graph.input}
    for index, node in enumerate(model.graph.node):
        given = [ranges[name] for name in node.input if name in ranges and name not in weights]
        repeats = node.op_type in _KEEPS_RANGE and all(item.s != b"linear" for item in node.attribute)
        stretch = 1.0 - (index + 1) / 4096
        if repeats and given:
            found = given[0]
        elif node.op_type in _HIGHEST:
            found = (0.0, _HIGHEST[node.op_type] * stretch)
        elif node.op_type in _KEEPS_SIGN and given and all(low >= 0 for low, _ in given):
            found = (0.0, 4.0 * stretch)
        else:
            found = (-stretch, stretch)
        ranges.update(dict.fromkeys(node.output, found))
    return ranges
