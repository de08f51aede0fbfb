"""A run whose data have been moved: taken where they are the same, refused where they are not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from automc.config import parse_config
from automc.errors import ConfigError, RunError
from automc.run import LOCK, Run
from automc.search.loop import resume
from automc.search.setup import _lock_data, move_data, workload_of
from automc.workloads.nasbench201 import TABLE
from automc.workloads.networks import mlp

CONFIG = {
    "workload": {
        "name": "arrays",
        "options": {
            "file": "mine.npz", "model": "mlp", "weights": "mine.safetensors",
            "model_args": {"inputs": 4, "hidden": [8], "outputs": 2},
        },
    },
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """24 samples of 4 numbers, half of them held out, and the weights of a network."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 4)).astype(np.float32), np.arange(24) % 2
    np.savez(folder / "mine.npz", train_x=x[:12], train_y=y[:12], held_x=x[12:], held_y=y[12:])
    save_file({key: item.numpy() for key, item in mlp(4, [8], 2).state_dict().items()}, folder / "mine.safetensors")
    return folder


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Path:
    """A run that has locked its data and is at its end."""
    folder = tmp_path / "run"
    with Run.create(folder, parse_config(CONFIG, "test"), data_root=data) as made:
        _lock_data(made, workload_of(made))
        made.journal.append("end", chosen="none")
    (folder / "front.json").write_text('{"points": []}')
    return folder


def locked(run: Path) -> dict[str, object]:
    return list(yaml.safe_load_all((run / LOCK).read_text()))[1]


def test_moved_data_are_taken_and_the_run_keeps_the_place(automc, run: Path, data: Path, tmp_path: Path) -> None:
    moved = data.rename(tmp_path / "elsewhere")
    before = locked(run)
    assert automc("resume", str(run), "--data-root", str(moved)).code == 0
    assert locked(run) == {**before, "data_root": str(moved)}
    assert len(workload_of(Run.open(run)).split("train")) == 12
    resume(run, data_root=moved)  # the same from Python


def test_other_data_are_refused_by_name_and_nothing_is_changed(automc, run: Path, data: Path, tmp_path: Path) -> None:
    other = shutil.copytree(data, tmp_path / "other")
    with np.load(data / "mine.npz") as stored:
        arrays = dict(stored)
    arrays["train_x"][3, 0] += 1  # one number: train differs, and calibration, which is a part of it
    np.savez(other / "mine.npz", **arrays)
    before = locked(run)
    answer = automc("resume", str(run), "--data-root", str(other))
    assert answer.code == 2
    assert f"{other}: is not the data that {run} began with: calibration, train differ" in answer.err
    assert "next: " in answer.err
    assert locked(run) == before


def test_another_base_is_refused(run: Path, data: Path, tmp_path: Path) -> None:
    other = shutil.copytree(data, tmp_path / "other")
    weights = {key: item.numpy() + 1 for key, item in mlp(4, [8], 2).state_dict().items()}
    save_file(weights, other / "mine.safetensors")
    with Run.open(run, writable=True) as opened, pytest.raises(ConfigError, match="began with: base differ"):
        move_data(opened, other)


def test_a_folder_without_the_data_is_refused(automc, run: Path, tmp_path: Path) -> None:
    answer = automc("resume", str(run), "--data-root", str(tmp_path / "none"))
    assert answer.code == 2
    assert f"{tmp_path / 'none'}: is not a folder" in answer.err
    (tmp_path / "empty").mkdir()
    assert automc("resume", str(run), "--data-root", str(tmp_path / "empty")).code == 2
    assert locked(run)["data_root"] != str(tmp_path / "empty")


def test_data_that_are_gone_are_said_to_be_with_the_way_on(automc, run: Path, data: Path, tmp_path: Path) -> None:
    journal = run / "journal.jsonl"
    journal.write_text("")  # as if stopped before its first candidate
    (run / "front.json").unlink()
    data.rename(tmp_path / "elsewhere")
    answer = automc("resume", str(run))
    assert answer.code == 2
    assert f"{data}: is no longer there" in answer.err
    assert f"next: automc resume {run} --data-root DIR" in answer.err


def test_data_that_changed_in_place_are_still_the_runs_fault(run: Path, data: Path) -> None:
    with np.load(data / "mine.npz") as stored:
        arrays = dict(stored)
    arrays["held_x"][0, 0] += 1
    np.savez(data / "mine.npz", **arrays)
    with Run.open(run, writable=True) as opened, pytest.raises(RunError, match="changed since the run began"):
        _lock_data(opened, workload_of(opened))


@pytest.mark.data
def test_a_stopped_run_goes_on_over_moved_data_to_the_front_it_would_have_had(
    automc, data_root: Path, tmp_path: Path
) -> None:
    """A copy of the table of NAS-Bench-201; the run is cut in the middle of its journal, the folder renamed."""
    (tmp_path / "data" / TABLE).parent.mkdir(parents=True)
    shutil.copyfile(data_root / TABLE, tmp_path / "data" / TABLE)
    config = tmp_path / "search.yaml"
    config.write_text(
        "workload: {name: nasbench201}\nspace: nasbench201\nobjectives: [accuracy, latency_ms]\nconstraints: {}\n"
        "search: {rungs: [{candidates: 24, steps: 0}, {candidates: 6, steps: 1}]}\nexecutor: {kind: inline}\n"
    )
    folder = tmp_path / "run"
    whole = automc("search", str(config), "--run", str(folder), "--data-root", str(tmp_path / "data"))
    assert whole.code == 0, whole.err
    assert set(locked(folder)["digests"]) == {"table"}
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) // 2]))
    for name in ("front.json", "provenance.json"):
        (folder / name).unlink()
    moved = (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert automc("resume", str(folder)).code == 2
    resumed = automc("resume", str(folder), "--data-root", str(moved))
    assert resumed.code == 0, resumed.err
    assert resumed.out == whole.out
