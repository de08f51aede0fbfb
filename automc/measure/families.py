"""Whole networks of well-known families with irregular, "compressed" widths, for the held-out error alone.

Nothing is ever fitted on these: calibration sees micro models and random chains only. Widths are scaled per stage by
independent ratios and mostly snapped to a multiple of 4, as pruning leaves them; depths, resolutions and kernels vary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from automc.measure.builder import GraphBuilder, Scheme, Value
from automc.measure.networks import Draw, Sample, gelu, heads_of

Family = Callable[[GraphBuilder, Draw], Value]


def _width(draw: Draw, full: int) -> int:
    """`full` after pruning by a random ratio, on a multiple of 4 or 16 mostly."""
    step = draw.pick(1, 4, 4, 16)
    return max(step, 4, round(full * float(draw.generator.uniform(0.3, 1.0)) / step) * step)


def _image(b: GraphBuilder, draw: Draw, *sizes: int) -> Value:
    size = draw.pick(*(sizes or (24, 28, 32, 32, 40, 48)))
    return b.input((1, 3, size, size))


def _classify(b: GraphBuilder, x: Value) -> Value:
    return b.gemm(b.flatten(b.global_pool(x)), 10)


def resnet(b: GraphBuilder, draw: Draw) -> Value:
    """Basic blocks (He 2016), inner widths pruned, stages cut in depth."""
    base = draw.pick(16, 16, 24, 32, 64) if draw.chance(0.8) else 48
    x = b.conv(_image(b, draw), base, 3)
    for stage in range(3):
        width = base * 2**stage if draw.chance(0.5) else _width(draw, base * 2**stage)
        for block in range(draw.pick(1, 2, 3, 5)):
            stride = 2 if stage and block == 0 else 1
            y = b.conv(x, _width(draw, base * 2**stage), 3, stride=stride)
            shortcut = x if x.shape[1] == width and stride == 1 else b.conv(x, width, 1, stride=stride, act=None)
            x = b.conv(y, width, 3, add=shortcut)
    return _classify(b, x)


def vgg(b: GraphBuilder, draw: Draw) -> Value:
    """Plain 3x3 stacks and max pooling (Simonyan 2015)."""
    x = _image(b, draw, 32, 32, 40)
    for stage, full in enumerate((64, 128, 256, 256)):
        for _ in range(draw.pick(1, 2)):
            x = b.conv(x, _width(draw, full // draw.pick(1, 2, 4)), 3)
        x = b.pool(x) if stage < 3 or draw.chance(0.5) else x
    return b.gemm(b.gemm(b.flatten(x), _width(draw, 256), act="Relu"), 10)


def mobilenet_v2(b: GraphBuilder, draw: Draw) -> Value:
    """Inverted residuals with ReLU6 (Sandler 2018)."""
    x = b.conv(_image(b, draw, 32, 48, 64), _width(draw, 32), 3, stride=draw.pick(1, 2), act="Clip")
    for full, repeats, stride in ((16, 1, 1), (24, 2, 2), (40, 2, 2), (80, 2, 1)):
        width = _width(draw, full)
        for block in range(repeats):
            hidden = b.conv(x, _width(draw, x.shape[1] * draw.pick(3, 6)), 1, act="Clip")
            step = stride if block == 0 else 1
            y = b.conv(hidden, hidden.shape[1], 3, stride=step, groups=hidden.shape[1], act="Clip")
            same = step == 1 and x.shape[1] == width
            x = b.conv(y, width, 1, act=None, add=x if same else None)
    return _classify(b, b.conv(x, _width(draw, 320), 1, act="Clip"))


def mobilenet_v3(b: GraphBuilder, draw: Draw) -> Value:
    """Inverted residuals with squeeze-and-excite and HardSwish (Howard 2019)."""
    x = b.conv(_image(b, draw, 32, 48, 64), _width(draw, 16), 3, stride=draw.pick(1, 2), act="HardSwish")
    for full, kernel, squeeze, act, stride in (
        (16, 3, True, "Relu", 2), (24, 3, False, "Relu", 1), (40, 5, True, "HardSwish", 2),
        (48, 5, True, "HardSwish", 1),
    ):  # fmt: skip
        hidden = b.conv(x, _width(draw, x.shape[1] * draw.pick(3, 4, 6)), 1, act=act)
        y = b.conv(hidden, hidden.shape[1], kernel, stride=stride, groups=hidden.shape[1], act=act)
        if squeeze:
            gate = b.conv(b.global_pool(y), max(4, y.shape[1] // 4), 1)
            y = b.binary("Mul", y, b.conv(gate, y.shape[1], 1, act="HardSigmoid"))
        x = b.conv(y, _width(draw, full), 1, act=None)
    return _classify(b, b.conv(x, _width(draw, 288), 1, act="HardSwish"))


def squeezenet(b: GraphBuilder, draw: Draw) -> Value:
    """Fire modules: squeeze 1x1, expand 1x1 and 3x3, concatenated (Iandola 2016)."""
    x = b.conv(_image(b, draw, 32, 48), _width(draw, 64), 3)
    for module in range(draw.pick(4, 6, 8)):
        squeezed = b.conv(x, _width(draw, 16 * (1 + module // 2)), 1)
        full = 64 * (1 + module // 2)
        x = b.concat([b.conv(squeezed, _width(draw, full), 1), b.conv(squeezed, _width(draw, full), 3)])
        x = b.pool(x, kernel=3) if module in (1, 3) else x
    return b.flatten(b.global_pool(b.conv(x, 10, 1)))


def resnext(b: GraphBuilder, draw: Draw) -> Value:
    """Bottlenecks with grouped 3x3 convolutions (Xie 2017)."""
    groups = draw.pick(4, 8, 16)
    x = b.conv(_image(b, draw), _width(draw, 64), 3)
    for stage in range(3):
        inside = groups * max(1, 64 * 2**stage // groups // draw.pick(1, 2))
        width = _width(draw, 96 * 2**stage)
        for block in range(draw.pick(1, 2, 3)):
            stride = 2 if stage and block == 0 else 1
            y = b.conv(b.conv(x, inside, 1), inside, 3, stride=stride, groups=groups)
            shortcut = x if x.shape[1] == width and stride == 1 else b.conv(x, width, 1, stride=stride, act=None)
            x = b.conv(y, width, 1, add=shortcut)
    return _classify(b, x)


def inception(b: GraphBuilder, draw: Draw) -> Value:
    """Parallel 1x1, 3x3, 1x7-7x1 and pooled branches (Szegedy 2016)."""
    x = b.conv(_image(b, draw, 28, 32, 40), _width(draw, 48), 3)
    for module in range(draw.pick(3, 4, 5)):
        full = 32 * (1 + module // 2)
        narrow = b.conv(x, _width(draw, full), 1)
        middle = b.conv(b.conv(x, _width(draw, full), 1), _width(draw, full), 3)
        long = draw.pick(3, 5, 7)
        factored = b.conv(b.conv(b.conv(x, _width(draw, full), 1), _width(draw, full), (1, long)), full, (long, 1))
        pooled = b.conv(b.pool(x, "AveragePool", 3, 1), _width(draw, full), 1)
        x = b.concat([narrow, middle, factored, pooled])
        x = b.pool(x, kernel=3) if module % 2 else x
    return _classify(b, x)


def transformer(b: GraphBuilder, draw: Draw) -> Value:
    """Vision transformer encoder with pruned heads and hidden widths (Dosovitskiy 2021)."""
    width, patch = 32 * draw.integer(2, 6), draw.pick(4, 8)
    x = b.conv(b.input((1, 3, 32, 32)), width, patch, stride=patch, act=None)
    tokens = x.shape[2] * x.shape[3]
    batch = x.shape[0]
    x = b.transpose(b.reshape(x, (batch, width, tokens)), (0, 2, 1))
    for _ in range(draw.pick(2, 3, 4, 6)):
        heads = draw.pick(2, 4, 8)
        inside = heads * max(4, width // heads // draw.pick(1, 1, 2))
        y = b.layer_norm(x)
        q, k, v = (heads_of(b, b.linear(y, inside), heads) for _ in range(3))
        scores = b.unary("Softmax", b.constant_binary("Mul", b.matmul(q, b.transpose(k, (0, 1, 3, 2)))), axis=-1)
        mixed = b.reshape(b.transpose(b.matmul(scores, v), (0, 2, 1, 3)), (batch, tokens, inside))
        x = b.binary("Add", x, b.linear(mixed, width))
        hidden = gelu(b, b.linear(b.layer_norm(x), 4 * draw.integer(width // 3, width)))
        x = b.binary("Add", x, b.linear(hidden, width))
    return b.gemm(b.reduce_mean(b.layer_norm(x), (1,)), 10)


def mlp(b: GraphBuilder, draw: Draw) -> Value:
    """Linear layers with pruned widths on a vector."""
    x = b.input((1, draw.pick(64, 256, 784, 1024)))
    for _ in range(draw.pick(2, 3, 5, 8)):
        x = b.gemm(x, _width(draw, draw.pick(256, 512, 1024)), act="Relu")
    return b.gemm(x, 10)


def mobilenet_v1(b: GraphBuilder, draw: Draw) -> Value:
    """Depthwise separable convolutions (Howard 2017)."""
    x = b.conv(_image(b, draw, 32, 48, 64), _width(draw, 32), 3, stride=draw.pick(1, 2))
    for full, repeats, stride in ((64, 1, 1), (128, 2, 2), (256, 2, 2), (384, 3, 1)):
        for block in range(draw.integer(1, repeats)):
            x = b.conv(x, x.shape[1], 3, stride=stride if block == 0 else 1, groups=x.shape[1])
            x = b.conv(x, _width(draw, full), 1)
    return _classify(b, x)


FAMILIES: dict[str, Family] = {
    "resnet": resnet,
    "vgg": vgg,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "squeezenet": squeezenet,
    "resnext": resnext,
    "inception": inception,
    "transformer": transformer,
    "mlp": mlp,
    "mobilenet_v1": mobilenet_v1,
}


class _Factorising(GraphBuilder):
    """Splits most square convolutions in two, as low_rank and tucker do: k x k then 1 x 1, or k x 1 then 1 x k."""

    def conv(
        self,
        x: Value,
        channels: int,
        kernel: int | tuple[int, ...] = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        act: str | None = "Relu",
        add: Value | None = None,
    ) -> Value:
        if groups == 1 and isinstance(kernel, int) and kernel > 1 and self.generator.random() < 0.7:
            rank = max(4, 4 * round(float(self.generator.uniform(0.2, 0.6)) * min(x.shape[1], channels) / 4))
            if stride == 1 and self.generator.random() < 0.5:
                first = super().conv(x, rank, (kernel, 1), act=None)
                return super().conv(first, channels, (1, kernel), act=act, add=add)
            first = super().conv(x, rank, kernel, stride=stride, act=None)
            return super().conv(first, channels, 1, act=act, add=add)
        return super().conv(x, channels, kernel, stride=stride, groups=groups, act=act, add=add)


def family_networks(
    per_family: int,
    scheme: Scheme,
    seed: int,
    *,
    families: Mapping[str, Family] = FAMILIES,
    batch: int = 1,
    factorised: bool = False,
) -> list[Sample]:
    """`per_family` networks of every family; the same seed gives the same networks in every scheme and batch.

    Of those in int8 every fourth is so in part: its elementwise operators stay in float.
    """
    samples = []
    kind = _Factorising if factorised else GraphBuilder
    for number, (family, make) in enumerate(families.items()):
        for index in range(per_family):
            generator = np.random.default_rng([seed, 2000 + number, index])
            builder = kind(scheme, generator, quantise_elementwise=index % 4 != 3, batch=batch)
            output = make(builder, Draw(generator))
            samples.append(Sample(f"{family}.{scheme}.{index}", family, scheme, builder.finish(output)))
    return samples
