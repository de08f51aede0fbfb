"""`automc profile import`: what a table becomes, and what is refused with its row and nothing written."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from automc.cost.graph import graph_from_onnx
from automc.importing.assemble import assemble
from automc.importing.onnx_tables import read_csv
from automc.profiles import load_profile, save_profile

MACS_PER_MS = 2e6
CALL_MS = 0.05
QUICK_MACS_PER_MS, BYTES_PER_MS = 2e7, 4e6  # of another device, that has to fetch its weights


def network(path: Path, channels: int, depth: int, side: int) -> float:
    """A plain network in `path`; its milliseconds on a made-up device: 0.05 a convolution, 2 million MACs in one."""
    nodes, weights, image, inputs = [], [], "image", 3
    for at in range(depth):
        kernel = 3 if at % 2 == 0 else 1
        values = np.zeros((channels, inputs, kernel, kernel), np.float32)
        weights.append(numpy_helper.from_array(values, f"w{at}"))
        nodes.append(helper.make_node("Conv", [image, f"w{at}"], [f"c{at}"], f"conv{at}", pads=[kernel // 2] * 4))
        nodes.append(helper.make_node("Relu", [f"c{at}"], [f"r{at}"], f"relu{at}"))
        image, inputs = f"r{at}", channels
    graph = helper.make_graph(
        nodes, "plain", [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info(image, TensorProto.FLOAT, [1, channels, side, side])], weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return depth * CALL_MS + graph_from_onnx(path, level="extended").macs / MACS_PER_MS


def perceptron(path: Path, width: int, depth: int, *, head_of: int = 0) -> float:
    """Linear layers of `width` in `path`, behind `head_of` convolutions and a pool; its time on another device."""
    nodes, weights, image, inputs = [], [], "image", width
    if head_of:
        network(path, width, head_of, 16)
        graph = onnx.load(path).graph
        nodes, weights, image = list(graph.node), list(graph.initializer), f"r{head_of - 1}"
        nodes.append(helper.make_node("GlobalAveragePool", [image], ["pooled"], "pool"))
        nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], "flat"))
        image = "flat"
    for at in range(depth):
        outputs = 10 if at == depth - 1 else width
        weights.append(numpy_helper.from_array(np.zeros((inputs, outputs), np.float32), f"m{at}"))
        nodes.append(helper.make_node("Gemm", [image, f"m{at}"], [f"g{at}"], f"gemm{at}"))
        image, inputs = f"g{at}", outputs
    shape = [1, 3, 16, 16] if head_of else [1, width]
    graph = helper.make_graph(
        nodes, "linear", [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(image, TensorProto.FLOAT, [1, 10])], weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    kernels = graph_from_onnx(path, level="extended").rows
    moved = sum(kernel.bytes_in + kernel.bytes_out + kernel.bytes_weights for kernel in kernels)
    return len(kernels) * CALL_MS + sum(kernel.macs for kernel in kernels) / QUICK_MACS_PER_MS + moved / BYTES_PER_MS


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOMC_HOME", str(tmp_path / "home"))
    return tmp_path


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def rows(home: Path) -> list[dict[str, object]]:
    """22 networks on a device whose every kernel follows the same two prices."""
    made = []
    for at in range(22):
        name = f"n{at}.onnx"
        milliseconds = network(home / name, 8 + 8 * (at % 4), 2 + at % 5, 12 + 4 * (at % 3))
        made.append({"model": name, "latency_ms": milliseconds})
    return made


def run(automc, table: Path, *more: str):
    return automc(
        "profile", "import", "csv", str(table), "--name", "board", "--device", "a board", "--kind", "phone",
        "--runtime", "tflite", *more,
    )  # fmt: skip


def refused(answer, home: Path, *parts: str) -> None:
    assert answer.code == 2
    for part in parts:
        assert part in answer.err
    assert "next:" in answer.err
    assert not (home / "home" / "profiles").exists()


def test_a_table_becomes_a_profile_that_predicts(automc, home: Path, rows) -> None:
    answer = run(automc, write(home / "board.csv", rows))
    assert answer.code == 0, answer.err
    for part in ("tflite", "phone", "limits", "given by the user", "which channel multiple pays"):
        assert part in answer.out
    line = next(line for line in automc("profile", "list").out.splitlines() if line.startswith("board"))
    for part in ("a board", "phone", "tflite unstated, 1 thread(s)", "fp32", "(n=22)", "limits", "model"):
        assert part in line
    truth = network(home / "new.onnx", 28, 4, 16)
    total = automc("predict", str(home / "new.onnx"), "--profile", "board", "--json").json["total"]["latency_ms"]
    assert total["value"] == pytest.approx(truth, rel=0.15)
    assert total["low"] <= total["value"] <= total["high"]


def test_the_same_table_gives_the_same_coefficients(automc, home: Path, rows) -> None:
    table = write(home / "board.csv", rows)
    texts = []
    for folder in ("one", "two"):
        assert run(automc, table, "--folder", str(home / folder)).code == 0
        texts.append((home / folder / "calibration.json").read_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("value", ["nan", "0", "-1.5", "inf", "", "fast"])
def test_a_row_that_is_no_measurement_is_named(automc, home: Path, rows, value: str) -> None:
    rows[4]["latency_ms"] = value
    refused(run(automc, write(home / "board.csv", rows)), home, "board.csv: row 6", "latency_ms")


def test_a_row_in_another_unit_is_named(automc, home: Path, rows) -> None:
    rows[4]["latency_ms"] = float(rows[4]["latency_ms"]) * 1000
    refused(run(automc, write(home / "board.csv", rows)), home, "board.csv: row 6", "mixed-up units")


def test_one_network_under_two_names_counts_once(automc, home: Path, rows) -> None:
    copies = [dict(row, model=f"again_{row['model']}") for row in rows[:7]]
    for row in rows[:7]:
        (home / f"again_{row['model']}").write_bytes((home / row["model"]).read_bytes())
    refused(run(automc, write(home / "board.csv", rows[:7] + copies)), home, "7 different networks are too few")


def test_a_copy_that_took_another_time_is_named_with_the_first(automc, home: Path, rows) -> None:
    (home / "again.onnx").write_bytes((home / "n3.onnx").read_bytes())
    table = write(home / "board.csv", [*rows, {"model": "again.onnx", "latency_ms": 2 * float(rows[3]["latency_ms"])}])
    refused(run(automc, table), home, "board.csv: row 24: 'again.onnx'", "'n3.onnx', which runs the same kernels")


def test_copies_of_a_network_are_left_out_with_it(home: Path, rows) -> None:
    rng = np.random.default_rng(0)
    for row in rows:
        row["latency_ms"] = float(row["latency_ms"]) * float(np.exp(0.3 * rng.standard_normal()))
    alone, _ = assemble(*read_csv(write(home / "board.csv", rows), "a board", "phone", "tflite"), "board", 0.0)
    copies = []
    for row in rows:
        (home / f"again_{row['model']}").write_bytes((home / row["model"]).read_bytes())
        copies.append(dict(row, model=f"again_{row['model']}"))
    table = write(home / "twice.csv", rows + copies)
    twice, _ = assemble(*read_csv(table, "a board", "phone", "tflite"), "board", 0.0)
    assert twice.held_out[0].mape_percent == pytest.approx(alone.held_out[0].mape_percent, rel=0.05)


START_MS = 0.3


def heads(home: Path, count: int) -> list[dict[str, object]]:
    """Convolutions with the same small head, whose time could be any part of what every run takes."""
    rng = np.random.default_rng(0)
    made = []
    for at in range(count):
        exact = START_MS + perceptron(home / f"c{at}.onnx", 32, 1, head_of=2 + at)
        made.append({"model": f"c{at}.onnx", "latency_ms": exact * (1 + 0.03 * rng.standard_normal())})
    return made


def test_small_heads_tell_nothing_of_large_linear_layers(automc, home: Path) -> None:
    answer = run(automc, write(home / "board.csv", heads(home, 22)))
    assert answer.code == 0, answer.err
    assert "how long linear layers take (matrix.vector)" in " ".join(answer.out.split())
    for width in (256, 1024):
        truth = START_MS + perceptron(home / "mlp.onnx", width, 3)
        said = automc("predict", str(home / "mlp.onnx"), "--profile", "board", "--json").json["total"]["latency_ms"]
        assert said["low"] <= truth <= said["high"]


def test_the_only_perceptron_of_a_table_is_not_taken_for_a_mistake(automc, home: Path) -> None:
    rows = heads(home, 20)
    for at, width in enumerate((1024, 512)):
        rows.append({"model": f"mlp{at}.onnx", "latency_ms": START_MS + perceptron(home / f"mlp{at}.onnx", width, 3)})
        answer = run(automc, write(home / "board.csv", rows), "--replace")
        assert answer.code == 0, answer.err
        assert "limits:" in answer.out
        assert ("how long linear layers take" in answer.out) == (at == 0)  # two tell: each is judged by the other
        if at == 0:  # a copy of it tells nothing more
            (home / "copy.onnx").write_bytes((home / "mlp0.onnx").read_bytes())
            twice = [*rows, dict(rows[-1], model="copy.onnx")]
            assert "how long linear layers take" in run(automc, write(home / "board.csv", twice), "--replace").out


def test_a_phone_that_would_be_the_slowest_of_all_decides_no_limits(automc, home: Path, rows) -> None:
    for row in rows:  # of a phone that takes 5 us to start and makes 7e11 multiply-accumulates a second
        row["latency_ms"] = 5.0 + 3.0 * float(row["latency_ms"])
    answer = run(automc, write(home / "board.csv", rows))
    assert answer.code == 0, answer.err
    assert "rank only" in answer.out
    assert "its column may be in microseconds" in " ".join(answer.out.split())


def test_a_whole_column_in_another_unit_is_caught_by_what_the_kind_of_device_can_do(automc, home: Path, rows) -> None:
    for row in rows:
        row["latency_ms"] = float(row["latency_ms"]) * 1000
    refused(run(automc, write(home / "board.csv", rows)), home, "Are these microseconds?")


def test_a_network_that_is_there_twice_is_refused(automc, home: Path, rows) -> None:
    """Left out once, its other row would say what it takes: no error at all, and limits to be decided by it."""
    rows.append({**rows[3], "latency_ms": 2.0})
    refused(run(automc, write(home / "board.csv", rows)), home, "row 24", "'n3.onnx' is there twice", "row 5")


def test_times_that_are_all_the_same_are_refused(automc, home: Path, rows) -> None:
    for row in rows:
        row["latency_ms"] = 5.0
    refused(run(automc, write(home / "board.csv", rows)), home, "every network takes 5 ms")


def test_a_table_as_spreadsheets_save_it_is_read(automc, home: Path, rows) -> None:
    table = write(home / "board.csv", rows)
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())  # a byte order mark
    assert run(automc, table).code == 0


def test_a_gpu_ranks_and_no_more_however_well_its_table_fits(home: Path, rows) -> None:
    timed, device = read_csv(write(home / "board.csv", rows), "a board", "phone", "tflite", version="1", threads=1)
    uses = []
    for on_gpu in (False, True):
        imported = assemble(timed, replace(device, on_gpu=on_gpu), "board", 0.0)[0].imported
        assert imported is not None
        uses.append(imported.use)
    assert uses == ["limits", "rank only"]


@pytest.mark.parametrize("more", [(), ("--folder", "elsewhere")])
def test_a_name_that_cannot_be_a_folders_is_refused(automc, home: Path, rows, more: tuple[str, ...]) -> None:
    answer = run(automc, write(home / "board.csv", rows), "--name", "../board", *more)
    refused(answer, home, "'../board' cannot be a profile's name")
    assert not Path("elsewhere").exists()


def test_a_profile_takes_the_place_of_no_other_device(automc, home: Path, rows) -> None:
    table = write(home / "board.csv", rows)
    refused(run(automc, table, "--name", "epyc_genoa_1t"), home, "epyc_genoa_1t", "comes with automc", "--name")
    assert run(automc, table).code == 0
    profile = home / "home" / "profiles" / "board" / "profile.yaml"
    before = profile.read_text()
    again = run(automc, table)
    assert (again.code, profile.read_text()) == (2, before)
    assert "there is a profile called so: a board" in again.err
    assert "next: --replace, or another --name" in again.err
    assert run(automc, table, "--replace").code == 0
    made = load_profile("board").model_copy(update={"name": "mine", "imported": None})
    save_profile(made, {}, home / "home" / "profiles" / "mine")
    over_mine = run(automc, table, "--name", "mine", "--replace")
    assert over_mine.code == 2
    assert "a profile of another device is called so" in over_mine.err


def test_host_is_this_machine_and_no_device_of_a_table(automc, home: Path, rows) -> None:
    table = write(home / "board.csv", rows)
    for more in ((), ("--replace",)):
        refused(run(automc, table, "--name", "host", *more), home, "host: is the profile of this machine", "--name")
    assert run(automc, table, "--name", "host", "--folder", str(home / "elsewhere")).code == 0
    shutil.copytree(home / "elsewhere", home / "home" / "profiles" / "host")  # as nothing of automc's would put it
    answer = automc("profile", "calibrate", "host", "--quick")
    assert answer.code == 2
    assert f"next: move {home / 'home' / 'profiles' / 'host'} elsewhere" in answer.err


@pytest.mark.parametrize("name", ["board", "ncnn_jetson_nano_gpu"])
def test_a_calibration_takes_the_place_of_no_device_of_a_table(automc, home: Path, rows, name: str) -> None:
    assert run(automc, write(home / "board.csv", rows)).code == 0
    answer = automc("profile", "calibrate", name, "--quick")
    assert answer.code == 2
    assert name in answer.err
    assert "next: automc profile calibrate host" in answer.err
    assert load_profile(name).imported is not None


def test_what_a_table_tells_nothing_of_takes_what_physics_allows(automc, home: Path, rows) -> None:
    """Linear layers that take no share of any network's time: a plain fit would give them for nothing."""
    for at, row in enumerate(rows[:6]):
        with_head(home / str(row["model"]), 8 * (1 + at))  # not a microsecond more, by this table
    assert run(automc, write(home / "board.csv", rows)).code == 0
    assert "how long linear layers take (matrix.vector)" in automc("profile", "show", "board").out
    large = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], "fc")], "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2000])],
        [numpy_helper.from_array(np.ones((1000, 2000), np.float32), "w")],
    )  # fmt: skip
    onnx.save(helper.make_model(large, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), home / "fc.onnx")
    told = automc("predict", str(home / "fc.onnx"), "--profile", "board", "--json", "--kernels").json
    total = told["total"]["latency_ms"]
    # 2 million MACs; no network does more than MACS_PER_MS a millisecond, and 8 times that is the most that is believed
    assert total["value"] > 2e6 / (8 * MACS_PER_MS)
    assert total["coverage"] < 0.5
    # no limit is broken for certain, nor met, by what nobody measured
    assert 0 < total["low"] < total["value"] / 12
    assert total["high"] > 8 * total["value"]
    assert 0 < told["kernels"][0]["latency_low_ms"] < total["value"] / 12
    assert told["kernels"][0]["latency_high_ms"] > 4 * total["value"]  # a kernel of two, the other overhead
    assert any("kernels larger or smaller than any that was calibrated" in note for note in told["notes"])


