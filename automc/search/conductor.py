"""Who sends jobs to the executor and journals what comes back, so that a finished trial is never lost nor repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from automc.errors import RunError
from automc.evaluate import EvaluatorFactory, Job
from automc.run import Run
from automc.search.progress import Tally, Watcher
from automc.trial import Trial

if TYPE_CHECKING:
    from automc.executor import Executor

FAILURES_IN_A_ROW = 12  # evaluations; then it is the set-up that is broken, not the candidates


class Conductor:
    """Sends jobs to an executor that starts with the first of them, and journals each completion at once."""

    def __init__(self, run: Run, watch: Watcher) -> None:
        self.run = run
        self.watch = watch
        self.trials = {(trial.candidate.id, trial.rung, trial.seed): trial for trial in run.trials()}
        self.tally = Tally(run.config.search.rungs, run.config.executor.workers)
        for trial in self.trials.values():
            self.tally.add(trial)
        self.after_each: Callable[[], None] = lambda: None
        self._busy: set[tuple[str, int, int]] = set()
        self._failures = 0
        self._executor: Executor[Job, Trial] | None = None

    def submit(self, job: Job) -> None:
        """Start `job` unless it is finished or under way."""
        if job.key in self.trials or job.key in self._busy:
            return
        if self._executor is None:
            self._executor = self._start()
        self._busy.add(job.key)
        self._executor.submit(job)

    def wait(self, key: tuple[str, int, int]) -> Trial:
        """The trial of `key`, taking in whatever else finishes meanwhile. Raises RunError after failures in a row."""
        while key not in self.trials:
            if self._executor is None or key not in self._busy:
                raise RunError(f"{self.run.folder}: trial {key} was never submitted")
            job, trial, _ = self._executor.next()
            self.run.journal.append("trial", trial=trial.to_json())
            # Decide on what was written, not on what came: a resumed run reads 12 digits of a float, so this one must.
            trial = self.run.latest_trial()
            self.trials[job.key] = trial
            self._busy.discard(job.key)
            self.tally.add(trial)
            self.watch(self.tally.progress(trial))
            self._break_on(trial)
            self.after_each()
        return self.trials[key]

    def close(self) -> None:
        if self._executor is not None:
            self._executor.close()
            self._executor = None

    def _start(self) -> Executor[Job, Trial]:
        from automc.executor import InlineExecutor, RayExecutor

        section, factory = self.run.config.executor, EvaluatorFactory(str(self.run.folder.resolve()))
        if section.kind == "inline":
            return InlineExecutor(factory)
        return RayExecutor(factory, workers=section.workers, threads=1, address=section.address)

    def _break_on(self, trial: Trial) -> None:
        """The breaker: stops a run in which nothing works any more."""
        if trial.failure is None or trial.failure.kind == "infeasible":
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            raise RunError(
                f"{self.run.folder}: {self._failures} candidates in a row failed, the last with "
                f"{trial.failure.kind}: {trial.failure.reason}",
                next_step=f"mend the cause, then: automc resume {self.run.folder}",
            )
