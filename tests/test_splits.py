"""A tensor that is split into fixed parts is exported as one Split."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from automc.cost.graph import graph_from_onnx, graph_from_trace
from automc.errors import ExportError
from automc.export import check_parity, export_onnx
from automc.splits import split_directly

SAMPLE = (torch.randn(1, 10, 4, 4, generator=torch.Generator().manual_seed(0)),)


class Splitting(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.conv = how, nn.Conv2d(10, 10, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if self.how == "chunk":
            parts = x.chunk(3, 1)  # 4, 4 and 2 channels
        elif self.how == "split":
            parts = x.split(4, 1)
        elif self.how == "listed":
            parts = x.split([1, 7, 2], 1)
        else:  # one part is not read, another twice
            parts = (x.chunk(2, 1)[1], x.chunk(2, 1)[1])
        return torch.cat([part * (index + 1) for index, part in enumerate(parts)], 1)


@pytest.mark.parametrize("how", ["chunk", "split", "listed", "in part"])
def test_parts_are_those_of_torch_and_no_sequence_is_left(how: str) -> None:
    torch.manual_seed(0)
    model = Splitting(how).eval()
    graph = export_onnx(model, SAMPLE)
    kinds = [node.op_type for node in graph.graph.node]
    assert not [kind for kind in kinds if "Sequence" in kind]
    check_parity(model, graph, (torch.randn(3, 10, 4, 4),))
    traced = [(row.op, row.output_shape) for row in graph_from_trace(model, SAMPLE).rows if row.op == "Split"]
    exported = [(row.op, row.output_shape) for row in graph_from_onnx(graph).rows if row.op == "Split"]
    assert len(exported) == len(traced) > 0


def test_a_graph_without_sequences_is_given_back_itself() -> None:
    graph = export_onnx(nn.Sequential(nn.Conv2d(10, 4, 1), nn.ReLU()).eval(), SAMPLE)
    assert split_directly(graph) is graph


def test_tensors_of_several_splits_in_one_module_have_names_of_their_own() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, second, third = x.chunk(3, 1)  # Split, Split_1, Split_2
            for _ in range(3):  # and Split_2 once more, as the name of a node
                left, right = second.chunk(2, 1)
                second = torch.cat((right, left), 1)
            return torch.cat((first, second, third), 1)

    graph = export_onnx(Twice().eval(), SAMPLE)
    names = [name for node in graph.graph.node for name in node.output]
    assert len(set(names)) == len(names)
    check_parity(Twice(), graph, SAMPLE)


def test_a_network_whose_own_code_fails_in_an_export_is_an_export_error() -> None:
    class Unprintable(nn.Linear):
        def __repr__(self) -> str:
            raise AttributeError("no attribute 'trace_args'")

    with pytest.raises(ExportError, match="trace_args"):
        export_onnx(nn.Sequential(Unprintable(4, 4)).eval(), (torch.zeros(1, 4),))
