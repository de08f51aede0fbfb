"""Shipped profiles of devices are what the public table makes of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from automc.cost.calibration import load_calibration
from automc.profiles import load_profile, shipped_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.data
def test_importing_again_gives_the_profiles_that_ship(data_root, tmp_path: Path) -> None:
    names = ["ncnn_raspberry_pi_4_1t", "ncnn_jetson_nano_gpu"]
    command = [
        sys.executable, str(ROOT / "scripts" / "import_devices.py"), "--data-root", str(data_root),
        "--only", ",".join(names), "--folder", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in names:
        made, shipped = (load_profile(str(root / name)) for root in (tmp_path, shipped_folder("hardware_profiles")))
        assert made.imported == shipped.imported
        assert made.held_out[0].mape_percent == pytest.approx(shipped.held_out[0].mape_percent, rel=1e-6)
        found = load_calibration(made, tmp_path / name)
        kept = load_calibration(shipped, shipped_folder("hardware_profiles") / name)
        assert found.rows_digest == kept.rows_digest
        assert found.coefficients == pytest.approx(kept.coefficients, rel=1e-6)
