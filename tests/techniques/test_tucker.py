"""Convolutions split by Tucker-2: exact at full rank, better with every rank, ranks by share, energy or VBMF."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from example_networks import context, network
from pydantic import ValidationError
from torch import nn

from automc.errors import InfeasibleCandidate
from automc.techniques.plan import LayerSpec, Plan, ReplaceEdit
from automc.techniques.tucker import Tucker, TuckerParams, energy_rank, tucker2, vbmf_rank

TUCKER = Tucker()


def plan(model: nn.Module, **params: object) -> Plan:
    return TUCKER.plan(model, TuckerParams.model_validate({"only_if_faster": False, **params}), context(data=False))


def weight(seed: int = 0) -> torch.Tensor:
    return torch.randn(12, 8, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rebuilt(core: torch.Tensor, outs: torch.Tensor, ins: torch.Tensor) -> torch.Tensor:
    return torch.einsum("rshw,or,is->oihw", core, outs, ins)


def test_full_rank_reproduces_the_weight_and_the_error_falls_with_rank() -> None:
    given = weight()
    errors = [float((rebuilt(*tucker2(given, rank, min(rank, 8))) - given).norm()) for rank in range(1, 13)]
    assert errors[-1] < 1e-5 * float(given.norm())
    assert all(later < earlier for earlier, later in pairwise(errors))


def test_full_rank_reproduces_the_layer_to_1e_5() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1, dilation=2))
    layers = (
        LayerSpec(type="conv2d", in_channels=8, out_channels=8, kernel=(1, 1)),
        LayerSpec(
            type="conv2d", in_channels=8, out_channels=12, kernel=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2)
        ),
        LayerSpec(type="conv2d", in_channels=12, out_channels=12, kernel=(1, 1), bias=True),
    )
    split = TUCKER.apply(model, Plan(technique="tucker", edits=(ReplaceEdit(module="0", layers=layers),)))
    noise = torch.randn(2, 8, 13, 13)
    with torch.no_grad():
        assert float((split(noise) - model(noise)).abs().max()) < 1e-5


def test_a_weight_of_zeros_is_split_into_zeros() -> None:
    assert not rebuilt(*(part.double() for part in tucker2(torch.zeros(4, 4, 3, 3), 2, 2))).any()


def test_the_energy_rank_is_the_fewest_singular_values_that_hold_the_share() -> None:
    matrix = np.diag([3.0, 2.0, 1.0, 0.0])  # squares 9, 4, 1, 0: shares 9/14 = 0.643, 13/14 = 0.929, 1, 1
    assert [energy_rank(matrix, share) for share in (0.5, 0.64, 0.65, 0.92, 0.93, 0.99)] == [1, 1, 2, 2, 3, 3]
    assert energy_rank(np.zeros((3, 3)), 0.9) == 1


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_vbmf_finds_the_rank_under_the_noise(rank: int) -> None:
    rng = np.random.default_rng(rank)
    signal = rng.normal(size=(40, rank)) @ rng.normal(size=(rank, 120))
    assert vbmf_rank(signal + 0.3 * rng.normal(size=signal.shape)) == rank
    assert vbmf_rank(np.zeros((4, 5))) == 1


@pytest.mark.parametrize(
    "params", [{"rank_ratio": 0.5}, {"ranks": "energy", "energy": 0.6}, {"ranks": "vbmf"}], ids=str
)
def test_a_residual_network_comes_out_runnable_with_fewer_multiply_accumulates(params: dict[str, object]) -> None:
    model = network("residual")
    found = plan(model, **params)
    assert TUCKER.apply(model, found)(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert found.facts["macs_after"] < found.facts["macs_before"]  # type: ignore[operator]


def test_ranks_are_whole_multiples_of_the_profile() -> None:
    ranks = plan(network("residual"), rank_ratio=0.5).facts["ranks"]
    assert ranks["layer3.0.conv2"] == [16, 16]  # type: ignore[index, call-overload]
    assert ranks["conv1"] == [4, 2]  # type: ignore[index, call-overload]  # 3 inputs: no multiple of 4 fits
    assert all(rank % 4 == 0 for name, found in ranks.items() for rank in found if name != "conv1")  # type: ignore


def test_what_cannot_be_is_infeasible_and_says_why() -> None:
    with pytest.raises(InfeasibleCandidate, match="tucker replaces no layer"):
        plan(nn.Sequential(nn.Conv2d(3, 2, 3)), rank_ratio=0.9)
    with pytest.raises(InfeasibleCandidate, match="no predictor"):
        TUCKER.plan(network("residual"), TuckerParams(rank_ratio=0.5), context(data=False))
    assert TUCKER.refuses(nn.Sequential(nn.Linear(3, 3))) is not None
    with pytest.raises(ValidationError):
        TuckerParams(rank_ratio=0.05)
