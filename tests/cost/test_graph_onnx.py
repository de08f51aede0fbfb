"""Rows read from ONNX: hand-worked figures, and what the runtime's own profile says it executed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from cost_networks import NAMES, exported, int8, network
from onnx import TensorProto, helper, numpy_helper

from automc.cost.graph import graph_from_onnx
from automc.cost.kernels import KernelRow, Precision
from automc.cost.lowering import block_size
from automc.errors import ConfigError, PredictorError, UnseenOperatorError


def model_of(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    shape: tuple[int | str, ...],
    *,
    outputs: tuple[str, ...] = ("y",),
    domain: str = "",
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    imports = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def convolution(out: int, given: int, extent: int | str = 1, groups: int = 1) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], group=groups),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    return model_of(nodes, {"w": random(out, given // groups, 3, 3), "b": random(out)}, (extent, given, 8, 8))


def only(rows: tuple[KernelRow, ...], op: str) -> KernelRow:
    found = [row for row in rows if row.op == op]
    assert len(found) == 1
    return found[0]


def test_a_convolution_is_one_blocked_row_with_its_activation_inside() -> None:
    block = block_size()
    graph = graph_from_onnx(convolution(32, 32))  # 32 channels fill whole blocks of 8 and of 16
    row = only(graph.rows, "Conv")
    assert (row.layout, row.precision, row.fused) == ("nchwc", "fp32", ("Relu",))
    assert (row.kernel, row.stride, row.dilation, row.groups) == ((3, 3), (1, 1), (1, 1), 1)
    assert row.input_shapes == ((1, 32, 8, 8),)
    assert row.output_shape == (1, 32, 8, 8)
    assert row.macs == 32 * 8 * 8 * 32 * 3 * 3  # outputs times the 3x3 window over 32 channels
    assert row.bytes_in == row.bytes_out == 4 * 32 * 8 * 8
    assert row.bytes_weights == 4 * (32 * 32 * 3 * 3 + 32)
    assert graph.weight_bytes == row.bytes_weights
    assert [other.op for other in graph.rows] == ["ReorderInput", "Conv", "ReorderOutput"]
    assert 32 % block == 0


def test_channels_are_padded_to_whole_blocks_and_counted_as_executed() -> None:
    row = only(graph_from_onnx(convolution(20, 3)).rows, "Conv")
    padded = -(-20 // block_size()) * block_size()  # 32 in blocks of 16, 24 in blocks of 8
    assert row.output_shape == (1, padded, 8, 8)
    assert row.input_shapes == ((1, 3, 8, 8),)  # a stem reads its three channels as they are
    assert row.macs == padded * 8 * 8 * 3 * 9


def test_a_depthwise_convolution_has_one_input_channel_a_window() -> None:
    row = only(graph_from_onnx(convolution(32, 32, groups=32)).rows, "Conv")
    assert (row.groups, row.macs) == (32, 32 * 8 * 8 * 9)


def test_a_residual_sum_goes_into_the_convolution_before_its_activation() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v", "b"], ["d"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Add", ["d", "r"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    weights = {"w": random(32, 32, 3, 3), "v": random(32, 32, 3, 3), "b": random(32)}
    rows = graph_from_onnx(model_of(nodes, weights, (1, 32, 8, 8))).rows
    assert [row.fused for row in rows if row.op == "Conv"] == [("Relu",), ("Add", "Relu")]
    assert rows[2].input_shapes == ((1, 32, 8, 8), (1, 32, 8, 8))


def test_a_gemm_with_its_activation() -> None:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["g"], transB=1), helper.make_node("Relu", ["g"], ["y"])]
    graph = graph_from_onnx(model_of(nodes, {"w": random(5, 7), "b": random(5)}, (3, 7)), batch=3)
    (row,) = graph.rows
    assert (row.op, row.fused, row.macs) == ("Gemm", ("Relu",), 3 * 5 * 7)
    assert (row.bytes_in, row.bytes_out, row.bytes_weights) == (4 * 21, 4 * 15, 4 * (35 + 5))
    assert graph.peak_activation_bytes == 4 * (21 + 15)


def test_the_most_alive_at_once_is_the_peak() -> None:
    # x (4 floats) lives until the sum; tanh(x) is dead after its exp: at the exp x, tanh, exp live, later x, exp, sum
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("Concat", ["t", "t", "t"], ["c"], axis=1),
        helper.make_node("ReduceSum", ["c", "axes"], ["r"], keepdims=1),
        helper.make_node("Add", ["r", "x"], ["y"]),
    ]
    graph = graph_from_onnx(model_of(nodes, {"axes": np.array([1], np.int64)}, (1, 4)))
    assert [row.op for row in graph.rows] == ["Tanh", "Concat", "ReduceSum", "Add"]
    # floats alive: Tanh x4+t4; Concat x4+t4+c12; ReduceSum x4+c12+r1; Add x4+r1+y4
    assert graph.peak_activation_bytes == 4 * (4 + 4 + 12)


def test_a_reshape_is_a_row_that_moves_nothing() -> None:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["f"]), helper.make_node("Tanh", ["f"], ["y"])]
    graph = graph_from_onnx(model_of(nodes, {"s": np.array([1, 12], np.int64)}, (1, 3, 4)))
    reshape = only(graph.rows, "Reshape")
    assert (reshape.bytes_in, reshape.bytes_out, reshape.bytes_weights) == (0, 0, 0)
    assert reshape.output_shape == (1, 12)
    assert graph.peak_activation_bytes == 4 * (12 + 12)  # x is its reshape; y is new
    assert graph.weight_bytes == 0


def test_a_batch_multiplies_work_and_activations_but_no_weights() -> None:
    one, four = (graph_from_onnx(convolution(32, 32, extent="n"), batch=batch) for batch in (1, 4))
    assert four.macs == 4 * one.macs
    assert four.peak_activation_bytes == 4 * one.peak_activation_bytes
    assert four.weight_bytes == one.weight_bytes
    assert only(four.rows, "Conv").output_shape == (4, 32, 8, 8)


def test_a_fixed_batch_can_be_asked_for_otherwise_and_the_model_stays_as_it_was() -> None:
    model = convolution(32, 32, extent=1)
    before = model.SerializeToString(deterministic=True)
    assert graph_from_onnx(model, batch=2).macs == 2 * graph_from_onnx(model).macs
    assert graph_from_onnx(convolution(32, 32, extent=3)).macs == 3 * graph_from_onnx(model).macs  # as it would be run
    assert graph_from_onnx(convolution(32, 32, extent="n")).macs == graph_from_onnx(model).macs
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", NAMES)
def test_rows_are_the_kernels_the_runtime_says_it_ran(name: str, precision: Precision, tmp_path: Path) -> None:
    """Against the profile of a real run: operator, types and shapes of outputs, bytes of inputs and weights."""
    model = exported(name) if precision == "fp32" else int8(name)
    graph = graph_from_onnx(model)
    ran = _profiled(model, name, tmp_path)
    expected = Counter((op, shape, size) for op, shape, size, _ in ran)
    assert Counter((row.op, row.output_shape, row.bytes_in) for row in graph.rows) == expected
    parameters = sum(size for *_, size in ran)
    # the runtime counts shapes, scales and zero points of 1 to 8 bytes each as parameters too
    assert sum(row.bytes_weights for row in graph.rows) == pytest.approx(parameters, abs=40 * len(ran))


_SAME_KERNEL = {"FusedConv": "Conv", "FusedGemm": "Gemm", "NhwcMaxPool": "MaxPool", "Flatten": "Reshape"}
_NO_COPY = ("Reshape", "Squeeze", "Unsqueeze")


def _profiled(model: onnx.ModelProto, name: str, folder: Path) -> list[tuple[str, tuple[int, ...], int, int]]:
    """(operator, output shape, bytes of activations read, bytes of parameters) of every kernel of a run."""
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.add_session_config_entry("session.disable_prepacking", "1")  # packed weights are no parameters any more
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    _, inputs = network(name)
    session.run(None, {value.name: tensor.numpy() for value, tensor in zip(session.get_inputs(), inputs, strict=True)})
    events = json.loads(Path(session.end_profiling()).read_text())
    found = []
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        arguments = event["args"]
        op = _SAME_KERNEL.get(arguments["op_name"], arguments["op_name"])
        ((_, shape),) = arguments["output_type_shape"][0].items()
        read = 0 if op in _NO_COPY else int(arguments["activation_size"])
        found.append((op, tuple(shape), read, int(arguments["parameter_size"])))
    return found


def test_int8_kernels_are_read_in_their_layout_and_precision() -> None:
    rows = graph_from_onnx(int8("plain")).rows
    first, last = only(rows[:1], "QuantizeLinear"), rows[-1]
    assert (first.precision, first.bytes_in, first.bytes_out) == ("int8", 4 * 28 * 28, 28 * 28)
    convolutions = [row for row in rows if row.op == "QLinearConv"]
    assert [row.layout for row in convolutions] == ["nhwc", "nhwc"]
    assert convolutions[1].output_shape == (1, 14, 14, 32)
    assert convolutions[1].macs == 14 * 14 * 32 * 16 * 9
    assert convolutions[1].bytes_weights == 32 * 16 * 9 + 32 * 4 + 32 * 4 + 32  # int8, scales, int32 bias, zero points
    assert [row.layout for row in rows if row.op == "MaxPool"] == ["nhwc", "nhwc"]
    assert last.output_shape == (1, 10)


def test_transposes_of_attention_are_no_image_layout() -> None:
    rows = graph_from_onnx(exported("encoder")).rows
    assert any(row.op == "Transpose" for row in rows)
    assert {row.layout for row in rows} == {"nchw"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.onnx: no such file"):
        graph_from_onnx(tmp_path / "absent.onnx")


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("this is no protocol buffer")
    with pytest.raises(ConfigError, match=r"text\.onnx: not an ONNX model"):
        graph_from_onnx(path)


def test_a_file_with_its_weights_beside_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(convolution(32, 32), path, save_as_external_data=True, location="weights", size_threshold=0)
    assert graph_from_onnx(path).rows == graph_from_onnx(convolution(32, 32)).rows


def test_an_operator_the_runtime_does_not_have_is_refused_by_name() -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="made.up")
    with pytest.raises(PredictorError, match="Frobnicate"):
        graph_from_onnx(model_of([node], {}, (1, 4), domain="made.up"))


def test_an_output_whose_shape_depends_on_data_is_refused_with_operator_and_shape() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["n"]),
        helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT),
    ]
    with pytest.raises(UnseenOperatorError, match=r"NonZero .*\[1, 4\]"):
        graph_from_onnx(model_of(nodes, {}, (1, 4)))


def test_an_input_open_in_more_than_its_batch_is_refused() -> None:
    nodes = [helper.make_node("Tanh", ["x"], ["y"])]
    with pytest.raises(PredictorError, match="'x' leaves more than the batch open: length"):
        graph_from_onnx(model_of(nodes, {}, (1, "length")))
