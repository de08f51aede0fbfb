"""A finished trial is never lost and never done twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from noop_runs import config_in, decisions

from automc.errors import RunInterrupted
from automc.journal import Journal
from automc.run import Run
from automc.search.loop import resume, search
from automc.search.progress import Progress

KILLED = """
import os, signal, sys
from pathlib import Path
from automc.journal import Journal
journal = Journal(Path(sys.argv[1]), writable=True)
for number in range(3):
    journal.append("trial", number=number)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_appended_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert [event["number"] for event in Journal(path, writable=False).events] == [0, 1, 2]


def stopping_after(count: int):
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if sum(item.trial is not None for item in seen) == count:
            raise KeyboardInterrupt

    return watch


def test_a_resumed_run_repeats_no_trial_and_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    whole = search(config, run_dir=tmp_path / "whole")
    for count in (1, 7, 23, 26):
        folder = tmp_path / f"cut-{count}"
        with pytest.raises(RunInterrupted, match="automc resume"):
            search(config, run_dir=folder, watch=stopping_after(count))
        kept = [trial.to_json() for trial in Run.open(folder).trials()]
        assert len(kept) == count
        run = resume(folder)
        assert [trial.to_json() for trial in run.trials()][:count] == kept
        times = Counter((trial.candidate.id, trial.rung) for trial in run.trials())
        assert set(times.values()) == {1}
        assert decisions(run) == decisions(whole)


def test_a_finished_run_is_not_driven_again(tmp_path: Path) -> None:
    run = search(config_in(tmp_path), run_dir=tmp_path / "run")
    size = (run.folder / "journal.jsonl").stat().st_size
    resume(run.folder)
    assert (run.folder / "journal.jsonl").stat().st_size == size
