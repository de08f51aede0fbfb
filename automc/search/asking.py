"""The strategy as the loop uses it: what it asks for, screened and priced before any work, and what it is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from automc.candidate import Candidate
from automc.errors import RunError
from automc.search.fidelity import objectives_of
from automc.trial import Failure, Trial

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from automc.cost.predictor import Costs
    from automc.run import Run
    from automc.search.progress import Tally
    from automc.search.setup import Prepared


class Asker:
    """Journals every ask and tell; in a replay, holds the strategy to what it asked then."""

    def __init__(self, run: Run, prepared: Prepared, anchors: frozenset[str], tally: Tally) -> None:
        """anchors: candidate ids, which are never screened."""
        from automc.search.strategies.registry import create_strategy

        self.run, self.prepared, self.anchors, self.tally = run, prepared, anchors, tally
        self.screened: dict[str, tuple[Candidate, Failure]] = {}
        self.predicted: dict[str, Costs] = {}
        self.estimated: set[str] = set()
        self._replayed = deque(run.journal.of("asked"))
        self._told = sum(1 for _ in run.journal.of("told"))
        settings = run.config.search
        self._strategy = create_strategy(
            settings.strategy,
            space=prepared.space,
            objectives=len(run.config.objectives),
            seed=settings.seed,
            screen=lambda candidates: [self.screen(candidate) is None for candidate in candidates],
            costs=None if prepared.costs is None else self._priced,
        )

    @property
    def replaying(self) -> bool:
        return bool(self._replayed)

    def ask(self) -> Candidate:
        return self._strategy.ask()

    def note(self, number: int, candidate: Candidate) -> None:
        """Journal ask `number`. Raises RunError where a replay would ask for another one than the journal has."""
        if not self._replayed:
            self.run.journal.append("asked", durable=False, n=number, id=candidate.id, candidate=candidate.to_json())
            return
        record = self._replayed.popleft()
        if record["n"] != number or record["id"] != candidate.id:
            raise diverged(self.run, f"ask {number} would be {candidate.id}, the journal has {record['id']}")

    def tell(self, number: int, trial: Trial) -> None:
        """Tell the strategy what came of ask `number`."""
        objectives = objectives_of(trial, self.run.config.objectives) if trial.ok else None
        self._strategy.tell(trial, objectives, self._violation(trial))
        if number >= self._told:
            self.run.journal.append("told", durable=False, n=number, id=trial.candidate.id)

    def screen(self, candidate: Candidate) -> Trial | None:
        """A failed trial where predicted costs or the network itself rule the candidate out, else None."""
        if self.prepared.screener is None or candidate.id in self.anchors:
            return None
        answer = self.prepared.screener([candidate])[0]
        if answer.costs is not None:
            self.predicted[candidate.id] = answer.costs
            if not answer.exact:
                self.estimated.add(candidate.id)
        if answer.failure is None:
            return None
        if candidate.id not in self.screened:
            self.screened[candidate.id] = (candidate, answer.failure)
            self.tally.screened += 1
        return Trial(candidate, 0, self.run.config.search.seed, failure=answer.failure)

    def _priced(self, candidates: Sequence[Candidate]) -> npt.NDArray[np.float64]:
        """(n, objectives) predicted before any evaluation, NaN where nothing predicts it: a `CostTeller`."""
        import numpy as np

        assert self.prepared.costs is not None
        told = self.prepared.costs.predicted(candidates)
        names = self.run.config.objectives
        return np.array([[costs.get(name, np.nan) for name in names] for costs in told]).reshape(-1, len(names))

    def _violation(self, trial: Trial) -> float:
        """Sum of shares by which predicted costs exceed their limits; 0 where all are met."""
        figures = trial.figures or {}
        costs = [limit for limit in self.prepared.limits if limit.metric != "drop_points"]
        return sum(limit.excess(figures[limit.metric]) if limit.metric in figures else 1.0 for limit in costs)


def diverged(run: Run, detail: str) -> RunError:
    return RunError(
        f"{run.folder}: replaying the journal leads to other decisions ({detail}); "
        "a library or the machine changed since the run began",
        next_step="resume it in the environment it began in (provenance.json), or start a new run",
    )
