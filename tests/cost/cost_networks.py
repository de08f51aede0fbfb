"""Networks whose trace is held against their export: every operator family the cost model claims to know."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import example_networks
import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import nn

from automc.export import export_onnx, expose, open_session
from automc.techniques.plan import QuantiseEdit
from automc.techniques.quantspec import QuantSpec, activation_edit, integer_form, targets, weight_edit, write_qdq


class Residual(nn.Module):
    """A block of a CIFAR ResNet; its shortcut subsamples and pads channels with zeros where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.padding = after - before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            before = self.padding // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.padding - before))
        return F.relu(y + x)


class OptionA(nn.Module):
    """Three stages of `blocks` blocks."""

    def __init__(self, widths: tuple[int, int, int], blocks: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0])
        layers, before = [], widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(Residual(before, width, 2 if stage and not block else 1))
                before = width
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(before, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers(F.relu(self.bn(self.conv(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Inverted(nn.Module):
    def __init__(self, before: int, after: int, stride: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        hidden = 4 * before
        self.body = nn.Sequential(
            nn.Conv2d(before, hidden, 1, bias=False), nn.BatchNorm2d(hidden), activation(),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), activation(),
            nn.Conv2d(hidden, after, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        self.adds = stride == 1 and before == after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class Gate(nn.Module):
    """Squeeze and excite by 1x1 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 6, 1), nn.Conv2d(6, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


def mobile(activation: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), activation(), Inverted(16, 16, 1, activation),
        Inverted(16, 24, 2, activation), Gate(24), Inverted(24, 40, 2, activation), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(40, 10),
    )  # fmt: skip


class Fire(nn.Module):
    def __init__(self, before: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeeze, 1)
        self.one, self.three = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        y = self.norm1(x)
        q, k, v = (
            layer(y).view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.out(y)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Encoder(nn.Module):
    """Tokens through two attention blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.position = nn.Embedding(50, 32), nn.Parameter(torch.randn(1, 12, 32))
        self.blocks, self.norm = nn.Sequential(Attention(32, 4), Attention(32, 4)), nn.LayerNorm(32)
        self.head = nn.Linear(32, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.tokens(tokens) + self.position)).mean(1))


class TorchEncoder(nn.Module):
    """Torch's own encoder layer, which dissolves into other operators than attention written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x).mean(1))


class Mixed(nn.Module):
    """What else convolutional networks are made of: BatchNorm before convolutions, padding, in-place work, resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, bias=False)
        self.norm, self.pre = nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, padding="same", bias=False)
        self.factored = nn.Sequential(
            nn.Conv2d(16, 4, (3, 1), 1, (1, 0), bias=False), nn.Conv2d(4, 16, (1, 3), 1, (0, 1))
        )
        self.grouped, self.group_norm = nn.Conv2d(16, 32, 3, 2, 1, groups=4), nn.GroupNorm(4, 32)
        self.slope, self.head = nn.PReLU(32), nn.Linear(32, 7, bias=False)
        self.activation = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(F.pad(x, (0, 1, 0, 1)))
        y = self.pre(F.relu(self.norm(x)))
        y += x
        y = self.activation(self.factored(y))
        y = F.interpolate(F.max_pool2d(y, 2), scale_factor=2, mode="nearest") * 0.5 + x
        y = self.slope(self.group_norm(self.grouped(F.silu(y))))
        return F.softmax(self.head(F.avg_pool2d(y, 3, 2, 1).amax((2, 3))), -1)


class Series(nn.Module):
    """One axis, BatchNorm behind linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(1, 16, 7, 2, 3), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(16, 24, 5, padding=2),
            nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 32, bias=False), nn.BatchNorm1d(32),
            nn.ELU(), nn.Linear(32, 5),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Highest(nn.Module):
    """The largest of every channel over time, as networks of texts and signals pool."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Conv1d(4, 32, 5, padding=2), nn.ReLU()), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).amax(2))


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 49, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 10),
    )  # fmt: skip


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 24), nn.Tanh(), nn.Linear(24, 10))


class MeanHead(nn.Module):
    """A head that averages over the picture by `mean`, as many users write it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


def concatenating() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), Fire(32, 16, 32), nn.AvgPool2d(2),
        Fire(64, 24, 40), nn.Conv2d(80, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


_BUILDERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet": (lambda: OptionA((16, 32, 64), 1), (1, 3, 32, 32)),
    "pruned_resnet": (lambda: OptionA((12, 24, 40), 1), (1, 3, 32, 32)),
    "plain": (plain, (1, 1, 28, 28)),
    "perceptron": (perceptron, (1, 1, 8, 8)),
    "mobile": (lambda: mobile(nn.ReLU6), (1, 3, 32, 32)),
    "mobile_hardswish": (lambda: mobile(nn.Hardswish), (1, 3, 32, 32)),
    "concatenating": (concatenating, (1, 3, 32, 32)),
    "mean_head": (MeanHead, (1, 3, 16, 16)),
    "mixed": (Mixed, (1, 3, 32, 32)),
    "series": (Series, (1, 1, 96)),
    "highest": (Highest, (1, 4, 24)),
    "encoder": (Encoder, (1, 12)),
    "vision_encoder": (example_networks.Encoder, (1, 3, 32, 32)),
    "torch_encoder": (TorchEncoder, (1, 12, 32)),
}
NAMES = tuple(_BUILDERS)


@cache
def network(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The network in eval mode, trained statistics feigned, and one sample; not to be changed."""
    build, shape = _BUILDERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
                nn.init.uniform_(module.weight, 0.3, 1.5)
                nn.init.normal_(module.bias, std=0.3)
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.2)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
        sample = torch.randint(0, 50, shape) if name == "encoder" else torch.randn(shape)
    return model, (sample,)


@cache
def exported(name: str) -> onnx.ModelProto:
    model, inputs = network(name)
    return export_onnx(model, inputs, dynamic_batch=False)


@cache
def int8(name: str) -> onnx.ModelProto:
    """The export quantised by the writer, with the ranges of one sample."""
    graph, (_, inputs) = integer_form(exported(name)), network(name)
    found = targets(graph)
    feeds = {value.name: tensor.numpy() for value, tensor in zip(graph.graph.input, inputs, strict=True)}
    computed = [tensor for tensor in found.activations if tensor not in feeds]
    seen: dict[str, np.ndarray] = dict(
        zip(computed, open_session(expose(graph, computed)).run(computed, feeds), strict=True)
    )
    seen |= feeds
    edits: dict[str, QuantiseEdit] = {
        tensor: activation_edit(float(seen[tensor].min()), float(seen[tensor].max()), tensor, "uint8")
        for tensor in found.activations
    }
    for tensor, leader in found.followers.items():
        edits[tensor] = edits[leader].model_copy(update={"tensor": tensor})
    values = {item.name: onnx.numpy_helper.to_array(item) for item in graph.graph.initializer}
    for tensor, axis, _ in found.weights:
        edits[tensor] = weight_edit(values[tensor], tensor, axis, "int8")
    return write_qdq(graph, QuantSpec(tuple(edits.values())))
