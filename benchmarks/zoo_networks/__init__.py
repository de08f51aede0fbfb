"""Networks that nobody tuned automc for, by name: how each is built and what it takes.

Random weights from one seed. The definitions follow the papers in small sizes, or are somebody else's code.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

MODULES = ("classic", "mobile", "dense_outputs", "sequences", "odd", "hugging_face", "nni_hub")


@dataclass(frozen=True)
class Input:
    """One input of a network. shape: of one sample. below: integers are drawn from 0 to below - 1.

    mask: ones, with a tail of zeros of its own in every sample.
    """

    shape: tuple[int, ...]
    kind: Literal["float", "integer", "mask"] = "float"
    below: int = 2

    def draw(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(count, *shape) float32 of unit variance, or int64."""
        import numpy as np

        if self.kind == "float":
            return generator.normal(size=(count, *self.shape)).astype(np.float32)
        if self.kind == "integer":
            return generator.integers(0, self.below, size=(count, *self.shape))
        lengths = generator.integers(max(1, self.shape[-1] // 2), self.shape[-1] + 1, size=(count, 1))
        return (np.arange(self.shape[-1]) < lengths).astype(np.int64)


@dataclass(frozen=True)
class Architecture:
    """source: whose definition it is. kind: what sort of network. build: called with torch's seed set."""

    name: str
    source: str
    kind: str
    build: Callable[[], nn.Module]
    inputs: tuple[Input, ...]


def picture(size: int = 32, channels: int = 3) -> tuple[Input, ...]:
    return (Input((channels, size, size)),)


def tokens(length: int = 16, below: int = 64) -> Input:
    return Input((length,), "integer", below)


@cache
def architectures() -> dict[str, Architecture]:
    """All of them; a library that a definition comes from is imported when that network is built."""
    found: dict[str, Architecture] = {}
    for name in MODULES:
        for item in importlib.import_module(f"zoo_networks.{name}").ARCHITECTURES:
            if item.name in found:
                raise ValueError(f"two networks are called {item.name}")
            found[item.name] = item
    return found
