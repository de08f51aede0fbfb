from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from bundle_samples import tiny_model


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_model().SerializeToString())
    return path


def test_bench_prints_every_figure_with_its_n(automc, onnx_file: Path) -> None:
    answer = automc("bench", str(onnx_file), "--runs", "20", "--passes", "2", "--json")
    assert answer.code == 0
    (timing,) = answer.json.values()
    assert timing["n"] >= 20
    assert 0 < timing["p10_ms"] <= timing["median_ms"] <= timing["p90_ms"]


def test_bench_pairs_a_model_with_the_first_one(automc, onnx_file: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin.onnx"
    twin.write_bytes(onnx_file.read_bytes())
    answer = automc("bench", str(onnx_file), str(twin), "--runs", "20", "--passes", "2")
    assert answer.code == 0
    header, first, second = answer.out.splitlines()
    assert header.split("  ")[0] == "model"
    assert first.startswith(str(onnx_file))
    assert second.startswith(str(twin))


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[Path]:
    """The file of a power meter that is being written: 5 W, and a watt more for every core this process keeps busy."""
    path, ended = tmp_path / "meter.csv", threading.Event()

    def logger() -> None:
        with path.open("a") as file:
            before, busy = time.monotonic(), time.process_time()
            while not ended.wait(0.05):
                now, used = time.monotonic(), time.process_time()
                watts = 5.0 + (used - busy) / (now - before)
                file.write(f"{time.time():.6f},{watts:.4f}\n")
                file.flush()
                before, busy = now, used

    path.write_text("unix_s,watts\n")
    thread = threading.Thread(target=logger)
    thread.start()
    time.sleep(0.2)
    yield path
    ended.set()
    thread.join()


def test_bench_reads_energy_from_the_file_of_a_power_meter(automc, onnx_file: Path, meter: Path) -> None:
    args = ("bench", str(onnx_file), "--runs", "20", "--passes", "2", "--meter", str(meter))
    (told,) = automc(*args, "--json").json.values()
    # one core's watt for as long as a run takes; the loop around it takes a little as well
    assert told["energy_mj"] == pytest.approx(told["median_ms"], rel=1.0)
    assert len(told["energy_passes_mj"]) == 3
    assert told["energy_source"].startswith("power meter meter.csv, every 0.0")
    shown = automc(*args)
    assert "energy mJ (passes)" in shown.out
    assert "idle power subtracted" in shown.out


def test_bench_without_a_counter_names_the_way_to_one(automc, onnx_file: Path, monkeypatch) -> None:
    monkeypatch.setattr("automc.measure.energy.find_counter", lambda kind: None)
    answer = automc("bench", str(onnx_file), "--energy")
    assert answer.code == 1
    assert "nothing that counts energy" in answer.err
    assert "--meter FILE" in answer.err


def test_a_meter_file_that_is_none_is_refused_before_anything_is_timed(automc, onnx_file: Path, tmp_path: Path) -> None:
    (tmp_path / "volts.csv").write_text("unix_s,volts\n1700000000,5\n")
    answer = automc("bench", str(onnx_file), "--meter", str(tmp_path / "volts.csv"))
    assert answer.code == 2
    assert "volts.csv: its columns are unix_s, volts" in answer.err


def test_a_model_of_open_extents_is_not_timed_at_an_invented_size(automc, onnx_file: Path, tmp_path: Path) -> None:
    model = onnx.load(onnx_file)
    for extent in model.graph.input[0].type.tensor_type.shape.dim:
        extent.dim_param = f"open_{extent.dim_value}"
    onnx.save(model, tmp_path / "open.onnx")
    answer = automc("bench", str(tmp_path / "open.onnx"))
    assert answer.code != 0
    assert "leaves more than the batch open" in answer.err
    assert "fixed shapes" in answer.err


def test_a_file_that_is_no_model_is_refused_with_its_name(automc, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    answer = automc("bench", str(path))
    assert answer.code == 2
    assert f"{path}: not an ONNX model" in answer.err
    assert "next: export the model again" in answer.err


def test_a_model_that_the_runtime_refuses_is_the_users_file_and_is_named(automc, tmp_path: Path) -> None:
    model = tiny_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    path = tmp_path / "refused.onnx"
    path.write_bytes(model.SerializeToString())
    answer = automc("bench", str(path))
    assert answer.code == 2
    assert str(path) in answer.err
