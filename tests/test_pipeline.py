"""Steps in their order, budgets shared to the last optimiser step, and a network that comes back from plans alone."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from example_networks import context, network
from tiny_workload import two_clouds
from torch import nn

from automc import pipeline
from automc.candidate import Candidate, Step
from automc.errors import CompressionError, ConfigError, InfeasibleCandidate
from automc.recovery.recipe import Recipe
from automc.recovery.training import RecoveryContext
from automc.techniques import registry
from automc.techniques.plan import Plan
from automc.techniques.technique import ModelTechnique, Params, PlanContext


def test_budgets_are_shared_by_share_and_sum_exactly() -> None:
    # 101 steps over shares 0.5, 1.0, 1.0: cumulative 20.2, 60.6, 101 -> 20, 61, 101 -> parts 20, 41, 40
    steps = [Step.of("fine_tune", share=0.5), Step.of("fine_tune"), Step.of("fine_tune")]
    assert list(pipeline._split_budget(pipeline.resolve(steps), 101)) == [20, 41, 40]
    assert list(pipeline._split_budget(pipeline.resolve(steps[:1]), 7)) == [7]


def test_without_a_budget_nothing_trains() -> None:
    workload = two_clouds()
    recovery = RecoveryContext(workload, Recipe(), 0)
    base = workload.model()
    made = pipeline.apply(base, [Step.of("fine_tune")], context(), recovery, 0)
    assert made.model is base
    assert made.steps_trained == 0


def test_steps_run_in_the_order_of_the_candidate() -> None:
    model = network("residual")
    steps = [Step.of("depth_pruning", ratio=0.5), Step.of("channel_pruning", ratio=0.5)]
    made = pipeline.apply(model, steps, context(), None, 0)
    assert [plan.technique for plan in made.plans] == ["depth_pruning", "channel_pruning"]
    turned = pipeline.apply(model, steps[::-1], context(), None, 0)
    assert [plan.technique for plan in turned.plans] == ["channel_pruning", "depth_pruning"]


def test_plans_as_json_and_stored_weights_bring_the_network_back_to_the_bit() -> None:
    model = network("residual")
    steps = [Step.of("depth_pruning", ratio=0.5), Step.of("channel_pruning", ratio=0.5)]
    made = pipeline.apply(model, steps, context(), None, 0).model
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.01)  # as if it had been trained since
    plans = [
        Plan.model_validate_json(plan.model_dump_json())
        for plan in pipeline.apply(model, steps, context(), None, 0).plans
    ]
    again = pipeline.replay(network("residual"), plans)
    again.load_state_dict(made.state_dict(), strict=True)
    inputs = torch.randn(2, *context().example_inputs[0].shape[1:], generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.eval()(inputs), made.eval()(inputs))


def test_parameters_out_of_range_are_infeasible_and_named() -> None:
    with pytest.raises(InfeasibleCandidate, match="channel_pruning: ratio"):
        pipeline.resolve([Step.of("channel_pruning", ratio=0.95)])


def test_a_misspelt_technique_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean channel_pruning"):
        pipeline.resolve([Step.of("chanel_pruning")])


def test_a_candidate_survives_json_and_keeps_its_id() -> None:
    candidate = Candidate((Step.of("depth_pruning", ratio=0.30000000000000004), Step.of("int8_ptq")))
    assert Candidate.from_json(candidate.to_json()) == candidate
    assert candidate.id == Candidate((Step.of("depth_pruning", ratio=0.3), Step.of("int8_ptq"))).id
    assert candidate.id != Candidate(candidate.steps[::-1]).id


class Careless(ModelTechnique[Params]):
    """Changes nothing and states a ratio that it found by dividing by zero."""

    name = "careless"
    params = Params
    found: ClassVar[float] = math.nan

    def plan(self, model: nn.Module, params: Params, context: PlanContext) -> Plan:
        return Plan(technique=self.name, facts={"sound": 1.0, "errors": {"conv1": [0.5, self.found]}})

    def apply(self, model: nn.Module, plan: Plan) -> nn.Module:
        return model


@pytest.mark.parametrize("found", [math.nan, math.inf, -math.inf])
def test_a_plan_that_holds_no_number_where_one_belongs_fails_its_candidate(
    monkeypatch: pytest.MonkeyPatch, found: float
) -> None:
    known = {**registry._modules(), "careless": f"{__name__}:Careless"}
    monkeypatch.setattr(registry, "_modules", lambda: known)
    monkeypatch.setattr(Careless, "found", found)
    with pytest.raises(CompressionError, match=rf"careless: its plan holds {found} at facts\.errors\.conv1\.1"):
        pipeline.apply(network("residual"), [Step.of("careless")], context(), None, 0)
