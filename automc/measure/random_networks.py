"""Random small networks for calibration: chains of randomly drawn blocks that follow no published architecture."""

from __future__ import annotations

import numpy as np

from automc.measure.builder import GraphBuilder, Scheme, Value
from automc.measure.networks import Draw, Sample, gelu, heads_of

RANDOM = "random"
"""The kind of these samples."""


def random_networks(count: int, scheme: Scheme, seed: int) -> list[Sample]:
    """`count` chains of randomly drawn blocks (convolutional, and one in five of tokens)."""
    samples = []
    for index in range(count):
        generator = np.random.default_rng([seed, 1000, index])
        builder = GraphBuilder(scheme, generator, quantise_elementwise=index % 4 != 3)
        draw = Draw(generator)
        output = _random_tokens(builder, draw) if index % 5 == 4 else _random_cnn(builder, draw)
        samples.append(Sample(f"{RANDOM}.{scheme}.{index}", RANDOM, scheme, builder.finish(output)))
    return samples


def _random_cnn(b: GraphBuilder, draw: Draw) -> Value:
    size = draw.pick(8, 16, 28, 32, 32, 32, 48, 64)
    x = b.conv(b.input((1, draw.pick(1, 3, 3, 3), size, size)), draw.channels(4, 64), draw.pick(3, 3, 5), act="Relu")
    act = draw.word("Relu", "Relu", "Relu", "Clip", "HardSwish", "SiLU")
    budget = float(draw.integer(4, 40)) * 1e6
    for _ in range(draw.integer(2, 14)):
        x = _random_block(b, draw, x, act, budget / 6)
        if x.shape[2] > 3 and draw.chance(0.3):
            kernel = draw.pick(2, 3)
            x = b.pool(x, draw.word("MaxPool", "AveragePool"), kernel, 2)
    x = b.flatten(b.global_pool(x)) if draw.chance(0.8) else b.reduce_mean(x, (2, 3))
    if draw.chance(0.3):
        x = b.gemm(x, draw.channels(8, 512), act="Relu")
    return b.gemm(x, draw.pick(2, 10, 100))


def _random_block(b: GraphBuilder, draw: Draw, x: Value, act: str, budget: float) -> Value:
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    widest = int(np.clip(budget / (pixels * channels * 9), 8, 512))
    wide = int(np.clip(budget / (pixels * channels), 8, 1024))
    stride = 2 if x.shape[2] > 4 and draw.chance(0.25) else 1
    kind = draw.pick(0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7)
    if kind == 0:
        return b.conv(x, draw.channels(4, widest), draw.pick(3, 3, 5), stride=stride, act=act)
    if kind == 1:
        return b.conv(x, draw.channels(4, wide), 1, act=act)
    if kind == 2:  # residual, one or two convolutions inside
        inner = draw.channels(4, widest)
        y = b.conv(x, inner, draw.pick(1, 3), act=act)
        return b.conv(y, channels, 3, act=act if draw.chance(0.7) else None, add=x)
    if kind == 3:  # depthwise and pointwise
        y = b.conv(x, channels, draw.pick(3, 3, 5, 7), stride=stride, groups=channels, act=act)
        return b.conv(y, draw.channels(8, wide), 1, act=act if draw.chance(0.5) else None)
    if kind == 4:  # parallel branches
        left = b.conv(x, draw.channels(4, max(8, widest // 2)), 1, act=act)
        right = b.conv(x, draw.channels(4, max(8, widest // 2)), 3, act=act)
        return b.concat([left, right])
    if kind == 5 and channels >= 8:  # grouped
        groups = draw.pick(2, 4, 8)
        y = b.conv(x, groups * max(2, min(channels, wide) // groups), 1, act=act)
        return b.conv(y, y.shape[1], 3, groups=groups, stride=stride, act=act)
    if kind == 6:  # channel attention
        gate = b.conv(b.global_pool(x), max(4, channels // 4), 1, act="Relu")
        return b.binary("Mul", x, b.conv(gate, channels, 1, act=draw.word("Sigmoid", "HardSigmoid")))
    long = draw.pick(3, 5, 7)
    y = b.conv(x, draw.channels(4, widest), (long, 1), act=None)
    return b.conv(y, draw.channels(4, max(8, widest)), (1, long), stride=1, act=act)


def _random_tokens(b: GraphBuilder, draw: Draw) -> Value:
    tokens, width = draw.pick(16, 17, 49, 64, 65, 128), 8 * draw.integer(4, 32)
    x = b.layer_norm(b.linear(b.input((1, tokens, draw.channels(8, 128))), width))
    for _ in range(draw.integer(1, 5)):
        if draw.chance(0.5):
            heads = draw.pick(1, 2, 4)
            q, k, v = (heads_of(b, b.linear(x, width), heads) for _ in range(3))
            scores = b.constant_binary("Mul", b.matmul(q, b.transpose(k, (0, 1, 3, 2))))
            mixed = b.matmul(b.unary("Softmax", scores, axis=-1), v)
            y = b.linear(b.reshape(b.transpose(mixed, (0, 2, 1, 3)), (1, tokens, width)), width)
        else:
            hidden = b.linear(x, 8 * draw.integer(4, 96), act=None)
            hidden = gelu(b, hidden) if draw.chance(0.6) else b.unary("Relu", hidden)
            y = b.linear(hidden, width)
        x = b.binary("Add", x, y)
        x = b.layer_norm(x) if draw.chance(0.8) else x
    return b.gemm(b.reduce_mean(x, (1,)), draw.pick(2, 10, 100))
