"""Energy of a network: read from a counter where there is one, else a documented model that is named with every figure.

The model: energy per multiply-accumulate by precision, per byte by the memory it comes from, per instruction, plus
static power times time. Constants are those of Horowitz 2014, "Computing's energy problem (and what we can do about
it)", ISSCC, figure 1.1.9 (45 nm, 0.9 V): a 32-bit float multiplication 3.7 pJ and addition 0.9 pJ, an 8-bit
multiplication 0.2 pJ and a 32-bit integer addition 0.1 pJ; 64 bits from a 32 KB cache 20 pJ, from a 1 MB cache
100 pJ, from DRAM 1.3 nJ (the lower end); about 70 pJ of control for an instruction. Absolute figures of a newer
process are lower and those of a wide out-of-order core higher, so the model orders networks; it is no wattmeter.
The interval says so: a factor of 2 either way.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from automc.cost.kernels import KernelRow
from automc.errors import MeasurementError
from automc.profiles import EnergySource

POWERCAP = Path("/sys/class/powercap")
MODEL_NAME = "Horowitz ISSCC 2014 model (45 nm) + assumed static power"
MODEL_INTERVAL = 2.0
LEAST_SHARE = 0.01  # of the idle energy; less is the drift of idling itself


@dataclass(frozen=True)
class EnergyModel:
    """Constants of the model. pJ per MAC, byte and instruction; lanes: MACs of one instruction.

    static_w: power of an idle core and its share of the rest; 0.5 W is this model's assumption, not a measurement.
    """

    mac_fp32_pj: float = 4.6
    mac_int8_pj: float = 0.3
    byte_near_pj: float = 2.5
    byte_cache_pj: float = 12.5
    byte_far_pj: float = 162.5
    instruction_pj: float = 70.0
    lanes_fp32: float = 16
    lanes_int8: float = 64
    static_w: float = 0.5

    def kernel_mj(self, row: KernelRow, latency_ms: float, far: float) -> float:
        """Millijoules of one kernel. far: share of its weights that come from DRAM (the rest from the cache)."""
        integer = row.precision == "int8"
        work = row.macs * (self.mac_int8_pj if integer else self.mac_fp32_pj)
        moved = row.bytes_in + row.bytes_out
        instructions = row.macs / (self.lanes_int8 if integer else self.lanes_fp32) + moved / 64
        memory = moved * self.byte_cache_pj + row.bytes_weights * (
            far * self.byte_far_pj + (1 - far) * self.byte_cache_pj
        )
        operands = 2 * row.macs * (1 if integer else 4) / (self.lanes_int8 if integer else self.lanes_fp32)
        dynamic_pj = work + memory + operands * self.byte_near_pj + instructions * self.instruction_pj
        return dynamic_pj * 1e-9 + self.static_w * latency_ms

    def constants(self) -> dict[str, float]:
        """By name, for calibration.json."""
        return {name: float(value) for name, value in asdict(self).items()}

    @classmethod
    def from_constants(cls, constants: Mapping[str, float]) -> EnergyModel:
        """The inverse of `constants`. TypeError on a name it does not know."""
        return cls(**constants)


class EnergyCounter(Protocol):
    """A counter of energy that only grows. `millijoules` since an arbitrary zero."""

    @property
    def source(self) -> EnergySource: ...

    def millijoules(self) -> float: ...


class RaplCounter:
    """Intel and AMD running average power limit, package domains, through /sys/class/powercap (microjoules)."""

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

    def millijoules(self) -> float:
        total = 0
        for index, zone in enumerate(self._zones):
            now = int((zone / "energy_uj").read_text())
            if now < self._last[index]:  # the counter wraps
                self._turns[index] += 1
            self._last[index] = now
            total += now + self._turns[index] * self._wraps[index]
        return total / 1e3


class NvmlCounter:
    """NVIDIA total energy since the driver was loaded (millijoules; Volta and later), through libnvidia-ml."""

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
        self.millijoules()

    @property
    def source(self) -> EnergySource:
        return EnergySource(kind="nvml", detail=f"NVML total energy of {self._name}")

    def millijoules(self) -> float:
        value = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self._device, ctypes.byref(value))
        return float(value.value)

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._nvml, name)(*arguments)
        if code != 0:
            raise MeasurementError(f"NVML {name} failed with code {code}", next_step="use the energy model")


def _readable(path: Path) -> bool:
    try:
        path.read_text()
    except OSError:
        return False
    return True


def find_counter(kind: str = "cpu") -> EnergyCounter | None:
    """The counter of this machine's CPU ("cpu") or first GPU ("gpu"); None where none can be read."""
    try:
        return NvmlCounter() if kind == "gpu" else RaplCounter()
    except MeasurementError:
        return None


def measure_energy_mj(
    run: Callable[[], object],
    counter: EnergyCounter,
    *,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Millijoules of one `run`, idle power subtracted: repeats for at least `seconds`, after as long an idle spell.

    Raises MeasurementError where the runs took no more than idling: the counter then says nothing about them.
    """
    start, before = clock(), counter.millijoules()
    sleep(seconds)
    idle_mw = (counter.millijoules() - before) / (clock() - start)
    runs = 0
    start, before = clock(), counter.millijoules()
    while clock() - start < seconds:
        run()
        runs += 1
    idle = idle_mw * (clock() - start)
    used = counter.millijoules() - before - idle
    if used <= LEAST_SHARE * idle:
        raise MeasurementError(
            f"{runs} runs drew no more than idling ({idle_mw / 1e3:.2f} W)",
            next_step="close what else runs on this machine, then measure again",
        )
    return used / runs
