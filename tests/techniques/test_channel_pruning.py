"""Whole filters and neurons come off, in every kind of network, by four criteria, at widths the device likes."""

import pytest
import torch
from example_networks import NETWORKS, LeNet, OptionAResNet, context, network
from pydantic import ValidationError
from torch import nn

from automc.candidate import Step
from automc.errors import InfeasibleCandidate
from automc.pipeline import apply, sketch_planned
from automc.techniques._prunable import Prunable, prunable, prunable_in
from automc.techniques.channel_pruning import ChannelPruning, ChannelPruningParams, snap_width
from automc.techniques.plan import Plan, ReplaceEdit, SliceEdit
from automc.techniques.technique import PlanContext

PRUNING = ChannelPruning()
PICTURES = (torch.zeros(1, 3, 32, 32),)


def plan(model: nn.Module, where: PlanContext | None = None, **params: object) -> Plan:
    return PRUNING.plan(model, ChannelPruningParams.model_validate(params), where or context(data=False))


@pytest.mark.parametrize(
    ("units", "ratio", "each", "multiple", "kept"),
    [
        (16, 0.0, 1, 8, 16),
        (16, 0.5, 1, 8, 8),
        (16, 0.3, 1, 8, 8),  # wanted 11.2: 8 is 3.2 away, 16 is 4.8
        (16, 0.25, 1, 8, 16),  # wanted 12: a tie keeps more
        (16, 0.9, 1, 8, 8),  # never none
        (4, 0.9, 1, 8, 4),  # below one multiple nothing comes off
        (10, 0.1, 1, 4, 10),  # wanted 9; allowed 4, 8, 10: a tie
        (8, 0.5, 2, 4, 4),  # two channels a unit: every even number of units is a multiple of 4
        (8, 0.5, 3, 4, 4),
    ],
)
def test_widths_snap_to_whole_multiples(units: int, ratio: float, each: int, multiple: int, kept: int) -> None:
    assert snap_width(units, ratio, each, multiple) == kept


def test_l1_removes_the_filters_with_the_smallest_absolute_sum() -> None:
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 0.0], [-1.0, 1.0], [0.0, -5.0], [0.5, 0.5]]))  # 3, 2, 5, 1
    where = context(channel_multiple=2, data=False)
    found = plan(model, PlanContext(**{**where.__dict__, "example_inputs": (torch.zeros(1, 2),)}), ratio=0.5)
    assert found.edits == (
        SliceEdit(module="0", axis="out", keep=(0, 2)),
        SliceEdit(module="2", axis="in", keep=(0, 2)),
    )


def test_fpgm_removes_the_filters_nearest_to_all_others() -> None:
    model = nn.Sequential(nn.Linear(1, 4, bias=False), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-9.0], [1.0], [2.0], [10.0]]))
    # summed distances: 10+11+19 = 40, 10+1+9 = 20, 11+1+8 = 20, 19+9+8 = 36; l1 would drop 1 and 2 as well as keep -9
    where = context(channel_multiple=1, data=False)
    where = PlanContext(**{**where.__dict__, "example_inputs": (torch.zeros(1, 1),)})
    found = plan(model, where, ratio=0.5, criterion="fpgm")
    assert found.edits[0] == SliceEdit(module="0", axis="out", keep=(0, 3))


def test_bn_scale_removes_the_channels_with_the_smallest_scale() -> None:
    model = network("residual")
    with torch.no_grad():
        scale = model.layer1[0].bn1.weight
        scale.copy_(torch.tensor([0.9, -0.1, 0.8, 0.2, -0.7, 0.3, 0.6, 0.0]))
    found = plan(model, group_ratios={"layer1.0.conv1": 0.5}, criterion="bn_scale")
    assert SliceEdit(module="layer1.0.bn1", axis="out", keep=(0, 2, 4, 6)) in found.edits


def test_taylor_removes_what_the_loss_does_not_need() -> None:
    model = LeNet().eval()
    with torch.no_grad():  # nothing reads the first half of fc1's neurons: no gradient, whatever their weights
        model.fc2.weight[:, :12] = 0.0
        model.fc1.weight[:12] *= 10.0
    found = plan(model, context(), group_ratios={"fc1": 0.5}, criterion="taylor")
    assert SliceEdit(module="fc2", axis="in", keep=tuple(range(12, 24))) in found.edits
    by_weight = plan(model, group_ratios={"fc1": 0.5}, criterion="l1")
    assert SliceEdit(module="fc2", axis="in", keep=tuple(range(12))) in by_weight.edits


@pytest.mark.parametrize("scope", ["per_group", "global"])
@pytest.mark.parametrize("criterion", ["l1", "fpgm", "taylor", "bn_scale"])
def test_a_residual_network_comes_out_runnable_at_widths_of_the_profile(criterion: str, scope: str) -> None:
    model = network("residual")
    found = plan(model, context(), ratio=0.5, criterion=criterion, scope=scope)
    pruned = PRUNING.apply(model, found)
    assert pruned(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    widths = [layer.out_channels for layer in pruned.modules() if isinstance(layer, nn.Conv2d)]
    assert all(width % 4 == 0 for width in widths)
    assert sum(widths) < sum(layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d))


