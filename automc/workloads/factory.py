"""A network by name: one that ships, or the user's own `package.module:factory`."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from pydantic import JsonValue
from torch import nn

from automc.errors import ConfigError
from automc.nearest import nearest
from automc.sources import defined_at
from automc.workloads._users_python import Named, call_named, import_named
from automc.workloads.networks import LeNet, cifar_resnet, mlp

BUILT_IN: dict[str, Callable[..., nn.Module]] = {
    "lenet": LeNet,
    "mlp": mlp,
    "resnet20": partial(cifar_resnet, 20),
    "resnet56": partial(cifar_resnet, 56),
}
KEY = "workload.options.model"
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
log = logging.getLogger(__name__)


def build_network(
    name: str, arguments: Mapping[str, JsonValue], *, folder: str | None = None, seed: int = 0
) -> nn.Module:
    """The network as its factory makes it, random weights drawn from `seed`: a copy, float32, in eval mode, on the CPU.

    A name with a colon runs the user's Python: `package.module:factory` is imported, from `folder` too where that is
    given, and called with `arguments`; it may also name a network itself. What the factory returns is never changed.
    Raises ConfigError where the name, the module or the arguments are wrong, the user's own code fails, or the network
    has what no compressed copy of it would have (hooks).
    """
    if ":" in name:
        named = import_named(KEY, name, folder)
    elif name in BUILT_IN:
        named = Named(KEY, name, BUILT_IN[name])
    else:
        raise ConfigError(
            f"{KEY}: no network is called {name!r}{nearest(name, BUILT_IN)} (built in: {', '.join(BUILT_IN)})",
            next_step="name a built-in network, or your own as package.module:factory",
        )
    if isinstance(named.thing, nn.Module) and not arguments:
        return adopted(named.thing, named)
    made = call_named(named, arguments, "model_args", seed)
    if not isinstance(made, nn.Module):
        raise ConfigError(
            f"{named} returned {type(made).__name__}, not a torch nn.Module", next_step="let it return the network"
        )
    return adopted(made, named)


def unsaid_arguments(name: str, arguments: Mapping[str, JsonValue], *, required: bool) -> tuple[str, ...]:
    """Parameters of the built-in network `name` that `arguments` leaves out, those without a default alone if
    `required`; () for a network of the user's own. Raises ConfigError where it does not take what is given.
    """
    if name not in BUILT_IN:
        return ()
    signature = inspect.signature(BUILT_IN[name])
    try:
        signature.bind_partial(**arguments)
    except TypeError as error:
        raise ConfigError(
            f"{KEY}: model_args do not fit {name}: {error}", next_step=f"give model_args what it takes: {signature}"
        ) from error
    return tuple(
        key
        for key, parameter in signature.parameters.items()
        if key not in arguments and (parameter.default is inspect.Parameter.empty or not required)
    )


def adopted(network: nn.Module, named: Named) -> nn.Module:
    """A copy of the user's network as everything here takes one; the user's own object stays as it is.

    Said where it changes what is computed: other precisions become float32, parametrizations plain weights.
    """
    inner = getattr(network, "_orig_mod", None)  # torch.compile
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = network.module
    if isinstance(inner, nn.Module):
        return adopted(inner, named)
    if isinstance(network, torch.jit.ScriptModule):
        raise ConfigError(
            f"{named} returned a compiled TorchScript module, whose layers cannot be taken apart",
            next_step="let it return the nn.Module that was compiled",
        )
    _refuse_empty(network, named)
    _refuse_hooks(network, named)
    try:
        copied = copy.deepcopy(network)
    except (TypeError, RuntimeError, AttributeError, ValueError) as error:  # of what the network holds
        raise ConfigError(
            f"{named} returned a {type(network).__name__} that cannot be copied: {error}",
            next_step="keep open files, locks and results of computations out of the module's attributes",
        ) from error
    tensors = [*copied.parameters(), *copied.buffers()]
    odd = sorted({str(tensor.dtype) for tensor in tensors if tensor.is_floating_point()} - {"torch.float32"})
    if odd:
        log.warning("%s is in %s: it is converted to float32", named, ", ".join(odd))
    away = sorted({str(tensor.device) for tensor in tensors} - {"cpu"})
    if away:
        log.warning("%s is on %s: it is copied to the CPU", named, ", ".join(away))
    _make_plain(copied, named)
    parameters = list(copied.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        copied.requires_grad_(True)  # frozen for inference; recovery has to train it
    return copied.cpu().float().eval()


def _refuse_empty(network: nn.Module, named: Named) -> None:
    """Weights that are not there yet: of lazy layers, or on the meta device."""
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if torch.nn.parameter.is_lazy(tensor):
            raise ConfigError(
                f"{named}: {name} has no shape yet, its layer is a lazy one",
                next_step="run the network once on a sample in the factory, before it is returned",
            )
        if tensor.is_meta:
            raise ConfigError(
                f"{named}: {name} is on the meta device, which holds shapes and no values",
                next_step="build the network on the CPU and load its weights",
            )


def _refuse_hooks(network: nn.Module, named: Named) -> None:
    """Hooks compute what no exported or rebuilt network would: they are named, with their place."""
    found = [(name, hook) for name, module in network.named_modules() for hook in _hooks_of(module)]
    if not found:
        return
    name, hook = found[0]
    site = defined_at(hook)
    torchs = str(getattr(hook, "__module__", "")).partition(".")[0] == "torch"
    where = f" ({site.where})" if site.where and not torchs else f" ({type(hook).__name__})"
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    raise ConfigError(
        f"{named}: the network has a hook on {name or 'itself'}{where}{more}: "
        "what it does would be lost in every compressed copy",
        next_step="remove hooks before the network is returned (handle.remove(), torch.nn.utils.remove_weight_norm, "
        "torch.nn.utils.prune.remove), or do in forward what they do",
    )


def _hooks_of(module: nn.Module) -> Iterator[object]:
    for kind in _HOOKS:
        yield from getattr(module, kind, {}).values()


def _make_plain(network: nn.Module, named: Named) -> None:
    """Weights that a parametrization computes become what it computes now, in place."""
    from torch.nn.utils import parametrize

    names = []
    for name, module in list(network.named_modules()):
        if parametrize.is_parametrized(module):
            for weight in list(module.parametrizations):
                parametrize.remove_parametrizations(module, weight, leave_parametrized=True)
                names.append(f"{name}.{weight}".lstrip("."))
    if names:
        log.warning("%s: parametrized weights are made plain: %s", named, ", ".join(names[:5]))
