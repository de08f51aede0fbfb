"""The user's own task: loss, metric and direction as their code gives them, each answer checked where it is given."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch

from automc.errors import CompressionError, ConfigError
from automc.sources import defined_at
from automc.workloads._users_python import Named, call_named, failed
from automc.workloads.tasks import Classification, Regression
from automc.workloads.workload import Batch, Task

if TYPE_CHECKING:
    from torch import nn

KEY = "workload.options.task"
BUILT_IN: dict[str, type[Task]] = {"classification": Classification, "regression": Regression}
_FORM = (
    "return {'loss': f(outputs, targets) -> scalar tensor, 'metric': g(outputs, targets) -> one score per sample, "
    "'direction': 'max' or 'min'}, or a Task"
)


def users_task(named: Named, arguments: Mapping[str, Any], seed: int = 0) -> UsersTask:
    """The task that the user's function, class or mapping gives. Raises ConfigError where it lacks a part."""
    made = named.thing
    if callable(made) and not isinstance(made, Task):
        made = call_named(named, arguments, "task_args", seed)
    if isinstance(made, Task):
        return UsersTask(named, made.loss, made.score, made.direction, made.metric, made)
    part = partial(_part, made)
    loss: Any = part("loss")
    metric: Any = part("metric")
    direction = part("direction")
    missing = [name for name, given in (("loss", loss), ("metric", metric), ("direction", direction)) if given is None]
    if missing:
        raise ConfigError(f"{named} gives no {', no '.join(missing)} ({type(made).__name__})", next_step=_FORM)
    for name, given in (("loss", loss), ("metric", metric)):
        if not callable(given):
            raise ConfigError(f"{named}: {name} is {type(given).__name__}, not a function", next_step=_FORM)
    if direction not in ("max", "min"):
        raise ConfigError(
            f"{named}: direction = {direction!r}, but max and min are allowed",
            next_step="say 'max' where a higher metric is better, 'min' where it is an error",
        )
    name = part("name") or getattr(metric, "__name__", type(metric).__name__)
    return UsersTask(named, loss, metric, direction, str(name), None)


def _part(made: object, key: str) -> Any:
    return made.get(key) if isinstance(made, Mapping) else getattr(made, key, None)


class UsersTask(Task):
    """Loss and metric of the user's. What they raise, or answer that is none, is a ConfigError with their line."""

    def __init__(
        self,
        named: Named,
        loss: Callable[..., Any],
        metric: Callable[..., Any],
        direction: Literal["max", "min"],
        metric_name: str,
        whole: Task | None,
    ) -> None:
        """whole: the Task that loss and metric are of, where they are of one."""
        self.name = named.name
        self.direction = direction
        known = {task.metric for task in BUILT_IN.values()}
        # a bundle's verify.py computes the built-in metrics itself, by their names
        self.metric = (
            f"own_{metric_name}" if metric_name in known and type(whole) not in BUILT_IN.values() else metric_name
        )
        self._named, self._loss, self._metric, self._whole = named, loss, metric, whole

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        found = self._run("loss", lambda: self._loss(outputs, targets))
        if not isinstance(found, torch.Tensor) or found.numel() != 1:
            shown = (
                f"a tensor of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            )
            raise self._wrong(
                "loss", self._loss, f"returned {shown}, not a tensor of one value", "return the mean loss"
            )
        if outputs.requires_grad and not found.requires_grad:
            raise self._wrong(
                "loss", self._loss, "has no gradient", "compute it from the outputs with torch, without detaching them"
            )
        return found.reshape(())

    def score(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        found = self._run("metric", lambda: self._metric(outputs, targets))
        if isinstance(found, torch.Tensor):
            found = found.detach().cpu().float().numpy()
        per_sample = "return one score per sample, (n,): their mean over a split is the metric"
        if found is None or isinstance(found, str | Mapping):
            raise self._wrong("metric", self._metric, f"returned {type(found).__name__}", per_sample)
        try:
            scores = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise self._wrong("metric", self._metric, f"returned no numbers: {error}", per_sample) from error
        if scores.shape != (len(targets),):
            shown = "a single value" if scores.ndim == 0 else f"shape {scores.shape}"
            raise self._wrong("metric", self._metric, f"returned {shown} for {len(targets)} samples", per_sample)
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            if not np.isfinite(outputs).all():
                raise CompressionError(f"the network gives NaN or infinity, on which {self.metric} is {scores[bad[0]]}")
            raise self._wrong(
                "metric", self._metric, f"returned {scores[bad[0]]} for {len(bad)} of {len(targets)} samples",
                "return a finite score for every sample",
            )  # fmt: skip
        return scores

    def distillation_loss(self, outputs: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        if self._whole is None:
            return super().distillation_loss(outputs, teacher, temperature)
        whole = self._whole
        return cast(
            torch.Tensor,
            self._run("distillation_loss", lambda: whole.distillation_loss(outputs, teacher, temperature)),
        )

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return super().forward(model, batch) if self._whole is None else self._whole.forward(model, batch)

    def _run(self, what: str, work: Callable[[], Any]) -> Any:
        """What `work`, which is the user's, returns. Called for every batch, and a loss may draw random numbers: the
        process is not guarded as it is around a factory."""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return work()
        except (Exception, SystemExit) as error:  # the user's own code may raise anything
            raise failed(KEY, f"{self._named.name}, {what} failed", error, self._named.module) from error

    def _wrong(self, what: str, function: Callable[..., Any], said: str, next_step: str) -> ConfigError:
        site = defined_at(function).where
        return ConfigError(
            f"{KEY}: {self._named.name}: {what}{f' ({site})' if site else ''} {said}", next_step=next_step
        )
