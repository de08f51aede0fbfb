"""Samples held once in memory, served in batches: shuffling, augmentation, preprocessing, and what input is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from automc.errors import ConfigError
from automc.workloads.workload import Batch, SplitName

if TYPE_CHECKING:
    import torch

RawLayout = Literal["HWC", "CHW", "HW", "features"]


@dataclass(frozen=True)
class Preprocessing:
    """How a raw sample becomes a model input: divide, normalise per channel, repeat pixels, in that order.

    raw_shape, raw_layout, raw_dtype: one sample as the user has it. Samples are stored in the model's layout
    (channels first, no repetition), raw dtype. mean, std: per channel, after the division; empty for none.
    repeat: every pixel becomes repeat x repeat pixels (nearest-neighbour enlargement, exact).
    """

    raw_shape: tuple[int, ...]
    raw_layout: RawLayout
    raw_dtype: str = "uint8"
    divide: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    repeat: int = 1
    colour: str | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one model input without the batch axis."""
        shape = self.raw_shape
        if self.raw_layout == "HWC":
            shape = (shape[2], shape[0], shape[1])
        elif self.raw_layout == "HW":
            shape = (1, *shape)
        if self.repeat == 1:
            return shape
        return (shape[0], shape[1] * self.repeat, shape[2] * self.repeat)

    def apply(self, stored: np.ndarray) -> torch.Tensor:
        """(n, *channels first) raw values to (n, *input_shape) float32, in the declared order of operations."""
        import torch

        values = torch.from_numpy(np.ascontiguousarray(stored)).to(torch.float32, copy=True)
        if self.divide != 1.0:
            values.div_(self.divide)
        if self.mean:
            per_channel = (1, -1, *([1] * (values.ndim - 2)))
            values.sub_(torch.tensor(self.mean).view(per_channel)).div_(torch.tensor(self.std).view(per_channel))
        if self.repeat != 1:
            values = values.repeat_interleave(self.repeat, dim=2).repeat_interleave(self.repeat, dim=3)
        return values

    def to_json(self) -> dict[str, object]:
        """The raw sample, the steps in order and the model input they end in."""
        raw: dict[str, object] = {"shape": list(self.raw_shape), "layout": self.raw_layout, "dtype": self.raw_dtype}
        if self.colour is not None:
            raw["colour"] = self.colour
        steps: list[dict[str, object]] = []
        if self.raw_layout == "HWC":
            steps.append({"op": "transpose", "axes": [2, 0, 1]})
        elif self.raw_layout == "HW":
            steps.append({"op": "add_channel_axis"})
        if self.divide != 1.0:
            steps.append({"op": "divide", "by": self.divide})
        if self.mean:
            steps.append({"op": "normalise", "mean": list(self.mean), "std": list(self.std)})
        if self.repeat != 1:
            steps.append({"op": "repeat_pixels", "times": self.repeat})
        return {"raw": raw, "steps": steps, "input": {"shape": list(self.input_shape), "dtype": "float32"}}


@dataclass(frozen=True)
class Augmentation:
    """Random shift by up to `pad` raw pixels (zeros come in) and, with `flip`, a mirror image half of the time."""

    pad: int
    flip: bool

    def apply(self, stored: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """(n, C, H, W) to the same shape; every sample draws its own shift and mirror."""
        count, channels, height, width = stored.shape
        pad = self.pad
        padded = np.zeros((count, channels, height + 2 * pad, width + 2 * pad), stored.dtype)
        padded[:, :, pad : pad + height, pad : pad + width] = stored
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        row, column = generator.integers(0, 2 * pad + 1, size=(2, count))
        moved: np.ndarray = windows[np.arange(count), :, row, column]
        if self.flip:
            mirrored = generator.random(count) < 0.5
            moved[mirrored] = moved[mirrored, :, :, ::-1]
        return moved


@dataclass(frozen=True, eq=False)
class ArrayExamples:
    """One split in memory. inputs: (n, ...) raw dtype, channels first; targets: (n,) int64 or (n, values) float32."""

    inputs: np.ndarray
    targets: np.ndarray
    preprocessing: Preprocessing
    augmentation: Augmentation | None = field(default=None)

    @cached_property
    def digest(self) -> str:
        hasher = hashlib.sha256()
        for array in (self.inputs, self.targets):
            hasher.update(f"{array.shape}:{array.dtype.str};".encode())
            hasher.update(np.ascontiguousarray(array).data)
        return hasher.hexdigest()

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int, *, seed: int | None = None, augment: bool = False) -> Iterator[Batch]:
        """One pass in order, or shuffled by `seed`. augment needs a seed; without an augmentation it does nothing."""
        if augment and seed is None:
            raise ValueError("augmentation draws random numbers: give a seed")
        return self._batches(size, seed, augment)

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """(n, *raw_shape) samples as the user has them, before any preprocessing."""
        stored = np.asarray(self.inputs[rows])
        if self.preprocessing.raw_layout == "HWC":
            stored = stored.transpose(0, 2, 3, 1)
        elif self.preprocessing.raw_layout == "HW":
            stored = stored[:, 0]
        return np.ascontiguousarray(stored)

    def _batches(self, size: int, seed: int | None, augment: bool) -> Iterator[Batch]:
        import torch

        generator = np.random.default_rng(seed)
        order = np.arange(len(self)) if seed is None else generator.permutation(len(self))
        for start in range(0, len(self), size):
            indices = order[start : start + size]
            stored = self.inputs[indices]
            if augment and self.augmentation is not None:
                stored = self.augmentation.apply(stored, generator)
            targets = torch.from_numpy(np.ascontiguousarray(self.targets[indices]))
            yield Batch((self.preprocessing.apply(stored),), targets, indices.astype(np.int64))


