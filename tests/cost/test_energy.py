"""Energy where none was measured: a model whose arithmetic can be followed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_up_device import save_made_up
from torch import nn

from automc.cost.energy import MODEL_NAME, EnergyModel
from automc.cost.graph import graph_from_onnx
from automc.cost.kernels import KernelGraph, KernelRow
from automc.cost.predictor import load_predictor
from automc.export import export_onnx


def dense(macs: int) -> KernelRow:
    return KernelRow("c", "Conv", "fp32", "nchwc", ((1, 16, 8, 8),), (1, 16, 8, 8), macs, 4096, 4096, 9216)


def elementwise() -> KernelRow:
    return KernelRow("r", "Relu", "fp32", "nchw", ((1, 16, 8, 8),), (1, 16, 8, 8), 0, 4096, 4096, 0)


def test_the_model_adds_work_memory_instructions_and_static_power() -> None:
    # 1e6 MACs x 4.6 pJ = 4.6e6; operands 1e6 x 2 x 4 / 16 bytes x 2.5 pJ = 1.25e6;
    # instructions (1e6 / 16 + 8192 / 64) x 70 pJ = 4,383,960; 8,192 bytes x 12.5 pJ = 102,400;
    # weights 9,216 x 12.5 = 115,200: 10,451,560 pJ = 0.01045156 mJ; 0.5 W x 2 ms = 1 mJ
    assert EnergyModel().kernel_mj(dense(1_000_000), 2.0, 0.0) == pytest.approx(1.01045156)
    # the same weights from DRAM: 9,216 x (162.5 - 12.5) = 1,382,400 pJ more
    assert EnergyModel().kernel_mj(dense(1_000_000), 2.0, 1.0) == pytest.approx(1.01045156 + 0.0013824)


def test_latency_and_energy_order_two_kernels_differently() -> None:
    model = EnergyModel()
    busy_ms, idle_ms = 0.40, 0.45  # the element-wise kernel waits longer, the convolution works harder
    busy = model.kernel_mj(dense(10_000_000), busy_ms, 0.0)
    idle = model.kernel_mj(elementwise(), idle_ms, 0.0)
    assert busy_ms < idle_ms
    assert busy > idle  # about 0.20 + 0.10 against 0.225 mJ


def dense_network(width: int) -> nn.Module:
    """Two 3x3 convolutions on 32x32 pixels: few kernels, much arithmetic in each."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10),
    )  # fmt: skip


def thin_network(depth: int) -> nn.Module:
    """`depth` depthwise convolutions of 16 channels on 32x32 pixels: many kernels, hardly any arithmetic."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def on_the_made_up_device(graph: KernelGraph) -> float:
    """Milliseconds where a call costs 20 us and what follows runs at 50 GMAC/s: waiting is slow, arithmetic is fast."""
    return 0.02 * len(graph.rows) + graph.macs / 50e6


def test_latency_and_energy_order_two_networks_differently(tmp_path: Path) -> None:
    """Exported networks, costs from the predictor: the faster of the two is the one that needs more energy."""

    def graph_of(network: nn.Module) -> KernelGraph:
        return graph_from_onnx(export_onnx(network.eval(), (torch.zeros(1, 3, 32, 32),)))

    # the device was calibrated on neither of the two: they lie between the widths and depths of others
    known = [graph_of(dense_network(width)) for width in (32, 128)] + [graph_of(thin_network(n)) for n in (8, 64)]
    profile = save_made_up(tmp_path / "device", known, latency_ms=on_the_made_up_device)
    predictor = load_predictor(profile, tmp_path / "device")
    dense, thin = (predictor.predict(graph_of(network)) for network in (dense_network(64), thin_network(48)))
    assert dense.latency_ms.value < 0.95 * thin.latency_ms.value
    assert dense.energy_mj.value > 1.05 * thin.energy_mj.value


def test_constants_survive_storing() -> None:
    model = EnergyModel(static_w=1.5)
    assert EnergyModel.from_constants(model.constants()) == model


def test_the_model_names_its_source() -> None:
    assert "Horowitz" in MODEL_NAME
