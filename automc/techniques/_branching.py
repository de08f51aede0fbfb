"""Copies of networks of shapes alone that share with the original whatever an edit leaves as it is.

A deep copy of ResNet-20 takes Python 10 ms, and a search asks for thousands of networks that differ in a few modules.
On the meta device nothing is ever written into a tensor, so what is not edited need not be copied.
"""

from __future__ import annotations

from collections.abc import Collection
from types import BuiltinFunctionType, FunctionType
from weakref import WeakKeyDictionary

import torch
from torch import nn

_TOLD_APART = frozenset({"_parameters", "_buffers", "_modules"})


def branched(model: nn.Module, names: Collection[str]) -> nn.Module | None:
    """A copy in which the modules called `names`, and those around them, are its own; the others are the model's.

    None where that cannot be done safely: `model` is not on the meta device alone, or one of its modules keeps more
    than values beside its parts (a list of other modules, say, which would still be those of the original).
    """
    if not _can_share(model):
        return None
    own = {id(module) for name, module in model.named_modules(remove_duplicate=False) if name in names}
    return _branch(model, own | {id(model)}, {})


_ASKED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""What `_can_share` said of networks that are still there: shapes alone are never changed in place."""


_KEEPS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""The same of `_keeps_values` and modules of these networks, most of which are parts of several."""


def _can_share(model: nn.Module) -> bool:
    known = _ASKED.get(model)
    if known is None:
        tensors = [*model.parameters(), *model.buffers()]
        alone = bool(tensors) and all(tensor.device.type == "meta" for tensor in tensors)
        known = alone and all(_keeps(module) for module in model.modules())
        if alone:
            _ASKED[model] = known
    return known


def another(leaf: nn.Module) -> nn.Module:
    """A copy, with parameters of its own, of one of torch's layers that is on the meta device and holds no others."""
    made = object.__new__(type(leaf))
    made.__dict__ = {key: value.copy() if isinstance(value, dict) else value for key, value in vars(leaf).items()}
    for name, parameter in leaf._parameters.items():
        if parameter is not None:
            shape = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
            made._parameters[name] = nn.Parameter(shape, parameter.requires_grad)
    return made


def _branch(module: nn.Module, own: set[int], made: dict[int, nn.Module]) -> nn.Module:
    if id(module) in made:
        return made[id(module)]
    children = {}
    for name, child in module._modules.items():
        if child is not None:
            branch = _branch(child, own, made)
            if branch is not child:
                children[name] = branch
    result = module
    if children or id(module) in own:
        result = object.__new__(type(module))
        result.__dict__ = {
            key: value.copy() if isinstance(value, dict | set | list) else value
            for key, value in module.__dict__.items()
        }
        result._modules.update(children)
    made[id(module)] = result
    return result


def _keeps(module: nn.Module) -> bool:
    known = _KEEPS.get(module)
    if known is None:
        known = _KEEPS[module] = _keeps_values(module)
    return known


def _keeps_values(module: nn.Module) -> bool:
    return all(name in _TOLD_APART or _is_value(value) for name, value in vars(module).items())


def _is_value(value: object) -> bool:
    """Whether it means the same to a copy: it refers to no module, no tensor, and nothing that might."""
    if value is None or isinstance(value, bool | int | float | str | type | torch.dtype | torch.device):
        return True
    if isinstance(value, FunctionType):
        return value.__closure__ is None
    if isinstance(value, BuiltinFunctionType):
        return not isinstance(value.__self__, torch.Tensor | nn.Module)
    if isinstance(value, tuple | list | set | frozenset):
        return all(_is_value(item) for item in value)
    if isinstance(value, dict):
        return all(_is_value(item) for item in value.values())
    return False
