"""The front for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from automc.report.svg import accuracy_of
from automc.run import FrontPoint
from automc.trial import Figure

if TYPE_CHECKING:
    from rich.table import Table

Column = tuple[str, str, str]
"""heading, name of the figure, format"""
COLUMNS: tuple[Column, ...] = (
    ("latency ms", "latency_ms", "#.3g"),
    ("speed-up", "speedup", ".2f"),
    ("drop, points", "test_drop_points", "+.2f"),
    ("kB", "size_bytes", ",.1f"),
)


def front_table(points: Sequence[FrontPoint], *, metric: str = "accuracy") -> Table:
    """One row a finalist in the order given; the chosen one in bold, those beaten in every objective dimmed."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, caption_justify="left")
    table.add_column("no.", justify="right")
    table.add_column("recipe", overflow="fold")
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(metric.replace("_", " "), justify="right", no_wrap=True)
    table.add_column("")
    for number, point in enumerate(points, start=1):
        marks = ["chosen"] * point.chosen + [f"anchor {point.anchor}"] * bool(point.anchor)
        marks += ["beaten"] * (not point.on_front)
        cells = [_cell(point.figures.get(name), digits) for _, name, digits in COLUMNS]
        style = "bold" if point.chosen else "dim" if not point.on_front else None
        accuracy = _cell(accuracy_of(point), ".4f")
        table.add_row(str(number), str(point.trial.candidate), *cells, accuracy, ", ".join(marks), style=style)
    return table


def _cell(figure: Figure | None, digits: str) -> str:
    """An unknown is never shown as a number."""
    if figure is None:
        return "unknown"
    value = figure.value / 1000 if figure.unit == "bytes" else figure.value
    return f"{value:{digits}}"
