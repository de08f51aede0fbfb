"""Further models of a calibration: micro models on several samples, streams of activations, weights in a row.

Micro models of one sample stay within the caches. What main memory costs, and what weights cost that are as large as
the core's own cache, shows in models that leave them.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx

from automc.cost.caches import held_bytes
from automc.cost.graph import graph_from_onnx
from automc.cost.kernels import KernelGraph
from automc.measure.builder import GraphBuilder, Scheme, Value
from automc.measure.micro_models import INSIDE, MICRO
from automc.measure.networks import Draw, Micro, Sample

LARGE_MACS = 120e6  # about 5 ms in float on one core at 25 GMAC/s
LARGE_BYTES = 150e6  # moved by all kernels: about as long at 30 GB/s
SMALL_BYTES = 0.7e6  # weights and live activations of less stay in the caches of today's cores
BATCHES = (4, 8, 16, 32)
STREAMING = "large_streaming"
"""The kind of models that tell what main memory costs."""
TRIES = 50  # drawn at most for one model that is neither too large nor too small


def streaming(b: GraphBuilder, draw: Draw) -> Value:
    """Much data and little work on each: 0.5 to 5 million elements go in, and a few operators pass them on."""
    channels, size = draw.channels(8, 48), draw.integer(12, 64)
    elements = 0.5e6 * 10 ** float(draw.generator.random())
    b.batch = int(np.clip(round(elements / (channels * size * size)), 1, 64))
    x = b.input((1, channels, size, size))
    op = draw.word("Add", "Relu", "pool", "depthwise", "pointwise", "pointwise", "residual")
    if op == "Add":
        return b.binary("Add", x, b.unary("Relu", x))
    if op == "Relu":
        return b.unary("Relu", x)
    x = b.conv(x, channels, 1, act="Relu")
    if op == "pool":
        return b.conv(b.pool(x, draw.word("MaxPool", "AveragePool"), draw.pick(2, 3), 2), 16, 1)
    if op == "depthwise":
        return b.conv(x, channels, 3, stride=draw.pick(1, 2), groups=channels, act="Relu")
    return b.conv(x, channels, 1, act="Relu", add=x if op == "residual" else None)


def irregular(b: GraphBuilder, draw: Draw) -> Value:
    """Depthwise convolutions off the block of channels on small pictures: a call a group, whatever little it does."""
    channels, size, kernel = draw.integer(9, 160), draw.integer(4, 24), draw.pick(3, 3, 5)
    b.batch = draw.pick(1, 4, 16)
    x = b.input((1, channels + (channels % 4 == 0), size, size))
    return b.conv(x, x.shape[1], kernel, stride=draw.pick(1, 1, 2), groups=x.shape[1], act="Relu")


def weights(b: GraphBuilder, draw: Draw) -> Value:
    """Layers on a vector, 0.1 to 2 million weights in all: their time is reading them."""
    layers = draw.pick(1, 2, 3, 4, 6)
    width = int(np.sqrt(0.1e6 * 20 ** float(draw.generator.random()) / layers))
    x = b.input((1, max(8, draw.integer(width // 2, 2 * width))))
    for _ in range(layers):
        x = b.gemm(x, max(8, draw.integer(width // 2, 2 * width)), act="Relu" if draw.chance(0.7) else None)
    return x


def linear_on_samples(b: GraphBuilder, draw: Draw) -> Value:
    """Layers that meet several vectors at once: their weights, packed, are larger than those of micro models."""
    x = b.input((draw.pick(2, 4, 8, 16, 16, 32, 64), draw.integer(128, 1024)))
    for _ in range(draw.pick(1, 2, 3)):
        x = b.gemm(x, draw.integer(128, 1024), act="Relu" if draw.chance(0.7) else None)
    return x


ON_SAMPLES = (
    "conv_dense", "conv_pointwise", "conv_narrow", "conv_asymmetric", "conv_depthwise", "conv_grouped", "conv_chain",
    "conv_residual", "squeeze_excite", "linear", "attention", "elementwise", "unary", "pool", "concat",
)  # fmt: skip
LARGE: dict[str, tuple[Micro, int]] = {
    **{kind: (MICRO[kind][0], 6) for kind in ON_SAMPLES},
    "streaming": (streaming, 24),
    "weights": (weights, 20),
    "linear_on_samples": (linear_on_samples, 12),
    "irregular": (irregular, 12),
}
"""How each kind is made, and its share. Only those on samples are held to `SMALL_BYTES`: the others cross the limits of
caches by their own ranges, and irregular ones are not large, only too few among the micro models."""


LINEAR = ("weights", "linear_on_samples")
"""The cheapest, in microseconds each: without them a calibration knows nothing of an MLP."""


def large_models(
    count: int, scheme: Scheme, seed: int, kinds: Collection[str] = tuple(LARGE), *, inside: bool = False
) -> list[Sample]:
    """About `count` models larger than the micro models, of these kinds; one seed, the same models.

    inside: those on pictures stand between thin convolutions (`micro_models.INSIDE`).
    """
    total = sum(share for kind, (_, share) in LARGE.items() if kind in kinds)
    samples = []
    for index, (kind, (make, share)) in enumerate(LARGE.items()):
        for number in range(round(share / total * count) if kind in kinds else 0):
            for attempt in range(TRIES):
                generator = np.random.default_rng([seed, 2000, index, number, attempt])
                builder = GraphBuilder(scheme, generator, quantise_elementwise=number % 4 != 3)
                if kind in ON_SAMPLES:
                    builder.batch = int(generator.choice(BATCHES))
                    builder.inside = inside and kind in INSIDE
                model = builder.finish(builder.leave(make(builder, Draw(generator))))
                if _affordable(graph_from_onnx(onnx.load_from_string(model)), small=kind not in ON_SAMPLES):
                    samples.append(Sample(f"large_{kind}.{scheme}.{number}", f"large_{kind}", scheme, model))
                    break
    return samples


def _affordable(graph: KernelGraph, *, small: bool) -> bool:
    """small: whether it may stay in the core's own cache."""
    moved = sum(row.bytes_in + row.bytes_out + row.bytes_weights for row in graph.rows)
    macs = sum(row.macs for row in graph.rows)
    return macs <= LARGE_MACS and moved <= LARGE_BYTES and (small or held_bytes(graph) >= SMALL_BYTES)
