"""Small networks of every coupling a pruner meets, and what a technique's `plan` reads, without files or training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from automc.cost.predictor import Costs, Estimate
from automc.measure.probes import overflows
from automc.measure.sessions import SessionSettings
from automc.profiles import EnergySource, Fingerprint, HardwareProfile, Int8Facts, MeasurementProtocol
from automc.techniques.edits import build_layers
from automc.techniques.plan import LayerSpec
from automc.techniques.technique import PlanContext
from automc.workloads.workload import SPLITS, Batch, Examples, SplitName, Task, Workload, weights_digest


class Lambda(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def option_a(channels: int) -> Lambda:
    """Subsample by 2 and pad `channels` // 4 zero channels on both sides (He et al. 2015, option A)."""
    return Lambda(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, channels // 4, channels // 4)))


class BasicBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential() if before == after else option_a(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class OptionAResNet(nn.Module):
    """CIFAR ResNet with `blocks` blocks in each of three stages of `width`, 2 `width`, 4 `width` channels."""

    def __init__(self, blocks: int = 2, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        widths = (width, width, 2 * width, 4 * width)
        for stage in (1, 2, 3):
            before, after, stride = widths[stage - 1], widths[stage], 1 if stage == 1 else 2
            layer = [BasicBlock(before if i == 0 else after, after, stride if i == 0 else 1) for i in range(blocks)]
            setattr(self, f"layer{stage}", nn.Sequential(*layer))
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze-and-excite, project; adds its input."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6())
        self.depthwise = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.squeeze = nn.Conv2d(hidden, 8, 1)
        self.excite = nn.Conv2d(8, hidden, 1)
        self.project = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self.bn(self.depthwise(self.expand(x))))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return x + self.project(y * gate)


class DepthwiseNet(nn.Module):
    """MobileNet-like, with a grouped convolution at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.Sequential(InvertedResidual(8, 2), InvertedResidual(8, 2))
        self.grouped = nn.Conv2d(8, 16, 3, 1, 1, groups=2)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.grouped(self.blocks(F.relu(self.stem(x)))))
        return self.head(x.mean((2, 3)))


class ConcatNet(nn.Module):
    """Dense connections: later layers read the concatenation of all earlier ones, through BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 1, 1)
        self.bn1 = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(16)
        self.third = nn.Conv2d(16, 12, 3, 2, 1)
        self.act = nn.PReLU(12)
        self.head = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = torch.cat([x, self.second(F.relu(self.bn1(x)))], dim=1)
        x = self.act(self.third(F.relu(self.bn2(x))))
        return self.head(x.mean((2, 3)))


class LeNet(nn.Module):
    """Convolutions with biases and sigmoid, flattened into linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, 2, 2)
        self.conv2 = nn.Conv2d(8, 12, 5, 2, 2)
        self.fc1 = nn.Linear(12 * 4 * 4, 24)
        self.fc2 = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = torch.sigmoid(self.conv2(x)).flatten(1)
        return self.fc2(torch.sigmoid(self.fc1(x)))


class EncoderBlock(nn.Module):
    """Pre-norm transformer block with two heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Encoder(nn.Module):
    """A picture as 16 patches through two pre-norm blocks."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.position = nn.Parameter(torch.zeros(1, 16, width))
        self.blocks = nn.Sequential(EncoderBlock(width), EncoderBlock(width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": OptionAResNet,
    "depthwise": DepthwiseNet,
    "concat": ConcatNet,
    "lenet": LeNet,
    "encoder": Encoder,
}


def network(name: str, seed: int = 0) -> nn.Module:
    """A network of NETWORKS in eval mode, its BatchNorms with statistics and scales that differ per channel."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = NETWORKS[name]().eval()
        scramble_norms(model)
    return model


def scramble_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.3, 1.5)
            nn.init.normal_(module.bias, std=0.3)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)


