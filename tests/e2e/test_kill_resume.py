"""SIGKILL at ten random moments, each followed by resume: no finished trial lost, none repeated, the same decisions."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from noop_runs import config_in, decisions

from automc.config import dump_config, load_config
from automc.run import Run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits_quick.yaml"


def started(*arguments: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen([sys.executable, "-m", "automc.cli.main", *arguments], stdout=out, stderr=out)


def begin_or_go_on(config: Path, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """The command a user gives: search at first, resume once there is a run to resume."""
    if (folder / "config.lock.yaml").is_file():
        return started("resume", str(folder), log=log)
    return started("search", str(config), "--run", str(folder), log=log)


def trials_on_disk(folder: Path) -> list[str]:
    """The completed trials of a journal, as text, read without automc; a torn last line counts as none."""
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    events = [json.loads(line.partition(b" ")[2]) for line in lines if line.endswith(b"\n")]
    return [json.dumps(event["trial"], sort_keys=True) for event in events if event["event"] == "trial"]


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool], log: Path, limit_s: float) -> bool:
    """SIGKILL once `reached`; False where the process ended well before that."""
    deadline = time.monotonic() + limit_s
    while not reached():
        if process.poll() is not None:
            assert process.returncode == 0, log.read_text()
            return False
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return True


def outcome(run: Run) -> dict[tuple[str, int], object]:
    """What equality covers: accuracy and predicted costs of every trial, or how it failed; never a measured time."""
    return {
        (trial.candidate.id, trial.rung): (
            trial.failure.kind
            if trial.failure is not None
            else {name: figure.value for name, figure in (trial.figures or {}).items()}
        )
        for trial in run.trials()
    }


def check_same(killed: Run, whole: Run) -> None:
    times = Counter((trial.candidate.id, trial.rung) for trial in killed.trials())
    assert set(times.values()) == {1}
    assert outcome(killed) == outcome(whole)
    assert decisions(killed) == decisions(whole)


@pytest.mark.e2e
@pytest.mark.slow
def test_ten_kills_of_a_search_change_nothing(tmp_path: Path) -> None:
    draw = random.Random(20)
    config = tmp_path / "search.yaml"
    rungs = [{"candidates": 80, "steps": 0}, {"candidates": 20, "steps": 1}]
    config.write_text(dump_config(config_in(tmp_path, rungs=rungs)))
    log, folder = tmp_path / "log", tmp_path / "killed"
    for kill in range(10):
        before = trials_on_disk(folder)
        target = len(before) + draw.randrange(0, 10)  # 0: before anything new, often inside the replay
        process = begin_or_go_on(config, folder, log)
        assert kill_when(process, lambda target=target: len(trials_on_disk(folder)) >= target, log, 60), f"kill {kill}"
        assert trials_on_disk(folder)[: len(before)] == before
    assert begin_or_go_on(config, folder, log).wait(timeout=60) == 0, log.read_text()
    assert started("search", str(config), "--run", str(tmp_path / "whole"), log=log).wait(timeout=60) == 0
    check_same(Run.open(folder), Run.open(tmp_path / "whole"))


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The Ray actors that a run has started; Ray's own agents, which a node does not outlive, are none of them."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if child.name().startswith("ray::_Worker")]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not os.environ.get("AUTOMC_KILLS"), reason="takes about ten minutes: make kills")
def test_ten_kills_of_the_digits_line_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In calibration, search, finalists and bundle; eight of the main process and two of a worker."""
    monkeypatch.setenv("AUTOMC_HOME", str(tmp_path / "home"))
    draw = random.Random(21)
    raw = yaml.safe_load(dump_config(load_config(EXAMPLE)))
    raw["choose"] = "smallest"  # by bytes: a choice by measured latency may differ between two sound runs
    config, log, folder = tmp_path / "search.yaml", tmp_path / "log", tmp_path / "killed"
    config.write_text(yaml.safe_dump(raw))

    def began(stage: str) -> Callable[[int], bool]:
        """Whether the process that writes the log from an offset on has come to `stage`."""
        return lambda offset: stage.encode() in log.read_bytes()[offset:]

    def finished(count: int) -> Callable[[int], bool]:
        return lambda offset: len(trials_on_disk(folder)) >= count

    def journalled(event: str) -> Callable[[int], bool]:
        return lambda offset: f'"event":"{event}"' in (folder / "journal.jsonl").read_text(errors="replace")

    # who is killed, the stage of the search it has to be in, and from when on; a random while later, at most `spread` s
    moments: list[tuple[str, str, Callable[[int], bool], float]] = [
        ("main", "calibrating", began("calibrating"), 10.0),
        ("main", "searching", finished(1), 2.0),
        ("worker", "searching", finished(4), 2.0),
        ("main", "searching", finished(7), 2.0),
        ("worker", "searching", finished(10), 2.0),
        ("main", "searching", finished(13), 2.0),
        ("main", "measuring", began("timing"), 1.0),
        ("main", "measuring", journalled("measured"), 0.2),
        ("main", "bundling", began("writing and verifying"), 0.5),
        ("main", "bundling", journalled("bundle"), 0.0),
    ]
    kills: Counter[tuple[str, str]] = Counter()
    offset, process = 0, begin_or_go_on(config, folder, log)
    for who, stage, reached, spread in moments:
        before, deadline = trials_on_disk(folder), time.monotonic() + 600
        while not reached(offset) or (who == "worker" and not workers_of(process)):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, spread))
        assert process.poll() is None, f"ended before it could be killed {stage}"
        victim = process if who == "main" else draw.choice(workers_of(process))
        now = re.findall(r"\] (\w+) \|", log.read_bytes()[offset:].decode())[-1]
        victim.kill()
        kills[who, now] += 1
        if who == "worker":
            continue  # the run itself goes on
        process.wait()
        assert trials_on_disk(folder)[: len(before)] == before
        offset, process = log.stat().st_size, begin_or_go_on(config, folder, log)
    assert process.wait(timeout=900) == 0, log.read_text()
    print(f"kills by who and stage: {dict(kills)}")
    wanted = Counter((who, stage) for who, stage, _, _ in moments)
    assert kills == wanted
    assert started("search", str(config), "--run", str(tmp_path / "whole"), log=log).wait(timeout=900) == 0
    check_same(Run.open(folder), Run.open(tmp_path / "whole"))
    assert started("bundle", "verify", str(folder / "bundle"), log=log).wait(timeout=120) == 0, log.read_text()
