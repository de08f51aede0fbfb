"""Physical features of a kernel: what its time is made of on a CPU that runs it one tile after another.

Every kernel belongs to a class, a piece of code in the runtime; every class has a handful of non-negative columns:
calls, multiply-accumulates by the kind of tile they fall into, bytes by where they move. Time is their weighted sum.
The tiles are those of ONNX Runtime's MLAS library (onnxruntime/core/mlas/lib): blocked convolutions work on
`block` channels, up to 4 blocks of filters and 6 output pixels at once; the symmetric int8 convolution on 64 and 16
filters, 4 input channels and 6 pixels; matrix products on 12 rows and 32 columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from automc.cost.kernels import KernelRow

Columns = dict[str, float]

PIXELS = 6  # output pixels per step of the convolution kernels, mlas/lib/amd64/SconvKernel*.S
FILTER_BLOCKS = 4  # blocks of filters per step, snchwc.cpp: FilterSetSize
ROWS = 12  # rows of A per step of the matrix kernel, SgemmKernelAvx512F.S
SMALL_WEIGHTS = 1024  # bytes below which weights cost a call, not a transfer
SYMMETRIC_FILTERS = 16  # fewest filters, and their granularity, of the symmetric int8 convolution

_BINARY = frozenset({"Add", "Mul", "Sub", "Div", "Max", "Min", "Pow", "QLinearAdd", "QLinearMul"})
_MATRIX = frozenset({
    "Gemm", "MatMul", "FusedMatMul", "FusedMatMulActivation", "QGemm", "QLinearMatMul", "MatMulInteger",
    "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits",
})  # fmt: skip
_LAYOUT_MATTERS = ("Pool", "Concat")


@dataclass(frozen=True)
class Machine:
    """What the tiles and caches are: channels per block, and bytes of the cache a core has for itself."""

    block: int = 16
    cache_bytes: int = 1 << 20


def kernel_class(row: KernelRow, machine: Machine) -> str:
    """The piece of runtime code the kernel runs in, for example "Conv.nchwc.depthwise" or "QLinearAdd.broadcast"."""
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


def _channels(shape: Sequence[int], row: KernelRow) -> int:
    return shape[-1] if row.layout == "nhwc" else shape[1]


def _pixels(shape: Sequence[int], row: KernelRow) -> tuple[int, int]:
    """(rows, columns) of a feature map; one-dimensional maps have one row."""
    spatial = tuple(shape[1:-1]) if row.layout == "nhwc" else tuple(shape[2:])
    return (1, spatial[0]) if len(spatial) == 1 else (prod(spatial[:-1]), spatial[-1])


def _convolution_kind(row: KernelRow, machine: Machine) -> str:
    inputs, outputs = _channels(row.input_shapes[0], row), _channels(row.output_shape, row)
    size = "pointwise" if prod(row.kernel) == 1 else "spatial"
    if row.groups > 1:
        if row.groups == outputs and row.groups >= inputs:
            regular = row.precision == "fp32" or row.groups % SYMMETRIC_FILTERS == 0
            return "depthwise" if regular else "depthwise_irregular"
        if row.layout == "nchw":
            return f"grouped_{size}"
    # the blocked and the symmetric kernels run a group like a convolution of its own: one class, groups or not
    if row.layout == "nchwc":
        return size if inputs >= machine.block else "stem"
    if row.precision == "int8":
        symmetric = (inputs // row.groups) % 4 == 0 and outputs // row.groups >= SYMMETRIC_FILTERS
        return f"{size}" if symmetric else f"{'grouped_' if row.groups > 1 else ''}gemm_{size}"
    return size


def _transpose_kind(row: KernelRow) -> str:
    given, made = row.input_shapes[0], row.output_shape
    if len(given) == 4 and row.layout == "nhwc":
        return "layout"
    return "rows" if given[-1] == made[-1] else "general"


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

    The column "memory:weights" holds weight bytes: it is scaled by the caller with how much of the network's data
    exceeds the cache, because whether weights are at hand depends on what the rest of the network evicts.
    """
    kind = kernel_class(row, machine)
    if row.op.endswith("Conv"):
        columns = _convolution(row, machine)
    elif row.op in _MATRIX:
        columns = _matrix(row)
    elif "Pool" in row.op:
        columns = _pool(row)
    else:
        columns = _movement(row)
    named = {f"{kind}:{name}": value for name, value in columns.items() if value > 0}
    for name in row.fused:  # one price for all kernels of a layout: it is the same loop over the output
        named[f"fused.{row.layout}:{name}"] = prod(row.output_shape) / 1e6
    if row.bytes_weights > SMALL_WEIGHTS:
        named["memory:weights"] = row.bytes_weights / 1e6
    return named


