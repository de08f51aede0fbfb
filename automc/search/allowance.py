"""How long a search may go on: minutes of searching, counted over every session of a run, and extended by `resume`.

Time decides how much is tried, never who is better. What it decided is journalled: a replay does not ask the clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from automc.errors import ConfigError

if TYPE_CHECKING:
    from automc.run import Run
    from automc.trial import Trial

EXTENDED = "extended"
"""The journal's event of more time: what the run had decided to end with before it is decided anew after it."""


def spent_s(trials: Iterable[Trial]) -> float:
    """Seconds in which at least one of `trials` was being evaluated, whoever did it and in however many sessions."""
    spans = sorted(
        (trial.provenance.started_unix_s, trial.provenance.started_unix_s + trial.provenance.seconds)
        for trial in trials
        if trial.provenance is not None
    )
    total, end = 0.0, -math.inf
    for start, stop in spans:
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def check_minutes(minutes: float, run: Run) -> None:
    """Raises ConfigError where `minutes` is not a positive number."""
    if not (math.isfinite(minutes) and minutes > 0):
        raise ConfigError(
            f"minutes: {minutes:g} is no time to go on for", next_step=f"automc resume {run.folder} --minutes +30"
        )


def extend(run: Run, minutes: float) -> None:
    """Give the run `minutes` more than it was allowed or, where it had no limit, than it has spent."""
    spent = spent_s(run.trials())
    until = max(spent, until_s(run) or spent) + 60 * minutes
    run.journal.append(EXTENDED, minutes=minutes, until_s=until)


def until_s(run: Run) -> float | None:
    """Seconds of searching after which no candidate is begun; None: as many as the rungs hold."""
    record = run.journal.last(EXTENDED)
    if record is not None:
        return float(str(record["until_s"]))
    minutes = run.config.search.minutes
    return None if minutes is None else 60 * minutes


class Allowance:
    """The time of one run, running from now on."""

    def __init__(self, run: Run) -> None:
        self._until = until_s(run)
        self._before = spent_s(run.trials())
        self._since = time.monotonic()

    @property
    def limited(self) -> bool:
        return self._until is not None

    @property
    def whole_s(self) -> float:
        """All that the run was given, infinite where there is no limit."""
        return math.inf if self._until is None else self._until

    @property
    def spent_s(self) -> float:
        return self._before + time.monotonic() - self._since

    @property
    def left_s(self) -> float:
        """0 where it is used up, infinite where there is no limit."""
        return max(0.0, self.whole_s - self.spent_s)


def affordable(left: float, each: list[float], candidates: list[int], carried: int, workers: int) -> int:
    """How many candidates the lowest of the rungs ahead can train so that those above it get their share of the time.

    left: seconds. each: seconds of one candidate, by rung ahead; candidates: how many each rung is meant to have.
    carried: anchors that this rung trains besides. A rung whose cost nobody has seen costs nothing.
    """
    if each[0] <= 0 or math.isinf(left):
        return candidates[0]
    work = [seconds * count for seconds, count in zip(each, candidates, strict=True)]
    share = left * work[0] / sum(work) if sum(work) else left
    return max(0, min(candidates[0], int(share * workers / each[0]) - carried))
