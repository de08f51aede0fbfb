"""How evenly several threads share a kernel, by the runtime's own rules."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest

from automc.cost.features import features
from automc.cost.kernels import KernelRow, Layout, Precision
from automc.cost.sharing import handed_out, unevenness
from automc.cost.tiles import Machine

ONE = Machine(block=16, spill=(0.5, 1.5))
TWO = replace(ONE, threads=2, pieces=True)
FOUR = replace(TWO, threads=4)


def conv(
    depth: int,
    filters: int,
    size: int,
    kernel: int = 3,
    groups: int = 1,
    layout: Layout = "nhwc",
    precision: Precision = "int8",
    batch: int = 1,
) -> KernelRow:
    def shape(channels: int) -> tuple[int, ...]:
        return (batch, size, size, channels) if layout == "nhwc" else (batch, channels, size, size)

    width = 1 if precision == "int8" else 4
    macs = batch * size * size * filters * depth // groups * kernel**2
    return KernelRow(
        "conv", "QLinearConv" if precision == "int8" else "Conv", precision, layout, (shape(depth),), shape(filters),
        macs, prod(shape(depth)) * width, prod(shape(filters)) * width, filters * depth // groups * kernel**2 * width,
        kernel=(kernel, kernel), stride=(1, 1), groups=groups,
    )  # fmt: skip


def row(op: str, shape: tuple[int, ...], precision: Precision, kernel: tuple[int, ...] = ()) -> KernelRow:
    return KernelRow(op, op, precision, "nchw", (shape,), shape, 0, prod(shape), prod(shape), 0, kernel=kernel)


def gemm(rows: int, depth: int, columns: int) -> KernelRow:
    macs = rows * depth * columns
    return KernelRow("fc", "Gemm", "fp32", "nchw", ((rows, depth),), (rows, columns), macs, 4, 4, 4 * depth * columns)


@pytest.mark.parametrize(
    ("kernel", "two", "four"),
    [
        # a group of 4 filters of 36 weights: 65,536 of its MACs are 456 pixels and more, all of this picture
        (conv(64, 64, 14, groups=16), 2.0, 4.0),
        # twice that and 328: the busiest has 456 of 784 pixels
        (conv(64, 64, 28, groups=16), 2 * 456 / 784, 4 * 456 / 784),
        # one step of 6 pixels is enough, but 33 are too many: 8 of 24 and one of 4, or 16 of 12 and one of 4
        (conv(64, 64, 14), 2 * (4 * 24 + 4) / 196, 4 * (4 * 12 + 4) / 196),
        (conv(64, 64, 14, groups=64), 2 * (4 * 24 + 4) / 196, 4 * (4 * 12 + 4) / 196),  # cut as if it were dense
        # a vector: one pixel, whatever the weights
        (conv(1024, 1024, 1, kernel=1), 2.0, 4.0),
        # lines of a set of four blocks of filters: 7, and 14 where there are two sets
        (conv(64, 64, 7, layout="nchwc", precision="fp32"), 8 / 7, 8 / 7),
        (conv(64, 80, 7, layout="nchwc", precision="fp32"), 1.0, 16 / 14),
        (conv(64, 64, 1, kernel=1, layout="nchwc", precision="fp32"), 2.0, 4.0),
        # groups of 3 filters on more pixels than that: five groups; and 30 filters on 16 pixels, products of their own
        (conv(15, 15, 8, groups=5, layout="nchw", precision="fp32"), 6 / 5, 8 / 5),
        (conv(60, 60, 4, groups=2, layout="nchw", precision="fp32"), 1.0, 2.0),
        (gemm(1, 100, 100), 2.0, 4.0),
        (gemm(1, 400, 400), 1.0, 4 / 3),
        # one million taps, at an estimate of 1.34 cycles each: above what two and four threads ask for
        (row("QLinearAveragePool", (1, 64, 42, 42), "int8", (3, 3)), 1.0, 1.0),
        (row("QLinearAveragePool", (1, 64, 14, 14), "int8", (3, 3)), 2.0, 4.0),
        (row("QLinearSoftmax", (2, 147, 147), "int8"), 2.0, 4.0),
        (row("QLinearSoftmax", (2, 191, 191), "int8"), 1.0, 2.0),
        (row("Relu", (1, 64, 14, 14), "fp32"), 1.0, 1.0),
    ],
)
def test_the_busiest_thread_decides(kernel: KernelRow, two: float, four: float) -> None:
    assert unevenness(kernel, TWO) == pytest.approx(two)
    assert unevenness(kernel, FOUR) == pytest.approx(four)
    assert unevenness(kernel, ONE) == 1.0


def test_all_work_is_scaled_and_what_a_call_takes_is_not() -> None:
    kernel = conv(64, 64, 14, groups=16)
    alone, shared = features(kernel, ONE), features(kernel, TWO)
    assert shared["QLinearConv.nhwc.grouped_gemm_spatial:macs_full_16"] == pytest.approx(
        2 * alone["QLinearConv.nhwc.grouped_gemm_spatial:macs_full_16"]
    )
    for name in ("QLinearConv.nhwc.grouped_gemm_spatial:calls", "QLinearConv.nhwc.grouped_gemm_spatial:group_calls"):
        assert shared[name] == alone[name]
    assert shared["memory:activations"] == alone["memory:activations"]


def test_images_are_handed_out_one_after_the_other_where_they_are_in_pieces() -> None:
    assert handed_out(conv(64, 64, 14, batch=8), TWO) == 8
    assert handed_out(conv(64, 64, 14, groups=16, batch=8), TWO) == 0
    assert handed_out(conv(64, 64, 14, batch=8), ONE) == 0


def test_earlier_calibrations_on_several_threads_count_as_they_did() -> None:
    earlier = replace(TWO, pieces=False)
    for kernel in (conv(64, 64, 14, groups=16), gemm(1, 100, 100)):
        counted = features(kernel, earlier)
        unshared = next(name for name in counted if name.endswith(":macs_unshared"))
        assert {name: value for name, value in counted.items() if name != unshared} == features(kernel, ONE)
