"""Finds workloads by existing: a module here with `create(options, data_root)`, or an entry point."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from pydantic import JsonValue

from automc.errors import ConfigError
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


def create_workload(name: str, options: Mapping[str, JsonValue], data_root: Path | None) -> Workload:
    """The workload `name` with its own `options`. Raises ConfigError naming the nearest known name or wrong option."""
    where = _modules().get(name)
    if where is None:
        near = difflib.get_close_matches(name, workload_names(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"no workload is called {name!r}{hint} (known: {', '.join(workload_names())})")
    module_name, _, attribute = where.partition(":")
    create = getattr(importlib.import_module(module_name), attribute or "create")
    workload: Workload = create(dict(options), data_root)
    return workload
