"""The breaking patches apply to the code as it is: `make laws`, which runs them, takes longer than a test may."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).resolve().parent
PATCHES = sorted(HERE.glob("*.patch"))


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_patch_still_applies(patch: Path) -> None:
    done = subprocess.run(
        ["git", "apply", "--check", str(patch)], cwd=HERE.parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_law_has_a_patch_and_every_patch_a_law() -> None:
    laws = yaml.safe_load((HERE / "laws.yaml").read_text())
    assert [entry["law"] for entry in laws] == list(range(1, 9))
    assert {item["patch"] for entry in laws for item in entry["breaks"]} == {patch.name for patch in PATCHES}
