"""Whole searches in a few seconds: a small network on arrays, on a device on paper that claims to be this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import yaml
from made_up_device import save_made_up

from automc.config import SearchConfig, parse_config
from automc.cost.graph import graph_from_onnx, graph_from_trace
from automc.export import export_onnx
from automc.measure.fingerprint import host_fingerprint
from automc.run import Run
from automc.trial import Trial
from automc.workloads import create_workload

FEATURES, WIDTH = 8, 32
SPACE = {
    "name": "small",
    "techniques": {
        "low_rank": {"rank_ratio": {"min": 0.3, "max": 0.9, "step": 0.2}, "only_if_faster": [False]},
        "int8_ptq": {},
    },
    "recovery": {"fine_tune": {}},
    "anchors": [{"name": "reference", "steps": ["recovery"]}, {"name": "int8", "steps": ["recovery", "int8_ptq"]}],
    "chains": {"max_steps": 2},
}


def save_classes(folder: Path) -> None:
    """mine.npz: two classes of 8 features; 200 samples to train on, 160 held out."""
    generator = np.random.default_rng(0)
    labels = np.arange(360) % 2
    x = (generator.normal(size=(360, FEATURES)) + (2 * labels - 1)[:, None] * 0.5).astype(np.float32)
    np.savez(folder / "mine.npz", train_x=x[:200], train_y=labels[:200], held_x=x[200:], held_y=labels[200:])


def save_values(folder: Path) -> None:
    """mine.npz: one value, a bent sum of 8 features and a little noise, to be met; stored flat, as users do."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(360, FEATURES)).astype(np.float32)
    y = (np.tanh(x @ np.linspace(-1, 1, FEATURES)) + 0.05 * generator.normal(size=360)).astype(np.float32)
    np.savez(folder / "mine.npz", train_x=x[:200], train_y=y[:200], held_x=x[200:], held_y=y[200:])


def small_config(
    folder: Path, task: str, known: Sequence[onnx.ModelProto] | None = None, **sections: object
) -> SearchConfig:
    """A search of 4, then 2 candidates on mine.npz of `folder`; by default the device knows what they are made of.

    known: the networks the device was calibrated on, instead. sections: of the config, instead of these.
    """
    outputs = 2 if task == "classification" else 1
    options = {
        "file": str(folder / "mine.npz"),
        "model": "mlp",
        "model_args": {"inputs": FEATURES, "hidden": [WIDTH, WIDTH], "outputs": outputs},
        "task": task,
        "train_steps": 60,
        "calibration_samples": 64,
    }
    workload = create_workload("arrays", options, None)
    model, inputs = workload.model(), workload.example_inputs()
    graphs = [graph_from_onnx(item) for item in known or [export_onnx(model, inputs)]]
    if known is None:
        graphs.append(graph_from_trace(model, inputs, precision="int8"))
    save_made_up(folder / "device", graphs, fingerprint=host_fingerprint())
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    config = {
        "name": "small",
        "workload": {"name": "arrays", "options": options},
        "profile": str(folder / "device"),
        "space": str(folder / "space.yaml"),
        "objectives": ["accuracy", "size_bytes"],
        "constraints": {"max_drop_points": None},
        "search": {
            "strategy": "random",
            "rungs": [{"candidates": 4, "steps": 0}, {"candidates": 2, "steps": 20}],
            "finalists": 2,
        },
        "teacher": "none",
        "choose": "smallest",
        "executor": {"kind": "inline"},
        **sections,
    }
    return parse_config(config, "small config")


def outcomes(run: Run) -> dict[tuple[str, int, int], Mapping[str, object]]:
    """Every trial without who evaluated it, when, and what the cache happened to spare it."""

    def outcome(trial: Trial) -> Mapping[str, object]:
        facts = {name: fact for name, fact in trial.facts.items() if name != "same_network_as"}
        return {**trial.to_json(), "facts": facts, "provenance": None}

    return {(trial.candidate.id, trial.rung, trial.seed): outcome(trial) for trial in run.trials()}
