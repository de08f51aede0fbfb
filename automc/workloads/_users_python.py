"""The user's own Python: imported by name, prints kept off stdout, the process left as it was, faults with their line.

Weights, seeds and measurements depend on process-wide settings (torch's default dtype, threads, random states), so
whatever the user's code changes of them is put back, and said where it is not a random state.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import os
import pkgutil
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from automc.errors import AutomcError, ConfigError
from automc.nearest import nearest
from automc.sources import Site, defined_at, site_in_users

log = logging.getLogger(__name__)

_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device.type == "cpu" else device),
    ),
    "torch's gradient mode": (torch.is_grad_enabled, lambda mode: torch._C._set_grad_enabled(mode)),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's deterministic mode": (
        torch.are_deterministic_algorithms_enabled,
        lambda mode: torch.use_deterministic_algorithms(mode),
    ),
    "numpy's error handling": (np.geterr, lambda kept: np.seterr(**kept)),
    "the working folder": (os.getcwd, os.chdir),
}
"""What user code may change for the whole process: how it is read and put back."""


_SHOWN: set[str] = set()
"""What user code printed in this process: a factory is called again and again, and its lines are shown once."""


class _Once(io.TextIOBase):
    """Passes on to stderr, line by line, what was not written before."""

    def __init__(self) -> None:
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._show(line)
        return len(text)

    def finish(self) -> None:
        """Shows a last line that was not ended."""
        self._show(self._begun)
        self._begun = ""

    def _show(self, line: str) -> None:
        if line.strip() and line not in _SHOWN:
            _SHOWN.add(line)
            print(line, file=sys.stderr)


@dataclass(frozen=True)
class Named:
    """Something of the user's, by its name `package.module:attribute`.

    key: the key of the config that names it, as messages call it.
    """

    key: str
    name: str
    thing: Any

    @property
    def module(self) -> str:
        return self.name.partition(":")[0]

    @property
    def site(self) -> Site:
        """Where it is written, as far as that is Python."""
        return defined_at(self.thing)

    @property
    def called(self) -> str:
        """Its name and, of the user's own, its file and line."""
        where = self.site.where if ":" in self.name else ""
        return self.name + (f" ({where})" if where else "")

    def __str__(self) -> str:
        return f"{self.key}: {self.called}"


def import_named(key: str, name: str, folder: str | None = None) -> Named:
    """What `package.module:attribute` names. folder: where it is looked for besides the usual places.

    Raises ConfigError where there is no such module or attribute, or importing it fails, with the line it failed at.
    """
    module_name, _, attribute = name.partition(":")
    if folder is not None and folder not in sys.path:
        sys.path.append(folder)  # not first: a file of theirs must not hide a library
        importlib.invalidate_caches()
    with guarded(key, name, module_name):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise failed(key, f"{module_name} cannot be imported", error, module_name) from error
            hint = nearest(error.name, _beside(error.name))
            raise ConfigError(
                f"{key}: {name}: {error}{hint}",
                next_step="correct it" if hint else "install the package, or put its folder on PYTHONPATH",
            ) from error
        except (Exception, SystemExit) as error:  # the user's own code may raise anything
            raise failed(key, f"{module_name} cannot be imported", error, module_name) from error
    if not hasattr(module, attribute):
        raise ConfigError(
            f"{key}: {module_name} has no function or class {attribute!r}{nearest(attribute, dir(module))}",
            next_step=f"correct it, or add it to {module.__file__ or module_name}",
        )
    return Named(key, name, getattr(module, attribute))


def _beside(module_name: str) -> list[str]:
    """Modules that can be imported from where `module_name` was looked for."""
    parent, dot, _ = module_name.rpartition(".")
    places = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    return [f"{parent}{dot}{item.name}" for item in pkgutil.iter_modules(places)]


def call_named(named: Named, arguments: Mapping[str, Any], arguments_key: str, seed: int = 0) -> Any:
    """What the user's function or class returns for `arguments`, its random numbers drawn from `seed`.

    arguments_key: the config key that gives them. Raises ConfigError where it does not take them or it raises, with the
    line it raised at.
    """
    if not callable(named.thing):
        raise ConfigError(
            f"{named.key}: {named.name} is no function or class, but {type(named.thing).__name__}",
            next_step=f"name a function in {named.module}",
        )
    try:
        inspect.signature(named.thing).bind(**arguments)
    except TypeError as error:
        raise ConfigError(
            f"{named.key}: {arguments_key} do not fit {named.called}: {error}",
            next_step=f"give {arguments_key} what it takes: {inspect.signature(named.thing)}",
        ) from error
    except ValueError:  # written in C: it has no signature
        pass
    return running(named, lambda: named.thing(**arguments), seed=seed)


def running(named: Named, work: Callable[[], Any], doing: str = "failed", seed: int | None = None) -> Any:
    """What `work` returns, which runs code of `named`; whatever that raises is a ConfigError with its line.

    doing: how the message goes on after the name. seed: of its random numbers; None: as they come.
    """
    with guarded(named.key, named.name, named.module, seed):
        try:
            return work()
        except AutomcError:
            raise
        except (Exception, SystemExit) as error:  # the user's own code may raise anything
            raise failed(named.key, f"{named.name} {doing}", error, named.module) from error


def failed(key: str, what: str, error: BaseException, module: str) -> ConfigError:
    """What the user's code raised, as a ConfigError with the line it was raised at. module: where that code is."""
    site = site_in_users(error, module)
    where = f" at {site.where}" if site.where else ""
    lines = str(error).strip().splitlines() or [""]
    said = lines[-1] if lines[0].startswith("Caught ") else f"{type(error).__name__}: {lines[0]}"  # by torch's loaders
    message = f"{key}: {what}{where}: {said}".rstrip(": ")
    if site.code:
        message += f"\n    {site.code}"
    return ConfigError(message, next_step="mend it there; --debug shows the whole traceback")


@contextlib.contextmanager
def guarded(key: str, name: str, module: str, seed: int | None = None) -> Iterator[None]:
    """Runs the user's code: prints go to stderr, and process-wide settings are put back afterwards.

    seed: of torch's, numpy's and Python's random numbers within it, whose states are put back as well.
    """
    before = {what: read() for what, (read, _) in _SETTINGS.items()}
    printed = _Once()
    states = (torch.random.get_rng_state(), np.random.get_state(), random.getstate())
    try:
        if seed is not None:
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            yield
    finally:
        printed.finish()
        torch.random.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        for what, (read, put_back) in _SETTINGS.items():
            now = read()
            if now != before[what]:
                put_back(before[what])
                log.warning("%s: %s changed %s to %s; it is put back to %s", key, name, what, now, before[what])
