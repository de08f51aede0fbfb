"""What commands print: aligned columns for people, one JSON document for programs."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]


def print_json(value: Mapping[str, object] | Sequence[object]) -> None:
    """`value` holds what JSON can hold; a NaN is refused, not printed."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Left-aligned columns, two spaces apart; the last one may be as long as it likes."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def wrapped(text: str) -> str:
    """In lines as wide as the terminal, those after the first indented by two; words are not cut."""
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
