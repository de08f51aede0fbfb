"""What a technique can act on in a network and what stands in the way of the rest: data, one form for all techniques.

A technique fills it in `Technique.reach` from what it plans with, so that what `automc doctor` says of a network is
what a search will find in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from automc.sources import Site, forward_site

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Target:
    """Something the technique can act on as one: a group of channels, a layer, a block, an operator.

    name: as the technique's parameters or messages call it. layers: modules it makes smaller, replaces or removes.
    """

    name: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Blocked:
    """A layer (or block) the technique leaves alone, and why. site: what stands in its way, and where in the source."""

    name: str
    reason: str
    site: Site


@dataclass(frozen=True)
class Reach:
    """refused: why the technique has nothing to do here at all, None where it has, or may have.

    unit: what one target is, in the singular ("group of channels"); "" where the technique takes the network whole and
    lists no targets.
    """

    refused: str | None = None
    unit: str = ""
    targets: tuple[Target, ...] = ()
    blocked: tuple[Blocked, ...] = ()


def weight_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules that hold a weight of two axes or more themselves, in module order; normalisations, which do not, follow
    the layers before them."""
    for name, module in model.named_modules():
        if any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)):
            yield name, module


def not_a(kinds: str, name: str, module: nn.Module) -> Blocked:
    """The entry of a layer whose kind the technique does not handle; `kinds` says what it does, in the plural."""
    return Blocked(name, f"{type(module).__name__}: the technique handles {kinds}", forward_site(name, module))
