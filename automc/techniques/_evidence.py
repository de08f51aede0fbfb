"""Keeps what was measured on calibration data, so that a worker measures a network once and not once per candidate."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from automc.workloads.workload import weights_digest

if TYPE_CHECKING:
    from torch import nn

    from automc.workloads.workload import Examples, Task

T = TypeVar("T")


def evidence_key(model: nn.Module, examples: Examples, task: Task) -> str:
    """Same for the same modules, weights, samples and task: what a measurement in eval mode depends on."""
    text = f"{model!r};{weights_digest(model)};{examples.digest};{type(task).__qualname__};{task.name}"
    return hashlib.sha256(text.encode()).hexdigest()


class Evidence(Generic[T]):
    """The last `capacity` measurements by key. A kept value equals a new one: it changes time, never a plan."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._kept: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str, measure: Callable[[], T]) -> T:
        """What was kept under `key`, or what `measure` says now."""
        if key not in self._kept:
            self._kept[key] = measure()
            if len(self._kept) > self.capacity:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]
