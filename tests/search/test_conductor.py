"""What stops a run: failures in a row, with the reason of the first; Ctrl-C, also with workers of Ray's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from noop_runs import config_in, decisions

from automc.candidate import Candidate, Step
from automc.config import dump_config
from automc.errors import InfeasibleCandidate, RunError
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


def test_a_search_in_which_nothing_works_stops_and_evaluates_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, automc
) -> None:
    evaluated: list[str] = []

    def broken(job: Job) -> Trial:
        evaluated.append(job.candidate.id)
        return Trial(job.candidate, job.rung, job.seed, failure=Failure("export", f"failure {len(evaluated)}"))

    config = tmp_path / "search.yaml"
    config.write_text(dump_config(config_in(tmp_path)))
    with monkeypatch.context() as patch:
        patch.setattr(Conductor, "_start", lambda self: InlineExecutor(lambda: broken))
        answer = automc("search", config, "--run", tmp_path / "run")
    assert answer.code == 4
    assert "12 candidates in a row failed, the first with export: failure 1\n" in answer.err
    assert f"next: mend the cause, then: automc resume {tmp_path / 'run'}" in answer.err
    assert len(evaluated) == 12
    run = resume(tmp_path / "run")  # the cause is mended
    assert [trial.candidate.id for trial in run.trials()][:12] == evaluated
    assert sum(not trial.ok for trial in run.trials()) == 12


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
