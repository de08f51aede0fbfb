"""Columns of convolutions, by the kernel the runtime has for their layout, precision, groups and channels.

The tiles are those of ONNX Runtime's MLAS library (onnxruntime/core/mlas/lib): blocked convolutions work on
`Machine.block` channels, up to 4 blocks of filters and 6 output pixels at once; the symmetric int8 convolution on 64
and 16 filters, 4 input channels and 6 pixels; what neither takes is unrolled into a matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

from automc.cost.kernels import KernelRow
from automc.cost.tiles import Columns, Machine, channels_of, pixels_of, product, round_up

PIXELS = 6  # output pixels per step of the convolution kernels, mlas/lib/amd64/SconvKernel*.S
FILTER_BLOCKS = 4  # blocks of filters per step, snchwc.cpp: FilterSetSize
INTEGER_COLUMNS = 48  # columns per step of the integer matrix kernel, QgemmU8X8KernelAvx512Core.S
SYMMETRIC_FILTERS = 16  # fewest filters, and their granularity, of the symmetric int8 convolution


def is_symmetric(row: KernelRow, inputs: int, outputs: int) -> bool:
    """Whether the direct int8 convolution takes it; all else is unrolled and multiplied (convsym.cpp: PackWSize)."""
    return row.groups == 1 and inputs % 4 == 0 and outputs % 4 == 0 and outputs >= SYMMETRIC_FILTERS


def convolution(row: KernelRow, machine: Machine) -> Columns:
    image = row.input_shapes[0]
    inputs, outputs = channels_of(image, row), channels_of(row.output_shape, row)
    height, width = pixels_of(row.output_shape, row)
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
    elif row.layout == "nhwc" and (is_symmetric(row, inputs, outputs) or row.groups == inputs == outputs):
        columns.update(_symmetric(row, inputs, outputs, batch, height * width, taps))
    elif row.layout == "nhwc":
        columns.update(_integer_product(row, inputs, outputs, batch, height * width, taps))
    else:
        columns.update(_unrolled(row, inputs, outputs, batch, height, width, taps))
    return columns


def _shape_kind(kernel: Sequence[int]) -> str:
    return "x".join(str(extent) for extent in kernel) if len(set(kernel)) == 1 else "line"


def _blocked(
    row: KernelRow, machine: Machine, inputs: int, outputs: int, batch: int, height: int, width: int, taps: int
) -> Columns:
    """Blocked layout: sets of 1 to 4 filter blocks; 6 pixels at once inside, single pixels at the padded edges."""
    block = machine.block
    depthwise = row.groups > 1 and row.groups == outputs
    depth = 1 if depthwise else inputs // row.groups if inputs < block or row.groups > 1 else round_up(inputs, block)
    flat = taps == 1 and max(row.stride, default=1) == 1
    lines, line = (batch, height * width) if flat else (batch * height, width)
    down, across = _windows(row, height, width)
    cut = [count for count in across if count < row.kernel[-1]] if not flat else []
    edge = len(cut)
    full, rest = (line - edge) // PIXELS * PIXELS, (line - edge) % PIXELS
    # rows and columns of the window that lie in the padding are not multiplied
    taps_down = sum(down) / height
    work = lines * depth * taps_down * row.kernel[-1] * block / 1e6
    edge_work = work * sum(cut) / row.kernel[-1]
    blocks = -(-outputs // block)
    columns: Columns = {}
    if depthwise:
        return {
            "macs_full": work * blocks * full, "macs_rest": work * blocks * rest, "macs_edge": edge_work * blocks,
            "lines": lines * blocks * taps / 1e6, "line_starts": lines * blocks / 1e6,
        }  # fmt: skip
    per_group = max(1, blocks // row.groups)
    for size, count in _filter_sets(per_group, row.groups):
        columns[f"macs_full_{size}"] = work * count * size * full
        # an incomplete step takes as long as its longest chain of dependent additions, however few filters it has
        columns[f"macs_rest_{size}"] = work * count * size * rest
        columns[f"steps_rest_{size}"] = work * count * (rest > 0)
        columns[f"macs_edge_{size}"] = edge_work * count * size
        columns[f"pixels_edge_{size}"] = lines * depth / block * edge * count * row.kernel[-1] * taps_down / 1e6
    sets = sum(count for _, count in _filter_sets(per_group, row.groups))
    sweeps = max(1, depth // block) if not flat else -(-depth // 128)
    columns["lines"] = lines * sets * sweeps / 1e6
    columns["taps"] = lines * sets * sweeps * taps / 1e6
    # every sweep over a block of input channels reads and writes the partial sums of a filter set
    partial = 4 * outputs * lines * line * max(0, sweeps - 1) / 1e6
    set_bytes = 4 * min(FILTER_BLOCKS, per_group) * block * lines * line
    columns["partial_near" if set_bytes < 32768 else "partial_far"] = partial
    return columns


def _windows(row: KernelRow, height: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Taps inside the picture for every output row and for every output column."""
    given = pixels_of(row.input_shapes[0], row)
    stride, dilation = row.stride or (1,), row.dilation or (1,)
    across = _taps_inside(width, given[1], row.kernel[-1], stride[-1], dilation[-1])
    if len(row.kernel) < 2:
        return (1,) * height, across
    return _taps_inside(height, given[0], row.kernel[-2], stride[-2], dilation[-2]), across


