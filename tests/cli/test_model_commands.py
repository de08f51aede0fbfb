from __future__ import annotations

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
