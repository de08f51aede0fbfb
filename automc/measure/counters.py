"""Counters of energy on this machine, behind one interface: RAPL, NVML, and the power rails of a Jetson."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from automc.errors import MeasurementError
from automc.profiles import EnergySource

POWERCAP = Path("/sys/class/powercap")
RAILS = Path("/sys/bus/i2c/drivers/ina3221")
WHOLE_MODULE = ("VDD_IN", "POM_5V_IN")
"""Rails that all others hang on (Jetson Nano, TX2, Xavier NX, Orin Nano and NX): adding the others counts twice."""
SAMPLING_S = 0.01
LEAST_S = 1.0


class EnergyCounter(Protocol):
    """What energy is read from. A mark is a moment; its value means something to the counter that made it alone."""

    @property
    def source(self) -> EnergySource: ...

    @property
    def least_s(self) -> float:
        """The shortest time between two marks that can be told well, seconds."""
        ...

    def mark(self) -> float: ...

    def spent_mj(self, start: float, end: float) -> float:
        """Millijoules drawn between two marks. Raises MeasurementError where they cannot be told."""
        ...


class RaplCounter:
    """Intel and AMD running average power limit, package domains, through /sys/class/powercap (microjoules)."""

    least_s = LEAST_S

    def __init__(self, root: Path = POWERCAP) -> None:
        self._zones = [
            path
            for path in sorted(root.glob("*:[0-9]*"))
            if path.name.count(":") == 1 and _readable(path / "energy_uj")
        ]
        if not self._zones:
            raise MeasurementError(f"no readable RAPL counter under {root}", next_step="use the energy model")
        self._wraps = [int((zone / "max_energy_range_uj").read_text()) for zone in self._zones]
        self._last = [0] * len(self._zones)
        self._turns = [0] * len(self._zones)

    @property
    def source(self) -> EnergySource:
        names = ", ".join((zone / "name").read_text().strip() for zone in self._zones)
        return EnergySource(kind="rapl", detail=f"RAPL {names}")

    def mark(self) -> float:
        total = 0
        for index, zone in enumerate(self._zones):
            now = int((zone / "energy_uj").read_text())
            if now < self._last[index]:  # the counter wraps
                self._turns[index] += 1
            self._last[index] = now
            total += now + self._turns[index] * self._wraps[index]
        return total / 1e3

    def spent_mj(self, start: float, end: float) -> float:
        return end - start


class NvmlCounter:
    """NVIDIA total energy since the driver was loaded (millijoules; Volta and later), through libnvidia-ml."""

    least_s = LEAST_S

    def __init__(self, index: int = 0, library: str = "libnvidia-ml.so.1") -> None:
        try:
            self._nvml = ctypes.CDLL(library)
        except OSError as error:
            raise MeasurementError(f"no NVML here: {error}", next_step="use the energy model") from error
        self._device = ctypes.c_void_p()
        self._call("nvmlInit_v2")
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(self._device))
        name = ctypes.create_string_buffer(96)
        self._call("nvmlDeviceGetName", self._device, name, ctypes.c_uint(96))
        self._name = name.value.decode()
        self.mark()

    @property
    def source(self) -> EnergySource:
        return EnergySource(kind="nvml", detail=f"NVML total energy of {self._name}")

    def mark(self) -> float:
        value = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self._device, ctypes.byref(value))
        return float(value.value)

    def spent_mj(self, start: float, end: float) -> float:
        return end - start

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._nvml, name)(*arguments)
        if code != 0:
            raise MeasurementError(f"NVML {name} failed with code {code}", next_step="use the energy model")


@dataclass(frozen=True)
class Rail:
    """One channel of a power monitor. volts, amps: files that hold millivolts and milliamperes."""

    name: str
    volts: Path
    amps: Path

    def watts(self) -> float:
        return int(self.volts.read_text()) * int(self.amps.read_text()) / 1e6


class JetsonCounter:
    """Power rails of an NVIDIA Jetson (INA3221 monitors, the kernel's hwmon files: mV and mA), sampled by a thread.

    Where a rail feeds the whole module it alone is read, else the rails are summed. From a mark until `spent_mj` is
    asked they are sampled every SAMPLING_S and integrated by the trapezoidal rule; inference leaves the interpreter, so
    the thread keeps up. At other times nothing is sampled: it would disturb what else is timed.
    """

    least_s = LEAST_S

    def __init__(self, root: Path = RAILS, clock: Callable[[], float] = time.monotonic) -> None:
        rails = [rail for monitor in sorted(root.glob("*/hwmon/hwmon*")) for rail in _rails_of(monitor)]
        whole = [rail for rail in rails if rail.name in WHOLE_MODULE]
        self._rails = whole[:1] or rails
        if not self._rails:
            raise MeasurementError(f"no readable power rail under {root}", next_step="use the energy model")
        self._clock = clock
        self._lock = threading.Lock()
        self._last = (clock(), self._watts())
        self._total_mj = 0.0
        self._sampling: threading.Event | None = None

    @property
    def source(self) -> EnergySource:
        return EnergySource(kind="jetson", detail=f"power rails {', '.join(rail.name for rail in self._rails)}")

    def mark(self) -> float:
        if self._sampling is None:
            self._sampling = threading.Event()
            threading.Thread(target=self._sample, args=(self._sampling,), name="power rails", daemon=True).start()
        return self._read()

    def spent_mj(self, start: float, end: float) -> float:
        if self._sampling is not None:
            self._sampling.set()
            self._sampling = None
        return end - start

    def _read(self) -> float:
        """Millijoules since the first reading."""
        with self._lock:
            now, watts = self._clock(), self._watts()
            before, earlier = self._last
            self._total_mj += (now - before) * (watts + earlier) / 2 * 1e3
            self._last = now, watts
            return self._total_mj

    def _watts(self) -> float:
        return sum(rail.watts() for rail in self._rails)

    def _sample(self, ended: threading.Event) -> None:
        while not ended.wait(SAMPLING_S):
            self._read()


def _rails_of(monitor: Path) -> Sequence[Rail]:
    """The channels of one monitor that are named and can be read."""
    rails = []
    for label in sorted(monitor.glob("in[123]_label")):
        channel = label.name[2]
        volts, amps = monitor / f"in{channel}_input", monitor / f"curr{channel}_input"
        if all(_readable(path) for path in (label, volts, amps)):
            rails.append(Rail(label.read_text().strip(), volts, amps))
    return rails


def _readable(path: Path) -> bool:
    try:
        path.read_text()
    except OSError:
        return False
    return True


def find_counter(kind: str = "cpu") -> EnergyCounter | None:
    """The counter of this machine's CPU ("cpu") or GPU ("gpu"); None where none can be read.

    A Jetson's rails feed both. CPUs elsewhere: RAPL; GPUs: NVML, the first one.
    """
    places: tuple[Callable[[], EnergyCounter], ...] = (JetsonCounter, NvmlCounter if kind == "gpu" else RaplCounter)
    for place in places:
        try:
            return place()
        except MeasurementError:
            continue
    return None
