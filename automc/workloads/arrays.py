"""Your own arrays: an npz file of samples and labels, and a network of this package or of yours.

The file holds `train_x`, `train_y` and either `held_x`, `held_y` (halved, by digest, into validation and test) or
`validation_x`, `validation_y`, `test_x`, `test_y`; or just `x`, `y` (split by digest: 60 % train, 20 % validation,
20 % test), which is refused beside given weights, as nobody can say then which samples those have seen. Calibration is
a part of train. Samples are stored as the model takes them, channels first, before normalisation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, JsonValue

from automc.errors import ConfigError
from automc.workloads._network import NetworkOptions, NetworkWorkload, find_file
from automc.workloads.examples import (
    ArrayExamples,
    Augmentation,
    Preprocessing,
    check_classification,
    check_disjoint,
    check_samples,
    rows_by_share,
)
from automc.workloads.files import npz_shape, open_npz
from automc.workloads.options import parse_options
from automc.workloads.tasks import Classification, Regression
from automc.workloads.workload import SplitName, Task

Rows = dict[SplitName, tuple[np.ndarray, np.ndarray]]


class ArraysOptions(NetworkOptions):
    file: str = Field(description="npz file, absolute or below the data folder")
    task: Literal["classification", "regression"] = Field("classification", description="what accuracy means")
    shift_pixels: int = Field(0, ge=0, le=64, description="augmentation: random shifts of pictures by up to so many")
    mirror: bool = Field(False, description="augmentation: mirror half of the pictures")


class Arrays(NetworkWorkload):
    name = "arrays"
    options_model = ArraysOptions

    def __init__(self, options: ArraysOptions, data_root: Path | None) -> None:
        super().__init__(options, data_root)
        self.options = options
        self.task: Task = Classification() if options.task == "classification" else Regression()
        self._path = find_file(data_root, options.file, "option file of workload arrays")
        self._sample_shape, self._dtype = _sample(self._path)
        if options.mean and len(options.mean) != self._sample_shape[0]:
            raise ConfigError(
                f"workload.options: mean has {len(options.mean)} values, samples of {self._path} have "
                f"{self._sample_shape[0]} channels (shape {self._sample_shape})",
                next_step="give one mean and one std per channel, the first axis of a sample",
            )
        if (options.shift_pixels or options.mirror) and len(self._sample_shape) != 3:
            raise ConfigError(
                f"workload.options: shift_pixels and mirror need pictures (channels, height, width), "
                f"but samples of {self._path} have shape {self._sample_shape}",
                next_step="leave shift_pixels and mirror out, or store pictures channels first",
            )
        self._splits: dict[SplitName, ArrayExamples] = {}

    def split(self, name: SplitName) -> ArrayExamples:
        if not self._splits:
            self._splits = self._read_splits()
        return self._splits[name]

    def _read_splits(self) -> dict[SplitName, ArrayExamples]:
        rows = self._rows()
        check_disjoint(str(self._path), {name: inputs for name, (inputs, _) in rows.items()})
        count = self.options.calibration_samples
        rows["calibration"] = (rows["train"][0][:count], rows["train"][1][:count])
        outputs = self._outputs()
        found: dict[SplitName, ArrayExamples] = {}
        for name, (inputs, targets) in rows.items():
            where = f"{self._path}, {name}"
            if self.options.task == "regression":
                check_samples(where, inputs, targets)
                targets = targets.astype(np.float32).reshape(len(targets), -1)
                if targets.shape[1] != outputs:
                    raise ConfigError(
                        f"{where}: {targets.shape[1]} values per label, the model gives {outputs}",
                        next_step="give model_args that make as many outputs as a label has values",
                    )
            elif name == "calibration":
                check_samples(where, inputs, targets)
                targets = targets.astype(np.int64)
            else:
                check_classification(where, inputs, targets, outputs)
                targets = targets.astype(np.int64)
            found[name] = ArrayExamples(inputs, targets, self._preprocessing, self._augmentation)
        return found

    def _rows(self) -> Rows:
        with open_npz(self._path) as stored:
            names = set(stored.files)
        if {"x", "y"} <= names:
            if self._weights is not None:
                raise ConfigError(
                    f"{self._path}: holds x, y, and weights are given: which samples have these weights seen?",
                    next_step="store train_x, train_y (seen) and held_x, held_y (unseen) instead",
                )
            with open_npz(self._path) as stored:
                x, y = stored["x"], stored["y"]
            _same_length(self._path, "x", x, y)
            return _by_share(x, y, (("train", 0.0, 0.6), ("validation", 0.6, 0.8), ("test", 0.8, 1.0)))
        halved = "validation_x" not in names
        parts = ("train", "held") if halved else ("train", "validation", "test")
        with open_npz(self._path, [f"{part}_{kind}" for part in parts for kind in "xy"]) as stored:
            read = {part: (stored[f"{part}_x"], stored[f"{part}_y"]) for part in parts}
        for part, (x, y) in read.items():
            _same_length(self._path, f"{part}_x", x, y)
        if not halved:
            return {"train": read["train"], "validation": read["validation"], "test": read["test"]}
        return {"train": read["train"], **_by_share(*read["held"], (("validation", 0.0, 0.5), ("test", 0.5, 1.0)))}

    def _outputs(self) -> int:
        """Values the model gives per sample. Raises ConfigError where it does not take the samples."""
        model = self.options.build()
        with torch.no_grad():
            try:
                outputs = model(*self.example_inputs())
            except (RuntimeError, ValueError, TypeError) as error:  # the user's model on the user's shape
                raise ConfigError(
                    f"workload.options.model: {self.options.model} does not take samples of shape "
                    f"{self._sample_shape}: {error}",
                    next_step="correct model_args, or store the samples as the model takes them (channels first)",
                ) from error
        if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2 or outputs.dtype != torch.float32:
            raise ConfigError(
                f"workload.options.model: {self.options.model} must give one float32 tensor (batch, outputs), "
                f"but gives {getattr(outputs, 'shape', type(outputs).__name__)}",
                next_step="let its forward return the logits alone",
            )
        return int(outputs.shape[1])

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(1, *self._sample_shape),)

    @property
    def _preprocessing(self) -> Preprocessing:
        options = self.options
        layout: Literal["CHW", "features"] = "CHW" if len(self._sample_shape) == 3 else "features"
        return Preprocessing(self._sample_shape, layout, self._dtype, options.divide, options.mean, options.std)

    @property
    def _augmentation(self) -> Augmentation | None:
        if self.options.shift_pixels == 0 and not self.options.mirror:
            return None
        return Augmentation(self.options.shift_pixels, self.options.mirror)

    @property
    def preprocessing(self) -> dict[str, object]:
        return self._preprocessing.to_json()


def create(options: dict[str, JsonValue], data_root: Path | None) -> Arrays:
    """Opens the npz file for the shape of a sample only; splits and model are read when asked for."""
    return Arrays(parse_options(ArraysOptions, "arrays", options), data_root)


def _sample(path: Path) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of one sample. Raises ConfigError where the file has none that a model can take."""
    with open_npz(path) as stored:
        key = "x" if "x" in stored.files else "train_x"
    shape, dtype = npz_shape(path, key)
    if len(shape) < 2 or dtype.kind not in "fiub":
        raise ConfigError(
            f"{path}: {key} must be numbers of shape (samples, ...), but is {dtype} of shape {shape}",
            next_step="store the samples as one array of numbers, first axis the sample",
        )
    return shape[1:], str(dtype)


def _same_length(path: Path, key: str, x: np.ndarray, y: np.ndarray) -> None:
    if len(x) != len(y):
        raise ConfigError(
            f"{path}: {key} holds {len(x)} samples but there are {len(y)} labels",
            next_step="store one label per sample, in the same order",
        )


def _by_share(x: np.ndarray, y: np.ndarray, parts: tuple[tuple[SplitName, float, float], ...]) -> Rows:
    return {name: (x[rows], y[rows]) for name, rows in rows_by_share(x, parts).items()}
