"""How recovery trains, as data; apart from the loop so that reading a config imports no torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


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
