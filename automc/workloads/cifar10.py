"""CIFAR-10 as JPEG files, and its usual ResNets: `cifar10/` and `models/cifar10_resnet/` of the data folder.

The given weights saw every training image, so the 10,000 test images are halved, by digest, into validation and test;
calibration is a part of train. The pictures are strongly compressed: figures are of "CIFAR-10 (JPEG)" and never
comparable with published ones. Source of the images: Krizhevsky 2009, "Learning Multiple Layers of Features".
"""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, JsonValue
from torch import nn

from automc.errors import ConfigError
from automc.workloads.examples import (
    ArrayExamples,
    Augmentation,
    Preprocessing,
    classified_splits,
    digest_share,
    rows_by_share,
    sample_digests,
)
from automc.workloads.files import cached_array, file_digest, need_file, open_npz
from automc.workloads.networks import cifar_resnet
from automc.workloads.options import Options, parse_options
from automc.workloads.tasks import Classification
from automc.workloads.weights import load_weights, read_weights
from automc.workloads.workload import SPLITS, SplitName, Workload

TRAIN_FILES = ("cifar10/cifar10_jpeg_train_10k.npz", "cifar10/cifar10_jpeg_train_rest_40k.npz")
KEYS = ("jpeg", "offsets", "label")
TEST_FILE = "cifar10/cifar10_jpeg_test_10k.npz"
PREPROCESSING = Preprocessing(
    raw_shape=(32, 32, 3),
    raw_layout="HWC",
    divide=255.0,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    colour="RGB",
)
AUGMENTATION = Augmentation(pad=4, flip=True)


class Cifar10Options(Options):
    model: Literal["resnet20", "resnet56"] = Field("resnet20", description="which network")
    weights: str | None = Field(None, description="file below the data folder; models/cifar10_resnet/<model>.npz")
    train_samples: int | None = Field(None, ge=100, le=50_000, description="train on so many images only")
    validation_samples: int | None = Field(None, ge=100, le=4_900, description="score during the search on so many")
    calibration_samples: int = Field(512, ge=16, le=10_000, description="images of train that calibration reads")


class Cifar10(Workload):
    name = "cifar10"
    options_model = Cifar10Options
    task = Classification()
    seen_by_base = frozenset({"train", "calibration"})

    def __init__(self, options: Cifar10Options, data_root: Path | None) -> None:
        self.options = options
        self.data_root = data_root
        self._weights = need_file(
            data_root,
            options.weights or f"models/cifar10_resnet/{options.model}.npz",
            "workload cifar10 (option weights)",
        )
        self._files = {name: need_file(data_root, name, "workload cifar10") for name in (*TRAIN_FILES, TEST_FILE)}
        self._read: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._splits: dict[SplitName, ArrayExamples] = {}

    def model(self) -> nn.Module:
        model = cifar_resnet(int(self.options.model.removeprefix("resnet")))
        load_weights(model, read_weights(self._weights), str(self._weights))
        return model.eval()

    def split(self, name: SplitName) -> ArrayExamples:
        if not self._splits:
            rows = {part: self._rows(part) for part in SPLITS}
            self._splits = classified_splits(f"{self.data_root}, cifar10", rows, 10, PREPROCESSING, AUGMENTATION)
        return self._splits[name]

    def _rows(self, name: SplitName) -> tuple[np.ndarray, np.ndarray]:
        if name in ("train", "calibration"):
            inputs, labels = self._images("train", TRAIN_FILES)
            count = self.options.calibration_samples if name == "calibration" else self.options.train_samples
            return (inputs, labels) if count is None else _fewest(inputs, labels, min(count, self._train_size(inputs)))
        inputs, labels = self._images("held_out", (TEST_FILE,))
        rows = rows_by_share(inputs, (("validation", 0.0, 0.5), ("test", 0.5, 1.0)))[name]
        count = self.options.validation_samples if name == "validation" else None
        return _fewest(inputs[rows], labels[rows], len(rows) if count is None else count)

    def _train_size(self, inputs: np.ndarray) -> int:
        return len(inputs) if self.options.train_samples is None else self.options.train_samples

    def _images(self, part: str, files: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """(n, 3, 32, 32) uint8 and (n,) int64 of the files end to end, decoded once per machine."""
        if part not in self._read:
            paths = [self._files[name] for name in files]
            key = "-".join(("cifar10", *(file_digest(path)[:16] for path in paths)))
            inputs = cached_array("images", key, lambda: np.concatenate([_decode(path) for path in paths]))
            labels = np.concatenate([_labels(path) for path in paths])
            self._read[part] = (inputs, labels)
        return self._read[part]

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(1, *PREPROCESSING.input_shape),)

    @property
    def preprocessing(self) -> dict[str, object]:
        return PREPROCESSING.to_json()

    @property
    def licence_notice(self) -> str:
        licence = self._weights.with_name("LICENSE")
        notice = "Data: CIFAR-10, A. Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.\n"
        return notice + (f"Weights: {self._weights.name}\n\n{licence.read_text()}" if licence.is_file() else "")


def create(options: dict[str, JsonValue], data_root: Path | None) -> Cifar10:
    """Needs the data folder; nothing but the presence of the files is looked at before a split or the model is read."""
    return Cifar10(parse_options(Cifar10Options, "cifar10", options), data_root)


def _fewest(inputs: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` samples with the smallest digests, in the order they were in: a choice that knows no label."""
    if count >= len(labels):
        return inputs, labels
    share = digest_share(sample_digests(inputs))
    rows = np.sort(np.argsort(share, kind="stable")[:count])
    return inputs[rows], labels[rows]


def _labels(path: Path) -> np.ndarray:
    with open_npz(path, KEYS) as stored:
        return stored["label"].astype(np.int64)


def _decode(path: Path) -> np.ndarray:
    """(n, 3, 32, 32) uint8: every JPEG of the file."""
    from PIL import Image, UnidentifiedImageError

    with open_npz(path, KEYS) as stored:
        jpeg, offsets = stored["jpeg"], stored["offsets"]
    images = np.empty((len(offsets) - 1, 3, 32, 32), np.uint8)
    for row, (start, end) in enumerate(itertools.pairwise(offsets)):
        try:
            with Image.open(io.BytesIO(jpeg[start:end].tobytes())) as picture:
                pixels = np.asarray(picture.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise ConfigError(
                f"{path}: picture {row} is no readable JPEG: {error}", next_step="download or write the file again"
            ) from error
        if pixels.shape != (32, 32, 3):
            raise ConfigError(
                f"{path}: picture {row} is {pixels.shape[1]}x{pixels.shape[0]}, not 32x32",
                next_step="download or write the file again",
            )
        images[row] = pixels.transpose(2, 0, 1)
    return images
