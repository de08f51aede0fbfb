"""Finds strategies by existing: a module of this package, or an entry point `automc.strategies`, is all it takes."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from functools import cache
from importlib.metadata import entry_points

from automc.errors import ConfigError
from automc.nearest import nearest
from automc.search.strategies.strategy import CostTeller, Screen, Strategy, everything
from automc.space import SearchSpace


@cache
def _modules() -> dict[str, str]:
    """Name -> where to import it from; a strategy's file bears its name, so nothing is imported here."""
    package = importlib.import_module("automc.search.strategies")
    found = {
        info.name: f"{package.__name__}.{info.name}"
        for info in pkgutil.iter_modules(package.__path__)
        if info.name not in {"strategy", "registry"} and not info.name.startswith("_")
    }
    for point in entry_points(group="automc.strategies"):
        found[point.name] = point.value
    return found


def strategy_names() -> tuple[str, ...]:
    return tuple(sorted(_modules()))


def get_strategy(name: str) -> type[Strategy]:
    """The strategy called `name`. Raises ConfigError naming the nearest known name, or the package it lacks."""
    where = _modules().get(name)
    if where is None:
        raise ConfigError(
            f"no strategy is called {name!r}{nearest(name, strategy_names())} (known: {', '.join(strategy_names())})",
            next_step=f"set search.strategy to one of: {', '.join(strategy_names())}",
        )
    module_name, _, attribute = where.partition(":")
    module = importlib.import_module(module_name)
    kinds = (
        [getattr(module, attribute)] if attribute else [kind for _, kind in inspect.getmembers(module, _is_strategy)]
    )
    for kind in kinds:
        if kind.name == name:
            found: type[Strategy] = kind
            _require(found)
            return found
    raise ConfigError(
        f"{module_name} holds no Strategy named {name!r}",
        next_step=f"give the class `name = {name!r}`, the name of its entry point or file",
    )


def _require(kind: type[Strategy]) -> None:
    """Raises ConfigError where a package of the extra `nas` is missing."""
    missing = [package for package in kind.NEEDS if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"strategy {kind.name} needs {' and '.join(missing)}, which is not installed",
            next_step="pip install 'automc[nas]', or set search.strategy to guided",
        )


def _is_strategy(item: object) -> bool:
    return inspect.isclass(item) and issubclass(item, Strategy) and hasattr(item, "name")


def create_strategy(
    name: str,
    *,
    space: SearchSpace,
    objectives: int,
    seed: int,
    screen: Screen = everything,
    costs: CostTeller | None = None,
) -> Strategy:
    """The strategy `name` over `space`; objectives: how many, all minimised. Raises ConfigError as `get_strategy`."""
    return get_strategy(name)(space, objectives, seed, screen, costs)
