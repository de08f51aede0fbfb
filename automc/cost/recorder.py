"""What a trace writes into, and the few rules of export that it applies: what nothing reads goes, norms are folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from automc.cost.recording import ZEROS, Recording
from automc.cost.shapes import Node
from automc.errors import UnseenOperatorError

if TYPE_CHECKING:
    import onnx

ONNX_TYPES: Mapping[torch.dtype, int] = {
    torch.float32: 1, torch.uint8: 2, torch.int8: 3, torch.int32: 6, torch.int64: 7, torch.bool: 9, torch.float64: 11,
}  # fmt: skip

AttributeValue = int | float | str | Sequence[int]


class Recorder:
    """Tensors are known by identity: a recorded one is an activation, any other a weight. All are kept alive."""

    def __init__(self, names: Mapping[int, str]) -> None:
        """names: id of a parameter or buffer to its qualified name."""
        self._names = dict(names)
        self._constants: dict[int, str] = {}
        self._values: dict[int, str] = {}
        self._stale: dict[int, str] = {}
        self._roots: dict[int, int] = {}
        self._weights: dict[str, tuple[tuple[int, ...], int]] = {}
        self._literals: dict[tuple[object, ...], str] = {}
        self._no_bias: dict[int, str] = {}
        self._literal_protos: list[onnx.TensorProto] = []
        self._kept: list[torch.Tensor] = []
        self._twins: dict[int, torch.Tensor] = {}
        self._nodes: list[Node] = []
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._used: set[str] = set()

    def is_activation(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self._values or id(tensor) in self._stale

    def declare(self, tensor: torch.Tensor, name: str) -> None:
        """`tensor` is from now on the activation `name`."""
        self._kept.append(tensor)
        self._values[id(tensor)] = name
        self._shapes[name] = tuple(tensor.shape)

    def on_meta(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` itself, or its shape on the meta device: weights never take part in a trace."""
        if tensor.device.type == "meta":
            return tensor
        twin = self._twins.get(id(tensor))
        if twin is None:
            twin = torch.empty_like(tensor, device="meta")
            self._twins[id(tensor)] = twin
            self._kept += [tensor, twin]
            if id(tensor) in self._names:
                self._names[id(twin)] = self._names[id(tensor)]
        return twin

    def weight_name(self, tensor: torch.Tensor) -> str | None:
        """Qualified name of the parameter `tensor` is; None for one computed on the way."""
        return self._names.get(id(tensor))

    def name(self, tensor: torch.Tensor) -> str:
        """Name of an activation; any other tensor becomes an initialiser of its shape."""
        known = self._values.get(id(tensor))
        if known is not None:
            return known
        if id(tensor) in self._stale:
            raise UnseenOperatorError(
                f"a tensor of shape {list(tensor.shape)} is read after {self._stale[id(tensor)]} wrote into its memory"
            )
        name = self._names.get(id(tensor)) or self._constants.setdefault(id(tensor), f"constant_{len(self._constants)}")
        if name not in self._weights:
            self._kept.append(tensor)
            self.weight(name, tuple(tensor.shape), _onnx_type(tensor.dtype))
        return name

    def weight(self, name: str, shape: tuple[int, ...], dtype: int = 1) -> str:
        """An initialiser of that shape; its values are made up."""
        self._weights[name] = (shape, dtype)
        return name

    def no_bias(self, channels: int) -> str:
        """The bias of zeros that a convolution without one is exported with, shared by all of a size.

        Named by the order in which sizes come, so that networks of other widths name theirs alike.
        """
        name = self._no_bias.setdefault(channels, f"{ZEROS}{len(self._no_bias)}")
        return self.weight(name, (channels,))

    def zeros(self, tensor: torch.Tensor) -> None:
        """`tensor` is a constant of zeros."""
        name = self._constants[id(tensor)] = f"{ZEROS}like_{len(self._constants)}"
        self._kept.append(tensor)
        self.weight(name, tuple(tensor.shape), _onnx_type(tensor.dtype))

    def literal(self, values: float | Sequence[int] | Sequence[float], dtype: torch.dtype = torch.int64) -> str:
        """An initialiser whose values count: a shape, axes, a bound. Scalars are rank 0."""
        from onnx import helper

        flat = tuple(values) if isinstance(values, Sequence) else (values,)
        key = (isinstance(values, Sequence), flat, dtype)
        if key not in self._literals:
            name = f"literal_{len(self._literals)}"
            dims = [len(flat)] if isinstance(values, Sequence) else []
            self._literal_protos.append(helper.make_tensor(name, _onnx_type(dtype), dims, flat))
            self._literals[key] = name
        return self._literals[key]

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        output: torch.Tensor | Sequence[torch.Tensor],
        name: str = "",
        /,
        **attributes: AttributeValue,
    ) -> None:
        """One operator; `output` becomes an activation (again, where it was written in place)."""
        outputs = [output] if isinstance(output, torch.Tensor) else list(output)
        names = self.node(op, inputs, len(outputs), name, **attributes)
        for tensor, value in zip(outputs, names, strict=True):
            self.declare(tensor, value)

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: int = 1,
        name: str = "",
        /,
        **attributes: AttributeValue,
    ) -> list[str]:
        """One operator with values that no torch tensor stands for; returns their names."""
        label = name if name and name not in self._used else f"{name or op}_{len(self._nodes)}"
        self._used.add(label)
        values = [f"{label}:{index}" for index in range(outputs)]
        said = {
            key: value if isinstance(value, int | float | str) else tuple(value) for key, value in attributes.items()
        }
        self._nodes.append(Node(label, op, "", tuple(inputs), tuple(values), said))
        return values

    def same(self, output: torch.Tensor, source: torch.Tensor) -> None:
        """`output` holds what `source` holds (a view that changes nothing, a copy)."""
        self.declare(output, self.name(source))

    def view(self, output: torch.Tensor, source: torch.Tensor) -> None:
        """`output` shares memory with `source`: a later write into one is seen by the other."""
        self._roots[id(output)] = self._roots.get(id(source), id(source))

    def written(self, tensor: torch.Tensor, op: str) -> None:
        """`tensor` was written in place: whatever shares its memory holds something this trace does not follow."""
        root = self._roots.get(id(tensor), id(tensor))
        for other in [key for key in self._values if self._roots.get(key, key) == root and key != id(tensor)]:
            del self._values[other]
            self._stale[other] = op

    def recording(self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> Recording:
        """What was recorded, without what no output depends on."""
        out_names = [self.name(tensor) for tensor in outputs]
        nodes = self._folded(_reaching(self._nodes, out_names), out_names)
        needed = {name for node in nodes for name in node.inputs} | set(out_names)
        return Recording(
            nodes=tuple(nodes),
            inputs={f"input_{index}": _described(tensor) for index, tensor in enumerate(inputs)},
            outputs={name: _described(tensor) for name, tensor in zip(out_names, outputs, strict=True)},
            weights={
                name: (index, *weight) for index, (name, weight) in enumerate(self._weights.items()) if name in needed
            },
            literals=tuple(item for item in self._literal_protos if item.name in needed),
            shapes=self._shapes,
        )

    def _folded(self, nodes: list[Node], outputs: Sequence[str]) -> list[Node]:
        """BatchNorm folded into the convolution in front of it, as in every exported graph."""
        readers = Counter(name for node in nodes for name in node.inputs)
        kept: list[Node] = []
        made_by: dict[str, int] = {}
        for node in nodes:
            place = made_by.get(node.inputs[0]) if node.op == "BatchNormalization" else None
            if place is None or not self._takes(kept[place], readers, outputs):
                made_by.update(dict.fromkeys(node.outputs, len(kept)))
                kept.append(node)
                continue
            before = kept[place]
            inputs = list(before.inputs)
            for slot, shared in enumerate(before.inputs):
                if slot > 0 and (readers[shared] > 1 or shared.startswith(ZEROS)):  # each user gets its own
                    inputs[slot] = self.weight(f"{before.name}.folded_{slot}", *self._weights[shared])
                    readers[shared] -= 1
            if len(inputs) < 3:
                inputs.append(self.weight(f"{before.name}.folded_bias", self._weights[inputs[1]][0][:1]))
            kept[place] = replace(before, inputs=tuple(inputs), outputs=node.outputs[:1])
            made_by[node.outputs[0]] = place
        return kept

    def _takes(self, before: Node, readers: Mapping[str, int], outputs: Sequence[str]) -> bool:
        """Whether a norm can be folded into `before`, whose result it reads."""
        result = before.outputs[0]
        if before.op != "Conv" or readers[result] > 1 or result in outputs:
            return False
        return before.inputs[1] in self._weights  # one computed on the way has nothing to fold into


def _reaching(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """The nodes that an output depends on, in order."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if any(name in needed for name in node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _onnx_type(dtype: torch.dtype) -> int:
    kind = ONNX_TYPES.get(dtype)
    if kind is None:
        raise UnseenOperatorError(f"tensors of {dtype} are not known to the cost model")
    return kind


def _described(tensor: torch.Tensor) -> tuple[int, tuple[int, ...]]:
    return _onnx_type(tensor.dtype), tuple(tensor.shape)
