"""A power meter's CSV file: integrated between two moments, and refused where it says nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from automc.errors import ConfigError, MeasurementError
from automc.measure.energy import measure_energy_mj
from automc.measure.meter import MeterFile

START = 1_700_000_000.0


def written(path: Path, watts: list[float], step_s: float = 0.1, header: str = "unix_s,watts") -> Path:
    lines = [f"{START + step_s * index:.3f},{value}" for index, value in enumerate(watts)]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_power_is_integrated_by_the_trapezoidal_rule_between_two_moments(tmp_path: Path) -> None:
    meter = MeterFile(written(tmp_path / "m.csv", [2.0, 4.0, 4.0, 2.0]))
    # 0.05 to 0.30: at 0.05 s it is 3 W; 0.05 x (3 + 4) / 2 + 0.1 x 4 + 0.1 x 3 = 0.875 J
    assert meter.spent_mj(START + 0.05, START + 0.30) == pytest.approx(875.0)
    assert meter.source.kind == "meter"
    assert meter.source.detail == "power meter m.csv, every 0.1 s"
    assert meter.least_s == pytest.approx(2.0)  # twenty readings


def test_milliwatts_and_stamps_with_an_offset_are_read_alike(tmp_path: Path) -> None:
    stamps = [datetime.fromtimestamp(START + 0.1 * index, UTC).isoformat() for index in range(4)]
    rows = "".join(f"{stamp},20,{mw}\n" for stamp, mw in zip(stamps, (2000, 4000, 4000, 2000), strict=True))
    path = tmp_path / "m.csv"
    path.write_text("time,celsius,milliwatts\n" + rows)
    assert MeterFile(path).spent_mj(START + 0.05, START + 0.30) == pytest.approx(875.0)


def test_a_line_that_is_still_being_written_waits_for_its_end(tmp_path: Path) -> None:
    path = written(tmp_path / "m.csv", [2.0, 2.0, 2.0])
    with path.open("a") as file:
        file.write(f"{START + 0.3:.3f},2")  # "2" of "20.0"
    meter = MeterFile(path, clock=lambda: START + 0.3)
    with path.open("a") as file:
        file.write("0.0\n")
    # 0.2 to 0.3: from 2 W to 20 W
    assert meter.spent_mj(START + 0.2, START + 0.3) == pytest.approx(1100.0)


def test_a_growing_file_measures_runs_with_the_idle_power_subtracted(tmp_path: Path) -> None:
    path, now = written(tmp_path / "m.csv", [5.0] * 3), START + 0.2

    def pass_by(seconds: float, watts: float) -> None:
        """A logger that writes every 0.1 s, for as long as `seconds`."""
        nonlocal now
        ended = now + seconds
        with path.open("a") as file:
            while now + 0.1 <= ended:
                now += 0.1
                file.write(f"{now:.6f},{watts}\n")
        now = ended

    spent = measure_energy_mj(
        lambda: pass_by(0.5, 12.0),
        MeterFile(path, clock=lambda: now, sleep=lambda seconds: pass_by(seconds, 5.0)),
        clock=lambda: now,
        sleep=lambda seconds: pass_by(seconds, 5.0),
    )
    assert spent == pytest.approx(0.5 * 7e3, rel=0.03)  # 7 W more; half a reading's rise lies before the first run


def test_a_file_that_stops_or_has_gaps_says_so(tmp_path: Path) -> None:
    now = [START]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    meter = MeterFile(written(tmp_path / "m.csv", [2.0] * 10), clock=lambda: now[0], sleep=sleep)
    with pytest.raises(MeasurementError, match=r"do not reach over what was run.*") as stopped:
        meter.spent_mj(START + 0.5, START + 2.0)
    assert "logger still writes" in str(stopped.value.next_step)
    assert now[0] >= START + 15  # it waited first
    with pytest.raises(MeasurementError, match="do not reach"):
        meter.spent_mj(START - 5, START + 0.5)
    with (tmp_path / "m.csv").open("a") as file:
        file.write(f"{START + 3.0},2.0\n")
    with pytest.raises(MeasurementError, match=r"2\.1 s without a reading"):
        meter.spent_mj(START + 0.5, START + 2.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("unix_s,volts\n1700000000,5\n", "its columns are unix_s, volts"),
        ("", "0 readings"),
        ("unix_s,watts\n1700000000,5\n", "1 readings"),
        ("unix_s,watts\n1700000000,nan\n", "line 2: watts 'nan' is no power"),
        ("unix_s,watts\n1700000000,-1\n", "line 2: watts '-1' is no power"),
        ("unix_s,watts\n1700000000,5200\n", "line 2: watts '5200' is no power"),
        ("unix_s,watts\n1700000000\n", "line 2: watts '' is no power"),
        ("unix_s,watts\n1700000001,5\n1700000000,5\n", "line 3: its time is not later"),
        ("unix_s,watts\n1700000000000,5\n", "line 2: unix_s '1700000000000' is no time"),
        ("time,watts\n2026-01-31T12:00:00,5\n", "does not say in which zone"),
        ("time,watts\nyesterday,5\n", "line 2: time 'yesterday' is no time"),
    ],
)
def test_what_is_no_meter_file_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as refused:
        MeterFile(path)
    assert refused.value.next_step


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv: no such file\n") as missing:
        MeterFile(tmp_path / "none.csv")
    assert missing.value.next_step == "give the file that the meter's logger writes"
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00\x01\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        MeterFile(tmp_path / "m.csv")
