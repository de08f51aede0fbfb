"""The networks that ship: residual networks for small pictures, a LeNet for digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F


class PadShortcut(nn.Module):
    """Option A of He et al. 2015: every second pixel, and zero channels added on both sides; no weights."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the identity, a padded one (A) or a 1x1 convolution (B)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: Literal["A", "B"]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            if shortcut == "A":
                self.shortcut = PadShortcut(in_channels, out_channels)
            else:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
                )
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        activated: torch.Tensor = self.relu2(out)
        return activated


class ResidualNetwork(nn.Module):
    """A 3x3 stem, stages of basic blocks (each later stage halves the picture), global average, linear classifier.

    Input (n, in_channels, H, W), output (n, classes) logits. Module names are those of the usual CIFAR-10 ResNets.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        classes: int,
        shortcut: Literal["A", "B"] = "B",
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.stages = tuple(f"layer{stage + 1}" for stage in range(len(widths)))
        channels = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, blocks, strict=True)):
            layers = []
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(BasicBlock(channels, width, stride, shortcut))
                channels = width
            self.add_module(self.stages[stage], nn.Sequential(*layers))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            out = getattr(self, stage)(out)
        logits: torch.Tensor = self.linear(self.flatten(self.pool(out)))
        return logits


def cifar_resnet(depth: int, classes: int = 10, in_channels: int = 3) -> ResidualNetwork:
    """ResNet-20, 32, 44, 56 (6n + 2) for small pictures, option-A shortcuts. Source: He et al. 2015, section 4.2."""
    blocks = (depth - 2) // 6
    return ResidualNetwork(in_channels, (16, 32, 64), (blocks, blocks, blocks), classes, shortcut="A")


class LeNet(nn.Module):
    """Two 5x5 convolutions with BatchNorm, ReLU and max pooling, two hidden linear layers, a classifier.

    Input (n, in_channels, size, size) with `size` a multiple of 4, output (n, classes) logits. After LeCun et al. 1998.
    """

    def __init__(self, in_channels: int, size: int, classes: int, widths: tuple[int, int] = (16, 32)) -> None:
        super().__init__()
        first, second = widths
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, first, 5, padding=2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5, padding=2, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(second * (size // 4) ** 2, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.features(x))
        return logits


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Linear layers with ReLU between them. Input (n, inputs), output (n, outputs)."""
    layers: list[nn.Module] = []
    width = inputs
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def initialise(model: nn.Module, seed: int) -> None:
    """Fresh weights from `seed` alone, in place: He normal, biases 0, BatchNorm as new."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
