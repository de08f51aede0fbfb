"""The writer puts exactly the spec's numbers into standard ONNX, and the runtime makes integer kernels of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from automc.cost.lowering import optimised
from automc.errors import CompressionError
from automc.export import run_onnx
from automc.techniques.plan import QuantiseEdit
from automc.techniques.quantspec import (
    QuantSpec,
    activation_edit,
    dequantise,
    integer_form,
    quantise,
    read_spec,
    role,
    room_for_bias,
    targets,
    weight_edit,
    write_qdq,
)


def graph(nodes: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray], shape: Sequence[int]) -> onnx.ModelProto:
    """A checked model from `input` (float32, `shape`) to `output`."""
    made = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    return model


def kernels(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in optimised(model).graph.node)


def test_a_weight_read_along_both_axes_is_quantised_as_a_whole() -> None:
    """An autoencoder whose decoder is its encoder transposed: 6 outputs along axis 0, then 4 along axis 1."""
    nodes = [
        helper.make_node("Gemm", ["input", "w", "b"], ["code"], name="encode", transB=1),
        helper.make_node("Gemm", ["code", "w", "c"], ["output"], name="decode"),
    ]
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(6, 4)), "b": random.normal(size=6), "c": random.normal(size=4)}
    model = graph(nodes, {name: value.astype(np.float32) for name, value in weights.items()}, (1, 4))
    found = targets(model)
    assert [(name, axis) for name, axis, _ in found.weights] == [("w", None), ("w", None)]
    spec = QuantSpec(
        (
            *(activation_edit(-3.0, 3.0, name, "uint8") for name in ("input", "code")),
            weight_edit(weights["w"], "w", None, "int8"),
        )
    )
    data = random.normal(size=(1, 4)).astype(np.float32)
    np.testing.assert_allclose(run_onnx(write_qdq(model, spec), [data]), run_onnx(model, [data]), atol=0.3)


def test_a_mask_added_before_a_softmax_stays_in_float() -> None:
    nodes = [
        helper.make_node("MatMul", ["input", "input"], ["scores"], name="scores"),
        helper.make_node("Exp", ["input"], ["mask"], name="mask"),
        helper.make_node("Add", ["scores", "mask"], ["masked"], name="masked"),
        helper.make_node("Softmax", ["masked"], ["shares"], name="shares"),
        helper.make_node("MatMul", ["shares", "input"], ["output"], name="out"),
    ]
    found = targets(graph(nodes, {}, (4, 4)))
    assert found.activations == ("input", "scores", "shares")  # neither the mask, which may be infinite, nor the sum
    assert [node.name for node, _ in found.left if node.op_type == "Add"] == ["masked"]


def residual_block() -> tuple[onnx.ModelProto, np.random.Generator]:
    """input (1, 16, 8, 8) -> Conv, Relu -> Conv -> Add -> Relu -> GlobalAveragePool -> Flatten -> Gemm."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["input", "a.weight", "a.bias"], ["a"], name="a", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["ar"], name="ar"),
        helper.make_node("Conv", ["ar", "b.weight", "b.bias"], ["b"], name="b", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "ar"], ["sum"], name="sum"),
        helper.make_node("Relu", ["sum"], ["sumr"], name="sumr"),
        helper.make_node("GlobalAveragePool", ["sumr"], ["pool"], name="pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["output"], name="fc", transB=1),
    ]
    shapes = {"a.weight": (16, 16, 3, 3), "a.bias": (16,), "b.weight": (16, 16, 3, 3), "b.bias": (16,)}
    shapes |= {"fc.weight": (10, 16), "fc.bias": (10,)}
    weights = {name: (random.normal(size=shape) * 0.1).astype(np.float32) for name, shape in shapes.items()}
    return graph(nodes, weights, (1, 16, 8, 8)), random


