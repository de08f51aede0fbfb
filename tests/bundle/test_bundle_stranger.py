"""The bundle in the hands of somebody who has onnxruntime and numpy and nothing of automc."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundle_samples import contents, samples

from automc.bundle.verify import Bundle
from automc.bundle.write import write_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("stranger") / "bundle", contents())


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Path:
    """An interpreter into which only the bundle's own requirements.txt was installed."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    requirements = bundle.folder / "requirements.txt"
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", requirements], check=True, timeout=280)
    return folder / "bin" / "python"


def call(python: Path, script: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-I", script, *arguments], capture_output=True, text=True, check=False)


def test_it_verifies_runs_and_catches_tampering_without_automc(python: Path, bundle: Bundle, tmp_path: Path) -> None:
    absent = subprocess.run([python, "-I", "-c", "import automc"], capture_output=True, text=True, check=False)
    assert "No module named 'automc'" in absent.stderr
    moved = Path(shutil.copytree(bundle.folder, tmp_path / "elsewhere"))

    verified = call(python, moved / "verify.py", "--latency")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "equal bit by bit" in verified.stdout

    np.save(tmp_path / "sample.npy", samples()[0])
    ran = call(python, moved / "run.py", tmp_path / "sample.npy", "--top", "1")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split("\t")[0] in ("cat", "dog", "fish", "newt")

    (moved / "model.onnx").write_bytes(b"\0" + (moved / "model.onnx").read_bytes()[1:])
    assert call(python, moved / "verify.py").returncode == 4


def test_automc_checks_it_with_another_interpreter(python: Path, bundle: Bundle) -> None:
    assert bundle.verify(python=str(python)).ok
