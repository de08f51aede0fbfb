"""What of a network channel pruning may cut, and how much each of its channels matters: found out once a network.

Of a network between two steps of a chain, of which only shapes are at hand, both are carried from the base.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from automc.techniques._carrying import channels_after, coupling_after
from automc.techniques._evidence import Evidence, base_key
from automc.techniques._importance import (
    Criterion,
    Figures,
    channel_figures,
    is_told,
    taylor_effects,
    unit_scores,
)
from automc.techniques.coupling import Coupling, couple
from automc.techniques.edits import Fill, apply_edits, shapes_alone
from automc.techniques.plan import RemoveEdit, ReplaceEdit, is_in
from automc.techniques.shortcuts import Selection, fill_selection, find_selections
from automc.techniques.sketch import Sketch

if TYPE_CHECKING:
    from automc.techniques.technique import PlanContext

Scores = Mapping[str, "list[float] | None"]
"""Of every unit of a group, the least important lowest, by the group's root; None where a criterion says nothing."""


@dataclass(frozen=True)
class Prunable:
    """shapes: on the meta device, the network with a convolution in the place of each shortcut that only selects."""

    selections: tuple[Selection, ...]
    shapes: nn.Module
    coupling: Coupling


_PRUNABLE: Evidence[Prunable] = Evidence(capacity=64)
_SCORES: Evidence[Scores] = Evidence(capacity=256)
_FIGURES: Evidence[Figures] = Evidence(capacity=64)


def known_prunable(model: nn.Module, key: Hashable, example_inputs: tuple[torch.Tensor, ...]) -> Prunable:
    """`prunable`, kept for the next candidate that starts from the same network. key: the network's."""
    return _PRUNABLE.get(key, lambda: prunable(model, example_inputs))


def prunable(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> Prunable:
    """What of `model` may be cut. Raises CompressionError (chained) where Torch-Pruning cannot trace."""
    selections, rewritten = rewritten_shortcuts(model, example_inputs)
    return Prunable(selections, shapes_alone(rewritten), couple(rewritten, example_inputs))


def prunable_in(sketch: Sketch, example_inputs: tuple[torch.Tensor, ...]) -> Prunable | None:
    """Of the network that `sketch` stands for, carried from its base; None where it cannot be."""
    key = base_key(sketch, example_inputs)
    of_base = known_prunable(sketch.base, key, example_inputs)
    if not sketch.plans:
        return of_base
    gone = [edit.module for edit in sketch.edits if isinstance(edit, RemoveEdit | ReplaceEdit)]
    selections = tuple(
        selection for selection in of_base.selections if not any(is_in(selection.module, module) for module in gone)
    )
    shapes = apply_edits(sketch.shapes, [selection.edit for selection in selections])
    for selection in selections:
        shapes.get_submodule(selection.module).requires_grad_(False)
    coupling = coupling_after(of_base.coupling, sketch.edits, shapes)
    return None if coupling is None else Prunable(selections, shapes, coupling)


def scores_in(sketch: Sketch, found: Prunable, criterion: Criterion, context: PlanContext) -> tuple[Scores, bool]:
    """`unit_scores` of every group by its root, as the base's layers tell them, and whether the weights would say so.

    Of channels that are not in the base, between two factors of a layer, it tells nothing: they are taken to be as
    important as all others.
    """
    base = sketch.base
    key = base_key(sketch, context.example_inputs)
    if not sketch.plans:
        return scores_of(base, key, found, criterion, context), True
    figures = channels_after(_figures(base, key, criterion, context), sketch.edits)
    told = {
        group.root: unit_scores(found.shapes, group, criterion, figures)
        for group in found.coupling.groups
        if is_told(found.shapes, group, criterion, figures)
    }
    every = torch.tensor([score for scores in told.values() for score in scores or ()], dtype=torch.float64)
    for group in found.coupling.groups:
        if group.root not in told:
            places = (torch.arange(len(group.units), dtype=torch.float64) + 0.5) / len(group.units)
            told[group.root] = torch.quantile(every, places).tolist() if len(every) else [0.0] * len(group.units)
    return told, False  # which of equal parts the steps before take is open, and with it what is left


def scores_of(model: nn.Module, key: Hashable, found: Prunable, criterion: Criterion, context: PlanContext) -> Scores:
    """`unit_scores` of every group by its root. key: the network's."""
    figures = _figures(model, key, criterion, context)
    measured = (key, criterion, *_data_read(criterion, context))
    return _SCORES.get(
        measured,
        lambda: {group.root: unit_scores(found.shapes, group, criterion, figures) for group in found.coupling.groups},
    )


def _figures(model: nn.Module, key: Hashable, criterion: Criterion, context: PlanContext) -> Figures:
    """`channel_figures` of the network with a convolution in the place of each shortcut. key: the network's."""

    def measure() -> Figures:
        _, rewritten = rewritten_shortcuts(model, context.example_inputs)
        groups = known_prunable(model, key, context.example_inputs).coupling.groups
        effects = taylor_effects(rewritten, context.calibration(), context.task) if criterion == "taylor" else None
        return channel_figures(rewritten, groups, criterion, effects)

    return _FIGURES.get((key, criterion, *_data_read(criterion, context)), measure)


def _data_read(criterion: Criterion, context: PlanContext) -> tuple[Hashable, ...]:
    return (context.calibration().digest, type(context.task), context.task.name) if criterion == "taylor" else ()


def rewritten_shortcuts(
    model: nn.Module, example_inputs: tuple[torch.Tensor, ...]
) -> tuple[tuple[Selection, ...], nn.Module]:
    """The shortcuts that only select channels, and the network with a convolution in the place of each."""
    selections = find_selections(model, example_inputs)
    sources = {selection.module: selection.sources for selection in selections}
    return selections, apply_edits(model, [selection.edit for selection in selections], selection_filler(sources))


def selection_filler(sources: Mapping[str, tuple[int, ...]]) -> Fill:
    """Fills the 1x1 convolution that stands for a shortcut."""

    def fill(_shortcut: nn.Module, edit: ReplaceEdit, convolution: nn.Module) -> None:
        fill_selection(convolution, sources[edit.module])

    return fill
