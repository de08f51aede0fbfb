"""Ctrl-C at any moment: exit 5, a line that says how to go on, no traceback, nothing half-made, nobody left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from noop_runs import config_in
from whole_runs import outcomes, save_classes, small_config

from automc.config import dump_config
from automc.run import Run
from automc.search.loop import resume

INTERRUPTED_ON_IMPORT = """
import builtins, os, signal, sys
real = builtins.__import__
def importing(name, *rest, **more):
    if name.partition(".")[0] == {name!r}:
        builtins.__import__ = real
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest, **more)
builtins.__import__ = importing
from automc.cli.entry import main
main()
"""


@pytest.mark.parametrize("module", ["typer", "pydantic", "torch"])
def test_while_it_starts_nothing_is_begun_and_the_exit_code_says_why(tmp_path: Path, module: str) -> None:
    """typer: the command line itself; pydantic: the config is read; torch: the model and its data."""
    save_classes(tmp_path)
    file = tmp_path / "search.yaml"
    file.write_text(dump_config(small_config(tmp_path, "classification")))
    code = INTERRUPTED_ON_IMPORT.format(name=module)
    arguments = ["search", str(file), "--run", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert done.stderr.splitlines()[0 if module == "typer" else -2].startswith("automc: interrupted")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def interrupted(
    file: Path, folder: Path, reached: Callable[[int], bool], *options: str, times: int = 1
) -> tuple[int, str, list[psutil.Process]]:
    """A search that a terminal interrupts once its pid has `reached` the moment: exit code, stderr, who is left."""
    command = [sys.executable, "-m", "automc.cli.entry", "search", str(file), "--run", str(folder), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        limit = time.monotonic() + 120
        while not reached(running.pid):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < limit
            time.sleep(0.005)
        children = psutil.Process(running.pid).children(recursive=True)
        for _ in range(times):
            os.killpg(running.pid, signal.SIGINT)
            time.sleep(0.3)
        _, err = running.communicate(timeout=120)
    _, alive = psutil.wait_procs(children, timeout=10)
    return running.returncode, err, alive


@pytest.mark.parametrize("moment", ["finalists", "bundle"])
@pytest.mark.slow
def test_at_the_end_the_trials_and_what_was_measured_are_kept(tmp_path: Path, moment: str) -> None:
    save_classes(tmp_path)
    file, folder = tmp_path / "search.yaml", tmp_path / "run"
    file.write_text(dump_config(small_config(tmp_path, "classification")))
    journal = folder / "journal.jsonl"

    def reached(pid: int) -> bool:
        if moment == "bundle":
            return (folder / "bundle").is_dir()
        text = journal.read_text(errors="replace") if journal.is_file() else ""
        return text.count('"event":"trial"') == 10 and '"event":"measured"' not in text

    code, err, alive = interrupted(file, folder, reached)
    assert code == 5, err
    assert err.splitlines()[-1] == f"  next: automc resume {folder}"
    assert "Traceback" not in err
    assert alive == []
    run = Run.open(folder)
    kept = outcomes(run)
    assert len(kept) == 10
    assert not run.finished
    assert (run.journal.last("measured") is not None) == (moment == "bundle")
    measured = run.journal.last("measured")
    again = resume(folder)
    assert again.finished
    assert outcomes(again) == kept
    assert measured is None or again.journal.last("measured") == measured


@pytest.mark.ray
@pytest.mark.parametrize("times", [1, 2])
def test_while_ray_starts_it_is_stopped_again_whole(tmp_path: Path, times: int) -> None:
    file, folder = tmp_path / "search.yaml", tmp_path / "run"
    file.write_text(dump_config(config_in(tmp_path)))
    place = Path(tempfile.gettempdir())
    seen: list[Path] = []

    def reached(pid: int) -> bool:
        seen.extend(place.glob(f"amc-{pid}-*"))
        return bool(seen)

    code, err, alive = interrupted(file, folder, reached, "--executor", "ray", times=times)
    assert code == 5, err
    assert err.splitlines()[-1] == f"  next: automc resume {folder}"
    assert "Traceback" not in err
    assert alive == []
    assert not seen[0].exists()
    assert resume(folder).finished
