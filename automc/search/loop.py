"""The search: ask, screen, evaluate on workers, journal, tell, promote; and the same again when resumed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from automc.candidate import Candidate
from automc.config import SearchConfig, load_config
from automc.errors import DISK_ERRORS, ConfigError, RunInterrupted
from automc.evaluate import Job
from automc.run import Run
from automc.search.allowance import EXTENDED, Allowance, affordable, check_minutes, extend
from automc.search.asking import Asker, diverged
from automc.search.checking import check
from automc.search.conductor import Conductor, told_before
from automc.search.fidelity import best_of_group, promoted
from automc.search.progress import Watcher, nobody
from automc.search.setup import Prepared, data_root_of, move_data, prepare
from automc.trial import Failure, Trial

if TYPE_CHECKING:
    from automc.cost.predictor import Costs

ASKS_PER_EVALUATION = 30  # a strategy that finds nothing new in so many asks has seen what it can reach
FIRST_RUNG_SHARE = 1 / 3  # of a round's time, at most: the rungs above it need the rest
LEAST_OF_A_ROUND = 0.25  # of the time that rounds took so far: with less left, another would train too few


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


def resume(
    run_dir: Path | str,
    *,
    data_root: Path | str | None = None,
    minutes: float | None = None,
    watch: Watcher = nobody,
) -> Run:
    """Go on with an interrupted run: finished trials are replayed from its journal, none is evaluated again.

    What a finished run has lost (its front, report or bundle) is written again.
    minutes: search so much longer, a finished run too: further rounds of its rungs, then the finalists anew.
    data_root: where the data have been moved to since the run began, which the run keeps. Raises ConfigError where
    they are not the same, by the digests of the lock file.
    """
    with _room_for(Path(run_dir)), Run.open(run_dir, writable=True) as run:
        if data_root is not None:
            root = data_root_of(Path(data_root))
            assert root is not None
            move_data(run, root)
        if minutes is not None:
            check_minutes(minutes, run)
        return run if run.finished and not run.missing and minutes is None else _drive(run, watch, minutes)


@contextmanager
def _room_for(folder: Path) -> Iterator[None]:
    """A disk that is full or read-only is one message: whatever the run had finished by then is kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise RunInterrupted(
            f"{error.filename or folder}: {error.strerror}",
            next_step=f"make room, or make it writable, then: automc resume {folder}",
        ) from error


