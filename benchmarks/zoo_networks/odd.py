"""What people write: several inputs, tied and shared layers, control flow, weights outside layers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_networks import Architecture, Input, picture
from zoo_networks.classic import CLASSES, conv_bn


class WideAndDeep(nn.Module):
    """Categories, numbers and a cross of both. Source: Cheng et al. 2016."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(20, 8) for _ in range(4))
        self.wide = nn.Linear(8, 1)
        self.deep = nn.Sequential(nn.Linear(4 * 8 + 8, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        embedded = [layer(categories[:, i]) for i, layer in enumerate(self.embeddings)]
        deep = self.deep(torch.cat([*embedded, numbers], dim=1))
        return torch.sigmoid(self.wide(numbers) + deep)


class FactorisationMachine(nn.Module):
    """One table for all fields, interactions as a difference of squares. Source: Guo et al. 2017, DeepFM."""

    def __init__(self, fields: int = 6, width: int = 8) -> None:
        super().__init__()
        self.first, self.second = nn.Embedding(fields * 10, 1), nn.Embedding(fields * 10, width)
        self.mlp = nn.Sequential(nn.Linear(fields * width, 32), nn.ReLU(), nn.Linear(32, 1))
        self.register_buffer("offsets", torch.arange(fields) * 10)

    def forward(self, fields: Tensor) -> Tensor:
        index = fields + self.offsets
        v = self.second(index)
        pairs = 0.5 * (v.sum(1).pow(2) - v.pow(2).sum(1)).sum(1, keepdim=True)
        return self.first(index).sum(1) + pairs + self.mlp(v.flatten(1))


class Siamese(nn.Module):
    """One encoder for two pictures; how far they are apart. Source: Koch et al. 2015."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(conv_bn(3, 16, 3, 2), conv_bn(16, 32, 3, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.embed, self.head = nn.Linear(128, 32), nn.Linear(32, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = self.embed(self.encoder(left)), self.embed(self.encoder(right))
        return self.head(torch.abs(a - b))


class SharedRecursion(nn.Module):
    """One block applied again and again. Source: Lan et al. 2020 share layers so."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16, 3, 2)
        self.block = nn.Sequential(*conv_bn(16, 16), nn.Conv2d(16, 16, 3, 1, 1))
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(3))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm in self.norms:
            x = F.relu(norm(x + self.block(x)))
        return self.head(x.mean((2, 3)))


class TiedAutoencoder(nn.Module):
    """The decoder is the encoder's weight, transposed. Source: Vincent et al. 2010."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.encode2 = nn.Linear(64, 32), nn.Linear(32, 12)
        self.bias1, self.bias2 = nn.Parameter(torch.zeros(32)), nn.Parameter(torch.zeros(64))

    def forward(self, x: Tensor) -> Tensor:
        code = torch.tanh(self.encode2(torch.tanh(self.encode(x))))
        hidden = torch.tanh(F.linear(code, self.encode2.weight.t(), self.bias1))
        return F.linear(hidden, self.encode.weight.t(), self.bias2)


class EarlyExit(nn.Module):
    """Which head answers depends on how sure the first one is: control flow that reads values."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.more = conv_bn(3, 16, 3, 2), nn.Sequential(conv_bn(16, 32, 3, 2), conv_bn(32, 32))
        self.early, self.late = nn.Linear(16, CLASSES), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        first = self.early(x.mean((2, 3)))
        if first.softmax(1).amax() > 0.9:
            return first
        return self.late(self.more(x).mean((2, 3)))


class MixtureOfExperts(nn.Module):
    """All experts run, their outputs are weighted by a gate; top 2. Source: Shazeer et al. 2017."""

    def __init__(self, experts: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 16, 3, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.gate = nn.Linear(64, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32)) for _ in range(experts)
        )
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        values, places = self.gate(x).topk(2, dim=1)
        gates = torch.zeros(x.shape[0], len(self.experts)).scatter(1, places, values.softmax(dim=1))
        outputs = torch.stack([expert(x) for expert in self.experts], dim=1)
        return self.head((gates.unsqueeze(-1) * outputs).sum(1))


class HandWritten(nn.Module):
    """No layers at all: parameters, and functions of them."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(16, 3, 3, 3) * 0.2)
        self.w2 = nn.Parameter(torch.randn(32, 16, 3, 3) * 0.1)
        self.w3, self.b3 = nn.Parameter(torch.randn(CLASSES, 32) * 0.1), nn.Parameter(torch.zeros(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.w1, stride=2, padding=1))
        x = F.relu(F.conv2d(x, self.w2, stride=2, padding=1))
        return F.linear(x.mean((2, 3)), self.w3, self.b3)


class StandardisedConv(nn.Conv2d):
    """The weight is standardised in every forward. Source: Qiao et al. 2019."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        deviation = self.weight.std(dim=(1, 2, 3), keepdim=True) + 1e-5
        return self._conv_forward(x, (self.weight - mean) / deviation, self.bias)


