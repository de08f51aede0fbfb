"""What B4 searches: cells of NAS-Bench-201, their accuracy and their cost on one device column at a time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from pyarrow import parquet

from automc.candidate import canonical_json
from automc.cost.few_shot import fit_few_shot
from automc.pareto import hypervolume, non_dominated
from automc.workloads.nasbench201 import OPERATIONS, TABLE, cell_work, operations_of

ROOT = Path(os.environ["AUTOMC_DATA"])
HELP = ROOT / "device_latency/help/nasbench201_latency.parquet"
PI5 = "pi5_onnx_cifar100_lat_ms"
DEVELOPMENT = {
    "pi5_onnx_darcy_lat_ms": "acc_darcy",
    "pi5_onnx_ninapro_lat_ms": "acc_ninapro",
    "pi5_litert_darcy_lat_ms": "acc_darcy",
    "pi5_litert_ninapro_lat_ms": "acc_ninapro",
}
"""Columns that strategies may be developed on, with their accuracy; every other goes with acc_cifar100."""
LIMIT_MS = 10.0
_BROKEN_MS = 0.05  # no network of the table runs as fast: such measurements (raspi4, pixel3, LiteRT) are broken


@dataclass(frozen=True)
class Problem:
    """points: (n, m) minimised, negated accuracy first, NaN where a measurement is broken. work: (n, k) for fits.

    corner: (m,) the worst of the true front. best: the true front's volume to it.
    table_corner, table_best: the same to the worst of the whole table.
    """

    points: np.ndarray
    work: np.ndarray
    corner: np.ndarray
    best: float
    table_corner: np.ndarray
    table_best: float


@cache
def _tables() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, tuple[str, ...]]:
    """(columns by name, in one order of cells; work of each cell; work of the cell measured for it; HELP's columns)."""
    pi5, devices = parquet.read_table(ROOT / TABLE), parquet.read_table(HELP)
    names = [name for name in pi5.column_names if not name.startswith(("arch", "rep"))]
    columns = {name: np.asarray(pi5.column(name).to_pylist(), dtype=np.float64) for name in names}
    texts = pi5.column("arch_str").to_pylist()
    place = {text: i for i, text in enumerate(devices.column("arch_str").to_pylist())}
    order = [place[text] for text in texts]
    helped = tuple(name for name in devices.column_names if not name.startswith("arch"))
    columns |= {name: np.asarray(devices.column(name).to_pylist(), dtype=np.float64)[order] for name in helped}
    work = cell_work([operations_of(text) for text in texts])
    return columns, work, work[np.asarray(pi5.column("rep_arch_idx").to_pylist())], helped


def device_columns() -> tuple[str, ...]:
    """The Pi 5, then HELP's."""
    return (PI5, *_tables()[3])


@cache
def cells() -> dict[str, int]:
    """Canonical architecture of a cell -> its row in the tables."""
    texts = parquet.read_table(ROOT / TABLE, columns=["arch_str"]).column("arch_str").to_pylist()
    rows = [operations_of(text) for text in texts]
    assert {name for row in rows for name in row} == set(OPERATIONS)
    return {canonical_json({f"edge_{k}": name for k, name in enumerate(row)}): i for i, row in enumerate(rows)}


@cache
def problem_of(column: str, kind: str) -> Problem:
    """kind: `energy` has the Pi 5's energy as a third objective, `limit` leaves out what is over LIMIT_MS."""
    columns, own, measured, _ = _tables()
    latency = np.where(columns[column] < _BROKEN_MS, np.nan, columns[column])
    accuracy = DEVELOPMENT.get(column, "acc_cifar100")
    parts = [-columns[accuracy] / (1 if accuracy == "acc_darcy" else 100), latency]
    if kind == "energy":
        parts.append(columns[column.replace("lat_ms", "energy_mj")])
    points = np.stack(parts, axis=1)
    usable = points[np.isfinite(points).all(axis=1)]
    if kind == "limit":
        usable = usable[usable[:, 1] <= LIMIT_MS]
    front = usable[non_dominated(usable)]
    strict, table = front.max(axis=0), usable.max(axis=0)
    work = measured if column.startswith("pi5") else own
    return Problem(points, work, strict, hypervolume(front, strict), table, hypervolume(front, table))


@dataclass(frozen=True)
class Prediction:
    """costs: (n, m) predicted, the first column (accuracy) NaN. error: (n, m) half the 90 % interval, relative.

    reachable: share of the true front's volume that the cells on the front by prediction have.
    """

    costs: np.ndarray
    error: np.ndarray
    reachable: float


def predicted(problem: Problem, samples: int, seed: int) -> Prediction:
    """Every cell's costs by a fit to `samples` measured ones, drawn by `seed`."""
    usable = np.flatnonzero(np.isfinite(problem.points).all(axis=1))
    chosen = np.random.default_rng(seed).choice(usable, samples, replace=False)
    costs, error = np.full(problem.points.shape, np.nan), np.full(problem.points.shape, np.nan)
    for j in range(1, costs.shape[1]):
        fit = fit_few_shot(problem.work[chosen], problem.points[chosen, j])
        costs[:, j], error[:, j] = fit.predict(problem.work), fit.half_width(problem.work)
    believed = np.column_stack([problem.points[:, 0], costs[:, 1:]])[usable]
    emitted = problem.points[usable][non_dominated(believed)]
    return Prediction(costs, error, hypervolume(emitted, problem.corner) / problem.best)
