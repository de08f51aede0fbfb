"""What every technique can act on in this network, layer by layer: asked of the techniques, nothing decided here."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from automc.doctor.diagnosis import Layer, TechniqueReach
from automc.errors import CompressionError, InfeasibleCandidate
from automc.sources import Site, call_sites, forward_site
from automc.techniques.reach import Blocked, Reach, weight_layers
from automc.techniques.registry import get_technique, technique_names
from automc.techniques.technique import Phase, Technique

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

    from automc.doctor.stages import Forms


def macs_by_layer(forms: Forms) -> dict[str, int] | None:
    """Multiply-accumulates per sample by module; None where the network is known in no form that tells them."""
    from automc.cost.graph import with_batch
    from automc.cost.lowering import lower, rows_of
    from automc.errors import PredictorError

    try:
        if forms.traced is not None:
            rows = rows_of(forms.traced).rows
        elif forms.exported is not None:
            rows = lower(with_batch(forms.exported, 1)).rows
        else:
            return None
    except PredictorError:  # a shape that nobody can infer
        return None
    found: dict[str, int] = {}
    for row in rows:
        found[row.name] = found.get(row.name, 0) + row.macs
    return found


def techniques_on(
    model: nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    exported: onnx.ModelProto | None,
    macs: Mapping[str, int] | None,
    in_space: Collection[str],
) -> tuple[TechniqueReach, ...]:
    """The reach of every technique there is that changes structure or precision, those of the space first."""
    calls = call_sites(model, example_inputs)
    modules = dict(model.named_modules())
    found = []
    for name in sorted(technique_names(), key=lambda name: (name not in in_space, name)):
        technique = get_technique(name)
        if technique.phase is Phase.MODEL:
            reach = _asked(technique, model, example_inputs)
        elif technique.phase is Phase.GRAPH and exported is not None:
            reach = _asked(technique, exported, example_inputs)
        elif technique.phase is Phase.GRAPH:
            reach = Reach("it acts on the exported graph, and there is none")
        else:
            continue
        reach = replace(reach, blocked=tuple(_located(entry, calls, modules) for entry in reach.blocked))
        touched = {_module(layer, modules) for target in reach.targets for layer in target.layers}
        found.append(
            TechniqueReach(
                name,
                name in in_space,
                reach,
                _share(touched, macs) if reach.unit else None,
                _share(touched, _own_parameters(model)) if reach.unit else None,
            )
        )
    return tuple(found)


def layers_of(
    model: nn.Module, techniques: tuple[TechniqueReach, ...], macs: Mapping[str, int] | None
) -> tuple[Layer, ...]:
    """Every layer that holds weights, who can act on it, and what stands in the way of the others."""
    modules = dict(model.named_modules())
    own = _own_parameters(model)
    layers = []
    for name, module in weight_layers(model):
        by, blocked = [], {}
        for entry in techniques:
            if any(_module(layer, modules) == name for target in entry.reach.targets for layer in target.layers):
                by.append(entry.technique)
            why = next((item for item in entry.reach.blocked if item.name == name), None)
            if why is not None:
                blocked[entry.technique] = (why.reason, why.site)
        layers.append(
            Layer(
                name or "the network itself",
                type(module).__name__,
                own[name],
                None if macs is None else macs.get(name, 0),
                tuple(by),
                blocked,
            )
        )
    return tuple(layers)


def _asked(technique: Technique[Any], model: Any, example_inputs: tuple[torch.Tensor, ...]) -> Reach:
    try:
        return technique.reach(model, example_inputs)
    except (CompressionError, InfeasibleCandidate) as error:
        return Reach(error.message)


def _located(entry: Blocked, calls: Mapping[str, Site], modules: Mapping[str, nn.Module]) -> Blocked:
    """With a line of the user's: the one that calls the module, else the forward that holds it."""
    if entry.site.file:
        return entry
    name = _module(entry.site.module or entry.name, modules)
    site = calls.get(name)
    while site is None or not site.file:
        if name not in modules:
            return entry
        site = forward_site(name, modules[name])
        if site.file or not name:
            break
        name = name.rpartition(".")[0]
    return replace(entry, site=replace(site, module=entry.site.module or entry.name))


def _module(name: str, modules: Mapping[str, nn.Module]) -> str:
    """The module a graph's operator came from: its name, without a number that made it unique."""
    plain = name.partition("/")[0]
    return plain if plain in modules else re.sub(r"_\d+$", "", plain)


def _own_parameters(model: nn.Module) -> dict[str, int]:
    return {
        name: sum(parameter.numel() for parameter in module.parameters(recurse=False))
        for name, module in model.named_modules()
    }


def _share(names: Collection[str], of: Mapping[str, int] | None) -> float | None:
    if of is None or not sum(of.values()):
        return None
    return sum(count for name, count in of.items() if name in names) / sum(of.values())
