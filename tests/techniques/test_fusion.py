"""Fusion keeps the function, makes fewer kernels, and never turns a cheap pair into a dear product."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from example_networks import NETWORKS, context, network
from torch import nn

from automc.export import check_parity, export_onnx, onnx_bytes
from automc.techniques.fusion import Fusion, FusionParams
from automc.techniques.plan import Plan

FUSION = Fusion()
STANDARD = Plan(technique="fusion", options={"level": "standard"})


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def fused(*layers: nn.Module, shape: tuple[int, ...] = (3, 8, 8)) -> tuple[nn.Module, onnx.ModelProto, onnx.ModelProto]:
    torch.manual_seed(0)
    model = nn.Sequential(*layers).eval()
    graph = export_onnx(model, (torch.zeros(1, *shape),))
    result = FUSION.apply(graph, STANDARD)
    check_parity(model, result, (torch.randn(2, *shape),), tolerance=1e-5)
    return model, graph, result


def weight(model: onnx.ModelProto, suffix: str) -> np.ndarray:
    return next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith(suffix))


def test_convolution_then_pointwise_becomes_one_when_that_is_less_work() -> None:
    # per output pixel 16*3*9 + 4*16 = 496 multiplications before, 4*3*9 = 108 after
    _, before, after = fused(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.Conv2d(16, 4, 1, stride=2))
    assert kinds(before)["Conv"] == 2
    assert kinds(after)["Conv"] == 1
    assert weight(after, ".weight").shape == (4, 3, 3, 3)


def test_pointwise_then_convolution_merges_only_where_padding_cannot_see_the_bias() -> None:
    # 4*3*9 = 108 against 12*3 + 4*12*9 = 468
    for padding, bias, left in ((0, True, 1), (1, False, 1), (1, True, 2)):
        _, _, after = fused(nn.Conv2d(3, 12, 1, bias=bias), nn.Conv2d(12, 4, 3, padding=padding))
        assert kinds(after)["Conv"] == left, (padding, bias)


def test_a_low_rank_pair_stays_a_pair() -> None:
    # 2*64 + 64*2 = 256 multiplications, 64*64 = 4096 merged
    _, _, after = fused(nn.Linear(64, 2), nn.Linear(2, 64), shape=(64,))
    assert kinds(after)["Gemm"] == 2
    _, _, after = fused(nn.Conv2d(32, 2, 3, padding=1), nn.Conv2d(2, 32, 1), shape=(32, 8, 8))
    assert kinds(after)["Conv"] == 2


def test_two_linear_layers_become_one_and_a_norm_folds_in() -> None:
    norm = nn.BatchNorm1d(4)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    nn.init.normal_(norm.running_mean)
    _, _, after = fused(nn.Linear(8, 16), nn.Linear(16, 4), norm, shape=(8,))
    assert kinds(after) == Counter({"Gemm": 1})


def test_products_with_something_between_or_beside_them_stay() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.one(x)
            return self.two(y) + y[:, :8]

    _, _, after = fused(Branches(), shape=(8,))
    assert kinds(after)["Gemm"] == 2
    _, _, after = fused(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4), shape=(8,))
    assert kinds(after)["Gemm"] == 2


def test_a_doubled_activation_goes() -> None:
    _, before, after = fused(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Identity(), nn.ReLU())
    assert (kinds(before)["Relu"], kinds(after)["Relu"]) == (2, 1)


@pytest.mark.parametrize("level", ["standard", "extended"])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_stay_and_a_second_pass_changes_nothing(name: str, level: str) -> None:
    model = network(name)
    graph = export_onnx(model, (torch.zeros(1, 3, 32, 32),))
    before = onnx_bytes(graph)
    plan = FUSION.plan(graph, FusionParams(level=level), context(data=False))
    once = FUSION.apply(graph, plan)
    assert onnx_bytes(graph) == before
    assert len(once.graph.node) <= len(graph.graph.node)
    assert onnx_bytes(FUSION.apply(once, plan)) == onnx_bytes(once)
    assert check_parity(model, once, (torch.randn(3, 3, 32, 32),)) < 1e-5
    domains = {opset.domain for opset in once.opset_import}
    assert domains <= ({"", "com.microsoft"} if level == "extended" else {""})


def test_extended_fuses_activations_into_convolutions() -> None:
    graph = export_onnx(network("residual"), (torch.zeros(1, 3, 32, 32),))
    plan = FUSION.plan(graph, FusionParams(level="extended"), context(data=False))
    after = kinds(FUSION.apply(graph, plan))
    # the stem and the first convolution of six blocks; the second one's Relu comes behind the Add, which stays
    assert after["FusedConv"] == 1 + 6
    assert after["Relu"] == 6
    assert plan.facts["nodes_before"] == len(graph.graph.node)
    assert plan.facts["nodes_after"] == sum(after.values())
