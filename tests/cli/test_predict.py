from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
from bundle_samples import tiny_model
from made_up_device import save_made_up

from automc.cost.graph import graph_from_onnx


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A profile calibrated for the tiny model and nothing else."""
    save_made_up(tmp_path / "paper", [graph_from_onnx(tiny_model())])
    return tmp_path / "paper"


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_model().SerializeToString())
    return path


@pytest.fixture
def unknown_file(tmp_path: Path) -> Path:
    """The tiny model with a Softmax behind it, which the device was never calibrated for."""
    model = tiny_model()
    model.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["shares"], "softmax"))
    model.graph.output[0].name = "shares"
    path = tmp_path / "unknown.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_predict_prints_each_cost_with_interval_coverage_and_source(automc, device: Path, onnx_file: Path) -> None:
    answer = automc("predict", str(onnx_file), "--profile", str(device))
    assert answer.code == 0
    header, *costs = answer.out.splitlines()
    assert header.split("  ")[0] == "cost"
    assert [line.split()[0] for line in costs] == ["latency", "energy", "memory"]
    assert [re.search(r" to \S+ \((.*?)\)", line)[1] for line in costs] == ["90 % interval", "assumed range", "bounds"]
    assert "paper: quick calibration" in costs[0]


def test_the_kernels_sum_to_the_total(automc, device: Path, onnx_file: Path) -> None:
    answer = automc("predict", str(onnx_file), "--profile", str(device), "--kernels", "--json").json
    assert sum(row["latency_ms"] for row in answer["kernels"]) == pytest.approx(answer["total"]["latency_ms"]["value"])
    assert answer["unseen"] == []


def test_an_unknown_operator_is_named_with_its_shape_and_no_total_is_printed(
    automc, device: Path, unknown_file: Path
) -> None:
    answer = automc("predict", str(unknown_file), "--profile", str(device))
    assert answer.code == 2
    assert answer.out == ""
    assert "Softmax [1, 4] -> [1, 4]" in answer.err
    answer = automc("predict", str(unknown_file), "--profile", str(device), "--json")
    assert answer.code == 2
    assert answer.json["total"] is None
    assert [row["operator"] for row in answer.json["unseen"]] == ["Softmax"]


@pytest.mark.parametrize("content", [b"not a model", b""])
def test_predict_and_bench_say_alike_that_a_file_is_no_model(
    automc, device: Path, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    predicted, measured = automc("predict", str(path), "--profile", str(device)), automc("bench", str(path))
    assert predicted.code == measured.code == 2
    assert predicted.err == measured.err
    assert f"{path}: not an ONNX model" in predicted.err
    assert "\n  next: " in predicted.err


def test_a_damaged_calibration_is_refused(automc, device: Path, onnx_file: Path) -> None:
    path = device / "calibration.json"
    path.write_text(path.read_text().replace("1", "2", 1))
    answer = automc("predict", str(onnx_file), "--profile", str(device))
    assert answer.code == 2
    assert "is not what profile 'paper' was calibrated with" in answer.err
    assert "next: automc profile calibrate paper" in answer.err


def test_a_profile_of_another_machine_does_not_pass_the_check(automc, device: Path) -> None:
    answer = automc("profile", "check", str(device))
    assert answer.code == 2
    assert "cpu was 'made up'" in answer.err
