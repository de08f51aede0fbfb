from __future__ import annotations

from pathlib import Path

import pytest
from bundle_samples import profile

from automc.profiles import HeldOut, save_profile


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOMC_HOME", str(tmp_path))
    held = HeldOut(
        precision="fp32", networks=30, families=("wide", "deep"), within_5_percent=0.7, within_10_percent=0.95,
        within_15_percent=0.99, mape_percent=3.5, rank_correlation=0.999, interval_coverage=0.91,
    )  # fmt: skip
    made = profile().model_copy(update={"held_out": (held,)})
    save_profile(made, {}, tmp_path / "profiles" / "bench-board")
    return tmp_path


def test_list_names_device_runtime_and_held_out_error(automc, home: Path) -> None:
    lines = automc("profile", "list").out.splitlines()
    line = next(line for line in lines if line.startswith("bench-board"))
    assert "made up" in line
    assert "onnxruntime 1" in line
    assert "fp32 3.5 % (n=30)" in line
    names = [item["name"] for item in automc("profile", "list", "--json").json]
    assert "bench-board" in names


def test_show_tells_what_calibration_found_and_how_wrong_it_is(automc, home: Path) -> None:
    answer = automc("profile", "show", "bench-board")
    assert answer.code == 0
    for part in ("multiples of 8 pay", "uint8 activations", "0.999", "95%", "wide, deep", "energy per MAC and byte"):
        assert part in answer.out
    assert automc("profile", "show", "bench-board", "--json").json["channel_multiple"] == 8


def test_a_misspelt_profile_gets_the_nearest_name(automc, home: Path) -> None:
    answer = automc("profile", "show", "bench-bord")
    assert answer.code == 2
    assert "did you mean bench-board?" in answer.err


def test_a_damaged_profile_is_named_with_its_file(automc, home: Path) -> None:
    path = home / "profiles" / "bench-board" / "profile.yaml"
    path.write_text("name: [\n")
    answer = automc("profile", "show", "bench-board")
    assert answer.code == 2
    assert str(path) in answer.err