def spec_of(model: onnx.ModelProto, span: float = 4.0) -> QuantSpec:
    """Every target quantised: activations over [-span, span] (behind a Relu [0, span]), weights per channel."""
    found = targets(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    low = {name: 0.0 if name.endswith("r") or name in ("pool", "flat") else -span for name in found.activations}
    edits = {name: activation_edit(low[name], span, name, "uint8") for name in found.activations}
    edits |= {name: edits[lead].model_copy(update={"tensor": name}) for name, lead in found.followers.items()}
    weights = [weight_edit(constants[name], name, axis, "int8") for name, axis, _ in found.weights]
    return QuantSpec((*edits.values(), *weights))


def test_a_value_is_its_rounded_multiple_of_the_scale() -> None:
    edit = QuantiseEdit(tensor="x", dtype="uint8", scale=(0.5,), zero_point=(10,))
    # 0.75 / 0.5 = 1.5 rounds half to even: 2; 1.25 / 0.5 = 2.5: 2; -9 / 0.5 = -18 saturates at 0; 200 / 0.5 at 255
    values = np.array([0.0, 0.75, 1.25, -9.0, 200.0], np.float32)
    assert quantise(values, edit).tolist() == [10, 12, 12, 0, 255]
    assert dequantise(quantise(values, edit), edit).tolist() == [0.0, 1.0, 1.0, -5.0, 122.5]


def test_an_activation_range_holds_zero_exactly() -> None:
    # [-1, 3]: scale 4 / 255, zero point round(255 / 4) = 64
    edit = activation_edit(-1.0, 3.0, "x", "uint8")
    assert (edit.scale, edit.zero_point) == ((4 / 255,), (64,))
    # [2, 3] is widened to [0, 3]; a tensor of zeros gets some scale; int8 shifts the zero point by 128
    assert activation_edit(2.0, 3.0, "x", "uint8").zero_point == (0,)
    assert activation_edit(0.0, 0.0, "x", "uint8").scale == (1.0,)
    assert activation_edit(-1.0, 3.0, "x", "int8").zero_point == (-64,)


def test_a_weight_is_symmetric_per_channel_and_a_dead_channel_has_a_scale() -> None:
    values = np.array([[1.27, -0.5], [0.0, 0.0], [-2.54, 0.1]], np.float32)
    edit = weight_edit(values, "w", 0, "int8")
    assert np.allclose(edit.scale, [0.01, 1 / 127, 0.02])
    assert quantise(values, edit).tolist() == [[127, -50], [0, 0], [-127, 5]]
    assert np.allclose(weight_edit(values, "w", None, "int8").scale, [0.02])
    # 7 bits: 2.54 becomes 63
    assert quantise(values, weight_edit(values, "w", 0, "int8", reduce_range=True)).max() == 63
    assert weight_edit(values, "w", 0, "uint8").zero_point == (128, 128, 128)


def test_a_scale_is_raised_until_the_bias_fits() -> None:
    weight = QuantiseEdit(tensor="w", dtype="int8", scale=(1e-12, 0.01), zero_point=(0, 0), axis=0)
    data = QuantiseEdit(tensor="x", dtype="uint8", scale=(0.5,), zero_point=(0,))
    raised = room_for_bias(weight, data, np.array([1.0, 1.0], np.float32))
    # 1.0 / (0.5 * 2**30) = 1.86e-9 for the first channel; the second has room
    assert raised.scale == (1.0 / 2**29, 0.01)


def test_scales_are_read_back_as_they_were_written() -> None:
    model, _ = residual_block()
    spec = spec_of(model)
    back = read_spec(write_qdq(model, spec)).by_name
    assert back.keys() == spec.by_name.keys()
    for name, edit in spec.by_name.items():
        assert back[name].scale == tuple(float(np.float32(value)) for value in edit.scale)
        assert (back[name].zero_point, back[name].dtype, back[name].axis) == (edit.zero_point, edit.dtype, edit.axis)


def test_weights_and_biases_are_integers_in_a_standard_graph() -> None:
    model, _ = residual_block()
    spec = spec_of(model)
    before = model.SerializeToString()
    written = write_qdq(model, spec)
    assert model.SerializeToString() == before
    onnx.checker.check_model(written, full_check=True)
    tensors = {tensor.name: tensor for tensor in written.graph.initializer}
    assert not {"a.weight", "a.bias", "fc.weight", "fc.bias"} & tensors.keys()
    bias = tensors["a.bias.quantised"]
    assert bias.data_type == TensorProto.INT32
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scale = np.float32(spec.by_name["input"].scale[0]) * np.array(spec.by_name["a.weight"].scale, np.float32)
    assert numpy_helper.to_array(bias).tolist() == np.rint(floats["a.bias"] / scale.astype(np.float64)).tolist()
    assert np.array_equal(numpy_helper.to_array(tensors["a.bias.scale"]), scale)
    assert np.array_equal(
        numpy_helper.to_array(tensors["a.weight.quantised"]), quantise(floats["a.weight"], spec.by_name["a.weight"])
    )


def test_the_runtime_fuses_all_of_it_with_relus_folded() -> None:
    model, _ = residual_block()
    found = kernels(write_qdq(model, spec_of(model)))
    integer = {"QLinearConv": 2, "QLinearAdd": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1}
    assert integer.items() <= found.items()
    assert not {"Conv", "Relu", "Add", "Gemm", "GlobalAveragePool", "DequantizeLinear"} & found.keys()
    assert found["QuantizeLinear"] == 1


def test_the_quantised_graph_is_close_to_the_float_one() -> None:
    model, random = residual_block()
    given = random.uniform(-2, 2, (1, 16, 8, 8)).astype(np.float32)
    expected, actual = run_onnx(model, [given]), run_onnx(write_qdq(model, spec_of(model, 8.0)), [given])
    # half a step of the pooled tensor is 8 / 255 / 2 = 0.016; a row of `fc` sums to about 16 * 0.08 = 1.3 in magnitude
    assert np.abs(expected - actual).max() < 0.016 * 1.3
    assert np.abs(expected).max() > 0.5


def test_a_tensor_the_spec_does_not_name_stays_float() -> None:
    model, _ = residual_block()
    full = spec_of(model)
    kept = {"input", "ar", "a.weight"}
    partial = QuantSpec(tuple(edit for edit in full.tensors if edit.tensor in kept))
    written = write_qdq(model, partial)
    onnx.checker.check_model(written, full_check=True)
    found = kernels(written)
    assert found["QLinearConv"] == 1
    assert found["QGemm"] == 0
    assert {tensor.name for tensor in written.graph.initializer} >= {"b.weight", "b.bias", "fc.weight", "fc.bias"}


def test_learned_four_bit_weights_are_stored_in_four_bits() -> None:
    weights = np.linspace(-0.7, 0.7, 32).reshape(4, 8).astype(np.float32)
    model = graph([helper.make_node("MatMul", ["input", "w"], ["output"], name="m")], {"w": weights}, (1, 4))
    edit = QuantiseEdit(tensor="w", dtype="int4", scale=(0.1,), zero_point=(0,))
    written = write_qdq(model, QuantSpec((edit,)))
    onnx.checker.check_model(written, full_check=True)
    stored = next(tensor for tensor in written.graph.initializer if tensor.name == "w.quantised")
    assert len(stored.raw_data) == 16  # 32 values, two to the byte
    given = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    # the runtime makes MatMulNBits of it, whose activations have 8 bits: 4 / 127 / 2 on each of 4 values times 0.7
    assert np.abs(run_onnx(written, [given]) - given @ dequantise(quantise(weights, edit), edit)).max() < 0.045
    assert read_spec(written).by_name["w"].dtype == "int4"


def test_a_relu_read_by_two_is_quantised_once_and_an_unfoldable_one_keeps_both_sides() -> None:
    model, _ = residual_block()
    found = targets(model)
    assert found.activations == ("input", "ar", "b", "sumr", "pool")
    assert found.followers == {"flat": "pool"}
    assert [(name, axis) for name, axis, _ in found.weights] == [("a.weight", 0), ("b.weight", 0), ("fc.weight", 0)]
    # the convolution's own result is read beside its Relu: both are wanted
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], name="c"),
        helper.make_node("Relu", ["c"], ["r"], name="r"),
        helper.make_node("Add", ["c", "r"], ["output"], name="o"),
    ]
    two = graph(nodes, {"w": np.ones((4, 4, 1, 1), np.float32)}, (1, 4, 3, 3))
    assert targets(two).activations == ("input", "c", "r", "output")


