from __future__ import annotations

import ast
from pathlib import Path

import pytest

import automc
from automc.nearest import nearest, nearest_or_all

PACKAGE = Path(automc.__file__).parent
USERS = {"ConfigError", "BundleError", "MeasurementError"}  # what a user can do something about


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("sead", ["seed", "search"], "seed"),  # 2 * 3 of 8 letters: 0.75
        ("nsga3", ["nsga2", "random", "tpe"], "nsga2"),
        ("Cifar-10", ["cifar10", "mnist"], "cifar10"),
        ("batch", ["batch_size", "momentum"], "batch_size"),  # the only longer one that begins so
        ("HOST", ["host"], "host"),
    ],
)
def test_a_slip_is_understood(name: str, known: list[str], meant: str) -> None:
    assert nearest(name, known) == f"; did you mean {meant}?"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("bert", ["resnet20", "lenet"]),
        ("bench", ["batch", "space"]),  # 2 * 3 of 10 letters: 0.6
        ("latency", ["calibrate"]),
        ("max_", ["max_latency_ms", "max_size_bytes"]),  # two begin so
        ("no", ["noop"]),  # too short to be a beginning of anything
        ("", ["noop"]),
        ("x", []),
    ],
)
def test_nothing_is_suggested_that_has_little_in_common(name: str, known: list[str]) -> None:
    assert nearest(name, known) == ""


def test_where_nothing_is_near_all_are_named() -> None:
    assert nearest_or_all("bert", ["lenet", "mlp"]) == " (known: lenet, mlp)"
    assert nearest_or_all("bert", []) == " (known: none)"
    assert nearest_or_all("lenett", ["lenet", "mlp"]) == "; did you mean lenet?"


def test_no_other_file_guesses_names() -> None:
    users = [path.name for path in PACKAGE.rglob("*.py") if "difflib" in path.read_text(encoding="utf-8")]
    assert users == ["nearest.py"]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_error_that_a_user_can_mend_says_what_to_do_next(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    errors = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in USERS]
    mute = [call.lineno for call in errors if "next_step" not in {keyword.arg for keyword in call.keywords}]
    assert mute == [], f"{path}: an error without next_step in lines {mute}"
