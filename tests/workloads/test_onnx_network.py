"""A model that comes as an ONNX file: what it computes, what a search of it finds, and which files are refused."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from made_up_device import save_made_up
from onnx import TensorProto, helper, numpy_helper
from users_package import Packages

from automc.bundle.verify import Bundle
from automc.cli.job import Job, config_of
from automc.cost.graph import graph_from_onnx
from automc.cost.quantised import quantised
from automc.errors import CompressionError, ConfigError
from automc.export import check_parity, export_onnx
from automc.measure.fingerprint import host_fingerprint
from automc.recovery.recipe import Recipe
from automc.recovery.training import RecoveryContext, train
from automc.search.loop import search
from automc.workloads import create_workload
from automc.workloads._onnx_network import OnnxNetwork, read_onnx

WEIGHTS = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)


def made(*, batch: int | str = "batch", opset: int = 20, reshape: bool = False) -> onnx.ModelProto:
    """Relu(x @ W1) @ W2, three classes; with reshape a fixed batch of one is written into the graph."""
    second = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w1"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    weights = [numpy_helper.from_array(WEIGHTS, "w1"), numpy_helper.from_array(second, "w2")]
    if reshape:
        nodes.append(helper.make_node("Reshape", ["b", "shape"], ["c"]))
        weights.append(numpy_helper.from_array(np.array([1, 16], np.int64), "shape"))
    nodes.append(helper.make_node("MatMul", ["c" if reshape else "b", "w2"], ["y"]))
    graph = helper.make_graph(
        nodes, "users", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def saved(path: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, path)
    return path


def test_the_network_computes_what_the_file_does(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", made())
    network = read_onnx(path)
    x = torch.randn(7, 4)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    torch.testing.assert_close(network(x), wanted)
    torch.testing.assert_close(copy.deepcopy(network)(x), wanted)
    exported = export_onnx(network, (x,))
    assert check_parity(network, exported, (x,)) < 1e-5
    assert [item.name for item in exported.graph.input] == ["input"]
    assert exported.SerializeToString() == export_onnx(read_onnx(path), (x,)).SerializeToString()


@pytest.mark.parametrize(("batch", "opset"), [(1, 20), (1, 11), ("n", 9)])
def test_a_fixed_batch_and_an_old_opset_are_opened(tmp_path: Path, batch: int | str, opset: int) -> None:
    network = read_onnx(saved(tmp_path / "net.onnx", made(batch=batch, opset=opset)))
    assert network(torch.randn(5, 4)).shape == (5, 3)
    versions = [entry.version for entry in export_onnx(network, (torch.zeros(1, 4),)).opset_import]
    assert min(versions) >= 13


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_onnx(path)
    assert path.name in caught.value.message
    assert caught.value.next_step
    return caught.value.message


def with_external(location: str) -> onnx.ModelProto:
    model = made()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


@pytest.mark.parametrize("location", ["../w.bin", "below/../../w.bin", "/etc/w.bin"])
def test_weights_outside_the_folder_are_refused_and_not_read(tmp_path: Path, location: str) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    path = saved(inside / "net.onnx", with_external(location))
    assert f"its weight w1 is kept in {location}, outside the model's folder" in refusal(path)


def test_weights_beside_the_file_are_read_and_missing_ones_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", with_external("w.bin"))
    assert "its weight w1 is kept in w.bin, which is not there" in refusal(path)
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    whole = read_onnx(saved(tmp_path / "whole.onnx", made()))
    x = torch.randn(2, 4)
    torch.testing.assert_close(read_onnx(path)(x), whole(x))


def test_files_that_are_no_models_of_ours_are_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", made())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "not an ONNX model" in refusal(path)
    path.write_bytes(b"")
    assert "not an ONNX model" in refusal(path)
    known = onnx.defs.onnx_opset_version()
    assert f"is of opset 99; onnx {onnx.__version__} knows up to {known}" in refusal(saved(path, made(opset=99)))
    foreign = made()
    foreign.graph.node[1].domain = "my.own"
    foreign.opset_import.append(helper.make_opsetid("my.own", 1))
    assert "cannot load" in refusal(saved(path, foreign))
    assert "runs on one sample and not on two" in refusal(saved(path, made(batch=1, reshape=True)))
    assert "takes 8 samples at a time and no other number" in refusal(saved(path, made(batch=8)))
    half = made()
    half.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    assert "leaves more than the batch open" in refusal(saved(path, half))


def test_data_of_another_shape_or_type_are_named(tmp_path: Path, package: Packages) -> None:
    path = saved(tmp_path / "net.onnx", made())
    users = package()  # five features
    assert "net.onnx takes x: tensor(float) ['batch', 4], but the data give float32 [2, 5]" in users.refusal(
        model=str(path)
    )
    assert "no such file" in users.refusal(model=str(tmp_path / "gone.onnx"))
    np.savez(tmp_path / "w.npz")
    workload = users.workload(model=str(path), weights=str(tmp_path / "w.npz"))
    with pytest.raises(ConfigError, match="weights beside the ONNX file"):
        workload.model()


def test_nothing_of_it_can_be_trained(tmp_path: Path) -> None:
    network = read_onnx(saved(tmp_path / "net.onnx", made()))
    workload = create_workload("digits", {}, None)
    with pytest.raises(CompressionError, match="OnnxNetwork has no weights that could be trained"):
        train(network, RecoveryContext(workload, Recipe(), 0), 1)


def test_a_search_of_a_file_ends_in_a_bundle_and_counts_from_the_file(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 4)).astype(np.float32)
    path = saved(tmp_path / "net.onnx", made())
    network = read_onnx(path)
    assert isinstance(network, OnnxNetwork)
    labels = network(torch.from_numpy(x)).numpy().argmax(1)
    np.savez(tmp_path / "d.npz", train_x=x[:200], train_y=labels[:200], held_x=x[200:], held_y=labels[200:])
    graph = export_onnx(network, (torch.zeros(1, 4),))
    rows = [graph_from_onnx(graph), graph_from_onnx(quantised(graph, None))]
    save_made_up(tmp_path / "device", rows, fingerprint=host_fingerprint())
    config = config_of(
        Job(
            model=str(path), data=str(tmp_path / "d.npz"), profile=str(tmp_path / "device"), max_drop=10.0,
            set=["search.rungs=[{candidates: 4, steps: 0}]", "objectives=[accuracy, size_bytes]", "search.finalists=2",
                 "executor.kind=inline", "choose=smallest"],
        )
    )  # fmt: skip
    assert config.space == "graph"
    run = search(config, run_dir=tmp_path / "run")
    points = {point.anchor: point for point in run.finalists() if point.anchor}
    assert set(points) == {"reference", "int8"}
    assert points["reference"].trial.candidate.steps == ()
    assert points["reference"].figures["test_accuracy"].value == 1.0  # the labels are its own answers
    assert Bundle(run.folder / "bundle").verify().ok
