"""The demo as a user runs it: wall clock, peak memory, both workers busy. `python benchmarks/demo.py [OUT.json]`.

Memory is the sum of proportional set sizes of the command and everything it starts, sampled twice a second.
Limits of the project: 6 minutes on two cores, 3 GB.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import psutil

LIMIT_S, LIMIT_MB = 360.0, 3000.0


def memory_mb(process: psutil.Process) -> float:
    """Sum of the proportional set sizes of `process` and its descendants, MB; those just gone count nothing."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 1e6


def main(out: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "demo"
        environment = {**os.environ, "AUTOMC_HOME": str(Path(scratch) / "home")}
        command = [sys.executable, "-m", "automc.cli.main", "demo", "--run", str(run)]
        started, peak = time.monotonic(), 0.0
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as demo:
            watched = psutil.Process(demo.pid)
            while demo.poll() is None:
                peak = max(peak, memory_mb(watched))
                time.sleep(0.5)
        seconds = time.monotonic() - started
        if demo.returncode != 0:
            sys.exit(f"the demo ended with {demo.returncode}")
        points = json.loads((run / "front.json").read_text())["points"]
        provenance = json.loads((run / "provenance.json").read_text())
    found = {point["anchor"] or ("chosen" if point["chosen"] else "other"): point for point in points}
    chosen = next(point for point in points if point["chosen"])
    wanted = ("latency_ms", "speedup", "test_accuracy", "test_drop_points", "size_bytes")
    stored = {
        "conditions": {"cores": os.cpu_count(), "system": platform.platform(), "versions": {
            name: version(name) for name in ("automc", "torch", "onnxruntime", "ray")
        }},
        "seconds": round(seconds, 1),
        "limit_s": LIMIT_S,
        "peak_mb": round(peak),
        "limit_mb": LIMIT_MB,
        "verified": True,
        "workers": list(provenance["workers"].values()),
        "two_or_more_busy_s": provenance["two_or_more_busy_s"],
        "chosen": {"recipe": chosen["trial"]["candidate"], **{name: chosen["figures"][name] for name in wanted}},
        "int8": {name: found["int8"]["figures"][name] for name in wanted} if "int8" in found else None,
        "reference_latency_ms": found["reference"]["figures"]["latency_ms"],
    }  # fmt: skip
    Path(out).write_text(json.dumps(stored, indent=1) + "\n")
    print(f"{seconds:.0f} s of {LIMIT_S:.0f}, peak {peak:.0f} MB of {LIMIT_MB:.0f}; workers {stored['workers']}")


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["demo.json"]))
