"""What stops a run: failures in a row, with the reason of the first; Ctrl-C, also with workers of Ray's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from noop_runs import config_in, decisions
from test_law_4_trials import stopping_after
from whole_runs import save_classes, small_config

from automc.candidate import Candidate, Step
from automc.config import dump_config
from automc.errors import ExportError, InfeasibleCandidate, RunError, RunInterrupted
from automc.evaluate import Job
from automc.executor import InlineExecutor
from automc.run import Run
from automc.search.conductor import FAILURES_IN_A_ROW, Conductor
from automc.search.loop import resume, search
from automc.search.progress import nobody
from automc.trial import Failure, FailureKind, Figure, Metric, Trial
from automc.workloads.noop import Noop


def finished(number: int, kind: FailureKind | None) -> tuple[Job, Trial]:
    """Candidate `number` as it comes from a worker; kind: of its failure, None for a success."""
    candidate = Candidate((Step.of("low_rank", rank_ratio=number),))
    job = Job(candidate, rung=0, seed=0, steps=0)
    if kind is None:
        figures = {"accuracy": Figure(0.5, 0.4, 0.6, "fraction", "measured", n=10, rung=0)}
        return job, Trial(candidate, 0, 0, figures=figures)  # type: ignore[arg-type]
    return job, Trial(candidate, 0, 0, failure=Failure(kind, f"reason {number}"))


@pytest.fixture
def conductor(tmp_path: Path) -> Iterator[Conductor]:
    with Run.create(tmp_path / "run", config_in(tmp_path), data_root=None) as run:
        yield Conductor(run, nobody)


def test_twelve_failures_in_a_row_stop_the_run_with_the_reason_of_the_first(conductor: Conductor) -> None:
    assert FAILURES_IN_A_ROW == 12
    kinds: list[FailureKind] = ["export", *["compression"] * 10]
    for number, kind in enumerate(kinds):
        conductor.take(*finished(number, kind))
    with pytest.raises(RunError, match="12 candidates in a row failed, the first with export: reason 0") as stopped:
        conductor.take(*finished(11, "parity"))
    assert stopped.value.next_step == f"mend the cause, then: automc resume {conductor.run.folder}"
    assert len(conductor.run.trials()) == 12  # the last one is kept as well


@pytest.mark.parametrize("kind", [None, "infeasible"])
def test_a_success_or_an_impossible_candidate_breaks_the_row(conductor: Conductor, kind: FailureKind | None) -> None:
    """11 failures, one that is none, 11 failures; the twelfth after it names the first after it."""
    for number in range(11):
        conductor.take(*finished(number, "export"))
    conductor.take(*finished(11, kind))
    for number in range(12, 23):
        conductor.take(*finished(number, "export"))
    with pytest.raises(RunError, match="12 candidates in a row failed, the first with export: reason 12"):
        conductor.take(*finished(23, "export"))


class Broken:
    """An evaluation that fails as long as its cause is not mended; remembers whom it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, job: Job) -> Trial:
        self.asked.append(job.candidate.id)
        return Trial(job.candidate, job.rung, job.seed, failure=Failure("export", f"failure {len(self.asked)}"))

    def break_with(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Conductor, "_start", lambda conductor: InlineExecutor(lambda: self))


def test_a_search_in_which_nothing_works_stops_and_its_failures_are_tried_again_once_the_cause_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, automc
) -> None:
    broken = Broken()
    config = tmp_path / "search.yaml"
    config.write_text(dump_config(config_in(tmp_path)))
    with monkeypatch.context() as patch:
        broken.break_with(patch)
        answer = automc("search", config, "--run", tmp_path / "run")
    assert answer.code == 4
    assert "12 candidates in a row failed, the first with export: failure 1\n" in answer.err
    assert f"next: mend the cause, then: automc resume {tmp_path / 'run'}" in answer.err
    assert len(broken.asked) == 12
    asked = [event["id"] for event in Run.open(tmp_path / "run").journal.of("asked")]
    run = resume(tmp_path / "run")  # the cause is mended
    (retrying,) = run.journal.of("retrying")
    assert [key[0] for key in retrying["keys"]] == broken.asked
    assert [event["id"] for event in run.journal.of("asked")][: len(asked)] == asked
    assert all(trial.ok for trial in run.trials())
    times = Counter((trial.candidate.id, trial.rung) for trial in run.trials())
    assert set(times.values()) == {1}
    assert {name for name, rung in times if rung == 0} >= set(broken.asked)
    first = [event["trial"]["id"] for event in run.journal.of("trial")][:12]
    assert first == broken.asked  # the journal keeps what happened