def sample_digests(inputs: np.ndarray) -> list[bytes]:
    """16-byte digest of each sample's stored bytes: equal samples, equal digests, whatever their label."""
    return [hashlib.sha256(np.ascontiguousarray(sample).data).digest()[:16] for sample in inputs]


def digest_share(digests: list[bytes]) -> np.ndarray:
    """(n,) in [0, 1): where each digest falls; splitting by it keeps equal samples together, whatever else is there."""
    return np.array([int.from_bytes(digest[:6], "big") / 2**48 for digest in digests])


def rows_by_share(inputs: np.ndarray, parts: Sequence[tuple[SplitName, float, float]]) -> dict[SplitName, np.ndarray]:
    """Rows (ascending) of each (split, from, to): those whose digest's share lies in [from, to)."""
    share = digest_share(sample_digests(inputs))
    return {name: np.flatnonzero((share >= low) & (share < high)) for name, low, high in parts}


def classified_splits(
    where: str,
    rows: Mapping[SplitName, tuple[np.ndarray, np.ndarray]],
    classes: int,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None,
) -> dict[SplitName, ArrayExamples]:
    """The splits of a classification, each checked by itself and all but calibration, a part of train, for overlaps.

    rows: inputs (n, ...) and labels (n,) of every split. `where` names their source. Raises ConfigError.
    """
    for name, (inputs, targets) in rows.items():
        check_classification(f"{where}, {name}", inputs, targets, classes)
    check_disjoint(where, {name: inputs for name, (inputs, _) in rows.items() if name != "calibration"})
    return {name: ArrayExamples(*pair, preprocessing, augmentation) for name, pair in rows.items()}


def check_classification(where: str, inputs: np.ndarray, targets: np.ndarray, classes: int) -> None:
    """Refuse a split that cannot be trained or scored on. `where` names file and split. Raises ConfigError."""
    check_samples(where, inputs, targets)
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise ConfigError(
            f"{where}: labels must be whole numbers, one per sample, but are {targets.dtype} of shape {targets.shape}",
            next_step="store the number of each sample's class, from 0, as an integer",
        )
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        bad = int(np.flatnonzero((targets < 0) | (targets >= classes))[0])
        raise ConfigError(
            f"{where}: label {targets[bad]} of sample {bad} is out of range, the model has {classes} classes "
            f"(0 to {classes - 1})",
            next_step="correct the labels, or give a model with that many outputs",
        )
    if low == high:
        raise ConfigError(
            f"{where}: all {len(targets)} samples have label {low}; accuracy over one class says nothing",
            next_step="give a split that holds at least two classes",
        )


def check_samples(where: str, inputs: np.ndarray, targets: np.ndarray) -> None:
    """Refuse an empty split, unequal lengths and NaN or infinities. Raises ConfigError."""
    if len(inputs) != len(targets):
        raise ConfigError(
            f"{where}: {len(inputs)} inputs but {len(targets)} labels", next_step="store one label per sample"
        )
    if len(inputs) == 0:
        raise ConfigError(f"{where}: the split is empty", next_step="give at least one sample of each class")
    for what, array in (("inputs", inputs), ("labels", targets)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
            raise ConfigError(
                f"{where}: {what} hold NaN or infinity in {len(bad)} of {len(array)} samples, first in sample {bad[0]}",
                next_step="remove or repair these samples",
            )


def check_disjoint(where: str, splits: Mapping[str, np.ndarray]) -> None:
    """Refuse samples shared between splits (bit for bit equal inputs). Raises ConfigError naming both, and how many."""
    check_apart(where, {name: sample_digests(inputs) for name, inputs in splits.items()})


def check_apart(where: str, splits: Mapping[str, Sequence[bytes]]) -> None:
    """As `check_disjoint`, of the digests of the samples."""
    seen: dict[bytes, tuple[str, int]] = {}
    for name, digests in splits.items():
        shared = []
        for position, digest in enumerate(digests):
            first = seen.setdefault(digest, (name, position))
            if first[0] != name:
                shared.append((position, first))
        if shared:
            position, (other, at) = shared[0]
            more = f" (and {len(shared) - 1} more of {name} are in another split)" if len(shared) > 1 else ""
            raise ConfigError(
                f"{where}: sample {position} of {name} is also sample {at} of {other}{more}; "
                "a score on samples that were trained on proves nothing",
                next_step=f"remove the duplicates from {name}",
            )
