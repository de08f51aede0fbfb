"""What tables of the report are filled with: figures, marks and recipes as text."""

from __future__ import annotations

from typing import TypedDict

from markupsafe import Markup

from automc.candidate import Candidate
from automc.trial import Figure


class Cell(TypedDict):
    """A figure as text: value with its unit where the column has none, and its interval."""

    value: str
    bounds: str


def cell_of(figure: Figure | None, digits: str = "#.3g") -> Cell | None:
    if figure is None:
        return None
    scale = 1.0
    if figure.unit == "fraction":
        scale, digits = 100.0, ".2f"
    elif figure.unit == "bytes":
        return Cell(value=size_text(figure.value), bounds="")
    value, low, high = (f"{v * scale:{digits}}".rstrip(".") for v in (figure.value, figure.low, figure.high))
    return Cell(value=value, bounds="" if low == high else f"{low} to {high}")


def size_text(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"


def marks_of(anchor: str | None, chosen: bool, beaten: bool) -> list[str]:
    return ["chosen"] * chosen + ([f"anchor: {anchor}"] if anchor else []) + ["beaten"] * beaten


def recipe_of(candidate: Candidate) -> Markup:
    """Technique names in ink, their parameters softer, in the order they run."""
    parts = []
    for step in candidate.steps:
        params = ", ".join(f"{key} {value}" for key, value in step.params.items())
        parts.append(Markup("{}{}").format(step.technique, Markup(" <i>{}</i>").format(params) if params else ""))
    choices = candidate.architecture
    if choices:
        parts.insert(0, Markup("<i>{}</i>").format(", ".join(f"{key} {value}" for key, value in choices.items())))
    return Markup(" → ").join(parts) if parts else Markup("as it is")
