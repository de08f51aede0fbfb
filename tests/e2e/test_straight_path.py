"""From the command to the work it is five calls, counted in files on the stack of a search of the digits."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

import pytest
import yaml
from digits_evaluator import base_onnx
from made_up_device import save_made_up
from torch import nn

import automc
from automc.cost.graph import graph_from_onnx
from automc.techniques.depth_pruning import DepthPruning
from automc.techniques.plan import Plan

PACKAGE = Path(automc.__file__).parent
STRAIGHT = ["cli/search.py", "search/loop.py", "executor.py", "evaluate.py", "pipeline.py"]  # and then the technique


def files_on_the_stack() -> list[str]:
    """Files of automc from the outermost frame inwards, each once per visit."""
    frame, names = sys._getframe(1), []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            names.append(path.relative_to(PACKAGE).as_posix())
        frame = frame.f_back
    return [name for name, _ in groupby(reversed(names))]


def test_from_the_command_to_a_technique_it_is_five_calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from automc.cli.main import main

    seen: list[list[str]] = []

    def apply(self: DepthPruning, model: nn.Module, plan: Plan) -> nn.Module:
        seen.append(files_on_the_stack())
        raise KeyboardInterrupt

    monkeypatch.setattr(DepthPruning, "apply", apply)
    monkeypatch.setattr("automc.measure.fingerprint.check_fingerprint", lambda profile: None)
    save_made_up(tmp_path / "paper", [graph_from_onnx(base_onnx())])
    config = {
        "name": "path",
        "workload": {"name": "digits"},
        "space": "digits",
        "profile": str(tmp_path / "paper"),
        "calibrate": "never",
        "search": {"rungs": [{"candidates": 1, "steps": 0}, {"candidates": 1, "steps": 1}]},
        "executor": {"kind": "inline"},
    }
    (tmp_path / "path.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as left:
        main(["search", str(tmp_path / "path.yaml"), "--run", str(tmp_path / "run")])
    assert left.value.code == 5  # interrupted, and resumable
    inside = seen[0][seen[0].index("cli/search.py") :]
    assert [name for name in inside if name != "search/__init__.py"] == STRAIGHT
