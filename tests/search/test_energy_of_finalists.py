"""Energy in a whole search: read from a counter where the machine has one, else the model, each by its own name."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from whole_runs import save_classes, small_config

from automc.measure.sessions import Model, SessionSettings, open_session
from automc.profiles import EnergySource
from automc.run import Run
from automc.search.loop import search

IDLE_W, RUN_MJ = 5.0, 0.5


class PaperMeter:
    """Draws IDLE_W, and RUN_MJ more with every run of a session it was given: what it says hangs on no clock's luck."""

    source = EnergySource(kind="rapl", detail="RAPL paper-0")

    least_s = 0.2

    def __init__(self, run_mj: float = RUN_MJ) -> None:
        self.run_mj, self.runs = run_mj, 0

    def open_session(self, model: Model, settings: SessionSettings) -> CountedSession:
        return CountedSession(open_session(model, settings), self)

    def mark(self) -> float:
        return 1e3 * IDLE_W * time.monotonic() + self.run_mj * self.runs

    def spent_mj(self, start: float, end: float) -> float:
        return end - start


class CountedSession:
    def __init__(self, session: ort.InferenceSession, meter: PaperMeter) -> None:
        self.session, self.meter = session, meter
        self.get_inputs = session.get_inputs

    def run(self, names: None, feeds: dict[str, np.ndarray]) -> list[object]:
        self.meter.runs += 1
        found: list[object] = self.session.run(names, feeds)
        return found


def run_with(meter: PaperMeter | None, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Run:
    monkeypatch.setattr("automc.measure.energy.find_counter", lambda kind="cpu": meter)
    if meter is not None:
        monkeypatch.setattr("automc.measure.energy.open_session", meter.open_session)
    save_classes(folder)
    return search(small_config(folder, "classification"), run_dir=folder / "run")


def test_finalists_are_measured_where_there_is_a_counter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = run_with(PaperMeter(), monkeypatch, tmp_path)
    for point in run.finalists():
        energy = point.figures["energy_mj"]
        assert (energy.kind, energy.source, energy.n) == ("measured", "RAPL paper-0", 3)
        assert energy.value == pytest.approx(RUN_MJ, rel=0.05)
        assert point.figures["predicted_energy_mj"].kind == "predicted"
    card = (run.folder / "bundle" / "MODEL_CARD.md").read_text()
    assert "RAPL paper-0" in card
    assert "idle power subtracted" in card


def test_without_a_counter_the_model_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = run_with(None, monkeypatch, tmp_path)
    for point in run.finalists():
        energy = point.figures["energy_mj"]
        assert energy.kind == "predicted"
        assert "Horowitz" in (energy.source or "")
    assert "RAPL" not in (run.folder / "bundle" / "MODEL_CARD.md").read_text()


def test_a_counter_that_says_nothing_leaves_the_prediction(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("automc.search.setup.TRIES", 1)
    run = run_with(PaperMeter(run_mj=0), monkeypatch, tmp_path)
    assert {point.figures["energy_mj"].kind for point in run.finalists()} == {"predicted"}
