"""The one place that guesses which known name a misspelt one was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CUTOFF = 0.75
"""difflib's ratio: one letter of four exchanged is still near; below it names are suggested that have little in common
(`batch` for `bench`, 0.6, which is difflib's own limit)."""
STEM = 4
"""Letters that a name must have for a longer one beginning with them to be meant (`batch`: batch_size, 0.67)."""


def nearest(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the closest of `known`, capitals aside, or '' where none is close."""
    names = {str(other).lower(): str(other) for other in known}
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=CUTOFF)
    longer = [other for other in names if other.startswith(name.lower())] if len(name) >= STEM else []
    if not near and len(longer) == 1:
        near = longer
    return f"; did you mean {names[near[0]]}?" if near else ""


def nearest_or_all(name: str, known: Iterable[str]) -> str:
    """As `nearest`; ' (known: X, Y)' where none is close."""
    names = list(known)
    return nearest(name, names) or f" (known: {', '.join(names) or 'none'})"
