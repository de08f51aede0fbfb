"""Large models leave the caches that micro models stay in, and stay affordable."""

from __future__ import annotations

import onnx
import pytest

from automc.cost.caches import SPILL, far_share
from automc.cost.graph import graph_from_onnx
from automc.cost.machine_fit import FAR_SHARED, LEAST_FAR
from automc.cost.tiles import Machine
from automc.measure.builder import Scheme
from automc.measure.large_models import LARGE_BYTES, LARGE_MACS, ON_SAMPLES, SMALL_BYTES, large_models
from automc.measure.schedule import SCHEDULES

SCHEMES: tuple[Scheme, ...] = ("fp32", "u8s8")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_large_models_hold_more_than_a_cores_cache_and_stay_affordable(scheme: Scheme) -> None:
    samples = large_models(40, scheme, 0)
    assert len(samples) == pytest.approx(40, abs=10)
    assert len({sample.name for sample in samples}) == len(samples)
    assert {"large_streaming", "large_weights", "large_conv_dense"} <= {sample.kind for sample in samples}
    for sample in samples:
        graph = graph_from_onnx(onnx.load_from_string(sample.model))
        held = graph.weight_bytes + graph.peak_activation_bytes
        assert held >= SMALL_BYTES or sample.kind.removeprefix("large_") not in ON_SAMPLES, sample.name
        assert sum(row.macs for row in graph.rows) <= LARGE_MACS, sample.name
        assert sum(row.bytes_in + row.bytes_out + row.bytes_weights for row in graph.rows) <= LARGE_BYTES, sample.name


def test_one_seed_gives_the_same_large_models_and_another_gives_others() -> None:
    first, again, other = ([sample.model for sample in large_models(12, "fp32", seed)] for seed in (0, 0, 1))
    assert first == again
    assert not set(first) & set(other)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_short_calibration_times_layers_whose_weights_leave_the_cache_and_nothing_dearer(scheme: Scheme) -> None:
    """Without, a quick calibration was 26 % off on float MLPs in the mean."""
    plan = SCHEDULES["quick"]
    samples = large_models(plan.large, scheme, 0, plan.large_kinds)
    assert {sample.kind for sample in samples} == {"large_weights", "large_linear_on_samples"}
    assert samples[0].model == large_models(SCHEDULES["full"].large, scheme, 0, ("weights",))[0].model
    graphs = [graph_from_onnx(onnx.load_from_string(sample.model)) for sample in samples]
    vectors = [graph for graph in graphs if graph.rows[-1].output_shape[0] == 1]
    assert sum(graph.weight_bytes > (1 << 19) for graph in vectors) >= 5
    assert len(graphs) - len(vectors) >= 5


def test_a_full_calibration_tells_what_main_memory_costs_behind_32_megabytes_of_shared_cache() -> None:
    machine = Machine(cache_bytes=1 << 20, spill=SPILL, shared_bytes=32 << 20)
    graphs = [
        graph_from_onnx(onnx.load_from_string(sample.model))
        for scheme in SCHEMES
        for sample in large_models(SCHEDULES["full"].large, scheme, 0)
    ]
    assert sum(far_share(graph, machine).shared >= FAR_SHARED for graph in graphs) >= LEAST_FAR
