"""B4: Pareto search on a table. `python benchmarks/b4_pareto.py RUNS.jsonl [MINUTES] [OUT_STEM]`.

NAS-Bench-201 cells, accuracy (`acc_cifar100`) against the latency of one device column at a time: the Raspberry Pi 5
under ONNX Runtime, then every column of HELP. Every strategy is driven by ask and tell alone; "evaluated" means that it
is told the table's accuracy and latency of the cell. `guided` prices candidates by a fit to SAMPLES measured cells of
that device, drawn by the run's seed (`automc.cost.few_shot`); those latencies train nothing else and are not counted as
evaluations, since no network is trained for them. The arm `guided_table` alone prices by the table's own column; in
`guided_blind` nothing prices. The arm `limit` allows LIMIT_MS and counts points of the final front that break it; the
arm `energy` adds the Pi 5's energy as a third objective. Latencies below 0.05 ms are broken measurements (raspi4,
pixel3): such a cell is told as failed.

Volume is measured to the worst corner of the true front (`strict`), and to that of the whole table (`table`); goals are
judged by `strict`. A run that did not reach 99 % within its cap is censored: it counts as above its cap in medians.
`guided` was developed on the PDE task of the same table (accuracy and latency) and on LiteRT latency with seeds 1000 to
1004; nothing was tuned on the columns here. Runs are appended to RUNS.jsonl and not repeated; MINUTES ends early.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from pyarrow import parquet
from scipy.stats import bootstrap, wilcoxon

from automc.candidate import Candidate, canonical_json
from automc.cost.few_shot import fit_few_shot
from automc.pareto import hypervolume, non_dominated
from automc.search.strategies.registry import create_strategy
from automc.space import SearchSpace
from automc.trial import Failure, Figure, Trial
from automc.workloads.nasbench201 import OPERATIONS, TABLE, cell_work, operations_of

ROOT = Path(os.environ["AUTOMC_DATA"])
HELP = ROOT / "device_latency/help/nasbench201_latency.parquet"
PI5 = "pi5_onnx_cifar100_lat_ms"
SAMPLES = 20
SEEDS = 20
POINTS = (20, 50, 100, 200)
LIMIT_MS = 10.0
CAPS = {"guided": 200, "guided_table": 200, "guided_blind": 200, "tpe": 400, "nsga2": 1500, "random": 1500,
        "nni_tpe": 400, "nni_evolution": 400}  # fmt: skip
CAP_ELSEWHERE = 400
ANCHORS = (
    "Pi 5 latency, evaluations to 99 %, measured elsewhere on a few seeds: random about 4,000 or never, NSGA-II 685 to "
    "over 1,500, multivariate TPE not within 400, a crude prototype (extra-trees, latency known) 160 to 220"
)
GOAL = "a quarter of the evaluations of the best of NSGA-II and TPE, and under 150 on Pi 5 latency"


@dataclass(frozen=True)
class Problem:
    """points: (n, m) minimised, NaN where a measurement is broken. work: (n, k) for the fit that prices cells."""

    points: np.ndarray
    work: np.ndarray


@dataclass(frozen=True)
class Arm:
    column: str
    kind: str  # latency, energy (third objective) or limit
    strategy: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.column}/{self.kind}/{self.strategy}/{self.seed}"

    @property
    def cap(self) -> int:
        return CAPS[self.strategy] if self.column == PI5 else min(CAPS[self.strategy], CAP_ELSEWHERE)


@cache
def tables() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, tuple[str, ...]]:
    """(columns by name, in one order of cells; work of each cell; work of the cell measured for it; HELP's columns)."""
    pi5, devices = parquet.read_table(ROOT / TABLE), parquet.read_table(HELP)
    names = ["acc_cifar100", PI5, PI5.replace("lat_ms", "energy_mj")]
    columns = {name: np.asarray(pi5.column(name).to_pylist(), dtype=np.float64) for name in names}
    texts = pi5.column("arch_str").to_pylist()
    place = {text: i for i, text in enumerate(devices.column("arch_str").to_pylist())}
    order = [place[text] for text in texts]
    helped = tuple(name for name in devices.column_names if not name.startswith("arch"))
    columns |= {name: np.asarray(devices.column(name).to_pylist(), dtype=np.float64)[order] for name in helped}
    work = cell_work([operations_of(text) for text in texts])
    return columns, work, work[np.asarray(pi5.column("rep_arch_idx").to_pylist())], helped


@cache
def cells() -> dict[str, int]:
    """Canonical architecture of a cell -> its row in the tables."""
    texts = parquet.read_table(ROOT / TABLE, columns=["arch_str"]).column("arch_str").to_pylist()
    rows = [operations_of(text) for text in texts]
    assert {name for row in rows for name in row} == set(OPERATIONS)
    return {canonical_json({f"edge_{k}": name for k, name in enumerate(row)}): i for i, row in enumerate(rows)}


def problem_of(column: str, kind: str) -> Problem:
    columns, own, measured, _ = tables()
    latency = np.where(columns[column] < 0.05, np.nan, columns[column])
    parts = [-columns["acc_cifar100"] / 100, latency]
    if kind == "energy":
        parts.append(columns[PI5.replace("lat_ms", "energy_mj")])
    return Problem(np.stack(parts, axis=1), measured if column == PI5 else own)


@cache
def corners(column: str, kind: str) -> dict[str, tuple[np.ndarray, float]]:
    """Reference corner and the volume of the true front to it, by name."""
    points = problem_of(column, kind).points
    points = points[np.isfinite(points).all(axis=1)]
    if kind == "limit":
        points = points[points[:, 1] <= LIMIT_MS]
    front = points[non_dominated(points)]
    found = {"strict": front.max(axis=0), "table": points.max(axis=0)}
    return {name: (corner, hypervolume(front, corner)) for name, corner in found.items()}


def prices_of(arm: Arm, problem: Problem) -> np.ndarray:
    """(n, m) what guided is given before any evaluation; NaN for accuracy, and for all in the arm without prices."""
    prices = np.full(problem.points.shape, np.nan)
    if arm.strategy == "guided_table":
        prices[:, 1:] = np.where(np.isfinite(problem.points[:, 1:]), problem.points[:, 1:], 1e-3)
    elif arm.strategy == "guided":
        usable = np.flatnonzero(np.isfinite(problem.points).all(axis=1))
        chosen = np.random.default_rng(arm.seed).choice(usable, SAMPLES, replace=False)
        for j in range(1, prices.shape[1]):
            prices[:, j] = fit_few_shot(problem.work[chosen], problem.points[chosen, j]).predict(problem.work)
    return prices


def run(arm: Arm, space: SearchSpace) -> dict[str, object]:
    """One search: regret at POINTS, evaluations to 99 % (None: not within the cap), front points over a limit."""
    problem, rows = problem_of(arm.column, arm.kind), cells()
    prices = prices_of(arm, problem)
    strategy = create_strategy(
        arm.strategy.split("_")[0] if arm.strategy.startswith("guided") else arm.strategy,
        space=space,
        objectives=problem.points.shape[1],
        seed=arm.seed,
        costs=(lambda candidates: prices[[rows[one.architecture_json] for one in candidates]])
        if np.isfinite(prices).any()
        else None,
    )
    told: list[np.ndarray] = []
    broke, ask_ms = 0, []
    figures = {"latency_ms": Figure(1.0, 1.0, 1.0, "ms", "measured")}
    trace: list[np.ndarray] = []
    for _ in range(arm.cap):
        begin = time.perf_counter()
        candidate: Candidate = strategy.ask()
        ask_ms.append(1000 * (time.perf_counter() - begin))
        point = problem.points[rows[candidate.architecture_json]]
        if not np.isfinite(point).all():
            strategy.tell(Trial(candidate, 0, 0, failure=Failure("budget", "broken measurement")), None, 0.0)
            trace.append(np.full(len(point), np.inf))
            continue
        excess = max(0.0, point[1] / LIMIT_MS - 1) if arm.kind == "limit" else 0.0
        broke += excess > 0
        strategy.tell(Trial(candidate, 0, 0, figures=figures), tuple(point), excess)
        trace.append(point if excess == 0 else np.full(len(point), np.inf))
        if excess == 0:
            told.append(point)
    emitted = np.array(told)[non_dominated(told)] if told else np.zeros((0, 2))
    found: dict[str, object] = {
        "key": arm.key,
        "median_ask_ms": round(float(np.median(ask_ms)), 2),
        "evaluated": len(trace),
    }
    for name, (corner, best) in corners(arm.column, arm.kind).items():
        volume = [_volume(trace[:n], corner) / best for n in POINTS if n <= len(trace)]
        found[f"regret_{name}"] = [round(1 - share, 5) for share in volume]
        found[f"to_99_{name}"] = _first(trace, corner, 0.99 * best)
    if arm.kind == "limit":
        found["emitted_over_limit"] = int((emitted[:, 1] > LIMIT_MS).sum())
        found["evaluated_over_limit"] = int(broke)
    return found


def _volume(trace: list[np.ndarray], corner: np.ndarray) -> float:
    inside = [point for point in trace if np.isfinite(point).all()]
    return hypervolume(inside, corner) if inside else 0.0


def _first(trace: list[np.ndarray], corner: np.ndarray, goal: float) -> int | None:
    if _volume(trace, corner) < goal:
        return None
    low, high = 1, len(trace)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _volume(trace[:middle], corner) >= goal else (middle + 1, high)
    return low


def arms() -> Iterator[Arm]:
    """The most telling first: Pi 5 latency, its further arms, then column after column by seed."""
    plain = ["guided", "nsga2", "random", "tpe"]
    plain += ["nni_tpe", "nni_evolution"] if find_spec("nni") else []
    for names in (plain[:3], plain[3:]):
        for seed in range(SEEDS):
            yield from (Arm(PI5, "latency", name, seed) for name in names)
    for kind in ("limit", "energy"):
        for seed in range(SEEDS):
            yield from (Arm(PI5, kind, name, seed) for name in ("guided", "nsga2", "tpe", "random"))
    for seed in range(SEEDS):
        yield from (Arm(PI5, "latency", name, seed) for name in ("guided_table", "guided_blind"))
    for seed in range(SEEDS):
        for column in tables()[3]:
            yield from (Arm(column, "latency", name, seed) for name in plain)


def summary(records: dict[str, dict[str, object]]) -> list[dict[str, object]]:
    """One row per column, kind and strategy: medians over seeds, censored runs, guided against the best other."""
    grouped: dict[tuple[str, str], dict[str, dict[int, dict[str, object]]]] = {}
    for key, record in records.items():
        column, kind, strategy, seed = key.split("/")
        grouped.setdefault((column, kind), {}).setdefault(strategy, {})[int(seed)] = record
    rows = []
    for (column, kind), by_strategy in grouped.items():
        for strategy, runs in by_strategy.items():
            cap = Arm(column, kind, strategy, 0).cap
            counts = np.array(
                [cap + 1 if one["to_99_strict"] is None else one["to_99_strict"] for one in runs.values()]
            )
            regret = np.array([one["regret_strict"] for one in runs.values()])
            row: dict[str, object] = {
                "column": column, "kind": kind, "strategy": strategy, "seeds": len(runs), "cap": cap,
                "censored": int((counts > cap).sum()), "to_99_median": float(np.median(counts)),
                "to_99_interval": _interval(counts), "regret_median": np.round(np.median(regret, axis=0), 4).tolist(),
                "median_ask_ms": round(float(np.median([one["median_ask_ms"] for one in runs.values()])), 2),
            }  # fmt: skip
            if kind == "limit":
                for name in ("emitted_over_limit", "evaluated_over_limit"):
                    row[name] = int(sum(int(str(one[name])) for one in runs.values()))
            rows.append(row)
        _compare(column, kind, by_strategy, rows)
    return rows


def _interval(counts: np.ndarray) -> list[float]:
    """95 % of the median, by bootstrap over seeds."""
    if len(counts) < 3 or np.ptp(counts) == 0:
        return [float(counts.min()), float(counts.max())]
    found = bootstrap((counts,), np.median, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return [float(found.low), float(found.high)]


def _compare(
    column: str, kind: str, by_strategy: dict[str, dict[int, dict[str, object]]], rows: list[dict[str, object]]
) -> None:
    """Into guided's row: the best other by median regret at 100, wins by seed, and Wilcoxon's p over paired seeds."""
    others = [name for name in by_strategy if not name.startswith("guided")]
    if "guided" not in by_strategy or not others:
        return
    at = POINTS.index(100)

    def regrets(name: str) -> dict[int, float]:
        return {seed: one["regret_strict"][at] for seed, one in by_strategy[name].items()}  # type: ignore[index]

    best = min(others, key=lambda name: float(np.median(list(regrets(name).values()))))
    mine, theirs = regrets("guided"), regrets(best)
    seeds = sorted(mine.keys() & theirs.keys())
    a, b = np.array([mine[s] for s in seeds]), np.array([theirs[s] for s in seeds])
    p = float(wilcoxon(a, b).pvalue) if len(seeds) > 4 and (a != b).any() else None
    row = next(r for r in rows if (r["column"], r["kind"], r["strategy"]) == (column, kind, "guided"))
    row |= {
        "best_other_at_100": best,
        "paired": len(seeds),
        "wins": int((a < b).sum()),
        "losses": int((a > b).sum()),
        "wilcoxon_p": p,
    }


def markdown(rows: list[dict[str, object]]) -> str:
    lines = [
        "# B4: Pareto search on NAS-Bench-201", "", str(__doc__).split("\n\n", 1)[1].strip(), "",
        f"Anchors: {ANCHORS}. Goal: {GOAL}.", "",
        "| column | arm | strategy | seeds | median to 99 % (95 % interval) | censored "
        "| regret at 20 / 50 / 100 / 200, % | ask ms "
        "| guided against the best other at 100 | over the limit, emitted / evaluated |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        cap, median = float(str(row["cap"])), float(str(row["to_99_median"]))
        low, high = row["to_99_interval"]  # type: ignore[misc]
        shown = (
            f"> {cap:.0f}" if median > cap else f"{median:.0f}"
        ) + f" ({low:.0f} to {'cap' if high > cap else f'{high:.0f}'})"
        versus = ""
        if "best_other_at_100" in row:
            p = row["wilcoxon_p"]
            versus = f"{row['best_other_at_100']}: {row['wins']} wins, {row['losses']} losses of {row['paired']}"
            versus += "" if p is None else f", p {p:.2g}"
        limit = f"{row['emitted_over_limit']} / {row['evaluated_over_limit']}" if "emitted_over_limit" in row else ""
        regret = " / ".join(f"{100 * value:.2f}" for value in row["regret_median"])  # type: ignore[attr-defined]
        lines.append(
            f"| {row['column']} | {row['kind']} | {row['strategy']} | {row['seeds']} | {shown} | {row['censored']} "
            f"| {regret} | {row['median_ask_ms']} | {versus} | {limit} |"
        )
    return "\n".join(lines) + "\n"


def main(runs: str, minutes: float = 60.0, stem: str | None = None) -> None:
    path, end = Path(runs), time.monotonic() + 60 * minutes
    lines = path.read_text().splitlines() if path.is_file() else []
    records = {record["key"]: record for record in map(json.loads, lines)}
    space = SearchSpace.load("nasbench201")
    for arm in arms():
        if time.monotonic() > end:
            break
        if arm.key not in records:
            records[arm.key] = run(arm, space)
            with path.open("a") as file:
                file.write(json.dumps(records[arm.key]) + "\n")
    rows, planned = summary(records), sum(1 for _ in arms())
    text = markdown(rows) + f"\n{len(records)} of {planned} planned runs were made; the others are not in the table.\n"
    print(text)
    if stem is not None:
        packages = ("automc", "numpy", "scipy", "scikit-learn", "optuna")
        conditions = {"platform": platform.platform(), "versions": {name: version(name) for name in packages}}
        conditions |= {"threads": os.environ.get("OMP_NUM_THREADS", "unset"), "samples": str(SAMPLES)}
        record = {"rows": rows, "made": len(records), "planned": planned, "anchors": ANCHORS, "goal": GOAL}
        Path(f"{stem}.json").write_text(json.dumps(record | {"conditions": conditions}, indent=1) + "\n")
        Path(f"{stem}.md").write_text(text)


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((str, float, str), sys.argv[1:], strict=False)))
