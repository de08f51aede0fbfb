"""The search: ask, screen, evaluate on workers, journal, tell, promote; and the same again when resumed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from automc.candidate import Candidate
from automc.config import SearchConfig, load_config
from automc.errors import DISK_ERRORS, ConfigError, RunError, RunInterrupted
from automc.evaluate import Job
from automc.run import Run
from automc.search.checking import check
from automc.search.conductor import Conductor, told_before
from automc.search.fidelity import best_of_group, objectives_of, promoted
from automc.search.progress import Watcher, nobody
from automc.search.setup import Prepared, data_root_of, move_data, prepare
from automc.trial import Failure, Trial

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from automc.cost.predictor import Costs
    from automc.search.strategies.strategy import Strategy

ASKS_PER_EVALUATION = 30  # a strategy that finds nothing new in so many asks has seen what it can reach


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
    resolved = _from_anywhere(config if isinstance(config, SearchConfig) else load_config(config))
    folder = Path(run_dir) if run_dir is not None else Path("runs") / resolved.name
    root = data_root_of(data_root)
    check(resolved, root)
    with _room_for(folder), Run.create(folder, resolved, data_root=root) as run:
        try:
            return _drive(run, watch)
        except ConfigError:
            if run.journal.last("baseline") is None and run.journal.last("asked") is None:
                run.discard()  # nothing began: once mended, the same command has to work
            raise


def _from_anywhere(config: SearchConfig) -> SearchConfig:
    """With absolute paths of the space's file and the profile's folder: a run is resumed from any working folder."""
    paths = {
        name: str(Path(value).resolve())
        for name, value in (("space", config.space), ("profile", config.profile))
        if Path(value).is_file() or (Path(value) / "profile.yaml").is_file()
    }
    return config.model_copy(update=paths)


def resume(run_dir: Path | str, *, data_root: Path | str | None = None, watch: Watcher = nobody) -> Run:
    """Go on with an interrupted run: finished trials are replayed from its journal, none is evaluated again.

    data_root: where the data have been moved to since the run began, which the run keeps. Raises ConfigError where
    they are not the same, by the digests of the lock file.
    """
    with _room_for(Path(run_dir)), Run.open(run_dir, writable=True) as run:
        if data_root is not None:
            root = data_root_of(Path(data_root))
            assert root is not None
            move_data(run, root)
        return run if run.finished else _drive(run, watch)


@contextmanager
def _room_for(folder: Path) -> Iterator[None]:
    """A disk that is full or read-only is one message: whatever the run had finished by then is kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise RunError(
            f"{error.filename or folder}: {error.strerror}",
            next_step=f"make room, or make it writable, then: automc resume {folder}",
        ) from error


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


@dataclass(frozen=True)
class Ended:
    """The rungs' trials (by candidate id), the reference at the top rung, and the anchors by candidate id.

    predicted: costs of every candidate that was screened, by its id, as far as they are known.
    """

    rungs: tuple[dict[str, Trial], ...]
    reference: Trial | None
    anchors: dict[str, str]
    screened: tuple[tuple[Candidate, Failure], ...]
    predicted: dict[str, Costs]


