"""What can be said of a workload before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from automc.errors import ConfigError
from automc.workloads import registry
from automc.workloads.options import Options
from automc.workloads.registry import check_options, options_model, workload_class


class OwnOptions(Options):
    size: int = 3


class Own:
    name = "own"
    options_model = OwnOptions


def create(options: Mapping[str, object], data_root: Path | None) -> Own:
    raise AssertionError("checking options makes no workload")


def unsaid(options, data_root):  # type: ignore[no-untyped-def]
    raise AssertionError("checking options makes no workload")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workloads of another package, of which one says by its annotation what it makes."""
    module = SimpleNamespace(create=create, unsaid=unsaid)
    monkeypatch.setattr(registry, "_modules", lambda: {"own": "other:create", "unsaid": "other:unsaid"})
    monkeypatch.setattr(registry.importlib, "import_module", lambda name: module)


@pytest.mark.usefixtures("installed")
def test_an_installed_workload_declares_its_options_by_what_its_factory_returns() -> None:
    assert workload_class("own") is Own
    assert options_model("own") is OwnOptions
    check_options("own", {"size": 4})
    with pytest.raises(ConfigError, match="siz is not an option of workload own; did you mean size"):
        check_options("own", {"siz": 4})


@pytest.mark.usefixtures("installed")
def test_of_one_that_declares_none_nothing_is_claimed() -> None:
    assert options_model("unsaid") is None
    check_options("unsaid", {"anything": 1})


@pytest.mark.usefixtures("installed")
def test_an_unknown_workload_is_named_with_the_nearest_and_all() -> None:
    with pytest.raises(
        ConfigError, match=r"no workload is called 'unsad'; did you mean unsaid\? \(known: own, unsaid\)"
    ):
        check_options("unsad", {})
