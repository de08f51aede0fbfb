"""Layers priced as part of a network: lowered once, beside what the network itself moves."""

from __future__ import annotations

import torch
from torch import nn

from automc.cost.graph import graph_from_trace
from automc.cost.kernels import KernelGraph, Precision
from automc.cost.parts import PartPrices
from automc.cost.predictor import Costs, Estimate
from automc.techniques.plan import LayerSpec

WHOLE = LayerSpec(type="conv2d", in_channels=32, out_channels=32, kernel=(3, 3), padding=(1, 1))
THIN = (
    LayerSpec(type="conv2d", in_channels=32, out_channels=16, kernel=(3, 3), padding=(1, 1)),
    LayerSpec(type="conv2d", in_channels=16, out_channels=32, kernel=(1, 1)),
)
PICTURE = (1, 32, 8, 8)


def test_layers_of_a_shape_are_lowered_once_and_priced_by_how_full_their_network_is() -> None:
    asked: list[nn.Module] = []

    def kernels(model: nn.Module, inputs: tuple[torch.Tensor, ...], precision: Precision) -> KernelGraph:
        asked.append(model)
        return graph_from_trace(model, inputs, precision=precision)

    def predict(graph: KernelGraph) -> Costs:
        """A microsecond a thousand multiply-accumulates, twice that in a network of more than 100 kB."""
        value = graph.macs / 1e6 * (2.0 if graph.weight_bytes > 100_000 else 1.0)
        estimate = Estimate(value, value, value, "ms", 1.0)
        return Costs(estimate, estimate, estimate)

    prices = PartPrices(kernels, predict)
    small = nn.Conv2d(32, 32, 3, padding=1).eval()
    large = nn.Sequential(nn.Conv2d(32, 128, 3, padding=1), nn.Conv2d(128, 32, 3, padding=1)).eval()
    inputs = (torch.zeros(PICTURE),)
    # 3 x 3 x 32 x 32 over 64 positions: 589,824; thin: 3 x 3 x 32 x 16 + 16 x 32 over 64: 327,680
    assert prices.milliseconds(small, inputs, (WHOLE,), PICTURE, "fp32") == 0.589824
    assert prices.milliseconds(small, inputs, THIN, PICTURE, "fp32") == 0.327680
    assert prices.milliseconds(large, inputs, THIN, PICTURE, "fp32") == 0.655360
    assert prices.milliseconds(large, inputs, (WHOLE,), PICTURE, "fp32") == 2 * 0.589824
    assert len(asked) == 4  # two networks and two ways, whichever were asked together