class BigTransfer(nn.Module):
    """GroupNorm and standardised weights. Source: Kolesnikov et al. 2020."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = StandardisedConv(3, 16, 3, 2, 1)
        self.norm1, self.conv1 = nn.GroupNorm(4, 16), StandardisedConv(16, 16, 3, 1, 1)
        self.norm2, self.conv2 = nn.GroupNorm(4, 16), StandardisedConv(16, 32, 3, 2, 1)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv1(F.relu(self.norm1(x)))
        return self.head(self.conv2(F.relu(self.norm2(x))).mean((2, 3)))


class Maxout(nn.Module):
    """Channels compared in pairs, complex slicing, in-place writes. Source: Goodfellow et al. 2013."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(16, 64, 3, 2, 1)
        self.fc = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = torch.maximum(x[:, ::2], x[:, 1::2])
        x = self.conv2(x)
        x = x.view(x.size(0), 32, 2, x.size(2), x.size(3)).max(dim=2).values
        x[:, 0] = 0.0
        return self.fc(x.mean((2, 3)))


class GraphConvolution(nn.Module):
    """Node features and a dense adjacency. Source: Kipf and Welling 2017."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 32), nn.Linear(32, 16)
        self.readout = nn.Linear(16, 3)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        weights = torch.sigmoid(adjacency) + torch.eye(adjacency.shape[-1])
        normed = weights / weights.sum(-1, keepdim=True)
        x = F.relu(torch.bmm(normed, self.first(nodes)))
        return self.readout(F.relu(torch.matmul(normed, self.second(x))).mean(1))


class PointNet(nn.Module):
    """Points one by one, then their maximum, with a learned transformation. Source: Qi et al. 2017."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Conv1d(3, 16, 1), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(),
                                       nn.Linear(16, 9))  # fmt: skip
        self.mlp = nn.Sequential(nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 64, 1))
        self.head = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, CLASSES))

    def forward(self, points: Tensor) -> Tensor:
        matrix = self.transform(points).view(-1, 3, 3) + torch.eye(3, device=points.device)
        moved = torch.bmm(points.transpose(1, 2), matrix).transpose(1, 2)
        return self.head(torch.max(self.mlp(moved), 2)[0])


class Video(nn.Module):
    """Three-dimensional convolutions. Source: Tran et al. 2018, R(2+1)D."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial, self.temporal = (
            nn.Conv3d(3, 16, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
            nn.Conv3d(16, 16, (3, 1, 1), padding=(1, 0, 0)),
        )
        self.bn, self.last = nn.BatchNorm3d(16), nn.Conv3d(16, 32, 3, 2, 1)
        self.fc = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.temporal(F.relu(self.spatial(x)))))
        return self.fc(F.adaptive_avg_pool3d(F.relu(self.last(x)), 1).flatten(1))


class MultiTask(nn.Module):
    """A shared trunk, outputs by name; layers that are kept in a list nobody registered are frozen functions."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(conv_bn(3, 16, 3, 2), conv_bn(16, 32, 3, 2))
        self.heads = nn.ModuleDict(
            {"kind": nn.Linear(32, CLASSES), "angle": nn.Linear(32, 2), "depth": nn.Linear(32, 1)}
        )

    def _answers(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        for name, head in self.heads.items():
            yield name, head(x)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return dict(self._answers(self.trunk(x).mean(dim=(2, 3))))


ARCHITECTURES = (
    Architecture("wide_and_deep", "Cheng et al. 2016", "tabular, two inputs", WideAndDeep,
                 (Input((4,), "integer", 20), Input((8,)))),
    Architecture("deep_fm", "Guo et al. 2017", "tabular, integers", FactorisationMachine,
                 (Input((6,), "integer", 10),)),
    Architecture("siamese", "Koch et al. 2015", "two inputs, shared encoder", Siamese, picture(16) * 2),
    Architecture("shared_recursion", "own, layers shared as in Lan et al. 2020", "layers called again", SharedRecursion,
                 picture()),
    Architecture("tied_autoencoder", "Vincent et al. 2010", "tied weights", TiedAutoencoder, (Input((64,)),)),
    Architecture("early_exit", "Teerapittayanon et al. 2016", "data-dependent control flow", EarlyExit, picture()),
    Architecture("mixture_of_experts", "Shazeer et al. 2017", "top-k gate", MixtureOfExperts, picture()),
    Architecture("hand_written", "own", "no layers, parameters alone", HandWritten, picture()),
    Architecture("big_transfer", "Kolesnikov et al. 2020", "weights standardised in forward", BigTransfer, picture()),
    Architecture("maxout", "Goodfellow et al. 2013", "in-place, strided slices", Maxout, picture()),
    Architecture("gcn", "Kipf and Welling 2017", "graph, two inputs", GraphConvolution,
                 (Input((10, 8)), Input((10, 10)))),
    Architecture("pointnet", "Qi et al. 2017", "points", PointNet, (Input((3, 40)),)),
    Architecture("r2plus1d", "Tran et al. 2018", "3-D CNN", Video, (Input((3, 8, 16, 16)),)),
    Architecture("multi_task", "own, after Kendall et al. 2018", "outputs by name", MultiTask, picture()),
)  # fmt: skip
