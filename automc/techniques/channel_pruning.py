"""Removes whole filters and neurons, with everything coupled to them, and leaves a smaller dense network.

Criteria `l1` (Li et al. 2017, "Pruning Filters for Efficient ConvNets"), `fpgm` (He et al. 2019, "Filter Pruning via
Geometric Median"), `taylor` (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning") and `bn_scale`
(Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming") are in _importance.py; which
channels only come off together (Fang et al. 2023, DepGraph), in coupling.py.
"""

from __future__ import annotations

from math import gcd
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.modules.conv import _ConvNd

from automc.errors import CompressionError, InfeasibleCandidate
from automc.nearest import nearest
from automc.sources import Site
from automc.techniques._evidence import network_key
from automc.techniques._importance import Criterion, unweighed_scores
from automc.techniques._prunable import (
    Prunable,
    Scores,
    known_prunable,
    prunable_in,
    rewritten_shortcuts,
    scores_in,
    scores_of,
    selection_filler,
)
from automc.techniques.coupling import Coupling, Group, couple, removal_edits
from automc.techniques.edits import apply_edits
from automc.techniques.plan import Plan
from automc.techniques.reach import Blocked, Reach, Target, not_a, weight_layers
from automc.techniques.sketch import Outline, Sketch
from automc.techniques.technique import ModelTechnique, Params, PlanContext

Ratio = Annotated[float, Field(ge=0.0, le=0.9, json_schema_extra={"step": 0.1})]


class ChannelPruningParams(Params):
    ratio: Ratio = Field(0.0, description="share of channels to remove, of every group or of all channels together")
    criterion: Criterion = Field("l1", description="which channels go: the least important by this measure")
    scope: Literal["per_group", "global"] = Field(
        "per_group", description="per_group: the same share everywhere; global: the least important of all groups"
    )
    group_ratios: dict[str, Ratio] = Field(
        default_factory=dict, description="share to remove of single groups, by the name of their first layer"
    )


