"""The embedded default: its splits, its weights, and that recovery brings it back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from automc.errors import ConfigError
from automc.recovery.recipe import Recipe
from automc.recovery.training import RecoveryContext
from automc.techniques.registry import get_technique
from automc.workloads import create_workload
from automc.workloads.digits import WEIGHTS
from automc.workloads.examples import sample_digests
from automc.workloads.workload import SPLITS, Workload, weights_digest


@pytest.fixture(scope="module")
def digits() -> Workload:
    return create_workload("digits", {}, None)


def accuracy(workload: Workload, model: nn.Module, split: str = "validation") -> float:
    with torch.no_grad():
        scores = [
            workload.task.score(workload.task.forward(model, batch).numpy(), batch.targets.numpy())
            for batch in workload.split(split).batches(200)  # type: ignore[arg-type]
        ]
    return float(np.concatenate(scores).mean())


def test_the_splits_are_what_they_were_on_every_machine(digits: Workload) -> None:
    found = {name: (len(digits.split(name)), digits.split(name).digest[:8]) for name in SPLITS}
    assert found == {
        "train": (1017, "44897e6b"),
        "calibration": (128, "e51749e5"),
        "validation": (381, "c43e18c7"),
        "test": (399, "9f491f73"),
    }


def test_no_image_is_in_two_of_train_validation_and_test(digits: Workload) -> None:
    parts = [set(sample_digests(digits.split(name).inputs)) for name in ("train", "validation", "test")]
    assert sum(len(part) for part in parts) == len(set.union(*parts))


def test_the_weights_saw_the_train_split_and_nothing_else(digits: Workload) -> None:
    with safe_open(WEIGHTS, framework="numpy") as stored:
        assert stored.metadata()["train_digest"] == digits.split("train").digest
    assert digits.seen_by_base == {"train", "calibration"}
    held = set(sample_digests(digits.split("calibration").inputs))
    assert held <= set(sample_digests(digits.split("train").inputs))


def test_the_weights_are_small_and_good(digits: Workload) -> None:
    assert WEIGHTS.stat().st_size <= 1_500_000
    model = digits.model()
    assert accuracy(digits, model, "validation") >= 0.985
    assert accuracy(digits, model, "test") >= 0.985


def test_every_model_is_a_fresh_copy_in_eval_mode_and_float32(digits: Workload) -> None:
    first, second = digits.model(), digits.model()
    assert not first.training
    assert {tensor.dtype for tensor in first.parameters()} == {torch.float32}
    with torch.no_grad():
        next(first.parameters()).zero_()
    assert weights_digest(first) != weights_digest(second)
    assert first(*digits.example_inputs()).shape == (1, 10)


def test_an_option_is_refused_by_name(digits: Workload) -> None:
    with pytest.raises(ConfigError, match="train_steps is not an option of workload digits"):
        create_workload("digits", {"train_steps": 3}, None)


@pytest.mark.parametrize("technique", ["fine_tune", "distillation"])
def test_recovery_mends_a_broken_network(digits: Workload, technique: str) -> None:
    model = digits.model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.startswith("layer1"):
                tensor.add_(torch.randn(tensor.shape, generator=generator) * tensor.std().nan_to_num() * 1.5)
    broken = accuracy(digits, model)
    context = RecoveryContext(digits, Recipe(batch_size=32), seed=0, teacher=digits.model())
    recovery = get_technique(technique)
    mended = recovery.recover(model, recovery.params(), context, 15)
    assert broken < 0.5
    assert accuracy(digits, mended) > 0.95
