"""How recovery trains, as data; apart from the loop so that reading a config imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Recipe(BaseModel):
    """How recovery trains; the same for every candidate and for the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(64, ge=1, description="samples of one optimiser step")
    learning_rate: float = Field(0.02, gt=0, description="the highest, after warm-up; cosine decay follows")
    momentum: float = Field(0.9, ge=0, lt=1, description="of stochastic gradient descent, Nesterov's")
    weight_decay: float = Field(1e-4, ge=0, description="L2, of weights, not of biases and normalisation")
    warmup_share: float = Field(0.1, ge=0, le=0.5, description="share of the steps spent warming up the learning rate")
    clip_norm: float = Field(5.0, gt=0, description="a longer gradient is cut to this norm")
    augment: bool = Field(True, description="shift and mirror as the workload declares")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of convolutions and products; weights, statistics and loss stay float32. On a processor that has "
        "it a ResNet-20 step in bfloat16 took 0.62 of the time; elsewhere it is slower",
    )
