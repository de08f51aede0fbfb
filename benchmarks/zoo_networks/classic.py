"""Convolutional networks of 1998 to 2020, written from their papers, thinner than there and for 32 x 32 pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_networks import Architecture, picture

CLASSES = 10


def conv_bn(
    before: int, after: int, kernel: int | tuple[int, int] = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (sides[0] // 2, sides[1] // 2)
    return nn.Sequential(
        nn.Conv2d(before, after, sides, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


class AlexNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 24, 5, 2, 2), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2),
            nn.Conv2d(24, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 48, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(48 * 9, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 3).flatten(1))


class VGG(nn.Module):
    """VGG-11 with BatchNorm, an eighth of its width."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in (8, "M", 16, "M", 32, 32, "M", 64, 64, "M", 64, 64, "M"):
            if isinstance(width, str):
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += conv_bn(before, width)
                before = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(64, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class Inception(nn.Module):
    """Four branches side by side. Source: Szegedy et al. 2015, figure 2b."""

    def __init__(self, before: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int) -> None:
        super().__init__()
        self.branch1 = conv_bn(before, one, 1)
        self.branch2 = nn.Sequential(conv_bn(before, three[0], 1), conv_bn(*three))
        self.branch3 = nn.Sequential(conv_bn(before, five[0], 1), conv_bn(*five, 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), conv_bn(before, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    """With an auxiliary head, which only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 16, 3, 2), conv_bn(16, 24))
        self.inception3a = Inception(24, 16, (12, 16), (4, 8), 8)
        self.inception3b = Inception(48, 16, (16, 24), (8, 16), 8)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a = Inception(64, 24, (16, 24), (8, 12), 12)
        self.aux = nn.Linear(64, CLASSES)
        self.fc = nn.Linear(72, CLASSES)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.inception3b(self.inception3a(self.stem(x)))
        aux = self.aux(x.mean((2, 3))) if self.training else None
        x = self.fc(F.adaptive_avg_pool2d(self.inception4a(self.pool(x)), 1).flatten(1))
        return (x, aux) if aux is not None else x


class InceptionE(nn.Module):
    """The module with forked 1 x 3 and 3 x 1 kernels. Source: Szegedy et al. 2016, figure 7."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.one = conv_bn(before, 16, 1)
        self.three = conv_bn(before, 24, 1)
        self.three_a, self.three_b = conv_bn(24, 16, (1, 3)), conv_bn(24, 16, (3, 1))
        self.pool = conv_bn(before, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.three(x)
        parts = [self.three_a(three), self.three_b(three)]
        pooled = self.pool(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))
        return torch.cat([self.one(x), torch.cat(parts, 1), pooled], 1)


class InceptionV3(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 16, 3, 2), conv_bn(16, 32))
        self.factorised = nn.Sequential(conv_bn(32, 32, (1, 7)), conv_bn(32, 32, (7, 1)))
        self.mixed = nn.Sequential(InceptionE(32), InceptionE(64))
        self.fc = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.mixed(self.factorised(self.stem(x))).mean((2, 3)))


class PreActivation(nn.Module):
    """Source: He et al. 2016, "Identity mappings"; the widened form of Zagoruyko and Komodakis."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x), inplace=True)
        kept = x if self.shortcut is None else self.shortcut(out)
        return kept + self.conv2(F.dropout(F.relu(self.bn2(self.conv1(out))), 0.3, self.training))


class WideResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        blocks, before = [], 8
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            blocks += [PreActivation(before, width, stride), PreActivation(width, width, 1)]
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.blocks(self.conv(x))))
        return self.fc(F.avg_pool2d(x, x.shape[-1]).view(-1, 64))


class Bottleneck(nn.Module):
    """Grouped in the middle: ResNeXt with 4 groups, RegNet with group width 8; with a squeeze where asked."""

    def __init__(self, before: int, after: int, stride: int, groups: int, squeeze: bool = False) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv_bn(before, after // 2, 1), conv_bn(after // 2, after // 2, 3, stride, groups)
        self.se = Squeeze(after // 2, 8) if squeeze else nn.Identity()
        self.conv3 = nn.Sequential(nn.Conv2d(after // 2, after, 1, bias=False), nn.BatchNorm2d(after))
        self.downsample = None
        if before != after or stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.conv3(self.se(self.conv2(self.conv1(x))))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return F.relu(out)


class Squeeze(nn.Module):
    """Channels weighted by what their means say. Source: Hu et al. 2018."""

    def __init__(self, channels: int, inner: int, gate: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.fc2(F.relu(self.fc1(self.avgpool(x))))) * x


class Staged(nn.Module):
    """Stem, two stages of two bottlenecks, head."""

    def __init__(self, groups: tuple[int, int], squeeze: bool) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16, 3, 2)
        self.layer1 = nn.Sequential(
            Bottleneck(16, 32, 1, groups[0], squeeze), Bottleneck(32, 32, 1, groups[0], squeeze)
        )
        self.layer2 = nn.Sequential(
            Bottleneck(32, 64, 2, groups[1], squeeze), Bottleneck(64, 64, 1, groups[1], squeeze)
        )
        self.fc = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.layer2(self.layer1(self.stem(x))), (1, 1)).flatten(1))


class DenseLayer(nn.Module):
    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.conv1(F.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(F.relu(self.norm2(x)))


class DenseBlock(nn.ModuleDict):
    def __init__(self, layers: int, before: int, growth: int) -> None:
        super().__init__({f"layer{i}": DenseLayer(before + i * growth, growth) for i in range(layers)})

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for _, layer in self.items():
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    def __init__(self, growth: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = DenseBlock(4, 16, growth)
        self.transition = nn.Sequential(
            nn.BatchNorm2d(48), nn.ReLU(inplace=True), nn.Conv2d(48, 24, 1, bias=False), nn.AvgPool2d(2, 2)
        )
        self.block2 = DenseBlock(4, 24, growth)
        self.norm = nn.BatchNorm2d(56)
        self.classifier = nn.Linear(56, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.block2(self.transition(self.block1(self.stem(x))))), inplace=True)
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class Fire(nn.Module):
    def __init__(self, before: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeeze, 1)
        self.expand1x1, self.expand3x3 = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x), inplace=True)
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """Its classifier is a convolution whose outputs are averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(32, 8, 32), Fire(64, 8, 32), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(64, 16, 64),
        )  # fmt: skip
        self.final = nn.Conv2d(128, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(F.adaptive_avg_pool2d(F.relu(self.final(self.features(x))), (1, 1)), 1)


class ConvNeXtBlock(nn.Module):
    """Source: Liu et al. 2022; the scale of a residual branch is a parameter of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


class ChannelsFirstNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 4, 4), ChannelsFirstNorm(16))
        self.stage1 = nn.Sequential(ConvNeXtBlock(16), ConvNeXtBlock(16))
        self.down = nn.Sequential(ChannelsFirstNorm(16), nn.Conv2d(16, 32, 2, 2))
        self.stage2 = nn.Sequential(ConvNeXtBlock(32), ConvNeXtBlock(32))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stage2(self.down(self.stage1(self.stem(x)))).mean([-2, -1])))


class MixerBlock(nn.Module):
    """Source: Tolstikhin et al. 2021, figure 1."""

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(positions, 32), nn.GELU(), nn.Linear(32, positions))
        self.channels = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class MLPMixer(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 8, 8)
        self.blocks = nn.ModuleList(MixerBlock(16, width) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


ARCHITECTURES = (
    Architecture("alexnet", "Krizhevsky et al. 2012", "CNN", AlexNet, picture()),
    Architecture("vgg11_bn", "Simonyan and Zisserman 2015", "CNN", VGG, picture()),
    Architecture("googlenet", "Szegedy et al. 2015", "CNN", GoogLeNet, picture()),
    Architecture("inception_v3", "Szegedy et al. 2016", "CNN", InceptionV3, picture()),
    Architecture("wide_resnet", "Zagoruyko and Komodakis 2016", "CNN", WideResNet, picture()),
    Architecture("resnext", "Xie et al. 2017", "CNN", lambda: Staged((4, 4), False), picture()),
    Architecture("regnet_y", "Radosavovic et al. 2020", "CNN", lambda: Staged((2, 4), True), picture()),
    Architecture("densenet", "Huang et al. 2017", "CNN", DenseNet, picture()),
    Architecture("squeezenet", "Iandola et al. 2016", "CNN", SqueezeNet, picture()),
    Architecture("convnext", "Liu et al. 2022", "CNN", ConvNeXt, picture()),
    Architecture("mlp_mixer", "Tolstikhin et al. 2021", "MLP", MLPMixer, picture()),
)