def with_head(path: Path, features: int) -> None:
    """Adds a global pool and a linear layer to the network in `path`."""
    model = onnx.load(path)
    last, channels = model.graph.output[0].name, model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    weight = numpy_helper.from_array(np.ones((channels, features), np.float32), "head")
    model.graph.node.extend([
        helper.make_node("GlobalAveragePool", [last], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "head"], ["logits"], "fc"),
    ])  # fmt: skip
    model.graph.initializer.append(weight)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, features]))
    onnx.save(model, path)


def test_too_few_rows_are_refused(automc, home: Path, rows) -> None:
    refused(run(automc, write(home / "board.csv", rows[:7])), home, "7 different networks are too few", "8 are needed")


def test_rows_of_another_runtime_are_refused(automc, home: Path, rows) -> None:
    mixed = [{**row, "runtime": "onnxruntime" if at == 2 else "tflite"} for at, row in enumerate(rows)]
    refused(run(automc, write(home / "board.csv", mixed)), home, "board.csv: row 4", "'onnxruntime'")


def test_few_networks_rank_only(automc, home: Path, rows) -> None:
    answer = run(automc, write(home / "board.csv", rows[:12]))
    assert answer.code == 0, answer.err
    assert "rank only: 12 networks are too few for an interval" in answer.out
    assert "furthest off is 'n" in answer.out