def _drive(run: Run, watch: Watcher, more_minutes: float | None = None) -> Run:
    from automc.search.ending import finish

    conductor = None
    try:
        prepared = prepare(run, watch)
        if more_minutes is not None:  # not before it is known that the run can go on
            extend(run, more_minutes)
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

    predicted: costs of every candidate that was screened, by its id, as far as they are known. estimated: ids of those
    whose shapes hang on weights, and were estimated from the base.
    """

    rungs: tuple[dict[str, Trial], ...]
    reference: Trial | None
    anchors: dict[str, str]
    screened: tuple[tuple[Candidate, Failure], ...]
    predicted: dict[str, Costs]
    estimated: frozenset[str] = frozenset()


class Loop:
    """Asks, tells and promotes in an order that depends on answers alone, never on who answered first (law 7).

    Where time is limited the rungs are gone through in rounds, until there is none left; the journal keeps how many
    candidates there was time for.
    """

    def __init__(self, run: Run, prepared: Prepared, conductor: Conductor) -> None:
        self.run, self.prepared, self.conductor = run, prepared, conductor
        self.settings = run.config.search
        self.anchors = prepared.space.anchors
        self.anchor_of = {c.id: anchor.name for anchor in self.anchors for c in anchor.candidates}
        self.asker = Asker(run, prepared, frozenset(self.anchor_of), conductor.tally)
        self.allowance = Allowance(run)
        if self.allowance.limited:
            conductor.tally.time_left_s = lambda: self.allowance.left_s
        self._told_before = told_before(run)
        self._unasked = deque(candidate for anchor in self.anchors for candidate in anchor.candidates)
        self._asked = 0
        self._fresh: set[str] = set()

    def run_rungs(self) -> Ended:
        """Every rung from the first to the last; raises RunError where a replay leads to other decisions."""
        self.conductor.after_each = self._advance_reference
        self._advance_reference()
        rungs: list[dict[str, Trial]] = [{} for _ in self.settings.rungs]
        for number in count():
            known = len(self._fresh)
            if number and not self._another(number):
                break
            self.conductor.tally.rung = 0
            for name, trial in self._first_rung(number).items():
                rungs[0].setdefault(name, trial)
            for index in range(1, len(rungs)):
                self.conductor.tally.rung = index
                self._await_reference()
                rungs[index] |= self._next_rung(number, index, rungs[index - 1])
            if len(self._fresh) == known:
                break  # the strategy finds nothing new
        top = self._reference_at(len(rungs) - 1)
        asker = self.asker
        screened, estimated = tuple(asker.screened.values()), frozenset(asker.estimated)
        return Ended(tuple(rungs), top, self.anchor_of, screened, asker.predicted, estimated)

    def _another(self, number: int) -> bool:
        """Whether there is time for a round `number`; journalled, and not asked of the clock again."""
        journal = self.run.journal
        recorded = [record for record in journal.of("round") if record["number"] == number]
        if any(record["begin"] for record in recorded):
            return True
        latest = journal.last("round", after=EXTENDED)
        if not self.allowance.limited or (latest is not None and latest["number"] == number):
            return False
        asked_for = latest is None and journal.last(EXTENDED) is not None  # more time is there to be used
        least = 0.0 if asked_for else LEAST_OF_A_ROUND * self.allowance.spent_s / number
        begin = self.allowance.left_s > least
        journal.append("round", number=number, begin=begin, left_s=self.allowance.left_s)
        return begin

    def _first_rung(self, number: int) -> dict[str, Trial]:
        """Anchors, then the strategy's candidates: ask n follows tell n - parallel."""
        budget = self.settings.rungs[0].candidates * (number + 1)
        self.conductor.tally.rung_total = budget + len(self.anchor_of)
        waiting: deque[tuple[int, Candidate, Trial | None]] = deque()
        trials: dict[str, Trial] = {}
        enough = self._enough(number)
        while True:
            while len(waiting) < self.settings.parallel and (
                self._unasked
                or (
                    len(self._fresh) < budget
                    and max(self._asked, len(self.asker.screened)) < ASKS_PER_EVALUATION * budget
                    and not enough()
                )
            ):
                own = bool(self._unasked)
                candidate = self._unasked.popleft() if own else self.asker.ask()
                self.asker.note(self._asked, candidate)
                outcome = self.asker.screen(candidate)
                if outcome is None:
                    self._submit(self._job(candidate, 0, None, None))
                    if not own and candidate.id not in self.anchor_of:
                        self._fresh.add(candidate.id)
                waiting.append((self._asked, candidate, outcome))
                self._asked += 1
            if not waiting:
                return trials
            asked, candidate, outcome = waiting.popleft()
            trial = outcome or self._wait((candidate.id, 0, self.settings.seed))
            self.asker.tell(asked, self._told_before.get(asked, trial))
            trials.setdefault(candidate.id, trial)

    def _enough(self, number: int) -> Callable[[], bool]:
        """Whether round `number` has asked for as many as its time allows; journalled once it has."""
        journal = self.run.journal
        began = next((r for r in journal.of("round") if r["number"] == number and r["begin"]), None)
        whole = self.allowance.whole_s if began is None else float(str(began["left_s"]))
        least = len(self._fresh) + 1

        def enough() -> bool:
            known = next((record for record in journal.of("enough") if record["round"] == number), None)
            if known is None:
                if self.asker.replaying or not self.allowance.limited or len(self._fresh) < least:
                    return False
                if self.allowance.left_s > (1 - FIRST_RUNG_SHARE) * whole:
                    return False
                journal.append("enough", round=number, asked=self._asked)
                return True
            return self._asked >= int(str(known["asked"]))

        return enough

    def _next_rung(self, number: int, index: int, below: dict[str, Trial]) -> dict[str, Trial]:
        carried = self._carried(index, below)
        count = self.settings.rungs[index].candidates * (number + 1)
        chosen = promoted(list(below.values()), count, self.run.config.objectives, carried)
        recorded = [
            record
            for record in self.run.journal.of("promoted")
            if record["rung"] == index and record.get("round", 0) == number
        ]
        if recorded and recorded[0].get("cut"):
            ids = recorded[0]["ids"]
            assert isinstance(ids, list)
            chosen = [trial for trial in chosen if trial.candidate.id in ids]
        elif not recorded and self.allowance.limited:
            chosen = self._within_time(index, chosen, carried)
        ids = [trial.candidate.id for trial in chosen]
        if not recorded:
            cut = self.allowance.limited
            self.run.journal.append("promoted", round=number, rung=index, ids=list(ids), cut=cut)
        elif recorded[0]["ids"] != ids:
            raise diverged(self.run, f"rung {index} would promote {ids}, the journal has {recorded[0]['ids']}")
        known, seed = self.conductor.trials, self.settings.seed
        self.conductor.tally.expect(index, sum((name, index, seed) not in known for name in ids))
        teacher = self._reference_at(len(self.settings.rungs) - 1)
        keys = []
        for trial in chosen:
            job = self._job(trial.candidate, index, trial, teacher)
            self._submit(job)
            keys.append(job.key)
        trials = {key[0]: self._wait(key) for key in keys}
        return trials

    def _within_time(self, index: int, chosen: Sequence[Trial], carried: frozenset[str]) -> list[Trial]:
        """Of those to go up, the anchors, the ones trained already, and the first others that there is time for."""
        new = {
            t.candidate.id for t in chosen if (t.candidate.id, index, self.settings.seed) not in self.conductor.trials
        }
        ahead = range(index, len(self.settings.rungs))
        executor = self.run.config.executor
        room = affordable(
            self.allowance.left_s,
            each=[self._seconds_at(rung) for rung in ahead],
            candidates=[self.settings.rungs[rung].candidates for rung in ahead],
            carried=len(new & carried),
            workers=executor.workers if executor.kind == "ray" else 1,
        )
        kept: list[Trial] = []
        for trial in chosen:
            name = trial.candidate.id
            if name in new and name not in carried:
                if room <= 0 and kept:
                    continue
                room -= 1
            kept.append(trial)
        return kept

    def _seconds_at(self, index: int) -> float:
        """Of one candidate at a rung: the reference's, whose every rung is trained first; 0 where there is none."""
        reference = self._reference_at(index)
        return 0.0 if reference is None or reference.provenance is None else reference.provenance.seconds

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
