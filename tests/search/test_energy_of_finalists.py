"""Energy in a whole search: read from a counter where the machine has one, else the model, each by its own name."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from whole_runs import save_classes, small_config

from automc.profiles import EnergySource
from automc.run import Run
from automc.search.loop import search

IDLE_W, BUSY_W = 5.0, 9.0


class PaperMeter:
    """Draws IDLE_W, and BUSY_W while this process computes."""

    source = EnergySource(kind="rapl", detail="RAPL paper-0")

    least_s = 0.2

    def mark(self) -> float:
        return 1e3 * (IDLE_W * time.monotonic() + (BUSY_W - IDLE_W) * time.process_time())

    def spent_mj(self, start: float, end: float) -> float:
        return end - start


class FlatMeter(PaperMeter):
    def mark(self) -> float:
        return 1e3 * IDLE_W * time.monotonic()


def run_with(meter: PaperMeter | None, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Run:
    monkeypatch.setattr("automc.measure.energy.find_counter", lambda kind="cpu": meter)
    save_classes(folder)
    return search(small_config(folder, "classification"), run_dir=folder / "run")


def test_finalists_are_measured_where_there_is_a_counter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = run_with(PaperMeter(), monkeypatch, tmp_path)
    for point in run.finalists():
        energy, latency = point.figures["energy_mj"], point.figures["latency_median_ms"]
        assert (energy.kind, energy.source, energy.n) == ("measured", "RAPL paper-0", 3)
        # 4 W above idling for as long as a run takes; the loop around it takes a little as well
        assert energy.value == pytest.approx((BUSY_W - IDLE_W) * latency.value, rel=1.0)
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
    run = run_with(FlatMeter(), monkeypatch, tmp_path)
    assert {point.figures["energy_mj"].kind for point in run.finalists()} == {"predicted"}
