"""A network by name: one that ships, or the user's own `package.module:factory`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping

from pydantic import JsonValue
from torch import nn

from automc.errors import ConfigError
from automc.nearest import nearest
from automc.workloads.networks import LeNet, cifar_resnet, mlp

BUILT_IN: dict[str, Callable[..., nn.Module]] = {
    "lenet": LeNet,
    "mlp": mlp,
    "resnet20": lambda: cifar_resnet(20),
    "resnet56": lambda: cifar_resnet(56),
}


def build_network(name: str, arguments: Mapping[str, JsonValue]) -> nn.Module:
    """The network, with random weights. Raises ConfigError where the name, the module or the arguments are wrong,
    or the user's own code fails.

    A name with a colon runs the user's Python: `package.module:factory` is imported and called with `arguments`.
    """
    factory = BUILT_IN.get(name) or _imported(name)
    try:
        network = factory(**arguments)
    except TypeError as error:
        raise ConfigError(
            f"workload.options.model_args do not fit {name}: {error}",
            next_step=f"give model_args what it takes: {_taken(factory)}",
        ) from error
    except Exception as error:  # the user's own code may raise anything
        raise ConfigError(
            f"workload.options.model: {name} failed: {type(error).__name__}: {error}",
            next_step=f"mend it, or model_args ({dict(arguments)}); --debug shows where it failed",
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"workload.options.model: {name} returned {type(network).__name__}, not a torch nn.Module",
            next_step="let it return the network",
        )
    return network


def _taken(factory: Callable[..., object]) -> str:
    try:
        return str(inspect.signature(factory))
    except ValueError:  # written in C
        return "see its documentation"


def _imported(name: str) -> Callable[..., nn.Module]:
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(
            f"workload.options.model: no network is called {name!r}{nearest(name, BUILT_IN)} "
            f"(built in: {', '.join(BUILT_IN)})",
            next_step="name a built-in network, or your own as package.module:factory",
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"workload.options.model: {name}: {error}",
            next_step="install the package, or put its folder on PYTHONPATH",
        ) from error
    except Exception as error:  # the user's own code may raise anything
        raise ConfigError(
            f"workload.options.model: {module_name} cannot be imported: {type(error).__name__}: {error}",
            next_step=f"mend it until this works: python -c 'import {module_name}'",
        ) from error
    if not callable(getattr(module, attribute, None)):
        raise ConfigError(
            f"workload.options.model: {module_name} has no function or class {attribute!r}"
            f"{nearest(attribute, dir(module))}",
            next_step=f"correct it, or add it to {module.__file__ or module_name}",
        )
    factory: Callable[..., nn.Module] = getattr(module, attribute)
    return factory