def _convolution(row: KernelRow, machine: Machine) -> Columns:
    image = row.input_shapes[0]
    inputs, outputs = _channels(image, row), _channels(row.output_shape, row)
    height, width = _pixels(row.output_shape, row)
    batch, taps = row.output_shape[0], prod(row.kernel)
    columns: Columns = {
        "calls": 1.0,
        "bytes_in": prod(image) * (1 if row.precision == "int8" else 4) / 1e6,
        "bytes_out": row.bytes_out / 1e6,
        "bytes_weights": row.bytes_weights / 1e6,
    }
    macs = row.macs / 1e6
    if row.stride and max(row.stride) > 1 and row.layout != "nhwc":  # there, pointers make every stride alike
        columns["macs_strided"] = macs
    columns[f"macs_{_shape_kind(row.kernel)}"] = macs
    if row.layout == "nchwc":
        columns.update(_blocked(row, machine, inputs, outputs, batch, height, width, taps))
    elif row.layout == "nhwc":
        columns.update(_symmetric(row, inputs, outputs, batch * height * width, taps))
    else:
        columns.update(_unrolled(row, inputs, outputs, batch, height * width, taps))
    return columns


def _shape_kind(kernel: Sequence[int]) -> str:
    return "x".join(str(extent) for extent in kernel) if len(set(kernel)) == 1 else "line"


