"""What an interrupted calibration had timed, kept beside the profile to be: the next one goes on from it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from automc.measure.batch import Pass

VALID_S = 3600.0
"""A machine changes: what was timed longer ago is timed anew."""


@dataclass
class Unfinished:
    """key: what has to be the same for timings to be comparable. spent_s: seconds that each stage has had."""

    path: Path
    key: JsonValue
    passes: dict[str, list[Pass]] = field(default_factory=dict)
    anchor_ms: list[float] = field(default_factory=list)
    spent_s: dict[str, float] = field(default_factory=dict)

    @classmethod
    def beside(cls, profile: Path, key: JsonValue) -> Unfinished:
        """What is kept for the profile folder `profile`; empty where there is nothing, or of another key, or too old.

        A file that cannot be read is no loss but time: what it held is timed anew.
        """
        path = profile.parent / f".{profile.name}.unfinished.json"
        made = cls(path, key)
        try:
            stored = json.loads(path.read_text())
            if stored["key"] == key and 0 <= time.time() - stored["unix_s"] <= VALID_S:
                made.passes = {name: [Pass(*entry) for entry in found] for name, found in stored["passes"].items()}
                made.anchor_ms, made.spent_s = list(stored["anchor_ms"]), dict(stored["spent_s"])
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path, key)
        return made

    def save(self, anchor_ms: list[float]) -> None:
        """Write it whole or not at all."""
        self.anchor_ms = list(anchor_ms)
        part = self.path.with_name(f"{self.path.name}.part")
        passes = {name: [[entry.latency_ms, entry.anchor_ms] for entry in found] for name, found in self.passes.items()}
        content = {
            "unix_s": time.time(), "key": self.key, "spent_s": self.spent_s, "anchor_ms": self.anchor_ms,
            "passes": passes,
        }  # fmt: skip
        part.write_text(json.dumps(content))
        part.replace(self.path)

    def discard(self) -> None:
        """The calibration is finished."""
        self.path.unlink(missing_ok=True)
