"""A workload small enough for hand-worked training: arrays given in the test, a model built in the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from automc.workloads.examples import ArrayExamples, Preprocessing
from automc.workloads.tasks import Classification
from automc.workloads.workload import Batch, SplitName, Task, Workload


@dataclass(frozen=True, eq=False)
class RecordedExamples(ArrayExamples):
    """Remembers which samples were served, batch by batch."""

    served: list[list[int]] = field(default_factory=list)

    def batches(self, size: int, *, seed: int | None = None, augment: bool = False) -> Iterator[Batch]:
        for batch in super().batches(size, seed=seed, augment=augment):
            self.served.append(batch.indices.tolist())
            yield batch


class TinyWorkload(Workload):
    name = "tiny"

    def __init__(
        self, inputs: np.ndarray, targets: np.ndarray, build: Callable[[], nn.Module], task: Task | None = None
    ) -> None:
        self.task = task or Classification()
        self.build = build
        preprocessing = Preprocessing(tuple(inputs.shape[1:]), "features", "float32")
        self.examples = RecordedExamples(inputs.astype(np.float32), targets, preprocessing)

    def model(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.build().eval()

    def split(self, name: SplitName) -> RecordedExamples:
        return self.examples

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(1, *self.examples.inputs.shape[1:]),)

    @property
    def preprocessing(self) -> dict[str, object]:
        return self.examples.preprocessing.to_json()


def two_clouds(samples: int = 40) -> TinyWorkload:
    """Two classes of four features around -1 and +1; a small network with BatchNorm and dropout."""
    generator = np.random.default_rng(0)
    targets = np.arange(samples) % 2
    inputs = generator.normal(size=(samples, 4)) + (2 * targets - 1)[:, None]
    return TinyWorkload(
        inputs,
        targets,
        lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2)),
    )
