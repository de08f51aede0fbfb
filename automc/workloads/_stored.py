"""What workloads of stored samples share: files of the user's are read into arrays, checked, scaled and augmented."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, JsonValue
from torch import nn

from automc.errors import ConfigError
from automc.workloads._network import NetworkOptions, NetworkWorkload
from automc.workloads.examples import (
    ArrayExamples,
    Augmentation,
    Preprocessing,
    RawLayout,
    check_classification,
    check_disjoint,
    check_samples,
    rows_by_share,
)
from automc.workloads.factory import unsaid_arguments
from automc.workloads.tasks import Classification, Regression
from automc.workloads.workload import SplitName, Task

Rows = dict[SplitName, tuple[np.ndarray, np.ndarray]]
"""Samples, channels first, and labels of train, validation and test."""


class StoredOptions(NetworkOptions):
    task: Literal["classification", "regression"] = Field("classification", description="what accuracy means")
    shift_pixels: int = Field(0, ge=0, le=64, description="augmentation: random shifts of pictures by up to so many")
    mirror: bool = Field(False, description="augmentation: mirror half of the pictures")

    def check(self) -> None:
        """As ever, but for arguments of a built-in network that the data will tell."""
        if not unsaid_arguments(self.model, self.model_args, required=True):
            super().check()


class Stored(NetworkWorkload):
    """A workload over samples of one form that are read from files; a subclass reads them."""

    def __init__(
        self, options: StoredOptions, data_root: Path | None, where: Path, shape: tuple[int, ...], dtype: str,
        layout: RawLayout,
    ) -> None:  # fmt: skip
        """where: the file or folder, for messages. shape, dtype, layout: of one sample as the user has it."""
        super().__init__(options, data_root)
        self.stored_options = options
        self.task: Task = Classification() if options.task == "classification" else Regression()
        self.where = where
        self._shape, self._dtype, self._layout = shape, dtype, layout
        channels = {"HWC": shape[-1], "HW": 1}.get(layout, shape[0])
        if options.mean and len(options.mean) != channels:
            raise ConfigError(
                f"workload.options: mean has {len(options.mean)} values, samples of {where} have {channels} channels "
                f"(shape {shape})",
                next_step="give one mean and one std per channel",
            )
        if (options.shift_pixels or options.mirror) and layout == "features":
            raise ConfigError(
                f"workload.options: shift_pixels and mirror need pictures (channels, height, width), "
                f"but samples of {where} have shape {shape}",
                next_step="leave shift_pixels and mirror out, or store pictures channels first",
            )
        self._splits: dict[SplitName, ArrayExamples] = {}

    def build(self) -> nn.Module:
        """The network; what `model_args` does not say to a built-in one of samples and classes, the data say."""
        options = self.stored_options
        unsaid = unsaid_arguments(options.model, options.model_args, required=options.weights is not None)
        return options.build(self.data_root, {key: self._known[key] for key in unsaid if key in self._known})

    @cached_property
    def _known(self) -> dict[str, JsonValue]:
        """What samples are like, by the names of parameters that ask for it."""
        inside = self._preprocessing.input_shape
        labels = self._parts["train"][1]
        if self.stored_options.task == "regression":
            outputs = math.prod(labels.shape[1:])
        else:
            named = len(self.class_labels)
            outputs = named or (int(labels.max()) + 1 if len(labels) and labels.dtype.kind in "iu" else 1)
        found: dict[str, JsonValue] = {"inputs": math.prod(inside), "hidden": [64, 64], "outputs": max(1, outputs)}
        if len(inside) == 3:
            found |= {"in_channels": inside[0], "size": inside[1], "classes": max(1, outputs)}
        return found

    @cached_property
    def _parts(self) -> Rows:
        return self._rows()

    @abstractmethod
    def _rows(self) -> Rows:
        """What the files hold. Raises ConfigError naming file and place."""

    def split(self, name: SplitName) -> ArrayExamples:
        if not self._splits:
            self._splits = self._read_splits()
        return self._splits[name]

    def _read_splits(self) -> dict[SplitName, ArrayExamples]:
        rows = dict(self._parts)
        check_disjoint(str(self.where), {name: inputs for name, (inputs, _) in rows.items()})
        count = self.stored_options.calibration_samples
        rows["calibration"] = (rows["train"][0][:count], rows["train"][1][:count])
        outputs = self._outputs()
        found: dict[SplitName, ArrayExamples] = {}
        for name, (inputs, targets) in rows.items():
            where = f"{self.where}, {name}"
            if self.stored_options.task == "regression":
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

    def _outputs(self) -> int:
        """Values the model gives per sample. Raises ConfigError where it does not take the samples."""
        model = self.build()
        with torch.no_grad():
            try:
                outputs = model(*self.example_inputs())
            except (RuntimeError, ValueError, TypeError) as error:  # the user's model on the user's shape
                raise ConfigError(
                    f"workload.options.model: {self.stored_options.model} does not take samples of shape "
                    f"{self._preprocessing.input_shape}: {error}",
                    next_step="correct model_args, or store the samples as the model takes them (channels first)",
                ) from error
        if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2 or outputs.dtype != torch.float32:
            raise ConfigError(
                f"workload.options.model: {self.stored_options.model} must give one float32 tensor (batch, outputs), "
                f"but gives {getattr(outputs, 'shape', type(outputs).__name__)}",
                next_step="let its forward return the logits alone",
            )
        return int(outputs.shape[1])

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(1, *self._preprocessing.input_shape),)

    @property
    def _preprocessing(self) -> Preprocessing:
        options = self.stored_options
        return Preprocessing(self._shape, self._layout, self._dtype, options.divide, options.mean, options.std)

    @property
    def _augmentation(self) -> Augmentation | None:
        if self.stored_options.shift_pixels == 0 and not self.stored_options.mirror:
            return None
        return Augmentation(self.stored_options.shift_pixels, self.stored_options.mirror)

    @property
    def preprocessing(self) -> dict[str, object]:
        return self._preprocessing.to_json()


def by_share(x: np.ndarray, y: np.ndarray, *, held: bool) -> Rows:
    """Rows split by the digest of each sample, whatever order they are in: held-out ones in halves, all ones 3:1:1."""
    parts: list[tuple[SplitName, float, float]] = [("train", 0.0, 0.6), ("validation", 0.6, 0.8), ("test", 0.8, 1.0)]
    if held:
        parts = [("validation", 0.0, 0.5), ("test", 0.5, 1.0)]
    return {name: (x[rows], y[rows]) for name, rows in rows_by_share(x, parts).items()}


def refuse_undivided(where: Path, options: StoredOptions, what: str, next_step: str) -> None:
    """Samples that nobody divided into seen and unseen ones, beside weights that have seen some of them."""
    if options.comes_trained:
        raise ConfigError(
            f"{where}: {what}, and weights are given: which samples have these weights seen?", next_step=next_step
        )
