"""Series and sequences: one-dimensional convolutions, recurrent layers, attention written by hand."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_networks import Architecture, Input, tokens

CLASSES = 6
SERIES = (Input((4, 64)),)
STEPS = (Input((24, 8)),)


class ResNet1d(nn.Module):
    """Source: Wang et al. 2017, "Time series classification from scratch"."""

    class Block(nn.Module):
        def __init__(self, before: int, after: int) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            for index, kernel in enumerate((7, 5, 3)):
                layers += [nn.Conv1d(before if index == 0 else after, after, kernel, padding="same"),
                           nn.BatchNorm1d(after)]  # fmt: skip
                layers += [nn.ReLU()] if index < 2 else []
            self.body = nn.Sequential(*layers)
            self.short = nn.Identity() if before == after else nn.Conv1d(before, after, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.body(x) + self.short(x))

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(self.Block(4, 16), self.Block(16, 16), self.Block(16, 32))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean(dim=-1))


class CausalBlock(nn.Module):
    """Dilated convolutions that see the past alone. Source: Bai et al. 2018; weights normalised as there."""

    def __init__(self, before: int, after: int, dilation: int) -> None:
        super().__init__()
        self.cut = 2 * dilation
        self.conv1 = nn.Conv1d(before, after, 3, padding=self.cut, dilation=dilation)
        self.conv2 = nn.Conv1d(after, after, 3, padding=self.cut, dilation=dilation)
        self.short = nn.Conv1d(before, after, 1) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x)[:, :, : -self.cut])
        y = F.relu(self.conv2(y)[:, :, : -self.cut])
        return F.relu(y + (x if self.short is None else self.short(x)))


class TCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(CausalBlock(4, 16, 1), CausalBlock(16, 16, 2), CausalBlock(16, 16, 4))
        self.linear = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.network(x)[:, :, -1])


class WeightNormTCN(TCN):
    """The same with weights that are normalised as they are read: parametrised modules."""

    def __init__(self) -> None:
        super().__init__()
        for block in self.network:
            block.conv1 = nn.utils.parametrizations.weight_norm(block.conv1)
            block.conv2 = nn.utils.parametrizations.weight_norm(block.conv2)


class WaveNet(nn.Module):
    """Gated units with skips that are summed. Source: van den Oord et al. 2016."""

    def __init__(self, width: int = 16, layers: int = 4) -> None:
        super().__init__()
        self.start = nn.Conv1d(4, width, 1)
        self.filters = nn.ModuleList(nn.Conv1d(width, width, 2, dilation=2**i) for i in range(layers))
        self.gates = nn.ModuleList(nn.Conv1d(width, width, 2, dilation=2**i) for i in range(layers))
        self.residuals = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.skips = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.end1, self.end2 = nn.Conv1d(width, width, 1), nn.Conv1d(width, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        total = torch.zeros_like(x)
        for i in range(len(self.filters)):
            padded = F.pad(x, (2**i, 0))
            z = torch.tanh(self.filters[i](padded)) * torch.sigmoid(self.gates[i](padded))
            total = total + self.skips[i](z)
            x = x + self.residuals[i](z)
        return self.end2(F.relu(self.end1(F.relu(total))))


class LSTMTagger(nn.Module):
    """Words to tags: an embedding, two directions, a score for every word."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 16, padding_idx=0)
        self.lstm = nn.LSTM(16, 24, num_layers=1, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(words))
        return self.head(states)


class LSTMClassifier(nn.Module):
    """Two layers; the last hidden state is read."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 24, num_layers=2, batch_first=True, dropout=0.1)
        self.fc1, self.fc2 = nn.Linear(24, 32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        _, (hidden, _) = self.rnn(x)
        return self.fc2(F.relu(self.fc1(hidden[-1])))


class GRUForecaster(nn.Module):
    """Regression; a state that is made by hand, sequence first."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 24)
        self.head = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        state = torch.zeros(1, x.size(1), 24, device=x.device)
        out, _ = self.gru(x, state)
        return self.head(out[-1])


