"""Lowering from memory: what the runtime did to a network of this structure it does again to another width of it.

Optimising a graph takes the runtime 6 to 10 ms and quantising it as long again, and a search asks about thousands of
networks that differ in widths and ranks alone. So the graph that the runtime left of one structure is kept, and each of
its kernels by the shapes it works on. A network of a known structure whose kernels are all known is read from memory;
any other is lowered in full, and learnt from. What two lowerings say differently of one key is never recalled again.

A structure is the operators, how they are wired, and every extent as far as the runtime may decide by it: below a block
of its layout (16 with AVX-512, else 8) by its value, from there on by the powers of two up to a block that divide it;
and, where operators compare extents, which are equal.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import TYPE_CHECKING

from automc.cost.graph import graph_from_trace, operators_of_recording
from automc.cost.kernels import KernelGraph, KernelRow, Precision
from automc.cost.lowering import Level, Lowered, block_size, lowered, optimised, plain_name
from automc.cost.shapes import Node, Tensor
from automc.profiles import Int8Facts

if TYPE_CHECKING:
    import torch
    from torch import nn

    from automc.cost.recording import Recording, Shape

_WIDTHS = frozenset({"group", "channels"})
"""Attributes that name a width: the shapes beside them say it as well."""

_ONLY_WIDTHS_COUNT = frozenset({"Conv", "Gemm", "MatMul", "BatchNormalization", "Relu", "Clip", "Sigmoid"})
"""Operators in which the runtime compares no two extents beyond a block (an ungrouped Conv, a product)."""


@dataclass(frozen=True)
class _Known:
    """One kernel: its row without a name, what it puts out, and its constants by their position among its inputs."""

    row: KernelRow
    outputs: tuple[Tensor | None, ...]
    constants: tuple[Tensor | None, ...]


class Lowerings:
    """Kernel graphs of torch networks, equal to `graph_from_trace`; faster on what resembles an earlier one."""

    def __init__(self) -> None:
        self._structures: dict[Hashable, Lowered] = {}
        self._kernels: dict[Hashable, _Known] = {}
        self._unsure: set[Hashable] = set()
        self.recalled = 0
        self.lowered = 0

    def graph(
        self,
        model: nn.Module,
        example_inputs: tuple[torch.Tensor, ...],
        precision: Precision = "fp32",
        scheme: Int8Facts | None = None,
        level: Level = "all",
    ) -> KernelGraph:
        """As `graph_from_trace` of the same arguments, with its errors."""
        from automc.cost.trace import recorded
        from automc.export import HoldsGraph

        if isinstance(model, HoldsGraph):
            return graph_from_trace(model, example_inputs, precision=precision, scheme=scheme, level=level)
        recording = recorded(model, example_inputs)
        read_as = (precision, scheme if precision == "int8" else None, level)
        key = (read_as, structure_of(recording))
        pattern = self._structures.get(key) if key not in self._unsure else None
        found = self._recall(pattern, recording, read_as) if pattern is not None else None
        if found is not None:
            self.recalled += 1
            return found.kernels()
        self.lowered += 1
        full = lowered(optimised(operators_of_recording(recording, precision=precision, scheme=scheme), level))
        self._learn(key, full, recording, read_as)
        return full.kernels()

    def _recall(self, pattern: Lowered, recording: Recording, read_as: Hashable) -> Lowered | None:
        """The lowering of `recording`, whose structure is that of `pattern`; None where one of its kernels is new."""
        tensors = {name: Tensor(shape, kind) for name, (kind, shape) in recording.inputs.items()}
        owned = _by_owner(recording)
        rows = []
        for node, row in zip(pattern.nodes, pattern.rows, strict=True):
            key = (read_as, _kernel_key(node, row, tensors, pattern.weights, recording, owned))
            known = self._kernels.get(key)
            if known is None or key in self._unsure:
                return None
            rows.append(replace(known.row, name=row.name))
            for names, found in ((node.outputs, known.outputs), (node.inputs, known.constants)):
                tensors.update({name: tensor for name, tensor in zip(names, found, strict=True) if tensor is not None})
        return Lowered(
            tuple(rows), pattern.nodes, tensors, pattern.inputs, pattern.outputs, pattern.weights
        )  # fmt: skip

    def _learn(self, key: Hashable, full: Lowered, recording: Recording, read_as: Hashable) -> None:
        before = self._structures.setdefault(key, full)
        if _wiring(before) != _wiring(full):
            self._unsure.add(key)
        owned = _by_owner(recording)
        for node, row in zip(full.nodes, full.rows, strict=True):
            kernel = (read_as, _kernel_key(node, row, full.tensors, full.weights, recording, owned))
            known = _Known(
                replace(row, name=""),
                tuple(full.tensors.get(name) if name else None for name in node.outputs),
                tuple(full.tensors[name] if name in full.weights else None for name in node.inputs),
            )
            if (
                not _is_determined(node, row, full, recording, owned)
                or self._kernels.setdefault(kernel, known) != known
            ):
                self._unsure.add(kernel)


def structure_of(recording: Recording) -> Hashable:
    """What the runtime's decisions about the graph can depend on: equal for networks that it treats alike."""
    places: dict[str, Hashable] = {name: ("input", shape, kind) for name, (kind, shape) in recording.inputs.items()}
    places |= {
        name: ("weight", name, tuple(map(_kind_of, shape)), kind)
        for name, (_, shape, kind) in recording.weights.items()
    }
    for item in recording.literals:
        values = tuple(item.int64_data) if item.int64_data else (item.SerializeToString(),)
        places[item.name] = ("literal", item.data_type, tuple(map(_kind_of, values)))
    nodes: list[Hashable] = []
    for position, node in enumerate(recording.nodes):
        given = tuple(places.get(name, "") for name in node.inputs)
        shapes = tuple(recording.shapes.get(name, ()) for name in node.outputs)
        attributes = tuple(
            (name, _kind_of(value) if name in _WIDTHS and isinstance(value, int) else value)
            for name, value in node.attributes.items()
        )
        nodes.append((node.op, node.name, given, attributes, tuple(tuple(map(_kind_of, one)) for one in shapes)))
        if node.op not in _ONLY_WIDTHS_COUNT or node.int("group") > 1:
            nodes.append(_equal_extents(node, recording, shapes))
        places.update({name: (position, index) for index, name in enumerate(node.outputs)})
    return tuple(nodes), tuple(places[name] for name in recording.outputs)


