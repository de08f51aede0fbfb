"""Your own arrays: an npz file of samples and labels, and a network of this package or of yours.

The file holds `train_x`, `train_y` and either `held_x`, `held_y` (halved, by digest, into validation and test) or
`validation_x`, `validation_y`, `test_x`, `test_y`; or just `x`, `y` (split by digest: 60 % train, 20 % validation,
20 % test), which is refused beside given weights, as nobody can say then which samples those have seen. Calibration is
a part of train. Samples are stored as the model takes them, channels first, before normalisation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field, JsonValue

from automc.errors import ConfigError
from automc.workloads._network import find_file
from automc.workloads._stored import Rows, Stored, StoredOptions, by_share, refuse_undivided
from automc.workloads.files import npz_shape, open_npz, read_npz
from automc.workloads.options import parse_options


class ArraysOptions(StoredOptions):
    file: str = Field(description="npz file, absolute or below the data folder")


class Arrays(Stored):
    name = "arrays"
    options_model = ArraysOptions

    def __init__(self, options: ArraysOptions, data_root: Path | None) -> None:
        path = find_file(data_root, options.file, "option file of workload arrays")
        shape, dtype = _sample(path)
        super().__init__(options, data_root, path, shape, dtype, "CHW" if len(shape) == 3 else "features")

    def _rows(self) -> Rows:
        with open_npz(self.where) as stored:
            names = set(stored.files)
        if {"x", "y"} <= names:
            refuse_undivided(
                self.where, self.stored_options, "holds x, y",
                "store train_x, train_y (seen) and held_x, held_y (unseen) instead",
            )  # fmt: skip
            whole = read_npz(self.where, ("x", "y"))
            _same_length(self.where, "x", whole["x"], whole["y"])
            return by_share(whole["x"], whole["y"], held=False)
        halved = "validation_x" not in names
        parts = ("train", "held") if halved else ("train", "validation", "test")
        arrays = read_npz(self.where, [f"{part}_{kind}" for part in parts for kind in "xy"])
        read = {part: (arrays[f"{part}_x"], arrays[f"{part}_y"]) for part in parts}
        for part, (x, y) in read.items():
            _same_length(self.where, f"{part}_x", x, y)
        if not halved:
            return {"train": read["train"], "validation": read["validation"], "test": read["test"]}
        return {"train": read["train"], **by_share(*read["held"], held=True)}


def create(options: dict[str, JsonValue], data_root: Path | None) -> Arrays:
    """Opens the npz file for the shape of a sample only; splits and model are read when asked for."""
    return Arrays(parse_options(ArraysOptions, "arrays", options), data_root)


def _sample(path: Path) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of one sample. Raises ConfigError where the file has none that a model can take."""
    with open_npz(path) as stored:
        names = set(stored.files)
    if not {"x", "train_x"} & names:
        raise ConfigError(
            f"{path}: holds neither x, y nor train_x, train_y and the like (there are: {', '.join(sorted(names))})",
            next_step="store samples and labels as x and y, or divided: train_x, train_y and held_x, held_y",
        )
    key = "x" if "x" in names else "train_x"
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
