"""Columns of a device whose kernels nobody knows: the work of the graph itself, in few kinds.

`features.py` counts the tiles of one CPU runtime and needs thousands of timings. A device that was measured elsewhere
comes with tens of networks: what it is asked is how long a multiply-accumulate takes by the kind of product, a byte by
the kind of movement, and a kernel for being called.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from automc.cost.kernels import KernelRow

_MATRIX = frozenset({
    "Gemm", "MatMul", "FusedMatMul", "FusedMatMulActivation", "QGemm", "QLinearMatMul", "MatMulInteger",
    "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
})  # fmt: skip
_KINDS: Mapping[str, frozenset[str]] = {
    "elementwise": frozenset({
        "Add", "Sum", "Mean", "Mul", "Sub", "Div", "Max", "Min", "Relu", "LeakyRelu", "PRelu", "Clip", "Neg", "Abs",
        "HardSigmoid", "HardSwish", "BatchNormalization",
    }),
    "transcendental": frozenset({
        "Sigmoid", "Tanh", "Exp", "Log", "Erf", "Gelu", "BiasGelu", "FastGelu", "QuickGelu", "Softplus", "Mish", "Elu",
        "Selu", "Pow", "Sqrt",
    }),
    "movement": frozenset({"Transpose", "Concat", "Slice", "Split", "Pad", "Resize", "Upsample", "Gather", "Expand"}),
    "pool": frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}),
    "reduction": frozenset({
        "ReduceMean", "ReduceSum", "ReduceMax", "Softmax", "LogSoftmax", "LayerNormalization",
        "SkipLayerNormalization", "LRN", "GroupNormalization", "InstanceNormalization",
    }),
    "view": frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}),
}  # fmt: skip
"""Operators that move or touch every element once: within a kind, one price for a byte."""
_KIND_OF = {op: kind for kind, ops in _KINDS.items() for op in ops}


def work_class(row: KernelRow) -> str:
    """The kind of work: "Conv.pointwise", "matrix", "elementwise", ...; the operator itself where it is of none.

    A kernel of a blocked or int8 layout is what one runtime made of the graph: its class has that layout in its name,
    so that a device which was fitted to the graph itself does not know it.
    """
    if row.layout == "nchwc" or row.op.startswith("Reorder"):
        return f"{row.op}.{row.layout}"
    precision = "" if row.precision == "fp32" else ".int8"
    if _pools_all(row):
        return f"pool{precision}"
    if row.op in ("Conv", "QLinearConv"):
        if prod(row.output_shape[2:]) > 1 or row.groups > 1:
            return f"Conv.{_convolution_kind(row)}{precision}"
        return f"matrix.vector{precision}"
    if row.op in _MATRIX:
        # one row: weights are read once and used once, so that memory decides
        return f"matrix{'.vector' if prod(row.output_shape[:-1]) == 1 else ''}{precision}"
    return f"{_KIND_OF.get(row.op, row.op)}{precision}"


def _pools_all(row: KernelRow) -> bool:
    """Whether it is the mean over a picture: some exporters write a pool, others a reduction."""
    given, made = row.input_shapes[0] if row.input_shapes else (), row.output_shape
    if row.op != "ReduceMean" or len(given) != 4 or prod(given[2:]) == 1:
        return False
    return made in (given[:2], (*given[:2], 1, 1))


def _convolution_kind(row: KernelRow) -> str:
    if row.groups > 1:
        return "depthwise" if row.groups == row.input_shapes[0][1] else "grouped"
    return "pointwise" if prod(row.kernel) == 1 else "spatial"


def work(row: KernelRow) -> dict[str, float]:
    """Non-negative columns, named "<kind>:<quantity>"; counts in millions, bytes in millions of bytes."""
    kind = work_class(row)
    moved = (row.bytes_in + row.bytes_out) / 1e6
    if kind.startswith("view"):  # a price of its own would be what every run takes: nearly every network has one
        return {"kernel:calls": 1.0}
    columns = {"kernel:calls": 1.0}
    if row.macs:
        columns[f"{kind}:macs"] = row.macs / 1e6
        columns["product:bytes"] = moved
        if kind == "Conv.spatial" and row.kernel == (3, 3) and max(row.stride, default=1) == 1:
            # Winograd's algorithm does these with fewer multiplications, where a runtime has it
            columns["Conv.spatial:macs"] = 0.0
            columns["Conv.spatial_3x3:macs"] = row.macs / 1e6
        if kind.startswith("Conv.spatial"):  # where it is done as a product, every window is copied out
            columns[f"{kind}:unrolled"] = row.bytes_in * prod(row.kernel) / max(1, prod(row.stride)) / 1e6
        if kind.startswith("Conv.depthwise"):  # most runtimes do these one channel after another
            columns["Conv.depthwise:channels"] = row.groups / 1e6
    else:
        columns[f"{kind}:bytes"] = moved
    if kind.startswith("pool") and row.kernel and "Global" not in row.op:
        columns[f"{kind}:taps"] = prod(row.output_shape) * prod(row.kernel) / 1e6
    columns["weights:bytes"] = row.bytes_weights / 1e6
    return {name: value for name, value in columns.items() if value > 0}
