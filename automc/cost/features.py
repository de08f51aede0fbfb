"""Physical features of a kernel: what its time is made of on a CPU that runs it one tile after another.

Every kernel belongs to a class, a piece of code in the runtime; every class has a handful of non-negative columns:
calls, multiply-accumulates by the kind of tile they fall into, bytes by where they move. Time is their weighted sum.
Convolutions are counted in `convolution.py`, tiles of matrix products in `tiles.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from automc.cost.caches import spilt
from automc.cost.convolution import SYMMETRIC_FILTERS, convolution, is_symmetric
from automc.cost.kernels import KernelRow
from automc.cost.sharing import handed_out, unevenness
from automc.cost.tiles import Columns, Machine, channels_of, product
from automc.cost.work import work, work_class

UNSHARED_MACS = 65_536  # that the runtime's products do before a second thread is given any: MLAS, 64 x 1024
SMALL_WEIGHTS = 1024  # bytes below which weights cost a call, not a transfer

_BINARY = frozenset({"Add", "Mul", "Sub", "Div", "Max", "Min", "Pow", "QLinearAdd", "QLinearMul"})
_MATRIX = frozenset({
    "Gemm", "MatMul", "FusedMatMul", "FusedMatMulActivation", "QGemm", "QLinearMatMul", "MatMulInteger",
    "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits",
})  # fmt: skip
_WHATEVER_SHARED = frozenset({"calls", "group_calls", "pieces"})
"""Columns that no number of threads makes less."""
_LAYOUT_MATTERS = ("Pool", "Concat")


def kernel_class(row: KernelRow, machine: Machine) -> str:
    """The piece of runtime code the kernel runs in, for example "Conv.nchwc.depthwise" or "QLinearAdd.broadcast"."""
    if machine.columns == "work":
        return work_class(row)
    if row.op.endswith("Conv"):
        return f"{row.op}.{row.layout}.{_convolution_kind(row, machine)}"
    if row.op in _MATRIX:
        m, _, _, batch = matrix_shape(row)
        constant = "weights" if len(row.input_shapes) < 2 else "activations"
        return f"{row.op}.{constant}{'.vector' if m * batch == 1 else ''}"
    if row.op in _BINARY:
        wide = prod(row.output_shape)
        if any(1 < prod(shape) < wide for shape in row.input_shapes):
            return f"{row.op}.broadcast.{row.layout if len(row.output_shape) == 4 else 'tokens'}"
        return f"{row.op}.{'same' if len(row.input_shapes) > 1 else 'constant'}"
    if row.op in ("QuantizeLinear", "DequantizeLinear"):
        return f"{row.op}{'' if row.input_shapes else '.weights'}"
    if row.op == "Transpose":
        return f"Transpose.{row.precision}.{_transpose_kind(row)}"
    if any(word in row.op for word in _LAYOUT_MATTERS):
        return f"{row.op}.{row.precision}.{row.layout}"
    return f"{row.op}.{row.precision}"


def _convolution_kind(row: KernelRow, machine: Machine) -> str:
    # of one dimension and in float: unrolled whatever the channels, where pictures of as many would be blocked
    signal = "signal_" if len(row.kernel) == 1 and row.layout == "nchw" else ""
    return signal + _convolution_code(row, machine)


def _convolution_code(row: KernelRow, machine: Machine) -> str:
    inputs, outputs = channels_of(row.input_shapes[0], row), channels_of(row.output_shape, row)
    size = "pointwise" if prod(row.kernel) == 1 else "spatial"
    if row.groups > 1:
        if row.groups == outputs and row.groups >= inputs:
            regular = row.precision == "fp32" or row.groups % SYMMETRIC_FILTERS == 0
            return "depthwise" if regular else "depthwise_irregular"
        if row.layout == "nchw":
            return f"grouped_{size}"
    # the blocked kernel runs a group like a convolution of its own: one class, groups or not
    if row.layout == "nchwc":
        return size if inputs >= machine.block else "stem"
    if row.precision == "int8":
        return size if is_symmetric(row, inputs, outputs) else f"{'grouped_' if row.groups > 1 else ''}gemm_{size}"
    return size


def _transpose_kind(row: KernelRow) -> str:
    given, made = row.input_shapes[0], row.output_shape
    if len(given) == 4 and row.layout == "nhwc":
        return "layout"
    return "rows" if given[-1] == made[-1] else "general"


def is_product(row: KernelRow) -> bool:
    """Whether the kernel is a product of matrices."""
    return row.op in _MATRIX


def matrix_shape(row: KernelRow) -> tuple[int, int, int, int]:
    """(M, N, K, batch) of a matrix product."""
    out = row.output_shape
    n = out[-1]
    constant = len(row.input_shapes) < 2
    m = prod(out[:-1]) if constant else (out[-2] if len(out) > 1 else 1)
    batch = 1 if constant else prod(out[:-2])
    k = row.macs // max(1, m * n * batch)
    return m, n, k, batch


def features(row: KernelRow, machine: Machine) -> Columns:
    """Non-negative columns of the kernel, named "<class>:<feature>"; counts in millions, bytes in millions of bytes.

    Columns "memory:..." and "main:..." hold bytes that are at hand or not: they are scaled by the caller with how much
    of the network's data has left the core's own cache and the last one, because that depends on what the rest of the
    network evicts. Weights of convolutions have one of their own: blocked kernels fetch them ahead; so have those that
    meet a single vector: nothing is left to hide the wait for them behind. What is written goes to memory that the
    network last used a while ago; what is read, the kernel before has just written (`Machine.reads`), and bytes of
    "read:activations" left the cache between the two, whatever else the network does. A call is colder too in a network
    larger than the cache: the runtime's own code and tables have left it. From main memory only activations cost more:
    weights are read in order, once a network, and no fit found a price for them.
    """
    if machine.columns == "work":
        return work(row)
    kind = kernel_class(row, machine)
    if row.op.endswith("Conv"):
        columns = convolution(row, machine)
    elif row.op in _MATRIX:
        columns = _matrix(row)
    elif "Pool" in row.op:
        columns = _pool(row)
    else:
        columns = _movement(row)
    uneven = unevenness(row, machine)
    named = {
        f"{kind}:{name}": value * (1.0 if name in _WHATEVER_SHARED else uneven)
        for name, value in columns.items()
        if value > 0
    }
    if machine.threads > 1 and row.macs:
        named[f"{kind}:macs_unshared"] = min(row.macs, UNSHARED_MACS) / 1e6
        named |= {f"{kind}:handed_out": float(times) for times in (handed_out(row, machine),) if times}
    for name in row.fused:  # one price for all kernels of a layout: it is the same loop over the output
        named[f"fused.{row.layout}:{name}"] = prod(row.output_shape) / 1e6
    if row.bytes_weights > SMALL_WEIGHTS:
        reader = ""
        if machine.spill is not None:
            reader = "convolution_" if row.op.endswith("Conv") else "vector_" if kind.endswith(".vector") else ""
        named[f"memory:{reader}weights"] = row.bytes_weights / 1e6
    if machine.spill is not None:
        named["memory:cold_calls"] = 1.0
        named |= _activations(row, machine, machine.spill)
    if machine.shared_bytes is not None and row.bytes_in + row.bytes_out > 0:
        named["main:activations"] = (row.bytes_in + row.bytes_out) / 1e6
    return named


def _activations(row: KernelRow, machine: Machine, spill: tuple[float, float]) -> Columns:
    if machine.reads == "network":
        columns = {"memory:activations": (row.bytes_in + row.bytes_out) / 1e6}
    else:
        touched = row.bytes_in + row.bytes_out + row.bytes_weights
        read = spilt(touched / machine.cache_bytes, spill) * row.bytes_in / 1e6
        columns = {"memory:written": row.bytes_out / 1e6, "read:activations": read}
    return {name: value for name, value in columns.items() if value > 0}


def _matrix(row: KernelRow) -> Columns:
    m, n, k, batch = matrix_shape(row)
    columns = product(m, n, k, batch)
    columns |= {
        "calls": 1.0,
        "products": float(batch) if batch > 1 else 0.0,
        "bytes_in": row.bytes_in / 1e6,
        "bytes_out": row.bytes_out / 1e6,
        "bytes_weights": row.bytes_weights / 1e6,
        "packed": 0.0 if len(row.input_shapes) < 2 else batch * n * k / 1e6,
        "requantised": m * n * batch / 1e6 if row.precision == "int8" else 0.0,
    }
    return columns


def _pool(row: KernelRow) -> Columns:
    taps = prod(row.kernel) if row.kernel else 1
    out = prod(row.output_shape)
    lines = prod(row.output_shape[:-1])
    return {
        "calls": 1.0, "taps": 0.0 if "Global" in row.op else out * taps / 1e6, "elements_in": _elements_in(row) / 1e6,
        "elements_out": out / 1e6, "lines": lines / 1e6, "channels": channels_of(row.output_shape, row) / 1e6,
    }  # fmt: skip


def _movement(row: KernelRow) -> Columns:
    """Everything whose time is moving and touching elements once."""
    out = prod(row.output_shape)
    columns: Columns = {
        "calls": 1.0,
        "elements_in": _elements_in(row) / 1e6,
        "elements_out": out / 1e6,
        "bytes_far": max(0, row.bytes_in + row.bytes_out - 32768) / 1e6,
        "lines": (out / row.output_shape[-1] if row.output_shape else 1) / 1e6,
    }
    if row.bytes_in == row.bytes_out == 0 and row.bytes_weights == 0:  # a view
        return {"calls": 1.0}
    if row.runs:
        columns["runs"] = row.runs / 1e6
    if row.op == "Transpose" and prod(row.output_shape[1:-1]) % 1024 == 0:
        columns["conflicts"] = out / 1e6  # lines a power of two apart fall into the same sets of the cache
    if row.op.endswith(("Concat", "Split")):
        columns["pieces"] = float(len(row.input_shapes))
        columns["copies"] = len(row.input_shapes) * prod(row.output_shape[:-1]) / 1e6 if row.layout == "nhwc" else 0.0
    return columns


def _elements_in(row: KernelRow) -> int:
    return sum(prod(shape) for shape in row.input_shapes)


def extent_of(row: KernelRow) -> Mapping[str, float]:
    """What tells whether a kernel lies in the calibrated range of its class: work, bytes moved, weights."""
    return {
        "macs": float(row.macs),
        "bytes": float(row.bytes_in + row.bytes_out),
        "weights": float(row.bytes_weights),
        "taps": float(prod(row.kernel)) if row.kernel and "Global" not in row.op else 1.0,
    }
