"""Layers split by a truncated SVD: exact at full rank, best at every other, kept only where it pays."""

from itertools import pairwise

import pytest
import torch
from example_networks import context, network
from torch import nn

from automc.errors import InfeasibleCandidate, UnseenOperatorError
from automc.techniques._factorising import snap_rank
from automc.techniques.edits import apply_edits
from automc.techniques.low_rank import LowRank, LowRankParams, truncated_svd
from automc.techniques.plan import LayerSpec, Plan, ReplaceEdit

LOW_RANK = LowRank()


def plan(model: nn.Module, **params: object) -> Plan:
    return LOW_RANK.plan(model, LowRankParams.model_validate({"only_if_faster": False, **params}), context(data=False))


@pytest.mark.parametrize(
    ("wanted", "most", "rank"),
    [
        (10.0, 99, 12),  # halfway between 8 and 12: up
        (9.0, 99, 8),
        (1.0, 99, 4),  # at least one multiple
        (6.0, 7, 6),  # 8 does not save, 6 does
        (6.0, 5, None),  # neither does: the layer stays
    ],
)
def test_ranks_snap_to_the_channel_multiple_unless_that_makes_them_pointless(
    wanted: float, most: int, rank: int | None
) -> None:
    assert snap_rank(wanted, 4, lambda rank: rank <= most) == rank


def test_a_truncated_svd_is_the_best_approximation_of_its_rank() -> None:
    # singular values 5, 3, 1: the error of rank 2 is 1, of rank 1 sqrt(9 + 1)
    matrix = torch.diag(torch.tensor([3.0, 5.0, 1.0], dtype=torch.float64))
    for rank, error in ((3, 0.0), (2, 1.0), (1, 10**0.5)):
        left, right = truncated_svd(matrix, rank)
        assert float((left @ right - matrix).norm()) == pytest.approx(error, abs=1e-12)


def convolution(**options: object) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(6, 8, (3, 5), **options)  # type: ignore[arg-type]


def spec(first: LayerSpec, second: LayerSpec) -> Plan:
    return Plan(technique="low_rank", edits=(ReplaceEdit(module="0", layers=(first, second)),))


def channel_plan(rank: int) -> Plan:
    return spec(
        LayerSpec(type="conv2d", in_channels=6, out_channels=rank, kernel=(3, 5), stride=(2, 1), padding=(1, 2)),
        LayerSpec(type="conv2d", in_channels=rank, out_channels=8, kernel=(1, 1), bias=True),
    )


def spatial_plan(rank: int) -> Plan:
    return spec(
        LayerSpec(type="conv2d", in_channels=6, out_channels=rank, kernel=(3, 1), stride=(2, 1), padding=(1, 0)),
        LayerSpec(type="conv2d", in_channels=rank, out_channels=8, kernel=(1, 5), padding=(0, 2), bias=True),
    )


@pytest.mark.parametrize(("make", "full"), [(channel_plan, 8), (spatial_plan, 18)])
def test_full_rank_reproduces_a_convolution_and_the_error_falls_with_rank(make: object, full: int) -> None:
    model = nn.Sequential(convolution(stride=(2, 1), padding=(1, 2)))
    noise = torch.randn(2, 6, 11, 9, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        errors = [
            float((LOW_RANK.apply(model, make(rank))(noise) - model(noise)).norm())  # type: ignore[operator]
            for rank in range(1, full + 1)
        ]
        assert errors[-1] < 1e-5 * float(model(noise).norm())
    assert all(later < earlier for earlier, later in pairwise(errors))


@pytest.mark.parametrize("scheme", ["channel", "spatial"])
@pytest.mark.parametrize("name", ["residual", "lenet", "concat", "depthwise", "encoder"])
def test_every_kind_of_network_comes_out_runnable_with_fewer_weights(name: str, scheme: str) -> None:
    model = network(name)
    found = plan(model, rank_ratio=0.3, scheme=scheme)
    split = LOW_RANK.apply(model, found)
    assert split(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert found.facts["macs_after"] < found.facts["macs_before"]  # type: ignore[operator]


def test_a_layer_that_would_not_get_cheaper_stays() -> None:
    # 2 x 2 weights: rank 1 costs 2 + 2 multiply-accumulates, as many as the layer itself
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64))
    where = context(data=False)
    where = type(where)(**{**where.__dict__, "example_inputs": (torch.zeros(1, 2),)})
    found = LOW_RANK.plan(model, LowRankParams(rank_ratio=0.5, only_if_faster=False), where)
    assert [edit.module for edit in found.edits if isinstance(edit, ReplaceEdit)] == ["2", "4"]
    assert found.facts["kept"] == {"0": "no fewer multiply-accumulates"}


