"""Coupled channels: found in every kind of network, and slicing them is the same as zeroing them."""

from dataclasses import dataclass

import pytest
import torch
from example_networks import NETWORKS, network
from torch import nn

from automc.errors import CompressionError
from automc.techniques import coupling as coupling_module
from automc.techniques.coupling import couple, masked_copy, removal_edits
from automc.techniques.edits import apply_edits

PICTURE = (torch.zeros(1, 3, 32, 32),)


def roots(model: nn.Module) -> dict[str, tuple[str, ...]]:
    return {group.root: group.producers for group in couple(model, PICTURE).groups}


def test_a_depthwise_network_couples_expansion_gate_and_projection() -> None:
    assert roots(network("depthwise")) == {
        "stem": ("stem", "blocks.0.project.0", "blocks.1.project.0"),
        "blocks.0.expand.0": ("blocks.0.expand.0", "blocks.0.excite"),
        "blocks.0.squeeze": ("blocks.0.squeeze",),
        "blocks.1.expand.0": ("blocks.1.expand.0", "blocks.1.excite"),
        "blocks.1.squeeze": ("blocks.1.squeeze",),
        "grouped": ("grouped",),
    }


def test_a_grouped_convolution_keeps_its_groups_equal() -> None:
    coupling = couple(network("depthwise"), PICTURE)
    grouped = next(group for group in coupling.groups if group.root == "grouped")
    # 16 outputs in 2 groups: 8 units, each a channel of both groups
    assert [unit.members["grouped", "out"] for unit in grouped.units] == [(i, i + 8) for i in range(8)]
    stem = next(group for group in coupling.groups if group.root == "stem")
    assert [unit.members["grouped", "in"] for unit in stem.units] == [(i, i + 4) for i in range(4)]


def test_a_channel_read_through_a_concatenation_is_found_at_its_offset() -> None:
    coupling = couple(network("concat"), PICTURE)
    second = next(group for group in coupling.groups if group.root == "second")
    # 8 channels of `first` come before those of `second`
    assert [unit.members["third", "in"] for unit in second.units] == [(8 + i,) for i in range(8)]
    assert [unit.members["bn2", "out"] for unit in second.units] == [(8 + i,) for i in range(8)]


def test_a_channel_flattened_into_a_linear_layer_is_its_whole_map() -> None:
    coupling = couple(network("lenet"), PICTURE)
    conv2 = next(group for group in coupling.groups if group.root == "conv2")
    assert conv2.units[2].members["fc1", "in"] == tuple(range(2 * 16, 3 * 16))  # 4 x 4 positions a channel


def test_of_a_transformer_only_the_mlp_width_is_offered_and_the_rest_says_why() -> None:
    coupling = couple(network("encoder"), PICTURE)
    assert [group.root for group in coupling.groups] == ["blocks.0.up", "blocks.1.up"]
    assert coupling.refused["patches"] == "LayerNorm blocks.0.norm1 works across its channels"
    assert "does not run without" in coupling.refused["blocks.0.qkv"]
    assert "output of the network" in coupling.refused["head"]


