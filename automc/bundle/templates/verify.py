#!/usr/bin/env python3
"""Prove that this bundle is whole and delivers what it states: `python verify.py [--data FILE.npz] [--latency]`.

Needs onnxruntime and numpy alone. Checks every hash and size, the golden outputs, with `--data` the accuracy and with
`--latency` the latency. Exit 0: everything asked for holds. 4: something failed, or could not be judged (an unknown
is not a success). 2: the call itself was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

PATIENCE = 3  # further looks at a latency that comes out too high, before it is said to be
SCHEMA_VERSION = 1
Array = np.ndarray[Any, Any]
Check = dict[str, Any]
"""name, status ("ok", "failed", "unknown"), detail (one line), and for figures: promised, delivered."""


def device() -> dict[str, Any]:
    """What has to be the same for outputs to be equal bit by bit and for latencies to be comparable."""
    import onnxruntime

    facts: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    known = "avx2 avx512f avx512vl avx512_vnni avx_vnni amx_int8 amx_tile asimd asimddp i8mm sve"
    identity = "/".join(facts[key] for key in ("cpu family", "model", "stepping", "CPU part") if key in facts)
    name = facts.get("model name") or platform.processor() or platform.machine()
    return {
        "cpu": f"{name} ({identity})" if identity else name,
        "cores": os.cpu_count() or 0,
        "instruction_sets": [flag for flag in known.split() if flag in flags],
        "system": f"{platform.system()} {platform.machine()}",
        "runtime": "onnxruntime",
        "runtime_version": onnxruntime.__version__,
    }


def differences(promised: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    return [f"{key}: {promised.get(key)} there, {here[key]} here" for key in here if promised.get(key) != here[key]]


def sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            hasher.update(chunk)
    return hasher.hexdigest()


def samples_digest(inputs: Array, targets: Array) -> str:
    """sha256 (hex) over shape, dtype and bytes of samples and labels: the digest automc gives a split."""
    hasher = hashlib.sha256()
    for array in (inputs, targets):
        hasher.update(f"{array.shape}:{array.dtype.str};".encode())
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()


def score(metric: str, outputs: Array, targets: Array) -> Array:
    """(n,) the metric of each sample as the search counts it: NaN is never right, the first of equal outputs counts.

    outputs: (n, values). targets: (n,) class numbers, or (n, values), (n,) for one value, to be met. Raises ValueError
    where a sample has another number of values than the model gives.
    """
    if metric == "accuracy":
        return np.asarray((outputs.argmax(axis=1) == targets) & ~np.isnan(outputs).any(axis=1))
    wanted = targets.astype(np.float64).reshape(len(targets), -1)
    if wanted.shape != outputs.shape:
        raise ValueError(f"y holds {wanted.shape[1]} values per sample, the model gives {outputs.shape[1]}")
    return np.asarray(((outputs.astype(np.float64) - wanted) ** 2).mean(axis=1))


def largest_gap(found: Sequence[Array], wanted: Sequence[Array]) -> tuple[float, float]:
    """Largest absolute difference over all arrays, plain and as a share of each wanted array's range. NaN stays NaN."""
    gaps = [np.max(np.abs(a.astype(np.float64) - b)) for a, b in zip(found, wanted, strict=True)]
    ranges = [max(float(np.ptp(b.astype(np.float64))), 1e-12) for b in wanted]
    return float(np.max(gaps)), float(np.max(np.divide(gaps, ranges)))


def interval(values: Array, is_rate: bool) -> tuple[float, float]:
    """95 % interval of the mean of (n,) `values`: Wilson 1927 for rates, else by the standard error."""
    if is_rate:
        return wilson(float(np.mean(values)), len(values))
    mean, spread = float(np.mean(values)), float(np.std(values)) / math.sqrt(len(values))
    return mean - 1.96 * spread, mean + 1.96 * spread


def wilson(rate: float, n: int) -> tuple[float, float]:
    """95 % interval of a rate (0 to 1) seen on n samples (Wilson 1927)."""
    z = 1.959964
    centre, spread = rate + z * z / (2 * n), z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)


