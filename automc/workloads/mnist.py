"""MNIST: `mnist/mnist_63k.npz` of the data folder, and a LeNet-like network, given or trained on the spot.

Train is the official training set (60,000 images); the first 3,000 official test images are halved, by digest, into
validation and test; calibration is a part of train. Source: LeCun et al. 1998, "Gradient-Based Learning Applied to
Document Recognition" (the network: two convolutions, two hidden linear layers; here with BatchNorm, ReLU, max pooling).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import Field, JsonValue
from torch import nn

from automc.errors import ConfigError
from automc.workloads.base import trained_base
from automc.workloads.examples import (
    ArrayExamples,
    Augmentation,
    Preprocessing,
    classified_splits,
    rows_by_share,
)
from automc.workloads.files import need_file, open_npz
from automc.workloads.networks import LeNet
from automc.workloads.options import Options, parse_options
from automc.workloads.tasks import Classification
from automc.workloads.weights import load_weights, read_weights
from automc.workloads.workload import SplitName, Workload

DATA_FILE = "mnist/mnist_63k.npz"
TRAIN_ROWS = 60_000
PREPROCESSING = Preprocessing(raw_shape=(28, 28), raw_layout="HW", divide=255.0, mean=(0.1307,), std=(0.3081,))


class MnistOptions(Options):
    weights: str | None = Field(None, description="file below the data folder; trained on the spot where not given")
    train_steps: int = Field(1500, ge=1, le=100_000, description="steps of training where no weights are given")
    seed: int = Field(0, ge=0, description="of that training")
    train_samples: int | None = Field(None, ge=100, le=TRAIN_ROWS, description="train on the first so many images")
    calibration_samples: int = Field(512, ge=16, le=10_000, description="first images of train that calibration reads")


class Mnist(Workload):
    name = "mnist"
    options_model = MnistOptions
    task = Classification()
    seen_by_base = frozenset({"train", "calibration"})

    def __init__(self, options: MnistOptions, data_root: Path | None) -> None:
        self.options = options
        self._path = need_file(data_root, DATA_FILE, "workload mnist")
        self._weights: Path | None = None
        if options.weights is not None:
            self._weights = need_file(data_root, options.weights, "workload mnist (option weights)")
        self._splits: dict[SplitName, ArrayExamples] = {}

    def model(self) -> nn.Module:
        if self._weights is None:
            return trained_base(self, _network, "mnist LeNet", self.options.train_steps, self.options.seed)
        model = _network()
        load_weights(model, read_weights(self._weights), str(self._weights))
        return model.eval()

    def split(self, name: SplitName) -> ArrayExamples:
        if not self._splits:
            self._splits = self._read_splits()
        return self._splits[name]

    def _read_splits(self) -> dict[SplitName, ArrayExamples]:
        with open_npz(self._path, ("x", "y")) as stored:
            images, labels = stored["x"], stored["y"].astype(np.int64)
        if images.shape[1:] != (28, 28) or len(images) <= TRAIN_ROWS:
            raise ConfigError(
                f"{self._path}: x is {images.shape}, not more than {TRAIN_ROWS} images of 28x28",
                next_step="download or write the file again, training images first",
            )
        images = images[:, np.newaxis]
        train = np.arange(TRAIN_ROWS if self.options.train_samples is None else self.options.train_samples)
        held = rows_by_share(images[TRAIN_ROWS:], (("validation", 0.0, 0.5), ("test", 0.5, 1.0)))
        parts: dict[SplitName, np.ndarray] = {
            "train": train,
            "calibration": train[: self.options.calibration_samples],
            **{name: TRAIN_ROWS + rows for name, rows in held.items()},
        }
        return classified_splits(
            str(self._path),
            {name: (images[rows], labels[rows]) for name, rows in parts.items()},
            10,
            PREPROCESSING,
            Augmentation(pad=2, flip=False),
        )

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(1, *PREPROCESSING.input_shape),)

    @property
    def preprocessing(self) -> dict[str, object]:
        return PREPROCESSING.to_json()

    @property
    def licence_notice(self) -> str:
        return "Data: MNIST, Y. LeCun, C. Cortes and C. J. C. Burges, CC BY-SA 3.0 as commonly stated."


def create(options: dict[str, JsonValue], data_root: Path | None) -> Mnist:
    """Needs the data folder; without the option `weights`, `model()` trains the base once and keeps it in the cache."""
    return Mnist(parse_options(MnistOptions, "mnist", options), data_root)


def _network() -> LeNet:
    return LeNet(in_channels=1, size=28, classes=10)
