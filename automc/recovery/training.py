"""The one training loop: fine-tuning and distillation, counted in optimiser steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import nn

    from automc.workloads.workload import Workload


class Recipe(BaseModel):
    """How recovery trains; the same for every candidate and for the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(0.02, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    warmup_share: float = Field(0.1, ge=0, le=0.5, description="share of the steps spent warming up the learning rate")
    clip_norm: float = Field(5.0, gt=0)
    augment: bool = True


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
