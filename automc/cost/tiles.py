"""What a CPU runtime works in: blocks of channels, tiles of a product; shared by all columns of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from automc.cost.kernels import KernelRow

Columns = dict[str, float]
"""Non-negative quantities of a kernel by name; counts in millions, bytes in millions of bytes."""

ROWS = 12  # rows of A per step of the matrix kernel, SgemmKernelAvx512F.S


@dataclass(frozen=True)
class Machine:
    """What the tiles and caches are: channels per block, and bytes of the cache a core has for itself.

    columns: "tiles" of this host's runtime (`features.py`), or the "work" of the graph itself (`work.py`) on a device
    whose kernels are not known; block and caches then play no part.
    spill: shares of the cache that a network's data fill, from which on some and at which all of it has left the cache
    before it is needed again; None, in calibrations of earlier versions: what exceeds the cache has left it.
    shared_bytes: of the last cache, which all cores share; None where it is not known, and in earlier calibrations.
    weight_spill: as spill, of weights; None where it was not looked for: `caches.WEIGHT_SPILL`.
    reads: what decides whether a kernel finds the activations it reads in the core's own cache: all that the "network"
    holds, or what the "kernel" itself touches, as the one before it has just written them.
    threads: that share one kernel; with several, what is too little work to share has a price of its own.
    pieces: whether what the busiest thread has to do is counted (`sharing.unevenness`); not in earlier calibrations.
    """

    block: int = 16
    cache_bytes: int = 1 << 20
    columns: Literal["tiles", "work"] = "tiles"
    spill: tuple[float, float] | None = None
    shared_bytes: int | None = None
    threads: int = 1
    weight_spill: tuple[float, float] | None = None
    reads: Literal["network", "kernel"] = "network"
    pieces: bool = False


def channels_of(shape: Sequence[int], row: KernelRow) -> int:
    return shape[-1] if row.layout == "nhwc" else shape[1]


def pixels_of(shape: Sequence[int], row: KernelRow) -> tuple[int, int]:
    """(rows, columns) of a feature map; one-dimensional maps have one row."""
    spatial = tuple(shape[1:-1]) if row.layout == "nhwc" else tuple(shape[2:])
    return (1, spatial[0]) if len(spatial) == 1 else (prod(spatial[:-1]), spatial[-1])


def product(m: int, n: int, k: int, batch: int) -> Columns:
    """A product of (m, k) and (k, n): whole tiles, the rows left over, and the columns left over."""
    whole, rest = m // ROWS * ROWS, m % ROWS
    wide = round_up(n, 16)
    work = k * batch / 1e6
    return {
        "macs_tiles": whole * wide * work,
        "macs_rows_left": rest * wide * work,
        "steps_rows_left": wide * work * (rest > 0),
        "macs_odd_columns": m * (wide - n) * work,
        "tile_starts": -(-m // ROWS) * (wide / 32) * -(-k // 128) * batch / 1e6,
    }


def round_up(count: int, step: int) -> int:
    return -(-count // step) * step
