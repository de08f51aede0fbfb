"""Whole residual blocks come off, those whose absence costs least."""

import pytest
import torch
import torch.nn.functional as F
from example_networks import context, network
from torch import nn

from automc.candidate import Step
from automc.errors import InfeasibleCandidate
from automc.pipeline import sketch_of, sketched
from automc.techniques._probing import zeroed_copy
from automc.techniques.depth_pruning import DepthPruning, DepthPruningParams, Stage, find_stages
from automc.techniques.edits import set_module
from automc.techniques.plan import Plan, RemoveEdit
from automc.techniques.sketch import Outline

PRUNING = DepthPruning()
PICTURE = (torch.zeros(1, 3, 32, 32),)


def plan(model: nn.Module, **params: object) -> Plan:
    return PRUNING.plan(model, DepthPruningParams.model_validate(params), context())


def removed(found: Plan) -> list[str]:
    return [edit.module for edit in found.edits if isinstance(edit, RemoveEdit)]


def test_blocks_that_change_the_shape_cannot_go() -> None:
    assert find_stages(network("residual"), PICTURE) == (
        Stage("layer1", ("layer1.0", "layer1.1")),
        Stage("layer2", ("layer2.1",)),
        Stage("layer3", ("layer3.1",)),
    )


def test_inverted_residuals_and_pre_norm_transformer_blocks_can_go() -> None:
    assert find_stages(network("depthwise"), PICTURE) == (Stage("blocks", ("blocks.0", "blocks.1")),)
    assert find_stages(network("encoder"), PICTURE) == (Stage("blocks", ("blocks.0", "blocks.1")),)


class Block(nn.Module):
    """A residual block whose sum goes through `after`."""

    def __init__(self, after: nn.Module) -> None:
        super().__init__()
        self.conv, self.after = nn.Conv2d(4, 4, 3, 1, 1), after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(x + self.conv(x))


class Around(nn.Module):
    def __init__(self, block: nn.Module, relu: bool) -> None:
        super().__init__()
        self.stem, self.block, self.head, self.relu = nn.Conv2d(3, 4, 3), block, nn.Linear(4, 10), relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.block(F.relu(x) if self.relu else x).mean((2, 3)))


@pytest.mark.parametrize(
    ("after", "relu", "removable"),
    [
        (nn.Identity(), False, True),
        (nn.ReLU(), True, True),
        (nn.ReLU(), False, False),  # without it negative values would go on
        (nn.BatchNorm2d(4), True, False),  # post-norm: not the identity without its branch
        (nn.GroupNorm(1, 4), True, False),
        (nn.Tanh(), True, False),
    ],
)
def test_a_block_may_go_if_it_hands_its_input_on(after: nn.Module, relu: bool, removable: bool) -> None:
    found = find_stages(Around(Block(after), relu).eval(), PICTURE)
    assert [stage.blocks for stage in found] == ([("block",)] if removable else [])


def test_a_block_that_is_called_twice_stays() -> None:
    class Twice(Around):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.block(self.block(self.stem(x))).mean((2, 3)))

    assert find_stages(Twice(Block(nn.Identity()), False).eval(), PICTURE) == ()


def test_a_block_whose_attributes_are_read_by_what_holds_it_stays() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 16, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    inputs = (torch.zeros(1, 5, 16),)
    reach = DepthPruning().reach(nn.Sequential(model), inputs)
    assert [target.name for target in reach.targets] == ["0.layers.1", "0.layers.2"]
    (blocked,) = [one for one in reach.blocked if one.name == "0.layers.0"]
    assert "self_attn" in blocked.reason  # nn.TransformerEncoder asks its first layer how it is built


def test_the_blocks_the_loss_misses_least_go_first() -> None:
    model = network("residual")
    with torch.no_grad():  # layer1.1 adds next to nothing; layer1.0 a lot
        model.layer1[1].bn2.weight.fill_(1e-6)
        model.layer1[1].bn2.bias.fill_(0.0)
        model.layer1[0].bn2.bias.fill_(3.0)
        model.linear.weight.mul_(50.0)
    right = context(teacher=model)  # labels are the network's own answers: any loss of function raises the loss
    found = PRUNING.plan(model, DepthPruningParams(stage_ratios={"layer1": 0.5}), right)
    assert removed(found) == ["layer1.1"]
    effects = found.facts["loss_rise_without"]
    assert abs(effects["layer1.1"]) < 1e-3 < effects["layer1.0"]  # type: ignore[index, call-overload, arg-type]


