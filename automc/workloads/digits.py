"""scikit-learn's digits (1,797 handwritten digits of 8x8 pixels) and a residual network trained on them, embedded.

The base was trained on the train split only, by this file: `python -m automc.workloads.digits --train` writes
digits.safetensors again (half precision on disk, single in use), with the digest of what it was trained on as metadata.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue
from torch import nn

from automc.errors import ConfigError
from automc.workloads.examples import (
    ArrayExamples,
    Augmentation,
    Preprocessing,
    classified_splits,
    rows_by_share,
)
from automc.workloads.networks import ResidualNetwork, initialise
from automc.workloads.options import NoOptions, parse_options
from automc.workloads.tasks import Classification
from automc.workloads.weights import load_weights
from automc.workloads.workload import SplitName, Workload

WEIGHTS = Path(__file__).with_name("digits.safetensors")
PREPROCESSING = Preprocessing(
    raw_shape=(8, 8), raw_layout="HW", raw_dtype="uint8", divide=16.0, mean=(0.305,), std=(0.376,), repeat=2
)
CALIBRATION_SAMPLES = 128
"""The first samples of train: calibration reads inputs only and is a part of train."""


def network() -> ResidualNetwork:
    """Input (n, 1, 16, 16), 9 blocks in 3 stages, convolutional shortcuts: room for every structural technique."""
    return ResidualNetwork(1, (24, 48, 96), (3, 3, 3), 10, shortcut="B")


class Digits(Workload):
    name = "digits"
    options_model = NoOptions
    task = Classification()
    seen_by_base = frozenset({"train", "calibration"})

    def __init__(self) -> None:
        self._splits: dict[SplitName, ArrayExamples] | None = None

    def model(self) -> nn.Module:
        from safetensors.numpy import load_file

        model = network()
        load_weights(model, {key: _single(tensor) for key, tensor in load_file(WEIGHTS).items()}, str(WEIGHTS))
        return model.eval()

    def split(self, name: SplitName) -> ArrayExamples:
        if self._splits is None:
            self._splits = _read_splits()
        return self._splits[name]

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(1, *PREPROCESSING.input_shape),)

    @property
    def preprocessing(self) -> dict[str, object]:
        return PREPROCESSING.to_json()

    @property
    def licence_notice(self) -> str:
        return (
            "Data: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning "
            "Repository, CC BY 4.0, as shipped with scikit-learn. Weights: trained by automc on that data, Apache-2.0."
        )


def create(options: dict[str, JsonValue], data_root: Path | None) -> Digits:
    """The embedded default; needs no data folder."""
    parse_options(NoOptions, "digits", options)
    return Digits()


def _single(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(np.float32) if tensor.dtype == np.float16 else tensor


def _read_splits() -> dict[SplitName, ArrayExamples]:
    """By each image's digest: 56 % train, 22 % validation, 22 % test; equal images stay together."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = loaded.images.astype(np.uint8)[:, np.newaxis]
    labels = loaded.target.astype(np.int64)
    parts = rows_by_share(images, (("train", 0.0, 0.56), ("validation", 0.56, 0.78), ("test", 0.78, 1.0)))
    parts["calibration"] = parts["train"][:CALIBRATION_SAMPLES]
    rows = {name: (images[chosen], labels[chosen]) for name, chosen in parts.items()}
    return classified_splits("digits", rows, 10, PREPROCESSING, Augmentation(pad=1, flip=False))


def train_base(steps: int = 1500, seed: int = 0) -> dict[str, np.ndarray]:
    """The base's weights from nothing, on the train split only; float16, batch counters left out."""
    from automc.recovery.recipe import Recipe
    from automc.recovery.training import RecoveryContext, train

    model = network()
    initialise(model, seed)
    recipe = Recipe(batch_size=64, learning_rate=0.1, weight_decay=5e-4)

    def show(step: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"step {step}: loss {loss:.4f}", flush=True)

    trained = train(model, RecoveryContext(Digits(), recipe, seed, on_step=show), steps)
    return {
        key: tensor.numpy().astype(np.float16)
        for key, tensor in trained.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def _main() -> None:
    import sys

    from safetensors.numpy import save_file

    if sys.argv[1:] != ["--train"]:
        raise ConfigError("wrong arguments", next_step="python -m automc.workloads.digits --train")
    weights = train_base()
    metadata = {
        "train_digest": Digits().split("train").digest,
        "trained_by": "python -m automc.workloads.digits --train",
    }
    save_file(weights, WEIGHTS, metadata=metadata)


if __name__ == "__main__":
    _main()