def test_operators_with_scaled_or_transposed_operands_and_constant_sums_stay_float() -> None:
    weight = np.ones((4, 4), np.float32)
    for attributes in ({"alpha": 2.0}, {"beta": 0.5}, {"transA": 1}):
        node = helper.make_node("Gemm", ["input", "w", "b"], ["output"], name="g", **attributes)
        assert targets(graph([node], {"w": weight, "b": weight[0]}, (4, 4))).activations == ()
    constant = helper.make_node("Add", ["input", "w"], ["output"], name="a")
    assert targets(graph([constant], {"w": weight}, (4, 4))).activations == ()


def test_what_quantisation_does_with_an_operator_is_one_rule() -> None:
    assert role("Conv") == "integer"
    assert role("Clip") == "activation"
    assert role("MaxPool") == role("ReduceMax") == "follow"
    assert role("HardSwish") == role("Softmax") == "float"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensor": "nowhere"}, "no tensor called 'nowhere'"),
        ({"scale": (0.1, 0.1), "zero_point": (0, 0)}, "2 scales do not fit"),
        ({"scale": (0.0,)}, "not a positive, finite"),
        ({"scale": (float("inf"),)}, "not a positive, finite"),
        ({"zero_point": (200,)}, "outside int8"),
        ({"zero_point": ()}, "0 zero points for 1 scales"),
    ],
)
def test_a_spec_that_does_not_fit_the_graph_is_refused(change: dict[str, object], message: str) -> None:
    weights = {"w": np.ones((4, 4), np.float32)}
    model = graph([helper.make_node("MatMul", ["input", "w"], ["output"], name="m")], weights, (1, 4))
    edit = QuantiseEdit(tensor="w", dtype="int8", scale=(0.1,), zero_point=(0,)).model_copy(update=change)
    with pytest.raises(CompressionError, match=message):
        write_qdq(model, QuantSpec((edit,)))


