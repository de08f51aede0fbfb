"""Your own network, data and metric, as your own Python gives them: no file of ours, no format of ours.

`model` is `package.module:factory` of an nn.Module. `data` is `package.module:splits`, which returns
`{"train": ..., "validation": ..., "test": ...}` (or `train` and `held`, which is halved, by digest), and `calibration`
if it is to be other samples than the first of train. Each is a dataset of `(inputs, target)`, a loader of batches of
them, a pair of arrays, or a function that returns one of these when it is needed; several inputs are a tuple. `task` is
`classification`, `regression` or `package.module:task`, which names loss, metric per sample and direction.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, JsonValue

from automc.errors import AutomcError, ConfigError
from automc.sources import forward_site, site_of_error
from automc.workloads._network import NetworkOptions, NetworkWorkload
from automc.workloads._users_data import HeldExamples, read_split, sources_of
from automc.workloads._users_python import Named, import_named
from automc.workloads._users_task import BUILT_IN, UsersTask, users_task
from automc.workloads.examples import (
    ArrayExamples,
    Preprocessing,
    check_apart,
    check_classification,
    digest_share,
)
from automc.workloads.factory import KEY
from automc.workloads.options import parse_options
from automc.workloads.tasks import Classification, Regression
from automc.workloads.workload import Examples, SplitName, Task, weights_digest

DATA = "workload.options.data"
TASK = "workload.options.task"


class OwnOptions(NetworkOptions):
    data: str = Field(description="your package.module:splits: train, validation and test (or train and held)")
    data_args: dict[str, JsonValue] = Field({}, description="arguments of that function")
    task: str = Field(
        "classification", description="what accuracy means: classification, regression, or your package.module:task"
    )
    task_args: dict[str, JsonValue] = Field({}, description="arguments of that function")
    train_steps: int = Field(
        0, ge=0, le=1_000_000,
        description="steps of training where no weights are given; 0: the factory returns a trained network",
    )  # fmt: skip

    def check(self) -> None:
        """Imports all that is named, makes network and task; data are not read. Raises ConfigError."""
        super().check()
        self.named_data()
        self.made_task()

    def named_data(self) -> Named:
        if ":" not in self.data:
            raise ConfigError(f"{DATA}: {self.data!r} names no function", next_step="write it as package.module:splits")
        return import_named(DATA, self.data, self.code)

    def made_task(self) -> Task:
        if self.task in BUILT_IN:
            return BUILT_IN[self.task]()
        if ":" not in self.task:
            raise ConfigError(
                f"{TASK}: {self.task!r} is none of {', '.join(BUILT_IN)}", next_step="write it as package.module:task"
            )
        return users_task(import_named(TASK, self.task, self.code), self.task_args, self.seed)


class Own(NetworkWorkload):
    name = "own"
    options_model = OwnOptions

    def __init__(self, options: OwnOptions, data_root: Path | None) -> None:
        super().__init__(options, data_root)
        self.options = options
        self.task: Task = options.made_task()
        self._data = options.named_data()
        self._sources: dict[str, object] | None = None
        self._read: dict[str, HeldExamples] = {}
        self._splits: dict[SplitName, Examples] = {}
        self._digests: dict[str, list[bytes]] = {}
        self._values = 0

    # --- the data ---------------------------------------------------------------------------------------------------

    def split(self, name: SplitName) -> Examples:
        if name != "train":
            self.split("train")  # what samples are like, and what the network makes of them, is found out there
        if name not in self._splits:
            self._splits[name] = self._checked(name, self._held(name))
        return self._splits[name]

    def digests(self) -> dict[str, str]:
        """Raises ConfigError where the user's functions answer otherwise when asked again, as every worker does."""
        found = super().digests()
        asked_again = Own(self.options, self.data_root)._held("validation")
        if asked_again.digest != self._read["validation"].digest:
            raise ConfigError(
                f"{DATA}: {self._data.called} gives other samples each time it is called (validation differs)",
                next_step="draw with a fixed seed what it draws: every worker calls it, and splits must not mix",
            )
        if weights_digest(self.model()) != found["base"]:
            raise ConfigError(
                f"{KEY}: {self.options.model} gives other weights each time it is called",
                next_step="give its weights as a file (option weights), or draw them with a fixed seed",
            )
        return found

    def _held(self, name: SplitName) -> HeldExamples:
        """The split as the user gives it, unchecked beside the others."""
        if self._sources is None:
            self._sources = sources_of(self._data, self.options.data_args, self.options.seed)
        if name not in self._read:
            if name == "calibration" and name not in self._sources:
                train = self._held("train")
                self._read[name] = train.part(np.arange(min(self.options.calibration_samples, len(train))))
            elif name in self._sources:
                self._read[name] = read_split(self._data, name, self._sources[name], self.options.seed)
            else:
                held = read_split(self._data, "held", self._sources["held"], self.options.seed)
                share = digest_share([hashlib.sha256(digest).digest() for digest in held.sample_digests()])
                self._read["validation"] = held.part(np.flatnonzero(share < 0.5))
                self._read["test"] = held.part(np.flatnonzero(share >= 0.5))
        return self._read[name]

    def _checked(self, name: SplitName, read: HeldExamples) -> Examples:
        where = f"{DATA}: {self._data.called}"
        train = self._read["train"]
        for what, first, other in (
            ("inputs", train.columns, read.columns), ("targets", (train.targets,), (read.targets,)),
        ):  # fmt: skip
            forms = [[(array.shape[1:], array.dtype.name) for array in arrays] for arrays in (first, other)]
            if forms[0] != forms[1]:
                raise ConfigError(
                    f"{where}: {name} has {what} of {_shown(forms[1])}, train of {_shown(forms[0])}",
                    next_step="give all splits samples of one form",
                )
        examples = self._examples(read)
        if name == "train":
            self._values = self._fit(examples)
        own = name != "calibration" or name in (self._sources or {})  # else a part of train
        if isinstance(self.task, Classification) and own:
            check_classification(f"{where}, {name}", read.columns[0], examples.targets, self._values)
        if isinstance(self.task, Regression) and examples.targets.shape[1] != self._values:
            raise ConfigError(
                f"{where}, {name}: {examples.targets.shape[1]} values per target, the model gives {self._values}",
                next_step="let the model give as many values as a target has",
            )
        if own:
            self._digests[name] = read.sample_digests()
            for before, digests in self._digests.items():
                if {name, before} != {"train", "calibration"} and name != before:
                    check_apart(where, {before: digests, name: self._digests[name]})
        return examples

    def _examples(self, read: HeldExamples) -> ArrayExamples | HeldExamples:
        """As they are served: a single input through the declared scaling, targets as the task takes them."""
        targets = read.targets
        if isinstance(self.task, Regression):
            targets = targets.astype(np.float32).reshape(len(targets), -1)
        elif isinstance(self.task, Classification) and targets.dtype.kind in "iub":
            targets = targets.astype(np.int64)
        scaling = self._scaling(read.columns)
        return (
            HeldExamples(read.columns, targets) if scaling is None else ArrayExamples(read.columns[0], targets, scaling)
        )

    def _scaling(self, columns: tuple[np.ndarray, ...]) -> Preprocessing | None:
        """What the declared options do to the input; None where samples go into the network as they are, not floats."""
        options = self.options
        declared = bool(options.mean) or options.divide != 1.0
        if declared and len(columns) > 1:
            raise ConfigError(
                f"workload.options: divide, mean and std are for one input, {self._data.called} gives {len(columns)}",
                next_step="leave them out, and scale the inputs in your own code",
            )
        if len(columns) > 1 or not (declared or columns[0].dtype.kind == "f"):
            return None
        shape = columns[0].shape[1:]
        if options.mean and (not shape or len(options.mean) != shape[0]):
            raise ConfigError(
                f"workload.options: mean has {len(options.mean)} values, samples of {self._data.called} have shape "
                f"{shape}, whose first axis is the channel",
                next_step="give one mean and one std per channel",
            )
        # undeclared, pixels may be scaled by the user's own code: a raw picture is then no input of the bundle
        layout: Literal["CHW", "features"] = "CHW" if declared and len(shape) == 3 else "features"
        return Preprocessing(shape, layout, columns[0].dtype.name, options.divide, options.mean, options.std)

    def _fit(self, examples: Examples) -> int:
        """Values the network gives per sample. Raises ConfigError, with its line, where it does not take the samples,
        or what it gives is not what the task takes."""
        network = self.build()
        batch = next(iter(examples.batches(2)))
        shapes = " and ".join(
            f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}" for tensor in batch.inputs
        )
        try:
            outputs = self.task.forward(network, batch)
        except AutomcError:
            raise
        except Exception as error:  # the user's network on the user's samples
            site = site_of_error(error, network)
            where = f" in {site}" if str(site) else ""
            lines = str(error).strip().splitlines() or [""]
            raise ConfigError(
                f"{KEY}: {self.options.model} does not take a batch of {self._data.called}, {shapes}{where}: "
                f"{type(error).__name__}: {lines[0]}" + (f"\n    {site.code}" if site.code else ""),
                next_step="let the samples be what the network's forward takes, channels first; token numbers int64",
            ) from error
        place = forward_site("", network).where
        called = self.options.model + (f" (forward: {place})" if place else "")
        given = getattr(outputs, "shape", None)
        if not isinstance(outputs, torch.Tensor) or not outputs.is_floating_point() or outputs.ndim < 1:
            raise ConfigError(
                f"{KEY}: {called} must give one tensor of floats, but gives {type(outputs).__name__}",
                next_step="let its forward return the outputs (logits) alone",
            )
        count = len(batch.targets)
        if outputs.shape[0] != count or (isinstance(self.task, Classification | Regression) and outputs.ndim != 2):
            raise ConfigError(
                f"{KEY}: {called} gives shape {tuple(given or ())} for {count} samples; {self.task.name} needs "
                f"({count}, values)",
                next_step="keep the batch the first axis, or give a task of your own",
            )
        if isinstance(self.task, UsersTask):
            self.task.loss(outputs, batch.targets)
            self.task.score(outputs.detach().numpy(), batch.targets.numpy())
        return int(outputs[0].numel())

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """The first sample of train: the only place that says what the network takes."""
        return next(iter(self.split("train").batches(1))).inputs

    @property
    def preprocessing(self) -> dict[str, object]:
        self.split("train")
        columns = self._read["train"].columns
        scaling = self._scaling(columns)
        if scaling is not None:
            return scaling.to_json()
        if len(columns) > 1:
            return {"steps": []}
        form = {"shape": list(columns[0].shape[1:]), "dtype": columns[0].dtype.name}
        return {"raw": form, "steps": [], "input": form}


def create(options: dict[str, JsonValue], data_root: Path | None) -> Own:
    """Imports what is named and makes the task; network and data are made and read when asked for."""
    return Own(parse_options(OwnOptions, "own", options), data_root)


def _shown(forms: list[tuple[tuple[int, ...], str]]) -> str:
    return " and ".join(f"{dtype} {shape}" for shape, dtype in forms)
