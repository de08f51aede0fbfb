"""Finds techniques by existing: a file in this package, or an entry point of another package, is all it takes."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from automc.errors import ConfigError
from automc.nearest import nearest
from automc.techniques.technique import Technique


@cache
def _modules() -> dict[str, str]:
    """Name -> where to import it from; a technique's file bears its name, so nothing is imported here."""
    package = importlib.import_module("automc.techniques")
    support = {"technique", "plan", "registry", "edits", "quantspec", "shortcuts", "coupling", "reach", "sketch"}
    found = {
        info.name: f"{package.__name__}.{info.name}"
        for info in pkgutil.iter_modules(package.__path__)
        if info.name not in support and not info.name.startswith("_")
    }
    for point in entry_points(group="automc.techniques"):
        found[point.name] = point.value
    return found


def technique_names() -> tuple[str, ...]:
    return tuple(sorted(_modules()))


@cache
def get_technique(name: str) -> Technique[Any]:
    """The technique called `name`. Raises ConfigError naming the nearest known name."""
    where = _modules().get(name)
    if where is None:
        hint = nearest(name, technique_names())
        raise ConfigError(f"no technique is called {name!r}{hint}", next_step="automc technique list")
    module_name, _, attribute = where.partition(":")
    module = importlib.import_module(module_name)
    if attribute:
        kind_or_instance: Any = getattr(module, attribute)
        if isinstance(kind_or_instance, Technique):
            return kind_or_instance
        instance: Technique[Any] = kind_or_instance()
        return instance
    for _, kind in inspect.getmembers(module, inspect.isclass):
        if issubclass(kind, Technique) and kind.__module__ == module.__name__ and getattr(kind, "name", None) == name:
            return kind()
    raise ConfigError(
        f"{module_name} holds no Technique named {name!r}",
        next_step=f"give the class `name = {name!r}`, the name of its entry point or file",
    )
