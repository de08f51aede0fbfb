"""A power meter that writes its readings into a CSV file while this machine runs: energy between two moments of it."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np

from automc.errors import ConfigError, MeasurementError
from automc.profiles import EnergySource

SCALES = {"watts": 1.0, "milliwatts": 1e-3}
MOST_W = 5000.0
"""A meter between a socket and a machine that reads more is in other units."""
LEAST_SAMPLES = 20
"""In every window: its ends are told to half a sample, so 20 keep them below a few percent."""
GAP = 5.0
"""Times the usual time between readings; a longer one is a logger that did not keep up."""
LATE_S = 15.0
"""How long the readings of a window may take to reach the file: loggers write in blocks."""
AGAIN = "give a CSV file with the columns unix_s (or time) and watts (or milliwatts)"


class MeterFile:
    """The readings in a file that a logger goes on writing; what was read is not read again.

    Columns: `unix_s` (seconds since 1970) or `time` (ISO 8601 with its offset from UTC), and `watts` or `milliwatts`;
    others are left alone. The meter's clock has to be this machine's, or kept with it.
    Raises ConfigError (file, line and what is wrong) where the file is none such.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path = path
        self._clock, self._sleep = clock, sleep
        self._offset, self._line = 0, 0  # bytes and lines taken so far
        self._columns: list[str] = []
        self._times: list[float] = []
        self._watts: list[float] = []
        self._read_on()
        if len(self._times) < 2:
            raise ConfigError(
                f"{path}: {len(self._times)} readings; the time between them tells how fast the meter is",
                next_step="start the logger first, and measure while it writes",
            )
        self._interval_s = float(np.median(np.diff(self._times)))

    @property
    def source(self) -> EnergySource:
        return EnergySource(kind="meter", detail=f"power meter {self.path.name}, every {self._interval_s:.3g} s")

    @property
    def least_s(self) -> float:
        return max(1.0, LEAST_SAMPLES * self._interval_s)

    def mark(self) -> float:
        """This moment, seconds since 1970."""
        return self._clock()

    def spent_mj(self, start: float, end: float) -> float:
        """Millijoules between two moments, by the trapezoidal rule, once the file has reached the later one.

        Raises MeasurementError where it does not within LATE_S, starts after the earlier one, or has gaps between.
        """
        given_up = self._clock() + LATE_S
        self._read_on()
        while self._times[-1] < end and self._clock() < given_up:
            self._sleep(min(1.0, self._interval_s))
            self._read_on()
        if self._times[-1] < end or self._times[0] > start:
            raise MeasurementError(
                f"{self.path}: its readings (from {self._times[0]:.1f} to {self._times[-1]:.1f}) do not reach over "
                f"what was run (from {start:.1f} to {end:.1f})",
                next_step="see that the logger still writes, and that the meter's clock is this machine's",
            )
        times, watts = np.array(self._times), np.array(self._watts)
        first, last = np.searchsorted(times, start, "right") - 1, np.searchsorted(times, end, "left")
        gap = float(np.diff(times[first : last + 1]).max())
        if gap > GAP * self._interval_s:
            raise MeasurementError(
                f"{self.path}: {gap:.3g} s without a reading where the meter usually takes {self._interval_s:.3g} s",
                next_step="see that the logger keeps up, then measure again",
            )
        moments = np.concatenate(([start], times[(times > start) & (times < end)], [end]))
        return float(np.trapezoid(np.interp(moments, times, watts), moments) * 1e3)

    def _read_on(self) -> None:
        """Take the lines that were written since; the last one only when it is whole."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
            whole = added[: added.rfind(b"\n") + 1]
            lines = whole.decode("utf-8-sig" if self._offset == 0 else "utf-8").splitlines()
        except FileNotFoundError as error:
            raise ConfigError(
                f"{self.path}: no such file", next_step="give the file that the meter's logger writes"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}: cannot be read as a CSV file: {error}", next_step=AGAIN) from error
        self._offset += len(whole)
        for cells in csv.reader(lines):
            self._line += 1
            if not self._columns:
                self._columns = _columns(cells, self.path)
            elif cells:
                self._take(dict(zip(self._columns, cells, strict=False)), f"{self.path}, line {self._line}")

    def _take(self, row: dict[str, str], where: str) -> None:
        moment, watts = _moment(row, where), _power(row, where)
        if self._times and moment <= self._times[-1]:
            raise ConfigError(f"{where}: its time is not later than that of the line before", next_step=AGAIN)
        self._times.append(moment)
        self._watts.append(watts)


def _columns(names: list[str], path: Path) -> list[str]:
    if not {"unix_s", "time"} & set(names) or not SCALES.keys() & set(names):
        raise ConfigError(f"{path}: its columns are {', '.join(names) or 'none'}", next_step=AGAIN)
    return names


def _moment(row: dict[str, str], where: str) -> float:
    column = "unix_s" if "unix_s" in row else "time"
    text = row.get(column, "")
    try:
        if column == "unix_s":
            value = float(text)
        else:
            stamp = datetime.fromisoformat(text)
            if stamp.tzinfo is None:
                raise ConfigError(
                    f"{where}: {text!r} does not say in which zone it is",
                    next_step="write times with their offset, as in 2026-01-31T12:00:00.250+00:00, or as unix_s",
                )
            value = stamp.timestamp()
    except ValueError:
        value = math.nan
    if not 0 < value < 1e11:  # False for NaN; a stamp in milliseconds is beyond the year 5000
        raise ConfigError(
            f"{where}: {column} {text!r} is no time",
            next_step="write seconds since 1970 as unix_s, or ISO 8601 with an offset as time",
        )
    return value


def _power(row: dict[str, str], where: str) -> float:
    column = next((name for name in SCALES if name in row), "watts")
    text = row.get(column, "")
    try:
        value = float(text) * SCALES[column]
    except ValueError:
        value = math.nan
    if not 0 <= value <= MOST_W:  # False for NaN
        raise ConfigError(
            f"{where}: {column} {text!r} is no power between 0 and {MOST_W:g} W",
            next_step="give watts, or name the column milliwatts",
        )
    return value
