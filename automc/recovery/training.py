"""The one training loop: fine-tuning and distillation, counted in optimiser steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from automc.recovery.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from automc.workloads.workload import Workload


@dataclass(frozen=True)
class RecoveryContext:
    """What a recovery technique may use.

    teacher: a frozen eval-mode network for distillation, or None. first_step: steps already trained at earlier rungs,
    so that data order goes on instead of starting again. Raises whatever `on_step` raises (OutOfBudget).
    """

    workload: Workload
    recipe: Recipe
    seed: int
    teacher: nn.Module | None = None
    first_step: int = 0
    on_step: Callable[[int, float], None] | None = None
