"""What the doctor is asked in these tests: pictures of noise in an npz file, a network, a device on paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import odd_networks
import torch
import yaml
from made_up_device import save_made_up
from safetensors.torch import save_file
from torch import nn

from automc.config import SearchConfig, dump_config, parse_config
from automc.cost.graph import graph_from_trace
from automc.doctor.budget import Budget
from automc.measure.fingerprint import host_fingerprint

SIZE, CLASSES = 8, 4
SHORT = Budget(leaks_s=5.0, accuracy_s=2.0, space_s=1.0)
SPACE = {
    "name": "small",
    "techniques": {
        "channel_pruning": {"ratio": [0.3, 0.5]},
        "low_rank": {"rank_ratio": [0.3, 0.6], "only_if_faster": [False]},
        "int8_ptq": {},
    },
    "recovery": {"fine_tune": {}},
    "anchors": [{"name": "reference", "steps": ["recovery"]}, {"name": "int8", "steps": ["recovery", "int8_ptq"]}],
    "chains": {"max_steps": 1, "max_recoveries": 1},
}


def pictures(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)


def labels(count: int) -> np.ndarray:
    return np.arange(count) % CLASSES


def save_data(folder: Path, **changed: np.ndarray) -> None:
    """data.npz: 80 pictures to train on, 40 to validate, 40 to test, of four classes."""
    arrays = {}
    for seed, (split, count) in enumerate((("train", 80), ("validation", 40), ("test", 40))):
        arrays[f"{split}_x"], arrays[f"{split}_y"] = pictures(count, seed), labels(count)
    np.savez(folder / "data.npz", **{**arrays, **changed})


def config_of(
    folder: Path,
    network: str,
    known: Sequence[Callable[[], nn.Module]] = (),
    space: dict[str, object] = SPACE,
    **sections: object,
) -> SearchConfig:
    """A search of `network` of odd_networks.py on data.npz of `folder`, for a device that claims to be this machine.

    known: networks the device was calibrated on, in fp32 and int8; by default the network itself.
    """
    build: Callable[[], nn.Module] = getattr(odd_networks, network)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(build().state_dict(), folder / f"{network}.safetensors")
    if not (folder / "data.npz").is_file():
        save_data(folder)
    inputs = (torch.zeros(1, 3, SIZE, SIZE),)
    graphs = [
        graph_from_trace(make().eval(), inputs, precision=precision)
        for make in (known or (build,))
        for precision in ("fp32", "int8")
    ]
    save_made_up(folder / "device", graphs, fingerprint=host_fingerprint())
    (folder / "space.yaml").write_text(yaml.safe_dump(space))
    options = {
        "file": str(folder / "data.npz"), "model": f"odd_networks:{network}",
        "weights": str(folder / f"{network}.safetensors"), "calibration_samples": 16,
    }  # fmt: skip
    config = {
        "name": network.lower(),
        "workload": {"name": "arrays", "options": options},
        "profile": str(folder / "device"),
        "space": str(folder / "space.yaml"),
        "search": {
            "strategy": "random",
            "rungs": [{"candidates": 4, "steps": 0}, {"candidates": 2, "steps": 20}],
            "finalists": 2,
        },
        "recovery": {"batch_size": 16},
        "executor": {"kind": "inline"},
        **sections,
    }
    return parse_config(config, "a test")


def saved(config: SearchConfig, folder: Path) -> Path:
    file = folder / "search.yaml"
    file.write_text(dump_config(config))
    return file