def test_a_bias_that_does_not_fit_its_scale_is_refused() -> None:
    model, _ = residual_block()
    spec = spec_of(model)
    tiny = spec.by_name["a.weight"].model_copy(update={"scale": (1e-15,) * 16})
    with pytest.raises(CompressionError, match=r"a\.bias: does not fit int32"):
        write_qdq(model, QuantSpec(tuple(tiny if edit.tensor == "a.weight" else edit for edit in spec.tensors)))


def test_what_selects_or_repeats_values_hands_on_their_scale_by_every_output() -> None:
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["a"], name="a"),
        helper.make_node("Split", ["a"], ["left", "right"], name="split", axis=1, num_outputs=2),
        helper.make_node("Gather", ["right", "first"], ["one"], name="one", axis=2),
        helper.make_node("Expand", ["one", "shape"], ["again"], name="again"),
        helper.make_node("Add", ["left", "again"], ["output"], name="sum"),
    ]
    weights = {"w": np.ones((4, 4, 1, 1), np.float32), "first": np.array([0]), "shape": np.array([1, 2, 3, 3])}
    found = targets(graph(nodes, weights, (1, 4, 3, 3)))
    assert found.followers == {"left": "a", "right": "a", "one": "a", "again": "a"}
    assert found.activations == ("input", "a", "output")


@pytest.mark.parametrize("before", ["Relu", "Add", "Softmax", "Reshape"])
@pytest.mark.parametrize("rank", [3, 4])
def test_a_mean_over_a_picture_becomes_a_pool_whatever_comes_before_it(before: str, rank: int) -> None:
    """Ranks that plain operators do not tell (Softmax, Reshape) are inferred."""
    shape = [1, 4, 6, 6][:rank]
    literals = {"axes": np.array([2, 3][: rank - 2], np.int64), "shape": np.array(shape, np.int64)}
    given = {"Relu": ["x"], "Add": ["x", "x"], "Softmax": ["x"], "Reshape": ["x", "shape"]}[before]
    mean = helper.make_node("ReduceMean", ["y", "axes"], ["z"], "mean", keepdims=1)
    graph = helper.make_graph(
        [helper.make_node(before, given, ["y"], "before"), mean], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in literals.items()],
    )  # fmt: skip
    formed = integer_form(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    assert [node.op_type for node in formed.graph.node][-1] == ("GlobalAveragePool" if rank == 4 else "ReduceMean")
