"""BatchNorm statistics re-estimated: hand-worked, and nothing else changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_workload import TinyWorkload, two_clouds
from torch import nn

from automc.recovery.batchnorm import reestimate_batchnorm
from automc.workloads.workload import weights_digest


def numbers(values: list[float]) -> TinyWorkload:
    return TinyWorkload(np.array(values)[:, None], np.zeros(len(values), np.int64), lambda: nn.BatchNorm1d(1))


def test_one_batch_gives_its_own_mean_and_unbiased_variance() -> None:
    # 1, 2, 3, 4: mean 2.5, squared deviations 2.25 + 0.25 + 0.25 + 2.25 = 5, over n - 1 = 3.
    norm = reestimate_batchnorm(nn.BatchNorm1d(1), numbers([1, 2, 3, 4]).examples)
    assert norm.running_mean.item() == pytest.approx(2.5)
    assert norm.running_var.item() == pytest.approx(5 / 3)


def test_batches_are_averaged_plainly_and_old_statistics_forgotten() -> None:
    workload = numbers([1, 2, 3, 4, 5, 6])
    norm = nn.BatchNorm1d(1)
    norm.running_mean.fill_(100.0)
    norm.running_var.fill_(100.0)
    norm.num_batches_tracked.fill_(1000)
    done = reestimate_batchnorm(norm, workload.examples, batch_size=2)
    # Whatever the pairs, the three batch means average to 3.5.
    assert done.running_mean.item() == pytest.approx(3.5)
    pairs = [workload.examples.inputs[rows].ravel() for rows in workload.examples.served]
    assert done.running_var.item() == pytest.approx(np.mean([np.var(pair, ddof=1) for pair in pairs]))


def test_no_more_batches_are_read_than_asked_for() -> None:
    workload = two_clouds(40)
    reestimate_batchnorm(workload.model(), workload.examples, 2, batch_size=8)
    assert len(workload.examples.served) == 2


def test_only_statistics_change_and_the_input_is_untouched() -> None:
    workload = two_clouds()
    model = workload.model()
    before, state = weights_digest(model), torch.get_rng_state()
    done = reestimate_batchnorm(model, workload.examples)
    assert weights_digest(model) == before
    assert torch.equal(torch.get_rng_state(), state)  # no dropout was drawn
    for name, tensor in done.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]) == ("running" not in name and "tracked" not in name)
    assert done[1].momentum == model[1].momentum
    assert not any(module.training for module in done.modules())


def test_a_model_without_batchnorm_comes_back_equal() -> None:
    workload = two_clouds()
    model = nn.Linear(4, 2)
    assert weights_digest(reestimate_batchnorm(model, workload.examples)) == weights_digest(model)
    assert workload.examples.served == []


def test_zero_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="batches = 0"):
        reestimate_batchnorm(nn.BatchNorm1d(1), numbers([1, 2]).examples, 0)
