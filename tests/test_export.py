"""The exported graph computes what the network computes, and the same network gives the same bytes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from example_networks import NETWORKS, network
from torch import nn
from torch.nn import functional as F
from torch.onnx._internal.exporter._registration import ONNXRegistry

from automc.errors import ExportError, ParityError
from automc.export import check_parity, export_onnx, onnx_bytes, run_onnx
from automc.translation import DIRECT, is_direct

ONE = torch.zeros(1, 3, 32, 32)


def pictures(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def exported() -> dict[str, onnx.ModelProto]:
    return {name: export_onnx(network(name), (ONE,)) for name in NETWORKS}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_computes_what_the_network_computes_at_any_batch(
    name: str, exported: dict[str, onnx.ModelProto]
) -> None:
    for count in (1, 3):
        assert check_parity(network(name), exported[name], (pictures(count),)) < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_is_standard_onnx_without_metadata(name: str, exported: dict[str, onnx.ModelProto]) -> None:
    model = exported[name]
    onnx.checker.check_model(model, full_check=True)
    assert {opset.domain for opset in model.opset_import} == {""}
    assert not model.metadata_props
    assert not model.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["output"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


class EveryDirectOperator(nn.Module):
    """One use at least of every operator that is translated without decomposition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.prelu, self.linear = nn.PReLU(8), nn.Linear(24, 5)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.weight, 0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x))
        y = torch.cat([F.relu(x), F.relu6(x) * torch.sigmoid(x), F.hardtanh(x, -0.5, 0.5)], 1)
        z = F.avg_pool2d(F.pad(y[:, 4:20:2], (1, 0, 0, 1)), 3, 2, 1) + F.max_pool2d(
            self.prelu(x), 3, 2, 1, ceil_mode=True
        )
        pooled = F.adaptive_avg_pool2d(z, 1).flatten(1)
        return self.linear(torch.cat([pooled, z.mean((2, 3)), F.avg_pool2d(z, 8).flatten(1, -1)], 1))


def test_a_network_translated_as_traced_computes_the_same() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = EveryDirectOperator().eval()
    program = torch.export.export(model, (pictures(2),))
    used = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert used == DIRECT
    assert is_direct(program)
    for count in (1, 3):
        assert check_parity(model, export_onnx(model, (ONE,)), (pictures(count),)) < 1e-5


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(3, affine=False), nn.AdaptiveAvgPool2d(2), nn.Flatten(2), nn.ReLU(inplace=True), nn.GELU()]
)
def test_what_needs_decomposition_is_decomposed(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Identity(), layer).eval()
    assert not is_direct(torch.export.export(model, (pictures(2),)))
    assert check_parity(model, export_onnx(model, (ONE,)), (pictures(3),)) < 1e-5


def test_torch_is_left_as_it_was() -> None:
    before = torch.export.ExportedProgram.run_decompositions, ONNXRegistry.__dict__["from_torchlib"]
    export_onnx(network("lenet"), (ONE,))
    assert (torch.export.ExportedProgram.run_decompositions, ONNXRegistry.__dict__["from_torchlib"]) == before


def test_batch_norm_is_folded_and_nodes_bear_their_modules_names(exported: dict[str, onnx.ModelProto]) -> None:
    model = exported["residual"]
    kinds = Counter(node.op_type for node in model.graph.node)
    assert "BatchNormalization" not in kinds
    assert kinds["Conv"] == 1 + 3 * 2 * 2  # stem, three stages of two blocks of two
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert [node.name for node in convolutions][:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    assert list(convolutions[1].input)[1:] == ["layer1.0.conv1.weight", "layer1.0.conv1.bias"]
    assert [node.name for node in model.graph.node if node.op_type == "Gemm"] == ["linear"]


def test_the_same_network_gives_the_same_bytes(exported: dict[str, onnx.ModelProto]) -> None:
    assert onnx_bytes(export_onnx(network("residual"), (pictures(1),))) == onnx_bytes(exported["residual"])
    assert onnx_bytes(export_onnx(network("residual", seed=1), (ONE,))) != onnx_bytes(exported["residual"])


def test_the_network_is_untouched_and_training_mode_does_not_matter() -> None:
    model = network("lenet").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    export_onnx(model, (ONE,))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_network_the_exporter_refuses_is_an_export_error_with_its_cause() -> None:
    class Sorts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(x.mean((1, 2))[:, :1, None]).real

    with pytest.raises(ExportError, match="cannot export Sorts") as caught:
        export_onnx(Sorts(), (ONE,))
    assert caught.value.__cause__ is not None


def test_a_graph_that_differs_is_a_parity_error(exported: dict[str, onnx.ModelProto]) -> None:
    with pytest.raises(ParityError, match="differs from the network"):
        check_parity(network("lenet", seed=1), exported["lenet"], (pictures(2),))


def test_a_wrong_number_of_inputs_is_refused(exported: dict[str, onnx.ModelProto]) -> None:
    with pytest.raises(ValueError, match="takes 1 inputs"):
        run_onnx(exported["lenet"], [np.zeros((1, 3, 32, 32), np.float32)] * 2)


def test_control_flow_by_values_is_named_with_what_to_write_instead() -> None:
    class Choosing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(ExportError, match="torch cannot export Choosing") as refused:
        export_onnx(Choosing().eval(), (torch.ones(1, 4),))
    assert "torch.where" in str(refused.value.next_step)
