"""Writes a QuantSpec into a graph: integer weights, int32 biases, QuantizeLinear / DequantizeLinear pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from automc.errors import CompressionError
from automc.techniques.plan import QuantiseEdit
from automc.techniques.quantspec import RANGES, QuantSpec, pads_values, quantise

if TYPE_CHECKING:
    import onnx


class QdqWriter:
    """One pass of `write_qdq` over a graph of its own."""

    def __init__(self, model: onnx.ModelProto, spec: QuantSpec) -> None:
        self.graph = model.graph
        self.spec = spec
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.readable: dict[str, str] = {}
        """Tensor of the float graph -> the tensor its readers now read."""

    def run(self) -> None:
        from onnx import NodeProto

        produced = {value.name for value in self.graph.input}
        produced |= {output for node in self.graph.node for output in node.output}
        unknown = [edit.tensor for edit in self.spec.tensors if edit.tensor not in produced | self.constants.keys()]
        if unknown:
            raise CompressionError(f"the graph has no tensor called {unknown[0]!r} (of {len(unknown)} such names)")
        for edit in self.spec.tensors:
            _check(edit)
        results = {value.name for value in self.graph.output}
        for value in self.graph.input:
            if value.name in self.spec.by_name:
                self._pair(self.spec.by_name[value.name], value.name, f"{value.name}.dequantised")
        for node in list(self.graph.node):
            biased = self._bias(node)
            copied = NodeProto()
            copied.CopyFrom(node)
            for slot, value in enumerate(node.input):
                copied.input[slot] = biased if slot == 2 and biased else self._read(value)
            if self._pads_integers(copied, node):
                continue
            self.nodes.append(copied)
            for slot, value in enumerate(node.output):
                if value not in self.spec.by_name:
                    continue
                edit = self.spec.by_name[value]
                if value in results:  # the caller keeps reading the name it knows
                    copied.output[slot] = f"{value}.float"
                    self._pair(edit, f"{value}.float", value)
                else:
                    self._pair(edit, value, f"{value}.dequantised")
        read = {value for node in self.nodes for value in node.input} | results
        self.nodes = [node for node in self.nodes if any(output in read for output in node.output)]
        used = {value for node in self.nodes for value in node.input} | results
        kept = [tensor for name, tensor in sorted(self.constants.items()) if name in used]
        self.graph.ClearField("node")
        self.graph.node.extend(self.nodes)
        self.graph.ClearField("value_info")
        self.graph.ClearField("initializer")
        self.graph.initializer.extend(kept)

    def _pads_integers(self, written: onnx.NodeProto, node: onnx.NodeProto) -> bool:
        """Write a Pad with zeros on the integers themselves: the runtime would not move it there, and it is exact."""
        from onnx import helper

        data, result = self.spec.by_name.get(node.input[0]), self.spec.by_name.get(node.output[0])
        if node.op_type != "Pad" or data is None or result is None or node.input[0] in self.constants:
            return False
        if (data.scale, data.zero_point, data.dtype) != (result.scale, result.zero_point, result.dtype):
            return False
        if node.output[0] in {value.name for value in self.graph.output} or pads_values(node, self.graph):
            return False
        self._parameters(result)
        padded = f"{result.tensor}.quantised"
        inputs = [f"{data.tensor}.quantised", node.input[1], f"{result.tensor}.zero_point", *node.input[3:]]
        self.nodes.append(helper.make_node("Pad", inputs, [padded], name=node.name))
        self._node("DequantizeLinear", result, padded, f"{result.tensor}.dequantised")
        self.readable[result.tensor] = f"{result.tensor}.dequantised"
        return True

    def _read(self, value: str) -> str:
        """The tensor a reader of `value` reads; writes an initialiser's integers on first use."""
        if value in self.readable or value not in self.constants or value not in self.spec.by_name:
            return self.readable.get(value, value)
        from onnx import numpy_helper

        edit = self.spec.by_name[value]
        floats = numpy_helper.to_array(self.constants[value])
        if len(edit.scale) != (1 if edit.axis is None else floats.shape[edit.axis]):
            raise CompressionError(f"{value}: {len(edit.scale)} scales do not fit axis {edit.axis} of {floats.shape}")
        self._constant(f"{value}.quantised", quantise(floats, edit), edit.dtype)
        self._parameters(edit)
        self._node("DequantizeLinear", edit, f"{value}.quantised", f"{value}.dequantised")
        self.readable[value] = f"{value}.dequantised"
        return self.readable[value]

    def _pair(self, edit: QuantiseEdit, source: str, target: str) -> None:
        if edit.axis is not None or len(edit.scale) != 1:
            raise CompressionError(f"{edit.tensor}: activations are quantised per tensor, with one scale")
        self._parameters(edit)
        self._node("QuantizeLinear", edit, source, f"{edit.tensor}.quantised")
        self._node("DequantizeLinear", edit, f"{edit.tensor}.quantised", target)
        self.readable[edit.tensor] = target

    def _bias(self, node: onnx.NodeProto) -> str | None:
        """Name of the int32 bias written for `node`, or None where its bias stays as it is."""
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3 or node.input[2] not in self.constants:
            return None
        data, weight = (self.spec.by_name.get(value) for value in node.input[:2])
        if data is None or weight is None or node.input[2] in self.spec.by_name:
            return None
        from onnx import numpy_helper

        floats = numpy_helper.to_array(self.constants[node.input[2]]).astype(np.float64)
        scale = np.float32(data.scale[0]) * np.asarray(weight.scale, np.float32)
        whole = np.rint(floats / scale.astype(np.float64))
        if not np.isfinite(whole).all() or np.abs(whole).max(initial=0) > np.iinfo(np.int32).max:
            raise CompressionError(f"{node.input[2]}: does not fit int32 at scale(data) * scale(weight)")
        name = f"{node.name or node.output[0]}.bias"
        self._constant(f"{name}.quantised", whole.astype(np.int32), "int32")
        self._constant(f"{name}.scale", scale if weight.axis is not None else scale[0], "float32")
        self._constant(
            f"{name}.zero_point", np.zeros_like(scale if weight.axis is not None else scale[0], np.int32), "int32"
        )
        edit = QuantiseEdit(
            tensor=name, dtype="int8", scale=(1.0,), zero_point=(0,), axis=0 if weight.axis is not None else None
        )
        self._node("DequantizeLinear", edit, f"{name}.quantised", f"{name}.dequantised")
        return f"{name}.dequantised"

    def _parameters(self, edit: QuantiseEdit) -> None:
        scale = np.asarray(edit.scale, np.float32)
        zero = np.asarray(edit.zero_point, np.uint8 if RANGES[edit.dtype][0] == 0 else np.int8)
        self._constant(f"{edit.tensor}.scale", scale if edit.axis is not None else scale[0], "float32")
        self._constant(f"{edit.tensor}.zero_point", zero if edit.axis is not None else zero[0], edit.dtype)

    def _constant(self, name: str, values: np.ndarray | np.generic, dtype: str) -> None:
        from onnx import TensorProto

        array = np.asarray(values)
        if dtype in ("int4", "uint4"):  # two to the byte, the first in the low half
            nibbles = np.append(array.reshape(-1), [0] * (array.size % 2)).astype(np.uint8) & 15
            raw = (nibbles[0::2] | nibbles[1::2] << 4).tobytes()
        else:
            raw = np.asarray(array, np.dtype(dtype).newbyteorder("<")).tobytes()
        self.constants[name] = TensorProto(name=name, data_type=_tensor_type(dtype), dims=array.shape, raw_data=raw)

    def _node(self, op_type: str, edit: QuantiseEdit, source: str, target: str) -> None:
        from onnx import NodeProto, helper

        name = f"{target}/{op_type}" if op_type == "QuantizeLinear" else f"{target}/Dequantize"
        inputs = [source, f"{edit.tensor}.scale", f"{edit.tensor}.zero_point"]
        node = NodeProto(op_type=op_type, input=inputs, output=[target], name=name)
        if edit.axis is not None:
            node.attribute.append(helper.make_attribute("axis", edit.axis))
        self.nodes.append(node)


def _check(edit: QuantiseEdit) -> None:
    """Raises CompressionError where scales or zero points are none."""
    with np.errstate(over="ignore"):
        scale = np.asarray(edit.scale, np.float32)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise CompressionError(f"{edit.tensor}: a scale is not a positive, finite float32")
    if len(edit.zero_point) != len(edit.scale):
        raise CompressionError(f"{edit.tensor}: {len(edit.zero_point)} zero points for {len(edit.scale)} scales")
    low, high = RANGES[edit.dtype]
    if not all(low <= zero <= high for zero in edit.zero_point):
        raise CompressionError(f"{edit.tensor}: a zero point lies outside {edit.dtype}")


_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "uint4": 21, "int4": 22}


def _tensor_type(dtype: str) -> int:
    """TensorProto.DataType of that name."""
    return _TYPES[dtype]
