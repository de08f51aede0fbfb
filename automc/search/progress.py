"""What a running search tells whoever is watching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from automc.config import Rung
from automc.trial import Trial, to_minimise

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


@dataclass
class Tally:
    """Running counts over finished trials, so that a snapshot costs the same after ten trials and ten thousand.

    time_left_s: of a search that ends by the clock.
    """

    rungs: Sequence[Rung]
    workers: int
    rung: int = 0
    rung_total: int = 0
    screened: int = 0
    time_left_s: Callable[[], float] | None = None
    _done: dict[int, int] = field(default_factory=dict)
    _failed: int = 0
    _best: Trial | None = None
    _untrained: tuple[int, float] = (0, 0.0)
    _trained: tuple[int, float] = (0, 0.0)

    def add(self, trial: Trial) -> None:
        self._done[trial.rung] = self._done.get(trial.rung, 0) + 1
        if not trial.ok:
            self._failed += 1
            return
        if self._best is None or _goodness(trial) > _goodness(self._best):
            self._best = trial
        spent = trial.provenance
        if spent is not None and spent.steps_trained:
            self._trained = (self._trained[0] + spent.steps_trained, self._trained[1] + spent.seconds)
        elif spent is not None:
            self._untrained = (self._untrained[0] + 1, self._untrained[1] + spent.seconds)

    def expect(self, rung: int, more: int) -> None:
        """`more` candidates are to end at `rung`, besides those that have, in earlier rounds or ahead of the others."""
        self.rung_total = self._done.get(rung, 0) + more

    def progress(self, trial: Trial | None = None) -> Progress:
        return Progress(
            "searching",
            rung=self.rung,
            rung_done=self._done.get(self.rung, 0),
            rung_total=self.rung_total,
            evaluated=sum(self._done.values()),
            screened=self.screened,
            failed=self._failed,
            best=self._best_line(),
            seconds_left=self.time_left_s() if self.time_left_s is not None else self._seconds_left(),
            trial=trial,
        )

    def _best_line(self) -> str:
        if self._best is None:
            return ""
        accuracy = self._best["accuracy"]
        shown = f"rung {self._best.rung}: {'error' if accuracy.direction == 'min' else 'accuracy'} {accuracy.value:.4f}"
        if self._best.figures and "latency_ms" in self._best.figures:
            shown += f" at {self._best['latency_ms'].value:.4g} ms"
        return shown

    def _seconds_left(self) -> float | None:
        """At the pace seen so far: untrained candidates by number, trained ones by optimiser steps (an overestimate:
        their time includes export and scoring). None until the pace of everything still to come has been seen."""
        later = range(self.rung + 1, len(self.rungs))
        if not self._untrained[0] or ((later or self.rung) and not self._trained[0]):
            return None
        fixed = self._untrained[1] / self._untrained[0]
        per_step = self._trained[1] / self._trained[0] if self._trained[0] else 0.0
        left = max(0, self.rung_total - self._done.get(self.rung, 0)) * self._cost(self.rung, fixed, per_step)
        left += sum(self.rungs[index].candidates * self._cost(index, fixed, per_step) for index in later)
        return left / max(1, self.workers)

    def _cost(self, index: int, fixed: float, per_step: float) -> float:
        steps = self.rungs[index].steps - (self.rungs[index - 1].steps if index else 0)
        return per_step * steps if steps else fixed


def _goodness(trial: Trial) -> tuple[int, float]:
    """Larger is better: a later rung, then within it the better accuracy."""
    return trial.rung, -to_minimise("accuracy", trial["accuracy"])
