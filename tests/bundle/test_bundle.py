from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bundle_samples import contents, tiny_model

from automc.bundle.verify import Bundle
from automc.bundle.write import write_bundle

EVERY_FILE = {
    "model.onnx", "manifest.json", "manifest.sha256", "io.json", "preprocess.json", "quantization.json", "session.json",
    "expected.json", "golden.npz", "recipe.yaml", "run.py", "verify.py", "requirements.txt", "MODEL_CARD.md", "NOTICE",
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("run") / "bundle", contents())


def run_script(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / script), *arguments], capture_output=True, text=True, check=False
    )


def test_a_bundle_holds_exactly_the_files_of_the_design(bundle: Bundle) -> None:
    assert {path.name for path in bundle.folder.iterdir()} == EVERY_FILE


def test_a_fresh_bundle_verifies_and_leaves_no_file_behind(bundle: Bundle) -> None:
    done = run_script(bundle.folder, "verify.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VERIFIED" in done.stdout
    assert "equal bit by bit" in done.stdout
    assert {path.name for path in bundle.folder.iterdir()} == EVERY_FILE
    assert bundle.verify().ok


def test_the_model_is_written_byte_for_byte(bundle: Bundle) -> None:
    assert (bundle.folder / "model.onnx").read_bytes() == tiny_model().SerializeToString()
