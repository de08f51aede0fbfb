"""B10: energy of a device where it was measured. `python benchmarks/b10_energy.py DATA [OUT_STEM] [SEEDS]`.

Raspberry Pi 5, ONNX Runtime, NAS-Bench-201 cells for CIFAR-100 (HW-NAS-Bench-360): latency and energy of a few cells
are given, those of all others are predicted from what their edges hold (`cell_work`). Latency by `fit_few_shot`, energy
by `fit_energy` from work and predicted latency; beside it constant power times the same predicted latency. Cells that
compute the same (`rep_arch_idx`) were measured once, and are one network here: 6,466 in all, of which those that are no
sample are tested on. Samples are chosen by their work alone, and, as an arm of its own, drawn at random.

MLPerf Tiny: four fixed networks on microcontrollers and accelerators, each predicted from the other three of the same
system (bench `sww` left out: its energy is that of a trial). Three networks are the least a fit takes.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from automc.cost.few_shot import choose, fit_few_shot
from automc.cost.joint_energy import EnergyFit, fit_constant_power, fit_energy
from automc.importing.spaces import mlperf_tiny_rows, totals
from automc.workloads.nasbench201 import cell_work, operations_of

PI5 = Path("device_latency/pi5/hwnasbench360_pi5.parquet")
TINY = Path("device_latency/mlperf_tiny/mlperf_tiny_results.csv")
SAMPLES = (10, 20, 50, 1000)
BENCHES = ("ad", "ic", "kws", "vww")
ANCHORS = {
    10: "0.956, 80 %", 50: "0.975, 93 %", 1000: "0.977, 95 %",
}  # fmt: skip
"""Rank and share within 10 % of a plain non-negative fit, as stated in the project's list of numbers to beat."""
GOAL = "50 samples: rank >= 0.975 and within 10 % >= 93 %, better than constant power times predicted latency"
ARMS = {"joint": fit_energy, "constant power": fit_constant_power}


def raspberry_pi(data: Path, seeds: int) -> list[dict[str, Any]]:
    table = pd.read_parquet(data / PI5)
    latency = table["pi5_onnx_cifar100_lat_ms"].to_numpy(float)
    energy = table["pi5_onnx_cifar100_energy_mj"].to_numpy(float)
    same = table["rep_arch_idx"].to_numpy(int)
    distinct = np.unique(same)  # the cells that were measured; the others bear the figures of one of these
    work = cell_work([operations_of(text) for text in table["arch_str"]])
    scores: dict[tuple[int, str, str], list[dict[str, float]]] = defaultdict(list)
    for seed in range(seeds):
        for count in SAMPLES:
            for how in ("chosen", "random"):
                if how == "random" or count > 100:
                    taken = np.random.default_rng([seed, count]).choice(distinct, count, replace=False)
                else:
                    taken = distinct[choose(work[distinct], count, seed)]
                tested = np.setdiff1d(distinct, taken)
                said_ms = fit_few_shot(work[taken], latency[taken]).predict(work[tested])
                for arm, fit in ARMS.items():
                    found = fit(work[taken], latency[taken], energy[taken])
                    scores[count, how, arm].append(judged(found, work[tested], said_ms, energy[tested]))
                if count > 100:
                    break
    rows = []
    for (count, how, arm), found in scores.items():
        means = {name: float(np.mean([score[name] for score in found])) for name in found[0]}
        spread = {f"{name}_sd": float(np.std([score[name] for score in found], ddof=1)) for name in found[0]}
        rows.append({"samples": count, "how": how, "arm": arm, "seeds": seeds, **means, **spread})
    return rows


def judged(fit: EnergyFit, work: np.ndarray, latency_ms: np.ndarray, energy_mj: np.ndarray) -> dict[str, float]:
    predicted = fit.predict(work, latency_ms)
    error = np.abs(predicted / energy_mj - 1)
    return {
        "rank": float(spearmanr(predicted, energy_mj).statistic),
        "within_10": float(np.mean(error <= 0.10)),
        "mape": float(error.mean()),
        "coverage": float(np.mean(error <= fit.half_width(work, latency_ms))),
    }


