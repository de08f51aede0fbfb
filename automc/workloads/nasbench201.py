"""NAS-Bench-201 as a table: CIFAR-100 accuracy, latency and energy on a Raspberry Pi 5, for all 15,625 cells.

No training: a candidate is looked up. Strategies and the search loop are judged on real numbers in seconds.
Accuracies: Dong and Yang 2020, "NAS-Bench-201" (200 epochs, test accuracy). Costs: HW-NAS-Bench-360 (ONNX Runtime).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import JsonValue

from automc.candidate import Candidate
from automc.errors import ConfigError, InfeasibleCandidate
from automc.space import SearchSpace
from automc.trial import Figure, Metric
from automc.workloads.files import file_digest
from automc.workloads.options import NoOptions, parse_options

if TYPE_CHECKING:
    from automc.cost.few_shot import FewShotFit

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = 6
_ENDS = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # nodes that each edge joins, in the order of the string
TABLE = Path("device_latency/pi5/hwnasbench360_pi5.parquet")
_TEST_IMAGES = 10_000  # CIFAR-100's test split, behind each accuracy
_COSTS: dict[Metric, tuple[str, str]] = {
    "latency_ms": ("pi5_onnx_cifar100_lat_ms", "ms"),
    "energy_mj": ("pi5_onnx_cifar100_energy_mj", "mJ"),
}
CALIBRATION = 20
"""Cells whose measured costs the prediction of all others is fitted to."""
_SOURCE = "HW-NAS-Bench-360, Raspberry Pi 5, ONNX Runtime"


class NasBench201:
    """Scores a cell by the table. candidate.architecture: edge_0 to edge_5, each one of OPERATIONS.

    Edges in the order of the architecture string: into node 1 from 0, node 2 from 0 and 1, node 3 from 0, 1 and 2.
    """

    name = "nasbench201"
    tells: frozenset[Metric] = frozenset({"accuracy", *_COSTS})
    options_model = NoOptions

    def __init__(self, data_root: Path) -> None:
        self._path = data_root / TABLE
        if not self._path.is_file():
            raise ConfigError(f"{self._path}: no such file", next_step="give the folder of the data with --data-root")

    def space(self) -> SearchSpace:
        """All 15,625 cells: six edges of five operations."""
        return SearchSpace.load(self.name)

    def score(self, candidate: Candidate, rung: int, seed: int) -> Mapping[Metric, Figure]:
        """Published figures of the cell, whatever rung and seed. Raises InfeasibleCandidate for one not in the table.

        accuracy: a share, with its 95 % interval. The costs are medians of one board: no interval is published.
        """
        row = self._row_of(candidate)
        if row is None:
            raise InfeasibleCandidate(f"NAS-Bench-201 holds no cell {candidate.architecture} with steps [{candidate}]")
        accuracy = float(self._columns["acc_cifar100"][row]) / 100
        half = 1.96 * (accuracy * (1 - accuracy) / _TEST_IMAGES) ** 0.5
        figures: dict[Metric, Figure] = {
            "accuracy": Figure(
                accuracy, max(0.0, accuracy - half), min(1.0, accuracy + half), "share", "measured",
                n=_TEST_IMAGES, rung=rung, split="test", source="NAS-Bench-201, CIFAR-100, 200 epochs",
            )
        }  # fmt: skip
        for metric, (column, unit) in _COSTS.items():
            value = float(self._columns[column][row])
            figures[metric] = Figure(value, value, value, unit, "measured", rung=rung, source=_SOURCE)
        return figures

    def predicted(self, candidates: Sequence[Candidate]) -> list[dict[Metric, float]]:
        """Latency and energy of cells by a fit to CALIBRATION measured cells, the same ones in every search.

        Empty for what is no cell. The table's own figure of any other cell plays no part.
        """
        cells = [self._row_of(candidate) for candidate in candidates]
        known = np.array([row for row in cells if row is not None], dtype=np.int64)
        costs = {metric: fit.predict(self._work[known]) for metric, fit in self._fits.items()}
        found: list[dict[Metric, float]] = [{} for _ in cells]
        for place, at in enumerate(i for i, row in enumerate(cells) if row is not None):
            found[at] = {metric: float(values[place]) for metric, values in costs.items()}
        return found

    def _row_of(self, candidate: Candidate) -> int | None:
        architecture = candidate.architecture
        if candidate.steps or len(architecture) != EDGES:
            return None
        return self._rows.get(tuple(str(architecture.get(f"edge_{i}")) for i in range(EDGES)))

    @cached_property
    def _work(self) -> np.ndarray:
        """Of the cell that was measured: 6,466 were, and every other bears the costs of one that computes the same."""
        own = cell_work([operations_of(str(text)) for text in self._columns["arch_str"]])
        measured: np.ndarray = own[self._columns["rep_arch_idx"].astype(np.int64)]
        return measured

    @cached_property
    def _fits(self) -> dict[Metric, FewShotFit]:
        from automc.cost.few_shot import fit_few_shot

        chosen = np.random.default_rng(0).choice(len(self._work), CALIBRATION, replace=False)
        return {
            metric: fit_few_shot(self._work[chosen], self._columns[column][chosen].astype(np.float64))
            for metric, (column, _) in _COSTS.items()
        }

    def digests(self) -> dict[str, str]:
        """sha256 of the table, for the lock file."""
        return {"table": file_digest(self._path)}

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise ConfigError(
                "the workload nasbench201 reads a Parquet file, but pyarrow is not installed",
                next_step="pip install pyarrow",
            ) from error
        wanted = ["arch_str", "rep_arch_idx", "acc_cifar100", *(column for column, _ in _COSTS.values())]
        table = parquet.read_table(self._path, columns=wanted)
        return {name: np.asarray(table.column(name).to_pylist()) for name in wanted}

    @cached_property
    def _rows(self) -> dict[tuple[str, ...], int]:
        """Operations of the six edges -> row."""
        found = {operations_of(str(text)): row for row, text in enumerate(self._columns["arch_str"])}
        if len(found) != len(OPERATIONS) ** EDGES:
            raise ConfigError(
                f"{self._path}: holds {len(found)} different cells, not {len(OPERATIONS) ** EDGES}",
                next_step="download the table again",
            )
        return found


def operations_of(architecture: str) -> tuple[str, ...]:
    """The six operations of '|a~0|+|b~0|c~1|+|d~0|e~1|f~2|', in that order. Raises ConfigError on anything else."""
    found = tuple(re.findall(r"\|?([a-z0-9_]+)~[0-2]\|", architecture))
    if len(found) != EDGES or not set(found) <= set(OPERATIONS):
        raise ConfigError(f"{architecture!r} is not a NAS-Bench-201 cell", next_step="download the table again")
    return found


def cell_work(cells: Sequence[tuple[str, ...]]) -> np.ndarray:
    """(n, 11) what the kernels of each cell have to do, for a fit to few measurements.

    How many of the edges hold each operation, how many of these lie on a way from the cell's input to its output (a
    runtime may drop the others), and the sums these need. The skeleton repeats a cell five times at each of three
    resolutions, so the calls, MACs and bytes of an operation, by resolution, are all in proportion to its count: a
    column for each would tell a fit nothing more.
    """
    index = np.array([[OPERATIONS.index(name) for name in cell] for cell in cells]).reshape(-1, EDGES)
    holds = index[:, :, None] == np.arange(len(OPERATIONS))
    passes = ~holds[:, :, 0]
    fed = {0: np.ones(len(index), dtype=np.bool_)}
    for node in (1, 2, 3):
        fed[node] = np.any([passes[:, e] & fed[a] for e, (a, b) in enumerate(_ENDS) if b == node], axis=0)
    used = {3: np.ones(len(index), dtype=np.bool_)}
    for node in (2, 1, 0):
        used[node] = np.any([passes[:, e] & used[b] for e, (a, b) in enumerate(_ENDS) if a == node], axis=0)
    alive = np.stack([passes[:, e] & fed[a] & used[b] for e, (a, b) in enumerate(_ENDS)], axis=1)
    into = np.stack([alive[:, [e for e, (_, b) in enumerate(_ENDS) if b == node]].sum(axis=1) for node in (1, 2, 3)])
    sums = np.maximum(into - 1, 0).sum(axis=0)
    living = (holds & alive[:, :, None]).sum(axis=1)[:, 1:]
    return np.column_stack([holds.sum(axis=1), living, sums, alive.any(axis=1)]).astype(np.float64)


def create(options: Mapping[str, JsonValue], data_root: Path | None) -> NasBench201:
    """Needs `--data-root`; takes no options."""
    parse_options(NoOptions, "nasbench201", options)
    if data_root is None:
        raise ConfigError(
            "the workload nasbench201 looks its scores up in a file",
            next_step="give the folder of the data with --data-root",
        )
    return NasBench201(data_root)
