"""Writes the sequences an export makes of `chunk` and `split` as the Split that they are.

The exporter gives a tensor split into equal parts as a sequence of tensors that is read by index, for which the runtime
has no fusion, no shapes and no 8-bit kernels. Where the parts are fixed it is one Split with as many outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx


def split_directly(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` in which every SplitToSequence whose parts are fixed and read by fixed index is a Split.

    The model itself where there is none. Names of tensors and nodes stay.
    """
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    if not any(node.op_type == "SplitToSequence" for node in model.graph.node):
        return model
    written = onnx.ModelProto()
    written.CopyFrom(model)
    graph = written.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            value = helper.get_attribute_value(node.attribute[0])
            constants[node.output[0]] = (
                numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
            )
    inferred = onnx.shape_inference.infer_shapes(written).graph
    shapes = {item.name: item.type.tensor_type.shape.dim for item in (*inferred.value_info, *inferred.input)}
    nodes: list[onnx.NodeProto] = []
    gone: set[str] = set()
    for node in graph.node:
        if node.op_type == "SequenceAt" and node.input[0] in gone:
            continue
        sizes = _sizes(node, constants, shapes) if node.op_type == "SplitToSequence" else None
        readers = [other for other in graph.node if node.output and node.output[0] in other.input]
        fixed = all(other.op_type == "SequenceAt" and other.input[1] in constants for other in readers)
        if sizes is None or not fixed or any(item.name == node.output[0] for item in graph.output):
            nodes.append(node)
            continue
        gone.add(node.output[0])
        parts = [f"{node.output[0]}.{index}" for index in range(len(sizes))]
        same: list[tuple[str, str]] = []
        for reader in readers:
            index = int(constants[reader.input[1]].reshape(())) % len(sizes)
            if parts[index].startswith(f"{node.output[0]}."):
                parts[index] = reader.output[0]
            else:  # read twice
                same.append((parts[index], reader.output[0]))
        lengths = f"{node.output[0]}.lengths"
        graph.initializer.append(numpy_helper.from_array(sizes, lengths))
        nodes.append(helper.make_node("Split", [node.input[0], lengths], parts, name=node.name, axis=_axis(node)))
        nodes.extend(helper.make_node("Identity", [known], [again]) for known, again in same)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    graph.ClearField("node")
    graph.node.extend(copies)
    kept = [item for item in graph.value_info if item.name not in gone]
    kept = [onnx.ValueInfoProto.FromString(item.SerializeToString()) for item in kept]
    graph.ClearField("value_info")
    graph.value_info.extend(kept)
    return written


def _axis(node: onnx.NodeProto) -> int:
    return next((item.i for item in node.attribute if item.name == "axis"), 0)


def _sizes(
    node: onnx.NodeProto, constants: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[Any]]
) -> np.ndarray | None:
    """(parts,) int64: extents of the parts along the axis; None where they are not fixed."""
    import numpy as np

    if len(node.input) < 2 or node.input[1] not in constants:
        return None
    given = constants[node.input[1]].astype(np.int64)
    if given.ndim:
        return given
    axis, extents = _axis(node), shapes.get(node.input[0], ())
    if not -len(extents) <= axis < len(extents) or not extents[axis].dim_value:
        return None
    extent, size = extents[axis].dim_value, int(given)
    return np.array([min(size, extent - start) for start in range(0, extent, size)], np.int64)
