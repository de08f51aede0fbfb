"""Energy of a network where nobody measured any: a documented model, named with every figure.

Energy per multiply-accumulate by precision, per byte by the memory it comes from, per instruction, plus
static power times time. Constants are those of Horowitz 2014, "Computing's energy problem (and what we can do about
it)", ISSCC, figure 1.1.9 (45 nm, 0.9 V): a 32-bit float multiplication 3.7 pJ and addition 0.9 pJ, an 8-bit
multiplication 0.2 pJ and a 32-bit integer addition 0.1 pJ; 64 bits from a 32 KB cache 20 pJ, from a 1 MB cache
100 pJ, from DRAM 1.3 nJ (the lower end); about 70 pJ of control for an instruction. Absolute figures of a newer
process are lower and those of a wide out-of-order core higher, so the model orders networks; it is no wattmeter.
The interval says so: a factor of 2 either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from automc.cost.kernels import KernelRow

MODEL_NAME = "Horowitz ISSCC 2014 model (45 nm) + assumed static power"
MODEL_INTERVAL = 2.0


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
