"""Calibrated int8: same interface, integer kernels, ranges as the data has them, plans that replay."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from example_networks import NETWORKS, NoisePictures, context, network

from automc.cost.lowering import optimised
from automc.errors import InfeasibleCandidate
from automc.export import export_onnx, onnx_bytes, open_session, run_onnx
from automc.profiles import Int8Facts
from automc.techniques import int8_ptq
from automc.techniques.fusion import Fusion, FusionParams
from automc.techniques.int8_ptq import Int8Ptq, Int8PtqParams
from automc.techniques.plan import Plan
from automc.techniques.quantspec import QuantSpec, read_spec
from automc.techniques.technique import PlanContext
from automc.workloads.registry import create_workload

PTQ = Int8Ptq()
ONE = torch.zeros(1, 3, 32, 32)
CONVOLUTIONAL = [name for name in NETWORKS if name != "encoder"]


@pytest.fixture(scope="module")
def graphs() -> dict[str, onnx.ModelProto]:
    return {name: export_onnx(network(name), (ONE,)) for name in NETWORKS}


def under(scheme: Int8Facts, seed: int = 0) -> PlanContext:
    """The test context on a profile that found `scheme` fast."""
    given = context(seed=seed)
    return PlanContext(
        example_inputs=given.example_inputs,
        profile=given.profile.model_copy(update={"int8": scheme}),
        task=given.task,
        calibration=given.calibration,
        cost=given.cost,
        seed=seed,
    )


def kernels(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in optimised(model).graph.node)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_interface_stays_and_the_outputs_move_little(name: str, graphs: dict[str, onnx.ModelProto]) -> None:
    graph = graphs[name]
    before = onnx_bytes(graph)
    quantised = PTQ.apply(graph, PTQ.plan(graph, Int8PtqParams(), context()))
    assert onnx_bytes(graph) == before
    onnx.checker.check_model(quantised, full_check=True)
    assert {opset.domain for opset in quantised.opset_import} == {""}
    assert quantised.graph.input == graph.graph.input
    assert quantised.graph.output == graph.graph.output
    pictures = next(NoisePictures().batches(16)).inputs[0].numpy()
    expected, actual = run_onnx(graph, [pictures]), run_onnx(quantised, [pictures])
    assert np.abs(expected - actual).max() < 0.05 * np.abs(expected).max()
    assert not np.array_equal(expected, actual)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_every_convolution_sum_and_product_runs_on_integers(name: str, graphs: dict[str, onnx.ModelProto]) -> None:
    found = kernels(PTQ.apply(graphs[name], PTQ.plan(graphs[name], Int8PtqParams(), context())))
    assert not {"Conv", "FusedConv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "Sigmoid", "Concat"} & found.keys()
    # BatchNorm before its convolution and PRelu, both of the concat network, are all that stays float
    assert found["DequantizeLinear"] == (3 if name == "concat" else 0)


def test_a_shortcut_that_pads_channels_stays_on_integers(graphs: dict[str, onnx.ModelProto]) -> None:
    found = kernels(PTQ.apply(graphs["residual"], PTQ.plan(graphs["residual"], Int8PtqParams(), context())))
    assert found["Pad"] == 2
    assert found["QuantizeLinear"] == 1


def test_minmax_ranges_are_what_the_float_graph_produces(graphs: dict[str, onnx.ModelProto]) -> None:
    graph = graphs["lenet"]
    spec = QuantSpec.of(PTQ.plan(graph, Int8PtqParams(), context())).by_name
    pictures = next(NoisePictures().batches(64)).inputs[0]
    assert np.isclose(spec["input"].scale[0], float(pictures.max() - pictures.min()) / 255)
    with torch.no_grad():
        first = torch.relu(network("lenet").conv1(pictures))
    name = next(value for value in spec if value.endswith("Relu"))
    assert np.isclose(spec[name].scale[0], float(first.max()) / 255)
    assert spec[name].zero_point == (0,)


def test_a_plan_replays_from_json_and_the_same_seed_gives_the_same_bytes(graphs: dict[str, onnx.ModelProto]) -> None:
    graph = graphs["residual"]
    params = Int8PtqParams(samples=32)
    plan = PTQ.plan(graph, params, context())
    again = PTQ.apply(graph, Plan.model_validate_json(plan.model_dump_json()))
    assert onnx_bytes(again) == onnx_bytes(PTQ.apply(graph, PTQ.plan(graph, params, context())))
    assert plan.facts["samples"] == 32
    assert PTQ.plan(graph, Int8PtqParams(samples=4096), context()).facts["samples"] == 64  # the whole split
    assert PTQ.plan(graph, params, context(seed=1)).edits != plan.edits  # other samples


def test_the_profile_decides_the_scheme_unless_the_parameters_do(graphs: dict[str, onnx.ModelProto]) -> None:
    graph = graphs["lenet"]
    scheme = Int8Facts(activation_type="int8", weight_type="int8", per_channel=False, reduce_range=True)
    spec = read_spec(PTQ.apply(graph, PTQ.plan(graph, Int8PtqParams(), under(scheme)))).by_name
    assert {edit.dtype for edit in spec.values()} == {"int8"}
    assert all(len(edit.scale) == 1 for edit in spec.values())
    full = QuantSpec.of(PTQ.plan(graph, Int8PtqParams(per_channel=False), under(Int8Facts()))).by_name
    assert np.isclose(spec["conv1.weight"].scale[0] / full["conv1.weight"].scale[0], 127 / 63)
    channels = QuantSpec.of(PTQ.plan(graph, Int8PtqParams(per_channel=True), under(scheme))).by_name
    assert len(channels["conv1.weight"].scale) == 8


def test_percentile_and_entropy_cut_a_lonely_outlier_that_minmax_keeps() -> None:
    # 100,000 values of a standard normal, and one 50 times larger than their spread
    values = np.append(np.random.default_rng(0).normal(size=100_000), 50.0)
    low, high = float(values.min()), float(values.max())
    counts, edges = np.histogram(values, bins=int8_ptq.BINS, range=(low, high))
    assert edges[-1] == 50.0
    # 0.05 % beyond either end of a standard normal: 3.29
    start, stop = int8_ptq.percentile_range(counts, low, high, 99.9)
    assert -3.4 < start < -3.2
    assert 3.2 < stop < 3.4
    assert int8_ptq.percentile_range(counts, low, high, 100.0) == (low, high)
    assert int8_ptq.entropy_range(counts, low, high)[1] < 15.0


def test_entropy_keeps_the_whole_range_of_a_uniform_tensor() -> None:
    counts = np.full(int8_ptq.BINS, 10)
    assert int8_ptq.entropy_range(counts, 0.0, 6.0) == (0.0, 6.0)


def test_a_constant_tensor_is_calibrated() -> None:
    counts = np.zeros(int8_ptq.BINS, np.int64)
    counts[0] = 5
    assert int8_ptq.entropy_range(counts, 0.0, 0.0) == (0.0, 0.0)
    assert int8_ptq.percentile_range(counts, 2.0, 2.0, 99.9) == (2.0, 2.0)


def test_a_tensor_far_from_zero_is_calibrated() -> None:
    assert int8_ptq.entropy_range(np.full(int8_ptq.BINS, 10), 5.0, 6.0) == (5.0, 6.0)


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_other_methods_quantise_too(method: str, graphs: dict[str, onnx.ModelProto]) -> None:
    graph = graphs["lenet"]
    minmax = QuantSpec.of(PTQ.plan(graph, Int8PtqParams(), context())).by_name
    found = QuantSpec.of(PTQ.plan(graph, Int8PtqParams(calibration_method=method), context())).by_name
    assert found.keys() == minmax.keys()
    assert all(found[name].scale <= minmax[name].scale for name in found if name != "linear.weight")


def test_it_refuses_what_is_quantised_or_fused_by_the_runtime(graphs: dict[str, onnx.ModelProto]) -> None:
    quantised = PTQ.apply(graphs["lenet"], PTQ.plan(graphs["lenet"], Int8PtqParams(), context()))
    assert PTQ.refuses(quantised) == "the graph is quantised already"
    assert Fusion().refuses(quantised) is not None
    with pytest.raises(InfeasibleCandidate, match="quantised already"):
        PTQ.plan(quantised, Int8PtqParams(), context())
    fusion = Fusion()
    extended = fusion.apply(
        graphs["residual"], fusion.plan(graphs["residual"], FusionParams(level="extended"), context(data=False))
    )
    assert "level standard" in str(PTQ.refuses(extended))


def test_after_fusion_it_still_runs_on_integers(graphs: dict[str, onnx.ModelProto]) -> None:
    fusion = Fusion()
    fused = fusion.apply(graphs["residual"], fusion.plan(graphs["residual"], FusionParams(), context(data=False)))
    found = kernels(PTQ.apply(fused, PTQ.plan(fused, Int8PtqParams(), context())))
    assert found["QLinearConv"] == 13
    assert found["QLinearAdd"] == 6


@pytest.mark.data
def test_resnet20_in_int8_is_within_half_a_point_of_fp32_and_all_integer(data_root: Path) -> None:
    work = create_workload("cifar10", {"weights": "models/cifar10_resnet/resnet20_jpegft.npz"}, data_root)
    graph = export_onnx(work.model(), work.example_inputs())
    given = PlanContext(
        example_inputs=work.example_inputs(),
        profile=context().profile,
        task=work.task,
        calibration=lambda: work.split("calibration"),
        cost=None,
        seed=0,
    )
    quantised = PTQ.apply(graph, PTQ.plan(graph, Int8PtqParams(), given))
    found = kernels(quantised)
    assert found["QLinearConv"] == 1 + 18
    assert found["QuantizeLinear"] == 1
    assert found["DequantizeLinear"] == 0
    assert len(onnx_bytes(quantised)) < 0.3 * len(onnx_bytes(graph))
    floats, integers = open_session(graph), open_session(quantised)
    right = {"fp32": 0.0, "int8": 0.0}
    count = 0
    for batch in work.split("validation").batches(250):
        pictures, targets = batch.inputs[0].numpy(), batch.targets.numpy()
        for name, session in (("fp32", floats), ("int8", integers)):
            right[name] += float(work.task.score(session.run(None, {"input": pictures})[0], targets).sum())
        count += len(targets)
        if count >= 3000:
            break
    assert count >= 3000
    # paired over the same images; a network that guesses would agree with itself too
    assert right["fp32"] / count > 0.8
    assert (right["fp32"] - right["int8"]) / count < 0.005
