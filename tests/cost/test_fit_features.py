"""Kernel classes and columns, counted by hand."""

from __future__ import annotations

import pytest

from automc.cost.features import Machine, features, kernel_class, matrix_shape
from automc.cost.kernels import KernelRow, Layout, Precision

MACHINE = Machine(block=16, cache_bytes=1 << 20)


def conv(
    channels: int,
    filters: int,
    *,
    size: int = 8,
    kernel: int = 3,
    groups: int = 1,
    stride: int = 1,
    layout: Layout = "nchwc",
    precision: Precision = "fp32",
    fused: tuple[str, ...] = (),
) -> KernelRow:
    out = size // stride
    given = (1, size, size, channels) if layout == "nhwc" else (1, channels, size, size)
    made = (1, out, out, filters) if layout == "nhwc" else (1, filters, out, out)
    wide = 1 if precision == "int8" else 4
    weights = filters * channels // groups * kernel**2
    return KernelRow(
        "c", "QLinearConv" if precision == "int8" else "Conv", precision, layout, (given,), made,
        weights * out * out, channels * size * size * wide, filters * out * out * wide, weights * wide,
        (kernel,) * 2, (stride,) * 2, (1, 1), groups, fused,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (conv(32, 32), "Conv.nchwc.spatial"),
        (conv(32, 32, kernel=1), "Conv.nchwc.pointwise"),
        (conv(3, 16), "Conv.nchwc.stem"),
        (conv(15, 16), "Conv.nchwc.stem"),
        (conv(16, 16), "Conv.nchwc.spatial"),
        (conv(32, 32, groups=32), "Conv.nchwc.depthwise"),
        (conv(32, 32, groups=2), "Conv.nchwc.spatial"),
        (conv(30, 30, groups=2, layout="nchw"), "Conv.nchw.grouped_spatial"),
        (conv(16, 16, layout="nhwc", precision="int8"), "QLinearConv.nhwc.spatial"),
        (conv(18, 16, layout="nhwc", precision="int8"), "QLinearConv.nhwc.gemm_spatial"),
        (conv(16, 15, layout="nhwc", precision="int8"), "QLinearConv.nhwc.gemm_spatial"),
        (conv(32, 32, groups=2, layout="nhwc", precision="int8"), "QLinearConv.nhwc.spatial"),
        (conv(32, 32, groups=4, layout="nhwc", precision="int8"), "QLinearConv.nhwc.grouped_gemm_spatial"),
        (conv(24, 24, groups=24, layout="nhwc", precision="int8"), "QLinearConv.nhwc.depthwise_irregular"),
    ],
)
def test_convolutions_fall_into_the_classes_of_the_runtime(row: KernelRow, expected: str) -> None:
    assert kernel_class(row, MACHINE) == expected


def test_a_blocked_convolution_is_counted_in_steps_of_six_pixels_and_four_filter_blocks() -> None:
    found = features(conv(16, 80), MACHINE)
    # 80 filters are 5 blocks: a set of 4 and a set of 1. A line of 8 pixels has 2 at padded edges and 6 inside.
    # One block of 16 filters, one pixel column: 8 lines x 16 channels x 9 taps x 16 = 18,432 MACs.
    unit = 18_432 / 1e6
    assert found["Conv.nchwc.spatial:macs_full_4"] == pytest.approx(unit * 4 * 6)
    assert found["Conv.nchwc.spatial:macs_full_1"] == pytest.approx(unit * 1 * 6)
    assert found["Conv.nchwc.spatial:macs_edge_4"] == pytest.approx(unit * 4 * 2)
    assert "Conv.nchwc.spatial:macs_rest_4" not in found
    # full and edge of both sets are all MACs: 8 x 8 pixels x 80 x 16 x 9 = 737,280
    counted = sum(value for name, value in found.items() if "macs_full" in name or "macs_edge" in name)
    assert counted == pytest.approx(737_280 / 1e6)


def test_a_pointwise_convolution_has_no_edges_and_one_line() -> None:
    found = features(conv(16, 16, kernel=1), MACHINE)
    # 64 pixels: 60 in full steps, 4 left over; 16 x 16 MACs each
    assert found["Conv.nchwc.pointwise:macs_full_1"] == pytest.approx(60 * 256 / 1e6)
    assert found["Conv.nchwc.pointwise:macs_rest_1"] == pytest.approx(4 * 256 / 1e6)
    assert not any("edge" in name for name in found)


def test_fused_activations_cost_the_same_in_every_kernel_of_a_layout() -> None:
    found = features(conv(16, 16, fused=("Add", "Relu")), MACHINE)
    assert found["fused.nchwc:Relu"] == found["fused.nchwc:Add"] == pytest.approx(1024 / 1e6)


def test_small_weights_are_no_transfer_and_large_ones_are() -> None:
    assert "memory:weights" not in features(conv(16, 16, kernel=1), MACHINE)  # 1,024 bytes
    assert features(conv(16, 16), MACHINE)["memory:weights"] == pytest.approx(9216 / 1e6)


def test_the_shape_of_a_product_is_read_from_its_row() -> None:
    row = KernelRow(
        "m", "MatMul", "fp32", "nchw", ((1, 4, 17, 8), (1, 4, 8, 17)), (1, 4, 17, 17), 4 * 17 * 17 * 8, 0, 0, 0
    )
    assert matrix_shape(row) == (17, 17, 8, 4)
    assert kernel_class(row, MACHINE) == "MatMul.activations"
    gemm = KernelRow("g", "Gemm", "fp32", "nchw", ((1, 64),), (1, 10), 640, 256, 40, 2600)
    assert matrix_shape(gemm) == (1, 10, 64, 1)
    assert kernel_class(gemm, MACHINE) == "Gemm.weights.vector"


def test_a_view_costs_its_call_alone() -> None:
    row = KernelRow("f", "Flatten", "fp32", "nchw", ((1, 64, 1, 1),), (1, 64), 0, 0, 0, 0)
    assert features(row, MACHINE) == {"Flatten.fp32:calls": 1.0}


def test_no_column_is_negative() -> None:
    for row in (conv(3, 7), conv(17, 1, layout="nchw"), conv(5, 5, groups=5, layout="nhwc", precision="int8", size=2)):
        assert all(value > 0 for value in features(row, MACHINE).values())
