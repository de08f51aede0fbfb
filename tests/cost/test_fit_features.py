"""Kernel classes and columns, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from automc.cost.features import features, kernel_class, matrix_shape
from automc.cost.kernels import KernelRow, Layout, Precision
from automc.cost.tiles import Machine

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
    "one",
    [
        conv(16, 48, layout="nhwc", precision="int8"),  # direct; 64 pixels: ten steps of six and four left
        conv(18, 20, layout="nhwc", precision="int8"),  # unrolled
        conv(20, 20, groups=2, layout="nhwc", precision="int8"),
        conv(32, 32, groups=32, layout="nhwc", precision="int8"),
    ],
)
def test_two_images_in_int8_share_no_step(one: KernelRow) -> None:
    shape, made = one.input_shapes[0], one.output_shape
    two = replace(
        one, input_shapes=((2, *shape[1:]),), output_shape=(2, *made[1:]), macs=2 * one.macs,
        bytes_in=2 * one.bytes_in, bytes_out=2 * one.bytes_out,
    )  # fmt: skip
    once, twice = features(one, MACHINE), features(two, MACHINE)
    of_a_call = {name for name in once if name.endswith((":calls", "weights"))}
    assert any(":steps_rest" in name for name in once)
    assert twice == pytest.approx({name: value * (1 if name in of_a_call else 2) for name, value in once.items()})


def test_a_convolution_in_the_plain_layout_is_unrolled_line_by_line_for_each_tap() -> None:
    found = features(conv(30, 30, groups=30, layout="nchw"), MACHINE)
    assert found["Conv.nchw.depthwise:unrolled"] == pytest.approx(30 * 9 * 64 / 1e6)
    assert found["Conv.nchw.depthwise:unrolled_lines"] == pytest.approx(30 * 9 * 8 / 1e6)
    assert not any("unrolled" in name for name in features(conv(30, 30, kernel=1, layout="nchw"), MACHINE))


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
        (conv(16, 18, layout="nhwc", precision="int8"), "QLinearConv.nhwc.gemm_spatial"),
        (conv(32, 32, groups=2, layout="nhwc", precision="int8"), "QLinearConv.nhwc.grouped_gemm_spatial"),
        (conv(32, 32, groups=4, layout="nhwc", precision="int8"), "QLinearConv.nhwc.grouped_gemm_spatial"),
        (conv(24, 24, groups=24, layout="nhwc", precision="int8"), "QLinearConv.nhwc.depthwise_irregular"),
    ],
)
def test_convolutions_fall_into_the_classes_of_the_runtime(row: KernelRow, expected: str) -> None:
    assert kernel_class(row, MACHINE) == expected


def test_a_blocked_convolution_is_counted_in_steps_of_six_pixels_and_four_filter_blocks() -> None:
    found = features(conv(16, 80), MACHINE)
    # 80 filters are 5 blocks: a set of 4 and a set of 1. A line of 8 pixels has 2 at padded edges and 6 inside.
    # Of the 3 window rows, the first and the last line meet 2: 22 in all. One block of 16 filters, one pixel column
    # inside: 22 rows x 3 columns x 16 channels x 16 = 16,896 MACs; at an edge, 2 of the 3 columns.
    unit = 16_896 / 1e6
    assert found["Conv.nchwc.spatial:macs_full_4"] == pytest.approx(unit * 4 * 6)
    assert found["Conv.nchwc.spatial:macs_full_1"] == pytest.approx(unit * 1 * 6)
    assert found["Conv.nchwc.spatial:macs_edge_4"] == pytest.approx(unit * 4 * 2 * 2 / 3)
    assert "Conv.nchwc.spatial:macs_rest_4" not in found
    # full and edge of both sets are all that is multiplied: 22 x 22 window positions x 80 x 16 = 619,520
    counted = sum(value for name, value in found.items() if "macs_full" in name or "macs_edge" in name)
    assert counted == pytest.approx(619_520 / 1e6)


def test_a_window_larger_than_the_picture_is_multiplied_where_they_overlap() -> None:
    found = features(conv(16, 16, size=2, kernel=7), MACHINE)
    # every one of the 4 pixels sees all 4 pixels of the picture: 4 x 4 x 16 x 16 MACs, not 4 x 49 x 16 x 16
    assert found["Conv.nchwc.spatial:macs_edge_1"] == pytest.approx(4 * 4 * 256 / 1e6)


def test_an_unrolled_int8_convolution_is_packed_in_fours_and_multiplied_in_columns_of_48() -> None:
    found = features(conv(3, 58, layout="nhwc", precision="int8"), MACHINE)
    kind = "QLinearConv.nhwc.gemm_spatial"
    # depth 3 x 9 = 27, packed to 28; 64 pixels are 60 in steps of 6 and 4 left over; 58 filters are 48 and 16
    assert found[f"{kind}:packed"] == pytest.approx(64 * 28 / 1e6)
    assert found[f"{kind}:unrolled"] == pytest.approx(64 * 27 / 1e6)
    assert found[f"{kind}:macs_full"] == pytest.approx(28 * 48 * 60 / 1e6)
    assert found[f"{kind}:macs_rest_16"] == pytest.approx(28 * 16 * 4 / 1e6)
    assert found[f"{kind}:requantised_odd"] == pytest.approx(64 * 10 / 1e6)


def test_a_depthwise_int8_convolution_off_the_grid_of_16_pays_for_its_last_channels() -> None:
    on, off = (features(conv(n, n, groups=n, layout="nhwc", precision="int8"), MACHINE) for n in (32, 31))
    assert not any("scalar" in name or "odd" in name for name in on)
    # 31 channels: 24 in vectors of 8, 4 in a half, 3 one by one, at 64 pixels x 9 taps
    assert off["QLinearConv.nhwc.depthwise_irregular:macs_half"] == pytest.approx(64 * 9 / 1e6)
    assert off["QLinearConv.nhwc.depthwise_irregular:macs_scalar"] == pytest.approx(3 * 64 * 9 / 1e6)
    assert off["QLinearConv.nhwc.depthwise_irregular:requantised_odd"] == pytest.approx(64 * 15 / 1e6)


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