def _blocked(
    row: KernelRow, machine: Machine, inputs: int, outputs: int, batch: int, height: int, width: int, taps: int
) -> Columns:
    """Blocked layout: sets of 1 to 4 filter blocks; 6 pixels at once inside, single pixels at the padded edges."""
    block = machine.block
    depthwise = row.groups > 1 and row.groups == outputs
    depth = 1 if depthwise else inputs // row.groups if inputs < block or row.groups > 1 else _up(inputs, block)
    flat = taps == 1 and max(row.stride, default=1) == 1
    lines, line = (batch, height * width) if flat else (batch * height, width)
    edge = 0 if flat else _edge_pixels(row, width)
    full, rest = (line - edge) // PIXELS * PIXELS, (line - edge) % PIXELS
    work = lines * depth * taps * block / 1e6
    blocks = -(-outputs // block)
    columns: Columns = {}
    if depthwise:
        return {
            "macs_full": work * blocks * full, "macs_rest": work * blocks * rest, "macs_edge": work * blocks * edge,
            "lines": lines * blocks * taps / 1e6, "line_starts": lines * blocks / 1e6,
        }  # fmt: skip
    per_group = max(1, blocks // row.groups)
    for size, count in _filter_sets(per_group, row.groups):
        columns[f"macs_full_{size}"] = work * count * size * full
        # an incomplete step takes as long as its longest chain of dependent additions, however few filters it has
        columns[f"macs_rest_{size}"] = work * count * size * rest
        columns[f"steps_rest_{size}"] = work * count * (rest > 0)
        columns[f"macs_edge_{size}"] = work * count * size * edge
    sets = sum(count for _, count in _filter_sets(per_group, row.groups))
    sweeps = max(1, depth // block) if not flat else -(-depth // 128)
    columns["lines"] = lines * sets * sweeps / 1e6
    columns["taps"] = lines * sets * sweeps * taps / 1e6
    # every sweep over a block of input channels reads and writes the partial sums of a filter set
    partial = 4 * outputs * lines * line * max(0, sweeps - 1) / 1e6
    set_bytes = 4 * min(FILTER_BLOCKS, per_group) * block * lines * line
    columns["partial_near" if set_bytes < 32768 else "partial_far"] = partial
    return columns


def _filter_sets(blocks: int, groups: int) -> list[tuple[int, int]]:
    """(blocks in the set, sets of that size)."""
    whole, rest = divmod(blocks, FILTER_BLOCKS)
    sets = [(FILTER_BLOCKS, whole * groups)] if whole else []
    return sets + ([(rest, groups)] if rest else [])


def _edge_pixels(row: KernelRow, width: int) -> int:
    """Pixels of an output line whose window reaches into the padding, "same" padding assumed."""
    reach = row.kernel[-1]
    stride = row.stride[-1] if row.stride else 1
    given = _pixels(row.input_shapes[0], row)[1]
    padding = max(0, (width - 1) * stride + reach - given)
    left = -(-min(reach // 2, padding) // stride)
    right = -(-max(0, padding - reach // 2) // stride)
    return min(width, left + right)


def _symmetric(row: KernelRow, inputs: int, outputs: int, pixels: int, taps: int) -> Columns:
    """int8, channels last: the direct symmetric kernel where channels allow it, else unrolling and a product."""
    groups = row.groups
    depth = inputs // groups
    full, rest = pixels // PIXELS * PIXELS, pixels % PIXELS
    if groups > 1 and groups == outputs:
        work = outputs * taps / 1e6
        return {
            "macs": work * pixels, "steps_rest": work * (rest > 0), "pointers": pixels * taps / 1e6,
            "pixels": pixels / 1e6, "channel_taps": outputs * taps / 1e6,
        }  # fmt: skip
    per_group = outputs // groups
    wide, narrow = divmod(_up(per_group, SYMMETRIC_FILTERS), 64)
    work = _up(depth, 4) * taps * groups / 1e6
    columns: Columns = {
        "pointers": pixels * taps * groups / 1e6,
        "requantised": pixels * outputs / 1e6,
        "group_calls": float(groups) if groups > 1 else 0.0,
        "group_pixels": pixels * groups / 1e6 if groups > 1 else 0.0,
        "unrolled": pixels * depth * taps * groups / 1e6,
    }
    columns["macs_full_64"] = work * 64 * wide * full
    columns["steps_rest_64"] = work * wide * (rest > 0)
    columns["macs_rest_64"] = work * 64 * wide * rest
    if narrow:
        columns[f"macs_full_{narrow}"] = work * narrow * full
        columns[f"macs_rest_{narrow}"] = work * narrow * rest
        columns[f"steps_rest_{narrow}"] = work * (rest > 0)
    odd = per_group % SYMMETRIC_FILTERS
    if odd:
        columns["pixels_odd"] = pixels * groups / 1e6
    return columns


def _unrolled(row: KernelRow, inputs: int, outputs: int, batch: int, pixels: int, taps: int) -> Columns:
    """Plain layout: per group, patches are unrolled and multiplied."""
    groups = row.groups
    depth, filters = inputs // groups, outputs // groups
    columns = _product(filters, pixels, depth * taps, groups * batch)
    columns["unrolled"] = 0.0 if taps == 1 and max(row.stride, default=1) == 1 else inputs * taps * pixels * batch / 1e6
    columns["group_calls"] = float(groups * batch) if groups > 1 else 0.0
    return columns


def _matrix(row: KernelRow) -> Columns:
    m, n, k, batch = matrix_shape(row)
    columns = _product(m, n, k, batch)
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


def _product(m: int, n: int, k: int, batch: int) -> Columns:
    """A product of (m, k) and (k, n): whole tiles, the rows left over, and the columns left over."""
    whole, rest = m // ROWS * ROWS, m % ROWS
    wide = _up(n, 16)
    work = k * batch / 1e6
    return {
        "macs_tiles": whole * wide * work,
        "macs_rows_left": rest * wide * work,
        "steps_rows_left": wide * work * (rest > 0),
        "macs_odd_columns": m * (wide - n) * work,
        "tile_starts": -(-m // ROWS) * (wide / 32) * -(-k // 128) * batch / 1e6,
    }


def _pool(row: KernelRow) -> Columns:
    taps = prod(row.kernel) if row.kernel else 1
    out = prod(row.output_shape)
    lines = prod(row.output_shape[:-1])
    return {
        "calls": 1.0, "taps": 0.0 if "Global" in row.op else out * taps / 1e6, "elements_in": _elements_in(row) / 1e6,
        "elements_out": out / 1e6, "lines": lines / 1e6, "channels": _channels(row.output_shape, row) / 1e6,
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
    if row.op == "Transpose" and prod(row.output_shape[1:-1]) % 1024 == 0:
        columns["conflicts"] = out / 1e6  # lines a power of two apart fall into the same sets of the cache
    if row.op.endswith(("Concat", "Split")):
        columns["pieces"] = float(len(row.input_shapes))
        columns["copies"] = len(row.input_shapes) * prod(row.output_shape[:-1]) / 1e6 if row.layout == "nhwc" else 0.0
    return columns


def _elements_in(row: KernelRow) -> int:
    return sum(prod(shape) for shape in row.input_shapes)


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


def extent_of(row: KernelRow) -> Mapping[str, float]:
    """What tells whether a kernel lies in the calibrated range of its class: work, bytes moved, weights."""
    return {
        "macs": float(row.macs),
        "bytes": float(row.bytes_in + row.bytes_out),
        "weights": float(row.bytes_weights),
        "taps": float(prod(row.kernel)) if row.kernel and "Global" not in row.op else 1.0,
    }
