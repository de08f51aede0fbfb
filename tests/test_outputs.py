"""Networks answer in many wrappings; every tensor in them is compared, the first is scored."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from torch import nn

from automc.errors import CompressionError, ParityError
from automc.export import check_parity, compare_all, export_onnx
from automc.outputs import first_tensor, records_of, tensors_of

ONE = torch.zeros(1, 3, 8, 8)
Pair = namedtuple("Pair", ["left", "right"])
A, B, C = (torch.full((1,), float(value)) for value in range(3))


@pytest.mark.parametrize(
    "output",
    [(A, B, C), [A, (B, C)], {"a": A, "rest": [B, C]}, OrderedDict(a=A, b=B, c=C), Pair(A, (B, None, C)), (A, 3, B, C)],
)
def test_tensors_come_out_of_any_wrapping_in_order(output: object) -> None:
    assert [float(tensor) for tensor in tensors_of(output)] == [0.0, 1.0, 2.0]
    assert first_tensor(output) is A


@pytest.mark.parametrize("output", [None, (), {"logits": None}, 3.0, object()])
def test_an_answer_without_a_tensor_is_named(output: object) -> None:
    with pytest.raises(CompressionError, match=f"returns {type(output).__name__}, in which no tensor was found"):
        tensors_of(output)


class TwoHeads(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.body, self.boxes, self.kinds = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 2)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.body(x).mean((2, 3))
        return {"boxes": self.boxes(x), "kinds": self.scale * self.kinds(x)}


def test_parity_is_of_every_output() -> None:
    torch.manual_seed(0)
    model = TwoHeads().eval()
    graph = export_onnx(model, (ONE,))
    assert [output.name for output in graph.graph.output] == ["output_0", "output_1"]
    pictures = (torch.randn(3, 3, 8, 8),)
    assert check_parity(model, graph, pictures) < 1e-5
    other = TwoHeads(scale=1.01)
    other.load_state_dict(model.state_dict())
    with pytest.raises(ParityError, match=r"output 1: the graph differs from the network by 9\.90e-03"):
        check_parity(other, graph, pictures)  # by 0.01 / 1.01 of its range; the first output is the same


class Cache:
    """What a decoder remembers: a class that torch knows nothing of."""

    def __init__(self, keys: torch.Tensor) -> None:
        self.keys = keys


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        keys = self.first(x)
        return {"logits": self.second(keys), "cache": Cache(keys), "loss": None}


def test_what_is_no_tensor_is_left_out_of_the_export_and_named() -> None:
    model = Remembers().eval()
    graph = export_onnx(model, (torch.zeros(1, 4),))
    assert [output.name for output in graph.graph.output] == ["output"]
    assert [node.name for node in graph.graph.node] == ["first", "second"]
    assert check_parity(model, graph, (torch.randn(3, 4),)) < 1e-5
    assert records_of(model(torch.zeros(1, 4))) == ("Cache",)
    assert "forward" not in vars(model)


def test_another_number_of_outputs_is_no_parity() -> None:
    with pytest.raises(ParityError, match="the graph gives 1 outputs, the network 2"):
        compare_all([np.zeros(2), np.zeros(2)], [np.zeros(2)], tolerance=1e-4)
