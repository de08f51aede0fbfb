"""Profiles: data in a folder, found by name, refused with the nearest one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from bundle_samples import profile as paper_profile

from automc.errors import ConfigError
from automc.profiles import calibration_text, load_profile, profile_folder, profile_folders, save_profile


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOMC_HOME", str(tmp_path))
    return tmp_path


def test_a_saved_profile_is_found_by_name_and_by_folder(home: Path) -> None:
    made = paper_profile().model_copy(update={"name": "bench", "anchor_ms": 0.03})
    save_profile(made, {"b": 1, "a": [1.5]}, home / "profiles" / "bench")
    assert load_profile("bench") == made
    assert load_profile(str(home / "profiles" / "bench")) == made
    assert profile_folders()["bench"] == home / "profiles" / "bench"


def test_the_digest_is_of_the_stored_text(home: Path) -> None:
    calibration = {"b": 1, "a": [1.5]}
    save_profile(paper_profile(), calibration, home / "p")
    stored = (home / "p" / "calibration.json").read_bytes()
    assert hashlib.sha256(stored).hexdigest() == hashlib.sha256(calibration_text(calibration).encode()).hexdigest()


def test_a_misspelt_name_gets_the_nearest(home: Path) -> None:
    save_profile(paper_profile(), {}, home / "profiles" / "workstation")
    with pytest.raises(ConfigError, match="did you mean workstation"):
        profile_folder("workstatoin")


def test_a_host_without_calibration_says_how_to_get_one(home: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_profile("host")
    assert caught.value.next_step == "automc profile calibrate host"


def test_a_profile_with_an_unknown_key_names_file_and_key(home: Path) -> None:
    folder = home / "profiles" / "odd"
    save_profile(paper_profile(), {}, folder)
    path = folder / "profile.yaml"
    path.write_text(path.read_text() + "colour: blue\n")
    with pytest.raises(ConfigError, match="colour") as caught:
        load_profile("odd")
    assert str(path) in caught.value.message


def test_a_folder_without_its_last_file_is_no_profile(home: Path) -> None:
    folder = home / "profiles" / "half"
    folder.mkdir(parents=True)
    (folder / "calibration.json").write_text("{}")  # written first, so this is what an interruption can leave
    assert "half" not in profile_folders()
