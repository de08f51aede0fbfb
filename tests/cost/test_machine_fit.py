"""From where weights leave a core's own cache is found from linear networks, each machine for itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from automc.cost.caches import Far, far_share
from automc.cost.calibration import Calibration
from automc.cost.features import features
from automc.cost.fit import Fit, Observation
from automc.cost.kernels import KernelGraph, KernelRow
from automc.cost.machine_fit import KERNEL_SPILL, LEAST_NEAR, WEIGHT_SPILLS, fitted, weights_spilt
from automc.cost.tiles import Machine

CACHE = 1 << 20
MACHINE = Machine(cache_bytes=CACHE, spill=(0.5, 1.5))


def linear(filled: float, layers: int) -> KernelGraph:
    """Layers on one vector whose weights fill such a share of the cache."""
    width = int((filled * CACHE / layers / 4) ** 0.5)
    row = KernelRow(
        "fc", "Gemm", "fp32", "", ((1, width),), (1, width), width * width, 4 * width, 4 * width, 4 * width * width
    )
    return KernelGraph((row,) * layers, layers * row.bytes_weights, 8 * width)


def timed(spill: tuple[float, float], count: int = 40) -> list[Observation]:
    """A call takes 2 us, a megabyte of weights 20 us in the cache and 60 us where it has left it at such shares."""
    machine, found = replace(MACHINE, weight_spill=spill), []
    for number in range(count):
        graph = linear(0.05 * 60 ** (number / (count - 1)), 1 + number % 4)
        far = far_share(graph, machine).weights
        weights = graph.weight_bytes / 1e6
        found.append(Observation(graph, 0.002 * len(graph.rows) + weights * (0.02 + 0.04 * far)))
    return found


@pytest.mark.parametrize("spill", WEIGHT_SPILLS)
def test_the_shares_that_linear_networks_were_timed_with_are_found(spill: tuple[float, float]) -> None:
    assert weights_spilt(MACHINE, timed(spill)).weight_spill == spill


def test_too_few_linear_networks_near_the_cache_leave_the_machine_as_it_is() -> None:
    few = [item for item in timed((0.75, 1.25)) if not 0.25 <= item.graph.weight_bytes / CACHE <= 2]
    near = [item for item in timed((0.75, 1.25)) if 0.25 <= item.graph.weight_bytes / CACHE <= 1.9]
    assert weights_spilt(MACHINE, few + near[: LEAST_NEAR - 1]) == MACHINE
    assert weights_spilt(MACHINE, few + near[:LEAST_NEAR]) != MACHINE
    assert weights_spilt(Machine(cache_bytes=CACHE), timed((0.75, 1.25))) == Machine(cache_bytes=CACHE)


def test_networks_with_other_weights_tell_nothing() -> None:
    def mixed(item: Observation) -> Observation:
        convolution = KernelRow(
            "c", "Conv", "fp32", "nchw", ((1, 8, 4, 4),), (1, 8, 4, 4), 9216, 512, 512, 2304, (3, 3)
        )
        return replace(item, graph=replace(item.graph, rows=(*item.graph.rows, convolution)))

    assert weights_spilt(MACHINE, [mixed(item) for item in timed((0.75, 1.25))]) == MACHINE


def copies(kilobytes: int, others: int) -> KernelGraph:
    """Copies of as much, and as many views of data that the network holds meanwhile."""
    size = kilobytes << 10
    row = KernelRow("copy", "Relu", "fp32", "nchw", ((1, size // 4),), (1, size // 4), 0, size, size, 0)
    return KernelGraph((row,) * 3, 0, 2 * size + (others << 10))


@pytest.mark.parametrize("reads", ["network", "kernel"])
def test_what_decides_over_the_activations_a_kernel_reads_is_found(reads: Literal["network", "kernel"]) -> None:
    truth = replace(MACHINE, reads=reads, spill=MACHINE.spill if reads == "network" else KERNEL_SPILL)
    prices = {"Relu.fp32:calls": 0.002, "Relu.fp32:bytes_far": 0.03, "memory:activations": 0.1}
    prices |= {"memory:written": 0.06, "read:activations": 0.14}
    priced = Fit(truth, prices, {}, {})
    graphs = [copies(size, others) for size in (16, 64, 128, 256, 400, 600) for others in (0, 300, 700, 1500)]
    found = fitted(MACHINE, [Observation(graph, priced.graph_ms(graph)) for graph in graphs])
    assert (found.machine.reads, found.machine.spill) == (reads, truth.spill)
    other = copies(200, 500)
    assert found.graph_ms(other) == pytest.approx(priced.graph_ms(other), rel=0.01)


def test_a_kernel_reads_from_the_cache_what_it_touches_little_of_in_a_network_however_large() -> None:
    kernel = replace(MACHINE, reads="kernel", spill=(0.5, 1.5))
    small, large = copies(128, 0).rows[0], copies(512, 0).rows[0]
    assert "read:activations" not in features(small, kernel)
    assert features(large, kernel)["read:activations"] == pytest.approx(0.5 * (512 << 10) / 1e6)
    found = Fit(kernel, {"memory:written": 2.0, "read:activations": 4.0}, {}, {})
    assert found.row_ms(small, Far(0.5, 0.0)) == pytest.approx(0.5 * 2.0 * (128 << 10) / 1e6)
    assert found.row_ms(large, Far(0.0, 0.0)) == pytest.approx(4.0 * 0.5 * (512 << 10) / 1e6)


def test_a_stored_calibration_remembers_it_and_an_earlier_one_has_none() -> None:
    shipped = Path(__file__).parents[2] / "hardware_profiles" / "epyc_genoa_1t" / "calibration.json"
    known = json.loads(shipped.read_text())
    earlier = Calibration.model_validate({name: known[name] for name in known if name not in ("weight_spill", "reads")})
    assert (earlier.fit().machine.weight_spill, earlier.fit().machine.reads) == (None, "network")
    later = earlier.model_copy(update={"weight_spill": (0.5, 1.5), "reads": "kernel"})
    machine = Calibration.model_validate_json(later.model_dump_json()).fit().machine
    assert (machine.weight_spill, machine.reads) == ((0.5, 1.5), "kernel")