def _filter_sets(blocks: int, groups: int) -> list[tuple[int, int]]:
    """(blocks in the set, sets of that size)."""
    whole, rest = divmod(blocks, FILTER_BLOCKS)
    sets = [(FILTER_BLOCKS, whole * groups)] if whole else []
    return sets + ([(rest, groups)] if rest else [])


@lru_cache(maxsize=4096)
def _taps_inside(made: int, given: int, reach: int, stride: int, dilation: int) -> tuple[int, ...]:
    """Taps of the window inside the picture at each of `made` positions of an axis, "same" padding assumed."""
    padding = max(0, (made - 1) * stride + (reach - 1) * dilation + 1 - given)
    before = min(reach // 2 * dilation, padding)
    starts = (position * stride - before for position in range(made))
    return tuple(sum(0 <= start + tap * dilation < given for tap in range(reach)) for start in starts)


def _symmetric(row: KernelRow, inputs: int, outputs: int, batch: int, image: int, taps: int) -> Columns:
    """int8, channels last: the direct symmetric kernel, image by image. image: its output pixels."""
    groups, pixels = row.groups, batch * image
    depth = inputs // groups
    full, rest, rests = _steps(batch, image)
    if groups > 1:  # depthwise
        work = outputs * taps / 1e6
        columns: Columns = {
            "macs": work * pixels, "steps_rest": work * rests, "pointers": pixels * taps / 1e6,
            "pixels": pixels / 1e6, "channel_taps": batch * outputs * taps / 1e6, "requantised": pixels * outputs / 1e6,
        }  # fmt: skip
        if outputs % SYMMETRIC_FILTERS:  # another kernel: vectors of 8 and 4 channels, then one by one, then rounding
            columns["macs_scalar"] = pixels * taps * (outputs % 4) / 1e6
            columns["macs_half"] = pixels * taps * (outputs % 8 // 4) / 1e6
            columns["requantised_odd"] = pixels * (outputs % 16) / 1e6
        return columns
    wide, narrow = divmod(round_up(outputs, SYMMETRIC_FILTERS), 64)
    work = depth * taps / 1e6
    columns = {
        "pointers": pixels * taps / 1e6,
        "requantised": pixels * outputs / 1e6,
        "pixels": pixels / 1e6,
        "macs_full_64": work * 64 * wide * full,
        "steps_rest_64": work * wide * rests,
        "macs_rest_64": work * 64 * wide * rest,
    }
    if narrow:
        columns[f"macs_full_{narrow}"] = work * narrow * full
        columns[f"macs_rest_{narrow}"] = work * narrow * rest
        columns[f"steps_rest_{narrow}"] = work * rests
    if outputs % SYMMETRIC_FILTERS:
        columns["pixels_odd"] = pixels / 1e6
    return columns


def _steps(batch: int, image: int) -> tuple[int, int, int]:
    """Pixels in whole steps, pixels in incomplete ones, and how many of these there are; images share no step."""
    return batch * (image // PIXELS * PIXELS), batch * (image % PIXELS), batch * (image % PIXELS > 0)


def _integer_product(row: KernelRow, inputs: int, outputs: int, batch: int, image: int, taps: int) -> Columns:
    """int8 where the symmetric kernel does not apply: patches are unrolled, packed, multiplied and requantised."""
    groups, pixels = row.groups, batch * image
    depth, filters = inputs // groups, outputs // groups
    full, rest, rests = _steps(batch, image)
    direct = taps == 1 and max(row.stride, default=1) == 1 and groups == 1
    work = round_up(depth * taps, 4) * groups / 1e6
    wide, narrow = divmod(round_up(filters, 16), INTEGER_COLUMNS)
    columns: Columns = {
        "unrolled": 0.0 if direct else pixels * depth * taps * groups / 1e6,
        "copies": 0.0 if direct else pixels * taps * groups / 1e6,
        "packed": pixels * work,
        "requantised": pixels * outputs / 1e6,
        "requantised_odd": pixels * groups * (filters % 16) / 1e6,
        "rows": pixels * groups / 1e6,
        "group_calls": float(groups * batch) if groups > 1 else 0.0,
        "macs_full": work * INTEGER_COLUMNS * wide * full,
        "macs_rest": work * INTEGER_COLUMNS * wide * rest,
        "steps_rest": work * wide * rests,
    }
    if narrow:
        columns[f"macs_full_{narrow}"] = work * narrow * full
        columns[f"macs_rest_{narrow}"] = work * narrow * rest
        columns[f"steps_rest_{narrow}"] = work * rests
    return columns


def _unrolled(row: KernelRow, inputs: int, outputs: int, batch: int, height: int, width: int, taps: int) -> Columns:
    """Plain layout: per group, patches are unrolled line by line of the output, for each tap, and multiplied."""
    groups, pixels = row.groups, height * width
    depth, filters = inputs // groups, outputs // groups
    columns = product(filters, pixels, depth * taps, groups * batch)
    if taps > 1 or max(row.stride, default=1) > 1:
        columns["unrolled"] = inputs * taps * pixels * batch / 1e6
        columns["unrolled_lines"] = inputs * taps * height * batch / 1e6
    columns["group_calls"] = float(groups * batch) if groups > 1 else 0.0
    return columns
