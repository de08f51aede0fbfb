"""What this machine is, and whether a profile was calibrated on it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from automc.errors import ConfigError, StaleCalibrationError
from automc.profiles import Fingerprint, HardwareProfile, load_profile, shipped_names

# Instruction sets that change which kernels the runtime picks.
_RELEVANT = (
    "sse4_1", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx_vnni",
    "amx_tile", "amx_int8", "asimd", "asimddp", "i8mm", "sve", "bf16",
)  # fmt: skip

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def host_fingerprint() -> Fingerprint:
    """This machine as measured numbers depend on it. cores: those this process may use."""
    text = _cpuinfo()
    flags = set((_first(text, "flags") or _first(text, "Features") or "").split())
    return Fingerprint(
        cpu=_cpu_name(text),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1),
        instruction_sets=tuple(name for name in _RELEVANT if name in flags),
        system=f"{platform.system()} {platform.machine()}",
        runtime="onnxruntime",
        runtime_version=version("onnxruntime"),
    )


def check_fingerprint(profile: HardwareProfile) -> None:
    """Raises StaleCalibrationError naming every field in which `profile` differs from this machine."""
    here = host_fingerprint()
    differing = [
        f"{field} was {getattr(profile.fingerprint, field)!r}, is {getattr(here, field)!r}"
        for field in Fingerprint.model_fields
        if getattr(profile.fingerprint, field) != getattr(here, field)
    ]
    if differing:
        raise StaleCalibrationError(
            f"profile {profile.name!r} was not calibrated on this machine as it is now: " + "; ".join(differing),
            next_step=f"automc profile calibrate {profile.name}"
            if profile.imported is None and profile.name not in shipped_names()
            else "search on this machine (automc profile calibrate host, --profile host), then choose for that device: "
            f"automc front RUN --profile {profile.name}",
        )


def cache_bytes(default: int = 1 << 20) -> int:
    """Size of the largest cache one core has for itself (level 2 as a rule); `default` where it cannot be read."""
    own = [size for level, shared, size in _caches() if level == "2" or (level == "1" and "," not in shared)]
    return max(own, default=default)


def shared_cache_bytes() -> int | None:
    """Size of the last cache, where there is a third level that cores share; None where none can be read."""
    return max((size for level, _, size in _caches() if level == "3"), default=None)


def _caches() -> list[tuple[str, str, int]]:
    """(level, cores that share it, bytes) of the first core's caches."""
    found = []
    for folder in sorted(CACHES.glob("index*")):
        size, shared, level = (_read(folder / name) for name in ("size", "shared_cpu_list", "level"))
        if size.endswith("K"):
            found.append((level, shared, int(size[:-1]) * 1024))
    return found


def _read(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def _cpuinfo() -> str:
    return _read(Path("/proc/cpuinfo"))


def _first(text: str, key: str) -> str | None:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _cpu_name(text: str) -> str:
    """The model name with family, model and stepping: virtual machines hide the rest of the name."""
    name = _first(text, "model name") or platform.processor() or platform.machine()
    numbers = [_first(text, key) for key in ("cpu family", "model", "stepping")]
    return f"{name} ({'/'.join(number or '?' for number in numbers)})" if any(numbers) else name


def known_anchor_ms(folder: Path, threads: int) -> float | None:
    """What the timing protocol's anchor takes when this very machine is calm, by the profile in `folder`.

    None where there is no profile, or it is another machine's or of another number of threads.
    """
    if not (folder / "profile.yaml").is_file():
        return None
    try:
        earlier = load_profile(str(folder))
    except ConfigError:
        return None  # whoever reads it for more says what is wrong with it
    return earlier.anchor_ms if earlier.fingerprint == host_fingerprint() and earlier.threads == threads else None
