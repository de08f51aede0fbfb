"""What bash offers when Tab is pressed, asked of a real bash with the script that --install-completion installs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from noop_runs import config_in

from automc.run import Run

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def offered(folder: Path, typed: str) -> set[str]:
    """What bash completes the last word of `typed` to, in `folder`."""
    program = folder / "bin" / "automc"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m automc.cli.entry "$@"\n')
    program.chmod(0o755)
    words = typed.split(" ")
    script = (
        'eval "$(_AUTOMC_COMPLETE=source_bash automc)"\n'
        f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}\n"
        "_automc_completion automc\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("automc ru", {"runs"}),
        ("automc technique show channel", {"channel_pruning"}),
        ("automc profile show epyc", {"epyc_genoa_1t", "epyc_genoa_2t"}),
        ("automc search --profile epyc", {"epyc_genoa_1t", "epyc_genoa_2t"}),
        ("automc predict model.onnx --profile epyc", {"epyc_genoa_1t", "epyc_genoa_2t"}),
        ("automc search --space cifar", {"cifar10_resnet20"}),
        ("automc search --strategy ns", {"nsga2"}),
        ("automc search --choose most", {"most_accurate"}),
        ("automc config init --workload mn", {"mnist"}),
        ("automc bundle build runs/one --choose sm", {"smallest"}),
    ],
)
def test_names_are_completed(tmp_path: Path, typed: str, expected: set[str]) -> None:
    assert offered(tmp_path, typed) == expected


@pytest.mark.parametrize("command", ["resume", "front", "report", "bundle build"])
def test_folders_that_hold_a_run_are_completed_and_others_are_not(tmp_path: Path, command: str) -> None:
    for name in ("one", "other"):
        Run.create(tmp_path / "runs" / name, config_in(tmp_path), data_root=None).close()
    (tmp_path / "runs" / "only_a_folder").mkdir()
    assert offered(tmp_path, f"automc {command} runs/o") == {"runs/one", "runs/other"}
    assert offered(tmp_path, f"automc {command} ") == {"runs/one", "runs/other"}


def test_the_help_says_how_completion_is_had(automc) -> None:
    said = " ".join(automc("--help").out.split())
    assert "Tab completes commands, options, runs, profiles, techniques" in said
    assert "--install-completion" in said
