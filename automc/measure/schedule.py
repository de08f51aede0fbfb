"""How much a calibration times, and how long each part of it may take."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from automc.measure.large_models import LARGE, LINEAR

Mode = Literal["quick", "full"]

ATTEMPTS = 3
MOST_FIT = 1.15
"""Times `Schedule.fit_s` that all that is fitted may take: what was timed first has had its part of it."""
AFTER_S = 8.0
"""Of the noise floor and of memory, after all timing."""
AFTER_READING = 2.8
"""Reading the graphs of what is fitted, the fit and its assessment, in times of reading those of whole networks: 2.5 on
an AMD Zen 3, with what an hour's noise adds. A slow machine is slow at these too, and has to time less for it."""


@dataclass(frozen=True)
class Schedule:
    """How much is timed per precision, and the wall clock of the timing. passes: calm passes of what is fitted."""

    micro: int
    random: int
    large: int
    per_family: int
    passes: int
    fit_s: float
    families_s: float
    total_s: float
    """Of the whole calibration; only a machine that never rests takes longer."""
    memory: int
    """Networks whose memory is measured."""
    large_kinds: Collection[str] = tuple(LARGE)

    def kernels_s(self, *, fitted_s: float, spent_s: float, reading_s: float) -> float:
        """Seconds for what is left of all that is fitted, at least a quarter of `fit_s`.

        fitted_s: what has been timed of it has taken; spent_s: everything has; reading_s: the graphs of whole networks.
        """
        share = max(self.fit_s / 2, MOST_FIT * self.fit_s - fitted_s)
        clock = self.total_s - spent_s - self.families_s / 2 - AFTER_S - AFTER_READING * reading_s
        return max(min(share, self.fit_s, clock), self.fit_s / 4)


SCHEDULES: dict[Mode, Schedule] = {
    "quick": Schedule(
        micro=400,
        random=36,
        large=32,
        per_family=4,
        passes=2,
        fit_s=30.0,
        families_s=12.0,
        total_s=59.0,
        memory=8,
        large_kinds=LINEAR,
    ),
    "full": Schedule(
        micro=1250,
        random=150,
        large=150,
        per_family=20,
        passes=2,
        fit_s=140.0,
        families_s=75.0,
        total_s=297.0,
        memory=24,
    ),
}
