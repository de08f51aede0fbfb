"""Kernel rows of networks that tables name by their architecture: NAS-Bench-201, FBNet, Once-for-All, MLPerf Tiny.

Skeletons: Dong and Yang 2020 ("NAS-Bench-201"), Wu et al. 2019 ("FBNet", as in HW-NAS-Bench, 32 x 32 pictures), Cai et
al. 2020 ("Once-for-All", MobileNetV3 of width 1.2). BatchNorm is part of its convolution, as every runtime has it.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Literal

import numpy as np

from automc.cost.kernels import KernelRow
from automc.cost.work import work
from automc.workloads.nasbench201 import operations_of

Space = Literal["nasbench201", "fbnet", "ofa"]
Cell = Mapping[str, object]
"""A row of a table, by column."""

Totals = dict[str, float]


class _Rows:
    """Kernels one after another, each reading what the last one made. shape: (channels, height, width)."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.rows: list[KernelRow] = []

    def convolution(
        self, filters: int, kernel: int | tuple[int, int], stride: int = 1, groups: int = 1, fused: str = "Relu"
    ) -> None:
        channels, height, width = self.shape
        out = (filters, -(-height // stride), -(-width // stride))
        window = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        weights = filters * channels // groups * prod(window)
        self._add(
            "Conv", [self.shape], out, macs=weights * out[1] * out[2], weights=weights + filters,
            kernel=window, stride=(stride, stride), groups=groups, fused=(fused,) if fused else (),
        )  # fmt: skip

    def separable(self, filters: int, stride: int = 1) -> None:
        self.convolution(self.shape[0], 3, stride, groups=self.shape[0])
        self.convolution(filters, 1)

    def pool(self, kernel: int, stride: int = 1) -> None:
        channels, height, width = self.shape
        out = (channels, -(-height // stride), -(-width // stride))
        self._add("AveragePool", [self.shape], out, kernel=(kernel, kernel), stride=(stride, stride))

    def mean(self) -> None:
        channels, height, width = self.shape
        self._add("GlobalAveragePool", [self.shape], (channels, 1, 1), kernel=(height, width), stride=(1, 1))

    def linear(self, count: int) -> None:
        depth = prod(self.shape)
        self._add("Gemm", [(depth,)], (count,), macs=depth * count, weights=depth * count + count)

    def pointwise(self, op: str, inputs: int = 1) -> None:
        self._add(op, [self.shape] * inputs, self.shape)

    def squeeze_excite(self, ratio: int) -> None:
        before = self.shape
        self.mean()
        self.convolution(-(-before[0] // ratio), 1)
        self.convolution(before[0], 1, fused="HardSigmoid")
        self.shape = before
        self._add("Mul", [before, (before[0], 1, 1)], before)

    def _add(
        self, op: str, inputs: Sequence[tuple[int, ...]], out: tuple[int, ...], *, macs: int = 0,
        weights: int = 0, kernel: tuple[int, ...] = (), stride: tuple[int, ...] = (), groups: int = 1,
        fused: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.rows.append(
            KernelRow(
                name=f"{op}{len(self.rows)}", op=op, precision="fp32", layout="nchw",
                input_shapes=tuple((1, *shape) for shape in inputs), output_shape=(1, *out), macs=macs,
                bytes_in=4 * sum(prod(shape) for shape in inputs), bytes_out=4 * prod(out), bytes_weights=4 * weights,
                kernel=kernel, stride=stride, dilation=(1,) * len(kernel), groups=groups, fused=fused,
            )
        )  # fmt: skip
        channels, height, width = (*out, 1, 1)[:3]
        self.shape = (channels, height, width)


def space_rows(space: Space, cell: Cell) -> list[KernelRow]:
    """Kernels of the network that `cell` names, batch 1. Raises ConfigError on what is no cell of the space."""
    if space == "nasbench201":
        return nasbench201_rows(operations_of(str(cell["arch_str"])))
    if space == "fbnet":
        return fbnet_rows(tuple(int(number) for number in str(cell["op_idx"]).split()))
    return ofa_rows(_numbers(cell["ks"]), _numbers(cell["e"]), _numbers(cell["d"]), _numbers(cell["r"])[0])


def _numbers(value: object) -> list[int]:
    found = ast.literal_eval(value) if isinstance(value, str) else value
    return [int(number) for number in np.atleast_1d(np.asarray(found))]


_ENDS = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def alive_edges(cell: Sequence[str]) -> list[bool]:
    """Of each of the six edges, whether it lies on a way from the cell's input to its output. Runtimes drop others."""
    passes = [operation != "none" for operation in cell]
    fed, used = {0}, {3}
    for node in (1, 2, 3):
        if any(passes[e] and a in fed for e, (a, b) in enumerate(_ENDS) if b == node):
            fed.add(node)
    for node in (2, 1, 0):
        if any(passes[e] and b in used for e, (a, b) in enumerate(_ENDS) if a == node):
            used.add(node)
    return [passes[e] and a in fed and b in used for e, (a, b) in enumerate(_ENDS)]


def nasbench201_rows(cell: Sequence[str]) -> list[KernelRow]:
    """Stem, three stages of five cells at 16, 32 and 64 channels, residual blocks between, the head for 10 classes."""
    made = _Rows((3, 32, 32))
    made.convolution(16, 3)
    alive = alive_edges(cell)
    for stage, channels in enumerate((16, 32, 64)):
        if stage:
            before = made.shape
            made.convolution(channels, 3, 2)
            made.convolution(channels, 3)
            made.shape = before
            made.pool(2, 2)
            made.convolution(channels, 1)
            made.pointwise("Add", 2)
        for _ in range(5):
            for operation, lives in zip(cell, alive, strict=True):
                if lives and operation.startswith("nor_conv"):
                    made.convolution(channels, int(operation[-1]), fused="")
                    made.pointwise("Relu")
                elif lives and operation == "avg_pool_3x3":
                    made.pool(3)
            for node in (1, 2, 3):
                for _ in range(sum(lives for lives, (_, b) in zip(alive, _ENDS, strict=True) if b == node) - 1):
                    made.pointwise("Add", 2)
    made.pointwise("Relu")
    made.mean()
    made.linear(10)
    return made.rows


_FBNET = (
    (1, 16, 1),
    (4, 24, 1),
    (4, 32, 2),
    (4, 64, 2),
    (4, 112, 1),
    (4, 184, 2),
    (1, 352, 1),
)  # layers, width, stride
_FBNET_CHOICES = ((3, 1, 1), (3, 1, 2), (3, 3, 1), (3, 6, 1), (5, 1, 1), (5, 1, 2), (5, 3, 1), (5, 6, 1))


def fbnet_rows(choices: Sequence[int]) -> list[KernelRow]:
    """22 layers, each one of eight blocks (kernel, expansion, groups) or, as 8, a skip."""
    made = _Rows((3, 32, 32))
    made.convolution(16, 3)
    layers = [(width, stride if at == 0 else 1) for count, width, stride in _FBNET for at in range(count)]
    for choice, (width, stride) in zip(choices, layers, strict=True):
        before = made.shape[0]
        if choice == 8:
            if before != width or stride > 1:
                made.convolution(width, 1, stride)
            continue
        kernel, expansion, groups = _FBNET_CHOICES[choice]
        made.convolution(before * expansion, 1, groups=groups)
        made.convolution(before * expansion, kernel, stride, groups=before * expansion)
        made.convolution(width, 1, groups=groups, fused="")
        if before == width and stride == 1:
            made.pointwise("Add", 2)
    made.convolution(1504, 1)
    made.mean()
    made.linear(100)
    return made.rows


_OFA = ((32, 2, False, "Relu"), (48, 2, True, "Relu"), (96, 2, False, ""), (136, 1, True, ""), (192, 2, True, ""))


def ofa_rows(kernels: Sequence[int], expansions: Sequence[int], depths: Sequence[int], side: int) -> list[KernelRow]:
    """Five stages of 2 to 4 blocks; kernels and expansions are stated for four blocks of every stage."""
    made = _Rows((3, side, side))
    made.convolution(24, 3, 2, fused="")
    made.pointwise("HardSwish")
    made.convolution(24, 3, 1, groups=24)
    made.convolution(24, 1, fused="")
    made.pointwise("Add", 2)
    for stage, ((width, stride, excites, fused), depth) in enumerate(zip(_OFA, depths, strict=True)):
        for block in range(depth):
            kernel, expansion = kernels[4 * stage + block], expansions[4 * stage + block]
            before, step = made.shape[0], stride if block == 0 else 1
            wide = before * expansion
            made.convolution(wide, 1, fused=fused)
            if not fused:
                made.pointwise("HardSwish")
            made.convolution(wide, kernel, step, groups=wide, fused=fused)
            if not fused:
                made.pointwise("HardSwish")
            if excites:
                made.squeeze_excite(4)
            made.convolution(width, 1, fused="")
            if before == width and step == 1:
                made.pointwise("Add", 2)
    made.convolution(1152, 1, fused="")
    made.pointwise("HardSwish")
    made.mean()
    made.convolution(1536, 1, fused="HardSwish")
    made.linear(1000)
    return made.rows


TinyBench = Literal["ad", "ic", "kws", "vww"]


def mlperf_tiny_rows(bench: TinyBench) -> list[KernelRow]:
    """Kernels of one of MLPerf Tiny's reference networks, batch 1, as float: int8 moves a quarter of the bytes in each.

    Source: Banbury et al. 2021, "MLPerf Tiny Benchmark": an autoencoder on 640 features (anomaly detection), ResNet-8
    on 3 x 32 x 32 (image classification), DS-CNN on 49 x 10 (keyword spotting), MobileNetV1 of width 0.25 on
    3 x 96 x 96 (visual wake words).
    """
    if bench == "ad":
        made = _Rows((640, 1, 1))
        for width in (128, 128, 128, 128, 8, 128, 128, 128, 128, 640):
            made.linear(width)
    elif bench == "ic":
        made = _Rows((3, 32, 32))
        made.convolution(16, 3)
        for channels, stride in ((16, 1), (32, 2), (64, 2)):
            before = made.shape
            made.convolution(channels, 3, stride)
            made.convolution(channels, 3, fused="")
            if stride > 1:
                made.shape = before
                made.convolution(channels, 1, stride, fused="")
            made.pointwise("Add", 2)
            made.pointwise("Relu")
        made.mean()
        made.linear(10)
    elif bench == "kws":
        made = _Rows((1, 49, 10))
        made.convolution(64, (10, 4), 2)
        for _ in range(4):
            made.separable(64)
        made.mean()
        made.linear(12)
    else:
        made = _Rows((3, 96, 96))
        made.convolution(8, 3, 2)
        for filters, stride in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2)):
            made.separable(filters, stride)
        made.separable(256)
        made.mean()
        made.linear(2)
    return made.rows


@lru_cache(maxsize=65536)
def _work(row: KernelRow) -> tuple[tuple[str, float], ...]:
    return tuple(work(row).items())


def totals(rows: Sequence[KernelRow]) -> Totals:
    """The columns of `work`, summed over kernels."""
    found: Totals = {}
    for row in rows:
        for name, value in _work(row):
            found[name] = found.get(name, 0.0) + value
    return found
