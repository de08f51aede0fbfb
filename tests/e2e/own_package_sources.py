"""Two packages of users of their own: signals of one dimension, and texts with a second input and an own metric."""

from __future__ import annotations

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "1"

[tool.setuptools]
packages = ["{name}"]
"""

WAVES_NET = '''
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, 5, padding=2)
        self.bn1 = nn.BatchNorm1d(width)
        self.conv2 = nn.Conv1d(width, width, 5, padding=2)
        self.bn2 = nn.BatchNorm1d(width)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class Waves(nn.Module):
    """Two channels of 64 steps to one of three frequencies."""

    def __init__(self, width):
        super().__init__()
        self.stem = nn.Conv1d(2, width, 7, stride=2, padding=3)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.blocks(torch.relu(self.stem(x))).mean(2))


def build(width=12):
    print("a network of width", width)
    return Waves(width)
'''

WAVES_DATA = """
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from {name}.filters import prepared


class Recordings(Dataset):
    def __init__(self, seed, count):
        generator = np.random.default_rng(seed)
        self.labels = generator.integers(0, 3, count)
        time, phase = np.arange(64) / 64, generator.uniform(0, 6.28, (count, 2, 1))
        waves = np.sin(2 * np.pi * (2 + 3 * self.labels)[:, None, None] * time + phase)
        self.raw = (1000 * (waves + generator.normal(0, 0.5, waves.shape))).astype(np.int16)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return prepared(self.raw[index]), int(self.labels[index])


def splits():
    return {{
        "train": lambda: DataLoader(Recordings(0, 320), batch_size=64, shuffle=True),
        "validation": lambda: Recordings(1, 120),
        "test": lambda: Recordings(2, 120),
    }}
"""

WAVES_FILTERS = '''
import torch


def prepared(raw):
    """Of 16-bit counts: without their mean, in units of their deviation."""
    wave = torch.from_numpy(raw).float()
    return (wave - wave.mean()) / (wave.std() + 1e-6)
'''

TEXT_NET = '''
import torch
from torch import nn


class Reader(nn.Module):
    """Word numbers, and two facts of the text."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(60, 16)
        self.mix = nn.Linear(16 + 2, 32)
        self.out = nn.Linear(32, 2)

    def forward(self, tokens, facts):
        x = torch.cat([self.words(tokens).mean(1), facts], 1)
        return self.out(torch.relu(self.mix(x)))


def build():
    return Reader()
'''

TEXT_DATA = '''
import numpy as np
import torch
from torch.nn import functional as F

GOOD = "fine good great lovely nice warm bright".split()
BAD = "awful bad cold dark dreadful nasty poor".split()
OTHER = "the a of day night room food train view was very not quite and".split()
NUMBERS = {word: number for number, word in enumerate(["", *GOOD, *BAD, *OTHER])}
LENGTH = 12


def texts(seed, count):
    generator = np.random.default_rng(seed)
    for _ in range(count):
        kind = generator.integers(2)
        words = list(generator.choice(OTHER, generator.integers(5, 10)))
        words += list(generator.choice(GOOD if kind else BAD, 2))
        generator.shuffle(words)
        yield " ".join(words), int(kind)


def sample(text):
    words = text.split()[:LENGTH]
    tokens = np.array([NUMBERS[word] for word in words] + [0] * (LENGTH - len(words)))
    return tokens, np.array([len(words) / LENGTH, len(text) / 100])


def splits():
    seen, rows = set(), []
    for text, label in texts(0, 700):
        if text not in seen:
            seen.add(text)
            rows.append((sample(text), label))
    return {"train": rows[:300], "held": rows[300:]}


def loss(outputs, targets):
    return F.cross_entropy(outputs, targets, weight=torch.tensor([1.0, 2.0]))


def cost(outputs, targets):
    """What mistakes cost: 2 for a good text called bad, 1 for a bad one called good."""
    wrong = outputs.argmax(1) != targets
    return np.where(targets == 1, 2.0, 1.0) * wrong


def task():
    return {"loss": loss, "metric": cost, "direction": "min"}
'''