def test_a_missing_column_says_which_there_are(automc, home: Path, rows) -> None:
    table = write(home / "board.csv", [{"model": row["model"], "latency_us": 3} for row in rows])
    refused(run(automc, table), home, "no column latency_ms; it has model, latency_us")


def aihub_rows(rows) -> list[dict[str, object]]:
    return [
        {
            "model_id": str(row["model"]).removesuffix(".onnx"), "component": "whole", "precision": "float",
            "device": "a phone", "runtime": "onnx", "latency_ms": row["latency_ms"], "compute_unit": "NPU",
        }
        for row in rows
    ]  # fmt: skip


def run_aihub(automc, table: Path, models: Path):
    return automc(
        "profile", "import", "aihub", str(table), "--name", "npu", "--device", "a phone", "--models", str(models)
    )


def test_aihub_uses_the_models_that_are_there(automc, home: Path, rows) -> None:
    listed = aihub_rows(rows)
    listed += [{**listed[0], "model_id": "absent"}, {**listed[0], "precision": "w8a8", "latency_ms": "nan"}]
    answer = run_aihub(automc, write(home / "hub.csv", listed), home)
    assert answer.code == 0, answer.err
    for part in ("AI Hub onnx", "Qualcomm AI Hub Models' performance table", "BSD-3-Clause", "w8a8 and w8a16"):
        assert part in answer.out


