"""Charts as inline SVG: no script, no external resource, colours from CSS variables so that dark mode works."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from automc.run import FrontPoint
from automc.trial import Figure, Trial

Box = tuple[float, float, float, float]
"""left, top, right, bottom in SVG units"""

STYLE = """
svg.chart { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; width: 100%; height: auto; }
svg.chart { --ink: #22262b; --soft: #6a727c; --grid: #e3e2dd; --paper: #ffffff; --main: #0b6e99; --gold: #b4570b; }
svg.chart { --bad: #a8324a; --band: #0b6e991a; }
@media (prefers-color-scheme: dark) {
  svg.chart { --ink: #e8e6e1; --soft: #9aa3ad; --grid: #363b42; --paper: #1b1e22; --main: #5cb8e0; --gold: #f0a35a; }
  svg.chart { --bad: #ef8aa0; --band: #5cb8e026; }
}
svg.chart text { fill: var(--ink); }
svg.chart .soft { fill: var(--soft); }
svg.chart .grid { stroke: var(--grid); stroke-width: 1; }
svg.chart .axis { stroke: var(--soft); stroke-width: 1; }
svg.chart .whisker { stroke: var(--soft); stroke-width: 1; opacity: .65; }
svg.chart .stair { stroke: var(--main); stroke-width: 1.5; fill: none; opacity: .55; }
svg.chart .member { fill: var(--main); stroke: var(--paper); stroke-width: 1.5; }
svg.chart .beaten { fill: var(--paper); stroke: var(--soft); stroke-width: 1.75; }
svg.chart .chosen { fill: var(--gold); stroke: var(--paper); stroke-width: 1.5; }
svg.chart .ring { fill: none; stroke: var(--gold); stroke-width: 1.75; }
svg.chart .trial { fill: var(--soft); opacity: .35; }
svg.chart .leader { stroke: var(--soft); stroke-width: .75; }
svg.chart .halo { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
svg.chart .bar { fill: var(--main); }
svg.chart .bar.gold { fill: var(--gold); }
svg.chart .band { fill: var(--band); }
svg.chart .small { font-size: 12px; }
svg.chart .strong { font-weight: 600; }
svg.chart .frame { fill: var(--paper); }
"""


@dataclass(frozen=True)
class Scale:
    """Linear map of [low, high] in data units to [start, end] in SVG units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float, *, zero: bool = False) -> Scale:
        """A scale that holds all `values` with 6 % of room at each side; zero: from 0 on."""
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(0.0 if zero else low - room, high + room, start, end)

    def ticks(self, about: int = 6) -> list[float]:
        """Round values (1, 2 or 5 times a power of ten apart) inside the scale, about so many."""
        raw = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [step * index for index in range(first, last + 1)]


def shown(value: float) -> str:
    """A tick's text: no more digits than it has, no minus zero."""
    return f"{value + 0.0:.6g}"


def svg(width: float, height: float, title: str, description: str, parts: Sequence[str], style: str = "") -> str:
    """The element with its accessible name; style: CSS to carry along where the picture stands alone."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width:g} {height:g}" role="img"'
    inner = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    inner += f"<style>{style}</style>" if style else ""
    return f"{head}>{inner}{''.join(parts)}</svg>"


def text(x: float, y: float, content: str, *, anchor: str = "start", css: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def dot(x: float, y: float, radius: float, css: str, tip: str = "") -> str:
    title = f"<title>{escape(tip)}</title>" if tip else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{css}">{title}</circle>'


def diamond(x: float, y: float, radius: float, css: str, tip: str = "") -> str:
    path = f"M{x:.1f} {y - radius:.1f}L{x + radius:.1f} {y:.1f}L{x:.1f} {y + radius:.1f}L{x - radius:.1f} {y:.1f}Z"
    return f'<path d="{path}" class="{css}"><title>{escape(tip)}</title></path>'


def axes(x: Scale, y: Scale, x_label: str, y_label: str) -> list[str]:
    """Grid, ticks and labels; x.start..x.end and y.start (bottom)..y.end (top) are the frame."""
    parts = []
    for tick in y.ticks():
        parts.append(line(x.start, y(tick), x.end, y(tick), "grid"))
        parts.append(text(x.start - 8, y(tick) + 4, shown(tick), anchor="end", css="soft"))
    for tick in x.ticks(8):
        parts.append(line(x(tick), y.start, x(tick), y.start + 5, "axis"))
        parts.append(text(x(tick), y.start + 20, shown(tick), anchor="middle", css="soft"))
    parts.append(line(x.start, y.start, x.end, y.start, "axis"))
    parts.append(text((x.start + x.end) / 2, y.start + 42, x_label, anchor="middle"))
    parts.append(text(x.start - 48, y.end - 14, y_label))
    return parts


def _points(figure: Figure, value: float) -> float:
    return 100 * value if figure.unit == "fraction" else value


def accuracy_of(point: FrontPoint) -> Figure:
    """The figure of accuracy the front is drawn by: the test split where it was touched, else validation."""
    return point.figures.get("test_accuracy") or point.figures["accuracy"]


def name_of(number: int, point: FrontPoint) -> str:
    marks = [point.anchor] if point.anchor else []
    marks += ["chosen"] if point.chosen else []
    return f"{number} {', '.join(marks)}".strip()


def front_svg(points: Sequence[FrontPoint], *, metric: str = "accuracy", standalone: bool = False) -> str:
    """Latency against accuracy of the finalists, numbered in the order given, with the intervals of both.

    standalone: carries its own style and background, for a file of its own. Of no points it is an empty frame.
    """
    width, height = 880.0, 470.0
    accuracies = [accuracy_of(point) for point in points]
    latencies = [point.figures["latency_ms"] for point in points]
    x = Scale.around([v for f in latencies for v in (f.low, f.value, f.high)] or [0.0, 1.0], 70, width - 24)
    y_values = [_points(f, v) for f in accuracies for v in (f.low, f.value, f.high)]
    y = Scale.around(y_values or [0.0, 1.0], height - 62, 44)
    parts = [f'<rect width="{width:g}" height="{height:g}" class="frame"/>'] if standalone else []
    measured = all(figure.kind == "measured" for figure in latencies)
    label = f"Latency, ms ({'measured, 10th percentile' if measured else 'predicted'})"
    parts += axes(x, y, label, _accuracy_label(metric, accuracies))
    spots = [(x(f.value), y(_points(a, a.value))) for f, a in zip(latencies, accuracies, strict=True)]
    down = any(figure.direction == "min" for figure in accuracies)
    parts.append(_stair([spot for spot, point in zip(spots, points, strict=True) if point.on_front], down))
    for (px, py), latency, accuracy in zip(spots, latencies, accuracies, strict=True):
        parts.append(line(px, y(_points(accuracy, accuracy.low)), px, y(_points(accuracy, accuracy.high)), "whisker"))
        parts.append(line(x(latency.low), py, x(latency.high), py, "whisker"))
    for number, (point, (px, py)) in enumerate(zip(points, spots, strict=True), start=1):
        parts.append(_marker(point, px, py, _tip(number, point)))
    names = [name_of(number, point) for number, point in enumerate(points, start=1)]
    parts += _labels(names, spots, (x.start, y.end, x.end, y.start))
    parts += _legend(width)
    title = f"Pareto front: latency against {metric.replace('_', ' ')}"
    return svg(width, height, title, _described(points), parts, STYLE if standalone else "")


def _accuracy_label(metric: str, figures: Sequence[Figure]) -> str:
    label = metric.replace("_", " ").capitalize()
    if not figures:
        return label
    unit = ", %" if figures[0].unit == "fraction" else ""
    return f"{label}{unit} ({figures[0].split} split)" if figures[0].split else f"{label}{unit}"


def trials_svg(trials: Sequence[Trial], marked: Mapping[str, str], *, metric: str = "accuracy") -> str:
    """Every successful trial of one rung: predicted latency, where it is known, against accuracy.

    marked: candidate id to its label.
    """
    width, height = 880.0, 330.0
    good = [trial for trial in trials if trial.ok and "latency_ms" in (trial.figures or {})]
    unknown = sum(trial.ok for trial in trials) - len(good)
    figures = [trial["accuracy"] for trial in good]
    x = Scale.around([trial["latency_ms"].value for trial in good] or [0.0, 1.0], 70, width - 24)
    y = Scale.around([_points(figure, figure.value) for figure in figures] or [0.0, 1.0], height - 62, 44)
    parts = axes(x, y, "Latency, ms (predicted)", _accuracy_label(metric, figures))
    names: list[str] = []
    spots: list[tuple[float, float]] = []
    for trial, figure in zip(good, figures, strict=True):
        px, py = x(trial["latency_ms"].value), y(_points(figure, figure.value))
        label = marked.get(trial.candidate.id, "")
        tip = f"{trial.candidate}: {trial['latency_ms'].value:.4g} ms, {_points(figure, figure.value):.2f}"
        parts.append(dot(px, py, 5, "chosen" if label == "chosen" else "member" if label else "beaten", tip))
        names.append(label)
        spots.append((px, py))
    parts += _labels(names, spots, (x.start, y.end, x.end, y.start))
    described = f"{len(good)} candidates at the same fidelity"
    described += f"; {unknown} of unknown latency are not drawn" if unknown else ""
    return svg(width, height, "Every candidate at the top rung", described, parts)


def _tip(number: int, point: FrontPoint) -> str:
    accuracy, latency = accuracy_of(point), point.figures["latency_ms"]
    return (
        f"{number}: {point.trial.candidate}: {latency.value:.4g} ms ({latency.low:.4g} to {latency.high:.4g}), "
        f"{_points(accuracy, accuracy.value):.2f} ({_points(accuracy, accuracy.low):.2f} to "
        f"{_points(accuracy, accuracy.high):.2f})"
    )


def _described(points: Sequence[FrontPoint]) -> str:
    return "; ".join(_tip(number, point) for number, point in enumerate(points, start=1))


def _marker(point: FrontPoint, x: float, y: float, tip: str) -> str:
    css = "chosen" if point.chosen else "member" if point.on_front else "beaten"
    shape = diamond(x, y, 7.5, css, tip) if point.anchor else dot(x, y, 6, css, tip)
    return (dot(x, y, 11, "ring") if point.chosen else "") + shape


def _stair(spots: Sequence[tuple[float, float]], down: bool) -> str:
    """Steps through what no other spot beats: further left and higher, or lower where the metric is better `down`."""
    kept: list[tuple[float, float]] = []
    for px, py in sorted(spots, key=lambda spot: (spot[0], -spot[1] if down else spot[1])):
        if not kept or (py > kept[-1][1] if down else py < kept[-1][1]):
            kept.append((px, py))
    if len(kept) < 2:
        return ""
    path = f"M{kept[0][0]:.1f} {kept[0][1]:.1f}"
    for px, py in kept[1:]:
        path += f"H{px:.1f}V{py:.1f}"
    return f'<path d="{path}" class="stair"/>'


def _labels(names: Sequence[str], spots: Sequence[tuple[float, float]], frame: Box) -> list[str]:
    """Each name beside its spot where it covers no marker and no other name, with a leader line where it is far."""
    taken: list[Box] = [(px - 9, py - 9, px + 9, py + 9) for px, py in spots]
    parts = []
    for name, (px, py) in zip(names, spots, strict=True):
        if not name:
            continue
        wide = 7.2 * len(name)
        best: tuple[float, float, float, Box] | None = None
        for distance in (15.0, 26.0, 40.0, 58.0, 80.0):
            for angle in (-35, 35, -145, 145, -80, 80, 0, 180):
                cx = px + distance * math.cos(math.radians(angle))
                cy = py + distance * math.sin(math.radians(angle))
                left = cx if abs(angle) < 90 else cx - wide
                box = (left, cy - 8, left + wide, cy + 6)
                cost = sum(_overlap(box, other) for other in taken) + _outside(box, frame) + 2 * distance
                if best is None or cost < best[0]:
                    best = (cost, cx, cy, box)
        if best is None:
            continue
        _, cx, cy, box = best
        taken.append(box)
        if math.hypot(cx - px, cy - py) > 20:
            parts.append(line(px, py, min(max(px, box[0]), box[2]), cy, "leader"))
        parts.append(text(box[0], cy + 4, name, css="halo strong"))
    return parts


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return 10 * wide * high if wide > 0 and high > 0 else 0.0


def _outside(box: Box, frame: Box) -> float:
    gaps = (frame[0] - box[0], frame[1] - box[1], box[2] - frame[2], box[3] - frame[3])
    return 1000 * sum(max(0.0, gap) for gap in gaps)


def _legend(width: float) -> list[str]:
    items = [
        (dot, "member", "on the front"), (dot, "beaten", "beaten by another"),
        (diamond, "member", "anchor"), (dot, "chosen", "chosen"),
    ]  # fmt: skip
    x, parts = width - 24.0, []
    for shape, css, label in reversed(items):
        x -= 6.6 * len(label)
        parts.append(text(x, 18, label, css="soft"))
        x -= 12
        parts.append(shape(x, 14, 5, css, label))
        x -= 20
    return parts


def kernels_svg(labels: Sequence[str], values_ms: Sequence[float], longest_ms: float, title: str, css: str = "") -> str:
    """Horizontal bars, one row per kernel in the order given; `longest_ms` fixes the scale for charts side by side."""
    row, left, width = 19.0, 208.0, 520.0
    height = row * len(labels) + 8
    scale = Scale(0.0, max(longest_ms, 1e-12), left, width - 62)
    parts = []
    for place, (label, value) in enumerate(zip(labels, values_ms, strict=True)):
        y = 4 + row * place
        parts.append(text(left - 8, y + 13, label, anchor="end", css="small"))
        parts.append(
            f'<rect x="{left:g}" y="{y + 3:.1f}" width="{max(scale(value) - left, 0.5):.1f}" height="{row - 6:g}" '
            f'rx="1.5" class="bar {css}"/>'
        )
        parts.append(text(scale(value) + 6, y + 13, f"{1000 * value:.3g} µs", css="soft"))
    described = "; ".join(f"{label} {1000 * value:.3g} µs" for label, value in zip(labels, values_ms, strict=True))
    return svg(width, height, title, described, parts)


def scatter_svg(pairs: Sequence[tuple[str, Figure, Figure]], band: float = 0.1) -> str:
    """Predicted (with its interval) against measured, both in ms; the band is +- `band` around equality."""
    width, height = 440.0, 370.0
    values = [v for _, p, m in pairs for v in (p.low, p.value, p.high, m.value)]
    x = Scale.around(values or [0.0, 1.0], 70, width - 20, zero=True)
    y = Scale(x.low, x.high, height - 62, 44)
    top = x.high / (1 + band)
    corners = ((0.0, 0.0), (top, x.high), (x.high, x.high), (x.high, x.high * (1 - band)))
    polygon = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in corners)
    parts = [f'<polygon points="{polygon}" class="band"/>']
    parts += axes(x, y, "Predicted latency, ms", "Measured latency, ms")
    parts.append(line(x(0), y(0), x(x.high), y(x.high), "axis"))
    parts.append(text(x(x.high) - 6, y(x.high * 0.86) + 12, f"±{100 * band:.0f} %", anchor="end", css="soft"))
    for _, predicted, measured in pairs:
        parts.append(line(x(predicted.low), y(measured.value), x(predicted.high), y(measured.value), "whisker"))
        parts.append(line(x(predicted.value), y(measured.low), x(predicted.value), y(measured.high), "whisker"))
    spots = [(x(predicted.value), y(measured.value)) for _, predicted, measured in pairs]
    for (name, predicted, measured), (px, py) in zip(pairs, spots, strict=True):
        parts.append(
            dot(px, py, 5, "member", f"{name}: {predicted.value:.4g} predicted, {measured.value:.4g} measured")
        )
    parts += _labels([name for name, _, _ in pairs], spots, (x.start, y.end, x.end, y.start))
    described = "; ".join(f"{name}: {p.value:.4g} ms predicted, {m.value:.4g} ms measured" for name, p, m in pairs)
    return svg(width, height, "Predicted against measured latency", described, parts)


def change_svg(middle: float, low: float, high: float, extent: float, good_is_negative: bool) -> str:
    """A bar from zero for a change, its range as a whisker; `extent` is the largest absolute change to be drawn."""
    width, height, centre = 96.0, 16.0, 48.0
    reach = 44.0 / max(extent, 1e-9)
    css = "bar" if (middle <= 0) == good_is_negative else "bar gold"
    x = centre + min(0.0, middle) * reach
    parts = [
        f'<rect x="{x:.1f}" y="4" width="{max(abs(middle) * reach, 0.5):.1f}" height="8" class="{css}"/>',
        line(centre + low * reach, 8, centre + high * reach, 8, "axis"),
        line(centre, 1, centre, 15, "axis"),
    ]
    return svg(width, height, "change", f"{middle:+.3g} ({low:+.3g} to {high:+.3g})", parts)