class Classification(Task):
    name = "classification"
    metric = "accuracy"
    direction = "max"

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs, targets)

    def score(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return (outputs.argmax(1) == targets).astype(np.float64)


@dataclass(frozen=True)
class NoisePictures:
    """`count` 3x32x32 pictures of noise, the same for the same seed; labels are noise or a teacher's answers."""

    count: int = 64
    seed: int = 0
    teacher: nn.Module | None = None

    @property
    def digest(self) -> str:
        taught = "noise" if self.teacher is None else weights_digest(self.teacher)
        return f"{self.count}-{self.seed}-{taught}"

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int, *, seed: int | None = None, augment: bool = False) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(self.seed)
        pictures = torch.randn(self.count, 3, 32, 32, generator=generator)
        labels = torch.randint(10, (self.count,), generator=generator)
        if self.teacher is not None:
            with torch.no_grad():
                labels = self.teacher(pictures).argmax(1)
        order = np.arange(self.count) if seed is None else np.random.default_rng(seed).permutation(self.count)
        for start in range(0, self.count, size):
            index = order[start : start + size]
            yield Batch((pictures[index],), labels[index], index)


@cache
def int8_of_this_host() -> Int8Facts:
    """As calibration finds it: where sums of 8-bit products overflow, weights keep 7 bits."""
    return Int8Facts(reduce_range=overflows(SessionSettings()))


def profile(channel_multiple: int = 4) -> HardwareProfile:
    return HardwareProfile(
        name="paper",
        description="a device that exists in tests alone",
        fingerprint=Fingerprint(
            cpu="none", cores=1, instruction_sets=(), system="none", runtime="onnxruntime", runtime_version="0"
        ),
        memory_mb=1024,
        precisions=("fp32", "int8"),
        channel_multiple=channel_multiple,
        int8=int8_of_this_host(),
        protocol=MeasurementProtocol(),
        noise_floor_percent=1.0,
        noise_floor_ms=0.01,
        energy=EnergySource(kind="model", detail="none"),
        calibrated_unix_s=0.0,
        calibration="quick",
        held_out=(),
        calibration_digest="",
    )


class NoiseWorkload(Workload):
    """A network that has to learn the labels of noise: enough to train a few steps on."""

    name = "noise"
    task = Classification()

    def __init__(self, network_name: str) -> None:
        self.network_name = network_name

    def model(self) -> nn.Module:
        return network(self.network_name)

    def split(self, name: SplitName) -> Examples:
        return NoisePictures(seed=SPLITS.index(name))

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(1, 3, 32, 32),)

    @property
    def preprocessing(self) -> Mapping[str, object]:
        return {}


def weights_cost(model: nn.Module) -> Costs:
    """Costs on a device whose time is its weights: a microsecond each."""
    count = sum(parameter.numel() for parameter in model.parameters())
    estimate = Estimate(count / 1000, count / 1000, count / 1000, "ms", 1.0, "weights")
    return Costs(estimate, estimate, estimate)


def weights_ms(_network: nn.Module, layers: tuple[LayerSpec, ...], _shape: tuple[int, ...]) -> float:
    """As `weights_cost`, of layers in sequence."""
    return weights_cost(build_layers(layers, torch.device("meta"), torch.float32)).latency_ms.value


def no_data() -> Examples:
    raise AssertionError("this technique must not read data")


def context(
    *,
    channel_multiple: int = 4,
    data: bool = True,
    cost: Callable[[nn.Module], Costs] | None = None,
    layers_ms: Callable[[nn.Module, tuple[LayerSpec, ...], tuple[int, ...]], float] | None = None,
    teacher: nn.Module | None = None,
    seed: int = 0,
) -> PlanContext:
    """What plan may read, on noise pictures; data=False: reading the calibration split fails the test."""
    return PlanContext(
        example_inputs=(torch.zeros(1, 3, 32, 32),),
        profile=profile(channel_multiple),
        task=Classification(),
        calibration=(lambda: NoisePictures(teacher=teacher)) if data else no_data,
        cost=cost,
        layers_ms=weights_ms if layers_ms is None and cost is weights_cost else layers_ms,
        seed=seed,
    )