def check(name: str, status: str, detail: str, **more: Any) -> Check:
    return {"name": name, "status": status, "detail": detail, **more}


def check_files(folder: Path) -> Check:
    """Manifest against its own hash, then files against manifest, both ways. Nothing is opened before it is hashed."""
    name = "files"
    for required in ("manifest.json", "manifest.sha256"):
        if not (folder / required).is_file() or (folder / required).is_symlink():
            return check(name, "failed", f"{required} is missing")
    stated = (folder / "manifest.sha256").read_bytes()
    if stated != f"{sha256(folder / 'manifest.json')}  manifest.json\n".encode():
        return check(name, "failed", "manifest.json does not have the hash that manifest.sha256 states")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if manifest["schema_version"] != SCHEMA_VERSION:
        return check(
            name, "failed", f"bundle schema {manifest['schema_version']}; this verify.py reads {SCHEMA_VERSION}"
        )
    problems = []
    present = {path.name: path for path in folder.iterdir()}
    for extra in sorted(set(present) - set(manifest["files"]) - {"manifest.json", "manifest.sha256"}):
        problems.append(f"{extra} is not part of the bundle")
    for item, facts in sorted(manifest["files"].items()):
        path = present.get(item)
        if path is None:
            problems.append(f"{item} is missing")
        elif path.is_symlink() or not path.is_file():
            problems.append(f"{item} is not a plain file")
        elif path.stat().st_size != facts["size_bytes"]:
            problems.append(f"{item} has {path.stat().st_size} bytes instead of {facts['size_bytes']}")
        elif sha256(path) != facts["sha256"]:
            problems.append(f"{item} was changed: its sha256 differs from the manifest's")
    if problems:
        return check(name, "failed", "; ".join(problems))
    total = sum(one["size_bytes"] for one in manifest["files"].values())
    return check(name, "ok", f"{len(manifest['files'])} files, {total} bytes, every hash and size as in the manifest")


