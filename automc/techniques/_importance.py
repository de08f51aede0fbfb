"""How much a network would miss its channels: four criteria, scored per unit of channels that come off together.

`l1`: sum of the absolute weights of a filter (Li et al. 2017). `fpgm`: summed distance of a filter to all others of its
layer (He et al. 2019). `taylor`: squared first-order change of the loss if the channel were zero, mean over calibration
batches (Molchanov et al. 2019): at the BatchNorms a channel runs through (their gate, scale and shift times gradients),
else at the filters that make it. `bn_scale`: absolute BatchNorm scale (Liu et al. 2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from automc.techniques._evidence import Evidence, evidence_key
from automc.techniques.coupling import Group

if TYPE_CHECKING:
    from automc.workloads.workload import Examples, Task

Criterion = Literal["l1", "fpgm", "taylor", "bn_scale"]

_BATCHES = 8
_BATCH_SIZE = 64
_EFFECTS: Evidence[dict[str, torch.Tensor]] = Evidence(capacity=16)


Figures = Mapping[str, torch.Tensor]
"""Of every output channel (last axis) by layer or BatchNorm, float64, as one criterion reads them."""


def channel_figures(
    model: nn.Module, groups: Iterable[Group], criterion: Criterion, effects: Figures | None = None
) -> Figures:
    """What `criterion` reads of the layers that make the channels of `groups`. effects: by `taylor_effects`."""
    if criterion == "taylor":
        return effects or {}
    if criterion == "bn_scale":
        touched = {name: model.get_submodule(name) for group in groups for name in group.touched("out")}
        norms = {name: module for name, module in touched.items() if _is_scaling_norm(module)}
        return {name: module.get_parameter("weight").detach().abs().double() for name, module in norms.items()}
    makers = {name for group in groups for name in group.producers}
    return {name: _weight_scores(model.get_submodule(name), criterion) for name in makers}


def unit_scores(model: nn.Module, group: Group, criterion: Criterion, figures: Figures) -> list[float] | None:
    """Importance of every unit of `group`, the least important lowest; shapes of `model` will do.

    None where the criterion says nothing about it (bn_scale without BatchNorm). l1 and fpgm: each layer's scores over
    their mean, so that layers and groups compare; taylor and bn_scale: as they are.
    """
    layers = {name: figures[name] for name in _read_of(model, group, criterion)}
    if criterion == "bn_scale":
        return _mean_over(group, layers) if layers else None
    if criterion == "taylor":
        return _taylor_scores(group, layers)
    return _mean_over(group, {name: _over_mean(scores) for name, scores in layers.items()})


def is_told(model: nn.Module, group: Group, criterion: Criterion, figures: Figures) -> bool:
    """Whether `figures` tell all that `unit_scores` would read."""
    return all(name in figures for name in _read_of(model, group, criterion))


def _read_of(model: nn.Module, group: Group, criterion: Criterion) -> list[str]:
    """Whose figures `criterion` reads."""
    norms = [name for name in group.touched("out") if _is_scaling_norm(model.get_submodule(name))]
    if criterion == "bn_scale" or (criterion == "taylor" and norms):
        return norms
    makers = [name for name in group.producers if model.get_submodule(name).get_parameter("weight").requires_grad]
    return makers or list(group.producers)


def unweighed_scores(model: nn.Module, groups: Iterable[Group], criterion: Criterion) -> dict[str, list[float] | None]:
    """By root, zeros where `unit_scores` would say something of a group, and None where it would not."""
    said: dict[str, list[float] | None] = {}
    for group in groups:
        norms = any(_is_scaling_norm(model.get_submodule(name)) for name in group.touched("out"))
        said[group.root] = [0.0] * len(group.units) if norms or criterion != "bn_scale" else None
    return said


def _mean_over(group: Group, layers: Mapping[str, torch.Tensor]) -> list[float]:
    """Mean of the layers' scores over the channels of each unit."""
    found = []
    for unit in group.units:
        values = [
            layers[name][list(indices)] for (name, axis), indices in unit.members.items() if _in(layers, name, axis)
        ]
        found.append(float(torch.cat(values).mean()) if values else 0.0)
    return found


def _taylor_scores(group: Group, effects: Mapping[str, torch.Tensor]) -> list[float]:
    """Per unit: first-order changes summed over its channels in all layers, squared, mean over batches."""
    found = []
    for unit in group.units:
        values = [
            effects[name][:, list(indices)]
            for (name, axis), indices in unit.members.items()
            if _in(effects, name, axis)
        ]
        found.append(float(torch.cat(values, dim=1).sum(dim=1).square().mean()) if values else 0.0)
    return found


def _in(layers: Mapping[str, torch.Tensor], name: str, axis: str) -> bool:
    return axis == "out" and name in layers


def _is_scaling_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.affine


def _filters(module: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """Weights as (output channels, rest)."""
    return (tensor.transpose(0, 1) if isinstance(module, _ConvTransposeNd) else tensor).flatten(1)


def _weight_scores(module: nn.Module, criterion: Criterion) -> torch.Tensor:
    """(channels,) float64: importance of each output channel of one layer by its weights."""
    filters = _filters(module, module.get_parameter("weight").detach()).double()
    if criterion == "fpgm":
        return torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1)
    return filters.abs().sum(dim=1)


def _over_mean(scores: torch.Tensor) -> torch.Tensor:
    return scores / scores.mean().clamp_min(torch.finfo(torch.float64).tiny)


def taylor_effects(model: nn.Module, examples: Examples, task: Task) -> dict[str, torch.Tensor]:
    """`_measure_effects`, kept for the next candidate that starts from the same network."""
    return _EFFECTS.get(evidence_key(model, examples, task), lambda: _measure_effects(model, examples, task))


def _measure_effects(model: nn.Module, examples: Examples, task: Task) -> dict[str, torch.Tensor]:
    """Per layer and BatchNorm (batches, channels) float64: first-order change of the loss if its weights were 0.

    In eval mode, over the first 8 batches of 64 in order; 0 for frozen parameters. `model` is put into eval mode.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear | _ConvNd) or _is_scaling_norm(module))
        and isinstance(module.weight, nn.Parameter)  # not one that is computed, which no plan can slice
    }
    model.eval()
    effects: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    for batch in islice(examples.batches(_BATCH_SIZE), _BATCHES):
        model.zero_grad(set_to_none=True)
        with torch.enable_grad():
            task.loss(task.forward(model, batch), batch.targets).backward()  # type: ignore[no-untyped-call]
        for name, module in layers.items():
            weight, bias = module.get_parameter("weight"), module.bias
            change = _products(module, weight)
            if isinstance(bias, nn.Parameter) and bias.grad is not None:
                change = change + (bias.grad * bias.detach()).double()
            effects[name].append(change)
    model.zero_grad(set_to_none=True)
    return {name: torch.stack(found) for name, found in effects.items()}


def _products(module: nn.Module, weight: nn.Parameter) -> torch.Tensor:
    """(channels,) float64: sum of weight times gradient of each output channel; 0 without a gradient."""
    gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
    products = (gradient * weight.detach()).double()
    return products if products.dim() == 1 else _filters(module, products).sum(dim=1)
