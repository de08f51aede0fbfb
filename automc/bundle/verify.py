"""Reads and checks bundles, by the same verify.py that ships in every one of them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from automc.bundle.templates import verify as shipped
from automc.errors import BundleError, ConfigError


@dataclass(frozen=True)
class BundleCheck:
    """One thing that was checked. promised, delivered: the figures compared, as JSON, where there are any."""

    name: str
    status: Literal["ok", "failed", "unknown"]
    detail: str
    promised: dict[str, JsonValue] | None = None
    delivered: dict[str, JsonValue] | None = None


@dataclass(frozen=True)
class Verification:
    """What `verify` found; `ok` where everything asked for holds (an unknown is not a success)."""

    folder: Path
    checks: tuple[BundleCheck, ...]
    device: dict[str, JsonValue]

    @property
    def ok(self) -> bool:
        return all(check.status == "ok" for check in self.checks)

    def to_json(self) -> dict[str, JsonValue]:
        return {"ok": self.ok, "folder": str(self.folder), "device": self.device,
                "checks": [dict(check.__dict__) for check in self.checks]}  # fmt: skip


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk."""

    folder: Path

    def verify(self, data: Path | None = None, *, latency: bool = False, python: str | None = None) -> Verification:
        """`examine`, raising BundleError that names every check which is not "ok"."""
        found = self.examine(data, latency=latency, python=python)
        if not found.ok:
            wrong = "\n".join(
                f"  {item.name}: {item.status}: {item.detail}" for item in found.checks if item.status != "ok"
            )
            raise BundleError(
                f"{self.folder} is not verified:\n{wrong}",
                next_step=f"automc bundle inspect {self.folder}, or build it again: automc bundle build RUN",
            )
        return found

    def examine(self, data: Path | None = None, *, latency: bool = False, python: str | None = None) -> Verification:
        """Run automc's copy of verify.py on the bundle in a fresh process: no code of the bundle is executed.

        data: .npz with x (raw samples) and y. python: interpreter with onnxruntime and numpy; None: this one.
        Raises ConfigError where folder or data cannot be read.
        """
        self._need()
        if data is not None and not data.is_file():
            raise ConfigError(f"{data}: no such file", next_step="give an npz file with x (raw samples) and y (labels)")
        command = [python or sys.executable, "-I", str(Path(shipped.__file__)), "--folder", str(self.folder), "--json"]
        command += ["--data", str(data.resolve())] if data is not None else []
        command += ["--latency"] if latency else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 4):
            raise ConfigError(
                f"{self.folder} cannot be checked: {done.stderr.strip() or f'exit {done.returncode}'}",
                next_step="correct --data, or build the bundle again: automc bundle build RUN",
            )
        answer = json.loads(done.stdout)
        return Verification(self.folder, tuple(BundleCheck(**item) for item in answer["checks"]), answer["device"])

    def inspect(self) -> dict[str, JsonValue]:
        """What the JSON files and recipe.yaml state, by file name without ending; every hash is checked first.

        Raises BundleError where a file was changed, ConfigError where the folder is no bundle at all.
        """
        import yaml

        self._need()
        files = shipped.check_files(self.folder)
        if files["status"] != "ok":
            raise BundleError(f"{self.folder}: {files['detail']}", next_step=f"automc bundle verify {self.folder}")
        found: dict[str, JsonValue] = {
            name: json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
            for name in ("manifest", "io", "session", "preprocess", "quantization", "expected")
        }
        found["recipe"] = yaml.safe_load((self.folder / "recipe.yaml").read_text(encoding="utf-8"))
        return found

    def _need(self) -> None:
        """Raises ConfigError where the folder is none, or holds nothing of a bundle; a part of one is a damaged one."""
        if not self.folder.is_dir():
            raise ConfigError(f"{self.folder} is not a folder", next_step="automc bundle build RUN")
        if not any((self.folder / name).is_file() for name in ("manifest.json", "manifest.sha256", "expected.json")):
            inside = self.folder / "bundle"
            raise ConfigError(
                f"{self.folder} is not a bundle (no manifest.json in it)",
                next_step=f"give {inside}" if inside.is_dir() else "automc bundle build RUN",
            )