@pytest.mark.parametrize("block", ["layer1.0", "layer1.1", "layer2.1", "layer3.1"])
def test_removing_a_block_equals_zeroing_its_parameters(block: str) -> None:
    model = network("residual")
    smaller = PRUNING.apply(model, Plan(technique="depth_pruning", edits=(RemoveEdit(module=block),)))
    set_module(model, block, zeroed_copy(model.get_submodule(block)))
    noise = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(smaller(noise), model(noise))


def outlined(model: nn.Module, **params: object) -> Outline:
    """Without data, so that nothing can be weighed."""
    found = PRUNING.outline(sketch_of(model), DepthPruningParams.model_validate(params), context(data=False))
    assert found is not None
    return found


def test_an_outline_weighs_nothing_where_the_blocks_are_alike_and_asks_the_base_where_they_are_not() -> None:
    model = network("residual")
    half = outlined(model, stage_ratios={"layer1": 0.5})
    assert half.exact
    assert removed(half.plan) == ["layer1.0"]  # whichever of the two the loss misses least: they are alike
    assert len(removed(outlined(model, ratio=0.8).plan)) == 4
    params = DepthPruningParams(ratio=0.5, scope="global")
    weighed = PRUNING.outline(sketch_of(model), params, context())
    assert weighed is not None
    assert weighed.exact
    assert set(removed(weighed.plan)) == set(removed(PRUNING.plan(model, params, context())))
    with pytest.raises(AssertionError, match="data"):
        outlined(model, ratio=0.5, scope="global")
    model.layer1[0].conv1.stride = (1, 2)  # no longer alike
    model.layer1[0].conv1.padding = (1, 17)
    with pytest.raises(AssertionError, match="data"):
        outlined(model, stage_ratios={"layer1": 0.5})


def test_after_another_step_the_base_says_which_blocks_go_and_the_outline_says_that_it_was_asked() -> None:
    model = network("residual")
    right = context(teacher=model)
    narrower = sketched(sketch_of(model), Step.of("channel_pruning", ratio=0.5), right)
    assert narrower is not None
    assert narrower.exact
    shorter = sketched(narrower, Step.of("depth_pruning", ratio=0.3, scope="global"), right)
    assert shorter is not None
    assert not shorter.exact
    on_the_base = PRUNING.plan(model, DepthPruningParams(ratio=0.3, scope="global"), right)
    assert removed(shorter.plans[-1]) == removed(on_the_base)
    # what held a removed block, or comes after it, may be removable now: that is found out on weights
    assert sketched(shorter, Step.of("depth_pruning", ratio=0.8), right) is None


def test_per_stage_drops_the_share_of_every_stage_and_global_of_all() -> None:
    model = network("residual")
    # stages of 2, 1, 1 removable blocks: half of each is 1, 1 (halves round up), 1; half of all four is 2
    assert len(removed(plan(model, ratio=0.5))) == 3
    assert len(removed(plan(model, ratio=0.5, scope="global"))) == 2
    assert len(removed(plan(model, ratio=0.8, stage_ratios={"layer1": 0.0}))) == 2


@pytest.mark.parametrize("name", ["residual", "depthwise", "encoder"])
def test_the_network_that_comes_out_runs(name: str) -> None:
    model = network(name)
    smaller = PRUNING.apply(model, plan(model, ratio=0.5))
    assert smaller(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())


def test_what_cannot_be_is_infeasible_and_says_why() -> None:
    with pytest.raises(InfeasibleCandidate, match="no block of this network"):
        plan(network("concat"), ratio=0.5)
    with pytest.raises(InfeasibleCandidate, match="did you mean layer3"):
        plan(network("residual"), stage_ratios={"layer4": 0.5})
    with pytest.raises(InfeasibleCandidate, match="removes nothing"):
        plan(network("residual"), ratio=0.1)


def test_a_network_without_blocks_is_refused() -> None:
    assert PRUNING.refuses(network("lenet")) is not None
    assert PRUNING.refuses(network("residual")) is None
