"""What a run locks before its first candidate, and what it refuses to go on with: other data, space or device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_up_device import save_made_up
from whole_runs import save_classes, small_config

from automc.config import SearchConfig, dump_config
from automc.cost.graph import graph_from_onnx, graph_from_trace
from automc.errors import ConfigError, RunError, RunInterrupted, StaleCalibrationError
from automc.export import export_onnx
from automc.measure.fingerprint import host_fingerprint
from automc.profiles import HardwareProfile, load_profile
from automc.run import Run
from automc.search.loop import resume, search
from automc.search.progress import Progress
from automc.workloads import create_workload

ONE = {"strategy": "random", "rungs": [{"candidates": 1, "steps": 0}, {"candidates": 1, "steps": 2}], "finalists": 1}
HERE = host_fingerprint()
ABACUS = HERE.model_copy(update={"cpu": "abacus"})


def stop_at_the_first_trial(progress: Progress) -> None:
    if progress.trial is not None:
        raise KeyboardInterrupt


def stop_before_the_baseline(progress: Progress) -> None:
    if "measuring the base" in progress.message:
        raise KeyboardInterrupt


def digests_now(config: SearchConfig) -> dict[str, str]:
    return create_workload("arrays", config.workload.options, None).digests()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchConfig, Path]:
    """A run that was stopped after its first trial."""
    folder = tmp_path_factory.mktemp("setup")
    save_classes(folder)
    config = small_config(folder, "classification", search=ONE)
    with pytest.raises(RunInterrupted):
        search(config, run_dir=folder / "run", watch=stop_at_the_first_trial)
    return config, folder / "run"


@pytest.fixture
def stopped(made: tuple[SearchConfig, Path]) -> Iterator[tuple[SearchConfig, Path]]:
    """As `made`; what a test changes of the user's files is put back, and nothing it does adds a trial."""
    config, run = made
    files = [Path(str(config.workload.options["file"])), Path(config.space)]
    before, trials = [file.read_bytes() for file in files], len(Run.open(run).trials())
    yield config, run
    for file, content in zip(files, before, strict=True):
        file.write_bytes(content)
    assert len(Run.open(run).trials()) == trials == 1


def test_the_lock_file_names_every_split_and_the_base_by_digest(stopped: tuple[SearchConfig, Path]) -> None:
    config, run = stopped
    assert set(digests_now(config)) == {"train", "calibration", "validation", "test", "base"}
    assert Run.open(run).lock["digests"] == digests_now(config)


def test_one_changed_sample_is_refused_and_its_split_named(stopped: tuple[SearchConfig, Path], automc) -> None:
    config, run = stopped
    before, file = digests_now(config), Path(str(config.workload.options["file"]))
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays["held_y"][7] = 1 - arrays["held_y"][7]  # a label, so that the sample stays in its half
    np.savez(file, **arrays)
    (split,) = [name for name, digest in digests_now(config).items() if digest != before[name]]
    assert split in {"validation", "test"}
    with pytest.raises(RunError, match=rf"run: {split} changed since the run began"):
        resume(run)
    answer = automc("resume", run)
    assert answer.code == 4
    assert "next: restore them, or start a new run" in answer.err


def test_a_changed_space_file_is_refused_by_name(stopped: tuple[SearchConfig, Path]) -> None:
    config, run = stopped
    file = Path(config.space)
    raw = yaml.safe_load(file.read_text())
    raw["techniques"]["low_rank"]["rank_ratio"]["min"] = 0.5
    file.write_text(yaml.safe_dump(raw))
    with pytest.raises(RunError, match=r"space\.yaml changed since the run began"):
        resume(run)


def test_a_device_that_is_not_this_one_is_refused_before_there_is_a_run(
    stopped: tuple[SearchConfig, Path], automc, tmp_path: Path
) -> None:
    config, _ = stopped
    device = paper_device(config, tmp_path / "abacus", "abacus")
    other = config.model_copy(update={"profile": str(device)})
    with pytest.raises(StaleCalibrationError, match="cpu was 'abacus', is "):
        search(other, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "search.yaml").write_text(dump_config(other))
    answer = automc("search", tmp_path / "search.yaml", "--run", tmp_path / "run")
    assert answer.code == 2
    assert "cpu was 'abacus'" in answer.err
    assert "next: " in answer.err


