"""The workload plug-in of the zoo: random samples, and what the base itself answers as the truth.

A network with random weights has no accuracy of its own, so every figure is agreement with the base: share of equal
classes where the first output is (batch, two or more), else the squared error against the base's first output.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, JsonValue
from torch import nn

from automc.workloads.options import Options, parse_options
from automc.workloads.tasks import Classification, Regression
from automc.workloads.workload import Batch, Examples, SplitName, Task, Workload
from zoo_networks import architectures

SAMPLES: dict[SplitName, int] = {"train": 48, "calibration": 16, "validation": 32, "test": 32}


class ZooOptions(Options):
    network: str = Field(description="a name of the zoo")


class _First:
    """A task on the first tensor of whatever the network returns."""

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return first_tensor(model(*batch.inputs))


class FirstClass(_First, Classification):
    """Classification by the first output."""


class FirstValues(_First, Regression):
    """Regression of the first output."""


class Drawn(Examples):
    """One split. inputs: (n, ...) per network input. targets: (n,) int64 or (n, ...) float32."""

    def __init__(self, inputs: tuple[np.ndarray, ...], targets: np.ndarray) -> None:
        self.parts, self.truth = inputs, targets

    @cached_property
    def digest(self) -> str:
        hasher = hashlib.sha256()
        for array in (*self.parts, self.truth):
            hasher.update(f"{array.shape}:{array.dtype.str};".encode())
            hasher.update(np.ascontiguousarray(array).data)
        return hasher.hexdigest()

    def __len__(self) -> int:
        return len(self.truth)

    def batches(self, size: int, *, seed: int | None = None, augment: bool = False) -> Iterator[Batch]:
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        for start in range(0, len(self), size):
            rows = order[start : start + size]
            yield Batch(
                tuple(torch.from_numpy(part[rows]) for part in self.parts), torch.from_numpy(self.truth[rows]), rows
            )


class Zoo(Workload):
    """One network of the zoo."""

    name = "zoo"
    options_model = ZooOptions
    seen_by_base = frozenset()

    def __init__(self, options: ZooOptions) -> None:
        self.network = architectures()[options.network]
        self._splits: dict[SplitName, Drawn] = {}

    @cached_property
    def _base(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.network.build().float().eval()

    @cached_property
    def task(self) -> Task:  # type: ignore[override]
        return FirstClass() if _classes(self._outputs(self._draw(2, 0))) else FirstValues()

    def model(self) -> nn.Module:
        return copy.deepcopy(self._base)

    def split(self, name: SplitName) -> Drawn:
        if name not in self._splits:
            inputs = self._draw(SAMPLES[name], 1 + list(SAMPLES).index(name))
            answers = self._outputs(inputs)
            targets = answers.argmax(axis=1) if _classes(answers) else answers
            self._splits[name] = Drawn(inputs, targets)
        return self._splits[name]

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(part) for part in self._draw(1, 0))

    @property
    def preprocessing(self) -> Mapping[str, object]:
        first = self.network.inputs[0]
        dtype = "float32" if first.kind == "float" else "int64"
        shape = {"shape": list(first.shape), "dtype": dtype}
        return {"raw": {**shape, "layout": "features"}, "steps": [], "input": shape}

    def _draw(self, count: int, seed: int) -> tuple[np.ndarray, ...]:
        generator = np.random.default_rng(seed)
        return tuple(item.draw(count, generator) for item in self.network.inputs)

    def _outputs(self, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        with torch.no_grad():
            return first_tensor(self.model()(*(torch.from_numpy(part) for part in inputs))).numpy()


def _classes(answers: np.ndarray) -> bool:
    return answers.ndim == 2 and answers.shape[1] > 1


def first_tensor(output: Any) -> torch.Tensor:
    """The first tensor of tensors, tuples, lists and mappings in each other."""
    while not isinstance(output, torch.Tensor):
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    return output


def create(options: Mapping[str, JsonValue], data_root: Path | None) -> Zoo:
    return Zoo(parse_options(ZooOptions, "zoo", options))
