"""The one training loop: fine-tuning and distillation, counted in optimiser steps."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from automc.errors import CompressionError, TrainingDiverged
from automc.recovery.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn

    from automc.workloads.workload import Batch, Examples, Workload


@dataclass(frozen=True)
class RecoveryContext:
    """What a recovery technique may use.

    teacher: a frozen eval-mode network for distillation, or None. first_step: steps already trained at earlier rungs,
    so that data order goes on instead of starting again. Raises whatever `on_step` raises (OutOfBudget).
    """

    workload: Workload
    recipe: Recipe
    seed: int
    teacher: nn.Module | None = None
    first_step: int = 0
    on_step: Callable[[int, float], None] | None = None


@dataclass(frozen=True)
class Distillation:
    """Loss = alpha * distance from the teacher's outputs at `temperature` + (1 - alpha) * loss on the labels."""

    temperature: float = 4.0
    alpha: float = 0.7


def train(model: nn.Module, context: RecoveryContext, steps: int, *, distill: Distillation | None = None) -> nn.Module:
    """A copy of `model` after `steps` optimiser steps on the train split, in eval mode; `model` stays untouched.

    SGD with Nesterov momentum; linear warm-up, then a cosine to zero over these `steps`; gradients clipped by norm;
    weight decay on matrices and kernels only. `context.on_step` gets (steps done in this call, loss of the last one).
    Data order, augmentation and dropout follow from `context.seed` and `context.first_step` alone; the global random
    state is left as it was. Short last batches of a pass are skipped, as BatchNorm has no use for them.
    Raises TrainingDiverged with step and loss on NaN, infinity, or a loss beyond 100 and ten times the first one;
    CompressionError where distillation has no teacher, or nothing can be trained.
    """
    import torch
    from torch.nn.utils import clip_grad_norm_

    if steps < 0:
        raise ValueError(f"steps = {steps}, at least 0 is needed")
    teacher = _Teacher(context, steps) if distill is not None else None
    result = copy.deepcopy(model)
    if steps == 0:
        return result.eval()
    recipe, task = context.recipe, context.workload.task
    layout = training_layout(result)
    _lay_out(result, layout)
    result.train()
    parameters = [parameter for parameter in result.parameters() if parameter.requires_grad]
    if not parameters:
        raise CompressionError(
            f"{type(model).__name__} has no weights that could be trained",
            next_step="search a space without recovery: space: graph",
        )
    optimiser = torch.optim.SGD(
        _decay_groups(parameters, recipe),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
    )
    examples = context.workload.split("train")
    batches = _endless(examples, recipe, context.seed, context.first_step)
    first_loss: float | None = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_mix(context.seed, context.first_step))
        for step in range(1, steps + 1):
            batch = _laid_out(next(batches), layout)
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * schedule(step, steps, recipe.warmup_share)
            with _autocast(recipe):
                outputs = task.forward(result, batch)
            outputs = outputs.float()
            loss = task.loss(outputs, batch.targets)
            if distill is not None and teacher is not None:
                soft = task.distillation_loss(outputs, teacher.outputs(batch), distill.temperature)
                loss = distill.alpha * soft + (1 - distill.alpha) * loss
            value = float(loss.detach())
            first_loss = value if first_loss is None else first_loss
            if not math.isfinite(value) or value > 10 * max(first_loss, 10.0):
                raise TrainingDiverged(
                    f"loss {value:g} at step {step} of {steps} (first loss {first_loss:g})",
                    next_step="lower recovery.learning_rate, or lengthen recovery.warmup_share",
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = float(clip_grad_norm_(parameters, recipe.clip_norm))
            if not math.isfinite(norm):
                raise TrainingDiverged(
                    f"gradient norm {norm:g} at step {step} of {steps}, loss {value:g}",
                    next_step="lower recovery.learning_rate, or lengthen recovery.warmup_share",
                )
            optimiser.step()
            if context.on_step is not None:
                context.on_step(step, value)
    _lay_out(result, torch.contiguous_format)
    return result.eval()


def training_layout(model: nn.Module) -> torch.memory_format:
    """The memory format that a network is trained in: channels last, which oneDNN computes in, where that is safe.

    ResNet-20, 128 images, one thread: 404 ms a step against 515. Not safe (oneDNN 3.12 of torch 2.13, on a processor
    without AVX-512): a pointwise convolution with a stride and fewer input channels than a vector has lanes; its
    backward pass writes where it must not, and the process is aborted minutes later, or trains on garbage.
    """
    import torch
    from torch.nn.modules.conv import _ConvNd

    for module in model.modules():
        if (
            isinstance(module, _ConvNd)
            and set(module.kernel_size) == {1}
            and set(module.stride) != {1}
            and module.in_channels // module.groups < _VECTOR
        ):
            return torch.contiguous_format
    return torch.channels_last


_VECTOR = 8  # float32 lanes of AVX2; 2 to 6 channels were seen to crash, 7 not in 600 passes


def _lay_out(model: nn.Module, memory_format: torch.memory_format) -> None:
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=memory_format)


