"""Keeps what was found out about a network, so that a worker asks a network once and not once per candidate."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import TYPE_CHECKING, Generic, TypeVar

from automc.workloads.workload import weights_digest

if TYPE_CHECKING:
    import torch
    from torch import nn

    from automc.techniques.sketch import Sketch
    from automc.workloads.workload import Examples, Task

T = TypeVar("T")


def evidence_key(model: nn.Module, examples: Examples, task: Task) -> Hashable:
    """Same for the same network, samples and task: what a measurement in eval mode depends on."""
    return (network_key(model, ()), examples.digest, type(task), task.name)


def network_key(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> Hashable:
    """Same for networks that do the same on inputs of these shapes: modules, their settings, weights, what is frozen.

    A network with hooks, or with an attribute that cannot be compared by value, has a key that no other has.
    """
    modules = tuple((name, type(module), *_settings(module)) for name, module in model.named_modules())
    frozen = tuple(parameter.requires_grad for parameter in model.parameters())
    inputs = tuple(
        (tuple(item.shape), item.dtype, () if item.is_floating_point() else tuple(item.flatten().tolist()))
        for item in example_inputs
    )
    return (modules, weights_digest(model), frozen, inputs)


def base_key(sketch: Sketch, example_inputs: tuple[torch.Tensor, ...]) -> Hashable:
    """`network_key` of the base of `sketch`."""
    return sketch.origin.known("network_key", lambda: network_key(sketch.base, example_inputs))


def structure_key(module: nn.Module) -> Hashable:
    """Same for modules that compute alike but for the values they hold: what is inside, its settings, its shapes."""
    inside = tuple((name, type(item), *_settings(item)) for name, item in module.named_modules())
    held = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in module.state_dict().items())
    return (inside, held, tuple(parameter.requires_grad for parameter in module.parameters()))


_OF_TORCH = frozenset({"training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"})
"""Attributes of every module that are told elsewhere in the key, or that no forward in eval mode reads."""


def _settings(module: nn.Module) -> list[Hashable]:
    found: list[Hashable] = []
    for name, value in vars(module).items():
        if name in _OF_TORCH or (isinstance(value, dict) and not value):  # no hooks, say
            continue
        found.append((name, _by_value(value)))
    return found


def _by_value(value: object) -> Hashable:
    """What equals it wherever `value` means the same; something that equals nothing where that cannot be told."""
    if value is None or isinstance(value, bool | int | float | str | FunctionType | type):
        return value
    if isinstance(value, tuple | list):
        return (type(value), *map(_by_value, value))
    return object()


class Evidence(Generic[T]):
    """The last `capacity` findings by key. A kept value equals a new one: it changes time, never a plan."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._kept: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, measure: Callable[[], T]) -> T:
        """What was kept under `key`, or what `measure` says now."""
        if key not in self._kept:
            self._kept[key] = measure()
            if len(self._kept) > self.capacity:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]
