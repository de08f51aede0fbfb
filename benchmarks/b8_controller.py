"""B8: what the search itself costs per trial. `python benchmarks/b8_controller.py [TRIALS] [OUT.json]`.

TRIALS no-op trials (default 10,000) through the whole loop: strategy `random`, two Ray workers, journal on disk.
Anchors (measured elsewhere): Ray Tune 1.4 s per trial, Optuna TPE 13 ms, a Ray actor call 0.6 ms. First goal: 5 ms.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import automc
from automc.config import parse_config

ANCHORS = {"Ray Tune": 1400.0, "Optuna TPE": 13.0, "Ray actor call": 0.6}
GOAL_MS = 5.0
LIMIT_MS = 10.0


def timed(trials: int, kind: str, workers: int) -> dict[str, float | int | str]:
    """One search of `trials` no-op candidates into a temporary folder, and its resume."""
    config = parse_config(
        {
            "name": "noop",
            "workload": {"name": "noop"},
            "space": "noop",
            "objectives": ["accuracy", "latency_ms"],
            "constraints": {},
            "search": {"strategy": "random", "parallel": 2 * workers, "rungs": [{"candidates": trials, "steps": 0}]},
            "executor": {"kind": kind, "workers": workers},
        },
        "b8",
    )
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        run = automc.search(config, run_dir=Path(folder) / "run")
        seconds = time.perf_counter() - begin
        finished = len(run.trials())
    return {
        "executor": kind,
        "workers": workers,
        "trials": finished,
        "seconds": round(seconds, 2),
        "ms_per_trial": round(1000 * seconds / finished, 3),
    }


def main(trials: int = 10_000, out: str | None = None) -> None:
    rows = [timed(trials, "inline", 1), timed(trials, "ray", 2)]
    record = {
        "rows": rows,
        "conditions": {
            "platform": platform.platform(),
            "versions": {name: version(name) for name in ("automc", "ray", "optuna")},
            "note": "start and end of Ray included; one run each; journal fsynced once per trial",
        },
        "anchors_ms": ANCHORS,
        "goal_ms": GOAL_MS,
        "limit_ms": LIMIT_MS,
    }
    print(f"{'executor':10}{'workers':>8}{'trials':>8}{'ms per trial':>14}   goal {GOAL_MS:g}, limit {LIMIT_MS:g}")
    for row in rows:
        print(f"{row['executor']:10}{row['workers']:>8}{row['trials']:>8}{row['ms_per_trial']:>14}")
    print("anchors, ms: " + ", ".join(f"{name} {value:g}" for name, value in ANCHORS.items()))
    if out is not None:
        Path(out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((int, str), sys.argv[1:], strict=False)))
