from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import pytest
from bundle_samples import tiny_model
from made_up_device import save_made_up

from automc.cost.graph import graph_from_onnx
from automc.cost.prediction import MemoryFit
from automc.cost.predictor import Estimate
from automc.measure.fingerprint import host_fingerprint
from automc.profiles import Imported, save_profile


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
    header, *costs = answer.out.splitlines()[:4]
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


@pytest.fixture
def wiser(tmp_path: Path, unknown_file: Path) -> Path:
    """A profile calibrated for the Softmax as well, of a device of 8 MB: less than the 10 MB the runtime takes."""
    made = save_made_up(tmp_path / "wiser", [graph_from_onnx(unknown_file)], name="wiser")
    small = made.model_copy(update={"memory_mb": 8.0})
    save_profile(small, json.loads((tmp_path / "wiser" / "calibration.json").read_text()), tmp_path / "wiser")
    return tmp_path / "wiser"


def test_each_of_several_profiles_answers_by_its_name(automc, device: Path, wiser: Path, onnx_file: Path) -> None:
    answer = automc("predict", onnx_file, "--profile", device, "--profile", wiser)
    assert answer.code == 0
    lines = [line.split() for line in answer.out.splitlines()]
    assert lines[0][:3] == ["profile", "cost", "predicted"]
    assert [line[:2] for line in lines[1:7]] == [
        [name, cost] for name in ("paper", "wiser") for cost in ("latency", "energy", "memory")
    ]
    told = automc("predict", onnx_file, "--profile", device, "--profile", wiser, "--json").json
    alone = automc("predict", onnx_file, "--profile", wiser, "--json").json
    assert [item["profile"] for item in told["profiles"]] == ["paper", "wiser"]
    assert {"model": told["model"], **told["profiles"][1]} == alone


def test_a_profile_that_cannot_price_the_model_does_not_hide_the_one_that_can(
    automc, device: Path, wiser: Path, unknown_file: Path
) -> None:
    answer = automc("predict", unknown_file, "--profile", device, "--profile", wiser, "--kernels")
    assert answer.code == 0
    assert re.search(r"^paper +every cost +unknown", answer.out, re.MULTILINE)
    assert re.search(r"^wiser +latency +\S+ ms", answer.out, re.MULTILINE)
    assert f"paper: {unknown_file}: no total, 1 of " in answer.out
    assert (
        "Softmax [1, 4] -> [1, 4] (softmax)\n  next: on that machine, automc doctor CONFIG --profile paper --calibrate"
        in answer.out
    )
    assert "kernels on wiser:" in answer.out
    assert "kernels on paper:" not in answer.out
    blind, seeing = automc("predict", unknown_file, "--profile", device, "--profile", wiser, "--json").json["profiles"]
    assert blind["total"] is None
    assert [row["operator"] for row in blind["unseen"]] == ["Softmax"]
    assert seeing["total"]["latency_ms"]["value"] > 0
    assert seeing["error"] is None


def test_where_no_profile_can_price_the_model_each_says_why_and_the_exit_is_2(
    automc, device: Path, wiser: Path, unknown_file: Path
) -> None:
    (wiser / "calibration.json").unlink()
    answer = automc("predict", unknown_file, "--profile", device, "--profile", wiser)
    assert answer.code == 2
    assert answer.out == ""
    assert "none of 2 profiles can price it" in answer.err
    assert "Softmax [1, 4] -> [1, 4]" in answer.err
    assert "so profile 'wiser' cannot predict" in answer.err
    answer = automc("predict", unknown_file, "--profile", device, "--profile", wiser, "--json")
    assert answer.code == 2
    assert [item["total"] for item in answer.json["profiles"]] == [None, None]


def test_two_profiles_of_one_name_are_told_apart_by_their_folders(
    automc, device: Path, tmp_path: Path, onnx_file: Path
) -> None:
    save_made_up(tmp_path / "twin", [graph_from_onnx(onnx_file)])
    answer = automc("predict", onnx_file, "--profile", device, "--profile", tmp_path / "twin", "--profile", device)
    assert [line.split()[0] for line in answer.out.splitlines()[1:7]] == 3 * [str(device)] + 3 * [
        str(tmp_path / "twin")
    ]


