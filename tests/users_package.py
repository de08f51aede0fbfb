"""A package of a user's own, written to a folder for one test: its modules, and the lines that messages must name."""

from __future__ import annotations

import itertools
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from automc.workloads.own import Own

_numbers = itertools.count()

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.hidden = nn.Linear(5, width)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(width, 3)

    def forward(self, x):
        return self.out(self.drop(torch.relu(self.hidden(x))))


def build(width=6):
    return Net(width)
"""

DATA = """
import numpy as np
import torch


class Rows:
    def __init__(self, seed, count=24):
        generator = np.random.default_rng(seed)
        self.y = np.arange(count) % 3
        self.x = generator.normal(self.y[:, None], 0.3, (count, 5))

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


def splits():
    return {"train": Rows(0, 48), "validation": Rows(1), "test": Rows(2)}
"""


@dataclass(frozen=True)
class Package:
    """name: unique, as modules stay imported. folder: what it is imported from."""

    name: str
    folder: Path

    def place(self, module: str, text: str) -> str:
        """`package/module.py:line` of the one line that is `text`."""
        lines = (self.folder / self.name / f"{module}.py").read_text().splitlines()
        (number,) = [index for index, line in enumerate(lines, 1) if line.strip() == text]
        return f"{self.name}/{module}.py:{number}"

    def workload(self, **options: object) -> Own:
        from automc.workloads import create_workload
        from automc.workloads.own import Own

        given = {"model": f"{self.name}.net:build", "data": f"{self.name}.data:splits", **options}
        made = create_workload("own", given, None)  # type: ignore[arg-type]
        assert isinstance(made, Own)
        return made

    def refusal(self, **options: object) -> str:
        """What is said of the package once model and all splits are asked for."""
        from automc.errors import ConfigError

        with pytest.raises(ConfigError) as caught:
            self.workload(**options).digests()
        return str(caught.value)


class Packages:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.syspath_prepend(folder)

    def __call__(self, net: str = "", data: str = "") -> Package:
        """net, data: code that follows, and may replace parts of, a network and data that are fine."""
        made = Package(f"users_own_{next(_numbers)}", self.folder)
        inside = self.folder / made.name
        inside.mkdir()
        (inside / "__init__.py").touch()
        for name, usual, more in (("net", NET, net), ("data", DATA, data)):
            (inside / f"{name}.py").write_text(usual.lstrip() + textwrap.dedent(more))
        return made


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packages:
    return Packages(tmp_path, monkeypatch)
