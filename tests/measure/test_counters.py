"""Counters of energy, with idle power subtracted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from automc.errors import ConfigError, MeasurementError
from automc.measure.counters import JetsonCounter, NvmlCounter, RaplCounter, find_counter
from automc.measure.energy import counter_of, measure_energy_mj
from automc.measure.meter import MeterFile
from automc.profiles import EnergySource


class Meter:
    """A counter and clock on paper: `idle_w` always, `run_mj` more for each run of `run_s`."""

    def __init__(self, idle_w: float, run_mj: float, run_s: float = 0.1) -> None:
        self.idle_w, self.run_mj, self.run_s = idle_w, run_mj, run_s
        self.now, self.extra_mj = 0.0, 0.0

    @property
    def source(self) -> EnergySource:
        return EnergySource(kind="rapl", detail="paper")

    least_s = 1.0

    def mark(self) -> float:
        return self.idle_w * self.now * 1e3 + self.extra_mj

    def spent_mj(self, start: float, end: float) -> float:
        return end - start

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self) -> None:
        self.now += self.run_s
        self.extra_mj += self.run_mj


def test_idle_power_is_no_part_of_a_run() -> None:
    meter = Meter(idle_w=5.0, run_mj=30.0)
    assert measure_energy_mj(meter.run, meter, clock=meter.clock, sleep=meter.sleep) == pytest.approx(30.0)
    assert meter.now >= 2.0  # a second of idling and a second of runs


def test_runs_that_draw_no_more_than_idling_are_refused() -> None:
    meter = Meter(idle_w=5.0, run_mj=0.0)
    with pytest.raises(MeasurementError, match="no more than idling"):
        measure_energy_mj(meter.run, meter, clock=meter.clock, sleep=meter.sleep)


def rapl(root: Path, energies: Iterator[int] | list[int]) -> Path:
    zone = root / "intel-rapl:0"
    zone.mkdir(parents=True)
    (root / "intel-rapl:0:0").mkdir()  # a part of the package: counting it too would count it twice
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("1000000\n")
    (zone / "energy_uj").write_text(f"{next(iter(energies))}\n")
    return zone


def test_rapl_is_read_in_millijoules_and_survives_wrapping(tmp_path: Path) -> None:
    zone = rapl(tmp_path, [900_000])
    counter = RaplCounter(tmp_path)
    assert counter.source == EnergySource(kind="rapl", detail="RAPL package-0")
    assert counter.mark() == 900.0
    (zone / "energy_uj").write_text("100000\n")
    assert counter.mark() == 1100.0  # 100 after a wrap at 1,000


def test_a_machine_without_counters_has_none(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="no readable RAPL"):
        RaplCounter(tmp_path)
    with pytest.raises(MeasurementError, match="no NVML"):
        NvmlCounter(library="libno-such-library.so")
    with pytest.raises(MeasurementError, match="no readable power rail"):
        JetsonCounter(tmp_path)


def test_looking_for_a_counter_never_raises() -> None:
    for kind in ("cpu", "gpu"):
        counter = find_counter(kind)
        assert counter is None or counter.spent_mj(counter.mark(), counter.mark()) >= 0


def monitor(root: Path, channels: dict[str, tuple[int, int]], place: str = "1-0040") -> Path:
    """One INA3221 as the kernel shows it: name -> (millivolts, milliamperes) of its channels."""
    folder = root / place / "hwmon" / "hwmon3"
    folder.mkdir(parents=True)
    for number, (name, (millivolts, milliamperes)) in enumerate(channels.items(), 1):
        (folder / f"in{number}_label").write_text(f"{name}\n")
        (folder / f"in{number}_input").write_text(f"{millivolts}\n")
        (folder / f"curr{number}_input").write_text(f"{milliamperes}\n")
    (folder / "in7_label").write_text("sum of shunt voltages\n")  # no channel: has no current
    return folder


class PaperClock:
    """Stands still until it is moved; a counter asks it once at every reading, and `until_read` waits for one."""

    def __init__(self) -> None:
        self.now, self.asked = 100.0, 0

    def __call__(self) -> float:
        self.asked += 1
        return self.now

    def until_read(self) -> None:
        """Wait for a reading that began after this call: the second from now, one may be under way."""
        enough, deadline = self.asked + 2, time.monotonic() + 30
        while self.asked < enough:
            assert time.monotonic() < deadline
            time.sleep(0.002)


def rewrite(path: Path, text: str) -> None:
    """As the kernel's files change: at once, never empty in between."""
    written = path.with_name("written")
    written.write_text(text)
    written.replace(path)


def sampling() -> bool:
    return any(thread.name == "power rails" for thread in threading.enumerate())


def test_the_rails_of_a_jetson_are_summed_and_integrated(tmp_path: Path) -> None:
    folder = monitor(tmp_path, {"VDD_GPU_SOC": (19000, 200), "VDD_CPU_CV": (19000, 100)})
    monitor(tmp_path, {"VDDQ": (5000, 60)}, "1-0041")
    clock = PaperClock()
    counter = JetsonCounter(tmp_path, clock)
    assert counter.source == EnergySource(kind="jetson", detail="power rails VDD_GPU_SOC, VDD_CPU_CV, VDDQ")
    assert not sampling()  # nothing that would disturb a timing before it is asked
    start = counter.mark()
    clock.now += 0.2
    assert counter.spent_mj(start, counter.mark()) == pytest.approx(1e3 * 0.2 * (3.8 + 1.9 + 0.3))
    start = counter.mark()
    rewrite(folder / "curr1_input", "1000\n")  # 19 W instead of 3.8 W: the thread sees it between two marks
    clock.until_read()
    clock.now += 0.3
    clock.until_read()
    rewrite(folder / "curr1_input", "200\n")
    clock.until_read()
    clock.now += 0.5
    end = counter.mark()
    assert sampling()
    assert counter.spent_mj(start, end) == pytest.approx(1e3 * (0.3 * 21.2 + 0.5 * 6.0))
    deadline = time.monotonic() + 30
    while sampling() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not sampling()


def test_a_rail_that_feeds_the_others_is_not_added_to_them(tmp_path: Path) -> None:
    monitor(tmp_path, {"VDD_IN": (5000, 1000), "VDD_CPU_GPU_CV": (5000, 400), "VDD_SOC": (5000, 300)})
    clock = PaperClock()
    counter = JetsonCounter(tmp_path, clock)
    assert counter.source.detail == "power rails VDD_IN"
    start = counter.mark()
    clock.now += 0.1
    assert counter.spent_mj(start, counter.mark()) == pytest.approx(500.0)


def test_what_a_config_names_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("automc.measure.energy.find_counter", lambda kind: asked.append(kind))
    assert counter_of("model", "CPUExecutionProvider") is None
    assert asked == []
    counter_of("auto", "CPUExecutionProvider")
    counter_of("auto", "CUDAExecutionProvider")
    assert asked == ["cpu", "gpu"]
    path = tmp_path / "meter.csv"
    path.write_text("unix_s,watts\n1700000000.0,5\n1700000000.1,5\n")
    assert isinstance(counter_of(str(path), "CPUExecutionProvider"), MeterFile)
    with pytest.raises(ConfigError, match="no such file"):
        counter_of(str(tmp_path / "none.csv"), "CPUExecutionProvider")
