"""Finds workloads by existing: a module here with `create(options, data_root)`, or an entry point."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import JsonValue

from automc.errors import ConfigError
from automc.nearest import nearest
from automc.workloads.options import Options, parse_options
from automc.workloads.workload import Workload

_SUPPORT = {"workload", "registry", "examples", "networks", "tasks", "options", "weights", "files", "base", "factory"}


@cache
def _modules() -> dict[str, str]:
    package = importlib.import_module("automc.workloads")
    found = {
        info.name: f"{package.__name__}.{info.name}"
        for info in pkgutil.iter_modules(package.__path__)
        if info.name not in _SUPPORT and not info.name.startswith("_")
    }
    for point in entry_points(group="automc.workloads"):
        found[point.name] = point.value
    return found


def workload_names() -> tuple[str, ...]:
    return tuple(sorted(_modules()))


def check_options(name: str, options: Mapping[str, JsonValue]) -> None:
    """What can be said of `options` without data. Raises ConfigError naming the nearest option, the reason, or both."""
    model = options_model(name)
    if model is not None:
        parse_options(model, name, options).check()


def options_model(name: str) -> type[Options] | None:
    """The options that workload `name` declares on the class its `create` is annotated to return; None: none declared.

    Raises ConfigError on an unknown name.
    """
    declared = getattr(workload_class(name), "options_model", None)
    return declared if inspect.isclass(declared) and issubclass(declared, Options) else None


def workload_class(name: str) -> type | None:
    """The class that `create` of workload `name` is annotated to return, or is itself; None where it does not say."""
    create = _create(name)
    if inspect.isclass(create):
        return create
    try:
        returned = get_type_hints(create).get("return")
    except NameError:  # annotated with what is imported for type checkers alone
        return None
    return returned if inspect.isclass(returned) else None


def create_workload(name: str, options: Mapping[str, JsonValue], data_root: Path | None) -> Workload:
    """The workload `name` with its own `options`. Raises ConfigError naming the nearest known name or wrong option."""
    workload: Workload = _create(name)(dict(options), data_root)
    return workload


def _create(name: str) -> Callable[..., Any]:
    where = _modules().get(name)
    if where is None:
        raise ConfigError(
            f"no workload is called {name!r}{nearest(name, workload_names())} (known: {', '.join(workload_names())})",
            next_step=f"set workload.name to one of: {', '.join(workload_names())}",
        )
    module_name, _, attribute = where.partition(":")
    create: Callable[..., Any] = getattr(importlib.import_module(module_name), attribute or "create")
    return create
