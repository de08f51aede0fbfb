from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from noop_runs import config_in

from automc.config import dump_config
from automc.run import Run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A search that costs nothing to score: 24 candidates, then 6."""
    file = tmp_path / "search.yaml"
    file.write_text(dump_config(config_in(tmp_path)))
    return file


def changed(config: Path, **sections: object) -> Path:
    raw = yaml.safe_load(config.read_text())
    raw.update(sections)
    config.write_text(yaml.safe_dump(raw))
    return config


def test_a_search_prints_its_finalists_with_the_chosen_one_and_keeps_progress_out_of_stdout(
    automc, config: Path, tmp_path: Path
) -> None:
    answer = automc("search", str(config), "--run", str(tmp_path / "run"))
    assert answer.code == 0
    header, *rest = answer.out.splitlines()
    assert header.split()[:4] == ["candidate", "accuracy", "drop", "ms"]
    assert sum("chosen" in line for line in rest) == 1
    assert "?" in rest[0]  # noop has no predicted latency beside its own, and what is unknown is no number
    assert "searching" in answer.err
    assert "searching" not in answer.out


def test_front_json_is_what_the_run_holds(automc, config: Path, tmp_path: Path) -> None:
    automc("search", str(config), "--run", str(tmp_path / "run"))
    front = automc("front", str(tmp_path / "run"), "--json").json
    assert [point["trial"]["id"] for point in front] == [
        point.trial.candidate.id for point in Run.open(tmp_path / "run").front()
    ]
    every = automc("front", str(tmp_path / "run"), "--all", "--json").json
    assert len(every) == len(Run.open(tmp_path / "run").finalists()) >= len(front)


def test_search_json_is_one_document(automc, config: Path, tmp_path: Path) -> None:
    answer = automc("search", str(config), "--run", str(tmp_path / "run"), "--json")
    assert answer.code == 0
    assert sum(point["chosen"] for point in answer.json["finalists"]) == 1


def test_options_lie_over_the_file(automc, config: Path, tmp_path: Path) -> None:
    automc("search", str(config), "--run", str(tmp_path / "run"), "--seed", "9")
    assert Run.open(tmp_path / "run").config.search.seed == 9
    answer = automc("search", str(config), "--run", str(tmp_path / "other"), "--executor", "kubernetes")
    assert answer.code == 2
    assert "executor.kind" in answer.err


def test_a_second_run_into_the_same_folder_is_refused_with_the_way_out(automc, config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    automc("search", str(config), "--run", str(folder))
    before = (folder / "journal.jsonl").read_bytes()
    answer = automc("search", str(config), "--run", str(folder))
    assert answer.code == 2  # nothing is damaged
    assert f"next: automc resume {folder}" in answer.err
    assert (folder / "journal.jsonl").read_bytes() == before


def test_constraints_nothing_meets_leave_with_3_the_binding_one_and_the_closest(
    automc, config: Path, tmp_path: Path
) -> None:
    changed(config, constraints={"max_latency_ms": 0.5, "max_drop_points": None})  # noop takes 1 ms at least
    answer = automc("search", str(config), "--run", str(tmp_path / "run"))
    assert answer.code == 3
    assert "latency_ms <= 0.5" in answer.err
    assert "closest" in answer.err
    assert "next: " in answer.err


def test_resuming_a_finished_run_prints_it_again(automc, config: Path, tmp_path: Path) -> None:
    first = automc("search", str(config), "--run", str(tmp_path / "run"))
    again = automc("resume", str(tmp_path / "run"))
    assert again.code == 0
    assert again.out == first.out


def test_what_is_no_run_is_said_to_be_none(automc, tmp_path: Path) -> None:
    for command in ("resume", "front", "report"):
        for folder in (tmp_path, tmp_path / "none"):
            answer = automc(command, str(folder))
            assert answer.code == 2
            assert f"{folder}: is not a run" in answer.err
            assert "\n  next: " in answer.err


def test_a_misspelt_run_gets_the_nearest(automc, config: Path, tmp_path: Path) -> None:
    Run.create(tmp_path / "mine", config_in(tmp_path), data_root=None).close()
    answer = automc("front", str(tmp_path / "mime"))
    assert answer.code == 2
    assert str(tmp_path / "mine") in answer.err
    assert "did you mean mine?" in answer.err
    assert automc("bundle", "build", str(tmp_path / "mime")).code == 2


def test_a_run_that_has_not_ended_has_no_front_and_says_how_to_go_on(automc, config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    Run.create(folder, config_in(tmp_path), data_root=None).close()
    for command in ("front", "report"):
        answer = automc(command, str(folder))
        assert answer.code == 2
        assert f"next: automc resume {folder}" in answer.err


def test_a_run_that_is_running_is_not_told_to_be_resumed(automc, config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    Run.create(folder, config_in(tmp_path), data_root=None).close()
    with Run.open(folder, writable=True):
        for command in ("front", "report", "resume"):
            answer = automc(command, str(folder))
            assert answer.code == 2
            assert "another process is running it" in answer.err
            assert f"automc runs {tmp_path}" in answer.err


def test_an_objective_the_workload_does_not_tell_is_refused_before_a_folder_is_made(
    automc, tmp_path: Path, data_root: Path
) -> None:
    file = tmp_path / "table.yaml"
    file.write_text("workload: {name: nasbench201}\nspace: nasbench201\nobjectives: [accuracy, size_bytes]\n")
    for command in (("config", "check", str(file)), ("search", str(file), "--run", str(tmp_path / "run"))):
        more = ("--data-root", str(data_root)) if command[0] == "search" else ()
        answer = automc(*command, *more)
        assert answer.code == 2
        assert "size_bytes is asked for, but workload nasbench201 does not tell it" in answer.err
    assert not (tmp_path / "run").exists()


def test_a_disk_that_is_full_is_an_interruption(
    automc, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "journal.jsonl")

    monkeypatch.setattr("automc.search.loop.prepare", full)
    answer = automc("search", str(config), "--run", str(tmp_path / "run"))
    assert answer.code == 5
    assert "No space left" in answer.err


def test_garbage_in_the_middle_of_a_journal_is_refused_with_its_line_and_a_torn_last_line_is_not(
    automc, config: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    whole = automc("search", str(config), "--run", str(folder)).out
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])  # the end itself is torn
    answer = automc("resume", str(folder))
    assert answer.code == 0
    assert answer.out == whole
    journal.write_bytes(b"".join([*lines[:4], b"garbage\n", *lines[5:]]))
    answer = automc("resume", str(folder))
    assert answer.code == 4
    assert "line 5" in answer.err


def test_a_folder_that_cannot_be_written_is_named(automc, config: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    answer = automc("search", str(config), "--run", str(tmp_path / "file" / "run"))
    assert answer.code in (2, 4)
    assert str(tmp_path / "file") in answer.err
    assert "Traceback" not in answer.err


def test_a_data_folder_that_is_not_there_is_named(automc, config: Path, tmp_path: Path) -> None:
    answer = automc("search", str(config), "--run", str(tmp_path / "run"), "--data-root", str(tmp_path / "none"))
    assert answer.code == 2
    assert str(tmp_path / "none") in answer.err


def test_a_profile_that_is_not_there_is_refused_before_a_folder_exists(automc, tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text("profile: nowhere\n")
    answer = automc("search", str(file), "--run", str(tmp_path / "run"))
    assert answer.code == 2
    assert "no hardware profile is called 'nowhere'" in answer.err
    assert not (tmp_path / "run").exists()


def test_the_demo_takes_the_first_free_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from automc.cli.search import _free_folder

    monkeypatch.chdir(tmp_path)
    assert _free_folder("demo") == Path("runs/demo")
    for name in ("demo", "demo-2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert _free_folder("demo") == Path("runs/demo-3")


def test_ctrl_c_leaves_with_5_and_a_run_that_resumes(automc, config: Path, tmp_path: Path) -> None:
    raw = yaml.safe_load(config.read_text())
    raw["search"]["rungs"] = [{"candidates": 3000, "steps": 0}, {"candidates": 6, "steps": 1}]
    changed(config, search=raw["search"])
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "automc.cli.main", "search", str(config), "--run", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        journal, limit = folder / "journal.jsonl", time.monotonic() + 60
        while not (journal.is_file() and journal.read_bytes().count(b'"event":"trial"') > 20):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < limit
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 5
    assert f"next: automc resume {folder}" in err
    assert "Traceback" not in err
    kept = len(Run.open(folder).trials())
    assert kept > 20
    assert not Run.open(folder).finished


def test_a_front_that_is_lost_is_written_again_by_resume(automc, config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = automc("search", str(config), "--run", str(folder))
    trials = [line for line in (folder / "journal.jsonl").read_text().splitlines() if '"trial"' in line]
    (folder / "front.json").write_text("{")
    damaged = automc("front", str(folder))
    assert damaged.code == 4
    assert f"delete it, then: automc resume {folder}" in damaged.err
    (folder / "front.json").unlink()
    again = automc("resume", str(folder))
    assert again.code == 0
    assert again.out == first.out
    assert trials == [line for line in (folder / "journal.jsonl").read_text().splitlines() if '"trial"' in line]
