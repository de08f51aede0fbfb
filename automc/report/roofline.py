"""The roofline of a run's networks: how much work a kernel does with each byte, against how fast it does it.

Source: Williams, Waterman, Patterson 2009, "Roofline: An Insightful Visual Performance Model for Multicore
Architectures". The roofs are not the vendor's: they are the best that any kernel drawn here is predicted to reach.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from automc.cost.kernels import KernelRow, Precision
from automc.cost.predictor import KernelCost
from automc.report.data import KernelTimes
from automc.report.svg import Scale, axes, diamond, dot, line, shown, svg, text

WIDTH, HEIGHT = 880.0, 430.0
ROOM = 1.25
"""Factor left beyond the outermost value at each end of an axis."""
SMALLEST, LARGEST = 3.0, 9.0
"""Radius of a mark, SVG units: the area beyond SMALLEST grows with the kernel's time."""
APART = 18.0
"""SVG units below which the names of two roofs would lie on each other."""


class LogScale(Scale):
    """Logarithmic map of [low, high], both positive, to [start, end]."""

    def __call__(self, value: float) -> float:
        return self.start + math.log(value / self.low) / math.log(self.high / self.low) * (self.end - self.start)

    def ticks(self, about: int = 6) -> list[float]:
        """Powers of ten inside the scale; where those are fewer than three, twice and five times them too."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1,), (1, 2, 5)):
            found = [factor * 10.0**power for power in powers for factor in factors]
            inside = [value for value in found if self.low <= value <= self.high]
            if len(inside) >= 3:
                break
        return inside


@dataclass(frozen=True)
class Spot:
    """One kernel that multiplies. intensity: MACs per byte it reads and writes. rate: GMAC/s, the predicted ones."""

    label: str
    row: KernelRow
    intensity: float
    rate: float
    latency_ms: float


@dataclass(frozen=True)
class Roofs:
    """The best of any predicted kernel: GMAC/s by precision, and GB/s over all that move bytes."""

    rate: dict[Precision, float]
    bandwidth: float

    def height(self, precision: Precision, intensity: float) -> float:
        """GMAC/s that a kernel of `intensity` can reach at most."""
        return min(self.rate[precision], intensity * self.bandwidth)


def spots_of(parts: Sequence[KernelTimes]) -> list[Spot]:
    """Kernels with MACs, bytes and a time above 0; the others have no place between the roofs."""
    return [
        Spot(part.label, kernel.row, kernel.row.macs / moved, kernel.row.macs / ms / 1e6, ms)
        for part in parts
        for kernel in part.kernels
        if (moved := _moved(kernel)) and kernel.row.macs and (ms := kernel.latency_ms.value)
    ]


def roofs_of(parts: Sequence[KernelTimes]) -> Roofs:
    """Of networks that hold at least one of `spots_of`. A kernel that only moves bytes counts for the bandwidth."""
    rate: dict[Precision, float] = {}
    for spot in spots_of(parts):
        rate[spot.row.precision] = max(spot.rate, rate.get(spot.row.precision, 0.0))
    timed = [kernel for part in parts for kernel in part.kernels if kernel.latency_ms.value]
    return Roofs(rate, max(_moved(kernel) / kernel.latency_ms.value / 1e6 for kernel in timed))


def _moved(kernel: KernelCost) -> int:
    return kernel.row.bytes_in + kernel.row.bytes_out + kernel.row.bytes_weights


def roofline_svg(parts: Sequence[KernelTimes]) -> str | None:
    """The kernels of each network under their roofs, both axes logarithmic; None where no kernel has a place.

    Colours are those of the kernels' bars: the first network's and the other's. int8 is a diamond.
    """
    spots = spots_of(parts)
    if not spots:
        return None
    roofs = roofs_of(parts)
    x, y = scales(spots, roofs)
    drawn = axes(x, y, "MACs per byte that the kernel reads and writes", "Predicted GMAC/s")
    lines, names = _roof_lines(roofs, x, y)
    drawn += lines
    longest = max(spot.latency_ms for spot in spots)
    first = parts[0].label
    for spot in sorted(spots, key=lambda spot: -spot.latency_ms):  # small marks lie on large ones
        mark = diamond if spot.row.precision == "int8" else dot
        radius = SMALLEST + (LARGEST - SMALLEST) * math.sqrt(spot.latency_ms / longest)
        css = "member" if spot.label == first else "chosen"
        drawn.append(mark(x(spot.intensity), y(spot.rate), round(radius, 1), css, _tip(spot, roofs)))
    drawn += names
    drawn += _legend([part.label for part in parts])
    best = ", ".join(f"{precision} {_digits(rate)} GMAC/s" for precision, rate in roofs.rate.items())
    described = f"{len(spots)} kernels; roofs: {best}, {_digits(roofs.bandwidth)} GB/s"
    return svg(WIDTH, HEIGHT, "Roofline of the kernels", described, drawn)


def scales(spots: Sequence[Spot], roofs: Roofs) -> tuple[LogScale, LogScale]:
    """Axes that hold every spot, and so every corner of the roofs: none is right of the kernel that it comes from."""
    intensities, rates = [spot.intensity for spot in spots], [spot.rate for spot in spots]
    across = LogScale(min(intensities) / ROOM, max(intensities) * ROOM, 70, WIDTH - 24)
    return across, LogScale(min(rates) / ROOM, max(roofs.rate.values()) * ROOM, HEIGHT - 62, 44)


def _roof_lines(roofs: Roofs, x: LogScale, y: LogScale) -> tuple[list[str], list[str]]:
    """The slope of the bandwidth up to the highest roof and each precision's roof from the slope on; their names."""
    left, right = max(x.low, y.low / roofs.bandwidth), max(roofs.rate.values()) / roofs.bandwidth
    lines, names = [], []
    if left < right:
        lines.append(line(x(left), y(left * roofs.bandwidth), x(right), y(right * roofs.bandwidth), "axis"))
        middle = math.sqrt(left * right)
        at = max(x(middle) - 10, x.start + 70)
        name = f"{_digits(roofs.bandwidth)} GB/s"
        names.append(text(at, y(middle * roofs.bandwidth) - 6, name, anchor="end", css="soft halo small"))
    above: float | None = None
    for precision, rate in sorted(roofs.rate.items(), key=lambda item: -item[1]):
        lines.append(line(x(max(x.low, rate / roofs.bandwidth)), y(rate), x.end, y(rate), "axis"))
        close = above is not None and y(rate) - above < APART
        name = f"{precision} {_digits(rate)} GMAC/s"
        names.append(text(x.end - 4, y(rate) + (15 if close else -6), name, anchor="end", css="soft halo small"))
        above = y(rate)
    return lines, names


def _tip(spot: Spot, roofs: Roofs) -> str:
    row = spot.row
    shape = "×".join(map(str, row.output_shape[1:]))
    reached = spot.rate / roofs.height(row.precision, spot.intensity)
    return (
        f"{spot.label}: {row.op} {row.precision} {shape}: {_digits(spot.rate)} GMAC/s, {_digits(spot.intensity)} "
        f"MACs per byte, {_digits(1000 * spot.latency_ms)} µs, {reached:.1%} of its roof"
    )


def _digits(value: float) -> str:
    """Three digits that count, and no power of ten: 2,340.4 is "2340"."""
    return shown(float(f"{value:.3g}"))


def _legend(labels: Sequence[str]) -> list[str]:
    items = [(dot, "member" if place == 0 else "chosen", label) for place, label in enumerate(labels)]
    items += [(dot, "beaten", "fp32"), (diamond, "beaten", "int8")]
    at, drawn = WIDTH - 24.0, []
    for shape, css, label in reversed(items):
        at -= 6.6 * len(label)
        drawn.append(text(at, 18, label, css="soft"))
        at -= 12
        drawn.append(shape(at, 14, 5, css, label))
        at -= 26
    return drawn
