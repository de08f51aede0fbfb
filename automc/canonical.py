"""One form per ONNX graph: named after its modules, in one order, without anything that does not compute.

Nothing here changes what a graph computes. Names are stable because plans of graph techniques, kernel rows and
reports refer to nodes and tensors by name; the order is stable so that equal networks give equal bytes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

_PARAMETRIC = {
    "Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "LayerNormalization", "InstanceNormalization",
    "GroupNormalization", "PRelu", "FusedConv", "FusedGemm", "FusedMatMul", "MatMulNBits",
}  # fmt: skip
"""Operators that hold a module's weights: they bear the module's name, every other one `module/Operator`."""

_SLOTS = {1: "weight", 2: "bias"}
_SCOPES = "pkg.torch.onnx.name_scopes"


def name_after_modules(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose nodes are called `module.path/Operator/index`, read from the dynamo exporter's metadata."""
    named = onnx.ModelProto()
    named.CopyFrom(model)
    for index, node in enumerate(named.graph.node):
        scopes = next((prop.value for prop in node.metadata_props if prop.key == _SCOPES), "[]")
        inside = [scope for scope in ast.literal_eval(scopes)[:-1] if scope and not scope.startswith("_empty")]
        node.name = f"{inside[-1] if inside else ''}/{node.op_type}/{index}"
    return named


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without metadata, doc strings, value infos, unused operator sets, dead nodes and dead weights.

    A Reshape whose target is computed from the batch size gets the constant -1 there, which is the same shape.
    """
    cleaned = onnx.ModelProto()
    cleaned.CopyFrom(model)
    graph = cleaned.graph
    _constant_reshapes(graph)
    _drop_dead(graph)
    cleaned.ClearField("metadata_props")
    cleaned.ClearField("doc_string")
    cleaned.ClearField("training_info")
    graph.ClearField("metadata_props")
    graph.ClearField("value_info")
    graph.ClearField("doc_string")
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    used = {node.domain for node in _all_nodes(graph)} | {node.domain for f in cleaned.functions for node in f.node}
    used = {"" if domain == "ai.onnx" else domain for domain in used} | {""}
    kept = [opset for opset in cleaned.opset_import if ("" if opset.domain == "ai.onnx" else opset.domain) in used]
    cleaned.ClearField("opset_import")
    cleaned.opset_import.extend(kept)
    return cleaned


def canonical(model: onnx.ModelProto) -> onnx.ModelProto:
    """A cleaned copy, its nodes in depth-first order from the outputs, every name derived from structure and modules.

    Inputs: `input` (or `input_0`, ...); outputs `output` (or `output_0`, ...); a node's tensor bears the node's name;
    weights `<node>.weight`, `<node>.bias`. Twice is as once. A graph with control flow is only cleaned.
    """
    result = clean(model)
    graph = result.graph
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return result
    order = _depth_first(graph)
    names: dict[str, str] = {"": ""}
    _number(names, "input", [value.name for value in graph.input])
    _number(names, "output", [value.name for value in graph.output])
    taken = set(names.values())
    for node in order:
        module = node.name.partition("/")[0] if "/" in node.name or node.op_type in _PARAMETRIC else ""
        node.name = _fresh(_node_name(module, node.op_type), taken)
        for index, output in enumerate(node.output):
            if output not in names:
                names[output] = node.name if index == 0 else _fresh(f"{node.name}_{index}", taken)
    weights = {tensor.name for tensor in graph.initializer}
    for node in order:
        for slot, value in enumerate(node.input):
            if value in weights and value not in names:
                label = _SLOTS.get(slot, f"input_{slot}") if node.op_type in _PARAMETRIC else f"input_{slot}"
                names[value] = _fresh(f"{node.name}.{label}", taken)
    for node in order:
        for group in (node.input, node.output):
            group[:] = [names[value] for value in group]
    for item in (*graph.input, *graph.output, *graph.initializer):
        item.name = names[item.name]
    _name_batch(graph)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in order]
    tensors = sorted(
        (onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in graph.initializer),
        key=lambda tensor: tensor.name,
    )
    graph.ClearField("node")
    graph.node.extend(nodes)
    graph.ClearField("initializer")
    graph.initializer.extend(tensors)
    graph.name = "automc"
    result.producer_name, result.producer_version, result.model_version, result.domain = "automc", "", 0, ""
    return result


def _node_name(module: str, op_type: str) -> str:
    if op_type in _PARAMETRIC and module:
        return module
    return f"{module}/{op_type}"


def _fresh(name: str, taken: set[str]) -> str:
    """`name`, or `name_2`, `name_3`, ... whichever is free; taken from then on."""
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    taken.add(found)
    return found


def _number(names: dict[str, str], label: str, values: list[str]) -> None:
    for index, value in enumerate(values):
        names.setdefault(value, label if len(values) == 1 else f"{label}_{index}")


def _name_batch(graph: onnx.GraphProto) -> None:
    """The symbol of the inputs' first axis is called `batch` wherever it stands; other symbols `size_0`, ..."""
    symbols: dict[str, str] = {}
    for value in (*graph.input, *graph.output):
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if dimension.dim_param:
                fallback = "batch" if axis == 0 else f"size_{len(symbols)}"
                dimension.dim_param = symbols.setdefault(dimension.dim_param, fallback)