def tiny(data: Path) -> dict[str, Any]:
    """Relative error of every network of every system of which all four have energy, by the other three."""
    table = pd.read_csv(data / TINY)
    table = table[table.bench.isin(BENCHES) & table.energy_uj_per_inf.notna() & table.energy_run_throughput_ips.notna()]
    found = [totals(mlperf_tiny_rows(bench)) for bench in BENCHES]  # type: ignore[arg-type]
    names = sorted({name for item in found for name in item})
    work = np.array([[item.get(name, 0.0) for name in names] for item in found])
    errors: dict[str, list[float]] = defaultdict(list)
    systems = 0
    for _, rows in table.groupby(["version", "division", "submitter", "system"]):
        by_bench = rows.drop_duplicates("bench").set_index("bench")
        if not set(BENCHES) <= set(by_bench.index):
            continue
        systems += 1
        latency = 1e3 / by_bench.loc[list(BENCHES), "energy_run_throughput_ips"].to_numpy(float)
        energy = by_bench.loc[list(BENCHES), "energy_uj_per_inf"].to_numpy(float) / 1e3
        for out in range(len(BENCHES)):
            kept = np.arange(len(BENCHES)) != out
            said_ms = fit_few_shot(work[kept], latency[kept]).predict(work[[out]])
            joint = fit_energy(work[kept], latency[kept], energy[kept])
            constant = fit_constant_power(work[kept], latency[kept], energy[kept])
            for arm, predicted in {
                "joint, predicted latency": joint.predict(work[[out]], said_ms),
                "constant power, predicted latency": constant.predict(work[[out]], said_ms),
                "joint, measured latency": joint.predict(work[[out]], latency[[out]]),
                "constant power, measured latency": constant.predict(work[[out]], latency[[out]]),
            }.items():
                errors[arm].append(abs(float(predicted[0]) / float(energy[out]) - 1))
    return {
        "systems": systems,
        "arms": {
            arm: {
                "networks": len(values),
                "median_error": float(np.median(values)),
                "within_10": float(np.mean(np.array(values) <= 0.10)),
                "within_a_factor_of_2": float(np.mean(np.array(values) <= 1.0)),
            }
            for arm, values in errors.items()
        },
    }


def markdown(found: dict[str, Any]) -> str:
    lines = [
        "# B10: energy where it was measured", "", f"First goal: {GOAL}.", "", "Raspberry Pi 5, ONNX Runtime:", "",
        "| samples | taken | energy by | rank | within 10 % | mean error | in the 90 % interval | anchor: rank, 10 % |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in found["raspberry_pi_5"]:
        beside = ANCHORS.get(row["samples"], "") if row["arm"] == "joint" else ""
        lines.append(
            f"| {row['samples']} | {row['how']} | {row['arm']} | {row['rank']:.4f} ± {row['rank_sd']:.4f} "
            f"| {row['within_10']:.1%} ± {row['within_10_sd']:.1%} | {row['mape']:.1%} | {row['coverage']:.1%} "
            f"| {beside} |"
        )
    told = found["mlperf_tiny"]
    lines += [
        "", f"MLPerf Tiny, {told['systems']} systems of four networks, each predicted from the other three:", "",
        "| energy by | predictions | median error | within 10 % | within a factor of 2 |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for arm, row in told["arms"].items():
        lines.append(
            f"| {arm} | {row['networks']} | {row['median_error']:.0%} | {row['within_10']:.0%} "
            f"| {row['within_a_factor_of_2']:.0%} |"
        )
    lines += ["", "±: standard deviation over seeds. Conditions: " + ", ".join(
        f"{key} {value}" for key, value in found["conditions"].items()
    ) + ".", "", "How: " + str(__doc__).split("\n\n", 1)[1].strip()]  # fmt: skip
    return "\n".join(lines) + "\n"


def main(data: str, stem: str | None = None, seeds: int = 5) -> None:
    started = time.monotonic()
    found: dict[str, Any] = {"raspberry_pi_5": raspberry_pi(Path(data), seeds), "mlperf_tiny": tiny(Path(data))}
    found["conditions"] = {
        "seeds": seeds, "cells": 15_625, "distinct": 6_466, "seconds": round(time.monotonic() - started),
        **{name: version(name) for name in ("automc", "numpy", "scipy")},
    }  # fmt: skip
    text = markdown(found)
    print(text)
    if stem is not None:
        Path(f"{stem}.json").write_text(json.dumps(found, indent=1) + "\n")
        Path(f"{stem}.md").write_text(text)


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((str, str, int), sys.argv[1:], strict=False)))
