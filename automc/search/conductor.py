"""What is finished, what is under way, and the journal of both: a finished trial is never lost nor repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from automc.errors import RunError
from automc.evaluate import EvaluatorFactory, Job
from automc.run import Run
from automc.search.progress import Tally, Watcher
from automc.trial import Trial

if TYPE_CHECKING:
    from automc.executor import Executor

FAILURES_IN_A_ROW = 12  # evaluations; then it is the set-up that is broken, not the candidates


class Conductor:
    """Knows every trial of the run; journals each completion at once."""

    def __init__(self, run: Run, watch: Watcher) -> None:
        _try_again(run)
        self.run = run
        self.watch = watch
        self.trials = {(trial.candidate.id, trial.rung, trial.seed): trial for trial in run.trials()}
        self.tally = Tally(run.config.search.rungs, run.config.executor.workers)
        for trial in self.trials.values():
            self.tally.add(trial)
        self.after_each: Callable[[], None] = lambda: None
        self._busy: set[tuple[str, int, int]] = set()
        self._failures: list[Trial] = []
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
        self._failures.append(trial)
        if len(self._failures) >= FAILURES_IN_A_ROW:
            first = self._failures[0].failure
            assert first is not None
            raise self.stopped(
                self._failures,
                f"{len(self._failures)} candidates in a row failed, the first with {first.kind}: {first.reason}",
                f"mend the cause, then: automc resume {self.run.folder}",
            )

    def stopped(self, trials: Sequence[Trial], why: str, next_step: str) -> RunError:
        """Journal that `trials` stopped the run: not they but what they ran on is at fault; what to raise then."""
        self.run.journal.append("stopped", keys=[[t.candidate.id, t.rung, t.seed] for t in trials], why=why)
        return RunError(f"{self.run.folder}: {why}", next_step=next_step)


def _try_again(run: Run) -> None:
    """Set aside the failures that stopped the run last, so that they are evaluated once more; never a second time."""
    stopped = run.journal.last("stopped")
    if stopped is None:
        return
    before = [key for record in run.journal.of("retrying") for key in _listed(record["keys"])]
    keys = [key for key in _listed(stopped["keys"]) if key not in before]
    if keys:
        run.journal.append("retrying", keys=list[JsonValue](keys))


def told_before(run: Run) -> dict[int, Trial]:
    """Number of a tell -> what was told, where that was set aside later: a replay has to tell it again as it was."""
    tells: dict[JsonValue, list[int]] = {}
    failed: dict[tuple[JsonValue, ...], Trial] = {}
    found: dict[int, Trial] = {}
    for record in run.journal.events:
        if record["event"] == "told":
            tells.setdefault(record["id"], []).append(int(str(record["n"])))
        elif record["event"] == "trial" and isinstance(record["trial"], dict) and record["trial"]["failure"]:
            trial = Trial.from_json(record["trial"])
            failed[trial.candidate.id, trial.rung, trial.seed] = trial
        elif record["event"] == "retrying":
            for key in _listed(record["keys"]):
                name, rung, seed = key
                if rung == 0:
                    found |= dict.fromkeys(tells.get(name, ()), failed[name, rung, seed])
    return found


def _listed(value: JsonValue) -> list[list[JsonValue]]:
    """A list of keys ([candidate id, rung, seed]) out of the journal."""
    return [item for item in value if isinstance(item, list)] if isinstance(value, list) else []
