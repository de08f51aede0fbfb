"""`automc runs`, `search --dry-run` and `--minutes`, `resume --minutes`: for who wants to know, or wants more."""

from __future__ import annotations

import fcntl
import json
import re
import threading
from pathlib import Path

import pytest

from automc.config import dump_config, parse_config
from automc.errors import RunInterrupted
from automc.run import LOCK, Run
from automc.search.loop import resume, search
from automc.search.progress import Progress

RUNGS = [{"candidates": 6, "steps": 0}, {"candidates": 2, "steps": 1}]


def write_config(folder: Path, **sections: object) -> Path:
    file = folder / "noop.yaml"
    raw = {
        "name": "quiet", "workload": {"name": "noop"}, "space": "noop", "objectives": ["accuracy", "latency_ms"],
        "constraints": {"max_drop_points": None}, "search": {"strategy": "random", "rungs": RUNGS},
        "executor": {"kind": "inline"}, **sections,
    }  # fmt: skip
    file.write_text(dump_config(parse_config(raw, "a test")))
    return file


def interrupt(progress: Progress) -> None:
    if progress.trial is not None:
        raise KeyboardInterrupt


def test_every_run_of_a_folder_is_listed_with_its_state_and_what_to_do_next(automc, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    file = write_config(tmp_path)
    search(file, run_dir=runs / "whole")
    with pytest.raises(RunInterrupted):
        search(file, run_dir=runs / "cut", watch=interrupt)
    search(file, run_dir=runs / "torn")
    (runs / "torn" / LOCK).write_text("a: [")
    (runs / "no_run").mkdir()
    strict = write_config(tmp_path, constraints={"max_drop_points": None, "max_latency_ms": 0.5})
    assert automc("search", strict, "--run", runs / "strict").code == 3

    answer = automc("runs", runs, "--json")
    assert answer.code == 0
    found = {Path(entry["run"]).name: entry for entry in json.loads(answer.out)}
    assert {name: entry["state"] for name, entry in found.items()} == {
        "whole": "finished", "cut": "interrupted", "torn": "damaged", "strict": "nothing meets its limits",
    }  # fmt: skip
    assert found["whole"]["trials"] == len(Run.open(runs / "whole").trials())
    assert (
        found["whole"]["chosen"]["id"]
        == next(p for p in Run.open(runs / "whole").finalists() if p.chosen).trial.candidate.id
    )
    assert found["cut"]["next"] == f"automc resume {runs / 'cut'}"
    assert found["cut"]["chosen"] is None
    page = automc("runs", runs)
    assert "damaged: " in page.out
    assert page.out.splitlines()[0].split()[:3] == ["run", "changed", "workload"]
    assert "strict" in page.out.splitlines()[1]  # the latest first


@pytest.mark.parametrize("max_latency_ms", [None, 0.5])
def test_a_run_that_was_given_more_time_and_then_cut_off_is_interrupted_though_it_has_finalists(
    automc, tmp_path: Path, max_latency_ms: float | None
) -> None:
    """0.5 ms is what no candidate meets: there was no choice before, and it is not the last word."""
    limits = {"max_drop_points": None, "max_latency_ms": max_latency_ms}
    folder = tmp_path / "runs" / "more"
    automc("search", write_config(tmp_path, constraints=limits), "--run", folder)

    def state() -> tuple[str, str]:
        (entry,) = json.loads(automc("runs", tmp_path / "runs", "--json").out)
        return entry["state"], entry["next"]

    assert state()[0] == ("finished" if max_latency_ms is None else "nothing meets its limits")
    with pytest.raises(RunInterrupted):
        resume(folder, minutes=0.01, watch=interrupt)
    assert state() == ("interrupted", f"automc resume {folder}")


def test_looking_at_a_run_does_not_keep_others_from_going_on_with_it(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", parse_config({}, "a test"), data_root=None).close()
    with (tmp_path / "run" / ".lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.05, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        run = Run.open(tmp_path / "run", writable=True)
        with pytest.raises(BlockingIOError):  # it waited for the look to end, and has the run to itself
            fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)
        run.close()
        fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_run_that_is_being_written_is_said_to_run(automc, tmp_path: Path) -> None:
    file = write_config(tmp_path)
    seen: list[str] = []

    def look(progress: Progress) -> None:
        if progress.trial is not None and not seen:
            seen.append(json.loads(automc("runs", tmp_path / "runs", "--json").out)[0]["state"])

    search(file, run_dir=tmp_path / "runs" / "live", watch=look)
    assert seen == ["running"]


def test_a_folder_without_runs_says_how_to_begin(automc, tmp_path: Path) -> None:
    answer = automc("runs", tmp_path)
    assert (answer.code, answer.out) == (0, f"no run in {tmp_path}; begin one: automc demo\n")
    answer = automc("runs", tmp_path / "nowhere")
    assert answer.code == 2
    assert "there is no such folder" in answer.err


def test_a_dry_run_says_the_plan_and_writes_nothing(automc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_config(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    answer = automc("search", file, "--dry-run", "--minutes", "3")
    assert answer.code == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert "run:         runs/quiet\n" in answer.out
    assert "rung 0:      6 candidates and 0 anchors, 0 optimiser steps each\n" in answer.out
    assert "time:        3 minutes of searching" in answer.out
    assert f"automc doctor {file}" in answer.out
    plan = json.loads(automc("search", file, "--dry-run", "--json").out)
    assert plan["executor"] == "this process"
    search(file)
    assert "a search would be refused, give --run DIR" in automc("search", file, "--dry-run").out


def test_a_dry_run_of_a_network_names_it_its_data_and_the_device(automc, tmp_path: Path) -> None:
    file = tmp_path / "digits.yaml"
    file.write_text("name: digits\n")
    plan = json.loads(automc("search", file, "--dry-run", "--json").out)
    assert plan["model"].startswith("digits: ")
    assert plan["data"].startswith("train ")
    assert plan["device"].startswith("host")
    assert re.match(r"about \d+:\d\d \(a training step [\d.e-]+ s, an export [\d.e-]+ s, a scoring ", plan["time"])


def test_a_dry_run_refuses_what_the_search_would(automc, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("name: bad\nspace: nowhere\n")
    answer = automc("search", file, "--dry-run")
    assert answer.code == 2
    assert "nowhere" in answer.err


@pytest.mark.parametrize("minutes", ["+0.001", "0.001"])
def test_resume_with_minutes_goes_on_with_a_finished_run(automc, tmp_path: Path, minutes: str) -> None:
    search(write_config(tmp_path), run_dir=tmp_path / "run")
    before = len(Run.open(tmp_path / "run").trials())
    answer = automc("resume", tmp_path / "run", "--minutes", minutes)
    assert answer.code == 0
    assert len(Run.open(tmp_path / "run").trials()) > before


def test_minutes_that_are_no_number_are_a_mistake_of_the_command_line(automc, tmp_path: Path) -> None:
    search(write_config(tmp_path), run_dir=tmp_path / "run")
    answer = automc("resume", tmp_path / "run", "--minutes", "soon")
    assert answer.code == 2
    assert "'soon' is no number of minutes" in answer.err
    answer = automc("search", write_config(tmp_path), "--minutes", "-1", "--run", tmp_path / "other")
    assert answer.code == 2
    assert "search.minutes" in answer.err