class ConvLSTMCell(nn.Module):
    """A recurrent cell unrolled in Python. Source: the CLDNN of Sainath et al. 2015, its order of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(4, 16, 5, 2, 2), nn.ReLU(), nn.Conv1d(16, 16, 5, 2, 2), nn.ReLU())
        self.cell = nn.LSTMCell(16, 24)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x)
        h = x.new_zeros(x.size(0), 24)
        c = x.new_zeros(x.size(0), 24)
        for step in range(features.size(2)):
            h, c = self.cell(features[:, :, step], (h, c))
        return self.head(h)


class TextCNN(nn.Module):
    """Source: Kim 2014."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 24)
        self.convs = nn.ModuleList(nn.Conv2d(1, 16, (k, 24)) for k in (2, 3, 4))
        self.fc = nn.Linear(48, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embedding(words).unsqueeze(1)
        pooled = [F.relu(conv(x)).squeeze(3).amax(dim=2) for conv in self.convs]
        return self.fc(torch.cat(pooled, 1))


class SelfAttention(nn.Module):
    """Heads written out with einsum and a causal mask, as in many tutorials."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.register_buffer("mask", torch.tril(torch.ones(length, length)))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (layer(x).view(batch, length, self.heads, -1) for layer in (self.query, self.key, self.value))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(width // self.heads)
        scores = scores.masked_fill(self.mask[:length, :length] == 0, float("-inf"))
        return self.out(torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).reshape(batch, length, width))


class TinyGPT(nn.Module):
    """A language model whose output layer is its embedding: tied weights."""

    def __init__(self, width: int = 32, length: int = 16) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(64, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "norm1": nn.LayerNorm(width), "attention": SelfAttention(width, 2, length),
                "norm2": nn.LayerNorm(width),
                "mlp": nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)),
            })
            for _ in range(2)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 64, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, words: Tensor) -> Tensor:
        x = self.tokens(words) + self.positions(torch.arange(words.shape[1], device=words.device))
        for block in self.blocks:
            x = x + block["attention"](block["norm1"](x))
            x = x + block["mlp"](block["norm2"](x))
        return self.head(self.norm(x))


class TorchEncoder(nn.Module):
    """torch's own encoder layers, with a mask of the padding: two inputs."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, width)
        layer = nn.TransformerEncoderLayer(width, 2, 48, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        x = self.encoder(self.embedding(words), src_key_padding_mask=mask == 0)
        weights = mask.unsqueeze(-1).to(x.dtype)
        return self.head((x * weights).sum(1) / weights.sum(1).clamp(min=1.0))


ARCHITECTURES = (
    Architecture("resnet1d", "Wang et al. 2017", "1-D CNN", ResNet1d, SERIES),
    Architecture("tcn", "Bai et al. 2018", "1-D CNN", TCN, SERIES),
    Architecture("tcn_weight_norm", "Bai et al. 2018", "1-D CNN, parametrised weights", WeightNormTCN, SERIES),
    Architecture("wavenet", "van den Oord et al. 2016", "1-D CNN", WaveNet, SERIES),
    Architecture("bilstm_tagger", "Huang et al. 2015", "recurrent", LSTMTagger, (tokens(),)),
    Architecture("lstm_2_layers", "own, after torch's tutorial", "recurrent", LSTMClassifier, STEPS),
    Architecture("gru_forecaster", "own, after torch's tutorial", "recurrent", GRUForecaster, STEPS),
    Architecture("conv_lstm_cell", "Sainath et al. 2015", "recurrent, unrolled", ConvLSTMCell, SERIES),
    Architecture("text_cnn", "Kim 2014", "text", TextCNN, (tokens(),)),
    Architecture("tiny_gpt", "Radford et al. 2019", "transformer, tied weights", TinyGPT, (tokens(),)),
    Architecture("torch_encoder", "torch.nn.TransformerEncoder", "transformer, two inputs", TorchEncoder,
                 (tokens(), Input((16,), "mask"))),
)  # fmt: skip
