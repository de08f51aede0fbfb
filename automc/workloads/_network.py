"""What workloads of the user's own network share: options that say which, its weights, and how samples are scaled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, JsonValue, model_validator

from automc.errors import ConfigError
from automc.workloads.base import BASE_RECIPE, trained_base
from automc.workloads.factory import build_network
from automc.workloads.files import need_file
from automc.workloads.options import Options
from automc.workloads.weights import load_weights, read_weights
from automc.workloads.workload import Workload, weights_digest

if TYPE_CHECKING:
    from torch import nn


class NetworkOptions(Options):
    """A subclass declares `train_steps` again where its network cannot come trained."""

    model: str = Field(
        description="your package.module:factory, an ONNX file, or a built-in network (lenet, mlp, resnet20, resnet56)"
    )
    model_args: dict[str, JsonValue] = Field({}, description="arguments of that factory or network")
    weights: str | None = Field(None, description="npz, safetensors or state dict; where not given see train_steps")
    code: str | None = Field(
        None, description="folder your modules are imported from; null: installed packages and PYTHONPATH"
    )
    divide: float = Field(1.0, gt=0, description="samples are divided by it first")
    mean: tuple[float, ...] = Field((), description="then this is subtracted, per channel")
    std: tuple[float, ...] = Field((), description="then divided by this, per channel")
    train_steps: int = Field(
        1500, ge=0, le=1_000_000,
        description="steps of training where no weights are given; 0: the factory returns a trained network",
    )  # fmt: skip
    learning_rate: float = Field(0.05, gt=0, description="of that training")
    seed: int = Field(0, ge=0, description="of that training, and of random numbers that your functions draw")
    calibration_samples: int = Field(512, ge=1, description="first samples of train that calibration reads")

    @model_validator(mode="after")
    def _normalisation_is_whole(self) -> NetworkOptions:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} values and std {len(self.std)}; give both, one per channel")
        if any(value <= 0 for value in self.std):
            raise ValueError("std must be positive")
        return self

    def check(self) -> None:
        """The network exists, can be built and is one. Runs the user's Python where `model` names a factory."""
        if not self.is_onnx:  # a file may lie below a data folder that is not known here
            self.build(None)

    @property
    def is_onnx(self) -> bool:
        return self.model.lower().endswith(".onnx")

    @property
    def comes_trained(self) -> bool:
        """Whether the base has seen samples before: of those that are not divided, nobody can say which."""
        return self.is_onnx or self.weights is not None or self.train_steps == 0

    def build(self, data_root: Path | None, known: Mapping[str, JsonValue] | None = None) -> nn.Module:
        """The network as its factory gives it, or as the ONNX file holds it. Raises ConfigError as these do.

        known: arguments of built-in networks that follow from the data, for those that `model_args` leaves out.
        """
        if not self.is_onnx:
            arguments = {**(known or {}), **self.model_args}
            return build_network(self.model, arguments, folder=self.code, seed=self.seed)
        given = [key for key in ("model_args", "weights") if getattr(self, key)]
        if given:
            raise ConfigError(
                f"workload.options: {' and '.join(given)} beside the ONNX file {self.model}, which holds all of it",
                next_step=f"leave {' and '.join(given)} out",
            )
        from automc.workloads._onnx_network import read_onnx

        here = Path(self.model).expanduser()
        below = data_root is not None and not here.is_absolute() and not here.is_file()
        return read_onnx(find_file(data_root, self.model, "option model") if below else here)


class NetworkWorkload(Workload):
    """A workload whose base is the network that its options name."""

    seen_by_base = frozenset({"train", "calibration"})

    def __init__(self, options: NetworkOptions, data_root: Path | None) -> None:
        self.network_options = options
        self.data_root = data_root
        self._weights: Path | None = None
        if options.weights is not None:
            self._weights = find_file(data_root, options.weights, f"option weights of workload {self.name}")

    def build(self) -> nn.Module:
        """The network that the options name, before any weights are read."""
        return self.network_options.build(self.data_root)

    def model(self) -> nn.Module:
        options = self.network_options
        model = self.build()
        if self._weights is not None:
            load_weights(model, read_weights(self._weights), str(self._weights))
        elif not options.comes_trained:
            # the digest: a factory of the same name may have been written anew, or draw on a file
            label = f"{options.model} {sorted(options.model_args.items())} {weights_digest(model)}"
            recipe = BASE_RECIPE.model_copy(update={"learning_rate": options.learning_rate})
            return trained_base(self, self.build, label, options.train_steps, options.seed, recipe)
        return model


def find_file(root: Path | None, name: str, what: str) -> Path:
    """The file called `name`, absolute or below `root`. Raises ConfigError as `need_file` does."""
    path = Path(name)
    return need_file(path.parent, path.name, what) if path.is_absolute() else need_file(root, name, what)
