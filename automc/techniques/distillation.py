"""Knowledge distillation: recovery that also follows the outputs of the uncompressed model.

Loss = alpha * T^2 * KL(teacher / T || student / T) + (1 - alpha) * loss on the labels.
Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from automc.recovery.training import Distillation, RecoveryContext, train
from automc.techniques.technique import Params, RecoveryTechnique

if TYPE_CHECKING:
    from torch import nn


class DistillationParams(Params):
    share: float = Field(
        1.0, ge=0.1, le=1.0, description="share of the candidate's steps trained here", json_schema_extra={"step": 0.1}
    )
    temperature: float = Field(
        4.0, ge=1.0, le=10.0, description="softens both outputs", json_schema_extra={"step": 1.0}
    )
    alpha: float = Field(
        0.7,
        ge=0.0,
        le=1.0,
        description="weight of the teacher's outputs against the labels",
        json_schema_extra={"step": 0.1},
    )


class DistillationTechnique(RecoveryTechnique[DistillationParams]):
    """Trains with the run's recipe and teacher. Raises CompressionError where the run has no teacher."""

    name = "distillation"
    params = DistillationParams
    needs_teacher = True
    saves = frozenset({"accuracy"})
    summary = "train on with the run's recipe, following the uncompressed model's outputs"
    source = "Hinton, Vinyals and Dean 2015, Distilling the Knowledge in a Neural Network"

    def recover(self, model: nn.Module, params: DistillationParams, context: RecoveryContext, steps: int) -> nn.Module:
        return train(model, context, steps, distill=Distillation(params.temperature, params.alpha))
