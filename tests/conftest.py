"""What every test gets: its own automc home, the command line, and one rule for tests that need the data folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
from users_package import package  # noqa: F401 - a fixture for all

DATA = os.environ.get("AUTOMC_DATA")
CI = os.environ.get("CI", "").lower() in {"1", "true"}


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Profiles that this machine's user calibrated must not decide what a test sees.
    os.environ["AUTOMC_HOME"] = os.environ.get("AUTOMC_TEST_HOME") or str(Path(os.devnull) / "automc-home-unset")


@pytest.fixture(scope="session", autouse=True)
def automc_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder user profiles are written to during the tests: empty unless AUTOMC_TEST_HOME names one to reuse."""
    named = os.environ.get("AUTOMC_TEST_HOME")
    home = Path(named) if named else tmp_path_factory.mktemp("automc-home")
    os.environ["AUTOMC_HOME"] = str(home)
    return home


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if DATA is None:
        reason = pytest.mark.skip(reason="AUTOMC_DATA is not set: it names the folder with cifar10/, mnist/, ...")
        for item in items:
            if item.get_closest_marker("data"):
                item.add_marker(reason)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The data folder; for tests marked `data`."""
    if DATA is None:
        pytest.skip("AUTOMC_DATA is not set")
    return Path(DATA)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CI has the data, a data test that skips is a failure: the check would otherwise pass by not running."""
    report = yield
    if report.skipped and CI and DATA is not None and item.get_closest_marker("data"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: a data test was skipped although AUTOMC_DATA is set: {call.excinfo}"
    return report


@pytest.fixture(autouse=True)
def patient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of anything but timing itself must not fail because the machine is shared: passes may differ tenfold."""
    if "measure" not in request.path.parts:
        monkeypatch.setattr("automc.measure.timing.SPELL_RATIO", 10.0)
        monkeypatch.setattr("automc.measure.timing.PATIENCE_S", 0.0)


@dataclass(frozen=True)
class Answer:
    """What one command left behind: its exit code and both of its streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return json.loads(self.out)


@pytest.fixture
def automc(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """The command line in this process, as a user would type it: automc("technique", "list") -> Answer."""
    from automc.cli.main import main

    def call(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return Answer(int(left.value.code or 0), streams.out, streams.err)

    return call
