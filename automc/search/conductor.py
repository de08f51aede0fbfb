"""What is finished, what is under way, and the journal of both: a finished trial is never lost nor repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from automc.errors import RunError
from automc.evaluate import EvaluatorFactory, Job
from automc.run import Run
from automc.search.progress import Tally, Watcher
from automc.trial import Failure, Trial

if TYPE_CHECKING:
    from automc.executor import Executor

FAILURES_IN_A_ROW = 12  # evaluations; then it is the set-up that is broken, not the candidates


class Conductor:
    """Knows every trial of the run; journals each completion at once."""

    def __init__(self, run: Run, watch: Watcher) -> None:
        self.run = run
        self.watch = watch
        self.trials = {(trial.candidate.id, trial.rung, trial.seed): trial for trial in run.trials()}
        self.tally = Tally(run.config.search.rungs, run.config.executor.workers)
        for trial in self.trials.values():
            self.tally.add(trial)
        self.after_each: Callable[[], None] = lambda: None
        self._busy: set[tuple[str, int, int]] = set()
        self._failures: list[Failure] = []
        self._executor: Executor[Job, Trial] | None = None

    @property
    def executor(self) -> Executor[Job, Trial]:
        """Started when first asked for: a run whose trials are all in the journal needs none."""
        if self._executor is None:
            self._executor = self._start()
        return self._executor

    def expect(self, job: Job) -> bool:
        """Whether `job` has to be submitted: it is neither finished nor under way, and under way from now on."""
        if job.key in self.trials or job.key in self._busy:
            return False
        self._busy.add(job.key)
        return True

    def take(self, job: Job, trial: Trial) -> None:
        """Journal what came of `job`, then tell of it. Raises RunError after failures in a row."""
        self.run.journal.append("trial", trial=trial.to_json())
        # Decide on what was written, not on what came: a resumed run reads 12 digits of a float, so this one must.
        trial = self.run.latest_trial()
        self.trials[job.key] = trial
        self._busy.discard(job.key)
        self.tally.add(trial)
        self.watch(self.tally.progress(trial))
        self._break_on(trial)
        self.after_each()

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
            self._failures.clear()
            return
        self._failures.append(trial.failure)
        if len(self._failures) >= FAILURES_IN_A_ROW:
            first = self._failures[0]
            raise RunError(
                f"{self.run.folder}: {len(self._failures)} candidates in a row failed, the first with "
                f"{first.kind}: {first.reason}",
                next_step=f"mend the cause, then: automc resume {self.run.folder}",
            )
