"""How evenly the runtime's threads share a kernel: what the busiest of them has to do decides how long it takes.

ONNX Runtime cuts a kernel into pieces by rules of its own, and few of them cut small work at all:

- integer convolutions: stretches of output pixels of at least 65,536 multiply-accumulates of one group, whole steps of
  the kernel, at most five a thread, one image after the other (onnxruntime/core/providers/cpu/quantization/
  qlinearconv.cc: ComputeOutputStride); a grouped one on a small picture is a single piece;
- blocked float convolutions: lines of the output by sets of four blocks of filters, as many for each thread
  (onnxruntime/core/mlas/lib/snchwc.cpp);
- grouped float convolutions in the plain layout: whole groups, unless they have more filters than output pixels, which
  are products of their own, one after the other (onnxruntime/core/mlas/lib/convolve.cpp);
- float products of matrices: a thread for every 65,536 multiply-accumulates (mlas/lib/sgemm.cpp);
- loops over elements: as many threads as an estimate of their cycles fills (core/common/threadpool.cc, after Eigen's
  TensorCostModel), for the operators in CYCLES.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod

from automc.cost.kernels import KernelRow
from automc.cost.tiles import Machine, channels_of, pixels_of, round_up

PIECE_MACS = 65_536  # fewest of a piece of an integer convolution, and those of a product that fill a thread
STEP = 6  # output pixels per step of the integer kernels
MOST_PIECES = 5  # of an integer convolution, a thread; on ARM the runtime allows 64
FILTER_BLOCKS = 4  # of a blocked convolution, in a set
START_CYCLES, THREAD_CYCLES = 100_000, 100_000
_BYTE_CYCLES = 11 / 64
CYCLES: Mapping[str, float] = {
    # a tap: one byte in, one out, one cycle (qlinear_pool.cc); an element: three in, one out, three cycles
    "QLinearAveragePool": 1 + 2 * _BYTE_CYCLES,
    "QLinearSoftmax": 3 + 4 * _BYTE_CYCLES,
}
"""What the runtime takes an element, or a tap of a window, to cost. It is the estimate that decides, not the cost."""


def unevenness(row: KernelRow, machine: Machine) -> float:
    """Times as long as if the kernel were shared evenly: 1.0, up to the number of threads where one does it all."""
    threads = machine.threads
    if threads < 2 or not machine.pieces:
        return 1.0
    if row.op == "QLinearConv":
        return _busiest(*_stretches(row, threads), threads)
    if row.op == "Conv" and row.layout == "nchwc":
        return _busiest(_lines(row, machine), 1.0, threads)
    if row.op == "Conv" and row.layout == "nchw" and row.groups > 1:
        return _of_groups(row, threads)
    if row.op in ("Gemm", "MatMul", "FusedMatMul") and row.precision == "fp32":
        return threads / _filled(row.macs, threads)
    if row.op in CYCLES:
        taps = prod(row.kernel) if row.op.endswith("Pool") else 1
        cycles = prod(row.output_shape) * taps * CYCLES[row.op]
        return threads / min(threads, max(1, int((cycles - START_CYCLES) / THREAD_CYCLES + 0.9)))
    return 1.0


def handed_out(row: KernelRow, machine: Machine) -> int:
    """How often the work of an integer convolution is handed to threads: once an image of more than one piece."""
    if machine.threads < 2 or not machine.pieces or row.op != "QLinearConv":
        return 0
    return row.output_shape[0] if _stretches(row, machine.threads)[0] > 1 else 0


def _busiest(pieces: int, last: float, threads: int) -> float:
    """As `unevenness`. last: how much of a whole piece the last one is."""
    rounds = ceil(pieces / threads)
    with_the_last = pieces % threads == 1  # alone in its round
    return threads * (rounds - 1 + (last if with_the_last else 1.0)) / (pieces - 1 + last)


def _filled(macs: int, threads: int) -> int:
    """How many threads a product of matrices is given."""
    return min(threads, macs // PIECE_MACS + 1)


def _of_groups(row: KernelRow, threads: int) -> float:
    pieces, pixels = row.output_shape[0] * row.groups, prod(pixels_of(row.output_shape, row))
    if prod(row.kernel) > 1 and channels_of(row.output_shape, row) // row.groups > pixels:
        return threads / _filled(row.macs // pieces, threads)
    return _busiest(pieces, 1.0, threads)


def _stretches(row: KernelRow, threads: int) -> tuple[int, float]:
    """Pieces of an image, and how much of a whole one the last is."""
    outputs, pixels = channels_of(row.output_shape, row), prod(pixels_of(row.output_shape, row))
    weights = row.macs // max(1, row.output_shape[0] * pixels)
    depthwise = 1 < row.groups == outputs == channels_of(row.input_shapes[0], row)
    weights = weights * outputs if depthwise else weights // row.groups  # a depthwise one is cut as if it were dense
    stretch = round_up(max(STEP, ceil(PIECE_MACS / max(1, weights))), STEP)
    if ceil(pixels / stretch) > MOST_PIECES * threads:
        stretch = round_up(ceil(pixels / (MOST_PIECES * threads)), STEP)
    pieces = ceil(pixels / stretch)
    return pieces, (pixels - (pieces - 1) * stretch) / stretch


def _lines(row: KernelRow, machine: Machine) -> int:
    outputs = channels_of(row.output_shape, row)
    blocks, (height, _) = ceil(outputs / machine.block), pixels_of(row.output_shape, row)
    depthwise = 1 < row.groups == outputs
    sets = blocks if depthwise else row.groups * ceil(max(1, blocks // row.groups) / FILTER_BLOCKS)
    return row.output_shape[0] * sets * height