def _kind_of(extent: int | bytes) -> Hashable:
    """An extent as far as a blocked or vectorised kernel may be chosen by it; anything else as it is."""
    block = block_size()
    if not isinstance(extent, int) or abs(extent) < block:
        return extent
    return ("beyond", gcd(extent, block), extent > 0)


def _equal_extents(node: Node, recording: Recording, outputs: Sequence[Shape]) -> Hashable:
    """Which extents around an operator are the same, by the order in which they are first seen."""
    literals = {item.name: tuple(item.int64_data) for item in recording.literals}
    shapes: list[Sequence[int]] = []
    for name in node.inputs:
        weight = recording.weights.get(name)
        shapes.append(weight[1] if weight is not None else recording.shapes.get(name) or literals.get(name, ()))
    seen: dict[int, int] = {}
    return tuple(tuple(seen.setdefault(extent, len(seen)) for extent in shape) for shape in (*shapes, *outputs))


def _by_owner(recording: Recording) -> Mapping[str, tuple[tuple[str, Shape], ...]]:
    """Weights as traced, by the module that holds them."""
    owned: dict[str, list[tuple[str, Shape]]] = {}
    for name, (_, shape, _) in recording.weights.items():
        owner, _, own = name.rpartition(".")
        owned.setdefault(owner, []).append((own, shape))
    return {owner: tuple(found) for owner, found in owned.items()}


def _kernel_key(
    node: Node,
    row: KernelRow,
    tensors: Mapping[str, Tensor],
    weights: frozenset[str],
    recording: Recording,
    owned: Mapping[str, tuple[tuple[str, Shape], ...]],
) -> Hashable:
    """All that the row and the outputs of a kernel depend on, as far as the trace and the kernels before it say it."""
    given = tuple(
        recording.weights.get(name, (0, None))[1] if name in weights else tensors[name] if name else None
        for name in node.inputs
    )
    attributes = tuple(sorted((name, value) for name, value in node.attributes.items() if name not in _WIDTHS))
    traced = _traced_outputs(node, recording)
    return (node.op, node.domain, row.layout, row.fused, attributes, given, traced, owned.get(row.name))


def _traced_outputs(node: Node, recording: Recording) -> tuple[Shape, ...]:
    """Shapes of the traced tensors that the kernel's outputs, or the kernel itself, are named after."""
    plain = plain_name(node.name)
    names = dict.fromkeys((*node.outputs, plain, f"{plain}:0"))
    return tuple(recording.shapes[name] for name in names if name in recording.shapes)


def _is_determined(
    node: Node,
    row: KernelRow,
    full: Lowered,
    recording: Recording,
    owned: Mapping[str, tuple[tuple[str, Shape], ...]],
) -> bool:
    """Whether its key says all: what it does follows from its inputs, or a traced weight or output belongs to it."""
    constants = any(full.tensors[name].elements > 1 for name in node.inputs if name in full.weights)
    if not constants and not any(name in _WIDTHS for name in node.attributes):
        return True
    return row.name in owned or bool(_traced_outputs(node, recording))


def _wiring(graph: Lowered) -> Hashable:
    return (
        tuple(
            (node.op, node.domain, node.inputs, node.outputs, row.name, row.layout, row.fused)
            for node, row in zip(graph.nodes, graph.rows, strict=True)
        ),
        graph.inputs,
        graph.outputs,
    )
