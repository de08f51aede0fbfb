"""automc: the compression search that proves its numbers on your device."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from automc.bundle.verify import Bundle, Verification
    from automc.candidate import Candidate, Step
    from automc.config import SearchConfig, load_config
    from automc.doctor.diagnosis import Diagnosis
    from automc.doctor.examine import examine as doctor
    from automc.errors import AutomcError
    from automc.profiles import HardwareProfile, load_profile
    from automc.run import FrontPoint, Run, open_run
    from automc.search.loop import resume, search
    from automc.trial import Failure, Figure, Trial

_HOMES = {
    "automc.bundle.verify": ("Bundle", "Verification"),
    "automc.candidate": ("Candidate", "Step"),
    "automc.config": ("SearchConfig", "load_config"),
    "automc.doctor.diagnosis": ("Diagnosis",),
    "automc.errors": ("AutomcError",),
    "automc.profiles": ("HardwareProfile", "load_profile"),
    "automc.run": ("FrontPoint", "Run", "open_run"),
    "automc.search.loop": ("resume", "search"),
    "automc.trial": ("Failure", "Figure", "Trial"),
}

__all__ = [
    "AutomcError", "Bundle", "Candidate", "Diagnosis", "Failure", "Figure", "FrontPoint", "HardwareProfile", "Run",
    "SearchConfig", "Step", "Trial", "Verification", "doctor", "load_config", "load_profile", "open_run", "resume",
    "search",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `import automc` costs nothing (PEP 562)."""
    if name == "doctor":  # a package that is callable: whoever imports it first, the name means the same
        return import_module("automc.doctor")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'automc' has no attribute {name!r}")