def test_aihub_without_graphs_is_no_profile(automc, home: Path, rows) -> None:
    table = write(home / "hub.csv", aihub_rows(rows))
    (home / "empty").mkdir()
    refused(run_aihub(automc, table, home / "empty"), home, "0 of the table's 22 models", "the table has no graphs")


def run_ncnn(automc, table: Path, device: str, *more: str):
    return automc("profile", "import", "ncnn", str(table), "--name", "n", "--device", device, "--kind", "phone", *more)


@pytest.fixture
def ncnn_table(home: Path) -> Path:
    """Ten networks of two convolutions on one device, two runs, the second one short; one more device."""
    texts, rows = {}, []
    for at in range(10):
        filters, side = 8 + 8 * (at % 4), 16 + 8 * (at % 3)
        first, second = 27 * filters, filters * filters
        texts[f"n{at}"] = (
            "7767517\n3 3\n"
            f"Input data 0 1 data 0={side} 1={side} 2=3\n"
            f"Convolution a 1 1 data a 0={filters} 1=3 4=1 5=1 6={first} 9=1\n"
            f"Convolution b 1 1 a b 0={filters} 1=1 5=1 6={second} 9=1\n"
        )
        milliseconds = 0.1 + (first + second) * side * side / MACS_PER_MS
        cells = {"avg_ms": milliseconds * 1.01, "num_threads": 1, "gpu_device": -1.0, "model": f"n{at}"}
        rows.append({"device": "Board A (fast)", "run_id": 1, "min_ms": milliseconds, **cells})
        if at < 3:
            rows.append({"device": "Board A (fast)", "run_id": 2, "min_ms": milliseconds, **cells})
    rows.append({**rows[0], "device": "Board B", "num_threads": 4})
    (home / "graphs.json").write_text(json.dumps(texts))
    return write(home / "ncnn.csv", rows)


