"""The training loop: hand-worked steps, what it must leave alone, and how it fails."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_workload import TinyWorkload, two_clouds
from torch import nn
from torch.nn.utils import parametrize

from automc.errors import CompressionError, OutOfBudget, TrainingDiverged
from automc.recovery.recipe import Recipe
from automc.recovery.training import Distillation, RecoveryContext, schedule, train, training_layout
from automc.workloads.tasks import Regression
from automc.workloads.workload import weights_digest

PLAIN = Recipe(
    batch_size=1, learning_rate=0.1, momentum=0.0, weight_decay=0.0, warmup_share=0.0, clip_norm=100.0, augment=False
)


def line(weight: float, bias: float = 0.0) -> nn.Linear:
    """y = weight * x + bias."""
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(weight)
        layer.bias.fill_(bias)
    return layer


def one_point(target: float) -> TinyWorkload:
    """The single sample x = 1, y = target, under squared error."""
    return TinyWorkload(np.array([[1.0]]), np.array([[target]], dtype=np.float32), lambda: line(0.0), task=Regression())


def context(workload: TinyWorkload, recipe: Recipe = PLAIN, seed: int = 0, **more: object) -> RecoveryContext:
    return replace(RecoveryContext(workload, recipe, seed), **more)  # type: ignore[arg-type]


def recipe(**changes: object) -> Recipe:
    return PLAIN.model_copy(update=changes)


CLOUDS = recipe(batch_size=8, momentum=0.9, warmup_share=0.1, clip_norm=5.0)


def test_the_learning_rate_rises_over_the_warm_up_and_falls_by_a_cosine() -> None:
    # 10 steps, 20 % warm-up: two steps at 1/3 and 2/3, then cos over the 8 left: (1 + cos(pi * k / 8)) / 2.
    rates = [schedule(step, 10, 0.2) for step in range(1, 11)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert rates[6] == pytest.approx(0.5)
    assert rates[9] == pytest.approx((1 + math.cos(math.pi * 7 / 8)) / 2)
    assert schedule(1, 1, 0.5) == 1.0


def test_one_step_goes_down_the_gradient() -> None:
    # (w + b - 1)^2 at 0: gradient -2 for w and b, so both become 0 + 0.1 * 2.
    trained = train(line(0.0), context(one_point(1.0)), 1)
    assert trained.weight.item() == pytest.approx(0.2)
    assert trained.bias.item() == pytest.approx(0.2)


def test_nesterov_momentum_looks_ahead() -> None:
    # First step: buffer = g, update = g + 0.9 * buffer = 1.9 g = -3.8.
    trained = train(line(0.0), context(one_point(1.0), recipe(momentum=0.9)), 1)
    assert trained.weight.item() == pytest.approx(0.38)


def test_gradients_are_clipped_by_their_common_norm() -> None:
    # Norm of (-2, -2) is 2.828; clipped to 1 each becomes -0.7071.
    trained = train(line(0.0), context(one_point(1.0), recipe(clip_norm=1.0)), 1)
    assert trained.weight.item() == pytest.approx(0.1 / math.sqrt(2), rel=1e-5)


def test_weight_decay_pulls_weights_and_leaves_biases() -> None:
    # 1 * x + 1 hits 2 exactly: no gradient, so only the decay moves the weight: 1 - 0.1 * 0.5 * 1.
    trained = train(line(1.0, 1.0), context(one_point(2.0), recipe(weight_decay=0.5)), 1)
    assert trained.weight.item() == pytest.approx(0.95)
    assert trained.bias.item() == 1.0


def test_the_input_is_untouched_and_the_result_is_in_eval_mode() -> None:
    workload = two_clouds()
    model = workload.model()
    before = weights_digest(model)
    trained = train(model, context(workload, CLOUDS), 5)
    assert weights_digest(model) == before
    assert weights_digest(trained) != before
    assert not any(module.training for module in (*model.modules(), *trained.modules()))


def test_the_global_random_states_and_threads_stay_as_they_were() -> None:
    workload = two_clouds()
    torch.manual_seed(123)  # not what an earlier training would have left
    torch_state, numpy_state, threads = torch.get_rng_state(), np.random.get_state()[1], torch.get_num_threads()
    train(workload.model(), context(workload, CLOUDS), 5)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert torch.get_num_threads() == threads


def test_the_same_seed_gives_the_same_weights_whatever_the_global_state() -> None:
    workload = two_clouds()
    torch.manual_seed(1)
    first = weights_digest(train(workload.model(), context(workload, CLOUDS, seed=3), 12))
    torch.manual_seed(2)
    assert weights_digest(train(workload.model(), context(workload, CLOUDS, seed=3), 12)) == first
    assert weights_digest(train(workload.model(), context(workload, CLOUDS, seed=4), 12)) != first


def test_no_steps_change_nothing() -> None:
    workload = two_clouds()
    model = workload.model().train()
    untrained = train(model, context(workload, CLOUDS), 0)
    assert weights_digest(untrained) == weights_digest(model)
    assert untrained is not model
    assert not untrained.training
    with pytest.raises(ValueError, match="steps = -1"):
        train(model, context(workload, CLOUDS), -1)


def test_a_later_rung_goes_on_where_the_data_order_stopped() -> None:
    # 20 samples in batches of 8: 2 full batches a pass, the short one of 4 is skipped; step 3 begins the second pass.
    workload = two_clouds(20)
    full = lambda: [served for served in workload.examples.served if len(served) == 8]  # noqa: E731
    train(workload.model(), context(workload, CLOUDS), 5)
    whole = full()[:5]
    workload.examples.served.clear()
    train(workload.model(), context(workload, CLOUDS, first_step=3), 2)
    assert full()[-2:] == whole[3:]
    assert sorted(whole[0] + whole[1]) != sorted(whole[2] + whole[3])


def test_a_split_smaller_than_a_batch_is_one_batch() -> None:
    workload = two_clouds(6)
    train(workload.model(), context(workload, CLOUDS), 3)
    assert [len(served) for served in workload.examples.served] == [6, 6, 6]


def test_training_learns() -> None:
    workload = two_clouds(200)
    trained = train(workload.model(), context(workload, CLOUDS), 150)
    batch = next(iter(workload.examples.batches(200)))
    correct = workload.task.score(trained(*batch.inputs).detach().numpy(), batch.targets.numpy())
    assert correct.mean() > 0.93  # Bayes: Phi(2) = 97.7 %, four features at distance 1


def test_each_step_is_reported_and_a_report_can_stop_it() -> None:
    workload, seen = two_clouds(), list[tuple[int, float]]()
    train(workload.model(), context(workload, CLOUDS, on_step=lambda step, loss: seen.append((step, loss))), 3)
    assert [step for step, _ in seen] == [1, 2, 3]
    assert all(loss > 0 for _, loss in seen)

    def stop(step: int, loss: float) -> None:
        raise OutOfBudget(f"stopped at {step}")

    with pytest.raises(OutOfBudget, match="stopped at 1"):
        train(workload.model(), context(workload, CLOUDS, on_step=stop), 3)


def test_a_nan_is_named_with_its_step() -> None:
    with pytest.raises(TrainingDiverged, match="loss nan at step 1 of 4"):
        train(line(float("nan")), context(one_point(1.0)), 4)


def test_an_exploding_loss_is_named_before_it_is_infinite() -> None:
    # Squared error at a rate of 3: w + b overshoots by a factor of |1 - 3 * 4| = 11 each step, the loss by 121.
    with pytest.raises(TrainingDiverged, match="loss 121 at step 2 of 9"):
        train(line(0.0), context(one_point(1.0), recipe(learning_rate=3.0)), 9)


def test_an_infinite_gradient_is_named() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sqrt(self.weight * x)

    with pytest.raises(TrainingDiverged, match=r"gradient norm .* at step 1"):
        train(Root(), context(one_point(1.0)), 2)


def test_bfloat16_trains_float32_weights_to_nearly_the_same_place() -> None:
    workload = two_clouds(200)
    exact = train(workload.model(), context(workload, CLOUDS), 50)
    short = train(workload.model(), context(workload, CLOUDS.model_copy(update={"precision": "bfloat16"})), 50)
    assert all(tensor.dtype == torch.float32 for tensor in short.parameters())
    assert weights_digest(short) != weights_digest(exact)
    x = next(iter(workload.examples.batches(200))).inputs[0]
    agree = (exact(x).argmax(1) == short(x).argmax(1)).float().mean().item()
    assert agree > 0.95


def test_a_parametrised_weight_is_trained_through_its_parametrisation() -> None:
    class Half(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * 0.5

    layer = line(0.0)
    parametrize.register_parametrization(layer, "weight", Half())
    trained = train(layer, context(one_point(1.0)), 1)
    # d/dv (v / 2 + b - 1)^2 at 0 is -1: v = 0.1, so the weight in use is 0.05.
    assert trained.weight.item() == pytest.approx(0.05)
    assert parametrize.is_parametrized(trained, "weight")


def test_convolutions_come_back_in_the_layout_they_had() -> None:
    rows = np.random.default_rng(0).normal(size=(8, 3, 6, 6))
    net = lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))  # noqa: E731
    workload = TinyWorkload(rows, np.arange(8) % 2, net)
    trained = train(workload.model(), context(workload, CLOUDS), 2)
    assert all(tensor.is_contiguous() for tensor in trained.state_dict().values())


# Distillation


def test_the_distance_from_the_teacher_is_hinton_s() -> None:
    # T = 2: teacher (2 ln 3, 0) / 2 -> (3/4, 1/4); student (0, 0) -> (1/2, 1/2).
    # KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812; times T^2 = 0.523248.
    task = two_clouds().task
    teacher = torch.tensor([[2 * math.log(3.0), 0.0]])
    assert task.distillation_loss(torch.zeros(1, 2), teacher, 2.0).item() == pytest.approx(0.523248, rel=1e-5)
    assert task.distillation_loss(teacher, teacher, 2.0).item() == pytest.approx(0.0, abs=1e-7)


def test_a_regression_follows_its_teacher_by_squared_error() -> None:
    assert Regression().distillation_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]), 3.0).item() == 2.0


def test_alpha_weighs_teacher_against_labels() -> None:
    # Label 1, teacher says -1, model at 0: gradient for w is 2 * (alpha * 1 + (1 - alpha) * -1).
    workload, teacher = one_point(1.0), line(-1.0)
    for alpha, expected in ((0.0, 0.2), (0.5, 0.0), (0.75, -0.1), (1.0, -0.2)):
        trained = train(
            line(0.0), context(workload, teacher=teacher), 1, distill=Distillation(temperature=1.0, alpha=alpha)
        )
        assert trained.weight.item() == pytest.approx(expected, abs=1e-6)


def test_without_a_teacher_there_is_no_distillation() -> None:
    with pytest.raises(CompressionError, match="needs a teacher"):
        train(line(0.0), context(one_point(1.0)), 1, distill=Distillation())


class CountingTeacher(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = line(2.0)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        out: torch.Tensor = self.layer(x)
        return out


def four_points() -> TinyWorkload:
    rows = np.arange(4, dtype=np.float32)[:, None] / 4
    return TinyWorkload(rows, rows.copy(), lambda: line(0.0), task=Regression())


@pytest.mark.parametrize(("augment", "steps", "calls"), [(False, 12, 1), (False, 3, 3), (True, 12, 12)])
def test_the_teacher_answers_for_the_whole_split_at_once_where_views_repeat(
    augment: bool, steps: int, calls: int
) -> None:
    # 4 samples, batch 1: 12 steps are three passes, 3 steps do not even make one.
    workload, teacher = four_points(), CountingTeacher()
    given = context(workload, recipe(augment=augment), teacher=teacher)
    train(line(0.0), given, steps, distill=Distillation())
    assert teacher.calls == calls


def test_kept_outputs_are_the_teacher_s_own() -> None:
    workload, teacher = four_points(), CountingTeacher()
    kept = train(line(0.0), context(workload, teacher=teacher), 12, distill=Distillation())
    asked = train(line(0.0), context(workload, recipe(augment=True), teacher=teacher), 12, distill=Distillation())
    assert weights_digest(kept) == weights_digest(asked)


def test_a_teacher_changed_in_place_is_asked_again() -> None:
    workload, teacher = four_points(), CountingTeacher()
    given = context(workload, teacher=teacher)
    first = train(line(0.0), given, 4, distill=Distillation(alpha=1.0))
    with torch.no_grad():
        teacher.layer.weight.fill_(-2.0)
    second = train(line(0.0), given, 4, distill=Distillation(alpha=1.0))
    assert teacher.calls == 2
    assert first.weight.item() > 0 > second.weight.item()


def test_the_teacher_is_not_trained() -> None:
    workload, teacher = four_points(), CountingTeacher()
    before = weights_digest(teacher)
    train(line(0.0), context(workload, teacher=teacher), 4, distill=Distillation())
    assert weights_digest(teacher) == before
    assert teacher.layer.weight.grad is None


@pytest.mark.parametrize(
    ("layer", "safe"),
    [
        (nn.Conv2d(4, 8, 1, stride=2), False),
        (nn.Conv2d(7, 8, 1, stride=(1, 2)), False),
        (nn.Conv2d(16, 16, 1, stride=2, groups=4), False),  # 4 of each group
        (nn.Conv2d(8, 8, 1, stride=2), True),
        (nn.Conv2d(4, 8, 1), True),
        (nn.Conv2d(4, 8, 3, stride=2), True),
        (nn.Linear(3, 3), True),
    ],
    ids=str,
)
def test_a_network_that_the_blocked_backward_pass_would_corrupt_is_trained_in_the_plain_layout(
    layer: nn.Module, safe: bool
) -> None:
    assert training_layout(nn.Sequential(nn.ReLU(), layer)) == (
        torch.channels_last if safe else torch.contiguous_format
    )


def test_training_through_a_strided_pointwise_convolution_of_few_channels_ends_well() -> None:
    """Without AVX-512, channels last, the process is aborted: a child, so that the suite goes on and is told."""
    script = (
        "import torch\nfrom torch import nn\nfrom automc.recovery.training import training_layout\n"
        "torch.set_num_threads(1)\nlayer = nn.Conv2d(4, 8, 1, stride=2)\nlayout = training_layout(layer)\n"
        "layer = layer.to(memory_format=layout)\n"
        "for _ in range(200):\n"
        "    x = torch.randn(32, 4, 8, 8).contiguous(memory_format=layout).requires_grad_(True)\n"
        "    layer(x).square().mean().backward()\n"
        "print('trained')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
