"""A device as data: what it is, how to measure on it, what its calibration found."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, JsonValue

from automc.errors import ConfigError
from automc.nearest import nearest


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fingerprint(Frozen):
    """What must be the same for measured numbers to be comparable."""

    cpu: str
    cores: int
    instruction_sets: tuple[str, ...]
    system: str
    runtime: str
    runtime_version: str


class MeasurementProtocol(Frozen):
    """How latency is measured: fresh session per model, `warmup` runs, `runs` per pass, `passes` spread over time."""

    warmup: int = 8
    runs: int = 60
    passes: int = 2
    percentile: float = 10.0
    finalist_runs: int = 200


class Int8Facts(Frozen):
    """What calibration found about int8: the scheme that is fast and what it gains over fp32 (median ratio)."""

    activation_type: Literal["uint8", "int8"] = "uint8"
    weight_type: Literal["uint8", "int8"] = "int8"
    per_channel: bool = True
    reduce_range: bool = False
    speedup: float = 1.0


class EnergySource(Frozen):
    """Where an energy figure comes from: a counter or meter that was read, a fit to measured energy, or a documented
    model, by name."""

    kind: Literal["rapl", "nvml", "jetson", "meter", "fit", "model"]
    detail: str


class HeldOut(Frozen):
    """Error on whole networks of families the calibration never saw."""

    precision: Literal["fp32", "int8"]
    networks: int
    families: tuple[str, ...]
    within_5_percent: float
    within_10_percent: float
    within_15_percent: float
    mape_percent: float
    rank_correlation: float
    interval_coverage: float | None
    """Share of networks within the interval stated for them; None: there were too few to tell."""
    left_out: Literal["unseen families", "one network", "one space"] = "unseen families"
    """What the fit behind each prediction had not seen. one network: every other network of the table was fitted, so
    `families` are the networks' names."""


DeviceKind = Literal[
    "server CPU", "desktop CPU", "laptop CPU", "single-board computer", "phone", "embedded GPU", "GPU", "NPU", "FPGA"
]


Use = Literal["limits", "rank only"]


class Imported(Frozen):
    """Where a profile comes from that was fitted to a table of somebody's measurements, and what it is good for."""

    kind: DeviceKind
    source: str
    """Which table, which rows of it, and who published it."""
    licence: str
    networks: int
    use: Use
    """limits: may decide whether a limit on latency is kept. rank only: orders networks, its milliseconds mislead."""
    reason: str
    """Why it is good for that."""
    cannot: tuple[str, ...]
    """What it cannot predict."""


MOST_ERROR_PERCENT, MOST_NOISE_PERCENT = 20.0, 25.0
"""Of a calibration of this machine: beyond these its neighbours were measured rather than its networks."""


class HardwareProfile(Frozen):
    """Everything device-dependent, found by calibration and never a constant in code. Lives in <name>/profile.yaml."""

    schema_version: Literal[1] = 1
    name: str
    description: str
    fingerprint: Fingerprint
    execution_provider: str = "CPUExecutionProvider"
    threads: int = 1
    memory_mb: float | None
    """None: not known."""
    precisions: tuple[Literal["fp32", "int8"], ...]
    channel_multiple: int
    int8: Int8Facts
    protocol: MeasurementProtocol
    noise_floor_percent: float
    noise_floor_ms: float
    energy: EnergySource
    calibrated_unix_s: float
    calibration: Literal["quick", "full", "imported"]
    held_out: tuple[HeldOut, ...]
    calibration_digest: str
    """sha256 of calibration.json beside the profile."""
    anchor_ms: float | None = None
    """What the small fixed network of the timing protocol takes on this device when it is calm."""
    imported: Imported | None = None
    """None: calibrated by automc on the device itself. Of an imported one, channel_multiple 1 and the facts about int8
    say nothing: no table tells them."""

    def good_for(self) -> tuple[Use, str]:
        """What predictions by it are good for, and why. A calibration beside busy neighbours may be good for little."""
        if self.imported is not None:
            return self.imported.use, self.imported.reason
        worst = max(self.held_out, key=lambda entry: entry.mape_percent, default=None)
        if worst is not None and worst.mape_percent > MOST_ERROR_PERCENT:
            return "rank only", f"{worst.precision} networks left out are {worst.mape_percent:.0f} % off in the mean"
        if self.noise_floor_percent > MOST_NOISE_PERCENT:
            return "rank only", f"two timings of one network differed by {self.noise_floor_percent:.0f} %"
        return "limits", "" if worst is None else f"{worst.mape_percent:.1f} % mean error or less on networks left out"