class ChannelPruning(ModelTechnique[ChannelPruningParams]):
    name = "channel_pruning"
    params = ChannelPruningParams
    needs_data = False  # criterion taylor alone reads the calibration split
    saves = frozenset({"latency", "energy", "memory", "download"})
    summary = "Removes whole filters and neurons, with everything coupled to them"
    source = "Li et al. 2017; He et al. 2019; Molchanov et al. 2019; Liu et al. 2017; coupling: Fang et al. 2023"

    def refuses(self, model: nn.Module) -> str | None:
        layers = sum(isinstance(module, nn.Linear | _ConvNd) for module in model.modules())
        return None if layers > 1 else "channel pruning needs two layers in a row: one makes channels, one reads them"

    def reach(self, model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> Reach:
        """Its coupled groups; the layers of the others with the reason the coupling gives."""
        reason = self.refuses(model)
        if reason is not None:
            return Reach(reason, "group of channels")
        try:
            coupling = couple(rewritten_shortcuts(model, example_inputs)[1], example_inputs)
        except CompressionError as error:
            return Reach(error.message, "group of channels")
        targets = [
            Target(group.root, tuple(sorted({*group.touched("out"), *group.touched("in")})))
            for group in coupling.groups
        ]
        free = {name for group in coupling.groups for name in group.touched("out")}
        why = {name: refusal for refusal in coupling.refusals.values() for name in refusal.layers}
        blocked = []
        for name, module in weight_layers(model):
            if name in why:
                blocked.append(Blocked(name, why[name].reason, why[name].site or Site(name)))
            elif name not in free:
                blocked.append(not_a("channels of convolutions and linear layers", name, module))
        return Reach(None, "group of channels", tuple(targets), tuple(blocked))

    def outline(self, sketch: Sketch, params: ChannelPruningParams, context: PlanContext) -> Outline | None:
        """The first units of every group, whose widths follow from its share alone; where groups share one, the least
        important by what the base's layers say of the channels that are left of them."""
        if _asks_nothing(params):
            return Outline(Plan(technique=self.name))
        found = sketch.known(self.name, lambda: prunable_in(sketch, context.example_inputs))
        if found is None:
            return None
        _check_names(params, found.coupling)
        scores: Scores
        scores, exact = unweighed_scores(found.shapes, found.coupling.groups, params.criterion), True
        if params.scope == "global" and params.ratio:
            scores, exact = sketch.known(
                (self.name, params.criterion), lambda: scores_in(sketch, found, params.criterion, context)
            )
        try:
            return Outline(_plan(found, scores, params, context), exact)
        except InfeasibleCandidate:
            if exact:
                raise
            return None

    def plan(self, model: nn.Module, params: ChannelPruningParams, context: PlanContext) -> Plan:
        if _asks_nothing(params):
            return Plan(technique=self.name)
        key = network_key(model, context.example_inputs)
        found = known_prunable(model, key, context.example_inputs)
        _check_names(params, found.coupling)
        return _plan(found, scores_of(model, key, found, params.criterion, context), params, context)

    def apply(self, model: nn.Module, plan: Plan) -> nn.Module:
        selections = plan.options.get("selections", {})
        if not isinstance(selections, dict):
            raise TypeError("options.selections maps a module to the input channel of each of its outputs")
        sources = {
            name: tuple(int(str(source)) for source in found)
            for name, found in selections.items()
            if isinstance(found, list)
        }
        edited = apply_edits(model, plan.edits, selection_filler(sources))
        for name in sources:
            edited.get_submodule(name).requires_grad_(False)  # shapes alone, which nothing fills, are frozen as well
        return edited


def _asks_nothing(params: ChannelPruningParams) -> bool:
    return params.ratio == 0 and not any(params.group_ratios.values())


def _plan(found: Prunable, scores: Scores, params: ChannelPruningParams, context: PlanContext) -> Plan:
    """Raises InfeasibleCandidate where nothing would go."""
    coupling, multiple = found.coupling, context.profile.channel_multiple
    removed = _choose(coupling, scores, params, multiple)
    widths = {
        group.root: [len(group.units), len(group.units) - len(removed.get(group.root, ()))] for group in coupling.groups
    }
    if not any(removed.values()):
        raise InfeasibleCandidate(
            f"channel_pruning removes nothing: every share asked for rounds to whole widths at a channel multiple "
            f"of {multiple} (units per group: { {root: width for root, (width, _) in widths.items()} })"
        )
    slices = removal_edits(found.shapes, coupling.groups, removed)
    touched = {edit.module for edit in slices}
    replaced = [selection for selection in found.selections if selection.module in touched]
    return Plan(
        technique=ChannelPruning.name,
        edits=(*(selection.edit for selection in replaced), *slices),
        options={"selections": {selection.module: list(selection.sources) for selection in replaced}},
        facts={"units": widths, "refused": dict(coupling.refused)},
    )


def _check_names(params: ChannelPruningParams, coupling: Coupling) -> None:
    known = [group.root for group in coupling.groups]
    for name in params.group_ratios:
        if name in known:
            continue
        if name in coupling.refused:
            raise InfeasibleCandidate(f"group_ratios: {name} cannot be pruned: {coupling.refused[name]}")
        hint = nearest(name, known)
        raise InfeasibleCandidate(f"group_ratios: no group is called {name!r}{hint} (groups: {', '.join(known)})")
    if not known:
        reasons = "; ".join(f"{root}: {reason}" for root, reason in coupling.refused.items())
        raise InfeasibleCandidate(f"no group of channels can be pruned ({reasons})")


def _widths(units: int, channels_per_unit: int, multiple: int) -> list[int]:
    """Numbers of units that may be kept of a class, ascending: whole multiples in channels, and all of them."""
    step = multiple // gcd(multiple, channels_per_unit)
    return [*range(step, units, step), units]


def snap_width(units: int, ratio: float, channels_per_unit: int, multiple: int) -> int:
    """Units to keep of `units` at `ratio`: the nearest allowed width (ties keep more); never none.

    10 units, ratio 0.5, multiple 4: allowed 4, 8, 10; wanted 5; kept 4. 4 units, multiple 8: allowed 4; kept 4.
    """
    if ratio == 0:
        return units
    wanted = units * (1 - ratio)
    return min(_widths(units, channels_per_unit, multiple), key=lambda width: (abs(width - wanted), -width))


def _choose(coupling: Coupling, scores: Scores, params: ChannelPruningParams, multiple: int) -> dict[str, list[int]]:
    """Positions of the units to remove, by root."""
    pooled = [
        group
        for group in coupling.groups
        if params.scope == "global" and group.root not in params.group_ratios and scores[group.root] is not None
    ]
    doomed = _lowest(pooled, scores, params.ratio)
    removed: dict[str, list[int]] = {}
    scored = False
    for group in coupling.groups:
        values = scores[group.root]
        if values is None:
            if params.group_ratios.get(group.root):
                raise InfeasibleCandidate(f"bn_scale: group {group.root} has no BatchNorm to read")
            continue
        scored = True
        removed[group.root] = []
        for positions in group.classes:
            ratio = params.group_ratios.get(group.root, params.ratio)
            if group in pooled:
                ratio = sum((group.root, position) in doomed for position in positions) / len(positions)
            width = group.units[positions[0]].width(group.producers)
            keep = snap_width(len(positions), ratio, width, multiple)
            ranked = sorted(positions, key=lambda position: (values[position], position))
            removed[group.root] += sorted(ranked[: len(positions) - keep])
    if not scored:
        raise InfeasibleCandidate("bn_scale reads BatchNorm scales and no group of this network has any")
    return removed


def _lowest(groups: list[Group], scores: Scores, ratio: float) -> set[tuple[str, int]]:
    """The `ratio` share of all units of `groups` with the lowest scores, as (root, position)."""
    pool = [
        (value, group.root, position) for group in groups for position, value in enumerate(scores[group.root] or ())
    ]
    pool.sort()
    return {(root, position) for _, root, position in pool[: round(len(pool) * ratio)]}
