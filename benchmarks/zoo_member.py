"""One network of the zoo through everything a user does. `python benchmarks/zoo_member.py NAME FOLDER`.

Doctor with the shipped space `cnn` (kernels the profile does not know are calibrated into a copy of the profile), then
one search without an accuracy limit whose anchors are the reference, int8 (after fusion), and every structural
technique that the doctor calls reachable followed by the same; nothing is trained. Then the bundles of the int8 anchor
and of the first structural one that made the network smaller, written and verified. FOLDER/record.json says what
happened, after every stage. An error that automc raises on purpose is recorded as the command line would print it;
anything else is a traceback.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import automc
from automc.config import SearchConfig, parse_config
from automc.doctor.budget import Budget
from automc.errors import AutomcError

STRUCTURAL: dict[str, dict[str, object]] = {
    "channel_pruning": {"ratio": 0.3},
    "depth_pruning": {"ratio": 0.4},
    "tucker": {"rank_ratio": 0.5, "only_if_faster": False},
    "low_rank": {"rank_ratio": 0.5, "only_if_faster": False},
}
GRAPH = ["fusion", "int8_ptq"]
SHORT = Budget(leaks_s=2.0, accuracy_s=2.0, space_s=4.0)
COSTED = ("accuracy", "latency_ms", "size_bytes")
UNCOSTED = ("accuracy", "size_bytes")


class Member:
    """The record of one network, and the stages that fill it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.record: dict[str, Any] = {"name": name, "errors": [], "traceback": False}
        self.objectives: tuple[str, ...] = COSTED

    def save(self) -> None:
        (self.folder / "record.json").write_text(json.dumps(self.record, indent=1))

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Seconds of the stage and what it raised, if anything; the next one is tried all the same."""
        started = time.monotonic()
        self.record["stage"] = name
        self.save()
        try:
            yield
        except AutomcError as error:
            self.record["errors"].append({"stage": name, "kind": type(error).__name__, "message": str(error)})
        except Exception as error:  # noqa: BLE001  what is counted here
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if "/automc/" in frame.filename]
            at = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
            said = (str(error).strip().splitlines() or [""])[0]
            self.record["errors"].append(
                {"stage": name, "kind": "traceback", "message": f"{type(error).__name__}: {said}", "at": at}
            )
            self.record["traceback"] = True
            traceback.print_exc()
        self.record[f"{name}_s"] = round(time.monotonic() - started, 1)
        self.record["stage"] = f"after {name}"
        self.save()

    def run(self) -> None:
        with self.stage("doctor"):
            self.examine()
        if "techniques" not in self.record:
            return
        run = None
        with self.stage("search"):
            run = automc.search(self.config(self.space()), run_dir=self.folder / "run")
        if run is not None:
            self.bundle(run)
        self.record["stage"] = "done"
        self.save()

    def examine(self) -> None:
        """The doctor's answer; where only costs stand in the way, the one for a search that needs none."""
        diagnosis = automc.doctor(self.config("cnn"), budget=SHORT, calibrate=True)
        if not diagnosis.searchable and diagnosis.unknown:
            self.record["without_costs"] = diagnosis.verdict
            self.objectives = UNCOSTED
            diagnosis = automc.doctor(self.config("cnn"), budget=SHORT)
        found = {item.technique: item for item in diagnosis.techniques}
        self.record |= {
            "model": diagnosis.model,
            "parameters": diagnosis.parameters,
            "doctor": diagnosis.searchable,
            "verdict": diagnosis.verdict,
            "stages": [{"name": s.name, "ok": s.ok, "detail": s.detail, "site": str(s.site)} for s in diagnosis.stages],
            "findings": [f"{item.level}: {item.text}" for item in diagnosis.findings],
            "unknown": {
                item.kind: item.problem or ("calibrated" if item.calibrated else "") for item in diagnosis.unknown
            },
            "techniques": {
                name: {
                    "targets": len(item.reach.targets),
                    "refused": item.reach.refused,
                    "blocked": [f"{b.name}: {b.reason} [{b.site}]" for b in item.reach.blocked],
                }
                for name, item in found.items()
                if name in STRUCTURAL or name in GRAPH
            },
        }

    def reachable(self) -> list[str]:
        """Structural techniques that have something to act on, by the doctor, in the order of STRUCTURAL."""
        return [name for name in STRUCTURAL if self.record["techniques"].get(name, {}).get("targets")]

    def space(self) -> str:
        techniques = self.reachable()
        anchors: list[dict[str, Any]] = [{"name": "reference", "steps": []}, {"name": "int8", "steps": GRAPH}]
        anchors += [{"name": name, "steps": [{name: STRUCTURAL[name]}, *GRAPH]} for name in techniques]
        space = {
            "name": f"zoo_{self.name}",
            "techniques": {name: {} for name in GRAPH},
            "chains": {"list": [["int8_ptq"]]},
            "anchors": anchors,
        }
        path = self.folder / "space.yaml"
        path.write_text(yaml.safe_dump(space))
        return str(path)

    def config(self, space: str) -> SearchConfig:
        raw = {
            "name": self.name,
            "workload": {"name": "zoo", "options": {"network": self.name}},
            "calibrate": "never",
            "space": space,
            "objectives": list(self.objectives),
            "constraints": {},
            "search": {"strategy": "random", "parallel": 1, "rungs": [{"candidates": 1, "steps": 0}], "finalists": 1},
            "teacher": "none",
            "choose": "smallest",
            "executor": {"kind": "inline"},
        }
        return parse_config(raw, "the zoo")

    def bundle(self, run: automc.Run) -> None:
        """The outcome of every anchor, and the two bundles."""
        points = {point.anchor: point for point in run.finalists() if point.anchor is not None}
        whole = points["reference"].trial.facts["parameters"]
        outcomes: dict[str, Any] = {}
        for trial in run.trials():
            if not trial.ok:
                names = [step.technique for step in trial.candidate.steps if step.technique in STRUCTURAL]
                outcomes[(names or ["int8"])[0]] = {"failure": trial.failure.kind, "message": trial.failure.reason}
        for name, point in points.items():
            figures = {
                key: point.figures[key].value for key in ("test_accuracy", "size_bytes", "latency_ms", "speedup")
            }
            outcomes[name] = {**figures, "parameters": point.trial.facts["parameters"]}
        self.record["outcomes"] = outcomes
        smaller = [n for n in self.reachable() if n in points and points[n].trial.facts["parameters"] < whole]
        for kind, name in (("quantised", "int8"), ("structural", (smaller or [""])[0])):
            if name in points:
                with self.stage(f"{kind}_bundle"):
                    run.bundle(points[name].trial, self.folder / kind).verify()
                    self.record[kind] = name


def main(name: str, folder: str) -> None:
    faulthandler.register(signal.SIGUSR1)
    Member(name, Path(folder)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
