"""What micro models are made of, one kernel kind each; `micro_models.py` draws them.

The families of `families.py` are kept for the held-out error and nothing is ever fitted on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from automc.measure.builder import GraphBuilder, Scheme, Value

MICRO_MACS = 24e6  # largest micro model: about 1 ms on one core at 25 GMAC/s, so that a pass stays affordable
MICRO_ELEMENTS = 2**18  # 1 MB of floats: beyond the second-level cache of today's cores


@dataclass(frozen=True)
class Sample:
    """One model of a calibration set. kind: micro kernel kind, "random", or a family."""

    name: str
    kind: str
    scheme: Scheme
    model: bytes


class Draw:
    """Random sizes: log-uniform, half of the channels on multiples of 16, a quarter on 4, a quarter anywhere."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def integer(self, low: int, high: int) -> int:
        """Log-uniform in [low, high]."""
        return round(float(np.exp(self.generator.uniform(np.log(low), np.log(high)))))

    def channels(self, low: int = 4, high: int = 512) -> int:
        step = int(self.generator.choice([16, 16, 4, 1]))
        return max(low, step * max(1, round(self.integer(low, high) / step)))

    def pick(self, *options: int) -> int:
        return int(self.generator.choice(options))

    def word(self, *options: str) -> str:
        return str(self.generator.choice(options))

    def chance(self, probability: float) -> bool:
        return bool(self.generator.random() < probability)


Micro = Callable[[GraphBuilder, Draw], Value]


def _conv_size(draw: Draw, cost_per_pixel: float, low: int = 1, high: int = 64) -> int:
    """A feature map such that the kernel's cost is log-uniform between MICRO_MACS / 200 and MICRO_MACS."""
    target = MICRO_MACS / 200 * 200 ** float(draw.generator.random())
    return int(np.clip(np.sqrt(target / cost_per_pixel), low, high))


def _act(draw: Draw) -> str | None:
    return None if draw.chance(0.3) else draw.word("Relu", "Relu", "Relu", "Clip")


