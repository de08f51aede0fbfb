"""Losses and scores, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from automc.workloads.tasks import Classification, Regression


def test_accuracy_is_per_sample_and_a_tie_goes_to_the_first_class() -> None:
    outputs = np.array([[1.0, 3.0], [2.0, 1.0], [5.0, 5.0], [5.0, 5.0]], np.float32)
    assert Classification().score(outputs, np.array([1, 1, 0, 1])).tolist() == [1.0, 0.0, 1.0, 0.0]


def test_a_nan_is_never_right() -> None:
    # argmax would name the NaN's place.
    outputs = np.array([[0.0, np.nan], [np.nan, np.nan]], np.float32)
    assert Classification().score(outputs, np.array([1, 0])).tolist() == [0.0, 0.0]


def test_no_samples_have_no_scores() -> None:
    assert Classification().score(np.zeros((0, 3), np.float32), np.zeros(0, np.int64)).shape == (0,)


def test_cross_entropy_of_equal_logits_is_the_log_of_the_classes() -> None:
    assert Classification().loss(torch.zeros(2, 4), torch.tensor([0, 3])).item() == pytest.approx(math.log(4))


def test_regression_scores_the_squared_error_of_each_sample() -> None:
    # (1 - 0)^2 and (3 - 0)^2 average to 5; (2 - 2)^2 and (0 - 4)^2 to 8.
    outputs, targets = np.array([[1.0, 3.0], [2.0, 0.0]]), np.array([[0.0, 0.0], [2.0, 4.0]])
    task = Regression()
    assert task.score(outputs, targets).tolist() == [5.0, 8.0]
    assert task.loss(torch.tensor(outputs), torch.tensor(targets)).item() == 6.5
    assert task.direction == "min"
