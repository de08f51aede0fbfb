"""From a base network and the steps of a candidate to a compressed network, and back again from stored plans."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from automc.candidate import Step
from automc.errors import CompressionError, InfeasibleCandidate
from automc.techniques.plan import Plan
from automc.techniques.registry import get_technique
from automc.techniques.sketch import Outline, Sketch
from automc.techniques.technique import (
    GraphTechnique,
    ModelTechnique,
    Params,
    Phase,
    PlanContext,
    RecoveryTechnique,
    Technique,
)

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from automc.cost.kernels import Precision
    from automc.recovery.training import RecoveryContext


@dataclass(frozen=True)
class Resolved:
    """A step with its technique and validated parameters."""

    step: Step
    technique: Technique[Any]
    params: Params


@dataclass(frozen=True)
class Compressed:
    """A network after the MODEL and RECOVERY steps; replaying `plans` on the base rebuilds its structure."""

    model: nn.Module
    plans: tuple[Plan, ...]
    steps_trained: int


def resolve(steps: Sequence[Step]) -> list[Resolved]:
    """The steps with their techniques. Raises ConfigError on an unknown one, InfeasibleCandidate on bad parameters."""
    resolved = []
    for step in steps:
        technique = get_technique(step.technique)
        try:
            params = technique.params.model_validate(step.params)
        except ValidationError as error:
            reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise InfeasibleCandidate(f"{step.technique}: {reasons}") from error
        resolved.append(Resolved(step, technique, params))
    return resolved


def model_steps(steps: Sequence[Step]) -> list[Resolved]:
    return [item for item in resolve(steps) if item.technique.phase in (Phase.MODEL, Phase.RECOVERY)]


def graph_steps(steps: Sequence[Step]) -> list[Resolved]:
    return [item for item in resolve(steps) if item.technique.phase is Phase.GRAPH]


def final_precision(steps: Sequence[Step]) -> Precision:
    """What the kernels run at in the end: as the last GRAPH step that says so declares, else fp32."""
    for item in reversed(graph_steps(steps)):
        if isinstance(item.technique, GraphTechnique) and item.technique.precision is not None:
            return item.technique.precision
    return "fp32"


def apply(
    base: nn.Module, steps: Sequence[Step], context: PlanContext, recovery: RecoveryContext | None, budget: int
) -> Compressed:
    """Run the MODEL and RECOVERY steps in their order.

    budget: optimiser steps shared among the recoveries by their `share`; 0 skips them (rung 0, screening).
    Raises InfeasibleCandidate, CompressionError, TrainingDiverged.
    """
    model, plans, trained = base, list[Plan](), 0
    resolved = model_steps(steps)
    steps_of = _split_budget(resolved, budget)
    for item in resolved:
        if isinstance(item.technique, RecoveryTechnique):
            share = next(steps_of)
            if share and recovery is not None:
                first = recovery.first_step + trained
                model = item.technique.recover(model, item.params, replace(recovery, first_step=first), share)
                trained += share
            continue
        plan = _planned(item, model, context)
        model = item.technique.apply(model, plan)
        plans.append(plan)
    return Compressed(model, tuple(plans), trained)


def sketched(sketch: Sketch, step: Step, context: PlanContext) -> Sketch | None:
    """What one MODEL step leaves of `sketch`; None where only a plan on weights can tell. Raises as `apply`.

    Nothing is carried through steps on a network that has one module in two places: an edit names one of them.
    """
    (item,) = resolve([step])
    _check_takes(item, sketch.shapes)
    shares: bool = sketch.origin.known("shares modules", lambda: _shares_modules(sketch.base))
    if sketch.plans and shares:
        return None
    if not isinstance(item.technique, ModelTechnique):
        return None
    outline = item.technique.outline(sketch, item.params, context)
    return None if outline is None else sketch.then(outline, item.technique.apply(sketch.shapes, outline.plan))


def _shares_modules(model: nn.Module) -> bool:
    return len(list(model.named_modules(remove_duplicate=False))) > len(list(model.modules()))


def sketch_planned(model: nn.Module, step: Step, context: PlanContext) -> Sketch:
    """What one MODEL step leaves of `model`, planned on its weights and applied to its shapes. Raises as `apply`."""
    (item,) = resolve([step])
    before = sketch_of(model)
    plan = _planned(item, model, context)
    return before.then(Outline(plan), item.technique.apply(before.shapes, plan))


def sketch_of(model: nn.Module) -> Sketch:
    """Of a network as it is."""
    from automc.techniques.edits import shapes_alone

    return Sketch(model, (), shapes_alone(model).eval())


def _planned(item: Resolved, model: Any, context: PlanContext) -> Plan:
    _check_takes(item, model)
    return _finite(item.technique.plan(model, item.params, context))


def _check_takes(item: Resolved, model: Any) -> None:
    reason = item.technique.refuses(model)
    if reason is not None:
        raise InfeasibleCandidate(f"{item.step.technique}: {reason}")


def replay(base: nn.Module, plans: Sequence[Plan]) -> nn.Module:
    """The structure (and derived weights) that `plans` make of `base`; needs neither data nor profile."""
    model = base
    for plan in plans:
        model = get_technique(plan.technique).apply(model, plan)
    return model


def recover_further(model: nn.Module, steps: Sequence[Step], recovery: RecoveryContext, budget: int) -> nn.Module:
    """Go on with a checkpoint: `budget` more optimiser steps of the candidate's last recovery."""
    recoveries = [item for item in model_steps(steps) if isinstance(item.technique, RecoveryTechnique)]
    if not recoveries or not budget:
        return model
    last = recoveries[-1]
    if not isinstance(last.technique, RecoveryTechnique):
        raise CompressionError(f"{last.step.technique} is not a recovery")
    return last.technique.recover(model, last.params, recovery, budget)


def apply_graph(
    model: onnx.ModelProto, steps: Sequence[Step], context: PlanContext
) -> tuple[onnx.ModelProto, tuple[Plan, ...], bool]:
    """Run the GRAPH steps in their order: the final graph, their plans, and whether all of them were lossless."""
    plans, lossless = list[Plan](), True
    for item in graph_steps(steps):
        plan = _planned(item, model, context)
        model = item.technique.apply(model, plan)
        plans.append(plan)
        lossless = lossless and isinstance(item.technique, GraphTechnique) and item.technique.lossless
    return model, tuple(plans), lossless


def _finite(plan: Plan) -> Plan:
    """The plan as it is. Raises CompressionError where it holds NaN or infinity, which no plan can be stored with."""
    thousands = {"edits": {"__all__": {"keep"}}}  # of channels that are kept, all whole numbers
    for where, value in _numbers(plan.model_dump(exclude=thousands), ""):
        if not math.isfinite(value):
            raise CompressionError(f"{plan.technique}: its plan holds {value} at {where}, which nothing can replay")
    return plan


def _numbers(value: object, where: str) -> Iterator[tuple[str, float]]:
    """Every float of a nested structure with its path, as facts.errors.conv1."""
    if isinstance(value, float):
        yield where.removeprefix("."), value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{where}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{where}.{index}")


def _split_budget(resolved: Sequence[Resolved], budget: int) -> Iterator[int]:
    """Steps of each recovery in order, by their shares, summing to `budget` exactly."""
    shares = [float(getattr(item.params, "share", 1.0)) for item in resolved if item.technique.phase is Phase.RECOVERY]
    total, given, done = sum(shares), 0, 0.0
    parts = []
    for share in shares:
        done += share
        upto = round(budget * done / total)
        parts.append(upto - given)
        given = upto
    return iter(parts)
