"""Whether the rows of a table can be measurements of such a device: against physics, against each other."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from automc.errors import ConfigError
from automc.profiles import DeviceKind

if TYPE_CHECKING:
    from automc.cost.few_networks import FewNetworksFit
    from automc.importing.assemble import Device, TimedNetwork

IMPOSSIBLE_RATIO = 100.0  # off by more than any runtime's worst kernel, less than a mistaken unit
RATES: dict[DeviceKind, tuple[float, float]] = {
    "server CPU": (1e9, 2e13), "desktop CPU": (3e8, 1e13), "laptop CPU": (2e8, 1e13), "phone": (1e8, 5e12),
    "single-board computer": (3e7, 5e12), "embedded GPU": (1e9, 1e14), "GPU": (1e10, 1e15), "NPU": (1e9, 1e15),
    "FPGA": (1e8, 1e14),
}  # fmt: skip
"""Multiply-accumulates a second of the network that makes the best use of such a device: from a tenth of what the
slowest of its kind in public tables reaches to ten times what the fastest does, batch 1 or more."""
BEYOND_TABLES = 10.0  # of RATES, what lies beyond what public tables show
CONTRADICTION = 1.5  # of two timings of the same kernels, which differ by weights alone
SLOW_KERNEL_MS = 1.0  # no kernel takes less than a microsecond


def alike(rows: Sequence[TimedNetwork]) -> list[int]:
    """A label of each row, the same for networks that run the same kernels, under whatever name.

    One of them left out would be known by the others.
    """
    seen: dict[Hashable, int] = {}
    keys = (tuple(replace(kernel, name="") for kernel in row.graph.rows) for row in rows)
    return [seen.setdefault(key, len(seen)) for key in keys]


def check_copies(rows: Sequence[TimedNetwork], labels: Sequence[int]) -> None:
    """Raises ConfigError where networks of the same kernels (`labels` as of `alike`) took times far apart."""
    first: dict[int, TimedNetwork] = {}
    for row, label in zip(rows, labels, strict=True):
        before = first.setdefault(label, row)
        if max(row.latency_ms / before.latency_ms, before.latency_ms / row.latency_ms) > CONTRADICTION:
            raise ConfigError(
                f"{row.where}: {row.name!r} took {row.latency_ms:g} ms, and {before.name!r}, which runs the same "
                f"kernels, {before.latency_ms:g} ms ({before.where})",
                next_step="measure both again, or keep the row that is right",
            )


def check_apart(rows: Sequence[TimedNetwork]) -> None:
    """Raises ConfigError on a network that is there twice, or where all take the same time."""
    first: dict[str, TimedNetwork] = {}
    for row in rows:
        before = first.setdefault(row.name, row)
        if before is not row:
            raise ConfigError(
                f"{row.where}: {row.name!r} is there twice ({before.where}: {before.latency_ms:g} ms, here "
                f"{row.latency_ms:g} ms): left out, it would be known by its other row",
                next_step="keep one row of each network",
            )
    if len(rows) > 1 and len({row.latency_ms for row in rows}) == 1:
        raise ConfigError(
            f"{rows[0].where} and all others: every network takes {rows[0].latency_ms:g} ms, which tells no cost apart",
            next_step="measure each network by itself",
        )


def check_rate(rows: Sequence[TimedNetwork], device: Device) -> None:
    """Raises ConfigError where no device of this kind is so fast or slow: the column is in another unit."""
    low, high = RATES[device.kind]
    best, rate = _best_rate(rows)
    if not low <= rate <= high:
        unit = "seconds" if rate > high else "microseconds" if 1e3 * rate >= low else "nanoseconds"
        raise ConfigError(
            f"{best.where}: {best.name!r} in {best.latency_ms:g} ms would be {rate:.1e} multiply-accumulates a second; "
            f"a {device.kind} makes {low:.0e} to {high:.0e}. Are these {unit}?",
            next_step="convert the column to milliseconds, or name another kind of device",
        )


def doubted_unit(rows: Sequence[TimedNetwork], device: Device) -> str | None:
    """Why the column may be in another unit after all: it would make this the slowest, or fastest, device of its kind.

    A table of small networks alone shows no high rate either, but then their kernels are short.
    """
    low, high = RATES[device.kind]
    best, rate = _best_rate(rows)
    shortest = min(row.latency_ms / max(1, len(row.graph.rows)) for row in rows)
    if rate > high / BEYOND_TABLES:
        unit, beyond = "seconds", f"more than the {high / BEYOND_TABLES:.0e}"
    elif rate < low * BEYOND_TABLES and shortest > SLOW_KERNEL_MS:
        unit, beyond = "microseconds", f"less than the {low * BEYOND_TABLES:.0e}"
    else:
        return None
    return (
        f"its column may be in {unit}: {best.name!r} in {best.latency_ms:g} ms would be {rate:.1e} "
        f"multiply-accumulates a second, {beyond} of any {device.kind} in public tables"
    )


def _best_rate(rows: Sequence[TimedNetwork]) -> tuple[TimedNetwork, float]:
    """The network that gets most multiply-accumulates done in a second, and how many."""
    best = max(rows, key=lambda row: row.graph.macs / row.latency_ms)
    return best, best.graph.macs / best.latency_ms * 1e3


def _worst(rows: Sequence[TimedNetwork], found: FewNetworksFit) -> tuple[TimedNetwork, float]:
    """The row that all others contradict most, and what was measured over what they say."""
    ratios = np.where(np.isfinite(found.ratios), found.ratios, 1.0)
    at = int(np.argmax(np.abs(np.log(ratios))))
    return rows[at], float(ratios[at])


def furthest(rows: Sequence[TimedNetwork], found: FewNetworksFit) -> str:
    row, ratio = _worst(rows, found)
    return f"{row.name!r}: {row.latency_ms:.3g} ms measured, about {row.latency_ms / ratio:.3g} said by the others"


def check_each(rows: Sequence[TimedNetwork], found: FewNetworksFit) -> None:
    """Raises ConfigError on a row that all others contradict by more than any network differs from another."""
    row, ratio = _worst(rows, found)
    if max(ratio, 1 / ratio) > IMPOSSIBLE_RATIO:
        raise ConfigError(
            f"{row.where}: {row.name!r} in {row.latency_ms:g} ms, where the other rows say about "
            f"{row.latency_ms / ratio:.3g} ms: mixed-up units, or no measurement",
            next_step="bring all rows to milliseconds, or delete this one",
        )