def test_memory_beyond_the_devices_is_warned_of_and_within_it_is_a_share(
    automc, device: Path, wiser: Path, onnx_file: Path
) -> None:
    # 10 MB of the runtime against 8 MB: the lower bound alone is too much, and over 10 / 8 of the limit is used
    out = automc("predict", onnx_file, "--profile", wiser).out
    share = float(re.search(r"warning: the model does not fit: .* predicted, (\S+)% of the 8 MB", out)[1])
    assert 125 < share < 126
    told = automc("predict", onnx_file, "--profile", wiser, "--json").json["memory"]
    assert (told["limit_mb"], told["verdict"]) == (8.0, "does not fit")
    roomy = automc("predict", onnx_file, "--profile", device).out  # 1,024 MB: 10 / 1024 = 0.98 %
    assert "warning" not in roomy
    assert "memory: 0.98% of the 1024 MB that the device has" in roomy


def test_a_limit_within_the_bounds_of_memory_is_an_open_question() -> None:
    memory = Estimate(10.0, 9.0, 12.0, "MB", 1.0)
    assert MemoryFit.of(memory, 12.0).verdict == "fits"
    assert MemoryFit.of(memory, 11.0).verdict == "may not fit"
    assert MemoryFit.of(memory, 9.0).verdict == "may not fit"
    assert MemoryFit.of(memory, 8.9).verdict == "does not fit"
    assert MemoryFit.of(memory, 20.0).share == 0.5
    assert MemoryFit.of(memory, None) == MemoryFit(None, None, "limit not known")


def test_the_costliest_kernels_are_listed_in_the_order_of_execution_and_the_rest_is_named(
    automc, device: Path, onnx_file: Path
) -> None:
    whole = automc("predict", onnx_file, "--profile", device, "--kernels", "--json").json
    times = [row["latency_ms"] for row in whole["kernels"]]
    slowest = sorted(sorted(range(len(times)), key=lambda place: -times[place])[:2])
    assert sum(row["share"] for row in whole["kernels"]) == pytest.approx(1.0)
    assert whole["kernels_left_out"] == 0
    cut = automc("predict", onnx_file, "--profile", device, "--top", "2", "--json").json
    assert [row["name"] for row in cut["kernels"]] == [whole["kernels"][place]["name"] for place in slowest]
    assert cut["kernels_left_out"] == len(times) - 2
    out = automc("predict", onnx_file, "--profile", device, "--top", "2").out
    header, *rows, rest = out.partition("\n\n")[2].splitlines()
    assert header.split() == ["kernel", "precision", "shapes", "MACs", "ms", "interval", "share", "mJ"]
    assert len(rows) == 2
    assert rest.startswith(f"and {len(times) - 2} cheaper kernels, ")


def test_a_profile_of_another_machine_and_one_that_only_ranks_say_so(
    automc, device: Path, tmp_path: Path, onnx_file: Path
) -> None:
    (foreign,) = automc("predict", onnx_file, "--profile", device, "--json").json["notes"]
    assert foreign.startswith("of another machine (cpu, ")
    assert "on this host" in foreign
    graph = graph_from_onnx(onnx_file)
    made = save_made_up(tmp_path / "here", [graph], name="here", fingerprint=host_fingerprint())
    assert automc("predict", onnx_file, "--profile", tmp_path / "here", "--json").json["notes"] == []
    table = Imported(
        kind="phone", source="a table", licence="CC0", networks=20, use="rank only", reason="it is off by half",
        cannot=(),
    )  # fmt: skip
    ranking = made.model_copy(update={"imported": table})
    save_profile(ranking, json.loads((tmp_path / "here" / "calibration.json").read_text()), tmp_path / "here")
    assert "note: rank only: it is off by half" in automc("predict", onnx_file, "--profile", tmp_path / "here").out


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
