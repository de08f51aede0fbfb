"""Replays the edits of a plan on a copy of a torch network: shapes on meta tensors, sliced weights on real ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from automc.errors import CompressionError
from automc.techniques._branching import another, branched
from automc.techniques.plan import Edit, LayerSpec, QuantiseEdit, RemoveEdit, ReplaceEdit, SliceEdit


class HandsOn(nn.Identity):
    """What stands where a block was removed: its input, whatever else the block was called with."""

    def forward(self, input: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return input


Fill = Callable[[nn.Module, ReplaceEdit, nn.Module], None]
"""Called with the module being replaced, the edit and what replaces it; writes the weights it can derive in place."""


def apply_edits(model: nn.Module, edits: Iterable[Edit], fill: Fill | None = None) -> nn.Module:
    """A copy of `model` with `edits` replayed in order; `model` is left as it was.

    Works on meta tensors, where `fill` is not called and the copy shares with `model` what no edit names. Replaced
    layers are zero until `fill` or a state dict fills them.
    Raises CompressionError where a named module is missing or the edit does not fit it (KeyError, IndexError inside).
    """
    edits = tuple(edits)
    edited = _copied(model, edits)
    held = chain(edited.parameters(), edited.buffers())
    reference = next((tensor for tensor in held if tensor.is_floating_point()), torch.empty(0))
    device, dtype = reference.device, reference.dtype
    for edit in edits:
        match edit:
            case SliceEdit():
                slice_module(_named(edited, edit.module), edit)
            case ReplaceEdit():
                old = _named(edited, edit.module)
                new = build_layers(edit.layers, device, dtype).train(old.training)
                if fill is not None and device.type != "meta":
                    with torch.no_grad():
                        fill(old, edit, new)
                set_module(edited, edit.module, new)
            case RemoveEdit():
                kept = HandsOn().train(_named(edited, edit.module).training)
                set_module(edited, edit.module, kept)
            case QuantiseEdit():
                raise CompressionError(f"{edit.tensor}: a quantised tensor is an edit of the exported graph, not torch")
    return edited


def _copied(model: nn.Module, edits: tuple[Edit, ...]) -> nn.Module:
    """A copy to edit; of shapes alone it may share with `model` what no edit changes."""
    names = {edit.module for edit in edits if not isinstance(edit, QuantiseEdit)}
    around = {name.rpartition(".")[0] for name in names}
    found = branched(model, names | around)
    return copy.deepcopy(model) if found is None else found


@contextmanager
def removed(model: nn.Module, blocks: Iterable[str]) -> Iterator[None]:
    """`model` itself without `blocks`, none inside another, until the end of the block: as a RemoveEdit leaves it."""
    before = {name: _named(model, name) for name in blocks}
    try:
        for name, block in before.items():
            set_module(model, name, HandsOn().train(block.training))
        yield
    finally:
        for name, block in before.items():
            set_module(model, name, block)


def shapes_alone(model: nn.Module) -> nn.Module:
    """A copy of `model` on the meta device, as `apply` takes it for shapes alone; no weight is copied."""
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(_shape_of(parameter), parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = _shape_of(buffer)
    return copy.deepcopy(model, memo)


def _shape_of(tensor: torch.Tensor) -> torch.Tensor:
    """On the meta device; torch.empty_like takes Python 1 ms there."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def set_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` where `model` has the module called `name` (dotted path, not the root)."""
    parent, _, leaf = name.rpartition(".")
    setattr(_named(model, parent), leaf, new)