class Loop:
    """Asks, tells and promotes in an order that depends on answers alone, never on who answered first (law 7)."""

    def __init__(self, run: Run, prepared: Prepared, conductor: Conductor) -> None:
        self.run, self.prepared, self.conductor = run, prepared, conductor
        self.settings = run.config.search
        self.anchors = prepared.space.anchors
        self.anchor_of = {c.id: anchor.name for anchor in self.anchors for c in anchor.candidates}
        self.screened: dict[str, tuple[Candidate, Failure]] = {}
        self.predicted: dict[str, Costs] = {}
        self._replayed = deque(run.journal.of("asked"))
        self._told = sum(1 for _ in run.journal.of("told"))
        self._told_before = told_before(run)

    def run_rungs(self) -> Ended:
        """Every rung from the first to the last; raises RunError where a replay leads to other decisions."""
        self.conductor.after_each = self._advance_reference
        self._advance_reference()
        current = self._first_rung()
        rungs = [current]
        for index in range(1, len(self.settings.rungs)):
            self.conductor.tally.rung = index
            self._await_reference()
            current = self._next_rung(index, current)
            rungs.append(current)
        top = self._reference_at(len(self.settings.rungs) - 1)
        return Ended(tuple(rungs), top, self.anchor_of, tuple(self.screened.values()), self.predicted)

    def _first_rung(self) -> dict[str, Trial]:
        """Anchors, then the strategy's candidates: ask n follows tell n - parallel."""
        strategy = self._strategy()
        budget = self.settings.rungs[0].candidates
        anchors = deque(candidate for anchor in self.anchors for candidate in anchor.candidates)
        self.conductor.tally.rung_total = budget + len(anchors)
        waiting: deque[tuple[int, Candidate, Trial | None]] = deque()
        trials: dict[str, Trial] = {}
        asked, fresh = 0, set[str]()
        while True:
            while len(waiting) < self.settings.parallel and (
                anchors or (len(fresh) < budget and max(asked, len(self.screened)) < ASKS_PER_EVALUATION * budget)
            ):
                own = bool(anchors)
                candidate = anchors.popleft() if own else strategy.ask()
                self._check_replay(asked, candidate)
                outcome = self._screen(candidate)
                if outcome is None:
                    self._submit(self._job(candidate, 0, None, None))
                    if not own and candidate.id not in self.anchor_of:
                        fresh.add(candidate.id)
                waiting.append((asked, candidate, outcome))
                asked += 1
            if not waiting:
                return trials
            number, candidate, outcome = waiting.popleft()
            trial = outcome or self._wait((candidate.id, 0, self.settings.seed))
            told = self._told_before.get(number, trial)
            strategy.tell(told, self._objectives(told), self._violation(told))
            if number >= self._told:
                self.run.journal.append("told", durable=False, n=number, id=candidate.id)
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
        self.conductor.tally.rung_total = len(chosen)
        teacher = self._reference_at(len(self.settings.rungs) - 1)
        keys = []
        for trial in chosen:
            job = self._job(trial.candidate, index, trial, teacher)
            self._submit(job)
            keys.append(job.key)
        trials = {key[0]: self._wait(key) for key in keys}
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
                    self._submit(self._job(candidate, rung, below, None))
                return
            if not trial.ok:
                raise self.conductor.stopped(
                    [trial],
                    f"the reference itself failed: {trial.failure}",
                    f"mend the cause, then: automc resume {self.run.folder}    (another model, other data or another "
                    "recipe under `recovery` need a new run)",
                )
            below = trial

    def _await_reference(self) -> None:
        """All rungs of the reference: it is the teacher of every trained candidate and what drops are counted from."""
        candidate = self._reference_candidate()
        if candidate is not None:
            for rung in range(1, len(self.settings.rungs)):
                self._wait((candidate.id, rung, self.settings.seed))

    def _submit(self, job: Job) -> None:
        """Start `job` unless it is finished or under way."""
        if self.conductor.expect(job):
            self.conductor.executor.submit(job)

    def _wait(self, key: tuple[str, int, int]) -> Trial:
        """The trial of `key`, taking in whatever else finishes meanwhile."""
        while key not in self.conductor.trials:
            job, trial, _ = self.conductor.executor.next()
            self.conductor.take(job, trial)
        return self.conductor.trials[key]

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
            self.predicted[candidate.id] = answer.costs
        if answer.failure is None:
            return None
        if candidate.id not in self.screened:
            self.screened[candidate.id] = (candidate, answer.failure)
            self.conductor.tally.screened += 1
        return Trial(candidate, 0, self.settings.seed, failure=answer.failure)

    def _strategy(self) -> Strategy:
        from automc.search.strategies.registry import create_strategy

        return create_strategy(
            self.settings.strategy,
            space=self.prepared.space,
            objectives=len(self.run.config.objectives),
            seed=self.settings.seed,
            screen=lambda candidates: [self._screen(candidate) is None for candidate in candidates],
            costs=None if self.prepared.costs is None else self._priced,
        )

    def _priced(self, candidates: Sequence[Candidate]) -> npt.NDArray[np.float64]:
        """(n, objectives) predicted before any evaluation, NaN where nothing predicts it: a `CostTeller`."""
        import numpy as np

        assert self.prepared.costs is not None
        told = self.prepared.costs.predicted(candidates)
        names = self.run.config.objectives
        return np.array([[costs.get(name, np.nan) for name in names] for costs in told]).reshape(-1, len(names))

    def _objectives(self, trial: Trial) -> tuple[float, ...] | None:
        return objectives_of(trial, self.run.config.objectives) if trial.ok else None

    def _violation(self, trial: Trial) -> float:
        """Sum of shares by which predicted costs exceed their limits; 0 where all are met."""
        figures = trial.figures or {}
        costs = [limit for limit in self.prepared.limits if limit.metric != "drop_points"]
        return sum(limit.excess(figures[limit.metric]) if limit.metric in figures else 1.0 for limit in costs)

    def _check_replay(self, number: int, candidate: Candidate) -> None:
        if not self._replayed:
            self.run.journal.append("asked", durable=False, n=number, id=candidate.id, candidate=candidate.to_json())
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
