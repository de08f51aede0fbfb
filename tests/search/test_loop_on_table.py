"""Whole searches on published measurements: every cell of NAS-Bench-201 on a Raspberry Pi 5, nothing trained."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from automc.config import SearchConfig, parse_config
from automc.pareto import hypervolume
from automc.run import Run
from automc.search.fidelity import objectives_of
from automc.search.loop import search
from automc.workloads.nasbench201 import EDGES, TABLE

pytestmark = pytest.mark.data

LIMIT_MS = 10.0
CANDIDATES = {"random": 150, "nsga2": 150, "tpe": 60}  # an ask of TPE costs the more, the more it was told
OBJECTIVES = ("accuracy", "latency_ms", "energy_mj")
COLUMNS = {"latency_ms": "pi5_onnx_cifar100_lat_ms", "energy_mj": "pi5_onnx_cifar100_energy_mj"}


def config_of(strategy: str, seed: int) -> SearchConfig:
    return parse_config(
        {
            "name": "cells",
            "workload": {"name": "nasbench201"},
            "space": "nasbench201",
            "objectives": list(OBJECTIVES),
            "constraints": {"max_drop_points": None, "max_latency_ms": LIMIT_MS},
            "search": {"strategy": strategy, "seed": seed, "rungs": [{"candidates": CANDIDATES[strategy], "steps": 0}]},
            "choose": "most_accurate",
            "executor": {"kind": "inline"},
        },
        "cells",
    )


@pytest.fixture(scope="module")
def table(data_root: Path) -> dict[str, dict[str, float]]:
    """Architecture string, as published -> the cell's row."""
    names = ["arch_str", "acc_cifar100", *COLUMNS.values()]
    rows = parquet.read_table(data_root / TABLE, columns=names).to_pylist()
    return {row.pop("arch_str"): row for row in rows}


@pytest.fixture(scope="module")
def runs(data_root: Path, tmp_path_factory: pytest.TempPathFactory):
    """(strategy, seed) -> its finished run, each searched once."""
    folder = tmp_path_factory.mktemp("cells")

    @cache
    def run(strategy: str, seed: int) -> Run:
        return search(config_of(strategy, seed), data_root=data_root, run_dir=folder / f"{strategy}-{seed}")

    return run


def published(architecture: dict[str, str]) -> str:
    """The string a cell is published under: into node 1 from 0, node 2 from 0 and 1, node 3 from 0, 1 and 2."""
    a, b, c, d, e, f = (architecture[f"edge_{index}"] for index in range(EDGES))
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


@pytest.mark.parametrize("strategy", CANDIDATES)
def test_the_chosen_cell_is_the_one_in_the_table_and_within_the_limit(runs, table, strategy: str) -> None:
    run = runs(strategy, 0)
    evaluated = {trial.candidate.id for trial in run.trials()}
    assert len(evaluated) == len(run.trials()) == CANDIDATES[strategy]
    (chosen,) = [point for point in run.finalists() if point.chosen]
    row = table[published(dict(chosen.trial.candidate.architecture))]
    assert chosen.figures["accuracy"].value == pytest.approx(row["acc_cifar100"] / 100, rel=1e-9)
    for metric, column in COLUMNS.items():
        assert chosen.figures[metric].value == pytest.approx(row[column], rel=1e-9)
    assert row[COLUMNS["latency_ms"]] <= LIMIT_MS
    # by hand: the most accurate of all that were evaluated and keep the limit
    within = [trial for trial in run.trials() if trial["latency_ms"].value <= LIMIT_MS]
    assert chosen.figures["accuracy"].value == max(trial["accuracy"].value for trial in within)
    assert run.choose().candidate == chosen.trial.candidate


def test_the_front_of_the_run_is_that_of_what_was_evaluated(runs) -> None:
    run = runs("nsga2", 0)
    points = [objectives_of(trial, OBJECTIVES) for trial in run.trials()]
    best = {
        trial.candidate.id
        for trial, own in zip(run.trials(), points, strict=True)
        if not any(all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in points)
    }
    assert {point.trial.candidate.id for point in run.front()} == best


def test_nsga2_finds_more_than_random_in_the_loop_as_it_does_alone(runs, table) -> None:
    """Volume within 10 ms and the largest energy of the table; means over three seeds, 150 of 15,625 cells each."""
    worst = max(row[COLUMNS["energy_mj"]] for row in table.values())

    def volume(strategy: str, seed: int) -> float:
        points = [objectives_of(trial, OBJECTIVES) for trial in runs(strategy, seed).trials()]
        return hypervolume(points, (0.0, LIMIT_MS, worst))

    found = {name: np.mean([volume(name, seed) for seed in range(3)]) for name in ("random", "nsga2")}
    assert found["nsga2"] >= found["random"] > 0
