"""What accuracy means, concretely: a model source, a task, lazy data per split, declared preprocessing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from automc.trial import Direction

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from automc.workloads.options import Options

SplitName = Literal["train", "calibration", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "calibration", "validation", "test")


@dataclass(frozen=True)
class Batch:
    """inputs: one tensor per model input, first axis the batch, preprocessed. targets: (batch, ...).

    indices: (batch,) int64, position of each sample within its split; outputs of a teacher are kept by it.
    """

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    indices: np.ndarray


class Examples(Protocol):
    """One split, held once in memory when first read."""

    @property
    def digest(self) -> str:
        """sha256 (hex) over the stored samples and labels, in order; independent of the batch size."""
        ...

    def __len__(self) -> int: ...

    def batches(self, size: int, *, seed: int | None = None, augment: bool = False) -> Iterator[Batch]:
        """One pass; the last batch may be short. seed: shuffles and draws the augmentation; None keeps the order."""
        ...


@runtime_checkable
class HoldsRaw(Protocol):
    """Examples that can also show samples as the user has them."""

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """(n, ...) raw samples at `rows` of the split, before any preprocessing."""
        ...


class Task(ABC):
    """Loss and metric. The metric is per sample, so that two models are compared paired over the same samples."""

    name: str
    metric: str
    direction: Direction

    @abstractmethod
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Scalar mean loss of a batch."""

    @abstractmethod
    def score(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """(batch,) float64: the metric of each sample; its mean over a split is the metric (accuracy: 0 or 1 each)."""

    def distillation_loss(self, outputs: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Scalar distance of a batch's outputs from the teacher's; here mean squared, which has no temperature."""
        from torch.nn import functional as F

        return F.mse_loss(outputs, teacher)

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """What loss is taken of: the first tensor the network gives, which is also what is scored once exported."""
        from automc.outputs import first_tensor

        return first_tensor(model(*batch.inputs))


class Workload(ABC):
    """A trained model with its task and data. Splits are lazy: nothing is read before it is asked for."""

    name: str
    task: Task
    options_model: ClassVar[type[Options] | None] = None
    """What `options` of the config may hold; None: it cannot be told before the workload is made."""
    seen_by_base: frozenset[SplitName] = frozenset({"train"})
    """Splits the given weights were trained on; validation and test must not be among them (law 3)."""

    @abstractmethod
    def model(self) -> nn.Module:
        """A fresh copy of the base, float32, eval mode, on the CPU. Raises ConfigError naming keys that do not fit."""

    @abstractmethod
    def split(self, name: SplitName) -> Examples:
        """The named split, read on first use. Raises ConfigError where it is empty, has one class, or holds NaN."""

    @abstractmethod
    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """One batch of one sample of the shapes and dtypes the model takes; needs no data."""

    @property
    @abstractmethod
    def preprocessing(self) -> Mapping[str, object]:
        """JSON: how a raw sample becomes a model input; shipped as the bundle's preprocess.json."""

    @property
    def licence_notice(self) -> str:
        """Licence text or notice of the source model, shipped with the bundle."""
        return ""

    @property
    def class_labels(self) -> tuple[str, ...]:
        """What the classes are called, by number; () where they have no names."""
        return ()

    def digests(self) -> dict[str, str]:
        """sha256 of every split and of the base weights (key "base"), for the lock file."""
        found: dict[str, str] = {name: self.split(name).digest for name in SPLITS}
        found["base"] = weights_digest(self.model())
        return found


def weights_digest(model: nn.Module) -> str:
    """sha256 (hex) over names, shapes and bytes of the state dict, in order."""
    import hashlib

    hasher = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        hasher.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype};".encode())
        hasher.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()
