"""From `pip install` of a user's own package to a verified bundle, by the command line alone, in its own processes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from made_up_device import save_made_up
from own_package_sources import (
    PYPROJECT,
    TEXT_DATA,
    TEXT_NET,
    WAVES_DATA,
    WAVES_FILTERS,
    WAVES_NET,
)
from safetensors.torch import save_file
from whole_runs import SPACE

from automc.cost.graph import graph_from_onnx
from automc.export import export_onnx
from automc.measure.fingerprint import host_fingerprint

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--set", "search.rungs=[{candidates: 3, steps: 0}, {candidates: 2, steps: 15}]", "--set", "search.finalists=2",
    "--set", "objectives=[accuracy, size_bytes]", "--set", "executor.kind=inline", "--choose", "smallest",
]  # fmt: skip


@dataclass(frozen=True)
class Users:
    """A user's machine: a folder their package is installed in, another they work in."""

    site: Path
    work: Path

    def automc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.site), str(ROOT)]),
            "AUTOMC_HOME": str(self.work / "home"),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            [sys.executable, "-m", "automc.cli.main", *arguments],
            cwd=self.work, env=environment, capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip

    def search(self, *arguments: str) -> Path:
        """The folder of a run that ended in a bundle."""
        answer = self.automc("search", *arguments, "--run", "runs/mine", "--json")
        assert answer.returncode == 0, answer.stderr
        json.loads(answer.stdout)  # nothing that the user's code prints is in between
        return self.work / "runs" / "mine"


def install(folder: Path, name: str, modules: Mapping[str, str]) -> Users:
    """Writes the package's source, and has pip install it from there into a folder of its own."""
    source, users = folder / "source", Users(folder / "site", folder / "work")
    (source / name).mkdir(parents=True)
    users.work.mkdir()
    (source / "pyproject.toml").write_text(PYPROJECT.format(name=name))
    (source / name / "__init__.py").touch()
    for module, text in modules.items():
        (source / name / f"{module}.py").write_text(text.lstrip())
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run(
        [*pip, "--target", str(users.site), str(source)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return users


def device(users: Users, network: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> str:
    """A device on paper that is this machine, and knows the network's own kernels."""
    save_made_up(users.work / "device", [graph_from_onnx(export_onnx(network, inputs))], fingerprint=host_fingerprint())
    (users.work / "space.yaml").write_text(yaml.safe_dump(SPACE))
    return str(users.work / "device")


def network_of(users: Users, name: str, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    monkeypatch.syspath_prepend(users.site)
    torch.manual_seed(0)
    network: torch.nn.Module = importlib.import_module(f"{name}.net").build()
    return network


def promised(bundle: Path) -> Mapping[str, object]:
    found: Mapping[str, object] = json.loads((bundle / "expected.json").read_text())["figures"]["accuracy"]
    return found


def test_signals_go_from_pip_install_to_a_verified_bundle_without_a_config_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "users_waves"
    modules = {"net": WAVES_NET, "data": WAVES_DATA.format(name=name), "filters": WAVES_FILTERS}
    users = install(tmp_path, name, modules)
    profile = device(users, network_of(users, name, monkeypatch), [torch.zeros(1, 2, 64)])
    run = users.search(
        "--model", f"{name}.net:build", "--data", f"{name}.data:splits", "--option", "train_steps=120",
        "--profile", profile, "--space", "space.yaml", "--max-drop", "20", *SMALL,
    )  # fmt: skip
    checked = users.automc("bundle", "verify", str(run / "bundle"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    # the promised accuracy, again, with the user's own preprocessing and the runtime alone
    data = importlib.import_module(f"{name}.data")
    session = onnxruntime.InferenceSession(run / "bundle" / "model.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    right = [
        int(session.run(None, {given.name: x[None].numpy()})[0].argmax()) == y
        for x, y in iter_of(data.splits()["test"]())
    ]
    assert promised(run / "bundle")["value"] == pytest.approx(np.mean(right))
    assert np.mean(right) > 0.8  # a third by guessing


def iter_of(dataset):  # type: ignore[no-untyped-def]
    return (dataset[number] for number in range(len(dataset)))


def test_texts_go_from_pip_install_to_a_verified_bundle_by_a_config_that_the_options_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "users_texts"
    users = install(tmp_path, name, {"net": TEXT_NET, "data": TEXT_DATA})
    network = network_of(users, name, monkeypatch)
    data = importlib.import_module(f"{name}.data")
    train(network, data)
    save_file(network.state_dict(), users.work / "w.safetensors")
    inputs = [torch.zeros(1, 12, dtype=torch.int64), torch.zeros(1, 2)]
    profile = device(users, network.eval(), inputs)
    written = users.automc(
        "config", "init", "--model", f"{name}.net:build", "--weights", "w.safetensors", "--data", f"{name}.data:splits",
        "--task", f"{name}.data:task", "--profile", profile, "--space", "space.yaml", "--max-drop", "30", *SMALL,
    )  # fmt: skip
    assert written.returncode == 0, written.stderr
    (users.work / "search.yaml").write_text(written.stdout)
    read = users.automc("config", "check", "search.yaml")
    assert read.returncode == 0, read.stderr
    run = users.search("search.yaml")
    checked = users.automc("bundle", "verify", str(run / "bundle"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    told = promised(run / "bundle")
    assert told["direction"] == "min"
    assert float(str(told["value"])) < 0.3  # what mistakes cost; 0.75 by guessing
    described = json.loads((run / "bundle" / "io.json").read_text())["inputs"]
    assert [item["dtype"] for item in described] == ["int64", "float32"]
    assert json.loads((run / "bundle" / "expected.json").read_text())["metric"] == "cost"


def train(network: torch.nn.Module, data) -> None:  # type: ignore[no-untyped-def]
    """As the user did before: a few passes over the training part."""
    rows = data.splits()["train"]
    tokens = torch.from_numpy(np.stack([x for (x, _), _ in rows]))
    facts = torch.from_numpy(np.stack([x for (_, x), _ in rows])).float()
    targets = torch.tensor([y for _, y in rows])
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(120):
        loss = data.loss(network(tokens, facts), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