def test_failures_that_stopped_a_run_are_tried_again_once_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken()
    broken.break_with(monkeypatch)
    with pytest.raises(RunError, match="12 candidates in a row"):
        search(config_in(tmp_path), run_dir=tmp_path / "run")
    first = list(broken.asked)
    with pytest.raises(RunError, match="12 candidates in a row"):
        resume(tmp_path / "run")  # nothing was mended
    assert broken.asked == first + first
    with pytest.raises(RunError, match="12 candidates in a row"):
        resume(tmp_path / "run")
    assert not set(broken.asked[24:]) & set(first)


def test_a_run_that_was_stopped_and_mended_resumes_at_any_later_moment_as_if_it_had_not_been_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strategies learn: what was told of the failures is told again as it was, so that every later ask is the same."""
    rungs = [{"candidates": 36, "steps": 0}, {"candidates": 6, "steps": 1}]
    config = config_in(tmp_path, strategy="guided", rungs=rungs)
    outcomes = []
    for name, count in (("whole", None), ("cut", 3), ("late", 32)):
        with monkeypatch.context() as patch:
            Broken().break_with(patch)
            with pytest.raises(RunError):
                search(config, run_dir=tmp_path / name)
        if count is not None:
            with pytest.raises(RunInterrupted):
                resume(tmp_path / name, watch=stopping_after(count))
        outcomes.append(decisions(resume(tmp_path / name)))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_reference_that_failed_stops_the_run_and_is_tried_again_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_classes(tmp_path)
    config = small_config(tmp_path, "classification")

    def refuse(*_: object) -> Trial:
        raise ExportError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("automc.evaluate.Evaluator._evaluate", refuse)
        with pytest.raises(RunError, match=r"the reference itself failed: .*no room") as stopped:
            search(config, run_dir=tmp_path / "run")
    assert "automc resume" in str(stopped.value.next_step)
    run = resume(tmp_path / "run")
    assert run.finished
    assert run.finalists()


def test_a_workload_that_scores_by_itself_may_call_a_candidate_impossible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of measurements need not hold every candidate of the space."""
    score = Noop.score

    def beyond(candidate: Candidate) -> bool:
        return float(str(candidate.architecture["x_0"])) > 0.5

    def refuse_some(self: Noop, candidate: Candidate, rung: int, seed: int) -> Mapping[Metric, Figure]:
        if beyond(candidate):
            raise InfeasibleCandidate("the table holds no such cell")
        return score(self, candidate, rung, seed)

    monkeypatch.setattr(Noop, "score", refuse_some)
    run = search(config_in(tmp_path, seed=1), run_dir=tmp_path / "run")
    refused = [trial for trial in run.trials() if beyond(trial.candidate)]
    assert refused
    assert {(trial.failure.kind, trial.failure.reason) for trial in refused if trial.failure} == {
        ("infeasible", "the table holds no such cell")
    }
    assert all(trial.ok for trial in run.trials() if trial not in refused)
    assert run.finished


@pytest.mark.ray
def test_ctrl_c_at_a_terminal_stops_ray_and_the_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """A terminal sends the signal to every process of its group, so to Ray's as well."""
    config = config_in(tmp_path, rungs=[{"candidates": 150, "steps": 0}, {"candidates": 6, "steps": 1}])
    file, folder = tmp_path / "search.yaml", tmp_path / "run"
    file.write_text(dump_config(config))
    command = [sys.executable, "-m", "automc.cli.main", "search", str(file), "--run", str(folder), "--executor", "ray"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        journal, limit = folder / "journal.jsonl", time.monotonic() + 60
        while not (journal.is_file() and journal.read_bytes().count(b'"event":"trial"') > 10):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < limit
            time.sleep(0.01)
        children = psutil.Process(running.pid).children(recursive=True)
        os.killpg(running.pid, signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 5, err
    assert f"next: automc resume {folder}" in err
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    kept = [trial.to_json() for trial in Run.open(folder).trials()]
    assert 10 < len(kept) < 156
    run = resume(folder)
    assert [trial.to_json() for trial in run.trials()][: len(kept)] == kept
    assert decisions(run) == decisions(search(config, run_dir=tmp_path / "whole"))
