"""The tasks that ship: what is trained for, and what is scored per sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from automc.workloads.workload import Task

if TYPE_CHECKING:
    import torch


class Classification(Task):
    """Cross entropy; per-sample top-1. Outputs: (batch, classes) logits; targets: (batch,) int64."""

    name = "classification"
    metric = "accuracy"
    direction = "max"

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional as F

        return F.cross_entropy(outputs, targets)

    def score(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """1.0 where the largest logit is the label's, else 0.0; the first of equal logits counts, NaN never does."""
        finite = ~np.isnan(outputs).any(axis=1)
        correct: np.ndarray = ((outputs.argmax(axis=1) == targets) & finite).astype(np.float64)
        return correct

    def distillation_loss(self, outputs: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """T^2 * KL(teacher / T || student / T), mean over the batch. Source: Hinton et al. 2015, section 2."""
        from torch.nn import functional as F

        soft = F.kl_div(
            F.log_softmax(outputs / temperature, dim=1),
            F.log_softmax(teacher / temperature, dim=1),
            log_target=True,
            reduction="batchmean",
        )
        return soft * temperature**2


class Regression(Task):
    """Mean squared error; per-sample squared error, averaged over outputs. Outputs and targets: (batch, values)."""

    name = "regression"
    metric = "squared_error"
    direction = "min"

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional as F

        return F.mse_loss(outputs, targets)

    def score(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        error = (outputs.astype(np.float64) - targets.astype(np.float64)) ** 2
        squared: np.ndarray = error.reshape(len(error), -1).mean(axis=1)
        return squared
