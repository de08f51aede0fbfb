"""Memory that inference needs: peaks of fresh processes, and what they say of other networks."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from automc.cost.calibration import Interval, MemoryFit, interval_of, memory_parts
from automc.cost.kernels import KernelGraph
from automc.errors import MeasurementError
from automc.measure.anchor import anchor_model
from automc.measure.sessions import open_session, random_inputs

RUNS = 5
LEAST = 4
"""Networks, below which nothing can be fitted to them."""
# as a bundle's run.py does it, and nothing besides; of ru_maxrss a child inherits its parent's on Linux
_CHILD = """
import argparse, json, sys, typing
from pathlib import Path
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[3])
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
with np.load(sys.argv[2]) as stored:
    feeds = dict(stored)
for _ in range(int(sys.argv[4])):
    session.run(None, feeds)
try:
    lines = open("/proc/self/status").read().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024)
except OSError:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def peak_mb(model: bytes, threads: int = 1) -> float:
    """Most memory that a fresh process held at any time of loading an ONNX model and running it, MB (2^20 bytes).

    Python, numpy and the runtime are part of it. Raises MeasurementError where the process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, feeds = Path(folder) / "model.onnx", Path(folder) / "inputs.npz"
        path.write_bytes(model)
        np.savez(feeds, **random_inputs(open_session(model)))  # type: ignore[arg-type]
        command = [sys.executable, "-c", _CHILD, str(path), str(feeds), str(threads), str(RUNS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise MeasurementError(
            f"a network's memory could not be measured: {done.stderr.strip()[-300:]}",
            next_step="mend what this says, then calibrate again",
        )
    return float(done.stdout)


def measure_memory(networks: Sequence[tuple[bytes, KernelGraph]], threads: int = 1) -> MemoryFit:
    """What the peaks of these networks, each in a fresh process, say of any: a third of a second for each.

    networks: ONNX models and their kernels as this host executes them. Errors as `peak_mb`.
    """
    runtime_mb = peak_mb(anchor_model(), threads)
    return fit_memory([graph for _, graph in networks], [peak_mb(model, threads) for model, _ in networks], runtime_mb)


def fit_memory(graphs: Sequence[KernelGraph], peaks_mb: Sequence[float], runtime_mb: float) -> MemoryFit:
    """runtime_mb: of a network that holds next to nothing. What others take beyond it goes with their weights, which
    the runtime holds in the file, parsed and packed, their live activations and their kernels.

    Relative errors count from 1 MB on. The interval holds 90 % of the networks, each left out of the fit once.
    Raises MeasurementError below LEAST networks.
    """
    if len(graphs) < LEAST:
        raise MeasurementError(f"{len(graphs)} networks are too few", next_step="automc profile calibrate host")
    columns = np.array([memory_parts(graph) for graph in graphs])
    beyond = 1.0 + np.maximum(np.array(peaks_mb) - runtime_mb, 0.0)
    found = _solve(columns, beyond)
    ratios = []
    for line in range(len(graphs)):
        others = np.arange(len(graphs)) != line
        ratios.append(beyond[line] / (1.0 + columns[line] @ _solve(columns[others], beyond[others])))
    interval = interval_of(np.array(ratios))
    return MemoryFit(
        runtime_mb=runtime_mb,
        per_weight=float(found[0]),
        per_live=float(found[1]),
        per_kernel_mb=float(found[2]),
        interval=Interval(low=min(1.0, interval.low), high=max(1.0, interval.high)),
        networks=len(graphs),
    )


def _solve(columns: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """(3,) non-negative coefficients of 1 + columns @ x near `beyond`, relatively."""
    from scipy.optimize import nnls

    solution: np.ndarray = nnls(columns / beyond[:, None], (beyond - 1.0) / beyond)[0]
    return solution
