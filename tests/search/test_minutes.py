"""Searches that end by the clock: rounds while there is time, what was decided by it replayed without asking it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from noop_runs import config_in
from test_law_4_trials import stopping_after

from automc.candidate import Candidate, Step
from automc.config import SearchConfig
from automc.errors import ConfigError, RunInterrupted
from automc.run import Run
from automc.search.allowance import affordable, spent_s
from automc.search.loop import resume, search
from automc.trial import Failure, Figure, Metric, Provenance, Trial
from automc.workloads.noop import Noop

SECONDS = 10.0  # that a candidate of these tests takes, on a clock that only evaluations move


class Clock:
    """Time that stands still but while a candidate is evaluated."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    score = Noop.score

    def slowly(workload: Noop, candidate: Candidate, rung: int, seed: int) -> Mapping[Metric, Figure]:
        clock.now += SECONDS
        return score(workload, candidate, rung, seed)

    monkeypatch.setattr(Noop, "score", slowly)
    monkeypatch.setattr("automc.evaluate.time", SimpleNamespace(time=clock))
    monkeypatch.setattr("automc.search.allowance.time", SimpleNamespace(monotonic=clock))
    return clock


def ten_minutes(folder: Path, minutes: float | None = 10, **more: object) -> SearchConfig:
    """24 and then 6 candidates a round: five minutes of this clock."""
    return config_in(folder, strategy="random", minutes=minutes, **more)


def trained(run: Run) -> int:
    return sum(trial.rung == 1 for trial in run.trials())


def test_time_spent_counts_overlapping_work_once_and_no_pauses() -> None:
    def trial(start: float, seconds: float) -> Trial:
        spent = Provenance("w", "h", 1, start, seconds)
        return Trial(Candidate((Step.of("a"),)), 0, 0, failure=Failure("export", "no"), provenance=spent)

    assert spent_s([trial(0, 10), trial(5, 10), trial(6, 2), trial(100, 1)]) == 16
    assert spent_s([]) == 0


def test_without_minutes_the_rungs_are_gone_through_once(tmp_path: Path) -> None:
    run = search(ten_minutes(tmp_path, None), run_dir=tmp_path / "run")
    assert len(run.trials()) == 30
    assert not list(run.journal.of("round"))


def test_rounds_go_on_with_new_candidates_until_the_time_is_used(tmp_path: Path) -> None:
    run = search(ten_minutes(tmp_path), run_dir=tmp_path / "run")
    assert 0.75 * 600 < spent_s(run.trials()) <= 600 + 3 * SECONDS
    begun = [record["begin"] for record in run.journal.of("round")]
    assert begun == [True] * (len(begun) - 1) + [False]
    assert len(begun) > 1
    assert len({trial.candidate.id for trial in run.trials() if trial.rung == 0}) > 24
    assert trained(run) > 6


def test_where_there_is_no_time_for_all_fewer_are_asked_for_and_the_end_is_reached(tmp_path: Path) -> None:
    run = search(ten_minutes(tmp_path, 2), run_dir=tmp_path / "run")
    assert spent_s(run.trials()) <= 120 + 60  # of this noop search no reference tells what a rung costs
    assert 4 <= sum(trial.rung == 0 for trial in run.trials()) <= 7
    assert run.finished
    assert trained(run) >= 1


def test_what_the_clock_decided_is_replayed_whatever_the_clock_says_then(tmp_path: Path, clock: Clock) -> None:
    whole = decisions_of(search(ten_minutes(tmp_path), run_dir=tmp_path / "whole"))
    for cut in (3, 26, 33):
        folder = tmp_path / f"cut{cut}"
        with pytest.raises(RunInterrupted):
            search(ten_minutes(tmp_path), run_dir=folder, watch=stopping_after(cut))
        clock.now += 86_400  # a night in which nobody searched costs nothing
        assert decisions_of(resume(folder)) == whole


def test_a_finished_run_goes_on_for_as_long_as_it_is_given(tmp_path: Path) -> None:
    search(ten_minutes(tmp_path, None), run_dir=tmp_path / "run")
    before = Run.open(tmp_path / "run")
    assert before.finished
    run = resume(tmp_path / "run", minutes=10)
    first = [trial.to_json() for trial in before.trials()]
    assert [trial.to_json() for trial in run.trials()][: len(first)] == first
    assert 0.75 * 600 < spent_s(run.trials()) - 300 <= 600 + 3 * SECONDS
    assert len(list(run.journal.of("end"))) == 2
    known = len(run.trials())
    assert len(resume(tmp_path / "run").trials()) == known  # finished, and nothing more to do


def test_an_extension_that_was_interrupted_goes_on_as_one_that_was_not(tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        search(ten_minutes(tmp_path, None), run_dir=tmp_path / name)
    with pytest.raises(RunInterrupted):
        resume(tmp_path / "cut", minutes=5, watch=stopping_after(12))
    assert not Run.open(tmp_path / "cut").finished
    assert decisions_of(resume(tmp_path / "cut")) == decisions_of(resume(tmp_path / "whole", minutes=5))


def test_a_run_whose_time_is_up_ends_with_what_it_has_until_it_is_given_more(tmp_path: Path) -> None:
    run = search(ten_minutes(tmp_path, 5), run_dir=tmp_path / "run")
    spent = spent_s(run.trials())
    run = resume(tmp_path / "run", minutes=5)
    assert spent_s(run.trials()) > spent + 200


def test_a_run_that_cannot_go_on_is_not_given_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search(ten_minutes(tmp_path, None), run_dir=tmp_path / "run")

    def refuse(run: Run, watch: object) -> None:
        raise ConfigError("other data", next_step="restore them")

    monkeypatch.setattr("automc.search.loop.prepare", refuse)
    with pytest.raises(ConfigError, match="other data"):
        resume(tmp_path / "run", minutes=5)
    assert Run.open(tmp_path / "run").finished


@pytest.mark.parametrize("minutes", [0, -3, float("nan"), float("inf")])
def test_no_time_to_go_on_for_is_refused(tmp_path: Path, minutes: float) -> None:
    run = search(ten_minutes(tmp_path, 1), run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="is no time to go on for"):
        resume(tmp_path / "run", minutes=minutes)
    assert Run.open(tmp_path / "run").journal.events == run.journal.events


def test_a_rung_may_use_its_share_of_the_time_that_is_left() -> None:
    # 8 of 10 s and 4 of 20 s: half of the time each
    assert affordable(160.0, [10.0, 20.0], [8, 4], carried=0, workers=1) == 8
    assert affordable(80.0, [10.0, 20.0], [8, 4], carried=0, workers=1) == 4
    assert affordable(80.0, [10.0, 20.0], [8, 4], carried=3, workers=2) == 5
    assert affordable(0.0, [10.0, 20.0], [8, 4], carried=3, workers=2) == 0
    assert affordable(5.0, [0.0, 0.0], [8, 4], carried=0, workers=2) == 8  # nobody knows what it costs


def decisions_of(run: Run) -> list[Mapping[str, object]]:
    kinds = {"asked", "told", "promoted", "enough", "end"}
    return [event for event in run.journal.events if event["event"] in kinds]
