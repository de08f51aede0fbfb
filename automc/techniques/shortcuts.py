"""Rewrites parameterless channel-padding shortcuts as fixed 1x1 convolutions, exactly.

A ResNet "option A" shortcut (He et al. 2015, section 4.2) subsamples and pads channels with zeros inside a module that
holds no weights. A dependency graph cannot index through it; a 1x1 convolution that selects the same channels computes
the same numbers bit for bit and can be sliced like any other. It costs an extra convolution, which is counted as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from automc.techniques._probing import RUN_FAILURES, probe_inputs, record_calls
from automc.techniques.edits import build_layers
from automc.techniques.plan import LayerSpec, ReplaceEdit


@dataclass(frozen=True)
class Selection:
    """What a shortcut does: output channel i is input channel sources[i] (-1: zeros) at every `stride`-th position."""

    module: str
    sources: tuple[int, ...]
    in_channels: int
    stride: int

    @property
    def edit(self) -> ReplaceEdit:
        layer = LayerSpec(
            type="conv2d",
            in_channels=self.in_channels,
            out_channels=len(self.sources),
            kernel=(1, 1),
            stride=(self.stride, self.stride),
        )
        return ReplaceEdit(module=self.module, layers=(layer,))


def find_selections(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> tuple[Selection, ...]:
    """Every parameterless module of `model` that changes the number of channels by selecting and zero-padding them.

    Found by behaviour: on noise each output channel is bitwise an input channel or zero, and the 1x1 convolution that
    says so reproduces the module exactly on a second input. Modules called more than once are left alone.
    """
    calls = record_calls(model, probe_inputs(example_inputs, seed=1), lambda _, module: _is_parameterless(module))
    found = []
    for name, call in calls.items():
        if call.count != 1 or call.input is None or call.output is None:
            continue
        if call.input.dim() != 4 or call.output.dim() != 4 or call.input.shape[1] == call.output.shape[1]:
            continue
        selection = _probe(name, model.get_submodule(name), call.input)
        if selection is not None:
            found.append(selection)
    return tuple(found)


def fill_selection(layer: nn.Module, sources: Sequence[int]) -> None:
    """Write the 0/1 weights of a selection into its 1x1 convolution and freeze them: recovery must not train them."""
    if not isinstance(layer, nn.Conv2d):
        raise TypeError(f"a selection is a convolution, not {type(layer).__name__}")
    with torch.no_grad():
        layer.weight.zero_()
        for channel, source in enumerate(sources):
            if source >= 0:
                layer.weight[channel, source] = 1.0
    layer.weight.requires_grad_(False)


def _is_parameterless(module: nn.Module) -> bool:
    return not any(True for _ in module.parameters()) and not any(True for _ in module.buffers())


def _probe(name: str, module: nn.Module, seen: torch.Tensor) -> Selection | None:
    generator = torch.Generator().manual_seed(2)
    louder = torch.linspace(1.0, 2.0, seen.shape[1], dtype=seen.dtype)[None, :, None, None]
    noise = torch.randn(seen.shape, generator=generator, dtype=seen.dtype) * louder
    # The second input ranks the channels the other way round, so that a choice made by magnitude shows.
    check = torch.randn(seen.shape, generator=generator, dtype=seen.dtype) * louder.flip(1)
    try:
        with torch.no_grad():
            output, expected = module(noise), module(check)
    except RUN_FAILURES:
        return None  # it does not even run alone on noise of the shape it was called with: no plain selection
    height, width = noise.shape[2:]
    stride = -(-height // output.shape[2])
    sampled = noise[:, :, ::stride, ::stride]
    if sampled.shape[2:] != output.shape[2:] or -(-width // output.shape[3]) != stride:
        return None
    equal = (output[0, :, None] == sampled[0, None]).flatten(2).all(dim=2)  # (outputs, inputs)
    silent = (output[0] == 0).flatten(1).all(dim=1)
    if not bool(((equal.sum(dim=1) == 1) | silent).all()):
        return None
    picks = [int(row.to(torch.int64).argmax()) if bool(row.any()) else -1 for row in equal]
    selection = Selection(name, tuple(picks), noise.shape[1], stride)
    layer = build_layers(selection.edit.layers, noise.device, noise.dtype)
    fill_selection(layer, selection.sources)
    with torch.no_grad():
        return selection if bool(torch.equal(layer(check), expected)) else None
