"""Shapes, orders and live memory, worked by hand."""

from __future__ import annotations

import pytest

from automc.cost.lowering import depth_first, peak_bytes
from automc.cost.shapes import FLOAT, INT8, UINT8, Node, Tensor, broadcast, infer, matmul_shape, windows
from automc.errors import UnseenOperatorError


def node(op: str, inputs: str = "x", outputs: str = "y", **attributes: int | str | tuple[int, ...]) -> Node:
    return Node(op, op, "", tuple(inputs.split()), tuple(outputs.split()), attributes)


def test_broadcasting_follows_numpy() -> None:
    assert broadcast([(3, 1, 5), (4, 1)]) == (3, 4, 5)
    assert broadcast([(), (2, 3)]) == (2, 3)
    with pytest.raises(ValueError, match="do not broadcast"):
        broadcast([(2, 3), (2, 4)])


def test_a_window_counts_its_positions() -> None:
    # 3x3 at stride 2 over 7 with padding 1 on both sides: (7 + 2 - 3) // 2 + 1 = 4
    assert windows((7, 7), (3, 3), node("Conv", strides=(2, 2), pads=(1, 1, 1, 1))) == (4, 4)
    # dilation 2 makes a 3-window reach 5: 7 - 5 + 1 = 3
    assert windows((7,), (3,), node("Conv", dilations=(2,))) == (3,)
    # padding at the end alone: (8 + 1 - 3) // 2 + 1 = 4
    assert windows((8,), (3,), node("Conv", strides=(2,), pads=(0, 1))) == (4,)
    assert windows((7,), (3,), node("Conv", strides=(2,), auto_pad="SAME_UPPER")) == (4,)
    assert windows((7,), (3,), node("Conv", strides=(2,), auto_pad="VALID")) == (3,)


def test_a_rounded_up_pool_has_no_window_that_starts_in_the_padding() -> None:
    # 5 wide, window 2, stride 2: positions 0, 2, 4; rounded down 2 of them, rounded up 3
    assert windows((5,), (2,), node("MaxPool", strides=(2,)), ceil_mode=False) == (2,)
    assert windows((5,), (2,), node("MaxPool", strides=(2,)), ceil_mode=True) == (3,)
    # 4 wide, window 1, stride 3, padding 1: ceil((4 + 2 - 1) / 3) + 1 = 3, but the third would start at 6 >= 4 + 1
    assert windows((4,), (1,), node("MaxPool", strides=(3,), pads=(1, 1)), ceil_mode=True) == (2,)


def test_a_fused_matrix_product_may_move_its_rows_in_front_of_the_batch() -> None:
    plain = node("FusedMatMul")
    assert matmul_shape(plain, (2, 3, 4, 5), (5, 6)) == (2, 3, 4, 6)
    assert matmul_shape(node("FusedMatMul", transB=1), (4, 5), (6, 5)) == (4, 6)
    # (rows 4, batch 2, 3, inner 5) by (inner 5, batch 2, 3, columns 6)
    moved = node("FusedMatMul", transBatchA=1, transBatchB=1)
    assert matmul_shape(moved, (4, 2, 3, 5), (5, 2, 3, 6)) == (2, 3, 4, 6)


def test_operators_of_the_runtime_have_shapes_and_types() -> None:
    image = Tensor((1, 20, 8, 8), FLOAT)
    assert infer(node("ReorderInput"), [image], 16) == (Tensor((1, 32, 8, 8), FLOAT),)
    assert infer(node("ReorderInput"), [image], 8) == (Tensor((1, 24, 8, 8), FLOAT),)
    blocked = Tensor((1, 32, 8, 8), FLOAT)
    assert infer(node("ReorderOutput", channels=20), [blocked], 16) == (image,)
    last = Tensor((1, 8, 8, 20), UINT8)
    weights = Tensor((7, 20, 3, 3), INT8, constant=True)
    convolved = infer(node("QLinearConv", channels_last=1), [last, None, None, weights], 16)
    assert convolved == (Tensor((1, 6, 6, 7), UINT8),)
    assert infer(node("DequantizeLinear"), [last, Tensor((), FLOAT)], 16) == (Tensor((1, 8, 8, 20), FLOAT),)
    assert infer(node("QLinearConcat", axis=-1), [None, None, last, None, None, last, None, None], 16) == (
        Tensor((1, 8, 8, 40), UINT8),
    )


def test_an_integer_gemm_without_an_output_scale_puts_out_floats() -> None:
    data, weights = Tensor((2, 8), UINT8), Tensor((4, 8), INT8, constant=True)
    scale = Tensor((), FLOAT, constant=True)
    gemm = node("QGemm", transB=1)
    with_scale = [data, scale, scale, weights, scale, scale, None, scale, scale]
    assert infer(gemm, with_scale, 16) == (Tensor((2, 4), UINT8),)
    assert infer(gemm, with_scale[:7], 16) == (Tensor((2, 4), FLOAT),)


def test_an_unknown_element_type_is_refused() -> None:
    with pytest.raises(UnseenOperatorError, match=r"shape \[2, 3\] has the unknown element type 99"):
        _ = Tensor((2, 3), 99).bytes


def test_independent_branches_come_in_the_order_of_their_reader() -> None:
    left, right = node("Left", "x", "l"), node("Right", "x", "r")
    join = node("Join", "r l", "y")
    for given in ([left, right, join], [right, left, join]):
        assert [item.op for item in depth_first(given, ["y"])] == ["Right", "Left", "Join"]


def test_what_no_output_reads_is_left_out() -> None:
    assert [item.op for item in depth_first([node("Dead", "x", "d"), node("Live")], ["y"])] == ["Live"]


def test_a_view_keeps_its_source_alive() -> None:
    nodes = [node("Tanh", "x", "a"), node("Reshape", "a s", "b"), node("Tanh", "x", "c"), node("Add", "b c", "y")]
    tensors = {name: Tensor((10,), FLOAT) for name in "xabcy"}
    # x 40 bytes until the second Tanh; a (seen as b) and c until the sum; y at the end: a + c + x, then a + c + y
    assert peak_bytes(nodes, tensors, ["x"], ["y"]) == 120


def test_a_graph_of_nothing_holds_its_input() -> None:
    assert peak_bytes([], {"x": Tensor((10,), FLOAT)}, ["x"], ["x"]) == 40
