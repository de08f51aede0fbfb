"""Networks for small devices, written from their papers, thinner than there and for 32 x 32 pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo_networks import Architecture, picture
from zoo_networks.classic import CLASSES, Squeeze, conv_bn


class MobileNetV1(nn.Sequential):
    def __init__(self) -> None:
        widths = ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2))
        pairs = [nn.Sequential(conv_bn(a, a, 3, s, a), conv_bn(a, b, 1)) for a, b, s in widths]
        super().__init__(conv_bn(3, 8, 3, 2), *pairs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


class InvertedResidual(nn.Module):
    """Expand, filter by depth, squeeze where asked, project; adds its input where the shapes allow."""

    def __init__(
        self, before: int, after: int, stride: int, expand: int, kernel: int = 3, squeeze: bool = False,
        activation: type[nn.Module] = nn.ReLU6, gate: type[nn.Module] = nn.Sigmoid,
    ) -> None:  # fmt: skip
        super().__init__()
        self.use_res_connect = stride == 1 and before == after
        hidden = before * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers += [nn.Conv2d(before, hidden, 1, bias=False), nn.BatchNorm2d(hidden), activation()]
        layers += [
            nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden), activation(),
        ]  # fmt: skip
        if squeeze:
            layers.append(Squeeze(hidden, max(4, hidden // 4), gate))
        layers += [nn.Conv2d(hidden, after, 1, bias=False), nn.BatchNorm2d(after)]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        if self.use_res_connect:
            return x + self.conv(x)
        return self.conv(x)


class Mobile(nn.Module):
    """Stem, inverted residuals, a last convolution, head."""

    def __init__(self, blocks: list[nn.Module], activation: type[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), activation(), *blocks,
            nn.Conv2d(24, 64, 1, bias=False), nn.BatchNorm2d(64), activation(),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(64, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1)).reshape(x.shape[0], -1))


def mobilenet_v2() -> nn.Module:
    plan = ((8, 8, 1, 1), (8, 16, 2, 4), (16, 16, 1, 4), (16, 24, 2, 4), (24, 24, 1, 4))
    return Mobile([InvertedResidual(*item) for item in plan], nn.ReLU6)


def mobilenet_v3() -> nn.Module:
    relu, swish, gate = nn.ReLU, nn.Hardswish, nn.Hardsigmoid
    return Mobile(
        [
            InvertedResidual(8, 16, 2, 4, 3, True, relu, gate), InvertedResidual(16, 16, 1, 3, 3, False, relu, gate),
            InvertedResidual(16, 24, 2, 4, 5, True, swish, gate), InvertedResidual(24, 24, 1, 4, 5, True, swish, gate),
        ],
        nn.Hardswish,
    )  # fmt: skip


def efficientnet() -> nn.Module:
    return Mobile(
        [
            InvertedResidual(8, 16, 2, 6, 3, True, nn.SiLU), InvertedResidual(16, 16, 1, 6, 3, True, nn.SiLU),
            InvertedResidual(16, 24, 2, 6, 5, True, nn.SiLU), InvertedResidual(24, 24, 1, 6, 5, True, nn.SiLU),
        ],
        nn.SiLU,
    )  # fmt: skip


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    """Source: Ma et al. 2018, figure 3; channels are split in halves, one of them is left as it is."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        half, self.stride = after // 2, stride
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(
                nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False), nn.BatchNorm2d(before),
                conv_bn(before, half, 1),
            )  # fmt: skip
        self.branch2 = nn.Sequential(
            conv_bn(before if stride > 1 else half, half, 1),
            nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=False), nn.BatchNorm2d(half), conv_bn(half, half, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            left, right = x.chunk(2, dim=1)
            return channel_shuffle(torch.cat((left, self.branch2(right)), dim=1), 2)
        return channel_shuffle(torch.cat((self.branch1(x), self.branch2(x)), dim=1), 2)


class ShuffleNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv_bn(3, 16, 3, 2)
        self.stage2 = nn.Sequential(ShuffleUnit(16, 32, 2), ShuffleUnit(32, 32, 1), ShuffleUnit(32, 32, 1))
        self.stage3 = nn.Sequential(ShuffleUnit(32, 64, 2), ShuffleUnit(64, 64, 1))
        self.conv5 = conv_bn(64, 96, 1)
        self.fc = nn.Linear(96, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv5(self.stage3(self.stage2(self.conv1(x)))).mean([2, 3]))


class Ghost(nn.Module):
    """Half of the channels are cheap functions of the other half. Source: Han et al. 2020."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.after = after
        half = -(-after // 2)
        self.primary_conv, self.cheap_operation = conv_bn(before, half, 1), conv_bn(half, half, 3, 1, half)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.primary_conv(x)
        return torch.cat([x1, self.cheap_operation(x1)], dim=1)[:, : self.after, :, :]


class GhostNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16, 3, 2)
        self.ghosts = nn.Sequential(Ghost(16, 32), conv_bn(32, 32, 3, 2, 32), Ghost(32, 49), Squeeze(49, 12))
        self.fc = nn.Linear(49, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.ghosts(self.stem(x)).mean((2, 3)))


ARCHITECTURES = (
    Architecture("mobilenet_v1", "Howard et al. 2017", "CNN", MobileNetV1, picture()),
    Architecture("mobilenet_v2", "Sandler et al. 2018", "CNN", mobilenet_v2, picture()),
    Architecture("mobilenet_v3", "Howard et al. 2019", "CNN", mobilenet_v3, picture()),
    Architecture("efficientnet", "Tan and Le 2019", "CNN", efficientnet, picture()),
    Architecture("shufflenet_v2", "Ma et al. 2018", "CNN", ShuffleNetV2, picture()),
    Architecture("ghostnet", "Han et al. 2020", "CNN", GhostNet, picture()),
)
