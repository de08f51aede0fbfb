"""The micro models of a calibration: which kinds there are, how many of each, and how they stand in their model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from automc.measure import networks as made
from automc.measure.builder import GraphBuilder, Scheme
from automc.measure.networks import Draw, Micro, Sample

# share of the micro models each kind gets: as much as its share of networks' time, and of the ways it can differ
MICRO: dict[str, tuple[Micro, int]] = {
    "conv_dense": (made.conv_dense, 18),
    "conv_pointwise": (made.conv_pointwise, 16),
    "conv_narrow": (made.conv_narrow, 9),
    "conv_asymmetric": (made.conv_asymmetric, 5),
    "conv_depthwise": (made.conv_depthwise, 9),
    "conv_grouped": (made.conv_grouped, 8),
    "conv_chain": (made.conv_chain, 8),
    "conv_residual": (made.conv_residual, 6),
    "squeeze_excite": (made.squeeze_excite, 4),
    "gemm": (made.gemm, 6),
    "linear": (made.linear, 7),
    "attention": (made.attention, 4),
    "elementwise": (made.elementwise, 7),
    "unary": (made.unary, 8),
    "pool": (made.pool, 10),
    "concat": (made.concat, 4),
    "shuffle": (made.shuffle, 1),
    "split": (made.split, 1),
    "pad": (made.pad, 1),
    "slicing": (made.slicing, 1),
    "resize": (made.resize, 1),
    "tokens": (made.tokens, 1),
    "conv_signal": (made.conv_signal, 9),
    "lookup": (made.lookup, 3),
    "unpacked": (made.unpacked, 6),
}
INSIDE = frozenset({
    "conv_dense", "conv_pointwise", "conv_narrow", "conv_asymmetric", "conv_depthwise", "conv_grouped", "conv_chain",
    "conv_residual", "squeeze_excite", "pool", "concat",
})  # fmt: skip
"""Kinds on pictures. By themselves their time is also that of bringing a wide picture into the layout of convolutions
and back, which a network does once and with few channels; on several threads that takes up to four times as long as it
has to, for channels whose lines two cores write at once."""
LEAST = 2  # micro models of a kind, however few there are in all


def micro_models(count: int, scheme: Scheme, seed: int, *, inside: bool = False) -> list[Sample]:
    """About `count` micro models, each kind in proportion to its share, LEAST at least; one seed, the same models.

    inside: most kinds on pictures stand between thin convolutions (`GraphBuilder.inside`); in float every second one,
    as what is brought into the layout of convolutions and back is a smaller part there, and networks have it too.
    """
    shares = np.array([share for _, share in MICRO.values()], dtype=float)
    wanted = np.maximum(LEAST, np.round(shares / shares.sum() * count)).astype(int)
    samples = []
    for (kind, (make, _)), number in zip(MICRO.items(), wanted, strict=True):
        for index in range(int(number)):
            # one stream per model and the same one for every scheme: fp32 and int8 time the same shapes
            generator = np.random.default_rng([seed, list(MICRO).index(kind), index])
            builder = GraphBuilder(scheme, generator, quantise_elementwise=index % 4 != 3)
            builder.inside = inside and kind in INSIDE and (index % 2 == 1 if scheme == "fp32" else index % 4 != 1)
            output = builder.leave(make(builder, Draw(generator)))
            samples.append(Sample(f"{kind}.{scheme}.{index}", kind, scheme, builder.finish(output)))
    return samples


def essential(samples: Sequence[Sample]) -> list[Sample]:
    """The first LEAST of every kind of micro model: timed before all others, so that a short calibration knows them."""
    seen: dict[tuple[str, str], int] = {}
    chosen = []
    for sample in samples:
        key = (sample.kind, sample.scheme)
        seen[key] = seen.get(key, 0) + 1
        if sample.kind in MICRO and seen[key] <= LEAST:
            chosen.append(sample)
    return chosen