def _laid_out(batch: Batch, layout: torch.memory_format) -> Batch:
    inputs = tuple(item.contiguous(memory_format=layout) if item.ndim == 4 else item for item in batch.inputs)
    return replace(batch, inputs=inputs)


def schedule(step: int, steps: int, warmup_share: float) -> float:
    """Share (0 to 1) of the learning rate at `step` (from 1): up to 1 in the warm-up, then a half cosine to 0."""
    warmup = math.floor(steps * warmup_share)
    if step <= warmup:
        return step / (warmup + 1)
    done = (step - 1 - warmup) / (steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def _decay_groups(parameters: list[nn.Parameter], recipe: Recipe) -> list[dict[str, object]]:
    """Biases and BatchNorm (one axis) are not pulled to zero."""
    return [
        {"params": [item for item in parameters if item.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [item for item in parameters if item.ndim <= 1], "weight_decay": 0.0},
    ]


def _endless(examples: Examples, recipe: Recipe, seed: int, first_step: int) -> Iterator[Batch]:
    """Full batches for ever, each pass in a new order, from the `first_step`-th on."""
    size = min(recipe.batch_size, len(examples))
    per_pass = len(examples) // size
    number, skip = divmod(first_step, per_pass)
    while True:
        for position, batch in enumerate(examples.batches(size, seed=_mix(seed, number), augment=recipe.augment)):
            if position >= per_pass:
                break
            if position >= skip:
                yield batch
        number, skip = number + 1, 0


def _mix(seed: int, number: int) -> int:
    """One 63-bit seed from two numbers."""
    import numpy as np

    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)


_Outputs = dict[tuple[str, str, int], "torch.Tensor"]


class _Teacher:
    """The teacher's outputs, batch by batch; worked out once per process where passes repeat the same views."""

    kept: ClassVar[weakref.WeakKeyDictionary[nn.Module, _Outputs]] = weakref.WeakKeyDictionary()

    def __init__(self, context: RecoveryContext, steps: int) -> None:
        if context.teacher is None:
            raise CompressionError("distillation needs a teacher, and this run has none")
        self.model = context.teacher
        self.workload = context.workload
        self.recipe = context.recipe
        samples = len(context.workload.split("train"))
        self.repeats = not context.recipe.augment and steps * context.recipe.batch_size >= samples

    def outputs(self, batch: Batch) -> torch.Tensor:
        import torch

        with torch.no_grad():
            if self.repeats:
                return self._table()[torch.from_numpy(batch.indices)]
            with _autocast(self.recipe):
                return self.workload.task.forward(self.model, batch).float()

    def _table(self) -> torch.Tensor:
        """(samples, ...) outputs for the whole split, in its order: the same whatever this process did before."""
        import torch

        examples = self.workload.split("train")
        # _version counts in-place changes: a teacher that was trained on is another teacher.
        version = sum(tensor._version for tensor in self.model.state_dict().values())
        kept, key = self.kept.setdefault(self.model, {}), (examples.digest, self.recipe.precision, version)
        if key not in kept:
            with _autocast(self.recipe):
                answers = [
                    self.workload.task.forward(self.model, _laid_out(item, torch.channels_last))
                    for item in examples.batches(256)
                ]
            kept[key] = torch.cat(answers).float()
        return kept[key]


def _autocast(recipe: Recipe) -> torch.autocast:
    import torch

    return torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16")
