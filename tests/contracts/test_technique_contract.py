"""What every technique promises, checked for each one by existing: no list of names is kept here.

Defaults change nothing, the input is untouched, the same seed gives the same plan and weights, parameters out of range
are refused, plans survive JSON, and what comes out exports with parity.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import onnx
import pytest
import torch
from annotated_types import Ge, Le
from example_networks import NETWORKS, NoiseWorkload, context, network, weights_cost
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from torch import nn

from automc.candidate import Step
from automc.cost.graph import graph_from_trace
from automc.errors import InfeasibleCandidate
from automc.export import check_parity, compare, export_onnx, run_onnx
from automc.pipeline import replay, sketch_of, sketched
from automc.recovery.recipe import Recipe
from automc.recovery.training import RecoveryContext
from automc.techniques.plan import Plan
from automc.techniques.registry import get_technique, technique_names
from automc.techniques.technique import GraphTechnique, ModelTechnique, Params, Phase, RecoveryTechnique, Technique

NAMES = technique_names()
OF_PHASE = {phase: [name for name in NAMES if get_technique(name).phase is phase] for phase in Phase}
COVERED = (Phase.MODEL, Phase.GRAPH, Phase.RECOVERY)

PICTURES = (torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)),)


def bounds(field: FieldInfo) -> tuple[float | None, float | None]:
    """The smallest and largest value a numeric field allows; None where it declares no bound."""
    low = next((float(mark.ge) for mark in field.metadata if isinstance(mark, Ge)), None)  # type: ignore[arg-type]
    high = next((float(mark.le) for mark in field.metadata if isinstance(mark, Le)), None)  # type: ignore[arg-type]
    return low, high


def kinds(field: FieldInfo) -> list[Any]:
    """The types a field allows, without None."""
    union = get_origin(field.annotation) in (Union, types.UnionType)
    return [kind for kind in (get_args(field.annotation) if union else (field.annotation,)) if kind is not type(None)]


def numeric_fields(params: type[Params]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in params.model_fields.items():
        if any(kind in (int, float) for kind in kinds(field)):
            yield name, field


def settings(technique: Technique[Any]) -> list[Params]:
    """Parameters in the middle of every range, once with each choice of each closed set: settings that do something."""
    middle: dict[str, object] = {}
    for name, field in numeric_fields(technique.params):
        low, high = bounds(field)
        assert low is not None
        assert high is not None
        value = (low + high) / 2
        middle[name] = round(value) if int in kinds(field) else round(value, 2)
    found = [middle]
    for name, field in technique.params.model_fields.items():
        choices = [choice for kind in kinds(field) if get_origin(kind) is Literal for choice in get_args(kind)]
        choices += [value for kind in kinds(field) if kind is bool for value in (False, True)]
        found += [{**middle, name: choice} for choice in choices]
    return [technique.params.model_validate(values) for values in found]


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def same_state(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def answers(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = model.eval()(*PICTURES)
    return output


@dataclass
class Planned:
    """A setting that a network allows, what it decided there, and the network that came out."""

    params: Params
    plan: Plan
    changed: nn.Module


@cache
def planned(name: str, network_name: str) -> tuple[Planned, ...]:
    """One entry per setting of `settings` that is feasible; planned and applied on one network object."""
    technique, model = get_technique(name), network(network_name)
    found = []
    if technique.refuses(model) is None:
        for params in settings(technique):
            with contextlib.suppress(InfeasibleCandidate):
                plan = technique.plan(model, params, context(cost=weights_cost))
                found.append(Planned(params, plan, technique.apply(model, plan)))
    expected = network(network_name)
    assert same_state(state(model), state(expected)), "planning or applying changed the input"
    assert torch.equal(answers(model), answers(expected)), "planning or applying changed the input"
    return tuple(found)


@pytest.mark.parametrize("name", NAMES)
class TestEvery:
    def test_it_says_what_it_does_where_it_is_from_and_what_it_saves(self, name: str) -> None:
        technique = get_technique(name)
        assert technique.name == name
        assert technique.summary
        assert technique.source
        assert technique.saves

    def test_its_phase_has_a_suite_here(self, name: str) -> None:
        assert get_technique(name).phase in COVERED

    def test_its_order_names_techniques_that_exist(self, name: str) -> None:
        technique = get_technique(name)
        assert technique.after <= set(NAMES)
        assert technique.excludes <= set(NAMES)

    def test_every_parameter_is_documented_and_has_a_default_that_is_allowed(self, name: str) -> None:
        params = get_technique(name).params
        assert all(field.description for field in params.model_fields.values())
        assert params.model_validate(params().model_dump()) == params()

    def test_numbers_out_of_range_are_refused(self, name: str) -> None:
        params = get_technique(name).params
        for field_name, field in numeric_fields(params):
            low, high = bounds(field)
            assert low is not None, f"{field_name} declares no ge"
            assert high is not None, f"{field_name} declares no le"
            assert isinstance(field.json_schema_extra, dict) or field_name == "percentile", f"{field_name}: no step"
            for outside in (low - 1, high + 1):
                with pytest.raises(ValidationError):
                    params.model_validate({field_name: outside})

    def test_unknown_parameters_and_choices_are_refused(self, name: str) -> None:
        params = get_technique(name).params
        with pytest.raises(ValidationError):
            params.model_validate({"no_such_parameter": 1})
        for field_name, field in params.model_fields.items():
            if any(get_origin(kind) is Literal for kind in kinds(field)):
                with pytest.raises(ValidationError):
                    params.model_validate({field_name: "no_such_choice"})


@pytest.mark.parametrize("network_name", NETWORKS)
@pytest.mark.parametrize("name", OF_PHASE[Phase.MODEL])
class TestModel:
    def test_default_parameters_change_nothing(self, name: str, network_name: str) -> None:
        technique, model = get_technique(name), network(network_name)
        plan = technique.plan(model, technique.params(), context(data=False))
        changed = technique.apply(model, plan)
        assert plan.edits == ()
        assert same_state(state(changed), state(model))
        assert torch.equal(answers(changed), answers(model))

    def test_the_input_is_untouched_and_shares_nothing_with_the_output(self, name: str, network_name: str) -> None:
        technique, model = get_technique(name), network(network_name)
        for found in planned(name, network_name):
            changed = technique.apply(model, found.plan)
            with torch.no_grad():
                for tensor in (*changed.parameters(), *changed.buffers()):
                    tensor.fill_(7)
        expected = network(network_name)
        assert same_state(state(model), state(expected))
        assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in expected.parameters()]

    def test_the_same_seed_gives_the_same_plan_and_weights(self, name: str, network_name: str) -> None:
        technique = get_technique(name)
        for found in planned(name, network_name):
            model = network(network_name)
            again = technique.plan(model, found.params, context(cost=weights_cost))
            assert again == found.plan
            assert same_state(state(technique.apply(model, again)), state(found.changed))

    def test_a_stored_plan_and_weights_rebuild_the_network(self, name: str, network_name: str) -> None:
        for found in planned(name, network_name):
            trained = copy.deepcopy(found.changed)
            with torch.no_grad():
                for parameter in trained.parameters():
                    parameter.add_(0.01)
            stored = Plan.model_validate_json(found.plan.model_dump_json())
            assert stored == found.plan
            rebuilt = replay(network(network_name), [stored])
            rebuilt.load_state_dict(state(trained))
            assert torch.equal(answers(rebuilt), answers(trained))

    def test_meta_tensors_have_the_shapes_of_real_ones(self, name: str, network_name: str) -> None:
        technique = get_technique(name)
        for found in planned(name, network_name):
            meta = technique.apply(network(network_name).to("meta"), found.plan).state_dict()
            assert shapes(meta) == shapes(found.changed.state_dict())
            assert all(tensor.is_meta for tensor in meta.values())

    def test_an_outline_leaves_the_kernels_that_the_plan_leaves(self, name: str, network_name: str) -> None:
        technique, base = get_technique(name), sketch_of(network(network_name))
        assert isinstance(technique, ModelTechnique)
        for found in planned(name, network_name):
            outline = technique.outline(base, found.params, context(cost=weights_cost))
            if outline is not None:
                assert outline.exact  # all that is important in the base can be asked
                assert kernels(technique.apply(base.shapes, outline.plan)) == kernels(found.changed)

    @pytest.mark.parametrize("second", OF_PHASE[Phase.MODEL])
    def test_an_exact_outline_after_another_step_leaves_the_kernels_that_the_chain_leaves(
        self, name: str, second: str, network_name: str
    ) -> None:
        following = get_technique(second)
        for first in planned(name, network_name)[:3]:
            step = Step.of(name, **first.params.model_dump(exclude_defaults=True))
            before = sketched(sketch_of(network(network_name)), step, context(cost=weights_cost))
            if before is None or following.refuses(first.changed) is not None:
                continue
            assert frozen(before.shapes) == frozen(first.changed)
            for params in settings(following):
                after_step = Step.of(second, **params.model_dump(exclude_defaults=True))
                try:
                    after = sketched(before, after_step, context(cost=weights_cost))
                except InfeasibleCandidate as error:
                    with pytest.raises(
                        InfeasibleCandidate, match=re.escape(error.message.split(" (")[0].split(": ")[0])
                    ):
                        following.plan(first.changed, params, context(cost=weights_cost))
                    continue
                if after is None:
                    continue
                plan = following.plan(first.changed, params, context(cost=weights_cost))
                chained = following.apply(first.changed, plan)
                if after.exact:
                    assert kernels(after.shapes) == kernels(chained)
                else:
                    assert kernels(after.shapes) != kernels(first.changed)


def frozen(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def kernels(model: nn.Module) -> list[object]:
    """The kernels that run, in their order, but for the names of the layers they come from."""
    return [replace(row, name="") for row in graph_from_trace(model.eval(), PICTURES[:1]).rows]


@pytest.mark.parametrize("name", OF_PHASE[Phase.MODEL])
def test_what_a_model_technique_makes_exports_with_parity(name: str) -> None:
    smallest_first = ("lenet", "depthwise", "concat", "encoder", "residual")
    found = next((first for network_name in smallest_first for first in planned(name, network_name)[:1]), None)
    assert found is not None, "no network of the contract suite allows any setting of this technique"
    assert found.plan.edits
    check_parity(found.changed, export_onnx(found.changed, PICTURES), PICTURES)


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    return export_onnx(network("residual"), PICTURES)


def interface(model: onnx.ModelProto) -> list[tuple[str, str]]:
    return [(value.name, str(value.type)) for value in (*model.graph.input, *model.graph.output)]


@pytest.mark.parametrize("name", OF_PHASE[Phase.GRAPH])
class TestGraph:
    def test_default_parameters_keep_the_interface_and_lossless_ones_the_values(
        self, name: str, graph: onnx.ModelProto
    ) -> None:
        technique = get_technique(name)
        changed = technique.apply(graph, technique.plan(graph, technique.params(), context()))
        assert interface(changed) == interface(graph)
        feeds = [picture.numpy() for picture in PICTURES]
        tolerance = 1e-5 if getattr(technique, "lossless", False) else 0.25
        compare(run_onnx(graph, feeds), run_onnx(changed, feeds), tolerance=tolerance)

    def test_the_precision_it_declares_is_the_one_it_writes(self, name: str, graph: onnx.ModelProto) -> None:
        technique = get_technique(name)
        assert isinstance(technique, GraphTechnique)
        changed = technique.apply(graph, technique.plan(graph, technique.params(), context()))
        integer = any(node.op_type == "QuantizeLinear" for node in changed.graph.node)
        assert technique.precision == ("int8" if integer else None)  # else its candidates are screened by other costs

    def test_every_choice_leaves_the_input_alone_and_is_repeatable(self, name: str, graph: onnx.ModelProto) -> None:
        technique = get_technique(name)
        before = graph.SerializeToString(deterministic=True)
        for params in settings(technique):
            plan = technique.plan(graph, params, context())
            changed = technique.apply(graph, plan)
            assert graph.SerializeToString(deterministic=True) == before
            again = technique.plan(graph, params, context())
            assert again == plan
            stored = Plan.model_validate_json(plan.model_dump_json())
            assert stored == plan
            rebuilt = technique.apply(graph, stored)
            assert rebuilt.SerializeToString(deterministic=True) == changed.SerializeToString(deterministic=True)
            assert interface(changed) == interface(graph)


@pytest.mark.parametrize("name", OF_PHASE[Phase.RECOVERY])
class TestRecovery:
    def recover(self, name: str, model: nn.Module, steps: int, seed: int = 0) -> nn.Module:
        technique = get_technique(name)
        assert isinstance(technique, RecoveryTechnique)
        where = RecoveryContext(NoiseWorkload("residual"), Recipe(batch_size=16), seed, teacher=network("residual"))
        recovered: nn.Module = technique.recover(model, technique.params(), where, steps)
        return recovered

    def test_it_edits_no_structure(self, name: str) -> None:
        technique, model = get_technique(name), network("residual")
        plan = technique.plan(model, technique.params(), context(data=False))
        assert plan.edits == ()
        assert same_state(state(technique.apply(model, plan)), state(model))

    def test_no_steps_change_nothing(self, name: str) -> None:
        model = network("residual")
        assert same_state(state(self.recover(name, model, 0)), state(model))

    def test_it_trains_a_copy_and_the_same_seed_gives_the_same_weights(self, name: str) -> None:
        model = network("residual")
        first, second, other = (self.recover(name, model, 3, seed) for seed in (0, 0, 1))
        assert same_state(state(model), state(network("residual")))
        assert same_state(state(first), state(second))
        assert not same_state(state(first), state(model))
        assert not same_state(state(first), state(other))


def test_every_phase_but_the_later_ones_is_populated() -> None:
    assert all(OF_PHASE[phase] for phase in COVERED)
    assert sorted(itertools.chain.from_iterable(OF_PHASE.values())) == sorted(NAMES)
