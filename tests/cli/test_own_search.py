"""Searches of a user's own code that cannot go on: said with their file and line, no traceback, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from made_up_device import save_made_up
from users_package import Package, Packages
from whole_runs import SPACE

from automc.cost.graph import graph_from_onnx
from automc.export import export_onnx
from automc.measure.fingerprint import host_fingerprint
from automc.run import Run

Call = Callable[..., Any]


@pytest.fixture
def search(automc: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`automc search` of a package, in a few seconds where it gets far; the folder of its run is `runs/mine`."""
    monkeypatch.chdir(tmp_path)

    def call(made: Package, *more: str) -> Any:
        network = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
        known = [graph_from_onnx(export_onnx(network, (torch.zeros(1, 5),)))]
        save_made_up(tmp_path / "device", known, fingerprint=host_fingerprint())
        (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
        return automc(
            "search", "--model", f"{made.name}.net:build", "--data", f"{made.name}.data:splits",
            "--profile", tmp_path / "device", "--space", tmp_path / "space.yaml", "--run", "runs/mine",
            "--set", "search.rungs=[{candidates: 1, steps: 0}, {candidates: 1, steps: 4}]", "--set", "teacher=none",
            "--set", "objectives=[accuracy, size_bytes]", "--set", "executor.kind=inline", *more,
        )  # fmt: skip

    return call


BRANCH = """
class Net(Net):
    def forward(self, x):
        found = super().forward(x)
        if found.mean() > 0:
            found = found * 2
        return found
"""


def test_control_flow_that_depends_on_values_is_named_with_its_line(search: Call, package: Packages) -> None:
    made = package(BRANCH)
    answer = search(made)
    assert answer.code == 2
    place = made.place("net", "if found.mean() > 0:")
    assert f"the network as given cannot be deployed in the network itself ({place})" in answer.err
    assert "\n    if found.mean() > 0:\n" in answer.err
    assert "Traceback" not in answer.err
    assert not Path("runs/mine").exists()  # once mended, the same command has to work


TASK = """
def loss(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs, targets)


calls = []


def metric(outputs, targets):
    calls.append(len(targets))
    if {when}:
        {what}
    return outputs.argmax(1) == targets


def task():
    return {{"loss": loss, "metric": metric, "direction": "max"}}
"""


def test_a_metric_that_breaks_on_a_whole_split_stops_before_anything_began(search: Call, package: Packages) -> None:
    made = package(data=TASK.format(when="len(targets) > 2", what="raise ValueError('too many')"))
    answer = search(made, "--task", f"{made.name}.data:task")
    place = made.place("data", "raise ValueError('too many')")
    assert (answer.code, answer.out) == (2, "")
    assert f"metric failed at {place}: ValueError: too many" in answer.err
    assert not Path("runs/mine").exists()


def test_a_metric_that_breaks_late_loses_nothing_and_a_mended_one_goes_on(
    search: Call,
    package: Packages,
    automc: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = package(data=TASK.format(when="len(calls) == 6", what="return np.full(len(targets), np.nan)"))
    answer = search(made, "--task", f"{made.name}.data:task")
    place = made.place("data", "def metric(outputs, targets):")
    assert answer.code == 2
    assert f"metric ({place}) returned nan for 24 of 24 samples" in answer.err
    kept = [trial.to_json() for trial in Run.open("runs/mine").trials()]
    assert kept
    again = automc("resume", "runs/mine")  # the seventh call, and all after it, are fine
    assert again.code == 0, again.err
    assert [trial.to_json() for trial in Run.open("runs/mine").trials()][: len(kept)] == kept
    assert automc("bundle", "verify", "runs/mine/bundle").code == 0


def test_what_user_code_prints_leaves_the_json_whole(search: Call, package: Packages) -> None:
    made = package("def build():\n    print('noise')\n    return Net()\n")
    answer = search(made, "--json", "--option", "train_steps=30", "--set", "constraints.max_drop_points=100")
    assert answer.code == 0, answer.err
    assert answer.json
    assert "noise" in answer.err


def test_a_file_that_is_no_model_is_refused_before_anything_began(
    search: Call,
    package: Packages,
    automc: Call,
    tmp_path: Path,
) -> None:
    made = package()
    network = torch.nn.Linear(5, 3)
    content = export_onnx(network, (torch.zeros(1, 5),)).SerializeToString()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    answer = search(made, "--model", "cut.onnx")  # the last one counts
    assert (answer.code, answer.out) == (2, "")
    assert f"{tmp_path / 'cut.onnx'}: not an ONNX model" in answer.err
    answer = search(made, "--model", "gone.onnx")
    assert (answer.code, "gone.onnx: no such file" in answer.err) == (2, True)
    assert not Path("runs/mine").exists()
    (tmp_path / "whole.onnx").write_bytes(content)
    options = ["--model", "whole.onnx", "--data", f"{made.name}.data:splits", "--profile", str(tmp_path / "device")]
    fine = automc("doctor", *options, "--set", "objectives=[accuracy, size_bytes]")
    assert fine.code == 0, fine.out
    assert "a search can run" in fine.out
    assert "operators, on shapes alone" in " ".join(fine.out.split())
    assert "_onnx_network.py" not in fine.out  # it is no line of the user's
    trained = automc("doctor", *options, "--space", "cnn", "--set", "search.rungs=[{candidates: 1, steps: 0},"
                     "{candidates: 1, steps: 2}]")  # fmt: skip
    assert trained.code == 2
    assert "has no weights that could be trained" in " ".join(trained.out.split())


def test_doctor_names_the_same_lines_from_the_same_options(automc: Call, package: Packages) -> None:
    made = package(BRANCH)
    options = ["--model", f"{made.name}.net:build", "--data", f"{made.name}.data:splits", "--max-latency-ms", "0.5"]
    answer = automc("doctor", *options)
    assert answer.code == 2
    unwrapped = "".join(answer.out.split())
    assert made.place("net", "if found.mean() > 0:") in unwrapped
    assert "".join(f"automc doctor {' '.join(options)}".split()) in unwrapped
