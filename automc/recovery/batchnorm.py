"""BatchNorm statistics re-estimated on data: the cheapest recovery after a structural cut, and rung 0's only one."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from automc.workloads.workload import Examples


def reestimate_batchnorm(model: nn.Module, examples: Examples, batches: int = 8, *, batch_size: int = 64) -> nn.Module:
    """An eval-mode copy of `model` whose BatchNorm means and variances are those of the first batches of `examples`.

    Up to `batches` batches of `batch_size` in a fixed shuffled order; the plain average over batches of each batch's
    statistics. Weights, and every layer but BatchNorm, stay as they are; a model without BatchNorm comes back equal.
    Raises ValueError on batches < 1. Source: Li et al. 2020, "EagleEye", section 3.3 (adaptive batch normalisation).
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    if batches < 1:
        raise ValueError(f"batches = {batches}, at least 1 is needed")
    result = copy.deepcopy(model).eval()
    norms = [module for module in result.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return result
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for done, batch in enumerate(examples.batches(batch_size, seed=0), start=1):
            if len(batch.targets) > 1 or done == 1:
                result(*batch.inputs)
            if done == batches:
                break
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return result.eval()