def _depth_first(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes in the order in which a walk from the outputs, inputs first, completes them."""
    producer = {output: node for node in graph.node for output in node.output if output}
    order: list[onnx.NodeProto] = []
    done: set[int] = set()
    stack = [(producer[value.name], False) for value in reversed(graph.output) if value.name in producer]
    while stack:
        node, expanded = stack.pop()
        if id(node) in done:
            continue
        if expanded:
            done.add(id(node))
            order.append(node)
            continue
        stack.append((node, True))
        stack.extend((producer[value], False) for value in reversed(node.input) if value in producer)
    return order


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _all_nodes(inner)


def _drop_dead(graph: onnx.GraphProto) -> None:
    needed = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if any(output in needed for output in node.output):
            kept.append(node)
            needed.update(node.input)
            for attribute in node.attribute:
                for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                    needed.update(value for deep in _all_nodes(inner) for value in deep.input)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    graph.ClearField("node")
    graph.node.extend(copies)
    tensors = [onnx.TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name in needed]
    graph.ClearField("initializer")
    graph.initializer.extend(tensors)


def _constant_reshapes(graph: onnx.GraphProto) -> None:
    """Reshape(x, Concat(one computed length, constants >= 1)) becomes Reshape(x, [-1, constants])."""
    producer = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    added: list[onnx.TensorProto] = []
    for node in graph.node:
        if node.op_type != "Reshape":
            continue
        concat = producer.get(node.input[1])
        if concat is None or concat.op_type != "Concat":
            continue
        computed = [value for value in concat.input if value not in constants]
        known = [numpy_helper.to_array(constants[value]) for value in concat.input if value in constants]
        if len(computed) != 1 or any((part < 1).any() for part in known) or not _one_length(computed[0], producer):
            continue
        parts = [
            numpy_helper.to_array(constants[value]) if value in constants else np.array([-1], np.int64)
            for value in concat.input
        ]
        name = f"{node.name or node.output[0]}.shape"
        added.append(numpy_helper.from_array(np.concatenate(parts).astype(np.int64), name))
        node.input[1] = name
    graph.initializer.extend(added)


def _one_length(value: str, producer: dict[str, onnx.NodeProto]) -> bool:
    """Whether `value` is a vector of one element: a scalar reshaped to [1], or a Shape of one axis."""
    node = producer.get(value)
    if node is None:
        return False
    if node.op_type == "Shape":
        bounds: dict[str, int] = {attribute.name: attribute.i for attribute in node.attribute}
        start, end = bounds.get("start", 0), bounds.get("end", 0)
        return start >= 0 and end - start == 1
    return node.op_type in ("Reshape", "Unsqueeze") and _is_scalar(producer.get(node.input[0]))


def _is_scalar(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type in ("Squeeze", "Gather")
