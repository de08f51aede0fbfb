"""Where a run's numbers come from: machine, versions, and who evaluated what when."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from pydantic import JsonValue

if TYPE_CHECKING:
    from automc.run import Run

PACKAGES = (
    "automc",
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "ray",
    "optuna",
    "torch-pruning",
    "tensorly",
)


def write_provenance(run: Run) -> None:
    """provenance.json: platform, versions, and per worker its trials, busy seconds and overlap with the others."""
    workers: dict[str, list[tuple[float, float]]] = {}
    for trial in run.trials():
        if trial.provenance is not None:
            begin = trial.provenance.started_unix_s
            workers.setdefault(trial.provenance.worker, []).append((begin, begin + trial.provenance.seconds))
    record: dict[str, JsonValue] = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
        "executor": run.config.executor.model_dump(mode="json"),
        "workers": {
            name: {"trials": len(spans), "busy_s": round(sum(end - begin for begin, end in spans), 3)}
            for name, spans in sorted(workers.items())
        },
        "two_or_more_busy_s": round(_overlap([span for spans in workers.values() for span in spans]), 3),
    }
    run.write_text("provenance.json", json.dumps(record, indent=1))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _overlap(spans: list[tuple[float, float]]) -> float:
    """Seconds during which at least two of the (begin, end) spans were open."""
    edges = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    total, open_spans, last = 0.0, 0, 0.0
    for moment, change in edges:
        if open_spans >= 2:
            total += moment - last
        open_spans, last = open_spans + change, moment
    return total