def _named(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise CompressionError(f"the network has no module called {name!r}; the plan is of another base") from error


def build_layers(layers: tuple[LayerSpec, ...], device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The layers of a ReplaceEdit with all weights zero: one alone, several in an nn.Sequential."""
    built = [_build(layer, device, dtype) for layer in layers]
    return built[0] if len(built) == 1 else nn.Sequential(*built)


def _build(spec: LayerSpec, device: torch.device, dtype: torch.dtype) -> nn.Module:
    layer = another(_prototype(spec, dtype))
    if device.type != "meta":
        layer = layer.to_empty(device=device)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.zero_()
    return layer


@lru_cache(maxsize=4096)
def _prototype(spec: LayerSpec, dtype: torch.dtype) -> nn.Module:
    """The layer on the meta device; a copy of it is made sooner than another, which would be initialised."""
    with torch.device("meta"):
        if spec.type == "linear":
            layer: nn.Module = nn.Linear(spec.in_channels, spec.out_channels, bias=spec.bias)
        elif spec.type == "conv1d":
            layer = nn.Conv1d(spec.in_channels, spec.out_channels, *_sizes(spec, 1), spec.groups, spec.bias)
        else:
            layer = nn.Conv2d(spec.in_channels, spec.out_channels, *_sizes(spec, 2), spec.groups, spec.bias)
    return layer.to(dtype)


def _sizes(spec: LayerSpec, dimensions: int) -> tuple[Any, Any, Any, Any]:
    """Kernel, stride, padding, dilation: as given, or of no effect where the spec leaves them out."""
    return (
        spec.kernel or (1,) * dimensions,
        spec.stride or (1,) * dimensions,
        spec.padding or (0,) * dimensions,
        spec.dilation or (1,) * dimensions,
    )


def is_depthwise(module: nn.Module) -> bool:
    """One filter per channel: input and output channels are the same channels."""
    return (
        isinstance(module, _ConvNd) and module.groups > 1 and module.groups == module.in_channels == module.out_channels
    )


def channels(module: nn.Module, axis: str) -> int:
    """Channels a SliceEdit of `axis` indexes: per group for the inputs of a grouped convolution."""
    if isinstance(module, _ConvNd):
        return module.out_channels if axis == "out" else module.in_channels // module.groups
    if isinstance(module, nn.Linear):
        return module.out_features if axis == "out" else module.in_features
    if isinstance(module, _BatchNorm | nn.InstanceNorm1d | nn.InstanceNorm2d):
        return module.num_features
    if isinstance(module, nn.PReLU):
        return module.num_parameters
    raise CompressionError(f"{type(module).__name__} has no channels that can be sliced")


def slice_module(module: nn.Module, edit: SliceEdit) -> None:
    """Keep the channels `edit.keep` of `module`, in place. Raises CompressionError where they are not there."""
    if parametrize.is_parametrized(module):
        raise CompressionError(f"{edit.module}: live state must be detached before its module is sliced")
    width = channels(module, edit.axis)
    if not edit.keep or edit.keep[-1] >= width:
        raise CompressionError(f"{edit.module}: cannot keep channels {edit.keep} of {width} ({edit.axis})")
    kept = len(edit.keep)
    if isinstance(module, _ConvNd):
        _slice_convolution(module, edit)
    elif isinstance(module, nn.Linear):
        _take(module, "weight", 0 if edit.axis == "out" else 1, edit.keep)
        if edit.axis == "out":
            _take(module, "bias", 0, edit.keep)
            module.out_features = kept
        else:
            module.in_features = kept
    elif isinstance(module, nn.PReLU):
        _take(module, "weight", 0, edit.keep)
        module.num_parameters = kept
    else:
        for name in ("weight", "bias", "running_mean", "running_var"):
            _take(module, name, 0, edit.keep)
        module.num_features = kept  # type: ignore[assignment]


def _slice_convolution(module: _ConvNd, edit: SliceEdit) -> None:
    transposed = isinstance(module, _ConvTransposeNd)
    if transposed and module.groups > 1:
        raise CompressionError(f"{edit.module}: a grouped transposed convolution cannot be sliced")
    kept = len(edit.keep)
    if edit.axis == "in":
        if is_depthwise(module):
            raise CompressionError(f"{edit.module}: a depthwise convolution is sliced along 'out' alone")
        _take(module, "weight", 0 if transposed else 1, edit.keep)
        module.in_channels = kept * module.groups
        return
    if is_depthwise(module):
        module.in_channels = module.groups = kept
    elif module.groups > 1:
        size = module.out_channels // module.groups
        counts = [sum(group * size <= i < (group + 1) * size for i in edit.keep) for group in range(module.groups)]
        if len(set(counts)) > 1:
            raise CompressionError(f"{edit.module}: groups would keep unequal numbers of channels {counts}")
    _take(module, "weight", 1 if transposed else 0, edit.keep)
    _take(module, "bias", 0, edit.keep)
    module.out_channels = kept


def _take(module: nn.Module, name: str, axis: int, keep: tuple[int, ...]) -> None:
    tensor = getattr(module, name, None)
    if tensor is None:
        return
    if tensor.is_meta:
        extents = [*tensor.shape[:axis], len(keep), *tensor.shape[axis + 1 :]]
        taken = torch.empty(extents, dtype=tensor.dtype, device="meta")
    else:
        taken = tensor.detach().index_select(axis, torch.tensor(keep, dtype=torch.long, device=tensor.device))
    if isinstance(tensor, nn.Parameter):
        setattr(module, name, nn.Parameter(taken, requires_grad=tensor.requires_grad))
    else:
        setattr(module, name, taken)


def layer_macs(layers: tuple[LayerSpec, ...], positions: tuple[int, ...]) -> int:
    """Multiply-accumulates of layers in sequence; positions[i]: output positions (H x W, tokens) of layer i."""
    return sum(
        prod(layer.kernel) * (layer.in_channels // layer.groups) * layer.out_channels * count
        for layer, count in zip(layers, positions, strict=True)
    )
