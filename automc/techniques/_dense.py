"""The layers of a network that low_rank and tucker may replace, what they work on, and what edits leave of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import nn
from torch.nn.utils import parametrize

from automc.techniques._probing import probe_inputs, record_calls
from automc.techniques.edits import channels
from automc.techniques.plan import Edit, LayerSpec, RemoveEdit, ReplaceEdit, is_in


@dataclass(frozen=True)
class Dense:
    """A layer that may be factorised. kernel, stride, padding, dilation: () for linear layers.

    positions_in, positions_out: input and output positions per sample (height, width; () for linear: tokens).
    """

    name: str
    out_channels: int
    in_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    bias: bool
    positions_in: tuple[int, ...]
    positions_out: tuple[int, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates per sample."""
        return self.out_channels * self.in_channels * prod(self.kernel) * prod(self.positions_out)

    @property
    def layer(self) -> LayerSpec:
        """The layer as it is."""
        return LayerSpec(
            type="conv2d" if self.kernel else "linear", in_channels=self.in_channels, out_channels=self.out_channels,
            kernel=self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation, bias=self.bias,
        )  # fmt: skip

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample, a batch of one first."""
        if self.kernel:
            return (1, self.in_channels, *self.positions_in)
        return (1, self.in_channels) if self.positions_in == (1,) else (1, *self.positions_in, self.in_channels)

    @property
    def is_pointwise(self) -> bool:
        return prod(self.kernel) == 1


def dense_layers(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> tuple[Dense, ...]:
    """Linear layers and ungrouped 2-d convolutions of `model` in the order they run, those that are really called.

    A layer whose weights another module reads without calling it (the output of nn.MultiheadAttention) is not called.
    """
    wanted = record_calls(model, probe_inputs(example_inputs, seed=6), lambda _, module: is_dense(module))
    found = []
    for name, call in wanted.items():
        module = model.get_submodule(name)
        if call.input is None or call.output is None:
            continue
        if isinstance(module, nn.Linear):
            tokens = (call.output[0].numel() // module.out_features,)
            none: tuple[int, ...] = ()
            found.append(
                Dense(
                    name, module.out_features, module.in_features, none, none, none, none, module.bias is not None,
                    tokens, tokens,
                )
            )  # fmt: skip
        elif isinstance(module, nn.Conv2d):
            found.append(
                Dense(
                    name, module.out_channels, module.in_channels, module.kernel_size, module.stride, _padding(module),
                    module.dilation, module.bias is not None, tuple(call.input.shape[2:]), tuple(call.output.shape[2:]),
                )
            )  # fmt: skip
    return tuple(found)


def is_dense(module: nn.Module) -> bool:
    return why_not_dense(module) is None


def why_not_dense(module: nn.Module) -> str | None:
    """Why the layer cannot be factorised, or None."""
    if not isinstance(module, nn.Linear | nn.Conv2d):
        return f"{type(module).__name__}: linear layers and 2-d convolutions can be factorised"
    if parametrize.is_parametrized(module):
        return "its weight is computed by a parametrization"
    if not module.weight.requires_grad:
        return "its weight is frozen"  # on purpose: the selection that stands for an option-A shortcut must stay exact
    if isinstance(module, nn.Linear):
        return None
    if type(module) is not nn.Conv2d:
        return f"{type(module).__name__} is a convolution of its own kind"
    if module.groups > 1:
        return f"a convolution in {module.groups} groups is thin already"
    if module.padding_mode != "zeros":
        return f"its padding ({module.padding_mode}) is not of zeros"
    return None if _even(module) else "its padding is not the same on both sides"


def _even(module: nn.Conv2d) -> bool:
    """Padding that is the same on both sides: "same" with an even kernel pads unequally."""
    pads = module._reversed_padding_repeated_twice
    return all(pads[i] == pads[i + 1] for i in range(0, len(pads), 2))


def _padding(module: nn.Conv2d) -> tuple[int, ...]:
    pads = module._reversed_padding_repeated_twice  # last axis first, both sides
    return (pads[2], pads[0])


def layers_after(layers: Iterable[Dense], edits: Iterable[Edit], shapes: nn.Module) -> tuple[Dense, ...] | None:
    """`dense_layers` of the network that `edits` leave of the one that has `layers`; shapes: what they leave.

    No edit changes how many positions a layer works on, and layers in sequence stand where the one was. None where they
    stand for a module of several layers.
    """
    found = list(layers)
    for edit in edits:
        if isinstance(edit, ReplaceEdit):
            if any(layer.name.startswith(f"{edit.module}.") for layer in found):
                return None
            parts = [_in_sequence(layer, edit.layers) if layer.name == edit.module else [layer] for layer in found]
            found = [layer for some in parts for layer in some]
        elif isinstance(edit, RemoveEdit):
            found = [layer for layer in found if not is_in(layer.name, edit.module)]
    modules = dict(shapes.named_modules())
    return tuple(
        replace(layer, out_channels=channels(module, "out"), in_channels=channels(module, "in"))
        for layer, module in ((layer, modules[layer.name]) for layer in found)
        if is_dense(module)
    )


def _in_sequence(layer: Dense, specs: tuple[LayerSpec, ...]) -> list[Dense]:
    """The layers that stand for `layer`, by their specs."""
    found, positions = list[Dense](), layer.positions_in
    for place, spec in enumerate(specs):
        before, name = positions, layer.name if len(specs) == 1 else f"{layer.name}.{place}"
        if spec.kernel:
            size = len(spec.kernel)
            stride, padding, dilation = spec.stride or (1,) * size, spec.padding or (0,) * size, spec.dilation
            dilation = dilation or (1,) * size
            positions = tuple(
                (extent + 2 * pad - gap * (taps - 1) - 1) // step + 1
                for extent, taps, step, pad, gap in zip(before, spec.kernel, stride, padding, dilation, strict=True)
            )
            geometry = (spec.kernel, stride, padding, dilation)
        else:
            geometry = ((), (), (), ())
        found.append(Dense(name, spec.out_channels, spec.in_channels, *geometry, spec.bias, before, positions))
    return found
