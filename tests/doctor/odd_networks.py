"""Networks that a search meets and that are not plain residual ones; their line numbers are found by their text."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


class Gate(nn.Module):
    """Which way it goes depends on values."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        if y.mean() > 0:
            return x + y
        return x - y


class Branching(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.Sequential(Gate(8), Gate(8))
        self.head = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(F.relu(self.stem(x)))
        return self.head(x.mean((2, 3)))


class PostNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x + self.attn(x, x, x, need_weights=False)[0])
        return x + self.down(F.relu(self.up(x)))


class Hybrid(nn.Module):
    """A convolution with GroupNorm, a depthwise one, then its positions as tokens through two blocks."""

    def __init__(self, classes: int = 4, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.group_norm = nn.GroupNorm(4, width)
        self.depthwise = nn.Conv2d(width, width, 3, 1, 1, groups=width)
        self.position = nn.Parameter(torch.zeros(1, 16, width))
        self.blocks = nn.ModuleList([PostNorm(width), PostNorm(width)])
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.group_norm(self.stem(x)))
        x = self.depthwise(x).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    """The cost model's trace has no recurrent layers; the exporter has."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.rnn = nn.GRU(24, 12, batch_first=True)
        self.head = nn.Linear(12, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(x.flatten(2).transpose(1, 2).reshape(-1, 8, 24))
        return self.head(y[:, -1])


class Plain(nn.Module):
    def __init__(self, classes: int = 4, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU()
        )
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.adaptive_avg_pool2d(self.body(x), 1).flatten(1))


class FactorisedPlain(nn.Module):
    """What low_rank makes of Plain: the kernels of a spatial convolution followed by one of 1 x 1."""

    def __init__(self, classes: int = 4, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, width, 1), nn.ReLU(),
            nn.Conv2d(width, width, 3, 2, 1), nn.Conv2d(width, 2 * width, 1), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.adaptive_avg_pool2d(self.body(x), 1).flatten(1))


class Complaint(Exception):
    """Something no library knows."""


class Complains(nn.Module):
    """Takes one sample at a time, and says so in a way of its own."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.body = Plain(classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            raise Complaint("one at a time")
        return self.body(x)


def line_of(text: str) -> str:
    """`odd_networks.py:LINE` of the one line of this file that is `text`."""
    source = Path(inspect.getfile(Branching)).read_text().splitlines()
    (number,) = [index for index, line in enumerate(source, 1) if line.strip() == text]
    return f"odd_networks.py:{number}"
