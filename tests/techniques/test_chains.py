"""Any chain of structural techniques, in any order, on any network: it runs, replays, repeats, and spares its input."""

from __future__ import annotations

import torch
from example_networks import NETWORKS, context, network, weights_cost
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from automc.candidate import Step
from automc.errors import InfeasibleCandidate
from automc.pipeline import apply, replay
from automc.techniques.plan import Plan
from automc.techniques.technique import PlanContext

PICTURES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def tenths(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(lambda tenth: tenth / 10)


CHANNELS = st.builds(
    lambda ratio, criterion, scope: Step.of("channel_pruning", ratio=ratio, criterion=criterion, scope=scope),
    tenths(1, 9),
    st.sampled_from(["l1", "fpgm", "taylor", "bn_scale"]),
    st.sampled_from(["per_group", "global"]),
)
DEPTH = st.builds(
    lambda ratio, scope: Step.of("depth_pruning", ratio=ratio, scope=scope),
    tenths(3, 8),
    st.sampled_from(["per_stage", "global"]),
)
LOW_RANK = st.builds(
    lambda ratio, scheme, faster: Step.of("low_rank", rank_ratio=ratio, scheme=scheme, only_if_faster=faster),
    tenths(1, 9),
    st.sampled_from(["channel", "spatial"]),
    st.booleans(),
)
TUCKER = st.builds(
    lambda ratio, ranks: Step.of("tucker", rank_ratio=ratio, ranks=ranks, energy=0.7, only_if_faster=False),
    tenths(1, 9),
    st.sampled_from(["ratio", "energy", "vbmf"]),
)


def grow(base: nn.Module, steps: list[Step], where: PlanContext) -> tuple[nn.Module, list[Plan]]:
    """The network after those steps of the chain that it allows, and their plans."""
    model, plans = base, list[Plan]()
    for step in steps:
        try:
            compressed = apply(model, [step], where, None, 0)
        except InfeasibleCandidate:
            continue
        model = compressed.model
        plans += compressed.plans
    return model, plans


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(NETWORKS)),
    steps=st.lists(st.one_of(CHANNELS, DEPTH, LOW_RANK, TUCKER), min_size=1, max_size=3),
)
def test_any_chain_runs_replays_and_repeats(name: str, steps: list[Step]) -> None:
    base = network(name)
    where = context(cost=weights_cost)
    model, plans = grow(base, steps, where)
    with torch.no_grad():
        expected = model(PICTURES)
        assert expected.shape == (2, 10)

        again, same_plans = grow(network(name), steps, where)
        assert same_plans == plans
        assert torch.equal(again(PICTURES), expected)

        stored = [Plan.model_validate_json(plan.model_dump_json()) for plan in plans]
        rebuilt = replay(network(name, seed=1), stored)  # another network of the same shape: weights come from the file
        rebuilt.load_state_dict(model.state_dict())
        assert torch.equal(rebuilt(PICTURES), expected)

        meta = replay(network(name).to("meta"), stored)
        shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
        assert {key: tensor.shape for key, tensor in meta.state_dict().items()} == shapes
        assert meta(PICTURES.to("meta")).shape == expected.shape

        assert all(torch.equal(tensor, base.state_dict()[key]) for key, tensor in network(name).state_dict().items())


def test_the_order_of_the_steps_changes_what_comes_out() -> None:
    prune, split = Step.of("channel_pruning", ratio=0.5), Step.of("low_rank", rank_ratio=0.5, only_if_faster=False)
    sizes = [
        sum(p.numel() for p in grow(network("residual"), steps, context())[0].parameters())
        for steps in ([prune, split], [split, prune])
    ]
    assert sizes[0] != sizes[1]