def _image(b: GraphBuilder, channels: int, size: int, draw: Draw) -> Value:
    width = size if draw.chance(0.8) else draw.integer(max(1, size // 2), size)
    return b.picture(channels, size, width)


def conv_dense(b: GraphBuilder, draw: Draw) -> Value:
    kernel = draw.pick(3, 3, 3, 5, 7)
    cin, cout = draw.channels(16, 384), draw.channels(4, 384)
    size = _conv_size(draw, cin * cout * kernel**2)
    stride = draw.pick(1, 1, 2) if size > 2 else 1
    return b.conv(_image(b, cin, size, draw), cout, kernel, stride=stride, act=_act(draw))


def conv_pointwise(b: GraphBuilder, draw: Draw) -> Value:
    cin, cout = draw.channels(16, 768), draw.channels(4, 768)
    size = _conv_size(draw, cin * cout)
    stride = draw.pick(1, 1, 1, 2) if size > 2 else 1
    return b.conv(_image(b, cin, size, draw), cout, 1, stride=stride, act=_act(draw))


def conv_narrow(b: GraphBuilder, draw: Draw) -> Value:
    """Few input channels: the stem, and layers pruned below the block size."""
    kernel = draw.pick(1, 3, 3, 5, 7)
    cin, cout = draw.pick(1, 3, 3, 3, draw.integer(2, 15)), draw.channels(4, 128)
    size = _conv_size(draw, cin * cout * kernel**2, low=4, high=112)
    stride = draw.pick(1, 2) if size > 4 else 1
    return b.conv(_image(b, cin, size, draw), cout, kernel, stride=stride, act=_act(draw))


def conv_asymmetric(b: GraphBuilder, draw: Draw) -> Value:
    long = draw.pick(3, 5, 7)
    kernel = (long, 1) if draw.chance(0.5) else (1, long)
    cin, cout = draw.channels(4, 384), draw.channels(4, 384)
    return b.conv(_image(b, cin, _conv_size(draw, cin * cout * long), draw), cout, kernel, act=_act(draw))


def conv_depthwise(b: GraphBuilder, draw: Draw) -> Value:
    kernel, channels = draw.pick(3, 3, 3, 5, 7), draw.channels(8, 768)
    size = _conv_size(draw, channels * kernel**2 * 4, low=2, high=64)
    stride = draw.pick(1, 1, 2) if size > 2 else 1
    return b.conv(_image(b, channels, size, draw), channels, kernel, stride=stride, groups=channels, act=_act(draw))


def conv_grouped(b: GraphBuilder, draw: Draw) -> Value:
    groups, kernel = draw.pick(2, 2, 4, 4, 8, 8, 16, 32), draw.pick(1, 3, 3, 3)
    inside = draw.integer(2, max(2, 320 // groups))
    outside = inside if draw.chance(0.6) else draw.integer(2, max(2, 320 // groups))
    step = draw.pick(1, 4, 16)  # the runtime has kernels of their own for groups on multiples of 4 and of 16
    inside, outside = (max(step, width // step * step) for width in (inside, outside))
    size = _conv_size(draw, groups * inside * outside * kernel**2 * 2, high=48)
    stride = draw.pick(1, 1, 2) if size > 2 else 1
    x = _image(b, groups * inside, size, draw)
    return b.conv(x, groups * outside, kernel, stride=stride, groups=groups, act=_act(draw))


def conv_chain(b: GraphBuilder, draw: Draw) -> Value:
    """Convolutions after each other: the reorders at the ends are paid once."""
    kernel = draw.pick(1, 3, 3)
    width = draw.channels(16, 192)
    x = _image(b, width, _conv_size(draw, 3 * width**2 * kernel**2), draw)
    for _ in range(3):
        x = b.conv(x, width if draw.chance(0.5) else draw.channels(16, 192), kernel, act=_act(draw))
    return x


def conv_residual(b: GraphBuilder, draw: Draw) -> Value:
    kernel = draw.pick(1, 3)
    width = draw.channels(16, 192)
    x = b.conv(_image(b, width, _conv_size(draw, 2 * width**2 * kernel**2), draw), width, kernel)
    return b.conv(x, width, kernel, act=draw.word("Relu", "Relu", "Clip") if draw.chance(0.8) else None, add=x)


def conv_signal(b: GraphBuilder, draw: Draw) -> Value:
    """One dimension: never blocked, unrolled into a product whatever the channels."""
    kernel, kind = draw.pick(1, 3, 3, 5, 7, 9), draw.word("dense", "dense", "dense", "depthwise", "grouped")
    depth, filters, groups = draw.channels(4, 256), draw.channels(4, 256), 1
    if kind == "depthwise":
        filters = groups = depth
    elif kind == "grouped":
        groups = draw.pick(2, 4, 8)
        depth, filters = (groups * max(1, channels // groups) for channels in (depth, filters))
    target = MICRO_MACS / 200 * 200 ** float(draw.generator.random())
    length = int(np.clip(target * groups / (depth * filters * kernel), 8, 4096))
    x = b.input((1, depth, length))
    return b.conv(x, filters, kernel, stride=draw.pick(1, 1, 2), groups=groups, act=_act(draw))


def squeeze_excite(b: GraphBuilder, draw: Draw) -> Value:
    width = draw.channels(16, 384)
    x = b.conv(_image(b, width, _conv_size(draw, 4 * width), draw), width, 1 if draw.chance(0.5) else 3, groups=width)
    gate = b.conv(b.global_pool(x), draw.channels(4, 64), 1)
    gate = b.conv(gate, width, 1, act=draw.word("Sigmoid", "HardSigmoid"))
    return b.binary("Mul", x, gate)


def gemm(b: GraphBuilder, draw: Draw) -> Value:
    """One, or two or three in a row on a vector, where what a call takes besides its work shows."""
    rows = 1 if draw.chance(0.7) else draw.integer(1, 128)
    inner, outer = draw.channels(4, 2048), draw.channels(2, 1024)
    x = b.gemm(b.input((rows, inner)), outer, act="Relu" if draw.chance(0.5) else None)
    for _ in range(draw.pick(0, 0, 1, 2) if rows == 1 else 0):
        x = b.gemm(x, draw.channels(2, 512), act="Relu" if draw.chance(0.5) else None)
    return x


def unpacked(b: GraphBuilder, draw: Draw) -> Value:
    """A layer whose weights are there at run time only: in int8 a file's whose input stayed in float, else a product
    of activations."""
    if draw.chance(0.3):
        depth, channels = draw.channels(4, 256), draw.channels(4, 256)
        size = _conv_size(draw, 9 * depth * channels)
        return b.conv(b.input((1, depth, size, size), plain=True), channels, 3)
    rows = 1 if draw.chance(0.7) else draw.integer(1, 64)
    inner, outer = draw.channels(32, 4096), draw.channels(16, 512)
    if b.scheme == "fp32":
        return b.matmul(b.input((1, rows, inner)), b.input((1, inner, outer)))
    if draw.chance(0.5):
        return b.linear(b.input((1, rows, inner), plain=True), min(outer, MICRO_ELEMENTS // inner))
    return b.gemm(b.input((rows, inner), plain=True), outer)


def linear(b: GraphBuilder, draw: Draw) -> Value:
    tokens, inner, outer = draw.integer(1, 197), draw.channels(8, 768), draw.channels(8, 768)
    tokens = min(tokens, max(1, int(2 * MICRO_MACS / (inner * outer))))
    return b.linear(b.input((1, tokens, inner)), outer, act="Relu" if draw.chance(0.3) else None)


def attention(b: GraphBuilder, draw: Draw) -> Value:
    """Two products of activations and a softmax, per head."""
    heads, tokens, width = draw.pick(1, 2, 4, 8), draw.integer(4, 197), draw.integer(8, 96)
    q, k = b.input((1, heads, tokens, width)), b.input((1, heads, width, tokens))
    scores = b.constant_binary("Mul", b.matmul(q, k))
    return b.matmul(b.unary("Softmax", scores, axis=-1), b.input((1, heads, tokens, width)))


def elementwise(b: GraphBuilder, draw: Draw) -> Value:
    op = draw.word("Add", "Add", "Mul", "Sub", "Div")
    if draw.chance(0.3):  # token shapes, bias along the last axis
        shape = (1, draw.integer(1, 197), draw.channels(8, 768))
        return b.constant_binary(op, b.input(shape), shape[-1:])
    channels, size = draw.channels(4, 384), draw.integer(1, 40)
    size = min(size, int(np.sqrt(MICRO_ELEMENTS / channels)))
    x = b.input((1, channels, size, size))
    if draw.chance(0.25):
        return b.constant_binary(op, x)
    other = b.input((1, channels, 1, 1) if draw.chance(0.4) else (1, channels, size, size))
    return b.binary(op, x, other)


def unary(b: GraphBuilder, draw: Draw) -> Value:
    op = draw.word(
        "Relu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Erf", "Clip", "LeakyRelu", "Elu", "Sqrt", "Softmax",
        "LayerNormalization", "Gelu", "SiLU",
    )  # fmt: skip
    if op in ("Softmax", "LayerNormalization", "Gelu", "Erf") or draw.chance(0.3):
        x = b.input((1, draw.integer(1, 197), draw.channels(8, 768)))
    else:
        channels = draw.channels(4, 384)
        size = min(draw.integer(1, 40), int(np.sqrt(MICRO_ELEMENTS / channels)))
        x = b.input((1, channels, size, size))
    if op == "LayerNormalization":
        return b.layer_norm(x)
    if op == "Gelu":
        return gelu(b, x)
    if op == "SiLU":
        return b.binary("Mul", x, b.unary("Sigmoid", x))
    return b.unary(op, x, **({"axis": -1} if op == "Softmax" else {}))


def gelu(b: GraphBuilder, x: Value) -> Value:
    """x / 2 (1 + erf(x / sqrt 2)) as exporters write it for opsets without Gelu; the runtime fuses it."""
    inner = b.unary("Erf", b.constant_binary("Div", x))
    return b.constant_binary("Mul", b.binary("Mul", x, b.constant_binary("Add", inner)))


def pool(b: GraphBuilder, draw: Draw) -> Value:
    """In the plain layout; or between convolutions, in theirs."""
    channels, size = draw.channels(4, 384), draw.integer(4, 56)
    size = max(4, min(size, int(np.sqrt(MICRO_ELEMENTS / channels))))
    between = draw.chance(0.6)
    x = b.conv(_image(b, 16, size, draw), channels, 1) if between else _image(b, channels, size, draw)
    kind = draw.pick(0, 1, 1, 2)
    if kind == 2:
        return b.flatten(b.global_pool(x)) if draw.chance(0.7) else b.reduce_mean(x, (2, 3))
    kernel = draw.pick(2, 3)
    y = b.pool(x, "MaxPool" if kind == 0 else "AveragePool", kernel, draw.pick(1, 2))
    return b.conv(y, 16, 1) if between else y


def _moved(draw: Draw) -> tuple[int, int, tuple[int, ...]]:
    """(channels, extent, shape) of a picture for operators that only move data."""
    channels = 2 * draw.channels(4, 192)
    size = max(2, min(draw.integer(2, 40), int(np.sqrt(MICRO_ELEMENTS / 2 / channels))))
    return channels, size, (1, channels, size, size)


def concat(b: GraphBuilder, draw: Draw) -> Value:
    _, size, _ = _moved(draw)
    widths = [draw.channels(4, 128) for _ in range(draw.pick(2, 2, 3, 4))]
    if draw.chance(0.4) and not b.inside:
        return b.concat([b.input((1, width, size, size)) for width in widths])
    x = b.input((1, 16, size, size))  # the pieces arrive in the layout of convolutions
    return b.concat([b.conv(x, width, 1, act=_act(draw)) for width in widths])


def shuffle(b: GraphBuilder, draw: Draw) -> Value:
    channels, size, shape = _moved(draw)
    grouped = b.transpose(b.reshape(b.input(shape), (1, 2, channels // 2, size, size)), (0, 2, 1, 3, 4))
    return b.reshape(grouped, shape)


def split(b: GraphBuilder, draw: Draw) -> Value:
    return b.concat(b.split(b.input(_moved(draw)[2]), 2)[::-1])


def pad(b: GraphBuilder, draw: Draw) -> Value:
    """Around the picture; or behind its channels after every second row was taken, as in option-A shortcuts."""
    channels, size, shape = _moved(draw)
    if draw.chance(0.5):
        return b.pad(b.input(shape))
    return b.pad_channels(b.slice(b.input(shape), 2, size, step=2), channels // 2)


def slicing(b: GraphBuilder, draw: Draw) -> Value:
    channels, size, shape = _moved(draw)
    return b.slice(b.input(shape), 1, channels // 2) if draw.chance(0.5) else b.slice(b.input(shape), 2, size, step=2)


def resize(b: GraphBuilder, draw: Draw) -> Value:
    channels, size, _ = _moved(draw)
    size = max(2, min(size, int(np.sqrt(MICRO_ELEMENTS / 4 / channels))))
    return b.resize(b.input((1, channels, size, size)))


def tokens(b: GraphBuilder, draw: Draw) -> Value:
    channels, size, shape = _moved(draw)
    rows = b.transpose(b.reshape(b.input(shape), (1, channels, size * size)), (0, 2, 1))
    return rows if draw.chance(0.5) else b.reduce_mean(rows, (1,))


def lookup(b: GraphBuilder, draw: Draw) -> Value:
    """An embedding, and the views that masks and heads are made of."""
    width = draw.pick(16, 32, 64, 128, 256)
    x = b.lookup(draw.integer(4, 512), draw.integer(16, max(16, MICRO_ELEMENTS // width)), width)
    for _ in range(draw.pick(0, 1, 1, 2)):
        x = b.squeeze(b.unsqueeze(x, 1), 1)
    return x


def heads_of(b: GraphBuilder, x: Value, heads: int) -> Value:
    """(batch, tokens, width) to (batch, heads, tokens, width / heads)."""
    batch, tokens, width = x.shape
    return b.transpose(b.reshape(x, (batch, tokens, heads, width // heads)), (0, 2, 1, 3))
