"""What a running search tells whoever is watching."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from automc.trial import Trial

Stage = Literal["calibrating", "preparing", "searching", "measuring", "bundling", "done"]


@dataclass(frozen=True)
class Progress:
    """A snapshot. `rung_done` of `rung_total` candidates of rung `rung` are finished; counts are over the whole run.

    screened: dropped on predicted costs or impossible here, before any work. best: one line on the best so far.
    seconds_left: estimate for the whole search, None while nothing is known. trial: the one just finished, if any.
    """

    stage: Stage
    message: str = ""
    rung: int = 0
    rung_done: int = 0
    rung_total: int = 0
    evaluated: int = 0
    screened: int = 0
    failed: int = 0
    best: str = ""
    seconds_left: float | None = None
    trial: Trial | None = None


Watcher = Callable[[Progress], None]


def nobody(progress: Progress) -> None:
    """A watcher that looks away."""
