"""The search: ask, screen, evaluate on workers, journal, tell, promote; and the same again when resumed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from automc.candidate import Candidate
from automc.config import Rung, SearchConfig, load_config
from automc.errors import RunError, RunInterrupted
from automc.evaluate import EvaluatorFactory, Job
from automc.run import Run
from automc.search.fidelity import best_of_group, objectives_of, promoted
from automc.search.progress import Progress, Watcher, nobody
from automc.search.setup import Prepared, data_root_of, prepare
from automc.trial import Failure, Trial

if TYPE_CHECKING:
    from automc.executor import Executor
    from automc.search.strategies.strategy import Strategy

ASKS_PER_EVALUATION = 30  # a strategy that finds nothing new in so many asks has seen what it can reach
FAILURES_IN_A_ROW = 12  # evaluations; then it is the set-up that is broken, not the candidates


def search(
    config: SearchConfig | Path | str | None = None,
    *,
    data_root: Path | str | None = None,
    run_dir: Path | str | None = None,
    watch: Watcher = nobody,
) -> Run:
    """Search, re-measure the finalists, choose, bundle, verify, report: the finished run.

    config: a SearchConfig, a YAML file, or None for the embedded demo. run_dir: default runs/<name>.
    Raises ConfigError, InfeasibleSearchError, BundleError; RunInterrupted on Ctrl-C, after which `resume` goes on.
    """
    resolved = config if isinstance(config, SearchConfig) else load_config(config)
    folder = Path(run_dir) if run_dir is not None else Path("runs") / resolved.name
    with Run.create(folder, resolved, data_root=data_root_of(data_root)) as run:
        return _drive(run, watch)


def resume(run_dir: Path | str, *, watch: Watcher = nobody) -> Run:
    """Go on with an interrupted run: finished trials are replayed from its journal, none is evaluated again."""
    with Run.open(run_dir, writable=True) as run:
        return run if run.finished else _drive(run, watch)


def _drive(run: Run, watch: Watcher) -> Run:
    from automc.search.ending import finish

    conductor = None
    try:
        prepared = prepare(run, watch)
        conductor = Conductor(run, watch)
        ended = Loop(run, prepared, conductor).run_rungs()
        conductor.close()
        finish(run, prepared, ended, watch)
        return run
    except KeyboardInterrupt:
        raise RunInterrupted(
            f"{run.folder}: interrupted; every finished trial is kept", next_step=f"automc resume {run.folder}"
        ) from None
    finally:
        if conductor is not None:
            conductor.close()


class Conductor:
    """Sends jobs to an executor that starts with the first of them, and journals each completion at once."""

    def __init__(self, run: Run, watch: Watcher) -> None:
        self.run = run
        self.watch = watch
        self.trials = {(trial.candidate.id, trial.rung, trial.seed): trial for trial in run.trials()}
        self.screened = 0
        self.rung, self.rung_total = 0, 0
        self.after_each: Callable[[], None] = lambda: None
        self._busy: set[tuple[str, int, int]] = set()
        self._failures = 0
        self._executor: Executor[Job, Trial] | None = None
        self._started = time.monotonic()
        self._fresh = 0

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
            self.trials[job.key] = trial
            self._busy.discard(job.key)
            self._fresh += 1
            self._tell_watcher(trial)
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

    def _tell_watcher(self, trial: Trial | None) -> None:
        done = sum(1 for _, rung, _ in self.trials if rung == self.rung)
        failed = sum(1 for item in self.trials.values() if not item.ok)
        self.watch(
            Progress(
                "searching",
                rung=self.rung,
                rung_done=done,
                rung_total=self.rung_total,
                evaluated=len(self.trials),
                screened=self.screened,
                failed=failed,
                best=_best_line(self.trials.values()),
                seconds_left=self._seconds_left(done),
                trial=trial,
            )
        )

    def _seconds_left(self, done: int) -> float | None:
        """For this rung at its own pace, and for later rungs by their optimiser steps at the pace of trained trials."""
        if not self._fresh:
            return None
        rungs, workers = self.run.config.search.rungs, self.run.config.executor.workers
        spent = [t.provenance for t in self.trials.values() if t.provenance is not None and t.ok]
        untrained = [p.seconds for p in spent if p.steps_trained == 0]
        fixed = sum(untrained) / len(untrained) if untrained else 0.0
        trained = [p for p in spent if p.steps_trained]
        per_step = sum(p.seconds for p in trained) / sum(p.steps_trained for p in trained) if trained else 0.0
        left = max(0, self.rung_total - done) * (fixed + per_step * _steps_at(rungs, self.rung))
        for index in range(self.rung + 1, len(rungs)):
            left += rungs[index].candidates * (fixed + per_step * _steps_at(rungs, index))
        if not trained and self.rung == 0 and len(rungs) > 1:
            return None
        return left / max(1, workers)


def _steps_at(rungs: Sequence[Rung], index: int) -> int:
    """Optimiser steps a candidate takes at one rung, on top of those before."""
    return rungs[index].steps - (rungs[index - 1].steps if index else 0)


def _best_line(trials: Iterable[Trial]) -> str:
    candidates = [trial for trial in trials if trial.ok]
    if not candidates:
        return ""
    top = max(trial.rung for trial in candidates)
    best = max((trial for trial in candidates if trial.rung == top), key=lambda trial: trial["accuracy"].value)
    shown = f"rung {top}: accuracy {best['accuracy'].value:.4f}"
    if best.figures and "latency_ms" in best.figures:
        shown += f" at {best['latency_ms'].value:.4g} ms"
    return shown


@dataclass(frozen=True)
class Ended:
    """The rungs' trials (by candidate id), the reference of each trained rung, and the anchors by candidate id."""

    rungs: tuple[dict[str, Trial], ...]
    reference: Trial | None
    anchors: dict[str, str]
    screened: tuple[tuple[Candidate, Failure], ...]
    predicted: dict[str, float]