def test_ncnn_takes_the_fullest_run_of_one_device(automc, home: Path, ncnn_table: Path) -> None:
    answer = run_ncnn(automc, ncnn_table, "board a", "--graphs", str(home / "graphs.json"))
    assert answer.code == 0, answer.err
    assert "'Board A (fast)', run 1, CPU, 1 thread(s)" in answer.out
    assert "rank only: 10 networks are too few" in answer.out


def test_ncnn_names_the_devices_and_settings_there_are(automc, home: Path, ncnn_table: Path) -> None:
    graphs = ("--graphs", str(home / "graphs.json"))
    refused(run_ncnn(automc, ncnn_table, "board", *graphs), home, "2 devices are called 'board'", "Board A", "Board B")
    refused(run_ncnn(automc, ncnn_table, "board b", *graphs), home, "not timed with 1 thread(s)", "--threads 4")
    refused(run_ncnn(automc, ncnn_table, "board a"), home, "model_params.json.gz: no such file")


def test_a_network_far_smaller_than_any_of_the_table_gets_an_interval_up_to_what_the_table_could_not_tell(
    automc, home: Path, rows
) -> None:
    for at, row in enumerate(rows):
        row["latency_ms"] = float(row["latency_ms"]) * (1.0 if at % 2 else 1.2)  # so that the table leaves a doubt
    assert run(automc, write(home / "board.csv", rows)).code == 0
    network(home / "tiny.onnx", 1, 1, 4)
    total = automc("predict", str(home / "tiny.onnx"), "--profile", "board", "--json").json["total"]["latency_ms"]
    smallest = min(float(row["latency_ms"]) for row in rows)
    stored = json.loads((home / "home" / "profiles" / "board" / "calibration.json").read_text())
    high = stored["intervals"]["fp32"]["high"]
    assert stored["unresolved_ms"] == pytest.approx((high - 1) * smallest)
    outside = 1 - total["coverage"]
    assert outside > 0.5
    assert total["high"] == pytest.approx(total["value"] * high * (1 + outside) + outside * (high - 1) * smallest)
    assert high > 1.01