def test_the_criteria_rank_differently() -> None:
    model = network("residual")
    plans = [plan(model, context(), ratio=0.5, criterion=name) for name in ("l1", "fpgm", "taylor", "bn_scale")]
    assert len({found.edits for found in plans}) == 4


@pytest.mark.parametrize("name", ["depthwise", "concat", "lenet", "encoder"])
def test_every_kind_of_network_comes_out_runnable(name: str) -> None:
    model = network(name)
    pruned = PRUNING.apply(model, plan(model, ratio=0.5))
    assert pruned(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert sum(p.numel() for p in pruned.parameters()) < 0.8 * sum(p.numel() for p in model.parameters())


def test_shortcuts_are_rewritten_only_where_the_pruning_touches_them() -> None:
    model = network("residual")
    inner = plan(model, group_ratios={"layer2.0.conv1": 0.5})
    assert not any(isinstance(edit, ReplaceEdit) for edit in inner.edits)
    second_stage = plan(model, group_ratios={"layer2.0.conv2": 0.5})
    replaced = [edit.module for edit in second_stage.edits if isinstance(edit, ReplaceEdit)]
    assert replaced == ["layer2.0.shortcut", "layer3.0.shortcut"]  # one makes its channels, the other reads them
    last_stage = plan(model, group_ratios={"layer3.0.conv2": 0.5})
    assert [edit.module for edit in last_stage.edits if isinstance(edit, ReplaceEdit)] == ["layer3.0.shortcut"]


def test_a_second_pruning_slices_the_rewritten_shortcut_again() -> None:
    model = network("residual")
    once = PRUNING.apply(model, plan(model, ratio=0.3))
    twice = PRUNING.apply(once, plan(once, ratio=0.5))
    assert twice(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert not twice.layer2[0].shortcut.weight.requires_grad
    assert set(twice.layer2[0].shortcut.weight.unique().tolist()) <= {0.0, 1.0}


def test_a_ratio_of_one_group_overrides_the_ratio_of_all() -> None:
    model = network("residual")
    found = plan(model, ratio=0.5, group_ratios={"layer3.1.conv1": 0.0})
    widths = found.facts["units"]
    assert widths["layer3.1.conv1"] == [32, 32]  # type: ignore[index, call-overload]
    assert widths["layer3.0.conv1"] == [32, 16]  # type: ignore[index, call-overload]


def test_only_taylor_reads_data() -> None:
    model = network("residual")
    with pytest.raises(AssertionError, match="must not read data"):
        plan(model, ratio=0.5, criterion="taylor")


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("lenet", {"ratio": 0.5, "criterion": "bn_scale"}, "no group of this network has any"),
        ("concat", {"group_ratios": {"third": 0.5}, "criterion": "bn_scale"}, "third has no BatchNorm"),
        ("lenet", {"group_ratios": {"conv3": 0.5}}, "did you mean conv2"),
        ("lenet", {"group_ratios": {"fc2": 0.5}}, "fc2 cannot be pruned: nothing reads its channels"),
        ("lenet", {"ratio": 0.1}, "removes nothing"),
    ],
)
def test_what_cannot_be_is_infeasible_and_says_why(name: str, params: dict[str, object], message: str) -> None:
    where = context(channel_multiple=16, data=False) if message == "removes nothing" else context(data=False)
    with pytest.raises(InfeasibleCandidate, match=message):
        plan(network(name), where, **params)


@pytest.mark.parametrize("params", [{"ratio": 0.95}, {"ratio": -0.1}, {"group_ratios": {"conv1": 1.0}}])
def test_ratios_out_of_range_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ChannelPruningParams.model_validate(params)


def test_a_network_of_one_layer_is_refused() -> None:
    assert PRUNING.refuses(nn.Sequential(nn.Linear(3, 3))) is not None
    assert PRUNING.refuses(OptionAResNet()) is None


def described(found: Prunable) -> set[tuple[str, tuple[str, ...], frozenset[object]]]:
    """Every group by its root, producers and units, whatever the order of units."""
    return {
        (group.root, group.producers, frozenset(frozenset(unit.members.items()) for unit in group.units))
        for group in found.coupling.groups
    }


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "step",
    [
        Step.of("channel_pruning", ratio=0.5),
        Step.of("channel_pruning", ratio=0.4, scope="global"),
        Step.of("depth_pruning", ratio=0.5),
        Step.of("low_rank", rank_ratio=0.4, only_if_faster=False),
        Step.of("tucker", rank_ratio=0.4, only_if_faster=False),
    ],
    ids=lambda step: f"{step.technique}-{step.params.get('scope', '')}",
)
def test_coupling_carried_through_a_plan_is_that_of_the_network_it_leaves(name: str, step: Step) -> None:
    model = network(name)
    try:
        carried = prunable_in(sketch_planned(model, step, context()), PICTURES)
    except InfeasibleCandidate:
        pytest.skip(f"{step.technique} has nothing to do on this network")
    left = prunable(apply(model, (step,), context(), None, 0).model, PICTURES)
    if carried is None:
        # it is asked anew: a grouped convolution was sliced, or what was removed held the reason for a refusal
        assert name in ("depthwise", "encoder")
        return
    assert described(carried) == described(left)
    assert [one.module for one in carried.selections] == [one.module for one in left.selections]