@pytest.mark.parametrize("scheme", ["channel", "spatial"])
def test_equal_shares_save_alike_in_both_schemes(scheme: str) -> None:
    facts = plan(network("residual"), rank_ratio=0.5, scheme=scheme).facts
    assert facts["macs_after"] / facts["macs_before"] == pytest.approx(0.5, abs=0.08)  # type: ignore[operator]


def test_a_rank_is_a_share_of_the_one_that_would_save_nothing() -> None:
    # fc1 of LeNet: 192 x 24 = 4,608; rank r costs 216 r: break-even at 21.3, half of it 10.7, snapped to 12: 2,592
    found = plan(network("lenet"), rank_ratio=0.5)
    assert found.facts["ranks"]["fc1"] == [12]  # type: ignore[index, call-overload]
    only_fc1 = [edit for edit in found.edits if isinstance(edit, ReplaceEdit) and edit.module == "fc1"]
    layers = only_fc1[0].layers
    assert sum(layer.in_channels * layer.out_channels for layer in layers) == 2592


def test_only_what_the_profile_predicts_faster_is_kept() -> None:
    model = network("lenet")

    def layers_ms(_: nn.Module, layers: tuple[LayerSpec, ...], shape: tuple[int, ...]) -> float:
        """Splitting conv2 (8 channels in) pays, splitting fc1 does not, conv1 (3 channels in) is unknown."""
        if shape[1] == 3:
            raise UnseenOperatorError("Conv 1x1 was never calibrated")
        change = -0.1 if shape[1] == 8 else 0.1
        return 1.0 + change * (len(layers) > 1)

    found = LOW_RANK.plan(model, LowRankParams(rank_ratio=0.3), context(data=False, layers_ms=layers_ms))
    assert [edit.module for edit in found.edits if isinstance(edit, ReplaceEdit)] == ["conv2"]
    kept = found.facts["kept"]
    assert kept["fc1"] == "predicted 1.1000 ms factorised, 1.0000 ms as it is"  # type: ignore[index, call-overload]
    assert "unknown" in kept["conv1"]  # type: ignore[index, call-overload, operator]


def test_where_nothing_can_be_costed_nothing_is_said_to_be_faster() -> None:
    def layers_ms(_: nn.Module, layers: tuple[LayerSpec, ...], shape: tuple[int, ...]) -> float:
        raise UnseenOperatorError("Softmax [1, 10] was never calibrated")

    where = context(data=False, layers_ms=layers_ms)
    with pytest.raises(InfeasibleCandidate, match=r"fc1: its cost is unknown: Softmax \[1, 10\]"):
        LOW_RANK.plan(network("lenet"), LowRankParams(rank_ratio=0.3), where)


def test_without_a_predictor_nothing_is_said_to_be_faster() -> None:
    with pytest.raises(InfeasibleCandidate, match="no predictor is calibrated"):
        LOW_RANK.plan(network("lenet"), LowRankParams(rank_ratio=0.5), context(data=False))


def test_weights_that_a_module_reads_without_calling_are_left_alone() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(32, 2, 128, batch_first=True)
            self.head = nn.Linear(32, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.layer(x).mean(1))

    where = context(data=False)
    where = type(where)(**{**where.__dict__, "example_inputs": (torch.zeros(1, 5, 32),)})
    model = Attention().eval()
    found = LOW_RANK.plan(model, LowRankParams(rank_ratio=0.3, only_if_faster=False), where)
    assert [edit.module for edit in found.edits if isinstance(edit, ReplaceEdit)] == ["head"]
    assert LOW_RANK.apply(model, found)(torch.randn(2, 5, 32)).shape == (2, 64)


def test_on_meta_tensors_the_shapes_are_the_same() -> None:
    model = network("residual")
    found = plan(model, rank_ratio=0.3, scheme="spatial")
    real, meta = LOW_RANK.apply(model, found), LOW_RANK.apply(network("residual").to("meta"), found)
    shapes = {name: tensor.shape for name, tensor in real.state_dict().items()}
    assert {name: tensor.shape for name, tensor in meta.state_dict().items()} == shapes
    assert all(tensor.is_meta for tensor in meta.state_dict().values())
    assert apply_edits(model, ()).state_dict().keys() == model.state_dict().keys()


def test_a_frozen_layer_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 3))
    model[1].weight.requires_grad_(False)
    plan = LOW_RANK.plan(model.eval(), LowRankParams(rank_ratio=0.3, only_if_faster=False), context(data=False))
    edited = {edit.module for edit in plan.edits}
    assert "1" not in edited
    assert "2" in edited