class Loop:
    """Asks, tells and promotes in an order that depends on answers alone, never on who answered first (law 7)."""

    def __init__(self, run: Run, prepared: Prepared, conductor: Conductor) -> None:
        self.run, self.prepared, self.conductor = run, prepared, conductor
        self.settings = run.config.search
        self.anchors = prepared.space.anchors
        self.anchor_of = {c.id: anchor.name for anchor in self.anchors for c in anchor.candidates}
        self.screened: list[tuple[Candidate, Failure]] = []
        self.predicted: dict[str, float] = {}
        self._replayed = deque(run.journal.of("asked"))
        self._told = sum(1 for _ in run.journal.of("told"))

    def run_rungs(self) -> Ended:
        """Every rung from the first to the last; raises RunError where a replay leads to other decisions."""
        self.conductor.after_each = self._advance_reference
        self._advance_reference()
        current = self._first_rung()
        rungs = [current]
        for index in range(1, len(self.settings.rungs)):
            self.conductor.rung = index
            self._await_reference()
            current = self._next_rung(index, current)
            rungs.append(current)
        top = self._reference_at(len(self.settings.rungs) - 1)
        return Ended(tuple(rungs), top, self.anchor_of, tuple(self.screened), self.predicted)

    def _first_rung(self) -> dict[str, Trial]:
        """Anchors, then the strategy's candidates: ask n follows tell n - parallel."""
        strategy = self._strategy()
        budget = self.settings.rungs[0].candidates
        anchors = deque(candidate for anchor in self.anchors for candidate in anchor.candidates)
        self.conductor.rung_total = budget + len(anchors)
        waiting: deque[tuple[int, Candidate, Trial | None, bool]] = deque()
        trials: dict[str, Trial] = {}
        asked, fresh = 0, set[str]()
        while True:
            while len(waiting) < self.settings.parallel and (
                anchors or (len(fresh) < budget and asked < ASKS_PER_EVALUATION * budget)
            ):
                own = bool(anchors)
                candidate = anchors.popleft() if own else strategy.ask()
                self._check_replay(asked, candidate)
                outcome = self._screen(candidate)
                if outcome is None:
                    self.conductor.submit(self._job(candidate, 0, None, None))
                    if not own and candidate.id not in self.anchor_of:
                        fresh.add(candidate.id)
                waiting.append((asked, candidate, outcome, own))
                asked += 1
            if not waiting:
                return trials
            number, candidate, outcome, own = waiting.popleft()
            trial = outcome or self.conductor.wait((candidate.id, 0, self.settings.seed))
            if not own:
                strategy.tell(trial, self._objectives(trial), self._violation(trial))
            if number >= self._told:
                self.run.journal.append("told", n=number, id=candidate.id)
            trials.setdefault(candidate.id, trial)

    def _next_rung(self, index: int, below: dict[str, Trial]) -> dict[str, Trial]:
        rung = self.settings.rungs[index]
        chosen = promoted(
            list(below.values()), rung.candidates, self.run.config.objectives, self._carried(index, below)
        )
        ids = [trial.candidate.id for trial in chosen]
        known = [record for record in self.run.journal.of("promoted") if record["rung"] == index]
        if not known:
            self.run.journal.append("promoted", rung=index, ids=list(ids))
        elif known[0]["ids"] != ids:
            raise self._diverged(f"rung {index} would promote {ids}, the journal has {known[0]['ids']}")
        self.conductor.rung_total = len(chosen)
        teacher = self._reference_at(len(self.settings.rungs) - 1)
        keys = []
        for trial in chosen:
            job = self._job(trial.candidate, index, trial, teacher)
            self.conductor.submit(job)
            keys.append(job.key)
        trials = {key[0]: self.conductor.wait(key) for key in keys}
        return trials

    def _carried(self, index: int, below: dict[str, Trial]) -> frozenset[str]:
        """Anchors that go up whatever their rank: all of a group to the first trained rung, then its best."""
        reference = self._reference_at(index - 1)
        if index == 1 or reference is None:
            return frozenset(self.anchor_of)
        drop = self.run.config.constraints.max_drop_points
        best = [best_of_group(anchor, below, reference, 1.0 if drop is None else drop) for anchor in self.anchors]
        return frozenset(name for name in best if name is not None)

    def _reference_candidate(self) -> Candidate | None:
        """The anchor called `reference`; a workload that scores its candidates itself has none."""
        if self.prepared.evaluator is None:
            return None
        return next((anchor.candidates[0] for anchor in self.anchors if anchor.name == "reference"), None)

    def _reference_at(self, rung: int) -> Trial | None:
        candidate = self._reference_candidate()
        return None if candidate is None else self.conductor.trials.get((candidate.id, rung, self.settings.seed))

    def _advance_reference(self) -> None:
        """Start the reference's next rung if none is under way: its training overlaps the first rung of the others."""
        candidate = self._reference_candidate()
        below = None
        for rung in range(1, len(self.settings.rungs)):
            trial = self._reference_at(rung)
            if trial is None:
                if candidate is not None:
                    self.conductor.submit(self._job(candidate, rung, below, None))
                return
            if not trial.ok:
                raise RunError(f"{self.run.folder}: the reference itself failed: {trial.failure}")
            below = trial

    def _await_reference(self) -> None:
        """All rungs of the reference: it is the teacher of every trained candidate and what drops are counted from."""
        candidate = self._reference_candidate()
        if candidate is not None:
            for rung in range(1, len(self.settings.rungs)):
                self.conductor.wait((candidate.id, rung, self.settings.seed))

    def _job(self, candidate: Candidate, index: int, below: Trial | None, teacher: Trial | None) -> Job:
        rungs = self.settings.rungs
        parent = below if below is not None and index > 1 else None
        return Job(
            candidate,
            index,
            self.settings.seed,
            steps=rungs[index].steps,
            trained=rungs[index - 1].steps if parent is not None else 0,
            parent=None if parent is None else dict(parent.artifacts),
            teacher=None if teacher is None else dict(teacher.artifacts),
        )

    def _screen(self, candidate: Candidate) -> Trial | None:
        """A failed trial where predicted costs or the network itself rule the candidate out, else None."""
        if self.prepared.screener is None or candidate.id in self.anchor_of:
            return None
        answer = self.prepared.screener([candidate])[0]
        if answer.costs is not None:
            self.predicted[candidate.id] = answer.costs.latency_ms.value
        if answer.failure is None:
            return None
        if all(candidate.id != known.id for known, _ in self.screened):
            self.screened.append((candidate, answer.failure))
            self.conductor.screened += 1
        return Trial(candidate, 0, self.settings.seed, failure=answer.failure)

    def _strategy(self) -> Strategy:
        from automc.search.strategies.registry import create_strategy

        return create_strategy(
            self.settings.strategy,
            space=self.prepared.space,
            objectives=len(self.run.config.objectives),
            seed=self.settings.seed,
            screen=lambda candidates: [self._screen(candidate) is None for candidate in candidates],
        )

    def _objectives(self, trial: Trial) -> tuple[float, ...] | None:
        return objectives_of(trial, self.run.config.objectives) if trial.ok else None

    def _violation(self, trial: Trial) -> float:
        """Sum of shares by which predicted costs exceed their limits; 0 where all are met."""
        figures = trial.figures or {}
        costs = [limit for limit in self.prepared.limits if limit.metric != "drop_points"]
        return sum(limit.excess(figures[limit.metric]) if limit.metric in figures else 1.0 for limit in costs)

    def _check_replay(self, number: int, candidate: Candidate) -> None:
        if not self._replayed:
            self.run.journal.append("asked", n=number, id=candidate.id, candidate=candidate.to_json())
            return
        record = self._replayed.popleft()
        if record["n"] != number or record["id"] != candidate.id:
            raise self._diverged(f"ask {number} would be {candidate.id}, the journal has {record['id']}")

    def _diverged(self, detail: str) -> RunError:
        return RunError(
            f"{self.run.folder}: replaying the journal leads to other decisions ({detail}); "
            "a library or the machine changed since the run began",
            next_step="resume it in the environment it began in (provenance.json), or start a new run",
        )
