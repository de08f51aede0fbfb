"""What is installed from the wheel, away from the checkout, holds all that the checkout holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from bundle_samples import tiny_model
from made_up_device import save_made_up
from packaging.requirements import Requirement
from packaging.version import Version

from automc.cost.graph import graph_from_onnx

ROOT = Path(__file__).resolve().parents[2]
PROBE = """
import json, automc
from automc.profiles import profile_folders, shipped_folder
from automc.techniques.registry import technique_names
print(json.dumps({
    "package": automc.__file__,
    "folders": [str(shipped_folder(kind)) for kind in ("hardware_profiles", "search_spaces")],
    "profiles": sorted(profile_folders()),
    "spaces": sorted(path.name for path in shipped_folder("search_spaces").glob("*.yaml")),
    "techniques": list(technique_names()),
}))
"""


def shipped(kind: str) -> list[str]:
    return sorted(
        f"automc/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / kind).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy with one more profile in it: what a checkout's build folder holds can neither help nor hurt."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in names:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    save_made_up(source / "hardware_profiles" / "paper", [graph_from_onnx(tiny_model())])
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)],
        check=True, capture_output=True,
    )  # fmt: skip
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_every_profile_space_template_and_licence(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = [*shipped("hardware_profiles"), *shipped("search_spaces")]
    assert any(name.startswith("automc/search_spaces/") for name in expected)
    expected += ["automc/hardware_profiles/paper/profile.yaml", "automc/hardware_profiles/paper/calibration.json"]
    expected += [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "automc").rglob("*")
        if path.is_file() and path.suffix != ".pyc" and not path.name.startswith(".")
    ]
    assert sorted(set(expected) - inside) == []
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_the_wheel_brings_no_tests_and_no_top_level_clutter(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"automc"}


def test_the_installed_package_finds_its_profiles_and_spaces_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:  # a pure wheel is installed by unpacking it
        archive.extractall(target)
    environment = {**os.environ, "PYTHONPATH": str(target), "AUTOMC_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["package"] == str(target / "automc" / "__init__.py")
    assert found["folders"] == [str(target / "automc" / kind) for kind in ("hardware_profiles", "search_spaces")]
    assert found["profiles"] == sorted(
        ["paper", *(path.parent.name for path in ROOT.glob("hardware_profiles/*/profile.yaml"))]
    )
    assert found["spaces"] == sorted(path.name for path in ROOT.glob("search_spaces/*.yaml"))
    assert "fine_tune" in found["techniques"]


def requirements(name: str = "") -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["optional-dependencies"][name] if name else project["dependencies"]
    return [Requirement(line) for line in lines]


def pins(file: str) -> dict[str, Version]:
    lines = [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]
    return {line.split("==")[0].lower().replace("_", "-"): Version(line.split("==")[1]) for line in lines}


def test_the_security_floors_are_in_the_requirements() -> None:
    floors = {requirement.name: requirement.specifier for requirement in requirements()}
    assert not floors["torch"].contains("2.9.1")
    assert not floors["onnx"].contains("1.20.1")
    assert not floors["ray"].contains("2.52.1")


@pytest.mark.parametrize(
    ("file", "extras"), [("constraints.txt", ("", "dev")), ("constraints-nas.txt", ("", "dev", "nas", "serve"))]
)
def test_the_constraints_pin_every_requirement_within_its_bounds(file: str, extras: tuple[str, ...]) -> None:
    pinned = pins(file)
    for requirement in [found for extra in extras for found in requirements(extra)]:
        assert requirement.specifier.contains(pinned[requirement.name.lower().replace("_", "-")]), requirement


def test_the_resolution_with_nni_moves_nothing_but_what_nni_itself_pins() -> None:
    core, nas = pins("constraints.txt"), pins("constraints-nas.txt")
    moved = {name for name in core if nas.get(name) != core[name]}
    # nni 3.0 wants filelock < 3.12; virtualenv and platformdirs of that age go with it, python-discovery is theirs
    assert moved == {"filelock", "platformdirs", "virtualenv", "python-discovery"}


def test_every_install_line_is_constrained() -> None:
    for name in ("Makefile", "scripts/install", ".ci/run"):
        for line in (ROOT / name).read_text().splitlines():
            if "pip install" in line:
                assert " -c " in line, f"{name}: {line}"