def test_half_a_profile_predicts_nothing_and_says_to_import_it_again(automc, home: Path, rows) -> None:
    assert run(automc, write(home / "board.csv", rows)).code == 0
    folder = home / "home" / "profiles" / "board"
    (folder / "calibration.json").write_text((folder / "calibration.json").read_text().replace("0", "1", 1))
    answer = automc("predict", str(home / "n3.onnx"), "--profile", "board")
    assert answer.code != 0
    assert "is not what profile 'board' was calibrated with" in answer.err
    assert "next: automc profile import, from board.csv, given by the user" in answer.err


@pytest.fixture
def with_energy(rows) -> list[dict[str, object]]:
    """1.5 W while a network runs, whatever it computes."""
    return [{**row, "energy_mj": 1.5 * row["latency_ms"]} for row in rows]


def test_energy_that_was_measured_is_fitted_and_predicted_with_its_own_error(automc, home: Path, with_energy) -> None:
    answer = run(automc, write(home / "board.csv", with_energy))
    assert answer.code == 0, answer.err
    assert "energy:       fit: fit to the measured energy of 22 networks" in answer.out
    assert "energy other than by the model" not in answer.out
    told = automc("predict", str(home / "n3.onnx"), "--profile", "board", "--json").json["total"]
    assert told["energy_mj"]["value"] == pytest.approx(1.5 * told["latency_ms"]["value"], rel=1e-3)
    assert told["energy_mj"]["low"] <= told["energy_mj"]["value"] <= told["energy_mj"]["high"]
    assert told["energy_mj"]["source"].startswith("fit to the measured energy of 22 networks")
    assert "Horowitz" not in json.dumps(told)


def test_energy_is_what_work_adds_to_constant_power(automc, home: Path, rows) -> None:
    for row in rows:  # 1 W, and 0.2 mJ a million multiply-accumulates
        macs = graph_from_onnx(home / str(row["model"]), level="extended").macs
        row["energy_mj"] = float(str(row["latency_ms"])) + 0.2 * macs / 1e6
    assert run(automc, write(home / "board.csv", rows)).code == 0
    stored = json.loads((home / "home" / "profiles" / "board" / "calibration.json").read_text())["measured_energy"]
    assert stored["mape_percent"] < stored["constant_power_mape_percent"]
    told = automc("predict", str(home / "n3.onnx"), "--profile", "board", "--json").json
    wanted = told["total"]["latency_ms"]["value"] + 0.2 * told["macs"] / 1e6
    assert told["total"]["energy_mj"]["value"] == pytest.approx(wanted, rel=0.05)


def test_what_the_fit_says_of_a_whole_network_is_what_is_predicted(automc, home: Path, with_energy) -> None:
    """The energy of calling the session as well, which no kernel has."""
    assert run(automc, write(home / "board.csv", with_energy)).code == 0
    folder = home / "home" / "profiles" / "board"
    stored = json.loads((folder / "calibration.json").read_text())
    stored["measured_energy"] |= {"coefficients": {"session:calls": 0.25}, "power_w": 1.0}
    text = json.dumps(stored)
    (folder / "calibration.json").write_text(text)
    profile = yaml.safe_load((folder / "profile.yaml").read_text())
    profile["calibration_digest"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "profile.yaml").write_text(yaml.safe_dump(profile))
    told = automc("predict", str(home / "n3.onnx"), "--profile", "board", "--json").json["total"]
    assert told["energy_mj"]["value"] == pytest.approx(told["latency_ms"]["value"] + 0.25)


@pytest.mark.parametrize("value", ["", "nan", "0", "-3", "much"])
def test_an_energy_that_is_no_measurement_is_refused_with_its_row(automc, home: Path, with_energy, value: str) -> None:
    with_energy[4]["energy_mj"] = value
    refused(run(automc, write(home / "board.csv", with_energy)), home, "board.csv: row 6: energy_mj", "no measurement")


def test_energies_in_another_unit_are_caught_by_the_power_they_would_be(automc, home: Path, with_energy) -> None:
    micro = [{**row, "energy_mj": 1000 * row["energy_mj"]} for row in with_energy]
    refused(
        run(automc, write(home / "board.csv", micro)), home, "W; a phone draws 0.05 to 20 W. Are these microjoules?"
    )
    joules = [{**row, "energy_mj": row["energy_mj"] / 1000} for row in with_energy]
    refused(run(automc, write(home / "board.csv", joules)), home, "would be 0.0015 W", "Are these joules?")
    with_energy[7]["energy_mj"] = 1000 * with_energy[7]["energy_mj"]
    refused(run(automc, write(home / "board.csv", with_energy)), home, "board.csv: row 9:", "where the other rows draw")
