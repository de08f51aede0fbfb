"""What techniques say they can act on, and what blocks the rest, each with a line of the user's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from example_networks import network
from odd_networks import Hybrid, Plain, Recurrent, line_of
from pydantic import Field
from torch import nn

from automc.doctor.diagnosis import TechniqueReach
from automc.doctor.reachable import layers_of, techniques_on
from automc.export import export_onnx
from automc.techniques import registry
from automc.techniques.plan import Plan
from automc.techniques.reach import Reach, Target
from automc.techniques.registry import get_technique
from automc.techniques.technique import ModelTechnique, Params, PlanContext

INPUTS = (torch.zeros(1, 3, 8, 8),)
PICTURE = (torch.zeros(1, 3, 32, 32),)


def reaches(model: nn.Module, inputs: tuple[torch.Tensor, ...] = INPUTS) -> dict[str, TechniqueReach]:
    found = techniques_on(model, inputs, export_onnx(model, inputs), None, ["channel_pruning"])
    return {entry.technique: entry for entry in found}


@pytest.fixture(scope="module")
def hybrid() -> dict[str, TechniqueReach]:
    return reaches(Hybrid().eval())


def blocked(entry: TechniqueReach) -> dict[str, tuple[str, str]]:
    return {item.name: (item.reason, item.site.where.rpartition("/")[2]) for item in entry.reach.blocked}


def test_a_group_norm_blocks_the_layers_before_it_and_the_line_that_calls_it_is_named(
    hybrid: dict[str, TechniqueReach],
) -> None:
    found = blocked(hybrid["channel_pruning"])
    line = line_of("x = F.relu(self.group_norm(self.stem(x)))")
    assert found["stem"] == ("GroupNorm group_norm works across its channels", line)
    assert [target.name for target in hybrid["channel_pruning"].reach.targets] == ["blocks.0.up", "blocks.1.up"]


def test_an_attention_is_blocked_by_its_kind_and_its_blocks_by_what_they_compute(
    hybrid: dict[str, TechniqueReach],
) -> None:
    reason, where = blocked(hybrid["channel_pruning"])["blocks.0.attn"]
    assert reason == "MultiheadAttention: the technique handles channels of convolutions and linear layers"
    assert where == line_of("x = self.norm(x + self.attn(x, x, x, need_weights=False)[0])")
    depth = blocked(hybrid["depth_pruning"])
    assert set(depth) == {"blocks.0", "blocks.1"}
    assert depth["blocks.0"][0] == "does not hand its input on unchanged when its parameters are zero"


def test_layers_that_are_not_factorised_say_which_rule_keeps_them(hybrid: dict[str, TechniqueReach]) -> None:
    found = {name: reason for name, (reason, _) in blocked(hybrid["low_rank"]).items()}
    assert found["depthwise"] == "a convolution in 16 groups is thin already"
    assert found["blocks.0.attn.out_proj"] == "its weight is read without calling it"
    assert "stem" in [target.name for target in hybrid["low_rank"].reach.targets]
    assert {name: reason for name, (reason, _) in blocked(hybrid["tucker"]).items()}["head"] == (
        "it has no kernel wider than 1 x 1"
    )


def test_the_reach_is_what_the_technique_plans_with(hybrid: dict[str, TechniqueReach]) -> None:
    from automc.techniques.coupling import couple

    model = network("encoder")
    coupling = couple(model, PICTURE)
    reach = get_technique("channel_pruning").reach(model, PICTURE)
    assert [target.name for target in reach.targets] == [group.root for group in coupling.groups]
    assert {item.reason for item in reach.blocked} >= {coupling.refused["patches"], coupling.refused["blocks.0.qkv"]}


def test_a_reshape_that_fixes_a_width_is_named_by_its_line() -> None:
    model = network("encoder")
    reach = get_technique("channel_pruning").reach(model, PICTURE)
    (site,) = [item.site for item in reach.blocked if item.name == "blocks.0.qkv"]
    assert site.code.startswith("q, k, v = self.qkv(")
    assert site.module == "blocks.0"


def test_what_stays_in_float_is_named_by_module_and_operator() -> None:
    entry = reaches(Recurrent().eval())["int8_ptq"]
    found = blocked(entry)
    assert any(reason == "GRU has no integer kernel here" for reason, _ in found.values())
    assert "head" in {layer for target in entry.reach.targets for layer in target.layers}


def test_a_layer_lists_who_can_act_on_it_and_what_stands_in_the_way_of_the_others() -> None:
    model = Plain().eval()
    found = tuple(reaches(model).values())
    layers = {layer.name: layer for layer in layers_of(model, found, {"body.0": 10, "body.2": 20, "head": 1})}
    assert set(layers) == {"body.0", "body.2", "head"}
    assert set(layers["body.2"].by) == {"channel_pruning", "int8_ptq", "low_rank", "tucker"}
    assert layers["body.2"].macs == 20
    assert layers["head"].blocked["channel_pruning"][0].startswith("nothing reads its channels")
    assert "int8_ptq" in layers["head"].by


def test_shares_are_of_what_the_technique_touches() -> None:
    model = Plain().eval()
    macs = {"body.0": 60, "body.2": 30, "head": 10}
    found = {entry.technique: entry for entry in techniques_on(model, INPUTS, None, macs, [])}
    assert found["tucker"].macs_share == pytest.approx(0.9)  # both convolutions, not the linear layer
    # 3 * 8 * 9 + 8 = 224, 8 * 16 * 9 + 16 = 1168, 16 * 4 + 4 = 68
    assert found["tucker"].parameters_share == pytest.approx((224 + 1168) / (224 + 1168 + 68))
    assert found["int8_ptq"].reach.refused == "it acts on the exported graph, and there is none"


class SoftenParams(Params):
    strength: float = Field(0.0, ge=0.0, le=1.0, json_schema_extra={"step": 0.5}, description="of what it does")


class Soften(ModelTechnique[SoftenParams]):
    """A technique of somebody else's, which acts on heads alone."""

    name = "soften"
    params = SoftenParams

    def plan(self, model: nn.Module, params: SoftenParams, context: PlanContext) -> Plan:
        return Plan(technique=self.name)

    def apply(self, model: nn.Module, plan: Plan) -> nn.Module:
        return model

    def reach(self, model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> Reach:
        return Reach(None, "head", (Target("head", ("head",)),))


@pytest.fixture
def soften(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_modules", lambda: {"soften": "test_reach:Soften"})
    registry.get_technique.cache_clear()
    yield
    registry.get_technique.cache_clear()


@pytest.mark.usefixtures("soften")
def test_a_technique_of_another_package_is_asked_like_any_other() -> None:
    (entry,) = techniques_on(Plain().eval(), INPUTS, None, None, ["soften"])
    assert (entry.technique, entry.in_space, entry.reach.unit) == ("soften", True, "head")
