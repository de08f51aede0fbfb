"""B1: latency of a new device from a few measured networks of a search space, no other device known.

    python benchmarks/b1_few_shot.py --table nasbench201_latency.parquet --space nasbench201 --devices raspi4,fpga \\
        --samples 3,10,20,50,1000 --seeds 5 --json out.json

Each network's work (`automc.cost.work`, for NAS-Bench-201 with what its edges hold, `cell_work`) is priced by a
non-negative fit to the samples (`automc.cost.few_shot`); everything else of the table is predicted. The samples are
chosen by that work alone (`choose`), and, as protocols of their own, drawn at random. Two ways of scoring:

  all    every network that is no sample
  help   HELP's: of 1,000 of these, drawn at random, the middle 80 % by measured latency

Spearman, the shares within 5 and 10 %, the share of the rank correlation that the most samples reach (drawn at random,
scored the same way), and how much of what is predicted lies in the interval that is stated for 90 %. Means over seeds.
The prior of those intervals (`automc.cost.doubt`) was chosen on other columns of HELP's tables, those of the devices
PRIOR_FROM among them; the mean over devices leaves these out.
Rows below 0.05 ms, or not finite, are no measurements: they are left out and counted.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from automc.cost.few_shot import LEAST, FewShotFit, choose, fit_few_shot
from automc.importing.spaces import space_rows, totals
from automc.workloads.nasbench201 import cell_work, operations_of

BROKEN_MS = 0.05
HELP_NETWORKS, HELP_CUT = 1000, 0.1
CHOSEN_UP_TO = 100  # more samples than columns many times over: which ones no longer matters
ARCHITECTURE = {"nasbench201": ("arch_str",), "fbnet": ("op_idx",), "ofa": ("ks", "e", "d", "r")}
PUBLISHED = {
    "nasbench201": (
        "published (HELP, 10 samples, other devices for meta-training): 0.932, mean of Titan RTX, Gold 6226, Pixel 2, "
        "Raspberry Pi 4, Eyeriss and FPGA"
    ),
    "fbnet": (
        "published (HELP, 10 samples, other devices for meta-training): 0.910, mean of Raspberry Pi 4, Eyeriss and "
        "FPGA; 0.41 from GPUs to gold_6226, essential_ph_1, samsung_s7 and pixel2"
    ),
    "ofa": "no published figure",
}
GROUPS: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "nasbench201": (
        (("titan_rtx_256", "gold_6226", "pixel2", "raspi4", "eyeriss", "fpga"), "0.932"),
        (("titan_rtx_1", "gold_6226", "pixel2", "raspi4", "eyeriss", "fpga"), "0.932"),
    ),
    "fbnet": (
        (("raspi4", "eyeriss", "fpga"), "0.910"),
        (("gold_6226", "essential_ph_1", "samsung_s7", "pixel2"), "0.41"),
    ),
    "ofa": (),
}
"""Devices whose mean HELP publishes, at 10 samples, and that mean. Its Titan RTX on NAS-Bench-201 is one of several
batch sizes: the largest and the smallest are both shown."""
PRIOR_FROM = frozenset({"pixel3", "samsung_a50", "silver_4114", "silver_4210r"})
MEASURES = ("spearman", "within_5", "within_10", "ceiling_share", "coverage")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="Parquet or CSV: architecture columns, ms by device")
    parser.add_argument("--space", choices=sorted(ARCHITECTURE), required=True)
    parser.add_argument("--devices", required=True, help="columns of the table, with commas between")
    parser.add_argument("--samples", default="3,10,20,50,1000")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--md", type=Path, help="also a table to read")
    arguments = parser.parse_args()
    devices = arguments.devices.split(",")
    samples = sorted(int(count) for count in arguments.samples.split(","))
    if samples[0] < LEAST:
        parser.error(f"--samples: {samples[0]} are too few for a fit, {LEAST} at least")
    started = time.monotonic()
    table = read(arguments.table, (*ARCHITECTURE[arguments.space], *devices))
    work = columns_of(arguments.space, table)
    rows: list[dict[str, Any]] = []
    broken = {}
    for device in devices:
        latency = np.asarray(table[device], dtype=np.float64)
        usable = np.isfinite(latency) & (latency > BROKEN_MS)
        broken[device] = int((~usable).sum())
        rows += of_device(device, work[usable], latency[usable], samples, arguments.seeds)
        print(f"{device}: {time.monotonic() - started:.0f} s", flush=True)
    found = {
        "rows": rows,
        "published": PUBLISHED[arguments.space],
        "conditions": {
            "table": arguments.table.name,
            "sha256": hashlib.sha256(arguments.table.read_bytes()).hexdigest(),
            "space": arguments.space,
            "networks": len(work),
            "columns": work.shape[1],
            "broken_rows": broken,
            "seeds": arguments.seeds,
            "ceiling_samples": samples[-1],
            "versions": {name: version(name) for name in ("numpy", "scipy")},
            "seconds": round(time.monotonic() - started, 1),
        },
    }
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    text = as_markdown(found)
    if arguments.md:
        arguments.md.write_text(text)
    print(text)


def read(path: Path, names: tuple[str, ...]) -> dict[str, list[Any]]:
    """Columns by name. Raises SystemExit naming what is not there."""
    if not path.is_file():
        raise SystemExit(f"{path}: no such file")
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            listed = list(csv.DictReader(file))
        have = list(listed[0]) if listed else []
        missing = [name for name in names if name not in have]
    else:
        from pyarrow import parquet

        have = parquet.read_schema(path).names
        missing = [name for name in names if name not in have]
    if missing:
        raise SystemExit(f"{path}: no column {', '.join(missing)}; it has {', '.join(have)}")
    if path.suffix == ".csv":
        return {name: [row[name] for row in listed] for name in names}
    columns = parquet.read_table(path, columns=list(names))
    return {name: columns.column(name).to_pylist() for name in names}


def columns_of(space: str, table: dict[str, list[Any]]) -> np.ndarray:
    """(n, k) work of every network; columns that are the same for all are left out: the constant has them."""
    names = ARCHITECTURE[space]
    cells = [dict(zip(names, values, strict=True)) for values in zip(*(table[name] for name in names), strict=True)]
    found = [totals(space_rows(space, cell)) for cell in cells]  # type: ignore[arg-type]
    keys = sorted({key for item in found for key in item})
    work = np.array([[item.get(key, 0.0) for key in keys] for item in found])
    if space == "nasbench201":
        work = np.column_stack([work, cell_work([operations_of(cell["arch_str"]) for cell in cells])])
    varying: np.ndarray = work[:, np.ptp(work, axis=0) > 0]
    return varying


def of_device(
    device: str, work: np.ndarray, latency: np.ndarray, samples: list[int], seeds: int
) -> list[dict[str, Any]]:
    """Rows of one device, means over seeds."""
    scores: dict[tuple[int, str], list[dict[str, float]]] = {}
    for seed in range(seeds):
        ceilings: dict[str, float] = {}
        for count in reversed(samples):
            for how in ("", ", random samples"):
                if how or count > CHOSEN_UP_TO:
                    taken = np.random.default_rng([seed, count]).choice(len(work), count, replace=False)
                else:
                    taken = choose(work, count, seed)
                fit = fit_few_shot(work[taken], latency[taken])
                for protocol, tested in (("all", rest(len(work), taken)), ("help", help_rest(latency, taken, seed))):
                    score = judged(fit, work[tested], latency[tested])
                    score["ceiling_share"] = score["spearman"] / ceilings.setdefault(protocol, score["spearman"])
                    scores.setdefault((count, protocol + how), []).append(score)
                if count > CHOSEN_UP_TO:  # both ways are one
                    break
    return [
        {
            "device": device,
            "samples": count,
            "protocol": protocol,
            **{name: round(float(np.mean([score[name] for score in found])), 4) for name in MEASURES},
        }
        for (count, protocol), found in sorted(scores.items())
    ]


def rest(networks: int, taken: np.ndarray) -> np.ndarray:
    return np.setdiff1d(np.arange(networks), taken)


def help_rest(latency: np.ndarray, taken: np.ndarray, seed: int) -> np.ndarray:
    others = rest(len(latency), taken)
    drawn = np.random.default_rng([seed, 1]).choice(others, min(HELP_NETWORKS, len(others)), replace=False)
    cut = int(len(drawn) * HELP_CUT)
    middle: np.ndarray = drawn[np.argsort(latency[drawn], kind="stable")][cut : len(drawn) - cut]
    return middle


def judged(fit: FewShotFit, work: np.ndarray, latency: np.ndarray) -> dict[str, float]:
    predicted = fit.predict(work)
    error = np.abs(predicted / latency - 1)
    return {
        "spearman": float(spearmanr(predicted, latency).statistic),
        "within_5": float(np.mean(error <= 0.05)),
        "within_10": float(np.mean(error <= 0.10)),
        "coverage": float(np.mean(error <= fit.half_width(work))),
    }


def as_markdown(found: dict[str, Any]) -> str:
    told = found["conditions"]
    lines = [
        f"# B1, {told['space']}: rank and error of a device from a few of its networks, no other device",
        "",
        f"{told['table']}, {told['networks']} networks, means over {told['seeds']} seeds. Ceiling: "
        f"{told['ceiling_samples']} random samples. {found['published'][0].upper()}{found['published'][1:]}.",
        "",
        "| device | samples | protocol | Spearman | within 5 % | within 10 % | of the ceiling | in the 90 % interval |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['device']} | {row['samples']} | {row['protocol']} | {row['spearman']:.3f} | {row['within_5']:.1%} "
            f"| {row['within_10']:.1%} | {row['ceiling_share']:.1%} | {row['coverage']:.1%} |"
        )
    return "\n".join([*lines, *_means(found), *_intervals(found)]) + "\n"


def _means(found: dict[str, Any]) -> list[str]:
    """Means over the devices whose mean is published, where all of them were run."""
    groups = GROUPS[found["conditions"]["space"]]
    lines = [
        "",
        "| mean over | samples | protocol | Spearman | published (HELP, 10 samples) | of the ceiling |",
        "|---|---|---|---|---|---|",
    ]
    for devices, published in groups:
        for samples, protocol in dict.fromkeys((row["samples"], row["protocol"]) for row in found["rows"]):
            rows = [
                row
                for row in found["rows"]
                if row["device"] in devices and (row["samples"], row["protocol"]) == (samples, protocol)
            ]
            if len(rows) == len(devices):
                spearman, share = (float(np.mean([row[key] for row in rows])) for key in ("spearman", "ceiling_share"))
                beside = published if samples == 10 and protocol.startswith("help") else ""
                lines.append(
                    f"| {', '.join(devices)} | {samples} | {protocol} | {spearman:.3f} | {beside} | {share:.1%} |"
                )
    return lines if len(lines) > 3 else []


def _intervals(found: dict[str, Any]) -> list[str]:
    """How much the 90 % intervals hold, over the devices that had no say in their prior."""
    judged_on = [row for row in found["rows"] if row["device"] not in PRIOR_FROM]
    if not judged_on:
        return []
    devices = len({row["device"] for row in judged_on})
    lines = ["", f"| {devices} devices, samples | protocol | in the 90 % interval: mean | smallest | largest |"]
    lines.append("|---|---|---|---|---|")
    for samples, protocol in dict.fromkeys((row["samples"], row["protocol"]) for row in judged_on):
        held = [row["coverage"] for row in judged_on if (row["samples"], row["protocol"]) == (samples, protocol)]
        lines.append(f"| {samples} | {protocol} | {np.mean(held):.1%} | {min(held):.1%} | {max(held):.1%} |")
    return lines


if __name__ == "__main__":
    main()
