"""Memory of inference: peaks of fresh processes, and the fit to them."""

from __future__ import annotations

import onnx
import pytest

from automc.cost.calibration import memory_parts
from automc.cost.graph import graph_from_onnx
from automc.cost.kernels import KernelGraph, KernelRow
from automc.errors import MeasurementError
from automc.measure.families import family_networks
from automc.measure.memory import fit_memory, peak_mb


def graph(weights_mb: int, live_mb: int, kernels: int) -> KernelGraph:
    row = KernelRow("r", "Relu", "fp32", "nchw", ((1, 16, 8, 8),), (1, 16, 8, 8), 0, 4096, 4096, 0)
    return KernelGraph((row,) * kernels, weights_mb << 20, live_mb << 20)


GRAPHS = [graph(1, 2, 10), graph(4, 1, 50), graph(8, 3, 20), graph(2, 9, 80), graph(16, 5, 40), graph(3, 1, 5)]


def told(graph: KernelGraph) -> float:
    """Weights three times, activations twice, 10 kB a kernel, and 50 MB of runtime."""
    weights, live, kernels = memory_parts(graph)
    return 50 + 3 * weights + 2 * live + 0.01 * kernels


def test_what_grows_with_weights_activations_and_kernels_is_found_again() -> None:
    found = fit_memory(GRAPHS, [told(item) for item in GRAPHS], 50.0)
    assert (found.per_weight, found.per_live, found.per_kernel_mb) == pytest.approx((3, 2, 0.01))
    assert found.runtime_mb + found.beyond_mb(graph(6, 6, 30)) == pytest.approx(50 + 18 + 12 + 0.3)
    assert (found.interval.low, found.interval.high) == pytest.approx((1.0, 1.0))


def test_the_interval_holds_what_the_fit_misses() -> None:
    peaks = [50 + (told(item) - 50) * factor for item, factor in zip(GRAPHS, (0.8, 1.2, 1, 0.9, 1.1, 1), strict=True)]
    found = fit_memory(GRAPHS, peaks, 50.0)
    assert found.interval.low < 0.9
    assert found.interval.high > 1.1


def test_too_few_networks_are_refused() -> None:
    with pytest.raises(MeasurementError, match="3 networks are too few"):
        fit_memory(GRAPHS[:3], [60.0] * 3, 50.0)


def test_the_peak_of_a_process_grows_by_the_weights_it_holds() -> None:
    small, large = (
        onnx.helper.make_model(
            onnx.helper.make_graph(
                [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
                [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 1024])],
                [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, width])],
                [onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1024, width], bytes(4096 * width), raw=True)],
            ),
            opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9,
        ).SerializeToString()
        for width in (16, 4096)
    )  # fmt: skip
    ballast = bytearray(2**28)  # of this process: a child that inherits it would say 256 MB
    assert 15.9 < peak_mb(large) - peak_mb(small) < 80  # 16 MB of weights, once at least
    assert peak_mb(small) < 200
    assert len(ballast) == 2**28


def test_a_network_that_cannot_be_run_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automc.measure.memory._CHILD", "raise SystemExit('no runtime here')")
    (sample, *_) = family_networks(1, "fp32", 0)
    graph_from_onnx(onnx.load_model_from_string(sample.model))
    with pytest.raises(MeasurementError, match="no runtime here"):
        peak_mb(sample.model)
