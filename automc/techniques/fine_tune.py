"""Fine-tuning: what a structural cut broke, a few hundred optimiser steps on the training data mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from automc.recovery.training import RecoveryContext, train
from automc.techniques.technique import Params, RecoveryTechnique

if TYPE_CHECKING:
    from torch import nn


class FineTuneParams(Params):
    share: float = Field(
        1.0, ge=0.1, le=1.0, description="share of the candidate's steps trained here", json_schema_extra={"step": 0.1}
    )


class FineTune(RecoveryTechnique[FineTuneParams]):
    """Trains on with the run's recipe. The caller turns `share` into `steps`; `recover` trains exactly `steps`."""

    name = "fine_tune"
    params = FineTuneParams
    saves = frozenset({"accuracy"})
    summary = "train on with the run's recipe"
    source = "Han et al. 2015, Learning both Weights and Connections for Efficient Neural Networks"

    def recover(self, model: nn.Module, params: FineTuneParams, context: RecoveryContext, steps: int) -> nn.Module:
        return train(model, context, steps)