def test_a_run_does_not_go_on_on_another_machine(
    stopped: tuple[SearchConfig, Path], automc, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = stopped
    monkeypatch.setattr("automc.measure.fingerprint.host_fingerprint", lambda: ABACUS)
    with pytest.raises(StaleCalibrationError, match="is 'abacus'"):
        resume(run)
    answer = automc("resume", run)
    assert answer.code == 2
    assert "next: resume it on the machine it began on" in answer.err  # calibrating would not help


def paper_device(config: SearchConfig, folder: Path, cpu: str | None = None, name: str = "paper") -> Path:
    """A calibrated profile of what the small network is made of; of this machine, or of one with another `cpu`."""
    workload = create_workload("arrays", config.workload.options, None)
    model, inputs = workload.model(), workload.example_inputs()
    graphs = [graph_from_onnx(export_onnx(model, inputs)), graph_from_trace(model, inputs, precision="int8")]
    fingerprint = HERE if cpu is None else HERE.model_copy(update={"cpu": cpu})
    save_made_up(folder, graphs, name=name, fingerprint=fingerprint)
    return folder


@pytest.fixture
def stale_host(
    stopped: tuple[SearchConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[SearchConfig, list[str]]:
    """A config for the profile `host`, whose calibration is another machine's; the modes it was calibrated in since."""
    config, _ = stopped
    home = tmp_path / "home"
    monkeypatch.setenv("AUTOMC_HOME", str(home))
    host = paper_device(config, home / "profiles" / "host", "abacus", "host")
    modes: list[str] = []

    def calibrate(*, mode: str, progress: object) -> HardwareProfile:
        modes.append(mode)
        paper_device(config, host, None, "host")
        return load_profile(str(host))

    monkeypatch.setattr("automc.measure.calibrate.calibrate_host", calibrate)
    return config.model_copy(update={"profile": "host"}), modes


def test_a_stale_profile_of_this_host_is_calibrated_again(
    stale_host: tuple[SearchConfig, list[str]], tmp_path: Path
) -> None:
    config, modes = stale_host
    with pytest.raises(RunInterrupted):
        search(config, run_dir=tmp_path / "run", watch=stop_before_the_baseline)
    assert modes == ["quick"]
    kept = load_profile(str(tmp_path / "run" / "profile"))
    assert kept.fingerprint == HERE
    (event,) = Run.open(tmp_path / "run").journal.of("profile")
    assert event["digest"] == kept.calibration_digest


def test_where_nothing_may_be_calibrated_a_stale_profile_of_this_host_is_refused(
    stale_host: tuple[SearchConfig, list[str]], tmp_path: Path
) -> None:
    config, modes = stale_host
    with pytest.raises(StaleCalibrationError, match="'abacus'"):
        search(config.model_copy(update={"calibrate": "never"}), run_dir=tmp_path / "run")
    assert modes == []
    assert not (tmp_path / "run").exists()


def busy(folder: Path) -> None:
    """The profile in `folder` as a machine beside restless neighbours leaves it."""
    file = folder / "profile.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"noise_floor_percent": 60.0}))


@pytest.mark.parametrize("limit", ["max_latency_ms", "max_energy_mj"])
def test_a_profile_that_only_ranks_decides_no_limits_unless_insisted(
    made: tuple[SearchConfig, Path], tmp_path: Path, limit: str
) -> None:
    config = made[0].model_copy(update={"profile": str(paper_device(made[0], tmp_path / "paper"))})
    busy(tmp_path / "paper")
    strict = config.model_copy(update={"constraints": config.constraints.model_copy(update={limit: 1e6})})
    with pytest.raises(ConfigError, match=f"{limit} cannot be judged.*differed by 60 %"):
        search(strict, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for number, allowed in enumerate((config, strict.model_copy(update={"insist": True}))):
        with pytest.raises(RunInterrupted):
            search(allowed, run_dir=tmp_path / f"run{number}", watch=stop_before_the_baseline)


def test_a_calibration_that_a_search_makes_decides_no_limits_either_where_it_only_ranks(
    stale_host: tuple[SearchConfig, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from automc.measure import calibrate

    def noisily(*, mode: str, progress: object) -> HardwareProfile:
        quiet(mode=mode, progress=progress)
        busy(tmp_path / "home" / "profiles" / "host")
        return load_profile("host")

    quiet = calibrate.calibrate_host
    monkeypatch.setattr("automc.measure.calibrate.calibrate_host", noisily)
    config, _ = stale_host
    limits = config.constraints.model_copy(update={"max_latency_ms": 1e6})
    with pytest.raises(ConfigError, match="max_latency_ms cannot be judged"):
        search(config.model_copy(update={"constraints": limits}), run_dir=tmp_path / "run")


def test_making_the_workload_reads_no_array(
    stopped: tuple[SearchConfig, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = stopped

    def read(*_: object, **__: object) -> np.ndarray:
        raise AssertionError("an array was read")

    monkeypatch.setattr(np.lib.format, "read_array", read)  # what every access to an npz file comes to
    workload = create_workload("arrays", config.workload.options, None)
    assert workload.example_inputs()[0].shape == (1, 8)
    assert workload.preprocessing
    with pytest.raises(AssertionError, match="an array was read"):
        workload.split("train")


def test_after_a_mistake_in_the_data_the_mended_search_goes_into_the_same_folder(tmp_path: Path) -> None:
    save_classes(tmp_path)
    config = small_config(tmp_path, "classification")
    good = (tmp_path / "mine.npz").read_bytes()
    with np.load(tmp_path / "mine.npz") as data:
        np.savez(tmp_path / "mine.npz", **{**data, "train_y": np.zeros_like(data["train_y"])})
    with pytest.raises(ConfigError):
        search(config, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine.npz").write_bytes(good)
    assert search(config, run_dir=tmp_path / "run").finished