def cache_folder() -> Path:
    """Where the user's own profiles live: $AUTOMC_HOME, else ~/.cache/automc."""
    return Path(os.environ.get("AUTOMC_HOME") or Path.home() / ".cache" / "automc")


def shipped_folder(kind: Literal["hardware_profiles", "search_spaces"]) -> Path:
    """The folder that ships with automc: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def profile_folders() -> dict[str, Path]:
    """Every known profile by name; the user's own come before shipped ones of the same name."""
    found: dict[str, Path] = {}
    for root in (shipped_folder("hardware_profiles"), cache_folder() / "profiles"):
        if root.is_dir():
            found.update({path.parent.name: path.parent for path in sorted(root.glob("*/profile.yaml"))})
    return found


def shipped_names() -> frozenset[str]:
    return frozenset(path.parent.name for path in shipped_folder("hardware_profiles").glob("*/profile.yaml"))


def own_folder(name: str, folder: Path | None = None, *, imported: bool, replace: bool = False) -> Path:
    """Where a profile `name` of the user's goes: `folder` if there is one, else among their own.

    imported: whether it is of a table, else of this machine's timings. Raises ConfigError on what cannot be a name;
    and among their own on `host` for a table's, and where it would take the place of another device: of one that comes
    with automc, of this machine by a table's, of a table's by this machine, and, without `replace`, of any table's by
    another's.
    """
    another = "give another --name" if imported else "automc profile calibrate host"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ConfigError(
            f"{name!r} cannot be a profile's name: up to 100 letters, digits, dots, hyphens and underscores can",
            next_step=another,
        )
    if folder is not None:
        return folder
    if name in shipped_names():
        raise ConfigError(f"{name}: a profile of that name comes with automc", next_step=another)
    if imported and name == "host":
        raise ConfigError(
            "host: is the profile of this machine, which commands take where no other is named; no table's device can "
            "be called so",
            next_step=another,
        )
    own = cache_folder() / "profiles" / name
    if not (own / "profile.yaml").is_file():
        return own
    there = load_profile(str(own))
    if imported != (there.imported is not None):
        raise ConfigError(
            f"{name}: a profile of another device is called so: {there.description}",
            next_step=f"move {own} elsewhere, then calibrate again" if name == "host" else another,
        )
    if imported and not replace:
        raise ConfigError(
            f"{name}: there is a profile called so: {there.description}", next_step="--replace, or another --name"
        )
    return own


def load_profile(name: str) -> HardwareProfile:
    """The profile called `name`, or in the folder `name`. Raises ConfigError (nearest name) if there is none."""
    folder = profile_folder(name)
    path = folder / "profile.yaml"
    try:
        return HardwareProfile.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: of pydantic, or of text that is not UTF-8
        own = folder.parent == cache_folder() / "profiles"
        raise ConfigError(
            f"{path}: not a hardware profile: {error}",
            next_step=f"delete {folder}, then calibrate or import it again" if own else "automc profile calibrate",
        ) from error


def profile_folder(name: str) -> Path:
    try:
        if (Path(name) / "profile.yaml").is_file():
            return Path(name)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # which no folder's is
            raise
    known = profile_folders()
    if name in known:
        return known[name]
    raise ConfigError(
        f"no hardware profile is called {name!r}{nearest(name, known)}",
        next_step=f"automc profile calibrate {name}" if name == "host" else "automc profile list",
    )


def calibration_text(calibration: dict[str, JsonValue]) -> str:
    """calibration.json as it is stored; its sha256 is the profile's `calibration_digest`."""
    return json.dumps(calibration, indent=1, sort_keys=True)


def require_writable(
    folder: Path, next_step: str = "set AUTOMC_HOME to a folder of yours: profiles and caches are kept there"
) -> None:
    """Raises ConfigError where nothing can be written into `folder`, which need not be there yet."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}", next_step=next_step) from error


def save_profile(profile: HardwareProfile, calibration: dict[str, JsonValue], folder: Path) -> None:
    """Write profile.yaml and calibration.json; the profile appears last, so a half-written folder is no profile."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("calibration.json", calibration_text(calibration)),
        ("profile.yaml", yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False)),
    ):
        part = folder / f".{name}.part"
        part.write_text(text)
        part.replace(folder / name)
