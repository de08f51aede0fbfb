from __future__ import annotations

from pathlib import Path

import pytest
from bundle_samples import contents

from automc.bundle.write import write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", contents()).folder


def test_a_sound_bundle_verifies_and_says_every_check(automc, bundle: Path) -> None:
    answer = automc("bundle", "verify", str(bundle))
    assert answer.code == 0
    assert answer.out.splitlines()[0].split() == ["check", "result", "detail"]
    assert all("  ok  " in line for line in answer.out.splitlines()[1:])
    assert automc("bundle", "verify", str(bundle), "--json").json["ok"] is True


def test_one_flipped_byte_leaves_with_4_and_the_name_of_the_file(automc, bundle: Path) -> None:
    path = bundle / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    answer = automc("bundle", "verify", str(bundle))
    assert answer.code == 4
    assert "model.onnx" in answer.out
    assert "next: automc bundle build" in answer.err
    answer = automc("bundle", "verify", str(bundle), "--json")
    assert answer.code == 4
    assert answer.json["ok"] is False
    assert automc("bundle", "inspect", str(bundle)).code == 4


def test_inspect_prints_figures_with_how_they_were_got_and_the_recipe(automc, bundle: Path) -> None:
    answer = automc("bundle", "inspect", str(bundle))
    assert answer.code == 0
    assert "900 to 1100 (repeats)" in answer.out
    assert "0.2 to 0.8 (95 % interval)" in answer.out
    assert "measured, n=" in answer.out
    assert "recipe of" in answer.out
    assert set(automc("bundle", "inspect", str(bundle), "--json").json) >= {"manifest", "expected", "recipe"}


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_folder_that_is_no_bundle_is_the_users_mistake_and_a_part_of_one_is_damage(
    automc, bundle: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "other").mkdir()
    answer = automc("bundle", command, str(tmp_path / "other"))
    assert answer.code == 2
    assert f"{tmp_path / 'other'} is not a bundle" in answer.err
    assert "next: automc bundle build" in answer.err
    assert f"next: give {bundle}" in automc("bundle", command, str(tmp_path)).err
    (bundle / "manifest.json").unlink()
    assert automc("bundle", command, str(bundle)).code == 4


def test_a_data_file_that_is_not_there_is_named(automc, bundle: Path, tmp_path: Path) -> None:
    answer = automc("bundle", "verify", str(bundle), "--data", str(tmp_path / "none.npz"))
    assert answer.code == 2
    assert f"{tmp_path / 'none.npz'}: no such file" in answer.err


def test_a_folder_that_is_not_there_is_the_users_mistake(automc, tmp_path: Path) -> None:
    answer = automc("bundle", "verify", str(tmp_path / "none"))
    assert answer.code == 2
    assert "is not a folder" in answer.err