def load_runner() -> ModuleType:
    """run.py beside this file, by path and without leaving a compiled copy in the bundle."""
    sys.dont_write_bytecode = True
    spec = util.spec_from_file_location("bundle_run", Path(__file__).resolve().with_name("run.py"))
    if spec is None or spec.loader is None:
        raise ImportError("run.py is missing beside verify.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_golden(folder: Path, runner: ModuleType, expected: Mapping[str, Any]) -> Check:
    """Stored samples give the stored outputs: bit by bit on the same device, within the stated tolerance elsewhere."""
    name, stated = "golden outputs", expected["golden"]
    with np.load(folder / "golden.npz", allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    inputs = [arrays[f"input_{k}"] for k in range(stated["inputs"])]
    wanted = [arrays[f"output_{k}"] for k in range(stated["outputs"])]
    if "raw" in arrays:
        prepared = runner.prepare(arrays["raw"], runner.read_json(folder, "preprocess.json"))
        if prepared.shape != inputs[0].shape or not largest_gap([prepared], inputs[:1])[0] <= stated["input_tolerance"]:
            return check(name, "failed", "preprocessing the stored raw samples does not give the stored inputs")
    outputs = runner.run_one_by_one(runner.open_session(folder), inputs)
    if [array.shape for array in outputs] != [array.shape for array in wanted]:
        return check(name, "failed", "the outputs have other shapes than the stored ones")
    off, share = largest_gap(outputs, wanted)
    shown, unlike = f"{len(inputs[0])} samples", differences(stated["device"], device())
    if not unlike:
        if all(np.array_equal(a, b) for a, b in zip(outputs, wanted, strict=True)):
            return check(name, "ok", f"{shown}, equal bit by bit")
        return check(
            name, "failed", f"{shown}, off by up to {off:.3g}; on the same device they must be equal bit by bit"
        )
    allowed = stated["elsewhere_share_of_range"]
    shown += (
        f", off by up to {100 * share:.3g} % of the output's range, {100 * allowed:.3g} % allowed on another device"
    )
    # written so that a NaN fails
    return check(name, "ok" if share <= allowed else "failed", f"{shown} ({'; '.join(unlike)})")


def check_accuracy(folder: Path, runner: ModuleType, expected: Mapping[str, Any], data: Path) -> Check:
    """The metric on x and y of `data`: given back on the very samples of the promise, within its interval on others."""
    metric, promised = expected["metric"], expected["figures"].get("accuracy")
    if promised is None or metric not in ("accuracy", "squared_error"):
        return check("accuracy", "unknown", f"no promise that verify.py can check (metric {metric})")
    with np.load(data, allow_pickle=False) as stored:
        lacking = [name for name in ("x", "y") if name not in stored]
        if lacking:
            raise ValueError(
                f"{data.name}: holds no {' and no '.join(lacking)}; it needs x (raw samples) and y (targets)"
            )
        x, y = stored["x"], stored["y"]
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"{data.name}: x has {len(x)} samples and y {len(y)}; they must be as many, and not none")
    y = y.astype(np.int64) if metric == "accuracy" else y.astype(np.float32).reshape(len(y), -1)
    spec = runner.read_json(folder, "preprocess.json")
    outputs = runner.run_one_by_one(runner.open_session(folder), [runner.prepare(x, spec)])[0]
    same = samples_digest(runner.arrange(x, spec), y) == expected["data_digests"].get(promised.get("split"))
    scale = 100.0 if promised["unit"] in ("%", "percent") else 1.0
    values = score(metric, outputs.reshape(len(outputs), -1), y)
    value = scale * float(np.mean(values))
    low, high = (scale * bound for bound in interval(values, metric == "accuracy"))
    delivered = {"value": value, "low": low, "high": high, "n": len(y), "unit": promised["unit"], "kind": "measured"}
    form = ".4f" if metric == "accuracy" else ".4g"
    shown = f"delivered {value:{form}} (n {len(y)}, 95 % interval {low:{form}} to {high:{form}}), "
    shown += f"promised {promised['value']:{form}} ({promised['low']:{form}} to {promised['high']:{form}}, "
    shown += f"n {promised.get('n')}, {promised.get('split')} split)"
    if metric == "squared_error":  # of an error, less is better, and it has no scale but its own
        sign, slack = -1.0, abs(promised["value"]) * expected["accuracy_tolerance"]
    else:
        sign, slack = 1.0, scale * expected["accuracy_tolerance"]
    if same:
        fine, why = sign * (value - promised["value"]) >= -slack, f"the very samples of the promise, {slack:g} allowed"
    else:
        best, worst = (high, promised["low"]) if sign > 0 else (low, promised["high"])
        fine, why = sign * (best - worst) >= 0, "other samples than those of the promise: intervals compared"
    return check("accuracy", "ok" if fine else "failed", f"{shown}; {why}", promised=promised, delivered=delivered)


def time_model(
    folder: Path, runner: ModuleType, protocol: Mapping[str, Any], pause_s: float
) -> tuple[list[float], int]:
    """Percentile of each pass in ms (fresh session, warm-up, then timed runs), and the runs per pass."""
    with np.load(folder / "golden.npz", allow_pickle=False) as stored:
        inputs = [stored[f"input_{k}"][:1] for k in range(len(runner.read_json(folder, "io.json")["inputs"]))]
    passes = max(int(protocol["passes"]), 3)
    runs = max(int(protocol["runs"]), math.ceil(int(protocol["finalist_runs"]) / passes))
    found = []
    for turn in range(passes):
        if turn:
            time.sleep(pause_s)
        session = runner.open_session(folder)
        feed = {item.name: array for item, array in zip(session.get_inputs(), inputs, strict=True)}
        for _ in range(int(protocol["warmup"])):
            session.run(None, feed)
        times = []
        for _ in range(runs):
            start = time.perf_counter_ns()
            session.run(None, feed)
            times.append((time.perf_counter_ns() - start) / 1e6)
        found.append(float(np.percentile(times, float(protocol["percentile"]))))
    return found, runs


def check_latency(folder: Path, runner: ModuleType, expected: Mapping[str, Any], pause_s: float = 1.0) -> Check:
    """Latency here by the protocol of the promise, without the interleaved baseline; judged on the same device only."""
    name, promised = "latency", expected["figures"].get("latency_ms")
    measured = promised is not None
    promised = promised or expected["predicted"].get("latency_ms")
    if promised is None:
        return check(name, "unknown", "the bundle states no latency")
    passes, runs = time_model(folder, runner, expected["protocol"], pause_s)
    for _ in range(PATIENCE):  # a neighbour slows a pass down, never up: only a slow machine is slow every time
        if min(passes) <= promised["high"]:
            break
        time.sleep(pause_s)
        passes += time_model(folder, runner, expected["protocol"], pause_s)[0]
    percentile = expected["protocol"]["percentile"]
    value, high = min(passes), max(passes)
    delivered = {"value": value, "low": value, "high": high, "n": runs * len(passes), "unit": "ms", "kind": "measured"}
    shown = f"delivered {value:.4g} ms (p{percentile:g}, best of {len(passes)} passes of {runs} runs, worst {high:.4g})"
    shown += (
        f", promised {promised['value']:.4g} ms ({promised['kind']}, {promised['low']:.4g} to {promised['high']:.4g})"
    )
    figures = {"promised": promised, "delivered": delivered}
    stated, here = expected["device"], device()
    unlike = differences(stated, here if measured else {key: here[key] for key in ("cpu", "system", "runtime_version")})
    if unlike:
        why = f"not comparable, the promise is for another device ({'; '.join(unlike)})"
        return check(name, "unknown", f"{shown}; {why}", **figures)
    if not measured and not promised["low"] <= value <= promised["high"]:
        return check(name, "failed", f"{shown}; outside the interval of the prediction", **figures)
    allowed = promised["high"]  # of a measured one, with the noise floor in it
    if value <= allowed:
        return check(name, "ok", shown, **figures)
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    why = f"slower than the {allowed:.4g} ms allowed"
    if busy > 1.5:  # this check itself is one; whatever else runs here slows it down
        return check(name, "unknown", f"{shown}; {why}, but the machine is busy (load average {busy:.1f})", **figures)
    return check(name, "failed", f"{shown}; {why}, load average {busy:.1f}: repeat on an idle machine", **figures)


def verify(folder: Path, data: Path | None = None, latency: bool = False) -> list[Check]:
    """Every check that was asked for, in order. Nothing in the bundle is opened before all its hashes were right."""
    checks = [check_files(folder)]
    if checks[0]["status"] != "ok":
        return checks
    runner = load_runner()
    expected = runner.read_json(folder, "expected.json")
    steps: list[Callable[[], Check]] = [lambda: check_golden(folder, runner, expected)]
    if data is not None:
        steps.append(lambda: check_accuracy(folder, runner, expected, data))
    if latency:
        steps.append(lambda: check_latency(folder, runner, expected))
    return checks + [step() for step in steps]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Check that the bundle is whole and delivers what it states.",
        epilog="example: python verify.py --data test.npz --latency      (npz with raw samples x and class numbers y)",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(__file__).resolve().parent, help="bundle (default: this one)"
    )
    parser.add_argument("--data", type=Path, help=".npz with x (raw samples) and y (labels): checks the accuracy")
    parser.add_argument("--latency", action="store_true", help="time the model here (keep the machine idle)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    try:
        checks = verify(options.folder.resolve(), options.data, options.latency)
    except (OSError, ValueError, KeyError) as error:
        print(f"verify.py: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    ok = all(item["status"] == "ok" for item in checks)
    if options.json:
        print(json.dumps({"ok": ok, "folder": str(options.folder), "device": device(), "checks": checks}))
        return 0 if ok else 4
    for item in checks:
        print(f"{item['status'].upper():8}{item['name']}: {item['detail']}")
    print("VERIFIED" if ok else "NOT VERIFIED")
    return 0 if ok else 4


if __name__ == "__main__":
    sys.exit(main())