class Heads(nn.Module):
    """Attention as many libraries write it: as many heads as fit, each of 4 channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into = nn.Linear(6, 8)
        self.query, self.key, self.value = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(8, 16)
        self.out = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.into(x)
        q, k, v = (
            layer(x).view(x.shape[0], x.shape[1], -1, 4).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        weights = (q @ k.transpose(2, 3) * 1e-4).softmax(-1)  # as in an untrained network: all alike
        return self.out((weights @ v).transpose(1, 2).flatten(2)).mean(1)


def test_channels_of_heads_are_refused_though_half_of_them_would_still_make_whole_heads() -> None:
    found = couple(Heads(), (torch.zeros(1, 5, 6),))
    assert [group.root for group in found.groups] == ["into"]
    assert found.refusals["query"].layers == ("key", "query", "value")
    assert "does not run without some of its channels" in found.refused["query"]


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "residual"])
@pytest.mark.parametrize("side", ["in", "out"])
def test_slicing_equals_zero_masking_the_same_channels(name: str, side: str) -> None:
    model = network(name)
    groups = couple(model, PICTURE).groups
    # sigmoid(0) is not 0: behind it, and behind a gate, zeroing what makes a channel leaves a constant
    if side == "out":
        groups = tuple(group for group in groups if name != "lenet" or group.root == "conv1")
    noise = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for group in groups:
        removed = {group.root: range(0, len(group.units), 3)}
        sliced = apply_edits(model, removal_edits(model, (group,), removed))
        masked = masked_copy(model, (group,), removed, side)
        with torch.no_grad():
            assert torch.allclose(sliced(noise), masked(noise), atol=1e-5), group.root
            assert not torch.allclose(model(noise), masked(noise), atol=1e-5), group.root


def test_a_group_whose_slice_would_change_more_than_its_channels_is_refused() -> None:
    class MeanOverChannels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            x = self.second(x - x.mean(1, keepdim=True))
            return self.head(x.mean((2, 3)))

    coupling = couple(MeanOverChannels().eval(), PICTURE)
    assert [group.root for group in coupling.groups] == ["second"]
    assert coupling.refused["first"] == "slicing its channels is not the same as zeroing them"


def test_a_group_whose_slice_would_change_another_output_is_refused() -> None:
    class TwoAnswers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 10)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.first(x)
            return self.head(self.second(x).mean((2, 3))), x.mean(1)

    coupling = couple(TwoAnswers().eval(), PICTURE)
    assert [group.root for group in coupling.groups] == ["second"]
    assert coupling.refused["first"] == "slicing its channels is not the same as zeroing them"


def test_a_shortcut_written_inside_forward_refuses_its_groups_alone() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1)
            self.project, self.head = nn.Conv2d(8, 16, 3, 1, 1), nn.Linear(16, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x).relu()
            padded = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
            x = padded + self.project(self.inner(x).relu())
            return self.head(x.mean((2, 3)))

    coupling = couple(Functional().eval(), PICTURE)
    assert "inner" in [group.root for group in coupling.groups]
    assert "project" not in [group.root for group in coupling.groups]


def test_layers_no_gradient_reaches_are_refused() -> None:
    class Label(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x)).argmax(1)

    coupling = couple(Label().eval(), (torch.zeros(1, 4),))
    assert coupling.groups == ()
    assert "no gradient" in coupling.refused["first"]


def test_a_network_torch_pruning_cannot_trace_is_a_compression_error() -> None:
    @dataclass
    class Answer:
        logits: torch.Tensor

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> Answer:
            return Answer(self.second(self.first(x)))

    with pytest.raises(CompressionError, match="Torch-Pruning cannot trace") as caught:
        couple(Wrapped().eval(), (torch.zeros(1, 4),))
    assert isinstance(caught.value.__cause__, TypeError)


class SharedKeys(nn.Module):
    """Two heads that attend with one key and value, and their positions turned in: as Llama does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 16)
        self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 8), nn.Linear(16, 8)
        self.out, self.up, self.down = nn.Linear(16, 16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.register_buffer("turn", torch.linspace(0.1, 1.0, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        shape = (*x.shape[:2], -1, 8)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = (t * self.turn + torch.cat((-t[..., 4:], t[..., :4]), -1) * self.turn for t in (q, k))
        k, v = (t[:, :, None].expand(-1, -1, 2, -1, -1).reshape(q.shape) for t in (k, v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        return x + self.down(self.up(x).relu())


def test_channels_that_are_followed_round_in_circles_refuse_their_group_alone() -> None:
    coupling = couple(SharedKeys().eval(), (torch.zeros(1, 6, 4),))
    assert [group.root for group in coupling.groups] == ["up"]
    assert "round in circles" in coupling.refused["q"]


class Shuffled(nn.Module):
    """Units that halve their channels, work on one half, and shuffle both (Ma et al. 2018)."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.units = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(units))
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for unit in self.units:
            left, right = x.chunk(2, 1)
            x = torch.cat((left, unit(right).relu()), 1)
            batch, _, height, width = x.shape
            x = x.view(batch, 2, 16, height, width).transpose(1, 2).reshape(batch, 32, height, width)
        return self.head(x.mean((2, 3)))


def test_a_channel_shuffle_that_torch_pruning_fails_on_is_a_candidates_error() -> None:
    with pytest.raises(CompressionError, match="cannot trace this network: ZeroDivisionError"):
        couple(Shuffled(3).eval(), (torch.zeros(1, 3, 8, 8),))


def test_a_failure_of_torch_prunings_arithmetic_refuses_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    follow = coupling_module.follow

    def failing(graph: object, module: nn.Module, width: int) -> object:
        if width == 8:
            raise ZeroDivisionError("integer division or modulo by zero")
        return follow(graph, module, width)

    monkeypatch.setattr(coupling_module, "follow", failing)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    coupling = couple(model, (torch.zeros(1, 4),))
    assert "ZeroDivisionError" in coupling.refused["0"]
    assert [group.root for group in coupling.groups] == ["2"]


def test_the_network_is_left_as_it_was() -> None:
    model = network("concat").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    couple(model, PICTURE)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
